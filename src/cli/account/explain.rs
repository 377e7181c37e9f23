//! `holdfast account explain`: which accounts would be picked, and why each other is passed over.

use clap::Args;
use serde_json::Value;

use crate::{
    cli::shared::{
        client::{RpcError, ServerArgs, unary},
        output::{Format, FormatArgs, Rows, Sink, note, object},
        parse,
        pools::get_pool,
        view,
    },
    domain::id::{AccountId, PlanId, PoolId},
    rpc::pb,
};

#[derive(Args, Debug)]
#[command(
    after_help = "Nothing is locked or changed. Every account of the pool is read, so in a pool \
    of a million it takes seconds."
)]
pub(in crate::cli) struct ExplainArgs {
    /// The pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    /// The card's amount, in minor units of the pool's currency. Any when not given.
    #[arg(long, value_parser = parse::amount)]
    amount: Option<i64>,
    /// Only accounts of this plan, or of none.
    #[arg(long, value_parser = parse::plan)]
    plan: Option<PlanId>,
    /// Only this account.
    #[arg(long, value_parser = parse::account)]
    account: Option<AccountId>,
    /// Only accounts of this country: two upper-case letters.
    #[arg(long, value_parser = parse::country)]
    country: Option<String>,
    /// Only accounts whose plan still wants at least this much, in minor units.
    #[arg(long, value_parser = parse::amount)]
    min_headroom: Option<i64>,
    /// Only accounts that carry this label; give it more than once for several.
    #[arg(long, value_parser = parse::label, value_name = "KEY=VALUE")]
    label: Vec<(String, String)>,
    /// Not this account; give it more than once, or with commas, for several.
    #[arg(long, value_parser = parse::account, value_delimiter = ',', value_name = "ACCOUNT")]
    exclude: Vec<AccountId>,
    /// How many accounts to show, those that would be picked first. All are counted.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i32).range(1..=1000))]
    limit: i32,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl ExplainArgs {
    fn selector(&self, currency: &str) -> pb::AccountSelector {
        let money = |amount_minor| pb::Money { amount_minor, currency_code: currency.to_owned() };
        pb::AccountSelector {
            account_id: self.account.as_ref().map(ToString::to_string).unwrap_or_default(),
            plan_id: self.plan.as_ref().map(ToString::to_string).unwrap_or_default(),
            country_code: self.country.clone().unwrap_or_default(),
            min_headroom: self.min_headroom.map(money),
            labels: self.label.iter().cloned().collect(),
            exclude_account_ids: self.exclude.iter().map(ToString::to_string).collect(),
            expected: self.amount.map(money),
        }
    }
}

/// Explains, and prints the answer.
pub(super) async fn run(args: ExplainArgs) -> anyhow::Result<()> {
    let server = args.server.connect().await?;
    let pool = get_pool(&server, &args.pool).await?;
    let request = unary(pb::ExplainAcquireRequest {
        pool_id: args.pool.to_string(),
        selector: Some(args.selector(&pool.currency_code)),
        page_size: args.limit,
    });
    let reply = server.redemptions().explain_acquire(request).await.map_err(RpcError)?;
    let explained = reply.into_inner();
    if explained.pool_closed {
        note(closed(&pool));
    }
    if let Some(status) = &explained.provider_status {
        view::held_back(&pool.provider_id, status).iter().for_each(note);
    }
    print(args.format.for_stdout(), &pool, &explained)
}

/// Why nothing would be picked, whatever fits.
fn closed(pool: &pb::Pool) -> String {
    let why = match (pool.paused(), pool.draining()) {
        (true, true) => "paused, and draining",
        (true, false) => "paused",
        (false, true) => "draining",
        // It was resumed, or closed, between the two questions.
        (false, false) => "paused or draining",
    };
    let id = &pool.pool_id;
    format!("pool {id} is {why}: nothing is picked until `holdfast pool resume {id}`")
}

/// How many there are of each verdict, then the accounts: two tables, two parts of CSV with a blank
/// line between them, or one object.
fn print(
    format: Format,
    pool: &pb::Pool,
    explained: &pb::ExplainAcquireResponse,
) -> anyhow::Result<()> {
    let mut sink = Sink::stdout();
    let verdicts = explained.verdict_counts.iter().map(view::verdict);
    let accounts = explained.considered_accounts.iter().map(view::considered);
    if format == Format::Json {
        let list = |columns: &[&str], rows: Vec<Vec<_>>| {
            rows.iter().map(|row| object(columns, row)).collect::<Vec<_>>().join(",")
        };
        return sink.line(format_args!(
            "{{\"pool_id\":{},\"currency_code\":{},\"pool_closed\":{},\"provider_status\":{},\"verdicts\":[{}],\"accounts\":[{}]}}",
            view::text(&pool.pool_id),
            view::text(&pool.currency_code),
            explained.pool_closed,
            explained.provider_status.as_ref().map_or(Value::Null, view::provider_status),
            list(view::VERDICT, verdicts.collect()),
            list(view::CONSIDERED, accounts.collect()),
        ));
    }
    let mut rows = Rows::new(format, view::VERDICT, sink);
    verdicts.into_iter().try_for_each(|row| rows.push(&row))?;
    sink = rows.finish()?;
    sink.line("")?;
    let mut rows = Rows::new(format, view::CONSIDERED, sink);
    accounts.into_iter().try_for_each(|row| rows.push(&row))?;
    rows.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pool_says_why_and_how_it_is_opened() {
        let pool = |paused, draining| pb::Pool {
            pool_id: "p".into(),
            paused: Some(paused),
            draining: Some(draining),
            ..Default::default()
        };
        assert_eq!(
            closed(&pool(false, true)),
            "pool p is draining: nothing is picked until `holdfast pool resume p`"
        );
        assert!(closed(&pool(true, false)).starts_with("pool p is paused:"));
        assert!(closed(&pool(true, true)).starts_with("pool p is paused, and draining:"));
    }
}
