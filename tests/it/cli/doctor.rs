//! `holdfast doctor`, as an operator runs it: each fault is found, with all others.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, sync::Arc};

use holdfast::{config::AccessArgs, domain::access::Role};
use rustls::ServerConfig;
use serde_json::Value;
use tokio::{net::TcpListener, process::Command};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    program::{Finished, finish, program},
    secrets::write_secret,
    tls::{Authority, Identity},
    world::{POOL, World},
};

/// A doctor who finds nothing in the environment or in the folder of the tests.
fn doctor(world: &World, folder: &Path, arguments: &[&str]) -> Command {
    doctor_by(world, folder, &world.args().provider.url, arguments)
}

/// One who is told another URL of the built-in provider.
fn doctor_by(world: &World, folder: &Path, provider: &str, arguments: &[&str]) -> Command {
    let words = ["doctor", "--format", "json", "--provider-url", provider];
    let mut command = program(world, &[&words[..], arguments].concat());
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("HOLDFAST_")) {
        command.env_remove(name);
    }
    command.env_remove("HOLDFAST_TOKEN").current_dir(folder);
    command
}

async fn run(mut command: Command) -> Finished {
    finish(command.spawn().unwrap()).await
}

/// The state of a check, and what was found.
fn state(done: &Finished, subject: &str, check: &str) -> (String, String) {
    let (state, found, _) = row(done, subject, check);
    (state, found)
}

/// The state of a check, what was found, and what to do.
fn row(done: &Finished, subject: &str, check: &str) -> (String, String, String) {
    let rows: Vec<Value> =
        serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:#?}"));
    let row = rows.iter().find(|row| row["subject"] == subject && row["check"] == check);
    let row = row.unwrap_or_else(|| panic!("no {subject} {check}: {done:#?}"));
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("state") == "ok", text("next").is_empty(), "{row}");
    (text("state"), text("found"), text("next"))
}

#[track_caller]
fn assert_advice(done: &Finished, subject: &str, check: &str, found: &str, next: &str) {
    let (state, told, advice) = row(done, subject, check);
    assert!(state == "failed" && told.contains(found), "{subject} {check}: {state}: {told}");
    assert!(advice.contains(next), "{subject} {check}: {advice}");
}

#[track_caller]
fn assert_states(done: &Finished, wanted: &[(&str, &str, &str)]) {
    for (subject, check, wanted) in wanted {
        let (state, found) = state(done, subject, check);
        assert_eq!(&state, wanted, "{subject} {check}: {found}");
    }
}

#[tokio::test]
async fn all_is_well_where_a_server_runs_and_no_database_is_named() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let done = run(doctor(&world, folder.path(), &[])).await;
    done.says(0, &["0 checks failed"]);
    assert_states(
        &done,
        &[
            ("server", "reachable", "ok"),
            ("server", "certificate", "ok"),
            ("server", "ready", "ok"),
            ("server", "version", "ok"),
            ("server", "token", "ok"),
            ("provider", "holdfast calls", "ok"),
            ("provider", "holdfast host", "ok"),
            ("database", "settings", "ok"),
            ("keys", "key file", "ok"),
            ("machine", "disk", "ok"),
        ],
    );
}

#[tokio::test]
async fn the_database_is_checked_with_its_settings_its_schema_and_the_keys_that_it_knows() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("url");
    write_secret(&url, &world.db_url);
    let url = url.to_str().unwrap();
    let key = world.args().secret_key_file.clone().unwrap();
    let arguments = ["--database-url-file", url, "--secret-key-file", key.to_str().unwrap()];
    let done = run(doctor(&world, folder.path(), &arguments)).await;
    // The Postgres of the tests keeps nothing through a power cut.
    done.says(1, &[]);
    assert_states(
        &done,
        &[
            ("database", "reachable", "ok"),
            ("database", "version", "ok"),
            ("database", "encoding", "ok"),
            ("database", "fsync", "failed"),
            ("database", "standbys", "ok"),
            ("database", "timeouts", "ok"),
            ("database", "clock", "ok"),
            ("database", "schema", "ok"),
            ("database", "rights", "ok"),
            ("keys", "keys", "ok"),
            ("keys", "key file", "ok"),
        ],
    );

    // Another key, and none.
    let another = folder.path().join("another");
    write_secret(&another, "5a".repeat(32));
    let arguments = ["--database-url-file", url, "--secret-key-file", another.to_str().unwrap()];
    let done = run(doctor(&world, folder.path(), &arguments)).await;
    assert_states(&done, &[("keys", "keys", "failed"), ("database", "rights", "ok")]);
    for secret in ["5a5a", &*world.db_url] {
        assert!(!done.stdout.contains(secret) && !done.printed.contains(secret), "{done:#?}");
    }
    let done = run(doctor(&world, folder.path(), &["--database-url-file", url])).await;
    assert_states(&done, &[("keys", "key file", "failed")]);

    // More connections than there can be.
    let arguments = ["--database-url-file", url, "--database-connections", "100000"];
    let done = run(doctor(&world, folder.path(), &arguments)).await;
    assert_states(&done, &[("database", "connections", "failed")]);
}

#[tokio::test]
async fn a_database_that_is_not_there_and_one_without_a_schema_are_told() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("url");
    let arguments = ["--database-url-file", url.to_str().unwrap()];
    write_secret(&url, "postgres://nobody:hush@127.0.0.1:1/none");
    let done = run(doctor(&world, folder.path(), &arguments)).await;
    done.says(1, &[]);
    assert_states(&done, &[("database", "reachable", "failed"), ("server", "token", "ok")]);
    assert!(!done.stdout.contains("hush") && !done.printed.contains("hush"), "{done:#?}");

    let mut sql = world.sql().await;
    sqlx::query("CREATE SCHEMA IF NOT EXISTS empty_schema").execute(&mut sql).await.unwrap();
    let mark = if world.db_url.contains('?') { '&' } else { '?' };
    let empty = format!("{}{mark}options=-csearch_path%3Dempty_schema", world.db_url);
    write_secret(&url, &empty);
    let done = run(doctor(&world, folder.path(), &arguments)).await;
    let (state, found) = state(&done, "database", "schema");
    assert!(state == "warning" && found.contains("lacks"), "{state}: {found}");
}

#[tokio::test]
async fn a_provider_that_is_down_and_a_server_that_is_not_there_are_told_beside_the_rest() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut down = program(&world, &["doctor", "--format", "json"]);
    down.env("HOLDFAST_PROVIDER_URL", "http://127.0.0.1:1").current_dir(folder.path());
    let done = run(down).await;
    done.says(1, &[]);
    assert_states(
        &done,
        &[
            ("provider", "holdfast host", "failed"),
            ("server", "token", "ok"),
            ("provider", "holdfast calls", "ok"),
        ],
    );
    let mut gone = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    gone.args(["doctor", "--format", "json", "--server", "http://127.0.0.1:1"]);
    gone.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let done = run(gone).await;
    done.says(1, &["failed"]);
    assert_states(
        &done,
        &[("server", "reachable", "failed"), ("provider", "providers", "warning")],
    );
}

#[tokio::test]
async fn a_token_that_was_revoked_is_told_and_what_another_may_read() {
    let world = World::with(|args| args.access = AccessArgs::on(), 1).await;
    let folder = tempfile::tempdir().unwrap();
    let done = run(doctor(&world, folder.path(), &[])).await;
    // The admin's, of the environment, was taken out with the rest of it.
    assert_states(&done, &[("server", "token", "failed"), ("server", "ready", "ok")]);
    done.says(1, &[]);

    let mut admins = doctor(&world, folder.path(), &[]);
    admins.env("HOLDFAST_TOKEN", world.admin.as_deref().unwrap());
    let done = run(admins).await;
    done.says(0, &[]);
    assert!(state(&done, "server", "token").1.contains("admin's"), "{done:#?}");

    let mut admin = world.clients_as(0, "token:boss", Role::Admin).await;
    let file = folder.path().join("till.token");
    let made = admin
        .access
        .create_token(holdfast::rpc::pb::CreateTokenRequest {
            name: "till".to_owned(),
            grants: vec![holdfast::rpc::pb::Grant {
                role: holdfast::rpc::pb::Role::Redeemer.into(),
                pools: POOL.to_owned(),
            }],
            lifetime: None,
        })
        .await
        .unwrap()
        .into_inner();
    write_secret(&file, &made.secret);
    let arguments = ["--token-file", file.to_str().unwrap()];
    let done = run(doctor(&world, folder.path(), &arguments)).await;
    done.says(0, &[]);
    assert!(state(&done, "server", "token").1.contains("no auditor's"), "{done:#?}");
    assert_states(&done, &[("provider", "holdfast profile", "warning")]);

    let revoke = holdfast::rpc::pb::RevokeTokenRequest { name: "till".to_owned() };
    admin.access.revoke_token(revoke).await.unwrap();
    let done = run(doctor(&world, folder.path(), &arguments)).await;
    done.says(1, &[]);
    assert_states(&done, &[("server", "token", "failed"), ("server", "ready", "ok")]);
    assert!(!done.stdout.contains(&*made.secret) && !done.printed.contains(&*made.secret));
}

#[tokio::test]
async fn each_file_that_cannot_be_used_gets_the_advice_that_fits_it() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let authority = Authority::new();
    let [cert, key] = authority.identity("localhost").write(folder.path(), "own");
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let open = at("open");
    write_secret(Path::new(&open), "5a".repeat(32));
    for file in [open.as_str(), key] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let nothing = at("nothing");
    fs::write(&nothing, "nothing\n").unwrap();
    let none = at("none");
    let https = "https://localhost:1";
    let cases: &[(&[&str], &str, &str, &str, &str)] = &[
        (
            &["--server", https, "--ca-file", &none],
            "server",
            "files",
            "--ca-file",
            "--ca-file names the file",
        ),
        (
            &["--token-file", &none],
            "server",
            "files",
            "--token-file",
            "--token-file names the file",
        ),
        (&["--token-file", &open], "server", "files", "can read it", "chmod 0600"),
        (
            &["--server", https, "--cert-file", cert, "--key-file", key],
            "server",
            "files",
            "--key-file",
            "chmod 0600",
        ),
        (
            &["--server", https, "--ca-file", &nothing],
            "server",
            "settings",
            "no certificate",
            "PEM",
        ),
        (&["--server", "localhost"], "server", "settings", "is not a URL", "correct"),
        (&["--secret-key-file", &open], "keys", "key file", "can read it", "chmod 0600"),
        (&["--secret-key-file", &none], "keys", "key file", "none", "put the file back"),
        (&["--database-url-file", &open], "database", "settings", "can read it", "chmod 0600"),
        (
            &["--database-url-file", &none],
            "database",
            "settings",
            "none",
            "--database-url-file names",
        ),
        (&["--server", "http://127.0.0.1:1"], "server", "reachable", "no server", "holdfast serve"),
    ];
    for (arguments, subject, check, found, next) in cases {
        let words = ["doctor", "--format", "json"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| name.to_string_lossy().starts_with("HOLDFAST_")) {
            command.env_remove(name);
        }
        let own = format!("http://{}", world.server(0).addr());
        command.env("HOLDFAST_SERVER", own).args(words).args(*arguments).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let done = run(command).await;
        done.says(1, &[]);
        assert_advice(&done, subject, check, found, next);
        assert!(!done.stdout.contains("5a5a"), "{done:#?}");
    }
}

#[tokio::test]
async fn tls_with_a_provider_is_done_and_what_it_proves_is_told() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let trusted = authority.write(folder.path(), "ca");
    let port = tls_listener(&authority.identity("localhost")).await;
    let doctor_of = |url: String, trusts: bool| {
        let mut command = doctor_by(&world, folder.path(), &url, &[]);
        if trusts {
            command.env("SSL_CERT_FILE", &trusted);
        }
        command
    };
    let https = format!("https://localhost:{port}");
    let done = run(doctor_of(https.clone(), true)).await;
    let (state, found) = state(&done, "provider", "holdfast host");
    assert_eq!(state, "ok", "{found}");
    for part in ["certificate is for this name", "CA that is trusted", "nothing was asked of it"] {
        assert!(found.contains(part), "{found}");
    }
    let done = run(doctor_of(https, false)).await;
    assert_advice(&done, "provider", "holdfast host", "CA that is not trusted", "http.ca_file");
    let done = run(doctor_of(format!("https://127.0.0.1:{port}"), true)).await;
    assert_advice(&done, "provider", "holdfast host", "another name", "use a name");
    let plain = world.args().provider.url.replace("http:", "https:");
    let done = run(doctor_of(plain, true)).await;
    assert_advice(&done, "provider", "holdfast host", "does not speak TLS", "port");
}

/// A server that does TLS, and says nothing.
async fn tls_listener(identity: &Identity) -> u16 {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate.clone()], identity.private_key())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((tcp, _)) = listener.accept().await {
            // One that does not go on with it is the doctor's to tell.
            open.extend(acceptor.accept(tcp).await.ok());
        }
    });
    port
}
