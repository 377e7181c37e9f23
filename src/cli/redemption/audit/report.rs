//! The report of an audit: a row for every difference, counts, and sums.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use super::{
    compare::{Difference, Record, State, differences},
    ours::Ours,
    progress::Aside,
};
use crate::cli::shared::{
    output::{Rows, note},
    view::text,
};

/// The columns of a difference: which, of what, and what each side says.
pub(super) const COLUMNS: &[&str] = &[
    "difference",
    "redemption_id",
    "pool_id",
    "our_state",
    "provider_state",
    "our_account",
    "provider_account",
    "our_amount_minor",
    "provider_amount_minor",
    "our_currency",
    "provider_currency",
    "our_ref",
    "provider_ref",
];

/// Gathers what is found. Rows are written as they come, but for a table's.
pub(super) struct Report {
    rows: Rows,
    aside: Aside,
    tally: Tally,
}

/// The result of an audit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Redemptions that were looked at: all of either side.
    pub(super) compared: u64,
    /// Of those, how many wait for a person and are as the provider says.
    pub(super) in_review: u64,
    /// Ways in which they differ.
    pub(super) differences: u64,
    /// Redemptions of ours that the provider's records may have been too short for.
    pub(super) not_covered: u64,
    /// Redemptions of ours that the provider cannot be asked about.
    pub(super) not_asked: u64,
    /// What was credited by our records, and by the provider's, by currency.
    sums: BTreeMap<String, Sums>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    ours: i128,
    provider: i128,
}

impl Report {
    pub(super) fn new(rows: Rows, aside: Aside) -> Self {
        Self { rows, aside, tally: Tally::default() }
    }

    /// A redemption of ours, and what the provider says of it: nothing, something, or, which is one
    /// time too many, several things.
    pub(super) fn compare(
        &mut self,
        ours: &Ours,
        provider: Option<&Record>,
        twice: &[Record],
    ) -> anyhow::Result<()> {
        self.count(Some(&ours.record), provider);
        let found = differences(&ours.record, provider);
        if found.is_empty() && ours.record.state == State::NeedsReview {
            self.tally.in_review += 1;
        }
        let (key, pool) = (ours.key.to_string(), &*ours.pool_id);
        for difference in found {
            self.row(difference, &key, pool, Some(&ours.record), provider)?;
        }
        for again in twice {
            self.add_provider(again);
            self.row(Difference::CreditedTwice, &key, pool, Some(&ours.record), Some(again))?;
        }
        Ok(())
    }

    /// A redemption that only the provider has.
    pub(super) fn missing_here(
        &mut self,
        key: &str,
        provider: &Record,
        twice: &[Record],
    ) -> anyhow::Result<()> {
        self.count(None, Some(provider));
        self.row(Difference::MissingHere, key, "", None, Some(provider))?;
        for again in twice {
            self.add_provider(again);
            self.row(Difference::CreditedTwice, key, "", None, Some(again))?;
        }
        Ok(())
    }

    /// A redemption of ours that may have been completed after the provider's records end: told separately, so
    /// that rows are differences and nothing else.
    pub(super) fn not_covered(&mut self, ours: &Ours) {
        self.tally.not_covered += 1;
        let Ours { key, pool_id, .. } = ours;
        self.aside.write(|| {
            note(format_args!(
                "redemption {key} of {pool_id} may have been completed after the provider's records end"
            ));
        });
    }

    /// A redemption of ours that was credited, and that the provider cannot be asked about: what that takes was never
    /// told, or is not kept.
    pub(super) fn not_asked(&mut self, ours: &Ours) {
        self.tally.not_asked += 1;
        let Ours { key, pool_id, .. } = ours;
        self.aside.write(|| {
            note(format_args!(
                "redemption {key} of {pool_id} cannot be compared: its provider is not asked about it without its task or code"
            ));
        });
    }

    /// Ends the rows.
    pub(super) fn finish(self) -> anyhow::Result<Tally> {
        self.rows.finish()?;
        Ok(self.tally)
    }

    /// Ends an audit that failed: what was found is written, if anything was.
    pub(super) fn abandon(self) -> anyhow::Result<()> {
        if self.tally.differences > 0 {
            self.rows.finish()?;
        }
        Ok(())
    }

    fn count(&mut self, ours: Option<&Record>, provider: Option<&Record>) {
        self.tally.compared += 1;
        if let Some((currency, amount)) = ours.and_then(Record::credited) {
            self.tally.sums_in(currency).ours += i128::from(amount);
        }
        if let Some(record) = provider {
            self.add_provider(record);
        }
    }

    fn add_provider(&mut self, record: &Record) {
        if let Some((currency, amount)) = record.credited() {
            self.tally.sums_in(currency).provider += i128::from(amount);
        }
    }

    fn row(
        &mut self,
        difference: Difference,
        key: &str,
        pool: &str,
        ours: Option<&Record>,
        provider: Option<&Record>,
    ) -> anyhow::Result<()> {
        self.tally.differences += 1;
        let side = |record: Option<&Record>| {
            let of = |read: fn(&Record) -> Value| record.map_or(Value::Null, read);
            [
                of(|it| it.state.to_string().into()),
                of(|it| text(&it.account)),
                of(|it| it.amount_minor.into()),
                of(|it| text(&it.currency_code)),
                of(|it| text(it.provider_ref.as_deref().unwrap_or_default())),
            ]
        };
        let mut row = vec![difference.name().into(), text(key), text(pool)];
        for (ours, provider) in side(ours).into_iter().zip(side(provider)) {
            row.extend([ours, provider]);
        }
        self.aside.write(|| self.rows.push(&row))
    }
}

impl Tally {
    fn sums_in(&mut self, currency: &str) -> &mut Sums {
        self.sums.entry(currency.to_owned()).or_default()
    }
}

/// The closing line.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} redemptions compared", self.compared)?;
        for (currency, sums) in &self.sums {
            let Sums { ours, provider } = sums;
            write!(
                f,
                "; credited in {currency}: {ours} by our records, {provider} by the provider's"
            )?;
        }
        if self.in_review > 0 {
            write!(f, "; {} of them wait for a person", self.in_review)?;
        }
        if self.not_covered > 0 {
            write!(
                f,
                "; {} more that may have been completed after the provider's records end",
                self.not_covered
            )?;
        }
        if self.not_asked > 0 {
            write!(f, "; {} more that the provider cannot be asked about", self.not_asked)?;
        }
        match self.differences {
            0 => f.write_str("; no difference"),
            1 => f.write_str("; 1 difference"),
            more => write!(f, "; {more} differences"),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::cli::{
        redemption::audit::progress::Progress,
        shared::output::{Format, Sink},
    };

    fn record(state: State, amount_minor: i64) -> Record {
        Record {
            state,
            account: "a".into(),
            amount_minor: Some(amount_minor),
            currency_code: "EUR".into(),
            provider_ref: Some("r".into()),
        }
    }

    fn ours(state: State, amount_minor: i64) -> Ours {
        let record = record(state, amount_minor);
        Ours::of(Uuid::nil(), "p", record)
    }

    fn reported(report: impl FnOnce(&mut Report)) -> (Vec<String>, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let rows = Rows::new(
            Format::Csv,
            COLUMNS,
            Sink::over(std::fs::File::create(file.path()).unwrap()),
        );
        let mut it = Report::new(rows, Progress::hidden().aside());
        report(&mut it);
        let closing = it.finish().unwrap().to_string();
        let text = std::fs::read_to_string(file.path()).unwrap();
        (text.lines().skip(1).map(str::to_owned).collect(), closing)
    }

    #[test]
    fn sides_that_agree_are_counted_and_added_up() {
        let (rows, closing) = reported(|report| {
            let credited = record(State::Succeeded, 5);
            report.compare(&ours(State::Succeeded, 5), Some(&credited), &[]).unwrap();
            report.compare(&ours(State::NeedsReview, 5), Some(&credited), &[]).unwrap();
            report.compare(&ours(State::Failed, 0), None, &[]).unwrap();
        });
        assert!(rows.is_empty(), "{rows:?}");
        assert_eq!(
            closing,
            "3 redemptions compared; credited in EUR: 10 by our records, 10 by the provider's; \
             1 of them wait for a person; no difference"
        );
    }

    #[test]
    fn a_difference_is_a_row_with_both_sides() {
        let (rows, closing) = reported(|report| {
            let other = record(State::Succeeded, 6);
            report.compare(&ours(State::Succeeded, 5), Some(&other), &[]).unwrap();
            report.missing_here("k", &record(State::Succeeded, 7), &[]).unwrap();
        });
        let nil = Uuid::nil();
        assert_eq!(
            rows,
            [
                format!("AMOUNT,{nil},p,SUCCEEDED,SUCCEEDED,a,a,5,6,EUR,EUR,r,r"),
                "MISSING_HERE,k,,,SUCCEEDED,,a,,7,,EUR,,r".to_owned(),
            ]
        );
        assert_eq!(
            closing,
            "2 redemptions compared; credited in EUR: 5 by our records, 13 by the provider's; \
             2 differences"
        );
    }

    #[test]
    fn a_second_credit_is_a_row_and_part_of_the_sum() {
        let credited = record(State::Succeeded, 5);
        let (rows, closing) = reported(|report| {
            let again = [record(State::Succeeded, 7)];
            report.compare(&ours(State::Succeeded, 5), Some(&credited), &again).unwrap();
        });
        assert_eq!(rows.len(), 1);
        assert!(rows[0].starts_with("CREDITED_TWICE,") && rows[0].contains(",5,7,"), "{rows:?}");
        assert!(closing.contains("5 by our records, 12 by the provider's; 1 difference"));
    }
}
