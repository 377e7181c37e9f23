//! The demo's report, on stdout.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::Value;
use uuid::Uuid;

use super::{
    compare::{Ledger, SumDifference, compare, compare_sums},
    world::{AccountKey, Accounts, POOLS, PoolPlan},
};
use crate::cli::{
    batch::Done,
    redemption::audit::{
        compare::{Difference, Record, State},
        ours::Ours,
    },
    shared::{
        output::{Format, Rows, Sink},
        view,
    },
};

/// Items by what became of them and why.
pub(super) type Outcomes = BTreeMap<(String, String), u64>;

/// One pool's batch.
pub(super) struct PoolRun {
    /// The pool.
    pub(super) pool_id: &'static str,
    /// What became of its items.
    pub(super) outcomes: Outcomes,
    /// The result of the batch.
    pub(super) done: Done,
}

/// Everything that the report is about.
pub(super) struct Report {
    /// The batches.
    pub(super) runs: Vec<PoolRun>,
    /// The accounts before them.
    pub(super) before: Accounts,
    /// The accounts after everything was settled.
    pub(super) after: Accounts,
    /// Our redemptions.
    pub(super) ours: Vec<Ours>,
    /// The provider's.
    pub(super) provider: Ledger,
    /// How long it took, after the batches, until no outcome was unknown; `None`: too long.
    pub(super) settled: Option<Duration>,
}

impl Report {
    /// Prints it. Answers whether both sides agree.
    pub(super) fn print(
        &self,
        server_url: &str,
        [ca_file, token_file]: [&Path; 2],
        stays: bool,
        mut sink: Sink,
    ) -> anyhow::Result<bool> {
        sink = table("Outcomes, as the batches answered them", OUTCOMES, self.outcomes(), sink)?;
        sink = table("Accounts", ACCOUNTS, self.accounts(), sink)?;
        sink = table("Throughput", THROUGHPUT, self.throughput(), sink)?;
        match self.settled {
            Some(took) => sink.line(format_args!(
                "Every outcome was known {:.1} s after the batches.",
                took.as_secs_f64()
            ))?,
            None => sink.line("Not every outcome is known yet.")?,
        }

        let differences = compare(&self.ours, &self.provider);
        let sums = compare_sums(&self.changes(), &self.ours, &self.provider);
        sink = table("The providers' ledgers beside our records", LEDGERS, self.ledgers(), sink)?;
        let agreed = differences.is_empty() && sums.is_empty();
        self.differences(&differences, &sums, &mut sink)?;

        let address = server_url.trim_start_matches("https://");
        sink.line(if stays { "\nTry it:" } else { "\nTo try it, with `holdfast demo --stay`:" })?;
        let (ca_file, token_file) = (ca_file.display(), token_file.display());
        sink.line(format_args!("  grpcurl -cacert {ca_file} {address} list"))?;
        sink.line(format_args!(
            "  holdfast pool list --server {server_url} --ca-file {ca_file} --token-file {token_file}"
        ))?;
        sink.flush()?;
        Ok(agreed)
    }

    fn outcomes(&self) -> Vec<Vec<Value>> {
        let row = |pool: &str, outcome: &str, reason: &str, items: u64| {
            vec![pool.into(), outcome.into(), view::text(reason), items.into()]
        };
        let mut rows = Vec::new();
        for run in &self.runs {
            for ((outcome, reason), items) in &run.outcomes {
                rows.push(row(run.pool_id, outcome, reason, *items));
            }
            rows.push(row(run.pool_id, "BAD ROW", "named above", run.done.file.bad_rows));
        }
        rows
    }

    fn accounts(&self) -> Vec<Vec<Value>> {
        let mut counts: BTreeMap<(String, String, String), [u64; 2]> = BTreeMap::new();
        for (side, accounts) in [&self.before, &self.after].into_iter().enumerate() {
            for account in accounts.values() {
                let row = view::account(account);
                let word = |at: usize| row[at].as_str().unwrap_or_default().to_owned();
                // By position: pool_id, status, login_status.
                counts.entry((word(0), word(2), word(3))).or_default()[side] += 1;
            }
        }
        let row =
            |((pool, status, login), [before, after]): ((String, String, String), [u64; 2])| {
                vec![Value::from(pool), status.into(), login.into(), before.into(), after.into()]
            };
        counts.into_iter().map(row).collect()
    }

    fn throughput(&self) -> Vec<Vec<Value>> {
        let row = |run: &PoolRun| {
            vec![
                run.pool_id.into(),
                run.done.tally.total().into(),
                format!("{:.1}", run.done.took.as_secs_f64()).into(),
                format!("{:.0}", run.done.rate()).into(),
            ]
        };
        self.runs.iter().map(row).collect()
    }

    fn ledgers(&self) -> Vec<Vec<Value>> {
        let mut rows = Vec::new();
        for pool in POOLS {
            let of_pool = || self.ours.iter().filter(|it| &*it.pool_id == pool.pool_id);
            rows.push(ledger_row(pool, "ours", of_pool().map(|it| &it.record)));
            let provider = of_pool().filter_map(|it| self.provider.get(&it.key));
            rows.push(ledger_row(pool, &format!("{}'s", pool.provider_id), provider));
        }
        rows
    }

    /// By how much each account's balance changed.
    fn changes(&self) -> BTreeMap<AccountKey, i64> {
        let balance = |accounts: &Accounts, key: &AccountKey| {
            let account = accounts.get(key).and_then(|account| account.balance.as_ref());
            account.map_or(0, |money| money.amount_minor)
        };
        let change = |key: &AccountKey| balance(&self.after, key) - balance(&self.before, key);
        self.after.keys().map(|key| (key.clone(), change(key))).collect()
    }

    fn differences(
        &self,
        differences: &[(Uuid, Difference)],
        sums: &[SumDifference],
        sink: &mut Sink,
    ) -> anyhow::Result<()> {
        if differences.is_empty() && sums.is_empty() {
            return sink.line(format_args!(
                "Difference: none. {} redemptions compared by key, state, account and amount, both \
                 ways; {} balances changed by what was credited.",
                self.ours.len(),
                self.after.len()
            ));
        }
        sink.line(format_args!("Difference: {}", differences.len() + sums.len()))?;
        for (key, difference) in differences {
            sink.line(format_args!("  redemption {key}: {difference}"))?;
        }
        for it in sums {
            let ((pool, account), change, credited) =
                (&it.account, it.change_minor, it.credited_minor);
            sink.line(format_args!(
                "  account {account} of {pool}: the balance changed by {change}, credited were \
                 {credited}"
            ))?;
        }
        Ok(())
    }
}

const OUTCOMES: &[&str] = &["pool", "outcome", "reason", "items"];
const ACCOUNTS: &[&str] = &["pool", "status", "login", "before", "after"];
const THROUGHPUT: &[&str] = &["pool", "items", "seconds", "items/s"];
const LEDGERS: &[&str] =
    &["pool", "records", "redemptions", "credited", "not credited", "review", "open", "sum_minor"];

fn ledger_row<'a>(
    pool: &PoolPlan,
    side: &str,
    records: impl Iterator<Item = &'a Record>,
) -> Vec<Value> {
    let records: Vec<&Record> = records.collect();
    let count = |is: fn(State) -> bool| records.iter().filter(|it| is(it.state)).count() as u64;
    let credited = count(|state| state == State::Succeeded);
    let not_credited = count(State::is_not_credited);
    let review = count(|state| state == State::NeedsReview);
    let total = records.len() as u64;
    let sum: i64 = records
        .iter()
        .filter(|it| it.state == State::Succeeded)
        .filter_map(|it| it.credited())
        .filter(|(currency_code, _)| *currency_code == pool.currency_code)
        .map(|(_, amount_minor)| amount_minor)
        .sum();
    vec![
        pool.pool_id.into(),
        side.into(),
        total.into(),
        credited.into(),
        not_credited.into(),
        review.into(),
        (total - credited - not_credited - review).into(),
        sum.into(),
    ]
}

fn table(
    title: &str,
    columns: &'static [&'static str],
    rows: Vec<Vec<Value>>,
    mut sink: Sink,
) -> anyhow::Result<Sink> {
    sink.line(format_args!("\n{title}"))?;
    let mut out = Rows::new(Format::Table, columns, sink);
    rows.iter().try_for_each(|row| out.push(row))?;
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::pb;

    fn accounts(balance_minor: i64) -> Accounts {
        let balance = pb::Money { amount_minor: balance_minor, currency_code: "EUR".into() };
        let account = pb::Account {
            pool_id: "steam-eu".into(),
            account_id: "a".into(),
            balance: Some(balance),
            status: pb::AccountStatus::Processing.into(),
            ..Default::default()
        };
        Accounts::from([(("steam-eu".into(), "a".into()), account)])
    }

    fn report(credited_minor: i64) -> Report {
        let record = Record {
            state: State::Succeeded,
            account: "a".into(),
            amount_minor: Some(500),
            currency_code: "EUR".into(),
            provider_ref: None,
        };
        let provider = Record { amount_minor: Some(credited_minor), ..record.clone() };
        let ours = Ours::of(Uuid::nil(), "steam-eu", record);
        Report {
            runs: Vec::new(),
            before: accounts(100),
            after: accounts(600),
            ours: vec![ours],
            provider: Ledger::from([(Uuid::nil(), provider)]),
            settled: Some(Duration::ZERO),
        }
    }

    fn printed(report: &Report) -> (bool, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sink = Sink::over(std::fs::File::create(file.path()).unwrap());
        let agreed =
            report.print("https://127.0.0.1:7", ["/c", "/t"].map(Path::new), true, sink).unwrap();
        (agreed, std::fs::read_to_string(file.path()).unwrap())
    }

    #[test]
    fn sides_that_agree_differ_by_nothing() {
        let (agreed, text) = printed(&report(500));
        assert!(agreed && text.contains("Difference: none."), "{text}");
        assert!(text.contains("grpcurl -cacert /c 127.0.0.1:7 list"), "{text}");
    }

    #[test]
    fn a_difference_is_named_by_redemption_and_by_account() {
        let (agreed, text) = printed(&report(400));
        assert!(!agreed && text.contains("Difference: 2"), "{text}");
        assert!(
            text.contains(&format!("redemption {}: the amounts differ", Uuid::nil())),
            "{text}"
        );
        assert!(text.contains("changed by 500, credited were 400"), "{text}");
    }
}
