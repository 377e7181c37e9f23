//! What is seen of pools that one may not use: nothing.

use holdfast::rpc::pb::{self, Role};
use tonic::Code;

use super::{admin, caller, code, world};
use crate::support::world::{POOL, reason};

#[tokio::test]
async fn a_list_shows_only_pools_that_one_may_see_page_by_page() {
    let world = world(1, |_| {}).await;
    let mut admin = admin(&world).await;
    for pool_id in ["shop-1", "shop-2", "shop-3", "eu", "eu-2", "other"] {
        admin.create_pool(pool_id).await.unwrap();
    }
    let all = ["eu", "eu-2", "other", POOL, "shop-1", "shop-2", "shop-3"];
    assert_eq!(admin.pools().await.unwrap(), all);
    let grants = [(Role::Redeemer, "shop-*"), (Role::Auditor, "eu")];
    let secret = admin.create_token("till", &grants, None).await.unwrap();
    let mut till = caller(&world, 0, &secret).await;
    assert_eq!(till.pools().await.unwrap(), ["eu", "shop-1", "shop-2", "shop-3"]);
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListPoolsRequest { page_size: 1, page_token };
        let page = till.pools.list_pools(request).await.unwrap().into_inner();
        seen.extend(page.pools.into_iter().map(|pool| pool.pool_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["eu", "shop-1", "shop-2", "shop-3"]);
}

#[tokio::test]
async fn a_pool_that_one_may_not_use_is_refused_alike_whether_or_not_it_is_there() {
    let world = world(1, |_| {}).await;
    let mut admin = admin(&world).await;
    let secret = admin.create_token("till", &[(Role::Redeemer, "shop-*")], None).await.unwrap();
    let mut till = caller(&world, 0, &secret).await;
    let mut told = Vec::new();
    for pool_id in [POOL, "no-such-pool", "not a pool's name", ""] {
        let request =
            pb::AcquireAccountRequest { pool_id: pool_id.to_owned(), ..Default::default() };
        let error = till.redemptions.acquire_account(request).await.unwrap_err();
        assert_eq!(error.code(), Code::PermissionDenied, "{pool_id}");
        assert_eq!(reason(&error), "PERMISSION_DENIED");
        let details = tonic_types::StatusExt::get_error_details(&error);
        assert_eq!(details.error_info().unwrap().metadata["needs"], "redeemer");
        told.push((error.message().to_owned(), error.details().to_vec()));
    }
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    let request = pb::GetPoolRequest { pool_id: "shop-9".to_owned() };
    let error = till.pools.get_pool(request).await.unwrap_err();
    assert_eq!(reason(&error), "POOL_NOT_FOUND", "its own may be missing");
}

#[tokio::test]
async fn every_account_of_an_import_is_in_a_pool_that_one_may_change() {
    let world = world(1, |_| {}).await;
    let mut admin = admin(&world).await;
    admin.create_pool("shop-1").await.unwrap();
    let secret = admin.create_token("till", &[(Role::Operator, "shop-*")], None).await.unwrap();
    let mut till = caller(&world, 0, &secret).await;
    let account = |pool_id: &str, account_id: &str| pb::ImportAccountsRequest {
        account: Some(pb::Account {
            pool_id: pool_id.to_owned(),
            account_id: account_id.to_owned(),
            ..Default::default()
        }),
    };
    // The first is in a pool of one's own, and cannot be read: so the import has no pool yet.
    for first in [account("shop-1", ""), account("shop-1", "good")] {
        let stream = tokio_stream::iter([first, account(POOL, "smuggled")]);
        assert_eq!(code(till.accounts.import_accounts(stream).await), Code::PermissionDenied);
    }
    let stream = tokio_stream::iter([account(POOL, "smuggled")]);
    assert_eq!(code(till.accounts.import_accounts(stream).await), Code::PermissionDenied);
    let request =
        pb::GetAccountRequest { pool_id: POOL.to_owned(), account_id: "smuggled".to_owned() };
    let error = admin.accounts.get_account(request).await.unwrap_err();
    assert_eq!(reason(&error), "ACCOUNT_NOT_FOUND");
    let stream = tokio_stream::iter([account("shop-1", "fine")]);
    let reply = till.accounts.import_accounts(stream).await.unwrap().into_inner();
    assert_eq!(reply.created, 1);
}
