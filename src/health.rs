//! The health service, `grpc.health.v1`: whether the server can serve, overall and for each service.

use std::{
    future::ready,
    pin::Pin,
    sync::{
        Arc, OnceLock,
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

use crate::{listener::Trouble, store::Store};

/// How often the database is asked.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Overall, and each service by its name.
const SERVICES: [&str; 6] = [
    "",
    "holdfast.v1.RedemptionService",
    "holdfast.v1.AccountService",
    "holdfast.v1.PoolService",
    "holdfast.v1.ProviderService",
    "holdfast.v1.AccessService",
];

/// The poll interval for a service that is not known yet.
const UNKNOWN_AGAIN: Duration =
    if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(1) };

/// The server's health. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    serving: Arc<AtomicBool>,
    draining: Arc<AtomicBool>,
    listener: Arc<OnceLock<Trouble>>,
}

impl Health {
    /// Not serving, until the database has answered.
    pub async fn new(reporter: HealthReporter) -> Self {
        let health = Self {
            reporter,
            serving: Arc::default(),
            draining: Arc::default(),
            listener: Arc::default(),
        };
        health.report(ServingStatus::NotServing).await;
        health
    }

    /// The service that tells of it.
    pub fn service(&self) -> HealthServer<impl HealthRpc> {
        HealthServer::new(Told { statuses: self.reporter.clone() })
    }

    /// From now on a server that can accept no connections is not ready for more clients. Those that it has are served.
    pub fn watch_listener(&self, trouble: Trouble) {
        let _ = self.listener.set(trouble);
    }

    /// Whether the server can serve now.
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    /// Whether new clients can connect.
    pub fn accepts(&self) -> bool {
        !self.listener.get().is_some_and(Trouble::is_there)
    }

    /// Checks the database until `stop`.
    pub async fn watch(self, store: Store, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.check(&store).await;
        }
    }

    /// Asks the database once.
    pub async fn check(&self, store: &Store) {
        let answer = timeout(TIMEOUT, store.check_health()).await;
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
    statuses: HealthReporter,
}

impl Told {
    fn service(&self) -> HealthService {
        HealthService::from_health_reporter(self.statuses.clone())
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
        let watched = match watch(&self.service(), &service).await {
            Some(statuses) => statuses,
            None => {
                let unknown = HealthCheckResponse {
                    status: health_check_response::ServingStatus::ServiceUnknown.into(),
                };
                let later = stream::once(until_known(self.service(), service)).flatten();
                stream::iter([Ok(unknown)]).chain(later).boxed()
            }
        };
        Ok(Response::new(changes(watched).boxed()))
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

/// The first status, and each that differs from the one before: the protocol has a message say that it changed.
fn changes(statuses: Statuses) -> impl Stream<Item = Result<HealthCheckResponse, Status>> {
    let mut last = None;
    statuses.filter(move |told| {
        let status = told.as_ref().ok().map(|told| told.status);
        let is_news = status.is_none() || status != last;
        last = status;
        ready(is_news)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn watch_of(health: &Health, service: &str) -> Statuses {
        let told = Told { statuses: health.reporter.clone() };
        let request = HealthCheckRequest { service: service.to_owned() };
        told.watch(Request::new(request)).await.unwrap().into_inner()
    }

    async fn next(statuses: &mut Statuses) -> health_check_response::ServingStatus {
        statuses.next().await.unwrap().unwrap().status()
    }

    /// What a watcher is told while it is asked several times whether a service is known.
    async fn told_meanwhile(statuses: &mut Statuses) -> Vec<health_check_response::ServingStatus> {
        let told = statuses.map(|told| told.unwrap().status());
        told.take_until(sleep(8 * UNKNOWN_AGAIN)).collect().await
    }

    #[tokio::test]
    async fn a_watch_of_an_unknown_service_stays_open_until_it_is_known() {
        use health_check_response::ServingStatus::{NotServing, ServiceUnknown};
        let health = Health::new(HealthReporter::new()).await;
        let mut statuses = watch_of(&health, "later").await;
        assert_eq!(told_meanwhile(&mut statuses).await, [ServiceUnknown], "once");
        health.reporter.set_service_status("later", ServingStatus::NotServing).await;
        assert_eq!(told_meanwhile(&mut statuses).await, [NotServing]);
    }

    #[tokio::test]
    async fn a_watch_tells_each_change_at_once_and_nothing_else() {
        use health_check_response::ServingStatus::{NotServing, Serving};
        let health = Health::new(HealthReporter::new()).await;
        let mut statuses = watch_of(&health, "").await;
        assert_eq!(told_meanwhile(&mut statuses).await, [NotServing]);
        health.report(ServingStatus::Serving).await;
        assert_eq!(next(&mut statuses).await, Serving);
        health.report(ServingStatus::Serving).await;
        assert_eq!(told_meanwhile(&mut statuses).await, [], "it was so before");
        health.drain().await;
        assert_eq!(told_meanwhile(&mut statuses).await, [NotServing]);
    }
}
