//! A well-behaved client beside attacks: whether it is served, how long it waits, and what the server's memory does.
//!
//! Each attack has a server of its own. The client comes alone first, then beside the attack; then it goes on while the
//! server's memory is watched until it is back.

mod steady;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use holdfast::domain::access::Role;
use serde::Serialize;

use self::steady::{Steady, Tally};
use crate::{
    args::Args,
    attacker::{Attack, DONE, FAT_POOL, LARGE_POOL, POOLS, small_pool},
    goals::Goal,
    ground::{Ground, Use},
    load::Times,
    machine::Machine,
    peers::{holdfast::Server, provider::Provider},
    postgres::{self, POOL},
    process::Process,
    report::{self, progress},
    secure::{Authority, Target, new_token, trusting},
    usage::Usage,
};

/// Of 100 calls of the client, so many succeed.
pub(crate) const SERVED: Goal = Goal::AtLeast(99.0);
/// How many times its own p99 alone.
pub(crate) const TIMES_ALONE: Goal = Goal::AtMost(3.0, "");
/// The most that the server's memory may come to.
pub(crate) const MEMORY: Goal = Goal::AtMost(200.0, "MB");
/// Memory is back when it is at most so many times what it was, or so much more.
const BACK: f64 = 1.1;
const BACK_MB: f64 = 5.0;
/// By then.
const MINUTE: Duration = Duration::from_secs(60);
/// How often memory is read.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// What the client needs to be warm, and how long it is alone then.
const WARM_UP: Duration = Duration::from_secs(2);
const ALONE: Duration = Duration::from_secs(6);
/// Accounts of the client's pool, and of the pool whose accounts have long labels.
const ACCOUNTS: usize = 10_000;
const FAT: usize = 1_000;

/// How all attacks went.
#[derive(Serialize)]
pub(crate) struct Attacked {
    pub(crate) is_whole: bool,
    pub(crate) seconds: u64,
    pub(crate) accounts: i64,
    pub(crate) alone_p50_ms: f64,
    pub(crate) alone_p99_ms: f64,
    pub(crate) attacks: Vec<One>,
}

/// How one went.
#[derive(Serialize)]
pub(crate) struct One {
    pub(crate) attack: Attack,
    pub(crate) calls: u64,
    pub(crate) served_percent: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) before_mb: f64,
    pub(crate) most_mb: f64,
    pub(crate) after_mb: f64,
    /// When memory was back, in seconds after the attack.
    pub(crate) back_after_s: Option<f64>,
    /// How much the attacker did.
    pub(crate) done: u64,
    /// Of one processor.
    pub(crate) server_cpu_percent: f64,
    pub(crate) attacker_cpu_percent: f64,
    pub(crate) failures: Vec<String>,
}

impl One {
    /// Whether it reached all that it is to reach.
    pub(crate) fn met(&self, alone_p99_ms: f64) -> bool {
        SERVED.met(self.served_percent)
            && TIMES_ALONE.met(self.p99_ms / alone_p99_ms)
            && MEMORY.met(self.most_mb)
            && self.back_after_s.is_some()
    }
}

/// What every server needs.
struct Scene<'a> {
    args: &'a Args,
    ground: &'a Ground,
    url: String,
    provider: Provider,
    authority: Authority,
    token: String,
    attackers: String,
    of_metrics: String,
    alone: Times,
}

pub(crate) async fn measure(args: &Args) -> anyhow::Result<()> {
    let ground = Ground::prepare(args, Use::Runs).await?;
    let machine = Machine::read(&ground).await?;
    progress(&machine.to_string());
    let attacks = args.attacks();
    let mut scene = Scene::prepare(args, &ground, &attacks).await?;
    let mut seen = Vec::new();
    for attack in &attacks {
        progress(attack.text());
        match scene.attacked(*attack).await {
            Ok(one) => {
                progress(&format!("  {}", report::attack(&one, scene.alone.ms(99.0))));
                seen.push(one);
            }
            Err(error) => progress(&format!("  failed: {error:#}")),
        }
    }
    let attacked = Attacked {
        is_whole: args.is_whole_attack() && seen.len() == attacks.len(),
        seconds: args.attack_duration().as_secs(),
        accounts: args.accounts(),
        alone_p50_ms: scene.alone.ms(50.0),
        alone_p99_ms: scene.alone.ms(99.0),
        attacks: seen,
    };
    report::attacks(args, &machine, &attacked)?;
    drop(scene);
    ground.stop().await
}

impl<'a> Scene<'a> {
    async fn prepare(
        args: &'a Args,
        ground: &'a Ground,
        attacks: &[Attack],
    ) -> anyhow::Result<Self> {
        let url = ground.new_database("attacks").await?;
        postgres::fill_with_past(&url, ACCOUNTS).await?;
        for attack in attacks {
            match attack {
                Attack::Explain => fill(&url, LARGE_POOL, args.accounts(), "{}").await?,
                Attack::Unread => {
                    let labels: Vec<_> = (0..16)
                        .map(|n| format!("\"label-{n}\": \"{}\"", "x".repeat(200)))
                        .collect();
                    let labels = format!("{{{}}}", labels.join(", "));
                    fill(&url, FAT_POOL, i64::try_from(FAT)?, &labels).await?;
                }
                _ => {}
            }
        }
        if attacks.iter().any(|attack| matches!(attack, Attack::Pools | Attack::Metrics)) {
            fill_small_pools(&url).await?;
        }
        postgres::run(&url, "VACUUM (ANALYZE)").await?;
        let others = [(Role::Operator, "other-*"), (Role::Auditor, "other-*")];
        Ok(Self {
            args,
            ground,
            provider: Provider::start(ground, "0ms").await?,
            authority: Authority::new()?,
            token: new_token(&url, "steady", &[(Role::Redeemer, POOL)]).await?,
            attackers: new_token(&url, "attacker", &others).await?,
            of_metrics: new_token(&url, "metrics", &[(Role::Auditor, "*")]).await?,
            url,
            alone: Times::new()?,
        })
    }

    /// One attack on a new server.
    async fn attacked(&mut self, attack: Attack) -> anyhow::Result<One> {
        self.ground.level().await?;
        let mut settings = self.authority.settings()?;
        settings.push(format!("--provider-url={}", self.provider.url));
        let variables = [("HOLDFAST_AUTH", "on")];
        let server = Server::start_with(self.ground, &self.url, &settings, &variables).await?;
        let target = Target {
            url: server.url.replace("http://", "https://"),
            tls: Some(trusting(&self.authority.ca_file, "h2")?),
            bearer: Some(self.token.clone()),
            ..Target::plain(&server.url)
        };
        let steady = Steady::connect(&target).await?;
        steady.come_for(WARM_UP).await?;
        let alone = steady.come_for(ALONE).await?;
        ensure!(alone.failed.is_empty(), "the client failed alone: {:?}", alone.failed);
        self.alone.add(&alone.times)?;
        let before_mb = server.process.memory_mb()?;

        let attacker = self.attacker(attack, &server)?;
        let lasting = self.args.attack_duration();
        let usage = || [&server.process, &attacker].map(|process| Usage::of(process.id()));
        let used = usage();
        let come = steady.come_for(lasting);
        let (tally, most_mb) = beside(come, &server).await?;
        let cpu: Vec<_> = usage()
            .into_iter()
            .zip(used)
            .map(|(after, before)| after.since(before).cpu_seconds / lasting.as_secs_f64())
            .collect();
        let done = attacker.last_line(DONE).and_then(|done| done.parse().ok()).unwrap_or(0);
        drop(attacker);
        let (after_mb, back_after_s) = Self::back(&steady, &server, before_mb).await?;
        let Tally { calls, failed, times } = tally;
        #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let failures = failed.values().sum::<u64>() as f64;
        Ok(One {
            attack,
            calls,
            served_percent: 100.0 * (1.0 - failures / calls.max(1) as f64),
            p50_ms: times.ms(50.0),
            p99_ms: times.ms(99.0),
            before_mb,
            most_mb,
            after_mb,
            back_after_s,
            done,
            server_cpu_percent: 100.0 * cpu[0],
            attacker_cpu_percent: 100.0 * cpu[1],
            failures: failed.into_iter().map(|(why, count)| format!("{count}: {why}")).collect(),
        })
    }

    fn attacker(&self, attack: Attack, server: &Server) -> anyhow::Result<Process> {
        use clap::ValueEnum as _;
        let mut command = std::process::Command::new(std::env::current_exe()?);
        let name = attack.to_possible_value().context("an attack without a name")?;
        let addr = server.url.trim_start_matches("http://");
        command
            .args(["attack", name.get_name(), "--addr", addr, "--admin", &server.admin])
            .args(["--token", &self.attackers, "--metrics-token", &self.of_metrics, "--ca-file"])
            .arg(&self.authority.ca_file);
        Process::start("the attacker", command, &[])
    }

    /// The memory when it is back, or after a minute, and when it was back. The client goes on meanwhile.
    async fn back(
        steady: &Steady,
        server: &Server,
        before_mb: f64,
    ) -> anyhow::Result<(f64, Option<f64>)> {
        let begun = Instant::now();
        let goal = (before_mb * BACK).max(before_mb + BACK_MB);
        loop {
            let _ = steady.come_for(Duration::from_secs(1)).await?;
            let now = server.process.memory_mb()?;
            if now <= goal {
                return Ok((now, Some(begun.elapsed().as_secs_f64())));
            }
            if begun.elapsed() >= MINUTE {
                return Ok((now, None));
            }
        }
    }
}

/// The most memory of the server while something goes on.
async fn beside<T>(
    what: impl Future<Output = anyhow::Result<T>>,
    server: &Server,
) -> anyhow::Result<(T, f64)> {
    let mut most = 0_f64;
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    tokio::pin!(what);
    loop {
        tokio::select! {
            done = &mut what => return Ok((done?, most)),
            _ = ticks.tick() => {
                most = most.max(server.process.memory_mb().context("the server ended")?);
            }
        }
    }
}

/// A pool of accounts that are all free.
async fn fill(url: &str, pool: &str, accounts: i64, labels: &str) -> anyhow::Result<()> {
    let sql = format!(
        "INSERT INTO pools (pool_id, currency_code, default_lease, min_lease, max_lease, amount_mismatch)
         VALUES ('{pool}', 'EUR', '1 minute', '1 second', '1 hour', 'ACCEPT');
         INSERT INTO accounts (pool_id, account_id, country_code, labels)
         SELECT '{pool}', format('account-%s', lpad(n::text, 8, '0')), 'DE', '{labels}'
         FROM generate_series(1, {accounts}) n
        "
    );
    postgres::run(url, &sql).await
}

/// Pools of one account each.
async fn fill_small_pools(url: &str) -> anyhow::Result<()> {
    let (first, last) = (small_pool(0), POOLS - 1);
    let name = first.trim_end_matches(|digit: char| digit.is_ascii_digit());
    let sql = format!(
        "INSERT INTO pools (pool_id, currency_code, default_lease, min_lease, max_lease, amount_mismatch)
         SELECT '{name}' || lpad(n::text, 4, '0'), 'EUR', '1 minute', '1 second', '1 hour', 'ACCEPT'
         FROM generate_series(0, {last}) n;
         INSERT INTO accounts (pool_id, account_id, country_code)
         SELECT '{name}' || lpad(n::text, 4, '0'), 'account', 'DE'
         FROM generate_series(0, {last}) n"
    );
    postgres::run(url, &sql).await
}
