//! Progress of a batch: a bar on a terminal, otherwise a line every few seconds. On stderr.

use std::{
    fmt, io,
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::{cli::shared::output, rpc::pb};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How wide a terminal is that does not say.
const USUAL_WIDTH: usize = 80;
/// The longest bar, and the shortest that is worth showing.
const BAR: std::ops::RangeInclusive<usize> = 8..=30;

/// See the module.
pub(in crate::cli) struct Progress {
    bar: ProgressBar,
    label: String,
    last_line: Mutex<Instant>,
}

impl Progress {
    /// A bar of its own.
    pub(in crate::cli) fn new(label: String) -> Self {
        Self::with(ProgressBar::new(0), label)
    }

    /// A bar among others.
    pub(in crate::cli) fn among(bars: &MultiProgress, label: String) -> Self {
        Self::with(bars.add(ProgressBar::new(0)), label)
    }

    fn with(bar: ProgressBar, label: String) -> Self {
        // The line is made here, because it has to fit.
        let style = ProgressStyle::with_template("{msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, label, last_line: Mutex::new(Instant::now()) }
    }

    /// How many items there are.
    pub(super) fn set_total(&self, items: u64) {
        self.bar.set_length(items);
    }

    /// Shows what the server says of the batch.
    pub(super) fn show(&self, now: &pb::BatchProgress) {
        let done = now.succeeded + now.failed + now.in_doubt + now.rejected;
        self.bar.set_position(done.unsigned_abs());
        let state = State {
            label: &self.label,
            done: done.unsigned_abs(),
            total: self.bar.length().unwrap_or_default(),
            rate: self.bar.per_sec(),
            left: self.bar.eta(),
            now,
        };
        if self.bar.is_hidden() && self.line_is_due() {
            output::note(state.long());
        }
        self.bar.set_message(state.fitting(width()));
    }

    fn line_is_due(&self) -> bool {
        let Ok(mut last) = self.last_line.lock() else { return false };
        let due = last.elapsed() >= LINE_EVERY;
        if due {
            *last = Instant::now();
        }
        due
    }

    /// Writes a line above the bar.
    pub(super) fn note(&self, text: impl fmt::Display) {
        self.aside(|| output::note(text));
    }

    /// Does something with the terminal while the bar is out of the way.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Takes the bar away.
    pub(in crate::cli) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar is taken away also where an error ends what it shows.
impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// How many characters a line of the terminal has.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    columns.unwrap_or(USUAL_WIDTH)
}

/// What is shown of a batch.
struct State<'a> {
    label: &'a str,
    done: u64,
    total: u64,
    /// Items a second.
    rate: f64,
    left: Duration,
    now: &'a pb::BatchProgress,
}

impl State<'_> {
    /// All of it.
    fn long(&self) -> String {
        format!(
            "{}: {} of {}, {}: {}",
            self.label,
            self.done,
            self.total,
            self.rate_and_time(),
            self.counts()
        )
    }

    /// As much of it as one line of so many characters has room for: what matters least is left out first.
    fn fitting(&self, width: usize) -> String {
        // A terminal breaks a line that fills it.
        let width = width.saturating_sub(1);
        let done = format!("{}/{}", self.done, self.total);
        let rated = format!("{done} {}", self.rate_and_time());
        let counted = format!("{rated}; {}", self.counts());
        let short = format!("{rated}; {}", self.short_counts());
        let text = [counted, short, rated, done].into_iter().find(|text| text.len() <= width);
        let text = text.unwrap_or_default();
        let room = width - text.chars().count();
        let labelled = format!("{} ", self.label);
        let label = if labelled.chars().count() <= room { labelled } else { String::new() };
        let room = room - label.chars().count();
        // With its brackets and a space.
        let bar = room.saturating_sub(3).min(*BAR.end());
        let bar = if BAR.contains(&bar) { self.bar(bar) } else { String::new() };
        format!("{label}{bar}{text}")
    }

    fn bar(&self, cells: usize) -> String {
        let share = self.done as f64 / (self.total.max(1) as f64);
        // In 0 to the number of cells, which is small.
        let full = ((share * cells as f64) as usize).min(cells);
        format!("[{}{}] ", "#".repeat(full), ".".repeat(cells - full))
    }

    fn rate_and_time(&self) -> String {
        if self.done == 0 || self.rate < 0.001 {
            return "0/s".to_owned();
        }
        // Nobody knows for how long they wait: what the rate makes of it would be days.
        if self.now.held_back > 0 && self.now.held_back * 2 >= self.now.in_flight {
            return "time left unknown".to_owned();
        }
        let left = Duration::from_secs(self.left.as_secs());
        format!("{:.0}/s, {} left", self.rate, humantime::format_duration(left))
    }

    fn counts(&self) -> String {
        let now = self.now;
        format!(
            // What is in doubt and what is to review comes as one number.
            "{} succeeded, {} failed, {} open, {} rejected, {} under way{}",
            now.succeeded,
            now.failed,
            now.in_doubt,
            now.rejected,
            now.in_flight,
            self.held_back()
        )
    }

    /// How many of those under way wait until the provider takes calls again.
    fn held_back(&self) -> String {
        match self.now.held_back {
            0 => String::new(),
            items => format!(", {items} wait for the provider"),
        }
    }

    fn short_counts(&self) -> String {
        let now = self.now;
        let bad = now.failed + now.in_doubt + now.rejected;
        format!("{} ok, {bad} not{}", now.succeeded, self.held_back())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_fits_the_terminal_and_has_rate_time_left_and_counts() {
        let now = pb::BatchProgress {
            received: 12_500,
            in_flight: 64,
            succeeded: 12_000,
            failed: 300,
            in_doubt: 10,
            rejected: 5,
            retryable: 200,
            held_back: 0,
        };
        let held_back = pb::BatchProgress { held_back: 60, ..now };
        let state = |label| State {
            label,
            done: 12_315,
            total: 20_000,
            rate: 61.4,
            left: Duration::from_millis(125_900),
            now: &now,
        };
        for width in 1..200 {
            for label in ["p", "a-pool-with-quite-a-long-name"] {
                let line = state(label).fitting(width);
                assert!(line.chars().count() < width, "{width}: {line:?}");
            }
        }
        let line = state("shop").fitting(80);
        for part in ["12315/20000", "61/s", "2m 5s left", "12000 ok", "315 not", "[##"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        let line = state("shop").fitting(140);
        assert!(line.contains("12000 succeeded, 300 failed, 10 open, 5 rejected"), "{line}");
        assert_eq!(state("shop").fitting(30), "12315/20000 61/s, 2m 5s left");
        let line = State { now: &held_back, ..state("shop") }.fitting(80);
        assert!(line.contains("60 wait for the provider"), "{line}");
        assert!(line.contains("time left unknown") && !line.contains("2m 5s"), "{line}");
    }

    #[test]
    fn before_the_first_outcome_no_time_is_promised() {
        let now = pb::BatchProgress::default();
        let left = Duration::ZERO;
        let state = State { label: "p", done: 0, total: 5, rate: 0.0, left, now: &now };
        assert_eq!(
            state.long(),
            "p: 0 of 5, 0/s: 0 succeeded, 0 failed, 0 open, 0 rejected, 0 under way"
        );
    }
}
