//! One row that cannot be written, or not be read, does not hold up its neighbours: not an account's, and not a
//! redemption's.

use std::time::Duration;

use holdfast::rpc::pb::{self, AccountStatus, AcquireVerdict as Verdict, RedemptionState};
use sqlx::PgConnection;

use crate::support::{
    logs,
    plans::{CARD, psql},
    wait::eventually,
    world::{Clients, POOL, World, eur, lease, metadata, reason, seconds},
};

/// A row is left out for 10 s at first.
const LIMIT: Duration = Duration::from_secs(30);
const BAD: &str = "bad";

/// Why an account's row cannot be written.
#[derive(Clone, Copy, Debug)]
enum Cause {
    /// A trigger refuses it.
    Raises,
    /// The event of its next version is there already.
    EventIsThere,
}

const CAUSES: [Cause; 2] = [Cause::Raises, Cause::EventIsThere];

/// Lets no statement change the account [`BAD`] from now on.
async fn spoil(db: &mut PgConnection, cause: Cause) {
    match cause {
        Cause::Raises => {
            let raise = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN RAISE EXCEPTION 'not this one'; END $$;
                 CREATE TRIGGER refuse BEFORE UPDATE ON accounts FOR EACH ROW
                 WHEN (NEW.account_id = 'bad') EXECUTE FUNCTION refuse();";
            psql(db, raise).await;
        }
        Cause::EventIsThere => {
            let event = "INSERT INTO account_events (pool_id, account_id, version, happened_at, actor, reason,
                     from_status, to_status, fencing_token, balance_minor)
                 SELECT pool_id, account_id, version + 1, now(), 'somebody', 'by hand', status, status,
                     fencing_token, balance_minor
                 FROM accounts WHERE account_id = 'bad'";
            psql(db, event).await;
        }
    }
}

/// Lets statements change it again.
async fn mend(db: &mut PgConnection, cause: Cause) {
    let mended = match cause {
        Cause::Raises => "DROP TRIGGER refuse ON accounts",
        // As a person would: events are never deleted.
        Cause::EventIsThere => {
            "ALTER TABLE accounts DISABLE TRIGGER USER;
             UPDATE accounts SET version = version + 1 WHERE account_id = 'bad';
             ALTER TABLE accounts ENABLE TRIGGER USER"
        }
    };
    psql(db, mended).await;
}

/// Waits until the account has a status.
async fn until_status(clients: &mut Clients, account_id: &str, status: AccountStatus) {
    eventually(LIMIT, &format!("{account_id} is {status:?}"), async || {
        (clients.status_of(account_id).await == status).then_some(())
    })
    .await;
}

/// The metric of a statement's rows: its present value.
async fn metric(world: &World, name: &str, statement: &str) -> f64 {
    let url = format!("http://{}/metrics", world.server(0).admin_addr());
    let metrics = reqwest::get(&url).await.unwrap().text().await.unwrap();
    let begins = format!("{name}{{statement=\"{statement}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&begins));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// The account that is picked first is the one that cannot be written.
async fn with_the_bad_one_first(clients: &mut Clients) {
    clients.create_account(BAD, |_| {}).await;
    clients.create_accounts(3).await;
}

#[tokio::test]
async fn an_account_that_cannot_be_written_is_passed_over_by_acquisitions_until_it_is_mended() {
    for cause in CAUSES {
        let world = World::start().await;
        let mut clients = world.clients(0).await;
        with_the_bad_one_first(&mut clients).await;
        let mut db = world.sql().await;
        spoil(&mut db, cause).await;
        let skipped = metric(&world, "holdfast_rows_skipped_total", "acquire").await;
        for n in 0..10 {
            let acquired = clients.acquire(|_| {}).await;
            let held = lease(&acquired.unwrap_or_else(|e| panic!("{cause:?}, number {n}: {e}")));
            assert_ne!(held.account_id, BAD);
            clients.release(&held).await.unwrap();
        }
        assert!(metric(&world, "holdfast_rows_skipped_total", "acquire").await > skipped);
        let explained = clients.explain(pb::AccountSelector::default()).await;
        let told = explained
            .considered_accounts
            .iter()
            .find(|one| one.account.as_ref().is_some_and(|account| account.account_id == BAD));
        assert_eq!(told.unwrap().verdict(), Verdict::Unwritable, "{cause:?}");
        // By its name it is not to be had either, and the error counts it.
        let only = pb::AccountSelector { account_id: BAD.to_owned(), ..Default::default() };
        let error = clients.acquire(|r| r.selector = Some(only.clone())).await.unwrap_err();
        assert_eq!(reason(&error), "NO_ACCOUNT_AVAILABLE");
        assert_eq!(metadata(&error, "unwritable"), "1", "{error:?}");
        let lines = logs::lines_with("an account cannot be written");
        let why = match cause {
            Cause::Raises => "not this one",
            Cause::EventIsThere => "account_events_pkey",
        };
        assert!(
            lines.iter().any(|line| line.contains("account_id=\"bad\"") && line.contains(why)),
            "{lines:#?}"
        );
        mend(&mut db, cause).await;
        let held = clients
            .acquire(|request| {
                request.selector = Some(only);
                request.wait_timeout = seconds(30.0);
            })
            .await;
        clients.release(&lease(&held.unwrap())).await.unwrap();
    }
}

#[tokio::test]
async fn callers_who_are_served_together_get_the_others_of_the_accounts() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 100 * CARD).await;
    for account_id in [BAD, "a", "b", "c", "d"] {
        clients.create_account(account_id, |account| account.plan_id = "plan".into()).await;
    }
    let first = clients.create_account("first", |_| {}).await;
    drop(first);
    let mut db = world.sql().await;
    // So that all wait, and are served by one statement.
    psql(&mut db, "UPDATE accounts SET paused = true").await;
    let mut waiters = tokio::task::JoinSet::new();
    for amount in [CARD, CARD, 2 * CARD, 3 * CARD] {
        let mut clients = clients.clone();
        waiters.spawn(async move {
            let acquired = clients.acquire(|request| {
                request.selector =
                    Some(pb::AccountSelector { expected: Some(eur(amount)), ..Default::default() });
                request.wait_timeout = seconds(30.0);
            });
            lease(&acquired.await.unwrap())
        });
    }
    clients.until_waiting(4).await;
    psql(&mut db, "UPDATE accounts SET paused = (account_id = 'first')").await;
    spoil(&mut db, Cause::Raises).await;
    while let Some(held) = waiters.join_next().await {
        let held = held.unwrap();
        assert_ne!(held.account_id, BAD);
        clients.release(&held).await.unwrap();
    }
}

#[tokio::test]
async fn a_lease_that_cannot_be_ended_does_not_keep_others_beyond_their_time() {
    for cause in CAUSES {
        let world = World::start().await;
        let mut clients = world.clients(0).await;
        with_the_bad_one_first(&mut clients).await;
        for _ in 0..4 {
            clients.acquire(|request| request.lease_duration = seconds(1.0)).await.unwrap();
        }
        let mut db = world.sql().await;
        spoil(&mut db, cause).await;
        for account_id in ["a-000", "a-001", "a-002"] {
            until_status(&mut clients, account_id, AccountStatus::Waiting).await;
        }
        assert_eq!(clients.status_of(BAD).await, AccountStatus::Locking);
        // The others were written first: the bad row is found by itself after them.
        eventually(LIMIT, "the row is found to be unwritable", async || {
            let explained = clients.clone().explain(pb::AccountSelector::default()).await;
            let is_found = explained
                .verdict_counts
                .iter()
                .any(|count| count.verdict() == Verdict::Unwritable && count.accounts == 1);
            is_found.then_some(())
        })
        .await;
        mend(&mut db, cause).await;
        until_status(&mut clients, BAD, AccountStatus::Waiting).await;
    }
}

#[tokio::test]
async fn a_redemption_that_cannot_be_claimed_does_not_keep_others_in_doubt() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    for account_id in [BAD, "good"] {
        clients.create_account(account_id, |_| {}).await;
    }
    let mut db = world.sql().await;
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'not this one'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON redemptions FOR EACH ROW
         WHEN (NEW.account_id = 'bad') EXECUTE FUNCTION refuse();";
    psql(&mut db, refuse).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(lease(&clients.acquire(|_| {}).await.unwrap()));
    }
    held.sort_by(|one, other| one.account_id.cmp(&other.account_id));
    // As if their server had died before it had sent them.
    let begun = |account_id: &str, request: &str, fingerprint: &str| {
        format!(
            "INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id, holder,
                 state, release_on_completion, code_fingerprint, code_ciphertext, code_last4, not_after,
                 next_check_at)
             SELECT pool_id, gen_random_uuid(), account_id, fencing_token, '{request}', holder, 'SUBMITTED', true,
                 '{fingerprint}', 'x', '', now(), now()
             FROM accounts WHERE account_id = '{account_id}';
             UPDATE accounts a SET open_redemption_id = r.redemption_id, version = version + 1,
                 change_id = gen_random_uuid()
             FROM redemptions r WHERE r.account_id = a.account_id AND a.account_id = '{account_id}';
             INSERT INTO account_events (pool_id, account_id, version, happened_at, actor, reason, from_status,
                 to_status, fencing_token, redemption_id, balance_minor, lease_expires_at)
             SELECT pool_id, account_id, version, now(), holder, 'redeem_begun', status, status, fencing_token,
                 open_redemption_id, balance_minor, lease_expires_at
             FROM accounts WHERE account_id = '{account_id}'"
        )
    };
    psql(&mut db, &begun(BAD, "r-1", "f1")).await;
    psql(&mut db, &begun("good", "r-2", "f2")).await;
    // What cannot be decrypted is for a person: it was claimed.
    let state = "SELECT state FROM redemptions WHERE account_id = $1";
    let state_of = async |db: &mut PgConnection, account_id: &str| -> String {
        sqlx::query_scalar(state).bind(account_id).fetch_one(db).await.unwrap()
    };
    eventually(LIMIT, "the other one is claimed", async || {
        (state_of(&mut db, "good").await == "NEEDS_REVIEW").then_some(())
    })
    .await;
    assert_eq!(state_of(&mut db, BAD).await, "SUBMITTED");
    psql(&mut db, "DROP TRIGGER refuse ON redemptions").await;
    eventually(LIMIT, "it is claimed when it is mended", async || {
        (state_of(&mut db, BAD).await == "NEEDS_REVIEW").then_some(())
    })
    .await;
    assert!(metric(&world, "holdfast_rows_skipped_total", "claim_checks").await >= 1.0);
    // A person looks.
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT redemption_id FROM redemptions")
        .fetch_all(&mut db)
        .await
        .unwrap();
    for redemption_id in ids {
        let request = pb::ResolveRedemptionRequest {
            pool_id: POOL.to_owned(),
            redemption_id: redemption_id.to_string(),
            state: RedemptionState::Failed.into(),
            reason: "nothing was sent".to_owned(),
            resolved_by: "tester".to_owned(),
            ..Default::default()
        };
        let resolved = clients.redemptions.resolve_redemption(request).await.unwrap();
        let redemption = resolved.into_inner().redemption.unwrap();
        assert_eq!(redemption.state(), RedemptionState::Failed);
    }
}

#[tokio::test]
async fn a_day_that_cannot_end_does_not_keep_others_from_theirs() {
    for cause in CAUSES {
        let world = World::start().await;
        let mut clients = world.clients(0).await;
        let days = |plan: &mut pb::Plan| plan.day_amounts = vec![eur(2 * CARD), eur(2 * CARD)];
        clients.create_plan_with("plan", 9 * CARD, days).await;
        for account_id in ["a", BAD, "c"] {
            clients.create_account(account_id, |account| account.plan_id = "plan".into()).await;
        }
        let mut db = world.sql().await;
        psql(&mut db, &format!("UPDATE accounts SET day_credited_minor = {CARD}")).await;
        spoil(&mut db, cause).await;
        let less = |plan: &mut pb::Plan| plan.day_amounts = vec![eur(CARD), eur(2 * CARD)];
        clients.update_plan("plan", &["day_amounts"], less).await.unwrap();
        let days = "SELECT plan_day FROM accounts ORDER BY account_id";
        let now: Vec<i32> = sqlx::query_scalar(days).fetch_all(&mut db).await.unwrap();
        assert_eq!(now, [2, 1, 2], "{cause:?}");
        mend(&mut db, cause).await;
    }
}

#[tokio::test]
async fn an_import_names_the_account_that_the_database_refuses_and_creates_the_others() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut db = world.sql().await;
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'not this one'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON accounts FOR EACH ROW
         WHEN (NEW.account_id = 'bad') EXECUTE FUNCTION refuse();";
    psql(&mut db, refuse).await;
    let account = |account_id: String| pb::ImportAccountsRequest {
        account: Some(pb::Account { pool_id: POOL.to_owned(), account_id, ..Default::default() }),
    };
    let mut accounts: Vec<_> = (0..100).map(|n| account(format!("a-{n}"))).collect();
    accounts.insert(40, account(BAD.to_owned()));
    let reply = clients.accounts.import_accounts(tokio_stream::iter(accounts)).await;
    let reply = reply.unwrap().into_inner();
    assert_eq!((reply.created, reply.failures.len()), (100, 1), "{reply:?}");
    assert_eq!(reply.failures[0].account_id, BAD);
}

#[tokio::test]
async fn an_account_that_cannot_be_read_is_passed_over_and_stays_free() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut db = world.sql().await;
    // A name that no caller could have given it.
    psql(&mut db, "INSERT INTO accounts (pool_id, account_id) VALUES ('pool', E'bad\\tname')")
        .await;
    clients.create_accounts(2).await;
    for _ in 0..10 {
        let held = lease(&clients.acquire(|_| {}).await.unwrap());
        clients.release(&held).await.unwrap();
    }
    let status = "SELECT status FROM accounts WHERE account_id LIKE 'bad%'";
    let status: String = sqlx::query_scalar(status).fetch_one(&mut db).await.unwrap();
    assert_eq!(status, "WAITING", "its lease was given back");
    let explained = clients.explain(pb::AccountSelector::default()).await;
    assert_eq!(explained.considered_accounts.len(), 2, "the others are told");
}
