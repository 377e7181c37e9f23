//! Items that are not plainly credited, counted by what became of them and why, and what to do about
//! them: a line for each reason, whatever the number of items.

use std::collections::BTreeMap;

use super::{
    Batch, advice,
    outcome::{Outcome, Standing},
};
use crate::cli::shared::output::printable;

/// Reasons that are counted one by one. A provider may have any number of them.
const MAX_REASONS: usize = 40;
/// Items that are named of each.
const EXAMPLES: usize = 3;
const OTHERS: &str = "other reasons";

/// What became of an item and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    standing: Standing,
    reason: String,
    /// Where the card is used by another redemption, how that one stands.
    state: String,
    code_spent: Option<bool>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    items: u64,
    examples: Vec<String>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Reasons(BTreeMap<Key, Group>);

impl Reasons {
    /// Counts an outcome, unless it is plainly credited.
    pub(super) fn note(&mut self, outcome: &Outcome) {
        let standing = outcome.standing();
        if standing == Standing::Credited {
            return;
        }
        let mut metadata = outcome.metadata();
        let state = metadata.remove("state").unwrap_or_default();
        let (_, reason) = outcome.kind();
        let mut key = Key { standing, reason, state, code_spent: outcome.code_spent() };
        // There is one reason alone for a card that was redeemed already.
        let is_one_of_many = standing != Standing::RedeemedAlready;
        if is_one_of_many && self.0.len() >= MAX_REASONS && !self.0.contains_key(&key) {
            key.reason = OTHERS.to_owned();
            key.state.clear();
        }
        let group = self.0.entry(key).or_default();
        group.items += 1;
        if group.examples.len() < EXAMPLES {
            let used = metadata.get("redemption_id").zip(metadata.get("request_id"));
            group.examples.push(match used {
                Some((redemption, request)) => {
                    format!("{} by redemption {redemption} of {request}", outcome.shown())
                }
                None => outcome.shown(),
            });
        }
    }

    /// The lines for a person.
    pub(super) fn lines(&self, batch: &Batch) -> Vec<String> {
        let lines = self.0.iter().map(|(key, group)| line(key, group, batch));
        let unspent = self.0.keys().any(|key| key.standing == Standing::Unspent);
        lines.chain(unspent.then(|| UNSPENT.to_owned())).map(|line| printable(&line)).collect()
    }
}

/// How unspent cards are redeemed.
const UNSPENT: &str = "cards that failed and are not spent: when the cause is gone, run the same command again. It \
     redeems them, and repeats what it said of the others";

fn line(key: &Key, group: &Group, batch: &Batch) -> String {
    let (pool, batch_id) = (&batch.pool_id, &batch.batch_id);
    let list = |states: &str| {
        format!("`holdfast redemption list --pool {pool} --batch-id {batch_id} --state {states}`")
    };
    let reason = if key.reason.is_empty() { String::new() } else { format!(" {}", key.reason) };
    let (what, text) = match key.standing {
        Standing::Credited => ("SUCCEEDED", String::new()),
        Standing::OtherAmount => {
            ("SUCCEEDED", "compare amount_minor with expected_minor in the results".to_owned())
        }
        Standing::Refused => ("FAILED", "the provider refuses the card".to_owned()),
        Standing::Unspent => ("FAILED", "the card was not credited".to_owned()),
        Standing::InDoubt => (
            "IN_DOUBT",
            format!(
                "the outcome is not known yet, and the server is finding it out: {}; run the same command again to see it",
                list("submitted,in-doubt")
            ),
        ),
        Standing::NeedsReview => (
            "NEEDS_REVIEW",
            format!(
                "a person must decide: {}, then `holdfast redemption resolve`",
                list("needs-review")
            ),
        ),
        Standing::Rejected | Standing::RedeemedAlready => {
            let (again, text) = advice::rejected(&key.reason, &key.state, pool);
            ("REJECTED", format!("{text}. {}", again.sentence()))
        }
    };
    let code = match key.code_spent {
        Some(true) if key.standing == Standing::Refused => ", code spent",
        Some(false) => ", code not spent",
        _ => "",
    };
    let more = if group.items > group.examples.len() as u64 { ", …" } else { "" };
    let examples = group.examples.join(", ");
    format!("{} {what}{reason}{code} ({examples}{more}): {text}", group.items)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "errors as a server makes them")]
mod tests {
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::{
        super::{Tally, tests::batch},
        *,
    };
    use crate::{
        domain::failure::is_about_the_card,
        rpc::pb::{self, batch_item_result},
    };

    fn outcome(item_id: &str, outcome: batch_item_result::Outcome) -> Outcome {
        Outcome::of(pb::BatchItemResult {
            item_id: item_id.to_owned(),
            outcome: Some(outcome),
            replayed: false,
        })
    }

    fn failed(item_id: &str, reason: &str) -> Outcome {
        let redemption = pb::Redemption {
            state: pb::RedemptionState::Failed.into(),
            failure: Some(pb::Failure {
                reason: reason.to_owned(),
                retryable: !is_about_the_card(reason, false),
                ..Default::default()
            }),
            ..Default::default()
        };
        outcome(item_id, batch_item_result::Outcome::Redemption(redemption))
    }

    fn rejected(item_id: &str, reason: &str, metadata: &[(&str, &str)]) -> Outcome {
        let metadata = metadata.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        let details = ErrorDetails::with_error_info(
            reason,
            "holdfast",
            metadata.collect::<std::collections::HashMap<String, String>>(),
        );
        let status = Status::with_error_details(Code::FailedPrecondition, "no", details);
        let error = prost::Message::decode(status.details()).unwrap();
        outcome(item_id, batch_item_result::Outcome::Error(error))
    }

    fn lines(outcomes: &[Outcome]) -> Vec<String> {
        let mut reasons = Reasons::default();
        outcomes.iter().for_each(|outcome| reasons.note(outcome));
        reasons.lines(&batch())
    }

    #[test]
    fn items_are_counted_by_reason_and_the_first_are_named() {
        let outcomes: Vec<_> =
            (0..5).map(|n| rejected(&format!("i{n}"), "POOL_PAUSED", &[])).collect();
        let [line] = &*lines(&outcomes) else { panic!("one reason") };
        assert!(line.starts_with("5 REJECTED POOL_PAUSED (i0, i1, i2, …): "), "{line}");
        assert!(line.ends_with("The same command tries them again."), "{line}");
    }

    #[test]
    fn a_card_in_use_names_what_uses_it() {
        let used = |state| [("state", state), ("redemption_id", "r-1"), ("request_id", "order-1")];
        let told = lines(&[
            rejected("a", "CODE_IN_USE", &used("SUCCEEDED")),
            rejected("b", "CODE_IN_USE", &used("IN_DOUBT")),
        ]);
        assert_eq!(told.len(), 2, "{told:?}");
        for line in &told {
            assert!(line.contains("by redemption r-1 of order-1"), "{line}");
        }
        assert!(told.iter().any(|line| line.contains("redeemed already")));
        let (used, other) = (used("SUCCEEDED"), used("IN_DOUBT"));
        for (reason, metadata, standing) in [
            ("CODE_IN_USE", &used[..], Standing::RedeemedAlready),
            ("CODE_IN_USE", &other, Standing::Rejected),
            ("CODE_IN_USE", &[], Standing::Rejected),
            ("REQUEST_ID_REUSED", &used, Standing::Rejected),
        ] {
            let mut tally = Tally::default();
            let outcome = rejected("a", reason, metadata);
            tally.count(&outcome);
            assert_eq!(outcome.standing(), standing);
            let is_done = standing == Standing::RedeemedAlready;
            assert_eq!((tally.rejected, tally.wants_a_look()), (1, !is_done), "{reason}");
        }
        assert!(told.iter().any(|line| line.contains("unless that redemption fails")));
    }

    #[test]
    fn of_cards_that_are_not_spent_it_is_said_how_they_are_redeemed() {
        let told = lines(&[failed("a", "PROVIDER_UNREACHABLE"), failed("b", "CODE_UNKNOWN")]);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("1 FAILED CODE_UNKNOWN, code not spent (b)"), "{}", told[0]);
        assert!(told[1].starts_with("1 FAILED PROVIDER_UNREACHABLE, code not spent (a)"));
        assert!(told[2].contains("run the same command again"));
        assert_eq!(lines(&[failed("b", "CODE_UNKNOWN")]).len(), 1);
    }

    #[test]
    fn a_provider_with_a_reason_for_each_item_does_not_fill_the_console() {
        let outcomes: Vec<_> = (0..500).map(|n| failed("i", &format!("ODD_{n}"))).collect();
        let told = lines(&outcomes);
        assert_eq!(told.len(), MAX_REASONS + 2);
        assert!(told.iter().any(|line| line.starts_with("460 FAILED other reasons")), "{told:?}");
    }
}
