//! A request for a redemption: executed in a task of its own, and where a fault strikes.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use tokio::time::sleep;

use super::{
    book::{Asked, How, Submitted},
    cut::Connection,
    faults::Fault,
    ledger::{NotDurable, Row, State},
    reply::Reply,
    shared::{Shared, lock},
};

/// What an API answers when a fault struck.
pub(super) struct Manners {
    /// Nothing was executed: come later.
    pub(super) busy: fn() -> Response,
    /// Something broke.
    pub(super) broken: fn() -> Response,
    /// The begin of an answer that says success.
    pub(super) half: (StatusCode, &'static str),
}

/// What came of asking, once it is on disk.
pub(super) enum Told {
    New(Row),
    Repeated(Row),
    /// The request that began it has not been answered yet.
    InProgress,
    /// The key is there with another payload.
    Reused,
}

/// Executes a request as the faults will have it. `apply` enters it into the book, and gives the answer.
pub(super) async fn execute<F>(
    shared: &Arc<Shared>,
    connection: &Connection,
    code: String,
    manners: &'static Manners,
    apply: impl FnOnce(Arc<Shared>, String, How) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = Result<Response, NotDurable>> + Send + 'static,
{
    let shared = shared.clone();
    // In a task of its own: a provider goes on when its caller has hung up.
    match tokio::spawn(strike(shared, code, manners, apply)).await {
        Ok(reply) => reply.give(connection).await,
        Err(_) => (manners.broken)(),
    }
}

async fn strike<F>(
    shared: Arc<Shared>,
    code: String,
    manners: &'static Manners,
    apply: impl FnOnce(Arc<Shared>, String, How) -> F,
) -> Reply
where
    F: Future<Output = Result<Response, NotDurable>>,
{
    let (latency, fault) = lock(&shared.injector).of_request(&code);
    if !latency.is_zero() {
        sleep(latency).await;
    }
    match fault {
        Some(Fault::DropBeforeApply) => return Reply::Cut,
        Some(Fault::Busy) => return Reply::Answer((manners.busy)()),
        _ => {}
    }
    let how = How {
        slowly: fault == Some(Fault::Slow202),
        wrong_amount: fault == Some(Fault::WrongAmount),
        refused: fault.and_then(Fault::refusal),
    };
    match apply(shared, code, how).await {
        Err(NotDurable) => Reply::Cut,
        Ok(response) => match fault {
            Some(Fault::ApplyThenDrop) => Reply::Cut,
            Some(Fault::Stall) => Reply::Stall,
            Some(Fault::ErrorAfterApply) => Reply::Answer((manners.broken)()),
            Some(Fault::Garbage) => Reply::Answer(manners.half.into_response()),
            _ => Reply::Answer(response),
        },
    }
}

/// Enters a request into the book, and waits until the ledger has it.
pub(super) async fn submit(
    shared: &Arc<Shared>,
    asked: Asked,
    how: How,
) -> Result<Told, NotDurable> {
    let submitted = lock(&shared.book).submit(asked, how);
    match submitted {
        Submitted::Reused => Ok(Told::Reused),
        Submitted::Repeated(entry) if !shared.ledger.is_durable(entry.number) => {
            Ok(Told::InProgress)
        }
        Submitted::Repeated(entry) => Ok(Told::Repeated(entry.row)),
        Submitted::New(entry) => {
            shared.ledger.durable(entry.number).await?;
            if entry.row.state == State::Processing {
                shared.clone().finish_later(entry.row.clone());
            }
            Ok(Told::New(entry.row))
        }
    }
}
