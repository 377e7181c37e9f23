//! Calls of providers.

use std::fs;

use holdfast::rpc::pb;
use reqwest::StatusCode;

use super::{
    Stage,
    scenarios::{LIMIT, begin, unless},
};
use crate::support::{checks::Broken, wait::eventually};

const PROFILE: &str = r#"id = "shop"
version = 1
[http]
base = "https://cards.example"
[auth]
kind = "none"
[identity]
key = "uuid"
dedup = "replay"
window = "24h"
[times]
max_processing = "1m"
[op.send]
method = "POST"
path = "/redeem"
body = { key = "{{ key }}", code = "{{ code }}", account = "{{ account.id }}" }
take = { key = "/key", ref = "/id", amount = { at = "/amount", unit = "minor" } }
[[op.send.rule]]
when = { status = [200], eq = { "/state" = "done" } }
then = "succeeded"
[webhook]
path = "shop"
finds = { key = "/key" }
hmac = { secret = "{{ secret.hook }}", over = "{{ request.body }}", header = "x-signature" }
"#;

/// Of the address in the log of the first server.
fn webhook_addr(stage: &Stage) -> String {
    let said = stage.fleet.servers[0].said();
    let lines =
        said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut addresses = lines.filter_map(|line| line["webhook_addr"].as_str().map(str::to_owned));
    addresses.next().unwrap()
}

pub(super) async fn a_forged_webhook_comes(stage: &mut Stage) -> Vec<Broken> {
    let secrets = stage.fleet.folder().join("secrets");
    fs::create_dir_all(secrets.join("shop")).unwrap();
    crate::support::secrets::write_secret(secrets.join("shop/hook"), "hush");
    stage.env.push(("HOLDFAST_SECRETS_DIR", secrets.to_str().unwrap().to_owned().leak()));
    stage.env.push(("HOLDFAST_WEBHOOK_LISTEN", "127.0.0.1:0"));
    let mut clients = begin(stage, "").await;
    let request = pb::ApplyProviderRequest { profile: PROFILE.to_owned() };
    clients.providers.apply_provider(request).await.unwrap();
    let url = format!("http://{}/webhooks/shop", webhook_addr(stage));
    let client = reqwest::Client::new();
    let status = eventually(LIMIT, "the path is served", async || {
        let forged = client.post(&url).header("x-signature", "00".repeat(32)).body("{}");
        let status = forged.send().await.unwrap().status();
        let not_yet = [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE];
        (!not_yet.contains(&status)).then_some(status)
    })
    .await;
    unless(status == StatusCode::UNAUTHORIZED, "a forged webhook was heard")
}
