//! The environment of a server: what a shell, a service manager or an administrator may have set, and
//! what it does.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use holdfast::{
    embedded::{DATABASE, Data, Options, Postgres},
    rpc::pb,
    secret::{self, SecretKeys},
};

use crate::support::{
    fleet::{Process, channel},
    journal::Journal,
    world::{Clients, POOL},
};

/// Each would break a connection to the private Postgres, or a program that is run for it, if it were heeded.
pub(crate) const HOSTILE: [(&str, &str); 27] = [
    ("PGHOST", "/nowhere"),
    ("PGHOSTADDR", "192.0.2.1"),
    ("PGPORT", "5433"),
    ("PGUSER", "nobody-here"),
    ("PGDATABASE", "nothing-here"),
    ("PGPASSWORD", "wrong"),
    ("PGPASSFILE", "/nowhere/pgpass"),
    ("PGSERVICE", "nowhere"),
    ("PGSERVICEFILE", "/nowhere/service"),
    ("PGSSLMODE", "verify-full"),
    ("PGSSLROOTCERT", "/nowhere/root.crt"),
    ("PGSSLCERT", "/nowhere/client.crt"),
    ("PGSSLKEY", "/nowhere/client.key"),
    ("PGREQUIRESSL", "1"),
    ("PGCHANNELBINDING", "require"),
    ("PGOPTIONS", "--no-such-option -c search_path=nowhere -c default_transaction_read_only=on"),
    ("PGAPPNAME", "somebody else"),
    ("PGCONNECT_TIMEOUT", "0"),
    ("PGTZ", "Nowhere/Nothing"),
    ("PGDATESTYLE", "German"),
    ("PGCLIENTENCODING", "LATIN1"),
    ("PGDATA", "/nowhere/data"),
    ("PG_COLOR", "always"),
    ("LC_ALL", "xx_XX.UTF-8"),
    ("LC_MESSAGES", "xx_XX.UTF-8"),
    ("LANG", "xx_XX.UTF-8"),
    ("TZ", "Nowhere/Nothing"),
];

/// A server whose Postgres is a private one, in `folder`.
async fn serve_private(folder: &Path, env: &[(&str, &str)]) -> Process {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let args = [
        "serve".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        "--admin-listen=127.0.0.1:0".to_owned(),
        "--drain-delay=0s".to_owned(),
        format!("--data-dir={}", folder.join("data").display()),
    ];
    Process::start("server", folder, &args, env).await
}

#[tokio::test]
async fn a_private_postgres_ignores_every_variable_that_concerns_another() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = serve_private(folder.path(), &HOSTILE).await;
    let mut clients = Clients::over(channel(&server.addr), Journal::default());
    clients.create_pool(POOL).await;
    clients.create_account("a", |_| {}).await;
    clients.acquire(|_| {}).await.unwrap();
    server.end().await;
    assert!(!server.said().contains("PANIC"), "{}", server.said());
    // And the data that was made is there without them.
    let server = serve_private(folder.path(), &[]).await;
    let mut clients = Clients::over(channel(&server.addr), Journal::default());
    assert_eq!(clients.account("a").await.status(), pb::AccountStatus::Locking);
}

#[test]
fn the_demo_ignores_every_variable_that_concerns_another_postgres() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("accounts.csv"), "account_id,pool_id\na,steam-eu\nb,psn-us\n")
        .unwrap();
    fs::write(
        folder.path().join("cards.csv"),
        "code,pool_id\nAAAA-0001,steam-eu\nBBBB-0001,psn-us\n",
    )
    .unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    demo.args(["demo", "--accounts"]).arg(folder.path().join("accounts.csv"));
    demo.arg("--cards").arg(folder.path().join("cards.csv"));
    let done = demo.envs(HOSTILE).stdin(Stdio::null()).output().unwrap();
    let printed = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {printed}", done.status);
}

#[tokio::test]
async fn variables_complete_a_database_url_that_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(Options::new(Data::ThrowAway)).await.unwrap();
    SecretKeys::create_beside(folder.path()).unwrap();
    let key = folder.path().join(secret::FILE_NAME);
    let args = [
        "serve".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        "--admin-listen=127.0.0.1:0".to_owned(),
        "--drain-delay=0s".to_owned(),
        "--database-url=postgres://".to_owned(),
        format!("--secret-key-file={}", key.display()),
    ];
    let env = [
        ("PGHOST", postgres.socket_dir().to_str().unwrap()),
        ("PGPORT", "5432"),
        ("PGUSER", holdfast::embedded::USER),
        ("PGDATABASE", DATABASE),
        ("PGSSLMODE", "disable"),
    ];
    let server = Process::start("server", folder.path(), &args, &env).await;
    let mut clients = Clients::over(channel(&server.addr), Journal::default());
    clients.create_pool(POOL).await;
    let mut db =
        <sqlx::PgConnection as sqlx::Connection>::connect(&postgres.url(DATABASE)).await.unwrap();
    let pools: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pools").fetch_one(&mut db).await.unwrap();
    assert_eq!(pools, 1);
    drop(server);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_data_directory_that_others_can_write_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    for (mode, warned) in [(0o755, 0), (0o777, 2)] {
        fs::set_permissions(&data, fs::Permissions::from_mode(mode)).unwrap();
        let mut server = serve_private(folder.path(), &[]).await;
        // Of its directory, and of the key in it.
        let found = warnings(&server);
        let found =
            found.iter().filter(|line| line.contains("every user of this machine can replace"));
        assert_eq!(found.count(), warned, "{mode:o}: {}", server.said());
        server.end().await;
    }
}

/// The lines at WARN that a server has logged.
fn warnings(server: &Process) -> Vec<String> {
    let lines = server.said();
    let warnings = lines.lines().filter(|line| line.contains("\"WARN\""));
    warnings.map(str::to_owned).collect()
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_warned_of_at_every_start() {
    let folder = tempfile::tempdir().unwrap();
    for (listen, admin, served) in [
        ("0.0.0.0:0", "127.0.0.1:0", &["gRPC is served on 0.0.0.0"][..]),
        ("127.0.0.1:0", "0.0.0.0:0", &["the admin address is served on 0.0.0.0"]),
        ("[::]:0", "[::]:0", &["gRPC is served on [::]", "the admin address is served on [::]"]),
        ("[::1]:0", "127.0.0.1:0", &[]),
    ] {
        let mut server = {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
            let args = [
                "serve".to_owned(),
                format!("--listen={listen}"),
                format!("--admin-listen={admin}"),
                "--insecure-listen".to_owned(),
                "--drain-delay=0s".to_owned(),
                format!("--data-dir={}", folder.path().join("data").display()),
            ];
            Process::start("server", folder.path(), &args, &[]).await
        };
        let warned = warnings(&server);
        let warned: Vec<_> =
            warned.iter().filter(|line| line.contains("--insecure-listen allows it")).collect();
        assert_eq!(warned.len(), served.len(), "{listen} {admin}: {warned:?}");
        for text in served {
            assert!(warned.iter().any(|line| line.contains(text)), "{text}: {warned:?}");
        }
        server.end().await;
    }
}

#[tokio::test]
async fn a_simulator_that_others_can_reach_warns_too() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = format!("--ledger={}", folder.path().join("ledger.jsonl").display());
    for (listen, warned) in [("0.0.0.0:0", 1), ("127.0.0.1:0", 0)] {
        let args = ["simulate-provider".to_owned(), format!("--listen={listen}"), ledger.clone()];
        let mut simulator = Process::start("provider", folder.path(), &args, &[]).await;
        let found = warnings(&simulator);
        let found = found.iter().filter(|line| line.contains("nobody is asked who they are"));
        assert_eq!(found.count(), warned, "{listen}");
        simulator.end().await;
    }
}

/// Runs `serve`, which is to be refused, and answers with what it says.
fn refused(args: &[String]) -> String {
    let mut serve = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("HOLDFAST_")) {
        serve.env_remove(name);
    }
    let done = serve.arg("serve").args(args).stdin(Stdio::null()).output().unwrap();
    assert!(!done.status.success());
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[tokio::test]
async fn a_secret_s_file_that_others_can_read_or_write_is_refused_whichever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    SecretKeys::create_beside(folder.path()).unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let database = crate::support::world::fresh_database().await;
    let key_text = fs::read_to_string(folder.path().join(secret::FILE_NAME)).unwrap();
    let good = |name: &str, text: &str| file(name, text, 0o600);
    let (key, url, token) =
        (good("key", &key_text), good("url", &database.url), good("token", "tok-123456"));
    let bad_key = file("bad-key", &key_text, 0o666);
    let bad_url = file("bad-url", &database.url, 0o604);
    let bad_token = file("bad-token", "tok-123456", 0o646);
    for (key, url, token, bad) in [
        (&bad_key, &url, &token, &bad_key),
        (&key, &bad_url, &token, &bad_url),
        (&key, &url, &bad_token, &bad_token),
    ] {
        let printed = refused(&[
            format!("--secret-key-file={key}"),
            format!("--database-url-file={url}"),
            format!("--provider-token-file={token}"),
            "--listen=127.0.0.1:0".to_owned(),
            "--admin-listen=127.0.0.1:0".to_owned(),
        ]);
        assert!(
            printed.contains(bad) && printed.contains("every user of this machine can"),
            "{printed}"
        );
        assert!(!printed.contains(key_text.trim()) && !printed.contains("tok-123456"), "{printed}");
    }
    database.drop_database().await;
}

#[tokio::test]
async fn a_key_file_that_its_group_can_write_is_a_warning_and_one_it_can_read_is_none() {
    let folder = tempfile::tempdir().unwrap();
    SecretKeys::create_beside(folder.path()).unwrap();
    let key = folder.path().join(secret::FILE_NAME);
    let database = crate::support::world::fresh_database().await;
    for (mode, warned) in [(0o440, 0), (0o600, 0), (0o660, 1)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let args = [
            "serve".to_owned(),
            "--listen=127.0.0.1:0".to_owned(),
            "--admin-listen=127.0.0.1:0".to_owned(),
            "--drain-delay=0s".to_owned(),
            format!("--secret-key-file={}", key.display()),
        ];
        let env = [("HOLDFAST_DATABASE_URL", &*database.url)];
        let mut server = Process::start("server", folder.path(), &args, &env).await;
        let found = warnings(&server);
        let found = found.iter().filter(|line| line.contains("should be for its owner alone"));
        assert_eq!(found.count(), warned, "{mode:o}: {}", server.said());
        server.end().await;
    }
    database.drop_database().await;
}

#[test]
fn a_timeout_alone_is_taken_and_contradictions_are_all_named_at_once() {
    // What follows is refused later, for want of a key: the settings are not what is wrong.
    let url = "--database-url=postgres://127.0.0.1:1/none".to_owned();
    let printed = refused(&["--provider-timeout=2s".to_owned(), url.clone()]);
    assert!(
        printed.contains("HOLDFAST_SECRET_KEY_FILE") && !printed.contains("must be"),
        "{printed}"
    );
    let printed = refused(&[
        "--provider-timeout=1m".to_owned(),
        "--provider-connect-timeout=2m".to_owned(),
        "--provider-send-window=5s".to_owned(),
        "--sweep-interval=0s".to_owned(),
        url,
    ]);
    for part in [
        "HOLDFAST_SWEEP_INTERVAL must be more than 0",
        "HOLDFAST_PROVIDER_CONNECT_TIMEOUT (2m) must not be longer than HOLDFAST_PROVIDER_TIMEOUT (1m)",
        "HOLDFAST_PROVIDER_TIMEOUT (1m) must be shorter than HOLDFAST_PROVIDER_SEND_WINDOW (5s)",
    ] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
}

#[test]
fn a_name_to_listen_on_is_refused_with_how_to_write_an_address() {
    for flag in ["--listen=localhost:50051", "--admin-listen=localhost:50052"] {
        let printed = refused(&[flag.to_owned()]);
        assert!(printed.contains("write an IP address and a port"), "{printed}");
    }
}

#[tokio::test]
async fn what_is_set_for_another_postgres_is_left_out_before_anything_is_begun() {
    // The server keeps its process: who started it knows it by its number.
    let folder = tempfile::tempdir().unwrap();
    let server = serve_private(folder.path(), &HOSTILE).await;
    let environment = fs::read(format!("/proc/{}/environ", server.id())).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    let kept: Vec<_> = environment.split('\0').filter(|it| it.starts_with("PG")).collect();
    assert_eq!(kept, [""; 0]);
}
