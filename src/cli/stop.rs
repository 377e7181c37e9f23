//! When a command that runs until it is told to stop is told so.

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, stdin},
    signal::unix::{Signal, SignalKind, signal},
};

/// Ctrl-C, `kill`, the terminal's end, or, where that was asked for, the end of standard input.
pub(super) struct Stop {
    signals: [Signal; 3],
    while_stdin_is_open: bool,
}

impl Stop {
    /// Takes over the signals from now on.
    pub(super) fn listen(while_stdin_is_open: bool) -> anyhow::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        let signals = (|| Ok::<_, std::io::Error>([interrupt?, terminate?, hangup?]))();
        let signals = signals.context("signals cannot be waited for")?;
        Ok(Self { signals, while_stdin_is_open })
    }

    /// Waits until it is told to stop.
    pub(super) async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            () = stdin_closed(), if self.while_stdin_is_open => {}
        }
    }
}

async fn stdin_closed() {
    let mut buffer = [0; 64];
    let mut stdin = stdin();
    while stdin.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}
