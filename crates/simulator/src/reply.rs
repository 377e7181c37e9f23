//! Replies: responses, errors, and none at all.

use std::{future::pending, time::Duration};

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    cut::Connection,
    ledger::{NotDurable, Row, State},
    shared::{Shared, lock},
};

/// What a request is answered with.
pub(super) enum Reply {
    Answer(Response),
    /// No answer, and the connection is gone.
    Cut,
    /// No answer.
    Stall,
}

impl From<NotDurable> for Reply {
    fn from(_: NotDurable) -> Self {
        Self::Cut
    }
}

impl Reply {
    pub(super) async fn give(self, connection: &Connection) -> Response {
        match self {
            Self::Answer(response) => response,
            Self::Stall => pending().await,
            Self::Cut => {
                connection.cut();
                // Never written: the connection fails first.
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

/// A redemption as the contract has it.
pub(super) fn redemption(shared: &Shared, row: &Row) -> Value {
    let mut body = json!({
        "key": row.key,
        "provider_ref": row.provider_ref,
        "state": row.state,
        "amount_minor": row.amount_minor,
        "currency_code": row.currency_code,
        "account_ref": row.account_ref,
    });
    if let Some(balance) = row.balance_minor {
        body["balance_minor"] = balance.into();
    }
    if let Some(failure) = &row.failure {
        body["failure"] = json!(failure);
    }
    if row.state == State::Processing {
        let time = lock(&shared.injector).faults().processing_time;
        let poll = (time / 3).clamp(Duration::from_millis(10), Duration::from_secs(1));
        body["poll_after_ms"] = json!(poll.as_millis() as u64);
    }
    body
}

/// An error as the contract has it.
pub(super) fn problem(status: StatusCode, error: &str, message: &str) -> Response {
    (status, Json(json!({"error": error, "message": message}))).into_response()
}
