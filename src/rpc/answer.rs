//! Answers on their way to callers who may not read them.
//!
//! HTTP/2 lets a caller refuse to take an answer for any time. What is encoded and not taken counts
//! against a bound on all such answers ([`Budget`]); where that is reached, the oldest of them are evicted, and
//! their callers' streams are reset. An answer of which nothing is taken for long, while nothing is sent either, is
//! ended: all that it holds is let go of. A call whose answer is not taken is not finished.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;

use super::{message::Activity, status};
use crate::{
    admission::{Budget, Hold, InFlight, Permit},
    listener::connection::{Connection, OpenCall, Stream, Watched},
};

/// How much of an answer is handed to the connection at a time. The connection keeps that much of each answer
/// that is not taken.
const CHUNK_BYTES: usize = 16 * 1024;

/// A call whose answer is not taken.
pub(super) struct Unfinished {
    /// Where it came from.
    pub(super) connection: Option<Arc<Connection>>,
    /// When it was last in use.
    pub(super) activity: Arc<Activity>,
    /// What is held until it is finished.
    pub(super) _kept: (Option<OpenCall>, Option<InFlight>, Option<Permit>),
}

/// Bounds an answer for `owner`.
pub(super) fn bounded(
    answer: http::Response<tonic::body::Body>,
    budget: &Budget,
    owner: &Arc<str>,
    call: Unfinished,
) -> http::Response<tonic::body::Body> {
    answer.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        let (connection, activity) = (call.connection.clone(), Arc::clone(&call.activity));
        let mut held = Held {
            next: VecDeque::new(),
            body: Some(body),
            budget: budget.clone(),
            owner: Arc::clone(owner),
            _call: call,
        };
        // A message and its trailers are encoded now: until then they occupy more, and nobody counts it. What
        // encodes them keeps its buffer until it is dropped.
        let mut cx = Context::from_waker(Waker::noop());
        while held.next.len() < 2 && held.poll_body(&mut cx).is_ready() {}
        let state = Mutex::new(State { held: Some(Box::new(held)), ended: None, waker: None });
        let shared = Arc::new(Shared { state, activity });
        let as_stream: Arc<dyn Stream> = shared.clone();
        let watched = connection.map(|connection| connection.watch(Arc::downgrade(&as_stream)));
        tonic::body::Body::new(Bounded { shared, _watched: watched })
    })
}

/// An answer on its way.
struct Bounded {
    shared: Arc<Shared>,
    _watched: Option<Watched>,
}

/// What the body of an answer shares with its connection, which may end it.
struct Shared {
    state: Mutex<State>,
    activity: Arc<Activity>,
}

struct State {
    /// `None` when there is nothing more to hand on.
    held: Option<Box<Held>>,
    /// When its connection has ended it, of which its caller is not told yet.
    ended: Option<Instant>,
    waker: Option<Waker>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream for Shared {
    fn idle_for(&self) -> Duration {
        self.activity.idle_for()
    }

    fn end(&self) {
        let mut state = self.state();
        let (held, waker) = (state.held.take(), state.waker.take());
        if held.is_some() {
            state.ended = Some(Instant::now());
        }
        drop(state);
        // Not under the lock: what is held may be much.
        drop(held);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn untold_for(&self) -> Option<Duration> {
        self.state().ended.map(|ended| ended.elapsed())
    }
}

/// What is to be handed on.
enum Next {
    Frame(Result<Frame<Bytes>, Status>),
    /// What the hold keeps.
    Held(Hold),
}

/// What is not handed on.
struct Held {
    next: VecDeque<Next>,
    /// What comes after that; `None` once nothing does.
    body: Option<tonic::body::Body>,
    budget: Budget,
    owner: Arc<str>,
    _call: Unfinished,
}

impl Held {
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
                let hold = self.budget.hold(&self.owner, data.len());
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

impl Held {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
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

impl Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = self.shared.state();
        if state.ended.take().is_some() {
            return Poll::Ready(Some(Err(status::answer_not_taken())));
        }
        let Some(held) = &mut state.held else { return Poll::Ready(None) };
        let polled = held.poll_next(cx);
        match &polled {
            Poll::Pending => {
                if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    state.waker = Some(cx.waker().clone());
                }
            }
            Poll::Ready(None) => state.held = None,
            Poll::Ready(Some(_)) => self.shared.activity.note(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let state = self.shared.state();
        state.ended.is_none() && state.held.as_ref().is_none_or(|held| held.is_end_stream())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::admission::Overload;

    fn bound(overload: &Overload, bytes: usize) -> (Arc<Activity>, tonic::body::Body) {
        let activity = Activity::new();
        let call = Unfinished {
            connection: None,
            activity: Arc::clone(&activity),
            _kept: (None, None, None),
        };
        let budget = overload.unread_answers();
        (activity, bounded(answer(bytes), budget, &Arc::from("one"), call).into_body())
    }

    fn answer(bytes: usize) -> http::Response<tonic::body::Body> {
        let whole = http_body_util::Full::new(Bytes::from(vec![7; bytes]));
        http::Response::new(tonic::body::Body::new(whole))
    }

    #[tokio::test]
    async fn an_answer_is_whole_however_it_is_cut() {
        for bytes in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 1_000_000] {
            let overload = Overload::new();
            let (_, body) = bound(&overload, bytes);
            assert_eq!(body.collect().await.unwrap().to_bytes().len(), bytes);
            assert_eq!(overload.unread_answers().used(), 0);
        }
    }

    #[tokio::test]
    async fn of_answers_that_nobody_takes_the_oldest_are_let_go_of() {
        let overload = Overload::new();
        let mut answers: Vec<_> = (0..100).map(|_| bound(&overload, 1_000_000).1).collect();
        assert!(overload.unread_answers().used() <= 64 * 1024 * 1024);
        let newest = answers.pop().unwrap().collect().await.unwrap().to_bytes();
        assert_eq!(newest.len(), 1_000_000);
        let oldest = answers.remove(0).frame().await.unwrap();
        assert_eq!(oldest.unwrap_err().code(), tonic::Code::ResourceExhausted);
    }
}
