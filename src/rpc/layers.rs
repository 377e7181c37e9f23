//! What every call passes through: admission, and a span.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::{codec::MAX_MESSAGE_BYTES, pb, status};

/// Calls that are answered at once; streams count until they are open. One more is refused as
/// overload. Most of them wait for an account, which costs little.
const MAX_CALLS: u32 = 16_384;

/// Admits calls while the server takes them, and gives each a span.
#[derive(Clone, Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    closing: CancellationToken,
}

impl Admission {
    /// Refuses calls once `closing` is cancelled.
    pub fn new(closing: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_CALLS as usize)), closing }
    }

    /// Waits until no admitted call is left to answer.
    pub async fn all_answered(&self) {
        // Every place at once: what takes them never gives them back, so nothing comes after.
        if let Ok(places) = self.places.acquire_many(MAX_CALLS).await {
            places.forget();
        }
    }
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

/// Health is asked for until the end, and answers that the server is stopping.
const HEALTH: &str = "/grpc.health.v1.Health/";

impl<S, B> Service<http::Request<B>> for Admitted<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let path = request.uri().path();
        if path.starts_with(HEALTH) {
            return Box::pin(self.inner.call(request));
        }
        if self.admission.closing.is_cancelled() {
            return Box::pin(std::future::ready(Ok(status::shutting_down().into_http())));
        }
        let Ok(place) = Arc::clone(&self.admission.places).try_acquire_owned() else {
            metrics::counter!("holdfast_calls_refused_total").increment(1);
            return Box::pin(std::future::ready(Ok(status::overloaded().into_http())));
        };
        let (service, method) = split(path);
        let span = tracing::debug_span!("rpc", rpc.service = service, rpc.method = method);
        let method = method.to_owned();
        let begun = Instant::now();
        let answer = self.inner.call(request);
        let admitted = async move {
            let answer = answer.await.map(in_our_words);
            drop(place);
            metrics::histogram!("holdfast_call_seconds", "method" => method)
                .record(begun.elapsed());
            answer
        };
        Box::pin(admitted.instrument(span))
    }
}

/// What tonic says of a message above its own limit, as the codec says it of one above ours.
fn in_our_words(answer: http::Response<Body>) -> http::Response<Body> {
    let code = answer.headers().get(Status::GRPC_STATUS);
    match code.map(|code| Code::from_bytes(code.as_ref())) {
        Some(Code::OutOfRange) => status::message_not_read(MAX_MESSAGE_BYTES).into_http(),
        _ => answer,
    }
}

/// The service and the method of a call's path; a path that is neither is nobody's metric.
fn split(path: &str) -> (&str, &str) {
    match path.trim_start_matches('/').split_once('/') {
        Some((service, method)) if pb::has_method(service, method) => (service, method),
        _ => ("other", "other"),
    }
}
