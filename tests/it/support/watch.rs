//! Watching outcomes, and what was told.

use std::time::Duration;

use holdfast::rpc::pb;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::world::{Clients, POOL};

/// How long an outcome is waited for.
const LIMIT: Duration = Duration::from_secs(20);

/// A stream of outcomes.
pub(crate) struct Watch {
    stream: Streaming<pb::WatchRedemptionsResponse>,
    /// The newest cursor.
    pub(crate) cursor: String,
}

impl Watch {
    /// Opens one, and takes its first message.
    pub(crate) async fn open(clients: &mut Clients, after: &str) -> Result<Self, Status> {
        let mut watch = Self::begin(clients, after).await?;
        let first = watch.message().await?;
        assert_eq!(first.redemption, None, "who begins has a cursor at once");
        Ok(watch)
    }

    /// Opens one, and takes nothing.
    pub(crate) async fn begin(clients: &mut Clients, after: &str) -> Result<Self, Status> {
        let request =
            pb::WatchRedemptionsRequest { pool_id: POOL.to_owned(), after: after.to_owned() };
        let stream = clients.redemptions.watch_redemptions(request).await?.into_inner();
        Ok(Self { stream, cursor: String::new() })
    }

    /// The next message, whatever it is.
    pub(crate) async fn message(&mut self) -> Result<pb::WatchRedemptionsResponse, Status> {
        let told = timeout(LIMIT, self.stream.message()).await.expect("no message came");
        let told = told?.expect("the stream ended without an error");
        assert!(!told.cursor.is_empty());
        self.cursor.clone_from(&told.cursor);
        Ok(told)
    }

    /// The next outcome.
    pub(crate) async fn outcome(&mut self) -> Result<pb::Redemption, Status> {
        loop {
            if let Some(redemption) = self.message().await?.redemption {
                assert!(redemption.finish_time.is_some(), "{redemption:?}");
                return Ok(redemption);
            }
        }
    }

    /// The ids of the next outcomes, so many, each with its cursor.
    pub(crate) async fn outcomes(&mut self, count: usize) -> Vec<(String, String)> {
        let mut told = Vec::new();
        while told.len() < count {
            let redemption = self.outcome().await.unwrap();
            told.push((redemption.redemption_id, self.cursor.clone()));
        }
        told
    }

    /// How the stream ends.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.message().await {
                return status;
            }
        }
    }
}

/// The ids of what was told.
pub(crate) fn ids(told: &[(String, String)]) -> Vec<&str> {
    told.iter().map(|(id, _)| &**id).collect()
}
