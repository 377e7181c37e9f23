//! Routes: which paths are served, from when on, and by whom.

use std::{
    collections::HashSet,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use holdfast::simulator::{Api, Simulator, SimulatorArgs, faults::Faults};
use reqwest::{StatusCode, header::HeaderMap};
use sqlx::Row as _;

use super::{
    super::{apply, check, line_of},
    LIMIT, UUID, doubt, give_secret, open_pool, redeem, served, settle,
    shop::{Call, Shop},
    world_of,
};
use crate::support::{checks, wait::eventually, world::bad_fields};

/// The bodies of calls, with what each was answered.
type Answered = Arc<Mutex<Vec<(String, StatusCode)>>>;

#[tokio::test]
async fn a_server_serves_webhooks_again_after_it_was_restarted_and_with_its_secrets_alone() {
    let mut world = world_of(&["shop"]).await;
    let shop = Shop::open().await;
    let mut clients = world.clients(0).await;
    open_pool(&mut clients, &shop.profile("shop", 1, UUID, "2s")).await;
    doubt(&world, &clients, "shop").await;
    drop(clients);
    world.take_server(0).stop().await.unwrap();
    world.start_server().await;
    let nobodys = Call::about_key("shop", "0190163d-8694-739b-aea5-966c26f8ad90");
    assert_eq!(served(&world, 0, &nobodys).await, StatusCode::NO_CONTENT);

    let secret = world.args().secrets_dir.as_ref().unwrap().join("shop/hook");
    fs::remove_file(&secret).unwrap();
    assert_eq!(nobodys.make(&world, 0).await, StatusCode::SERVICE_UNAVAILABLE);
    crate::support::secrets::write_secret(&secret, "another");
    assert_eq!(nobodys.make(&world, 0).await, StatusCode::UNAUTHORIZED);
    crate::support::secrets::write_secret(&secret, "hook-of-shop\n");
    assert_eq!(nobodys.make(&world, 0).await, StatusCode::NO_CONTENT);
    settle(&world, &shop, "shop").await;
}

#[tokio::test]
async fn a_path_is_its_first_providers_and_stays_served_when_a_version_leaves_it() {
    let world = world_of(&["shop", "other"]).await;
    let shop = Shop::open().await;
    let mut clients = world.clients(0).await;
    open_pool(&mut clients, &shop.profile("shop", 1, UUID, "2s")).await;
    let taken = shop.profile("other", 1, UUID, "2s").replace("path = \"other\"", "path = \"shop\"");
    let told = check(&mut clients, &taken).await;
    assert_eq!(told.fault_count, 1, "{told:?}");
    let line = i32::try_from(line_of(&taken, "path = \"shop\"")).unwrap();
    assert_eq!(told.faults[0].line, line);
    assert!(told.faults[0].message.contains("that of provider shop"), "{told:?}");
    let error = apply(&mut clients, &taken).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["profile"]);

    // The next version has another path and another header: both are served, each as it was applied last.
    let next = shop.profile("shop", 2, UUID, "2s").replace("path = \"shop\"", "path = \"moved\"");
    apply(&mut clients, &next).await.unwrap();
    let key = "0190163d-8694-739b-aea5-966c26f8ad90";
    let moved = Call { path: "moved".into(), ..Call::about_key("shop", key) };
    assert_eq!(served(&world, 0, &moved).await, StatusCode::NO_CONTENT);
    assert_eq!(Call::about_key("shop", key).make(&world, 0).await, StatusCode::NO_CONTENT);
    // What another provider has no right to it does not get later either.
    let taken = taken.replace("path = \"shop\"", "path = \"moved\"");
    assert!(apply(&mut clients, &taken).await.is_err());
    let newer = shop
        .profile("shop", 3, UUID, "2s")
        .replace("header = \"x-signature\"", "header = \"x-other\"");
    apply(&mut clients, &newer).await.unwrap();
    eventually(LIMIT, "the newest version of the path counts", async || {
        let status = Call::about_key("shop", key).make(&world, 0).await;
        (status == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    assert_eq!(moved.make(&world, 0).await, StatusCode::NO_CONTENT);
}

/// Passes calls on to a server, and notes what each was answered. Answers with where it listens.
async fn relay(to: String) -> (String, Answered) {
    let answered = Answered::default();
    let (client, notes) = (reqwest::Client::new(), answered.clone());
    let pass_on = async move |headers: HeaderMap, body: String| {
        let request = client.post(&to).headers(headers).body(body.clone());
        let status = request.send().await.unwrap().status();
        notes.lock().unwrap().push((body, status));
        status
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/", axum::routing::post(pass_on));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, answered)
}

/// What the task API calls about is looked up, also when some calls are lost and others come twice.
#[tokio::test]
async fn the_calls_of_the_task_api_are_heard() {
    let world = world_of(&[]).await;
    for (name, value) in [("api_key", "the-key"), ("hook", "the-hook")] {
        give_secret(&world, "tasks", name, value);
    }
    let dir = tempfile::tempdir().unwrap();
    let probe = Call::about_key("tasks", "");
    let (webhook_url, answered) = relay(probe.url(&world, 0)).await;
    let faults = Faults {
        slow_202: 100.0,
        webhook_lost: 20.0,
        webhook_repeated: 100.0,
        processing_time: Duration::from_secs(3),
        ..Faults::default()
    };
    let args = SimulatorArgs {
        api: Api::Task,
        api_key: Some("the-key".to_owned()),
        webhook_url: Some(webhook_url),
        webhook_secret: Some("the-hook".to_owned()),
        faults,
        ..SimulatorArgs::new(dir.path().join("ledger"))
    };
    let simulator = Simulator::start(&args).await.unwrap();
    let file = format!("{}/profiles/task-api.toml", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(file)
        .unwrap()
        .replace("id = \"task-api\"", "id = \"tasks\"")
        .replace("https://tasks.example", &simulator.url())
        .replace("[\"USD\"]", "[\"EUR\"]")
        .replace("timeout = \"15s\"", "timeout = \"2s\"")
        .replace("send_window = \"30s\"", "send_window = \"2s\"")
        .replace("account.secret.username", "account.id")
        .replace("account.secret.password", "account.id")
        // More cards are under way here at a time.
        .replace("brake = ", "# brake = ");
    let hook = "\n[webhook]\npath = \"tasks\"\nfinds = { task = \"/task_id\" }\n\
                [webhook.hmac]\nsecret = \"{{ secret.hook }}\"\n\
                over = \"{{ request.header.x-webhook-time }}.{{ request.body }}\"\n\
                header = \"x-webhook-signature\"\ntime = \"x-webhook-time\"\ntolerance = \"5m\"\n";
    let mut clients = world.clients(0).await;
    open_pool(&mut clients, &format!("{text}{hook}")).await;
    for number in 0..9 {
        let account = holdfast::rpc::pb::Account {
            pool_id: "tasks".to_owned(),
            account_id: format!("account-{number}"),
            ..Default::default()
        };
        let request = holdfast::rpc::pb::CreateAccountRequest { account: Some(account) };
        clients.accounts.create_account(request).await.unwrap();
    }
    served(&world, 0, &probe).await;
    let mut redeeming = tokio::task::JoinSet::new();
    for number in 0..10 {
        let code = world.code(&format!("tasks-{number}"));
        redeeming.spawn(redeem(clients.clone(), "tasks".to_owned(), code));
    }
    while let Some(done) = redeeming.join_next().await {
        done.unwrap();
    }
    let mut db = world.sql().await;
    eventually(LIMIT * 2, "all is settled", async || {
        (checks::open_redemptions(&mut db).await == 0).then_some(())
    })
    .await;
    simulator.stop().await.unwrap();
    let succeeded =
        "SELECT count(*) FROM redemptions WHERE pool_id = 'tasks' AND state = 'SUCCEEDED'";
    let succeeded = sqlx::query(succeeded).fetch_one(&mut db).await.unwrap().get::<i64, _>(0);
    assert_eq!(succeeded, 10);
    let answered = answered.lock().unwrap().clone();
    let tasks: HashSet<_> = answered.iter().map(|(body, _)| body).collect();
    assert!((1..=10).contains(&tasks.len()), "{answered:?}");
    assert!(answered.len() > tasks.len(), "some came twice: {answered:?}");
    let heard = |(_, status): &(String, StatusCode)| *status == StatusCode::NO_CONTENT;
    assert!(answered.iter().all(heard), "{answered:?}");
}
