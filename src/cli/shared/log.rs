//! The log of commands that have one: those that run for long, or change a database themselves. The others say what
//! they did on standard error.

use clap::Args;

/// What is logged.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct LogArgs {
    /// What is logged: a level, or a list of target=level, such as info,holdfast=debug. To standard error: text on a
    /// terminal, JSON otherwise.
    #[arg(long, env = "HOLDFAST_LOG", default_value = "info")]
    log: String,
}

impl LogArgs {
    /// Begins to log.
    pub(in crate::cli) fn begin(&self) -> anyhow::Result<()> {
        crate::telemetry::init_logs(&self.log)
    }
}

/// The arguments of a command that logs.
#[derive(Args, Debug)]
pub(in crate::cli) struct Logging<T: Args> {
    #[command(flatten)]
    pub(in crate::cli) args: T,
    #[command(flatten)]
    log: LogArgs,
}

impl<T: Args> Logging<T> {
    /// Begins to log, and hands over the other arguments.
    pub(in crate::cli) fn begin(self) -> anyhow::Result<T> {
        self.log.begin()?;
        Ok(self.args)
    }
}
