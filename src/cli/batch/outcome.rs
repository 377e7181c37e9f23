//! The outcome of an item: its meaning, and its row in the results.

use std::collections::HashMap;

use serde_json::Value;
use tonic_types::StatusExt as _;

use super::advice;
use crate::{
    cli::shared::{
        client::{RpcError, code_name, reason_of, status_of},
        view,
    },
    rpc::pb::{self, RedemptionState, batch_item_result},
};

/// What an outcome means for who runs the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// The card was credited.
    Credited,
    /// The card was credited, with another amount than was expected.
    OtherAmount,
    /// The card was refused, or is spent: trying it again cannot succeed.
    Refused,
    /// The card was not credited for another reason than the card, and its code is not spent.
    Unspent,
    /// The outcome is not known yet.
    InDoubt,
    /// A person must find it out.
    NeedsReview,
    /// Not begun, as far as the server knows.
    Rejected,
    /// Not begun, because the card was credited for another request.
    RedeemedAlready,
}

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

impl Outcome {
    /// The outcome that the server's result tells.
    pub(super) fn of(result: pb::BatchItemResult) -> Self {
        Self(result)
    }

    /// What it means for who runs the batch.
    pub(super) fn standing(&self) -> Standing {
        let Some(batch_item_result::Outcome::Redemption(redemption)) = &self.0.outcome else {
            return self.rejection();
        };
        match redemption.state() {
            RedemptionState::Succeeded if redemption.amount_mismatch => Standing::OtherAmount,
            RedemptionState::Succeeded => Standing::Credited,
            RedemptionState::NeedsReview => Standing::NeedsReview,
            RedemptionState::Failed => {
                let failure = redemption.failure.as_ref();
                match failure.is_some_and(|failure| failure.retryable) {
                    true => Standing::Unspent,
                    false => Standing::Refused,
                }
            }
            _ => Standing::InDoubt,
        }
    }

    fn rejection(&self) -> Standing {
        let (_, reason) = self.kind();
        let metadata = self.metadata();
        let state = metadata.get("state").map_or("", String::as_str);
        match advice::is_redeemed_already(&reason, state) {
            true => Standing::RedeemedAlready,
            false => Standing::Rejected,
        }
    }

    /// The item's name.
    pub(super) fn item_id(&self) -> &str {
        &self.0.item_id
    }

    /// Whether the card's code is spent; `None` where nothing failed.
    pub(super) fn code_spent(&self) -> Option<bool> {
        match &self.0.outcome {
            Some(batch_item_result::Outcome::Redemption(it)) => {
                it.failure.as_ref().map(|failure| failure.code_spent)
            }
            _ => None,
        }
    }

    /// What the error of an item that was rejected says besides its reason.
    pub(super) fn metadata(&self) -> HashMap<String, String> {
        match &self.0.outcome {
            Some(batch_item_result::Outcome::Error(error)) => {
                let info = status_of(error).get_details_error_info();
                info.map(|info| info.metadata).unwrap_or_default()
            }
            _ => HashMap::new(),
        }
    }

    /// Whether sending the item again cannot change it.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.standing(), Standing::Credited | Standing::OtherAmount | Standing::Refused)
    }

    /// The outcome in a word, and the reason if it was not credited as expected: for counting.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_fills_its_columns_and_says_why() {
        let error = tonic_types::Status { code: 8, message: "none".into(), details: Vec::new() };
        let outcome = Some(batch_item_result::Outcome::Error(error));
        let rejected = pb::BatchItemResult { item_id: "a".into(), outcome, replayed: false };
        let row = Outcome::of(rejected).row();
        assert_eq!(row.len(), COLUMNS.len());
        assert_eq!((&row[1], &row[7]), (&"REJECTED".into(), &"RESOURCE_EXHAUSTED".into()));
        assert_eq!(row[8], "RESOURCE_EXHAUSTED: none");
    }
}
