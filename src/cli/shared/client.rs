//! The connection to a server, and its errors for people.

use std::{error::Error, fmt, fs, path::Path, time::Duration};

use anyhow::Context as _;
use clap::Args;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use tonic::{
    Code, Request, Status,
    metadata::MetadataMap,
    service::interceptor::InterceptedService,
    transport::{self, Channel, Endpoint},
};
use tonic_health::pb::health_client::HealthClient;
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    connect::{TlsArgs, Trouble},
    token::{Bearer, TokenArgs},
};
use crate::{
    rpc::{
        CONNECTION_WINDOW, STREAM_WINDOW,
        pb::{
            access_service_client::AccessServiceClient,
            account_service_client::AccountServiceClient, pool_service_client::PoolServiceClient,
            provider_service_client::ProviderServiceClient,
            redemption_service_client::RedemptionServiceClient,
            subscription_service_client::SubscriptionServiceClient,
        },
    },
    secret_file,
};

/// The longest that connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that a call which is one message each way may take.
const UNARY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an idle connection is tried, so that a server which vanished is noticed in a batch.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Rows asked for in one page: far below the size that a reply may have.
pub(crate) const PAGE_SIZE: i32 = 200;

/// Which server to talk to.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// The server's URL: http://, or https:// where it has TLS.
    #[arg(long, env = "HOLDFAST_SERVER", default_value = "http://127.0.0.1:50051")]
    server: String,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    token: TokenArgs,
}

impl ServerArgs {
    /// The files that are read to connect, of those that are given.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.tls.files().chain(self.token.file())
    }

    /// The first of these files that cannot be read, with the option that names it, and why.
    pub(crate) fn unreadable_file(&self) -> Option<(&'static str, anyhow::Error)> {
        let cannot = |file: &Path| format!("cannot read {}", file.display());
        let open = self.tls.open_files().find_map(|(option, file)| {
            Some((option, fs::File::open(file).with_context(|| cannot(file)).err()?))
        });
        let secrets = [
            ("--key-file", "the private key's file", self.tls.key_file()),
            ("--token-file", "the token's file", self.token.file()),
        ];
        open.or_else(|| {
            secrets.into_iter().find_map(|(option, what, file)| {
                Some((option, secret_file::read_quietly(file?, what).err()?))
            })
        })
    }

    /// Whether what is given can be used, before any connection is opened.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        endpoint(&self.server)?;
        self.tls.connect(&self.server)?;
        self.token.bearer(&self.server)?;
        Ok(())
    }

    /// Where the server is.
    pub(crate) fn url(&self) -> &str {
        &self.server
    }

    /// Where a server of this machine keeps its data.
    pub(crate) fn data_dir(&self) -> &Path {
        self.token.data_dir()
    }

    /// Until when the server's certificate is valid; `None` where it has no TLS.
    pub(crate) async fn server_certificate_end(&self) -> anyhow::Result<Option<OffsetDateTime>> {
        let uri = self.server.parse().context("the server's URL cannot be read")?;
        self.tls.connect(&self.server)?.certificate_end(uri).await
    }

    /// Until when this client's certificate is valid, where there is one.
    pub(crate) fn own_certificate_end(&self) -> anyhow::Result<Option<OffsetDateTime>> {
        self.tls.own_certificate_end()
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> anyhow::Result<Server> {
        let bearer = self.token.bearer(&self.server)?;
        Server::connect_with(&self.server, &self.tls, bearer).await
    }
}

/// What clients call over: a connection, and the token that is shown with each call.
pub(crate) type Connection = InterceptedService<Channel, Bearer>;

/// A connection to a server. Its clients are cheap to make, and share it.
#[derive(Clone, Debug)]
pub(crate) struct Server(Connection);

impl Server {
    /// Connects to a URL.
    #[cfg(test)]
    pub(crate) async fn connect(url: &str, bearer: Bearer) -> anyhow::Result<Self> {
        Self::connect_with(url, &TlsArgs::default(), bearer).await
    }

    /// Connects to a URL, with these files where it says TLS.
    pub(crate) async fn connect_with(
        url: &str,
        tls: &TlsArgs,
        bearer: Bearer,
    ) -> anyhow::Result<Self> {
        let endpoint = endpoint(url)?;
        let connect = tls.connect(url)?;
        let opening = connect.clone();
        let connector = tower::service_fn(move |uri| opening.clone().open(uri));
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|error| no_connection(url, error))?;
        if let Some(trouble) = connect.trouble().await {
            return Err(NoConnection { url: url.to_owned(), trouble }.into());
        }
        Ok(Self(InterceptedService::new(channel, bearer)))
    }

    /// Whether it is ready.
    pub(crate) fn health(&self) -> HealthClient<Connection> {
        HealthClient::new(self.0.clone())
    }

    /// Tokens.
    pub(crate) fn access(&self) -> AccessServiceClient<Connection> {
        AccessServiceClient::new(self.0.clone())
    }

    /// Pools and plans.
    pub(crate) fn pools(&self) -> PoolServiceClient<Connection> {
        PoolServiceClient::new(self.0.clone())
    }

    /// Providers.
    pub(crate) fn providers(&self) -> ProviderServiceClient<Connection> {
        ProviderServiceClient::new(self.0.clone())
    }

    /// Accounts.
    pub(crate) fn accounts(&self) -> AccountServiceClient<Connection> {
        AccountServiceClient::new(self.0.clone())
    }

    /// Subscriptions.
    pub(crate) fn subscriptions(&self) -> SubscriptionServiceClient<Connection> {
        SubscriptionServiceClient::new(self.0.clone())
    }

    /// Redemptions.
    pub(crate) fn redemptions(&self) -> RedemptionServiceClient<Connection> {
        RedemptionServiceClient::new(self.0.clone())
    }
}

/// Why a server cannot be talked to.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {trouble}")]
pub(crate) struct NoConnection {
    url: String,
    /// What is wrong.
    pub(crate) trouble: Trouble,
}

fn no_connection(url: &str, error: transport::Error) -> anyhow::Error {
    match Trouble::of(&error) {
        Some(trouble) => NoConnection { url: url.to_owned(), trouble: trouble.clone() }.into(),
        None => anyhow::Error::from(error).context(format!(
            "no server answers at {url}: start one with `holdfast serve`, or name another with --server"
        )),
    }
}

fn endpoint(url: &str) -> anyhow::Result<Endpoint> {
    anyhow::ensure!(
        url.starts_with("http://") || url.starts_with("https://"),
        "{url} is not a URL such as http://127.0.0.1:50051 or https://holdfast.example:50051"
    );
    let endpoint = Endpoint::from_shared(url.to_owned())
        .with_context(|| format!("{url} is not a URL such as http://127.0.0.1:50051"))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}

/// A request with the deadline of a call that is one message each way.
pub(crate) fn unary<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(UNARY_TIMEOUT);
    request
}

/// When a reply was written, by the server's clock; by this machine's, when a proxy in between took
/// that out. To show how long ago something was, to the second; nothing is decided by it.
pub(crate) fn server_time(metadata: &MetadataMap) -> OffsetDateTime {
    let date = metadata.get("date").and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
    date.unwrap_or_else(OffsetDateTime::now_utc)
}

/// Reads every page of a list: `fetch` gets a page's token and answers with its rows and the next
/// page's token, `each` gets every row.
pub(crate) async fn every_page<T>(
    mut fetch: impl AsyncFnMut(String) -> Result<(Vec<T>, String), Status>,
    mut each: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut token = String::new();
    loop {
        let (rows, next) = fetch(token).await.map_err(RpcError)?;
        rows.into_iter().try_for_each(&mut each)?;
        if next.is_empty() {
            return Ok(());
        }
        token = next;
    }
}

/// What a reply must carry.
pub(crate) fn required<T>(field: Option<T>, name: &str) -> anyhow::Result<T> {
    field.with_context(|| {
        format!("the server's reply has no {name}: is it a Holdfast server of this version?")
    })
}

/// An error inside a message, as the error that a call would have had.
#[expect(clippy::disallowed_methods, reason = "the server made it")]
pub(crate) fn status_of(error: &tonic_types::Status) -> Status {
    // A call carries this very message as its details.
    let details = prost::Message::encode_to_vec(error).into();
    Status::with_details(error.code.into(), &error.message, details)
}

/// The reason that an error names; empty when it names none.
pub(crate) fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// A server's refusal, told with all that it carries.
#[derive(Debug)]
pub(crate) struct RpcError(pub(crate) Status);

impl From<Status> for RpcError {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl Error for RpcError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", code_name(self.0.code()), self.0.message())?;
        let details = self.0.get_error_details();
        if let Some(info) = details.error_info() {
            write!(f, "\n  reason: {}", info.reason)?;
            let mut metadata: Vec<_> = info.metadata.iter().collect();
            metadata.sort();
            for (key, value) in metadata {
                write!(f, "\n  {key}: {value}")?;
            }
        }
        for violation in details.bad_request().into_iter().flat_map(|it| &it.field_violations) {
            write!(f, "\n  field {}: {}", violation.field, violation.description)?;
        }
        if let Some(resource) = details.resource_info() {
            write!(f, "\n  {}: {}", resource.resource_type, resource.resource_name)?;
        }
        match next_step(self.0.code(), &details) {
            Some(step) => write!(f, "\n  next: {step}"),
            None => Ok(()),
        }
    }
}

/// What to do about an error, where that is known.
fn next_step(code: Code, details: &ErrorDetails) -> Option<String> {
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        return Some(format!("try again in {}", humantime::format_duration(delay)));
    }
    let step = match details.error_info().map_or("", |info| info.reason.as_str()) {
        "POOL_NOT_FOUND" => {
            "`holdfast pool list` shows the pools, `holdfast pool create` makes one"
        }
        "PLAN_NOT_FOUND" => {
            "`holdfast plan list` shows the pool's plans, `holdfast plan create` makes one"
        }
        "PROVIDER_NOT_FOUND" => {
            "`holdfast provider list` shows the providers, `holdfast provider apply` adds one"
        }
        "PROVIDER_VERSION_EXISTS" => {
            "`holdfast provider show --version` shows what was applied; give the changed file a \
             higher version"
        }
        "UNAUTHENTICATED" => {
            "show a token with --token-file or HOLDFAST_TOKEN; `holdfast token create` makes one"
        }
        "PERMISSION_DENIED" => {
            "let an admin make a token with the role that is needed: `holdfast token create`"
        }
        "TOKEN_NOT_FOUND" | "TOKEN_EXISTS" => "`holdfast token list` shows the tokens",
        "SUBSCRIPTION_NOT_FOUND" | "SUBSCRIPTION_ALREADY_EXISTS" | "TOO_MANY_SUBSCRIPTIONS" => {
            "`holdfast subscription list` shows the pool's subscriptions"
        }
        "ACCOUNT_NOT_FOUND" => "`holdfast account list` shows the pool's accounts",
        "REDEMPTION_NOT_FOUND" => "`holdfast redemption list` shows the pool's redemptions",
        "POOL_PAUSED" | "POOL_DRAINING" => "`holdfast pool resume` ends a pause and a drain",
        "ACCOUNT_PAUSED" => "`holdfast account resume` ends the pause",
        "POOL_IN_USE" => "`holdfast pool drain` takes it out of use, and its history stays",
        "PLAN_IN_USE" => "`holdfast account list --plan` shows its accounts",
        "AMOUNT_DOES_NOT_FIT" => "`holdfast plan show` shows what the plan takes",
        "NO_ACCOUNT_AVAILABLE" => {
            "`holdfast account explain` tells why each account was passed over"
        }
        "REDEMPTION_OPEN" => "wait until it is settled: `holdfast redemption show`",
        "" if matches!(code, Code::Cancelled | Code::DeadlineExceeded) => {
            "the server did not answer in time: see its log, and `holdfast doctor`. What was begun goes on"
        }
        // Of the connection: it was cut, or its other end says nothing any more.
        "" if code == Code::Unknown => "see whether the server still runs, then try again",
        "" if code == Code::Unavailable => "see whether the server still runs, then try again",
        "" if code == Code::Unimplemented => {
            "see whether --server names a Holdfast server of this version"
        }
        _ => return None,
    };
    Some(step.to_owned())
}

/// A code as the specification of gRPC writes it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A duration as the contract has it.
pub(in crate::cli) fn wire(
    span: Option<Duration>,
) -> anyhow::Result<Option<prost_types::Duration>> {
    Ok(span.map(prost_types::Duration::try_from).transpose()?)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "errors as a server makes them")]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_reason_its_fields_and_the_next_step() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("POOL_NOT_FOUND", "holdfast", [("pool_id".into(), "p".into())])
            .add_bad_request_violation("plan.target", "must be more than 0");
        let status =
            Status::with_error_details(Code::NotFound, "there is no pool p", details.clone());
        assert_eq!(
            RpcError(status).to_string(),
            "NOT_FOUND: there is no pool p\n  reason: POOL_NOT_FOUND\n  pool_id: p\n  \
             field plan.target: must be more than 0\n  next: `holdfast pool list` shows the pools, \
             `holdfast pool create` makes one"
        );
        details.set_retry_info(Some(Duration::from_millis(1500)));
        let status = Status::with_error_details(Code::Unavailable, "later", details);
        assert!(RpcError(status).to_string().ends_with("next: try again in 1s 500ms"));
    }

    #[test]
    fn the_servers_clock_is_taken_before_ones_own() {
        let mut metadata = MetadataMap::new();
        metadata.insert("date", "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        assert_eq!(server_time(&metadata).unix_timestamp(), 784_111_777);
        let before = OffsetDateTime::now_utc();
        metadata.insert("date", "yesterday".parse().unwrap());
        assert!(server_time(&metadata) >= before);
        assert!(server_time(&MetadataMap::new()) >= before);
    }

    #[tokio::test]
    async fn every_page_is_read_to_the_last() {
        let mut seen = Vec::new();
        every_page(
            async |token: String| match token.as_str() {
                "" => Ok((vec![1, 2], "b".to_owned())),
                "b" => Ok((vec![3], String::new())),
                _ => Err(Status::internal("no such page")),
            },
            |row| {
                seen.push(row);
                Ok(())
            },
        )
        .await
        .unwrap();
        assert_eq!(seen, [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_with_what_to_do() {
        for url in ["https://127.0.0.1:1", "localhost:1", "http://127.0.0.1:1"] {
            let error = Server::connect(url, Bearer::default()).await.unwrap_err().to_string();
            assert!(error.contains(url), "{error}");
        }
    }
}
