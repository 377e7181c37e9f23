//! A connection that is closed when its client begins something and does not go on with it.

use std::{
    io::{Error, ErrorKind, IoSlice, Result},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tonic::transport::server::Connected;

use super::{
    ConnectionPermit,
    connection::{Arrived, Connection, Seen},
    frames::{Begun, Frames},
};

/// How long a preface, a block of headers and any small frame may take.
const BEGUN_LIMIT: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5_000 });
/// How long a frame of data may take.
const DATA_LIMIT: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 10_000 });
/// How many streams a client may reset in a row. Each of them is work for nothing. Beyond it the client is read from
/// more slowly: thousands of callers may well cancel together.
const RESETS: f64 = 4096.0;
/// How long a client may reset more than it may, before its connection is closed.
const RESETS_LIMIT: Duration = Duration::from_secs(10);
/// The longest time between two checks of what a connection has open.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// See [the module](self). `IO` may be TLS too.
#[derive(Debug)]
pub struct Guarded<IO> {
    io: IO,
    permit: ConnectionPermit,
    frames: Frames,
    connection: Arc<Connection>,
    /// When it is checked again what the connection has open.
    check_at: Instant,
    /// The number of what has begun, and until when it may take.
    begun: Option<(u64, Instant, Instant)>,
    timer: Option<Pin<Box<Sleep>>>,
    resets: Resets,
}

impl<IO> Guarded<IO> {
    /// Guards a connection from now on.
    pub fn new(io: IO, permit: ConnectionPermit) -> Self {
        let now = Instant::now();
        let resets = Resets::new(permit.rules().resets_per_second, now);
        let mut guarded = Self {
            io,
            permit,
            frames: Frames::new(),
            connection: Connection::new(),
            check_at: now + BEGUN_LIMIT,
            begun: None,
            timer: None,
            resets,
        };
        guarded.note_begun(now);
        guarded
    }

    /// Notes what has begun and not ended, from when on, and until when.
    fn note_begun(&mut self, now: Instant) {
        let Some((begun, number)) = self.frames.begun() else {
            self.begun = None;
            return;
        };
        let since = match self.begun {
            Some((same, since, _)) if same == number => since,
            _ => now,
        };
        let limit = if begun == Begun::Data { DATA_LIMIT } else { BEGUN_LIMIT };
        self.begun = Some((number, since, since + limit));
    }

    /// Ready when the connection is to be closed, with the cause: see [`Guarded::to_be_closed`].
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        loop {
            let begun = self.begun.map(|(_, _, until)| until);
            let at = begun.map_or(self.check_at, |until| until.min(self.check_at));
            ready!(self.poll_until(at, cx));
            if begun.is_some_and(|until| until <= at) {
                return Poll::Ready("incomplete");
            }
            if let Some(why) = self.to_be_closed() {
                return Poll::Ready(why);
            }
            let rules = self.permit.rules();
            let every = if self.frames.has_called() { CHECK_EVERY } else { BEGUN_LIMIT };
            let least = rules.idle.min(rules.stream_idle) / 4;
            self.check_at = Instant::now() + every.min(least.max(BEGUN_LIMIT / 50));
        }
    }

    /// Ends streams that are idle. Answers why the connection is to be closed, if it is: its client takes none of its
    /// answers, or uses it for nothing, and others want to connect.
    fn to_be_closed(&self) -> Option<&'static str> {
        let rules = self.permit.rules();
        let is_unused = match self.connection.end_idle(rules.stream_idle) {
            Seen::InUse => false,
            Seen::AllEnded | Seen::Untold => return Some("unread"),
            Seen::Unused(time) => time >= rules.idle || !self.frames.has_called(),
        };
        (is_unused && self.permit.is_crowded()).then_some("unused")
    }

    /// Ready at a time, which may differ from call to call.
    fn poll_until(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.poll_unpin(cx)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Guarded<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let this = &mut *self;
        let now = Instant::now();
        if let Some(at) = this.resets.read_again_at(now) {
            if this.resets.is_over(now) {
                return Poll::Ready(Err(closed("resets")));
            }
            ready!(this.poll_until(at, cx));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(read) => {
                let resets = this.frames.feed(&buf.filled()[before..]);
                this.resets.left -= f64::from(resets);
                this.note_begun(Instant::now());
                Poll::Ready(read)
            }
            // What has come is read first: it may have come in time.
            Poll::Pending => {
                let why = ready!(this.poll_over(cx));
                Poll::Ready(Err(closed(why)))
            }
        }
    }
}

/// The error that ends a connection.
pub(super) fn closed(why: &'static str) -> Error {
    tracing::debug!(why, "a connection is closed");
    metrics::counter!("holdfast_connections_closed_total", "cause" => why).increment(1);
    Error::from(ErrorKind::TimedOut)
}

/// How many resets are left: a bucket that fills up again.
#[derive(Debug)]
struct Resets {
    per_second: f64,
    left: f64,
    counted: Instant,
    /// Since when there are too many.
    over_since: Option<Instant>,
}

impl Resets {
    fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second: f64::from(per_second), left: RESETS, counted: now, over_since: None }
    }

    /// When to read on, if not now.
    fn read_again_at(&mut self, now: Instant) -> Option<Instant> {
        if self.left < RESETS {
            let passed = now.saturating_duration_since(self.counted).as_secs_f64();
            self.left = (self.left + passed * self.per_second).min(RESETS);
        }
        self.counted = now;
        if self.left >= RESETS / 4.0 {
            self.over_since = None;
        }
        if self.left >= 0.0 {
            return None;
        }
        self.over_since.get_or_insert(now);
        Some(now + Duration::from_secs_f64(-self.left / self.per_second))
    }

    /// Whether there were too many for so long that the connection is closed.
    fn is_over(&self, now: Instant) -> bool {
        self.over_since.is_some_and(|since| now.saturating_duration_since(since) >= RESETS_LIMIT)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Guarded<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<IO: Connected> Connected for Guarded<IO> {
    type ConnectInfo = Arrived;

    fn connect_info(&self) -> Arrived {
        Arrived::new(&self.connection, self.io.connect_info())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::listener::ConnectionLimit;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn guarded() -> (DuplexStream, Guarded<DuplexStream>) {
        one_of(&ConnectionLimit::new(10, "test"))
    }

    fn one_of(limit: &ConnectionLimit) -> (DuplexStream, Guarded<DuplexStream>) {
        let (client, server) = duplex(1 << 20);
        let permit = limit.permit(std::net::Ipv4Addr::LOCALHOST.into()).unwrap();
        (client, Guarded::new(server, permit))
    }

    #[tokio::test]
    async fn a_connection_without_any_call_is_closed_when_more_than_half_are_taken() {
        let limit = ConnectionLimit::new(4, "test");
        let (mut idle, mut server) = one_of(&limit);
        let (mut used, mut other) = one_of(&limit);
        idle.write_all(PREFACE).await.unwrap();
        used.write_all(PREFACE).await.unwrap();
        used.write_all(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x82]).await.unwrap();
        async fn read(server: &mut Guarded<DuplexStream>) -> ErrorKind {
            loop {
                if let Err(error) = server.read_u8().await {
                    return error.kind();
                }
            }
        }
        let kept = tokio::time::timeout(BEGUN_LIMIT * 3, read(&mut server)).await;
        assert!(kept.is_err(), "half of them are free");
        let _third = one_of(&limit);
        let closed = tokio::time::timeout(BEGUN_LIMIT * 20, read(&mut server)).await;
        assert_eq!(closed, Ok(ErrorKind::TimedOut));
        let kept = tokio::time::timeout(BEGUN_LIMIT * 3, read(&mut other)).await;
        assert!(kept.is_err(), "it has called something");
    }

    /// How long the connection is kept when its client sends no more than this, if not for ever.
    async fn kept_for(sent: &[u8]) -> Option<Duration> {
        let (mut client, mut server) = guarded();
        client.write_all(sent).await.unwrap();
        let begun = Instant::now();
        let read = async {
            loop {
                match server.read_u8().await {
                    Ok(_) => {}
                    Err(error) => return error.kind(),
                }
            }
        };
        let ended = tokio::time::timeout(DATA_LIMIT * 5, read).await;
        assert!(ended.is_err() || ended == Ok(ErrorKind::TimedOut));
        ended.is_ok().then(|| begun.elapsed())
    }

    #[tokio::test]
    async fn what_has_begun_and_does_not_end_ends_the_connection() {
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let with = |bytes: &[u8]| [PREFACE, bytes].concat();
        let cases = [
            (vec![], Some(BEGUN_LIMIT)),
            (PREFACE[..23].to_vec(), Some(BEGUN_LIMIT)),
            (with(&[]), None),
            (with(&ping), None),
            (with(&ping[..1]), Some(BEGUN_LIMIT)),
            (with(&ping[..16]), Some(BEGUN_LIMIT)),
            (with(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]), Some(BEGUN_LIMIT)),
            (with(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x82]), None),
            (with(&[0, 0, 5, 0, 0, 0, 0, 0, 1, 1]), Some(DATA_LIMIT)),
        ];
        for (sent, expected) in cases {
            let kept = kept_for(&sent).await;
            assert_eq!(kept.is_some(), expected.is_some(), "{sent:?}");
            assert!(kept >= expected, "{sent:?}: {kept:?}");
        }
    }

    #[tokio::test]
    async fn a_byte_now_and_then_does_not_keep_a_block_of_headers_open() {
        let (mut client, mut server) = guarded();
        client.write_all(PREFACE).await.unwrap();
        let begun = Instant::now();
        let trickle = async {
            // A block of many frames, each of them complete.
            loop {
                let frame = [0, 0, 1, 9, 0, 0, 0, 0, 1, 0x82];
                if client.write_all(&frame).await.is_err() {
                    return;
                }
                tokio::time::sleep(BEGUN_LIMIT / 10).await;
            }
        };
        let read = async { while server.read_u8().await.is_ok() {} };
        tokio::select! { () = trickle => {}, () = read => {} }
        assert!(begun.elapsed() >= BEGUN_LIMIT, "and not for ever");
    }

    #[tokio::test]
    async fn a_client_that_resets_very_many_streams_is_read_from_slowly_and_kept() {
        let (mut client, mut server) = guarded();
        client.write_all(PREFACE).await.unwrap();
        let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
        let many = 4096 + 1024;
        client.write_all(&reset.repeat(many)).await.unwrap();
        let begun = Instant::now();
        let mut all = vec![0; PREFACE.len() + many * reset.len()];
        for part in all.chunks_mut(8192) {
            server.read_exact(part).await.unwrap();
        }
        let mut before = Resets { left: 1.0, ..Resets::new(1, begun) };
        let mut after = server.resets;
        assert_eq!(before.read_again_at(begun), None);
        assert!(begun.elapsed() >= Duration::from_millis(300), "beyond what is free");
        let much_later = Instant::now() + Duration::from_secs(60);
        assert_eq!(after.read_again_at(much_later), None);
        assert!(after.left >= RESETS, "as if nothing had been");
    }

    #[test]
    fn a_client_that_goes_on_to_reset_more_than_it_may_loses_its_connection() {
        let begun = Instant::now();
        let after = |seconds: u64| begun + Duration::from_secs(seconds);
        let mut resets = Resets::new(100, begun);
        resets.left = -100.0;
        assert!(resets.read_again_at(begun).is_some());
        for second in 1..10 {
            resets.left -= 200.0;
            assert!(resets.read_again_at(after(second)).is_some());
            assert!(!resets.is_over(after(second)), "{second} s");
        }
        let mut other = Resets { over_since: resets.over_since, ..Resets::new(100, after(9)) };
        resets.left -= 200.0;
        assert!(resets.read_again_at(after(10)).is_some() && resets.is_over(after(10)));
        assert!(
            other.read_again_at(after(10)).is_none() && !other.is_over(after(20)),
            "it stopped"
        );
    }
}
