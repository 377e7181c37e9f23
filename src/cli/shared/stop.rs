//! The signals and the closed input that tell a command to stop.

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

/// Ctrl-C, `kill`, the terminal's end, or, where that was asked for, the end of standard input.
pub(in crate::cli) struct Stop {
    signals: [Signal; 3],
    stdin_closed: Option<oneshot::Receiver<()>>,
    told_by_stdin: bool,
}

impl Stop {
    /// Takes over the signals from now on.
    pub(in crate::cli) fn listen(while_stdin_is_open: bool) -> anyhow::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        let signals = (|| Ok::<_, std::io::Error>([interrupt?, terminate?, hangup?]))();
        let signals = signals.context("signals cannot be waited for")?;
        let stdin_closed = while_stdin_is_open.then(watch_stdin).transpose()?;
        Ok(Self { signals, stdin_closed, told_by_stdin: false })
    }

    /// Waits until it is told to stop.
    ///
    /// One that was not waited for to its end may be waited for again.
    pub(in crate::cli) async fn asked(&mut self) {
        tokio::select! {
            () = signalled(&mut self.signals) => {}
            () = closed(&mut self.stdin_closed) => {
                self.stdin_closed = None;
                self.told_by_stdin = true;
            }
        }
    }

    /// Waits until a person, who has told it before, does not want to wait.
    pub(in crate::cli) async fn asked_again(&mut self) {
        if self.told_by_stdin {
            // A signal and a closed input after it are one request to stop, in whichever order
            // the two arrive.
            signalled(&mut self.signals).await;
        }
        signalled(&mut self.signals).await;
    }
}

async fn signalled([interrupt, terminate, hangup]: &mut [Signal; 3]) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

async fn closed(stdin: &mut Option<oneshot::Receiver<()>>) {
    match stdin {
        // Ends, one way or the other, with the thread that reads.
        Some(stdin) => drop(stdin.await),
        None => std::future::pending().await,
    }
}

/// Reads standard input to its end, on a thread that a runtime which is shutting down does not wait
/// for.
fn watch_stdin() -> anyhow::Result<oneshot::Receiver<()>> {
    let (ended, closed) = oneshot::channel();
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            drop(ended);
        })
        .context("standard input cannot be watched")?;
    Ok(closed)
}
