//! Cells of crash tables: something happens to a server at one side of one step, and all ends as expected.

use std::fmt::Debug;

use futures_util::{StreamExt as _, stream};
use holdfast::{
    failpoints::{Side, Step},
    rpc::pb::{self, RedemptionState},
};
use tokio::runtime::Runtime;

use super::world::Clients;

/// How many cells are played at a time.
const AT_ONCE: usize = 4;

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Kill,
    Stop,
    Error,
    Delay,
}

/// The setting by which it happens.
pub(crate) fn charge(step: Step, side: Side, action: Action) -> String {
    let side = if side == Side::Before { "before" } else { "after" };
    let action = match action {
        Action::Kill => "kill",
        Action::Stop => "stop",
        Action::Error => "error",
        Action::Delay => "delay:300ms",
    };
    format!("{}.{side}={action}", step.as_str())
}

/// Both sides of each step.
pub(crate) fn sides(steps: impl IntoIterator<Item = Step>) -> impl Iterator<Item = (Step, Side)> {
    steps.into_iter().flat_map(|step| [Side::Before, Side::After].map(|side| (step, side)))
}

/// Plays cells, some at a time.
pub(crate) async fn play_all<C, F>(
    cells: impl IntoIterator<Item = C>,
    play: impl Fn(C) -> F + Copy + Send + 'static,
) where
    C: Copy + Debug + Send + 'static,
    F: Future<Output = ()>,
{
    let played = stream::iter(cells)
        .map(|cell| async move {
            // On a thread of its own: one that fails does not end the others.
            let alone = move || Runtime::new().unwrap().block_on(play(cell));
            tokio::task::spawn_blocking(alone).await.is_err().then_some(cell)
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<Option<C>>>()
        .await;
    let failed: Vec<_> = played.into_iter().flatten().collect();
    assert!(failed.is_empty(), "cells that did not end as they should: {failed:#?}");
}

/// Whether the outcome is known, or a person's to find out.
pub(crate) fn is_known(redemption: &pb::Redemption) -> bool {
    !matches!(redemption.state(), RedemptionState::Submitted | RedemptionState::InDoubt)
}

/// A redemption by its caller's request.
pub(crate) async fn find(
    clients: &mut Clients,
    pool_id: &str,
    request_id: &str,
) -> Result<pb::Redemption, tonic::Status> {
    let request = pb::GetRedemptionRequest {
        pool_id: pool_id.to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    let found = clients.redemptions.get_redemption(request).await?.into_inner();
    Ok(found.redemption.unwrap())
}

/// A person closes what is theirs, by what the provider's own records say: this much was credited, or nothing.
pub(crate) async fn close(
    clients: &mut Clients,
    redemption: &pb::Redemption,
    credited: Option<pb::Money>,
) {
    let state =
        if credited.is_some() { RedemptionState::Succeeded } else { RedemptionState::Failed };
    let request = pb::ResolveRedemptionRequest {
        pool_id: redemption.pool_id.clone(),
        redemption_id: redemption.redemption_id.clone(),
        state: state.into(),
        amount: credited,
        reason: "looked at the ledger".to_owned(),
        resolved_by: "a person".to_owned(),
        ..Default::default()
    };
    clients.redemptions.resolve_redemption(request).await.unwrap();
}
