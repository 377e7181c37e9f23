//! `RedemptionService`: leases, redemptions and batches over gRPC.

pub(super) mod batch;
pub(super) mod explain;
pub(super) mod message;
mod selector;
pub(super) mod watch;

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use self::{
    message::{read_reversal_state, read_state, redemption_message, reversed_message, with_words},
    selector::read_selector,
};
use super::{
    account::message::{account_message, lease_message},
    convert::Fields,
    layers::{authority_of, caller_of},
    page::page,
    pb::{self, await_redemption_request::Name as AwaitedName},
    status::status,
};
use crate::{
    admission::Caller,
    domain::{
        id::{AccountId, BatchId, FencingToken, Holder, PoolId, RedemptionId, RequestId},
        lease::{LeaseRef, MAX_LEASE, MIN_LEASE},
        money::Currency,
        pool::Pool,
        principal::{Authority, Principal},
        redemption::{
            CardCode, Redemption, RedemptionFilter, RedemptionState, Resolution, ReversalRequest,
        },
    },
    service::{
        Error,
        acquire::{Acquire, AcquireCommand},
        admin::redemptions::{Redemptions, ResolveCommand, ResolvedOutcome},
        awaiting::Awaiting,
        batch::Batch,
        card::{CardCommand, Cards},
        pools::Pools,
        redeem::{Card, Redeem, RedeemCommand},
        release::Leases,
        reverse::{Reversals, ReverseCommand},
        watching::Watching,
    },
};

/// The longest wait that may be asked for. The server's setting may be shorter.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// How long an outcome is waited for, when the client does not say.
const DEFAULT_AWAIT: Duration = Duration::from_secs(30);
/// The most states that a list may be of: more than there are.
const MAX_STATES: usize = 16;
/// Serves `RedemptionService`.
#[derive(Clone)]
pub struct RedemptionRpc {
    /// For the pool's currency in answers.
    pub pools: Pools,
    /// `AcquireAccount`.
    pub acquire: Acquire,
    /// `RenewLease` and `ReleaseAccount`.
    pub leases: Leases,
    /// `Redeem`.
    pub redeem: Redeem,
    /// `RedeemCard`.
    pub cards: Cards,
    /// `BatchRedeem`.
    pub batch: Batch,
    /// `ReverseRedemption`.
    pub reversals: Reversals,
    /// `AwaitRedemption`.
    pub awaiting: Awaiting,
    /// `WatchRedemptions`.
    pub watching: Watching,
    /// The rest.
    pub redemptions: Redemptions,
    /// The longest that a call waits for an account, or for an outcome.
    pub max_wait: Duration,
}

type BatchStream =
    Pin<Box<dyn Stream<Item = Result<pb::BatchRedeemResponse, Status>> + Send + 'static>>;

type WatchStream =
    Pin<Box<dyn Stream<Item = Result<pb::WatchRedemptionsResponse, Status>> + Send + 'static>>;

#[tonic::async_trait]
impl pb::redemption_service_server::RedemptionService for RedemptionRpc {
    type BatchRedeemStream = BatchStream;
    type WatchRedemptionsStream = WatchStream;

    async fn acquire_account(
        &self,
        request: Request<pb::AcquireAccountRequest>,
    ) -> Result<Response<pb::AcquireAccountResponse>, Status> {
        let (caller, principal) = (caller_of(&request), authority_of(&request).principal);
        let mut command =
            read_acquire(request.into_inner(), caller, principal).map_err(|e| status(&e))?;
        command.wait = command.wait.min(self.max_wait);
        let acquired = self.acquire.acquire(command).await.map_err(|e| status(&e))?;
        let account = acquired.account;
        let currency = self.currency(&account.pool_id).await?;
        Ok(Response::new(pb::AcquireAccountResponse {
            lease: account.lease.as_ref().map(|lease| lease_message(&account, lease)),
            account: Some(account_message(&account, currency)),
        }))
    }

    async fn explain_acquire(
        &self,
        request: Request<pb::ExplainAcquireRequest>,
    ) -> Result<Response<pb::ExplainAcquireResponse>, Status> {
        explain::explain(&self.acquire, request.into_inner()).await
    }

    async fn renew_lease(
        &self,
        request: Request<pb::RenewLeaseRequest>,
    ) -> Result<Response<pb::RenewLeaseResponse>, Status> {
        let by = authority_of(&request).principal;
        let (lease, ttl) = read_renewal(request.into_inner()).map_err(|e| status(&e))?;
        let account = self.leases.renew(lease, ttl, by).await.map_err(|e| status(&e))?;
        let lease = account.lease.as_ref().map(|lease| lease_message(&account, lease));
        Ok(Response::new(pb::RenewLeaseResponse { lease }))
    }

    async fn redeem(
        &self,
        request: Request<pb::RedeemRequest>,
    ) -> Result<Response<pb::RedeemResponse>, Status> {
        let (caller, by) = (caller_of(&request), authority_of(&request));
        let command = read_redeem(request.into_inner(), caller, by).map_err(|e| status(&e))?;
        let redeemed = self.redeem.redeem(command).await.map_err(|e| status(&e))?;
        let currency = self.currency(&redeemed.redemption.pool_id).await?;
        Ok(Response::new(pb::RedeemResponse {
            redemption: Some(redemption_message(&redeemed.redemption, currency)),
            replayed: redeemed.replayed,
        }))
    }

    async fn redeem_card(
        &self,
        request: Request<pb::RedeemCardRequest>,
    ) -> Result<Response<pb::RedeemCardResponse>, Status> {
        let (caller, by) = (caller_of(&request), authority_of(&request));
        let mut command = read_card(request.into_inner(), caller, by).map_err(|e| status(&e))?;
        command.wait = command.wait.min(self.max_wait);
        let redeemed = self.cards.redeem(command).await.map_err(|e| status(&e))?;
        let currency = self.currency(&redeemed.redemption.pool_id).await?;
        Ok(Response::new(pb::RedeemCardResponse {
            redemption: Some(redemption_message(&redeemed.redemption, currency)),
            replayed: redeemed.replayed,
        }))
    }

    async fn release_account(
        &self,
        request: Request<pb::ReleaseAccountRequest>,
    ) -> Result<Response<pb::ReleaseAccountResponse>, Status> {
        let by = authority_of(&request);
        let lease = read_release(request.into_inner()).map_err(|e| status(&e))?;
        let account = self.leases.release(lease, by).await.map_err(|e| status(&e))?;
        let currency = self.currency(&account.pool_id).await?;
        let account = account_message(&account, currency);
        Ok(Response::new(pb::ReleaseAccountResponse { account: Some(account) }))
    }

    async fn batch_redeem(
        &self,
        request: Request<Streaming<pb::BatchRedeemRequest>>,
    ) -> Result<Response<BatchStream>, Status> {
        let by = authority_of(&request);
        let events = batch::open(&self.batch, request.into_inner(), by).await?;
        Ok(Response::new(Box::pin(events)))
    }

    async fn get_redemption(
        &self,
        request: Request<pb::GetRedemptionRequest>,
    ) -> Result<Response<pb::GetRedemptionResponse>, Status> {
        let by = authority_of(&request);
        let (pool_id, name) = read_get(request.into_inner()).map_err(|e| status(&e))?;
        let (pool, redemption) = self.find(&pool_id, &name, &by).await?;
        let read = self.reversals.with_reversal(redemption).await.map_err(|e| status(&e))?;
        let redemption = reversed_message(&read, pool.currency);
        let redemption = self.with_words(&read.0, redemption).await?;
        Ok(Response::new(pb::GetRedemptionResponse { redemption: Some(redemption) }))
    }

    async fn await_redemption(
        &self,
        request: Request<pb::AwaitRedemptionRequest>,
    ) -> Result<Response<pb::AwaitRedemptionResponse>, Status> {
        let (caller, by) = (caller_of(&request), authority_of(&request));
        let (pool_id, name, longest) = read_await(request.into_inner()).map_err(|e| status(&e))?;
        let longest = longest.min(self.max_wait);
        let (pool, redemption) = self.find(&pool_id, &name, &by).await?;
        let redemption = self.awaiting.outcome(redemption, longest, &caller).await;
        let redemption = redemption.map_err(|e| status(&e))?;
        let read = self.reversals.with_reversal(redemption).await.map_err(|e| status(&e))?;
        let redemption = reversed_message(&read, pool.currency);
        Ok(Response::new(pb::AwaitRedemptionResponse { redemption: Some(redemption) }))
    }

    async fn list_redemptions(
        &self,
        request: Request<pb::ListRedemptionsRequest>,
    ) -> Result<Response<pb::ListRedemptionsResponse>, Status> {
        let by = authority_of(&request);
        let (pool_id, filter, before, limit) =
            read_list(request.into_inner(), by).map_err(|e| status(&e))?;
        let before = before.unwrap_or(RedemptionId(Uuid::max()));
        let (pool, redemptions) = self
            .redemptions
            .list(&pool_id, &filter, before, limit)
            .await
            .map_err(|e| status(&e))?;
        let (redemptions, next_page_token) = page(
            &redemptions,
            |redemption| redemption.redemption_id.to_string(),
            |redemption| redemption_message(redemption, pool.currency),
        );
        Ok(Response::new(pb::ListRedemptionsResponse { redemptions, next_page_token }))
    }

    async fn watch_redemptions(
        &self,
        request: Request<pb::WatchRedemptionsRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let by = authority_of(&request);
        let told = watch::open(&self.watching, request.into_inner(), by).await?;
        Ok(Response::new(Box::pin(told)))
    }

    async fn resolve_redemption(
        &self,
        request: Request<pb::ResolveRedemptionRequest>,
    ) -> Result<Response<pb::ResolveRedemptionResponse>, Status> {
        let by = authority_of(&request);
        let command = read_resolve(request.into_inner(), by).map_err(|e| status(&e))?;
        let (pool, redemption) = self.redemptions.resolve(command).await.map_err(|e| status(&e))?;
        let message = redemption_message(&redemption, pool.currency);
        let redemption = self.with_words(&redemption, message).await?;
        Ok(Response::new(pb::ResolveRedemptionResponse { redemption: Some(redemption) }))
    }

    async fn reverse_redemption(
        &self,
        request: Request<pb::ReverseRedemptionRequest>,
    ) -> Result<Response<pb::ReverseRedemptionResponse>, Status> {
        let by = authority_of(&request);
        let command = read_reverse(request.into_inner(), by).map_err(|e| status(&e))?;
        let (pool, read) = self.reversals.reverse(command).await.map_err(|e| status(&e))?;
        let redemption = reversed_message(&read, pool.currency);
        Ok(Response::new(pb::ReverseRedemptionResponse { redemption: Some(redemption) }))
    }
}

impl RedemptionRpc {
    async fn currency(&self, pool_id: &PoolId) -> Result<Currency, Status> {
        self.pools.currency(pool_id).await.map_err(|e| status(&e))
    }

    /// The message with what people said of the redemption before.
    async fn with_words(
        &self,
        redemption: &Redemption,
        message: pb::Redemption,
    ) -> Result<pb::Redemption, Status> {
        let superseded = self.redemptions.superseded(redemption).await.map_err(|e| status(&e))?;
        Ok(with_words(message, &superseded))
    }

    async fn find(
        &self,
        pool_id: &PoolId,
        name: &Name,
        by: &Authority,
    ) -> Result<(Pool, Redemption), Status> {
        let found = match name {
            Name::Redemption(id) => self.redemptions.get(pool_id, *id, by).await,
            Name::Request(id) => self.redemptions.get_by_request(pool_id, id, by).await,
        };
        found.map_err(|e| status(&e))
    }
}

pub(super) fn read_acquire(
    request: pb::AcquireAccountRequest,
    caller: Caller,
    principal: Principal,
) -> Result<AcquireCommand, Error> {
    let mut fields = Fields::default();
    let request_id = fields.optional_id("request_id", &request.request_id, RequestId::parse);
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let holder = fields.id("holder", &request.holder, Holder::parse);
    let ttl = fields.duration("lease_duration", request.lease_duration, MIN_LEASE, MAX_LEASE);
    let wait = fields.duration("wait_timeout", request.wait_timeout, Duration::ZERO, MAX_WAIT);
    let selection = read_selector(&mut fields, "selector", request.selector);
    let priority = fields.priority("priority", request.priority);
    let not_before = fields.time("not_before", request.not_before);
    let read = pool_id.zip(holder).map(|(pool_id, holder)| AcquireCommand {
        priority,
        not_before,
        request_id: request_id.unwrap_or_else(RequestId::random),
        principal,
        pool_id,
        holder,
        ttl,
        wait: wait.unwrap_or_default(),
        selector: selection.selector,
        expected: selection.expected,
        min_headroom: selection.min_headroom,
        caller,
    });
    fields.finish(read)
}

fn read_lease(fields: &mut Fields, lease: Option<pb::LeaseRef>) -> Option<LeaseRef> {
    let lease = fields.required("lease", lease)?;
    let pool_id = fields.id("lease.pool_id", &lease.pool_id, PoolId::parse);
    let account_id = fields.id("lease.account_id", &lease.account_id, AccountId::stored);
    if lease.fencing_token < 1 {
        fields.refuse("lease.fencing_token", "must be the token of an acquisition: 1 or more");
    }
    let (pool_id, account_id) = pool_id.zip(account_id)?;
    Some(LeaseRef { pool_id, account_id, token: FencingToken(lease.fencing_token) })
}

pub(super) fn read_renewal(
    request: pb::RenewLeaseRequest,
) -> Result<(LeaseRef, Option<Duration>), Error> {
    let mut fields = Fields::default();
    let lease = read_lease(&mut fields, request.lease);
    let ttl = fields.duration("lease_duration", request.lease_duration, MIN_LEASE, MAX_LEASE);
    fields.finish(lease.map(|lease| (lease, ttl)))
}

pub(super) fn read_release(request: pb::ReleaseAccountRequest) -> Result<LeaseRef, Error> {
    let mut fields = Fields::default();
    let lease = read_lease(&mut fields, request.lease);
    fields.finish(lease)
}

pub(super) fn read_redeem(
    request: pb::RedeemRequest,
    caller: Caller,
    by: Authority,
) -> Result<RedeemCommand, Error> {
    let mut fields = Fields::default();
    let request_id = fields.id("request_id", &request.request_id, RequestId::parse);
    let lease = read_lease(&mut fields, request.lease);
    let code = fields.id("code", &request.code, CardCode::parse);
    let expected = fields.money("expected", request.expected, 1);
    let read = request_id.zip(lease).zip(code).map(|((request_id, lease), code)| RedeemCommand {
        lease,
        release_on_completion: request.release_on_completion,
        card: Card::new((request_id, 1), code, expected, Arc::new(by), caller),
    });
    fields.finish(read)
}

pub(super) fn read_card(
    request: pb::RedeemCardRequest,
    caller: Caller,
    by: Authority,
) -> Result<CardCommand, Error> {
    let mut fields = Fields::default();
    let request_id = fields.id("request_id", &request.request_id, RequestId::parse);
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let holder = fields.id("holder", &request.holder, Holder::parse);
    let code = fields.id("code", &request.code, CardCode::parse);
    let expected = fields.money("expected", request.expected, 1);
    if request.selector.as_ref().is_some_and(|selector| selector.expected.is_some()) {
        fields.refuse("selector.expected", "must be empty: expected is the card's");
    }
    let selection = read_selector(&mut fields, "selector", request.selector);
    let wait = fields.duration("wait_timeout", request.wait_timeout, Duration::ZERO, MAX_WAIT);
    let priority = fields.priority("priority", request.priority);
    let read = request_id.zip(pool_id).zip(holder.zip(code)).map(
        |((request_id, pool_id), (holder, code))| CardCommand {
            request_id,
            pool_id,
            holder,
            code,
            expected,
            selector: selection.selector,
            min_headroom: selection.min_headroom,
            wait: wait.unwrap_or_default(),
            priority,
            by: Arc::new(by),
            caller,
        },
    );
    fields.finish(read)
}

pub(super) enum Name {
    Redemption(RedemptionId),
    Request(RequestId),
}

pub(super) fn read_get(request: pb::GetRedemptionRequest) -> Result<(PoolId, Name), Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let name = match (&*request.redemption_id, &*request.request_id) {
        ("", "") | (_, "") => fields
            .id("redemption_id", &request.redemption_id, RedemptionId::parse)
            .map(Name::Redemption),
        ("", request_id) => {
            fields.id("request_id", request_id, RequestId::parse_any).map(Name::Request)
        }
        _ => {
            fields.refuse("request_id", "must be empty when redemption_id is set");
            None
        }
    };
    fields.finish(pool_id.zip(name))
}

pub(super) fn read_await(
    request: pb::AwaitRedemptionRequest,
) -> Result<(PoolId, Name, Duration), Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let name = match &request.name {
        Some(AwaitedName::RedemptionId(id)) => {
            fields.id("redemption_id", id, RedemptionId::parse).map(Name::Redemption)
        }
        Some(AwaitedName::RequestId(id)) => {
            fields.id("request_id", id, RequestId::parse_any).map(Name::Request)
        }
        None => {
            fields.refuse("redemption_id", "must be set, or request_id");
            None
        }
    };
    let longest = fields.duration("timeout", request.timeout, Duration::ZERO, MAX_WAIT);
    let longest = longest.unwrap_or(DEFAULT_AWAIT);
    fields.finish(pool_id.zip(name).map(|(pool_id, name)| (pool_id, name, longest)))
}

/// The pool, which of its redemptions, before which of them, and how many.
pub(super) fn read_list(
    request: pb::ListRedemptionsRequest,
    by: Authority,
) -> Result<(PoolId, RedemptionFilter, Option<RedemptionId>, i64), Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let limit = fields.page_size(request.page_size);
    let before = fields.page_token(&request.page_token, |key| RedemptionId::parse(key).ok());
    if request.states.len() > MAX_STATES {
        fields.refuse("states", format!("must be at most {MAX_STATES}"));
    }
    if request.reversal_states.len() > MAX_STATES {
        fields.refuse("reversal_states", format!("must be at most {MAX_STATES}"));
    }
    let states = request.states.iter().enumerate().take(MAX_STATES);
    let reversals = request.reversal_states.iter().enumerate().take(MAX_STATES);
    let filter = RedemptionFilter {
        states: states
            .filter_map(|(n, state)| fields.choice(&format!("states[{n}]"), *state, read_state))
            .collect(),
        reversal_states: reversals
            .filter_map(|(n, state)| {
                let field = format!("reversal_states[{n}]");
                fields.choice(&field, *state, read_reversal_state)
            })
            .collect(),
        account_id: fields.optional_id("account_id", &request.account_id, AccountId::stored),
        batch_id: fields.optional_id("batch_id", &request.batch_id, BatchId::parse),
        request_id: fields.optional_id("request_id", &request.request_id, RequestId::parse_any),
        failure_reason: fields.optional_text("failure_reason", &request.failure_reason, 256),
        holder: fields.optional_id("holder", &request.holder, Holder::stored),
        code_last4: fields.optional_text("code_last4", &request.code_last4, 4),
        created_from: fields.time("create_time_from", request.create_time_from),
        created_to: fields.time("create_time_to", request.create_time_to),
        readable_by: (!by.may_read_others).then_some(by.principal),
    };
    if filter.batch_id.is_some() && filter.request_id.is_some() {
        fields.refuse("request_id", "must not be set with batch_id");
    }
    if let (Some(from), Some(to)) = (filter.created_from, filter.created_to)
        && from >= to
    {
        fields.refuse("create_time_to", "must be after create_time_from");
    }
    fields.finish(pool_id.map(|pool_id| (pool_id, filter, before, limit)))
}

pub(super) fn read_resolve(
    request: pb::ResolveRedemptionRequest,
    by: Authority,
) -> Result<ResolveCommand, Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let redemption_id = fields.id("redemption_id", &request.redemption_id, RedemptionId::parse);
    let reason = fields.text("reason", &request.reason, 1000);
    let resolved_by = fields.person("resolved_by", &request.resolved_by);
    let evidence = fields.optional_text("evidence", &request.evidence, 1000);
    if request.corrects_resolution < 0 {
        fields.refuse("corrects_resolution", "must be 0 or the number of a resolution");
    }
    let amount_is_set = request.amount.is_some();
    let amount = fields.money("amount", request.amount, 1);
    let provider_ref = fields.optional_text("provider_ref", &request.provider_ref, 256);
    let outcome = match fields.choice("state", request.state, read_state) {
        Some(RedemptionState::Succeeded) => {
            if !amount_is_set {
                fields.refuse("amount", "must be set when the state is SUCCEEDED");
            }
            if request.code_spent {
                fields.refuse("code_spent", "must not be set when the state is SUCCEEDED");
            }
            amount.map(|amount| ResolvedOutcome::Succeeded { amount, provider_ref })
        }
        Some(RedemptionState::Failed) => {
            if amount_is_set {
                fields.refuse("amount", "must not be set when the state is FAILED");
            }
            Some(ResolvedOutcome::Failed { code_spent: request.code_spent })
        }
        _ => {
            fields.refuse("state", "must be SUCCEEDED or FAILED");
            None
        }
    };
    let read = pool_id.zip(redemption_id).zip(outcome).zip(reason.zip(resolved_by)).map(
        |(((pool_id, redemption_id), outcome), (reason, resolved_by))| ResolveCommand {
            pool_id,
            redemption_id,
            outcome,
            corrects: (request.corrects_resolution > 0).then_some(request.corrects_resolution),
            recorded_amount_is_wrong: request.recorded_amount_is_wrong,
            resolution: Resolution {
                resolved_by,
                principal: by.principal.clone(),
                reason,
                evidence,
            },
            by,
        },
    );
    fields.finish(read)
}

pub(super) fn read_reverse(
    request: pb::ReverseRedemptionRequest,
    by: Authority,
) -> Result<ReverseCommand, Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let redemption_id = fields.id("redemption_id", &request.redemption_id, RedemptionId::parse);
    let reason = fields.text("reason", &request.reason, 1000);
    let reversed_by = fields.person("reversed_by", &request.reversed_by);
    let evidence = fields.optional_text("evidence", &request.evidence, 1000);
    let asked = fields.choice("outcome", request.outcome, |outcome| {
        Some(match outcome {
            pb::ReversalOutcome::Unspecified => ReversalRequest::Ask,
            pb::ReversalOutcome::Reversed => ReversalRequest::WasReversed,
            pb::ReversalOutcome::NotReversed => ReversalRequest::WasNotReversed,
        })
    });
    let read = pool_id.zip(redemption_id).zip(asked).zip(reason.zip(reversed_by)).map(
        |(((pool_id, redemption_id), request), (reason, resolved_by))| ReverseCommand {
            pool_id,
            redemption_id,
            request,
            words: Resolution { resolved_by, principal: by.principal.clone(), reason, evidence },
            by,
        },
    );
    fields.finish(read)
}
