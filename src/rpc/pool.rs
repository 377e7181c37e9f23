//! `PoolService`.

use std::time::Duration;

use tonic::{Request, Response, Status};

use super::{
    convert::{self, Fields, next_page_token, timestamp},
    mask::Mask,
    pb,
    status::status,
};
use crate::{
    domain::{
        id::{PlanId, PoolId},
        lease::{MAX_LEASE, MIN_LEASE},
        money::Money,
    },
    service::{Error, pools::Pools},
    store::pool::{AmountMismatch, NewPool, Plan, Pool, PoolChange},
};

/// The lease of an acquisition that asks for none, in a pool that says nothing of it.
const DEFAULT_LEASE: Duration = Duration::from_secs(60);
/// The longest lease in a pool that says nothing of it.
const DEFAULT_MAX_LEASE: Duration = Duration::from_secs(600);

/// Serves `PoolService`.
#[derive(Clone, Debug)]
pub struct PoolRpc {
    pools: Pools,
}

impl PoolRpc {
    /// Over the pools.
    pub fn new(pools: Pools) -> Self {
        Self { pools }
    }
}

#[tonic::async_trait]
impl pb::pool_service_server::PoolService for PoolRpc {
    async fn create_pool(
        &self,
        request: Request<pb::CreatePoolRequest>,
    ) -> Result<Response<pb::CreatePoolResponse>, Status> {
        let new = read_new_pool(request.into_inner()).map_err(|e| status(&e))?;
        let pool = self.pools.create(&new).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::CreatePoolResponse { pool: Some(pool_message(&pool)) }))
    }

    async fn get_pool(
        &self,
        request: Request<pb::GetPoolRequest>,
    ) -> Result<Response<pb::GetPoolResponse>, Status> {
        let mut fields = Fields::default();
        let pool_id = fields.id("pool_id", &request.into_inner().pool_id, PoolId::parse);
        let pool_id = fields.finish(pool_id).map_err(|e| status(&e))?;
        let pool = self.pools.get(&pool_id).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::GetPoolResponse { pool: Some(pool_message(&pool)) }))
    }

    async fn list_pools(
        &self,
        request: Request<pb::ListPoolsRequest>,
    ) -> Result<Response<pb::ListPoolsResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::default();
        let limit = fields.page_size(request.page_size);
        let after = fields.page_token(&request.page_token, |key| PoolId::parse(key).ok());
        fields.finish(Some(())).map_err(|e| status(&e))?;
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let pools = self.pools.list(&after, limit).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::ListPoolsResponse {
            next_page_token: next_page_token(&pools, limit, |pool| pool.pool_id.to_string()),
            pools: pools.iter().map(pool_message).collect(),
        }))
    }

    async fn update_pool(
        &self,
        request: Request<pb::UpdatePoolRequest>,
    ) -> Result<Response<pb::UpdatePoolResponse>, Status> {
        let (pool_id, currency, change) =
            read_pool_change(request.into_inner()).map_err(|e| status(&e))?;
        if !currency.is_empty() {
            let pool = self.pools.get(&pool_id).await.map_err(|e| status(&e))?;
            let mut fields = Fields::default();
            if currency != pool.currency.as_str() {
                let rule = format!("must be empty or {}: it never changes", pool.currency);
                fields.refuse("pool.currency_code", rule);
            }
            fields.finish(Some(())).map_err(|e| status(&e))?;
        }
        let pool = self.pools.update(&pool_id, change).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::UpdatePoolResponse { pool: Some(pool_message(&pool)) }))
    }

    async fn create_plan(
        &self,
        request: Request<pb::CreatePlanRequest>,
    ) -> Result<Response<pb::CreatePlanResponse>, Status> {
        let mut fields = Fields::default();
        let plan = fields.required("plan", request.into_inner().plan);
        let read = plan.and_then(|plan| {
            let names = read_plan_names(&mut fields, &plan);
            let target = fields.required("plan.target", plan.target);
            let target = fields.money("plan.target", target, 1);
            Some((names?, target?))
        });
        let ((pool_id, plan_id), target) = fields.finish(read).map_err(|e| status(&e))?;
        let (pool, plan) =
            self.pools.create_plan(&pool_id, &plan_id, target).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::CreatePlanResponse { plan: Some(plan_message(&pool, &plan)) }))
    }

    async fn get_plan(
        &self,
        request: Request<pb::GetPlanRequest>,
    ) -> Result<Response<pb::GetPlanResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::default();
        let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
        let plan_id = fields.id("plan_id", &request.plan_id, PlanId::parse);
        let (pool_id, plan_id) = fields.finish(pool_id.zip(plan_id)).map_err(|e| status(&e))?;
        let (pool, plan) = self.pools.get_plan(&pool_id, &plan_id).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::GetPlanResponse { plan: Some(plan_message(&pool, &plan)) }))
    }

    async fn list_plans(
        &self,
        request: Request<pb::ListPlansRequest>,
    ) -> Result<Response<pb::ListPlansResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::default();
        let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
        let limit = fields.page_size(request.page_size);
        let after = fields.page_token(&request.page_token, |key| PlanId::parse(key).ok());
        let pool_id = fields.finish(pool_id).map_err(|e| status(&e))?;
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let (pool, plans) =
            self.pools.list_plans(&pool_id, &after, limit).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::ListPlansResponse {
            next_page_token: next_page_token(&plans, limit, |plan| plan.plan_id.to_string()),
            plans: plans.iter().map(|plan| plan_message(&pool, plan)).collect(),
        }))
    }

    async fn update_plan(
        &self,
        request: Request<pb::UpdatePlanRequest>,
    ) -> Result<Response<pb::UpdatePlanResponse>, Status> {
        let (pool_id, plan_id, target) =
            read_plan_change(request.into_inner()).map_err(|e| status(&e))?;
        let (pool, plan) =
            self.pools.update_plan(&pool_id, &plan_id, target).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::UpdatePlanResponse { plan: Some(plan_message(&pool, &plan)) }))
    }
}

fn read_new_pool(request: pb::CreatePoolRequest) -> Result<NewPool, Error> {
    let mut fields = Fields::default();
    let pool = fields.required("pool", request.pool);
    let read = pool.and_then(|pool| {
        let pool_id = fields.id("pool.pool_id", &pool.pool_id, PoolId::parse);
        let currency = fields.currency("pool.currency_code", &pool.currency_code);
        let [min, default, max] = read_leases(&mut fields, &pool);
        let amount_mismatch = read_policy(&mut fields, &pool);
        let min_lease = min.unwrap_or(MIN_LEASE);
        let default_lease =
            default.unwrap_or_else(|| DEFAULT_LEASE.max(min_lease).min(max.unwrap_or(MAX_LEASE)));
        Some(NewPool {
            pool_id: pool_id?,
            currency: currency?,
            default_lease,
            min_lease,
            max_lease: max.unwrap_or(DEFAULT_MAX_LEASE.max(default_lease)),
            paused: pool.paused.unwrap_or(false),
            amount_mismatch: amount_mismatch.unwrap_or(AmountMismatch::Accept),
        })
    });
    fields.finish(read)
}

fn read_leases(fields: &mut Fields, pool: &pb::Pool) -> [Option<Duration>; 3] {
    [
        ("pool.min_lease_duration", pool.min_lease_duration),
        ("pool.default_lease_duration", pool.default_lease_duration),
        ("pool.max_lease_duration", pool.max_lease_duration),
    ]
    .map(|(name, given)| fields.duration(name, given, MIN_LEASE, MAX_LEASE))
}

fn read_policy(fields: &mut Fields, pool: &pb::Pool) -> Option<AmountMismatch> {
    let field = "pool.amount_mismatch_policy";
    fields.choice(field, pool.amount_mismatch_policy, |policy| match policy {
        pb::AmountMismatchPolicy::Unspecified => None,
        pb::AmountMismatchPolicy::Accept => Some(AmountMismatch::Accept),
        pb::AmountMismatchPolicy::NeedsReview => Some(AmountMismatch::NeedsReview),
    })
}

fn read_pool_change(request: pb::UpdatePoolRequest) -> Result<(PoolId, String, PoolChange), Error> {
    const CHANGEABLE: [&str; 5] = [
        "default_lease_duration",
        "min_lease_duration",
        "max_lease_duration",
        "paused",
        "amount_mismatch_policy",
    ];
    let mut fields = Fields::default();
    let mask = Mask::read(&mut fields, request.update_mask, &CHANGEABLE);
    let pool = fields.required("pool", request.pool);
    let read = pool.and_then(|pool| {
        let pool_id = fields.id("pool.pool_id", &pool.pool_id, PoolId::parse);
        if !pool.currency_code.is_empty() {
            fields.currency("pool.currency_code", &pool.currency_code);
        }
        let [min, default, max] = read_leases(&mut fields, &pool);
        let amount_mismatch = read_policy(&mut fields, &pool);
        let missing = [
            ("default_lease_duration", pool.default_lease_duration.is_none()),
            ("min_lease_duration", pool.min_lease_duration.is_none()),
            ("max_lease_duration", pool.max_lease_duration.is_none()),
            ("amount_mismatch_policy", pool.amount_mismatch_policy == 0),
        ];
        for (name, missing) in missing {
            if mask.names(name) && missing {
                let rule = "must be set, because update_mask names it";
                fields.refuse(&format!("pool.{name}"), rule);
            }
        }
        let change = PoolChange {
            default_lease: default.filter(|_| mask.allows("default_lease_duration")),
            min_lease: min.filter(|_| mask.allows("min_lease_duration")),
            max_lease: max.filter(|_| mask.allows("max_lease_duration")),
            // A field that the mask names and that is not set is false.
            paused: if mask.names("paused") {
                Some(pool.paused.unwrap_or(false))
            } else {
                pool.paused.filter(|_| mask.allows("paused"))
            },
            amount_mismatch: amount_mismatch.filter(|_| mask.allows("amount_mismatch_policy")),
        };
        Some((pool_id?, pool.currency_code, change))
    });
    fields.finish(read)
}

fn read_plan_names(fields: &mut Fields, plan: &pb::Plan) -> Option<(PoolId, PlanId)> {
    let pool_id = fields.id("plan.pool_id", &plan.pool_id, PoolId::parse);
    let plan_id = fields.id("plan.plan_id", &plan.plan_id, PlanId::parse);
    pool_id.zip(plan_id)
}

fn read_plan_change(request: pb::UpdatePlanRequest) -> Result<(PoolId, PlanId, Money), Error> {
    let mut fields = Fields::default();
    Mask::read(&mut fields, request.update_mask, &["target"]);
    let plan = fields.required("plan", request.plan);
    let read = plan.and_then(|plan| {
        let names = read_plan_names(&mut fields, &plan);
        let target = fields.required("plan.target", plan.target);
        let target = fields.money("plan.target", target, 1);
        let (pool_id, plan_id) = names?;
        Some((pool_id, plan_id, target?))
    });
    fields.finish(read)
}

fn pool_message(pool: &Pool) -> pb::Pool {
    pb::Pool {
        pool_id: pool.pool_id.to_string(),
        currency_code: pool.currency.to_string(),
        default_lease_duration: Some(convert::duration(pool.default_lease)),
        max_lease_duration: Some(convert::duration(pool.max_lease)),
        paused: Some(pool.paused),
        min_lease_duration: Some(convert::duration(pool.min_lease)),
        amount_mismatch_policy: match pool.amount_mismatch {
            AmountMismatch::Accept => pb::AmountMismatchPolicy::Accept,
            AmountMismatch::NeedsReview => pb::AmountMismatchPolicy::NeedsReview,
        }
        .into(),
        create_time: Some(timestamp(pool.created_at)),
        update_time: Some(timestamp(pool.updated_at)),
    }
}

fn plan_message(pool: &Pool, plan: &Plan) -> pb::Plan {
    pb::Plan {
        pool_id: plan.pool_id.to_string(),
        plan_id: plan.plan_id.to_string(),
        target: Some(convert::money(plan.target_minor, pool.currency)),
        create_time: Some(timestamp(plan.created_at)),
        update_time: Some(timestamp(plan.updated_at)),
    }
}
