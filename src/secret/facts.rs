//! A code with what else is to be sent with it, as the text that is encrypted.

use std::collections::BTreeMap;

use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};

use crate::domain::redemption::{AccountFacts, CardCode};

/// What stands before a code that is stored with other values. No code has it.
const WITH_FACTS: u8 = 1;

/// As it is written.
#[derive(Serialize)]
struct Written<'a> {
    code: &'a str,
    country: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    credentials: BTreeMap<&'a str, &'a str>,
}

/// As it is read.
#[derive(Deserialize)]
struct Read {
    code: String,
    country: Option<String>,
    labels: BTreeMap<String, String>,
    credentials: BTreeMap<String, String>,
}

/// The text. Of the right size at once: what a text leaves behind when it grows is not wiped.
pub(super) fn to_text(code: &CardCode, facts: &AccountFacts) -> Zeroizing<Vec<u8>> {
    let written = Written {
        code: code.expose(),
        country: facts.country.as_deref(),
        labels: &facts.labels,
        credentials: facts.credentials.iter().map(|(name, it)| (&**name, &**it)).collect(),
    };
    let mut text = Zeroizing::new(Vec::with_capacity(most_bytes(code, facts)));
    text.extend([WITH_FACTS]);
    // It fails for maps whose keys are no texts.
    serde_json::to_writer(&mut *text, &written).expect("codes and credentials are texts");
    text
}

/// The most bytes that the text has: a byte becomes at most six in JSON.
fn most_bytes(code: &CardCode, facts: &AccountFacts) -> usize {
    let labels = facts.labels.iter().map(|(name, value)| name.len() + value.len());
    let credentials = facts.credentials.iter().map(|(name, value)| name.len() + value.len());
    let pairs = labels.chain(credentials).map(|bytes| 6 * bytes + 6);
    6 * code.expose().len() + pairs.sum::<usize>() + 128
}

/// Reads a text, or a code alone; `None` when it is neither.
pub(super) fn from_text(text: &str) -> Option<(CardCode, AccountFacts)> {
    let Some(json) = text.strip_prefix(char::from(WITH_FACTS)) else {
        return Some((CardCode::parse(text).ok()?, AccountFacts::default()));
    };
    let read: Read = serde_json::from_str(json).ok()?;
    let code = Zeroizing::new(read.code);
    let facts =
        AccountFacts { country: read.country, labels: read.labels, credentials: read.credentials };
    Some((CardCode::parse(&code).ok()?, facts))
}
