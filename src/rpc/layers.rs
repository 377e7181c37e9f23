//! The layers that every call passes through: its message is read, it is admitted, and gets a span.
//!
//! A call is admitted when its message is complete (of a stream: the first one). Until then it holds nothing but
//! what it has sent, which is bounded. So a client that opens calls and sends nothing keeps nobody else out.

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
use tonic::{Request, body::Body};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::{
    answer,
    message::{self, Complete, RequestBody},
    methods, refusal, status, test_caller,
};
use crate::{
    admission::{self, Caller, Class, Overload, Permit},
    domain::principal::{Authority, Principal},
};

/// Admits calls while the server takes them, and gives each a span.
#[derive(Clone, Debug)]
pub struct Admission {
    overload: Overload,
    methods: Arc<Methods>,
    closing: CancellationToken,
}

/// The methods of the contract, by the path of their calls.
#[derive(Debug)]
struct Methods {
    served: HashMap<String, Method>,
    /// For health and reflection.
    other: Method,
}

#[derive(Debug)]
struct Method {
    description: methods::Method,
    class: Class,
    seconds: metrics::Histogram,
}

impl Admission {
    /// Refuses calls for which `overload` has no permit, and all of them once `closing` is cancelled.
    pub fn new(overload: Overload, closing: CancellationToken) -> Self {
        let method = |description: methods::Method| Method {
            class: class(&description.name),
            seconds: metrics::histogram!(
                "holdfast_call_seconds", "method" => description.name.clone()
            ),
            description,
        };
        let served = methods::all()
            .into_iter()
            .map(|one| (format!("/{}/{}", one.service, one.name), method(one)))
            .collect();
        let other = method(methods::Method {
            service: "other".to_owned(),
            name: "other".to_owned(),
            // Reflection's calls are streams; what is not served at all is answered by its path.
            takes_stream: true,
            pool_path: Vec::new(),
        });
        Self { overload, methods: Arc::new(Methods { served, other }), closing }
    }

    /// Waits until no admitted call is left to answer.
    pub async fn all_answered(&self) {
        self.overload.all_answered().await;
    }
}

/// What a method's calls are for.
fn class(method: &str) -> Class {
    match method {
        "ReleaseAccount" | "RenewLease" | "ResolveRedemption" | "ReverseRedemption" => Class::End,
        "Redeem" | "BatchRedeem" => Class::Redeem,
        "AcquireAccount" => Class::Acquire,
        _ => Class::Rest,
    }
}

/// The call that brought a message.
pub(super) fn caller_of<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or_default()
}

/// Who sent a message. Nobody in particular, where the server asks nobody who they are.
pub(super) fn principal_of<T>(request: &Request<T>) -> Principal {
    request.extensions().get::<Principal>().cloned().unwrap_or_default()
}

/// Who sent a message, from where, and what of others it may touch in the pool that the message is about.
pub(super) fn authority_of<T>(request: &Request<T>) -> Authority {
    let extensions = request.extensions();
    let known = extensions.get::<Authority>().cloned();
    let known = known.or_else(|| extensions.get::<Principal>().cloned().map(Authority::of));
    let known = known.unwrap_or_default();
    Authority { peer: request.remote_addr().map(|addr| addr.ip().to_canonical()), ..known }
}

impl<S> Layer<S> for Admission {
    type Service = Admitted<S>;

    fn layer(&self, inner: S) -> Admitted<S> {
        Admitted { inner, admission: Arc::new(self.clone()) }
    }
}

/// See [`Admission`].
#[derive(Clone, Debug)]
pub struct Admitted<S> {
    inner: S,
    /// Shared, because each call has its own handle: to clone a [`CancellationToken`] takes a lock.
    admission: Arc<Admission>,
}

/// How long the caller waits.
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Health is asked for until the end, and answers that the server is stopping.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// Reflection, of either version.
const REFLECTION: &str = "/grpc.reflection.";

type Answer = http::Response<Body>;
type Answering<E> = Pin<Box<dyn Future<Output = Result<Answer, E>> + Send>>;

impl<S, B> Service<http::Request<B>> for Admitted<S>
where
    S: Service<http::Request<Body>, Response = Answer> + Clone + Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    B: RequestBody,
{
    type Response = Answer;
    type Error = S::Error;
    type Future = Answering<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        // The clone may not be ready: what was asked whether it is does the call.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let admission = Arc::clone(&self.admission);
        Box::pin(async move { admission.serve(inner, request).await })
    }
}

impl Admission {
    async fn serve<S, B>(&self, mut inner: S, request: http::Request<B>) -> Result<Answer, S::Error>
    where
        S: Service<http::Request<Body>, Response = Answer>,
        B: RequestBody,
    {
        let came = Instant::now();
        let (mut parts, body) = request.into_parts();
        test_caller::note(&mut parts);
        let path = parts.uri.path();
        let is_health = path.starts_with(HEALTH);
        if self.closing.is_cancelled() && !is_health {
            return Ok(status::shutting_down().into_http());
        }
        let Some(method) = self.methods.of(path) else {
            // Nothing of it is read: there is nobody who would.
            return inner.call(http::Request::from_parts(parts, Body::empty())).await;
        };
        let timeout = parts.headers.get(TIMEOUT).and_then(|text| read_timeout(text.as_bytes()));
        let deadline = timeout.map(|timeout| came + timeout);
        let takes_stream = method.description.takes_stream && !is_health;
        let budget = self.overload.unread_requests();
        let read = tokio::select! {
            biased;
            read = message::first(body, takes_stream, budget, deadline) => read,
            () = self.closing.cancelled(), if !is_health => Err(status::shutting_down()),
        };
        let complete = match read {
            Ok(complete) => complete,
            Err(error) => return Ok(error.into_http()),
        };
        if is_health {
            let body = complete.into_body(budget);
            return inner.call(http::Request::from_parts(parts, body)).await;
        }
        self.admit(inner, method, parts, complete, deadline).await
    }

    async fn admit<S, B>(
        &self,
        mut inner: S,
        method: &Method,
        mut parts: http::request::Parts,
        complete: Complete<B>,
        deadline: Option<Instant>,
    ) -> Result<Answer, S::Error>
    where
        S: Service<http::Request<Body>, Response = Answer>,
        B: RequestBody,
    {
        let admitted = Instant::now();
        // Whatever ends work is done all the same.
        if deadline.is_some_and(|deadline| deadline <= admitted) && method.class != Class::End {
            admission::note_dropped("admission");
            return Ok(status::deadline_passed().into_http());
        }
        let (permit, stream) = match self.permits(method, complete.message()) {
            Ok(permits) => permits,
            Err(refused) => return Ok(refusal::of(refused)),
        };
        let caller = Caller::new(permit, deadline);
        if method.class != Class::End {
            parts.extensions.insert(caller.clone());
        }
        let span = tracing::debug_span!(
            "rpc",
            rpc.service = method.description.service,
            rpc.method = method.description.name
        );
        let body = complete.into_body(self.overload.unread_requests());
        let answer = inner.call(http::Request::from_parts(parts, body));
        let answer = in_time(answer, deadline).instrument(span).await;
        drop(caller);
        method.seconds.record(admitted.elapsed());
        answer.map(|answer| answer::bounded(answer, self.overload.unread_answers(), stream))
    }

    /// The permits of a call, by its class and by the pool that it is about: its own, and for a stream another
    /// that lasts as long as the stream is open.
    fn permits(
        &self,
        method: &Method,
        message: &[u8],
    ) -> Result<(Permit, Option<Permit>), admission::Refused> {
        let pool = method.description.pool(message);
        let stream = match method.description.takes_stream {
            true => Some(self.overload.admit(Class::Stream, pool)?),
            false => None,
        };
        Ok((self.overload.admit(method.class, pool)?, stream))
    }
}

impl Methods {
    /// The method of a path; `None` where calls are answered by nothing but that there is no such method.
    fn of(&self, path: &str) -> Option<&Method> {
        let is_other = || path.starts_with(REFLECTION) || path.starts_with(HEALTH);
        self.served.get(path).or_else(|| is_other().then_some(&self.other))
    }
}

/// The answer, unless the deadline passes before it is there. tonic wakes the waiting task at the deadline, but
/// would say that the call was cancelled.
async fn in_time<E>(
    answer: impl Future<Output = Result<http::Response<Body>, E>>,
    deadline: Option<Instant>,
) -> Result<http::Response<Body>, E> {
    let mut answer = pin!(answer);
    std::future::poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(answer),
        Poll::Pending if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
            Poll::Ready(Ok(status::deadline_passed().into_http()))
        }
        Poll::Pending => Poll::Pending,
    })
    .await
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
        let methods = methods::all();
        let of =
            |wanted| methods.iter().filter(move |method| class(&method.name) == wanted).count();
        assert_eq!([of(Class::End), of(Class::Redeem), of(Class::Acquire)], [4, 2, 1]);
        assert!(of(Class::Rest) > 10);
    }
}
