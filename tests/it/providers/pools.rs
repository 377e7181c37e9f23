//! Pools name their provider, for good.

use holdfast::rpc::pb;
use tonic::{Code, Status};

use super::{apply, check, profile, world_with};
use crate::support::world::{Clients, POOL, bad_fields, check_names, reason};

fn pool(pool_id: &str, provider_id: &str, currency: &str) -> pb::Pool {
    pb::Pool {
        pool_id: pool_id.to_owned(),
        provider_id: provider_id.to_owned(),
        currency_code: currency.to_owned(),
        ..Default::default()
    }
}

async fn create(clients: &mut Clients, pool: pb::Pool) -> Result<pb::Pool, Status> {
    let request = pb::CreatePoolRequest { pool: Some(pool) };
    Ok(clients.pools.create_pool(request).await?.into_inner().pool.unwrap())
}

async fn update(clients: &mut Clients, pool: pb::Pool, paths: &[&str]) -> Result<pb::Pool, Status> {
    let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = (!paths.is_empty()).then_some(prost_types::FieldMask { paths });
    let request = pb::UpdatePoolRequest { pool: Some(pool), update_mask };
    Ok(clients.pools.update_pool(request).await?.into_inner().pool.unwrap())
}

async fn get(clients: &mut Clients, pool_id: &str) -> Option<pb::Pool> {
    let request = pb::GetPoolRequest { pool_id: pool_id.to_owned() };
    clients.pools.get_pool(request).await.ok()?.into_inner().pool
}

#[tokio::test]
async fn a_pool_names_a_provider_that_was_applied_or_has_the_built_in_one() {
    let (_world, mut clients) = world_with(&["shop"]).await;
    assert_eq!(get(&mut clients, POOL).await.unwrap().provider_id, "holdfast");
    let named = create(&mut clients, pool("named", "holdfast", "JPY")).await.unwrap();
    assert_eq!(named.provider_id, "holdfast");

    let error = create(&mut clients, pool("eu", "shop", "EUR")).await.unwrap_err();
    check_names(&error, Code::NotFound, "PROVIDER_NOT_FOUND", "provider", "shop");
    assert_eq!(get(&mut clients, "eu").await, None);
    apply(&mut clients, &profile("shop", 1)).await.unwrap();
    let made = create(&mut clients, pool("eu", "shop", "EUR")).await.unwrap();
    assert_eq!(made.provider_id, "shop");
    assert_eq!(get(&mut clients, "eu").await.unwrap(), made);
    let listed = clients.pools.list_pools(pb::ListPoolsRequest::default()).await.unwrap();
    let listed = listed.into_inner().pools;
    let listed: Vec<_> = listed.iter().map(|it| (&*it.pool_id, &*it.provider_id)).collect();
    assert_eq!(listed, [("eu", "shop"), ("named", "holdfast"), (POOL, "holdfast")]);
    let error = create(&mut clients, pool("eu", "shop", "EUR")).await.unwrap_err();
    assert_eq!(reason(&error), "POOL_ALREADY_EXISTS");
    let error = create(&mut clients, pool("x", "Shop!", "EUR")).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["pool.provider_id"]);
}

#[tokio::test]
async fn a_currency_that_the_newest_profile_does_not_take_is_refused() {
    let (_world, mut clients) = world_with(&["shop", "any"]).await;
    apply(&mut clients, &profile("shop", 1)).await.unwrap();
    let error = create(&mut clients, pool("jp", "shop", "JPY")).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["pool.currency_code"]);
    assert!(error.message().contains("one of EUR, USD, which provider shop takes"), "{error:?}");
    // With whatever else is wrong.
    let short = pb::Pool {
        min_lease_duration: crate::support::world::seconds(20.0),
        default_lease_duration: crate::support::world::seconds(10.0),
        ..pool("jp", "shop", "JPY")
    };
    let error = create(&mut clients, short).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["pool.min_lease_duration", "pool.currency_code"]);
    assert_eq!(get(&mut clients, "jp").await, None);

    let wider = profile("shop", 2).replacen("\"USD\"]", "\"USD\", \"JPY\"]", 1);
    apply(&mut clients, &wider).await.unwrap();
    create(&mut clients, pool("jp", "shop", "JPY")).await.unwrap();
    let any = profile("any", 1).replacen("currencies = [\"EUR\", \"USD\"]\n", "", 1);
    apply(&mut clients, &any).await.unwrap();
    create(&mut clients, pool("chf", "any", "CHF")).await.unwrap();
}

/// A profile whose `currencies` are these.
fn taking(id: &str, version: i32, currencies: &str) -> String {
    profile(id, version).replacen("[\"EUR\", \"USD\"]", currencies, 1)
}

#[tokio::test]
async fn a_version_that_drops_a_currency_of_a_pool_is_refused_with_the_pools() {
    let (_world, mut clients) = world_with(&["shop", "other"]).await;
    apply(&mut clients, &profile("shop", 1)).await.unwrap();
    apply(&mut clients, &profile("other", 1)).await.unwrap();
    for number in 0..12 {
        create(&mut clients, pool(&format!("eu-{number:02}"), "shop", "EUR")).await.unwrap();
    }
    create(&mut clients, pool("us", "shop", "USD")).await.unwrap();
    create(&mut clients, pool("of-another", "other", "EUR")).await.unwrap();

    // All faults at once.
    let narrow = taking("shop", 2, "[\"JPY\"]");
    let error = apply(&mut clients, &narrow).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(bad_fields(&error), ["profile", "profile"]);
    let told = check(&mut clients, &narrow).await;
    let line = i32::try_from(super::line_of(&narrow, "currencies")).unwrap();
    assert_eq!(told.faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [line, line]);
    let (eur, usd) = (&told.faults[0].message, &told.faults[1].message);
    assert!(eur.contains("lacks EUR") && eur.contains("eu-00, eu-01"), "{eur}");
    assert!(eur.contains("eu-09 and 2 more") && !eur.contains("eu-10"), "{eur}");
    assert!(usd.contains("lacks USD, the currency of pool us of"), "{usd}");
    assert!(!eur.contains("of-another") && !usd.contains("of-another"));
    assert_eq!(
        super::get(&mut clients, "shop", 0).await.unwrap().version,
        1,
        "nothing was applied"
    );

    // One that leaves the currencies out takes any, and so does one that has more of them.
    let partly = taking("shop", 2, "[\"EUR\"]");
    let told = check(&mut clients, &partly).await;
    assert_eq!(told.fault_count, 1, "{told:?}");
    apply(&mut clients, &taking("shop", 2, "[\"USD\", \"JPY\", \"EUR\"]")).await.unwrap();
    let any = profile("shop", 3).replacen("currencies = [\"EUR\", \"USD\"]\n", "", 1);
    apply(&mut clients, &any).await.unwrap();
    // The same text as before is fine: it is no new version.
    apply(&mut clients, &profile("shop", 1)).await.unwrap();
}

#[tokio::test]
async fn a_pools_provider_never_changes() {
    let (_world, mut clients) = world_with(&["shop"]).await;
    apply(&mut clients, &profile("shop", 1)).await.unwrap();
    create(&mut clients, pool("eu", "shop", "EUR")).await.unwrap();
    for given in ["holdfast", "none"] {
        let error = update(&mut clients, pool("eu", given, ""), &[]).await.unwrap_err();
        assert_eq!(bad_fields(&error), ["pool.provider_id"]);
        assert!(error.message().contains("must be empty or shop: it never changes"), "{error:?}");
    }
    let error = update(&mut clients, pool("eu", "none", "USD"), &[]).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["pool.currency_code", "pool.provider_id"]);
    let error = update(&mut clients, pool("eu", "shop", ""), &["provider_id"]).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["update_mask"]);
    let error = update(&mut clients, pool("eu", "No!", ""), &[]).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["pool.provider_id"]);
    let own = pb::Pool { paused: Some(true), ..pool("eu", "shop", "EUR") };
    let paused = update(&mut clients, own, &[]).await.unwrap();
    assert_eq!((paused.paused, &*paused.provider_id), (Some(true), "shop"));
    assert_eq!(get(&mut clients, "eu").await.unwrap().provider_id, "shop");
}

#[tokio::test]
async fn a_profile_that_this_program_cannot_read_is_still_told_and_gets_no_pools() {
    let (world, mut clients) = world_with(&[]).await;
    let insert =
        "INSERT INTO providers (provider_id, version, profile) VALUES ('later', 1, 'new = 1')";
    sqlx::raw_sql(insert).execute(&mut world.sql().await).await.unwrap();
    let told = super::get(&mut clients, "later", 0).await.unwrap();
    assert_eq!((&*told.profile, told.case_count), ("new = 1", 0));
    let listed = clients.providers.list_providers(pb::ListProvidersRequest::default()).await;
    let listed = listed.unwrap().into_inner().providers;
    let listed: Vec<_> = listed.iter().map(|it| &*it.provider_id).collect();
    assert_eq!(listed, ["holdfast", "later"]);
    let error = create(&mut clients, pool("p", "later", "EUR")).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["pool.provider_id"]);
}
