//! Requests, from their bytes to what services are asked.

use std::{fmt, time::Duration};

use prost::Message;

use super::bounds;
use crate::{
    admission::Caller,
    domain::{
        id::PoolId,
        principal::{Authority, Principal},
    },
    rpc::{
        access, account, audit_events,
        methods::Method,
        pb::{self, batch_redeem_request::Message as BatchMessage},
        plan, pool, provider,
        redemption::{self, batch, explain},
        status, subscription,
    },
    service::{
        Error,
        admin::{plans::PlanChange, redemptions::ResolvedOutcome},
        batch::Incoming,
    },
};

/// What a request becomes: a command about a pool, if about one; or why not.
type Read = Result<Option<PoolId>, Error>;

/// Reads the input as the request of an RPC, as its handler does. Answers whether a service would be asked.
///
/// # Panics
/// When it becomes something that it must not; or when nobody has written here how the RPC's request is read.
pub(super) fn check(method: &Method, input: &[u8]) -> bool {
    match &*method.name {
        "AcquireAccount" => plain(method, input, acquire),
        "ExplainAcquire" => plain(method, input, |request| {
            let (pool_id, selection, limit) = explain::read(request)?;
            bounds::selection(&selection);
            bounds::page(limit);
            Ok(Some(pool_id))
        }),
        "RenewLease" => plain(method, input, |request| {
            let (lease, duration) = redemption::read_renewal(request)?;
            bounds::lease(&lease);
            bounds::lease_duration(duration);
            Ok(Some(lease.pool_id))
        }),
        "ReleaseAccount" => plain(method, input, |request| {
            let lease = redemption::read_release(request)?;
            bounds::lease(&lease);
            Ok(Some(lease.pool_id))
        }),
        "Redeem" => with_secrets(method, input, |request| vec![&mut request.code], redeem),
        "RedeemCard" => with_secrets(
            method,
            input,
            |request: &mut pb::RedeemCardRequest| vec![&mut request.code],
            |request| {
                let command =
                    redemption::read_card(request, Caller::default(), Authority::default())?;
                bounds::money(command.expected, 1);
                bounds::seconds(Some(command.wait), 0, 600);
                Ok(Some(command.pool_id))
            },
        ),
        "BatchRedeem" => with_secrets(method, input, codes_of_batch, batch),
        "GetRedemption" => {
            plain(method, input, |request| Ok(Some(redemption::read_get(request)?.0)))
        }
        "AwaitRedemption" => plain(method, input, |request| {
            let (pool_id, _, longest) = redemption::read_await(request)?;
            assert!(longest <= Duration::from_secs(600));
            Ok(Some(pool_id))
        }),
        "ListRedemptions" => plain(method, input, |request| {
            let by = Authority::default();
            let (pool_id, filter, _, limit) = redemption::read_list(request, by)?;
            assert!(filter.states.len() <= 16 && filter.reversal_states.len() <= 16);
            bounds::page(limit);
            Ok(Some(pool_id))
        }),
        "WatchRedemptions" => {
            plain(method, input, |request| Ok(Some(redemption::watch::read(request)?.0)))
        }
        "ResolveRedemption" => plain(method, input, resolve),
        "ReverseRedemption" => plain(method, input, |request| {
            let command = redemption::read_reverse(request, Authority::default())?;
            bounds::text(Some(&command.words.reason), 1000);
            bounds::text(command.words.evidence.as_deref(), 1000);
            Ok(Some(command.pool_id))
        }),
        "CreateAccount" => with_secrets(
            method,
            input,
            |request: &mut pb::CreateAccountRequest| credentials_of(&mut request.account),
            |request| new_account(request.account),
        ),
        "ImportAccounts" => with_secrets(
            method,
            input,
            |request: &mut pb::ImportAccountsRequest| credentials_of(&mut request.account),
            |request| new_account(request.account),
        ),
        "UpdateAccount" => with_secrets(
            method,
            input,
            |request: &mut pb::UpdateAccountRequest| credentials_of(&mut request.account),
            |request| {
                let (pool_id, _, command) = account::read_change(request)?;
                bounds::account_change(&command);
                Ok(Some(pool_id))
            },
        ),
        "CorrectBalance" => plain(method, input, |request| {
            let command = account::read_correction(request, Authority::default())?;
            bounds::money(Some(command.balance), 0);
            bounds::money(Some(command.expected), 0);
            bounds::text(Some(&command.reason), 1000);
            bounds::text(Some(&command.corrected_by), 256);
            bounds::text(command.evidence.as_deref(), 1000);
            Ok(Some(command.pool_id))
        }),
        "GetAccount" => plain(method, input, |request: pb::GetAccountRequest| {
            Ok(Some(account::read_names(&request.pool_id, &request.account_id)?.0))
        }),
        "ListAccounts" => plain(method, input, |request| {
            let (pool_id, _, _, limit) = account::read_list(request)?;
            bounds::page(limit);
            Ok(Some(pool_id))
        }),
        "ListAccountEvents" => plain(method, input, |request| {
            let (pool_id, _, _, _, limit) = account::read_events(request)?;
            bounds::page(limit);
            Ok(Some(pool_id))
        }),
        _ => check_the_rest(method, input),
    }
}

/// Those of the services that callers with cards do not use.
fn check_the_rest(method: &Method, input: &[u8]) -> bool {
    match &*method.name {
        "CreatePool" => plain(method, input, new_pool),
        "UpdatePool" => plain(method, input, |request| {
            let (pool_id, _, change) = pool::read_pool_change(request)?;
            bounds::lease_duration(change.default_lease);
            bounds::lease_duration(change.min_lease);
            bounds::lease_duration(change.max_lease);
            bounds::interval(change.holds.longest);
            assert!(change.holder_share_percent.is_none_or(|share| (1..=100).contains(&share)));
            Ok(Some(pool_id))
        }),
        "GetPool" => plain(method, input, |request: pb::GetPoolRequest| {
            Ok(Some(pool::read_name(&request.pool_id)?))
        }),
        "DeletePool" => plain(method, input, |request: pb::DeletePoolRequest| {
            Ok(Some(pool::read_name(&request.pool_id)?))
        }),
        "ListPools" => plain(method, input, |request| {
            bounds::page(pool::read_list(request)?.1);
            Ok(None)
        }),
        "CreatePlan" => plain(method, input, |request| {
            let (pool_id, _, terms, amounts) = plan::read_new_plan(request)?;
            bounds::minor(Some(terms.target_minor), 1);
            bounds::plan(&PlanChange::default(), &amounts);
            Ok(Some(pool_id))
        }),
        "UpdatePlan" => plain(method, input, |request| {
            let (pool_id, _, change, amounts) = plan::read_plan_change(request)?;
            bounds::plan(&change, &amounts);
            Ok(Some(pool_id))
        }),
        "GetPlan" => plain(method, input, |request: pb::GetPlanRequest| {
            Ok(Some(plan::read_plan_names(&request.pool_id, &request.plan_id)?.0))
        }),
        "DeletePlan" => plain(method, input, |request: pb::DeletePlanRequest| {
            Ok(Some(plan::read_plan_names(&request.pool_id, &request.plan_id)?.0))
        }),
        "ListPlans" => plain(method, input, |request| {
            let (pool_id, _, limit) = plan::read_plan_list(request)?;
            bounds::page(limit);
            Ok(Some(pool_id))
        }),
        // The text is handed on as it is: the target `profile` reads it.
        "ApplyProvider" => plain(method, input, |_: pb::ApplyProviderRequest| Ok(None)),
        "CheckProvider" => plain(method, input, |_: pb::CheckProviderRequest| Ok(None)),
        "GetProvider" => plain(method, input, |request| {
            let (_, version) = provider::read_get(request)?;
            assert!(version.is_none_or(|version| version >= 1));
            Ok(None)
        }),
        "ListProviders" => plain(method, input, |request| {
            bounds::page(provider::read_list(request)?.1);
            Ok(None)
        }),
        "CreateSubscription" => {
            plain(method, input, |request| Ok(Some(subscription::read_new(request)?.0)))
        }
        "GetSubscription" => plain(method, input, |request: pb::GetSubscriptionRequest| {
            Ok(Some(subscription::read_names(&request.pool_id, &request.subscription_id)?.0))
        }),
        "DeleteSubscription" => plain(method, input, |request: pb::DeleteSubscriptionRequest| {
            Ok(Some(subscription::read_names(&request.pool_id, &request.subscription_id)?.0))
        }),
        "ListSubscriptions" => plain(method, input, |request| {
            let (pool_id, _, limit) = subscription::read_list(request)?;
            bounds::page(limit);
            Ok(Some(pool_id))
        }),
        "UpdateSubscription" => {
            plain(method, input, |request| Ok(Some(subscription::read_change(request)?.0)))
        }
        "RotateSubscriptionSecret" => plain(method, input, |request| {
            let (pool_id, _, overlap) = subscription::read_rotation(request)?;
            bounds::seconds(Some(overlap), 0, 30 * 24 * 60 * 60);
            Ok(Some(pool_id))
        }),
        "ListDeliveries" => plain(method, input, |request| {
            let asked = subscription::read_deliveries(request)?;
            bounds::page(asked.limit);
            Ok(Some(asked.pool_id))
        }),
        "RetryDeliveries" => plain(method, input, |request| {
            let (pool_id, _, deliveries) = subscription::read_retry(request)?;
            assert!(deliveries.len() <= 1000);
            Ok(Some(pool_id))
        }),
        "CreateToken" => plain(method, input, |request| {
            let (_, grants, lifetime) = access::read_new_token(request)?;
            assert!((1..=32).contains(&grants.iter().count()));
            bounds::seconds(lifetime, 60, 10 * 366 * 24 * 60 * 60);
            Ok(None)
        }),
        "ListTokens" => plain(method, input, |request| {
            bounds::page(access::read_list(request)?.1);
            Ok(None)
        }),
        "RevokeToken" => plain(method, input, |request| access::read_name(request).map(|_| None)),
        "ListAuditEvents" => plain(method, input, |request| {
            let (filter, _, limit) = audit_events::read(request, None)?;
            bounds::text(filter.principal.as_deref(), 512);
            bounds::text(filter.subject.as_deref(), 512);
            bounds::page(limit);
            Ok(filter.pool_id)
        }),
        rpc => panic!("the requests of {rpc} are not fuzzed: write here how they are read"),
    }
}

/// A request without secrets.
fn plain<M: Message + Default>(
    method: &Method,
    input: &[u8],
    read: impl Fn(M) -> Result<Option<PoolId>, Error>,
) -> bool {
    decode::<M>(input).is_some_and(|message| check_read(method, input, &read(message)))
}

/// A request with secrets. What is told of it must not depend on them, so it is read again with others in their place.
fn with_secrets<M: Message + Default + Clone + fmt::Debug>(
    method: &Method,
    input: &[u8],
    secrets: impl Fn(&mut M) -> Vec<&mut String>,
    read: impl Fn(M) -> Read,
) -> bool {
    let Some(message) = decode::<M>(input) else { return false };
    let mut with_others = message.clone();
    secrets(&mut with_others).into_iter().for_each(|secret| *secret = other(secret));
    assert_eq!(format!("{message:?}"), format!("{with_others:?}"), "a secret is printed");
    let (found, of_others) = (read(message), read(with_others));
    assert_eq!(told(&found), told(&of_others), "{}: what is told shows a secret", method.name);
    check_read(method, input, &found)
}

fn decode<M: Message + Default>(input: &[u8]) -> Option<M> {
    match M::decode(input) {
        Ok(message) => Some(message),
        Err(error) => {
            check_status(&status::undecodable(&error));
            None
        }
    }
}

/// Another secret of the same kind: as long, and of letters and digits where the first one is.
fn other(secret: &str) -> String {
    let next = |c: char| match c {
        'z' => 'a',
        'Z' => 'A',
        '9' => '0',
        'a'..='y' | 'A'..='Y' | '0'..='8' => char::from(c as u8 + 1),
        _ => c,
    };
    secret.chars().map(next).collect()
}

/// All that anybody is told about a request.
fn told(read: &Read) -> String {
    match read {
        Ok(pool) => format!("{pool:?}"),
        Err(error) => format!("{error} {error:?} {:?}", status::status(error)),
    }
}

fn check_read(method: &Method, input: &[u8], read: &Read) -> bool {
    let rpc = &method.name;
    match read {
        // Who may call is decided by the pool that is found in the bytes.
        Ok(Some(pool)) => {
            assert_eq!(method.pool(input), Some(pool.as_str()), "{rpc}: another pool")
        }
        Ok(None) => assert!(method.names_no_pool(input), "{rpc}: a pool that nobody reads"),
        Err(error) => {
            assert!(matches!(error, Error::Invalid(_)), "{rpc}: {error:?}");
            check_status(&status::status(error));
        }
    }
    read.is_ok()
}

fn check_status(status: &tonic::Status) {
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    let bytes = status::trailers::bytes(status);
    assert!(bytes <= status::trailers::MAX_BLOCK_BYTES, "an error of {bytes} bytes");
}

fn acquire(request: pb::AcquireAccountRequest) -> Read {
    let command = redemption::read_acquire(request, Caller::default(), Principal::default())?;
    bounds::lease_duration(command.ttl);
    bounds::seconds(Some(command.wait), 0, 600);
    bounds::money(command.expected, 1);
    bounds::money(command.min_headroom, 0);
    bounds::labels(&command.selector.labels);
    Ok(Some(command.pool_id))
}

fn redeem(request: pb::RedeemRequest) -> Read {
    let command = redemption::read_redeem(request, Caller::default(), Authority::default())?;
    bounds::lease(&command.lease);
    bounds::money(command.card.expected, 1);
    Ok(Some(command.lease.pool_id))
}

fn codes_of_batch(request: &mut pb::BatchRedeemRequest) -> Vec<&mut String> {
    match &mut request.message {
        Some(BatchMessage::Item(item)) => vec![&mut item.code],
        _ => Vec::new(),
    }
}

/// As the first message, and as one after it. An item is about its batch's pool, which the first message named.
fn batch(request: pb::BatchRedeemRequest) -> Read {
    let item = batch::read_item(request.message.clone());
    match (batch::read_open(request.message, Authority::default()), item) {
        (Ok(open), Incoming::Malformed(..)) => {
            bounds::selection(&open.selection);
            assert!((1..=1024).contains(&open.max_in_flight));
            bounds::seconds(Some(open.item_timeout), 1, 600);
            Ok(Some(open.pool_id))
        }
        (Err(error), Incoming::Item(item)) => {
            bounds::money(item.expected, 1);
            bounds::selection(&item.selection);
            Err(error)
        }
        (Err(_), Incoming::Malformed(_, error)) => Err(error),
        (Ok(_), Incoming::Item(_)) => panic!("a message opens a batch and is an item of it"),
    }
}

fn resolve(request: pb::ResolveRedemptionRequest) -> Read {
    let command = redemption::read_resolve(request, Authority::default())?;
    bounds::text(Some(&command.resolution.reason), 1000);
    bounds::text(Some(&command.resolution.resolved_by), 256);
    bounds::text(command.resolution.evidence.as_deref(), 1000);
    if let ResolvedOutcome::Succeeded { amount, provider_ref } = &command.outcome {
        bounds::money(Some(*amount), 1);
        bounds::text(provider_ref.as_deref(), 256);
    }
    Ok(Some(command.pool_id))
}

fn credentials_of(account: &mut Option<pb::Account>) -> Vec<&mut String> {
    account.iter_mut().flat_map(|account| account.credentials.values_mut()).collect()
}

fn new_account(account: Option<pb::Account>) -> Read {
    let (pool_id, command) = account::read_new_account(account)?;
    bounds::new_account(&command);
    Ok(Some(pool_id))
}

fn new_pool(request: pb::CreatePoolRequest) -> Read {
    let pool = pool::read_new_pool(request)?;
    for duration in [pool.default_lease, pool.min_lease, pool.max_lease] {
        bounds::lease_duration(Some(duration));
    }
    for hold in [pool.holds.login_invalid, pool.holds.limit_reached, pool.holds.throttled] {
        bounds::interval(Some(hold));
    }
    assert!((1..=100).contains(&pool.holder_share_percent));
    Ok(Some(pool.pool_id))
}

/// See [`is_taken`](super::is_taken).
pub(super) fn is_taken(item: Option<pb::BatchItem>, account: Option<pb::Account>) -> bool {
    let is_item = item.is_none_or(|item| {
        matches!(batch::read_item(Some(BatchMessage::Item(item))), Incoming::Item(_))
    });
    is_item && account.is_none_or(|account| account::read_new_account(Some(account)).is_ok())
}
