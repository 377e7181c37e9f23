//! Pools as the server has them, for every command that needs more of one than its name.

use super::client::{PAGE_SIZE, RpcError, Server, every_page, required, unary};
use crate::{domain::id::PoolId, rpc::pb};

/// The currency of a pool: amounts are typed without one, since a pool has only one.
pub(in crate::cli) async fn pool_currency(
    server: &Server,
    pool: &PoolId,
) -> anyhow::Result<String> {
    Ok(get_pool(server, pool).await?.currency_code)
}

/// A pool as it is.
pub(in crate::cli) async fn get_pool(server: &Server, pool: &PoolId) -> anyhow::Result<pb::Pool> {
    let request = unary(pb::GetPoolRequest { pool_id: pool.to_string() });
    let reply = server.pools().get_pool(request).await.map_err(RpcError)?;
    required(reply.into_inner().pool, "pool")
}

/// The names of all pools.
pub(in crate::cli) async fn pool_names(server: &Server) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    each_pool(server, |pool| {
        names.push(pool.pool_id);
        Ok(())
    })
    .await?;
    Ok(names)
}

/// Each pool, page after page.
pub(in crate::cli) async fn each_pool(
    server: &Server,
    then: impl FnMut(pb::Pool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut pools = server.pools();
    every_page(
        async |page_token| {
            let request = pb::ListPoolsRequest { page_size: PAGE_SIZE, page_token };
            let page = pools.list_pools(unary(request)).await?.into_inner();
            Ok((page.pools, page.next_page_token))
        },
        then,
    )
    .await
}
