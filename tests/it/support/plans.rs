//! Plans, pools and accounts that are changed, and what becomes of them.

use std::time::Duration;

use holdfast::rpc::pb;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use tonic::Status;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::{
    wait::eventually,
    world::{Clients, POOL, eur, lease, metadata, reason},
};

/// What a card of the tests' provider is worth.
pub(crate) const CARD: i64 = 1000;

impl Clients {
    /// Creates a plan in [`POOL`], as changed.
    pub(crate) async fn create_plan_with(
        &mut self,
        plan_id: &str,
        target_minor: i64,
        change: impl FnOnce(&mut pb::Plan),
    ) -> pb::Plan {
        let mut plan = pb::Plan {
            pool_id: POOL.to_owned(),
            plan_id: plan_id.to_owned(),
            target: Some(eur(target_minor)),
            ..Default::default()
        };
        change(&mut plan);
        let request = pb::CreatePlanRequest { plan: Some(plan) };
        self.pools.create_plan(request).await.unwrap().into_inner().plan.unwrap()
    }

    /// Changes a plan of [`POOL`]: what is set, and what `paths` name.
    pub(crate) async fn update_plan(
        &mut self,
        plan_id: &str,
        paths: &[&str],
        change: impl FnOnce(&mut pb::Plan),
    ) -> Result<pb::Plan, Status> {
        let mut plan = pb::Plan {
            pool_id: POOL.to_owned(),
            plan_id: plan_id.to_owned(),
            ..Default::default()
        };
        change(&mut plan);
        let request = pb::UpdatePlanRequest { plan: Some(plan), update_mask: mask(paths) };
        Ok(self.pools.update_plan(request).await?.into_inner().plan.unwrap())
    }

    /// Changes an account of [`POOL`], in the same way.
    pub(crate) async fn update_account(
        &mut self,
        account_id: &str,
        paths: &[&str],
        change: impl FnOnce(&mut pb::Account),
    ) -> Result<pb::Account, Status> {
        let mut account = pb::Account {
            pool_id: POOL.to_owned(),
            account_id: account_id.to_owned(),
            ..Default::default()
        };
        change(&mut account);
        let request = pb::UpdateAccountRequest { account: Some(account), update_mask: mask(paths) };
        Ok(self.accounts.update_account(request).await?.into_inner().account.unwrap())
    }

    /// Changes [`POOL`], in the same way.
    pub(crate) async fn update_pool(&mut self, change: impl FnOnce(&mut pb::Pool)) -> pb::Pool {
        let mut pool = pb::Pool { pool_id: POOL.to_owned(), ..Default::default() };
        change(&mut pool);
        let request = pb::UpdatePoolRequest { pool: Some(pool), update_mask: None };
        self.pools.update_pool(request).await.unwrap().into_inner().pool.unwrap()
    }

    /// Acquires an account of [`POOL`] for a card of an amount, without waiting.
    pub(crate) async fn acquire_for(&mut self, amount_minor: i64) -> Result<pb::LeaseRef, Status> {
        let acquired = self.acquire(|request| {
            request.selector = Some(expecting(amount_minor));
        });
        Ok(lease(&acquired.await?))
    }

    /// An acquisition for a card of an amount finds no account, for these causes with these numbers, in the
    /// order of their names. What was counted for others just before may be told first.
    pub(crate) async fn passed_over(&mut self, amount_minor: i64, expected: &[(&str, i64)]) {
        let what = format!("{amount_minor} is refused because of {expected:?}");
        eventually(Duration::from_secs(3), &what, async || {
            let error = self.acquire_for(amount_minor).await.unwrap_err();
            let counts = counts(&error);
            let counts: Vec<_> = counts.iter().map(|(key, count)| (&**key, *count)).collect();
            (counts == expected).then_some(())
        })
        .await;
    }

    /// Waits until so many wait for accounts of [`POOL`] on this server.
    pub(crate) async fn until_waiting(&mut self, count: usize) {
        eventually(Duration::from_secs(10), &format!("{count} wait"), async || {
            (self.waiting().await == count).then_some(())
        })
        .await;
    }

    /// How many callers wait for an account.
    pub(crate) async fn waiting(&mut self) -> usize {
        // Who asks waits too, and for what no account has.
        let labels = [("label".to_owned(), "that no account has".to_owned())].into();
        let nobody = pb::AccountSelector { labels, ..Default::default() };
        let error = self.acquire(|r| r.selector = Some(nobody)).await.unwrap_err();
        metadata(&error, "waiting").parse::<usize>().unwrap() - 1
    }

    /// Acquires an account, redeems a card that is worth [`CARD`] into it, and gives it back. Answers
    /// with the redemption, which has succeeded.
    pub(crate) async fn fill(&mut self, code: &str) -> pb::Redemption {
        let held = self.acquire_for(CARD).await.unwrap();
        let redeemed = self
            .redeem(&held, code, |request| {
                request.request_id = Uuid::now_v7().to_string();
                request.expected = Some(eur(CARD));
                request.release_on_completion = true;
            })
            .await
            .unwrap();
        let redemption = redeemed.redemption.unwrap();
        assert_eq!(redemption.state(), pb::RedemptionState::Succeeded, "{redemption:?}");
        redemption
    }

    /// What an acquisition in [`POOL`] would come to.
    pub(crate) async fn explain(
        &mut self,
        selector: pb::AccountSelector,
    ) -> pb::ExplainAcquireResponse {
        let request = pb::ExplainAcquireRequest {
            pool_id: POOL.to_owned(),
            selector: Some(selector),
            page_size: 1000,
        };
        self.redemptions.explain_acquire(request).await.unwrap().into_inner()
    }
}

/// Selects what takes a card of an amount.
pub(crate) fn expecting(amount_minor: i64) -> pb::AccountSelector {
    pb::AccountSelector { expected: Some(eur(amount_minor)), ..Default::default() }
}

fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
    (!paths.is_empty()).then_some(prost_types::FieldMask { paths })
}

/// An amount that may be missing, in minor units: 0 then.
pub(crate) fn minor(money: Option<&pb::Money>) -> i64 {
    money.map_or(0, |money| money.amount_minor)
}

/// A duration of a message.
pub(crate) fn elapsed(duration: Option<&prost_types::Duration>) -> Duration {
    Duration::try_from(*duration.unwrap()).unwrap()
}

/// The reason of an error, and the cause that it names.
pub(crate) fn why(status: &Status) -> (String, String) {
    (reason(status), metadata(status, "cause"))
}

/// When an error says that the call may be made again.
pub(crate) fn retry_after(status: &Status) -> Duration {
    status.get_error_details().retry_info().unwrap().retry_delay.unwrap()
}

/// The counts of an error that found no account, without those that are 0, in the order of their names.
pub(crate) fn counts(status: &Status) -> Vec<(String, i64)> {
    assert_eq!(reason(status), "NO_ACCOUNT_AVAILABLE", "{status:?}");
    let details = status.get_error_details();
    let told = details.error_info().unwrap().metadata.iter();
    let mut counts: Vec<_> = told
        .filter(|(key, _)| !["pool_id", "position", "waiting"].contains(&key.as_str()))
        .map(|(key, count)| (key.clone(), count.parse().unwrap()))
        .filter(|(_, count)| *count != 0)
        .collect();
    counts.sort();
    counts
}

/// Runs a person's statement, which has no parameters.
pub(crate) async fn psql(db: &mut PgConnection, sql: &str) {
    db.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}
