//! `ReverseRedemption`, over the profile of an API that takes charges back: whatever becomes of the call, a charge is
//! taken back once, and the account, its history and the provider agree on it.

use std::{fs, sync::Arc, time::Duration};

use holdfast::{
    rpc::pb::{self, RedemptionState, ReversalOutcome, ReversalState},
    simulator::{
        Api, Simulator, SimulatorArgs,
        ledger::{self, State},
    },
};
use tonic::{Code, Status};

use super::{apply, give_secret};
use crate::support::{
    proxy::{
        Proxy,
        http::{Fault, Http, request},
    },
    wait::eventually,
    world::{self, Clients, World, lease, metadata, reason},
};

const POOL: &str = "real";
const LIMIT: Duration = Duration::from_secs(30);
/// Where charges are taken back.
const CANCELS: &str = "/payments/v1/cancels";

/// A server, a provider behind a proxy, and an account.
struct Stage {
    world: World,
    clients: Clients,
    simulator: Option<Simulator>,
    args: SimulatorArgs,
    proxy: Arc<Proxy<Http>>,
    _dir: tempfile::TempDir,
}

fn usd(amount_minor: i64) -> pb::Money {
    pb::Money { amount_minor, currency_code: "USD".to_owned() }
}

/// The profile with another base, and times that a test can wait for.
fn profile(url: &str, max_processing: &str) -> String {
    let path = format!("{}/profiles/fiserv.toml", env!("CARGO_MANIFEST_DIR"));
    let lines = [
        ("base = ", format!("base = \"{url}\"")),
        ("timeout = ", "timeout = \"1s\"".to_owned()),
        ("visibility = ", "visibility = \"200ms\"".to_owned()),
        ("max_processing = ", format!("max_processing = \"{max_processing}\"")),
        ("send_window = ", "send_window = \"2s\"".to_owned()),
    ];
    let text = fs::read_to_string(path).unwrap();
    let changed = text.lines().map(|line| {
        let other = lines.iter().find(|(start, _)| line.starts_with(start));
        other.map_or(line.to_owned(), |(_, other)| other.clone())
    });
    changed.collect::<Vec<_>>().join("\n")
}

impl Stage {
    async fn start(max_processing: &str, change: impl FnOnce(&mut SimulatorArgs)) -> Self {
        let world = World::start().await;
        let dir = tempfile::tempdir().unwrap();
        let mut args = SimulatorArgs {
            api: Api::Fiserv,
            currency: "USD".to_owned(),
            api_key: Some("the-key".to_owned()),
            api_secret: Some("the-secret".to_owned()),
            ..SimulatorArgs::new(dir.path().join("ledger"))
        };
        change(&mut args);
        let simulator = Simulator::start(&args).await.unwrap();
        let proxy = Arc::new(Proxy::<Http>::before(simulator.addr()));
        for (name, value) in [("api_key", "the-key"), ("api_secret", "the-secret")] {
            give_secret(&world, "fiserv", name, value);
        }
        let mut clients = world.clients(0).await;
        apply(&mut clients, &profile(&proxy.url(), max_processing)).await.unwrap();
        let pool = pb::Pool {
            pool_id: POOL.to_owned(),
            provider_id: "fiserv".to_owned(),
            currency_code: "USD".to_owned(),
            ..Default::default()
        };
        clients.pools.create_pool(pb::CreatePoolRequest { pool: Some(pool) }).await.unwrap();
        let plan = pb::Plan {
            pool_id: POOL.to_owned(),
            plan_id: "full".to_owned(),
            target: Some(usd(1000)),
            ..Default::default()
        };
        clients.pools.create_plan(pb::CreatePlanRequest { plan: Some(plan) }).await.unwrap();
        let mut stage = Self { world, clients, simulator: Some(simulator), args, proxy, _dir: dir };
        stage.create_account("a", "").await;
        stage
    }

    async fn create_account(&mut self, account_id: &str, plan_id: &str) {
        let account = pb::Account {
            pool_id: POOL.to_owned(),
            account_id: account_id.to_owned(),
            plan_id: plan_id.to_owned(),
            ..Default::default()
        };
        let request = pb::CreateAccountRequest { account: Some(account) };
        self.clients.accounts.create_account(request).await.unwrap();
    }

    async fn acquire(&mut self, account_id: &str) -> pb::LeaseRef {
        let acquired = self.clients.acquire(|request| {
            request.pool_id = POOL.to_owned();
            request.wait_timeout = world::seconds(20.0);
            request.selector = Some(pb::AccountSelector {
                account_id: account_id.to_owned(),
                ..Default::default()
            });
        });
        lease(&acquired.await.unwrap())
    }

    /// Redeems a card of 10 dollars.
    async fn redeem(&mut self, account_id: &str, card: &str) -> pb::Redemption {
        let lease = self.acquire(account_id).await;
        let code = self.world.code(card);
        let redeemed = self.clients.redeem(&lease, &code, |request| {
            request.request_id = uuid::Uuid::now_v7().to_string();
            request.expected = Some(usd(1000));
            request.release_on_completion = true;
        });
        let redemption = redeemed.await.unwrap().redemption.unwrap();
        assert_eq!(redemption.state(), RedemptionState::Succeeded, "{redemption:?}");
        redemption
    }

    /// Applies the profile's second version, and redeems a card under it.
    async fn redeem_under(&mut self, text: &str) -> pb::Redemption {
        apply(&mut self.clients, text).await.unwrap();
        eventually(LIMIT, "the new version is used", async || {
            let redemption = self.redeem("a", &uuid::Uuid::now_v7().to_string()).await;
            (redemption.provider_version == 2).then_some(redemption)
        })
        .await
    }

    async fn reverse(
        &mut self,
        word: pb::ReverseRedemptionRequest,
    ) -> Result<pb::Redemption, Status> {
        reverse(&mut self.clients, word).await
    }

    async fn read(&mut self, id: &str) -> pb::Redemption {
        let request = pb::GetRedemptionRequest {
            pool_id: POOL.to_owned(),
            redemption_id: id.to_owned(),
            ..Default::default()
        };
        let reply = self.clients.redemptions.get_redemption(request).await.unwrap();
        reply.into_inner().redemption.unwrap()
    }

    async fn account(&mut self, account_id: &str) -> pb::Account {
        let request =
            pb::GetAccountRequest { pool_id: POOL.to_owned(), account_id: account_id.to_owned() };
        self.clients.accounts.get_account(request).await.unwrap().into_inner().account.unwrap()
    }

    async fn balance(&mut self, account_id: &str) -> i64 {
        self.account(account_id).await.balance.unwrap().amount_minor
    }

    /// Waits until the newest reversal has this state.
    async fn until(&mut self, id: &str, state: ReversalState) -> pb::Redemption {
        let what = format!("a reversal that is {}", state.as_str_name());
        eventually(LIMIT, &what, async || {
            let redemption = self.read(id).await;
            (of(&redemption).state() == state).then_some(redemption)
        })
        .await
    }

    /// What the provider has of a redemption by now.
    fn at_the_provider(&self, id: &str) -> State {
        let key = id.replace('-', "");
        let rows = ledger::read(&self.args.ledger).unwrap();
        rows.iter().rfind(|row| row.key == key).unwrap().state
    }

    /// The redemption is taken back, here and there, and once.
    async fn is_taken_back(&mut self, id: &str) {
        let redemption = self.read(id).await;
        assert_eq!(redemption.state(), RedemptionState::Succeeded, "it stays in the history");
        assert!(redemption.reverse_time.is_some(), "{redemption:?}");
        assert_eq!(of(&redemption).state(), ReversalState::Succeeded);
        assert_eq!(self.at_the_provider(id), State::Cancelled);
        assert_eq!(self.balance("a").await, 0);
        let request = pb::ListAccountEventsRequest {
            pool_id: POOL.to_owned(),
            account_id: "a".to_owned(),
            ..Default::default()
        };
        let events = self.clients.accounts.list_account_events(request).await.unwrap();
        let events = events.into_inner().account_events;
        let taken: Vec<_> = events.iter().filter(|event| event.reason == "reversed").collect();
        assert_eq!(taken.len(), 1, "{events:?}");
        assert_eq!(taken[0].redemption_id, id);
    }
}

fn of(redemption: &pb::Redemption) -> &pb::Reversal {
    redemption.reversal.as_ref().unwrap_or_else(|| panic!("no reversal: {redemption:?}"))
}

fn ask(id: &str, why: &str) -> pb::ReverseRedemptionRequest {
    pb::ReverseRedemptionRequest {
        pool_id: POOL.to_owned(),
        redemption_id: id.to_owned(),
        reason: why.to_owned(),
        reversed_by: "anna".to_owned(),
        ..Default::default()
    }
}

fn word(id: &str, outcome: ReversalOutcome) -> pb::ReverseRedemptionRequest {
    pb::ReverseRedemptionRequest {
        outcome: outcome.into(),
        evidence: "statement, page 3".to_owned(),
        ..ask(id, "seen in their records")
    }
}

async fn reverse(
    clients: &mut Clients,
    word: pb::ReverseRedemptionRequest,
) -> Result<pb::Redemption, Status> {
    Ok(clients.redemptions.reverse_redemption(word).await?.into_inner().redemption.unwrap())
}

#[tokio::test]
async fn what_is_taken_back_leaves_the_account_and_its_card_can_be_redeemed_again() {
    let mut stage = Stage::start("4s", |_| {}).await;
    let id = stage.redeem("a", "back").await.redemption_id;
    let calls = stage.proxy.fault(request("POST", CANCELS).times(0), Fault::CutBefore);
    assert_eq!(stage.balance("a").await, 1000);
    let mut asked = ask(&id, "wrong account");
    asked.evidence = "ticket 118".to_owned();
    let reversed = stage.reverse(asked.clone()).await.unwrap();
    let told = of(&reversed);
    assert_eq!((told.state(), told.number, told.attempts), (ReversalState::Succeeded, 1, 1));
    assert_eq!((&*told.reversed_by, &*told.reason), ("anna", "wrong account"));
    assert_eq!(told.evidence, "ticket 118");
    assert!(told.resolution.is_none() && told.finish_time.is_some());
    stage.is_taken_back(&id).await;

    // The same again asks nobody, and another one is refused.
    let again = stage.reverse(asked).await.unwrap();
    assert_eq!(again, reversed);
    let error = stage.reverse(ask(&id, "once more")).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert_eq!(reason(&error), "REDEMPTION_ALREADY_REVERSED");
    let error = stage.reverse(word(&id, ReversalOutcome::NotReversed)).await.unwrap_err();
    assert_eq!(reason(&error), "REDEMPTION_ALREADY_REVERSED");
    assert_eq!(calls.matched(), 1, "the provider was asked once");

    // The card has its value, and the code is free.
    let second = stage.redeem("a", "back").await;
    assert_ne!(second.redemption_id, id);
    assert_eq!(stage.balance("a").await, 1000);
    let listed = stage
        .clients
        .redemptions
        .list_redemptions(pb::ListRedemptionsRequest {
            pool_id: POOL.to_owned(),
            reversal_states: vec![ReversalState::Succeeded.into()],
            ..Default::default()
        })
        .await
        .unwrap();
    let listed = listed.into_inner().redemptions;
    assert_eq!(listed.iter().map(|r| &r.redemption_id).collect::<Vec<_>>(), [&id]);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_found_out_and_a_request_that_is_lost_is_sent_again() {
    for (fault, name) in [(Fault::CutReply, "reply"), (Fault::CutBefore, "request")] {
        let mut stage = Stage::start("4s", |_| {}).await;
        let id = stage.redeem("a", name).await.redemption_id;
        let lost = stage.proxy.fault(request("POST", CANCELS), fault);
        let told = stage.reverse(ask(&id, "wrong account")).await.unwrap();
        assert_eq!(of(&told).state(), ReversalState::InDoubt, "{name}");
        assert_eq!(told.reverse_time, None);
        assert_eq!(lost.times(), 1);
        let done = stage.until(&id, ReversalState::Succeeded).await;
        assert!(of(&done).attempts >= 2, "{done:?}");
        stage.is_taken_back(&id).await;
    }
}

#[tokio::test]
async fn two_people_at_once_take_it_back_once() {
    let mut stage = Stage::start("4s", |_| {}).await;
    let id = stage.redeem("a", "two").await.redemption_id;
    let slow = Fault::DelayReply(Duration::from_millis(200));
    let calls = stage.proxy.fault(request("POST", CANCELS).always(), slow);
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (mut clients, id) = (stage.clients.clone(), id.clone());
        asking.spawn(async move {
            reverse(&mut clients, ask(&id, &format!("reason {}", number % 4))).await
        });
    }
    let mut refused = 0;
    while let Some(told) = asking.join_next().await {
        match told.unwrap() {
            Ok(told) => assert!(told.reversal.is_some()),
            Err(error) => {
                let why = reason(&error);
                assert!(["REVERSAL_OPEN", "REDEMPTION_ALREADY_REVERSED"].contains(&&*why), "{why}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 6, "those with another reason");
    stage.until(&id, ReversalState::Succeeded).await;
    assert_eq!(calls.matched(), 1);
    stage.is_taken_back(&id).await;
}

#[tokio::test]
async fn what_the_provider_does_not_do_is_a_persons_and_can_be_asked_for_again() {
    let mut stage = Stage::start("1s", |args| args.cancels = false).await;
    let id = stage.redeem("a", "refused").await.redemption_id;
    let told = stage.reverse(ask(&id, "wrong account")).await.unwrap();
    assert_eq!(of(&told).state(), ReversalState::InDoubt);
    // Another reversal, or a word while the reconciler is at work, does not hurry it.
    let error = stage.reverse(ask(&id, "another reason")).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::FailedPrecondition, "REVERSAL_OPEN"));
    let review = stage.until(&id, ReversalState::NeedsReview).await;
    assert!(of(&review).last_answer.contains("the provider has it as a success"), "{review:?}");
    assert_eq!(stage.balance("a").await, 1000, "nothing is known to be taken back");

    let closed = stage.reverse(word(&id, ReversalOutcome::NotReversed)).await.unwrap();
    assert_eq!(of(&closed).state(), ReversalState::Failed);
    let resolution = of(&closed).resolution.clone().unwrap();
    assert_eq!((&*resolution.resolved_by, &*resolution.evidence), ("anna", "statement, page 3"));
    let again = stage.reverse(word(&id, ReversalOutcome::NotReversed)).await.unwrap();
    assert_eq!(again, closed, "the same word twice");
    assert_eq!((stage.balance("a").await, closed.reverse_time), (1000, None));

    // It had no effect: another follows. This one was made at the provider, by a person.
    let told = stage.reverse(word(&id, ReversalOutcome::Reversed)).await.unwrap();
    assert_eq!((of(&told).state(), of(&told).number), (ReversalState::Succeeded, 2));
    assert_eq!(of(&told).resolution.as_ref().unwrap().resolved_by, "anna");
    assert_eq!((stage.balance("a").await, stage.at_the_provider(&id)), (0, State::Succeeded));
}

#[tokio::test]
async fn a_reversal_that_never_left_had_no_effect() {
    let mut stage = Stage::start("4s", |_| {}).await;
    // Without the proxy, which would take the call.
    let url = stage.simulator.as_ref().unwrap().url();
    let text = profile(&url, "4s").replacen("version = 1", "version = 2", 1);
    let id = stage.redeem_under(&text).await.redemption_id;
    let simulator = stage.simulator.take().unwrap();
    let listen = simulator.addr();
    simulator.kill().await.unwrap();
    let told = stage.reverse(ask(&id, "wrong account")).await.unwrap();
    assert_eq!(of(&told).state(), ReversalState::Failed, "{told:?}");
    assert_eq!(told.reverse_time, None);
    let args = SimulatorArgs { listen, ..stage.args.clone() };
    let again =
        eventually(LIMIT, "the port is free again", async || Simulator::start(&args).await.ok())
            .await;
    stage.simulator = Some(again);
    let told = stage.reverse(ask(&id, "wrong account")).await.unwrap();
    assert_eq!((of(&told).state(), of(&told).number), (ReversalState::Succeeded, 2));
    assert_eq!(stage.at_the_provider(&id), State::Cancelled);
    // Without its secret this server cannot ask, and records nothing.
    let another = stage.redeem_under(&text).await.redemption_id;
    let secrets = stage.world.args().secrets_dir.clone().unwrap();
    fs::remove_file(secrets.join("fiserv/api_key")).unwrap();
    let error = stage.reverse(ask(&another, "wrong account")).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::Unavailable, "PROVIDER_UNAVAILABLE"));
    assert_eq!(stage.read(&another).await.reversal, None);
}

#[tokio::test]
async fn a_worker_keeps_its_lease_and_a_full_account_wants_more_again() {
    let mut stage = Stage::start("4s", |_| {}).await;
    let id = stage.redeem("a", "leased").await.redemption_id;
    let held = stage.acquire("a").await;
    let before = stage.account("a").await.lease.unwrap();
    stage.reverse(ask(&id, "wrong account")).await.unwrap();
    let after = stage.account("a").await;
    assert_eq!(after.status(), pb::AccountStatus::Locking);
    let lease = after.lease.unwrap();
    assert_eq!((lease.r#ref, lease.expire_time), (before.r#ref, before.expire_time));
    let released = stage.clients.release(&held).await.unwrap();
    assert_eq!(released.balance.unwrap().amount_minor, 0);

    stage.create_account("full", "full").await;
    let id = stage.redeem("full", "fills it").await.redemption_id;
    assert_eq!(stage.account("full").await.status(), pb::AccountStatus::Completed);
    stage.reverse(ask(&id, "wrong account")).await.unwrap();
    let again = stage.account("full").await;
    assert_eq!(again.status(), pb::AccountStatus::Processing);
    assert_eq!(
        (again.balance.unwrap().amount_minor, again.day_credited.unwrap().amount_minor),
        (0, 0)
    );
    stage.redeem("full", "fills it again").await;
    assert_eq!(stage.account("full").await.status(), pb::AccountStatus::Completed);
}

#[tokio::test]
async fn an_account_that_has_less_is_not_asked_about_and_one_that_lost_it_meanwhile_is_a_persons() {
    let mut stage = Stage::start("4s", |_| {}).await;
    let id = stage.redeem("a", "less").await.redemption_id;
    let mut db = stage.world.sql().await;
    let mut set = async |balance: i64| {
        let set = "UPDATE accounts SET balance_minor = $1 WHERE account_id = 'a'";
        sqlx::query(set).bind(balance).execute(&mut db).await.unwrap();
    };
    set(999).await;
    let calls = stage
        .proxy
        .fault(request("POST", CANCELS).always(), Fault::DelayReply(Duration::from_millis(300)));
    let error = stage.reverse(ask(&id, "wrong account")).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::FailedPrecondition, "BALANCE_TOO_LOW"));
    assert_eq!(metadata(&error, "balance_minor"), "999");
    assert_eq!((calls.matched(), stage.read(&id).await.reversal), (0, None));

    set(1000).await;
    let (mut clients, asked) = (stage.clients.clone(), ask(&id, "wrong account"));
    let asking = tokio::spawn(async move { reverse(&mut clients, asked).await });
    eventually(LIMIT, "the provider has taken it back", async || {
        (stage.at_the_provider(&id) == State::Cancelled).then_some(())
    })
    .await;
    set(999).await;
    let told = asking.await.unwrap().unwrap();
    assert_eq!(of(&told).state(), ReversalState::NeedsReview, "{told:?}");
    assert!(of(&told).last_answer.contains("the account has less"), "{told:?}");
    assert_eq!(stage.at_the_provider(&id), State::Cancelled);
    let error = stage.reverse(word(&id, ReversalOutcome::Reversed)).await.unwrap_err();
    assert_eq!(reason(&error), "BALANCE_TOO_LOW");
    set(1000).await;
    stage.reverse(word(&id, ReversalOutcome::Reversed)).await.unwrap();
    stage.is_taken_back(&id).await;
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_refused_and_nothing_is_recorded() {
    let mut stage = Stage::start("4s", |_| {}).await;
    // The built-in contract has no reversal.
    stage.clients.create_account("b", |_| {}).await;
    let held = lease(&stage.clients.acquire(|_| {}).await.unwrap());
    let code = stage.world.code("built in");
    let redeemed = stage.clients.redeem(&held, &code, |_| {}).await.unwrap();
    let of_the_built_in = redeemed.redemption.unwrap();
    let in_its_pool = |id: &str| pb::ReverseRedemptionRequest {
        pool_id: world::POOL.to_owned(),
        ..ask(id, "wrong account")
    };
    let error = stage.reverse(in_its_pool(&of_the_built_in.redemption_id)).await.unwrap_err();
    assert_eq!(
        (error.code(), &*reason(&error), &*metadata(&error, "cause")),
        (Code::FailedPrecondition, "REVERSAL_NOT_SUPPORTED", "no_op")
    );
    assert_eq!(metadata(&error, "provider_id"), "holdfast");

    // Nor is it asked for by a profile that sends the code, which is wiped.
    let text = profile(&stage.proxy.url(), "4s")
        .replacen("version = 1", "version = 2", 1)
        .replacen("reversalReasonCode = \"VOID\"", "reversalReasonCode = \"{{ code }}\"", 1);
    let with_code = stage.redeem_under(&text).await;
    let error = stage.reverse(ask(&with_code.redemption_id, "wrong account")).await.unwrap_err();
    assert_eq!(metadata(&error, "cause"), "needs_code");
    assert_eq!(metadata(&error, "provider_version"), "2");

    // A failure brought nothing.
    let held = stage.acquire("a").await;
    let code = stage.world.code("too much");
    let redeemed = stage.clients.redeem(&held, &code, |request| {
        request.expected = Some(usd(999_999_999));
        request.release_on_completion = true;
    });
    let failed = redeemed.await.unwrap().redemption.unwrap();
    assert_eq!(failed.state(), RedemptionState::Failed, "{failed:?}");
    let error = stage.reverse(ask(&failed.redemption_id, "wrong account")).await.unwrap_err();
    assert_eq!(
        (&*reason(&error), &*metadata(&error, "cause")),
        ("REDEMPTION_NOT_SUCCEEDED", "FAILED")
    );
    let error = stage.reverse(ask(&uuid::Uuid::nil().to_string(), "x")).await.unwrap_err();
    assert_eq!(reason(&error), "REDEMPTION_NOT_FOUND");
    let nothing = word(&with_code.redemption_id, ReversalOutcome::NotReversed);
    assert_eq!(reason(&stage.reverse(nothing).await.unwrap_err()), "REVERSAL_NOT_FOUND");
    let recorded: i64 = sqlx::query_scalar("SELECT count(*) FROM reversals")
        .fetch_one(&mut stage.world.sql().await)
        .await
        .unwrap();
    assert_eq!(recorded, 0);
}
