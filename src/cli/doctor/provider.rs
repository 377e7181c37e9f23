//! The providers of the pools: whether each profile is complete on the server, and each host answers from here.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use time::OffsetDateTime;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use url::Url;

use super::{Of, told};
use crate::{
    cli::shared::{
        client::{RpcError, Server, required, unary},
        connect::{Trouble, tls_trouble},
        pools::each_pool,
    },
    listener::tls::certificate_end,
    provider::{profile::Profile, tls_of},
    rpc::pb,
};

/// The longest that a host may take to answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A certificate that ends sooner is a warning.
const SOON_DAYS: i64 = 21;
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
        let why = told(&error);
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
    if provider.built_in {
        return host(id, Url::parse(built_in_url).ok().as_ref(), Profile::built_in(), of).await;
    }
    profile(server, id, &provider.profile, of).await?;
    match Profile::parse_applied(&provider.profile) {
        Ok(profile) => host(id, Some(&profile.http.base), &profile, of).await,
        Err(_) => host(id, None, Profile::built_in(), of).await,
    }
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

/// Opens a connection, with TLS where calls have it, and sends nothing.
async fn host(
    id: &str,
    base: Option<&Url>,
    profile: &Profile,
    of: &mut Of<'_>,
) -> anyhow::Result<()> {
    let check = format!("{id} host");
    let address = base.and_then(|url| Some((url, url.host_str()?, url.port_or_known_default()?)));
    let Some((url, host, port)) = address else {
        return of.warning(
            &check,
            "this program cannot read its address",
            "see its profile, or --provider-url",
        );
    };
    let name = host.trim_matches(['[', ']']);
    let next = "see whether its address is right, and whether a firewall or DNS stands between; servers elsewhere may \
                reach it all the same";
    let tcp = match timeout(CONNECT_LIMIT, TcpStream::connect((name, port))).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) => {
            return of.failed(
                &check,
                format_args!("{host}:{port} takes no connection from here: {error}"),
                next,
            );
        }
        Err(_) => {
            return of.failed(
                &check,
                format_args!("{host}:{port} does not answer within 3 s"),
                next,
            );
        }
    };
    if url.scheme() == "https" {
        return tls(&check, name, port, tcp, profile, of).await;
    }
    of.ok(
        &check,
        format_args!(
            "{host}:{port} takes connections from here, without TLS; nothing was asked of it"
        ),
    )
}

/// TLS as calls do it: proves the host's name and its certificate, and nothing of what it would answer.
async fn tls(
    check: &str,
    name: &str,
    port: u16,
    tcp: TcpStream,
    profile: &Profile,
    of: &mut Of<'_>,
) -> anyhow::Result<()> {
    let config = match tls_of(profile) {
        Ok(config) => config,
        Err(error) => {
            let found =
                format!("{name}:{port} takes connections; TLS is not checked: {}", told(&error));
            let next = "run this where a server runs: the files that the profile names are there";
            return of.warning(check, found, next);
        }
    };
    let server = ServerName::try_from(name.to_owned())?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(server, tcp);
    let stream = match timeout(CONNECT_LIMIT, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let (why, next) = advice(&error, name);
            return of.failed(check, format_args!("{name}:{port}: {why}"), next);
        }
        Err(_) => {
            let found =
                format!("{name}:{port} takes connections, and does not go on with TLS within 3 s");
            return of.failed(check, found, "see whether the port is the one for https");
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let end = shown.map(|shown| certificate_end(shown)).transpose().map_err(anyhow::Error::msg)?;
    let left = end.map_or(0, |end| (end - OffsetDateTime::now_utc()).whole_days());
    let judged = match profile.http.client_cert {
        Some(_) => "; whether it takes the client certificate shows in a call alone",
        None => "",
    };
    let found = format!(
        "{name}:{port} takes connections from here; its certificate is for this name, of a CA that is trusted, and \
         valid for {left} days; nothing was asked of it{judged}"
    );
    match left < SOON_DAYS {
        true => of.warning(check, found, "tell the provider that its certificate ends soon"),
        false => of.ok(check, found),
    }
}

/// What is wrong with TLS to a provider, and what to do.
fn advice(error: &std::io::Error, name: &str) -> (String, &'static str) {
    let Some(trouble) = tls_trouble(error, name) else {
        return (format!("TLS fails: {error}"), "see whether the port is the one for https");
    };
    let (why, next) = match trouble {
        Trouble::NoTls => (
            "it does not speak TLS",
            "see whether the port is the one for https, and the URL the one that is meant",
        ),
        Trouble::UnknownIssuer => (
            "its certificate is signed by a CA that is not trusted here",
            "see whether this is the host that is meant; a CA of its own is named in the profile: http.ca_file",
        ),
        Trouble::WrongName { names, .. } => {
            let names = names.map(|names| format!(" (it is for {names})")).unwrap_or_default();
            let why = format!("its certificate is for another name{names}");
            return (why, "use a name that the certificate has in the provider's URL");
        }
        Trouble::IsCa => ("it shows the certificate of a CA as its own", "tell the provider"),
        Trouble::Expired | Trouble::NotYetValid => (
            "its certificate is not valid now",
            "tell the provider; see that this machine's clock is right",
        ),
        other => {
            let next = "see whether the provider wants a client certificate: http.client_cert_file of the profile";
            return (other.to_string(), next);
        }
    };
    (why.to_owned(), next)
}
