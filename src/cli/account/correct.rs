//! `holdfast account correct-balance`: gives an account the balance that a person saw at the provider.

use clap::Args;

use crate::{
    cli::shared::{
        client::{RpcError, ServerArgs, required, unary},
        output::{FormatArgs, Sink, after_change, record},
        parse,
        pools::pool_currency,
        view,
    },
    domain::id::{AccountId, Holder, PoolId},
    rpc::pb,
};

#[derive(Args, Debug)]
pub(in crate::cli) struct CorrectArgs {
    /// The account.
    #[arg(value_parser = parse::account)]
    account: AccountId,
    /// Its pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    /// What it has at the provider, in minor units of the pool's currency.
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    balance_minor: i64,
    /// What was recorded when you compared, as `account show` tells it, in minor units. Where the account has
    /// another balance by now nothing is changed.
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    expected_balance_minor: i64,
    /// Why: 1 to 1000 characters, kept for good.
    #[arg(long)]
    reason: String,
    /// What was looked at: the provider's own record, a ticket, the name of a picture. 1 to 1000
    /// characters, kept for good.
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    evidence: String,
    /// Who says so: 1 to 256 characters.
    #[arg(long, env = "USER", value_parser = parse::holder)]
    by: Holder,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Corrects the balance, and prints the account.
pub(super) async fn run(args: CorrectArgs) -> anyhow::Result<()> {
    let server = args.server.connect().await?;
    let currency_code = pool_currency(&server, &args.pool).await?;
    let money =
        |amount_minor| Some(pb::Money { amount_minor, currency_code: currency_code.clone() });
    let request = pb::CorrectBalanceRequest {
        pool_id: args.pool.to_string(),
        account_id: args.account.to_string(),
        balance: money(args.balance_minor),
        expected_balance: money(args.expected_balance_minor),
        reason: args.reason,
        corrected_by: args.by.to_string(),
        evidence: args.evidence,
    };
    let reply = server.accounts().correct_balance(unary(request)).await.map_err(RpcError)?;
    let account = reply.into_inner().account;
    let print = || {
        let row = view::account(&required(account, "account")?);
        record(args.format.for_stdout(), view::ACCOUNT, &row, Sink::stdout()).map(drop)
    };
    after_change(print())
}
