//! Progress of a batch: a bar on a terminal, otherwise a line every few seconds. On stderr.

use std::{
    fmt,
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::{cli::shared::output, rpc::pb};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
const TEMPLATE: &str = "{prefix:12} [{bar:30}] {pos}/{len} {per_sec} {msg}";

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
        let style = ProgressStyle::with_template(TEMPLATE);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(label.clone());
        Self { bar, label, last_line: Mutex::new(Instant::now()) }
    }

    /// How many items there are.
    pub(super) fn set_total(&self, items: u64) {
        self.bar.set_length(items);
    }

    /// Shows what the server says of the batch.
    pub(super) fn show(&self, now: &pb::BatchProgress) {
        let done = now.succeeded + now.failed + now.in_doubt + now.rejected;
        let counts = format!(
            // What is in doubt and what is to review comes as one number.
            "{} succeeded, {} failed, {} open, {} rejected, {} under way",
            now.succeeded, now.failed, now.in_doubt, now.rejected, now.in_flight
        );
        if self.bar.is_hidden() && self.line_is_due() {
            let total = self.bar.length().unwrap_or_default();
            output::note(format_args!("{}: {done} of {total}: {counts}", self.label));
        }
        self.bar.set_position(done.unsigned_abs());
        self.bar.set_message(counts);
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
