//! Accounts by the stream, and the events that each account leaves.

use holdfast::rpc::pb;
use tonic::Code;

use crate::support::{
    batch::rich,
    world::{Clients, POOL, World, bad_fields, lease, reason},
};

fn account(account_id: &str) -> pb::Account {
    pb::Account { pool_id: POOL.into(), account_id: account_id.into(), ..Default::default() }
}

async fn import(
    clients: &mut Clients,
    accounts: impl IntoIterator<Item = Option<pb::Account>>,
) -> Result<pb::ImportAccountsResponse, tonic::Status> {
    let messages: Vec<_> =
        accounts.into_iter().map(|account| pb::ImportAccountsRequest { account }).collect();
    Ok(clients.accounts.import_accounts(tokio_stream::iter(messages)).await?.into_inner())
}

#[tokio::test]
async fn import_accounts_names_the_bad_ones_and_creates_the_others() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("there", |_| {}).await;
    let dollars = pb::Money { amount_minor: 1, currency_code: "USD".into() };
    let stream = [
        Some(account("a")),
        Some(account("there")),
        None,
        Some(pb::Account { country_code: "germany".into(), status: 9, ..account("b\u{7f}") }),
        Some(account("a")),
        Some(pb::Account { plan_id: "none".into(), ..account("c") }),
        Some(pb::Account { balance: Some(dollars), ..account("d") }),
        Some(pb::Account { pool_id: "other".into(), ..account("e") }),
        Some(account("z")),
    ];
    let reply = import(&mut clients, stream).await.unwrap();
    assert_eq!((reply.received, reply.created, reply.failed), (9, 2, 7));
    let failures: Vec<_> = reply
        .failures
        .iter()
        .map(|failure| {
            let error = rich(failure.error.as_ref().unwrap());
            let why = match error.code() {
                Code::InvalidArgument => bad_fields(&error).join(" "),
                _ => reason(&error),
            };
            (failure.index, &*failure.account_id, why)
        })
        .collect();
    let expected = [
        (1, "there", "ACCOUNT_ALREADY_EXISTS"),
        (2, "", "account"),
        (3, "b\u{7f}", "account.account_id account.country_code account.status"),
        (4, "a", "ACCOUNT_ALREADY_EXISTS"),
        (5, "c", "PLAN_NOT_FOUND"),
        (6, "d", "account.balance.currency_code"),
        (7, "e", "account.pool_id"),
    ];
    assert_eq!(failures, expected.map(|(index, id, why)| (index, id, why.to_owned())));
    for created in ["a", "z"] {
        clients.account(created).await;
    }
}

#[tokio::test]
async fn import_accounts_names_its_first_thousand_failures_in_their_order() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("there", |_| {}).await;
    // The first is found to be there only when the database is asked; the others before.
    let stream = std::iter::once(Some(account("there"))).chain((0..1100).map(|_| None));
    let reply = import(&mut clients, stream).await.unwrap();
    assert_eq!((reply.received, reply.created, reply.failed), (1101, 0, 1101));
    let named: Vec<_> = reply.failures.iter().map(|failure| failure.index).collect();
    assert_eq!(named, (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn import_accounts_into_no_pool_is_refused_and_one_of_nothing_is_not() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let nowhere = pb::Account { pool_id: "nowhere".into(), ..account("a") };
    let error = import(&mut clients, [Some(nowhere)]).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::NotFound, "POOL_NOT_FOUND"));
    let reply = import(&mut clients, []).await.unwrap();
    assert_eq!(reply, pb::ImportAccountsResponse::default());
}

#[tokio::test]
async fn import_accounts_repeated_does_not_change_what_it_made() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let accounts = || (0..1200).map(|n| Some(account(&format!("a-{n:04}"))));
    let reply = import(&mut clients, accounts()).await.unwrap();
    assert_eq!((reply.created, reply.failed), (1200, 0));
    let before = clients.account("a-0600").await;
    let reply = import(&mut clients, accounts()).await.unwrap();
    assert_eq!((reply.created, reply.failed), (0, 1200));
    assert_eq!(clients.account("a-0600").await, before);
}

#[tokio::test]
async fn list_account_events_pages_newest_first() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    for n in 0..3 {
        let acquired = clients.acquire(|_| {}).await.unwrap();
        if n == 1 {
            clients.redeem(&lease(&acquired), &world.code("card"), |_| {}).await.unwrap();
        }
        clients.release(&lease(&acquired)).await.unwrap();
    }
    let all = clients.events("a").await;
    let reasons: Vec<_> = all.iter().map(|event| &*event.reason).collect();
    let expected = [
        "released",
        "acquired",
        "released",
        "redeemed",
        "redeem_begun",
        "acquired",
        "released",
        "acquired",
        "created",
    ];
    assert_eq!(reasons, expected);
    let versions: Vec<_> = all.iter().map(|event| event.version).collect();
    assert_eq!(versions, (1..=9).rev().collect::<Vec<_>>());
    for page_size in [1, 2, 4, 9] {
        let (mut paged, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = pb::ListAccountEventsRequest {
                pool_id: POOL.into(),
                account_id: "a".into(),
                page_size,
                page_token,
                ..Default::default()
            };
            let page = clients.accounts.list_account_events(request).await.unwrap().into_inner();
            paged.extend(page.account_events);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(paged, all, "pages of {page_size}");
    }
}
