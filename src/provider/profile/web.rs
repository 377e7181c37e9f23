//! What requests are made of: methods, paths, header names, base URLs.

use std::collections::BTreeSet;

use url::Url;

use super::{
    names::{Name, Scope},
    source::{Table, Value},
    template::{Template, Unusable},
    tree::{Body, Pairs, encode, read_pairs, read_template},
    values::Values,
};
use crate::domain::http_url::http_url;

/// A path of segments. A placeholder is part of one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::provider) struct Path(Vec<Template>);

impl Path {
    pub(super) fn read(value: &Value<'_>, scope: Scope) -> Option<Self> {
        let text = value.text()?;
        if !text.starts_with('/') {
            value.fault("must begin with '/'");
            return None;
        }
        let template = read_template(value, scope)?;
        let segments = template.split('/');
        for segment in &segments {
            if !segment.without_values().iter().all(|text| is_path_text(text)) {
                value.fault("has characters that a path cannot have; what belongs into a query stands in query");
            }
            if segment.fixed().is_some_and(|text| is_dots(&text)) {
                value.fault("must not have the segment '.' or '..'");
            }
        }
        Some(Self(segments))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().flat_map(Template::names)
    }

    /// The path, encoded. A segment never changes which other segments there are.
    pub(super) fn render(&self, values: &Values) -> Result<String, Unusable> {
        let mut path = Vec::with_capacity(self.0.len());
        for segment in &self.0 {
            let text = segment.encoded(values, encode)?;
            if let Some(name) = segment.names().next() {
                if text.is_empty() {
                    return Err(Unusable::Unfit(
                        name.text(),
                        "it makes an empty segment of a path",
                    ));
                }
                if is_dots(&text) {
                    return Err(Unusable::Unfit(
                        name.text(),
                        "it makes a segment '.' or '..' of a path",
                    ));
                }
            }
            path.push(text);
        }
        Ok(path.join("/"))
    }
}

fn is_dots(segment: &str) -> bool {
    matches!(&*segment.to_ascii_lowercase().replace("%2e", "."), "." | "..")
}

fn is_path_text(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = match first {
            b'%' if others.len() >= 2 && others[..2].iter().all(u8::is_ascii_hexdigit) => {
                &others[2..]
            }
            b if b.is_ascii_alphanumeric() || b"-._~!$&()*+,;=:@".contains(b) => others,
            _ => return false,
        };
    }
    true
}

/// The method: what is said, or `POST` where there is a body, else `GET`.
pub(super) fn read_method(table: &Table<'_>, body: Option<&Body>) -> Option<String> {
    match table.get("method") {
        Some(method) => method
            .word(&["GET", "POST", "PUT", "PATCH", "DELETE"].map(|word| (word, word)))
            .map(str::to_owned),
        None if matches!(body, Some(Body::None) | None) => Some("GET".to_owned()),
        None => Some("POST".to_owned()),
    }
}

/// Headers that the connection is made with, or that say how a body is carried.
const NOT_TO_SET: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The name of a header, in lower case.
pub(super) fn header_name(text: &str) -> Result<String, &'static str> {
    let name = http::HeaderName::from_bytes(text.as_bytes()).map_err(|_| "is no header's name")?;
    if NOT_TO_SET.contains(&name.as_str()) {
        return Err("is a header that a profile cannot set");
    }
    Ok(name.as_str().to_owned())
}

/// Reads a header's name.
pub(super) fn read_header_name(value: &Value<'_>) -> Option<String> {
    header_name(value.text()?).map_err(|why| value.fault(why)).ok()
}

/// Reads headers, their names in lower case.
pub(super) fn read_headers(value: &Value<'_>, scope: Scope) -> Option<Pairs> {
    let mut names = BTreeSet::new();
    for (name, header) in value.table()?.entries() {
        if let Err(why) = header_name(name) {
            header.fault(why);
        }
        if !names.insert(name.to_ascii_lowercase()) {
            header.fault("is there twice: the case of a header's name does not count");
        }
        if let toml::de::DeValue::String(text) = header.node()
            && text.chars().any(char::is_control)
        {
            header.fault("has a control character, with which a header is never sent");
        }
    }
    let pairs = read_pairs(value, scope)?;
    Some(pairs.into_iter().map(|(name, leaf)| (name.to_ascii_lowercase(), leaf)).collect())
}

/// Reads a URL that requests go to: see [`http_url`].
pub(super) fn read_url(value: &Value<'_>, allow_plain: bool) -> Option<Url> {
    let url = http_url(value.text()?, allow_plain).map_err(|why| value.fault(why)).ok()?;
    if url.port() == Some(0) {
        value.contradicts("has the port 0, to which nothing can be sent");
    }
    Some(url)
}
