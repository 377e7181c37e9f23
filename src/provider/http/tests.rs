//! The client beside servers that speak HTTP strangely.

use std::{
    mem::size_of_val,
    sync::{Arc, atomic::AtomicUsize},
};

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::provider::profile::Profile;

/// A longer head than any answer needs.
const MAX_HEAD_BYTES: usize = 64 * 1024;

const IDLE: Duration = Duration::from_secs(60);

/// A client, and where it asks.
struct Site {
    http: Http,
    origin: String,
}

impl std::ops::Deref for Site {
    type Target = Http;

    fn deref(&self) -> &Http {
        &self.http
    }
}

impl Site {
    fn new(url: &str, http: Http) -> Self {
        Self { http, origin: url.trim_end_matches('/').to_owned() }
    }

    /// A question.
    fn get(&self, path: &str) -> Request {
        Request {
            method: "GET".to_owned(),
            origin: self.origin.clone(),
            path: path.to_owned(),
            query: String::new(),
            headers: Vec::new(),
            body: None,
        }
    }
}

fn client(url: &str) -> Site {
    idling(url, IDLE)
}

/// The built-in profile's, for another server.
fn settings(url: &str) -> HttpSettings {
    let mut settings = Profile::built_in().http.clone();
    settings.base = Url::parse(url).unwrap();
    settings
}

fn idling(url: &str, idle: Duration) -> Site {
    let limits = Limits { connect: Duration::from_secs(10), whole: Duration::from_secs(20), idle };
    Site::new(url, Http::new(&settings(url), &limits).unwrap())
}

/// A server that answers each request with the next of `answers`, cut in pieces, and closes after the last
/// one on every connection. Counts its connections.
async fn serve(answers: &'static [&'static str], piece: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            tcp.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                for answer in answers {
                    if tcp.read(&mut [0; 4096]).await.unwrap_or(0) == 0 {
                        return;
                    }
                    for piece in answer.as_bytes().chunks(piece) {
                        tcp.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
    });
    (url, connections)
}

async fn get(http: &Site) -> Answer {
    http.call(plain(http.get("/x"))).await
}

async fn get_at(http: &Site, path: &str) -> Answer {
    http.call(plain(http.get(path))).await
}

fn plain(request: Request) -> Call {
    Call { request, max_bytes: 100, about: None, alone: false }
}

/// The first answer on its connection.
fn answer(status: u16, body: &'static str) -> Answer {
    answer_of(status, body, true)
}

/// One on a connection that carried another request before.
fn later(status: u16, body: &'static str) -> Answer {
    answer_of(status, body, false)
}

fn answer_of(status: u16, body: &'static str, first_on_connection: bool) -> Answer {
    Answer::Http(HttpAnswer {
        status,
        retry_after: None,
        quota_used_up: None,
        first_on_connection,
        body: body.into(),
    })
}

#[tokio::test]
async fn an_answer_is_understood_however_it_is_framed_and_cut() {
    for whole in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nx: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\n\r\nhello",
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ] {
        for piece in [1, 7, usize::MAX] {
            let answers = Box::leak(Box::new([whole]));
            let (url, _) = serve(answers, piece).await;
            assert_eq!(get(&client(&url)).await, answer(200, "hello"), "{whole:?} by {piece}");
        }
    }
    for (whole, status) in [
        ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", 204),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", 101),
        ("HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n", 304),
    ] {
        let (url, _) = serve(Box::leak(Box::new([whole])), usize::MAX).await;
        assert_eq!(get(&client(&url)).await, answer(status, ""), "{whole:?}");
    }
}

#[tokio::test]
async fn what_is_not_a_whole_answer_is_lost() {
    let long_line = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(2 * MAX_HEAD_BYTES));
    let many_lines = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(200));
    let hints = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_HEAD_BYTES / 10);
    let long_size =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;{}", "x".repeat(20_000));
    let long_trailer = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{}",
        "x: y\r\n".repeat(5_000)
    );
    for broken in [
        "",
        "HTTP/1.1",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/2 200\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfive\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffff\r\nhello",
        &long_line,
        &many_lines,
        &hints,
        &long_size,
        &long_trailer,
    ] {
        let answers = Box::leak(Box::new([&*broken.to_owned().leak()]));
        let (url, connections) = serve(answers, usize::MAX).await;
        let got = get(&client(&url)).await;
        assert!(matches!(got, Answer::Lost(_)), "{broken:.80?}: {got:?}");
        assert_eq!(connections.load(Ordering::SeqCst), 1, "{broken:.80?} was asked for again");
    }
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_connection_is_used_again_unless_its_next_answer_could_be_mistaken() {
    let (url, connections) = serve(&[HELLO; 3], usize::MAX).await;
    let http = client(&url);
    for wanted in [answer(200, "hello"), later(200, "hello"), later(200, "hello")] {
        assert_eq!(get(&http).await, wanted);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);

    for last in [
        "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 402 Stale\r\ncontent-length: 0\r\n\r\n",
    ] {
        let answers = Box::leak(Box::new([last, HELLO]));
        let (url, connections) = serve(answers, usize::MAX).await;
        let http = client(&url);
        assert_eq!(get(&http).await, answer(200, "hello"), "{last:?}");
        assert_eq!(get(&http).await, answer(200, "hello"), "{last:?}");
        assert_eq!(connections.load(Ordering::SeqCst), 2, "{last:?}");
    }
}

#[tokio::test]
async fn a_connection_on_which_anything_came_since_is_not_used_again() {
    // Either the end, or what nobody asked for, comes after the first answer.
    for late in ["", "HTTP/1.1 402 Nobody asked\r\ncontent-length: 0\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = client(&format!("http://{}", listener.local_addr().unwrap()));
        let (told, heard) = tokio::sync::oneshot::channel();
        let (closed, is_closed) = tokio::sync::oneshot::channel();
        let server = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let _ = tcp.read(&mut [0; 4096]).await.unwrap();
            tcp.write_all(HELLO.as_bytes()).await.unwrap();
            heard.await.unwrap();
            tcp.write_all(late.as_bytes()).await.unwrap();
            if late.is_empty() {
                tcp.shutdown().await.unwrap();
            }
            // The client closes it by itself, without a request on it.
            let written = tcp.read(&mut [0; 4096]).await.unwrap_or(0);
            closed.send(()).unwrap();
            let (mut next, _) = listener.accept().await.unwrap();
            let _ = next.read(&mut [0; 4096]).await.unwrap();
            next.write_all(HELLO.as_bytes()).await.unwrap();
            written
        });
        assert_eq!(get(&http).await, answer(200, "hello"));
        told.send(()).unwrap();
        is_closed.await.unwrap();
        assert_eq!(get(&http).await, answer(200, "hello"));
        assert_eq!(server.await.unwrap(), 0, "a request was written after {late:?}");
    }
}

#[tokio::test]
async fn a_connection_that_may_be_one_answer_behind_is_closed() {
    let id = "0190163d-8694-739b-aea5-966c26f8ad90".to_owned();
    let named = format!("{{\"key\":\"{id}\"}}");
    let whole = |body: &str| -> &'static str {
        format!("HTTP/1.1 402 No\r\ncontent-length: {}\r\n\r\n{body}", body.len()).leak()
    };
    for (second, connections_then) in [("{}", 2), (named.as_str(), 1)] {
        // What is first on a connection can be to nothing else, whatever it says.
        let answers = vec![whole("{}"), whole(second), whole("{}")].leak();
        let (url, connections) = serve(answers, usize::MAX).await;
        let http = client(&url);
        let call = || Call { about: Some(id.clone()), ..plain(http.get("/x")) };
        for first_on_connection in [true, false, connections_then == 2] {
            let answer = http.call(call()).await;
            let Answer::Http(answer) = answer else { panic!("{answer:?}") };
            assert_eq!(answer.first_on_connection, first_on_connection, "{second}");
        }
        assert_eq!(connections.load(Ordering::SeqCst), connections_then, "{second}");
    }
}

#[tokio::test]
async fn a_call_that_is_to_be_alone_has_a_connection_of_its_own() {
    let (url, connections) = serve(&[HELLO; 2], usize::MAX).await;
    let http = client(&url);
    let alone = || Call { alone: true, ..plain(http.get("/x")) };
    for calls in 1..=2 {
        assert_eq!(http.call(alone()).await, answer(200, "hello"));
        assert_eq!(connections.load(Ordering::SeqCst), calls);
    }
    assert_eq!(get(&http).await, answer(200, "hello"));
    assert_eq!(connections.load(Ordering::SeqCst), 3, "others do not use it after that");
}

/// Whether the client sees it before it writes is a race, which it need not win: nothing is believed.
#[tokio::test]
async fn what_a_server_says_first_and_hangs_up_is_no_answer() {
    for spoken in ["SSH-2.0-OpenSSH\r\n", "220 ready\r\n", "\u{0}\u{1}"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = client(&format!("http://{}", listener.local_addr().unwrap()));
        tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let _ = tcp.write_all(spoken.as_bytes()).await;
        });
        let answer = get(&http).await;
        assert!(matches!(answer, Answer::Lost(_)), "{spoken:?}: {answer:?}");
    }
}

#[tokio::test]
async fn what_comes_before_the_request_is_written_is_no_answer_to_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = client(&format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        // It answers when it has heard a part, and reads no more.
        let _ = tcp.read(&mut [0; 16]).await.unwrap();
        tcp.write_all(HELLO.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    // More than both ends' buffers hold.
    let body = Some(" ".repeat(64 * 1024 * 1024));
    let request = Request { method: "POST".to_owned(), body, ..http.get("/x") };
    let answer = http.call(plain(request)).await;
    assert!(matches!(&answer, Answer::Lost(why) if why.contains("spoke before")), "{answer:?}");
}

#[tokio::test]
async fn idle_connections_are_closed_though_nobody_calls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http =
        idling(&format!("http://{}", listener.local_addr().unwrap()), Duration::from_millis(200));
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let _ = tcp.read(&mut [0; 4096]).await.unwrap();
        tcp.write_all(HELLO.as_bytes()).await.unwrap();
        tcp.read(&mut [0; 4096]).await.unwrap_or(0)
    });
    assert_eq!(get(&http).await, answer(200, "hello"));
    let closed = timeout(Duration::from_secs(20), server).await;
    assert_eq!(closed.unwrap().unwrap(), 0);
    drop(http);
}

/// However slowly an answer comes, a call ends in its time.
#[tokio::test]
async fn an_answer_of_a_byte_at_a_time_ends_with_the_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let limits =
        Limits { connect: Duration::from_secs(10), whole: Duration::from_millis(300), idle: IDLE };
    let http = Site::new(&url, Http::new(&settings(&url), &limits).unwrap());
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let _ = tcp.read(&mut [0; 4096]).await.unwrap();
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n").await.unwrap();
        while tcp.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(matches!(get(&http).await, Answer::Lost(_)));
}

/// What is compressed stays so: it is no JSON, and a small answer never becomes a large one.
#[tokio::test]
async fn a_compressed_body_is_not_decoded() {
    // gzip of an empty text, as text can hold it here.
    let whole = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\n\u{1f}gzip";
    let (url, _) = serve(Box::leak(Box::new([whole])), usize::MAX).await;
    assert_eq!(get(&client(&url)).await, answer(200, "\u{1f}gzip"));
}

/// Over HTTP/2 an answer names its request, so that many calls share a connection, those that are to be alone too.
#[tokio::test]
async fn http2_is_spoken_where_the_server_chooses_it() {
    let (url, trusting, connections) = serve_http2().await;
    let limits =
        Limits { connect: Duration::from_secs(10), whole: Duration::from_secs(20), idle: IDLE };
    let http = Site::new(&url, Http::with_tls(Some(trusting), &limits).unwrap());
    for _ in 0..3 {
        assert_eq!(get(&http).await, answer(200, "hello"));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let alone = Call { alone: true, ..plain(http.get("/x")) };
    assert_eq!(http.call(alone).await, answer(200, "hello"));
    assert_eq!(connections.load(Ordering::SeqCst), 1, "it is alone on its stream");
}

/// A server that answers every request with "hello", over HTTP/2 alone.
async fn serve_http2() -> (String, ClientConfig, Arc<AtomicUsize>) {
    let (acceptor, client) = tls(&[b"h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else { continue };
            counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(tls).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data(Bytes::from_static(b"hello"), true).unwrap();
                }
            });
        }
    });
    (url, client, connections)
}

/// TLS of a server for `localhost`, and a client's settings that trust it alone.
fn tls(protocols: &[&[u8]]) -> (TlsAcceptor, ClientConfig) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), client)
}

/// A server with TLS for `localhost`, and a client's settings that trust it alone.
async fn serve_tls(answers: &'static [&'static str]) -> (String, ClientConfig, Arc<AtomicUsize>) {
    let (acceptor, client) = tls(&[b"http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            counter.fetch_add(1, Ordering::SeqCst);
            for answer in answers {
                if tls.read(&mut [0; 4096]).await.unwrap_or(0) == 0 {
                    break;
                }
                tls.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (url, client, connections)
}

#[tokio::test]
async fn tls_is_spoken_with_whom_the_certificate_names() {
    let (url, trusting, connections) = serve_tls(&[HELLO; 3]).await;
    let limits =
        Limits { connect: Duration::from_secs(10), whole: Duration::from_secs(20), idle: IDLE };
    let new = |url: &str| Site::new(url, Http::with_tls(Some(trusting.clone()), &limits).unwrap());
    // Nothing is told about another name than the certificate's.
    let wrong = get(&new(&url.replace("localhost", "127.0.0.1"))).await;
    assert!(matches!(wrong, Answer::NeverSent(_)), "{wrong:?}");
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    let http = new(&url);
    for wanted in [answer(200, "hello"), later(200, "hello"), later(200, "hello")] {
        assert_eq!(get(&http).await, wanted);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1, "it was not used again");
}

#[tokio::test]
async fn an_address_that_refuses_is_passed_over() {
    let (url, connections) = serve(&[HELLO], usize::MAX).await;
    // The name has an address of each family on most machines, and nobody listens on the other one.
    let http = client(&url.replace("127.0.0.1", "localhost"));
    assert_eq!(get(&http).await, answer(200, "hello"));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn requests_are_written_as_they_are_meant() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = client(&format!("http://{}", listener.local_addr().unwrap()));
    let server = tokio::spawn(async move {
        let mut heard = Vec::new();
        for _ in 0..2 {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = tcp.read(&mut request).await.unwrap();
            heard.push(String::from_utf8_lossy(&request[..length]).into_owned());
            tcp.write_all(HELLO.as_bytes()).await.unwrap();
        }
        heard
    });
    let headers = vec![("idempotency-key".to_owned(), "k-1".to_owned())];
    let get = Request { query: "c=%2Fd%27".to_owned(), ..http.get("/a/b%2F") };
    let post = Request {
        method: "POST".to_owned(),
        headers,
        body: Some("{}".to_owned()),
        ..http.get("/a/b")
    };
    for request in [get, post] {
        let call = Call { alone: true, ..plain(request) };
        assert_eq!(http.call(call).await, answer(200, "hello"));
    }
    for path in ["/a/../b", "/a b", "/\\"] {
        let answer = get_at(&http, path).await;
        assert!(matches!(answer, Answer::NeverSent(_)), "{path}: {answer:?}");
    }
    let heard = server.await.unwrap();
    let lines = |text: &str| text.split("\r\n").map(str::to_owned).collect::<Vec<_>>();
    let (get, post) = (lines(&heard[0]), lines(&heard[1]));
    assert_eq!(get[0], "GET /a/b%2F?c=%2Fd%27 HTTP/1.1");
    assert_eq!(post[0], "POST /a/b HTTP/1.1");
    let has = |lines: &[String], line: &str| lines.iter().any(|one| one == line);
    for lines in [&get, &post] {
        assert!(has(lines, &format!("user-agent: holdfast/{}", env!("CARGO_PKG_VERSION"))));
        assert!(!lines.iter().any(|line| line.starts_with("accept-encoding")), "{lines:?}");
    }
    assert!(has(&post, "idempotency-key: k-1") && has(&post, "content-length: 2"));
    assert_eq!(post.last().map(String::as_str), Some("{}"));
}

/// Thousands of these wait at a time.
#[test]
fn a_call_that_waits_is_small() {
    let http = client("http://127.0.0.1:1/");
    let call = http.call(plain(http.get("/x")));
    assert!(size_of_val(&call) <= 1024, "{} bytes", size_of_val(&call));
}

#[tokio::test]
async fn a_chunked_body_is_the_same_however_it_is_cut() {
    let mut runner = TestRunner::deterministic();
    let chunks = prop::collection::vec("[ -~]{1,9}", 0..8);
    for _ in 0..50 {
        let chunks = chunks.new_tree(&mut runner).unwrap().current();
        let mut wire = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
        for chunk in &chunks {
            wire.push_str(&format!("{:X}\r\n{chunk}\r\n", chunk.len()));
        }
        wire.push_str("0\r\nt: u\r\n\r\n");
        let piece = 1 + chunks.len() * 3;
        let (url, _) = serve(Box::leak(Box::new([&*wire.leak()])), piece).await;
        assert_eq!(get(&client(&url)).await, answer(200, chunks.concat().leak()));
    }
}

#[tokio::test]
async fn no_bytes_make_it_panic_or_keep_too_much() {
    let mut runner = TestRunner::deterministic();
    let signs = prop::sample::select(
        "HTP/1. 20OKcontelgh:rasfdu\r\n\r\n0123af;".chars().collect::<Vec<_>>(),
    );
    let texts = prop::collection::vec(signs, 0..300);
    for round in 0..100 {
        let mut wire: String = texts.new_tree(&mut runner).unwrap().current().iter().collect();
        if round % 2 == 0 {
            wire.insert_str(0, "HTTP/1.1 200 OK\r\n");
        }
        let (url, _) = serve(Box::leak(Box::new([&*wire.leak()])), usize::MAX).await;
        if let Answer::Http(answer) = get(&client(&url)).await {
            assert!(answer.body.len() <= 100);
        }
    }
}
