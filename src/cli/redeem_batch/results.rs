//! The outcomes of a batch's items: each told once, however often the batch was opened.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    cli::{
        client::{RpcError, code_name, reason_of, status_of},
        view,
    },
    rpc::pb::{self, RedemptionState, batch_item_result},
};

/// The columns of an outcome.
pub(super) const COLUMNS: &[&str] = &[
    "item_id",
    "outcome",
    "account_id",
    "expected_minor",
    "amount_minor",
    "currency_code",
    "amount_mismatch",
    "reason",
    "message",
    "code_spent",
    "redemption_id",
    "provider_ref",
    "replayed",
];

/// What became of an item.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Outcome(pb::BatchItemResult);

/// Counts of outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Tally {
    /// The card was credited.
    pub(in crate::cli) succeeded: u64,
    /// The card was not credited.
    pub(in crate::cli) failed: u64,
    /// Not known yet.
    pub(in crate::cli) in_doubt: u64,
    /// Not begun.
    pub(in crate::cli) rejected: u64,
}

impl Tally {
    /// All items with an outcome of any kind.
    pub(in crate::cli) fn total(&self) -> u64 {
        self.succeeded + self.failed + self.in_doubt + self.rejected
    }

    fn count(&mut self, outcome: &Outcome) {
        match outcome.state() {
            Some(RedemptionState::Succeeded) => self.succeeded += 1,
            Some(RedemptionState::Failed) => self.failed += 1,
            Some(_) => self.in_doubt += 1,
            None => self.rejected += 1,
        }
    }
}

impl Outcome {
    /// The redemption's state; `None` when it was not begun.
    fn state(&self) -> Option<RedemptionState> {
        match &self.0.outcome {
            Some(batch_item_result::Outcome::Redemption(redemption)) => Some(redemption.state()),
            _ => None,
        }
    }

    /// Whether sending the item again cannot change it.
    fn is_final(&self) -> bool {
        matches!(self.state(), Some(RedemptionState::Succeeded | RedemptionState::Failed))
    }

    /// What it comes to in a word, and why if not as wished: for counting.
    pub(in crate::cli) fn kind(&self) -> (String, String) {
        match &self.0.outcome {
            Some(batch_item_result::Outcome::Redemption(redemption)) => {
                let state = view::state(redemption.state());
                let reason = match &redemption.failure {
                    Some(failure) => failure.reason.clone(),
                    None if redemption.amount_mismatch => "credited another amount".to_owned(),
                    None => String::new(),
                };
                (state.as_str().unwrap_or_default().to_owned(), reason)
            }
            Some(batch_item_result::Outcome::Error(error)) => {
                let status = status_of(error);
                let reason = reason_of(&status);
                let code = code_name(status.code()).to_owned();
                ("REJECTED".to_owned(), if reason.is_empty() { code } else { reason })
            }
            None => ("REJECTED".to_owned(), "no outcome in the reply".to_owned()),
        }
    }

    /// The row of [`COLUMNS`].
    pub(in crate::cli) fn row(&self) -> Vec<Value> {
        let nothing = pb::Redemption::default();
        let (redemption, message) = match &self.0.outcome {
            Some(batch_item_result::Outcome::Redemption(redemption)) => {
                let failure = redemption.failure.as_ref();
                (redemption, failure.map(|it| it.message.clone()).unwrap_or_default())
            }
            Some(batch_item_result::Outcome::Error(error)) => {
                (&nothing, RpcError(status_of(error)).to_string().replace("\n  ", "; "))
            }
            None => (&nothing, String::new()),
        };
        let (outcome, reason) = self.kind();
        let money = redemption.amount.as_ref().or(redemption.expected.as_ref());
        vec![
            view::text(&self.0.item_id),
            outcome.into(),
            view::text(&redemption.account_id),
            view::amount(redemption.expected.as_ref()),
            view::amount(redemption.amount.as_ref()),
            view::currency(money),
            redemption.amount_mismatch.into(),
            view::text(&reason),
            view::text(&message),
            redemption.failure.as_ref().map_or(Value::Null, |it| it.code_spent.into()),
            view::text(&redemption.redemption_id),
            view::text(&redemption.provider_ref),
            self.0.replayed.into(),
        ]
    }
}

/// The outcomes that have come.
///
/// A final one is told at once. One that may still change when the item is sent again (rejected, or
/// in doubt) is held back to the end, so that the last word is the one that is told.
#[derive(Debug, Default)]
pub(super) struct Results {
    told: HashSet<[u8; 16]>,
    held: BTreeMap<String, Outcome>,
    tally: Tally,
}

impl Results {
    /// Notes a result; answers with the outcome when it is to be told now.
    pub(super) fn note(&mut self, result: pb::BatchItemResult) -> Option<Outcome> {
        let key = digest(&result.item_id);
        if self.told.contains(&key) {
            return None;
        }
        let outcome = Outcome(result);
        if !outcome.is_final() {
            self.held.insert(outcome.0.item_id.clone(), outcome);
            return None;
        }
        self.held.remove(&outcome.0.item_id);
        self.told.insert(key);
        self.tally.count(&outcome);
        Some(outcome)
    }

    /// How many items have an outcome.
    pub(super) fn len(&self) -> usize {
        self.told.len() + self.held.len()
    }

    /// The outcomes that were held back, by item, and the count of all.
    pub(super) fn finish(mut self) -> (Vec<Outcome>, Tally) {
        let held: Vec<Outcome> = self.held.into_values().collect();
        held.iter().for_each(|outcome| self.tally.count(outcome));
        (held, self.tally)
    }
}

/// Sixteen bytes an item, whatever its name's length: a batch may have millions.
fn digest(item_id: &str) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&Sha256::digest(item_id)[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(item_id: &str, state: RedemptionState) -> pb::BatchItemResult {
        let redemption = pb::Redemption { state: state.into(), ..Default::default() };
        let outcome = Some(batch_item_result::Outcome::Redemption(redemption));
        pb::BatchItemResult { item_id: item_id.into(), outcome, replayed: false }
    }

    fn rejected(item_id: &str) -> pb::BatchItemResult {
        let error = tonic_types::Status { code: 8, message: "none".into(), details: Vec::new() };
        let outcome = Some(batch_item_result::Outcome::Error(error));
        pb::BatchItemResult { item_id: item_id.into(), outcome, replayed: false }
    }

    #[test]
    fn a_final_outcome_is_told_once() {
        let mut results = Results::default();
        assert!(results.note(result("a", RedemptionState::Succeeded)).is_some());
        assert!(results.note(result("a", RedemptionState::Succeeded)).is_none());
        let (held, tally) = results.finish();
        assert!(held.is_empty());
        assert_eq!(tally, Tally { succeeded: 1, ..Tally::default() });
    }

    #[test]
    fn of_an_outcome_that_changed_the_last_word_is_told() {
        let mut results = Results::default();
        assert!(results.note(rejected("a")).is_none());
        assert!(results.note(result("b", RedemptionState::InDoubt)).is_none());
        assert!(results.note(rejected("c")).is_none());
        assert!(results.note(result("a", RedemptionState::Failed)).is_some());
        assert!(results.note(rejected("a")).is_none());
        assert_eq!(results.len(), 3);
        let (held, tally) = results.finish();
        assert_eq!(held.iter().map(|it| it.0.item_id.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(tally, Tally { succeeded: 0, failed: 1, in_doubt: 1, rejected: 1 });
    }

    #[test]
    fn a_row_fills_its_columns_and_says_why() {
        let row = Outcome(rejected("a")).row();
        assert_eq!(row.len(), COLUMNS.len());
        assert_eq!((&row[1], &row[7]), (&"REJECTED".into(), &"RESOURCE_EXHAUSTED".into()));
        assert_eq!(row[8], "RESOURCE_EXHAUSTED: none");
    }
}
