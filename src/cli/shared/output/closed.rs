//! A watch on the output: it notices that nobody reads any more, also while nothing is written.

use std::{fs::File, io, os::fd::OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FileType, fstat},
};
use tokio::sync::oneshot;

/// Waits until the pipe's reader has gone. What is no pipe never closes.
pub(super) async fn closed(output: Option<OwnedFd>) {
    if let Some(pipe) = output
        && let Some(gone) = watch(pipe)
        && gone.await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Watches on a thread that nothing waits for when the program ends.
fn watch(pipe: OwnedFd) -> Option<oneshot::Receiver<()>> {
    let kind = FileType::from_raw_mode(fstat(&pipe).ok()?.st_mode);
    if !matches!(kind, FileType::Fifo | FileType::Socket) {
        return None;
    }
    let (gone, told) = oneshot::channel();
    let watching = std::thread::Builder::new().name("output".to_owned()).spawn(move || {
        loop {
            // Errors are told without being asked for.
            let mut pipes = [PollFd::new(&pipe, PollFlags::empty())];
            match poll(&mut pipes, None) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) if !pipes[0].revents().is_empty() => return gone.send(()).ok(),
                _ => return None,
            }
        }
    });
    watching.ok().map(|_| told)
}

/// A second name for standard output.
pub(super) fn stdout() -> Option<OwnedFd> {
    std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned().ok()
}

/// A second name for a file.
pub(super) fn of(file: &File) -> Option<OwnedFd> {
    std::os::fd::AsFd::as_fd(file).try_clone_to_owned().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_pipe_is_closed_when_its_reader_has_gone_and_a_file_never() {
        let (reader, writer) = io::pipe().unwrap();
        let mut watching = Box::pin(closed(Some(writer.into())));
        let moment = Duration::from_millis(20);
        assert!(tokio::time::timeout(moment, &mut watching).await.is_err());
        drop(reader);
        tokio::time::timeout(Duration::from_secs(20), watching).await.unwrap();

        let file = tempfile::tempfile().unwrap();
        assert!(tokio::time::timeout(moment, closed(of(&file))).await.is_err());
    }
}
