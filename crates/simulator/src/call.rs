//! A call, as the paths of all APIs get it: read once, and answered as the faults and the ledger will have it.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{ConnectInfo, FromRequest, FromRequestParts as _, Request},
    response::{IntoResponse as _, Response},
};
use http::HeaderMap;
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use super::{
    book::{Entry, How},
    cut::Connection,
    ledger::NotDurable,
    reply::Reply,
    request::{Manners, execute},
    shared::{Shared, lock},
};

/// See the module.
pub(super) struct Call {
    pub(super) shared: Arc<Shared>,
    connection: Connection,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl FromRequest<Arc<Shared>> for Call {
    type Rejection = Response;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let connection = ConnectInfo::from_request_parts(&mut parts, shared).await;
        let ConnectInfo(connection) = connection.map_err(|why| why.into_response())?;
        let headers = parts.headers.clone();
        let body = Bytes::from_request(Request::from_parts(parts, body), shared).await;
        let body = body.map_err(|why| why.into_response())?;
        Ok(Self { shared: Arc::clone(shared), connection, headers, body })
    }
}

impl Call {
    /// The header's text, or none.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body, where it is this.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Executes a request for a redemption in a task of its own. `apply` enters it into the book, and gives the answer.
    pub(super) async fn execute<F>(
        &self,
        code: String,
        manners: &'static Manners,
        apply: impl FnOnce(Arc<Shared>, String, How) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = Result<Response, NotDurable>> + Send + 'static,
    {
        execute(&self.shared, &self.connection, code, manners, apply).await
    }

    /// The answer to a look-up that a fault strikes.
    pub(super) fn struck_look_up(&self, manners: &Manners) -> Option<Response> {
        lock(&self.shared.injector).of_lookup().then(manners.broken)
    }

    /// Counts an inquiry, which takes its time. The answer to one that a fault strikes.
    pub(super) async fn struck_inquiry(&self, manners: &Manners) -> Option<Response> {
        self.shared.count_inquiry();
        let (latency, fails) = lock(&self.shared.injector).of_inquiry();
        sleep(latency).await;
        fails.then(manners.broken)
    }

    /// Answers once the ledger has all up to a row, or not at all.
    pub(super) async fn once_durable(
        &self,
        number: u64,
        answer: impl FnOnce() -> Response,
    ) -> Response {
        match self.shared.ledger.durable(number).await {
            Ok(()) => answer(),
            Err(failed) => Reply::from(failed).give(&self.connection).await,
        }
    }

    /// The same for entries of the book.
    pub(super) async fn once_all_durable(
        &self,
        entries: &[Entry],
        answer: impl FnOnce() -> Response,
    ) -> Response {
        let last = entries.iter().map(|entry| entry.number).max().unwrap_or(0);
        self.once_durable(last, answer).await
    }
}
