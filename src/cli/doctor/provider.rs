//! The providers of the pools: whether each profile is complete on the server, and each host answers from here.

use std::{collections::BTreeSet, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use url::Url;

use super::Of;
use crate::{
    cli::shared::{
        client::{RpcError, Server, required, unary},
        pools::each_pool,
    },
    provider::profile::Profile,
    rpc::pb,
};

/// The longest that a host may take to answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// The most faults of a profile that are told.
const FAULTS: usize = 3;

/// Checks the provider of each pool that the caller may see.
pub(super) async fn check(
    server: Option<&Server>,
    built_in_url: &str,
    of: &mut Of<'_>,
) -> anyhow::Result<()> {
    let Some(server) = server else {
        return of.warning(
            "providers",
            "not checked: no server answers",
            "see the check of the server",
        );
    };
    let mut used = BTreeSet::new();
    let read = each_pool(server, |pool| {
        used.insert(pool.provider_id);
        Ok(())
    });
    if let Err(error) = read.await {
        let why = super::told(&error);
        return of.warning(
            "providers",
            format_args!("not checked: {why}"),
            "see the check of the token",
        );
    }
    if used.is_empty() {
        return of.ok("providers", "no pool that this token sees has one yet");
    }
    for id in &used {
        one(server, id, built_in_url, of).await?;
    }
    Ok(())
}

async fn one(server: &Server, id: &str, built_in_url: &str, of: &mut Of<'_>) -> anyhow::Result<()> {
    let request = unary(pb::GetProviderRequest { provider_id: id.to_owned(), version: 0 });
    let reply = match server.providers().get_provider(request).await {
        Ok(reply) => reply.into_inner().provider,
        Err(status) => {
            let why = RpcError(status).to_string();
            let next = "show the token of an auditor: --token-file";
            return of.warning(&format!("{id} profile"), format_args!("not checked: {why}"), next);
        }
    };
    let provider = required(reply, "provider")?;
    state(id, &provider, of)?;
    let base = if provider.built_in {
        Url::parse(built_in_url).ok()
    } else {
        profile(server, id, &provider.profile, of).await?;
        Profile::parse_applied(&provider.profile).ok().map(|profile| profile.http.base)
    };
    host(id, base.as_ref(), of).await
}

/// What holds its calls back, as all servers see it.
fn state(id: &str, provider: &pb::Provider, of: &mut Of<'_>) -> anyhow::Result<()> {
    let status = provider.status.unwrap_or_default();
    let check = format!("{id} calls");
    if status.failing {
        let since = status.fail_time.map(|at| format!(" since {at}")).unwrap_or_default();
        let next = "see whether the provider works; its pools go on by themselves when it does";
        return of.failed(&check, format_args!("the servers' calls fail{since}"), next);
    }
    if status.pause_end_time.is_some() || status.brake_end_time.is_some() {
        let next = "`holdfast provider show` has until when; it ends by itself";
        return of.warning(&check, "its calls are held back now", next);
    }
    of.ok(&check, "nothing holds them back")
}

/// Lets the server check the profile as if it were applied now: its cases, and the secrets that the server has.
async fn profile(server: &Server, id: &str, file: &str, of: &mut Of<'_>) -> anyhow::Result<()> {
    let check = format!("{id} profile");
    let request = unary(pb::CheckProviderRequest { profile: file.to_owned() });
    let reply = match server.providers().check_provider(request).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => {
            let why = RpcError(status).to_string();
            let next = "show the token of an auditor of all pools: --token-file";
            return of.warning(&check, format_args!("not checked: {why}"), next);
        }
    };
    if reply.fault_count == 0 {
        return of.ok(&check, "it is complete, with the secrets that it needs");
    }
    let faults = reply.faults.iter().take(FAULTS);
    let faults: Vec<_> =
        faults.map(|fault| format!("line {}: {}", fault.line, fault.message)).collect();
    let next = "put its secrets into --secrets-dir of every server, or apply a corrected version: `holdfast provider apply`";
    of.failed(&check, format_args!("{} faults: {}", reply.fault_count, faults.join("; ")), next)
}

/// Opens a connection, and sends nothing.
async fn host(id: &str, base: Option<&Url>, of: &mut Of<'_>) -> anyhow::Result<()> {
    let check = format!("{id} host");
    let address = base.and_then(|url| Some((url.host_str()?, url.port_or_known_default()?)));
    let Some((host, port)) = address else {
        return of.warning(
            &check,
            "this program cannot read its address",
            "see its profile, or --provider-url",
        );
    };
    let name = host.trim_matches(['[', ']']);
    let next = "see whether its address is right, and whether a firewall or DNS stands between; servers elsewhere may \
                reach it all the same";
    match timeout(CONNECT_LIMIT, TcpStream::connect((name, port))).await {
        Ok(Ok(_)) => of.ok(&check, format_args!("{host}:{port} takes connections from here")),
        Ok(Err(error)) => of.failed(
            &check,
            format_args!("{host}:{port} takes no connection from here: {error}"),
            next,
        ),
        Err(_) => of.failed(&check, format_args!("{host}:{port} does not answer within 3 s"), next),
    }
}
