//! One caller alone: an acquisition over gRPC beside the one-row statement from a bare client.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast::{
    domain::{
        choice::Criteria,
        id::{Holder, PoolId, RequestId},
        lease::LeaseRef,
        principal::{Authority, Principal, RequestKey},
    },
    store::{
        Store,
        acquire::{Claim, Wanted},
    },
};

use crate::{
    args::Args,
    goals::Row,
    ground::Ground,
    peers::{
        bare::Bare,
        echo::Echo,
        holdfast::{Client, Server, acquired, connect, release},
    },
    postgres::{self, POOL},
    report::progress,
    stats,
};

/// Groups that the turns are gathered in, for the spread.
const GROUPS: usize = 5;
/// Turns before those that count.
const WARM_UP: usize = 10;

pub(super) async fn measure(args: &Args, ground: &Ground, row: &mut Row) -> anyhow::Result<()> {
    progress("one caller alone");
    let url = ground.new_database("alone").await?;
    let bare_url = ground.new_database("alone_bare").await?;
    let store_url = ground.new_database("alone_store").await?;
    for url in [&url, &bare_url, &store_url] {
        postgres::fill(url, super::cycles::ACCOUNTS).await?;
    }
    let server = Server::start(ground, &url, &[]).await?;
    let echo = Echo::start().await?;
    let mut ours = connect(&server.url, 1).await?.remove(0);
    let mut nothing = connect(&echo.url, 1).await?.remove(0);
    let mut bare = Bare::connect(&bare_url).await?;
    let store = Store::open(&store_url.into(), 2)?;
    ground.level().await?;
    let criteria = Arc::new(Criteria { selector: Arc::default(), expected_minor: None });
    let mut times = [const { Vec::new() }; 4];
    let (in_a_row, turns) = args.calls_alone();
    for turn in 0..WARM_UP + turns {
        for call in 0..4 * in_a_row {
            let peer = call / in_a_row;
            let took = match peer {
                0 => over_rpc(&mut ours).await?,
                1 => bare.acquire().await?,
                2 => by_store(&store, &criteria).await?,
                _ => over_rpc(&mut nothing).await?,
            };
            if turn >= WARM_UP {
                times[peer].push(took);
            }
        }
    }
    store.close().await;
    drop((server, echo, bare));
    let names = [
        "Holdfast over gRPC, acquire p50",
        "bare client, one-row statement, p50",
        "for comparison: Holdfast's statement without gRPC, p50",
        "for comparison: gRPC without any work, p50",
    ];
    note(row, &times, &names);
    ground.drop_database("alone").await?;
    ground.drop_database("alone_store").await?;
    ground.drop_database("alone_bare").await
}

async fn over_rpc(client: &mut Client) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let lease = acquired(client).await?;
    let took = begun.elapsed();
    client.release_account(release(lease)).await?;
    Ok(took)
}

/// Acquires as the server does, without the server.
pub(super) async fn by_store(store: &Store, criteria: &Arc<Criteria>) -> anyhow::Result<Duration> {
    let pool_id = PoolId::parse(POOL).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let wanted = Wanted {
        begins: None,
        request: RequestKey::new(Principal::anonymous(), RequestId::random()),
        holder: Holder::parse("bench").map_err(|error| anyhow::anyhow!("{error:?}"))?,
        ttl: Duration::from_secs(60),
    };
    let ready = store.ready(&pool_id);
    if !ready.is_whole() {
        ready.follow().await?;
    }
    let terms = ready.terms().ok_or_else(|| anyhow::anyhow!("there is no pool"))?;
    let begun = Instant::now();
    let chosen = ready.choose([criteria], &terms, 1).into_iter().next();
    let account = chosen.ok_or_else(|| anyhow::anyhow!("no account was free"))?.account;
    let account_id = account.account_id.clone();
    let criteria = Arc::clone(criteria);
    let claimed = store.claim(&pool_id, vec![Claim { wanted, criteria, account }]).await?;
    let took = begun.elapsed();
    ready.conclude(&[account_id]);
    let account = claimed.leased.into_values().next().map(|acquired| acquired.account);
    let account = account.ok_or_else(|| anyhow::anyhow!("the account was not leased"))?;
    let lease = LeaseRef { pool_id, account_id: account.account_id, token: account.token };
    store.release(&lease, Authority::default()).await?;
    Ok(took)
}

/// Notes the ratio of the first to the second, with the times of all.
pub(super) fn note(row: &mut Row, times: &[Vec<Duration>], names: &[&str]) {
    let groups: Vec<Vec<f64>> = times
        .iter()
        .map(|times| {
            let size = times.len().div_ceil(GROUPS).max(1);
            times.chunks(size).map(p50_ms).collect()
        })
        .collect();
    let ratio = p50_ms(&times[0]) / p50_ms(&times[1]);
    let ratios = stats::ratios(&groups[0], &groups[1]);
    row.set(0, ratio, Some(stats::spread(&ratios)));
    for ((name, times), groups) in names.iter().zip(times).zip(groups) {
        let mut measured = stats::measured(name, "ms", &groups);
        measured.median = p50_ms(times);
        row.measured.push(measured);
    }
}

fn p50_ms(times: &[Duration]) -> f64 {
    let ms: Vec<_> = times.iter().map(|time| time.as_secs_f64() * 1_000.0).collect();
    stats::median(&ms)
}
