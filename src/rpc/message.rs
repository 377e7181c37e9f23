//! The messages of a call, as they come off its connection: how long one may be, and how long it may take.
//!
//! A message begins with five bytes that tell its length. One above the limit is refused by these, and nothing of
//! it is kept. One that has begun must be complete within [`MESSAGE_TIMEOUT`]. What has come of messages that are
//! not complete counts against a bound on all of them ([`Budget`]).

use std::{
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::{codec::MAX_MESSAGE_BYTES, status};
use crate::admission::{Budget, Hold};

/// How long a message may take from its call, or from its first byte, to its last.
pub(super) const MESSAGE_TIMEOUT: Duration =
    if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(10) };
/// A flag, and the length.
const HEADER_BYTES: usize = 5;
/// What a call that is not complete occupies besides the bytes of its message.
const CALL_BYTES: usize = 4096;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// When a call's caller has last sent something, or taken some of its answer.
#[derive(Debug)]
pub(super) struct Activity(AtomicU64);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(Self::now())))
    }

    fn now() -> u64 {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn note(&self) {
        self.0.store(Self::now(), Ordering::Relaxed);
    }

    /// How long that is ago.
    pub(super) fn idle_for(&self) -> Duration {
        Duration::from_millis(Self::now().saturating_sub(self.0.load(Ordering::Relaxed)))
    }
}

/// What a body of a request has to be.
pub(super) trait RequestBody:
    Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static
{
}

impl<B> RequestBody for B where B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static
{}

/// A request whose first message is complete.
#[derive(Debug)]
pub(super) struct Complete<B> {
    /// As it came, the five bytes included. Empty when the caller sent none.
    bytes: Bytes,
    /// What comes after it; `None` where nothing does.
    rest: Option<B>,
}

impl<B: RequestBody> Complete<B> {
    /// The first message.
    pub(super) fn message(&self) -> &[u8] {
        let length = announced(&self.bytes).unwrap_or_default();
        self.bytes.get(HEADER_BYTES..HEADER_BYTES + length).unwrap_or_default()
    }

    /// As the handler reads it.
    /// `activity` is told when something of it is read.
    pub(super) fn into_body(
        self,
        budget: &Budget,
        owner: &Arc<str>,
        activity: Option<Arc<Activity>>,
    ) -> tonic::body::Body {
        match self.rest {
            None => tonic::body::Body::new(http_body_util::Full::new(self.bytes)),
            Some(rest) => tonic::body::Body::new(Messages {
                first: Some(self.bytes),
                rest,
                position: Position::default(),
                budget: budget.clone(),
                owner: Arc::clone(owner),
                activity,
                begun: None,
            }),
        }
    }
}

/// Reads the first message, and where `takes_stream` is false the end of the request after it, by `deadline` at
/// the latest.
pub(super) async fn first<B: RequestBody>(
    body: B,
    takes_stream: bool,
    budget: &Budget,
    owner: &Arc<str>,
    deadline: Option<Instant>,
) -> Result<Complete<B>, Status> {
    let mut reading = Reading { body, takes_stream, bytes: BytesMut::new(), alone: None };
    // Nearly always all of it is here, and nobody has to wait.
    while let Some(frame) = reading.body.frame().now_or_never() {
        if reading.take(frame)? {
            return Ok(reading.complete());
        }
    }
    Box::pin(reading.slowly(budget, owner, deadline)).await
}

/// A request whose first message is not complete.
struct Reading<B> {
    body: B,
    takes_stream: bool,
    bytes: BytesMut,
    /// The first bytes, as long as there are no others.
    alone: Option<Bytes>,
}

impl<B: RequestBody> Reading<B> {
    async fn slowly(
        mut self,
        budget: &Budget,
        owner: &Arc<str>,
        deadline: Option<Instant>,
    ) -> Result<Complete<B>, Status> {
        let own = Instant::now() + MESSAGE_TIMEOUT;
        let until = deadline.map_or(own, |deadline| deadline.min(own));
        let hold = budget.hold(owner, CALL_BYTES + self.len());
        // A few bytes of a frame would keep all alive that was read with them.
        self.gather(Bytes::new());
        loop {
            let frame = tokio::select! {
                biased;
                () = std::future::poll_fn(|cx| hold.poll_evicted(cx)) => {
                    return Err(status::not_kept());
                }
                frame = self.body.frame() => frame,
                () = sleep_until(until) => {
                    let is_own = deadline.is_none_or(|deadline| own <= deadline);
                    return Err(if is_own {
                        status::message_incomplete(MESSAGE_TIMEOUT)
                    } else {
                        status::deadline_passed()
                    });
                }
            };
            if self.take(frame)? {
                return Ok(self.complete());
            }
            hold.set(CALL_BYTES + self.len());
        }
    }

    /// Takes what came; `None` is the end. True when the request is complete.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, B::Error>>) -> Result<bool, Status> {
        let data = match frame {
            None => return Ok(true),
            Some(Err(error)) => return Err(status::request_broken(error.into())),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        if self.len() == 0 {
            self.alone = Some(data);
        } else {
            self.gather(data);
        }
        let Some(length) = announced(self.so_far()) else { return Ok(false) };
        if length > MAX_MESSAGE_BYTES {
            return Err(status::message_too_large(length, MAX_MESSAGE_BYTES));
        }
        let whole = HEADER_BYTES + length;
        if self.len() > whole && !self.takes_stream {
            return Err(status::more_than_one_message());
        }
        // A request of one message is complete when nothing can come any more.
        Ok(self.len() >= whole && (self.takes_stream || self.body.is_end_stream()))
    }

    fn gather(&mut self, data: Bytes) {
        if let Some(alone) = self.alone.take() {
            self.bytes.extend_from_slice(&alone);
        }
        self.bytes.extend_from_slice(&data);
    }

    fn so_far(&self) -> &[u8] {
        self.alone.as_deref().unwrap_or(&self.bytes)
    }

    fn len(&self) -> usize {
        self.so_far().len()
    }

    fn complete(self) -> Complete<B> {
        let bytes = self.alone.unwrap_or_else(|| self.bytes.freeze());
        let rest = (self.takes_stream && !self.body.is_end_stream()).then_some(self.body);
        Complete { bytes, rest }
    }
}

/// The length that a message begins with, once it is there.
fn announced(bytes: &[u8]) -> Option<usize> {
    let mut length = bytes.get(1..HEADER_BYTES)?;
    Some(length.get_u32() as usize)
}

/// The position in the messages of a stream.
#[derive(Debug, Default)]
struct Position {
    /// What has come of the five bytes.
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// What is to come of the message.
    left: usize,
    /// What has come of it.
    came: usize,
}

impl Position {
    /// Goes on by what came. An error is the length of a message that is too long.
    fn feed(&mut self, mut data: &[u8]) -> Result<(), usize> {
        while !data.is_empty() {
            if self.header_bytes < HEADER_BYTES {
                self.header[self.header_bytes] = data[0];
                self.header_bytes += 1;
                self.came += 1;
                data = &data[1..];
                if let Some(length) = announced(&self.header[..self.header_bytes]) {
                    if length > MAX_MESSAGE_BYTES {
                        return Err(length);
                    }
                    self.left = length;
                }
            } else {
                let part = self.left.min(data.len());
                self.left -= part;
                self.came += part;
                data = &data[part..];
            }
            if self.header_bytes == HEADER_BYTES && self.left == 0 {
                *self = Self::default();
            }
        }
        Ok(())
    }

    /// Whether a message has begun that is not complete.
    fn is_inside(&self) -> bool {
        self.header_bytes > 0
    }
}

/// The messages of a stream. Between two of them it may wait for as long as its handler lets it.
struct Messages<B> {
    first: Option<Bytes>,
    rest: B,
    position: Position,
    budget: Budget,
    owner: Arc<str>,
    activity: Option<Arc<Activity>>,
    /// A message that is not complete.
    begun: Option<Begun>,
}

struct Begun {
    hold: Hold,
    until: Pin<Box<Sleep>>,
}

impl<B: RequestBody> Messages<B> {
    /// Goes on by what came.
    fn came(&mut self, data: &Bytes) -> Result<(), Status> {
        self.position
            .feed(data)
            .map_err(|length| status::message_too_large(length, MAX_MESSAGE_BYTES))?;
        if !self.position.is_inside() {
            self.begun = None;
            return Ok(());
        }
        let bytes = CALL_BYTES + self.position.came;
        match &self.begun {
            // Fewer bytes than before belong to a message that began since.
            Some(begun) if self.position.came > data.len() => begun.hold.set(bytes),
            _ => {
                let until = Box::pin(sleep_until(Instant::now() + MESSAGE_TIMEOUT));
                self.begun = Some(Begun { hold: self.budget.hold(&self.owner, bytes), until });
            }
        }
        Ok(())
    }

    /// The error when it cannot wait any longer.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let Some(begun) = &mut self.begun else { return Poll::Pending };
        if begun.hold.poll_evicted(cx).is_ready() {
            return Poll::Ready(status::not_kept());
        }
        begun.until.poll_unpin(cx).map(|()| status::message_incomplete(MESSAGE_TIMEOUT))
    }
}

impl<B: RequestBody> Body for Messages<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            let came = this.came(&first);
            return Poll::Ready(Some(came.map(|()| Frame::data(first))));
        }
        match Pin::new(&mut this.rest).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(activity) = &this.activity {
                    activity.note();
                }
                let came = frame.data_ref().map_or(Ok(()), |data| this.came(data));
                Poll::Ready(Some(came.map(|()| frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(status::request_broken(error.into()))))
            }
            Poll::Ready(None) => {
                this.begun = None;
                Poll::Ready(None)
            }
            Poll::Pending => this.poll_over(cx).map(|error| Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests;
