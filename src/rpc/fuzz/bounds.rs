//! The bounds of what requests become, as the contract's comments have them.

use std::time::Duration;

use crate::{
    domain::{
        account::Labels, credentials::Credentials, lease::LeaseRef, money::Money,
        text::looks_like_another,
    },
    service::{
        admin::{
            accounts::{CreateCommand, UpdateCommand},
            plans::{Amounts, PlanChange},
        },
        batch::Selection,
    },
};

const DAY: u64 = 24 * 60 * 60;
const MOST_MINOR: i64 = 1_000_000_000_000_000;

/// A page of so many.
pub(super) fn page(limit: i64) {
    assert!((1..=1000).contains(&limit), "a page of {limit}");
}

/// A duration of so many seconds, if there is one.
pub(super) fn seconds(given: Option<Duration>, least: u64, most: u64) {
    let fits =
        |given: Duration| (Duration::from_secs(least)..=Duration::from_secs(most)).contains(&given);
    assert!(given.is_none_or(fits), "a duration of {given:?}");
}

/// How long a lease may last.
pub(super) fn lease_duration(given: Option<Duration>) {
    seconds(given, 1, DAY);
}

/// How long an interval of a pool or a plan may be.
pub(super) fn interval(given: Option<Duration>) {
    seconds(given, 0, 366 * DAY);
}

pub(super) fn money(given: Option<Money>, least: i64) {
    minor(given.map(|money| money.amount_minor), least);
}

pub(super) fn minor(given: Option<i64>, least: i64) {
    assert!(
        given.is_none_or(|minor| (least..=MOST_MINOR).contains(&minor)),
        "an amount of {given:?}"
    );
}

/// Text for people, if there is any.
pub(super) fn text(given: Option<&str>, most: usize) {
    let fits = |text: &str| (1..=most).contains(&text.chars().count());
    assert!(given.is_none_or(fits), "a text without characters, or of more than {most}");
}

pub(super) fn labels(labels: &Labels) {
    assert!(labels.len() <= 32, "{} labels", labels.len());
    for (key, value) in labels {
        assert!((1..=63).contains(&key.chars().count()) && value.chars().count() <= 256);
        assert!(!key.chars().chain(value.chars()).any(char::is_control));
        assert!(looks_like_another(key).or_else(|| looks_like_another(value)).is_none());
    }
}

pub(super) fn country(code: Option<&str>) {
    let fits = |code: &str| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    assert!(code.is_none_or(fits), "a country {code:?}");
}

pub(super) fn lease(lease: &LeaseRef) {
    assert!(lease.token.0 >= 1, "a lease with the token {}", lease.token.0);
}

pub(super) fn selection(selection: &Selection) {
    let Selection { selector, min_headroom, expected } = selection;
    money(*min_headroom, 0);
    money(*expected, 1);
    assert_eq!(selector.min_headroom_minor, min_headroom.map(|money| money.amount_minor));
    country(selector.country_code.as_deref());
    labels(&selector.labels);
    assert!(selector.exclude.len() <= 1000, "{} accounts are excluded", selector.exclude.len());
}

pub(super) fn new_account(command: &CreateCommand) {
    country(command.new.country_code.as_deref());
    labels(&command.new.labels);
    minor(Some(command.new.balance_minor), 0);
    credentials(&command.credentials);
}

pub(super) fn account_change(command: &UpdateCommand) {
    country(command.change.country_code.as_ref().and_then(|code| code.as_deref()));
    if let Some(given) = &command.change.labels {
        labels(given);
    }
    if let Some(given) = &command.credentials {
        credentials(given);
    }
}

fn credentials(credentials: &Credentials) {
    assert!(credentials.expose().count() <= 32);
    for (_, value) in credentials.expose() {
        assert!((1..=4096).contains(&value.len()) && !value.chars().any(char::is_control));
    }
}

pub(super) fn plan(change: &PlanChange, amounts: &Amounts) {
    minor(change.target_minor, 1);
    minor(change.day_tolerance_minor, 0);
    interval(change.day_interval);
    interval(change.redemption_interval);
    let days = change.day_amounts_minor.as_deref().unwrap_or_default();
    assert!(days.len() <= 366, "{} days", days.len());
    days.iter().for_each(|day| minor(Some(*day), 1));
    amounts.iter().for_each(|(_, amount)| money(Some(*amount), 0));
}
