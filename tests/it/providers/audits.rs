//! `holdfast redemption audit` where pools are of several providers, each by its profile.

use std::process::Command;

use holdfast::{
    rpc::pb::{self, RedemptionState},
    simulator::{Api, Simulator, SimulatorArgs},
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{apply, give_secret};
use crate::support::{
    real::Real,
    world::{Clients, World, lease, seconds},
};

/// The profile of a real API, with a fake's address.
fn profile(name: &str, url: &str) -> String {
    let all = [Real::Task, Real::Square, Real::Fiserv];
    all.into_iter().find(|real| real.provider_id() == name).unwrap().profile(url)
}

/// A world with the fakes of several APIs, a pool of each, and redemptions in them.
struct Several {
    world: World,
    clients: Clients,
    simulators: Vec<Simulator>,
    _folder: tempfile::TempDir,
}

struct Audited {
    code: Option<i32>,
    rows: Vec<Value>,
    printed: String,
}

impl Audited {
    fn found(&self) -> Vec<(&str, &str, &str)> {
        let text = |row: &'_ Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let mut found: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                assert!(!text(row, "difference").is_empty());
                (
                    row["difference"].as_str().unwrap(),
                    row["pool_id"].as_str().unwrap_or_default(),
                    row["redemption_id"].as_str().unwrap(),
                )
            })
            .collect();
        found.sort_unstable();
        found
    }

    #[track_caller]
    fn is(&self, differences: &[(&str, &str, &str)], compared: usize) -> &Self {
        let mut expected = differences.to_vec();
        expected.sort_unstable();
        let code = if differences.is_empty() { 0 } else { 3 };
        assert_eq!((self.code, self.found()), (Some(code), expected), "{}", self.printed);
        let begins = format!("{compared} redemptions compared");
        assert!(self.printed.lines().any(|line| line.starts_with(&begins)), "{}", self.printed);
        self
    }

    #[track_caller]
    fn says(&self, part: &str) -> &Self {
        assert!(self.printed.contains(part), "{part}: {}", self.printed);
        self
    }
}

async fn audit(world: &World, more: &[&str]) -> Audited {
    let now = OffsetDateTime::now_utc();
    let time = |time: OffsetDateTime| time.format(&Rfc3339).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command
        .args(["redemption", "audit", "--format", "json"])
        .args(["--server", &format!("http://{}", world.server(0).addr())])
        .args(["--from", &time(now - Duration::HOUR), "--to", &time(now + Duration::HOUR)])
        .env("HOLDFAST_PROVIDER_URL", &world.args().provider.url)
        .env("HOLDFAST_SECRETS_DIR", world.args().secrets_dir.as_ref().unwrap())
        .args(more);
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let rows = match &*String::from_utf8(done.stdout).unwrap() {
        "" => Vec::new(),
        text => serde_json::from_str(text).unwrap(),
    };
    Audited { code: done.status.code(), rows, printed: String::from_utf8(done.stderr).unwrap() }
}

const APIS: [(&str, Api); 2] = [("square", Api::Square), ("fiserv", Api::Fiserv)];

impl Several {
    async fn start() -> Self {
        let world = World::start().await;
        let folder = tempfile::tempdir().unwrap();
        let mut it = Self {
            clients: world.clients(0).await,
            world,
            simulators: Vec::new(),
            _folder: folder,
        };
        for (name, api) in APIS {
            it.add(name, api).await;
        }
        it
    }

    /// Adds a provider, and a pool of its name.
    async fn add(&mut self, name: &str, api: Api) {
        let args = SimulatorArgs {
            api,
            currency: "USD".to_owned(),
            api_key: Some("the-key".to_owned()),
            api_secret: Some("the-secret".to_owned()),
            ..SimulatorArgs::new(self._folder.path().join(name))
        };
        let simulator = Simulator::start(&args).await.unwrap();
        for secret in ["api_key", "access_token"] {
            give_secret(&self.world, name, secret, "the-key");
        }
        for secret in ["api_secret", "webhook_key", "webhook_url"] {
            give_secret(&self.world, name, secret, "the-secret");
        }
        apply(&mut self.clients, &profile(name, &simulator.url())).await.unwrap();
        self.simulators.push(simulator);
        let pool = pb::Pool {
            pool_id: name.to_owned(),
            provider_id: name.to_owned(),
            currency_code: "USD".to_owned(),
            ..Default::default()
        };
        self.clients.pools.create_pool(pb::CreatePoolRequest { pool: Some(pool) }).await.unwrap();
        let credentials = [("username", "bob"), ("password", "hunter22")];
        let account = pb::Account {
            pool_id: name.to_owned(),
            account_id: format!("account of {name}"),
            credentials: credentials.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..Default::default()
        };
        let request = pb::CreateAccountRequest { account: Some(account) };
        self.clients.accounts.create_account(request).await.unwrap();
    }

    async fn redeem(&mut self, pool: &str, code: &str) -> pb::Redemption {
        let acquired = self.clients.acquire(|request| {
            request.pool_id = pool.to_owned();
            request.wait_timeout = seconds(20.0);
        });
        let lease = lease(&acquired.await.unwrap());
        let currency_code = if pool == crate::support::world::POOL { "EUR" } else { "USD" };
        let code = self.world.code(code);
        let redeemed = self.clients.redeem(&lease, &code, |request| {
            let currency_code = currency_code.to_owned();
            request.expected = Some(pb::Money { amount_minor: 1000, currency_code });
            request.release_on_completion = true;
        });
        let redemption = redeemed.await.unwrap().redemption.unwrap();
        assert_eq!(redemption.state(), RedemptionState::Succeeded, "{redemption:?}");
        redemption
    }

    async fn add_to_amount(&self, by: i64, redemption: &pb::Redemption) {
        let id: Uuid = redemption.redemption_id.parse().unwrap();
        let change =
            "UPDATE redemptions SET amount_minor = amount_minor + $1 WHERE redemption_id = $2";
        let mut db = self.world.sql().await;
        let done = sqlx::query(change).bind(by).bind(id).execute(&mut db).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
    }
}

#[tokio::test]
async fn each_pool_is_compared_with_its_own_provider_by_a_list_or_by_look_ups() {
    let mut it = Several::start().await;
    it.clients.create_accounts(1).await;
    let mut made = Vec::new();
    for pool in [crate::support::world::POOL, "square", "fiserv"] {
        for number in 0..3 {
            made.push(it.redeem(pool, &format!("{pool} {number}")).await);
        }
    }
    let audited = audit(&it.world, &[]).await;
    audited
        .is(&[], 9)
        .says("fiserv has no list")
        .says("credited in USD: 6000 by our records, 6000");
    assert!(!audited.printed.contains("square has no list"), "{}", audited.printed);

    // A wrong record of ours is found at each, whichever way that is asked.
    for index in [0, 3, 6] {
        it.add_to_amount(1, &made[index]).await;
    }
    let id = |index: usize| made[index].redemption_id.as_str();
    let pool = crate::support::world::POOL;
    let amount = |pool: &'static str, index: usize| ("AMOUNT", pool, id(index));
    let wrong = [amount(pool, 0), amount("square", 3), amount("fiserv", 6)];
    audit(&it.world, &[]).await.is(&wrong, 9);
    audit(&it.world, &["--provider", "square"]).await.is(&wrong[1..2], 3);
    audit(&it.world, &["--pool", "fiserv"]).await.is(&wrong[2..], 3);
    for index in [0, 3, 6] {
        it.add_to_amount(-1, &made[index]).await;
    }

    // What somebody else redeemed under a key like ours is seen where there is a list.
    let strange = Uuid::now_v7().to_string();
    let activity = json!({
        "idempotency_key": strange,
        "gift_card_activity": {
            "type": "REDEEM",
            "location_id": "account of square",
            "gift_card_gan": it.world.code("strange"),
            "redeem_activity_details": {
                "amount_money": {"amount": 1000, "currency": "USD"},
                "reference_id": strange,
            },
        },
    });
    let url = format!("{}/v2/gift-cards/activities", it.simulators[0].url());
    let sent = reqwest::Client::new().post(url).bearer_auth("the-key").json(&activity).send();
    assert_eq!(sent.await.unwrap().status(), 200);
    audit(&it.world, &[]).await.is(&[("MISSING_HERE", "", &strange)], 10);

    let ledger = it.world.ledger.to_str().unwrap();
    let several = audit(&it.world, &["--ledger", ledger]).await;
    assert_eq!(several.code, Some(1));
    several.says("a ledger is one provider's: name it with --provider");
    audit(&it.world, &["--ledger", ledger, "--provider", "holdfast"]).await.is(&[], 3);
}

#[tokio::test]
async fn redemptions_are_asked_about_under_the_version_they_were_begun_under() {
    let mut it = Several::start().await;
    let first = it.redeem("fiserv", "first").await;
    assert_eq!((&*first.provider_id, first.provider_version), ("fiserv", 1));
    // Under the second version look-ups find nothing.
    let second = profile("fiserv", &it.simulators[1].url());
    let second = second.replace("version = 1\n", "version = 2\n");
    let second = second.replacen("/payments/v1/transaction-inquiry", "/payments/v1/nowhere", 1);
    apply(&mut it.clients, &second).await.unwrap();
    audit(&it.world, &["--provider", "fiserv"]).await.is(&[], 1);
    it.add_to_amount(1, &first).await;
    let wrong = [("AMOUNT", "fiserv", &*first.redemption_id)];
    audit(&it.world, &["--provider", "fiserv"]).await.is(&wrong, 1);
    it.add_to_amount(-1, &first).await;
}

#[tokio::test]
async fn a_provider_that_cannot_be_asked_is_an_error_before_anything_is_compared() {
    let mut it = Several::start().await;
    it.add("task-api", Api::Task).await;
    it.redeem("square", "fine").await;
    let refused = audit(&it.world, &[]).await;
    assert_eq!((refused.code, refused.rows.len()), (Some(1), 0));
    refused.says("task-api cannot be audited: it has no list, and cannot be asked");
    refused.says("account.secret.username").says("--pool and --provider leave pools out");
    audit(&it.world, &["--provider", "square"]).await.is(&[], 1);
    // All that is wrong at once: a secret that is not here too.
    let folder = it.world.args().secrets_dir.as_ref().unwrap();
    std::fs::remove_file(folder.join("fiserv/api_key")).unwrap();
    let refused = audit(&it.world, &[]).await;
    refused.says("task-api cannot be audited").says("fiserv cannot be audited: secret.api_key");
    let none = audit(&it.world, &["--provider", "nobody"]).await;
    none.says("no pool that is to be audited is of the provider nobody");
    let dead =
        audit(&it.world, &["--provider", "holdfast", "--provider-url", "http://127.0.0.1:1"]);
    dead.await.says("the provider's list cannot be read");
}
