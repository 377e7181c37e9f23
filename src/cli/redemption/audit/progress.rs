//! Progress of an audit: a line that changes on a terminal, otherwise one every few seconds. On
//! stderr.

use std::{
    fmt,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;

use crate::cli::shared::output;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How often the line on a terminal moves.
const TICK: Duration = Duration::from_millis(200);

/// See the module.
pub(in crate::cli) struct Progress {
    bar: ProgressBar,
    last_line: Instant,
}

/// Keeps the line out of the way of others.
pub(super) struct Aside(ProgressBar);

impl Aside {
    /// Does something with the terminal.
    pub(super) fn write<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }
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

    /// For others that write to the terminal.
    pub(super) fn aside(&self) -> Aside {
        Aside(self.bar.clone())
    }

    /// Takes the line away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
