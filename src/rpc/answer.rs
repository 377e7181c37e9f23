//! Answers on their way to callers who may not read them.
//!
//! HTTP/2 lets a caller refuse to take an answer for any time. What is encoded and not taken counts
//! against a bound on all such answers ([`Budget`]); where that is reached, the oldest of them are evicted, and
//! their callers' streams are reset.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;

use super::status;
use crate::admission::{Budget, Hold, Permit};

/// How much of an answer is handed to the connection at a time. The connection keeps that much of each answer
/// that is not taken.
const CHUNK_BYTES: usize = 16 * 1024;

/// Bounds an answer. `kept` is held until it is taken.
pub(super) fn bounded(
    answer: http::Response<tonic::body::Body>,
    budget: &Budget,
    kept: Option<Permit>,
) -> http::Response<tonic::body::Body> {
    answer.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        let mut bounded = Bounded {
            next: VecDeque::new(),
            body: Some(body),
            budget: budget.clone(),
            _kept: kept,
        };
        // A message and its trailers are encoded now: until then they occupy more, and nobody counts it. What
        // encodes them keeps its buffer until it is dropped.
        let mut cx = Context::from_waker(Waker::noop());
        while bounded.next.len() < 2 && bounded.poll_body(&mut cx).is_ready() {}
        tonic::body::Body::new(bounded)
    })
}

/// What is to be handed on.
enum Next {
    Frame(Result<Frame<Bytes>, Status>),
    /// What the hold keeps.
    Held(Hold),
}

struct Bounded {
    next: VecDeque<Next>,
    /// What comes after that; `None` once nothing does.
    body: Option<tonic::body::Body>,
    budget: Budget,
    _kept: Option<Permit>,
}

impl Bounded {
    /// Gets the next frame of the body ready. Pending too when there is none, ever.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(body) = &mut self.body else { return Poll::Pending };
        let frame = std::task::ready!(Pin::new(&mut *body).poll_frame(cx));
        if frame.is_none() || body.is_end_stream() {
            self.body = None;
        }
        if let Some(frame) = frame {
            let next = self.next_of(frame);
            self.next.push_back(next);
        }
        Poll::Ready(())
    }

    fn next_of(&self, frame: Result<Frame<Bytes>, Status>) -> Next {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) if data.len() > CHUNK_BYTES => {
                let hold = self.budget.hold(data.len());
                hold.keep(data);
                Next::Held(hold)
            }
            Ok(Ok(data)) => Next::Frame(Ok(Frame::data(data))),
            Ok(Err(other)) => Next::Frame(Ok(other)),
            Err(error) => Next::Frame(Err(error)),
        }
    }

    fn hand_on(&mut self, next: Next) -> Result<Frame<Bytes>, Status> {
        match next {
            Next::Frame(frame) => frame,
            Next::Held(hold) => {
                let (chunk, left) = hold.next_chunk(CHUNK_BYTES);
                // Asked after it: the rest may be evicted at any time, and a part is no answer.
                if hold.is_evicted() {
                    self.next.clear();
                    self.body = None;
                    return Err(status::answer_not_taken());
                }
                if left > 0 {
                    hold.set(left);
                    self.next.push_front(Next::Held(hold));
                }
                Ok(Frame::data(chunk))
            }
        }
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(next) = self.next.pop_front() {
                return Poll::Ready(Some(self.hand_on(next)));
            }
            if self.body.is_none() {
                return Poll::Ready(None);
            }
            std::task::ready!(self.poll_body(cx));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_empty() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::admission::Overload;

    fn answer(bytes: usize) -> http::Response<tonic::body::Body> {
        let whole = http_body_util::Full::new(Bytes::from(vec![7; bytes]));
        http::Response::new(tonic::body::Body::new(whole))
    }

    #[tokio::test]
    async fn an_answer_is_whole_however_it_is_cut() {
        for bytes in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 1_000_000] {
            let overload = Overload::new();
            let body = bounded(answer(bytes), overload.unread_answers(), None).into_body();
            assert_eq!(body.collect().await.unwrap().to_bytes().len(), bytes);
            assert_eq!(overload.unread_answers().used(), 0);
        }
    }

    #[tokio::test]
    async fn of_answers_that_nobody_takes_the_oldest_are_let_go_of() {
        let overload = Overload::new();
        let mut answers: Vec<_> = (0..100)
            .map(|_| bounded(answer(1_000_000), overload.unread_answers(), None).into_body())
            .collect();
        assert!(overload.unread_answers().used() <= 64 * 1024 * 1024);
        let newest = answers.pop().unwrap().collect().await.unwrap().to_bytes();
        assert_eq!(newest.len(), 1_000_000);
        let oldest = answers.remove(0).frame().await.unwrap();
        assert_eq!(oldest.unwrap_err().code(), tonic::Code::ResourceExhausted);
    }
}
