//! Pages of lists whose rows are large: the database cuts them, and the next page goes on exactly there.

use holdfast::{
    domain::{
        account::AccountFilter,
        id::{PoolId, RedemptionId},
    },
    rpc::pb,
};
use prost::Message as _;

use crate::support::{
    plans::psql,
    world::{POOL, World},
};

const MIB: usize = 1024 * 1024;
const LIMIT: i64 = 1000;
/// The rows of a page are measured as they are stored, and are about as large as their messages.
const ROUGHLY: usize = MIB + MIB / 2;

/// Reads a list page by page, by one call for each, and answers all of its elements' names and how many pages
/// they had.
async fn all_pages(
    mut page: impl AsyncFnMut(String) -> (usize, Vec<String>, String),
) -> (Vec<String>, usize) {
    let (mut found, mut pages, mut token) = (Vec::new(), 0, String::new());
    loop {
        let (bytes, names, next) = page(token).await;
        assert!(bytes < MIB + 1024, "{bytes} bytes");
        assert!(!names.is_empty());
        found.extend(names);
        pages += 1;
        token = next;
        if token.is_empty() {
            return (found, pages);
        }
    }
}

fn pool() -> PoolId {
    PoolId::parse(POOL).unwrap()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("n-{n:03}")).collect()
}

/// As many of the largest accounts: labels of 40 KiB, which compress well.
async fn create_large_accounts(world: &World, count: usize) {
    let labels = "(SELECT jsonb_object_agg(repeat(chr(128512 + k), 63), repeat('😀', 256)) FROM generate_series(0, 31) k)";
    psql(
        &mut world.sql().await,
        &format!(
            "INSERT INTO accounts (pool_id, account_id, labels)
             SELECT '{POOL}', format('n-%s', lpad(n::text, 3, '0')), {labels}
             FROM generate_series(0, {count} - 1) n"
        ),
    )
    .await;
}

#[tokio::test]
async fn list_accounts_has_large_ones_cut_by_the_database_and_each_once() {
    const ACCOUNTS: usize = 70;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    create_large_accounts(&world, ACCOUNTS).await;
    let (found, pages) = all_pages(async |page_token| {
        let request = pb::ListAccountsRequest {
            pool_id: POOL.to_owned(),
            page_size: LIMIT as i32,
            page_token,
            ..Default::default()
        };
        let page = clients.accounts.list_accounts(request).await.unwrap().into_inner();
        let names = page.accounts.iter().map(|account| account.account_id.clone()).collect();
        (page.encoded_len(), names, page.next_page_token)
    })
    .await;
    assert_eq!(found, names(ACCOUNTS));
    assert!((3..6).contains(&pages), "{pages} pages");

    let store = world.store();
    let filter = AccountFilter::default();
    let page = store.list_accounts(&pool(), &filter, "", LIMIT).await.unwrap();
    assert!(page.more);
    assert!((20..40).contains(&page.rows.len()), "{} accounts were read", page.rows.len());
    // One that is larger than a page comes alone; and the last page says that it is the last.
    let grow = "UPDATE accounts SET labels = jsonb_build_object('k', repeat('x', 2000000)) WHERE account_id = 'n-068'";
    psql(&mut world.sql().await, grow).await;
    let page = store.list_accounts(&pool(), &filter, "n-067", LIMIT).await.unwrap();
    assert_eq!((page.rows.len(), page.more), (1, true));
    let page = store.list_accounts(&pool(), &filter, "n-068", LIMIT).await.unwrap();
    assert_eq!((page.rows.len(), page.more), (1, false));
}

/// A page of many is read in two parts: the second has as many accounts as there is room for.
#[tokio::test]
async fn list_accounts_has_full_pages_and_each_account_once_whatever_their_size() {
    let world = World::start().await;
    let store = world.store();
    let filter = AccountFilter::default();
    let mut db = world.sql().await;
    // How many there are, how large, and how many pages they make.
    let cases = [
        (127, 0, 1..2),
        (128, 0, 1..2),
        (129, 0, 1..2),
        (700, 0, 1..2),
        (700, 2000, 2..4),
        (700, 8000, 6..9),
    ];
    for (number, (accounts, bytes, pages)) in cases.into_iter().enumerate() {
        let name = format!("pool-{number}");
        let fill = format!(
            "INSERT INTO pools (pool_id, currency_code, default_lease, min_lease, max_lease, amount_mismatch)
             VALUES ('{name}', 'EUR', '1 minute', '1 second', '1 hour', 'ACCEPT');
             INSERT INTO accounts (pool_id, account_id, labels)
             SELECT '{name}', format('n-%s', lpad(n::text, 3, '0')), jsonb_build_object('k', repeat('x', {bytes}))
             FROM generate_series(0, {accounts} - 1) n"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut db).await.unwrap();
        let pool_id = PoolId::parse(&name).unwrap();
        let (mut found, mut after, mut read) = (Vec::new(), String::new(), 0);
        loop {
            let page = store.list_accounts(&pool_id, &filter, &after, 1000).await.unwrap();
            read += 1;
            found.extend(page.rows.iter().map(|account| account.account_id.to_string()));
            let Some(last) = found.last().filter(|_| page.more) else { break };
            after.clone_from(last);
        }
        assert_eq!(found, names(accounts), "{accounts} of {bytes}");
        assert!(pages.contains(&read), "{read} pages of {accounts} accounts of {bytes}");
    }
}

#[tokio::test]
async fn list_plans_has_large_ones_cut_by_the_database_and_each_once() {
    const PLANS: usize = 500;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    psql(
        &mut world.sql().await,
        &format!(
            "INSERT INTO plans (pool_id, plan_id, target_minor, day_amounts_minor)
             SELECT '{POOL}', format('n-%s', lpad(n::text, 3, '0')), 366000000,
                 array_fill(1000000::bigint, ARRAY[366])
             FROM generate_series(0, {PLANS} - 1) n"
        ),
    )
    .await;
    let (found, pages) = all_pages(async |page_token| {
        let request =
            pb::ListPlansRequest { pool_id: POOL.to_owned(), page_size: LIMIT as i32, page_token };
        let page = clients.pools.list_plans(request).await.unwrap().into_inner();
        let names = page.plans.iter().map(|plan| plan.plan_id.clone()).collect();
        (page.encoded_len(), names, page.next_page_token)
    })
    .await;
    assert_eq!(found, names(PLANS));
    assert!((2..6).contains(&pages), "{pages} pages");
    let page = world.store().list_plans(&pool(), "", LIMIT).await.unwrap();
    let bytes: usize = page.rows.iter().map(|plan| 12 * plan.terms.day_amounts_minor.len()).sum();
    assert!(page.more && bytes < ROUGHLY, "{bytes} bytes were read");
}

#[tokio::test]
async fn list_redemptions_has_large_ones_cut_by_the_database_and_each_once() {
    const REDEMPTIONS: usize = 300;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    psql(
        &mut world.sql().await,
        &format!(
            "INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id,
                 holder, state, release_on_completion, code_fingerprint, code_last4, not_after,
                 finished_at, failure_reason, failure_message, code_spent, last_answer)
             SELECT '{POOL}', gen_random_uuid(), 'a', 1, format('n-%s', lpad(n::text, 3, '0')), 'h', 'FAILED',
                 true, n::text::bytea, '', now(), now(), 'NO', repeat('😀', 1000), false, repeat('😀', 1000)
             FROM generate_series(0, {REDEMPTIONS} - 1) n"
        ),
    )
    .await;
    let (mut found, pages) = all_pages(async |page_token| {
        let request = pb::ListRedemptionsRequest {
            pool_id: POOL.to_owned(),
            page_size: LIMIT as i32,
            page_token,
            ..Default::default()
        };
        let page = clients.redemptions.list_redemptions(request).await.unwrap().into_inner();
        let names = page.redemptions.iter().map(|one| one.request_id.clone()).collect();
        (page.encoded_len(), names, page.next_page_token)
    })
    .await;
    found.sort();
    assert_eq!(found, names(REDEMPTIONS));
    assert!((2..6).contains(&pages), "{pages} pages");
    let last = RedemptionId(uuid::Uuid::max());
    let page = world.store().list_redemptions(&pool(), &Default::default(), last, LIMIT).await;
    let page = page.unwrap();
    assert!(page.more && page.rows.len() * 8000 < ROUGHLY, "{} were read", page.rows.len());
    // Written under no lease, which the checks at the end of a test would object to.
    psql(&mut world.sql().await, "DELETE FROM redemptions").await;
}
