//! Whether the server can serve: `grpc.health.v1`, overall and for each service.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::store::Store;

/// How often the database is asked.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Overall, and each service by its name.
const SERVICES: [&str; 4] =
    ["", "holdfast.v1.RedemptionService", "holdfast.v1.AccountService", "holdfast.v1.PoolService"];

/// The server's health. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    serving: Arc<AtomicBool>,
    draining: Arc<AtomicBool>,
}

impl Health {
    /// Not serving, until the database has answered.
    pub async fn new(reporter: HealthReporter) -> Self {
        let health = Self { reporter, serving: Arc::default(), draining: Arc::default() };
        health.report(ServingStatus::NotServing).await;
        health
    }

    /// Whether the server can serve now.
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    /// Looks at the database until `stop`.
    pub async fn watch(self, store: Store, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.look(&store).await;
        }
    }

    /// Asks the database once.
    pub async fn look(&self, store: &Store) {
        let answer = timeout(TIMEOUT, store.ping()).await;
        let up = matches!(answer, Ok(Ok(())));
        let serves = up && !self.draining.load(Ordering::Relaxed);
        if self.serving.swap(serves, Ordering::Relaxed) == serves {
            return;
        }
        if serves {
            tracing::info!("serving");
            self.report(ServingStatus::Serving).await;
            if self.draining.load(Ordering::Relaxed) {
                // The drain began since, and its word is the last.
                self.drain().await;
            }
        } else {
            let why = match answer {
                Ok(Ok(())) => "draining".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the database did not answer in time".to_owned(),
            };
            tracing::warn!(why, "not serving");
            self.report(ServingStatus::NotServing).await;
        }
    }

    /// Says that the server does not serve any more, for good.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.serving.store(false, Ordering::Relaxed);
        self.report(ServingStatus::NotServing).await;
    }

    async fn report(&self, status: ServingStatus) {
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
