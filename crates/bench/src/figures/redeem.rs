//! Whole redemptions, by streams of cards, beside three commits without any HTTP, and beside a queue's jobs.

use super::{compare, cycles::ACCOUNTS, run_in_rounds};
use crate::{
    args::{Args, Figure},
    goals::{self, Row},
    ground::Ground,
    peers::{
        Peer,
        batch::Batches,
        by_hand::{ACQUIRE, BEGIN, SETTLE},
        graphile::{self, Graphile},
        holdfast::Server,
        pgbench::Pgbench,
        provider::Provider,
    },
    postgres,
    report::progress,
};

const UNIT: &str = "redemptions/s";

pub(super) async fn measure(args: &Args, ground: &Ground, rows: &mut [Row]) -> anyhow::Result<()> {
    progress("redemptions");
    let provider = Provider::start(ground, "0ms").await?;
    let url = ground.new_database("redeem").await?;
    postgres::fill_with_past(&url, ACCOUNTS).await?;
    let settings = [format!("--provider-url={}", provider.url)];
    let server = Server::start(ground, &url, &settings).await?;
    let mut peers: Vec<Box<dyn Peer>> = vec![Box::new(Batches::connect(&server.url).await?)];
    let mut rows_of_goals = Vec::new();
    let mut databases = vec!["redeem"];
    if args.wants(Figure::Redeem) {
        let url = ground.new_database("redeem_by_hand").await?;
        databases.push("redeem_by_hand");
        postgres::fill_with_past(&url, ACCOUNTS).await?;
        let statements = [ACQUIRE, BEGIN, SETTLE];
        let pgbench =
            Pgbench::prepare(ground, "three commits", &statements, &url, args.trial()).await?;
        peers.push(Box::new(pgbench));
        rows_of_goals.push(goals::REDEEM);
    }
    if args.wants(Figure::Graphile) {
        if let Some(folder) = graphile::folder(args) {
            let name = "redeem_by_jobs";
            let url = ground.new_database(name).await?;
            databases.push(name);
            postgres::fill_with_past(&url, ACCOUNTS).await?;
            let trial = args.trial();
            let worker = Graphile::prepare(ground, folder, name, &provider.url, trial).await?;
            peers.push(Box::new(worker));
            rows_of_goals.push(goals::GRAPHILE);
        } else {
            rows[goals::GRAPHILE].fail(0, "graphile-worker is not installed: make bench-peers");
        }
    }
    let rounds = run_in_rounds(args, ground, &mut peers).await?;
    for (row, theirs) in rows_of_goals.into_iter().zip(&rounds[1..]) {
        compare(&mut rows[row], UNIT, &rounds[0], theirs);
    }
    drop((peers, server, provider));
    for database in databases {
        ground.drop_database(database).await?;
    }
    Ok(())
}
