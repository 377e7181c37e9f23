//! `holdfast pool pause` and `resume`: the flags of a pool, and a changed pool as it is printed.

use clap::Args;

use crate::{
    cli::shared::{
        client::{RpcError, Server, ServerArgs, required, unary},
        output::{FormatArgs, Sink, after_change, record},
        parse, view,
    },
    domain::id::PoolId,
    rpc::pb,
};

#[derive(Args, Debug)]
pub(in crate::cli) struct ChangeArgs {
    /// The pool.
    #[arg(value_parser = parse::pool)]
    pub(super) pool: PoolId,
    #[command(flatten)]
    pub(super) format: FormatArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

/// Sets flags of a pool, and prints it.
pub(super) async fn set(args: ChangeArgs, flags: &[(&str, bool)]) -> anyhow::Result<()> {
    let server = args.server.connect().await?;
    print_changed(args.format, Some(set_flags(&server, &args.pool, flags).await?))
}

/// Sets `paused`, `draining` or both of a pool, and answers with the pool.
pub(super) async fn set_flags(
    server: &Server,
    pool: &PoolId,
    flags: &[(&str, bool)],
) -> anyhow::Result<pb::Pool> {
    let flag = |name: &str| flags.iter().find(|(flag, _)| *flag == name).map(|(_, set)| *set);
    let (paused, draining) = (flag("paused"), flag("draining"));
    let pool = pb::Pool { pool_id: pool.to_string(), paused, draining, ..Default::default() };
    let request = unary(pb::UpdatePoolRequest { pool: Some(pool), update_mask: None });
    let reply = server.pools().update_pool(request).await.map_err(RpcError)?;
    required(reply.into_inner().pool, "pool")
}

/// Prints a pool that was changed.
pub(super) fn print_changed(format: FormatArgs, pool: Option<pb::Pool>) -> anyhow::Result<()> {
    let print = || {
        let row = view::pool(&required(pool, "pool")?);
        record(format.for_stdout(), view::POOL, &row, Sink::stdout()).map(drop)
    };
    after_change(print())
}
