//! A proxy before an HTTP/1.1 server, which knows one request from another.
//!
//! A connection carries one request after another, without pipelining, as clients do.

use std::{net::SocketAddr, time::Duration};

use tokio::time::sleep;

use super::{Ended, Fired, Link, Protocol, Proxy, Reader, Upstream, When, rules::Rules};

/// What happens to a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The connection is cut, and the server never sees it.
    CutBefore,
    /// The server has answered in full; then the connection is cut instead of the reply.
    CutReply,
    /// The server has answered in full; no reply comes, and the connection stays.
    SwallowReply,
    /// The connection is cut in the middle of the reply's body.
    CutInBody,
    /// It reaches the server later.
    DelayRequest(Duration),
    /// The server has answered in full; the reply comes later.
    DelayReply(Duration),
    /// On a connection that carried another request before: the server has answered in full, and these
    /// bytes come before its reply, as if it had spoken unasked while the request was on its way.
    SpeakBefore(String),
}

/// A method, and how a path begins.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    prefix: String,
}

/// The requests with a method whose path begins with `prefix`.
pub(crate) fn request(method: &str, prefix: &str) -> When<Request> {
    When::first(Request { method: method.to_owned(), prefix: prefix.to_owned() })
}

/// A whole reply.
pub(crate) fn unasked(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Unasked\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// See [the module](self).
#[derive(Debug, Default)]
pub(crate) struct Http {
    rules: Rules<Request, Fault>,
}

impl Proxy<Http> {
    /// A proxy before an address.
    pub(crate) fn before(server: SocketAddr) -> Self {
        Self::start(Http::default(), Upstream::Tcp(server))
    }

    /// Its base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Asks for a fault.
    pub(crate) fn fault(&self, when: When<Request>, fault: Fault) -> Fired {
        self.protocol.rules.add(when, fault)
    }
}

impl Protocol for Http {
    async fn serve(&self, mut link: Link) -> Result<(), Ended> {
        let (mut client, mut server) = (Vec::new(), Vec::new());
        for requests_before in 0.. {
            let request = tokio::select! {
                request = take(&mut link.from_client, &mut client, Kind::Request) => request?,
                // Nothing was asked, so the server has ended the connection: its client is to see it.
                _ = link.from_server.read(&mut server) => return Err(Ended),
            };
            let line = request.line();
            let mut words = line.split(' ');
            let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let mut fault = self
                .rules
                .pick(|wanted| wanted.method == method && path.starts_with(&wanted.prefix));
            match &fault {
                Some((Fault::CutBefore, fired)) => {
                    fired.count();
                    return Err(Ended);
                }
                Some((Fault::DelayRequest(time), _)) => sleep(*time).await,
                _ => {}
            }
            link.to_server.write(&request.bytes).await?;
            let reply = take(&mut link.from_server, &mut server, Kind::Reply).await?;
            match &fault {
                Some((Fault::CutReply, fired)) => {
                    fired.count();
                    return Err(Ended);
                }
                Some((Fault::SwallowReply, fired)) => {
                    fired.count();
                    return link.from_client.ignore().await;
                }
                Some((Fault::CutInBody, fired)) => {
                    let body = reply.bytes.len() - reply.head;
                    assert!(body > 1, "a reply without a body cannot be cut in it");
                    link.to_client.write(&reply.bytes[..reply.head + body / 2]).await?;
                    link.to_client.finish().await?;
                    fired.count();
                    return Err(Ended);
                }
                Some((Fault::DelayReply(time), _)) => sleep(*time).await,
                // What is first on a connection is no answer to anything else.
                Some((Fault::SpeakBefore(_), _)) if requests_before == 0 => fault = None,
                Some((Fault::SpeakBefore(bytes), _)) => {
                    link.to_client.write(bytes.as_bytes()).await?;
                }
                _ => {}
            }
            if let Some((_, fired)) = fault {
                fired.count();
            }
            link.to_client.write(&reply.bytes).await?;
            if reply.ends_with_connection {
                return link.to_client.finish().await;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Request,
    Reply,
}

/// A request or a reply.
#[derive(Debug)]
struct Whole {
    bytes: Vec<u8>,
    /// How many of the bytes are its head.
    head: usize,
    /// A reply whose body ends where the connection does.
    ends_with_connection: bool,
}

impl Whole {
    fn line(&self) -> String {
        let end = self.bytes.iter().position(|byte| *byte == b'\r').unwrap_or(0);
        String::from_utf8_lossy(&self.bytes[..end]).into_owned()
    }
}

/// How a body ends.
enum Body {
    Length(usize),
    Chunked,
    AtEnd,
}

/// Takes one request or reply; what comes after it is left in `bytes`.
async fn take(from: &mut Reader, bytes: &mut Vec<u8>, kind: Kind) -> Result<Whole, Ended> {
    let head = loop {
        match find(bytes, b"\r\n\r\n", 0) {
            Some(end) => break end + 4,
            None => more(from, bytes).await?,
        }
    };
    let end = match body(&String::from_utf8_lossy(&bytes[..head]), kind) {
        Body::Length(length) => {
            while bytes.len() < head + length {
                more(from, bytes).await?;
            }
            head + length
        }
        Body::Chunked => loop {
            match chunks_end(bytes, head) {
                Some(end) => break end,
                None => more(from, bytes).await?,
            }
        },
        Body::AtEnd => {
            while from.read(bytes).await? {}
            let bytes = std::mem::take(bytes);
            return Ok(Whole { bytes, head, ends_with_connection: true });
        }
    };
    let whole = bytes.drain(..end).collect();
    Ok(Whole { bytes: whole, head, ends_with_connection: false })
}

async fn more(from: &mut Reader, bytes: &mut Vec<u8>) -> Result<(), Ended> {
    if from.read(bytes).await? { Ok(()) } else { Err(Ended) }
}

fn find(bytes: &[u8], text: &[u8], from: usize) -> Option<usize> {
    let found = bytes.get(from..)?.windows(text.len()).position(|window| window == text)?;
    Some(from + found)
}

fn body(head: &str, kind: Kind) -> Body {
    let head = head.to_ascii_lowercase();
    let value = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| *field == name).map(|(_, value)| value.trim().to_owned())
    };
    let status = head.split(' ').nth(1).unwrap_or("");
    if kind == Kind::Reply && ["204", "304"].contains(&status) {
        return Body::Length(0);
    }
    if value("transfer-encoding").is_some_and(|value| value.ends_with("chunked")) {
        return Body::Chunked;
    }
    match (value("content-length").and_then(|length| length.parse().ok()), kind) {
        (Some(length), _) => Body::Length(length),
        (None, Kind::Request) => Body::Length(0),
        (None, Kind::Reply) => Body::AtEnd,
    }
}

/// Where chunks that begin at `start` end, when they all have come.
fn chunks_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut place = start;
    loop {
        let line_end = find(bytes, b"\r\n", place)?;
        let line = String::from_utf8_lossy(&bytes[place..line_end]);
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        place = line_end + 2;
        if size == 0 {
            // Trailers, of which there are mostly none, and an empty line.
            let end = find(bytes, b"\r\n", place)?;
            return if end == place {
                Some(end + 2)
            } else {
                Some(find(bytes, b"\r\n\r\n", place)? + 4)
            };
        }
        place += size + 2;
    }
}
