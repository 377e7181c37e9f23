//! The points of statements, before and after them, at which a test can stop the server or lose a reply.

use crate::failpoints::{self, Side, Step};

/// Runs a statement between the failpoints of all that it does.
pub(super) async fn at_all_points<T>(
    steps: &[Step],
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    for step in steps {
        failpoints::reach(*step, Side::Before).await?;
    }
    let answered = statement.await;
    for step in steps {
        failpoints::reach(*step, Side::After).await?;
    }
    answered
}

/// Runs a statement between its failpoints.
pub(super) async fn at_points<T>(
    step: Step,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    failpoints::reach(step, Side::Before).await?;
    let answered = statement.await;
    failpoints::reach(step, Side::After).await?;
    answered
}
