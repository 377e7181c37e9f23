//! The server: whether it answers, over TLS that lasts, is ready, and takes the token.

use time::OffsetDateTime;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use super::{Of, about_file, told};
use crate::{
    cli::shared::{
        client::{NoConnection, RpcError, Server, ServerArgs, unary},
        connect::Trouble,
    },
    rpc::pb,
};

/// A certificate that ends sooner is a warning.
const SOON: time::Duration = time::Duration::days(21);

/// Checks the server. Answers with a connection, where there is one.
pub(super) async fn check(args: &ServerArgs, of: &mut Of<'_>) -> anyhow::Result<Option<Server>> {
    if let Some((option, error)) = args.unreadable_file() {
        let next = about_file(&error, option, "give a whole file");
        of.failed("files", format_args!("{option}: {}", told(&error)), &next)?;
        return Ok(None);
    }
    if let Err(error) = args.check() {
        let next = "correct what it names: certificates and keys are in PEM, a token's file holds a token alone";
        of.failed("settings", told(&error), next)?;
        return Ok(None);
    }
    let server = match args.connect().await {
        Ok(server) => server,
        Err(error) => {
            let trouble = error.downcast_ref::<NoConnection>().map(|it| &it.trouble);
            let next =
                trouble.map_or("start it with `holdfast serve`, or correct --server", advice);
            of.failed("reachable", told(&error), next)?;
            return Ok(None);
        }
    };
    of.ok("reachable", format_args!("{} answers", args.url()))?;
    certificates(args, of).await?;
    health(&server, of).await?;
    token(&server, of).await?;
    Ok(Some(server))
}

/// What to do about each trouble with a server.
fn advice(trouble: &Trouble) -> &'static str {
    match trouble {
        Trouble::Silent => "see its log, and start it anew; or correct --server",
        Trouble::NoTls => {
            "write http:// in --server, or give the server a certificate: --tls-cert-file"
        }
        Trouble::Tls => {
            "write https:// in --server; name its CA with --ca-file where this machine does not trust it"
        }
        Trouble::UnknownIssuer => "name the CA of the server's certificate with --ca-file",
        Trouble::WrongName { .. } => {
            "name the server in --server as its certificate does, or have a certificate made for this name"
        }
        Trouble::IsCa => "give the server a certificate that a CA signed",
        Trouble::Expired | Trouble::NotYetValid => {
            "have the server's certificate renewed, and see that this machine's clock is right"
        }
        Trouble::WantsCertificate => {
            "give this client's certificate with --cert-file and --key-file"
        }
        Trouble::RefusesCertificate(_) => {
            "have this client's certificate renewed, by a CA that the server trusts for clients"
        }
        Trouble::Other(_) => "see the server's log: it has why TLS failed",
    }
}

async fn certificates(args: &ServerArgs, of: &mut Of<'_>) -> anyhow::Result<()> {
    match args.server_certificate_end().await {
        Ok(Some(end)) => expiry("certificate", end, of)?,
        Ok(None) => of.ok("certificate", "the connection has no TLS")?,
        Err(error) => of.warning("certificate", told(&error), "see which certificate it shows")?,
    }
    match args.own_certificate_end() {
        Ok(Some(end)) => expiry("client certificate", end, of),
        Ok(None) => Ok(()),
        Err(error) => of.failed("client certificate", told(&error), "have it renewed"),
    }
}

fn expiry(check: &str, end: OffsetDateTime, of: &mut Of<'_>) -> anyhow::Result<()> {
    let left = end - OffsetDateTime::now_utc();
    let found = format!("valid until {}, {} days more", end.date(), left.whole_days());
    if left < SOON {
        return of.warning(check, found, "have it renewed before it ends");
    }
    of.ok(check, found)
}

async fn health(server: &Server, of: &mut Of<'_>) -> anyhow::Result<()> {
    let request = unary(HealthCheckRequest { service: String::new() });
    match server.health().check(request).await {
        Ok(reply) if reply.get_ref().status() == ServingStatus::Serving => {
            of.ok("ready", "it takes calls")
        }
        Ok(_) => {
            let next = "it stops, or its database does not answer: see its log and the checks of the database";
            of.failed("ready", "it takes no calls now", next)
        }
        Err(status) => of.failed("ready", told(&RpcError(status).into()), "see its log"),
    }
}

/// Tells what the token may read: the roles that only write show in nothing that is harmless to try.
async fn token(server: &Server, of: &mut Of<'_>) -> anyhow::Result<()> {
    let one = 1;
    let pools = pb::ListPoolsRequest { page_size: one, ..Default::default() };
    match server.pools().list_pools(unary(pools)).await {
        Ok(reply) => version(reply.metadata(), of)?,
        Err(status) => {
            let next = match status.code() {
                Code::Unauthenticated => {
                    "show a token that lives, with --token-file or HOLDFAST_TOKEN; `holdfast token create` makes one"
                }
                Code::PermissionDenied => {
                    "let an admin make a token with a role: `holdfast token create`"
                }
                _ => "see the server's log",
            };
            return of.failed("token", first_line(&status), next);
        }
    }
    let providers = pb::ListProvidersRequest { page_size: one, ..Default::default() };
    let tokens = pb::ListTokensRequest { page_size: one, ..Default::default() };
    let audits = server.providers().list_providers(unary(providers)).await.is_ok();
    let manages = server.access().list_tokens(unary(tokens)).await.is_ok();
    of.ok(
        "token",
        match (audits, manages) {
            (_, true) => "it is taken, and is an admin's",
            (true, false) => "it is taken, and reads all (auditor); it manages no tokens (admin)",
            (false, false) => "it is taken, and reads pools alone: it is no auditor's",
        },
    )
}

fn version(metadata: &tonic::metadata::MetadataMap, of: &mut Of<'_>) -> anyhow::Result<()> {
    let ours = env!("CARGO_PKG_VERSION");
    match metadata.get(crate::rpc::VERSION_HEADER).and_then(|version| version.to_str().ok()) {
        Some(theirs) if theirs == ours => of.ok("version", format_args!("{ours}, as this program")),
        Some(theirs) => of.warning(
            "version",
            format_args!("the server is {theirs}, this program {ours}"),
            "use the program of the server's version",
        ),
        None => of.warning(
            "version",
            format_args!("the server does not tell its version; this program is {ours}"),
            "see whether a proxy takes headers out, or the server is older",
        ),
    }
}

fn first_line(status: &Status) -> String {
    RpcError(status.clone()).to_string().lines().next().unwrap_or_default().to_owned()
}
