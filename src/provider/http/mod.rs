//! HTTP/1.1 for many calls that wait: one request, one answer, and little kept meanwhile.
//!
//! Thousands of redemptions may wait for a provider that is slow, each on a connection of its own. A general
//! client keeps 40 KB for each. This one keeps the connection: the request is let go of once it is written, and
//! room for the answer is made when it comes. It reads heads and chunks with the parser that hyper uses.
//!
//! Nothing is tried twice. A connection is used only while nothing came on it that nobody asked for. So a request
//! is not written where the provider has hung up already, or speaks unasked. Once the first byte is written, only
//! a whole answer is an answer. An answer says whether its connection had carried another request. One that does
//! not name what it is about ends a connection that had. What comes next on it could be one answer behind.

mod connect;
mod idle;
mod message;

use std::{fmt, sync::Arc, time::Duration};

use bytes::BytesMut;
use http::HeaderValue;
use rustls::ClientConfig;
use tokio::time::timeout;
use url::{Position, Url};

use super::{Answer, HttpAnswer};
use crate::domain::id::RedemptionId;
use connect::{Connection, Connector};
use idle::Idle;
use message::{Body, Head, MAX_HEAD_BYTES};

/// A client of one server.
pub(super) struct Http {
    connector: Connector,
    idle: Arc<Idle>,
    /// Without a slash at its end.
    base_path: String,
    /// The lines that every request has, the token's with it.
    common: String,
    timeout: Duration,
}

/// How long things may take.
pub(super) struct Limits {
    /// To connect, the handshake of TLS included.
    pub(super) connect: Duration,
    /// For everything, to the answer's last byte.
    pub(super) whole: Duration,
    /// For a connection between two calls.
    pub(super) idle: Duration,
}

/// A request as it is written: it may hold a code.
pub(super) struct Written(Vec<u8>);

/// A call to make.
pub(super) struct Call {
    pub(super) request: Written,
    /// The longest body that is read of its answer.
    pub(super) max_bytes: usize,
    /// What the answer is to be about, where it can say so.
    pub(super) about: Option<RedemptionId>,
    /// Only over a connection that carries no other request before.
    pub(super) alone: bool,
}

/// The lines may hold a token.
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("base_path", &self.base_path).finish_non_exhaustive()
    }
}

impl Http {
    /// A client of the server at `base`, which is `http` or `https`. Does not connect.
    pub(super) fn new(
        base: &Url,
        authorization: Option<&HeaderValue>,
        limits: &Limits,
    ) -> anyhow::Result<Self> {
        // Without TLS no certificate is checked, so a machine that has none installed will do.
        let tls = (base.scheme() == "https").then(connect::as_this_machine_trusts).transpose()?;
        Self::with_tls(base, tls, authorization, limits)
    }

    fn with_tls(
        base: &Url,
        tls: Option<ClientConfig>,
        authorization: Option<&HeaderValue>,
        limits: &Limits,
    ) -> anyhow::Result<Self> {
        let host = &base[Position::BeforeHost..Position::AfterPort];
        let agent = concat!("holdfast/", env!("CARGO_PKG_VERSION"));
        let mut common =
            format!("host: {host}\r\nuser-agent: {agent}\r\naccept: application/json\r\n");
        if let Some(value) = authorization {
            common.push_str(&format!("authorization: {}\r\n", value.to_str()?));
        }
        Ok(Self {
            connector: Connector::new(base, tls, limits.connect)?,
            idle: Arc::new(Idle::new(limits.idle)),
            base_path: base.path().trim_end_matches('/').to_owned(),
            common,
            timeout: limits.whole,
        })
    }

    /// A question. `target` follows the base path, encoded as a URL is.
    pub(super) fn get(&self, target: &str) -> Written {
        Written(self.head("GET", target).into_bytes())
    }

    /// What may change something.
    pub(super) fn post(
        &self,
        target: &str,
        idempotency_key: Option<RedemptionId>,
        body: &[u8],
    ) -> Written {
        let mut head = self.head("POST", target);
        head.truncate(head.len() - "\r\n".len());
        if let Some(key) = idempotency_key {
            head.push_str(&format!("idempotency-key: {key}\r\n"));
        }
        let length = body.len();
        head.push_str(&format!(
            "content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        ));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        Written(bytes)
    }

    fn head(&self, method: &str, target: &str) -> String {
        format!("{method} {}{target} HTTP/1.1\r\n{}\r\n", self.base_path, self.common)
    }

    /// Makes one call and reads its answer to the end.
    pub(super) async fn call(&self, call: Call) -> Answer {
        match timeout(self.timeout, self.exchange(call)).await {
            Ok(answer) => answer,
            // Whatever it interrupted: this alone never proves that nothing left.
            Err(_) => Answer::Lost("no answer in time".to_owned()),
        }
    }

    async fn exchange(&self, call: Call) -> Answer {
        let kept = if call.alone { None } else { self.idle.take() };
        let connection = match kept {
            Some(connection) => connection,
            // In a box of its own: what it needs is not kept while the answer is waited for.
            None => match Box::pin(self.connect()).await {
                Ok(connection) => connection,
                // Only this proves that nothing left.
                Err(why) => return Answer::NeverSent(why),
            },
        };
        match ask(connection, call).await {
            Ok((answer, connection)) => {
                if let Some(connection) = connection {
                    self.idle.put(connection);
                }
                Answer::Http(answer)
            }
            Err(why) => Answer::Lost(why),
        }
    }

    /// A connection without any bytes yet.
    async fn connect(&self) -> Result<Connection, String> {
        let mut connection = self.connector.connect().await?;
        if connection.is_quiet() {
            Ok(connection)
        } else {
            Err("it hung up or spoke before it was asked anything".to_owned())
        }
    }
}

/// Writes the request and reads the answer. Gives the connection back when it may be used again.
async fn ask(
    mut connection: Connection,
    call: Call,
) -> Result<(HttpAnswer, Option<Connection>), String> {
    let Call { request, max_bytes, about, alone: _ } = call;
    let first_on_connection = !connection.is_used();
    connection
        .write(&request.0)
        .await
        .map_err(|error| format!("the request broke off: {error}"))?;
    drop(request);
    let mut raw = BytesMut::new();
    let head = read_head(&mut connection, &mut raw).await?;
    let status = head.status;
    let but = |why| format!("HTTP {status}, but its body {why}");
    let mut body = Body::new(head.framing, max_bytes).map_err(but)?;
    let mut closed = false;
    while !body.take(&mut raw).map_err(but)? {
        match connection.read(&mut raw).await {
            Ok(0) => {
                body.close().map_err(but)?;
                closed = true;
                break;
            }
            Ok(_) => {}
            Err(error) => return Err(but(format!("broke off: {error}"))),
        }
    }
    let body = body.into_bytes();
    let is_in_step = first_on_connection || about.is_none_or(|id| names(&body, id));
    // What comes after an answer could be taken for the next one's.
    let again = head.keep_alive && !closed && raw.is_empty() && is_in_step;
    let answer = HttpAnswer { status, retry_after: head.retry_after, first_on_connection, body };
    Ok((answer, again.then_some(connection)))
}

/// Whether a body holds the key of a redemption somewhere.
fn names(body: &[u8], id: RedemptionId) -> bool {
    let key = id.to_string();
    body.windows(key.len()).any(|part| part.eq_ignore_ascii_case(key.as_bytes()))
}

async fn read_head(connection: &mut Connection, raw: &mut BytesMut) -> Result<Head, String> {
    let mut heard = 0;
    loop {
        if let Some(head) = message::read_head(raw)? {
            return Ok(head);
        }
        if heard >= MAX_HEAD_BYTES {
            return Err(format!("the answer's head is longer than {MAX_HEAD_BYTES} bytes"));
        }
        heard += match connection.read(raw).await {
            Ok(0) => return Err("the connection was closed before there was an answer".to_owned()),
            Ok(bytes) => bytes,
            Err(error) => return Err(format!("the connection broke off: {error}")),
        };
    }
}

#[cfg(test)]
mod tests;
