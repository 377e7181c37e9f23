//! The table: a server is killed, stopped for longer than a lease, fails or is slow at every step,
//! before and after it, over three kinds of providers. Each cell has its expected end.

use std::time::Duration;

use holdfast::{
    failpoints::{Side, Step},
    rpc::pb::{self, RedemptionState},
    simulator::{
        faults::{Fault, Faults},
        ledger::{self, State},
    },
};
use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::support::{
    cells::{self, Action, close, find, is_known, play_all, sides},
    fleet::{Able, Fleet, Setup},
    wait::eventually,
    world::{Clients, POOL, eur, lease},
};

/// Counts a key once, tells what became of it, cancels it.
const WHOLE: Able = Able { deduplicates: true, looks_up: true, cancels: true };
/// Only tells what became of a key.
const LOOKS_UP: Able = Able { deduplicates: false, looks_up: true, cancels: false };
/// Does none of it.
const NEITHER: Able = Able { deduplicates: false, looks_up: false, cancels: false };

/// How a cell ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The card is credited, once.
    Credited,
    /// The card is not credited, and the code is not spent.
    Cancelled,
    /// A person has to look.
    Review,
}

/// How the redemption of a cell comes to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Nothing is wrong but the point.
    Plain,
    /// The provider acts, and its answer is lost.
    AnswerLost,
    /// The request is lost.
    RequestLost,
    /// The request is lost, and when it is looked for the provider may have forgotten the key.
    Forgotten,
    /// The holder goes away without a word; the lease runs out.
    Abandoned,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    step: Step,
    side: Side,
    action: Action,
    able: Able,
}

impl Cell {
    fn way(self) -> Way {
        match self.step {
            Step::Defer | Step::Claim | Step::LookUp => Way::AnswerLost,
            Step::SendAgain | Step::NoteSend => Way::RequestLost,
            Step::Cancel => Way::Forgotten,
            Step::Expire => Way::Abandoned,
            _ => Way::Plain,
        }
    }

    /// Whether such a provider is ever asked so.
    fn is_reached(self) -> bool {
        match self.step {
            Step::LookUp => self.able.looks_up,
            Step::SendAgain | Step::NoteSend => self.able.deduplicates,
            Step::Cancel => self.able.cancels,
            // The built-in contract has no tasks, no search and no reversal: `crash_profiles` has them.
            Step::RecordTask | Step::Find | Step::BeginReversal | Step::Reverse => false,
            _ => true,
        }
    }

    /// The expected end.
    fn end(self) -> End {
        let Self { step, side, action, able } = self;
        // What a server does not live to say, or cannot be told, is asked of the provider.
        let asked = |was_sent| match (able, was_sent) {
            (WHOLE, _) | (LOOKS_UP, true) => End::Credited,
            _ => End::Review,
        };
        match (step, side, action) {
            (Step::Cancel, ..) => End::Cancelled,
            (Step::SendAgain | Step::NoteSend | Step::LookUp, ..) => End::Credited,
            (Step::Defer | Step::Claim, ..) => asked(true),
            // Recorded, and never sent: one that was stopped knows that it is too late.
            (Step::Begin, Side::After, Action::Kill | Action::Stop) => asked(false),
            (Step::Send, Side::Before, Action::Kill) => asked(false),
            (Step::Send, Side::After, Action::Kill | Action::Error) => asked(true),
            (Step::Settle, Side::Before, Action::Kill) => asked(true),
            // Stopped, it brings the answer in the end: facts are not fenced.
            _ => End::Credited,
        }
    }

    fn setup(self) -> Setup {
        let mut serve = Vec::new();
        if self.way() == Way::Forgotten {
            // Shorter than a look may take.
            serve.push("--provider-not-after=4s".to_owned());
            serve.push("--provider-key-retention=5s".to_owned());
        }
        Setup { able: self.able, serve, provider: Vec::new() }
    }

    fn faults(self, code: &str) -> Faults {
        let fault = match self.way() {
            Way::AnswerLost => Fault::ApplyThenDrop,
            Way::RequestLost | Way::Forgotten => Fault::DropBeforeApply,
            Way::Plain | Way::Abandoned => return Faults::default(),
        };
        Faults { rules: Faults::of_card(code, &[fault]), ..Faults::default() }
    }
}

/// How long a call may take before its caller asks another server.
const CALL: Duration = Duration::from_secs(4);
/// Longer than a busy machine takes to get from an acquisition to a beginning.
const LEASE: prost_types::Duration = prost_types::Duration { seconds: 3, nanos: 0 };
/// How long a cell may take to end.
const CELL: Duration = Duration::from_secs(60);

/// A caller who wants one card redeemed, whatever happens to the servers.
struct Caller<'a> {
    fleet: &'a mut Fleet,
    cell: Cell,
    code: String,
    give_up_at: Instant,
}

impl Caller<'_> {
    /// Redeems the card: the request stays the same, whoever is asked and whatever lease it has.
    async fn redeem(&mut self) -> pb::Redemption {
        let mut wishes = 0;
        loop {
            assert!(Instant::now() < self.give_up_at, "{:?} does not end", self.cell);
            wishes += 1;
            let wish = format!("acquire-{wishes}");
            match self.attempt(&wish).await {
                Ok(redemption) if is_known(&redemption) => return redemption,
                Ok(redemption) => return self.wait_for(&redemption).await,
                Err(_) => self.look_after_servers().await,
            }
        }
    }

    async fn attempt(&self, wish: &str) -> Result<pb::Redemption, Status> {
        let mut clients = self.clients();
        let acquired = timed(clients.acquire(|request| {
            request.request_id = wish.to_owned();
            request.wait_timeout = Some(prost_types::Duration { seconds: 2, nanos: 0 });
            request.lease_duration = Some(LEASE);
        }))
        .await;
        // No account: the redemption that was begun holds it. Asked for by its request, it is told.
        let lease = match acquired {
            Ok(acquired) => lease(&acquired),
            Err(error) => return self.find().await.map_err(|_| error),
        };
        if self.cell.step == Step::Renew {
            timed(clients.renew(&lease, Duration::from_secs(3))).await?;
        }
        if self.cell.way() == Way::Abandoned && wish == "acquire-1" {
            return Err(Status::aborted("gone without a word"));
        }
        let redeemed = timed(clients.redeem(&lease, &self.code, |request| {
            request.request_id = "redeem".to_owned();
        }))
        .await?;
        let redemption = redeemed.redemption.unwrap();
        if self.cell.step == Step::Release {
            // Twice is fine; one that fails is the sweeper's.
            let _ = timed(clients.release(&lease)).await;
        }
        Ok(redemption)
    }

    async fn find(&self) -> Result<pb::Redemption, Status> {
        timed(find(&mut self.clients(), POOL, "redeem")).await
    }

    async fn wait_for(&mut self, redemption: &pb::Redemption) -> pb::Redemption {
        loop {
            assert!(Instant::now() < self.give_up_at, "{:?}: {redemption:?}", self.cell);
            match self.find().await {
                Ok(found) if is_known(&found) => return found,
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(_) => self.look_after_servers().await,
            }
        }
    }

    /// Of the newest server: the first one has the crash point.
    fn clients(&self) -> Clients {
        self.fleet.clients(self.fleet.servers.len() - 1)
    }

    /// Where the first server is gone or stands still, there is another.
    async fn look_after_servers(&mut self) {
        if self.fleet.first_is_gone() && self.fleet.servers.len() == 1 {
            self.fleet.start_server(&[]).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn timed<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(CALL, call).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
}

async fn play(cell: Cell) {
    let mut fleet = Fleet::start(cell.setup()).await;
    let code = fleet.code("CARD");
    let charge = cells::charge(cell.step, cell.side, cell.action);
    fleet.start_server(&[("HOLDFAST_CRASH_POINTS", &charge)]).await;
    fleet.set_faults(&cell.faults(&code)).await;
    prepare(&mut fleet).await;

    let give_up_at = Instant::now() + CELL;
    let mut caller = Caller { fleet: &mut fleet, cell, code: code.clone(), give_up_at };
    caller.redeem().await;
    // What the crash point is after may come later than the answer: a release, a lease that runs out.
    if cell.is_reached() {
        eventually(CELL, &format!("{cell:?} strikes"), async || {
            fleet.servers[0].said().contains("a crash point strikes").then_some(())
        })
        .await;
    }
    if matches!(cell.action, Action::Kill | Action::Stop) {
        eventually(CELL, "the server is gone", async || fleet.first_is_gone().then_some(())).await;
        if fleet.servers.len() == 1 {
            fleet.start_server(&[]).await;
        }
    }
    // The other server has done what there was to be done: the lease has run out long ago, too.
    account_is_free_or_reviewed(&fleet).await;
    fleet.servers[0].go_on();
    check_end(&mut fleet, cell).await;
}

async fn prepare(fleet: &mut Fleet) {
    let mut clients = fleet.clients(0);
    clients.create_pool(POOL).await;
    clients.create_account("a", |_| {}).await;
}

async fn account_is_free_or_reviewed(fleet: &Fleet) {
    let mut clients = fleet.clients(fleet.servers.len() - 1);
    eventually(CELL, "the account comes free", async || {
        let account = clients.account("a").await;
        if account.status() != pb::AccountStatus::Locking {
            return Some(());
        }
        let open = account.open_redemption_id;
        if open.is_empty() {
            return None;
        }
        let state = clients.redemption(&open).await.state();
        (state == RedemptionState::NeedsReview).then_some(())
    })
    .await;
}

/// The redemption ends as expected; a person closes what is theirs; the account can be used again.
async fn check_end(fleet: &mut Fleet, cell: Cell) {
    let mut clients = fleet.clients(fleet.servers.len() - 1);
    let expected = cell.end();
    // One that was stopped may still have to speak: a review before it does is not the end.
    let redemption = eventually(CELL, &format!("{cell:?} ends as {expected:?}"), async || {
        let redemption = find(&mut clients, POOL, "redeem").await.unwrap();
        let ended = match redemption.state() {
            RedemptionState::Succeeded => Some(End::Credited),
            RedemptionState::Failed => Some(End::Cancelled),
            RedemptionState::NeedsReview => Some(End::Review),
            _ => None,
        };
        let is_final = matches!(ended, Some(End::Credited | End::Cancelled));
        assert!(!is_final || ended == Some(expected), "{cell:?}, {expected:?}: {redemption:?}");
        (ended == Some(expected)).then_some(redemption)
    })
    .await;
    if expected == End::Cancelled {
        let failure = redemption.failure.as_ref().unwrap();
        assert_eq!((failure.reason.as_str(), failure.code_spent), ("CANCELLED", false), "{cell:?}");
    }
    if expected == End::Review {
        close(&mut clients, &redemption, credited(fleet, &redemption)).await;
    }
    eventually(CELL, "the account can be used again", async || {
        let acquired = clients.acquire(|_| {}).await.ok()?;
        clients.release(&lease(&acquired)).await.ok()
    })
    .await;
}

/// What the provider's own records say that it credited.
fn credited(fleet: &Fleet, redemption: &pb::Redemption) -> Option<pb::Money> {
    let rows = ledger::read(&fleet.ledger()).unwrap();
    let is_it =
        |row: &&ledger::Row| row.key == redemption.redemption_id && row.state == State::Succeeded;
    rows.iter().find(is_it).map(|row| eur(row.amount_minor))
}

/// Plays the cells of a row of the table.
async fn play_row(action: Action, able: Able) {
    let cells = sides(Step::ALL).map(|(step, side)| Cell { step, side, action, able });
    play_all(cells.filter(|cell| cell.is_reached()), play).await;
}

macro_rules! rows {
    ($($name:ident: $action:ident, $able:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                play_row(Action::$action, $able).await;
            }
        )*
    };
}

rows! {
    killed_anywhere_over_a_whole_provider_nothing_is_lost_or_doubled: Kill, WHOLE;
    killed_anywhere_over_a_provider_that_looks_up_nothing_is_lost_or_doubled: Kill, LOOKS_UP;
    killed_anywhere_over_a_provider_that_does_neither_nothing_is_lost_or_doubled: Kill, NEITHER;
    stopped_anywhere_over_a_whole_provider_nothing_is_lost_or_doubled: Stop, WHOLE;
    stopped_anywhere_over_a_provider_that_looks_up_nothing_is_lost_or_doubled: Stop, LOOKS_UP;
    stopped_anywhere_over_a_provider_that_does_neither_nothing_is_lost_or_doubled: Stop, NEITHER;
    an_error_anywhere_over_a_whole_provider_loses_and_doubles_nothing: Error, WHOLE;
    an_error_anywhere_over_a_provider_that_looks_up_loses_and_doubles_nothing: Error, LOOKS_UP;
    an_error_anywhere_over_a_provider_that_does_neither_loses_and_doubles_nothing: Error, NEITHER;
    a_delay_anywhere_over_a_whole_provider_loses_and_doubles_nothing: Delay, WHOLE;
    a_delay_anywhere_over_a_provider_that_looks_up_loses_and_doubles_nothing: Delay, LOOKS_UP;
    a_delay_anywhere_over_a_provider_that_does_neither_loses_and_doubles_nothing: Delay, NEITHER;
}
