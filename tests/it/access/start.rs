//! What a server does about access at its start: the first token, and what it refuses.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use holdfast::config::Switch;
use tonic::{Code, transport::Channel};

use super::{code, world};
use crate::support::{caller::Caller, fleet::Process};

async fn channel(addr: &str) -> Channel {
    Channel::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap()
}

async fn serve_private(folder: &Path) -> Process {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let args = [
        "serve".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        "--admin-listen=127.0.0.1:0".to_owned(),
        "--drain-delay=0s".to_owned(),
        format!("--data-dir={}", folder.join("data").display()),
    ];
    Process::start("server", folder, &args, &[("HOLDFAST_AUTH", "on")]).await
}

/// A command of the program, with only these variables of ours. Its exit code, output and errors.
fn run(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("HOLDFAST_")) {
        command.env_remove(name);
    }
    let done = command.args(args).envs(env.iter().copied()).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_start_of_a_private_postgres_leaves_a_token_that_commands_find() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = serve_private(folder.path()).await;
    let data = folder.path().join("data");
    let file = data.join("admin.token");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(&file).unwrap();
    assert!(!server.said().contains(secret.trim()));

    let url = format!("http://{}", server.addr);
    let data = data.to_str().unwrap();
    let of_data: &[(&str, &str)] = &[("HOLDFAST_DATA_DIR", data)];
    let (status, _, said) =
        run(&["pool", "create", "shop", "--currency", "EUR", "--server", &url], of_data);
    assert_eq!(status, Some(0), "{said}");
    let (status, _, said) = run(&["pool", "list", "--server", &url], &[]);
    assert_eq!(status, Some(1));
    assert!(said.contains("UNAUTHENTICATED") && said.contains("--token-file"), "{said}");

    // Another by command, its secret once: printed, or in a file.
    let make =
        ["token", "create", "till", "--role", "redeemer", "--pools", "shop-*", "--server", &url];
    let (status, till, said) = run(&make, of_data);
    assert_eq!(status, Some(0), "{said}");
    assert!(till.starts_with("hf_") && !said.contains(till.trim()), "{said}");
    let out = folder.path().join("auditor.token");
    let out = out.to_str().unwrap();
    let make = [
        "token",
        "create",
        "auditor",
        "--role=auditor",
        "--pools=*",
        "--lifetime=30d",
        "--server",
        &url,
        "--out",
        out,
    ];
    let (status, printed, said) = run(&make, of_data);
    assert_eq!((status, printed.as_str()), (Some(0), ""), "{said}");
    assert_eq!(fs::metadata(out).unwrap().permissions().mode() & 0o777, 0o600);
    let list = ["token", "list", "--format=csv", "--server", &url];
    let (status, listed, _) = run(&list, of_data);
    assert_eq!(status, Some(0));
    assert!(listed.contains("till,redeemer:shop-*,token:local-admin"), "{listed}");
    let (status, _, said) = run(&list, &[("HOLDFAST_TOKEN", till.trim())]);
    assert_eq!(status, Some(1));
    assert!(said.contains("PERMISSION_DENIED") && said.contains("needs: admin"), "{said}");
    let pools = ["pool", "list", "--format=csv", "--server", &url, "--token-file", out];
    assert!(run(&pools, &[]).1.contains("shop"));
    let (status, revoked, _) =
        run(&["token", "revoke", "auditor", "--format=json", "--server", &url], of_data);
    assert_eq!(status, Some(0));
    assert!(revoked.contains("revoke_time"), "{revoked}");
    assert_eq!(run(&pools, &[]).0, Some(1));

    // A second start keeps the token, and one whose file was removed makes another.
    server.end().await;
    let mut server = serve_private(folder.path()).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), secret);
    assert!(Caller::with(channel(&server.addr).await, secret.trim()).pools().await.is_ok());
    server.end().await;
    fs::remove_file(&file).unwrap();
    let server = serve_private(folder.path()).await;
    let other = fs::read_to_string(&file).unwrap();
    assert_ne!(other, secret);
    let channel = channel(&server.addr).await;
    assert!(Caller::with(channel.clone(), other.trim()).pools().await.is_ok());
    assert_eq!(code(Caller::with(channel, secret.trim()).pools().await), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_token_of_a_database_is_made_by_its_url() {
    let world = world(1, |_| {}).await;
    let url = format!("--database-url={}", world.db_url);
    let make = ["token", "create", "first", "--role=admin", "--pools=*", &url];
    let (status, secret, said) = run(&make, &[]);
    assert_eq!(status, Some(0), "{said}");
    let mut first = Caller::with(world.channel(0).await, secret.trim());
    crate::support::wait::eventually(super::REVOKED, "the token works", async || {
        first.pools().await.ok()
    })
    .await;
    let (status, _, said) = run(&make, &[]);
    assert_eq!(status, Some(1));
    assert!(said.contains("a token first was made before"), "{said}");
}

#[tokio::test]
async fn a_server_that_would_be_open_to_others_does_not_start() {
    let base =
        ["serve", "--secret-key-file=/nowhere/key", "--database-url=postgres://127.0.0.1:1/x"];
    let with = |more: &[&str]| {
        let args: Vec<_> = base.iter().chain(more).copied().collect();
        let (status, _, said) = run(&args, &[]);
        assert_eq!(status, Some(1), "{said}");
        said
    };
    let here = ["--listen=127.0.0.1:0", "--admin-listen=[::1]:0"];
    let refused = [
        (&["--listen=0.0.0.0:0", here[1]][..], "without TLS"),
        (&[here[0], "--admin-listen=0.0.0.0:0"], "the admin address would be served on 0.0.0.0"),
        (&["--listen=[::]:0", here[1], "--auth=off"], "without TLS and without authentication"),
    ];
    for (args, why) in refused {
        let said = with(args);
        assert!(said.contains(why) && said.contains("--insecure-listen"), "{args:?}: {said}");
        // Said so, it goes on: to the key that is not there.
        let said = with(&[args, &["--insecure-listen"]].concat());
        assert!(said.contains("/nowhere/key"), "{args:?}: {said}");
    }
    let said = with(&[&here[..], &["--auth=off"]].concat());
    assert!(said.contains("/nowhere/key"), "{said}");
    let said =
        with(&["--jwt-issuer=https://id.example", "--jwt-audience=h", "--jwt-clock-skew=6m"]);
    assert!(said.contains("at most 5m") && said.contains("HOLDFAST_JWT_JWKS_URL"), "{said}");
}

#[tokio::test]
async fn an_access_file_with_faults_stops_the_start_and_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.toml");
    fs::write(&file, "[[grant]]\nprincipal = \"cert:a\"\nrole = \"king\"\npools = \"*\"\nx = 1\n")
        .unwrap();
    let world = world(1, |_| {}).await;
    let mut args = world.args().clone();
    args.access.access_file = Some(file);
    let error = format!("{:#}", holdfast::app::App::start(&args).await.unwrap_err());
    assert!(error.contains("line 3: role") && error.contains("line 5: unknown key"), "{error}");
}

#[tokio::test]
async fn metrics_on_an_address_of_others_need_an_auditor_of_all_pools_and_liveness_is_open() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let args = [
        "serve".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        "--admin-listen=0.0.0.0:0".to_owned(),
        "--insecure-listen".to_owned(),
        "--drain-delay=0s".to_owned(),
        format!("--data-dir={}", folder.path().join("data").display()),
    ];
    let server = Process::start("server", folder.path(), &args, &[("HOLDFAST_AUTH", "on")]).await;
    let said = server.said();
    let warned = said.lines().find(|line| line.contains("--insecure-listen")).unwrap();
    assert!(warned.contains("\"WARN\"") && warned.contains("the admin address"), "{warned}");
    let line = said.lines().find(|line| line.contains("\"listening\"")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let admin = line["admin_addr"].as_str().unwrap().replace("0.0.0.0", "127.0.0.1");
    let secret = fs::read_to_string(folder.path().join("data/admin.token")).unwrap();
    let mut owner = Caller::with(channel(&server.addr).await, secret.trim());
    let auditor = |name: &'static str, pools: &'static str| (name, pools);
    let get = async |path: &str, secret: Option<&str>| {
        let client = reqwest::Client::new();
        let mut request = client.get(format!("http://{admin}{path}"));
        if let Some(secret) = secret {
            request = request.bearer_auth(secret.trim());
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((get("/livez", None).await, get("/readyz", None).await), (200, 200));
    assert_eq!((get("/metrics", None).await, get("/metrics", Some("hf_x")).await), (401, 401));
    for ((name, pools), expected) in [(auditor("all", "*"), 200), (auditor("some", "shop-*"), 403)]
    {
        let grants = [(holdfast::rpc::pb::Role::Auditor, pools)];
        let secret = owner.create_token(name, &grants, None).await.unwrap();
        assert_eq!(get("/metrics", Some(&secret)).await, expected, "{pools}");
    }
}

#[tokio::test]
async fn health_and_reflection_stay_open_and_reflection_can_be_closed() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest,
    };
    for (reflection, expected) in [(Switch::On, None), (Switch::Off, Some(Code::Unimplemented))] {
        let world = world(1, |access| access.reflection = reflection).await;
        let channel = world.channel(0).await;
        let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await;
        assert!(health.is_ok());
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let asked = ServerReflectionClient::new(channel)
            .server_reflection_info(tokio_stream::iter([request]))
            .await;
        let answered = match asked {
            Ok(answer) => answer.into_inner().message().await.map(drop),
            Err(error) => Err(error),
        };
        assert_eq!(answered.err().map(|error| error.code()), expected);
    }
}
