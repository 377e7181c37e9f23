//! Providers: profiles that are applied, and the pools that name them.

mod adapter;
mod applied;
mod audits;
mod commands;
mod crash_table;
mod faults;
mod limits;
mod pools;
mod progress;
mod redeeming;
mod reversing;
mod status;
mod tries;
mod untold;
mod versions;
mod webhooks;

use std::fs;

use holdfast::rpc::pb;
use tonic::Status;

use crate::support::world::{Clients, World};

/// A small profile that needs `secret.token`.
pub(crate) fn profile(id: &str, version: i32) -> String {
    format!(
        r#"# A provider for tests.
id = "{id}"
version = {version}
currencies = ["EUR", "USD"]

[http]
base = "https://cards.example"

[auth]
kind = "bearer"
token = "{{{{ secret.token }}}}"

[identity]
key = "uuid"
dedup = "replay"
window = "24h"

[times]
max_processing = "1m"

[op.send]
method = "POST"
path = "/redeem"
body = {{ key = "{{{{ key }}}}", code = "{{{{ code }}}}", account = "{{{{ account.id }}}}" }}
take = {{ key = "/key", ref = "/id", amount = {{ at = "/amount", unit = "minor" }}, failure = "/error" }}
[[op.send.rule]]
when = {{ status = [200], eq = {{ "/state" = "done" }} }}
then = "succeeded"
[[op.send.rule]]
when = {{ status = [422], has = ["/key"] }}
then = {{ failed = {{ spent = false }} }}

[[case]]
op = "send"
status = 200
body = '{{"key":"{{{{ key }}}}","id":"r","state":"done","amount":1000}}'
then = "succeeded"
amount_minor = 1000
[[case]]
op = "send"
status = 500
body = "oops"
then = "in_doubt"
"#
    )
}

/// The line of a profile that begins with `start`, from 1.
fn line_of(text: &str, start: &str) -> usize {
    1 + text.lines().position(|line| line.starts_with(start)).unwrap()
}

/// Gives the servers of a world a secret of a provider.
pub(crate) fn give_secret(world: &World, provider: &str, name: &str, secret: &str) {
    let folder = world.args().secrets_dir.as_ref().unwrap().join(provider);
    fs::create_dir_all(&folder).unwrap();
    crate::support::secrets::write_secret(folder.join(name), secret);
}

/// A world whose server has `secret.token` of these providers.
async fn world_with(providers: &[&str]) -> (World, Clients) {
    let world = World::start().await;
    for provider in providers {
        give_secret(&world, provider, "token", "hush\n");
    }
    let clients = world.clients(0).await;
    (world, clients)
}

async fn apply(clients: &mut Clients, text: &str) -> Result<pb::Provider, Status> {
    let request = pb::ApplyProviderRequest { profile: text.to_owned() };
    Ok(clients.providers.apply_provider(request).await?.into_inner().provider.unwrap())
}

async fn check(clients: &mut Clients, text: &str) -> pb::CheckProviderResponse {
    let request = pb::CheckProviderRequest { profile: text.to_owned() };
    clients.providers.check_provider(request).await.unwrap().into_inner()
}

/// A version of a provider, without its status.
async fn get(clients: &mut Clients, id: &str, version: i32) -> Result<pb::Provider, Status> {
    let request = pb::GetProviderRequest { provider_id: id.to_owned(), version };
    let provider = clients.providers.get_provider(request).await?.into_inner().provider.unwrap();
    assert!(provider.status.is_some());
    Ok(pb::Provider { status: None, ..provider })
}
