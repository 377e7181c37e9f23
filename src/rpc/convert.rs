//! Conversion of messages to values and back. What breaks a rule is collected, so that a caller is told all
//! of it at once. A value that could not be read stands in as `None` until then.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use time::OffsetDateTime;

use super::pb;
use crate::{
    domain::{
        account::Labels,
        credentials::{Credentials, Fault},
        id::InvalidId,
        money::{Currency, MAX_AMOUNT_MINOR, Money},
        text::looks_like_another,
    },
    service::error::{Error, Violation},
};

/// The most that one page of a list holds.
const MAX_PAGE: i32 = 1000;
/// The priority of those who are served first.
const MAX_PRIORITY: u8 = 9;
/// What a page holds when the caller does not say.
const DEFAULT_PAGE: i32 = 100;
const MAX_LABELS: usize = 32;

/// Reads a request's fields, and collects what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Fields {
    violations: Vec<Violation>,
}

impl Fields {
    /// Notes that `field` breaks `rule`. A field is named once, with the first rule that it breaks.
    pub(super) fn refuse(&mut self, field: &str, rule: impl Into<String>) {
        if self.violations.iter().any(|violation| violation.field == field) {
            return;
        }
        self.violations.push(Violation::new(field, rule));
    }

    /// All that was read, or all that is wrong with it.
    pub(super) fn finish<T>(self, read: Option<T>) -> Result<T, Error> {
        match read {
            Some(value) if self.violations.is_empty() => Ok(value),
            _ => Err(Error::Invalid(self.violations)),
        }
    }

    /// A name that must be there.
    pub(super) fn id<T>(
        &mut self,
        field: &str,
        text: &str,
        parse: fn(&str) -> Result<T, InvalidId>,
    ) -> Option<T> {
        match parse(text) {
            Ok(id) => Some(id),
            Err(InvalidId(rule)) => {
                self.refuse(field, rule);
                None
            }
        }
    }

    /// A name that may be left out.
    pub(super) fn optional_id<T>(
        &mut self,
        field: &str,
        text: &str,
        parse: fn(&str) -> Result<T, InvalidId>,
    ) -> Option<T> {
        if text.is_empty() { None } else { self.id(field, text, parse) }
    }

    /// Text for people: bounded, without control characters.
    pub(super) fn text(&mut self, field: &str, text: &str, max_chars: usize) -> Option<String> {
        let fits = !text.trim().is_empty()
            && text.chars().count() <= max_chars
            && !text.chars().any(|c| c.is_control() && c != '\n');
        if !fits {
            let rule = format!("must be 1 to {max_chars} characters without control characters");
            self.refuse(field, rule);
        }
        fits.then(|| text.to_owned())
    }

    /// A person's name.
    pub(super) fn person(&mut self, field: &str, text: &str) -> Option<String> {
        let name = self.text(field, text, 256)?;
        match looks_like_another(&name) {
            None => Some(name),
            Some(rule) => {
                self.refuse(field, rule);
                None
            }
        }
    }

    /// Text for people that may be left out.
    pub(super) fn optional_text(
        &mut self,
        field: &str,
        text: &str,
        max_chars: usize,
    ) -> Option<String> {
        if text.is_empty() { None } else { self.text(field, text, max_chars) }
    }

    /// A message that must be there.
    pub(super) fn required<T>(&mut self, field: &str, message: Option<T>) -> Option<T> {
        if message.is_none() {
            self.refuse(field, "must be set");
        }
        message
    }

    /// An amount of at least `least` minor units, if it is there.
    pub(super) fn money(
        &mut self,
        field: &str,
        money: Option<pb::Money>,
        least: i64,
    ) -> Option<Money> {
        let money = money?;
        let in_bounds = (least..=MAX_AMOUNT_MINOR).contains(&money.amount_minor);
        if !in_bounds {
            self.refuse(
                &format!("{field}.amount_minor"),
                format!("must be between {least} and {MAX_AMOUNT_MINOR}"),
            );
        }
        let currency = self.currency(&format!("{field}.currency_code"), &money.currency_code)?;
        in_bounds.then_some(Money { amount_minor: money.amount_minor, currency })
    }

    pub(super) fn currency(&mut self, field: &str, code: &str) -> Option<Currency> {
        let currency = Currency::parse(code);
        if currency.is_none() {
            self.refuse(field, "must be an ISO 4217 code: three upper-case letters");
        }
        currency
    }

    /// A country, if it is there.
    pub(super) fn country(&mut self, field: &str, code: &str) -> Option<String> {
        if code.is_empty() {
            return None;
        }
        let fits = code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase());
        if !fits {
            self.refuse(field, "must be an ISO 3166-1 alpha-2 code: two upper-case letters");
        }
        fits.then(|| code.to_owned())
    }

    /// A duration within bounds, if it is there.
    pub(super) fn duration(
        &mut self,
        field: &str,
        duration: Option<prost_types::Duration>,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let given = duration?;
        // Not `TryFrom`: it takes nanos beyond a second, and overflows on the most negative seconds.
        let seconds = u64::try_from(given.seconds).ok();
        let nanos = u32::try_from(given.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
        let read = seconds
            .zip(nanos)
            .map(|(seconds, nanos)| Duration::new(seconds, nanos))
            .filter(|d| (least..=most).contains(d));
        if read.is_none() {
            self.refuse(
                field,
                format!(
                    "must be between {} and {}",
                    humantime::format_duration(least),
                    humantime::format_duration(most)
                ),
            );
        }
        read
    }

    /// A priority: 0 to 9.
    pub(super) fn priority(&mut self, field: &str, priority: i32) -> u8 {
        let read = u8::try_from(priority).ok().filter(|priority| *priority <= MAX_PRIORITY);
        if read.is_none() {
            self.refuse(field, format!("must be between 0 and {MAX_PRIORITY}"));
        }
        read.unwrap_or(0)
    }

    /// A time of the years 1 to 9999, if it is there.
    pub(super) fn time(
        &mut self,
        field: &str,
        time: Option<prost_types::Timestamp>,
    ) -> Option<OffsetDateTime> {
        let given = time?;
        let nanos = u32::try_from(given.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
        let read = OffsetDateTime::from_unix_timestamp(given.seconds)
            .ok()
            .zip(nanos)
            .and_then(|(at, nanos)| at.replace_nanosecond(nanos).ok())
            .filter(|at| at.year() >= 1);
        if read.is_none() {
            self.refuse(field, "must be a time of the years 1 to 9999");
        }
        read
    }

    /// An enum's value: `None` for UNSPECIFIED, and refused when the contract has no such value.
    pub(super) fn choice<P, T>(
        &mut self,
        field: &str,
        value: i32,
        read: impl Fn(P) -> Option<T>,
    ) -> Option<T>
    where
        P: TryFrom<i32>,
    {
        match P::try_from(value) {
            Ok(value) => read(value),
            Err(_) => {
                self.refuse(field, format!("has no value {value}"));
                None
            }
        }
    }

    pub(super) fn labels(
        &mut self,
        field: &str,
        labels: std::collections::HashMap<String, String>,
    ) -> Labels {
        // In an order, so that an error always names them in the same one.
        let labels: Labels = labels.into_iter().collect();
        if labels.len() > MAX_LABELS {
            self.refuse(field, format!("must be at most {MAX_LABELS}"));
        }
        let fits = |text: &str, least: usize, most: usize| {
            (least..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control)
        };
        // Too many are one fault: a message has room for tens of thousands.
        for (key, value) in labels.iter().take(MAX_LABELS) {
            if !fits(key, 1, 63) {
                let rule = "must have keys of 1 to 63 characters without control characters";
                self.refuse(field, rule);
            } else if !fits(value, 0, 256) {
                let rule = "must be at most 256 characters without control characters";
                self.refuse(&format!("{field}[{key}]"), rule);
            } else if let Some(rule) = looks_like_another(key) {
                self.refuse(field, rule);
            } else if let Some(rule) = looks_like_another(value) {
                self.refuse(&format!("{field}[{key}]"), rule);
            }
        }
        labels
    }

    /// Credentials. Neither a value nor a name that is none is repeated.
    pub(super) fn credentials(
        &mut self,
        field: &str,
        given: std::collections::HashMap<String, String>,
    ) -> Option<Credentials> {
        let secret = |(name, value): (String, String)| (name, value.into());
        let faults = match Credentials::new(given.into_iter().map(secret).collect()) {
            Ok(credentials) => return Some(credentials),
            Err(faults) => faults,
        };
        let (of_one, of_all): (Vec<_>, Vec<_>) =
            faults.into_iter().partition(|fault| fault.name.is_some());
        if !of_all.is_empty() {
            let rules: Vec<_> = of_all.iter().map(|fault| fault.rule).collect();
            self.refuse(field, rules.join("; "));
        }
        for Fault { name, rule } in of_one {
            self.refuse(&format!("{field}[{}]", name.unwrap_or_default()), rule);
        }
        None
    }

    /// How many a page is to hold.
    pub(super) fn page_size(&mut self, page_size: i32) -> i64 {
        match page_size {
            0 => i64::from(DEFAULT_PAGE),
            1..=MAX_PAGE => i64::from(page_size),
            _ => {
                self.refuse("page_size", format!("must be between 0 and {MAX_PAGE}"));
                0
            }
        }
    }

    /// The last key of the page before; `None` for the first page.
    pub(super) fn page_token<T>(
        &mut self,
        token: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        if token.is_empty() {
            return None;
        }
        let key = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
        let key = key.and_then(|bytes| String::from_utf8(bytes).ok());
        let read = key.and_then(|key| read(&key));
        if read.is_none() {
            self.refuse("page_token", "must be empty, or the next_page_token of the page before");
        }
        read
    }
}

/// A name that a caller gave, to be told back to it: bounded.
pub(super) fn echo(name: &str) -> String {
    name.chars().take(256).collect()
}

pub(super) fn money(amount_minor: i64, currency: Currency) -> pb::Money {
    pb::Money { amount_minor, currency_code: currency.to_string() }
}

pub(super) fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.unix_timestamp(),
        nanos: i32::try_from(at.nanosecond()).unwrap_or(0),
    }
}

pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_beyond_the_limit_are_one_fault_however_many_a_message_holds() {
        let mut fields = Fields::default();
        let labels = (0..80_000).map(|n| (format!("k{n}"), "\u{1}".to_owned())).collect();
        fields.labels("labels", labels);
        let Err(Error::Invalid(violations)) = fields.finish(Some(())) else {
            panic!("labels were taken");
        };
        assert_eq!(violations.len(), 1 + MAX_LABELS);
        assert_eq!(violations[0].rule, format!("must be at most {MAX_LABELS}"));
    }
}
