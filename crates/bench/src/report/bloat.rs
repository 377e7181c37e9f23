//! The report of an hour at half load: as a table, and as a plot over time.

use std::fmt::Write as _;

use super::{
    svg,
    table::rounded,
    timeline::{Panel, Series, timeline},
};
use crate::figures::bloat::{Bloat, Sample};

pub(super) const PLOT: &str = "bloat.svg";

pub(super) fn markdown(bloat: &Bloat) -> String {
    let Bloat { minutes, peak_cycles_per_second: peak, long_transaction: (from, to), .. } = bloat;
    let (cycles, redemptions) = (bloat.cycles_per_second, bloat.redemptions_per_second);
    let mut text = format!(
        "{minutes} minutes with {} cycles/s and {} redemptions/s, where {} cycles/s were the peak. A \
         long-running transaction was open from {:.1} to {:.1} minutes. Medians; bounds are of late ÷ early.\n\n\
         | | before | while held | its end ÷ before | after | ÷ before | late ÷ early, before | after | bound | flat |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|:-:|\n",
        rounded(cycles),
        rounded(redemptions),
        rounded(*peak),
        from / 60.0,
        to / 60.0,
    );
    for course in &bloat.courses {
        let with_unit =
            |value: f64| format!("{} {}", rounded(value), course.unit).trim().to_owned();
        let cells = [
            with_unit(course.before),
            with_unit(course.held),
            ratio(course.held_by_before),
            with_unit(course.after),
            ratio(course.after_by_before),
            ratio(course.late_by_early[0]),
            ratio(course.late_by_early[1]),
            course.bound.map(rounded).unwrap_or_default(),
            course.flat.map(|flat| if flat { "yes" } else { "no" }).unwrap_or("").to_owned(),
        ];
        let _ = writeln!(text, "| {} | {} |", course.what, cells.join(" | "));
    }
    let _ =
        writeln!(text, "\n- all that is to be flat was: {}", if bloat.flat { "yes" } else { "no" });
    for note in &bloat.notes {
        let _ = writeln!(text, "- {note}");
    }
    let _ = write!(text, "- {}", bloat.machine);
    text
}

/// A ratio, if there is one.
fn ratio(value: f64) -> String {
    if value.is_finite() { rounded(value) } else { "–".to_owned() }
}

/// Sizes, dead rows and times, with the time of the long-running transaction marked.
pub(super) fn plot(bloat: &Bloat) -> String {
    let of = |label: &str, value: &dyn Fn(&Sample) -> f64| Series {
        label: label.to_owned(),
        points: bloat.samples.iter().map(|it| (it.at / 60.0, value(it))).collect(),
    };
    let index = |name: &'static str| {
        of(name, &|it| it.counters.indexes.get(name).map_or(0.0, |index| index.bytes / 1e6))
    };
    let table = |name: &'static str| of(name, &|it| it.counters.table(name).bytes / 1e6);
    let dead = |name: &'static str| of(name, &|it| it.counters.table(name).dead_rows / 1e3);
    let times = |label: &str, value: &dyn Fn(&crate::figures::bloat::Window) -> f64| Series {
        label: label.to_owned(),
        points: bloat.windows.iter().map(|it| (it.at / 60.0, value(it))).collect(),
    };
    let sizes = ["accounts_pkey", "leases_pkey", "leases_end", "redemptions_open"];
    let panels = [
        Panel {
            title: "sizes, MB".to_owned(),
            series: std::iter::once(table("accounts")).chain(sizes.map(index)).collect(),
        },
        Panel {
            title: "dead rows, thousands".to_owned(),
            series: vec![dead("accounts"), dead("redemptions")],
        },
        Panel {
            title: "acquire, ms".to_owned(),
            series: vec![times("p99", &|it| it.p99_ms), times("p50", &|it| it.p50_ms)],
        },
    ];
    let (from, to) = bloat.long_transaction;
    let title = "Half load; a long-running transaction is open in the shaded time";
    timeline(title, "minutes", (from / 60.0, to / 60.0), &panels, svg::number)
}
