//! A client of HTTP/2 that does what no well-made client does.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response};
use prost::Message;
use tokio::{net::TcpStream, time::timeout};
use tonic::Status;

/// A connection.
#[derive(Clone)]
pub(crate) struct RawClient(SendRequest<Bytes>);

/// A call whose request is not complete, or whose answer is not read.
pub(crate) struct RawCall {
    pub(crate) answer: ResponseFuture,
    pub(crate) request: SendStream<Bytes>,
}

/// A message as gRPC sends it.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

/// The first bytes of a message that is said to be so long.
pub(crate) fn begun(length: u32, bytes: usize) -> Bytes {
    let mut begun = BytesMut::new();
    begun.put_u8(0);
    begun.put_u32(length);
    begun.put_bytes(7, bytes);
    begun.freeze()
}

impl RawClient {
    /// Connects; `window` is how much of each answer it is ready to take.
    pub(crate) async fn connect(addr: &str, window: u32) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (client, connection) = Builder::new()
            .initial_window_size(window)
            .initial_connection_window_size(1 << 20)
            .handshake(stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    /// Begins a call, and sends some bytes of its request; `ends` tells whether they are all.
    pub(crate) async fn call(&mut self, path: &str, bytes: Bytes, ends: bool) -> RawCall {
        let request = Request::post(format!("http://holdfast{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut ready = self.0.clone().ready().await.unwrap();
        let (answer, mut request) = ready.send_request(request, false).unwrap();
        if !bytes.is_empty() || ends {
            request.send_data(bytes, ends).unwrap();
        }
        RawCall { answer, request }
    }
}

impl RawCall {
    /// The answer's headers, within a time that no answer takes.
    pub(crate) async fn answered(self) -> Response<RecvStream> {
        timeout(Duration::from_secs(60), self.answer).await.expect("an answer").unwrap()
    }

    /// The error of an answer that is nothing else.
    pub(crate) async fn error(self) -> Status {
        let answer = self.answered().await;
        Status::from_header_map(answer.headers()).expect("an error")
    }
}

/// What a block of headers comes to, as a proxy counts it.
pub(crate) fn block_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}
