//! `holdfast pool drain`: no new leases, and with `--wait` a wait until the last one has ended.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tonic::Code;

use super::change::{ChangeArgs, print_changed, set_flags};
use crate::{
    cli::shared::{
        client::{PAGE_SIZE, RpcError, Server, every_page, unary},
        output::note,
        pools::get_pool,
        stop::Stop,
    },
    domain::id::PoolId,
    rpc::pb,
};

/// The poll interval of the wait for locked accounts.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How many polls in a row must find no lock. An acquisition that began just before the pool was
/// drained may show its lease only after the first of them.
const POLLS: u32 = 2;

#[derive(Args, Debug)]
#[command(
    after_help = "Ctrl-C ends the wait alone: the pool goes on draining. Leases end by their \
    time, and redemptions by their outcome, whether or not anybody waits."
)]
pub(in crate::cli) struct DrainArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// Wait until no account of the pool is locked.
    #[arg(long)]
    wait: bool,
}

/// Drains a pool.
pub(super) async fn run(
    args: DrainArgs,
    stop: impl FnOnce() -> anyhow::Result<Stop>,
) -> anyhow::Result<()> {
    let pool_id = args.change.pool;
    let server = args.change.server.connect().await?;
    let pool = set_flags(&server, &pool_id, &[("draining", true)]).await?;
    if args.wait {
        let mut stop = stop()?;
        tokio::select! {
            waited = wait(&server, &pool_id) => waited?,
            () = stop.asked() => anyhow::bail!(
                "the wait was ended; pool {pool_id} goes on draining: `holdfast pool drain {pool_id} \
                 --wait` waits again, `holdfast pool resume {pool_id}` gives out leases again"
            ),
        }
    }
    print_changed(args.change.format, Some(pool))
}

/// Waits until no account of the pool is locked.
async fn wait(server: &Server, pool_id: &PoolId) -> anyhow::Result<()> {
    let mut reported = None;
    let mut free_polls = 0;
    loop {
        match read_locked(server, pool_id).await {
            Ok(Locked { accounts: 0, .. }) => {
                free_polls += 1;
                if free_polls == POLLS {
                    note(format_args!("pool {pool_id}: no account is locked"));
                    return Ok(());
                }
            }
            Ok(locked) => {
                free_polls = 0;
                if reported.replace(locked) != Some(locked) {
                    note(locked.told(pool_id));
                }
            }
            // A server that restarts meanwhile changes nothing of the drain.
            Err(error) if is_unavailable(&error) => {
                note(format_args!("pool {pool_id}: no answer; asking again"));
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// How many accounts are locked, and how many of those hold an open redemption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Locked {
    accounts: u64,
    open: u64,
}

impl Locked {
    fn told(self, pool_id: &PoolId) -> String {
        let Self { accounts, open } = self;
        let text = format!("pool {pool_id}: {accounts} locked");
        match open {
            0 => text,
            _ => format!(
                "{text}, {open} of them by a redemption that is open: `holdfast redemption list --pool \
                 {pool_id} --state submitted,in-doubt,needs-review`"
            ),
        }
    }
}

async fn read_locked(server: &Server, pool_id: &PoolId) -> anyhow::Result<Locked> {
    let pool = get_pool(server, pool_id).await?;
    anyhow::ensure!(
        pool.draining(),
        "pool {pool_id} is not draining any more: somebody resumed it"
    );
    let mut accounts = server.accounts();
    let mut locked = Locked::default();
    every_page(
        async |page_token| {
            let request = pb::ListAccountsRequest {
                pool_id: pool_id.to_string(),
                page_size: PAGE_SIZE,
                page_token,
                status: pb::AccountStatus::Locking.into(),
                ..Default::default()
            };
            let page = accounts.list_accounts(unary(request)).await?.into_inner();
            Ok((page.accounts, page.next_page_token))
        },
        |account| {
            locked.accounts += 1;
            locked.open += u64::from(!account.open_redemption_id.is_empty());
            Ok(())
        },
    )
    .await
    .context("the locked accounts cannot be counted")?;
    Ok(locked)
}

fn is_unavailable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<RpcError>().is_some_and(|error| error.0.code() == Code::Unavailable)
}
