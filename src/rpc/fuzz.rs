//! What is fuzzed of the RPCs: every request, and the tokens of pages.

mod bounds;
mod requests;

use std::{fmt, sync::LazyLock};

use super::{
    convert::Fields,
    methods::{self, Method},
    page::page,
    pb,
};
use crate::domain::{
    id::{AccountId, PlanId, PoolId, ProviderId, RedemptionId, SubscriptionId, TokenName},
    page::Page,
    subscription::DeliveryId,
};

static METHODS: LazyLock<Vec<Method>> = LazyLock::new(methods::all);

/// Reads the input as the request of every RPC.
pub(crate) fn requests(input: &[u8]) {
    taken_by(input);
}

/// The same. Answers which of them would ask a service.
pub(crate) fn taken_by(input: &[u8]) -> Vec<&'static str> {
    let taken = METHODS.iter().filter(|method| requests::check(method, input));
    taken.map(|method| &*method.name).collect()
}

/// The names of all RPCs.
pub(crate) fn rpcs() -> Vec<&'static str> {
    METHODS.iter().map(|method| &*method.name).collect()
}

/// Whether a message of a card or of an account is one that the server would take.
pub(crate) fn is_taken(item: Option<pb::BatchItem>, account: Option<pb::Account>) -> bool {
    requests::is_taken(item, account)
}

/// Reads the input as the token of a page of every list, and as the key of its last element.
pub(crate) fn page_token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    token_of(text, |key| PoolId::parse(key).ok());
    token_of(text, |key| PlanId::parse(key).ok());
    token_of(text, |key| AccountId::stored(key).ok());
    token_of(text, |key| ProviderId::parse(key).ok());
    token_of(text, |key| TokenName::parse(key).ok());
    token_of(text, |key| RedemptionId::parse(key).ok());
    token_of(text, |key| SubscriptionId::parse(key).ok());
    token_of(text, |key| DeliveryId::parse(key).ok());
    token_of(text, |key| key.parse::<i64>().ok());
}

fn token_of<K: Clone + PartialEq + fmt::Debug + fmt::Display>(
    text: &str,
    read: impl Fn(&str) -> Option<K>,
) {
    if let Some(key) = read(text) {
        assert_eq!(key_of(&token(&key), &read), Ok(Some(key)), "the token of a key is another's");
    }
    match key_of(text, &read) {
        Ok(None) => assert!(text.is_empty(), "a token is taken for none"),
        Ok(Some(key)) => {
            assert_eq!(key_of(&token(&key), &read), Ok(Some(key)), "a key's own token is refused");
        }
        Err(told) => assert!(told.starts_with("page_token"), "{told}"),
    }
}

/// The token of the page after the one that ends with this key.
fn token<K: Clone + fmt::Display>(key: &K) -> String {
    let rows = Page { rows: vec![key.clone()], more: true };
    let (_, token) = page(&rows, ToString::to_string, |_| pb::Pool::default());
    token
}

/// The key that a token names, or what is told of it.
fn key_of<K>(token: &str, read: impl Fn(&str) -> Option<K>) -> Result<Option<K>, String> {
    let mut fields = Fields::default();
    let key = fields.page_token(token, read);
    fields.finish(Some(key)).map_err(|error| error.to_string())
}
