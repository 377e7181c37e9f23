//! What a card costs Postgres by `RedeemCard`, beside the three calls that do the same.

use std::time::Duration;

use anyhow::Context as _;
use holdfast::rpc::pb::{Money, RedeemCardRequest, RedeemRequest, RedemptionState};
use uuid::Uuid;

use super::WARM_UP;
use crate::{
    args::Args,
    goals::Row,
    ground::Ground,
    load::{Caller, closed_loop},
    peers::{
        holdfast::{Client, Server, acquired, connect, release},
        provider::Provider,
    },
    postgres::{self, POOL},
    report::progress,
    stats,
    usage::Usage,
};

/// Callers who are in flight at once, over so many connections.
const IN_FLIGHT: usize = 64;
const CONNECTIONS: usize = 4;
const ACCOUNTS: usize = 10_000;
const CALLS: [(&str, Calls); 2] = [("RedeemCard", Calls::One), ("three calls", Calls::Three)];

#[derive(Clone, Copy)]
enum Calls {
    One,
    Three,
}

/// Redeems cards, one after the other.
struct Redeemer {
    client: Client,
    calls: Calls,
}

impl Caller for Redeemer {
    async fn once(&mut self) -> anyhow::Result<()> {
        let (request_id, code) = (Uuid::now_v7().to_string(), Uuid::new_v4().simple().to_string());
        let expected = Some(Money { amount_minor: 1000, currency_code: "EUR".to_owned() });
        let redemption = match self.calls {
            Calls::One => {
                let request = RedeemCardRequest {
                    request_id,
                    pool_id: POOL.to_owned(),
                    holder: "bench".to_owned(),
                    code,
                    expected,
                    ..RedeemCardRequest::default()
                };
                self.client.redeem_card(request).await?.into_inner().redemption
            }
            Calls::Three => {
                let lease = acquired(&mut self.client).await?;
                let request = RedeemRequest {
                    request_id,
                    lease: Some(lease.clone()),
                    code,
                    expected,
                    release_on_completion: false,
                };
                let redeemed = self.client.redeem(request).await?.into_inner();
                self.client.release_account(release(lease)).await?;
                redeemed.redemption
            }
        };
        let state = redemption.context("an answer without a redemption")?.state();
        anyhow::ensure!(state == RedemptionState::Succeeded, "a card was not credited: {state:?}");
        Ok(())
    }
}

/// A server with a database of its own, and its callers.
struct Peer {
    name: &'static str,
    calls: Calls,
    clients: Vec<Client>,
    _server: Server,
    /// Of each round: cards by the second, and the processor time of Postgres's for one, in microseconds.
    per_second: Vec<f64>,
    micros: Vec<f64>,
}

impl Peer {
    async fn start(
        ground: &Ground,
        provider: &Provider,
        (name, calls): (&'static str, Calls),
        number: usize,
    ) -> anyhow::Result<Self> {
        let url = ground.new_database(&database(number)).await?;
        postgres::fill(&url, ACCOUNTS).await?;
        let settings = [format!("--provider-url={}", provider.url)];
        let server = Server::start(ground, &url, &settings).await?;
        let clients = connect(&server.url, CONNECTIONS).await?;
        Ok(Self { name, calls, clients, _server: server, per_second: vec![], micros: vec![] })
    }

    async fn run_for(&self, lasting: Duration) -> anyhow::Result<f64> {
        let clients = self.clients.iter().cycle().take(IN_FLIGHT).cloned();
        let callers = clients.map(|client| Redeemer { client, calls: self.calls }).collect();
        closed_loop(callers, lasting).await
    }

    async fn run_a_round(&mut self, ground: &Ground, lasting: Duration) -> anyhow::Result<()> {
        ground.level().await?;
        let (before, _) = Usage::of_postgres(ground)?;
        let per_second = self.run_for(lasting).await?;
        let (after, _) = Usage::of_postgres(ground)?;
        let cards = per_second * lasting.as_secs_f64();
        self.per_second.push(per_second);
        self.micros.push(after.since(before).cpu_seconds * 1e6 / cards.max(1.0));
        Ok(())
    }
}

pub(super) async fn measure(args: &Args, ground: &Ground, row: &mut Row) -> anyhow::Result<()> {
    progress("cards by one call and by three");
    let provider = Provider::start(ground, "0ms").await?;
    let mut peers = Vec::new();
    for (number, calls) in CALLS.into_iter().enumerate() {
        peers.push(Peer::start(ground, &provider, calls, number).await?);
    }
    for peer in &peers {
        peer.run_for(WARM_UP).await?;
    }
    for round in 1..=args.rounds() {
        for peer in &mut peers {
            peer.run_a_round(ground, args.run_duration()).await?;
            let (name, rate) = (peer.name, peer.per_second.last().unwrap_or(&f64::NAN));
            let micros = peer.micros.last().unwrap_or(&f64::NAN);
            progress(&format!("  round {round}: {name}: {rate:.0}/s, {micros:.0} µs of Postgres"));
        }
    }
    let ratios = stats::ratios(&peers[0].micros, &peers[1].micros);
    row.set(0, stats::median(&ratios), Some(stats::spread(&ratios)));
    for peer in &peers {
        let what = format!("Postgres's processor for a card, {}", peer.name);
        row.measured.push(stats::measured(&what, "µs", &peer.micros));
        let what = format!("cards, {}", peer.name);
        row.measured.push(stats::measured(&what, "cards/s", &peer.per_second));
    }
    drop((peers, provider));
    for number in 0..CALLS.len() {
        ground.drop_database(&database(number)).await?;
    }
    Ok(())
}

fn database(number: usize) -> String {
    format!("card_{number}")
}
