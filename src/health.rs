//! Whether the server can serve: `grpc.health.v1`, overall and for each service.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::{MissedTickBehavior, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::{
    ServingStatus,
    pb::{
        HealthCheckRequest, HealthCheckResponse, health_check_response,
        health_server::{Health as HealthRpc, HealthServer},
    },
    server::{HealthReporter, HealthService},
};

use crate::store::Store;

/// How often the database is asked.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Overall, and each service by its name.
const SERVICES: [&str; 4] =
    ["", "holdfast.v1.RedemptionService", "holdfast.v1.AccountService", "holdfast.v1.PoolService"];

/// How often it is asked whether a service that is not known has become so.
const UNKNOWN_AGAIN: Duration = Duration::from_secs(1);
/// How often a status that has not changed is told again: a stream on which nothing is said is ended by what lies
/// between, such as a proxy.
const QUIET_LIMIT: Duration =
    if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };

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

    /// The service that tells of it.
    pub fn service(&self) -> HealthServer<impl HealthRpc> {
        HealthServer::new(Told { known: self.reporter.clone() })
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

/// The health service of tonic, but for watchers of a service that is not known: the protocol lets them wait
/// until it is.
#[derive(Debug)]
struct Told {
    known: HealthReporter,
}

impl Told {
    fn service(&self) -> HealthService {
        HealthService::from_health_reporter(self.known.clone())
    }
}

type Statuses = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl HealthRpc for Told {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.service().check(request).await
    }

    type WatchStream = Statuses;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Statuses>, Status> {
        let service = request.into_inner().service;
        let known = match watch(&self.service(), &service).await {
            Some(statuses) => statuses,
            None => {
                let unknown = HealthCheckResponse {
                    status: health_check_response::ServingStatus::ServiceUnknown.into(),
                };
                let later = stream::once(until_known(self.service(), service)).flatten();
                stream::iter([Ok(unknown)]).chain(later).boxed()
            }
        };
        Ok(Response::new(told_again(known).boxed()))
    }
}

async fn watch(health: &HealthService, service: &str) -> Option<Statuses> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let watched = health.watch(Request::new(request)).await.ok()?;
    Some(watched.into_inner().boxed())
}

/// The statuses of a service, from when it is known on.
async fn until_known(health: HealthService, service: String) -> Statuses {
    loop {
        sleep(UNKNOWN_AGAIN).await;
        if let Some(statuses) = watch(&health, &service).await {
            return statuses;
        }
    }
}

/// Each status, and the last one again when there was none for a while.
fn told_again(statuses: Statuses) -> impl Stream<Item = Result<HealthCheckResponse, Status>> {
    stream::unfold((statuses, None), async |(mut statuses, last)| {
        let next = match timeout(QUIET_LIMIT, statuses.next()).await {
            Ok(next) => next?,
            Err(_) => last.clone()?,
        };
        let told = next.clone();
        Some((next, (statuses, Some(told))))
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    async fn watch_of(health: &Health, service: &str) -> Statuses {
        let told = Told { known: health.reporter.clone() };
        let request = HealthCheckRequest { service: service.to_owned() };
        told.watch(Request::new(request)).await.unwrap().into_inner()
    }

    async fn next(statuses: &mut Statuses) -> health_check_response::ServingStatus {
        statuses.next().await.unwrap().unwrap().status()
    }

    #[tokio::test]
    async fn a_watch_of_an_unknown_service_stays_open_until_it_is_known() {
        use health_check_response::ServingStatus::{NotServing, ServiceUnknown};
        let health = Health::new(HealthReporter::new()).await;
        let mut statuses = watch_of(&health, "later").await;
        let begun = Instant::now();
        assert_eq!(next(&mut statuses).await, ServiceUnknown);
        assert_eq!(next(&mut statuses).await, ServiceUnknown);
        assert!(begun.elapsed() >= QUIET_LIMIT, "told again");
        health.reporter.set_service_status("later", ServingStatus::NotServing).await;
        while next(&mut statuses).await != NotServing {}
    }

    #[tokio::test]
    async fn a_watch_tells_changes_at_once_and_the_same_again_now_and_then() {
        use health_check_response::ServingStatus::{NotServing, Serving};
        let health = Health::new(HealthReporter::new()).await;
        let mut statuses = watch_of(&health, "").await;
        let begun = Instant::now();
        assert_eq!(next(&mut statuses).await, NotServing);
        health.report(ServingStatus::Serving).await;
        assert_eq!(next(&mut statuses).await, Serving);
        assert_eq!(next(&mut statuses).await, Serving);
        assert!(begun.elapsed() >= QUIET_LIMIT);
    }
}
