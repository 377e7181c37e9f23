//! `holdfast redemption audit`: the provider's list, or its ledger in a file, beside our records.
//!
//! What the provider completed in a time is read first, and held in memory in compact records. Then
//! our redemptions that were recorded in that time are read, pool by pool and page by page. Each is
//! compared with what the provider has. The ends of the time make no difference. What is ours and not on
//! the list is looked up at the provider by its key. What is on the list and not among ours is looked
//! up here by its id, in every pool. A ledger in a file is all that is asked when there is one.
//!
//! Exit code: 0 when both sides agree, 3 when they differ, 1 when that could not be found out.

pub(in crate::cli) mod compare;
mod ledger;
pub(in crate::cli) mod ours;
pub(in crate::cli) mod progress;
pub(in crate::cli) mod provider;
mod report;

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use time::OffsetDateTime;
use uuid::Uuid;

use self::{
    compare::{Names, Record},
    ours::{Ours, Pages},
    progress::Progress,
    provider::{Theirs, read_list, read_listed},
    report::{COLUMNS, Report},
};
use crate::{
    cli::shared::{
        client::{Server, ServerArgs},
        output::{FormatArgs, Rows, Sink, check_stdout, note},
        parse,
        pools::pool_names,
    },
    config::ProviderArgs,
    domain::id::PoolId,
    provider::Provider,
};

/// The exit code when the two sides differ.
const DIFFERENT: u8 = 3;
/// Look-ups under way at once, at the provider or here.
const AT_ONCE: usize = 16;
/// By how much the provider's clock may be ahead of the database's: what we knew so shortly before a
/// its records end may be in the next ones.
const CLOCK_SLACK: time::Duration = time::Duration::minutes(1);

#[derive(Args, Debug)]
#[command(
    after_help = "Exit code: 0 when both sides agree, 3 when they differ, 1 for errors. What \
    the provider completed in that time is held in memory, at about 200 bytes each."
)]
pub(in crate::cli) struct AuditArgs {
    /// What the provider completed, and what we recorded, at this time or later: RFC 3339, or a date,
    /// whose first moment in UTC it then is.
    #[arg(long, value_parser = parse::time)]
    from: OffsetDateTime,
    /// And before this time.
    #[arg(long, value_parser = parse::time)]
    to: OffsetDateTime,
    /// Only this pool; give it more than once for several. All pools when not given.
    #[arg(long, value_parser = parse::pool)]
    pool: Vec<PoolId>,
    /// A file of the provider's to compare with instead of asking it: JSON lines, each a redemption
    /// as the provider's contract has it, with its time as `at` where the file has other days too.
    #[arg(long)]
    ledger: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten, next_help_heading = "The provider, as in `holdfast serve`")]
    provider: ProviderArgs,
}

/// The time that an audit is about: from its first moment until before its last.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Window {
    /// The first moment.
    pub(in crate::cli) from: OffsetDateTime,
    /// The moment after it.
    pub(in crate::cli) to: OffsetDateTime,
}

/// Compares both sides and prints how they differ.
pub(in crate::cli) async fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.from < args.to, "--to must be after --from");
    if let Some(ledger) = &args.ledger {
        check_stdout(ledger)?;
    }
    let window = Window { from: args.from, to: args.to };
    let server = args.server.connect().await?;
    let pools = Pools::read(&server, &args.pool).await?;
    let progress = Progress::new();
    let rows = Rows::new(args.format.for_stdout(), COLUMNS, Sink::stdout());
    let mut audit = Audit {
        server,
        pools,
        window,
        names: Names::default(),
        report: Report::new(rows, progress.aside()),
        progress,
    };
    let done = audit.run(&args).await;
    audit.progress.finish();
    if let Err(error) = done {
        audit.report.abandon()?;
        return Err(error);
    }
    let tally = audit.report.finish()?;
    note(&tally);
    Ok(ExitCode::from(if tally.differences == 0 { 0 } else { DIFFERENT }))
}

/// All pools, those that the audit is about first: a provider's list does not name pools.
struct Pools {
    names: Vec<String>,
    /// How many of them the audit is about.
    audited: usize,
}

impl Pools {
    async fn read(server: &Server, wanted: &[PoolId]) -> anyhow::Result<Self> {
        let mut names = pool_names(server).await?;
        if wanted.is_empty() {
            return Ok(Self { audited: names.len(), names });
        }
        let is_wanted = |name: &str| wanted.iter().any(|pool| pool.as_str() == name);
        if let Some(none) = wanted.iter().find(|pool| !names.iter().any(|n| n == pool.as_str())) {
            anyhow::bail!("there is no pool {none}: `holdfast pool list` shows the pools");
        }
        names.sort_by_key(|name| !is_wanted(name));
        let audited = names.iter().filter(|name| is_wanted(name)).count();
        Ok(Self { names, audited })
    }

    fn is_audited(&self, name: &str) -> bool {
        self.names[..self.audited].iter().any(|audited| audited == name)
    }
}

/// Where a redemption of ours is looked up that the provider's list does not have.
enum LookUps {
    /// The provider itself.
    Provider(Provider),
    /// Nowhere: what was read is all there is, and ends then.
    Nowhere(OffsetDateTime),
}

struct Audit {
    server: Server,
    pools: Pools,
    window: Window,
    names: Names,
    progress: Progress,
    report: Report,
}

impl Audit {
    async fn run(&mut self, args: &AuditArgs) -> anyhow::Result<()> {
        let (window, names, progress) = (self.window, &mut self.names, &mut self.progress);
        let (mut theirs, look_ups) = match &args.ledger {
            Some(file) => {
                let ledger = ledger::read(file, window, names, progress)?;
                (ledger.theirs, LookUps::Nowhere(ledger.end))
            }
            None => {
                let provider = Provider::built_in(&args.provider)?;
                let theirs = read_list(&provider, window, names, progress).await?;
                // One that tells nothing of a key would seem to miss all that its list lacks.
                let look_ups = if args.provider.looks_up {
                    LookUps::Provider(provider)
                } else {
                    LookUps::Nowhere(window.to)
                };
                (theirs, look_ups)
            }
        };
        for index in 0..self.pools.names.len() {
            self.compare_pool(index, &mut theirs, &look_ups).await?;
        }
        self.compare_rest(&mut theirs).await
    }

    /// Our redemptions of a pool, beside the provider's. Those of a pool that the audit is not about
    /// are only taken off the provider's list.
    async fn compare_pool(
        &mut self,
        index: usize,
        theirs: &mut Theirs,
        look_ups: &LookUps,
    ) -> anyhow::Result<()> {
        let is_audited = index < self.pools.audited;
        let pool_id = self.pools.names[index].clone();
        let mut pages = Pages::new(&self.server, &pool_id, self.window);
        let mut seen = 0_u64;
        while let Some(page) = pages.next(&mut self.names).await? {
            seen += page.len() as u64;
            self.progress.show(format_args!("our records of {pool_id}: {seen} redemptions"));
            let mut absent = Vec::new();
            for ours in page {
                match theirs.take(ours.key) {
                    Some(record) if is_audited => self.compare(&ours, Some(&record), theirs)?,
                    None if is_audited => absent.push(ours),
                    _ => {}
                }
            }
            self.look_up(absent, theirs, look_ups).await?;
        }
        Ok(())
    }

    /// Redemptions of ours that the provider's list does not have.
    async fn look_up(
        &mut self,
        absent: Vec<Ours>,
        theirs: &mut Theirs,
        look_ups: &LookUps,
    ) -> anyhow::Result<()> {
        match look_ups {
            LookUps::Provider(provider) => {
                let mut found = stream::iter(absent)
                    .map(async |ours| {
                        let listed = provider::look_up(provider, ours.key).await?;
                        anyhow::Ok((ours, listed))
                    })
                    .buffered(AT_ONCE);
                while let Some((ours, listed)) = found.try_next().await? {
                    let record = listed.map(|listed| read_listed(&listed, &mut self.names));
                    self.compare(&ours, record.as_ref(), theirs)?;
                }
            }
            LookUps::Nowhere(end) => {
                for ours in absent {
                    if is_too_late(&ours, *end) {
                        self.report.not_covered(&ours);
                    } else {
                        self.compare(&ours, None, theirs)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What the provider completed and our window lacks: it may have been recorded before, and is
    /// unknown to us only when no pool has it.
    async fn compare_rest(&mut self, theirs: &mut Theirs) -> anyhow::Result<()> {
        let rest = theirs.rest();
        let (server, pools) = (self.server.clone(), self.pools.names.clone());
        let mut found = stream::iter(rest)
            .map(async |key: Uuid| anyhow::Ok((key, ours::find(&server, &pools, key).await?)))
            .buffered(AT_ONCE);
        let mut seen = 0_u64;
        while let Some((key, redemption)) = found.try_next().await? {
            seen += 1;
            self.progress.show(format_args!("recorded at another time: {seen} redemptions"));
            let Some(record) = theirs.take(key) else { continue };
            match redemption {
                None => {
                    let twice = theirs.take_twice(key);
                    self.report.missing_here(&key.to_string(), &record, &twice)?;
                }
                Some(redemption) if self.pools.is_audited(&redemption.pool_id) => {
                    let ours = Ours::read(&redemption, &mut self.names)?;
                    self.compare(&ours, Some(&record), theirs)?;
                }
                Some(_) => {}
            }
        }
        for (key, record) in theirs.foreign() {
            self.report.missing_here(key, record, &[])?;
        }
        Ok(())
    }

    fn compare(
        &mut self,
        ours: &Ours,
        record: Option<&Record>,
        theirs: &mut Theirs,
    ) -> anyhow::Result<()> {
        let twice = theirs.take_twice(ours.key);
        self.report.compare(ours, record, &twice)
    }
}

/// Whether the provider may have completed it after the end of its records, which do not have it.
fn is_too_late(ours: &Ours, end: OffsetDateTime) -> bool {
    ours.record.credited().is_some()
        && ours.known_at.is_some_and(|at| at >= end.saturating_sub(CLOCK_SLACK))
}
