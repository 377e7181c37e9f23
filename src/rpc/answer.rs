//! Answers on their way to callers who may not read them.
//!
//! HTTP/2 lets a caller refuse to take an answer for as long as it likes. What is encoded and not taken counts
//! against a bound on all such answers ([`Budget`]); where that is reached, the oldest of them are let go of, and
//! their callers' streams are reset.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tonic::Status;

use super::status;
use crate::overload::{Budget, Hold, Place};

/// How much of an answer is handed to the connection at a time. The connection keeps that much of each answer
/// that is not taken.
const CHUNK_BYTES: usize = 16 * 1024;

/// Bounds an answer. `kept` is held until it is taken.
pub(super) fn bounded(
    answer: http::Response<tonic::body::Body>,
    budget: &Budget,
    kept: Option<Place>,
) -> http::Response<tonic::body::Body> {
    answer.map(|mut body| {
        if body.is_end_stream() {
            return body;
        }
        // Encoded now: until then it occupies more, and nobody counts it.
        let next = match body.frame().now_or_never() {
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Next::of(data, budget),
                Err(other) => Next::Frame(Ok(other)),
            },
            Some(Some(Err(error))) => Next::Frame(Err(error)),
            Some(None) => Next::End,
            None => Next::Unknown,
        };
        tonic::body::Body::new(Bounded { next, body, budget: budget.clone(), _kept: kept })
    })
}

/// What is to be handed on.
enum Next {
    /// Whatever the body has.
    Unknown,
    Frame(Result<Frame<Bytes>, Status>),
    /// What the hold keeps.
    Held(Hold),
    /// Nothing more.
    End,
}

impl Next {
    fn of(data: Bytes, budget: &Budget) -> Self {
        if data.len() <= CHUNK_BYTES {
            return Self::Frame(Ok(Frame::data(data)));
        }
        let hold = budget.hold(data.len());
        hold.keep(data);
        Self::Held(hold)
    }
}

struct Bounded {
    next: Next,
    body: tonic::body::Body,
    budget: Budget,
    _kept: Option<Place>,
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            match std::mem::replace(&mut this.next, Next::Unknown) {
                Next::Frame(frame) => return Poll::Ready(Some(frame)),
                Next::End => {
                    this.next = Next::End;
                    return Poll::Ready(None);
                }
                Next::Held(hold) if hold.is_gone() => {
                    this.next = Next::End;
                    return Poll::Ready(Some(Err(status::answer_not_taken())));
                }
                Next::Held(hold) => {
                    let (chunk, left) = hold.next_chunk(CHUNK_BYTES);
                    if left > 0 {
                        hold.set(left);
                        this.next = Next::Held(hold);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
                Next::Unknown => {}
            }
            let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
            this.next = match frame {
                None => Next::End,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Next::of(data, &this.budget),
                    Err(other) => Next::Frame(Ok(other)),
                },
                Some(Err(error)) => Next::Frame(Err(error)),
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.next {
            Next::End => true,
            Next::Unknown => self.body.is_end_stream(),
            Next::Frame(_) | Next::Held(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overload::Overload;

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
