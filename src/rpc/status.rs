//! THE error table: what each error is to a gRPC client. Nothing else makes a [`Status`].
//!
//! Every error carries an `ErrorInfo` with a reason of the contract, and a `BadRequest`, `RetryInfo`
//! or `ResourceInfo` where it fits. Its block of headers is bounded, whatever the request held
//! ([`trailers`]).

#![expect(clippy::disallowed_methods, reason = "this is the table that makes errors")]

pub(super) mod trailers;

use std::{collections::HashMap, time::Duration};

use prost::DecodeError;
use tonic::{Code, Status};
use tonic_types::ErrorDetails;

use self::trailers::{fit, fit_violations};
use crate::{
    access::{
        Refusal,
        table::{Row, Where},
    },
    domain::{
        access::Need,
        choice::Choice,
        redemption::{ReversalRefusal, ReversalState},
    },
    service::{
        Error,
        error::{CountingWord, StreamStop, Violation},
    },
};

/// The domain of every reason.
const DOMAIN: &str = "holdfast";
/// When to try again when there was no room for one more.
const RETRY_OVERLOAD: Duration = Duration::from_millis(200);
/// When to try again when something has to come back first.
const RETRY_OUTAGE: Duration = Duration::from_secs(1);

/// The row of the table for `error`.
pub(crate) fn status(error: &Error) -> Status {
    let text = error.to_string();
    match error {
        Error::Invalid(violations) => invalid(violations),

        Error::PoolNotFound(id) => not_found("POOL_NOT_FOUND", text, "pool", id.as_str()),
        Error::AccountNotFound(_, id) => {
            not_found("ACCOUNT_NOT_FOUND", text, "account", id.as_str())
        }
        Error::PlanNotFound(_, id) => not_found("PLAN_NOT_FOUND", text, "plan", id.as_str()),
        Error::RedemptionNotFound(_, id) => {
            not_found("REDEMPTION_NOT_FOUND", text, "redemption", id)
        }

        Error::TokenNotFound(name) => not_found("TOKEN_NOT_FOUND", text, "token", name.as_str()),
        Error::TokenExists(name) => exists("TOKEN_EXISTS", text, "token", name.as_str()),

        Error::SubscriptionNotFound(_, id) => {
            not_found("SUBSCRIPTION_NOT_FOUND", text, "subscription", id.as_str())
        }
        Error::SubscriptionExists(_, id) => {
            exists("SUBSCRIPTION_ALREADY_EXISTS", text, "subscription", id.as_str())
        }
        Error::TooManySubscriptions(pool_id, most) => precondition(
            "TOO_MANY_SUBSCRIPTIONS",
            text,
            [("pool_id", pool_id.to_string()), ("most", most.to_string())],
        ),

        Error::ProviderNotFound { provider_id, .. } => {
            not_found("PROVIDER_NOT_FOUND", text, "provider", provider_id.as_str())
        }

        Error::ProviderVersionExists(version) => {
            let mut details = reason(
                "PROVIDER_VERSION_EXISTS",
                [
                    ("provider_id", version.provider_id.to_string()),
                    ("version", version.version.to_string()),
                ],
            );
            details.set_resource_info("provider", version.provider_id.as_str(), "", &text);
            fit(Code::AlreadyExists, &text, details)
        }
        Error::PoolExists(id) => exists("POOL_ALREADY_EXISTS", text, "pool", id.as_str()),
        Error::PlanExists(_, id) => exists("PLAN_ALREADY_EXISTS", text, "plan", id.as_str()),
        Error::AccountExists(_, id) => {
            exists("ACCOUNT_ALREADY_EXISTS", text, "account", id.as_str())
        }
        Error::AlreadySettled { redemption_id, state, word } => {
            let settled =
                [("redemption_id", redemption_id.to_string()), ("state", state.as_str().into())];
            let word = word.iter().flat_map(word_of);
            let mut details = reason("REDEMPTION_ALREADY_SETTLED", settled.into_iter().chain(word));
            details.set_resource_info("redemption", redemption_id.to_string(), "", &text);
            fit(Code::AlreadyExists, &text, details)
        }
        Error::ReversalRefused { redemption_id, why: ReversalRefusal::AlreadyReversed, .. } => {
            let id = redemption_id.to_string();
            exists("REDEMPTION_ALREADY_REVERSED", text, "redemption", &id)
        }
        Error::RequestIdReused { request_id, differ } => {
            let mut details = reason(
                "REQUEST_ID_REUSED",
                [("request_id", request_id.to_string()), ("fields", differ.join(","))],
            );
            for field in differ {
                details.add_bad_request_violation(
                    *field,
                    "differs from the first use of the request_id",
                );
            }
            fit(Code::AlreadyExists, &text, details)
        }

        Error::NoAccountAvailable { pool_id, position, waiting, counts, .. } => {
            // Always all of them: a client need not know which are left out at 0.
            let counted = Choice::ALL.into_iter().map(|choice| {
                let key = if choice == Choice::Fits { "free" } else { choice.as_str() };
                (key.to_owned(), counts.get(&choice).copied().unwrap_or_default().to_string())
            });
            let asked = [
                ("pool_id", pool_id.to_string()),
                ("position", position.to_string()),
                ("waiting", waiting.to_string()),
            ];
            let asked = asked.into_iter().map(|(key, value)| (key.to_owned(), value));
            let metadata: HashMap<_, _> = asked.chain(counted).collect();
            let mut details =
                ErrorDetails::with_error_info("NO_ACCOUNT_AVAILABLE", DOMAIN, metadata);
            details.set_retry_info(Some(RETRY_OUTAGE));
            fit(Code::ResourceExhausted, &text, details)
        }
        Error::LeaseLost { lease, loss } => {
            let details = reason(
                "LEASE_LOST",
                [
                    ("cause", loss.as_str().to_owned()),
                    ("pool_id", lease.pool_id.to_string()),
                    ("account_id", lease.account_id.to_string()),
                    ("fencing_token", lease.token.to_string()),
                ],
            );
            fit(Code::Aborted, &text, details)
        }

        Error::RedemptionOpen(id) => {
            precondition("REDEMPTION_OPEN", text, [("redemption_id", id.to_string())])
        }
        Error::ReversalRefused { redemption_id, why, profile } => {
            let (reason, cause) = match why {
                ReversalRefusal::NotSucceeded(state) => {
                    ("REDEMPTION_NOT_SUCCEEDED", state.as_str())
                }
                ReversalRefusal::Unsupported(why) => ("REVERSAL_NOT_SUPPORTED", why.as_str()),
                ReversalRefusal::Open(state) => ("REVERSAL_OPEN", state.as_str()),
                ReversalRefusal::AlreadyReversed => {
                    ("REDEMPTION_ALREADY_REVERSED", ReversalState::Succeeded.as_str())
                }
                ReversalRefusal::NothingOpen => ("REVERSAL_NOT_FOUND", ""),
            };
            precondition(
                reason,
                text,
                [
                    ("redemption_id", redemption_id.to_string()),
                    ("cause", cause.to_owned()),
                    ("provider_id", profile.provider_id.to_string()),
                    ("provider_version", profile.version.to_string()),
                ],
            )
        }
        Error::BalanceTooLow { redemption_id, account_id, balance_minor, amount } => precondition(
            "BALANCE_TOO_LOW",
            text,
            [
                ("redemption_id", redemption_id.to_string()),
                ("account_id", account_id.to_string()),
                ("balance_minor", balance_minor.to_string()),
                ("amount_minor", amount.amount_minor.to_string()),
            ],
        ),
        Error::ResolutionChanged { redemption_id, word } => {
            let redemption = [("redemption_id", redemption_id.to_string())];
            precondition("RESOLUTION_CHANGED", text, redemption.into_iter().chain(word_of(word)))
        }
        Error::BalanceChanged { account_id, balance_minor, expected_minor } => precondition(
            "BALANCE_CHANGED",
            text,
            [
                ("account_id", account_id.to_string()),
                ("balance_minor", balance_minor.to_string()),
                ("expected_minor", expected_minor.to_string()),
            ],
        ),
        Error::CodeInUse { redemption: Some((redemption_id, request_id)), state } => precondition(
            "CODE_IN_USE",
            text,
            [
                ("redemption_id", redemption_id.to_string()),
                ("request_id", request_id.to_string()),
                ("state", state.as_str().to_owned()),
            ],
        ),
        Error::CodeInUse { redemption: None, state } => {
            precondition("CODE_IN_USE", text, [("state", state.as_str().to_owned())])
        }
        Error::OthersLease { lease, needs } => {
            let details = reason(
                "PERMISSION_DENIED",
                [
                    ("needs", (*needs).to_owned()),
                    ("pool_id", lease.pool_id.to_string()),
                    ("account_id", lease.account_id.to_string()),
                ],
            );
            fit(Code::PermissionDenied, &text, details)
        }
        Error::CardNotRedeemable { known } => {
            precondition("CARD_NOT_REDEEMABLE", text, [("known", known.to_string())])
        }
        Error::CurrencyMismatch { card_currency, pool_currency } => precondition(
            "CURRENCY_MISMATCH",
            text,
            [
                ("card_currency", card_currency.to_string()),
                ("pool_currency", pool_currency.to_string()),
            ],
        ),
        Error::CountryMismatch { card_country, selector_country } => precondition(
            "COUNTRY_MISMATCH",
            text,
            [
                ("card_country", card_country.clone()),
                ("selector_country", selector_country.clone()),
            ],
        ),
        Error::InquiryFailed { retry_after, .. } => {
            retry(Code::Unavailable, "INQUIRY_FAILED", text, retry_after.unwrap_or(RETRY_OUTAGE))
        }
        Error::PoolPaused(id) => precondition("POOL_PAUSED", text, [("pool_id", id.to_string())]),
        Error::CursorLost(id) => precondition("CURSOR_LOST", text, [("pool_id", id.to_string())]),
        Error::PoolDraining(id) => {
            precondition("POOL_DRAINING", text, [("pool_id", id.to_string())])
        }
        Error::AccountPaused(pool_id, id) => precondition(
            "ACCOUNT_PAUSED",
            text,
            [("pool_id", pool_id.to_string()), ("account_id", id.to_string())],
        ),
        Error::AccountNotReady { pool_id, account_id, cause, left } => {
            let mut details = reason(
                "ACCOUNT_NOT_READY",
                [
                    ("pool_id", pool_id.to_string()),
                    ("account_id", account_id.to_string()),
                    ("cause", cause.as_str().to_owned()),
                ],
            );
            details.set_retry_info(Some(*left));
            fit(Code::FailedPrecondition, &text, details)
        }
        Error::AmountDoesNotFit {
            account_id,
            plan_id,
            misfit,
            headroom_minor,
            day_headroom_minor,
            ..
        } => precondition(
            "AMOUNT_DOES_NOT_FIT",
            text,
            [
                ("account_id", account_id.to_string()),
                ("plan_id", plan_id.to_string()),
                ("cause", misfit.as_str().to_owned()),
                ("headroom_minor", headroom_minor.to_string()),
                ("day_headroom_minor", day_headroom_minor.to_string()),
            ],
        ),
        Error::PoolInUse(pool_id, of) => precondition(
            "POOL_IN_USE",
            text,
            [
                ("pool_id", pool_id.to_string()),
                ("accounts", of.accounts.to_string()),
                ("redemptions", of.redemptions.to_string()),
            ],
        ),
        Error::PlanInUse { pool_id, plan_id, account_id } => precondition(
            "PLAN_IN_USE",
            text,
            [
                ("pool_id", pool_id.to_string()),
                ("plan_id", plan_id.to_string()),
                ("account_id", account_id.as_ref().map(ToString::to_string).unwrap_or_default()),
            ],
        ),
        Error::AccountLocked(pool_id, id) => precondition(
            "ACCOUNT_LOCKED",
            text,
            [("pool_id", pool_id.to_string()), ("account_id", id.to_string())],
        ),

        Error::RequestIncomplete(_) => {
            fit(Code::DeadlineExceeded, &text, reason("REQUEST_INCOMPLETE", []))
        }
        Error::StreamIdle(_) => fit(Code::DeadlineExceeded, &text, reason("STREAM_IDLE", [])),
        Error::ShuttingDown => {
            let begun = [("begun", "0".to_owned())];
            retry_with(Code::Unavailable, reason("SHUTTING_DOWN", begun), &text, RETRY_OUTAGE)
        }
        Error::StreamStopped { why, received, begun } => {
            let (code, why, after) = match why {
                StreamStop::ShuttingDown => (Code::Unavailable, "SHUTTING_DOWN", RETRY_OUTAGE),
                StreamStop::Overloaded => (Code::ResourceExhausted, "OVERLOADED", RETRY_OVERLOAD),
            };
            let counts = [("received", received.to_string()), ("begun", begun.to_string())];
            retry_with(code, reason(why, counts), &text, after)
        }
        Error::Overloaded => overloaded(RETRY_OVERLOAD),
        Error::DeadlinePassed => deadline_passed(),
        Error::DatabaseUnavailable(_) => {
            // The driver's message is for the log, not for callers.
            tracing::warn!(error = %text, "a call found no database");
            let text =
                "the database is out of reach, and it is not known whether anything was done: repeat \
                 the same call with the same request id"
                    .to_owned();
            retry(Code::Unavailable, "DATABASE_UNAVAILABLE", text, RETRY_OUTAGE)
        }
        Error::ProviderUnavailable { retry_after, .. } => {
            let after = retry_after.unwrap_or(RETRY_OUTAGE);
            retry(Code::Unavailable, "PROVIDER_UNAVAILABLE", text, after)
        }
        Error::Database(_) | Error::Internal(_) => {
            tracing::error!(error = %text, "a call met a bug");
            fit(
                Code::Internal,
                "an error inside Holdfast; its log has the cause",
                reason("INTERNAL", []),
            )
        }
    }
}

/// A reply that could not be written: a bug of ours.
pub(crate) fn unencodable() -> Status {
    status(&Error::Internal("a reply could not be encoded"))
}

/// A message that is not protobuf, or holds text that is not UTF-8.
pub(crate) fn undecodable(error: &DecodeError) -> Status {
    let rule = format!("cannot be read as the RPC's request: {error}");
    status(&Error::Invalid(vec![Violation::new("message", rule)]))
}

/// A message above the limit.
pub(crate) fn message_too_large(bytes: usize, max_bytes: usize) -> Status {
    let rule = format!("is {bytes} bytes long; at most {max_bytes} are read");
    status(&Error::Invalid(vec![Violation::new("message", rule)]))
}

/// More calls than the server takes at once.
pub(crate) fn overloaded(retry_after: Duration) -> Status {
    let text =
        "the server is overloaded, or this pool has its full share of calls; nothing was begun"
            .to_owned();
    retry(Code::ResourceExhausted, "OVERLOADED", text, retry_after)
}

/// Nobody waits for the answer any more.
pub(crate) fn deadline_passed() -> Status {
    let text = "the call's deadline has passed";
    fit(Code::DeadlineExceeded, text, reason("DEADLINE_PASSED", []))
}

/// A message that began and did not end.
pub(crate) fn message_incomplete(limit: Duration) -> Status {
    status(&Error::RequestIncomplete(limit))
}

/// Nobody knows who calls. An unknown token, a revoked and an expired one are not told from each other.
pub(crate) fn unauthenticated(refusal: Refusal) -> Status {
    let text = match refusal {
        Refusal::Missing => {
            "nothing says who calls: send the header `authorization: Bearer hf_…` with a token that `holdfast token \
             create` made, or a JWT or client certificate, where the server takes them"
        }
        Refusal::Malformed => {
            "the header `authorization` holds neither a token nor a JWT that this server takes: send it once, as \
             `Bearer hf_…`, with the token as `holdfast token create` printed it"
        }
        Refusal::Invalid => {
            "the token or JWT is not valid here: it is unknown, revoked or expired. Ask an admin for another one"
        }
        Refusal::Busy => return overloaded(RETRY_OUTAGE),
        Refusal::Unknown => {
            let text = "the database is out of reach, so it cannot be said which tokens are valid; nothing was done";
            return retry(Code::Unavailable, "DATABASE_UNAVAILABLE", text.to_owned(), RETRY_OUTAGE);
        }
    };
    fit(Code::Unauthenticated, text, reason("UNAUTHENTICATED", []))
}

/// What a caller showed was revoked, or has expired, while its call went on.
pub(crate) fn access_ended() -> Status {
    let text = "the token, JWT or certificate was revoked, has expired, or is granted other things now; what was done \
                before stays done";
    fit(Code::Unauthenticated, text, reason("UNAUTHENTICATED", []))
}

/// The caller lacks a role. Whether the pool exists makes no difference.
pub(crate) fn permission_denied(row: &Row) -> Status {
    let role = row.need.least().as_str();
    let of_any = if row.need == Need::Any { " (any role will do)" } else { "" };
    let place = match row.r#where {
        Where::ItsPool => {
            "on the pool that the request names, or on all pools (*) where it names none"
        }
        Where::ItsPoolOrSome => {
            "on the pool that the request names, or on some pool where it names none"
        }
        Where::Some => "on some pool",
        Where::All => "on all pools (*)",
    };
    let text = format!(
        "{} needs the role {role}{of_any} {place}, which the caller does not have: ask an admin for a token with it",
        row.rpc
    );
    fit(Code::PermissionDenied, &text, reason("PERMISSION_DENIED", [("needs", role.to_owned())]))
}

/// More than an RPC of one message takes.
pub(crate) fn more_than_one_message() -> Status {
    let rule = "must be the only one: this RPC takes one message";
    status(&Error::Invalid(vec![Violation::new("message", rule)]))
}

/// What had come of a request was evicted, to make room for others.
pub(crate) fn not_kept() -> Status {
    overloaded(RETRY_OVERLOAD)
}

/// An answer was evicted, because its caller did not read it and others needed the room.
pub(crate) fn answer_not_taken() -> Status {
    let text =
        "the answer was not read in time, and was dropped to free memory; the call may have been done".to_owned();
    retry(Code::ResourceExhausted, "OVERLOADED", text, RETRY_OVERLOAD)
}

/// The connection, or the caller, ended a request.
pub(crate) fn request_broken(error: Box<dyn std::error::Error + Send + Sync>) -> Status {
    Status::from_error(error)
}

/// Health is asked about a service that this server does not have.
pub(crate) fn unknown_service() -> Status {
    Status::not_found("this server has no such service")
}

/// The server is stopping.
pub(crate) fn shutting_down() -> Status {
    status(&Error::ShuttingDown)
}

/// An error as a message inside a reply.
pub(crate) fn rich(error: &Error) -> tonic_types::Status {
    let status = status(error);
    let details = prost::Message::decode(status.details());
    details.unwrap_or_else(|_| tonic_types::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

fn reason<'a>(reason: &str, metadata: impl IntoIterator<Item = (&'a str, String)>) -> ErrorDetails {
    let metadata: HashMap<_, _> =
        metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

/// Which resolution counts, and whose it is.
fn word_of(word: &CountingWord) -> [(&'static str, String); 2] {
    [("number", word.number.to_string()), ("resolved_by", word.resolved_by.clone())]
}

fn invalid(violations: &[Violation]) -> Status {
    fit_violations(Code::InvalidArgument, &reason("INVALID_ARGUMENT", []), violations)
}

fn not_found(why: &str, text: String, kind: &str, name: &str) -> Status {
    let mut details = reason(why, []);
    details.set_resource_info(kind, name, "", &text);
    fit(Code::NotFound, &text, details)
}

fn exists(why: &str, text: String, kind: &str, name: &str) -> Status {
    let mut details = reason(why, []);
    details.set_resource_info(kind, name, "", &text);
    fit(Code::AlreadyExists, &text, details)
}

fn precondition<'a>(
    why: &str,
    text: String,
    metadata: impl IntoIterator<Item = (&'a str, String)>,
) -> Status {
    fit(Code::FailedPrecondition, &text, reason(why, metadata))
}

fn retry(code: Code, why: &str, text: String, after: Duration) -> Status {
    retry_with(code, reason(why, []), &text, after)
}

fn retry_with(code: Code, mut details: ErrorDetails, text: &str, after: Duration) -> Status {
    details.set_retry_info(Some(after));
    fit(code, text, details)
}
