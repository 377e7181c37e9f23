//! The outcome of an item: its meaning, and its row in the results.

use std::collections::HashMap;

use serde_json::Value;
use tonic_types::StatusExt as _;

use super::{advice, index::FileRow};
use crate::{
    cli::shared::{
        client::{RpcError, code_name, reason_of, status_of},
        csv_files::CardRow,
        view,
    },
    domain::id::ItemId,
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
    "line",
    "code_last4",
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
pub(in crate::cli) struct Outcome(pb::BatchItemResult, Option<FileRow>);

impl Outcome {
    /// The outcome that the server's result tells.
    pub(super) fn of(result: pb::BatchItemResult) -> Self {
        Self(result, None)
    }

    /// With its row of the file.
    pub(super) fn at(self, file_row: Option<&FileRow>) -> Self {
        Self(self.0, file_row.copied())
    }

    /// The item as a person finds it: by its name in the file, or by its line.
    pub(super) fn shown(&self) -> String {
        match &self.1 {
            Some(file_row) if !file_row.is_named => format!("line {}", file_row.line),
            _ => self.0.item_id.clone(),
        }
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

    /// The item's redemption; `None` where none was begun.
    pub(super) fn redemption_id(&self) -> Option<&str> {
        match &self.0.outcome {
            Some(batch_item_result::Outcome::Redemption(redemption)) => {
                Some(&redemption.redemption_id)
            }
            _ => None,
        }
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
        let file_row = self.1.as_ref();
        let last4 = file_row.map_or(&*redemption.code_last4, FileRow::last4);
        let money = redemption.amount.as_ref().or(redemption.expected.as_ref());
        vec![
            view::text(&self.0.item_id),
            outcome.into(),
            file_row.map_or(Value::Null, |file_row| file_row.line.into()),
            view::text(last4),
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

/// The row of a bad row. What it holds is not repeated.
pub(super) fn bad_row(file_row: &FileRow, problems: &str) -> Vec<Value> {
    row_of(&[
        ("outcome", "BAD_ROW".into()),
        ("line", file_row.line.into()),
        ("code_last4", view::text(file_row.last4())),
        ("reason", "BAD_ROW".into()),
        ("message", problems.into()),
    ])
}

/// The row of an item without an outcome: what that is called, and what it means.
pub(super) fn unknown_row(
    item_id: &ItemId,
    file_row: &FileRow,
    card: Option<&CardRow>,
    (outcome, message): (&str, &str),
) -> Vec<Value> {
    row_of(&[
        ("item_id", item_id.as_str().into()),
        ("outcome", outcome.into()),
        ("line", file_row.line.into()),
        ("code_last4", view::text(file_row.last4())),
        ("expected_minor", card.and_then(|card| card.amount_minor).into()),
        ("reason", outcome.into()),
        ("message", message.into()),
    ])
}

fn row_of(fields: &[(&str, Value)]) -> Vec<Value> {
    let value = |column| fields.iter().find(|(name, _)| name == column).map(|(_, value)| value);
    COLUMNS.iter().map(|column| value(column).cloned().unwrap_or_default()).collect()
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
        assert_eq!((&row[1], &row[9]), (&"REJECTED".into(), &"RESOURCE_EXHAUSTED".into()));
        assert_eq!(row[10], "RESOURCE_EXHAUSTED: none");
        let bad = bad_row(&FileRow::new(7, "1234", false, None), "code is required");
        assert_eq!((bad.len(), &bad[1], &bad[2]), (COLUMNS.len(), &"BAD_ROW".into(), &7.into()));
        assert_eq!((&bad[3], &bad[10]), (&"1234".into(), &"code is required".into()));
    }
}
