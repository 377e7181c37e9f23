//! A client that costs little: HTTP/2 and protobuf, without the layers of a gRPC client.
//!
//! Callers, server and database share the machine. At ten times the load nearly all callers are
//! refused. With tonic's client a caller cost several times as much as the server's refusal. The
//! program that measures was the first to have too much to do, and most calls ran out of time inside it.

use std::{str::FromStr as _, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use http::{HeaderMap, Method, Request, Uri, uri::PathAndQuery};
use prost::Message;
use tokio::net::TcpStream;
use tonic::{Code, Status};

/// What one connection may have received and not taken yet, in bytes.
const WINDOW: u32 = 1 << 20;

/// A connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lean {
    requests: SendRequest<Bytes>,
    paths: Arc<Paths>,
}

struct Paths {
    acquire: Uri,
    release: Uri,
}

/// Which method is called.
#[derive(Clone, Copy)]
pub(super) enum To {
    Acquire,
    Release,
}

impl Lean {
    pub(super) async fn connect(url: &str) -> anyhow::Result<Self> {
        let uri = Uri::from_str(url)?;
        let authority = uri.authority().context("no address")?.clone();
        let socket = TcpStream::connect(authority.as_str()).await?;
        socket.set_nodelay(true)?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            // Answers to calls that were cancelled may come at any time.
            .max_local_error_reset_streams(None)
            .handshake(socket)
            .await?;
        tokio::spawn(connection);
        let path = |method: &str| {
            let path = format!("/holdfast.v1.RedemptionService/{method}");
            let uri = Uri::builder().scheme("http").authority(authority.clone());
            uri.path_and_query(PathAndQuery::from_str(&path)?).build().map_err(anyhow::Error::from)
        };
        let paths = Paths { acquire: path("AcquireAccount")?, release: path("ReleaseAccount")? };
        Ok(Self { requests, paths: Arc::new(paths) })
    }

    /// Calls a method. With a timeout the server is told of it; the caller's own clock is the caller's.
    pub(super) async fn call<A: Message + Default>(
        &self,
        to: To,
        message: &impl Message,
        timeout: Option<Duration>,
    ) -> Result<A, Status> {
        let uri = match to {
            To::Acquire => &self.paths.acquire,
            To::Release => &self.paths.release,
        };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri.clone())
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", format!("{}u", timeout.as_micros()));
        }
        let request = request.body(()).map_err(|error| Status::internal(error.to_string()))?;
        let mut ready = self.requests.clone().ready().await.map_err(broken)?;
        let (answer, mut body) = ready.send_request(request, false).map_err(broken)?;
        body.send_data(framed(message), true).map_err(broken)?;
        let answer = answer.await.map_err(broken)?;
        if answer.headers().contains_key(Status::GRPC_STATUS) {
            return Err(status(answer.headers()));
        }
        read(answer.into_body()).await
    }
}

/// A message with its length before it.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put(message.encode_to_vec().as_slice());
    bytes.freeze()
}

async fn read<A: Message + Default>(mut body: RecvStream) -> Result<A, Status> {
    let mut bytes = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(broken)?;
        body.flow_control().release_capacity(data.len()).map_err(broken)?;
        bytes.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.map_err(broken)?.unwrap_or_default();
    match status(&trailers) {
        ok if ok.code() == Code::Ok => A::decode(bytes.get(5..).unwrap_or_default())
            .map_err(|error| Status::internal(error.to_string())),
        error => Err(error),
    }
}

fn status(headers: &HeaderMap) -> Status {
    Status::from_header_map(headers).unwrap_or_else(|| Status::unknown("no status"))
}

fn broken(error: h2::Error) -> Status {
    Status::unknown(format!("the connection: {error}"))
}
