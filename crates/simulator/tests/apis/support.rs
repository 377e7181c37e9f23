//! A simulator of one API, a caller, and its files.

use std::{
    path::PathBuf,
    sync::Once,
    time::{Duration, Instant},
};

use holdfast_simulator::{
    Api, Simulator, SimulatorArgs,
    faults::{Fault, Faults},
    ledger::{self, Row, State},
};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// See the module.
pub(crate) struct World {
    pub(crate) args: SimulatorArgs,
    pub(crate) simulator: Simulator,
    http: Client,
    dir: tempfile::TempDir,
}

/// An answer: its status, and its body where that is JSON.
pub(crate) type Told = (u16, Option<Value>);

impl World {
    pub(crate) async fn new(api: Api) -> Self {
        Self::with(api, |_, _| {}).await
    }

    /// With other settings, which may name files of the folder.
    pub(crate) async fn with(
        api: Api,
        change: impl FnOnce(&mut SimulatorArgs, &std::path::Path),
    ) -> Self {
        static TLS: Once = Once::new();
        TLS.call_once(|| {
            // None is used, but a client is not built without one.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let dir = tempfile::tempdir().unwrap();
        let mut args = SimulatorArgs::new(dir.path().join("ledger"));
        (args.api, args.currency) = (api, "USD".to_owned());
        change(&mut args, dir.path());
        let simulator = Simulator::start(&args).await.unwrap();
        let http = Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .retry(reqwest::retry::never())
            .build()
            .unwrap();
        Self { args, simulator, http, dir }
    }

    /// The simulator again, after it was killed, with the same files.
    pub(crate) async fn killed(self) -> Self {
        let Self { args, simulator, http, dir } = self;
        simulator.kill().await.unwrap();
        let simulator = Simulator::start(&args).await.unwrap();
        Self { args, simulator, http, dir }
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        ledger::read(&self.ledger()).unwrap()
    }

    /// The rows of redemptions that succeeded.
    pub(crate) fn credited(&self) -> Vec<Row> {
        self.rows().into_iter().filter(|row| row.state == State::Succeeded).collect()
    }

    /// The next request for a card goes wrong.
    pub(crate) fn fault(&self, fault: Fault) {
        let rules = Faults::of_card("", &[fault]);
        let processing_time = Duration::from_millis(200);
        self.set(Faults { rules, processing_time, ..Faults::default() });
    }

    pub(crate) fn set(&self, faults: Faults) {
        self.simulator.set_faults(faults).unwrap();
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.simulator.url()))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Told {
        told(self.request(Method::POST, path).json(body).send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Told {
        told(self.request(Method::GET, path).query(query).send().await.unwrap()).await
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn until(
        &self,
        what: &str,
        ask: impl AsyncFn() -> Told,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            let (_, body) = ask().await;
            let body = body.unwrap();
            if wanted(&body) {
                return body;
            }
            assert!(Instant::now() < give_up, "{what}: {body}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The paths that every API has.
    pub(crate) async fn has_the_common_paths(&self) {
        let healthz = self.request(Method::GET, "/healthz").send().await.unwrap();
        assert_eq!(healthz.status(), 200);
        let faults = json!({"busy": 100.0, "processing_time": "1s"});
        let put = self.request(Method::PUT, "/faults").json(&faults).send().await.unwrap();
        assert_eq!(told(put).await.1.unwrap()["busy"], 100.0);
        assert_eq!(self.get("/faults", &[]).await.1.unwrap()["busy"], 100.0);
        assert_eq!(self.post("/redemptions", &json!({})).await.0, 404, "another API's path");
    }
}

pub(crate) async fn told(response: Response) -> Told {
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).ok())
}
