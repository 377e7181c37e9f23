//! Criteria that make a statement read a whole pool: they delay nobody else. They are checked beside the
//! others, few at a time, and not again at once.

use std::time::Duration;

use holdfast::{
    config::ServeArgs,
    rpc::pb::{self, plan::Denominations},
};
use secrecy::ExposeSecret as _;
use sqlx::PgConnection;
use tokio::task::JoinSet;
use tonic::Status;

use crate::support::{
    plans::{CARD, psql},
    proxy::{
        Fired, Proxy, When,
        postgres::{Fault, Postgres, Statement, statement},
    },
    wait::eventually,
    world::{Clients, World, eur, lease, metadata, reason, seconds},
};

const LIMIT: Duration = Duration::from_secs(120);
/// So many that reading them all takes longer than a pass waits for criteria that it does not know.
/// `HOLDFAST_TEST_ACCOUNTS` says another number.
fn accounts() -> usize {
    std::env::var("HOLDFAST_TEST_ACCOUNTS").map_or(100_000, |number| number.parse().unwrap())
}

/// Callers who wait for what no account is.
const IMPOSSIBLE: usize = 20;

/// A pool of [`accounts`] of the plan `plan`, and a server that reaches its database through a proxy.
struct Stage {
    /// Dropped first: its servers stop through the proxy.
    _world: World,
    proxy: Proxy<Postgres>,
    clients: Clients,
    db: PgConnection,
}

impl Stage {
    async fn new() -> Self {
        let mut proxy = None;
        let through = |args: &mut ServeArgs| {
            let url = args.database_url.take().unwrap();
            let between = Proxy::<Postgres>::before(url.expose_secret());
            args.database_url = Some(between.url(url.expose_secret()).into());
            proxy = Some(between);
        };
        let world = World::with(through, 1).await;
        let mut clients = world.clients(0).await;
        // What is left after a card of less than the whole no card can fill.
        let whole = |plan: &mut pb::Plan| {
            let min = Some(eur(5 * CARD));
            plan.denominations =
                Some(Denominations::AmountRange(pb::AmountRange { min, max: None }));
        };
        clients.create_plan_with("plan", 9 * CARD, whole).await;
        clients.create_plan("empty", 9 * CARD).await;
        let mut db = world.sql().await;
        let fill = format!(
            "ALTER TABLE accounts DISABLE TRIGGER USER;
             INSERT INTO accounts (pool_id, account_id, plan_id, country_code, version)
             SELECT 'pool', 'a-' || n, 'plan', 'DE', 1 FROM generate_series(1, {}) n;
             ALTER TABLE accounts ENABLE TRIGGER USER;
             INSERT INTO account_events (pool_id, account_id, version, happened_at, actor, reason, to_status,
                 fencing_token, balance_minor)
             SELECT pool_id, account_id, version, now(), 'test', 'created', status, fencing_token, balance_minor
             FROM accounts;
             ANALYZE accounts",
            accounts()
        );
        psql(&mut db, &fill).await;
        Self { _world: world, proxy: proxy.unwrap(), clients, db }
    }

    /// Counts the statements whose text holds `text` from now on.
    fn count(&self, text: &str) -> Fired {
        let never: When<Statement> = statement(text).skip(usize::MAX);
        self.proxy.fault(never, Fault::CutBefore)
    }

    /// Lets callers wait with these criteria.
    fn wait_with(&self, criteria: &[pb::AccountSelector], patience: f64) -> Waiting {
        let mut waiting = Waiting::new();
        for selector in criteria.iter().cloned() {
            let mut clients = self.clients.clone();
            waiting.spawn(async move {
                let acquired = clients.acquire(|request| {
                    request.selector = Some(selector);
                    request.wait_timeout = seconds(patience);
                });
                acquired.await.map(|acquired| lease(&acquired))
            });
        }
        waiting
    }

    /// Acquires and releases some account, so often.
    async fn cycles(&mut self, count: usize) {
        for _ in 0..count {
            let held = lease(&self.clients.acquire(|_| {}).await.unwrap());
            self.clients.release(&held).await.unwrap();
        }
    }
}

type Waiting = JoinSet<Result<pb::LeaseRef, Status>>;

fn labelled(value: &str) -> pb::AccountSelector {
    let labels = [("group".to_owned(), value.to_owned())].into();
    pb::AccountSelector { labels, ..Default::default() }
}

/// Criteria of each sort that no account meets, each different.
fn impossible(n: usize) -> pb::AccountSelector {
    let none = pb::AccountSelector::default();
    let amount = 4 * CARD + 1 + i64::try_from(n).unwrap();
    match n % 5 {
        0 => labelled(&format!("none-{n}")),
        1 => {
            pb::AccountSelector { country_code: format!("X{}", char::from(b'A' + n as u8)), ..none }
        }
        2 => pb::AccountSelector { min_headroom: Some(eur(9 * CARD + amount)), ..none },
        // 5 is the least: what is left of 9 afterwards is less.
        3 => pb::AccountSelector { expected: Some(eur(amount + CARD)), ..none },
        _ => {
            pb::AccountSelector { expected: Some(eur(9 * CARD)), ..labelled(&format!("none-{n}")) }
        }
    }
}

#[tokio::test]
async fn callers_whose_criteria_no_account_meets_hold_up_nobody_else() {
    const CYCLES: usize = 100;
    let mut stage = Stage::new().await;
    let statements = stage.count("-- Choose");
    let criteria: Vec<_> = (0..IMPOSSIBLE).map(impossible).collect();
    let mut waiting = stage.wait_with(&criteria, 600.0);
    eventually(LIMIT, "they are tried", async || (statements.matched() > 4).then_some(())).await;
    let before = statements.matched();
    let mut most_at_once = 0;
    for served in 1..=CYCLES {
        stage.cycles(1).await;
        let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
             AND state = 'active' AND query LIKE '-- Choose%'";
        let running: i64 = sqlx::query_scalar(running).fetch_one(&mut stage.db).await.unwrap();
        most_at_once = most_at_once.max(running);
        // Each was served by a statement of its own. Before, two statements for each of the others came before it: forty
        // in each cycle. How many run beside it depends on how long a cycle takes.
        let others = statements.matched() - before - served;
        let most = IMPOSSIBLE * CYCLES / 2;
        assert!(others < most, "{others} statements for the others while {served} were served");
    }
    // Two beside the pass, and one in it.
    assert!(most_at_once <= 3, "{most_at_once} statements read the pool at once");
    assert!(waiting.try_join_next().is_none(), "they still wait");
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}

    let mut waiting = stage.wait_with(&criteria[..5], 1.0);
    while let Some(ended) = waiting.join_next().await {
        let error = ended.unwrap().unwrap_err();
        assert_eq!(reason(&error), "NO_ACCOUNT_AVAILABLE", "{error:?}");
        assert_eq!(metadata(&error, "free"), "0", "{error:?}");
        let counted = ["not_selected", "too_full", "remainder", "denomination", "day_full"];
        let counted = counted.map(|cause| metadata(&error, cause).parse::<usize>().unwrap());
        assert_eq!(counted.iter().sum::<usize>(), accounts(), "{error:?}");
    }
}

#[tokio::test]
async fn new_criteria_that_no_account_meets_may_come_all_the_time() {
    const CALLERS: usize = 200;
    let mut stage = Stage::new().await;
    let criteria: Vec<_> = (0..CALLERS).map(|n| labelled(&format!("none-{n}"))).collect();
    let statements = stage.count("-- Choose");
    let mut waiting = stage.wait_with(&criteria, 0.0);
    stage.cycles(20).await;
    let others = statements.matched() - 20;
    assert!(
        others < CALLERS,
        "the others wait until all {CALLERS} were tried: {others} statements"
    );
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
    // When they have gone, nobody is read for any more.
    eventually(LIMIT, "nothing is read any more", async || {
        let before = statements.matched();
        tokio::time::sleep(Duration::from_secs(1)).await;
        (statements.matched() == before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_account_that_comes_free_is_offered_to_callers_with_slow_criteria() {
    let mut stage = Stage::new().await;
    for account_id in ["rare-1", "rare-2"] {
        stage
            .clients
            .create_account(account_id, |account| {
                account.labels = [("group".to_owned(), "rare".to_owned())].into();
            })
            .await;
    }
    let mut held = Vec::new();
    for account_id in ["rare-1", "rare-2"] {
        let only = pb::AccountSelector { account_id: account_id.to_owned(), ..Default::default() };
        let acquired = stage.clients.acquire(|request| request.selector = Some(only)).await;
        held.push(lease(&acquired.unwrap()));
    }
    let scans = stage.count("-- Choose: free accounts");
    let by_name = stage.count("-- Choose, as choose.sql does");
    let criteria = [labelled("rare"), labelled("none")];
    let mut waiting = stage.wait_with(&criteria, 30.0);
    eventually(LIMIT, "both are tried", async || (scans.matched() >= 2).then_some(())).await;
    let once = by_name.matched();
    eventually(LIMIT, "both have found nothing", async || {
        (by_name.matched() >= 2 || by_name.matched() > once).then_some(())
    })
    .await;
    stage.clients.release(&held[1]).await.unwrap();
    let served = waiting.join_next().await.unwrap().unwrap();
    let served = served.unwrap();
    assert_eq!(served.account_id, "rare-2");
    stage.clients.release(&served).await.unwrap();
    stage.clients.release(&held[0]).await.unwrap();
    let error = waiting.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(reason(&error), "NO_ACCOUNT_AVAILABLE");
}
