//! Both sides' records of the redemptions, for all time.

use std::{collections::HashMap, path::Path};

use anyhow::Context as _;
use clap::{Args as _, Command, FromArgMatches as _};
use holdfast_simulator::ledger::{self, Row};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    compare::Ledger,
    world::{POOLS, PoolPlan},
};
use crate::{
    cli::{
        redemption,
        redemption::audit::{
            Window,
            compare::{Names, Record, State},
            ours::Ours,
            progress::Progress,
            provider::read_list,
        },
        shared::client::Server,
    },
    config::ProviderArgs,
    domain::money::Currency,
    provider::Provider,
    rpc::pb,
};

/// Our redemptions of all pools.
pub(super) async fn ours(server: &Server) -> anyhow::Result<Vec<Ours>> {
    let (mut all, mut names) = (Vec::new(), Names::default());
    for pool in POOLS {
        let filter =
            pb::ListRedemptionsRequest { pool_id: pool.pool_id.to_owned(), ..Default::default() };
        redemption::each(server, filter, |redemption, _| {
            all.push(Ours::read(&redemption, &mut names)?);
            Ok(())
        })
        .await?;
    }
    Ok(all)
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
    redemption::each(server, filter, |_, _| {
        open += 1;
        Ok(())
    })
    .await?;
    Ok(open)
}

/// The provider's ledger, as it lists it.
pub(super) async fn provider(base_url: &str) -> anyhow::Result<Ledger> {
    let to = OffsetDateTime::now_utc() + Duration::DAY;
    let always = Window { from: OffsetDateTime::UNIX_EPOCH, to };
    let (provider, progress) = (client(base_url)?, &mut Progress::hidden());
    let euro = Currency::parse("EUR").context("no currency")?;
    read_list(&provider, always, euro, &mut Names::default(), progress).await?.plain()
}

/// The task API's ledger: what it did by each of our redemptions' tasks. It has no list, so its file is read.
pub(super) fn tasks(file: &Path, ours: &[Ours]) -> anyhow::Result<Ledger> {
    let of_task: HashMap<&str, Uuid> =
        ours.iter().filter_map(|it| Some((it.task.as_deref()?, it.key))).collect();
    let rows = holdfast_simulator::ledger::read(file).context("the task API's ledger")?;
    let record = |row: Row| {
        // What no redemption of ours has the task of is told under a key of its own.
        let key = of_task.get(&*row.key).copied().unwrap_or_else(Uuid::now_v7);
        let state = match row.state {
            ledger::State::Succeeded => State::Succeeded,
            ledger::State::Failed => State::Failed,
            ledger::State::Cancelled => State::Cancelled,
            ledger::State::Processing => State::Processing,
        };
        let record = Record {
            state,
            account: row.account_ref.unwrap_or_default().into(),
            amount_minor: Some(row.amount_minor),
            currency_code: row.currency_code.into(),
            provider_ref: Some(row.provider_ref.into()),
        };
        (key, record)
    };
    Ok(rows.into_iter().map(record).collect())
}

/// Whether the provider answers.
pub(super) async fn provider_answers(base_url: &str) -> bool {
    let Ok(provider) = client(base_url) else { return false };
    let Some(euro) = Currency::parse("EUR") else { return false };
    provider.list(("", ""), None, euro).await.is_ok()
}

/// Asks the demo's own provider, with the settings that `serve` has by default. The variables that
/// are set here are meant for another.
fn client(base_url: &str) -> anyhow::Result<Provider> {
    let settings = ProviderArgs::augment_args(Command::new("provider"))
        .mut_args(|argument| argument.env(None::<&str>));
    let given = settings.try_get_matches_from(["provider", "--provider-url", base_url])?;
    Provider::built_in(&ProviderArgs::from_arg_matches(&given)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use holdfast_simulator::{Simulator, SimulatorArgs};

    #[tokio::test]
    async fn the_provider_lists_what_it_did_with_the_example_cards() {
        let folder = tempfile::tempdir().unwrap();
        let mut args = SimulatorArgs::new(folder.path().join("ledger.jsonl"));
        let cards = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/provider-cards.csv");
        args.cards = Some(cards.clone());
        let simulator = Simulator::start(&args).await.unwrap();
        assert!(provider_answers(&simulator.url()).await);

        let card = csv::Reader::from_path(cards).unwrap().records().next().unwrap().unwrap();
        let keys = [Uuid::now_v7(), Uuid::now_v7()];
        for (key, code) in keys.into_iter().zip([&card[0], "NOT-A-CARD-AT-ALL"]) {
            let body =
                json!({"code": code, "account_ref": "a", "not_after": "2999-01-01T00:00:00Z"});
            let request = reqwest::Client::new().post(format!("{}/redemptions", simulator.url()));
            request.header("Idempotency-Key", key.to_string()).json(&body).send().await.unwrap();
        }
        let listed = provider(&simulator.url()).await.unwrap();
        let states: Vec<_> = listed.iter().map(|(key, it)| (*key, it.state)).collect();
        assert_eq!(states, [(keys[0], State::Succeeded), (keys[1], State::Failed)]);
        let credited = &listed[&keys[0]];
        assert_eq!(credited.credited(), Some((&card[2], card[1].parse().unwrap())));
        assert_eq!(&*credited.account, "a");
        simulator.stop().await.unwrap();
    }
}
