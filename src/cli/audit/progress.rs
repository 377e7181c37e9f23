//! How far an audit is: a line that changes on a terminal, otherwise one every few seconds. On
//! stderr.

use std::{
    fmt,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;

use crate::cli::output;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How often the line on a terminal moves.
const TICK: Duration = Duration::from_millis(200);

/// See the module.
pub(in crate::cli) struct Progress {
    bar: ProgressBar,
    last_line: Instant,
}

impl Progress {
    /// On the terminal, if there is one.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(TICK);
        Self { bar, last_line: Instant::now() }
    }

    /// Nowhere, until it has been long.
    pub(in crate::cli) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), last_line: Instant::now() }
    }

    /// Says what is being done.
    pub(super) fn show(&mut self, text: impl fmt::Display) {
        if self.bar.is_hidden() {
            if self.last_line.elapsed() >= LINE_EVERY {
                self.last_line = Instant::now();
                output::note(text);
            }
        } else {
            self.bar.set_message(text.to_string());
        }
    }

    /// Does something with the terminal while the line is out of the way.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Takes the line away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
