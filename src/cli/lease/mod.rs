//! `holdfast lease`: ends a lease whose holder does not.

use clap::{Args, Subcommand};

use super::shared::{
    client::{RpcError, ServerArgs, required, unary},
    output::{FormatArgs, Sink, after_change, note, record},
    parse, view,
};
use crate::{
    domain::id::{AccountId, PoolId},
    rpc::pb,
};

#[derive(Debug, Subcommand)]
pub(super) enum LeaseCommand {
    /// End the lease on an account, no matter who holds it. A redemption that is open is finished first.
    End(EndArgs),
}

#[derive(Args, Debug)]
pub(super) struct EndArgs {
    /// The account.
    #[arg(value_parser = parse::account)]
    account: AccountId,
    /// Its pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(command: LeaseCommand) -> anyhow::Result<()> {
    match command {
        LeaseCommand::End(args) => end(args).await,
    }
}

/// Releases the account by the token that it has now: a lease that somebody gets meanwhile is not ended.
async fn end(args: EndArgs) -> anyhow::Result<()> {
    let server = args.server.connect().await?;
    let request = unary(pb::GetAccountRequest {
        pool_id: args.pool.to_string(),
        account_id: args.account.to_string(),
    });
    let reply = server.accounts().get_account(request).await.map_err(RpcError)?;
    let account = required(reply.into_inner().account, "account")?;
    let Some(lease) = account.lease else {
        anyhow::bail!("account {} of pool {} has no lease", args.account, args.pool);
    };
    let request = unary(pb::ReleaseAccountRequest { lease: lease.r#ref });
    let reply = server.redemptions().release_account(request).await.map_err(RpcError)?;
    let account = required(reply.into_inner().account, "account")?;
    if !account.open_redemption_id.is_empty() {
        note(format_args!(
            "the lease ends when redemption {} has an outcome",
            account.open_redemption_id
        ));
    }
    let row = view::account(&account);
    let print = || record(args.format.for_stdout(), view::ACCOUNT, &row, Sink::stdout()).map(drop);
    after_change(print())
}
