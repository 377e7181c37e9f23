//! Criteria that no account meets: those who wait with them delay nobody else, and cost nothing until something
//! changes.

use std::time::Duration;

use holdfast::{
    config::ServeArgs,
    rpc::pb::{self, plan::Denominations},
};
use secrecy::ExposeSecret as _;
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
const ACCOUNTS: usize = 20_000;
/// Callers who wait for what no account is.
const IMPOSSIBLE: usize = 20;

/// A pool of accounts of the plan `plan`, and a server that reaches its database through a proxy.
struct Stage {
    /// Dropped first: its servers stop through the proxy.
    _world: World,
    proxy: Proxy<Postgres>,
    clients: Clients,
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
        let fill = format!(
            "INSERT INTO accounts (pool_id, account_id, plan_id, country_code)
             SELECT 'pool', 'a-' || n, 'plan', 'DE' FROM generate_series(1, {ACCOUNTS}) n"
        );
        psql(&mut world.sql().await, &fill).await;
        Self { _world: world, proxy: proxy.unwrap(), clients }
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
async fn callers_whose_criteria_no_account_meets_cause_no_statements() {
    const CYCLES: usize = 50;
    let mut stage = Stage::new().await;
    let criteria: Vec<_> = (0..IMPOSSIBLE).map(impossible).collect();
    let mut waiting = stage.wait_with(&criteria, 60.0);
    stage.clients.until_waiting(IMPOSSIBLE).await;
    let (applied, read) = (stage.count("-- Apply"), stage.count("-- Accounts as they are"));
    stage.cycles(CYCLES).await;
    assert_eq!(applied.matched(), 2 * CYCLES, "one for each lease and one for each release");
    assert_eq!(read.matched(), 0, "no account is read for the others");
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
        assert_eq!(counted.iter().sum::<usize>(), ACCOUNTS, "{error:?}");
    }
}

#[tokio::test]
async fn an_account_that_comes_free_goes_to_the_caller_whose_criteria_it_meets() {
    let mut stage = Stage::new().await;
    let mut held = Vec::new();
    for account_id in ["rare-1", "rare-2"] {
        let rare = [("group".to_owned(), "rare".to_owned())];
        stage.clients.create_account(account_id, |account| account.labels = rare.into()).await;
        let only = pb::AccountSelector { account_id: account_id.to_owned(), ..Default::default() };
        let acquired = stage.clients.acquire(|request| request.selector = Some(only)).await;
        held.push(lease(&acquired.unwrap()));
    }
    let mut waiting = stage.wait_with(&[labelled("rare"), labelled("none")], 30.0);
    stage.clients.until_waiting(2).await;
    stage.clients.release(&held[1]).await.unwrap();
    let served = waiting.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(served.account_id, "rare-2");
    stage.clients.release(&served).await.unwrap();
    stage.clients.release(&held[0]).await.unwrap();
    let error = waiting.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(reason(&error), "NO_ACCOUNT_AVAILABLE");
}

/// Nobody who waits is read for while nothing changes: what is read is what others changed, a few times a second.
#[tokio::test]
async fn callers_who_wait_in_vain_cost_a_few_small_statements_a_second() {
    const WAITING: usize = 60;
    let stage = Stage::new().await;
    let criteria: Vec<_> = (0..WAITING).map(|n| labelled(&format!("none-{n}"))).collect();
    let mut waiting = stage.wait_with(&criteria, 600.0);
    stage.clients.clone().until_waiting(WAITING).await;
    let (any, followed) = (stage.count("accounts"), stage.count("-- What servers that keep"));
    eventually(LIMIT, "it is read ten times what others changed", async || {
        (followed.matched() >= 10).then_some(())
    })
    .await;
    let others = any.matched() - followed.matched();
    // The sweeper and the statistics have some of their own.
    assert!(others < 20, "{others} other statements for {WAITING} who wait");
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
}
