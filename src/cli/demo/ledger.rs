//! Both sides' records of the redemptions: ours over gRPC, the provider's over its own HTTP listing.

use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use super::{
    compare::{Entry, State},
    world::{POOLS, PoolPlan},
};
use crate::{
    cli::{client::Server, redemption},
    rpc::pb,
};

/// The longest that one page of the provider's listing may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Our redemptions of all pools.
pub(super) async fn ours(server: &Server) -> anyhow::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for pool in POOLS {
        let filter =
            pb::ListRedemptionsRequest { pool_id: pool.pool_id.to_owned(), ..Default::default() };
        redemption::each(server, filter, |redemption| {
            entries.push(our_entry(redemption));
            Ok(())
        })
        .await?;
    }
    Ok(entries)
}

fn our_entry(redemption: pb::Redemption) -> Entry {
    let state = match redemption.state() {
        pb::RedemptionState::Succeeded => State::Credited,
        pb::RedemptionState::Failed => State::NotCredited,
        pb::RedemptionState::NeedsReview => State::Review,
        _ => State::Open,
    };
    let amount = redemption.amount.unwrap_or_default();
    Entry {
        key: redemption.redemption_id,
        pool_id: redemption.pool_id,
        state,
        account: redemption.account_id,
        amount_minor: amount.amount_minor,
        currency_code: amount.currency_code,
    }
}

/// How many of a pool's redemptions have an outcome that is still being found out.
pub(super) async fn count_unknown(server: &Server, pool: &PoolPlan) -> anyhow::Result<u64> {
    let states = [pb::RedemptionState::Submitted, pb::RedemptionState::InDoubt];
    let filter = pb::ListRedemptionsRequest {
        pool_id: pool.pool_id.to_owned(),
        states: states.map(Into::into).to_vec(),
        ..Default::default()
    };
    let mut open = 0;
    redemption::each(server, filter, |_| {
        open += 1;
        Ok(())
    })
    .await?;
    Ok(open)
}

#[derive(Deserialize)]
struct Page {
    redemptions: Vec<Listed>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    key: String,
    state: String,
    #[serde(default)]
    account_ref: Option<String>,
    #[serde(default)]
    amount_minor: i64,
    #[serde(default)]
    currency_code: String,
}

/// The provider's ledger, as it lists it.
pub(super) async fn provider(base_url: &str) -> anyhow::Result<Vec<Entry>> {
    let http = http()?;
    let mut entries = Vec::new();
    let mut token = String::new();
    loop {
        let url = format!("{base_url}/redemptions");
        let url = reqwest::Url::parse_with_params(&url, [("page_token", &token)])?;
        let page: Page = http
            .get(url)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .context("the provider does not list its redemptions")?
            .json()
            .await
            .context("the provider's listing cannot be read")?;
        entries.extend(page.redemptions.into_iter().map(provider_entry));
        token = page.next_page_token.unwrap_or_default();
        if token.is_empty() {
            return Ok(entries);
        }
    }
}

/// Whether the provider answers.
pub(super) async fn provider_answers(base_url: &str) -> bool {
    provider(base_url).await.is_ok()
}

fn http() -> anyhow::Result<reqwest::Client> {
    // Fails only where one is installed already, which is then the one that is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(PAGE_TIMEOUT)
        .build()
        .context("no HTTP client can be made")
}

fn provider_entry(listed: Listed) -> Entry {
    let state = match listed.state.as_str() {
        "succeeded" => State::Credited,
        "failed" | "cancelled" => State::NotCredited,
        _ => State::Open,
    };
    Entry {
        key: listed.key,
        pool_id: String::new(),
        state,
        account: listed.account_ref.unwrap_or_default(),
        amount_minor: listed.amount_minor,
        currency_code: listed.currency_code,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::simulator::{Simulator, SimulatorArgs};

    #[tokio::test]
    async fn the_provider_lists_what_it_did_with_the_example_cards() {
        let folder = tempfile::tempdir().unwrap();
        let mut args = SimulatorArgs::new(folder.path().join("ledger.jsonl"));
        let cards = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/provider-cards.csv");
        args.cards = Some(cards.clone());
        let simulator = Simulator::start(&args).await.unwrap();
        assert!(provider_answers(&simulator.url()).await);

        let card = csv::Reader::from_path(cards).unwrap().records().next().unwrap().unwrap();
        for (key, code) in [("1", &card[0]), ("2", "NOT-A-CARD-AT-ALL")] {
            let body =
                json!({"code": code, "account_ref": "a", "not_after": "2999-01-01T00:00:00Z"});
            let request = http().unwrap().post(format!("{}/redemptions", simulator.url()));
            request.header("Idempotency-Key", key).json(&body).send().await.unwrap();
        }
        let listed = provider(&simulator.url()).await.unwrap();
        let states: Vec<_> = listed.iter().map(|it| (it.key.as_str(), it.state)).collect();
        assert_eq!(states, [("1", State::Credited), ("2", State::NotCredited)]);
        assert_eq!(listed[0].amount_minor.to_string(), card[1]);
        assert_eq!((listed[0].currency_code.as_str(), listed[0].account.as_str()), (&card[2], "a"));
        simulator.stop().await.unwrap();
    }
}
