//! The demo's processes: the providers and the server, each a process of this very program, with
//! their logs in files. The server brings its own Postgres.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use super::{certificates::Certificates, files::Files, ledger, world::TASK_API};
use crate::{
    app::TOKEN_FILE,
    cli::shared::{
        client::{Server, unary},
        connect::TlsArgs,
        output::note,
        token::Bearer,
    },
    embedded,
    rpc::pb,
};

/// How long starting may take: making a database takes seconds on a slow disk.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// How often it is looked whether something has started.
const START_POLL: Duration = Duration::from_millis(100);
/// How long a process may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Lines of each log that are shown when the demo fails.
const LOG_LINES: usize = 15;

/// What the provider does wrong, so that doubt is seen to arise and to be settled.
const FAULTS: &[&str] = &[
    "--fault-latency=2ms..20ms",
    "--fault-apply-then-drop=4",
    "--fault-drop-before-apply=2",
    "--fault-error-after-apply=3",
    "--fault-slow-202=5",
    "--fault-garbage=2",
    "--fault-busy=3",
    "--fault-wrong-amount=1",
    "--invalid-accounts=steam-open-10",
];

/// What the task API does wrong. Nothing that loses the id of a task: nobody could find it again, and a person
/// would have to say what became of it.
const TASK_FAULTS: &[&str] = &[
    "--api=task",
    "--currency=USD",
    "--default-amount-minor=2500",
    "--fault-latency=2ms..20ms",
    "--fault-slow-202=20",
    "--fault-busy=5",
    "--fault-lookup-error=5",
];

/// Who asks the task API.
const TASK_KEY: &str = "the-key-of-the-demo";

/// How the server is set up: as by default, but patient for less time than a visitor is.
const SERVER: &[&str] = &[
    "--provider-timeout=3s",
    "--provider-send-window=5s",
    "--reconcile-interval=200ms",
    "--drain-delay=0s",
    "--shutdown-timeout=10s",
];

/// Variables of the surroundings that also hold for the demo's processes.
const KEPT_VARIABLES: [&str; 2] = ["HOLDFAST_LOG", "HOLDFAST_POSTGRES_BIN"];

/// Everything that was started.
pub(super) struct Stage {
    /// The server's URL, for gRPC.
    pub(super) server_url: String,
    /// The CA of the server's certificate.
    pub(super) ca_file: PathBuf,
    /// Where the server's admin token is.
    pub(super) token_file: PathBuf,
    /// The provider's base URL.
    pub(super) provider_url: String,
    /// The task API's base URL.
    pub(super) task_url: String,
    /// The task API's ledger.
    pub(super) task_ledger: PathBuf,
    server: Process,
    provider: Process,
    task_api: Process,
}

impl Stage {
    /// Starts the providers and the server on free ports, and waits until all answer. All that they
    /// write is in `folder`.
    pub(super) async fn start(
        folder: &Path,
        files: &Files,
        postgres_bin: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let (listen, provider_listen) = (free_address()?, free_address()?);
        let provider_url = format!("http://{provider_listen}");
        let server_url = format!("https://{listen}");
        let certificates = Certificates::make(folder)?;

        let mut command = this_program("simulate-provider")?;
        command.args(FAULTS).arg(flag("--listen", provider_listen));
        command.arg("--ledger").arg(folder.join("provider-ledger.jsonl"));
        if let Some(cards) = &files.provider_cards {
            command.arg("--cards").arg(cards);
        }
        let mut provider = Process::start("provider", command, folder)?;

        let task_listen = free_address()?;
        let (task_url, task_ledger) =
            (format!("http://{task_listen}"), folder.join("task-ledger.jsonl"));
        let mut command = this_program("simulate-provider")?;
        command.args(TASK_FAULTS).arg(flag("--listen", task_listen));
        command.arg("--ledger").arg(&task_ledger).arg("--accounts").arg(&files.task_logins);
        command.env("HOLDFAST_SIMULATOR_API_KEY", TASK_KEY);
        let mut task_api = Process::start("task API", command, folder)?;

        let mut command = this_program("serve")?;
        command.args(SERVER).arg(flag("--listen", listen));
        command.arg(flag("--admin-listen", free_address()?));
        let Certificates { ca_file, cert_file, key_file } = certificates;
        for prefix in ["", "admin-"] {
            command.arg(format!("--{prefix}tls-cert-file")).arg(&cert_file);
            command.arg(format!("--{prefix}tls-key-file")).arg(&key_file);
        }
        command.arg(flag("--provider-url", &provider_url));
        command.arg("--data-dir").arg(folder.join("data"));
        command.arg("--secrets-dir").arg(secrets(folder)?);
        if let Some(programs) = postgres_bin {
            command.arg("--postgres-bin").arg(programs);
        }
        let mut server = Process::start("server", command, folder)?;

        provider.wait_until(async || ledger::provider_answers(&provider_url).await).await?;
        task_api.wait_until(async || TcpStream::connect(task_listen).await.is_ok()).await?;
        let token_file = folder.join("data").join(TOKEN_FILE);
        server
            .wait_until(async || server_answers(&server_url, &ca_file, &token_file).await)
            .await?;
        Ok(Self {
            server_url,
            ca_file,
            token_file,
            provider_url,
            task_url,
            task_ledger,
            server,
            provider,
            task_api,
        })
    }

    /// A connection to the server.
    pub(super) async fn connect(&self, bearer: Bearer) -> anyhow::Result<Server> {
        let tls = TlsArgs::trusting(&self.ca_file);
        Server::connect_with(&self.server_url, &tls, bearer).await
    }

    /// Stops all, the server first: it may still be asking the providers.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let server = self.server.stop().await;
        let (provider, task_api) = tokio::join!(self.provider.stop(), self.task_api.stop());
        provider.and(task_api).and(server)
    }

    /// Shows the end of each log.
    pub(super) fn show_logs(&self) {
        self.provider.show_log();
        self.task_api.show_log();
        self.server.show_log();
    }
}

/// The folder of the server's secrets.
fn secrets(folder: &Path) -> anyhow::Result<PathBuf> {
    let secrets = folder.join("secrets");
    let of_tasks = secrets.join(TASK_API);
    fs::create_dir_all(&of_tasks).context("no folder of secrets can be made")?;
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(of_tasks.join("api_key"))
        .and_then(|mut file| file.write_all(TASK_KEY.as_bytes()));
    file.context("the secret cannot be written")?;
    Ok(secrets)
}

/// A process of ours, and its log. Killed when this is dropped.
struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(name: &'static str, mut command: Command, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(format!("{}.log", name.replace(' ', "-")));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            // Ends with this process, however that ends, and the child with it.
            .arg("--while-stdin-is-open")
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C is for the demo alone, which then stops what it started, in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("the {name} cannot be started"))?;
        Ok(Self { name, child, log })
    }

    /// Waits until it answers, or has ended, or has had its time.
    async fn wait_until(&mut self, answers: impl AsyncFn() -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !answers().await {
            if let Some(status) = self.child.try_wait()? {
                self.show_log();
                anyhow::bail!("the {} did not start: {status}", self.name);
            }
            if begun.elapsed() > START_TIMEOUT {
                self.show_log();
                let after = humantime::format_duration(START_TIMEOUT);
                anyhow::bail!("the {} does not answer after {after}", self.name);
            }
            tokio::time::sleep(START_POLL).await;
        }
        Ok(())
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(id) = self.child.id() {
            let id = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw);
            let asked =
                id.map(|id| rustix::process::kill_process(id, rustix::process::Signal::TERM));
            asked.transpose().with_context(|| format!("the {} cannot be stopped", self.name))?;
        }
        match tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                anyhow::ensure!(status.success(), "the {} ended badly: {status}", self.name);
                Ok(())
            }
            Err(_) => {
                self.child.kill().await?;
                anyhow::bail!("the {} did not stop in time, and was killed", self.name)
            }
        }
    }

    fn show_log(&self) {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        note(format_args!("the {}'s log ends with:", self.name));
        for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
            note(format_args!("  {line}"));
        }
    }
}

/// A command of this program, untouched by settings that are meant for another server or another database.
fn this_program(command: &str) -> anyhow::Result<Command> {
    let program = env::current_exe().context("this program cannot find itself")?;
    let mut it = Command::new(program);
    it.arg(command);
    let settings = env::vars_os().map(|(name, _)| name).filter(|name| is_setting(name));
    for name in settings.chain(embedded::pg_variables()) {
        it.env_remove(name);
    }
    Ok(it)
}

fn is_setting(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("HOLDFAST_") && !KEPT_VARIABLES.contains(&name.as_ref())
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("{name}={value}")
}

/// An address that nobody listens on. Somebody else may take it before the process that is told of
/// it does; that process then says so.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?)
}

async fn server_answers(url: &str, ca_file: &Path, token_file: &Path) -> bool {
    let Ok(bearer) = Bearer::from_file(token_file) else { return false };
    let tls = TlsArgs::trusting(ca_file);
    let Ok(server) = Server::connect_with(url, &tls, bearer).await else { return false };
    let request = pb::ListPoolsRequest { page_size: 1, ..Default::default() };
    server.pools().list_pools(unary(request)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;

    #[test]
    fn the_server_is_given_flags_that_it_has() {
        let serve = crate::config::ServeArgs::augment_args(clap::Command::new("serve"));
        let words = ["serve"].into_iter().chain(SERVER.iter().copied());
        assert!(serve.try_get_matches_from(words).is_ok());
    }

    #[test]
    fn the_provider_is_given_flags_that_it_has() {
        let simulator = holdfast_simulator::SimulatorArgs::augment_args(clap::Command::new("s"));
        for faults in [FAULTS, TASK_FAULTS] {
            let words = ["s", "--ledger=l"].into_iter().chain(faults.iter().copied());
            assert!(simulator.clone().try_get_matches_from(words).is_ok());
        }
    }

    #[test]
    fn settings_for_another_server_are_left_out() {
        assert!(is_setting(OsStr::new("HOLDFAST_DATABASE_URL")));
        assert!(!is_setting(OsStr::new("HOLDFAST_POSTGRES_BIN")));
        assert!(!is_setting(OsStr::new("PATH")));
    }
}
