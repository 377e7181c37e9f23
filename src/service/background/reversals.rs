//! Reversals whose outcome is not known: the provider is asked what became of them, and asked again for what it does
//! once at the most.
//!
//! [`ReversalMeans`](crate::domain::redemption::ReversalMeans) chooses. The rows have when their check is due, so any
//! server may check them.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::reconcile::backoff;
use crate::{
    domain::{
        id::{PoolId, RedemptionId},
        redemption::{DueReversal, Redemption, ReversalAction, ReversalAnswer, ReversalDoubt},
    },
    provider::Call,
    service::{
        Error,
        clock::Deadline,
        providers::LimitedProvider,
        reverse::{Reversals, Told},
    },
};

/// Who settles, in the accounts' events.
const ACTOR: &str = "reconciler";
/// Polls every `interval`, until `stop`.
pub async fn run(reversals: Reversals, interval: Duration, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(interval)).await.is_some() {
        let due = match reversals.store().due_reversals().await {
            Ok(due) => due,
            Err(error) => {
                tracing::debug!(%error, "cannot read which reversals are due");
                continue;
            }
        };
        let mut checks = JoinSet::new();
        for due in due {
            let reversals = reversals.clone();
            checks.spawn(async move {
                if let Err(error) = take(&reversals, &due).await {
                    tracing::error!(
                        pool_id = %due.0, redemption_id = %due.1, %error,
                        "a reversal in doubt could not be checked; trying again"
                    );
                }
            });
        }
        while checks.join_next().await.is_some() {}
    }
}

/// Claims a reversal, so that nobody else checks it meanwhile, and checks it.
async fn take(reversals: &Reversals, due: &(PoolId, RedemptionId, i32)) -> Result<(), Error> {
    let Some(redemption) = reversals.store().get_redemption(&due.0, due.1).await? else {
        return Ok(());
    };
    let provider = reversals.providers().pinned(&redemption).await?;
    let hold = provider.limits().hold();
    let claimed_until = Deadline::after(hold);
    let Some(claimed) = reversals.store().claim_reversal(due, hold).await? else { return Ok(()) };
    let check = check(reversals, &provider, &redemption, &claimed, claimed_until);
    // When the hold is over another server checks, whatever has become of this check.
    timeout(hold, check).await.unwrap_or(Ok(()))
}

async fn check(
    reversals: &Reversals,
    provider: &LimitedProvider,
    redemption: &Redemption,
    due: &DueReversal,
    claimed_until: Deadline,
) -> Result<(), Error> {
    let limits = provider.limits();
    let has_task = redemption.provider_task.is_some();
    let means = provider.profile().reversal_means(has_task);
    let doubt = ReversalDoubt { age: due.age, lead_time: limits.hold() };
    let mut told = Told {
        number: due.reversal.number,
        checks: due.checks,
        attempts: 0,
        actor: ACTOR,
        by: None,
    };
    let past = match reversals.past(redemption).await? {
        Ok(past) => past,
        Err(why) => return reversals.defer(redemption, &told, None, why.to_string()).await,
    };
    let mut action = means.first_action(&doubt);
    let mut answer = "the provider cannot be asked about it".to_owned();
    loop {
        let call = match action {
            ReversalAction::Question => provider.question_of_past(has_task),
            ReversalAction::Again => Some(Call::Reverse),
            ReversalAction::Wait | ReversalAction::Review => None,
        };
        let Some(call) = call else { break };
        if claimed_until.left() < limits.last_call() {
            // A server that stood still for longer than its hold leaves it to the next.
            return Ok(());
        }
        tracing::info!(
            pool_id = %redemption.pool_id, redemption_id = %redemption.redemption_id, ?action,
            "a reversal in doubt: a recovery action is taken"
        );
        told.attempts += 1;
        let patience = claimed_until.left().saturating_sub(limits.last_call());
        match provider.ask_past(call, &past, patience).await {
            ReversalAnswer::Undone(text) => {
                return reversals.take_back(redemption, &told, text).await;
            }
            ReversalAnswer::Review(text) => {
                return reversals.defer(redemption, &told, None, text).await;
            }
            // It says nothing of the reversal, however long that goes on.
            ReversalAnswer::NeverSent(text) | ReversalAnswer::Nothing(text) => {
                answer = text;
                action = ReversalAction::Wait;
            }
            ReversalAnswer::Credited(text) | ReversalAnswer::Unclear(text) => {
                answer = text;
                action = means.next_action(action, &doubt);
            }
        }
    }
    let after =
        (action != ReversalAction::Review).then(|| backoff(due.checks, means.max_processing / 2));
    reversals.defer(redemption, &told, after, answer).await
}
