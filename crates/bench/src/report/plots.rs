//! The plots of a run.

use super::svg::{Bar, bars, line};
use crate::goals::{self, Measured, Row};

/// The plots of what was measured, each with the name of its file.
pub(super) fn all(rows: &[Row]) -> Vec<(&'static str, String)> {
    let mut plots = Vec::new();
    let mut add = |name, title, unit, of: &[&Row]| {
        let bars_of = distinct(of);
        if !bars_of.is_empty() {
            plots.push((name, bars(title, unit, &bars_of)));
        }
    };
    let [cycles, etcd, echo] = [goals::CYCLES, goals::ETCD, goals::ECHO].map(|row| &rows[row]);
    add("cycles.svg", "Acquire and release, 256 in flight", "cycles/s", &[cycles, etcd, echo]);
    add("alone.svg", "One caller alone, median", "ms", &[&rows[goals::ALONE]]);
    let [redeem, graphile] = [goals::REDEEM, goals::GRAPHILE].map(|row| &rows[row]);
    add("redemptions.svg", "Redemptions", "redemptions/s", &[redeem, graphile]);
    add("size.svg", "Acquire in a large and a small pool, median", "ms", &[&rows[goals::SIZE]]);
    let overload = only(&rows[goals::OVERLOAD], "cycles/s");
    add("overload.svg", "Ten times the load that saturates", "cycles/s", &[&overload]);
    let curve = &rows[goals::MEMORY].curve;
    if !curve.is_empty() {
        #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let points: Vec<_> = curve.iter().map(|(items, mb)| (*items as f64, *mb)).collect();
        let title = "Memory of the server over one stream";
        plots.push(("memory.svg", line(title, "items", "MB", &points)));
    }
    plots
}

/// What was measured in some rows, each once: what is ours stands in every one of them, first.
fn distinct(rows: &[&Row]) -> Vec<Bar> {
    let mut found: Vec<Bar> = Vec::new();
    for row in rows {
        for (index, measured) in row.measured.iter().enumerate() {
            if !found.iter().any(|bar| bar.label == measured.what) {
                found.push(bar(measured, index == 0));
            }
        }
    }
    found
}

fn only(row: &Row, unit: &str) -> Row {
    let mut row = row.clone();
    row.measured.retain(|measured| measured.unit == unit);
    row
}

fn bar(measured: &Measured, ours: bool) -> Bar {
    let Measured { what, median, least, most, .. } = measured;
    Bar { label: what.clone(), value: *median, least: *least, most: *most, ours }
}
