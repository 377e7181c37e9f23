//! A request's body, and how much of it was taken to be sent.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

/// The most that is handed on at once.
const PIECE_BYTES: usize = 16 * 1024;

/// Bytes that are handed on in pieces: an answer that comes before the last of them is none.
pub(super) struct Body {
    left: Bytes,
    is_whole: Arc<AtomicBool>,
}

/// How far a body is.
pub(super) struct Progress(Option<Arc<AtomicBool>>);

impl Progress {
    /// Whether all of it was taken.
    pub(super) fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|whole| whole.load(Ordering::Acquire))
    }
}

impl Body {
    pub(super) fn of(bytes: Option<Bytes>) -> (Option<Self>, Progress) {
        let Some(left) = bytes else { return (None, Progress(None)) };
        let is_whole = Arc::new(AtomicBool::new(left.is_empty()));
        (Some(Self { left, is_whole: Arc::clone(&is_whole) }), Progress(Some(is_whole)))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.left.len().min(PIECE_BYTES);
        let piece = self.left.split_to(length);
        if self.left.is_empty() {
            self.is_whole.store(true, Ordering::Release);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
