//! `WatchRedemptions`: every outcome at least once, in an order that a cursor can resume.

mod command;
mod held_back;
mod kills;
mod lost;
mod order;
mod readers;

use holdfast::rpc::pb;
use tonic::Status;
use uuid::Uuid;

use crate::support::world::{Clients, POOL, eur, seconds};

/// Redeems a card into an account, or into any.
pub(crate) async fn redeem(
    clients: &mut Clients,
    code: &str,
    account_id: &str,
) -> Result<pb::Redemption, Status> {
    let selector = pb::AccountSelector { account_id: account_id.to_owned(), ..Default::default() };
    let request = pb::RedeemCardRequest {
        priority: 0,
        request_id: Uuid::now_v7().to_string(),
        pool_id: POOL.to_owned(),
        holder: "till".to_owned(),
        code: code.to_owned(),
        expected: Some(eur(1000)),
        selector: Some(selector),
        wait_timeout: seconds(20.0),
    };
    let reply = clients.redemptions.redeem_card(request).await?.into_inner();
    let redemption = reply.redemption.unwrap();
    clients.journal().redemption(&redemption);
    Ok(redemption)
}
