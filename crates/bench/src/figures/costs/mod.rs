//! The costs of a cycle and of a redemption: statements, rows and entries touched, log, processor, switches.
//! No figure of the table; to find out what costs.
//!
//! Counting by the statement takes something itself, so rates are lower here than in the table.

mod statements;

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::{Connection as _, PgConnection};

use self::statements::Statement;
use super::{WARM_UP, cycles::ACCOUNTS};
use crate::{
    args::Args,
    counters::Counters,
    ground::{Ground, Use},
    machine::Machine,
    peers::{
        Peer,
        batch::Batches,
        holdfast::{CyclesOverRpc, Server},
        provider::Provider,
    },
    postgres,
    report::{self, progress},
    usage::Usage,
};

/// What was counted while one kind of work was done.
#[derive(Serialize)]
pub(crate) struct Cost {
    /// Of what each number is: a cycle, a redemption.
    pub(crate) one: &'static str,
    pub(crate) done: f64,
    pub(crate) per_second: f64,
    /// Numbers of one of them, and of one transition, by what they are of.
    pub(crate) numbers: Vec<(String, f64, &'static str)>,
    statements: Vec<Statement>,
    counters: Counters,
    usage: BTreeMap<&'static str, Usage>,
    /// What could not be counted, and why.
    pub(crate) missing: Vec<String>,
}

impl Cost {
    /// The statements, each as the cells of a row.
    pub(crate) fn statements(&self) -> Vec<(&str, [f64; 5])> {
        let cells = |it: &Statement| {
            [it.calls, it.mean_ms, it.rows_a_call, it.pages_a_call, it.wal_bytes_a_call]
        };
        self.statements.iter().map(|it| (it.what.as_str(), cells(it))).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Cycles,
    Redemptions,
}

pub(crate) async fn measure(args: &Args) -> anyhow::Result<()> {
    let (ground, uncounted) = match Ground::prepare(args, Use::Statements).await {
        Ok(ground) => (ground, None),
        Err(error) => {
            let error = format!("{error:#}");
            let why = error.split_once("FATAL:").map_or(&*error, |(_, why)| why);
            let why = why.trim().lines().next().unwrap_or("");
            let why = format!("no statements: pg_stat_statements cannot be loaded ({why})");
            (Ground::prepare(args, Use::Runs).await?, Some(why))
        }
    };
    let machine = Machine::read(&ground).await?;
    progress(&machine.to_string());
    let mut costs = Vec::new();
    for work in [Work::Cycles, Work::Redemptions] {
        costs.push(Box::pin(of(args, &ground, work, uncounted.clone())).await?);
    }
    report::costs(args, &machine, &costs)?;
    ground.stop().await
}

/// Somebody who works on a server in a database of its own, with a provider.
struct Bench {
    peer: Box<dyn Peer>,
    server: Server,
    provider: Provider,
    db: PgConnection,
}

const DATABASE: &str = "costs";

impl Bench {
    async fn start(ground: &Ground, work: Work) -> anyhow::Result<Self> {
        let url = ground.new_database(DATABASE).await?;
        postgres::fill_with_past(&url, ACCOUNTS).await?;
        let provider = Provider::start(ground, "0ms").await?;
        let settings = [format!("--provider-url={}", provider.url)];
        let server = Server::start(ground, &url, &settings).await?;
        let mut peer: Box<dyn Peer> = match work {
            Work::Cycles => Box::new(CyclesOverRpc::connect("Holdfast", &server.url).await?),
            Work::Redemptions => Box::new(Batches::connect(&server.url).await?),
        };
        peer.run_for(WARM_UP).await?;
        ground.level().await?;
        Ok(Self { peer, server, provider, db: PgConnection::connect(&url).await? })
    }

    async fn end(self, ground: &Ground) -> anyhow::Result<()> {
        drop((self.peer, self.server, self.provider));
        self.db.close().await?;
        ground.drop_database(DATABASE).await
    }

    fn usage(&self, ground: &Ground) -> anyhow::Result<[(&'static str, Usage); 5]> {
        let (backends, others) = Usage::of_postgres(ground)?;
        Ok([
            ("server", Usage::of(self.server.process.id())),
            ("Postgres, backends", backends),
            ("Postgres, the rest", others),
            ("callers", Usage::of(std::process::id())),
            ("provider", Usage::of(self.provider.process.id())),
        ])
    }
}

async fn of(
    args: &Args,
    ground: &Ground,
    work: Work,
    uncounted: Option<String>,
) -> anyhow::Result<Cost> {
    let one = if work == Work::Cycles { "cycle" } else { "redemption" };
    progress(&format!("what a {one} takes"));
    let mut bench = Bench::start(ground, work).await?;
    if uncounted.is_none() {
        statements::reset(&mut bench.db).await?;
    }
    let (before, used_before) = (Counters::settled(&mut bench.db).await?, bench.usage(ground)?);
    let lasting = args.run_duration();
    let per_second = bench.peer.run_for(lasting).await?;
    let used_after = bench.usage(ground)?;
    let counters = Counters::settled(&mut bench.db).await?.since(&before);
    let statements = match uncounted {
        None => statements::read(&mut bench.db).await?,
        Some(_) => Vec::new(),
    };
    bench.end(ground).await?;
    let used = used_after.into_iter().zip(used_before);
    let usage = used.map(|((name, after), (_, before))| (name, after.since(before))).collect();
    let mut cost = Cost {
        one,
        done: done(work, &counters),
        per_second,
        numbers: Vec::new(),
        statements,
        counters,
        usage,
        missing: uncounted.into_iter().collect(),
    };
    cost.count();
    Ok(cost)
}

/// How many cycles or redemptions were done, whether or not they were answered in time.
fn done(work: Work, counters: &Counters) -> f64 {
    match work {
        Work::Cycles => counters.table("account_events").inserted / 2.0,
        Work::Redemptions => counters.table("redemptions").inserted,
    }
}

impl Cost {
    /// What one takes of everything that was counted.
    fn count(&mut self) {
        let done = self.done.max(1.0);
        let transitions = self.counters.table("account_events").inserted.max(1.0);
        let mut numbers = vec![
            ("transitions of accounts".to_owned(), transitions / done, ""),
            ("WAL".to_owned(), self.counters.wal_bytes / done, "bytes"),
            ("WAL of a transition".to_owned(), self.counters.wal_bytes / transitions, "bytes"),
        ];
        for name in ["accounts", "redemptions"] {
            let table = self.counters.table(name);
            if table.updated + table.inserted > 0.0 {
                let mut add = |what: &str, number: f64, unit| {
                    numbers.push((format!("{name}: {what}"), number, unit));
                };
                add("rows written", (table.inserted + table.updated) / done, "");
                add("rows read by an index", table.fetched / done, "");
                add("rows read one after the other", table.scanned / done, "");
                add("HOT updates", 100.0 * table.hot_updated / table.updated.max(1.0), "%");
            }
        }
        for (name, index) in &self.counters.indexes {
            if index.scans > 0.0 {
                numbers.push((format!("{name}: scans"), index.scans / done, ""));
                numbers.push((format!("{name}: entries read"), index.entries / done, ""));
            }
        }
        for (name, usage) in &self.usage {
            let micros = usage.cpu_seconds * 1e6 / done;
            numbers.push((format!("processor: {name}"), micros, "µs"));
        }
        for (name, usage) in &self.usage {
            numbers.push((format!("context switches: {name}"), usage.switches / done, ""));
        }
        self.numbers = numbers;
    }
}
