//! The simulated provider, over real HTTP: its promises, and what each fault is to the client.

// clippy lets a test unwrap, but not the functions that tests share.
#![allow(clippy::unwrap_used)]

mod faults;

use std::collections::BTreeMap;

use std::{collections::HashSet, io::Write as _, path::PathBuf};

use futures_util::future::join_all;
use holdfast::{
    domain::{
        money::{Currency, Money},
        redemption::{Ask, CardCode, Failure, Step, Verdict, reason},
    },
    provider::{
        Answer, Call, Doubt, Provider, classify,
        profile::Profile,
        question::{Card, Said},
    },
    simulator::{
        Simulator, SimulatorArgs,
        faults::{Fault, Faults},
        ledger::{self, Row, State},
    },
};

use crate::provider::client::{Calls as _, ask, client, first};

/// A simulator, its client, and its files.
struct World {
    simulator: Simulator,
    provider: Provider,
    args: SimulatorArgs,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut SimulatorArgs)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut args = SimulatorArgs::new(dir.path().join("ledger"));
        change(&mut args);
        let simulator = Simulator::start(&args).await.unwrap();
        let provider = client(&simulator.url());
        Self { simulator, provider, args, dir }
    }

    /// The simulator again, after it was killed, with the same ledger.
    async fn killed(self) -> Self {
        let Self { simulator, args, dir, .. } = self;
        simulator.kill().await.unwrap();
        let simulator = Simulator::start(&args).await.unwrap();
        let provider = client(&simulator.url());
        Self { simulator, provider, args, dir }
    }

    fn fault(&self, code: &str, fault: Fault) {
        let rules = Faults::of_card(code, &[fault]);
        self.simulator.set_faults(Faults { rules, ..self.args.faults.clone() }).unwrap();
    }

    fn rows(&self) -> Vec<Row> {
        ledger::read(&self.args.ledger).unwrap()
    }

    async fn look_up(&self, ask: &Ask) -> Step {
        let answer = self.provider.look_up(ask).await;
        classify(Profile::built_in(), &BTreeMap::new(), ask, Call::LookUp, Doubt::InDoubt, &answer)
    }
}

#[track_caller]
fn status(answer: &Answer) -> u16 {
    match answer {
        Answer::Http(http) => http.status,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn credited(step: &Step) -> i64 {
    match step {
        Step::Settle(Verdict::Succeeded { amount: Money { amount_minor, .. }, .. }) => {
            *amount_minor
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn failure(step: &Step) -> &Failure {
    match step {
        Step::Settle(Verdict::Failed { failure, .. }) => failure,
        other => panic!("{other:?}"),
    }
}

fn successes(rows: &[Row]) -> usize {
    rows.iter().filter(|row| row.state == State::Succeeded).count()
}

#[tokio::test]
async fn the_same_redemption_again_is_the_same_answer() {
    let world = World::new().await;
    let ask = ask("CODE-1", "acc");
    let new = world.provider.send(&ask).await;
    let again = world.provider.send(&ask).await;
    assert_eq!((status(&new), status(&again)), (201, 200));
    assert_eq!(first(&ask, &new), first(&ask, &again));
    assert_eq!(credited(&first(&ask, &new)), 1000);
    assert_eq!(world.look_up(&ask).await, first(&ask, &new));
    assert_eq!(successes(&world.rows()), 1);
}

#[tokio::test]
async fn many_at_once_with_one_key_credit_once() {
    let world = World::new().await;
    let ask = ask("CODE-1", "acc");
    let answers = join_all((0..20).map(|_| world.provider.send(&ask))).await;
    let statuses: Vec<u16> = answers.iter().map(status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 201, 409].contains(status)), "{statuses:?}");
    assert_eq!(successes(&world.rows()), 1);
}

#[tokio::test]
async fn many_keys_at_once_each_credit_and_one_card_credits_once() {
    let world = World::new().await;
    let asks: Vec<Ask> = (0..100).map(|n| ask(&format!("CODE-{n:04}"), "acc")).collect();
    for answer in join_all(asks.iter().map(|ask| world.provider.send(ask))).await {
        assert_eq!(status(&answer), 201);
    }
    let balances: HashSet<_> = world.rows().iter().map(|row| row.balance_minor).collect();
    assert!(balances.len() == 100 && balances.contains(&Some(100_000)));

    let same: Vec<Ask> = (0..20).map(|_| ask("ONE-CARD", "acc")).collect();
    let answers = join_all(same.iter().map(|ask| world.provider.send(ask))).await;
    assert_eq!(answers.iter().filter(|answer| status(answer) == 201).count(), 1);
}

#[tokio::test]
async fn a_key_with_another_payload_is_refused() {
    let world = World::new().await;
    let mut ask = ask("CODE-1", "acc");
    world.provider.send(&ask).await;
    ask.not_after = "2098-01-01T00:00:00Z".to_owned();
    let answer = world.provider.send(&ask).await;
    assert_eq!(status(&answer), 422);
    assert!(matches!(first(&ask, &answer), Step::InDoubt { .. }));
}

#[tokio::test]
async fn a_tombstone_refuses_a_later_arrival() {
    let world = World::new().await;
    let ask = ask("CODE-1", "acc");
    assert_eq!(world.look_up(&ask).await, Step::NotFound);
    for _ in 0..2 {
        let answer = world.provider.cancel(&ask).await;
        let step = classify(
            Profile::built_in(),
            &BTreeMap::new(),
            &ask,
            Call::Cancel,
            Doubt::InDoubt,
            &answer,
        );
        assert_eq!(failure(&step).reason, reason::CANCELLED);
    }
    let world = world.killed().await;
    let answer = world.provider.send(&ask).await;
    assert_eq!(status(&answer), 410);
    for doubt in [Doubt::FirstSend, Doubt::InDoubt] {
        let step =
            classify(Profile::built_in(), &BTreeMap::new(), &ask, Call::Send, doubt, &answer);
        assert_eq!(
            (&*failure(&step).reason, failure(&step).code_spent),
            (reason::CANCELLED, false)
        );
    }
    assert_eq!(failure(&world.look_up(&ask).await).reason, reason::CANCELLED);
    assert_eq!(successes(&world.rows()), 0);
}

#[tokio::test]
async fn a_cancel_that_comes_too_late_changes_nothing() {
    let world = World::new().await;
    let (won, lost) = (ask("CODE-1", "acc"), ask("CODE-1", "acc"));
    world.provider.send(&won).await;
    let answer = world.provider.cancel(&won).await;
    assert_eq!(status(&answer), 409);
    let step = classify(
        Profile::built_in(),
        &BTreeMap::new(),
        &won,
        Call::Cancel,
        Doubt::InDoubt,
        &answer,
    );
    assert!(matches!(step, Step::LookUp { .. }), "{step:?}");
    assert_eq!(credited(&world.look_up(&won).await), 1000);

    world.provider.send(&lost).await;
    let answer = world.provider.cancel(&lost).await;
    let step = classify(
        Profile::built_in(),
        &BTreeMap::new(),
        &lost,
        Call::Cancel,
        Doubt::InDoubt,
        &answer,
    );
    assert_eq!(failure(&step).reason, "CODE_USED");
}

#[tokio::test]
async fn refusals_say_why_and_whether_the_code_is_spent() {
    let dir = tempfile::tempdir().unwrap();
    let cards: PathBuf = dir.path().join("cards.csv");
    let text = "code,amount_minor,currency_code,country_code,state\n\
                FRESH-1,2500,EUR,FR,fresh\nUSED-1,2500,EUR,FR,used\nUSD-0001,2500,USD,US,\n";
    std::fs::write(&cards, text).unwrap();
    let world = World::with(|args| {
        args.cards = Some(cards);
        args.invalid_accounts = vec!["locked-out".to_owned()];
    })
    .await;
    let mut late = ask("FRESH-1", "acc");
    late.not_after = "2020-01-01T00:00:00Z".to_owned();
    let cases = [
        (late, "NOT_AFTER_PASSED", false),
        (ask("NO-SUCH", "acc"), "CODE_UNKNOWN", false),
        (ask("USED-1", "acc"), "CODE_USED", true),
        (ask("USD-0001", "acc"), "CURRENCY_NOT_ACCEPTED", false),
        (ask("FRESH-1", "locked-out"), reason::ACCOUNT_LOGIN_INVALID, false),
    ];
    for (ask, wanted, spent) in cases {
        for doubt in [Doubt::FirstSend, Doubt::InDoubt] {
            let answer = world.provider.send(&ask).await;
            assert_eq!(status(&answer), 402);
            let step =
                classify(Profile::built_in(), &BTreeMap::new(), &ask, Call::Send, doubt, &answer);
            assert_eq!((&*failure(&step).reason, failure(&step).code_spent), (wanted, spent));
        }
    }
    let code = |text| CardCode::parse(text).unwrap();
    let card = world.provider.inquire(&code("fresh 1"), Currency::NONE).await.card.unwrap();
    let amount = Money { amount_minor: 2500, currency: Currency::parse("EUR").unwrap() };
    let worth = Card::Redeemable { amount, country_code: Some("FR".to_owned()) };
    assert_eq!(card, Some(worth));
    let fresh = ask("FRESH-1", "acc");
    assert_eq!(credited(&first(&fresh, &world.provider.send(&fresh).await)), 2500);
    let spent = world.provider.inquire(&code("FRESH-1"), Currency::NONE).await.card.unwrap();
    assert_eq!(spent, Some(Card::NotRedeemable));
    assert!(world.provider.inquire(&code("NO-SUCH"), Currency::NONE).await.card.unwrap().is_none());
}

#[tokio::test]
async fn the_ledger_outlives_a_kill_and_a_torn_line() {
    let world = World::new().await;
    let asks: Vec<Ask> = (0..10).map(|n| ask(&format!("CODE-{n}"), "acc")).collect();
    for ask in &asks {
        assert_eq!(status(&world.provider.send(ask).await), 201);
    }
    let text = std::fs::read_to_string(&world.args.ledger).unwrap();
    assert!(!text.contains("CODE-"), "a code is in the ledger in clear");
    let mut file = std::fs::OpenOptions::new().append(true).open(&world.args.ledger).unwrap();
    file.write_all(br#"{"key":"torn"#).unwrap();
    assert!(Simulator::start(&world.args).await.is_err(), "two writers on one ledger");

    let world = world.killed().await;
    assert_eq!(world.rows().len(), 10);
    for ask in &asks {
        let answer = world.provider.send(ask).await;
        assert_eq!((status(&answer), credited(&first(ask, &answer))), (200, 1000));
    }
    let used = ask("code 3", "acc");
    let step = first(&used, &world.provider.send(&used).await);
    assert_eq!((&*failure(&step).reason, failure(&step).code_spent), ("CODE_USED", true));
    let next = ask("CODE-NEW", "acc");
    world.provider.send(&next).await;
    assert_eq!(world.rows().last().unwrap().balance_minor, Some(11_000));
}

#[tokio::test]
async fn what_was_completed_is_listed_in_pages() {
    let world = World::new().await;
    let asks: Vec<Ask> = (0..1001).map(|n| ask(&format!("CODE-{n:04}"), "acc")).collect();
    for some in asks.chunks(100) {
        join_all(some.iter().map(|ask| world.provider.send(ask))).await;
    }
    let (from, to) = ("2020-01-01T00:00:00Z", "2099-01-01T00:00:00+02:00");
    let euro = Currency::parse("EUR").unwrap();
    let list = async |from, page| world.provider.list((from, to), page, euro).await.unwrap();
    let page = list(from, None).await;
    let last = list(from, page.next.as_deref()).await;
    assert_eq!((page.redemptions.len(), last.redemptions.len()), (1000, 1));
    assert_eq!((page.without_key, last.next), (0, None));
    let keys: HashSet<_> =
        page.redemptions.iter().chain(&last.redemptions).map(|listed| &*listed.key).collect();
    assert!(asks.iter().all(|ask| keys.contains(&*ask.redemption_id.to_string())));
    assert!(page.redemptions.iter().all(|listed| listed.said == Said::Succeeded));
    assert!(list("2098-01-01T00:00:00Z", None).await.redemptions.is_empty());
}

#[tokio::test]
async fn a_stop_lets_go_of_the_port_and_the_ledger() {
    let world = World::new().await;
    let ask = ask("CODE-1", "acc");
    world.provider.send(&ask).await;
    world.simulator.stop().await.unwrap();
    let answer = world.provider.send(&ask).await;
    assert!(!matches!(answer, Answer::Http(_)), "{answer:?}");
    let simulator = Simulator::start(&world.args).await.unwrap();
    let answer = client(&simulator.url()).send(&ask).await;
    assert_eq!(status(&answer), 200);
    drop(world.dir);
}
