//! Phases of the hour, and what was flat: before the long-running transaction, and after it; and what grew meanwhile.
//!
//! A phase is cut into quarters. Its first is for settling down; flat is what in the last quarter is, by the
//! medians, not more than a bound times what it was in the second. Dead rows must also be as few after the
//! transaction as before. Times must stay within their bound even while it is open. Tables and indexes grow
//! then, and keep their pages: Postgres has to keep all that died meanwhile.

use std::time::Duration;

use serde::Serialize;

use super::watch::{Sample, Window};
use crate::stats::median;

/// How much more of something there may be late in a phase than early: pages are kept once they are there;
/// dead rows rise and fall as Postgres clears up; times depend on what else the machine does.
const SIZES: f64 = 1.1;
const DEAD_ROWS: f64 = 1.5;
const TIMES: f64 = 1.5;
const MEMORY: f64 = 1.1;
/// Fewer dead rows than this are none to speak of.
const FEW_DEAD_ROWS: f64 = 5_000.0;
/// Neither are indexes of less, in MB.
const SMALL_MB: f64 = 1.0;

/// A part of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Before,
    /// While the long-running transaction is open.
    Held,
    After,
}

impl Phase {
    /// From when to when it is.
    pub(super) fn within(self, lasting: Duration) -> (Duration, Duration) {
        let (third, half) = (lasting / 3, lasting / 2);
        match self {
            Self::Before => (Duration::ZERO, third),
            Self::Held => (third, half),
            Self::After => (half, lasting),
        }
    }
}

/// How something went. Medians of the phases.
#[derive(Serialize)]
pub(crate) struct Course {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) before: f64,
    pub(crate) held: f64,
    /// In the last quarter of that, by the median before.
    pub(crate) held_by_before: f64,
    pub(crate) after: f64,
    pub(crate) after_by_before: f64,
    /// Late by early, before and after.
    pub(crate) late_by_early: [f64; 2],
    /// The most that those may be; none of what grows by design.
    pub(crate) bound: Option<f64>,
    pub(crate) flat: Option<bool>,
}

/// Values over time.
type Points = Vec<(f64, f64)>;

/// How all of it went.
pub(super) fn courses(samples: &[Sample], windows: &[Window], lasting: Duration) -> Vec<Course> {
    let of = |value: &dyn Fn(&Sample) -> f64| -> Points {
        samples.iter().map(|sample| (sample.at, value(sample))).collect()
    };
    let times = |value: &dyn Fn(&Window) -> f64| -> Points {
        windows.iter().map(|window| (window.at, value(window))).collect()
    };
    let mut courses = Vec::new();
    let p50 = times(&|window| window.p50_ms);
    courses.push(course("acquire p50", "ms", Some(TIMES), 0.0, &p50, lasting).always(true));
    let p99 = times(&|window| window.p99_ms);
    courses.push(course("acquire p99", "ms", Some(TIMES), 0.0, &p99, lasting).always(true));
    for name in ["accounts", "redemptions"] {
        let dead = of(&|sample| sample.counters.table(name).dead_rows);
        let what = format!("{name}: dead rows");
        let course = course(&what, "", Some(DEAD_ROWS), FEW_DEAD_ROWS, &dead, lasting);
        courses.push(course.always(false));
    }
    let mut add = |what: &str, unit, bound, least, points: Points| {
        courses.push(course(what, unit, bound, least, &points, lasting));
    };
    add("acquire, the longest", "ms", None, 0.0, times(&|window| window.most_ms));
    add("memory of the server", "MB", Some(MEMORY), 0.0, of(&|sample| sample.server_mb));
    let accounts = of(&|sample| sample.counters.table("accounts").bytes / 1e6);
    add("accounts", "MB", Some(SIZES), SMALL_MB, accounts);
    for (name, index) in samples.first().iter().flat_map(|sample| &sample.counters.indexes) {
        let bytes = |sample: &Sample| sample.counters.indexes.get(name).map_or(0.0, |it| it.bytes);
        // The others of these tables have an entry for each row, for good.
        if index.table == "accounts"
            || ["redemptions_open", "redemptions_due"].contains(&name.as_str())
        {
            add(name, "MB", Some(SIZES), SMALL_MB, of(&|sample| bytes(sample) / 1e6));
        } else {
            let rows = |sample: &Sample| sample.counters.table(&index.table).inserted.max(1.0);
            let what = format!("{name}, of a row");
            add(&what, "bytes", Some(SIZES), 0.0, of(&|sample| bytes(sample) / rows(sample)));
        }
    }
    for name in ["account_events", "redemptions"] {
        let of_a_row = of(&|sample| {
            let table = sample.counters.table(name);
            table.bytes / table.inserted.max(1.0)
        });
        add(&format!("{name}, of a row"), "bytes", Some(SIZES), 0.0, of_a_row);
        let rows = of(&|sample| sample.counters.table(name).inserted / 1e6);
        add(&format!("{name}: rows"), "million", None, 0.0, rows);
    }
    let rate = |value: &dyn Fn(&Sample) -> f64, by: &dyn Fn(&Sample) -> f64| -> Points {
        let pairs = samples.windows(2).filter_map(|pair| {
            let by = by(&pair[1]) - by(&pair[0]);
            (by > 0.0).then(|| (pair[1].at, (value(&pair[1]) - value(&pair[0])) / by))
        });
        pairs.collect()
    };
    let transitions = |sample: &Sample| sample.counters.table("account_events").inserted;
    let wal = rate(&|sample| sample.counters.wal_bytes, &transitions);
    add("WAL of a transition", "bytes", None, 0.0, wal);
    let hot = rate(&|sample| 100.0 * sample.counters.table("accounts").hot_updated, &|sample| {
        sample.counters.table("accounts").updated
    });
    add("accounts: HOT updates", "%", None, 0.0, hot);
    let vacuums =
        rate(&|sample| sample.counters.table("accounts").autovacuums * 60.0, &|sample| sample.at);
    let of_phases = means(&vacuums, lasting);
    let mut course = course("accounts: autovacuums a minute", "", None, 0.0, &vacuums, lasting);
    [course.before, course.held, course.after] = of_phases;
    courses.push(course);
    courses
}

/// Means of the phases, for what is mostly nothing.
fn means(points: &Points, lasting: Duration) -> [f64; 3] {
    [Phase::Before, Phase::Held, Phase::After].map(|phase| {
        let values = within(points, share(phase, lasting, 0.0, 1.0));
        #[allow(clippy::cast_precision_loss, reason = "a few hundred")]
        let count = values.len().max(1) as f64;
        values.iter().sum::<f64>() / count
    })
}

fn course(
    what: &str,
    unit: &'static str,
    bound: Option<f64>,
    least: f64,
    points: &Points,
    lasting: Duration,
) -> Course {
    let of = |phase, from, to| median(&within(points, share(phase, lasting, from, to)));
    let before = of(Phase::Before, 0.25, 1.0);
    let late_by_early = [Phase::Before, Phase::After].map(|phase| {
        let (early, late) = (of(phase, 0.25, 0.5), of(phase, 0.75, 1.0));
        late.max(least) / early.max(least)
    });
    let by_before = |value: f64| value.max(least) / before.max(least);
    let after = of(Phase::After, 0.25, 1.0);
    Course {
        what: what.to_owned(),
        unit,
        before,
        held: of(Phase::Held, 0.0, 1.0),
        held_by_before: by_before(of(Phase::Held, 0.75, 1.0)),
        after,
        after_by_before: by_before(after),
        late_by_early,
        bound,
        flat: bound.map(|bound| late_by_early.iter().all(|ratio| *ratio <= bound)),
    }
}

impl Course {
    /// Flat only if there is no more of it after the long-running transaction than before, and, where asked, while it is open.
    fn always(mut self, also_while_held: bool) -> Self {
        let most = if also_while_held { self.held_by_before } else { 0.0 };
        let bound = self.bound.unwrap_or(f64::INFINITY);
        let flat = most <= bound && self.after_by_before <= bound;
        self.flat = self.flat.map(|before| before && flat);
        self
    }
}

/// Seconds between two shares of a phase.
fn share(phase: Phase, lasting: Duration, from: f64, to: f64) -> (f64, f64) {
    let (begun, ended) = phase.within(lasting);
    let (begun, length) = (begun.as_secs_f64(), (ended - begun).as_secs_f64());
    (begun + from * length, begun + to * length)
}

fn within(points: &Points, (from, to): (f64, f64)) -> Vec<f64> {
    points.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, value)| *value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTING: Duration = Duration::from_secs(120);

    /// A value for each second.
    fn points(value: impl Fn(f64) -> f64) -> Points {
        (0..=120).map(f64::from).map(|at| (at, value(at))).collect()
    }

    #[test]
    fn what_grows_only_during_the_long_transaction_is_flat() {
        // It is open from 40 to 60 s.
        let grown = points(|at| 10.0 + (at - 40.0).clamp(0.0, 20.0));
        let course = course("size", "MB", Some(SIZES), 0.0, &grown, LASTING);
        assert_eq!((course.before, course.after, course.flat), (10.0, 30.0, Some(true)));
        assert!((2.5..=3.0).contains(&course.held_by_before), "{}", course.held_by_before);
        // But not where it has to be as little as before.
        assert_eq!(course.always(false).flat, Some(false));
        let there = points(|at| if (40.0..60.0).contains(&at) { 30.0 } else { 10.0 });
        for (also_while_held, flat) in [(false, true), (true, false)] {
            let course = super::course("p99", "ms", Some(TIMES), 0.0, &there, LASTING);
            assert_eq!(course.always(also_while_held).flat, Some(flat));
        }
    }

    #[test]
    fn what_goes_on_growing_is_not_flat() {
        for (from, to) in [(0.0, 40.0), (60.0, 120.0)] {
            let growing = points(|at| 10.0 + (at.clamp(from, to) - from));
            let course = course("size", "MB", Some(SIZES), 0.0, &growing, LASTING);
            assert_eq!(course.flat, Some(false));
        }
    }

    #[test]
    fn a_little_more_of_almost_nothing_is_flat() {
        let few = points(|at| if at > 100.0 { 50.0 } else { 1.0 });
        let course = course("dead", "", Some(DEAD_ROWS), FEW_DEAD_ROWS, &few, LASTING);
        assert_eq!(course.flat, Some(true));
    }
}
