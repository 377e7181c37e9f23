//! The flags that say what a plan wants, and what they are in the contract.

use std::time::Duration;

use clap::Args;

use crate::{
    cli::shared::{
        client::wire,
        parse::{self, Range},
    },
    config::parse_duration,
    rpc::pb::{self, plan::Denominations},
};

/// What a plan wants besides its target. What is not given is the server's default on creation, and
/// not changed on update.
#[derive(Args, Debug)]
pub(super) struct TermsArgs {
    /// What each day brings, the first day first, in minor units: 5000,5000,10000. At most 366 of
    /// them, together at most the target. The last day has no limit but the target. Without any, all
    /// is one such day.
    #[arg(long, value_delimiter = ',', value_parser = parse::amount, value_name = "AMOUNTS")]
    day_amounts: Vec<i64>,
    /// How far a day may go beyond its amount, in minor units. Not at all when not given.
    #[arg(long, value_parser = parse::amount_or_none, value_name = "AMOUNT")]
    day_tolerance: Option<i64>,
    /// How long after the end of a day the next one is due: up to 366days. 24h when not given.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    day_interval: Option<Duration>,
    /// How long after the end of a redemption the next one may begin on the same account: up to
    /// 366days. 0s when not given.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    redemption_interval: Option<Duration>,
    #[command(flatten)]
    cards: CardsArgs,
}

/// Which cards the plan takes: one of these. Any amount when none is given.
#[derive(Args, Debug)]
#[group(multiple = false)]
struct CardsArgs {
    /// Cards of any amount between two, in minor units: MIN-MAX, MIN- or -MAX.
    #[arg(long, value_parser = parse::range, value_name = "RANGE", allow_hyphen_values = true)]
    amounts: Option<Range>,
    /// Cards whose amount is a multiple of this, in minor units.
    #[arg(long, value_parser = parse::amount, value_name = "AMOUNT")]
    multiples_of: Option<i64>,
    /// Cards of these amounts alone, in minor units: 1000,2500. At most 64 of them.
    #[arg(long, value_delimiter = ',', value_parser = parse::amount, value_name = "AMOUNTS")]
    fixed_amounts: Vec<i64>,
}

/// The flags of [`TermsArgs`], by their names in clap.
pub(super) const TERMS: [&str; 7] = [
    "day_amounts",
    "day_tolerance",
    "day_interval",
    "redemption_interval",
    "amounts",
    "multiples_of",
    "fixed_amounts",
];

impl TermsArgs {
    /// Sets what was given, in a pool's currency, and answers which fields that were.
    pub(super) fn set(
        &self,
        plan: &mut pb::Plan,
        currency: &str,
    ) -> anyhow::Result<Vec<&'static str>> {
        let money =
            |amount: i64| pb::Money { amount_minor: amount, currency_code: currency.to_owned() };
        let list = |amounts: &[i64]| amounts.iter().copied().map(money).collect::<Vec<_>>();
        plan.day_amounts = list(&self.day_amounts);
        plan.day_tolerance = self.day_tolerance.map(money);
        plan.day_interval = wire(self.day_interval)?;
        plan.redemption_interval = wire(self.redemption_interval)?;
        plan.denominations = if let Some(Range { min, max }) = self.cards.amounts {
            let range = pb::AmountRange { min: min.map(money), max: max.map(money) };
            Some(Denominations::AmountRange(range))
        } else if let Some(base) = self.cards.multiples_of {
            Some(Denominations::MultiplesOf(money(base)))
        } else if self.cards.fixed_amounts.is_empty() {
            None
        } else {
            let amounts = list(&self.cards.fixed_amounts);
            Some(Denominations::FixedAmounts(pb::FixedAmounts { amounts }))
        };
        let given = [
            ("day_amounts", !plan.day_amounts.is_empty()),
            ("day_tolerance", plan.day_tolerance.is_some()),
            ("day_interval", plan.day_interval.is_some()),
            ("redemption_interval", plan.redemption_interval.is_some()),
            ("denominations", plan.denominations.is_some()),
        ];
        Ok(given.into_iter().filter(|(_, given)| *given).map(|(field, _)| field).collect())
    }
}
