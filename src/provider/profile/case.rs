//! Cases: recorded answers, and what they must mean.

use super::{
    names::{OpKind, Scope},
    source::Value,
    template::Template,
    tree::read_template,
};
use crate::domain::money::{Currency, MAX_AMOUNT_MINOR};

/// A recorded answer, and what it must mean.
#[derive(Clone, Debug)]
pub(in crate::provider) struct Case {
    pub(in crate::provider) op: OpKind,
    pub(in crate::provider) line: usize,
    pub(in crate::provider) status: u16,
    pub(in crate::provider) body: Template,
    /// The word of what it must mean.
    pub(in crate::provider) then: &'static str,
    /// What must be read.
    pub(in crate::provider) amount_minor: Option<i64>,
    pub(in crate::provider) spent: Option<bool>,
    /// What the card should be worth.
    pub(in crate::provider) expected_minor: Option<i64>,
    /// The pool's.
    pub(in crate::provider) currency: Option<Currency>,
    /// Whether an earlier call may have been executed.
    pub(in crate::provider) doubt: bool,
}

/// What an answer can mean in the end.
const MEANINGS: [&str; 10] = [
    "succeeded",
    "failed",
    "undone",
    "processing",
    "not_executed",
    "unauthorized",
    "duplicate",
    "not_found",
    "review",
    "in_doubt",
];

impl Case {
    pub(super) fn read(value: &Value<'_>) -> Option<Self> {
        let table = value.table()?;
        let op = table.need("op").and_then(|op| op.word(&OpKind::ALL));
        let status = table.need("status").and_then(|status| status.whole(100, 599));
        let body = match table.get("body") {
            Some(body) => read_template(&body, Scope::Case),
            None => Some(Template::plain("")),
        };
        let then =
            table.need("then").and_then(|then| then.word(&MEANINGS.map(|word| (word, word))));
        let amount = |key| {
            let amount = table.get(key).map(|amount| amount.whole(0, MAX_AMOUNT_MINOR));
            amount.map_or(Some(None), |amount| amount.map(Some))
        };
        let (amount_minor, expected_minor) = (amount("amount_minor"), amount("expected_minor"));
        let currency = table.get("currency").map(|currency| read_currency(&currency));
        let truth = |key| {
            let truth = table.get(key).map(|truth| truth.truth());
            truth.map_or(Some(None), |truth| truth.map(Some))
        };
        let (spent, doubt) = (truth("spent"), truth("doubt"));
        table.finish();
        Some(Self {
            op: op?,
            line: value.line(),
            status: u16::try_from(status?).ok()?,
            body: body?,
            then: then?,
            amount_minor: amount_minor?,
            spent: spent?,
            expected_minor: expected_minor?,
            currency: currency.map_or(Some(None), |currency| currency.map(Some))?,
            doubt: doubt?.unwrap_or(false),
        })
    }
}

/// Reads three upper-case letters.
pub(super) fn read_currency(value: &Value<'_>) -> Option<Currency> {
    let currency = Currency::parse(value.text()?);
    if currency.is_none() {
        value.fault("must be a currency's three upper-case letters");
    }
    currency
}
