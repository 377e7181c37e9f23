//! Replies: responses, errors, and none at all.

use std::future::pending;

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;

use super::{cut::Connection, ledger::NotDurable};

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
