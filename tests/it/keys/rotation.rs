//! A change of the secret key: nothing is lost, nothing is found twice, and it goes on where it was ended.

use std::collections::HashMap;

use holdfast::{
    app::{App, keys},
    domain::{id::RequestId, secret_key::KeyId},
    rpc::pb,
    service::rotation::Progress,
};
use sqlx::{Connection as _, PgConnection, Row as _};

use super::{first_key, key_file, rotate, write_keys};
use crate::{
    redeem::review::{left_for_review, resolve, word},
    support::world::{Clients, POOL, World, eur, lease, reason},
};

/// Redeems a card into an account of its own, and answers with the redemption and the request's id.
async fn redeem(clients: &mut Clients, code: &str) -> Result<pb::Redemption, tonic::Status> {
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let request = |r: &mut pb::RedeemRequest| r.request_id = RequestId::random().to_string();
    let redeemed = clients.redeem(&held, code, request).await;
    if redeemed.is_err() {
        clients.release(&held).await.unwrap();
    }
    redeemed.map(|it| it.redemption.unwrap())
}

async fn is_duplicate(clients: &mut Clients, code: &str) {
    let refused = redeem(clients, code).await.unwrap_err();
    assert_eq!(reason(&refused), "CODE_IN_USE", "{refused:?}");
}

/// The keys of a table's column of sealed bytes.
async fn keys_of(db: &mut PgConnection, sql: &'static str) -> Vec<i32> {
    let rows = sqlx::query(sql).fetch_all(db).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

const CODES: &str = "SELECT DISTINCT key_of(code_ciphertext) FROM redemptions
    WHERE code_ciphertext IS NOT NULL ORDER BY 1";
const CREDENTIALS: &str = "SELECT DISTINCT key_of(credentials) FROM account_credentials ORDER BY 1";
const FINGERPRINTS: &str = "SELECT DISTINCT code_fingerprint_key FROM redemptions ORDER BY 1";

async fn with_credentials(clients: &mut Clients, from: usize, count: usize) {
    let message = |number: usize| pb::ImportAccountsRequest {
        account: Some(pb::Account {
            pool_id: POOL.into(),
            account_id: format!("c-{number:04}"),
            login_status: pb::LoginStatus::Invalid.into(),
            credentials: HashMap::from([("pin".to_owned(), format!("{number}"))]),
            ..Default::default()
        }),
    };
    let messages: Vec<_> = (from..from + count).map(message).collect();
    let stream = tokio_stream::iter(messages);
    let answer = clients.accounts.import_accounts(stream).await.unwrap().into_inner();
    assert_eq!(answer.created, i64::try_from(count).unwrap(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_a_duplicate_under_every_key_and_what_is_stored_is_read() {
    let mut world = World::with(|_| {}, 2).await;
    let (mut one, mut two) = (world.clients(0).await, world.clients(1).await);
    one.create_accounts(8).await;
    with_credentials(&mut one, 0, 600).await;
    let (settled, open) = (world.code("settled"), world.code("open"));
    redeem(&mut one, &settled).await.unwrap();
    let (held, waiting) = left_for_review(&world, &mut one, &open).await;

    let first = first_key(&world);
    write_keys(&world, &first, &[2, 1]);
    let mut progress = Vec::new();
    let rotated = rotate(&world, &mut |it| progress.push(it)).await.unwrap();
    assert_eq!(rotated.current.number(), 2);
    assert_eq!(rotated.removable.iter().map(|key| key.number()).collect::<Vec<_>>(), [1]);
    assert!(progress.contains(&Progress::Codes(1)), "{progress:?}");
    assert!(progress.contains(&Progress::Credentials(600)), "{progress:?}");
    let mut db = world.sql().await;
    for sql in [CODES, CREDENTIALS] {
        assert_eq!(keys_of(&mut db, sql).await, [2], "{sql}");
    }
    assert_eq!(keys_of(&mut db, FINGERPRINTS).await, [1, 2], "what is wiped stays under its key");
    for clients in [&mut one, &mut two] {
        is_duplicate(clients, &settled).await;
        is_duplicate(clients, &open).await;
        with_credentials(clients, 0, 0).await;
    }
    // Both write with the new key, whether or not they had heard of it.
    with_credentials(&mut one, 1000, 2).await;
    with_credentials(&mut two, 2000, 2).await;
    let later = world.code("later");
    redeem(&mut two, &later).await.unwrap();
    is_duplicate(&mut one, &later).await;
    assert_eq!(keys_of(&mut db, CREDENTIALS).await, [2]);

    // Without the old key in any file.
    write_keys(&world, &first, &[2]);
    world.start_server().await;
    let mut three = world.clients(2).await;
    for code in [&settled, &open, &later] {
        is_duplicate(&mut three, code).await;
    }
    let request = |r: &mut pb::RedeemRequest| {
        r.request_id.clone_from(&waiting.request_id);
        r.expected = Some(eur(1000));
    };
    let again = three.redeem(&held, &open, request).await.unwrap();
    assert_eq!(again.redemption.unwrap().redemption_id, waiting.redemption_id);

    // And on to a third: what the first one made fingerprints with goes along.
    write_keys(&world, &first, &[3, 2]);
    let rotated = rotate(&world, &mut |_| {}).await.unwrap();
    assert_eq!(rotated.removable.iter().map(|key| key.number()).collect::<Vec<_>>(), [1, 2]);
    write_keys(&world, &first, &[3]);
    world.start_server().await;
    let mut four = world.clients(3).await;
    for code in [&settled, &open, &later] {
        is_duplicate(&mut four, code).await;
    }
    assert_eq!(keys_of(&mut db, CODES).await, [3]);
    let word = word(&waiting, pb::RedemptionState::Succeeded);
    let word = pb::ResolveRedemptionRequest { amount: Some(eur(1100)), ..word };
    resolve(&mut four, word).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_ended_half_way_goes_on() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    with_credentials(&mut clients, 0, 1100).await;
    write_keys(&world, &first_key(&world), &[2, 1]);
    let mut db = world.sql().await;
    for end in [Progress::Current(KeyId::FIRST), Progress::Credentials(500)] {
        // It ends at the first step that says so, like a process that is killed there.
        let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let url = world.db_url.clone();
        let file = key_file(&world);
        let work = tokio::spawn(async move {
            let mut tell = |it| {
                let _ = told.send(it);
                let is_end = matches!(
                    (it, end),
                    (Progress::Current(_), Progress::Current(_))
                        | (Progress::Credentials(_), Progress::Credentials(_))
                );
                assert!(!is_end, "killed");
            };
            keys::rotate(&url.into(), &file, super::PATIENCE, "a test", &mut tell).await
        });
        assert!(work.await.unwrap_err().is_panic());
        assert!(ended.recv().await.is_some());
        assert_eq!(
            keys_of(&mut db, CREDENTIALS).await.last(),
            Some(&if matches!(end, Progress::Current(_)) { 1 } else { 2 })
        );
        assert_eq!(status(&world), "1,NEEDED 2,CURRENT");
    }
    assert_eq!(keys_of(&mut db, CREDENTIALS).await, [1, 2]);
    // A server needs both meanwhile.
    let only = tempfile::tempdir().unwrap();
    let file = only.path().join("keys");
    crate::support::secrets::write_secret(&file, format!("2: {}\n", super::key(2)));
    let mut args = world.args().clone();
    args.secret_key_file = Some(file);
    let refused = format!("{:#}", App::start(&args).await.unwrap_err());
    assert!(refused.contains("the secret key 1 is missing"), "{refused}");

    let mut most = 0;
    let mut tell = |it| {
        if let Progress::Credentials(count) = it {
            most = count;
        }
    };
    rotate(&world, &mut tell).await.unwrap();
    assert_eq!(most, 600, "the rest");
    assert_eq!(keys_of(&mut db, CREDENTIALS).await, [2]);
    assert_eq!(status(&world), "1,REMOVABLE 2,CURRENT");
    App::start(&args).await.unwrap().stop().await.unwrap();
}

/// The ids and states that `holdfast keys status` prints.
fn status(world: &World) -> String {
    let output = super::command()
        .args(["keys", "status", "--format=csv", "--database-url", &world.db_url])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let states = printed.lines().skip(1).map(|line| {
        let fields: Vec<_> = line.split(',').collect();
        format!("{},{}", fields[0], fields[1])
    });
    states.collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_changes_while_a_server_has_not_read_the_new_key() {
    let world = World::start().await;
    let first = first_key(&world);
    // The servers' file stays as it is; the command's has the new key.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    crate::support::secrets::write_secret(&file, format!("2: {}\n1: {first}\n", super::key(2)));
    let output = super::command()
        .args(["keys", "rotate", "--wait=1s", "--database-url", &world.db_url])
        .arg("--secret-key-file")
        .arg(&file)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("waiting for 1 servers"), "{told}");
    assert!(told.contains("have not read the secret key 2"), "{told}");
    let mut db = PgConnection::connect(&world.db_url).await.unwrap();
    assert_eq!(keys_of(&mut db, "SELECT current_key FROM installation").await, [1]);
    assert_eq!(keys_of(&mut db, "SELECT key_id FROM secret_keys").await, [1]);
}

/// Runs `holdfast keys rotate` to its end.
fn rotate_by_command(world: &World, reason: &str) -> std::process::Output {
    super::command()
        .args(["keys", "rotate", "--reason", reason, "--database-url", &world.db_url])
        .arg("--secret-key-file")
        .arg(key_file(world))
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_recorded_once_with_who_why_and_both_keys_or_does_not_happen() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    write_keys(&world, &first_key(&world), &[2, 1]);
    let mut db = world.sql().await;
    let refuse = "CREATE FUNCTION refuse_event() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'no event'; END $$;
         CREATE TRIGGER refuse_event BEFORE INSERT ON audit_events
         FOR EACH ROW EXECUTE FUNCTION refuse_event();";
    sqlx::raw_sql(refuse).execute(&mut db).await.unwrap();
    assert!(!rotate_by_command(&world, "once a year").status.success());
    assert_eq!(keys_of(&mut db, "SELECT current_key FROM installation").await, [1]);

    sqlx::raw_sql("DROP TRIGGER refuse_event ON audit_events").execute(&mut db).await.unwrap();
    for reason in ["once a year", "what it goes on with is the same change"] {
        let output = rotate_by_command(&world, reason);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let request = pb::ListAuditEventsRequest::default();
    let events = clients.access.list_audit_events(request).await.unwrap().into_inner().events;
    let of: Vec<_> = events.iter().filter(|event| event.action == "RotateKeys").collect();
    let [event] = &of[..] else { panic!("{events:?}") };
    assert_eq!((&*event.principal, &*event.peer, &*event.pool_id), ("database", "", ""));
    assert_eq!((&*event.subject, &*event.reason), ("2", "once a year"));
    assert_eq!((&*event.before, &*event.after), (r#"{"key_id": 1}"#, r#"{"key_id": 2}"#));
}

#[tokio::test]
async fn a_key_of_another_database_or_of_another_id_is_refused_by_its_id() {
    let world = World::start().await;
    let first = first_key(&world);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    for (text, wanted) in [
        (format!("1: {}\n", super::key(7)), "the secret key 1 is not the one"),
        (format!("2: {first}\n"), "the secret key 1 is missing"),
        (format!("2: {first}\n1: x\n2: y\n"), "line 2: the key must be 32 bytes"),
    ] {
        crate::support::secrets::write_secret(&file, &text);
        let mut args = world.args().clone();
        args.secret_key_file = Some(file.clone());
        let refused = format!("{:#}", App::start(&args).await.unwrap_err());
        assert!(refused.contains(wanted), "{refused}");
        assert!(!refused.contains(&first), "{refused}");
    }
}
