//! The table over profiles of real APIs: the steps that the built-in contract does not have. A task that is kept, a
//! search, and a reversal, which a person asks for until it is done.

use std::{fs, time::Duration};

use holdfast::{
    failpoints::{Side, Step},
    rpc::pb::{self, RedemptionState, ReversalState},
    simulator::{
        Api, Simulator, SimulatorArgs,
        faults::{Fault, Faults},
        ledger::{self, State},
    },
};
use tokio::time::timeout;

use crate::support::{
    cells::{self, Action, close, find, is_known, play_all, sides},
    fleet::{Able, Fleet, Setup},
    wait::eventually,
    world::{Clients, lease},
};

const POOL: &str = "real";
/// How long a cell may take to end.
const CELL: Duration = Duration::from_secs(60);
/// How long a call may take before its caller asks another server.
const CALL: Duration = Duration::from_secs(4);
const ACCOUNT: &str = "account-1";
/// Every credential of a test holds this.
const PASSWORD: &str = "HFCRED-password";

#[derive(Clone, Copy, Debug)]
struct Cell {
    step: Step,
    side: Side,
    action: Action,
}

impl Cell {
    fn charge(self) -> String {
        cells::charge(self.step, self.side, self.action)
    }

    fn api(self) -> (Api, &'static str) {
        match self.step {
            Step::RecordTask => (Api::Task, "task-api"),
            _ => (Api::Fiserv, "fiserv"),
        }
    }

    /// Whether the provider's id of its work is lost: the task API finds nothing by another name.
    fn loses_the_task(self) -> bool {
        self.step == Step::RecordTask
            && self.side == Side::Before
            && matches!(self.action, Action::Kill | Action::Stop)
    }

    fn is_of_a_reversal(self) -> bool {
        matches!(self.step, Step::BeginReversal | Step::Reverse | Step::Settle)
    }
}

/// A profile's file with another base, and times that a test can wait for.
fn profile(file: &str, url: &str) -> String {
    let path = format!("{}/profiles/{file}.toml", env!("CARGO_MANIFEST_DIR"));
    let times = [
        ("base = ", format!("base = \"{url}\"")),
        ("timeout = ", "timeout = \"1s\"".to_owned()),
        ("visibility = ", "visibility = \"200ms\"".to_owned()),
        ("max_processing = ", "max_processing = \"3s\"".to_owned()),
        ("send_window = ", "send_window = \"2s\"".to_owned()),
    ];
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| {
        let other = times.iter().find(|(start, _)| line.starts_with(start));
        other.map_or(line.to_owned(), |(_, other)| other.clone())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Servers, and a fake of an API beside them.
struct Stage {
    fleet: Fleet,
    simulator: Simulator,
    args: SimulatorArgs,
    secrets: String,
}

impl Stage {
    async fn start((api, file): (Api, &str)) -> Self {
        let able = Able { deduplicates: true, looks_up: true, cancels: true };
        let setup = Setup { able, serve: Vec::new(), provider: Vec::new() };
        let fleet = Fleet::start(setup).await;
        let folder = fleet.folder().to_owned();
        let accounts = folder.join("accounts.csv");
        fs::write(&accounts, format!("username,password\n{ACCOUNT},{PASSWORD}\n")).unwrap();
        let args = SimulatorArgs {
            api,
            currency: "USD".to_owned(),
            api_key: Some("the-key".to_owned()),
            api_secret: Some("the-secret".to_owned()),
            accounts: Some(accounts),
            ..SimulatorArgs::new(folder.join("api-ledger"))
        };
        let simulator = Simulator::start(&args).await.unwrap();
        let secrets = folder.join("secrets");
        fs::create_dir_all(secrets.join(file)).unwrap();
        for (name, value) in [("api_key", "the-key"), ("api_secret", "the-secret")] {
            crate::support::secrets::write_secret(secrets.join(file).join(name), value);
        }
        let secrets = secrets.display().to_string();
        let mut stage = Self { fleet, simulator, args, secrets };
        stage.start_server("", "").await;
        let mut clients = stage.clients();
        let text = profile(file, &stage.simulator.url());
        let request = pb::ApplyProviderRequest { profile: text };
        let provider = clients.providers.apply_provider(request).await.unwrap().into_inner();
        let pool = pb::Pool {
            pool_id: POOL.to_owned(),
            provider_id: provider.provider.unwrap().provider_id,
            currency_code: "USD".to_owned(),
            ..Default::default()
        };
        clients.pools.create_pool(pb::CreatePoolRequest { pool: Some(pool) }).await.unwrap();
        let credentials = [("username", ACCOUNT), ("password", PASSWORD)];
        let account = pb::Account {
            pool_id: POOL.to_owned(),
            account_id: ACCOUNT.to_owned(),
            credentials: credentials
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..Default::default()
        };
        let request = pb::CreateAccountRequest { account: Some(account) };
        clients.accounts.create_account(request).await.unwrap();
        stage
    }

    async fn start_server(&mut self, charge: &str, guards_off: &str) {
        let secrets = self.secrets.clone();
        let env = [
            ("HOLDFAST_SECRETS_DIR", &*secrets),
            ("HOLDFAST_CRASH_POINTS", charge),
            ("HOLDFAST_GUARDS_OFF", guards_off),
        ];
        self.fleet.start_server(&env).await;
    }

    /// In place of the servers that there are, one that a point is charged at.
    async fn charge(&mut self, charge: &str, guards_off: &str) {
        for mut server in std::mem::take(&mut self.fleet.servers) {
            server.end().await;
        }
        self.start_server(charge, guards_off).await;
    }

    /// Of the newest server.
    fn clients(&self) -> Clients {
        self.fleet.clients(self.fleet.servers.len() - 1)
    }

    /// Where the charged server is gone or stands still, there is another.
    async fn look_after_servers(&mut self) {
        if self.fleet.first_is_gone() && self.fleet.servers.len() == 1 {
            self.start_server("", "").await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// Redeems a card, whatever happens to the servers, and waits until it is known or a person's.
    async fn redeem(&mut self, code: &str) -> pb::Redemption {
        let begun = async |clients: &mut Clients| {
            let acquired = clients
                .acquire(|request| {
                    request.pool_id = POOL.to_owned();
                    request.wait_timeout = Some(prost_types::Duration { seconds: 2, nanos: 0 });
                })
                .await
                .ok()?;
            let held = lease(&acquired);
            let redeemed = clients.redeem(&held, code, |request| {
                request.request_id = "redeem".to_owned();
                request.expected =
                    Some(pb::Money { amount_minor: 1000, currency_code: "USD".to_owned() });
                request.release_on_completion = true;
            });
            redeemed.await.ok()?.redemption
        };
        let give_up_at = tokio::time::Instant::now() + CELL;
        loop {
            assert!(tokio::time::Instant::now() < give_up_at, "the redemption does not end");
            let mut clients = self.clients();
            let read = async {
                match find(&mut clients, POOL, "redeem").await.ok() {
                    Some(found) => Some(found),
                    None => begun(&mut clients).await,
                }
            };
            let found = timeout(CALL, read).await.ok().flatten();
            if let Some(found) = found.filter(is_known) {
                return found;
            }
            self.look_after_servers().await;
        }
    }

    /// Asks for a reversal with the same words until it is done.
    async fn reverse(&mut self, id: &str) {
        let give_up_at = tokio::time::Instant::now() + CELL;
        loop {
            assert!(tokio::time::Instant::now() < give_up_at, "the reversal does not end");
            let mut clients = self.clients();
            let request = pb::ReverseRedemptionRequest {
                pool_id: POOL.to_owned(),
                redemption_id: id.to_owned(),
                reason: "wrong account".to_owned(),
                reversed_by: "anna".to_owned(),
                ..Default::default()
            };
            let call = clients.redemptions.reverse_redemption(request);
            if let Ok(Ok(told)) = timeout(CALL, call).await {
                let reversal = told.into_inner().redemption.unwrap().reversal.unwrap();
                assert_ne!(reversal.state(), ReversalState::NeedsReview, "{reversal:?}");
                if reversal.state() == ReversalState::Succeeded {
                    return;
                }
            }
            self.look_after_servers().await;
        }
    }

    fn rows(&self, state: State) -> usize {
        let rows = ledger::read(&self.args.ledger).unwrap();
        rows.iter().filter(|row| row.state == state).count()
    }

    async fn strikes(&mut self, cell: Cell) {
        eventually(CELL, &format!("{cell:?} strikes"), async || {
            self.fleet.servers[0].said().contains("a crash point strikes").then_some(())
        })
        .await;
        if matches!(cell.action, Action::Kill | Action::Stop) {
            eventually(CELL, "the server is gone", async || {
                self.fleet.first_is_gone().then_some(())
            })
            .await;
        }
        if self.fleet.servers.len() == 1 {
            self.look_after_servers().await;
        }
    }
}

async fn play(cell: Cell) {
    let mut stage = Stage::start(cell.api()).await;
    let code = stage.fleet.code("CARD");
    let mut expected = RedemptionState::Succeeded;
    if cell.is_of_a_reversal() {
        let redeemed = stage.redeem(&code).await;
        assert_eq!(redeemed.state(), RedemptionState::Succeeded, "{redeemed:?}");
        stage.charge(&cell.charge(), "").await;
        stage.reverse(&redeemed.redemption_id).await;
    } else {
        stage.charge(&cell.charge(), "").await;
        if cell.step == Step::Find {
            let rules = Faults::of_card(&code, &[Fault::ApplyThenDrop]);
            stage.simulator.set_faults(Faults { rules, ..Faults::default() }).unwrap();
        }
        if cell.loses_the_task() {
            expected = RedemptionState::NeedsReview;
        }
        let redeemed = stage.redeem(&code).await;
        assert_eq!(redeemed.state(), expected, "{cell:?}: {redeemed:?}");
    }
    stage.strikes(cell).await;
    stage.fleet.servers[0].go_on();
    assert_eq!(stage.rows(State::Succeeded), 1, "credited once");
    if cell.is_of_a_reversal() {
        assert_eq!(stage.rows(State::Cancelled), 1, "taken back once");
    }
    if expected == RedemptionState::NeedsReview {
        let mut clients = stage.clients();
        let redemption = find(&mut clients, POOL, "redeem").await.unwrap();
        let credited = pb::Money { amount_minor: 1000, currency_code: "USD".to_owned() };
        close(&mut clients, &redemption, Some(credited)).await;
    }
    let expected = if cell.is_of_a_reversal() { 0 } else { 1000 };
    let mut clients = stage.clients();
    let request =
        pb::GetAccountRequest { pool_id: POOL.to_owned(), account_id: ACCOUNT.to_owned() };
    let account = clients.accounts.get_account(request).await.unwrap().into_inner();
    assert_eq!(account.account.unwrap().balance.unwrap().amount_minor, expected, "{cell:?}");
    let broken = stage.fleet.finish().await;
    assert!(broken.is_empty(), "{cell:?}: {broken:#?}");
}

/// Plays the cells of an action.
async fn play_row(action: Action) {
    let steps = [Step::RecordTask, Step::Find, Step::BeginReversal, Step::Reverse, Step::Settle];
    play_all(sides(steps).map(|(step, side)| Cell { step, side, action }), play).await;
}

macro_rules! rows {
    ($($name:ident: $action:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                play_row(Action::$action).await;
            }
        )*
    };
}

rows! {
    killed_over_a_profile_nothing_is_lost_doubled_or_taken_back_twice: Kill;
    stopped_over_a_profile_nothing_is_lost_doubled_or_taken_back_twice: Stop;
    an_error_over_a_profile_loses_doubles_and_takes_back_nothing_twice: Error;
    a_delay_over_a_profile_loses_doubles_and_takes_back_nothing_twice: Delay;
}

/// The negative control of "recorded before it is asked for": without it, a server that is killed takes back what
/// nobody here knows of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reversal_that_is_not_recorded_first_is_lost_with_its_server() {
    for (guards_off, is_known) in [("", true), ("reversals_are_recorded_first", false)] {
        let mut stage = Stage::start((Api::Fiserv, "fiserv")).await;
        let code = stage.fleet.code("CARD");
        let id = stage.redeem(&code).await.redemption_id;
        stage.charge("reverse.after=kill", guards_off).await;
        let request = pb::ReverseRedemptionRequest {
            pool_id: POOL.to_owned(),
            redemption_id: id,
            reason: "wrong account".to_owned(),
            reversed_by: "anna".to_owned(),
            ..Default::default()
        };
        let call = stage.clients().redemptions.reverse_redemption(request).await;
        assert!(call.is_err(), "its server was killed");
        eventually(CELL, "the server is gone", async || stage.fleet.first_is_gone().then_some(()))
            .await;
        assert_eq!(stage.rows(State::Cancelled), 1, "taken back at the provider");
        stage.start_server("", "").await;
        let mut clients = stage.clients();
        if is_known {
            eventually(CELL, "it is found out", async || {
                let found = find(&mut clients, POOL, "redeem").await.ok()?;
                found.reverse_time.map(drop)
            })
            .await;
        } else {
            let found = find(&mut clients, POOL, "redeem").await.unwrap();
            assert_eq!((found.reversal, found.reverse_time), (None, None), "nobody knows of it");
        }
        stage.fleet.finish().await;
    }
}
