//! The values that a call has for the names in templates.

use std::collections::BTreeMap;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{keys::KeyKind, money::major, names::Name};
use crate::domain::{
    money::{Currency, Money},
    redemption::{Ask, Past},
};

/// A value for a name.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::provider) enum Given {
    Text(String),
    Whole(i64),
}

impl Given {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Whole(number) => number.to_string(),
        }
    }
}

/// The account of a call.
#[derive(Clone, Default)]
pub struct AccountValues {
    /// Its id, which the provider knows it by.
    pub id: Option<String>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its credentials.
    pub secrets: BTreeMap<String, String>,
}

/// The parts of a request, for auth that is made of them.
#[derive(Clone, Default)]
pub(in crate::provider) struct RequestParts {
    pub(in crate::provider) method: String,
    pub(in crate::provider) path: String,
    pub(in crate::provider) query: String,
    pub(in crate::provider) body: String,
    /// Names in lower case.
    pub(in crate::provider) headers: Vec<(String, String)>,
}

/// The values of one request. No `Debug`: it holds secrets and a card's code.
#[derive(Clone)]
pub struct Values {
    /// Our idempotency key, as the profile writes it.
    pub key: Option<String>,
    /// The card's code.
    pub code: Option<String>,
    /// The account to credit.
    pub account: AccountValues,
    /// What the card should be worth.
    pub expected: Option<Money>,
    /// RFC 3339.
    pub not_after: Option<String>,
    /// The provider's id of its work, once told.
    pub task: Option<String>,
    /// The provider's name for what it did, once told.
    pub reference: Option<String>,
    /// What is to be taken back.
    pub amount: Option<Money>,
    /// Which page, as the one before told.
    pub page: Option<String>,
    /// The first time of a list.
    pub from: Option<String>,
    /// Its end.
    pub to: Option<String>,
    /// The time of the request, the same throughout.
    pub now: OffsetDateTime,
    /// New for each request, the same throughout.
    pub nonce: Uuid,
    /// The provider's secrets, by name.
    pub secrets: BTreeMap<String, String>,
    /// The token that was fetched.
    pub token: Option<String>,
    pub(in crate::provider) signature: Option<String>,
    pub(in crate::provider) request: Option<RequestParts>,
}

impl Values {
    /// None but the time.
    pub fn at(now: OffsetDateTime) -> Self {
        Self {
            key: None,
            code: None,
            account: AccountValues::default(),
            expected: None,
            not_after: None,
            task: None,
            reference: None,
            amount: None,
            page: None,
            from: None,
            to: None,
            now,
            nonce: Uuid::new_v4(),
            secrets: BTreeMap::new(),
            token: None,
            signature: None,
            request: None,
        }
    }

    /// Those of a redemption, for a key that is written so.
    pub fn of_ask(key: KeyKind, ask: &Ask) -> Self {
        let mut values = Self::at(OffsetDateTime::now_utc());
        values.key = Some(key.of(ask.redemption_id));
        values.code = Some(ask.code.expose().to_owned());
        values.account = AccountValues {
            id: Some(ask.account_id.as_str().to_owned()),
            country: ask.account.country.clone(),
            labels: ask.account.labels.clone(),
            secrets: ask.account.credentials.clone(),
        };
        values.task.clone_from(&ask.known.task);
        values.expected = ask.expected;
        values.not_after = Some(ask.not_after.clone());
        values
    }

    /// Gives a name another value. The time and the parts of a request keep theirs.
    pub(super) fn fill(&mut self, name: &Name, value: &str) {
        let text = Some(value.to_owned());
        let some_money = || Some(Money { amount_minor: 1, currency: Currency::NONE });
        match name {
            Name::Key => self.key = text,
            Name::Code => self.code = text,
            Name::AccountId => self.account.id = text,
            Name::AccountCountry => self.account.country = text,
            Name::AccountLabel(name) => {
                self.account.labels.insert(name.clone(), value.to_owned());
            }
            Name::AccountSecret(name) => {
                self.account.secrets.insert(name.clone(), value.to_owned());
            }
            Name::ExpectedMinor | Name::ExpectedMajor | Name::ExpectedCurrency => {
                self.expected = some_money();
            }
            Name::NotAfter => self.not_after = text,
            Name::Task => self.task = text,
            Name::Ref => self.reference = text,
            Name::AmountMinor | Name::AmountMajor => self.amount = some_money(),
            Name::Page => self.page = text,
            Name::From => self.from = text,
            Name::To => self.to = text,
            Name::Secret(name) => {
                self.secrets.insert(name.clone(), value.to_owned());
            }
            Name::Token => self.token = text,
            Name::Signature => self.signature = text,
            Name::NowEpoch
            | Name::NowEpochMs
            | Name::NowRfc3339
            | Name::Nonce
            | Name::RequestMethod
            | Name::RequestPath
            | Name::RequestQuery
            | Name::RequestBody
            | Name::RequestHeader(_) => {}
        }
    }

    /// Those of a redemption that is settled: its code is gone.
    pub fn of_past(key: KeyKind, past: &Past) -> Self {
        let mut values = Self::at(OffsetDateTime::now_utc());
        values.key = Some(key.of(past.redemption_id));
        values.account = AccountValues {
            id: Some(past.account_id.as_str().to_owned()),
            country: past.account.country.clone(),
            labels: past.account.labels.clone(),
            secrets: past.account.credentials.clone(),
        };
        values.task.clone_from(&past.task);
        values.reference.clone_from(&past.provider_ref);
        values.expected = past.expected;
        values.amount = Some(past.amount);
        values
    }

    /// The value for a name, if there is one.
    pub(super) fn get(&self, name: &Name) -> Option<Given> {
        let text = |value: &Option<String>| value.clone().map(Given::Text);
        let request = |part: fn(&RequestParts) -> &String| {
            self.request.as_ref().map(|request| Given::Text(part(request).clone()))
        };
        let minor = |money: Option<Money>| money.map(|money| Given::Whole(money.amount_minor));
        let in_major = |money: Option<Money>| money.map(|money| Given::Text(major(money)));
        match name {
            Name::Key => text(&self.key),
            Name::Code => text(&self.code),
            Name::AccountId => text(&self.account.id),
            Name::AccountCountry => {
                text(&self.account.country.clone().filter(|country| !country.is_empty()))
            }
            Name::AccountLabel(name) => text(&self.account.labels.get(name).cloned()),
            Name::AccountSecret(name) => text(&self.account.secrets.get(name).cloned()),
            Name::ExpectedMinor => minor(self.expected),
            Name::ExpectedMajor => in_major(self.expected),
            Name::ExpectedCurrency => {
                self.expected.map(|money| Given::Text(currency_text(money.currency)))
            }
            Name::NotAfter => text(&self.not_after),
            Name::Task => text(&self.task),
            Name::Ref => text(&self.reference),
            Name::AmountMinor => minor(self.amount),
            Name::AmountMajor => in_major(self.amount),
            Name::Page => text(&self.page),
            Name::From => text(&self.from),
            Name::To => text(&self.to),
            Name::NowEpoch => Some(Given::Whole(self.now.unix_timestamp())),
            Name::NowEpochMs => {
                let ms = self.now.unix_timestamp_nanos() / 1_000_000;
                i64::try_from(ms).ok().map(Given::Whole)
            }
            Name::NowRfc3339 => {
                let whole = self.now.replace_nanosecond(0).unwrap_or(self.now);
                whole.format(&Rfc3339).ok().map(Given::Text)
            }
            Name::Nonce => Some(Given::Text(self.nonce.to_string())),
            Name::Secret(name) => text(&self.secrets.get(name).cloned()),
            Name::Token => text(&self.token),
            Name::Signature => text(&self.signature),
            Name::RequestMethod => request(|request| &request.method),
            Name::RequestPath => request(|request| &request.path),
            Name::RequestQuery => request(|request| &request.query),
            Name::RequestBody => request(|request| &request.body),
            Name::RequestHeader(name) => {
                let headers = self.request.as_ref()?.headers.iter();
                let value = headers.rev().find(|(other, _)| other == name)?.1.clone();
                Some(Given::Text(value))
            }
        }
    }
}

fn currency_text(currency: Currency) -> String {
    currency.as_str().to_owned()
}
