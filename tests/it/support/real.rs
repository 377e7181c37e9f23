//! Fakes of real APIs as processes of their own, and the profiles that redeem over them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use holdfast::{rpc::pb, simulator::faults::Faults};

use super::{
    books::{Books, NamedBy},
    checks::CREDENTIAL_MARK,
    fleet::{Process, put_faults},
    world::Clients,
};

/// What a card is worth.
pub(crate) const MINOR: i64 = 1000;

/// The key that the fakes ask for, and what requests are signed with. Logs hold neither.
pub(crate) const API_KEY: &str = "HFSECR-key";
const API_SECRET: &str = "HFSECR-sign";

/// A real API of which there is a fake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Real {
    /// Tasks, which are polled by their id. Nothing is deduplicated, and a task whose id is lost is never found.
    Task,
    /// A key that comes again is answered as at first; activities are searched.
    Square,
    /// A key that comes again is refused; transactions are searched.
    Fiserv,
}

impl Real {
    /// The name of its profile.
    pub(crate) fn provider_id(self) -> &'static str {
        match self {
            Self::Task => "task-api",
            Self::Square => "square",
            Self::Fiserv => "fiserv",
        }
    }

    fn api(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Square => "square",
            Self::Fiserv => "fiserv",
        }
    }

    /// Its profile's file with another base, and times that a test can wait for.
    pub(crate) fn profile(self, url: &str) -> String {
        let path = format!("{}/profiles/{}.toml", env!("CARGO_MANIFEST_DIR"), self.provider_id());
        let times = [
            ("base = ", format!("base = \"{url}\"")),
            ("timeout = ", "timeout = \"1s\"".to_owned()),
            ("visibility = ", "visibility = \"200ms\"".to_owned()),
            ("max_processing = ", "max_processing = \"4s\"".to_owned()),
            ("send_window = ", "send_window = \"3s\"".to_owned()),
            // What one machine may send to a real service is less than a test does.
            ("rate = ", "rate = \"10000/s\"".to_owned()),
            // Each answer that is lost counts as a refusal, and here most are lost on purpose.
            ("brake = ", String::new()),
        ];
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| {
            let other = times.iter().find(|(start, _)| line.starts_with(start));
            other.map_or(line.to_owned(), |(_, other)| other.clone())
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Its ledger.
    pub(crate) fn books(self, ledger: PathBuf) -> Books {
        let named_by = match self {
            Self::Task => NamedBy::Task,
            Self::Square => NamedBy::Id,
            Self::Fiserv => NamedBy::Hex,
        };
        Books { provider_id: self.provider_id(), ledger, named_by }
    }

    /// Gives servers what the profile names of secrets.
    pub(crate) fn give_secrets(self, secrets_dir: &Path) {
        let folder = secrets_dir.join(self.provider_id());
        fs::create_dir_all(&folder).unwrap();
        let secrets = [
            ("api_key", API_KEY),
            ("access_token", API_KEY),
            ("api_secret", API_SECRET),
            ("webhook_key", API_SECRET),
            ("webhook_url", "https://holdfast.example/webhooks/x"),
        ];
        for (name, secret) in secrets {
            crate::support::secrets::write_secret(folder.join(name), secret);
        }
    }
}

/// A fake that runs, and can be killed.
pub(crate) struct Fake {
    pub(crate) real: Real,
    process: Process,
    folder: PathBuf,
}

impl Fake {
    /// Starts one with a ledger of its own in the folder.
    pub(crate) async fn start(real: Real, folder: &Path) -> Self {
        let process = Self::process(real, folder, "127.0.0.1:0").await;
        Self { real, process, folder: folder.to_owned() }
    }

    async fn process(real: Real, folder: &Path, listen: &str) -> Process {
        let args = [
            "simulate-provider".to_owned(),
            format!("--api={}", real.api()),
            format!("--listen={listen}"),
            format!("--ledger={}", Self::ledger_of(real, folder).display()),
            "--currency=USD".to_owned(),
            format!("--default-amount-minor={MINOR}"),
        ];
        let secrets = [
            ("HOLDFAST_SIMULATOR_API_KEY", API_KEY),
            ("HOLDFAST_SIMULATOR_API_SECRET", API_SECRET),
        ];
        Process::start(real.api(), folder, &args, &secrets).await
    }

    fn ledger_of(real: Real, folder: &Path) -> PathBuf {
        folder.join(format!("{}.jsonl", real.api()))
    }

    pub(crate) fn books(&self) -> Books {
        self.real.books(Self::ledger_of(self.real, &self.folder))
    }

    /// The profile that redeems over it.
    pub(crate) fn profile(&self) -> String {
        self.real.profile(&format!("http://{}", self.process.addr))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it at the same address with what was on disk, unless it runs. Nothing goes wrong there then.
    pub(crate) async fn revive(&mut self) {
        if !self.process.is_running() {
            let addr = self.process.addr.clone();
            self.process = Self::process(self.real, &self.folder, &addr).await;
        }
    }

    /// What goes wrong there from now on.
    pub(crate) async fn set_faults(&self, faults: &Faults) {
        put_faults(&self.process.addr, faults).await;
    }

    pub(crate) async fn end(&mut self) {
        self.process.end().await;
    }
}

/// Applies a profile and makes a pool of it, with accounts and their logins.
pub(crate) async fn prepare(
    clients: &mut Clients,
    real: Real,
    profile: String,
    pool_id: &str,
    accounts: usize,
) {
    let request = pb::ApplyProviderRequest { profile };
    clients.providers.apply_provider(request).await.unwrap();
    let pool = pb::Pool {
        pool_id: pool_id.to_owned(),
        provider_id: real.provider_id().to_owned(),
        currency_code: "USD".to_owned(),
        ..Default::default()
    };
    clients.pools.create_pool(pb::CreatePoolRequest { pool: Some(pool) }).await.unwrap();
    let account = |number: usize| {
        let account_id = format!("account-{number}");
        let password = format!("{CREDENTIAL_MARK}-password-{number}");
        let credentials = [("username", account_id.clone()), ("password", password)];
        let account = pb::Account {
            pool_id: pool_id.to_owned(),
            account_id,
            credentials: credentials.map(|(name, value)| (name.to_owned(), value)).into(),
            ..Default::default()
        };
        pb::ImportAccountsRequest { account: Some(account) }
    };
    let stream = tokio_stream::iter((0..accounts).map(account).collect::<Vec<_>>());
    let reply = clients.accounts.import_accounts(stream).await.unwrap().into_inner();
    assert_eq!(reply.created, i64::try_from(accounts).unwrap(), "{reply:?}");
}
