//! What a server with TLS refuses to start with, and what it warns of.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use holdfast::{
    app::App,
    config::{AccessArgs, AdminTls, GrpcTls, ServeArgs, WebhookTls},
    listener::tls::ClientAuth,
};

use super::browser;
use crate::support::{
    fleet::Process,
    tls::{Authority, pem},
    wait::eventually,
    world::{World, fresh_database},
};

/// What a start with these settings of TLS is refused with.
async fn refusal(world: &World, change: impl FnOnce(&mut ServeArgs)) -> String {
    let mut args = world.args().clone();
    change(&mut args);
    format!("{:#}", App::start(&args).await.unwrap_err())
}

fn pair(cert: &Path, key: &Path) -> GrpcTls {
    GrpcTls { cert_file: Some(cert.into()), key_file: Some(key.into()), ..GrpcTls::default() }
}

#[tokio::test]
async fn everything_that_is_wrong_with_the_files_is_named_at_once() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new();
    let [cert, key] = authority.identity("localhost").write(folder, "good");
    let [_, other_key] = authority.identity("localhost").write(folder, "other");
    let [expired, expired_key] = authority.valid_for("localhost", -86_400).write(folder, "old");
    let empty = folder.join("empty.pem");
    fs::write(&empty, "").unwrap();
    let missing = folder.join("missing.key");
    let version_1 = folder.join("version-1.pem");
    fs::write(&version_1, include_str!("version-1.pem")).unwrap();
    let open_key = folder.join("open.key");
    fs::copy(&key, &open_key).unwrap();
    fs::set_permissions(&open_key, fs::Permissions::from_mode(0o666)).unwrap();

    let told = refusal(&world, |args| {
        args.tls = GrpcTls {
            client_ca_file: Some(empty.clone()),
            client_auth: Some(ClientAuth::Optional),
            ..pair(&expired, &other_key)
        };
        args.admin_tls = AdminTls { cert_file: Some(cert.clone()), ..AdminTls::default() };
        args.webhook_listen = Some(([127, 0, 0, 1], 0).into());
        args.webhook_tls = WebhookTls {
            cert_file: Some(cert.clone()),
            key_file: Some(missing.clone()),
            ..WebhookTls::default()
        };
        args.admin_listen = ([0, 0, 0, 0], 0).into();
        args.admin_tls.client_auth = Some(ClientAuth::Required);
    })
    .await;
    for part in [
        "old.pem expired at ",
        "empty.pem holds no certificate in PEM",
        "HOLDFAST_ADMIN_TLS_CERT_FILE is set without HOLDFAST_ADMIN_TLS_KEY_FILE",
        "HOLDFAST_ADMIN_TLS_CLIENT_AUTH is set without HOLDFAST_ADMIN_TLS_CLIENT_CA_FILE",
        "missing.key",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    for (tls, part) in [
        (pair(&cert, &other_key), "other.key is not the one of the certificate in"),
        (pair(&version_1, &key), "version-1.pem is not of X.509 version 3"),
        (pair(&key, &key), "good.key holds no certificate in PEM"),
        (pair(&cert, &cert), "good.pem holds no private key in PEM"),
        (pair(&cert, &open_key), "every user of this machine can write it"),
        (pair(&expired, &expired_key), "expired at "),
        (pair(&cert, folder), "is no file"),
    ] {
        let told = refusal(&world, |args| args.tls = tls).await;
        assert!(told.contains(part), "{part} is not in {told}");
    }
}

#[tokio::test]
async fn other_machines_reach_nothing_without_tls_unless_that_is_said() {
    let world = World::start().await;
    let everywhere = |args: &mut ServeArgs| {
        args.listen = ([0, 0, 0, 0], 0).into();
        args.admin_listen = "[::]:0".parse().unwrap();
        args.access = AccessArgs::on();
    };
    let told = refusal(&world, everywhere).await;
    for part in [
        "gRPC would be served on 0.0.0.0:0",
        "the admin address would be served on [::]:0",
        "without TLS",
        "HOLDFAST_TLS_CERT_FILE",
        "HOLDFAST_ADMIN_TLS_CERT_FILE",
        "--insecure-listen",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let [cert, key] = authority.identity("localhost").write(folder.path(), "server");
    let told = refusal(&world, |args| {
        everywhere(args);
        args.tls = pair(&cert, &key);
    })
    .await;
    assert!(!told.contains("gRPC") && told.contains("the admin address"), "{told}");

    let mut args = world.args().clone();
    everywhere(&mut args);
    args.tls = pair(&cert, &key);
    args.admin_tls = AdminTls { cert_file: Some(cert), key_file: Some(key), ..AdminTls::default() };
    App::start(&args).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_expires_soon_is_a_warning_and_a_metric() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new();
    let day = 24 * 60 * 60;
    let [soon, soon_key] = authority.valid_for("localhost", 13 * day).write(folder, "soon");
    let [later, later_key] = authority.valid_for("localhost", 15 * day).write(folder, "later");
    holdfast::secret::SecretKeys::create_beside(folder).unwrap();
    let secret = folder.join(holdfast::secret::FILE_NAME);
    let database = fresh_database().await;
    let args = [
        "serve".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        "--admin-listen=127.0.0.1:0".to_owned(),
        "--drain-delay=0s".to_owned(),
        format!("--secret-key-file={}", secret.display()),
        format!("--tls-cert-file={}", later.display()),
        format!("--tls-key-file={}", later_key.display()),
    ];
    let env = [
        ("HOLDFAST_DATABASE_URL", &*database.url),
        ("HOLDFAST_ADMIN_TLS_CERT_FILE", soon.to_str().unwrap()),
        ("HOLDFAST_ADMIN_TLS_KEY_FILE", soon_key.to_str().unwrap()),
    ];
    let mut server = Process::start("server", folder, &args, &env).await;
    let said = server.said();
    let about: Vec<serde_json::Value> = said
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| {
            line["message"].as_str().is_some_and(|text| text.contains("expires soon"))
        })
        .collect();
    assert_eq!(about.len(), 1, "{about:?}");
    assert!(about[0]["listener"] == "admin" && about[0]["level"] == "WARN", "{about:?}");

    let listening: serde_json::Value = said
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|line| line["message"] == "listening")
        .unwrap();
    let admin = listening["admin_addr"].as_str().unwrap().replace("127.0.0.1", "localhost");
    let client = browser(&authority, None);
    let seconds_left = async |listener: &str| {
        let name = format!("holdfast_certificate_expiry_seconds{{listener=\"{listener}\"}} ");
        let metrics = client.get(format!("https://{admin}/metrics")).send().await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&*name).map(str::to_owned));
        line.map(|seconds| seconds.parse::<f64>().unwrap())
    };
    for (listener, days) in [("admin", 13.0), ("grpc", 15.0)] {
        let left = seconds_left(listener).await.unwrap();
        let expected = days * 86_400.0;
        assert!(left <= expected && left > expected - 120.0, "{listener}: {left}");
    }
    // It goes with the certificate.
    let next = authority.valid_for("localhost", 100 * day);
    pem(folder, "soon.key", "PRIVATE KEY", &next.key.serialize_der());
    pem(folder, "soon.pem", "CERTIFICATE", &next.certificate);
    eventually(Duration::from_secs(30), "the metric is of the new certificate", async || {
        seconds_left("admin").await.filter(|left| *left > 99.0 * 86_400.0)
    })
    .await;
    server.end().await;
    database.drop_database().await;
}
