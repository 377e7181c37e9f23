//! What a server left in flight at the provider when it died is looked up by another within 5 s, and nothing is
//! done that could hurt a server which is only taken for dead.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use holdfast::{
    rpc::pb::{self, RedemptionState},
    simulator::{
        faults::{Fault as ProviderFault, Faults},
        ledger,
    },
};
use sqlx::{Connection as _, PgConnection, Row as _};
use time::OffsetDateTime;
use tokio::{task::JoinHandle, time::Instant};
use tonic::Status;

use crate::support::{
    fleet::{Able, Fleet, Setup},
    proxy::{
        Fired, Proxy,
        http::{Fault, Http, request},
        postgres::{self, statement},
    },
    wait::eventually,
    world::{Clients, POOL, fresh_database, lease, seconds},
};

/// Counts a key once, tells what became of it, cancels it.
const WHOLE: Able = Able { deduplicates: true, looks_up: true, cancels: true };
/// Counts a key once, and does not tell what became of it.
const WITHOUT_LOOK_UP: Able = Able { deduplicates: true, looks_up: false, cancels: true };
/// The promise: from the death of a server until its redemptions are settled.
const PROMISE: Duration = Duration::from_secs(5);
/// How long a busy machine may take beyond it.
const SLACK: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(30);
/// So long after a redemption was begun the reconciler takes it: the send window and two calls' time.
const SETTINGS: [&str; 2] = ["--provider-send-window=8s", "--provider-timeout=6s"];

/// A fleet whose servers reach the provider through a proxy that counts what they ask.
struct Stage {
    fleet: Fleet,
    db_url: String,
    /// Sends, and cancellations.
    posts: Fired,
    look_ups: Fired,
    _proxy: Arc<Proxy<Http>>,
}

impl Stage {
    /// Replies to sends come so late.
    async fn new(able: Able, late: Duration) -> Self {
        let database = fresh_database().await;
        let db_url = database.url.clone();
        let fleet = Fleet::over(setup(able), db_url.clone(), Some(database)).await;
        Self::over(late, fleet, db_url)
    }

    fn over(late: Duration, mut fleet: Fleet, db_url: String) -> Self {
        let proxy = fleet.go_through_a_proxy();
        let posts = proxy.fault(request("POST", "/redemptions").always(), Fault::DelayReply(late));
        let none = Fault::DelayReply(Duration::ZERO);
        let look_ups = proxy.fault(request("GET", "/redemptions/").always(), none);
        Self { fleet, db_url, posts, look_ups, _proxy: proxy }
    }

    async fn start_servers(&mut self, first: &str, others: usize) {
        self.fleet.start_server(&[("HOLDFAST_CRASH_POINTS", first)]).await;
        for _ in 0..others {
            self.fleet.start_server(&[]).await;
        }
        self.fleet.clients(0).create_pool(POOL).await;
    }

    async fn sql(&self) -> PgConnection {
        PgConnection::connect(&self.db_url).await.unwrap()
    }

    /// Begins to redeem a card into an account of its own, over the first server.
    async fn redeem(&self, card: &str) -> JoinHandle<Result<pb::Redemption, Status>> {
        let mut clients = self.fleet.clients(0);
        clients.create_account(card, |_| {}).await;
        let selector = pb::AccountSelector { account_id: card.to_owned(), ..Default::default() };
        let acquired = clients.acquire(|it| {
            it.selector = Some(selector);
            it.lease_duration = seconds(60.0);
        });
        let held = lease(&acquired.await.unwrap());
        let (code, card) = (self.fleet.code(card), card.to_owned());
        tokio::spawn(async move {
            let redeemed = clients.redeem(&held, &code, |request| {
                request.request_id = card;
                request.release_on_completion = true;
            });
            Ok(redeemed.await?.redemption.unwrap())
        })
    }

    /// The provider has acted on so many.
    async fn executed(&self, count: usize) {
        let ledger = self.fleet.ledger();
        eventually(LIMIT, "the provider acts", async || {
            (ledger::read(&ledger).unwrap().len() >= count).then_some(())
        })
        .await;
    }

    async fn first_stands_still(&mut self) {
        eventually(LIMIT, "the first server stands still", async || {
            self.fleet.first_is_gone().then_some(())
        })
        .await;
    }

    /// The redemption of a card, as another server tells it.
    async fn find(&self, card: &str) -> pb::Redemption {
        find(&mut self.fleet.clients(1), card).await
    }

    async fn wait_for(&self, card: &str, state: RedemptionState) -> pb::Redemption {
        let mut clients = self.fleet.clients(1);
        eventually(LIMIT, &format!("{card} is {state:?}"), async || {
            let found = find(&mut clients, card).await;
            (found.state() == state).then_some(found)
        })
        .await
    }

    async fn row(&self, card: &str) -> Row {
        let row = sqlx::query(
            "SELECT state, checks, next_check_at, early_check_at, now() AS now FROM redemptions
             WHERE request_id = $1",
        )
        .bind(card)
        .fetch_one(&mut self.sql().await)
        .await
        .unwrap();
        Row {
            state: row.get("state"),
            checks: row.get("checks"),
            next_check_at: row.get("next_check_at"),
            early_check_at: row.get("early_check_at"),
            now: row.get("now"),
        }
    }

    /// Waits until the redemption was looked up early and told nothing.
    async fn is_looked_up_early(&self, card: &str) -> Row {
        eventually(LIMIT, "it is looked up early", async || {
            let row = self.row(card).await;
            (row.early_check_at.is_some() && self.look_ups.times() > 0).then_some(row)
        })
        .await
    }
}

/// What the database has of a redemption.
#[derive(Debug, PartialEq)]
struct Row {
    state: String,
    checks: i32,
    next_check_at: Option<OffsetDateTime>,
    early_check_at: Option<OffsetDateTime>,
    now: OffsetDateTime,
}

fn setup(able: Able) -> Setup {
    let serve = SETTINGS.map(str::to_owned).to_vec();
    Setup { able, serve, provider: Vec::new() }
}

async fn find(clients: &mut Clients, card: &str) -> pb::Redemption {
    let request = pb::GetRedemptionRequest {
        pool_id: POOL.to_owned(),
        request_id: card.to_owned(),
        ..Default::default()
    };
    clients.redemptions.get_redemption(request).await.unwrap().into_inner().redemption.unwrap()
}

async fn state_of(clients: &mut Clients, card: &str) -> RedemptionState {
    find(clients, card).await.state()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_server_had_in_flight_is_settled_within_five_seconds() {
    let mut stage = Stage::new(WHOLE, Duration::from_secs(60)).await;
    stage.start_servers("", 2).await;
    let refused = stage.fleet.code("refused");
    let rules = Faults::of_card(&refused, &[ProviderFault::LimitReached]);
    stage.fleet.set_faults(&Faults { rules, ..Faults::default() }).await;
    let cards: Vec<_> =
        (0..12).map(|n| format!("card-{n}")).chain(["refused".to_owned()]).collect();
    join_all(cards.iter().map(|card| stage.redeem(card))).await;
    stage.executed(cards.len()).await;
    stage.fleet.servers[0].kill();
    let killed = Instant::now();
    let mut clients = stage.fleet.clients(1);
    eventually(PROMISE + SLACK, "all are settled", async || {
        for card in &cards {
            if state_of(&mut clients, card).await == RedemptionState::Submitted {
                return None;
            }
        }
        Some(())
    })
    .await;
    println!("settled {:?} after the kill", killed.elapsed());
    for card in &cards {
        let expected =
            if card == "refused" { RedemptionState::Failed } else { RedemptionState::Succeeded };
        assert_eq!(stage.find(card).await.state(), expected, "{card}");
        assert_ne!(clients.status_of(card).await, pb::AccountStatus::Locking, "{card}");
    }
    assert_eq!(stage.posts.matched(), cards.len(), "nothing was sent again or cancelled");
    // Two servers judge it dead at once: each redemption is looked up by one of them.
    assert!(stage.look_ups.matched() < cards.len() * 3 / 2, "{}", stage.look_ups.matched());
}

/// What the provider does not know, or cannot be asked, waits for the end of the send window.
async fn nothing_is_done_before_the_window_is_over(able: Able) {
    let mut stage = Stage::new(able, Duration::ZERO).await;
    stage.start_servers("begin.after=kill", 2).await;
    let _ = stage.redeem("card").await.await.unwrap();
    let begun = stage.row("card").await;
    assert_eq!((begun.state.as_str(), begun.checks), ("SUBMITTED", 0));
    if able.looks_up {
        let row = stage.is_looked_up_early("card").await;
        assert_eq!((row.state.as_str(), row.checks), ("SUBMITTED", 0));
        assert_eq!(row.next_check_at, begun.next_check_at);
    }
    // Read again until the reconciler has claimed it: the last row before that is of the window.
    let mut look_ups = 0;
    let taken = eventually(LIMIT, "the reconciler takes it", async || {
        let before = (stage.posts.matched(), stage.look_ups.matched());
        let row = stage.row("card").await;
        if row.state != "SUBMITTED" {
            return Some(row);
        }
        assert_eq!((row.checks, row.next_check_at), (0, begun.next_check_at));
        assert_eq!(before.0, 0, "nothing is sent");
        look_ups = before.1;
        None
    })
    .await;
    assert!(taken.now >= begun.next_check_at.unwrap(), "{taken:?}, {begun:?}");
    if able.looks_up {
        // After 3, 5, 7, 11 and 16 s, or a little later; two servers share them.
        assert!((3..=7).contains(&look_ups), "{look_ups}");
    } else {
        assert_eq!((look_ups, taken.early_check_at), (0, None));
    }
    stage.wait_for("card", RedemptionState::Succeeded).await;
    assert_eq!(stage.posts.matched(), 1, "sent again, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_provider_does_not_know_is_asked_ever_more_rarely_until_the_window_is_over() {
    nothing_is_done_before_the_window_is_over(WHOLE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_provider_that_does_not_look_up_nothing_is_done_early() {
    nothing_is_done_before_the_window_is_over(WITHOUT_LOOK_UP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_a_person_is_so_only_when_the_window_is_over() {
    let mut stage = Stage::new(WHOLE, Duration::from_secs(60)).await;
    stage.start_servers("", 1).await;
    let update = "UPDATE pools SET amount_mismatch = 'NEEDS_REVIEW'";
    sqlx::query(update).execute(&mut stage.sql().await).await.unwrap();
    let rules = Faults::of_card(&stage.fleet.code("card"), &[ProviderFault::WrongAmount]);
    stage.fleet.set_faults(&Faults { rules, ..Faults::default() }).await;
    let mut clients = stage.fleet.clients(0);
    clients.create_account("a", |_| {}).await;
    let held = lease(&clients.acquire(|it| it.lease_duration = seconds(60.0)).await.unwrap());
    let code = stage.fleet.code("card");
    let call = tokio::spawn(async move {
        let request = |request: &mut pb::RedeemRequest| {
            request.request_id = "card".to_owned();
            request.expected = Some(crate::support::world::eur(1234));
        };
        clients.redeem(&held, &code, request).await.map(|_| ())
    });
    stage.executed(1).await;
    let begun = stage.row("card").await;
    stage.fleet.servers[0].kill();
    call.await.unwrap().unwrap_err();
    stage.is_looked_up_early("card").await;
    let row = stage.row("card").await;
    assert_eq!((row.state.as_str(), row.next_check_at), ("SUBMITTED", begun.next_check_at));
    let review = stage.wait_for("card", RedemptionState::NeedsReview).await;
    assert_eq!(review.failure.unwrap().reason, "AMOUNT_MISMATCH");
    assert!(stage.row("card").await.now >= begun.next_check_at.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stood_still_finds_its_redemption_settled() {
    let mut stage = Stage::new(WHOLE, Duration::from_secs(4)).await;
    stage.start_servers("", 1).await;
    let call = stage.redeem("card").await;
    stage.executed(1).await;
    stage.fleet.servers[0].stop();
    let settled = stage.wait_for("card", RedemptionState::Succeeded).await;
    stage.fleet.servers[0].go_on();
    let told = call.await.unwrap().unwrap();
    assert_eq!((told.state(), &told.amount), (RedemptionState::Succeeded, &settled.amount));
    let events = stage.fleet.clients(0).events("card").await;
    assert_eq!(events.iter().filter(|event| event.reason == "redeemed").count(), 1);
    assert_eq!(stage.posts.matched(), 1);
    eventually(LIMIT, "the others see that it lives", async || {
        let said = stage.fleet.servers[1].said();
        said.contains("a server that was taken for dead beats again").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stood_still_before_it_sent_sends_within_its_window() {
    let mut stage = Stage::new(WHOLE, Duration::ZERO).await;
    stage.start_servers("send.before=stop", 1).await;
    let call = stage.redeem("card").await;
    stage.first_stands_still().await;
    stage.is_looked_up_early("card").await;
    stage.fleet.servers[0].go_on();
    let told = call.await.unwrap().unwrap();
    assert_eq!((told.state(), told.attempts), (RedemptionState::Succeeded, 1));
    assert_eq!(stage.posts.matched(), 1);
}

/// Nothing left this server, and nobody else has sent anything: an early look-up does not change that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stood_still_may_still_infer_that_nothing_was_executed() {
    let mut stage = Stage::new(WHOLE, Duration::ZERO).await;
    let points = "send.before=error@1,send.before=error@2,send.before=error@3,\
                  send.before=stop@4,send.before=error@4";
    stage.start_servers(points, 1).await;
    let call = stage.redeem("card").await;
    stage.first_stands_still().await;
    stage.is_looked_up_early("card").await;
    stage.fleet.servers[0].go_on();
    let told = call.await.unwrap().unwrap();
    assert_eq!(told.state(), RedemptionState::Failed, "{told:?}");
    assert_eq!(told.failure.unwrap().reason, "PROVIDER_UNREACHABLE");
    assert_eq!(stage.posts.matched(), 0);
}

/// It stands still in a pause between two sends, and goes on when its window is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stood_still_in_a_pause_does_not_send_after_its_window() {
    let mut stage = Stage::new(WHOLE, Duration::ZERO).await;
    stage.start_servers("", 1).await;
    stage.fleet.set_faults(&Faults { busy: 100.0, ..Faults::default() }).await;
    let call = stage.redeem("card").await;
    // The pauses double from 0.1 s: the one after this is 3.2 s.
    stage.posts.wait(6).await;
    stage.fleet.servers[0].stop();
    let mut db = stage.sql().await;
    eventually(LIMIT, "the window is over", async || {
        let over = "SELECT now() > created_at + interval '8 s' FROM redemptions";
        sqlx::query_scalar::<_, bool>(over).fetch_one(&mut db).await.unwrap().then_some(())
    })
    .await;
    stage.fleet.servers[0].go_on();
    // From now on it is the reconciler's, which looks it up first.
    let told = call.await.unwrap().unwrap();
    assert_eq!((told.state(), told.attempts), (RedemptionState::InDoubt, 6), "{told:?}");
    assert_eq!(stage.posts.matched(), 6);
}

/// A heartbeat stops while its server lives: all its redemptions are looked up by another server, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_beats_are_blocked_redeems_as_before() {
    let database = fresh_database().await;
    let db_url = database.url.clone();
    let between = Proxy::<postgres::Postgres>::before(&db_url);
    // The first beat passes: without it a server does not start.
    let beat = statement("-- Of no pool: a server's beat").skip(1).always();
    let blocked = between.fault(beat, postgres::Fault::Refuse("53200"));
    // What health commits would be a beat, too.
    let committed = "-- Of no pool: a row that is committed";
    between.rewrite(committed, "beat = s.beat + 1, beat_at = now()", "beat = s.beat");
    let fleet = Fleet::over(setup(WHOLE), between.url(&db_url), Some(database)).await;
    let mut stage = Stage::over(Duration::ZERO, fleet, db_url.clone());
    stage.fleet.start_server(&[]).await;
    // The other reaches the database by itself.
    stage.fleet.db_url = db_url;
    stage.fleet.start_server(&[]).await;
    stage.fleet.clients(0).create_pool(POOL).await;
    eventually(LIMIT, "the first server is judged dead", async || {
        stage.fleet.servers[1].said().contains("a server's beat has stopped").then_some(())
    })
    .await;
    // At work for longer than it takes until they are looked up.
    let processing_time = Duration::from_millis(1500);
    let slow = Faults { slow_202: 100.0, processing_time, ..Faults::default() };
    stage.fleet.set_faults(&slow).await;
    let cards: Vec<_> = (0..8).map(|n| format!("card-{n}")).collect();
    for call in join_all(cards.iter().map(|card| stage.redeem(card))).await {
        let told = call.await.unwrap().unwrap();
        assert_eq!(told.state(), RedemptionState::Succeeded);
    }
    for card in &cards {
        let row = stage.row(card).await;
        assert!(row.early_check_at.is_some(), "{card} was not looked up by the other server");
        let events = stage.fleet.clients(1).events(card).await;
        assert_eq!(events.iter().filter(|event| event.reason == "redeemed").count(), 1, "{card}");
    }
    assert_eq!(stage.posts.matched(), cards.len());
    assert!(stage.fleet.servers[0].said().contains("beat is not acknowledged"));
    assert!(blocked.times() > 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redemption_that_cannot_be_written_does_not_hold_up_the_others() {
    let mut stage = Stage::new(WHOLE, Duration::from_secs(60)).await;
    stage.start_servers("", 1).await;
    let cards = ["bad", "good-1", "good-2"];
    join_all(cards.iter().map(|card| stage.redeem(card))).await;
    stage.executed(cards.len()).await;
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'not this one'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON redemptions FOR EACH ROW
         WHEN (NEW.request_id = 'bad') EXECUTE FUNCTION refuse();";
    sqlx::raw_sql(refuse).execute(&mut stage.sql().await).await.unwrap();
    stage.fleet.servers[0].kill();
    let mut clients = stage.fleet.clients(1);
    eventually(PROMISE + SLACK, "the good ones are settled", async || {
        let mut settled = true;
        for card in &cards[1..] {
            settled &= state_of(&mut clients, card).await == RedemptionState::Succeeded;
        }
        settled.then_some(())
    })
    .await;
    assert_eq!(stage.find("bad").await.state(), RedemptionState::Submitted);
    let said = stage.fleet.servers[1].said();
    assert!(said.contains("claim_early_checks") && said.contains("not this one"), "{said}");
    let mend = "DROP TRIGGER refuse ON redemptions";
    sqlx::raw_sql(mend).execute(&mut stage.sql().await).await.unwrap();
    stage.wait_for("bad", RedemptionState::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_looks_up_what_a_server_without_a_row_left() {
    let mut stage = Stage::new(WHOLE, Duration::from_secs(60)).await;
    stage.start_servers("", 0).await;
    let _call = stage.redeem("card").await;
    stage.executed(1).await;
    stage.fleet.servers[0].kill();
    sqlx::query("DELETE FROM servers").execute(&mut stage.sql().await).await.unwrap();
    stage.fleet.start_server(&[]).await;
    let begun = stage.row("card").await;
    stage.wait_for("card", RedemptionState::Succeeded).await;
    let row = stage.row("card").await;
    assert!(begun.next_check_at.is_none_or(|at| row.now < at), "it did not wait for the window");
    assert_eq!(stage.posts.matched(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_end_or_are_long_gone_are_removed() {
    let mut stage = Stage::new(WHOLE, Duration::ZERO).await;
    stage.start_servers("", 0).await;
    let mut db = stage.sql().await;
    let count = "SELECT count(*) FROM servers";
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut db).await.unwrap(), 1);
    stage.fleet.servers[0].end().await;
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut db).await.unwrap(), 0);
    let gone = "INSERT INTO servers (server_id, beat_at)
        SELECT gen_random_uuid(), now() - make_interval(mins => n) FROM generate_series(8, 12) n";
    sqlx::query(gone).execute(&mut db).await.unwrap();
    stage.fleet.start_server(&[]).await;
    // After ten minutes.
    eventually(LIMIT, "those that are long gone are removed", async || {
        let left: i64 = sqlx::query_scalar(count).fetch_one(&mut db).await.unwrap();
        (left == 3).then_some(())
    })
    .await;
}
