//! Commits whose replies are lost: what was done is read back, not guessed, and nothing is done twice.

use std::time::Duration;

use holdfast::{
    config::ServeArgs,
    rpc::pb::{self, AccountStatus, RedemptionState},
    simulator::faults::Fault as ProviderFault,
};
use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::{
    proxy::{
        Fired, Proxy,
        postgres::{Fault, Postgres, statement},
    },
    wait::eventually,
    world::{Clients, World, lease, reason, seconds},
};

/// A statement without an answer is given up after 20 s, and a claim is held for 14 s.
const LIMIT: Duration = Duration::from_secs(60);

/// A world whose server reaches its database through a proxy.
struct Stage {
    world: World,
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
            // Longer than a statement without an answer, after which a redemption is still sent.
            args.provider.send_window = Duration::from_secs(30);
        };
        let world = World::with(through, 1).await;
        let mut clients = world.clients(0).await;
        clients.create_accounts(1).await;
        Self { world, proxy: proxy.unwrap(), clients }
    }

    /// Loses the reply to the next commit of a statement.
    fn lose(&self, name: &str, fault: Fault) -> Fired {
        self.proxy.fault(statement(name), fault)
    }

    async fn acquire(&mut self) -> pb::LeaseRef {
        let acquired = self.clients.acquire(|request| request.lease_duration = seconds(90.0));
        lease(&acquired.await.unwrap())
    }

    /// Redeems a card whose first answer from the provider is lost, so that the outcome is in doubt.
    async fn redeem_in_doubt(&mut self, lease: &pb::LeaseRef) -> pb::Redemption {
        let code = self.world.code("doubt");
        self.world.fault(&code, &[ProviderFault::ApplyThenDrop]);
        let redeemed = self.clients.redeem(lease, &code, |_| {}).await.unwrap();
        redeemed.redemption.unwrap()
    }

    async fn settles(&mut self, redemption_id: &str) -> pb::Redemption {
        eventually(LIMIT, "the redemption to be settled", async || {
            let redemption = self.clients.redemption(redemption_id).await;
            (redemption.state() == RedemptionState::Succeeded).then_some(redemption)
        })
        .await
    }

    /// What of the only account's events, by reason.
    async fn events(&mut self, reason: &str) -> usize {
        let events = self.clients.events("a-000").await;
        events.iter().filter(|event| event.reason == reason).count()
    }

    async fn count(&self, rows: &str) -> i64 {
        let mut sql: PgConnection = self.world.sql().await;
        let count = AssertSqlSafe(format!("SELECT count(*) FROM {rows}"));
        sqlx::query_scalar(count).fetch_one(&mut sql).await.unwrap()
    }
}

async fn acquire(fault: Fault) -> Stage {
    let mut stage = Stage::new().await;
    let lost = stage.lose("-- Apply:", fault);
    let lease = stage.acquire().await;
    assert_eq!(lost.times(), 1);
    assert_eq!(lease.fencing_token, 1, "it is the lease of the statement whose reply was lost");
    assert_eq!(stage.events("acquired").await, 1);
    stage.clients.release(&lease).await.unwrap();
    stage
}

async fn begin(fault: Fault) -> Stage {
    let mut stage = Stage::new().await;
    let lease = stage.acquire().await;
    let lost = stage.lose("-- Begin:", fault);
    let code = stage.world.code("begin");
    let redeemed = stage.clients.redeem(&lease, &code, |_| {}).await.unwrap();
    let redemption = redeemed.redemption.unwrap();
    assert_eq!(lost.times(), 1);
    assert_eq!((redemption.state(), redemption.attempts), (RedemptionState::Succeeded, 1));
    assert!(!redeemed.replayed, "it is this call's to send");
    assert_eq!(stage.count("redemptions").await, 1);
    stage
}

async fn settle(fault: Fault) -> Stage {
    let mut stage = Stage::new().await;
    let lease = stage.acquire().await;
    let lost = stage.lose("-- Apply:", fault);
    let code = stage.world.code("settle");
    let redeemed =
        stage.clients.redeem(&lease, &code, |request| request.release_on_completion = true);
    let redemption = redeemed.await.unwrap().redemption.unwrap();
    assert_eq!(lost.times(), 1);
    assert_eq!((redemption.state(), redemption.attempts), (RedemptionState::Succeeded, 1));
    let account = stage.clients.account("a-000").await;
    assert_eq!(account.status(), AccountStatus::Processing);
    assert_eq!(account.balance, redemption.amount, "credited once");
    stage
}

async fn defer(fault: Fault) -> Stage {
    let mut stage = Stage::new().await;
    let lease = stage.acquire().await;
    let lost = stage.lose("-- Defer, shape (a)", fault);
    let redemption = stage.redeem_in_doubt(&lease).await;
    assert_eq!(lost.times(), 1);
    let told = [RedemptionState::InDoubt, RedemptionState::Succeeded];
    assert!(told.contains(&redemption.state()), "{redemption:?}");
    stage.settles(&redemption.redemption_id).await;
    stage
}

async fn release(fault: Fault) -> Stage {
    let mut stage = Stage::new().await;
    let lease = stage.acquire().await;
    let lost = stage.lose("-- Apply:", fault);
    let account = stage.clients.release(&lease).await.unwrap();
    assert_eq!(lost.times(), 1);
    assert_eq!(account.status(), AccountStatus::Waiting);
    assert_eq!(stage.events("released").await, 1);
    stage
}

async fn renew(fault: Fault) -> Stage {
    let mut stage = Stage::new().await;
    let lease = stage.acquire().await;
    let lost = stage.lose("-- Apply:", fault);
    let renewed = stage.clients.renew(&lease, Duration::from_secs(120)).await.unwrap();
    assert_eq!(lost.times(), 1);
    let remaining: Duration = renewed.remaining.unwrap().try_into().unwrap();
    // It was renewed once, before the reply was lost.
    assert!(remaining > Duration::from_secs(90), "{remaining:?}");
    assert_eq!(stage.events("renewed").await, 1);
    stage.clients.release(&lease).await.unwrap();
    stage
}

async fn expire(fault: Fault) -> Stage {
    let mut stage = Stage::new().await;
    stage.clients.acquire(|request| request.lease_duration = seconds(1.0)).await.unwrap();
    let lost = stage.lose("-- Apply:", fault);
    let mut clients = stage.clients.clone();
    eventually(LIMIT, "the lease to end", async || {
        (clients.status_of("a-000").await == AccountStatus::Waiting).then_some(())
    })
    .await;
    lost.wait(1).await;
    assert_eq!(stage.events("expired").await, 1);
    // And the sweeper goes on.
    stage.clients.acquire(|request| request.lease_duration = seconds(1.0)).await.unwrap();
    eventually(LIMIT, "the next lease to end", async || {
        (clients.status_of("a-000").await == AccountStatus::Waiting).then_some(())
    })
    .await;
    assert_eq!(stage.events("expired").await, 2);
    stage
}

async fn claim(fault: Fault) -> Stage {
    let mut stage = Stage::new().await;
    let lease = stage.acquire().await;
    let lost = stage.lose("-- Claim, shape (a)", fault);
    let redemption = stage.redeem_in_doubt(&lease).await;
    lost.wait(1).await;
    let redemption = stage.settles(&redemption.redemption_id).await;
    assert_eq!(stage.clients.account("a-000").await.balance, redemption.amount, "credited once");
    stage
}

/// Loses a reply of each kind, each in a world of its own.
async fn lose_replies_of_all(fault: Fault) {
    let stages = tokio::join!(
        Box::pin(acquire(fault.clone())),
        Box::pin(begin(fault.clone())),
        Box::pin(settle(fault.clone())),
        Box::pin(defer(fault.clone())),
        Box::pin(release(fault.clone())),
        Box::pin(renew(fault.clone())),
        Box::pin(expire(fault.clone())),
        Box::pin(claim(fault)),
    );
    // Their worlds are checked here, where that holds none of the others up.
    drop(stages);
}

#[tokio::test]
async fn a_connection_is_cut_when_a_statement_of_each_kind_was_committed() {
    Box::pin(lose_replies_of_all(Fault::CutReply)).await;
}

#[tokio::test]
async fn a_connection_falls_silent_when_a_statement_of_each_kind_was_committed() {
    Box::pin(lose_replies_of_all(Fault::SwallowReply)).await;
}

#[tokio::test]
async fn what_passes_by_itself_is_tried_again_and_a_bug_is_not() {
    let mut stage = Stage::new().await;
    let lease = stage.acquire().await;
    let passes = ["08006", "25006", "40003", "53100", "53200", "53300", "57P01", "57P05", "58030"];
    for code in passes {
        let refused = stage.lose("-- Apply:", Fault::Refuse(code));
        stage.clients.renew(&lease, Duration::from_secs(90)).await.unwrap();
        assert_eq!(refused.times(), 1, "{code}");
    }
    for code in ["XX000", "42P01"] {
        let refused = stage.lose("-- Apply:", Fault::Refuse(code));
        let error = stage.clients.renew(&lease, Duration::from_secs(90)).await.unwrap_err();
        assert_eq!((&*reason(&error), refused.times()), ("INTERNAL", 1), "{code}");
    }
    drop(stage.world);
}
