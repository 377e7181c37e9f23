//! The profiles of real APIs, against the simulator's fakes of them: each op is asked as the profile says, over real
//! HTTP, and its answer means what it should.

// clippy lets a test unwrap, but not the functions that tests share.
#![allow(clippy::unwrap_used)]

use std::{fs, time::Duration};

use holdfast::{
    domain::{
        id::RedemptionId,
        money::{Currency, Money},
        redemption::CardCode,
    },
    provider::{
        check::check,
        classify::{Circumstances, Doubt, Proof, Secrets, Subject, judge},
        profile::{Answered, OpKind, Profile, Values},
    },
    simulator::{
        Api, Simulator, SimulatorArgs,
        faults::{Fault, Faults},
        ledger::{self, State},
    },
};
use reqwest::Method;
use time::OffsetDateTime;

use crate::support::wait::eventually;

const CODE: &str = "CARD-1234";
const ACCOUNT: &str = "account-1";

/// A fake, the profile that asks it, and one redemption.
struct World {
    simulator: Simulator,
    args: SimulatorArgs,
    profile: Profile,
    values: Values,
    _dir: tempfile::TempDir,
}

impl World {
    /// With a profile's file, whose base becomes the fake's address.
    async fn new(api: Api, file: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let accounts = dir.path().join("accounts.csv");
        fs::write(&accounts, format!("username,password\n{ACCOUNT},good\n")).unwrap();
        let args = SimulatorArgs {
            api,
            currency: "USD".to_owned(),
            api_key: Some("the-key".to_owned()),
            api_secret: Some("the-secret".to_owned()),
            accounts: Some(accounts),
            ..SimulatorArgs::new(dir.path().join("ledger"))
        };
        let simulator = Simulator::start(&args).await.unwrap();
        let path = format!("{}/profiles/{file}.toml", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(path).unwrap();
        let base = text.lines().find(|line| line.starts_with("base = ")).unwrap();
        let text = text.replace(base, &format!("base = \"{}\"", simulator.url()));
        let profile = Profile::parse(&text).unwrap_or_else(|faults| panic!("{faults:?}"));
        let mut values = Values::at(OffsetDateTime::now_utc());
        values.key = Some(profile.identity.key.of(RedemptionId::new()));
        values.code = Some(CODE.to_owned());
        values.account.id = Some(ACCOUNT.to_owned());
        for (name, value) in [("username", ACCOUNT), ("password", "good")] {
            values.account.secrets.insert(name.to_owned(), value.to_owned());
        }
        for (name, value) in
            [("api_key", "the-key"), ("access_token", "the-key"), ("api_secret", "the-secret")]
        {
            values.secrets.insert(name.to_owned(), value.to_owned());
        }
        values.expected = Some(usd(1000));
        Self { simulator, args, profile, values, _dir: dir }
    }

    fn fault(&self, fault: Fault) {
        let rules = Faults::of_card("", &[fault]);
        self.simulator.set_faults(Faults { rules, ..Faults::default() }).unwrap();
    }

    /// Asks an op, and says what the answer proves.
    async fn ask(&self, op: OpKind) -> Proof {
        let mut values = self.values.clone();
        values.now = OffsetDateTime::now_utc();
        let request = self.profile.request(op, &values).unwrap_or_else(|why| panic!("{why}"));
        let method = Method::from_bytes(request.method.as_bytes()).unwrap();
        let mut call = reqwest::Client::new().request(method, request.url());
        for (name, value) in &request.headers {
            call = call.header(name, value);
        }
        let answer = call.body(request.body.unwrap_or_default()).send().await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.bytes().await.unwrap();
        let subject = Subject {
            key: values.key.clone().unwrap(),
            task: values.task.clone(),
            account: ACCOUNT.to_owned(),
            currency: Currency::parse("USD").unwrap(),
            code: CardCode::parse(CODE).ok(),
            recorded_at: values.now,
            secrets: Secrets::default(),
        };
        let circumstances = Circumstances {
            doubt: if op == OpKind::Send { Doubt::FirstSend } else { Doubt::InDoubt },
            in_window: true,
            is_alone: true,
            since_recorded: Duration::from_secs(1),
            since_last_send: Some(Duration::from_secs(1)),
        };
        let answered = Answered { status, body: &body, retry_after: None };
        judge(&self.profile, op, &values, &subject, &circumstances, (&[answered], true))
    }

    /// Asks an op until it proves that the card was credited, and gives the amount.
    async fn credited(&self, op: OpKind) -> Money {
        let ask = async || match self.ask(op).await {
            Proof::Succeeded { amount, .. } => Some(amount),
            Proof::Processing { .. } => None,
            other => panic!("{other:?}"),
        };
        eventually(Duration::from_secs(10), "the card is credited", ask).await
    }

    fn credits(&self) -> Vec<(Option<String>, i64)> {
        let rows = ledger::read(&self.args.ledger).unwrap().into_iter();
        let credited = rows.filter(|row| row.state == State::Succeeded);
        credited.map(|row| (row.account_ref, row.amount_minor)).collect()
    }
}

fn usd(amount_minor: i64) -> Money {
    Money { amount_minor, currency: Currency::parse("USD").unwrap() }
}

/// Whether the card is spent, of a failure.
#[track_caller]
fn spent(proof: &Proof) -> bool {
    match proof {
        Proof::Failed { failure, .. } => failure.code_spent,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_task_profile_creates_a_task_and_polls_it_until_its_result() {
    let mut world = World::new(Api::Task, "task-api").await;
    world.fault(Fault::Slow202);
    let Proof::Processing { task: Some(task), .. } = world.ask(OpKind::Send).await else {
        panic!("no task was told");
    };
    world.values.task = Some(task);
    assert!(matches!(world.ask(OpKind::LookUp).await, Proof::Processing { .. }));
    assert_eq!(world.credited(OpKind::LookUp).await, usd(1000));
    assert_eq!(world.credits(), [(Some(ACCOUNT.to_owned()), 1000)]);

    // The card again is another task, and it is spent.
    for (password, is_spent) in [("good", true), ("wrong", false)] {
        world.values.account.secrets.insert("password".to_owned(), password.to_owned());
        let Proof::Processing { task: Some(task), .. } = world.ask(OpKind::Send).await else {
            panic!("no task was told");
        };
        world.values.task = Some(task);
        let proof = world.ask(OpKind::LookUp).await;
        assert_eq!(spent(&proof), is_spent, "{proof:?}");
    }
    world.values.task = Some("t-0".to_owned());
    assert!(matches!(world.ask(OpKind::LookUp).await, Proof::NotFound { .. }));
    world.fault(Fault::Busy);
    assert!(matches!(world.ask(OpKind::Send).await, Proof::NotExecuted { .. }));
    assert_eq!(world.credits().len(), 1);
}

#[tokio::test]
async fn the_square_profile_sends_again_and_finds_by_its_reference() {
    let mut world = World::new(Api::Square, "square").await;
    assert!(matches!(world.ask(OpKind::Find).await, Proof::NotFound { .. }));
    assert!(matches!(world.ask(OpKind::Inquire).await, Proof::Succeeded { .. }));
    world.fault(Fault::Slow202);
    assert!(matches!(world.ask(OpKind::Send).await, Proof::Processing { .. }));
    assert_eq!(world.credited(OpKind::Find).await, usd(1000));
    assert_eq!(world.credited(OpKind::Send).await, usd(1000), "the same key again");
    assert!(spent(&world.ask(OpKind::Inquire).await));
    assert_eq!(world.credits(), [(Some(ACCOUNT.to_owned()), 1000)]);
    // Another key finds nothing left on the card.
    world.values.key = Some(world.profile.identity.key.of(RedemptionId::new()));
    assert!(!spent(&world.ask(OpKind::Send).await));
    world.values.secrets.insert("access_token".to_owned(), "another".to_owned());
    let refused = world.ask(OpKind::Send).await;
    assert!(matches!(refused, Proof::NotExecuted { unauthorized: true, .. }), "{refused:?}");
}

#[tokio::test]
async fn the_fiserv_profile_signs_finds_in_an_array_and_takes_back() {
    let mut world = World::new(Api::Fiserv, "fiserv").await;
    assert!(matches!(world.ask(OpKind::Find).await, Proof::NotFound { .. }));
    world.fault(Fault::Slow202);
    assert!(matches!(world.ask(OpKind::Send).await, Proof::Processing { .. }));
    assert_eq!(world.credited(OpKind::Find).await, usd(1000));
    assert!(matches!(world.ask(OpKind::Send).await, Proof::Duplicate { .. }));
    assert_eq!(world.credits(), [(Some(ACCOUNT.to_owned()), 1000)]);
    let undone = world.ask(OpKind::Reverse).await;
    assert!(matches!(undone, Proof::Undone(_)), "{undone:?}");
    assert!(!spent(&world.ask(OpKind::Find).await));
    // The card has what it had: another key is credited.
    world.values.key = Some(world.profile.identity.key.of(RedemptionId::new()));
    assert_eq!(world.credited(OpKind::Send).await, usd(1000));
    world.values.secrets.insert("api_secret".to_owned(), "another".to_owned());
    let refused = world.ask(OpKind::Send).await;
    assert!(matches!(refused, Proof::NotExecuted { unauthorized: true, .. }), "{refused:?}");
}

#[test]
fn each_profile_of_the_tree_is_right_and_has_ten_cases_of_its_answers() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles");
    let mut count = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let profile = check(&fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|faults| panic!("{}: {faults:?}", path.display()));
        assert!(profile.case_count() >= 10, "{}", path.display());
        count += 1;
    }
    assert!(count >= 8);
}
