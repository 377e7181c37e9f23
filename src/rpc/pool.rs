//! `PoolService`: pools and plans over gRPC.

use std::time::Duration;

use tonic::{Request, Response, Status, metadata::MetadataValue};

use super::{
    VERSION_HEADER,
    convert::{self, Fields, timestamp},
    layers::{access_of, authority_of},
    mask::Mask,
    page::page,
    pb,
    plan::{plan_message, read_new_plan, read_plan_change, read_plan_list, read_plan_names},
    status::status,
};
use crate::{
    domain::{
        access::Need,
        hold::{Holds, HoldsChange},
        id::{PoolId, ProviderId},
        lease::{MAX_LEASE, MIN_LEASE},
        plan::MAX_INTERVAL,
        pool::{AmountMismatch, NewPool, Pool, PoolChange},
    },
    service::{Error, admin::plans::Plans, pools::Pools},
};

/// The lease of an acquisition that asks for none, in a pool that sets nothing else.
const DEFAULT_LEASE: Duration = Duration::from_secs(60);
/// The longest lease in a pool that sets nothing else.
const DEFAULT_MAX_LEASE: Duration = Duration::from_secs(600);
/// Which part of the leases one holder may get while others wait, in a pool that sets nothing else.
const DEFAULT_SHARE_PERCENT: i32 = 50;
/// How long accounts are on hold in a pool that sets nothing else.
const DEFAULT_HOLDS: Holds = Holds {
    login_invalid: Duration::from_secs(60 * 60),
    limit_reached: Duration::from_secs(60 * 60),
    throttled: Duration::from_secs(60),
    longest: Duration::from_secs(24 * 60 * 60),
};

/// Serves `PoolService`.
#[derive(Clone, Debug)]
pub struct PoolRpc {
    pools: Pools,
    plans: Plans,
}

impl PoolRpc {
    /// Over the pools and their plans.
    pub fn new(pools: Pools, plans: Plans) -> Self {
        Self { pools, plans }
    }
}

#[tonic::async_trait]
impl pb::pool_service_server::PoolService for PoolRpc {
    async fn create_pool(
        &self,
        request: Request<pb::CreatePoolRequest>,
    ) -> Result<Response<pb::CreatePoolResponse>, Status> {
        let by = authority_of(&request);
        let new = read_new_pool(request.into_inner()).map_err(|e| status(&e))?;
        let pool = self.pools.create(&new, &by).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::CreatePoolResponse { pool: Some(pool_message(&pool)) }))
    }

    async fn get_pool(
        &self,
        request: Request<pb::GetPoolRequest>,
    ) -> Result<Response<pb::GetPoolResponse>, Status> {
        let pool_id = read_name(&request.get_ref().pool_id).map_err(|e| status(&e))?;
        let pool = self.pools.get(&pool_id).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::GetPoolResponse { pool: Some(pool_message(&pool)) }))
    }

    async fn list_pools(
        &self,
        request: Request<pb::ListPoolsRequest>,
    ) -> Result<Response<pb::ListPoolsResponse>, Status> {
        let shown = access_of(&request).pools(Need::Any);
        let (after, limit) = read_list(request.into_inner()).map_err(|e| status(&e))?;
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let pools = self.pools.list(&after, limit, &shown).await.map_err(|e| status(&e))?;
        let (pools, next_page_token) = page(&pools, |pool| pool.pool_id.to_string(), pool_message);
        let mut answer = Response::new(pb::ListPoolsResponse { pools, next_page_token });
        let version = MetadataValue::from_static(env!("CARGO_PKG_VERSION"));
        answer.metadata_mut().insert(VERSION_HEADER, version);
        Ok(answer)
    }

    async fn update_pool(
        &self,
        request: Request<pb::UpdatePoolRequest>,
    ) -> Result<Response<pb::UpdatePoolResponse>, Status> {
        let by = authority_of(&request);
        let (pool_id, fixed, change) =
            read_pool_change(request.into_inner()).map_err(|e| status(&e))?;
        if fixed.is_given() {
            let pool = self.pools.get(&pool_id).await.map_err(|e| status(&e))?;
            fixed.check(&pool).map_err(|e| status(&e))?;
        }
        let pool = self.pools.update(&pool_id, change, &by).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::UpdatePoolResponse { pool: Some(pool_message(&pool)) }))
    }

    async fn create_plan(
        &self,
        request: Request<pb::CreatePlanRequest>,
    ) -> Result<Response<pb::CreatePlanResponse>, Status> {
        let by = authority_of(&request);
        let (pool_id, plan_id, terms, amounts) =
            read_new_plan(request.into_inner()).map_err(|e| status(&e))?;
        let created = self.plans.create(&pool_id, &plan_id, &terms, amounts, &by).await;
        let (pool, plan) = created.map_err(|e| status(&e))?;
        Ok(Response::new(pb::CreatePlanResponse { plan: Some(plan_message(&plan, pool.currency)) }))
    }

    async fn get_plan(
        &self,
        request: Request<pb::GetPlanRequest>,
    ) -> Result<Response<pb::GetPlanResponse>, Status> {
        let request = request.into_inner();
        let (pool_id, plan_id) =
            read_plan_names(&request.pool_id, &request.plan_id).map_err(|e| status(&e))?;
        let (pool, plan) = self.plans.get(&pool_id, &plan_id).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::GetPlanResponse { plan: Some(plan_message(&plan, pool.currency)) }))
    }

    async fn list_plans(
        &self,
        request: Request<pb::ListPlansRequest>,
    ) -> Result<Response<pb::ListPlansResponse>, Status> {
        let (pool_id, after, limit) =
            read_plan_list(request.into_inner()).map_err(|e| status(&e))?;
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let (pool, plans) =
            self.plans.list(&pool_id, &after, limit).await.map_err(|e| status(&e))?;
        let (plans, next_page_token) =
            page(&plans, |plan| plan.plan_id.to_string(), |plan| plan_message(plan, pool.currency));
        Ok(Response::new(pb::ListPlansResponse { plans, next_page_token }))
    }

    async fn update_plan(
        &self,
        request: Request<pb::UpdatePlanRequest>,
    ) -> Result<Response<pb::UpdatePlanResponse>, Status> {
        let by = authority_of(&request);
        let (pool_id, plan_id, change, amounts) =
            read_plan_change(request.into_inner()).map_err(|e| status(&e))?;
        let updated = self.plans.update(&pool_id, &plan_id, change, amounts, &by).await;
        let (pool, plan) = updated.map_err(|e| status(&e))?;
        Ok(Response::new(pb::UpdatePlanResponse { plan: Some(plan_message(&plan, pool.currency)) }))
    }

    async fn delete_pool(
        &self,
        request: Request<pb::DeletePoolRequest>,
    ) -> Result<Response<pb::DeletePoolResponse>, Status> {
        let by = authority_of(&request);
        let pool_id = read_name(&request.get_ref().pool_id).map_err(|e| status(&e))?;
        self.pools.delete(&pool_id, &by).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::DeletePoolResponse {}))
    }

    async fn delete_plan(
        &self,
        request: Request<pb::DeletePlanRequest>,
    ) -> Result<Response<pb::DeletePlanResponse>, Status> {
        let by = authority_of(&request);
        let request = request.into_inner();
        let (pool_id, plan_id) =
            read_plan_names(&request.pool_id, &request.plan_id).map_err(|e| status(&e))?;
        self.plans.delete(&pool_id, &plan_id, &by).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::DeletePlanResponse {}))
    }
}

pub(super) fn read_name(pool_id: &str) -> Result<PoolId, Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", pool_id, PoolId::parse);
    fields.finish(pool_id)
}

/// After which pool, and how many.
pub(super) fn read_list(request: pb::ListPoolsRequest) -> Result<(Option<PoolId>, i64), Error> {
    let mut fields = Fields::default();
    let limit = fields.page_size(request.page_size);
    let after = fields.page_token(&request.page_token, |key| PoolId::parse(key).ok());
    fields.finish(Some((after, limit)))
}

pub(super) fn read_new_pool(request: pb::CreatePoolRequest) -> Result<NewPool, Error> {
    let mut fields = Fields::default();
    let pool = fields.required("pool", request.pool);
    let read = pool.and_then(|pool| {
        let pool_id = fields.id("pool.pool_id", &pool.pool_id, PoolId::parse);
        let currency = fields.currency("pool.currency_code", &pool.currency_code);
        let provider = fields.optional_id("pool.provider_id", &pool.provider_id, ProviderId::parse);
        let [min, default, max] = read_leases(&mut fields, &pool);
        let amount_mismatch = read_policy(&mut fields, &pool);
        let share = read_share(&mut fields, &pool);
        let holds = read_holds(&mut fields, &pool);
        let min_lease = min.unwrap_or(MIN_LEASE);
        let default_lease =
            default.unwrap_or_else(|| DEFAULT_LEASE.max(min_lease).min(max.unwrap_or(MAX_LEASE)));
        Some(NewPool {
            pool_id: pool_id?,
            currency: currency?,
            provider_id: provider.unwrap_or_else(ProviderId::built_in),
            default_lease,
            min_lease,
            max_lease: max.unwrap_or(DEFAULT_MAX_LEASE.max(default_lease)),
            paused: pool.paused.unwrap_or(false),
            draining: pool.draining.unwrap_or(false),
            amount_mismatch: amount_mismatch.unwrap_or(AmountMismatch::Accept),
            holder_share_percent: share.unwrap_or(DEFAULT_SHARE_PERCENT),
            holds: with_default_holds(holds),
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

fn read_share(fields: &mut Fields, pool: &pb::Pool) -> Option<i32> {
    let share = pool.holder_share_percent;
    if !(0..=100).contains(&share) {
        fields.refuse("pool.holder_share_percent", "must be between 0 and 100");
    }
    (share != 0).then_some(share)
}

fn read_holds(fields: &mut Fields, pool: &pb::Pool) -> HoldsChange {
    let given = pool.hold_durations.unwrap_or_default();
    let mut hold = |name: &str, given| {
        let field = format!("pool.hold_durations.{name}");
        fields.duration(&field, given, Duration::ZERO, MAX_INTERVAL)
    };
    HoldsChange {
        login_invalid: hold("login_invalid", given.login_invalid),
        limit_reached: hold("limit_reached", given.limit_reached),
        throttled: hold("throttled", given.throttled),
        longest: hold("longest", given.longest),
    }
}

/// The longest hold is no shorter than one that was asked for, unless it was asked for too.
fn with_default_holds(given: HoldsChange) -> Holds {
    let asked_for = [given.login_invalid, given.limit_reached, given.throttled];
    let longest = asked_for.into_iter().flatten().fold(DEFAULT_HOLDS.longest, Duration::max);
    Holds {
        login_invalid: given.login_invalid.unwrap_or(DEFAULT_HOLDS.login_invalid),
        limit_reached: given.limit_reached.unwrap_or(DEFAULT_HOLDS.limit_reached),
        throttled: given.throttled.unwrap_or(DEFAULT_HOLDS.throttled),
        longest: given.longest.unwrap_or(longest),
    }
}

/// What of a pool never changes, as an update gave it. Empty where it gave none.
pub(super) struct Fixed {
    currency: String,
    provider_id: String,
}

impl Fixed {
    fn is_given(&self) -> bool {
        !self.currency.is_empty() || !self.provider_id.is_empty()
    }

    /// Refuses what is another than the pool's own.
    fn check(&self, pool: &Pool) -> Result<(), Error> {
        let mut fields = Fields::default();
        for (field, given, own) in [
            ("pool.currency_code", &self.currency, pool.currency.as_str()),
            ("pool.provider_id", &self.provider_id, pool.provider_id.as_str()),
        ] {
            if !given.is_empty() && given != own {
                fields.refuse(field, format!("must be empty or {own}: it never changes"));
            }
        }
        fields.finish(Some(()))
    }
}

pub(super) fn read_pool_change(
    request: pb::UpdatePoolRequest,
) -> Result<(PoolId, Fixed, PoolChange), Error> {
    const CHANGEABLE: [&str; 8] = [
        "default_lease_duration",
        "min_lease_duration",
        "max_lease_duration",
        "paused",
        "draining",
        "amount_mismatch_policy",
        "holder_share_percent",
        "hold_durations",
    ];
    let mut fields = Fields::default();
    let mask = Mask::read(&mut fields, request.update_mask, &CHANGEABLE);
    let pool = fields.required("pool", request.pool);
    let read = pool.and_then(|pool| {
        let pool_id = fields.id("pool.pool_id", &pool.pool_id, PoolId::parse);
        if !pool.currency_code.is_empty() {
            fields.currency("pool.currency_code", &pool.currency_code);
        }
        fields.optional_id("pool.provider_id", &pool.provider_id, ProviderId::parse);
        let [min, default, max] = read_leases(&mut fields, &pool);
        let amount_mismatch = read_policy(&mut fields, &pool);
        let share = read_share(&mut fields, &pool);
        let holds = read_holds(&mut fields, &pool);
        let missing = [
            ("default_lease_duration", pool.default_lease_duration.is_none()),
            ("min_lease_duration", pool.min_lease_duration.is_none()),
            ("max_lease_duration", pool.max_lease_duration.is_none()),
            ("amount_mismatch_policy", pool.amount_mismatch_policy == 0),
            ("holder_share_percent", pool.holder_share_percent == 0),
            ("hold_durations", pool.hold_durations.is_none()),
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
            paused: mask.flag("paused", pool.paused),
            draining: mask.flag("draining", pool.draining),
            amount_mismatch: amount_mismatch.filter(|_| mask.allows("amount_mismatch_policy")),
            holder_share_percent: share.filter(|_| mask.allows("holder_share_percent")),
            holds: if mask.allows("hold_durations") { holds } else { HoldsChange::default() },
        };
        let fixed = Fixed { currency: pool.currency_code, provider_id: pool.provider_id };
        Some((pool_id?, fixed, change))
    });
    fields.finish(read)
}

fn pool_message(pool: &Pool) -> pb::Pool {
    pb::Pool {
        pool_id: pool.pool_id.to_string(),
        currency_code: pool.currency.to_string(),
        provider_id: pool.provider_id.to_string(),
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
        draining: Some(pool.draining),
        holder_share_percent: pool.holder_share_percent,
        hold_durations: Some(pb::HoldDurations {
            login_invalid: Some(convert::duration(pool.holds.login_invalid)),
            limit_reached: Some(convert::duration(pool.holds.limit_reached)),
            throttled: Some(convert::duration(pool.holds.throttled)),
            longest: Some(convert::duration(pool.holds.longest)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_hold_is_no_shorter_than_one_that_was_asked_for() {
        let days = |count: u64| Some(Duration::from_secs(count * 86_400));
        let asked =
            HoldsChange { login_invalid: days(3), throttled: days(2), ..Default::default() };
        assert_eq!(with_default_holds(asked).longest, Duration::from_secs(3 * 86_400));
        let short = HoldsChange { login_invalid: days(3), longest: days(1), ..Default::default() };
        assert_eq!(with_default_holds(short).longest, Duration::from_secs(86_400));
        assert_eq!(with_default_holds(HoldsChange::default()).longest, DEFAULT_HOLDS.longest);
    }
}
