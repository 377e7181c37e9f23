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
