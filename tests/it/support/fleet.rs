//! Holdfast as it runs: servers and the provider as processes of their own, which can be killed,
//! stopped and let go on. When it is dropped the invariants are checked, so no test can forget to.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use holdfast::{
    domain::access::Role,
    secret::{self, SecretKeys},
    simulator::faults::Faults,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::{
    checks::{self, Scene},
    cluster::TestDatabase,
    journal::Journal,
    proxy::{Proxy, http::Http},
    real::{Fake, Real},
    tokens::{self, ADMIN, Tokens},
    wait::eventually,
    world::{Clients, fresh_database},
};

/// How every code begins that is redeemed over a fleet.
const CODE_PREFIX: &str = "FLCODE";
/// How long a process may take to start, on a machine that is busy.
const START: Duration = Duration::from_secs(30);
/// The folder of the providers' secrets.
const SECRETS: &str = "secrets";

/// A process of the program under test. Killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    /// Where it listens.
    pub(crate) addr: String,
    log: PathBuf,
}

impl Process {
    /// Starts a command of the program, and waits until it listens or has ended.
    pub(crate) async fn start(
        name: &str,
        folder: &Path,
        args: &[String],
        env: &[(&str, &str)],
    ) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = folder.join(format!("{name}-{number}.log"));
        let file = File::create(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        let surroundings = std::env::vars_os().map(|(name, _)| name);
        for name in surroundings.filter(|name| name.to_string_lossy().starts_with("HOLDFAST_")) {
            command.env_remove(name);
        }
        let child = command
            .args(args)
            // Ends with this process, however that ends.
            .arg("--while-stdin-is-open")
            .env("HOLDFAST_LOG", "debug,h2=info,hyper_util=info,sqlx=info")
            // Only the tests of access ask callers who they are.
            .env("HOLDFAST_AUTH", "off")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let mut process = Self { child, addr: String::new(), log };
        process.addr = eventually(START, &format!("{name} listens"), async || {
            assert!(process.is_running(), "{name} did not start: {}", process.said());
            process.listening()
        })
        .await;
        process
    }

    /// Where it says that it listens.
    fn listening(&self) -> Option<String> {
        self.said().lines().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let says_so = ["listening", "simulating the provider"];
            let says_so = says_so.iter().any(|message| line["message"] == *message);
            let addr = line["addr"].as_str().or(line["address"].as_str()).filter(|_| says_so);
            addr.map(str::to_owned)
        })
    }

    /// What it has logged.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Where a server's operators ask.
    pub(crate) fn admin_addr(&self) -> String {
        let said = self.said();
        let (_, rest) = said.split_once("\"admin_addr\":\"").expect("it listens");
        rest.split('"').next().unwrap().to_owned()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How much memory it occupies now, in MiB.
    pub(crate) fn memory_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// The most that it occupied at any time, in MiB.
    pub(crate) fn most_memory_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Whether it stands still.
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        // The state comes after the name, which is in brackets.
        stat.is_ok_and(|stat| stat.rsplit(')').next().unwrap_or("").trim().starts_with('T'))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it stand still.
    pub(crate) fn stop(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        // One that has ended is not there any more.
        let _ = kill_process(self.pid(), Signal::CONT);
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn end(&mut self) {
        if !self.is_running() {
            return;
        }
        self.go_on();
        kill_process(self.pid(), Signal::TERM).unwrap();
        eventually(START, "a process ends", async || (!self.is_running()).then_some(())).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the provider can do, and what the servers are told that it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Able {
    pub(crate) deduplicates: bool,
    pub(crate) looks_up: bool,
    pub(crate) cancels: bool,
}

impl Able {
    fn flags(self, prefix: &str) -> [String; 3] {
        [
            format!("--{prefix}deduplicates={}", self.deduplicates),
            format!("--{prefix}looks-up={}", self.looks_up),
            format!("--{prefix}cancels={}", self.cancels),
        ]
    }
}

/// How a fleet is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) able: Able,
    /// Flags for the servers, after the fleet's own.
    pub(crate) serve: Vec<String>,
    /// Flags for the provider, after the fleet's own.
    pub(crate) provider: Vec<String>,
}

/// See the module.
pub(crate) struct Fleet {
    pub(crate) db_url: String,
    pub(crate) servers: Vec<Process>,
    pub(crate) journal: Journal,
    tokens: Tokens,
    /// The secret of the admin's token, where servers ask who calls.
    admin: Option<String>,
    /// Fakes of real APIs, beside the provider.
    pub(crate) fakes: Vec<Fake>,
    setup: Setup,
    number: u32,
    provider: Option<Process>,
    /// What servers that are started from now on reach the provider through.
    before_provider: Option<Arc<Proxy<Http>>>,
    database: Option<TestDatabase>,
    folder: Option<TempDir>,
    /// It is torn down, or another is that took its parts.
    is_over: bool,
}

impl Fleet {
    /// A provider and a database, and no server yet.
    pub(crate) async fn start(setup: Setup) -> Self {
        let database = fresh_database().await;
        Self::over(setup, database.url.clone(), Some(database)).await
    }

    /// The same over a database that the servers reach by `db_url`.
    pub(crate) async fn over(setup: Setup, db_url: String, database: Option<TestDatabase>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // In memory where there is room: a disk that is busy with other things would make a provider
        // that syncs slow, and what it told late is in doubt.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let _ = SecretKeys::create_beside(folder.path()).unwrap();
        let ledger = folder.path().join("ledger.jsonl");
        let mut args = vec![
            "simulate-provider".to_owned(),
            "--listen=127.0.0.1:0".to_owned(),
            format!("--ledger={}", ledger.display()),
        ];
        args.extend(setup.able.flags(""));
        args.extend(setup.provider.iter().cloned());
        let provider = Process::start("provider", folder.path(), &args, &[]).await;
        Self {
            db_url,
            servers: Vec::new(),
            journal: Journal::default(),
            tokens: Tokens::default(),
            admin: None,
            fakes: Vec::new(),
            setup,
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            provider: Some(provider),
            before_provider: None,
            database,
            folder: Some(folder),
            is_over: false,
        }
    }

    /// Starts a fake of a real API, and gives the servers its secrets.
    pub(crate) async fn start_fake(&mut self, real: Real) -> usize {
        real.give_secrets(&self.folder().join(SECRETS));
        self.fakes.push(Fake::start(real, self.folder()).await);
        self.fakes.len() - 1
    }

    /// Starts one more server; with `env`, of crash points for instance.
    pub(crate) async fn start_server(&mut self, env: &[(&str, &str)]) -> usize {
        let server = self.new_server("127.0.0.1:0", env).await;
        self.servers.push(server);
        self.servers.len() - 1
    }

    /// Starts a server anew at the address that it had, after it has ended.
    pub(crate) async fn restart_server(&mut self, place: usize) {
        let addr = self.servers[place].addr.clone();
        self.servers[place] = self.new_server(&addr, &[]).await;
    }

    async fn new_server(&self, listen: &str, env: &[(&str, &str)]) -> Process {
        let folder = self.folder();
        let provider_url = match &self.before_provider {
            Some(proxy) => proxy.url(),
            None => format!("http://{}", self.provider.as_ref().unwrap().addr),
        };
        let key = folder.join(secret::FILE_NAME);
        let mut args = vec![
            "serve".to_owned(),
            format!("--listen={listen}"),
            "--admin-listen=127.0.0.1:0".to_owned(),
            "--database-connections=6".to_owned(),
            format!("--secret-key-file={}", key.display()),
            format!("--secrets-dir={}", folder.join(SECRETS).display()),
            format!("--provider-url={provider_url}"),
            "--sweep-interval=100ms".to_owned(),
            "--reconcile-interval=100ms".to_owned(),
            "--drain-delay=0s".to_owned(),
            "--shutdown-timeout=5s".to_owned(),
            "--provider-timeout=1500ms".to_owned(),
            "--provider-connect-timeout=500ms".to_owned(),
            "--provider-send-window=2s".to_owned(),
            "--provider-visibility-horizon=200ms".to_owned(),
            "--provider-max-processing-time=3s".to_owned(),
        ];
        args.extend(self.setup.able.flags("provider-"));
        args.extend(self.setup.serve.iter().cloned());
        let args = latest(&args);
        let mut env = env.to_vec();
        env.push(("HOLDFAST_DATABASE_URL", &self.db_url));
        if self.admin.is_some() {
            env.push(("HOLDFAST_AUTH", "on"));
        }
        Process::start("server", folder, &args, &env).await
    }

    /// A proxy through which servers that are started from now on reach the provider.
    pub(crate) fn go_through_a_proxy(&mut self) -> Arc<Proxy<Http>> {
        let provider = self.provider.as_ref().unwrap().addr.parse().unwrap();
        let proxy = Arc::new(Proxy::<Http>::before(provider));
        self.before_provider = Some(Arc::clone(&proxy));
        proxy
    }

    /// Whether the first server has ended or stands still.
    pub(crate) fn first_is_gone(&mut self) -> bool {
        !self.servers[0].is_running() || self.servers[0].is_stopped()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.folder().join("ledger.jsonl")
    }

    /// The clients of a server. They connect when they are first used, and again when they must.
    pub(crate) fn clients(&self, place: usize) -> Clients {
        let channel = channel(&self.servers[place].addr);
        Clients::showing(channel, self.admin.as_deref(), self.journal.clone())
    }

    /// Servers that are started from now on ask who calls. [`Fleet::clients`] are the admin's then.
    pub(crate) async fn ask_who_calls(&mut self) {
        self.admin = Some(self.tokens.of(&self.db_url, ADMIN, Role::Admin).await);
    }

    /// The clients of the principal `token:NAME` with a role everywhere.
    pub(crate) async fn clients_as(&self, place: usize, principal: &str, role: Role) -> Clients {
        let secret = self.tokens.of(&self.db_url, principal, role).await;
        let channel = channel(&self.servers[place].addr);
        tokens::accepted(&channel, &secret).await;
        Clients::showing(channel, Some(&secret), self.journal.clone())
    }

    /// A code that no other fleet has.
    pub(crate) fn code(&self, name: &str) -> String {
        format!("{CODE_PREFIX}-{:04}-{name}", self.number)
    }

    /// What goes wrong at the provider from now on.
    pub(crate) async fn set_faults(&self, faults: &Faults) {
        put_faults(&self.provider.as_ref().unwrap().addr, faults).await;
    }

    /// Ends everything, and answers with the promises that were broken.
    pub(crate) async fn finish(&mut self) -> Vec<checks::Broken> {
        self.set_faults(&Faults::default()).await;
        for fake in &self.fakes {
            fake.set_faults(&Faults::default()).await;
        }
        self.servers.retain_mut(Process::is_running);
        self.servers.iter().for_each(Process::go_on);
        if self.servers.is_empty() {
            self.start_server(&[]).await;
        }
        checks::everything_settles(&self.db_url).await;
        checks::leases_end(&self.db_url).await;
        self.end_processes().await;
        let logs = fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().path());
        let logs: Vec<_> =
            logs.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
        let others: Vec<_> = self.fakes.iter().map(Fake::books).collect();
        let scene = Scene {
            url: &self.db_url,
            ledger: &self.ledger(),
            others: &others,
            code_prefix: &format!("{CODE_PREFIX}-{:04}", self.number),
            journal: &self.journal,
            logs: &logs,
        };
        checks::broken_promises(&scene).await
    }

    async fn end_processes(&mut self) {
        for mut server in std::mem::take(&mut self.servers) {
            server.end().await;
        }
        if let Some(mut provider) = self.provider.take() {
            provider.end().await;
        }
        for fake in &mut self.fakes {
            fake.end().await;
        }
    }
}

/// Tells a simulator what goes wrong from now on.
pub(crate) async fn put_faults(addr: &str, faults: &Faults) {
    // Fails only where one is installed already, which is then the one that is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let reply = reqwest::Client::new()
        .put(format!("http://{addr}/faults"))
        .body(serde_json::to_vec(faults).unwrap())
        .send()
        .await
        .unwrap();
    assert!(reply.status().is_success(), "{reply:?}");
}

/// The flags, each by the last that is said of it.
fn latest(args: &[String]) -> Vec<String> {
    let name = |arg: &str| arg.split('=').next().unwrap_or_default().to_owned();
    let is_last =
        |place: usize| args[place + 1..].iter().all(|arg| name(arg) != name(&args[place]));
    (0..args.len()).filter(|place| is_last(*place)).map(|place| args[place].clone()).collect()
}

/// A connection that is made when it is needed.
pub(crate) fn channel(addr: &str) -> Channel {
    Endpoint::from_shared(format!("http://{addr}"))
        .unwrap()
        .connect_timeout(Duration::from_secs(1))
        .connect_lazy()
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        // A test that has looked for itself has ended the provider.
        let checks = self.provider.is_some() && !thread::panicking();
        let mut fleet = Self {
            db_url: self.db_url.clone(),
            servers: std::mem::take(&mut self.servers),
            journal: self.journal.clone(),
            tokens: std::mem::take(&mut self.tokens),
            admin: self.admin.take(),
            fakes: std::mem::take(&mut self.fakes),
            setup: self.setup.clone(),
            number: self.number,
            provider: self.provider.take(),
            before_provider: self.before_provider.take(),
            database: self.database.take(),
            folder: self.folder.take(),
            is_over: true,
        };
        // On a thread of its own: a runtime must not be entered from within another.
        let teardown = thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async move {
                if checks {
                    let broken = fleet.finish().await;
                    assert!(broken.is_empty(), "broken promises: {broken:#?}");
                }
                fleet.servers.clear();
                fleet.provider = None;
                fleet.fakes.clear();
                if let Some(database) = fleet.database.take() {
                    database.drop_database().await;
                }
            });
        });
        if let Err(panic) = teardown.join()
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}
