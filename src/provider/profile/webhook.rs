//! Webhooks: calls of the provider. They are verified, and wake a look-up: what they say is never believed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hmac::digest::CtOutput;
use time::OffsetDateTime;

use super::{
    super::json::{Contradiction, Json},
    auth::{Encoding, Hash},
    names::{Name, Scope},
    pointer::Pointers,
    source::Table,
    template::Template,
    tree::read_template,
    values::{RequestParts, Values},
    web::read_header_name,
};
use crate::failpoints::{self, Guard};

/// Calls of the provider that wake a look-up.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// `POST /webhooks/…`.
    pub path: String,
    /// The line of the file that says so.
    pub path_line: usize,
    pub(super) finds: BTreeMap<&'static str, Pointers>,
    pub(super) hmac: WebhookSignature,
}

/// What proves that a webhook is the provider's.
#[derive(Clone, Debug)]
pub(super) struct WebhookSignature {
    pub(super) secret: Template,
    pub(super) over: Template,
    pub(super) hash: Hash,
    pub(super) encoding: Encoding,
    pub(super) header: String,
    pub(super) format: Template,
    pub(super) time: Option<(String, Duration)>,
}

/// Why a call is not taken for the provider's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forged {
    /// The signature is missing, or told twice.
    NoSignature,
    /// The time is missing, told twice, or no time.
    NoTime,
    /// The time is too far from now: it may be a repetition.
    Late,
    /// The signature is another.
    WrongSignature,
    /// What is signed is not there, such as a header.
    NotSigned,
}

impl Forged {
    /// The word for it, in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSignature => "no_signature",
            Self::NoTime => "no_time",
            Self::Late => "late",
            Self::WrongSignature => "wrong_signature",
            Self::NotSigned => "not_signed",
        }
    }
}

/// The header of this name, where it is there once.
fn single<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut named = headers.iter().filter(|(other, _)| other == name);
    named.next().map(|(_, value)| value.as_str()).filter(|_| named.next().is_none())
}

impl Webhook {
    /// Checks what costs next to nothing, before the body is read: the signature is there, and the time is about now.
    pub fn admits(&self, headers: &[(String, String)], now: OffsetDateTime) -> Result<(), Forged> {
        single(headers, &self.hmac.header).ok_or(Forged::NoSignature)?;
        if let Some((name, tolerance)) = &self.hmac.time {
            let time = single(headers, name).and_then(moment).ok_or(Forged::NoTime)?;
            if (now - time).unsigned_abs() > *tolerance {
                return Err(Forged::Late);
            }
        }
        Ok(())
    }

    /// Checks a call, and answers what it is about: the names `key`, `task` and `ref`, each with its text. Nothing where
    /// it cannot be read: providers send calls about other things too.
    pub fn hear(
        &self,
        secrets: &BTreeMap<String, String>,
        headers: &[(String, String)],
        body: &str,
        now: OffsetDateTime,
    ) -> Result<Vec<(&'static str, String)>, Forged> {
        self.admits(headers, now)?;
        self.verify(secrets, headers, body, now)?;
        let Ok(json) = Json::read(body.as_bytes()) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for (what, at) in &self.finds {
            match at.get(&json, None) {
                Ok(Some(Json::Text(text))) => found.push((*what, text.clone())),
                Ok(Some(Json::Number(number))) => found.push((*what, number.as_str().to_owned())),
                Ok(_) | Err(Contradiction) => {}
            }
        }
        Ok(found)
    }

    /// The secrets that its signature is made with.
    pub fn secrets(&self) -> BTreeSet<String> {
        let WebhookSignature { secret, over, format, .. } = &self.hmac;
        let names = [secret, over, format].into_iter().flat_map(Template::names);
        let secrets = names.filter_map(|name| match name {
            Name::Secret(name) => Some(name.clone()),
            _ => None,
        });
        secrets.collect()
    }

    fn verify(
        &self,
        secrets: &BTreeMap<String, String>,
        headers: &[(String, String)],
        body: &str,
        now: OffsetDateTime,
    ) -> Result<(), Forged> {
        let told = single(headers, &self.hmac.header).ok_or(Forged::NoSignature)?;
        let mut values = Values::at(now);
        values.secrets.clone_from(secrets);
        values.request = Some(RequestParts {
            method: "POST".to_owned(),
            path: format!("/webhooks/{}", self.path),
            query: String::new(),
            body: body.to_owned(),
            headers: headers.to_vec(),
        });
        let unusable = |_| Forged::NotSigned;
        let secret = self.hmac.secret.text(&values).map_err(unusable)?;
        let over = self.hmac.over.text(&values).map_err(unusable)?;
        let signature = self.hmac.hash.sign(secret.as_bytes(), over.as_bytes());
        values.signature = Some(self.hmac.encoding.encode(&signature));
        let wanted = self.hmac.format.text(&values).map_err(unusable)?;
        if is_same(wanted.as_bytes(), told.as_bytes())
            || !failpoints::holds(Guard::WebhooksAreSigned)
        {
            Ok(())
        } else {
            Err(Forged::WrongSignature)
        }
    }
}

impl Webhook {
    pub(super) fn read(table: &Table<'_>) -> Option<Self> {
        let path_line = table.get("path").map_or(1, |path| table.faults.line(&path.at));
        let path = table.need("path").and_then(|path| {
            let text = path.text()?;
            let is_name = (1..=64).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
            if !is_name {
                path.fault("must be 1 to 64 of a-z, 0-9, '-' and '_'");
            }
            is_name.then(|| text.to_owned())
        });
        let mut finds = BTreeMap::new();
        if let Some(table) = table.need("finds").and_then(|finds| finds.table()) {
            for what in ["key", "task", "ref"] {
                if let Some(at) = table.get(what).and_then(|at| Pointers::read(&at)) {
                    finds.insert(what, at);
                }
            }
            if finds.is_empty() {
                table.fault("webhook.finds must say where key, task or ref is");
            }
            table.finish();
        }
        let hmac = table.need("hmac").and_then(|hmac| WebhookSignature::read(&hmac.table()?));
        table.finish();
        Some(Self { path: path?, path_line, finds, hmac: hmac? })
    }
}

impl WebhookSignature {
    fn read(table: &Table<'_>) -> Option<Self> {
        let template = |key| table.need(key).and_then(|text| read_template(&text, Scope::Webhook));
        let (secret, over) = (template("secret"), template("over"));
        if let Some(over) = &over
            && !over.names().any(|name| *name == Name::RequestBody)
        {
            table.fault(
                "webhook.hmac.over must have {{ request.body }}: nothing else proves what it says",
            );
        }
        let (hash, encoding) = (Hash::read(table), Encoding::read(table));
        let header = table.need("header").and_then(|header| read_header_name(&header));
        let format = match table.get("format") {
            Some(format) => read_template(&format, Scope::WebhookFormat),
            None => Template::parse("{{ signature }}").ok(),
        };
        let time = table.get("time").map(|time| read_header_name(&time));
        let tolerance = table.get("tolerance").map(|tolerance| tolerance.duration());
        let time = match (time, tolerance) {
            (None, None) => Some(None),
            (Some(time), Some(tolerance)) => time.zip(tolerance).map(Some),
            _ => {
                table.fault("webhook.hmac.time and webhook.hmac.tolerance belong together");
                None
            }
        };
        table.finish();
        Some(Self {
            secret: secret?,
            over: over?,
            hash: hash?,
            encoding: encoding?,
            header: header?,
            format: format?,
            time: time?,
        })
    }
}

/// Compares in a time that does not depend on where they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    // Both are hashed, so that their lengths are equal; what is compared then tells nothing.
    let digest = |text: &[u8]| -> Option<CtOutput<Hmac<sha2::Sha256>>> {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"compare").ok()?;
        mac.update(text);
        Some(mac.finalize())
    };
    digest(one).is_some_and(|one| digest(other).is_some_and(|other| one == other))
}

/// Seconds or milliseconds since 1970, or RFC 3339.
fn moment(text: &str) -> Option<OffsetDateTime> {
    use time::format_description::well_known::Rfc3339;
    match text.parse::<i64>() {
        // In seconds that would be the year 5138.
        Ok(ms) if ms.abs() > 100_000_000_000 => {
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()
        }
        Ok(seconds) => OffsetDateTime::from_unix_timestamp(seconds).ok(),
        Err(_) => OffsetDateTime::parse(text, &Rfc3339).ok(),
    }
}
