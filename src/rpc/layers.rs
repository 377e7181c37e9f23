//! What every call passes through: admission, and a span.

use std::{
    collections::HashMap,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::HeaderName;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, body::Body};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::{codec::MAX_MESSAGE_BYTES, pb, refusal, status};
use crate::overload::{self, Caller, Class, Overload, Place};

/// Admits calls while the server takes them, and gives each a span.
#[derive(Clone, Debug)]
pub struct Admission {
    overload: Overload,
    methods: Arc<Methods>,
    closing: CancellationToken,
}

/// What is known of each method, by the path of its calls.
#[derive(Debug)]
struct Methods {
    known: HashMap<String, Method>,
    /// For a path that is none of the contract's: the names in it are the caller's.
    other: Method,
}

#[derive(Debug)]
struct Method {
    service: String,
    name: String,
    class: Class,
    seconds: metrics::Histogram,
}

impl Admission {
    /// Refuses calls for which `overload` has no place, and all of them once `closing` is cancelled.
    pub fn new(overload: Overload, closing: CancellationToken) -> Self {
        let method = |service: String, name: String| Method {
            class: class(&name),
            seconds: metrics::histogram!("holdfast_call_seconds", "method" => name.clone()),
            service,
            name,
        };
        let known = pb::methods()
            .into_iter()
            .map(|(service, name)| (format!("/{service}/{name}"), method(service, name)))
            .collect();
        let other = method("other".to_owned(), "other".to_owned());
        Self { overload, methods: Arc::new(Methods { known, other }), closing }
    }

    /// Waits until no admitted call is left to answer.
    pub async fn all_answered(&self) {
        self.overload.all_answered().await;
    }
}

/// What a method's calls are for.
fn class(method: &str) -> Class {
    match method {
        "ReleaseAccount" | "RenewLease" | "ResolveRedemption" => Class::End,
        "Redeem" | "BatchRedeem" => Class::Redeem,
        "AcquireAccount" => Class::Acquire,
        _ => Class::Rest,
    }
}

/// The call that brought a message.
pub(super) fn caller_of<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or_default()
}

impl<S> Layer<S> for Admission {
    type Service = Admitted<S>;

    fn layer(&self, inner: S) -> Admitted<S> {
        Admitted { inner, admission: self.clone() }
    }
}

/// See [`Admission`].
#[derive(Clone, Debug)]
pub struct Admitted<S> {
    inner: S,
    admission: Admission,
}

/// How long the caller waits.
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Health is asked for until the end, and answers that the server is stopping.
const HEALTH: &str = "/grpc.health.v1.Health/";

type Answering<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<S, B> Service<http::Request<B>> for Admitted<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Answering<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let path = request.uri().path();
        if path.starts_with(HEALTH) {
            return Box::pin(self.inner.call(request));
        }
        if self.admission.closing.is_cancelled() {
            return answered(status::shutting_down().into_http());
        }
        let methods = Arc::clone(&self.admission.methods);
        let class = methods.of(path).class;
        match self.admission.overload.admit(class) {
            Ok(place) => self.admitted(methods, place, request),
            Err(refused) => answered(refusal::of(refused)),
        }
    }
}

fn answered<E: Send + 'static>(answer: http::Response<Body>) -> Answering<E> {
    Box::pin(std::future::ready(Ok(answer)))
}

impl<S> Admitted<S> {
    fn admitted<B>(
        &mut self,
        methods: Arc<Methods>,
        place: Place,
        mut request: http::Request<B>,
    ) -> Answering<S::Error>
    where
        S: Service<http::Request<B>, Response = http::Response<Body>>,
        S::Error: Send + 'static,
        S::Future: Send + 'static,
    {
        let begun = Instant::now();
        let path = request.uri().path().to_owned();
        let method = methods.of(&path);
        let timeout = request.headers().get(TIMEOUT).and_then(|text| read_timeout(text.as_bytes()));
        let deadline = timeout.map(|timeout| begun + timeout);
        // Whatever ends work is done all the same.
        if timeout.is_some_and(|timeout| timeout.is_zero()) && method.class != Class::End {
            overload::note_dropped("admission");
            return answered(status::deadline_passed().into_http());
        }
        let caller = Caller::new(place, deadline);
        if method.class != Class::End {
            request.extensions_mut().insert(caller.clone());
        }
        let span =
            tracing::debug_span!("rpc", rpc.service = method.service, rpc.method = method.name);
        let answer = self.inner.call(request);
        let admitted = async move {
            let answer = in_time(answer, deadline).await;
            drop(caller);
            methods.of(&path).seconds.record(begun.elapsed());
            answer
        };
        Box::pin(admitted.instrument(span))
    }
}

impl Methods {
    fn of(&self, path: &str) -> &Method {
        self.known.get(path).unwrap_or(&self.other)
    }
}

/// The answer, unless the deadline passes before it is there. tonic wakes whoever waits at the deadline, but
/// would say that the call was cancelled.
async fn in_time<E>(
    answer: impl Future<Output = Result<http::Response<Body>, E>>,
    deadline: Option<Instant>,
) -> Result<http::Response<Body>, E> {
    let mut answer = pin!(answer);
    std::future::poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(answer.map(in_our_words)),
        Poll::Pending if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
            Poll::Ready(Ok(status::deadline_passed().into_http()))
        }
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// What tonic says of a message above its own limit, as the codec says it of one above ours.
fn in_our_words(answer: http::Response<Body>) -> http::Response<Body> {
    let code = answer.headers().get(Status::GRPC_STATUS);
    match code.map(|code| Code::from_bytes(code.as_ref())) {
        Some(Code::OutOfRange) => status::message_not_read(MAX_MESSAGE_BYTES).into_http(),
        _ => answer,
    }
}

/// A `grpc-timeout`: at most eight digits and a unit. tonic, too, passes over one that is none.
fn read_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        assert_eq!(read_timeout(b"100m"), Some(Duration::from_millis(100)));
        assert_eq!(read_timeout(b"0n"), Some(Duration::ZERO));
        assert_eq!(read_timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for not_one in [&b""[..], b"m", b"10", b"123456789m", b"-1m", b"1x"] {
            assert_eq!(read_timeout(not_one), None, "{not_one:?}");
        }
    }

    #[test]
    fn every_method_that_a_class_names_is_the_contracts() {
        let methods = pb::methods();
        let of = |wanted| methods.iter().filter(move |(_, name)| class(name) == wanted).count();
        assert_eq!([of(Class::End), of(Class::Redeem), of(Class::Acquire)], [3, 2, 1]);
        assert!(of(Class::Rest) > 10);
    }
}
