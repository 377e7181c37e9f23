//! Load of the soak: batches that are opened again until every item has its outcome, and callers with one
//! card at a time. Some callers go away without closing their call.

use std::{collections::HashMap, sync::Arc, time::Duration};

use holdfast::rpc::pb::{self, RedemptionState};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

use crate::{
    settings::Settings,
    support::{
        batch::{Session, begun, item, opening},
        checks::Broken,
        fleet::{self, Fleet},
        journal::Journal,
        real::{MINOR, Real},
        world::{Clients, POOL, lease},
    },
    tally::{Counted, Tally},
};

/// Clients with batches, and callers with single cards.
const BATCHERS: u64 = 6;
const CALLERS: u64 = 20;
/// The pools, each of another provider. Callers take them in turn.
pub(crate) const POOLS: [(&str, Option<Real>); 4] = [
    (POOL, None),
    ("square", Some(Real::Square)),
    ("fiserv", Some(Real::Fiserv)),
    ("tasks", Some(Real::Task)),
];
/// The first pools are redeemed into by batches, too: they end when every outcome is there, and where tasks are lost a
/// person has to bring it.
const OF_BATCHES: usize = 3;
/// Items of a batch.
const ITEMS: usize = 200;
/// How long anything may take before it is asked for again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what was begun may take to be finished when the faults have stopped.
const FINISH: Duration = Duration::from_secs(120);

/// Everybody who wants something.
pub(crate) struct Load {
    tasks: JoinSet<Vec<Broken>>,
}

/// What all of them share.
#[derive(Clone)]
struct Wanting {
    servers: Arc<Vec<Channel>>,
    journal: Journal,
    tally: Arc<Tally>,
    stop: CancellationToken,
    /// Begins every code.
    prefix: String,
    pool_id: &'static str,
    /// What the card is said to be worth, where its provider wants to be told.
    expected: Option<pb::Money>,
    dice: Arc<std::sync::Mutex<StdRng>>,
}

impl Load {
    pub(crate) fn start(
        settings: &Settings,
        fleet: &Fleet,
        tally: &Arc<Tally>,
        stop: &CancellationToken,
    ) -> Self {
        let servers = fleet.servers.iter().map(|server| fleet::channel(&server.addr)).collect();
        let servers = Arc::new(servers);
        let mut tasks = JoinSet::new();
        for number in 0..BATCHERS + CALLERS {
            let dice = StdRng::seed_from_u64(settings.seed.wrapping_add(number + 1));
            let pools = if number < BATCHERS { OF_BATCHES } else { POOLS.len() };
            let (pool_id, real) = POOLS[usize::try_from(number).unwrap() % pools];
            let expected = real.map(|_| usd(MINOR));
            let wanting = Wanting {
                servers: Arc::clone(&servers),
                journal: fleet.journal.clone(),
                tally: Arc::clone(tally),
                stop: stop.clone(),
                // Hyphens do not tell codes apart; letters do.
                prefix: fleet.code(&format!("N{number}")),
                pool_id,
                expected,
                dice: Arc::new(std::sync::Mutex::new(dice)),
            };
            if number < BATCHERS {
                tasks.spawn(wanting.redeem_batches(number));
            } else {
                tasks.spawn(wanting.redeem_cards(number));
            }
        }
        Self { tasks }
    }

    /// Waits until what was begun is finished.
    pub(crate) async fn finish(&mut self) -> Vec<Broken> {
        let all = async {
            let mut broken = Vec::new();
            while let Some(done) = self.tasks.join_next().await {
                broken.extend(done.unwrap());
            }
            broken
        };
        let finished = timeout(FINISH, all).await;
        finished.unwrap_or_else(|_| vec![format!("clients have no outcome after {FINISH:?}")])
    }
}

impl Wanting {
    fn throw(&self, sides: usize) -> usize {
        self.dice.lock().unwrap().random_range(0..sides)
    }

    /// The clients of any server.
    fn clients(&self) -> Clients {
        let server = self.servers[self.throw(self.servers.len())].clone();
        Clients::over(server, self.journal.clone())
    }

    fn told(&self, redemption: &pb::Redemption) {
        self.tally.count(match redemption.state() {
            RedemptionState::Succeeded => Counted::Ok,
            RedemptionState::Failed => Counted::Failed,
            _ => Counted::InDoubt,
        });
    }

    async fn ask_again(&self) {
        self.tally.count(Counted::AskedAgain);
        let pause = Duration::from_millis(self.throw(200) as u64 + 20);
        sleep(pause).await;
    }

    async fn redeem_batches(self, number: u64) -> Vec<Broken> {
        let mut broken = Vec::new();
        let mut batch = 0;
        while !self.stop.is_cancelled() {
            batch += 1;
            broken.extend(self.redeem_batch(&format!("b{number}-{batch}"), batch).await);
        }
        broken
    }

    /// Opens a batch again and again until each item has one outcome; then once more, to see that each
    /// still has the same.
    async fn redeem_batch(&self, batch_id: &str, batch: usize) -> Vec<Broken> {
        let codes: HashMap<String, String> = (0..ITEMS)
            .map(|n| (format!("i{n}"), format!("{}-B{batch}-I{n}", self.prefix)))
            .collect();
        let mut known: HashMap<String, pb::Redemption> = HashMap::new();
        let mut broken = Vec::new();
        while known.len() < ITEMS {
            let results = self.open(batch_id, &codes).await;
            for result in results {
                let Some(redemption) = begun(&result) else { continue };
                if matches!(
                    redemption.state(),
                    RedemptionState::Succeeded | RedemptionState::Failed
                ) && known.insert(result.item_id.clone(), redemption.clone()).is_none()
                {
                    self.told(redemption);
                }
            }
            if known.len() < ITEMS {
                self.ask_again().await;
            }
        }
        for result in self.open(batch_id, &codes).await {
            let before = &known[&result.item_id];
            if let Some(now) = begun(&result)
                && (now.redemption_id != before.redemption_id || now.state != before.state)
            {
                broken.push(format!("an item has two outcomes: {before:?}, {now:?}"));
            }
        }
        broken
    }

    /// Opens a batch once, on any server, and answers with the results that came until the end or the
    /// fault.
    async fn open(
        &self,
        batch_id: &str,
        codes: &HashMap<String, String>,
    ) -> Vec<pb::BatchItemResult> {
        let mut clients = self.clients();
        let pool_id = self.pool_id.to_owned();
        let open = pb::BatchOpen { max_in_flight: 32, pool_id, ..opening(batch_id) };
        let Ok(Ok(session)) = timeout(PATIENCE, Session::open(&mut clients, open)).await else {
            return Vec::new();
        };
        let item = |(item_id, code): (&String, &String)| pb::BatchItem {
            expected: self.expected.clone(),
            ..item(item_id, code)
        };
        let items = codes.iter().map(item).collect();
        // Now and then it is the client that goes away, at any point.
        let leaves_after = (self.throw(4) == 0).then(|| self.throw(ITEMS));
        session.results_until_it_breaks(items, PATIENCE, leaves_after).await
    }

    async fn redeem_cards(self, number: u64) -> Vec<Broken> {
        let mut card = 0;
        while !self.stop.is_cancelled() {
            card += 1;
            let code = format!("{}-C{card}", self.prefix);
            let request_id = format!("caller-{number}-{card}");
            loop {
                match timeout(PATIENCE, self.redeem_card(&request_id, &code)).await {
                    Ok(Ok(redemption)) => {
                        self.told(&redemption);
                        if !matches!(
                            redemption.state(),
                            RedemptionState::Submitted | RedemptionState::InDoubt
                        ) {
                            break;
                        }
                        self.ask_again().await;
                    }
                    _ => self.ask_again().await,
                }
            }
        }
        Vec::new()
    }

    /// One try, as one card after another is redeemed by hand.
    async fn redeem_card(&self, request_id: &str, code: &str) -> Result<pb::Redemption, Status> {
        let mut clients = self.clients();
        if let Ok(found) = self.find(&mut clients, request_id).await {
            return Ok(found);
        }
        let acquired = clients
            .acquire(|request| {
                request.pool_id = self.pool_id.to_owned();
                request.wait_timeout = Some(prost_types::Duration { seconds: 2, nanos: 0 });
                request.lease_duration = Some(prost_types::Duration { seconds: 2, nanos: 0 });
            })
            .await?;
        let lease = lease(&acquired);
        // Some go away, and come again with another lease.
        if self.throw(50) == 0 {
            return Err(Status::aborted("gone without a word"));
        }
        let redeemed = clients
            .redeem(&lease, code, |request| {
                request.request_id = request_id.to_owned();
                request.expected = self.expected.clone();
                request.release_on_completion = true;
            })
            .await?;
        Ok(redeemed.redemption.unwrap())
    }

    async fn find(
        &self,
        clients: &mut Clients,
        request_id: &str,
    ) -> Result<pb::Redemption, Status> {
        let request = pb::GetRedemptionRequest {
            pool_id: self.pool_id.to_owned(),
            request_id: request_id.to_owned(),
            ..Default::default()
        };
        let reply = clients.redemptions.get_redemption(request).await?.into_inner();
        let redemption = reply.redemption.unwrap();
        clients.journal().redemption(&redemption);
        Ok(redemption)
    }
}

pub(crate) fn usd(amount_minor: i64) -> pb::Money {
    pb::Money { amount_minor, currency_code: "USD".to_owned() }
}
