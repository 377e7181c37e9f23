//! The time of an acquisition in pools of 1,000, 100,000 and 1,000,000 accounts. One account in a
//! hundred is free and one in twenty of those fits the card.
//!
//! Each pool has a database of its own, on one private Postgres whose commits are durable. One caller
//! acquires and releases in rounds: the sizes alternate, so that whatever else the machine does falls on
//! all alike. Prints p50 and p99 of each size beside those of the smallest, with their ratio; with
//! `--explain` also what Postgres says of the statement at each size.
//!
//! `cargo bench --bench acquire -- [--rounds N] [--explain]`

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the rules are for the program: a benchmark has statements and servers of its own"
)]
#![allow(clippy::unwrap_used, reason = "a panic is how a benchmark fails that cannot go on")]
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

mod pools;

use std::time::{Duration, Instant};

use clap::Parser;
use holdfast::{
    domain::{
        account::LeaseAnswer,
        id::{FencingToken, Holder, PoolId, RequestId},
        lease::LeaseRef,
        selector::Selector,
    },
    embedded::{Data, Options, Postgres, leave_out_pg_variables},
    store::{
        Store,
        acquire::Wanted,
        scan::{Freed, ScanCursors},
    },
};
use sqlx::{Connection as _, PgConnection, Row as _};

use self::pools::{CARD, POOL};

/// How many accounts each pool has. The first is what the others are compared with.
const SIZES: [i64; 3] = [1_000, 100_000, 1_000_000];
/// Acquisitions of one size in a row.
const IN_A_ROW: usize = 20;
/// Rounds that are not counted: plans are made, and pages read.
const WARM_UP: usize = 10;

#[derive(Parser)]
struct Args {
    /// Rounds; each acquires 20 times in every pool.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// Print what Postgres says of the statement, instead of times.
    #[arg(long)]
    explain: bool,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A pool of one size.
struct Bench {
    accounts: i64,
    store: Store,
    url: String,
    times: Vec<Duration>,
    /// As the server's dispatcher has them.
    cursors: ScanCursors,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    leave_out_pg_variables().unwrap();
    let directory = std::env::temp_dir().join(format!("holdfast-bench-{}", std::process::id()));
    let mut options = Options::new(Data::Kept(directory.clone()));
    // Nothing of what is compared depends on when a checkpoint comes.
    options.settings.push(("max_wal_size".to_owned(), "8GB".to_owned()));
    let postgres = Postgres::start(options).await.unwrap();
    let mut benches = Vec::new();
    for accounts in SIZES {
        eprintln_progress(&format!("filling a pool of {accounts} accounts"));
        benches.push(Bench::prepare(&postgres, accounts).await);
    }
    if args.explain {
        for bench in &benches {
            println!("{} accounts\n\n{}\n", bench.accounts, bench.explain().await);
        }
    } else {
        for round in 0..WARM_UP + args.rounds {
            for bench in &mut benches {
                bench.run(round >= WARM_UP).await;
            }
        }
        report(&mut benches);
    }
    drop(benches);
    drop(postgres);
    let _ = std::fs::remove_dir_all(directory);
}

#[allow(clippy::print_stderr, reason = "progress is not the result")]
fn eprintln_progress(text: &str) {
    eprintln!("{text}");
}

impl Bench {
    async fn prepare(postgres: &Postgres, accounts: i64) -> Self {
        let name = format!("accounts_{accounts}");
        pools::create_database(&postgres.url("postgres"), &name).await;
        let url = postgres.url(&name);
        let store = Store::open(&url.clone().into(), 2).unwrap();
        store.migrate().await.unwrap();
        pools::fill(&url, accounts).await;
        Self { accounts, store, url, times: Vec::new(), cursors: ScanCursors::default() }
    }

    async fn run(&mut self, counted: bool) {
        let pool_id = PoolId::parse(POOL).unwrap();
        for _ in 0..IN_A_ROW {
            let wanted = Wanted {
                request_id: RequestId::random(),
                holder: Holder::parse("bench").unwrap(),
                ttl: Duration::from_secs(60),
                expected_minor: Some(CARD),
            };
            let began = Instant::now();
            let found = self
                .store
                .acquire(&pool_id, &Selector::default(), &[wanted], &mut self.cursors)
                .await
                .unwrap();
            let took = began.elapsed();
            let account = found.into_values().next().expect("one fits").account;
            if counted {
                self.times.push(took);
            }
            let lease = LeaseRef {
                pool_id: pool_id.clone(),
                account_id: account.account_id,
                token: FencingToken(account.token.0),
            };
            if let LeaseAnswer::Done(account) = self.store.release(&lease).await.unwrap() {
                Freed::of(&account).iter().for_each(|freed| self.cursors.note_freed(freed));
            }
        }
    }

    /// The statement under a plan for any arguments, as a server has it after a few calls, run for real
    /// and taken back.
    async fn explain(&self) -> String {
        let mut db = PgConnection::connect(&self.url).await.unwrap();
        let sql = include_str!("../../src/store/sql/choose.sql");
        let execute = |request: &str| {
            format!(
            "EXECUTE choose ('{POOL}', '{{{request}}}', {CARD}, 1, NULL, NULL, NULL, NULL, '{{}}', '{{}}', '{{}}',
             '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')"
        )
        };
        let mut rows = Vec::new();
        for statement in [
            "SET plan_cache_mode = force_generic_plan",
            &format!("PREPARE choose AS {sql}"),
            "BEGIN",
            &execute("first"),
            &format!("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {}", execute("second")),
            "ROLLBACK",
        ] {
            let statement = sqlx::AssertSqlSafe(statement.to_owned());
            rows.extend(sqlx::raw_sql(statement).fetch_all(&mut db).await.unwrap());
        }
        let lines = rows.iter().filter_map(|row| row.try_get::<String, _>("QUERY PLAN").ok());
        lines.collect::<Vec<_>>().join("\n")
    }

    fn percentile(&mut self, percent: usize) -> Duration {
        self.times.sort_unstable();
        self.times[(self.times.len() - 1) * percent / 100]
    }
}

fn report(benches: &mut [Bench]) {
    println!("| accounts | free | fit | p50 | ratio | p99 | ratio |");
    println!("|--:|--:|--:|--:|--:|--:|--:|");
    let first = [50, 99].map(|percent| benches[0].percentile(percent));
    for bench in benches {
        let (free, fit) = pools::free_and_fit(bench.accounts);
        let [p50, p99] = [50, 99].map(|percent| bench.percentile(percent));
        println!(
            "| {} | {free} | {fit} | {} µs | {:.2} | {} µs | {:.2} |",
            bench.accounts,
            p50.as_micros(),
            p50.as_secs_f64() / first[0].as_secs_f64(),
            p99.as_micros(),
            p99.as_secs_f64() / first[1].as_secs_f64(),
        );
    }
}
