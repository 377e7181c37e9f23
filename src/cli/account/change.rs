//! `holdfast account pause`, `drain`, `resume`, `lift-hold` and `activate`.

use clap::Args;

use crate::{
    cli::shared::{
        client::{RpcError, ServerArgs, required, unary},
        output::{FormatArgs, Sink, after_change, record},
        parse, view,
    },
    domain::id::{AccountId, PoolId},
    rpc::pb,
};

#[derive(Args, Debug)]
pub(in crate::cli) struct ChangeArgs {
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

/// What is to be changed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Pause,
    Drain,
    Resume,
    LiftHold,
    Activate,
}

impl Change {
    /// The fields that it changes: to what is set in the account, or to nothing.
    fn paths(self, account: &mut pb::Account) -> &'static [&'static str] {
        match self {
            Self::Pause => {
                account.paused = Some(true);
                &["paused"]
            }
            Self::Drain => {
                account.draining = Some(true);
                &["draining"]
            }
            Self::Resume => &["paused", "draining"],
            Self::LiftHold => &["hold"],
            Self::Activate => {
                account.login_status = pb::LoginStatus::Active.into();
                &["login_status"]
            }
        }
    }
}

/// Changes an account, and prints what has become of it.
pub(super) async fn run(args: ChangeArgs, change: Change) -> anyhow::Result<()> {
    let mut account = pb::Account {
        pool_id: args.pool.to_string(),
        account_id: args.account.to_string(),
        ..Default::default()
    };
    let paths = change.paths(&mut account).iter().map(|path| (*path).to_owned()).collect();
    let update_mask = Some(prost_types::FieldMask { paths });
    let request = unary(pb::UpdateAccountRequest { account: Some(account), update_mask });
    let reply = args.server.connect().await?.accounts().update_account(request).await;
    let account = reply.map_err(RpcError)?.into_inner().account;
    let print = || {
        let row = view::account(&required(account, "account")?);
        record(args.format.for_stdout(), view::ACCOUNT, &row, Sink::stdout()).map(drop)
    };
    after_change(print())
}
