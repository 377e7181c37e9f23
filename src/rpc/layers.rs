//! The layers that every call passes through: its caller is found out, its message is read, it is allowed and
//! admitted, and gets a span.
//!
//! Who calls is known before anything of a call is read, and whether they may before anything is read in the database.
//! A call that is refused for either costs a hash and an answer that is made already.
//!
//! A call is admitted when its message is complete (of a stream: the first one). Until then it holds nothing but
//! what it has sent, which is bounded. So a client that opens calls and sends nothing keeps nobody else out.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use http::HeaderName;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, body::Body};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::{
    answer::{self, Unfinished},
    ended,
    in_time::in_time,
    message::{self, Activity, Complete, RequestBody},
    methods, refusal, status,
};
use crate::{
    access::{
        Access, Authenticator, Refusal,
        table::{Row, Where, row_of},
    },
    admission::{self, Caller, Class, InFlight, Origin, Overload, Permit, Refused, origin},
    domain::{
        access::{Need, Role},
        principal::Authority,
    },
    listener::{
        Peer,
        connection::{Arrived, Connection, OpenCall},
    },
    service::Error,
};

/// Admits calls while the server takes them, and gives each a span.
#[derive(Clone, Debug)]
pub struct Admission {
    authenticator: Authenticator,
    overload: Overload,
    methods: Arc<Methods>,
    closing: CancellationToken,
}

/// The methods of the contract, by the path of their calls.
#[derive(Debug)]
struct Methods {
    served: HashMap<String, Method>,
    /// For health and reflection.
    other: Method,
}

#[derive(Debug)]
struct Method {
    description: methods::Method,
    /// What its callers must be granted. Nothing of health and reflection.
    row: Option<&'static Row>,
    class: Class,
    seconds: metrics::Histogram,
}

impl Admission {
    /// Refuses calls whose caller may not make them, those for which `overload` has no permit, and all of them once
    /// `closing` is cancelled.
    ///
    /// # Errors
    /// When the table of access has no row for an RPC: nobody could say who may call it.
    pub fn new(
        overload: Overload,
        authenticator: Authenticator,
        closing: CancellationToken,
    ) -> anyhow::Result<Self> {
        let method = |description: methods::Method, row| Method {
            row,
            class: class(&description.name),
            seconds: metrics::histogram!(
                "holdfast_call_seconds", "method" => description.name.clone()
            ),
            description,
        };
        let mut served = HashMap::new();
        for one in methods::all() {
            let row = row_of(&one.name)
                .with_context(|| format!("the table of access has no row for {}", one.name))?;
            served.insert(format!("/{}/{}", one.service, one.name), method(one, Some(row)));
        }
        let other = methods::Method {
            service: "other".to_owned(),
            name: "other".to_owned(),
            // Reflection's calls are streams; what is not served at all is answered by its path.
            takes_stream: true,
            answers_stream: true,
            pool_path: Vec::new(),
        };
        let methods = Arc::new(Methods { served, other: method(other, None) });
        Ok(Self { authenticator, overload, methods, closing })
    }

    /// Waits until no admitted call is left to answer.
    pub async fn all_answered(&self) {
        self.overload.all_answered().await;
    }
}

/// What a method's calls are for.
fn class(method: &str) -> Class {
    match method {
        "ReleaseAccount" | "RenewLease" | "ResolveRedemption" | "ReverseRedemption" => Class::End,
        "Redeem" | "BatchRedeem" => Class::Redeem,
        "AcquireAccount" | "RedeemCard" => Class::Acquire,
        _ => Class::Rest,
    }
}

/// The call that brought a message.
pub(super) fn caller_of<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or_default()
}

/// Who sent a message, and what they may do. Everything, where the server asks nobody who they are.
pub(super) fn access_of<T>(request: &Request<T>) -> &Access {
    request.extensions().get::<Access>().unwrap_or(Access::anybody())
}

/// Refuses a pool that one message of many names, where its caller may not do `rpc` there.
pub(super) fn check_pool(rpc: &str, access: &Access, pool_id: &str) -> Result<(), Status> {
    match row_of(rpc) {
        Some(row) if access.may(row.need, pool_id) => Ok(()),
        Some(row) => {
            refusal::count("denied");
            Err(status::permission_denied(row))
        }
        None => Err(status::status(&Error::Internal("an RPC has no row in the table of access"))),
    }
}

/// Who sent a message, from where, and what of others it may touch in the pool that the message is about.
pub(super) fn authority_of<T>(request: &Request<T>) -> Authority {
    let extensions = request.extensions();
    let known = extensions.get::<Authority>().cloned().unwrap_or_default();
    let peer = extensions.get::<Peer>().and_then(|peer| peer.addr);
    Authority { peer: peer.map(|addr| addr.ip().to_canonical()), ..known }
}

impl<S> Layer<S> for Admission {
    type Service = Admitted<S>;

    fn layer(&self, inner: S) -> Admitted<S> {
        Admitted { inner, admission: Arc::new(self.clone()) }
    }
}

/// See [`Admission`].
#[derive(Clone, Debug)]
pub struct Admitted<S> {
    inner: S,
    /// Shared, because each call has its own handle: to clone a [`CancellationToken`] takes a lock.
    admission: Arc<Admission>,
}

/// How long the caller waits.
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Health is asked for until the end, and answers that the server is stopping.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// Reflection, of either version.
const REFLECTION: &str = "/grpc.reflection.";

type Answer = http::Response<Body>;
type Answering<E> = Pin<Box<dyn Future<Output = Result<Answer, E>> + Send>>;

impl<S, B> Service<http::Request<B>> for Admitted<S>
where
    S: Service<http::Request<Body>, Response = Answer> + Clone + Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    B: RequestBody,
{
    type Response = Answer;
    type Error = S::Error;
    type Future = Answering<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        // The clone may not be ready: what was asked whether it is does the call.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let admission = Arc::clone(&self.admission);
        Box::pin(async move { admission.serve(inner, request).await })
    }
}

impl Admission {
    async fn serve<S, B>(&self, mut inner: S, request: http::Request<B>) -> Result<Answer, S::Error>
    where
        S: Service<http::Request<Body>, Response = Answer>,
        B: RequestBody,
    {
        let came = Instant::now();
        let (mut parts, body) = request.into_parts();
        let connection = Arrived::unpack(&mut parts.extensions);
        let path = parts.uri.path();
        let is_health = path.starts_with(HEALTH);
        if self.closing.is_cancelled() && !is_health {
            return Ok(status::shutting_down().into_http());
        }
        let Some(method) = self.methods.of(path) else {
            // Nothing of it is read: there is nobody who would.
            return inner.call(http::Request::from_parts(parts, Body::empty())).await;
        };
        let access = match self.who_calls(method, &parts, came) {
            Ok(access) => access,
            Err(refused) => return Ok(refused.into_answer()),
        };
        let timeout = parts.headers.get(TIMEOUT).and_then(|text| read_timeout(text.as_bytes()));
        let deadline = timeout.map(|timeout| came + timeout);
        let takes_stream = method.description.takes_stream && !is_health;
        let open = connection.as_ref().map(Connection::begin);
        let nobody = Arc::default();
        let owner = connection.as_ref().map_or(&nobody, |connection| connection.name());
        let budget = self.overload.unread_requests();
        let read = tokio::select! {
            biased;
            read = message::first(body, takes_stream, budget, owner, deadline) => read,
            () = self.closing.cancelled(), if !is_health => Err(status::shutting_down()),
        };
        let complete = match read {
            Ok(complete) => complete,
            Err(error) => return Ok(error.into_http()),
        };
        if is_health {
            let body = complete.into_body(budget, owner, None);
            return inner.call(http::Request::from_parts(parts, body)).await;
        }
        if let Err(refused) = allow(method, access.as_ref(), complete.message()) {
            return Ok(refused.into_answer());
        }
        let origin = self.origin(access.as_ref(), connection.as_ref());
        let from = Whence { connection, origin, open, access };
        self.admit(inner, method, parts, complete, deadline, from).await
    }

    /// Whom a call is counted for.
    fn origin(
        &self,
        access: Option<&Access>,
        connection: Option<&Arc<Connection>>,
    ) -> Option<Arc<Origin>> {
        let origins = self.overload.origins();
        match access {
            Some(access) => Some(origins.principal(access.principal().name())),
            None => connection.map(|connection| Arc::clone(connection.origin(origins))),
        }
    }

    /// Who makes a call. `None` where nobody is asked. One who may not make it anywhere is refused at once.
    fn who_calls(
        &self,
        method: &Method,
        parts: &http::request::Parts,
        now: Instant,
    ) -> Result<Option<Access>, Unallowed> {
        let Some(row) = method.row.filter(|_| self.authenticator.is_on()) else { return Ok(None) };
        let names = parts.extensions.get::<Peer>().map_or(&[][..], |peer| &peer.names.0);
        let access = self.authenticator.authenticate(&parts.headers, names, now);
        let access = access.map_err(Unallowed::Caller)?;
        let may = match row.r#where {
            Where::All => access.may_everywhere(row.need),
            Where::ItsPool | Where::ItsPoolOrSome | Where::Some => access.may_somewhere(row.need),
        };
        if may { Ok(Some(access)) } else { Err(Unallowed::Role(row)) }
    }

    async fn admit<S, B>(
        &self,
        mut inner: S,
        method: &Method,
        mut parts: http::request::Parts,
        complete: Complete<B>,
        deadline: Option<Instant>,
        from: Whence,
    ) -> Result<Answer, S::Error>
    where
        S: Service<http::Request<Body>, Response = Answer>,
        B: RequestBody,
    {
        let Whence { connection, origin, open, access } = from;
        let admitted = Instant::now();
        // Whatever ends work is done all the same.
        if deadline.is_some_and(|deadline| deadline <= admitted) && method.class != Class::End {
            admission::note_dropped("admission");
            return Ok(status::deadline_passed().into_http());
        }
        let permits = self.permits(method, complete.message(), origin.as_ref());
        let pool = method.description.pool(complete.message()).map(str::to_owned);
        let Permits { call: permit, stream, in_flight } = match permits {
            Ok(permits) => permits,
            Err(refused) => return Ok(refusal::of(refused)),
        };
        let caller = Caller::new(permit, deadline);
        if method.class != Class::End {
            parts.extensions.insert(caller.clone());
        }
        let span = tracing::debug_span!(
            "rpc",
            rpc.service = method.description.service,
            rpc.method = method.description.name
        );
        let owner = origin.as_ref().map(|origin| Arc::clone(origin.name())).unwrap_or_default();
        let activity = Activity::new();
        let budget = self.overload.unread_requests();
        let body = complete.into_body(budget, &owner, Some(Arc::clone(&activity)));
        let lasting = access.clone().filter(|_| method.row.is_some_and(|row| row.lasts));
        if let Some(access) = access {
            self.note_caller(method, &mut parts, pool.as_deref(), access);
        }
        let answer = inner.call(http::Request::from_parts(parts, body));
        let answer = origin::scope(origin, answer.instrument(span));
        let answer = in_time(answer, deadline, lasting.clone()).await;
        drop(caller);
        method.seconds.record(admitted.elapsed());
        let lasting = lasting.filter(|_| method.description.answers_stream);
        let answer = answer.map(|answer| match lasting {
            Some(access) => ended::until_ended(answer, access),
            None => answer,
        });
        let kept = Unfinished { connection, activity, _kept: (open, in_flight, stream) };
        let budget = self.overload.unread_answers();
        answer.map(|answer| answer::bounded(answer, budget, &owner, kept))
    }

    /// Puts who calls, and what of others they may touch in the call's pool, where its service finds it.
    fn note_caller(
        &self,
        method: &Method,
        parts: &mut http::request::Parts,
        pool: Option<&str>,
        access: Access,
    ) {
        let may = |role| match pool {
            Some(pool_id) => access.may(Need::Role(role), pool_id),
            None => access.may_everywhere(Need::Role(role)),
        };
        parts.extensions.insert(Authority {
            principal: access.principal().clone(),
            peer: None,
            may_end_others: may(Role::Operator),
            may_read_others: may(Role::Auditor),
        });
        if let Some(row) = method.row.filter(|row| row.r#where == Where::ItsPoolOrSome) {
            parts.extensions.insert(access.pools(row.need));
        }
        parts.extensions.insert(access);
    }

    /// The permits of a call, by its class, by the pool that it is about, and by whom it is counted for.
    fn permits(
        &self,
        method: &Method,
        message: &[u8],
        origin: Option<&Arc<Origin>>,
    ) -> Result<Permits, Refused> {
        let (class, pool) = (method.class, method.description.pool(message));
        // What ends work makes room, and is taken from anybody.
        let in_flight = match origin.filter(|_| class != Class::End) {
            Some(origin) => match origin.begin(class == Class::Rest) {
                Some(in_flight) => Some(in_flight),
                None => return Err(self.overload.refuse(class)),
            },
            None => None,
        };
        let name = origin.map(|origin| &**origin.name());
        let stream = match method.description.takes_stream || method.description.answers_stream {
            true => Some(self.overload.admit_from(Class::Stream, pool, name)?),
            false => None,
        };
        let call = self.overload.admit_from(class, pool, name)?;
        Ok(Permits { call, stream, in_flight })
    }
}

/// Where a call comes from.
struct Whence {
    connection: Option<Arc<Connection>>,
    origin: Option<Arc<Origin>>,
    open: Option<OpenCall>,
    access: Option<Access>,
}

/// The permits of a call.
struct Permits {
    /// Its own.
    call: Permit,
    /// For a stream another, that lasts as long as the stream is open.
    stream: Option<Permit>,
    /// Its part of what its origin may have, until its answer is taken.
    in_flight: Option<InFlight>,
}

/// Why a call is not made for its caller.
#[derive(Clone, Copy, Debug)]
enum Unallowed {
    /// Nobody knows who it is.
    Caller(Refusal),
    /// They lack this role.
    Role(&'static Row),
}

impl Unallowed {
    fn into_answer(self) -> Answer {
        match self {
            Self::Caller(why) => refusal::of_caller(why),
            Self::Role(row) => refusal::of_need(row),
        }
    }
}

/// Refuses a call on a pool where its caller may not make it. A request that names no pool is one of all pools.
fn allow(method: &Method, access: Option<&Access>, message: &[u8]) -> Result<(), Unallowed> {
    let Some((access, row)) = access.zip(method.row) else { return Ok(()) };
    let may = match (row.r#where, method.description.pool(message)) {
        // A caller who may not was refused before the message was read.
        (Where::Some | Where::All, _) => true,
        (Where::ItsPool | Where::ItsPoolOrSome, Some(pool_id)) => access.may(row.need, pool_id),
        (Where::ItsPool, None) => access.may_everywhere(row.need),
        (Where::ItsPoolOrSome, None) => method.description.names_no_pool(message),
    };
    if may { Ok(()) } else { Err(Unallowed::Role(row)) }
}

impl Methods {
    /// The method of a path; `None` where calls are answered by nothing but that there is no such method.
    fn of(&self, path: &str) -> Option<&Method> {
        let is_other = || path.starts_with(REFLECTION) || path.starts_with(HEALTH);
        self.served.get(path).or_else(|| is_other().then_some(&self.other))
    }
}

/// A `grpc-timeout`: at most eight digits and a unit. tonic, too, passes over one that is none.
fn read_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::table::TABLE;

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        assert_eq!(read_timeout(b"100m"), Some(Duration::from_millis(100)));
        assert_eq!(read_timeout(b"0n"), Some(Duration::ZERO));
        assert_eq!(read_timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for not_one in [&b""[..], b"m", b"10", b"123456789m", b"-1m", b"1x"] {
            assert_eq!(read_timeout(not_one), None, "{not_one:?}");
        }
    }

    #[test]
    fn every_rpc_has_one_row_in_the_table_of_access_and_no_row_is_of_none() {
        let methods = methods::all();
        for method in &methods {
            assert!(row_of(&method.name).is_some(), "{} has no row", method.name);
        }
        let mut names: Vec<_> = methods.iter().map(|method| &*method.name).collect();
        let mut rows: Vec<_> = TABLE.iter().map(|row| row.rpc).collect();
        names.sort_unstable();
        rows.sort_unstable();
        assert_eq!(rows, names, "no two services have an RPC of one name");
    }

    #[test]
    fn an_rpc_is_about_its_pool_where_its_request_names_one() {
        for method in methods::all() {
            let about_its_pool = row_of(&method.name).unwrap().r#where;
            let about_its_pool = matches!(about_its_pool, Where::ItsPool | Where::ItsPoolOrSome);
            assert_eq!(about_its_pool, !method.pool_path.is_empty(), "{}", method.name);
        }
    }

    #[test]
    fn every_method_that_a_class_names_is_the_contracts() {
        let methods = methods::all();
        let of =
            |wanted| methods.iter().filter(move |method| class(&method.name) == wanted).count();
        assert_eq!([of(Class::End), of(Class::Redeem), of(Class::Acquire)], [4, 2, 2]);
        assert!(of(Class::Rest) > 10);
    }
}
