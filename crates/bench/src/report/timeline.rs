//! Plots over time, one under the other, with a part of the time marked.

use std::fmt::Write as _;

use super::svg::{TEXT, THEIRS, WIDTH, begin, escaped};

const COLOURS: [&str; 6] = ["#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#854d0e"];
const LEFT: f64 = 60.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 56.0;
const PANEL: f64 = 150.0;
const GAP: f64 = 40.0;

/// Lines over the same axis.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) series: Vec<Series>,
}

/// A line through points.
pub(super) struct Series {
    pub(super) label: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Panels with axes that begin at nothing.
pub(super) fn timeline(
    title: &str,
    x_label: &str,
    marked: (f64, f64),
    panels: &[Panel],
    number: impl Fn(f64) -> String,
) -> String {
    let all = || panels.iter().flat_map(|panel| &panel.series).flat_map(|series| &series.points);
    let most_x = all().map(|point| point.0).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LEFT + value / most_x * (WIDTH - LEFT - RIGHT);
    #[allow(clippy::cast_precision_loss, reason = "there are a few panels")]
    let bottom = TOP + panels.len() as f64 * (PANEL + GAP);
    let mut svg = begin(bottom + 8.0, title);
    let mut top = TOP;
    for panel in panels {
        let points = panel.series.iter().flat_map(|series| &series.points);
        let most_y = points.map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max) * 1.05;
        let y = |value: f64| top + PANEL - value / most_y * PANEL;
        let (from, to) = (x(marked.0), x(marked.1));
        let _ = write!(
            svg,
            r#"<text x="{LEFT}" y="{above:.1}" fill="{TEXT}">{name}</text>
<rect x="{from:.1}" y="{top:.1}" width="{width:.1}" height="{PANEL}" fill="{THEIRS}" fill-opacity="0.3"/>
"#,
            above = top - 8.0,
            name = escaped(&panel.title),
            width = to - from,
        );
        for share in [0.0, 0.5, 1.0] {
            let (at, text) = (y(most_y * share), number(most_y * share));
            let _ = write!(
                svg,
                r#"<path d="M{LEFT} {at:.1}H{right}" stroke="{THEIRS}" stroke-opacity="0.4"/>
<text x="{before}" y="{at:.1}" fill="{TEXT}" text-anchor="end">{text}</text>
"#,
                right = WIDTH - RIGHT,
                before = LEFT - 6.0,
            );
        }
        let mut legend = top + 12.0;
        for (series, colour) in panel.series.iter().zip(COLOURS.iter().cycle()) {
            let mut path = String::new();
            for (index, point) in series.points.iter().enumerate() {
                let command = if index == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{command}{:.1} {:.1}", x(point.0), y(point.1));
            }
            let _ = write!(
                svg,
                r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>
<text x="{beside}" y="{legend}" fill="{colour}">{label}</text>
"#,
                beside = WIDTH - RIGHT + 8.0,
                label = escaped(&series.label),
            );
            legend += 16.0;
        }
        top += PANEL + GAP;
    }
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (at, text) = (x(most_x * share), number(most_x * share));
        let _ = writeln!(
            svg,
            r#"<text x="{at:.1}" y="{below:.1}" fill="{TEXT}" text-anchor="middle">{text}</text>"#,
            below = bottom - GAP + 16.0,
        );
    }
    let _ = write!(
        svg,
        r#"<text x="{middle}" y="{below:.1}" fill="{TEXT}" text-anchor="middle">{x_label}</text>
</svg>
"#,
        middle = (LEFT + WIDTH - RIGHT) / 2.0,
        below = bottom - GAP + 32.0,
        x_label = escaped(x_label),
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marked_time_and_the_lines_have_the_same_axis() {
        let series = Series { label: "a".to_owned(), points: vec![(0.0, 0.0), (10.0, 1.0)] };
        let panels = [Panel { title: "p".to_owned(), series: vec![series] }];
        let svg = timeline("t", "minutes", (5.0, 10.0), &panels, |value| value.to_string());
        assert!(svg.contains(r#"<rect x="295.0" y="56.0" width="235.0""#), "{svg}");
        assert!(svg.contains("M60.0 206.0L530.0 "), "{svg}");
    }
}
