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
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    listener::Trouble,
    rpc::{
        health::{
            HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
            health_check_response::ServingStatus,
            health_server::{Health as HealthRpc, HealthServer},
        },
        status::unknown_service,
    },
    store::Store,
};

/// How often the database is asked.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Overall, and each service by its name.
const SERVICES: [&str; 7] = [
    "",
    "holdfast.v1.RedemptionService",
    "holdfast.v1.AccountService",
    "holdfast.v1.PoolService",
    "holdfast.v1.ProviderService",
    "holdfast.v1.AccessService",
    "holdfast.v1.SubscriptionService",
];

/// The server's health. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    /// Of the whole server and of each service: it is one.
    status: Arc<watch::Sender<ServingStatus>>,
    serving: Arc<AtomicBool>,
    draining: Arc<AtomicBool>,
    listener: Arc<OnceLock<Trouble>>,
}

impl Health {
    /// Not serving, until the database has answered.
    pub fn new() -> Self {
        Self {
            status: Arc::new(watch::Sender::new(ServingStatus::NotServing)),
            serving: Arc::default(),
            draining: Arc::default(),
            listener: Arc::default(),
        }
    }

    /// The service that tells of it.
    pub fn service(&self) -> HealthServer<impl HealthRpc> {
        HealthServer::new(Told { status: Arc::clone(&self.status) })
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
            self.report(ServingStatus::Serving);
            if self.draining.load(Ordering::Relaxed) {
                // The drain began since, and its word is the last.
                self.drain();
            }
        } else {
            let why = match answer {
                Ok(Ok(())) => "draining".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the database did not answer in time".to_owned(),
            };
            tracing::warn!(why, "not serving");
            self.report(ServingStatus::NotServing);
        }
    }

    /// Says that the server does not serve any more, for good.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.serving.store(false, Ordering::Relaxed);
        self.report(ServingStatus::NotServing);
    }

    /// Those who watch are told where it changes.
    fn report(&self, status: ServingStatus) {
        self.status.send_if_modified(|told| std::mem::replace(told, status) != status);
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// The health service. The protocol lets those who watch a service that is not known wait until it is. Here that is
/// never: which services there are is known from the start.
#[derive(Debug)]
struct Told {
    status: Arc<watch::Sender<ServingStatus>>,
}

type Statuses = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl HealthRpc for Told {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match is_known(&service) {
            true => Ok(Response::new(answer(*self.status.borrow()))),
            false => Err(unknown_service()),
        }
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let status = *self.status.borrow();
        let statuses = SERVICES.into_iter().map(|name| (name.to_owned(), answer(status)));
        Ok(Response::new(HealthListResponse { statuses: statuses.collect() }))
    }

    type WatchStream = Statuses;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Statuses>, Status> {
        let service = request.into_inner().service;
        let statuses = match is_known(&service) {
            true => changes(self.status.subscribe()).boxed(),
            false => {
                let unknown = stream::once(ready(Ok(answer(ServingStatus::ServiceUnknown))));
                unknown.chain(stream::pending()).boxed()
            }
        };
        Ok(Response::new(statuses))
    }
}

fn is_known(service: &str) -> bool {
    SERVICES.contains(&service)
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// The status, and each that differs from the one before: the protocol has a message say that it changed.
fn changes(
    status: watch::Receiver<ServingStatus>,
) -> impl Stream<Item = Result<HealthCheckResponse, Status>> {
    stream::unfold((status, false), |(mut status, is_told)| async move {
        if is_told {
            status.changed().await.ok()?;
        }
        let now = *status.borrow_and_update();
        Some((Ok(answer(now)), (status, true)))
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    async fn watch_of(health: &Health, service: &str) -> Statuses {
        let told = Told { status: Arc::clone(&health.status) };
        let request = HealthCheckRequest { service: service.to_owned() };
        told.watch(Request::new(request)).await.unwrap().into_inner()
    }

    async fn next(statuses: &mut Statuses) -> ServingStatus {
        statuses.next().await.unwrap().unwrap().status()
    }

    /// What a watcher is told for a while.
    async fn told_meanwhile(statuses: &mut Statuses) -> Vec<ServingStatus> {
        let told = statuses.map(|told| told.unwrap().status());
        told.take_until(sleep(Duration::from_millis(400))).collect().await
    }

    #[tokio::test]
    async fn a_watch_of_an_unknown_service_stays_open() {
        let health = Health::new();
        let mut statuses = watch_of(&health, "unknown").await;
        assert_eq!(told_meanwhile(&mut statuses).await, [ServingStatus::ServiceUnknown], "once");
        health.report(ServingStatus::Serving);
        assert_eq!(told_meanwhile(&mut statuses).await, [], "it is not another's status");
    }

    #[tokio::test]
    async fn a_watch_tells_each_change_at_once_and_nothing_else() {
        let health = Health::new();
        let mut statuses = watch_of(&health, "").await;
        assert_eq!(told_meanwhile(&mut statuses).await, [ServingStatus::NotServing]);
        health.report(ServingStatus::Serving);
        assert_eq!(next(&mut statuses).await, ServingStatus::Serving);
        health.report(ServingStatus::Serving);
        assert_eq!(told_meanwhile(&mut statuses).await, [], "it was so before");
        health.drain();
        assert_eq!(told_meanwhile(&mut statuses).await, [ServingStatus::NotServing]);
    }
}
