//! The messages that a thread which reads a file sends on a call.

use tokio::{runtime::Handle, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The call has ended: nothing more can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Ended;

/// Where messages are sent.
pub(in crate::cli) struct Upload<T> {
    messages: mpsc::Sender<T>,
    ended: CancellationToken,
}

/// The messages for a call, and a guard that the caller drops when the call has ended: a call
/// that waits for its server does not let go of its messages by itself.
pub(in crate::cli) fn upload<T>(read_ahead: usize) -> (Upload<T>, ReceiverStream<T>, DropGuard) {
    let (messages, receiver) = mpsc::channel(read_ahead);
    let ended = CancellationToken::new();
    let upload = Upload { messages, ended: ended.clone() };
    (upload, ReceiverStream::new(receiver), ended.drop_guard())
}

impl<T> Upload<T> {
    /// Sends a message from a thread that may block.
    pub(in crate::cli) fn send(&self, message: T) -> Result<(), Ended> {
        Handle::current().block_on(async {
            tokio::select! {
                biased;
                () = self.ended.cancelled() => Err(Ended),
                sent = self.messages.send(message) => sent.map_err(|_| Ended),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_to_send_is_told_when_the_call_has_ended() {
        let (sender, messages, ended) = upload(1);
        let sending = tokio::task::spawn_blocking(move || {
            let mut sent = 0;
            while sender.send(sent).is_ok() {
                sent += 1;
            }
            sent
        });
        drop(ended);
        assert!(sending.await.unwrap() <= 1);
        drop(messages);
    }
}
