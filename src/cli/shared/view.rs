//! Tables that commands print: the columns, and the row of each message.

mod audit;
mod considered;
mod plan;
mod provider;
mod subscription;
mod token;

use prost_types::{Duration, Timestamp};
use serde_json::{Map, Value};
use time::OffsetDateTime;

pub(crate) use self::{
    audit::{AUDIT_EVENT, AUDIT_EVENT_AT_A_GLANCE, audit_event},
    considered::{CONSIDERED, VERDICT, considered, verdict},
    plan::{PLAN, PLAN_AT_A_GLANCE, PLAN_FOR_PEOPLE, plan},
    provider::{PROVIDER, PROVIDER_WITH_FILE, held_back, provider, provider_status},
    subscription::{
        DELIVERY, DELIVERY_AT_A_GLANCE, SUBSCRIPTION, SUBSCRIPTION_AT_A_GLANCE, SUBSCRIPTION_SHOWN,
        delivery, subscription, subscription_shown,
    },
    token::{TOKEN, token},
};
use crate::rpc::pb;

/// A pool's columns.
pub(crate) const POOL: &[&str] = &[
    "pool_id",
    "currency_code",
    "provider_id",
    "paused",
    "draining",
    "default_lease",
    "min_lease",
    "max_lease",
    "amount_mismatch",
    "holder_share_percent",
    "hold_login_invalid",
    "hold_limit_reached",
    "hold_throttled",
    "hold_longest",
    "create_time",
    "update_time",
];

/// A pool's row.
pub(crate) fn pool(pool: &pb::Pool) -> Vec<Value> {
    let holds = pool.hold_durations.unwrap_or_default();
    vec![
        text(&pool.pool_id),
        text(&pool.currency_code),
        text(&pool.provider_id),
        pool.paused().into(),
        pool.draining().into(),
        span(pool.default_lease_duration.as_ref()),
        span(pool.min_lease_duration.as_ref()),
        span(pool.max_lease_duration.as_ref()),
        name(pool.amount_mismatch_policy().as_str_name(), "AMOUNT_MISMATCH_POLICY_"),
        pool.holder_share_percent.into(),
        span(holds.login_invalid.as_ref()),
        span(holds.limit_reached.as_ref()),
        span(holds.throttled.as_ref()),
        span(holds.longest.as_ref()),
        time(pool.create_time.as_ref()),
        time(pool.update_time.as_ref()),
    ]
}

/// An account's columns.
pub(crate) const ACCOUNT: &[&str] = &[
    "pool_id",
    "account_id",
    "status",
    "login_status",
    "plan_id",
    "country_code",
    "balance_minor",
    "currency_code",
    "plan_day",
    "day_credited_minor",
    "reserved_minor",
    "available_time",
    "hold",
    "hold_expire_time",
    "hold_count",
    "paused",
    "draining",
    "holder",
    "lease_principal",
    "lease_expire_time",
    "open_redemption_id",
    "labels",
    "update_time",
];

/// An account's row. What does not concern it is left empty: a day where there is no plan, a hold that
/// is not there, and a pause or a drain that is not on.
pub(crate) fn account(account: &pb::Account) -> Vec<Value> {
    let lease = account.lease.as_ref();
    let hold = account.hold.as_ref();
    let planned = !account.plan_id.is_empty();
    vec![
        text(&account.pool_id),
        text(&account.account_id),
        status(account.status()),
        name(account.login_status().as_str_name(), "LOGIN_STATUS_"),
        text(&account.plan_id),
        text(&account.country_code),
        amount(account.balance.as_ref()),
        currency(account.balance.as_ref()),
        if planned { account.plan_day.into() } else { Value::Null },
        if planned { amount(account.day_credited.as_ref()) } else { Value::Null },
        amount(account.reserved.as_ref()),
        time(account.available_time.as_ref()),
        hold.map_or(Value::Null, |hold| name(hold.cause().as_str_name(), "HOLD_CAUSE_")),
        time(hold.and_then(|hold| hold.expire_time.as_ref())),
        hold.map_or(Value::Null, |hold| hold.count.into()),
        set(account.paused()),
        set(account.draining()),
        lease.map_or(Value::Null, |lease| text(&lease.holder)),
        lease.map_or(Value::Null, |lease| text(&lease.principal)),
        time(lease.and_then(|lease| lease.expire_time.as_ref())),
        text(&account.open_redemption_id),
        labels(&account.labels),
        time(account.update_time.as_ref()),
    ]
}

/// The columns of an account's event.
pub(crate) const EVENT: &[&str] = &[
    "version",
    "event_time",
    "actor",
    "principal",
    "reason",
    "from_status",
    "to_status",
    "fencing_token",
    "balance_minor",
    "redemption_id",
    "lease_expire_time",
];

/// The row of an account's event.
pub(crate) fn event(event: &pb::AccountEvent) -> Vec<Value> {
    vec![
        event.version.into(),
        time(event.event_time.as_ref()),
        text(&event.actor),
        text(&event.principal),
        text(&event.reason),
        status(event.from_status()),
        status(event.to_status()),
        event.fencing_token.into(),
        amount(event.balance.as_ref()),
        text(&event.redemption_id),
        time(event.lease_expire_time.as_ref()),
    ]
}

/// A redemption's columns.
pub(crate) const REDEMPTION: &[&str] = &[
    "redemption_id",
    "state",
    "account_id",
    "code_last4",
    "expected_minor",
    "amount_minor",
    "currency_code",
    "amount_mismatch",
    "reason",
    "message",
    "code_spent",
    "provider_ref",
    "attempts",
    "request_id",
    "principal",
    "create_time",
    "finish_time",
    "next_check_time",
    "last_answer",
    "resolved_by",
    "resolution",
    "evidence",
    "resolution_number",
    "superseded_resolutions",
    "reverse_time",
    "reversal_state",
    "reversed_by",
    "reversal_reason",
    "reversal_answer",
    "pool_id",
    "age",
    "age_seconds",
];

/// The columns of outcomes as they are recorded.
pub(crate) const REDEMPTION_WATCHED: &[&str] = &[
    "redemption_id",
    "state",
    "account_id",
    "code_last4",
    "expected_minor",
    "amount_minor",
    "currency_code",
    "amount_mismatch",
    "reason",
    "message",
    "code_spent",
    "provider_ref",
    "reverse_time",
    "reversal_state",
    "pool_id",
    "cursor",
];

/// A row of these: of a row of a redemption, and the cursor after it.
pub(crate) fn watched(redemption: &[Value], cursor: &str) -> Vec<Value> {
    let columns = &REDEMPTION_WATCHED[..REDEMPTION_WATCHED.len() - 1];
    let mut row = choose(columns, REDEMPTION, redemption);
    row.push(cursor.into());
    row
}

/// The columns of a list of redemptions: those that fit on a terminal.
pub(crate) const REDEMPTION_AT_A_GLANCE: &[&str] = &[
    "pool_id",
    "redemption_id",
    "state",
    "age",
    "account_id",
    "expected_minor",
    "amount_minor",
    "attempts",
    "next_check_time",
    "reason",
    "message",
    "last_answer",
];

/// Some columns of a row: those of `columns`, in their order, of a row that has all of `of`.
pub(crate) fn choose(columns: &[&str], of: &[&str], row: &[Value]) -> Vec<Value> {
    let index = |column: &&str| of.iter().position(|name| name == column);
    columns.iter().filter_map(index).filter_map(|index| row.get(index).cloned()).collect()
}

/// A redemption's row, as it was at `now`.
pub(crate) fn redemption(redemption: &pb::Redemption, now: OffsetDateTime) -> Vec<Value> {
    let age = redemption.create_time.as_ref().map(|created| age(created, now));
    let failure = redemption.failure.as_ref();
    let resolution = redemption.resolution.as_ref();
    let reversal = redemption.reversal.as_ref();
    let money = redemption.amount.as_ref().or(redemption.expected.as_ref());
    vec![
        text(&redemption.redemption_id),
        state(redemption.state()),
        text(&redemption.account_id),
        text(&redemption.code_last4),
        amount(redemption.expected.as_ref()),
        amount(redemption.amount.as_ref()),
        currency(money),
        redemption.amount_mismatch.into(),
        failure.map_or(Value::Null, |it| text(&it.reason)),
        failure.map_or(Value::Null, |it| text(&it.message)),
        failure.map_or(Value::Null, |it| it.code_spent.into()),
        text(&redemption.provider_ref),
        redemption.attempts.into(),
        text(&redemption.request_id),
        text(&redemption.principal),
        time(redemption.create_time.as_ref()),
        time(redemption.finish_time.as_ref()),
        time(redemption.next_check_time.as_ref()),
        text(&redemption.last_answer),
        resolution.map_or(Value::Null, |it| text(&it.resolved_by)),
        resolution.map_or(Value::Null, |it| text(&it.reason)),
        resolution.map_or(Value::Null, |it| text(&it.evidence)),
        resolution.filter(|it| it.number > 0).map_or(Value::Null, |it| it.number.into()),
        superseded(&redemption.superseded_resolutions),
        time(redemption.reverse_time.as_ref()),
        reversal.map_or(Value::Null, |it| name(it.state().as_str_name(), "REVERSAL_STATE_")),
        reversal.map_or(Value::Null, |it| text(&it.reversed_by)),
        reversal.map_or(Value::Null, |it| text(&it.reason)),
        reversal.map_or(Value::Null, |it| text(&it.last_answer)),
        text(&redemption.pool_id),
        age.map_or(Value::Null, |age| rough(age).into()),
        age.map_or(Value::Null, |age| age.as_secs().into()),
    ]
}

/// What people said before, one after the other; null where nothing was corrected.
fn superseded(said: &[pb::SupersededResolution]) -> Value {
    let one = |said: &pb::SupersededResolution| {
        let word = said.resolution.clone().unwrap_or_default();
        let state = said.state().as_str_name().trim_start_matches("REDEMPTION_STATE_");
        let amount = said.amount.as_ref().map(|it| format!(" {}", it.amount_minor));
        let evidence = Some(word.evidence).filter(|it| !it.is_empty());
        let evidence = evidence.map(|it| format!(" ({it})")).unwrap_or_default();
        let (number, amount, by) = (word.number, amount.unwrap_or_default(), word.resolved_by);
        format!("{number}: {state}{amount} by {by}: {}{evidence}", word.reason)
    };
    text(&said.iter().map(one).collect::<Vec<_>>().join("; "))
}

/// How long ago something was; 0 when the clocks say that it is yet to come.
fn age(created: &Timestamp, now: OffsetDateTime) -> std::time::Duration {
    let seconds = now.unix_timestamp().saturating_sub(created.seconds);
    std::time::Duration::from_secs(seconds.try_into().unwrap_or(0))
}

/// A duration by its two largest units: `3days 4h`, `12m 5s`.
fn rough(span: std::time::Duration) -> String {
    let exact = humantime::format_duration(span).to_string();
    let units: Vec<&str> = exact.split(' ').take(2).collect();
    units.join(" ")
}

/// A redemption's state, without the prefix that protobuf needs.
pub(crate) fn state(state: pb::RedemptionState) -> Value {
    name(state.as_str_name(), "REDEMPTION_STATE_")
}

/// An account's status, without the prefix that protobuf needs.
pub(crate) fn status(status: pb::AccountStatus) -> Value {
    name(status.as_str_name(), "ACCOUNT_STATUS_")
}

/// An amount in minor units; null when there is none.
pub(crate) fn amount(money: Option<&pb::Money>) -> Value {
    money.map_or(Value::Null, |money| money.amount_minor.into())
}

/// An amount's currency; null when there is none.
pub(crate) fn currency(money: Option<&pb::Money>) -> Value {
    money.map_or(Value::Null, |money| text(&money.currency_code))
}

/// Text; null when empty, as protobuf has it for what is not set.
pub(crate) fn text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

fn name(full: &'static str, prefix: &str) -> Value {
    match full.strip_prefix(prefix).unwrap_or(full) {
        "UNSPECIFIED" => Value::Null,
        short => short.into(),
    }
}

/// A flag that is on; null when it is off.
fn set(flag: bool) -> Value {
    if flag { true.into() } else { Value::Null }
}

fn time(time: Option<&Timestamp>) -> Value {
    time.map_or(Value::Null, |time| time.to_string().into())
}

fn span(span: Option<&Duration>) -> Value {
    let span = span.and_then(|span| std::time::Duration::try_from(*span).ok());
    span.map_or(Value::Null, |span| humantime::format_duration(span).to_string().into())
}

fn labels(labels: &std::collections::HashMap<String, String>) -> Value {
    if labels.is_empty() {
        return Value::Null;
    }
    let map: Map<String, Value> =
        labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_fills_its_columns() {
        assert_eq!(pool(&pb::Pool::default()).len(), POOL.len());
        assert_eq!(plan(&pb::Plan::default()).len(), PLAN.len());
        assert_eq!(account(&pb::Account::default()).len(), ACCOUNT.len());
        assert_eq!(considered(&pb::ConsideredAccount::default()).len(), CONSIDERED.len());
        assert_eq!(verdict(&pb::VerdictCount::default()).len(), VERDICT.len());
        assert_eq!(event(&pb::AccountEvent::default()).len(), EVENT.len());
        let now = OffsetDateTime::UNIX_EPOCH;
        let row = redemption(&pb::Redemption::default(), now);
        assert_eq!(row.len(), REDEMPTION.len());
        let glance = choose(REDEMPTION_AT_A_GLANCE, REDEMPTION, &row);
        assert_eq!(glance.len(), REDEMPTION_AT_A_GLANCE.len());
    }

    #[test]
    fn an_open_redemption_tells_how_old_it_is_and_why_it_is_open() {
        let open = pb::Redemption {
            redemption_id: "r".into(),
            pool_id: "p".into(),
            attempts: 7,
            last_answer: "HTTP 500".into(),
            create_time: Some(Timestamp { seconds: 1_000, nanos: 999_999_999 }),
            next_check_time: Some(Timestamp { seconds: 90_000, nanos: 0 }),
            resolution: Some(pb::Resolution { evidence: "ticket 7".into(), ..Default::default() }),
            ..Default::default()
        };
        let seen = |now: i64, column: &str| {
            let row = redemption(&open, OffsetDateTime::from_unix_timestamp(now).unwrap());
            choose(&[column], REDEMPTION, &row).remove(0)
        };
        let now = 1_000 + 26 * 3600 + 61;
        assert_eq!((seen(now, "age"), seen(now, "age_seconds")), ("1day 2h".into(), 93_661.into()));
        assert_eq!((seen(999, "age"), seen(999, "age_seconds")), ("0s".into(), 0.into()));
        assert_eq!((seen(now, "pool_id"), seen(now, "attempts")), ("p".into(), 7.into()));
        assert_eq!(seen(now, "last_answer"), "HTTP 500");
        assert_eq!(seen(now, "next_check_time"), "1970-01-02T01:00:00Z");
        assert_eq!(seen(now, "evidence"), "ticket 7");
    }

    #[test]
    fn an_account_tells_its_day_and_why_it_rests_and_nothing_that_does_not_concern_it() {
        let money = |amount_minor| pb::Money { amount_minor, currency_code: "EUR".into() };
        let seen = |it: &pb::Account, columns: &[&str]| choose(columns, ACCOUNT, &account(it));
        let columns = ["plan_day", "day_credited_minor", "reserved_minor", "hold", "hold_count"];
        let mut it =
            pb::Account { plan_day: 1, day_credited: Some(money(0)), ..Default::default() };
        assert_eq!(seen(&it, &columns), vec![Value::Null; 5]);
        assert_eq!(seen(&it, &["paused", "draining"]), vec![Value::Null; 2]);
        it.plan_id = "steady".into();
        it.plan_day = 3;
        it.day_credited = Some(money(2500));
        it.reserved = Some(money(1000));
        it.draining = Some(true);
        it.hold = Some(pb::AccountHold {
            cause: pb::HoldCause::Throttled.into(),
            expire_time: Some(Timestamp { seconds: 0, nanos: 0 }),
            count: 2,
        });
        let wanted: [Value; 5] = [3.into(), 2500.into(), 1000.into(), "THROTTLED".into(), 2.into()];
        assert_eq!(seen(&it, &columns), wanted);
        assert_eq!(seen(&it, &["paused", "draining"]), [Value::Null, true.into()]);
    }

    #[test]
    fn what_is_shown_is_short() {
        assert_eq!(state(pb::RedemptionState::InDoubt), "IN_DOUBT");
        assert_eq!(state(pb::RedemptionState::Unspecified), Value::Null);
        assert_eq!(span(Some(&Duration { seconds: 90, nanos: 0 })), "1m 30s");
        assert_eq!(time(Some(&Timestamp { seconds: 0, nanos: 0 })), "1970-01-01T00:00:00Z");
    }
}
