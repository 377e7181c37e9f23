//! The end of a batch: waiting for the outcomes of items that are in doubt.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use prost_types::Duration as WireDuration;
use tokio::time::Instant;
use tonic::Status;

use super::{outcome::Outcome, progress::Progress};
use crate::{
    cli::shared::{
        client::{Server, unary},
        lost,
    },
    domain::id::PoolId,
    rpc::pb::{self, await_redemption_request::Name, batch_item_result},
};

/// How many items are asked about at a time.
const AT_ONCE: usize = 16;
/// The longest that one call waits: something between may end a call that is silent for longer.
const LONGEST_CALL: Duration = Duration::from_secs(30);

/// Waits until the items are no longer in doubt, at most for `longest`, and gives each to `then` as it is known.
pub(super) async fn wait(
    server: &Server,
    pool: &PoolId,
    in_doubt: Vec<Outcome>,
    longest: Duration,
    progress: &Progress,
    mut then: impl FnMut(pb::BatchItemResult) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if in_doubt.is_empty() || longest.is_zero() {
        return Ok(());
    }
    progress.note(format_args!(
        "waiting up to {} for the outcomes of {} items that are in doubt",
        humantime::format_duration(longest),
        in_doubt.len()
    ));
    let until = Instant::now() + longest;
    let pool: Arc<str> = pool.as_str().into();
    let items =
        stream::iter(in_doubt).map(|outcome| {
            let pool = Arc::clone(&pool);
            async move {
                (outcome.item_id().to_owned(), outcome_of(server, &pool, &outcome, until).await)
            }
        });
    let mut told = items.buffer_unordered(AT_ONCE);
    while let Some((item_id, told)) = told.next().await {
        if let Some(redemption) = told {
            let outcome = Some(batch_item_result::Outcome::Redemption(redemption));
            then(pb::BatchItemResult { item_id, outcome, replayed: false })?;
        }
    }
    Ok(())
}

/// The redemption of an item when it is known. `None`: it was not until then, or could not be read.
async fn outcome_of(
    server: &Server,
    pool: &str,
    outcome: &Outcome,
    until: Instant,
) -> Option<pb::Redemption> {
    let redemption_id = outcome.redemption_id()?;
    let mut losses = 0;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match asked(server, pool, redemption_id, left.min(LONGEST_CALL)).await {
            Ok(redemption) if !is_in_doubt(&redemption) => return Some(redemption),
            Ok(_) if left.is_zero() => return None,
            Ok(_) => losses = 0,
            Err(status) if lost::is_lost(&status) && !left.is_zero() => {
                losses += 1;
                tokio::time::sleep(lost::wait(losses, &status).min(left)).await;
            }
            Err(_) => return None,
        }
    }
}

async fn asked(
    server: &Server,
    pool: &str,
    redemption_id: &str,
    longest: Duration,
) -> Result<pb::Redemption, Status> {
    let request = pb::AwaitRedemptionRequest {
        pool_id: pool.to_owned(),
        name: Some(Name::RedemptionId(redemption_id.to_owned())),
        timeout: WireDuration::try_from(longest).ok(),
    };
    let mut request = unary(request);
    // What is asked for, and the time of an answer.
    request.set_timeout(longest + LONGEST_CALL);
    let reply = server.redemptions().await_redemption(request).await?;
    Ok(reply.into_inner().redemption.unwrap_or_default())
}

/// A person decides about those to review: they are not waited for.
fn is_in_doubt(redemption: &pb::Redemption) -> bool {
    matches!(redemption.state(), pb::RedemptionState::Submitted | pb::RedemptionState::InDoubt)
}
