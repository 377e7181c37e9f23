//! Acquire and release, by 256 callers over gRPC, beside what else does the like.

use super::{compare, run_in_rounds};
use crate::{
    args::{Args, Figure},
    goals::{self, Row},
    ground::Ground,
    peers::{
        Peer,
        by_hand::{ACQUIRE, RELEASE},
        echo::Echo,
        etcd::{self, Etcd},
        holdfast::{CyclesOverRpc, Server},
        pgbench::Pgbench,
    },
    postgres,
    report::progress,
};

/// Accounts of the pool: far more than callers.
pub(super) const ACCOUNTS: usize = 10_000;

const UNIT: &str = "cycles/s";

pub(super) async fn measure(args: &Args, ground: &Ground, rows: &mut [Row]) -> anyhow::Result<()> {
    progress("acquire and release, 256 in flight");
    let url = ground.new_database("cycles").await?;
    postgres::fill(&url, ACCOUNTS).await?;
    let server = Server::start(ground, &url, &[]).await?;
    let mut peers: Vec<Box<dyn Peer>> =
        vec![Box::new(CyclesOverRpc::connect("Holdfast", &server.url).await?)];
    // The row that each of the others is compared in.
    let mut rows_of_goals = Vec::new();
    let mut processes = (None, None);
    if args.wants(Figure::Cycles) {
        let url = ground.new_database("cycles_by_hand").await?;
        postgres::fill(&url, ACCOUNTS).await?;
        let statements = [ACQUIRE, RELEASE];
        let pgbench =
            Pgbench::prepare(ground, "acquire and release", &statements, &url, args.trial())
                .await?;
        peers.push(Box::new(pgbench));
        rows_of_goals.push(goals::CYCLES);
    }
    if args.wants(Figure::Etcd) {
        match etcd::program(args) {
            Some(program) => {
                peers.push(Box::new(Etcd::start(&program, ground, args.trial()).await?));
                rows_of_goals.push(goals::ETCD);
            }
            None => rows[goals::ETCD].fail(0, "etcd is not installed: make bench-peers"),
        }
    }
    if args.wants(Figure::Echo) {
        let echo = Echo::start().await?;
        let name = "the same gRPC without any work";
        peers.push(Box::new(CyclesOverRpc::connect(name, &echo.url).await?));
        rows_of_goals.push(goals::ECHO);
        processes.0 = Some(echo);
    }
    let rounds = run_in_rounds(args, ground, &mut peers).await?;
    for (row, theirs) in rows_of_goals.into_iter().zip(&rounds[1..]) {
        compare(&mut rows[row], UNIT, &rounds[0], theirs);
    }
    drop(peers);
    processes.1 = Some(server);
    drop(processes);
    ground.drop_database("cycles").await?;
    if args.wants(Figure::Cycles) {
        ground.drop_database("cycles_by_hand").await?;
    }
    Ok(())
}
