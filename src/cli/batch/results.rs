//! The outcomes of a batch's items: each told once, however often the batch was opened.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{
    index::{Index, digest},
    outcome::{Outcome, Standing},
    reasons::Reasons,
    tally::Tally,
};
use crate::rpc::pb;

/// The outcomes that have come.
///
/// A final one is told at once. One that may still change when the item is sent again (rejected, in
/// doubt, or failed without the card being spent) is held back to the end, so that its last state is told.
#[derive(Debug, Default)]
pub(super) struct Results {
    told: HashSet<[u8; 16]>,
    held: BTreeMap<String, Outcome>,
    tally: Tally,
    reasons: Reasons,
    /// Where the items are in the file.
    index: Option<Arc<Index>>,
}

impl Results {
    /// Of the items of a file.
    pub(super) fn of(index: Arc<Index>) -> Self {
        Self { index: Some(index), ..Self::default() }
    }

    /// Notes a result; answers with the outcome when it is to be told now.
    pub(super) fn note(&mut self, result: pb::BatchItemResult) -> Option<Outcome> {
        let key = digest(&result.item_id);
        if self.told.contains(&key) {
            return None;
        }
        let file_row = self.index.as_ref().and_then(|index| index.of(&result.item_id)).copied();
        let outcome = Outcome::of(result).at(file_row.as_ref());
        if !outcome.is_final() {
            if outcome.redemption_id().is_none() && self.is_open(outcome.item_id()) {
                // It was begun, whatever keeps it from being begun again.
                return None;
            }
            self.held.insert(outcome.item_id().to_owned(), outcome);
            return None;
        }
        self.held.remove(outcome.item_id());
        self.told.insert(key);
        self.count(&outcome);
        Some(outcome)
    }

    /// Whether an item is held whose redemption has no outcome yet.
    fn is_open(&self, item_id: &str) -> bool {
        let held = self.held.get(item_id).map(Outcome::standing);
        matches!(held, Some(Standing::InDoubt | Standing::NeedsReview))
    }

    /// The items whose outcome is not known yet.
    pub(super) fn in_doubt(&self) -> Vec<Outcome> {
        let held = self.held.values();
        held.filter(|outcome| outcome.standing() == Standing::InDoubt).cloned().collect()
    }

    /// How many items have an outcome.
    pub(super) fn len(&self) -> usize {
        self.told.len() + self.held.len()
    }

    fn count(&mut self, outcome: &Outcome) {
        self.tally.count(outcome);
        self.reasons.note(outcome);
    }

    /// The outcomes that were held back, by item, and the counts of all.
    pub(super) fn finish(mut self) -> (Vec<Outcome>, Tally, Reasons) {
        let held: Vec<Outcome> = std::mem::take(&mut self.held).into_values().collect();
        held.iter().for_each(|outcome| self.count(outcome));
        (held, self.tally, self.reasons)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure::is_about_the_card;
    use crate::rpc::pb::{RedemptionState, batch_item_result};

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
        let (held, tally, _) = results.finish();
        assert!(held.is_empty());
        assert_eq!(tally, Tally { succeeded: 1, ..Tally::default() });
    }

    #[test]
    fn a_card_that_is_redeemed_at_the_second_attempt_is_told_once() {
        let mut results = Results::default();
        assert!(results.note(failure("PROVIDER_BUSY", false)).is_none());
        assert!(results.note(result("a", RedemptionState::Succeeded)).is_some());
        let (held, tally, _) = results.finish();
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
        let (held, tally, _) = results.finish();
        assert_eq!(held.iter().map(|it| it.item_id()).collect::<Vec<_>>(), ["b", "c"]);
        let expected = Tally { failed: 1, in_doubt: 1, rejected: 1, ..Tally::default() };
        assert_eq!(tally, expected);
    }

    #[test]
    fn a_late_rejection_does_not_replace_a_redemption_that_is_open() {
        let mut results = Results::default();
        for (item_id, state) in
            [("a", RedemptionState::InDoubt), ("b", RedemptionState::NeedsReview)]
        {
            assert!(results.note(result(item_id, state)).is_none());
            assert!(results.note(rejected(item_id)).is_none());
        }
        assert_eq!(results.in_doubt().len(), 1);
        let (_, tally, _) = results.finish();
        assert_eq!(tally, Tally { in_doubt: 1, needs_review: 1, ..Tally::default() });
    }

    fn failed(reason: &str, code_spent: bool) -> Outcome {
        Outcome::of(failure(reason, code_spent))
    }

    fn failure(reason: &str, code_spent: bool) -> pb::BatchItemResult {
        let retryable = !is_about_the_card(reason, code_spent);
        let failure =
            pb::Failure { reason: reason.into(), code_spent, retryable, ..Default::default() };
        let failure = Some(failure);
        let state = RedemptionState::Failed.into();
        let redemption = pb::Redemption { state, failure, ..Default::default() };
        let outcome = Some(batch_item_result::Outcome::Redemption(redemption));
        pb::BatchItemResult { item_id: "a".into(), outcome, replayed: false }
    }

    #[test]
    fn an_outcome_is_fine_unless_something_is_left_to_do_about_it() {
        let other = pb::Redemption {
            state: RedemptionState::Succeeded.into(),
            amount_mismatch: true,
            ..Default::default()
        };
        let other = batch_item_result::Outcome::Redemption(other);
        let other =
            pb::BatchItemResult { item_id: "a".into(), outcome: Some(other), replayed: false };
        for (outcome, standing, wants_a_look) in [
            (Outcome::of(result("a", RedemptionState::Succeeded)), Standing::Credited, false),
            (Outcome::of(other), Standing::OtherAmount, true),
            (failed("CODE_USED", true), Standing::Refused, false),
            (failed("CODE_UNKNOWN", false), Standing::Refused, false),
            (failed("PROVIDER_UNREACHABLE", false), Standing::Unspent, true),
            (failed("PROVIDER_BUSY", false), Standing::Unspent, true),
            (failed("CANCELLED", false), Standing::Unspent, true),
            (failed("ACCOUNT_LOGIN_INVALID", false), Standing::Unspent, true),
            (Outcome::of(result("a", RedemptionState::InDoubt)), Standing::InDoubt, true),
            (Outcome::of(result("a", RedemptionState::Submitted)), Standing::InDoubt, true),
            (Outcome::of(result("a", RedemptionState::NeedsReview)), Standing::NeedsReview, true),
            (Outcome::of(rejected("a")), Standing::Rejected, true),
        ] {
            assert_eq!(outcome.standing(), standing, "{outcome:?}");
            let mut tally = Tally::default();
            tally.count(&outcome);
            assert_eq!((tally.total(), tally.wants_a_look()), (1, wants_a_look), "{outcome:?}");
        }
    }
}
