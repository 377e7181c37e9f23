//! `holdfast redemption audit`: the provider's list, or its ledger in a file, beside our records.
//!
//! Provider by provider, as the pools name them. What the provider completed in a time is read first, and held in
//! memory in compact records. Then our redemptions that were recorded in that time are read, pool by pool and page by
//! page. Each is compared with what the provider has. The ends of the time make no difference. What is ours and not on
//! the list is looked up at the provider, under the version of the profile that it was begun under. What is on the
//! list and not among ours is looked up here by its id, in every pool. A ledger in a file is all that is asked when
//! there is one. A provider without a list is asked about our own redemptions alone.
//!
//! Exit code: 0 when both sides agree, 3 when they differ, 1 when that could not be found out.

pub(in crate::cli) mod compare;
pub(in crate::cli) mod ledger;
pub(in crate::cli) mod ours;
pub(in crate::cli) mod progress;
pub(in crate::cli) mod provider;
mod report;
mod sources;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

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
    sources::{Sources, Way, currency, op_for},
};
use super::find::find;
use crate::{
    cli::shared::{
        client::{Server, ServerArgs},
        output::{FormatArgs, Rows, Sink, check_stdout, note},
        parse,
        pools::each_pool,
    },
    config::ProviderArgs,
    domain::{
        id::{PoolId, ProviderId},
        money::Currency,
    },
    rpc::pb,
};

/// The exit code when the two sides differ.
const DIFFERENT: u8 = 3;
/// Look-ups under way at once, at the provider or here.
const AT_ONCE: usize = 16;
/// By how much the provider's clock may be ahead of the database's: what we knew so shortly before a
/// its records end may be in the next ones.
const CLOCK_SLACK: time::Duration = time::Duration::minutes(1);

/// How much earlier than a provider takes at most redemptions are read, for those that were in doubt for long.
const EARLIER: time::Duration = time::Duration::DAY;

#[derive(Args, Debug)]
#[command(
    after_help = "Exit code: 0 when both sides agree, 3 when they differ, 1 for errors. What \
    the provider completed in that time is held in memory, at about 250 bytes each."
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
    /// Only the pools of this provider.
    #[arg(long, value_parser = parse::provider)]
    provider: Option<ProviderId>,
    /// A file of the provider's to compare with instead of asking it: JSON lines, each a redemption
    /// as the provider's contract has it, with its time as `at` where the file has other days too.
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// The folder of providers' secrets: `secret.NAME` is the file ID/NAME in it.
    #[arg(long, env = "HOLDFAST_SECRETS_DIR")]
    secrets_dir: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten, next_help_heading = "The built-in provider, as in `holdfast serve`")]
    built_in: ProviderArgs,
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
    let pools = Pools::read(&server, &args).await?;
    let sources = Sources::new(server.clone(), args.secrets_dir.clone(), args.built_in.clone());
    let progress = Progress::new();
    let rows = Rows::new(args.format.for_stdout(), COLUMNS, Sink::stdout());
    let mut audit = Audit {
        server,
        pools,
        sources,
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
    all: Vec<PoolOf>,
    /// How many of them the audit is about.
    audited: usize,
}

/// A pool, its provider, and its currency.
#[derive(Clone)]
struct PoolOf {
    name: String,
    provider: String,
    currency: Currency,
}

impl Pools {
    async fn read(server: &Server, args: &AuditArgs) -> anyhow::Result<Self> {
        let mut read: Vec<pb::Pool> = Vec::new();
        each_pool(server, |pool| {
            read.push(pool);
            Ok(())
        })
        .await?;
        let of = |pool: pb::Pool| {
            let currency = currency(&pool.currency_code)?;
            anyhow::Ok(PoolOf { name: pool.pool_id, provider: pool.provider_id, currency })
        };
        let mut all = read.into_iter().map(of).collect::<anyhow::Result<Vec<_>>>()?;
        if let Some(none) =
            args.pool.iter().find(|pool| !all.iter().any(|it| it.name == pool.as_str()))
        {
            anyhow::bail!("there is no pool {none}: `holdfast pool list` shows the pools");
        }
        let is_wanted = |pool: &PoolOf| {
            let named = args.pool.iter().any(|wanted| wanted.as_str() == pool.name);
            let provider = args.provider.as_ref().is_none_or(|it| it.as_str() == pool.provider);
            (named || args.pool.is_empty()) && provider
        };
        all.sort_by_key(|pool| !is_wanted(pool));
        let audited = all.iter().filter(|pool| is_wanted(pool)).count();
        if let (Some(provider), 0) = (&args.provider, audited) {
            anyhow::bail!("no pool that is to be audited is of the provider {provider}");
        }
        Ok(Self { all, audited })
    }

    fn names(&self) -> Vec<String> {
        self.all.iter().map(|pool| pool.name.clone()).collect()
    }

    fn is_audited(&self, name: &str) -> bool {
        self.all[..self.audited].iter().any(|audited| audited.name == name)
    }

    /// The providers of the audited pools, each with the currencies of its pools.
    fn providers(&self) -> BTreeMap<String, BTreeSet<Currency>> {
        let mut providers: BTreeMap<String, BTreeSet<Currency>> = BTreeMap::new();
        for pool in &self.all[..self.audited] {
            providers.entry(pool.provider.clone()).or_default();
        }
        for pool in &self.all {
            if let Some(currencies) = providers.get_mut(&pool.provider) {
                currencies.insert(pool.currency);
            }
        }
        providers
    }
}

/// Where a redemption of ours is looked up that the provider's list does not have.
enum LookUps {
    /// At its provider, by the profile that it was begun under.
    Provider,
    /// Nowhere: what was read is all there is, and ends then.
    Nowhere(OffsetDateTime),
}

struct Audit {
    server: Server,
    pools: Pools,
    sources: Sources,
    window: Window,
    names: Names,
    progress: Progress,
    report: Report,
}

impl Audit {
    async fn run(&mut self, args: &AuditArgs) -> anyhow::Result<()> {
        match &args.ledger {
            Some(file) => self.compare_with_ledger(file).await,
            None => self.compare_with_providers().await,
        }
    }

    async fn compare_with_ledger(&mut self, file: &std::path::Path) -> anyhow::Result<()> {
        let providers = self.pools.providers();
        let mut ids = providers.keys();
        let (Some(id), None) = (ids.next(), ids.next()) else {
            anyhow::ensure!(
                providers.is_empty(),
                "a ledger is one provider's: name it with --provider"
            );
            return Ok(());
        };
        let kind = self.sources.get(id, 0).await?.profile().identity.key;
        let currency = *providers[id].first().unwrap_or(&self.pools.all[0].currency);
        let ledger =
            ledger::read(file, self.window, (kind, currency), &mut self.names, &mut self.progress)?;
        let (mut theirs, end) = (ledger.theirs, LookUps::Nowhere(ledger.end));
        self.compare_provider(id, &mut theirs, &end).await
    }

    async fn compare_with_providers(&mut self) -> anyhow::Result<()> {
        // Before anything is compared: an audit of a part would look like one of all.
        let (mut ways, mut problems) = (Vec::new(), Vec::new());
        for (id, currencies) in self.pools.providers() {
            match self.sources.get(&id, 0).await {
                Ok(provider) => match Way::of(&provider, &currencies) {
                    Ok(way) => ways.push((id, provider, way)),
                    Err(why) => problems.push(format!("{id} cannot be audited: {why}")),
                },
                Err(error) => problems.push(format!("{id} cannot be asked: {error:#}")),
            }
        }
        anyhow::ensure!(
            problems.is_empty(),
            "{}. --pool and --provider leave pools out",
            problems.join("; ")
        );
        for (id, provider, way) in ways {
            let mut theirs = Theirs::new(provider.profile().identity.key);
            if let Some(currency) = way.list {
                let (names, progress) = (&mut self.names, &mut self.progress);
                theirs = read_list(&provider, self.window, currency, names, progress).await?;
            } else {
                note(format_args!(
                    "{id} has no list: it is asked about our redemptions alone, and what it did without us is not seen"
                ));
            }
            // One that tells nothing of a key would seem to miss all that its list lacks.
            let look_ups =
                if way.looks_up { LookUps::Provider } else { LookUps::Nowhere(self.window.to) };
            self.compare_provider(&id, &mut theirs, &look_ups).await?;
        }
        Ok(())
    }

    async fn compare_provider(
        &mut self,
        id: &str,
        theirs: &mut Theirs,
        look_ups: &LookUps,
    ) -> anyhow::Result<()> {
        for index in 0..self.pools.all.len() {
            if self.pools.all[index].provider == id {
                self.compare_pool(index, theirs, look_ups).await?;
            }
        }
        if !theirs.tells_ids() {
            self.take_earlier(id, theirs).await?;
        }
        self.compare_rest(theirs).await
    }

    /// What was recorded before the window and completed in it, where the provider's keys do not tell which
    /// redemption that is: the pages before the window are read for it.
    async fn take_earlier(&mut self, id: &str, theirs: &mut Theirs) -> anyhow::Result<()> {
        let times = self.sources.get(id, 0).await?.profile().times;
        let longest = (times.max_processing + times.send_window) * 2;
        let from = self.window.from - longest - EARLIER;
        let earlier = Window { from, to: self.window.from };
        for index in 0..self.pools.all.len() {
            let pool = self.pools.all[index].clone();
            if pool.provider != id {
                continue;
            }
            let mut pages = Pages::new(&self.server, &pool.name, earlier);
            while let Some(page) = pages.next(&mut self.names).await? {
                for ours in page {
                    match theirs.take(ours.key) {
                        Some(record) if index < self.pools.audited => {
                            self.compare(&ours, Some(&record), theirs)?;
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
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
        let pool_id = self.pools.all[index].name.clone();
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
            LookUps::Provider => {
                let mut asked = Vec::new();
                for ours in absent {
                    let (id, version) = ours.profile.clone();
                    let provider = self.sources.get(&id, version).await?;
                    match op_for(&provider, &ours.about()) {
                        Some(op) => asked.push((ours, provider, op)),
                        None => self.cannot_ask(&ours, theirs)?,
                    }
                }
                let mut found = stream::iter(asked)
                    .map(|(ours, provider, op)| async move {
                        let (about, currency) = (ours.about(), currency_of(&ours)?);
                        let listed = provider::look_up(&provider, op, &about, currency).await?;
                        anyhow::Ok((listed, ours))
                    })
                    .buffered(AT_ONCE);
                while let Some((listed, ours)) = found.try_next().await? {
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
        let (server, pools) = (&self.server.clone(), &self.pools.names());
        let mut found = stream::iter(rest)
            .map(|(key, id): (Box<str>, Option<Uuid>)| async move {
                let found = match id {
                    Some(id) => find(server, pools, &id.to_string()).await?,
                    None => None,
                };
                let found = found.and_then(|reply| reply.into_inner().redemption);
                anyhow::Ok((key, found))
            })
            .buffered(AT_ONCE);
        let mut seen = 0_u64;
        while let Some((key, redemption)) = found.try_next().await? {
            seen += 1;
            self.progress.show(format_args!("recorded at another time: {seen} redemptions"));
            let Some(record) = theirs.take_key(&key) else { continue };
            match redemption {
                None => {
                    let twice = theirs.take_twice_of_key(&key);
                    self.report.missing_here(&key, &record, &twice)?;
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
        // What is not told in a currency is in the pool's.
        let told = record.filter(|it| it.currency_code.is_empty() && it.credited().is_some());
        let told = told.map(|record| Record {
            currency_code: ours.record.currency_code.clone(),
            ..record.clone()
        });
        self.report.compare(ours, told.as_ref().or(record), &twice)
    }

    /// A redemption that its provider cannot be asked about. What was not credited needs no answer.
    fn cannot_ask(&mut self, ours: &Ours, theirs: &mut Theirs) -> anyhow::Result<()> {
        if ours.record.credited().is_none() {
            return self.compare(ours, None, theirs);
        }
        self.report.not_asked(ours);
        Ok(())
    }
}

fn currency_of(ours: &Ours) -> anyhow::Result<Currency> {
    let expected = ours.expected.as_ref().map(|(currency, _)| currency);
    let known = Some(&ours.record.currency_code).filter(|code| !code.is_empty());
    // Of what was not credited and expected no amount, no amount is compared.
    known.or(expected).map_or(Ok(Currency::NONE), |code| currency(code))
}

/// Whether the provider may have completed it after the end of its records, which do not have it.
fn is_too_late(ours: &Ours, end: OffsetDateTime) -> bool {
    ours.record.credited().is_some()
        && ours.known_at.is_some_and(|at| at >= end.saturating_sub(CLOCK_SLACK))
}
