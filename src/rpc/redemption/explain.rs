//! `ExplainAcquire`: which accounts would be picked, and why the others are not.

use tonic::{Response, Status};

use super::selector::read_selector;
use crate::{
    domain::{choice::Choice, id::PoolId},
    rpc::{
        account::message::account_message,
        convert::{self, Fields},
        page::first_of,
        pb,
        provider::status_message,
        status::status,
    },
    service::{
        Error,
        acquire::{Acquire, ExplainAmounts, Explained},
        batch::Selection,
    },
};

pub(super) async fn explain(
    acquire: &Acquire,
    request: pb::ExplainAcquireRequest,
) -> Result<Response<pb::ExplainAcquireResponse>, Status> {
    let (pool_id, selection, limit) = read(request).map_err(|e| status(&e))?;
    let limit = usize::try_from(limit).unwrap_or_default();
    let amounts =
        ExplainAmounts { expected: selection.expected, min_headroom: selection.min_headroom };
    let explained = acquire
        .explain(&pool_id, &selection.selector, amounts, limit)
        .await
        .map_err(|e| status(&e))?;
    Ok(Response::new(explained_message(&explained)))
}

/// The pool, which accounts, and how many of them.
pub(in crate::rpc) fn read(
    request: pb::ExplainAcquireRequest,
) -> Result<(PoolId, Selection, i64), Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let selection = read_selector(&mut fields, "selector", request.selector);
    let limit = fields.page_size(request.page_size);
    fields.finish(pool_id.map(|pool_id| (pool_id, selection, limit)))
}

fn explained_message(explained: &Explained) -> pb::ExplainAcquireResponse {
    let pool = &explained.pool;
    let money = |amount: Option<i64>| amount.map(|amount| convert::money(amount, pool.currency));
    let considered = explained.considered.iter().map(|one| pb::ConsideredAccount {
        account: Some(account_message(&one.account, pool.currency)),
        verdict: verdict_message(one.choice),
        headroom: money(one.headroom_minor),
        day_headroom: money(one.day_headroom_minor),
    });
    let counts = explained.counts.iter().map(|(choice, accounts)| pb::VerdictCount {
        verdict: verdict_message(*choice),
        accounts: *accounts,
    });
    pb::ExplainAcquireResponse {
        considered_accounts: first_of(considered),
        verdict_counts: counts.collect(),
        pool_closed: pool.paused || pool.draining,
        provider_status: explained.provider.as_ref().map(status_message),
    }
}

fn verdict_message(choice: Choice) -> i32 {
    use pb::AcquireVerdict as Verdict;
    match choice {
        Choice::Fits => Verdict::Fits,
        Choice::NotSelected => Verdict::NotSelected,
        Choice::Completed => Verdict::Completed,
        Choice::Inactive => Verdict::Inactive,
        Choice::Paused => Verdict::Paused,
        Choice::Draining => Verdict::Draining,
        Choice::Unwritable => Verdict::Unwritable,
        Choice::TooFull => Verdict::TooFull,
        Choice::Denomination => Verdict::Denomination,
        Choice::Remainder => Verdict::Remainder,
        Choice::DayFull => Verdict::DayFull,
        Choice::OnHold => Verdict::OnHold,
        Choice::NextDay => Verdict::NextDay,
        Choice::CoolingDown => Verdict::CoolingDown,
        Choice::Locked => Verdict::Locked,
    }
    .into()
}
