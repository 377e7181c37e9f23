//! Batches that are interrupted: the server, the client or the connection ends at any point. Opened
//! again, each batch ends with one outcome for each item.

use std::{collections::HashMap, time::Duration};

use holdfast::rpc::pb::{self, RedemptionState};
use tokio::time::{Instant, timeout};

use crate::support::{
    batch::{Session, begun, credited, item, opening, run},
    fleet::{Able, Fleet, Setup, channel},
    proxy::{
        Proxy,
        bytes::{Bytes, Way},
    },
    wait::eventually,
    world::{Clients, POOL},
};

const ITEMS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a batch may take to end, whatever happens to it.
const LIMIT: Duration = Duration::from_secs(60);

async fn fleet() -> Fleet {
    let able = Able { deduplicates: true, looks_up: true, cancels: true };
    let provider = vec!["--fault-latency=5ms..20ms".to_owned()];
    let mut fleet = Fleet::start(Setup { able, serve: Vec::new(), provider }).await;
    fleet.start_server(&[]).await;
    let mut clients = fleet.clients(0);
    clients.create_pool(POOL).await;
    // Each of four killed servers may leave four leases that run out only later: there must be accounts beside them.
    clients.create_accounts(24).await;
    fleet
}

fn items(fleet: &Fleet) -> Vec<pb::BatchItem> {
    (0..ITEMS).map(|n| item(&format!("i{n}"), &fleet.code(&format!("{n}")))).collect()
}

/// Opens the batch, and reads until it breaks, or so many results have come.
async fn open(
    clients: &mut Clients,
    items: &[pb::BatchItem],
    leaves_after: Option<usize>,
) -> HashMap<String, pb::Redemption> {
    let open = pb::BatchOpen { max_in_flight: 4, ..opening("batch") };
    let Ok(Ok(session)) = timeout(PATIENCE, Session::open(clients, open)).await else {
        return HashMap::new();
    };
    let results = session.results_until_it_breaks(items.to_vec(), PATIENCE, leaves_after).await;
    let redemptions =
        results.iter().filter_map(|result| Some((result.item_id.clone(), begun(result)?.clone())));
    redemptions.collect()
}

/// The batch is opened once more, and each item has one outcome, the one that was told before.
async fn ends_well(
    clients: &mut Clients,
    items: &[pb::BatchItem],
    told: &HashMap<String, pb::Redemption>,
) {
    let begun_at = Instant::now();
    let results = loop {
        assert!(begun_at.elapsed() < LIMIT, "the batch does not end");
        let ended = timeout(LIMIT, run(clients, opening("batch"), items)).await.expect("an end");
        if let Ok(ended) = ended
            && ended.results.iter().filter_map(begun).all(|r| r.state() != RedemptionState::InDoubt)
        {
            break ended;
        }
    };
    let by_item = results.by_item();
    assert_eq!(by_item.len(), ITEMS);
    for (item_id, result) in by_item {
        let now = credited(result);
        if let Some(before) = told.get(&item_id) {
            assert_eq!(now.redemption_id, before.redemption_id, "{item_id} was begun twice");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_again_and_again_leaves_one_outcome_for_each_item() {
    let mut fleet = fleet().await;
    let items = items(&fleet);
    let mut told = HashMap::new();
    for results in [1, 5, 9, 13] {
        let mut clients = fleet.clients(0);
        let server = &mut fleet.servers[0];
        let reading = open(&mut clients, &items, None);
        let killing = async {
            let redeemed = format!("{results} results");
            eventually(LIMIT, &redeemed, async || {
                let redeemed = server.said().matches("\"redeemed\"").count();
                (redeemed >= results).then_some(())
            })
            .await;
            server.kill();
        };
        let (results, ()) = tokio::join!(reading, killing);
        told.extend(results);
        fleet.restart_server(0).await;
    }
    ends_well(&mut fleet.clients(0), &items, &told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_at_any_point_finds_one_outcome_for_each_item() {
    let fleet = fleet().await;
    let items = items(&fleet);
    let mut told = HashMap::new();
    for leaves_after in [0, 1, 2, 7, 20] {
        told.extend(open(&mut fleet.clients(0), &items, Some(leaves_after)).await);
    }
    ends_well(&mut fleet.clients(0), &items, &told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_at_any_byte_leaves_one_outcome_for_each_item() {
    let fleet = fleet().await;
    let items = items(&fleet);
    let proxy = Proxy::<Bytes>::before(fleet.servers[0].addr.parse().unwrap());
    let through = || Clients::over(channel(&proxy.addr().to_string()), fleet.journal.clone());
    let mut told = HashMap::new();
    for (way, bytes) in [
        (Way::ToServer, 1),
        (Way::ToServer, 300),
        (Way::ToServer, 1500),
        (Way::ToClient, 1),
        (Way::ToClient, 400),
        (Way::ToClient, 2500),
    ] {
        let fired = proxy.cut_after(way, bytes);
        told.extend(open(&mut through(), &items, None).await);
        fired.wait(1).await;
    }
    ends_well(&mut through(), &items, &told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_overtaken_by_another_and_brings_no_second_outcome() {
    let mut fleet = fleet().await;
    fleet.start_server(&[]).await;
    let items = items(&fleet);
    let clients = &mut fleet.clients(0);
    let server = &fleet.servers[0];
    let stopping = async {
        eventually(LIMIT, "three cards are redeemed", async || {
            (server.said().matches("\"redeemed\"").count() >= 3).then_some(())
        })
        .await;
        server.stop();
    };
    let (told, ()) = tokio::join!(open(clients, &items, None), stopping);
    assert!(told.len() < ITEMS, "the server stood still too late");
    ends_well(&mut fleet.clients(1), &items, &told).await;
    fleet.servers[0].go_on();
    ends_well(&mut fleet.clients(0), &items, &told).await;
}
