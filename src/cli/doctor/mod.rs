//! `holdfast doctor`: sees whether a server, its database, its providers and this machine are as they should be, and says
//! what to do. All checks are made, whichever fail, and nothing is changed.

mod database;
mod machine;
mod provider;
mod server;

use std::{
    fmt,
    io::{Error, ErrorKind},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;

use super::shared::{
    client::ServerArgs,
    database::DatabaseArgs,
    output::{FormatArgs, Rows, Sink, note, printable, while_read},
};
use crate::secret_file;

#[derive(Args, Debug)]
#[command(
    after_help = "Exit code: 0 when nothing failed, warnings or not; 1 when something did. The database and the keys \
    are checked where this machine has their settings: run it where the server runs, with the server's config file."
)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The connections to Postgres that each server may open.
    #[arg(long, env = "HOLDFAST_DATABASE_CONNECTIONS", default_value_t = 16)]
    database_connections: u32,

    /// The file of the secret keys, as servers have it. That of the data directory, when not given.
    #[arg(long, env = "HOLDFAST_SECRET_KEY_FILE")]
    secret_key_file: Option<PathBuf>,

    /// The base URL of the built-in provider, as servers have it.
    #[arg(long, env = "HOLDFAST_PROVIDER_URL", default_value = "http://127.0.0.1:50080")]
    provider_url: String,

    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is as it should be, or does not concern this machine.
    Ok,
    /// It works, and should be otherwise.
    Warning,
    /// It does not work, or promises would not be kept.
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        })
    }
}

/// The columns of a check.
const CHECK: &[&str] = &["subject", "check", "state", "found", "next"];

/// The checks that were made, printed as they come.
struct Report {
    rows: Rows,
    failed: usize,
    warnings: usize,
}

/// The checks of one subject.
struct Of<'a> {
    report: &'a mut Report,
    subject: &'static str,
}

impl Report {
    fn of(&mut self, subject: &'static str) -> Of<'_> {
        Of { report: self, subject }
    }
}

impl Of<'_> {
    fn ok(&mut self, check: &str, found: impl fmt::Display) -> anyhow::Result<()> {
        self.row(check, State::Ok, &found, "")
    }

    fn warning(&mut self, check: &str, found: impl fmt::Display, next: &str) -> anyhow::Result<()> {
        self.row(check, State::Warning, &found, next)
    }

    fn failed(&mut self, check: &str, found: impl fmt::Display, next: &str) -> anyhow::Result<()> {
        self.row(check, State::Failed, &found, next)
    }

    fn row(
        &mut self,
        check: &str,
        state: State,
        found: &dyn fmt::Display,
        next: &str,
    ) -> anyhow::Result<()> {
        match state {
            State::Ok => {}
            State::Warning => self.report.warnings += 1,
            State::Failed => self.report.failed += 1,
        }
        let found = printable(&found.to_string().replace('\n', " "));
        let row = [
            self.subject.into(),
            check.into(),
            state.to_string().into(),
            found.into(),
            next.into(),
        ];
        self.report.rows.push(&row)
    }
}

/// What to do about a file that cannot be used, by why it cannot. `option` names it; `otherwise` is for what it holds.
fn about_file(error: &anyhow::Error, option: &str, otherwise: &str) -> String {
    let io = error.chain().find_map(|error| error.downcast_ref::<Error>()).map(Error::kind);
    if error.chain().any(|error| error.is::<secret_file::TooOpen>()) {
        "`chmod 0600` it; a secret that others could read is best replaced".to_owned()
    } else if io == Some(ErrorKind::NotFound) {
        format!("see whether {option} names the file that is meant; there is none of this name")
    } else if io == Some(ErrorKind::PermissionDenied) {
        "run this as the user that may read it, or give it to this user: `chown`".to_owned()
    } else {
        otherwise.to_owned()
    }
}

/// An error in one line, with its causes.
fn told(error: &anyhow::Error) -> String {
    format!("{error:#}")
}

/// Makes all checks, and prints what came of each.
pub(super) async fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let rows = Rows::new(args.format.for_stdout(), CHECK, Sink::stdout());
    let mut report = Report { rows, failed: 0, warnings: 0 };
    while_read(all(&args, &mut report)).await?;
    let Report { rows, failed, warnings } = report;
    rows.finish()?;
    note(format_args!("{failed} checks failed, {warnings} warnings"));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn all(args: &DoctorArgs, report: &mut Report) -> anyhow::Result<()> {
    let server = server::check(&args.server, &mut report.of("server")).await?;
    provider::check(server.as_ref(), &args.provider_url, &mut report.of("provider")).await?;
    let stored = database::check(args, &mut report.of("database")).await?;
    machine::keys(args, stored.as_deref(), &mut report.of("keys"))?;
    machine::check(args, &mut report.of("machine"))
}
