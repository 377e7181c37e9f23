//! The proxy of the tests itself: what it does to what passes through it, and what it leaves alone.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::get};
use holdfast::{
    provider::{Answer, Provider},
    simulator::{Simulator, SimulatorArgs},
};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::{net::TcpListener, time::timeout};

use crate::{
    provider::client::{Calls as _, ask, client},
    support::{
        cluster::TestDatabase,
        proxy::{
            Proxy, Upstream,
            bytes::{Bytes, Way},
            http::{self, Http, request},
            postgres::{self, Fault, Postgres, statement},
        },
        wait::eventually,
        world::{Clients, POOL, World, fresh_database},
    },
};

/// Long enough to be told from nothing, short enough to be waited for.
const A_WHILE: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(10);
/// A statement that leaves a trace, and that sqlx prepares.
const INSERT: &str = "-- Note\nINSERT INTO notes SELECT $1::bigint RETURNING note";

/// A database with a table for notes, behind a proxy.
struct Notes {
    proxy: Proxy<Postgres>,
    database: TestDatabase,
    direct: PgConnection,
}

impl Notes {
    async fn new() -> Self {
        let database = fresh_database().await;
        let mut direct = PgConnection::connect(&database.url).await.unwrap();
        direct.execute("CREATE TABLE notes (note bigint)").await.unwrap();
        Self { proxy: Proxy::<Postgres>::before(&database.url), database, direct }
    }

    /// A connection through the proxy.
    async fn connect(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.proxy.url(&self.database.url)).await
    }

    /// What was noted, by a look past the proxy.
    async fn noted(&mut self) -> Vec<i64> {
        let notes = sqlx::query_scalar("SELECT note FROM notes ORDER BY note");
        notes.fetch_all(&mut self.direct).await.unwrap()
    }
}

async fn note(connection: &mut PgConnection, note: i64) -> sqlx::Result<i64> {
    sqlx::query_scalar(INSERT).bind(note).fetch_one(connection).await
}

#[tokio::test]
async fn a_statement_that_is_cut_before_never_reaches_the_server() {
    let mut notes = Notes::new().await;
    let other = notes.proxy.fault(statement("-- Another"), Fault::CutBefore);
    let cut = notes.proxy.fault(statement("-- Note").skip(2).times(2), Fault::CutBefore);
    let mut connection = notes.connect().await.unwrap();
    // The second time, sqlx names what it has prepared.
    for n in 0..2 {
        assert_eq!(note(&mut connection, n).await.unwrap(), n);
    }
    assert!(matches!(note(&mut connection, 2).await.unwrap_err(), sqlx::Error::Io(_)));
    let mut connection = notes.connect().await.unwrap();
    assert!(matches!(note(&mut connection, 3).await.unwrap_err(), sqlx::Error::Io(_)));
    let mut connection = notes.connect().await.unwrap();
    note(&mut connection, 4).await.unwrap();
    assert_eq!(notes.noted().await, [0, 1, 4]);
    assert_eq!((cut.matched(), cut.times()), (5, 2));
    assert_eq!((other.matched(), other.times()), (0, 0));
}

#[tokio::test]
async fn a_statement_whose_reply_is_cut_was_committed() {
    let mut notes = Notes::new().await;
    let cut = notes.proxy.fault(statement("-- Note").skip(1), Fault::CutReply);
    let mut connection = notes.connect().await.unwrap();
    note(&mut connection, 1).await.unwrap();
    assert!(matches!(note(&mut connection, 2).await.unwrap_err(), sqlx::Error::Io(_)));
    assert_eq!(notes.noted().await, [1, 2]);
    assert_eq!(cut.times(), 1);
    // A statement that is not prepared is known too.
    let cut = notes.proxy.fault(statement("VALUES (3)"), Fault::CutReply);
    let mut connection = notes.connect().await.unwrap();
    connection.execute("INSERT INTO notes VALUES (3)").await.unwrap_err();
    assert_eq!(notes.noted().await, [1, 2, 3]);
    assert_eq!(cut.times(), 1);
}

#[tokio::test]
async fn a_statement_whose_reply_is_swallowed_was_committed_and_its_caller_waits() {
    let mut notes = Notes::new().await;
    let swallowed = notes.proxy.fault(statement("-- Note"), Fault::SwallowReply);
    let mut connection = notes.connect().await.unwrap();
    let noting = tokio::spawn(async move { note(&mut connection, 1).await });
    swallowed.wait(1).await;
    assert_eq!(notes.noted().await, [1]);
    tokio::time::sleep(A_WHILE).await;
    assert!(!noting.is_finished());
    assert_eq!(notes.proxy.connections(), 1);
    noting.abort();
    let closed = "the client's end to close the connection";
    eventually(LIMIT, closed, async || (notes.proxy.connections() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_statement_or_its_reply_is_delayed() {
    let mut notes = Notes::new().await;
    let late = notes.proxy.fault(statement("-- Note"), Fault::DelayRequest(A_WHILE));
    let mut connection = notes.connect().await.unwrap();
    let begun = Instant::now();
    note(&mut connection, 1).await.unwrap();
    assert!(begun.elapsed() >= A_WHILE);
    assert_eq!(late.times(), 1);

    let late = notes.proxy.fault(statement("-- Note"), Fault::DelayReply(2 * A_WHILE));
    let noting = tokio::spawn(async move { note(&mut connection, 2).await });
    let committed = "the commit";
    eventually(LIMIT, committed, async || (notes.noted().await == [1, 2]).then_some(())).await;
    assert!(!noting.is_finished());
    noting.await.unwrap().unwrap();
    assert_eq!(late.times(), 1);
}

#[tokio::test]
async fn a_statement_is_refused_until_the_fault_is_lifted_and_the_connection_lasts() {
    let mut notes = Notes::new().await;
    let refused = notes.proxy.fault(statement("-- Note").always(), Fault::Refuse("53100"));
    let mut connection = notes.connect().await.unwrap();
    for n in 0..2 {
        let error = note(&mut connection, n).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "53100");
    }
    refused.lift();
    note(&mut connection, 2).await.unwrap();
    assert_eq!(notes.noted().await, [2]);
    assert_eq!((refused.matched(), refused.times()), (3, 2));
}

#[tokio::test]
async fn a_statement_is_rewritten_or_the_proxy_says_that_it_could_not_be() {
    let mut notes = Notes::new().await;
    let rewritten = notes.proxy.rewrite("-- Note", "SELECT $1::bigint", "SELECT 1000 + $1::bigint");
    let mut connection = notes.connect().await.unwrap();
    for n in 0..2 {
        assert_eq!(note(&mut connection, n).await.unwrap(), 1000 + n);
    }
    assert_eq!(notes.noted().await, [1000, 1001]);
    assert_eq!(rewritten.times(), 1, "prepared once");

    let nothing = notes.proxy.rewrite("-- Note", "no such piece", "");
    let mut connection = notes.connect().await.unwrap();
    note(&mut connection, 2).await.unwrap();
    assert_eq!(nothing.missed().len(), 1);
    std::panic::catch_unwind(AssertUnwindSafe(|| nothing.times())).unwrap_err();
}

#[tokio::test]
async fn connections_are_cut_and_refused_and_frozen() {
    let mut notes = Notes::new().await;
    let mut connection = notes.connect().await.unwrap();
    note(&mut connection, 1).await.unwrap();
    assert_eq!(notes.proxy.connections(), 1);
    notes.proxy.cut_all().await;
    note(&mut connection, 2).await.unwrap_err();

    notes.proxy.refuse();
    assert!(matches!(notes.connect().await.unwrap_err(), sqlx::Error::Io(_)));
    notes.proxy.accept();
    let mut connection = notes.connect().await.unwrap();

    notes.proxy.freeze();
    let noting = tokio::spawn(async move { note(&mut connection, 3).await });
    assert!(timeout(A_WHILE, notes.connect()).await.is_err(), "a new connection stands still too");
    assert!(!noting.is_finished());
    assert_eq!(notes.noted().await, [1]);
    notes.proxy.thaw();
    noting.await.unwrap().unwrap();
    assert_eq!(notes.noted().await, [1, 3]);
}

#[tokio::test]
async fn connections_are_stranded_and_new_ones_are_not() {
    let mut notes = Notes::new().await;
    let mut old = notes.connect().await.unwrap();
    note(&mut old, 1).await.unwrap();
    notes.proxy.strand();
    let noting = tokio::spawn(async move { note(&mut old, 2).await });
    let mut new = notes.connect().await.unwrap();
    note(&mut new, 3).await.unwrap();
    assert!(!noting.is_finished());
    assert_eq!(notes.noted().await, [1, 3]);
}

#[tokio::test]
async fn new_connections_are_led_elsewhere_and_old_ones_stay() {
    let (mut here, mut there) = (Notes::new().await, Notes::new().await);
    let mut old = here.connect().await.unwrap();
    // A Postgres tells databases apart by their names, so the other one is behind a proxy here.
    here.proxy.lead_to(Upstream::Tcp(there.proxy.addr()));
    let url = here.proxy.url(&there.database.url);
    let mut new = PgConnection::connect(&url).await.unwrap();
    note(&mut old, 1).await.unwrap();
    note(&mut new, 2).await.unwrap();
    assert_eq!((here.noted().await, there.noted().await), (vec![1], vec![2]));
    assert_eq!(there.proxy.connections(), 1);

    here.proxy.lead_to(postgres::upstream(&here.database.url));
    let mut new = here.connect().await.unwrap();
    note(&mut new, 3).await.unwrap();
    assert_eq!(here.noted().await, [1, 3]);
}

#[tokio::test]
async fn a_proxy_that_is_dropped_cuts_its_connections() {
    let notes = Notes::new().await;
    let mut connection = notes.connect().await.unwrap();
    let url = notes.proxy.url(&notes.database.url);
    drop(notes);
    note(&mut connection, 1).await.unwrap_err();
    PgConnection::connect(&url).await.unwrap_err();
}

/// The simulator, behind a proxy, and the server's own client of it.
struct Provided {
    proxy: Proxy<Http>,
    provider: Provider,
    simulator: Simulator,
    _folder: tempfile::TempDir,
}

impl Provided {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let args = SimulatorArgs::new(folder.path().join("ledger.jsonl"));
        let simulator = Simulator::start(&args).await.unwrap();
        let proxy = Proxy::<Http>::before(simulator.addr());
        let provider = client(&proxy.url());
        Self { proxy, provider, simulator, _folder: folder }
    }

    /// Sends a redemption, and asks about it past the proxy: what was answered, and whether the
    /// provider knows it.
    async fn send(&self, code: &str) -> (Answer, bool) {
        let ask = ask(code, "account");
        let answer = self.provider.send(&ask).await;
        let direct = client(&self.simulator.url());
        let known = match direct.look_up(&ask).await {
            Answer::Http(http) => http.status == 200,
            other => panic!("{other:?}"),
        };
        (answer, known)
    }
}

fn is_lost(answer: &Answer) -> bool {
    matches!(answer, Answer::Lost(_))
}

fn is_created(answer: &Answer) -> bool {
    matches!(answer, Answer::Http(http) if http.status == 201)
}

#[tokio::test]
async fn a_request_is_cut_before_it_or_after_its_answer_or_within() {
    let provided = Provided::new().await;
    let post = || request("POST", "/redemptions");
    let elsewhere = provided.proxy.fault(request("GET", "/redemptions"), http::Fault::CutBefore);
    let before = provided.proxy.fault(post().skip(1), http::Fault::CutBefore);
    let reply = provided.proxy.fault(post().skip(2), http::Fault::CutReply);
    let body = provided.proxy.fault(post().skip(3), http::Fault::CutInBody);

    let (answer, known) = provided.send("CODE-0000-0001").await;
    assert!(is_created(&answer) && known, "{answer:?}");
    let (answer, known) = provided.send("CODE-0000-0002").await;
    assert!(is_lost(&answer) && !known, "{answer:?}");
    let (answer, known) = provided.send("CODE-0000-0003").await;
    assert!(is_lost(&answer) && known, "{answer:?}");
    let (answer, known) = provided.send("CODE-0000-0004").await;
    assert!(is_lost(&answer) && known, "{answer:?}");
    let (answer, known) = provided.send("CODE-0000-0005").await;
    assert!(is_created(&answer) && known, "{answer:?}");
    for fired in [before, reply, body] {
        assert_eq!((fired.matched(), fired.times()), (5, 1));
    }
    assert_eq!(elsewhere.matched(), 0);
}

#[tokio::test]
async fn a_request_or_its_answer_is_delayed_or_swallowed() {
    let provided = Provided::new().await;
    let post = || request("POST", "/redemptions");
    let late = [http::Fault::DelayRequest(A_WHILE), http::Fault::DelayReply(A_WHILE)];
    for (place, fault) in late.into_iter().enumerate() {
        let fired = provided.proxy.fault(post(), fault);
        let begun = Instant::now();
        let (answer, known) = provided.send(&format!("CODE-0000-000{place}")).await;
        assert!(is_created(&answer) && known, "{answer:?}");
        assert!(begun.elapsed() >= A_WHILE);
        assert_eq!(fired.times(), 1);
    }
    let swallowed = provided.proxy.fault(post(), http::Fault::SwallowReply);
    let waiting = timeout(2 * A_WHILE, provided.send("CODE-0000-0009"));
    assert!(waiting.await.is_err(), "no answer");
    assert_eq!(swallowed.times(), 1);
}

#[tokio::test]
async fn answers_of_every_form_pass_whole_over_one_connection() {
    let chunks = || async {
        let parts = ["one, ", "two, ", "three"].map(Ok::<_, std::io::Error>);
        Body::from_stream(tokio_stream::iter(parts))
    };
    let router = Router::new()
        .route("/chunks", get(chunks))
        .route("/length", get(|| async { "a text" }))
        .route("/empty", get(|| async { axum::http::StatusCode::NO_CONTENT }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::<Http>::before(listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client = plain_client();
    for _ in 0..2 {
        for (path, text) in [("chunks", "one, two, three"), ("length", "a text"), ("empty", "")] {
            let reply = client.get(format!("{}/{path}", proxy.url())).send().await.unwrap();
            assert_eq!(reply.text().await.unwrap(), text);
        }
    }
    assert_eq!(proxy.connections(), 1);
}

fn plain_client() -> reqwest::Client {
    // reqwest wants to know who would do TLS, though nobody does here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn calls_pass_and_are_cut_and_frozen_without_being_understood() {
    let world = World::start().await;
    let proxy = Proxy::<Bytes>::before(world.server(0).addr());
    let url = format!("http://{}", proxy.addr());
    let mut clients = Clients::connect(&url).await;
    clients.create_accounts(2).await;
    clients.acquire(|_| {}).await.unwrap();

    proxy.freeze();
    let mut slow = clients.clone();
    let acquiring = tokio::spawn(async move { slow.acquire(|_| {}).await });
    tokio::time::sleep(A_WHILE).await;
    assert!(!acquiring.is_finished());
    proxy.thaw();
    acquiring.await.unwrap().unwrap();

    // The client connects anew by itself; either end says more than this of HTTP/2 at once.
    for way in [Way::ToServer, Way::ToClient] {
        let cut = proxy.cut_after(way, 10);
        proxy.cut_all().await;
        let failed = "a call over a connection that is cut";
        eventually(LIMIT, failed, async || {
            let pool = holdfast::rpc::pb::GetPoolRequest { pool_id: POOL.to_owned() };
            let _ = clients.pools.get_pool(pool).await;
            (cut.times() == 1).then_some(())
        })
        .await;
    }
    let after = "calls to pass again";
    eventually(LIMIT, after, async || {
        let pool = holdfast::rpc::pb::GetPoolRequest { pool_id: POOL.to_owned() };
        clients.pools.get_pool(pool).await.ok()
    })
    .await;
}
