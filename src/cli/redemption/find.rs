//! Reading a redemption, also one whose pool is not given.

use futures_util::{StreamExt as _, stream};
use tonic::{Code, Response, Status};

use crate::{
    cli::shared::client::{RpcError, Server, unary},
    rpc::pb,
};

/// How many pools are asked at a time.
const AT_ONCE: usize = 8;

/// Reads a redemption of a pool.
pub(super) async fn get(
    server: &Server,
    pool_id: &str,
    redemption_id: &str,
) -> Result<Response<pb::GetRedemptionResponse>, Status> {
    let request = pb::GetRedemptionRequest {
        pool_id: pool_id.to_owned(),
        redemption_id: redemption_id.to_owned(),
        ..Default::default()
    };
    server.redemptions().get_redemption(unary(request)).await
}

/// Reads a redemption by its id from whichever of the pools has it.
pub(super) async fn find(
    server: &Server,
    pools: &[String],
    redemption_id: &str,
) -> anyhow::Result<Option<Response<pb::GetRedemptionResponse>>> {
    let asked = stream::iter(pools).map(|pool_id| get(server, pool_id, redemption_id));
    let mut answers = asked.buffer_unordered(AT_ONCE);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(reply) => return Ok(Some(reply)),
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(RpcError(status).into()),
        }
    }
    Ok(None)
}
