//! Input that no well-made client sends: absurd durations, messages that are too large, bytes that are
//! not the RPC's request.

use bytes::Bytes;
use holdfast::rpc::pb;
use http::uri::PathAndQuery;
use prost_types::Duration;
use tonic::{Code, Request, Status, client::Grpc, transport::Channel};

use crate::support::{
    batch::{Session, begun, item, opening, said_item},
    raw_grpc::Raw,
    world::{POOL, World, bad_fields, lease, reason},
};

/// Calls an RPC with one message of these bytes.
async fn call(channel: &Channel, path: &'static str, message: &[u8]) -> Result<Bytes, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let message = Request::new(Bytes::copy_from_slice(message));
    let answer = grpc.unary(message, PathAndQuery::from_static(path), Raw).await?;
    Ok(answer.into_inner())
}

/// Every RPC, streams included: a stream of one message looks like a single one.
const RPCS: [&str; 43] = [
    "/holdfast.v1.RedemptionService/AcquireAccount",
    "/holdfast.v1.RedemptionService/RenewLease",
    "/holdfast.v1.RedemptionService/Redeem",
    "/holdfast.v1.RedemptionService/RedeemCard",
    "/holdfast.v1.RedemptionService/ReleaseAccount",
    "/holdfast.v1.RedemptionService/BatchRedeem",
    "/holdfast.v1.RedemptionService/GetRedemption",
    "/holdfast.v1.RedemptionService/AwaitRedemption",
    "/holdfast.v1.RedemptionService/ListRedemptions",
    "/holdfast.v1.RedemptionService/WatchRedemptions",
    "/holdfast.v1.RedemptionService/ResolveRedemption",
    "/holdfast.v1.RedemptionService/ReverseRedemption",
    "/holdfast.v1.AccountService/CreateAccount",
    "/holdfast.v1.AccountService/ImportAccounts",
    "/holdfast.v1.AccountService/GetAccount",
    "/holdfast.v1.AccountService/ListAccounts",
    "/holdfast.v1.AccountService/UpdateAccount",
    "/holdfast.v1.AccountService/CorrectBalance",
    "/holdfast.v1.AccountService/ListAccountEvents",
    "/holdfast.v1.PoolService/CreatePool",
    "/holdfast.v1.PoolService/GetPool",
    "/holdfast.v1.PoolService/ListPools",
    "/holdfast.v1.PoolService/UpdatePool",
    "/holdfast.v1.PoolService/DeletePool",
    "/holdfast.v1.PoolService/CreatePlan",
    "/holdfast.v1.PoolService/GetPlan",
    "/holdfast.v1.PoolService/ListPlans",
    "/holdfast.v1.PoolService/UpdatePlan",
    "/holdfast.v1.ProviderService/ApplyProvider",
    "/holdfast.v1.ProviderService/CheckProvider",
    "/holdfast.v1.ProviderService/GetProvider",
    "/holdfast.v1.ProviderService/ListProviders",
    "/holdfast.v1.SubscriptionService/CreateSubscription",
    "/holdfast.v1.SubscriptionService/GetSubscription",
    "/holdfast.v1.SubscriptionService/ListSubscriptions",
    "/holdfast.v1.SubscriptionService/UpdateSubscription",
    "/holdfast.v1.SubscriptionService/RotateSubscriptionSecret",
    "/holdfast.v1.SubscriptionService/DeleteSubscription",
    "/holdfast.v1.SubscriptionService/ListDeliveries",
    "/holdfast.v1.SubscriptionService/RetryDeliveries",
    "/holdfast.v1.AccessService/CreateToken",
    "/holdfast.v1.AccessService/ListTokens",
    "/holdfast.v1.AccessService/RevokeToken",
];

#[tokio::test]
async fn bytes_that_are_not_a_request_are_refused_by_every_rpc() {
    let world = World::start().await;
    let channel = world.channel(0).await;
    // A text of 100 bytes of which two are there; a field number of 0; a group without its end.
    let broken: [&[u8]; 3] = [b"\x0a\x64hi", b"\x00\x00", b"\x0b"];
    for path in RPCS {
        for bytes in broken {
            let error = call(&channel, path, bytes).await.unwrap_err();
            assert_eq!(bad_fields(&error), ["message"], "{path} {bytes:?}");
        }
    }
    world.clients(0).await.create_account("good", |_| {}).await;
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_refused() {
    let world = World::start().await;
    let channel = world.channel(0).await;
    let not_utf_8 = b"\x0a\x02\xff\xfe";
    // The first field of each is a text.
    for path in [
        "/holdfast.v1.RedemptionService/AcquireAccount",
        "/holdfast.v1.RedemptionService/Redeem",
        "/holdfast.v1.RedemptionService/GetRedemption",
        "/holdfast.v1.AccountService/GetAccount",
        "/holdfast.v1.PoolService/GetPool",
    ] {
        let error = call(&channel, path, not_utf_8).await.unwrap_err();
        assert_eq!(bad_fields(&error), ["message"], "{path}");
    }
    // Inside a message: an account, whose second field is its name.
    let account = b"\x0a\x0a\x0a\x04pool\x12\x02\xc3\x28";
    let error =
        call(&channel, "/holdfast.v1.AccountService/CreateAccount", account).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["message"]);
    let good = b"\x0a\x0a\x0a\x04pool\x12\x02\xc3\xa4";
    call(&channel, "/holdfast.v1.AccountService/CreateAccount", good).await.unwrap();
    world.clients(0).await.account("ä").await;
}

#[tokio::test]
async fn fields_that_the_contract_does_not_have_are_passed_over() {
    let world = World::start().await;
    let channel = world.channel(0).await;
    // pool_id, and a field 1000 from the future.
    let request = b"\x0a\x04pool\xc2\x3e\x03new";
    call(&channel, "/holdfast.v1.PoolService/GetPool", request).await.unwrap();
}

#[tokio::test]
async fn absurd_durations_are_refused_and_odd_ones_are_not() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let absurd = [
        (0, 0),
        (0, 999_999_999),
        (-1, 0),
        (5, -1),
        (5, 1_000_000_000),
        (-5, 2_000_000_000),
        (1, i32::MAX),
        (1, i32::MIN),
        (i64::MAX, 0),
        (i64::MAX, i32::MAX),
        (i64::MIN, 0),
        (i64::MIN, i32::MIN),
        (i64::MIN, 999_999_999),
        (86_400, 1),
    ];
    for (seconds, nanos) in absurd {
        let given = Some(Duration { seconds, nanos });
        let error = clients.acquire(|r| r.lease_duration = given).await.unwrap_err();
        assert_eq!(bad_fields(&error), ["lease_duration"], "{given:?}");
    }
    for (seconds, nanos) in [(-1, 0), (0, -1), (600, 1), (i64::MIN, 0), (0, 1_000_000_000)] {
        let given = Some(Duration { seconds, nanos });
        let error = clients.acquire(|r| r.wait_timeout = given).await.unwrap_err();
        assert_eq!(bad_fields(&error), ["wait_timeout"], "{given:?}");
    }

    // Finer than a database keeps it.
    let odd = Some(Duration { seconds: 5, nanos: 1 });
    let acquired = clients
        .acquire(|r| {
            r.lease_duration = odd;
            r.wait_timeout = Some(Duration { seconds: 0, nanos: 1 });
        })
        .await
        .unwrap();
    clients.release(&lease(&acquired)).await.unwrap();
    let pool = pb::Pool {
        pool_id: "odd".into(),
        currency_code: "EUR".into(),
        default_lease_duration: odd,
        ..Default::default()
    };
    let request = pb::CreatePoolRequest { pool: Some(pool) };
    clients.pools.create_pool(request).await.unwrap();
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let fits = 1024 * 1024 - 100;
    let error = clients.acquire(|r| r.holder = "x".repeat(fits)).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["holder"], "it was read");
    for mebibytes in [1, 3, 15, 17] {
        let bytes = mebibytes * 1024 * 1024;
        let error = clients.acquire(|r| r.holder = "x".repeat(bytes)).await.unwrap_err();
        assert_eq!(bad_fields(&error), ["message"], "{bytes}");
    }
    let account = pb::Account { account_id: "x".repeat(2 * 1024 * 1024), ..Default::default() };
    let import = [pb::ImportAccountsRequest { account: Some(account) }];
    let error = clients.accounts.import_accounts(tokio_stream::iter(import)).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["message"]);
    clients.create_account("good", |_| {}).await;
    clients.acquire(|_| {}).await.unwrap();
}

#[tokio::test]
async fn batch_redeem_ends_at_a_message_that_cannot_be_read_and_what_was_begun_is_told() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let good = item("good", &world.code("good"));
    for mebibytes in [2, 17] {
        let mut session = Session::open(&mut clients, opening("b")).await.unwrap();
        session.send(good.clone()).await;
        let large = item("large", &"x".repeat(mebibytes * 1024 * 1024));
        session.items.send(said_item(large)).await.unwrap();
        let result = session.result().await;
        assert_eq!(begun(&result).unwrap().state(), pb::RedemptionState::Succeeded);
        let error = session.finish().await.err().unwrap();
        assert_eq!(bad_fields(&error), ["message"], "{mebibytes}");
    }

    let mut session = Session::open(&mut clients, opening("b")).await.unwrap();
    session.send(good).await;
    assert!(session.result().await.replayed, "opened again it goes on");
    session.finish().await.unwrap();
}

#[tokio::test]
async fn an_rpc_that_does_not_exist_is_unimplemented() {
    let world = World::start().await;
    let channel = world.channel(0).await;
    for path in ["/holdfast.v1.PoolService/DropPool", "/holdfast.v2.PoolService/GetPool", "/"] {
        let error = call(&channel, path, b"").await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented, "{path}");
    }
    let missing = call(&channel, "/holdfast.v1.PoolService/GetPool", b"\x0a\x01x").await;
    assert_eq!(reason(&missing.unwrap_err()), "POOL_NOT_FOUND", "the connection goes on");
}

#[tokio::test]
async fn invalid_argument_with_very_many_bad_fields_still_reaches_the_client() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let error = clients
        .acquire(|r| {
            let exclude_account_ids = vec!["\0".to_owned(); 1000];
            r.selector = Some(pb::AccountSelector { exclude_account_ids, ..Default::default() });
        })
        .await
        .unwrap_err();
    let fields = bad_fields(&error);
    assert_eq!(fields[0], "selector.exclude_account_ids[0]");
    let more = format!("and {} more", 1000 - fields.len());
    assert!(error.message().contains(&more), "{} without {more}", error.message());

    let error = clients
        .acquire(|r| {
            let labels = (0..32).map(|n| {
                let key = char::from_u32(0x1f600 + n).unwrap().to_string();
                (key.repeat(63), "\0".to_owned())
            });
            let labels = labels.collect();
            r.selector = Some(pb::AccountSelector { labels, ..Default::default() });
        })
        .await
        .unwrap_err();
    assert!(bad_fields(&error)[0].starts_with("selector.labels[\u{1f600}"), "{error:?}");

    let states = vec![77; 300_000];
    let request = pb::ListRedemptionsRequest { pool_id: POOL.into(), states, ..Default::default() };
    let error = clients.redemptions.list_redemptions(request).await.unwrap_err();
    assert_eq!(bad_fields(&error)[..2], ["states", "states[0]"], "too many, and the first is none");
}

#[tokio::test]
async fn import_accounts_of_very_long_names_is_answered_in_a_message_that_can_be_read() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let accounts = (0..6).map(|n| pb::ImportAccountsRequest {
        account: Some(pb::Account {
            pool_id: POOL.into(),
            account_id: n.to_string().repeat(1_000_000),
            ..Default::default()
        }),
    });
    let accounts = tokio_stream::iter(accounts.collect::<Vec<_>>());
    let reply = clients.accounts.import_accounts(accounts).await.unwrap().into_inner();
    assert_eq!((reply.received, reply.failed), (6, 6));
    for (n, failure) in reply.failures.iter().enumerate() {
        assert!(failure.account_id.starts_with(&n.to_string()));
    }
}
