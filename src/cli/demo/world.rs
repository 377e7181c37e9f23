//! The demo's pools and plans, and the state of their accounts.

use std::collections::BTreeMap;

use crate::{
    cli::shared::client::{PAGE_SIZE, RpcError, Server, every_page, unary},
    rpc::pb,
};

/// A pool, and the plans in it.
pub(super) struct PoolPlan {
    /// The pool's name.
    pub(super) pool_id: &'static str,
    /// Its provider.
    pub(super) provider_id: &'static str,
    /// Its currency.
    pub(super) currency_code: &'static str,
    /// Its plans: name and target, in minor units.
    plans: &'static [(&'static str, i64)],
}

/// The provider that is asked by a profile of its own.
pub(super) const TASK_API: &str = "task-api";
const BUILT_IN: &str = "holdfast";

/// The pools of the example files.
pub(super) const POOLS: &[PoolPlan] = &[
    PoolPlan {
        pool_id: "steam-eu",
        provider_id: BUILT_IN,
        currency_code: "EUR",
        plans: &[("starter", 10_000), ("regular", 25_000)],
    },
    PoolPlan {
        pool_id: "psn-us",
        provider_id: BUILT_IN,
        currency_code: "USD",
        plans: &[("family", 50_000)],
    },
    PoolPlan {
        pool_id: "gift-us",
        provider_id: TASK_API,
        currency_code: "USD",
        plans: &[("presents", 50_000)],
    },
];

impl PoolPlan {
    /// Whether its cards are redeemed by the task API.
    pub(super) fn has_tasks(&self) -> bool {
        self.provider_id == TASK_API
    }
}

/// Applies the profile, and creates the pools and plans.
pub(super) async fn prepare(server: &Server, profile: String) -> anyhow::Result<()> {
    let request = unary(pb::ApplyProviderRequest { profile });
    server.providers().apply_provider(request).await.map_err(RpcError)?;
    let mut pools = server.pools();
    for pool in POOLS {
        let created = pb::Pool {
            pool_id: pool.pool_id.to_owned(),
            currency_code: pool.currency_code.to_owned(),
            provider_id: pool.provider_id.to_owned(),
            ..Default::default()
        };
        let request = pb::CreatePoolRequest { pool: Some(created) };
        pools.create_pool(unary(request)).await.map_err(RpcError)?;
        for (plan_id, amount_minor) in pool.plans {
            let target = pb::Money {
                amount_minor: *amount_minor,
                currency_code: pool.currency_code.to_owned(),
            };
            let plan = pb::Plan {
                pool_id: pool.pool_id.to_owned(),
                plan_id: (*plan_id).to_owned(),
                target: Some(target),
                ..Default::default()
            };
            let request = pb::CreatePlanRequest { plan: Some(plan) };
            pools.create_plan(unary(request)).await.map_err(RpcError)?;
        }
    }
    Ok(())
}

/// An account's pool and name.
pub(super) type AccountKey = (String, String);
/// All accounts, as they were at one time.
pub(super) type Accounts = BTreeMap<AccountKey, pb::Account>;

/// Reads all accounts of all pools.
pub(super) async fn accounts(server: &Server) -> anyhow::Result<Accounts> {
    let mut all = Accounts::new();
    for pool in POOLS {
        let mut client = server.accounts();
        every_page(
            async |page_token| {
                let request = pb::ListAccountsRequest {
                    pool_id: pool.pool_id.to_owned(),
                    page_size: PAGE_SIZE,
                    page_token,
                    ..Default::default()
                };
                let page = client.list_accounts(unary(request)).await?.into_inner();
                Ok((page.accounts, page.next_page_token))
            },
            |account| {
                all.insert((account.pool_id.clone(), account.account_id.clone()), account);
                Ok(())
            },
        )
        .await?;
    }
    Ok(all)
}
