//! Tokens over several servers: made on one, valid on all, revoked on all, streams included.

use std::time::{Duration, Instant};

use holdfast::rpc::pb::{self, Role};
use sqlx::Row as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use super::{REVOKED, admin, caller, code, refused_after, world};
use crate::support::{
    batch::{opening, said_open},
    caller::Caller,
    wait::eventually,
    world::{POOL, reason},
};

#[tokio::test]
async fn a_token_works_on_every_server_until_it_is_revoked_on_one() {
    let world = world(3, |_| {}).await;
    let mut admin = admin(&world).await;
    let grants = [(Role::Redeemer, "shop-*"), (Role::Operator, POOL)];
    let secret = admin.create_token("till-7", &grants, None).await.unwrap();
    assert!(secret.starts_with("hf_") && secret.len() == 46);

    // On the server that made it, at once.
    let mut here = caller(&world, 0, &secret).await;
    assert_eq!(here.pools().await.unwrap(), [POOL]);
    let mut others = [caller(&world, 1, &secret).await, caller(&world, 2, &secret).await];
    for other in &mut others {
        eventually(REVOKED, "the token works elsewhere", async || other.pools().await.ok()).await;
    }

    let listed = admin.access.list_tokens(pb::ListTokensRequest::default()).await.unwrap();
    let listed = listed.into_inner().tokens;
    let token = listed.iter().find(|token| token.name == "till-7").unwrap();
    assert_eq!(token.created_by, "token:test-admin");
    let told: Vec<_> = token.grants.iter().map(|grant| (grant.role(), &*grant.pools)).collect();
    assert_eq!(told, grants);
    assert!(token.expire_time.is_none() && token.revoke_time.is_none());

    let begun = Instant::now();
    let revoked = admin.revoke("till-7").await.unwrap();
    assert!(revoked.revoke_time.is_some());
    assert_eq!(code(here.pools().await), Code::Unauthenticated, "here at once");
    for other in &mut others {
        assert!(refused_after(other, begun).await < REVOKED);
    }
    let again = admin.revoke("till-7").await.unwrap();
    assert_eq!(again.revoke_time, revoked.revoke_time, "it stays revoked since then");
    assert_eq!(reason(&admin.revoke("till-8").await.unwrap_err()), "TOKEN_NOT_FOUND");
    let taken = admin.create_token("till-7", &grants, None).await.unwrap_err();
    assert_eq!(reason(&taken), "TOKEN_EXISTS");
}

#[tokio::test]
async fn streams_and_waiting_calls_end_when_their_token_is_revoked() {
    let world = world(3, |_| {}).await;
    let mut admin = admin(&world).await;
    let secret = admin.create_token("till", &[(Role::Operator, POOL)], None).await.unwrap();
    let mut on = Vec::new();
    for server in 0..3 {
        let mut caller = caller(&world, server, &secret).await;
        eventually(REVOKED, "the token works", async || caller.pools().await.ok()).await;
        on.push(caller);
    }

    let (items, stream) = mpsc::channel(1);
    items.send(said_open(opening("b"))).await.unwrap();
    let batch = on[0].redemptions.batch_redeem(ReceiverStream::new(stream)).await.unwrap();
    let mut batch = batch.into_inner();

    let mut waiter = on[1].redemptions.clone();
    let waits = tokio::spawn(async move {
        let request = pb::AcquireAccountRequest {
            request_id: "waits".to_owned(),
            pool_id: POOL.to_owned(),
            holder: "till".to_owned(),
            wait_timeout: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            selector: Some(pb::AccountSelector {
                country_code: "XX".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        waiter.acquire_account(request).await
    });

    let (accounts, stream) = mpsc::channel(1);
    let mut importer = on[2].accounts.clone();
    let imports =
        tokio::spawn(async move { importer.import_accounts(ReceiverStream::new(stream)).await });
    for n in 0..500 {
        let account = pb::Account {
            pool_id: POOL.to_owned(),
            account_id: format!("a-{n}"),
            ..Default::default()
        };
        accounts.send(pb::ImportAccountsRequest { account: Some(account) }).await.unwrap();
    }
    eventually(Duration::from_secs(10), "a chunk is created", async || {
        let request =
            pb::GetAccountRequest { pool_id: POOL.to_owned(), account_id: "a-499".to_owned() };
        admin.accounts.get_account(request).await.ok()
    })
    .await;

    let begun = Instant::now();
    admin.revoke("till").await.unwrap();
    let ended = loop {
        match batch.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the batch ended well"),
            Err(error) => break error,
        }
    };
    assert_eq!(reason(&ended), "UNAUTHENTICATED");
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert_eq!(code(waits.await.unwrap()), Code::Unauthenticated);
    assert_eq!(code(imports.await.unwrap()), Code::Unauthenticated);
    assert!(begun.elapsed() < REVOKED, "{:?}", begun.elapsed());
    drop((items, accounts));
}

#[tokio::test]
async fn what_is_not_valid_is_refused_without_a_difference_and_is_never_told_back() {
    let world = world(1, |_| {}).await;
    let mut admin = admin(&world).await;
    let channel = world.channel(0).await;
    let revoked = admin.create_token("gone", &[(Role::Admin, "*")], None).await.unwrap();
    admin.revoke("gone").await.unwrap();
    let unknown = format!("hf_{}", "A".repeat(43));
    let of = async |header: Option<&str>| {
        let error = Caller::showing(channel.clone(), header).pools().await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated, "{header:?}");
        assert_eq!(reason(&error), "UNAUTHENTICATED");
        if let Some(shown) = header.and_then(|header| header.split(' ').nth(1)) {
            let told = format!("{error:?}");
            assert!(shown.len() < 4 || !told.contains(shown), "{told}");
        }
        error.message().to_owned()
    };
    let bearer = |secret: &str| format!("Bearer {secret}");
    let of_revoked = of(Some(&bearer(&revoked))).await;
    assert_eq!(of(Some(&bearer(&unknown))).await, of_revoked);
    let of_malformed = of(Some("Bearer hf_short")).await;
    assert!(of_malformed != of_revoked && of_malformed.contains("Bearer hf_"), "{of_malformed}");
    assert_eq!(of(Some("Basic dXNlcjpwYXNz")).await, of_malformed);
    assert!(of(None).await.contains("nothing says who calls"));
    // Neither the table nor the log has it.
    let mut db = world.sql().await;
    let rows = sqlx::query("SELECT t::text AS t FROM tokens t").fetch_all(&mut db).await.unwrap();
    assert!(rows.iter().all(|row| !row.get::<String, _>("t").contains(&revoked[3..])));
}

#[tokio::test]
async fn one_that_expires_stops_and_ends_what_waits_with_it() {
    let world = world(1, |_| {}).await;
    let mut admin = admin(&world).await;
    let secret = admin.create_token("soon", &[(Role::Redeemer, POOL)], Some(60)).await.unwrap();
    // The shortest lifetime is a minute. A person may shorten it by hand, and is heard too.
    let mut db = world.sql().await;
    let soon = "UPDATE tokens SET expires_at = now() + interval '3 seconds' WHERE name = 'soon'";
    sqlx::raw_sql(soon).execute(&mut db).await.unwrap();
    let mut soon = caller(&world, 0, &secret).await;
    let begun = Instant::now();
    let request = pb::AcquireAccountRequest {
        request_id: "waits".to_owned(),
        pool_id: POOL.to_owned(),
        holder: "till".to_owned(),
        wait_timeout: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    };
    // It was read with another end: so it is over, and its owner comes again.
    let ended = soon.redemptions.acquire_account(request).await;
    assert_eq!(code(ended), Code::Unauthenticated);
    assert!(refused_after(&mut soon, begun).await < Duration::from_secs(3) + REVOKED);
    for lifetime in [59, 10 * 367 * 24 * 3600] {
        let refused = admin.create_token("x", &[(Role::Admin, "*")], Some(lifetime)).await;
        assert_eq!(code(refused), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn thousands_of_bad_tokens_ask_the_database_nothing() {
    let world = world(1, |_| {}).await;
    let mut admin = admin(&world).await;
    assert!(admin.pools().await.is_ok());
    // Whatever reads the tokens waits for as long as this is open.
    let mut db = world.sql().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE")
        .execute(&mut db)
        .await
        .unwrap();
    let channel = world.channel(0).await;
    let begun = Instant::now();
    let calls = (0..8).map(|worker| {
        let channel = channel.clone();
        tokio::spawn(async move {
            for n in 0..250 {
                let secret = format!("hf_{:0>43}", worker * 1000 + n);
                let refused = Caller::with(channel.clone(), &secret).pools().await;
                assert_eq!(code(refused), Code::Unauthenticated);
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    // One statement each would be 250 waits of two seconds, one after another.
    assert!(begun.elapsed() < Duration::from_secs(100), "{:?}", begun.elapsed());
    assert!(admin.pools().await.is_ok(), "who belongs is served meanwhile");
    sqlx::raw_sql("ROLLBACK").execute(&mut db).await.unwrap();
}

#[tokio::test]
async fn the_last_use_is_noted_to_the_minute() {
    let world = world(1, |_| {}).await;
    let mut admin = admin(&world).await;
    let used = eventually(Duration::from_secs(40), "the use is noted", async || {
        let listed = admin.access.list_tokens(pb::ListTokensRequest::default()).await.unwrap();
        let token = listed.into_inner().tokens.into_iter().find(|t| t.name == "test-admin");
        token.unwrap().last_use_time
    })
    .await;
    assert_eq!((used.seconds % 60, used.nanos), (0, 0));
}

#[tokio::test]
async fn bad_requests_for_tokens_are_refused_field_by_field() {
    let world = world(1, |_| {}).await;
    let mut admin = admin(&world).await;
    let request = pb::CreateTokenRequest {
        name: "Not A Name".to_owned(),
        grants: vec![pb::Grant { role: 0, pools: "a b".to_owned() }],
        lifetime: None,
    };
    let error = admin.access.create_token(Request::new(request)).await.unwrap_err();
    let mut fields = crate::support::world::bad_fields(&error);
    fields.sort_unstable();
    assert_eq!(fields, ["grants[0].pools", "grants[0].role", "name"]);
    let none = admin.create_token("none", &[], None).await.unwrap_err();
    assert_eq!(crate::support::world::bad_fields(&none), ["grants"]);
}
