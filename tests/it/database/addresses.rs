//! URLs of several hosts, and passwords that expire.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use holdfast::{
    domain::{database::Address, id::PoolId},
    store::{Store, StoreError},
};

use crate::support::{postgres::OwnPostgres, wait::eventually};

const LIMIT: Duration = Duration::from_secs(20);

/// The host of a URL, which is a socket's folder.
fn host(url: &str) -> &str {
    url.split_once('@').unwrap().1.split('/').next().unwrap()
}

async fn reads(store: &Store) -> Result<(), StoreError> {
    store.get_pool(&PoolId::parse("none").unwrap()).await.map(|pool| assert!(pool.is_none()))
}

#[tokio::test]
async fn of_several_hosts_the_one_that_takes_writes_is_used_whichever_is_first() {
    let mut primary = OwnPostgres::start(&[]).await;
    let standby = primary.standby().await;
    // A host that takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = "127.0.0.1:1";
    let (first, second) = (primary.url(), standby.url());
    let hosts = [gone.to_owned(), silent.local_addr().unwrap().to_string()];
    let hosts = [&hosts[0], &hosts[1], host(&second), host(&first)].join(",");
    let url = format!(
        "postgres://holdfast:none@{hosts}/postgres?sslmode=disable&target_session_attrs=read-write&connect_timeout=2"
    );
    let store = Store::open(&url.into(), 4).unwrap();
    store.migrate().await.unwrap();
    let began = Instant::now();
    store.ping().await.unwrap();
    reads(&store).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());

    primary.quit();
    standby.promote().await;
    eventually(LIMIT, "the standby that was is used", async || {
        (store.ping().await.is_ok() && reads(&store).await.is_ok()).then_some(())
    })
    .await;
    store.close().await;
}

#[tokio::test]
async fn where_no_host_takes_writes_the_error_says_so_within_the_time_of_a_call() {
    let primary = OwnPostgres::start(&[]).await;
    let standby = primary.standby().await;
    let url = standby.url();
    let hosts = format!("127.0.0.1:1,{}", host(&url));
    let url = format!("postgres://holdfast:none@{hosts}/postgres?sslmode=disable");
    let store = Store::open(&url.into(), 4).unwrap();
    let began = Instant::now();
    let error = reads(&store).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_password_is_read_again_for_each_connection_and_one_that_expired_is_no_bug() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let rules = folder.path().join("pg_hba.conf");
    fs::write(&rules, "local all holdfast trust\nlocal all app scram-sha-256\n").unwrap();
    let setting = format!("hba_file={}", rules.display());
    let postgres = OwnPostgres::start(&[&setting]).await;
    let store = Store::open(&postgres.url().into(), 2).unwrap();
    store.migrate().await.unwrap();
    store.close().await;
    postgres.run("CREATE ROLE app LOGIN SUPERUSER PASSWORD 'first-one'").await;
    let file = folder.path().join("password");
    let write = |password: &str| {
        fs::write(&file, format!("{password}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("first-one");
    let url = postgres.url().replace("holdfast:none@", "app@");
    let address = Address { password_file: Some(file.clone()), ..url.into() };
    let store = Store::open(&address, 4).unwrap();
    store.ping().await.unwrap();
    reads(&store).await.unwrap();

    postgres.run("ALTER ROLE app PASSWORD 'second-one'").await;
    assert!(postgres.kill_backends().await > 0);
    let expired =
        eventually(LIMIT, "the password is not taken", async || reads(&store).await.err()).await;
    let expired = eventually(LIMIT, "it is the password", async || match reads(&store).await {
        Err(error) if error.to_string().contains("password authentication failed") => Some(error),
        other => panic!("{expired:?}, then {other:?}"),
    })
    .await;
    assert!(matches!(expired, StoreError::Unavailable(_)), "{expired:?}");
    assert!(!expired.to_string().contains("first-one"), "{expired}");
    write("second-one");
    reads(&store).await.unwrap();
    store.ping().await.unwrap();

    fs::remove_file(&file).unwrap();
    assert!(postgres.kill_backends().await > 0);
    let gone = eventually(LIMIT, "the file is missed", async || reads(&store).await.err());
    let gone = gone.await.to_string();
    let named = file.display().to_string();
    let again = reads(&store).await.unwrap_err().to_string();
    assert!(again.contains(&named), "{gone}, then {again}");
}

#[tokio::test]
async fn a_url_with_a_raw_password_is_refused_and_not_shown() {
    let error = Store::open(&"postgres://app:se/cret@localhost/db".into(), 2).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("/ as %2F") && !said.contains("cret"), "{said}");
}
