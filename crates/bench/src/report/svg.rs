//! Plots as SVG, written by hand: bars with their spread, and a line.
//!
//! The colours are readable on light and on dark pages.

use std::fmt::Write as _;

pub(super) const WIDTH: f64 = 720.0;
pub(super) const TEXT: &str = "#6b7280";
const OURS: &str = "#2563eb";
pub(super) const THEIRS: &str = "#9ca3af";

/// A bar, from nothing to its value.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// What this is about; the others are what it is compared with.
    pub(crate) ours: bool,
}

/// Bars that lie, one under the other, each with a line from its least to its most.
pub(crate) fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    const ROW: f64 = 46.0;
    const TOP: f64 = 44.0;
    const ROOM: f64 = WIDTH - 140.0;
    let most = bars.iter().map(|bar| bar.most.max(bar.value)).fold(f64::MIN_POSITIVE, f64::max);
    #[allow(clippy::cast_precision_loss, reason = "there are a few bars")]
    let height = TOP + ROW * bars.len() as f64 + 8.0;
    let mut svg = begin(height, title);
    let mut y = TOP;
    for bar in bars {
        let [value, least, most] = [bar.value, bar.least, bar.most].map(|it| it / most * ROOM);
        let colour = if bar.ours { OURS } else { THEIRS };
        let label = escaped(&bar.label);
        let number = number(bar.value);
        let (base, middle, end) = (y + 13.0, y + 27.0, value.max(most) + 18.0);
        let _ = write!(
            svg,
            r#"<text x="10" y="{base}" fill="{TEXT}">{label}</text>
<rect x="10" y="{top}" width="{value:.1}" height="16" rx="2" fill="{colour}"/>
<path d="M{from:.1} {middle}H{to:.1}" stroke="{TEXT}" stroke-width="2"/>
<text x="{end:.1}" y="{text}" fill="{TEXT}">{number} {unit}</text>
"#,
            top = y + 19.0,
            text = y + 32.0,
            from = least + 10.0,
            to = most + 10.0,
        );
        y += ROW;
    }
    svg.push_str("</svg>\n");
    svg
}

/// A line through points, over axes that begin at nothing.
pub(crate) fn line(title: &str, x_label: &str, y_label: &str, points: &[(f64, f64)]) -> String {
    const HEIGHT: f64 = 280.0;
    const LEFT: f64 = 60.0;
    const TOP: f64 = 44.0;
    const RIGHT: f64 = 20.0;
    const BOTTOM: f64 = 44.0;
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MIN_POSITIVE, f64::max);
    let most_x = most(&mut points.iter().map(|point| point.0));
    let most_y = most(&mut points.iter().map(|point| point.1)) * 1.1;
    let x = |value: f64| LEFT + value / most_x * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / most_y * (HEIGHT - TOP - BOTTOM);
    let mut svg = begin(HEIGHT, title);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (at_x, at_y) = (x(most_x * share), y(most_y * share));
        let (x_text, y_text) = (number(most_x * share), number(most_y * share));
        let _ = write!(
            svg,
            r#"<path d="M{LEFT} {at_y:.1}H{right}" stroke="{THEIRS}" stroke-opacity="0.4"/>
<text x="{before}" y="{at_y:.1}" fill="{TEXT}" text-anchor="end">{y_text}</text>
<text x="{at_x:.1}" y="{below}" fill="{TEXT}" text-anchor="middle">{x_text}</text>
"#,
            right = WIDTH - RIGHT,
            before = LEFT - 6.0,
            below = HEIGHT - BOTTOM + 16.0,
        );
    }
    let mut path = String::new();
    for (index, point) in points.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{command}{:.1} {:.1}", x(point.0), y(point.1));
    }
    let (x_label, y_label) = (escaped(x_label), escaped(y_label));
    let _ = write!(
        svg,
        r#"<path d="{path}" fill="none" stroke="{OURS}" stroke-width="2"/>
<text x="{middle}" y="{below}" fill="{TEXT}" text-anchor="middle">{x_label}</text>
<text x="10" y="{top}" fill="{TEXT}">{y_label}</text>
</svg>
"#,
        middle = WIDTH / 2.0,
        below = HEIGHT - 8.0,
        top = TOP - 8.0,
    );
    svg
}

pub(super) fn begin(height: f64, title: &str) -> String {
    let title = escaped(title);
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13" role="img" aria-label="{title}">
<text x="10" y="20" fill="{TEXT}" font-size="15" font-weight="bold">{title}</text>
"#
    )
}

pub(super) fn number(value: f64) -> String {
    match value {
        _ if value == 0.0 => "0".to_owned(),
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_value() {
        let bar = |label: &str, value| Bar {
            label: label.to_owned(),
            value,
            least: value,
            most: value,
            ours: false,
        };
        let svg = bars("a < b", "/s", &[bar("half", 50.0), bar("whole", 100.0)]);
        assert!(svg.contains(r#"width="290.0""#) && svg.contains(r#"width="580.0""#), "{svg}");
        assert!(svg.contains("a &lt; b"));
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let svg = line("t", "x", "y", &[(0.0, 0.0), (10.0, 10.0)]);
        assert!(svg.contains("M60.0 236.0L700.0 "), "{svg}");
    }
}
