//! Auth: what of a request proves who asks.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use url::Url;

use super::{
    names::{Name, Scope},
    pointer::Pointers,
    source::{Table, Value},
    template::Template,
    tree::{Body, Pairs, read_template},
    web::{Path, read_header_name, read_headers, read_method, read_url},
};

/// One way to prove who asks.
#[derive(Clone, Debug)]
pub(in crate::provider) enum Auth {
    None,
    Bearer(Template),
    Basic { user: Template, password: Template },
    Header(Pairs),
    Token(Box<Token>),
    Hmac(Box<Signature>),
}

/// A token that is fetched.
#[derive(Clone, Debug)]
pub(in crate::provider) struct Token {
    pub(super) to: TokenAddress,
    pub(super) method: String,
    pub(super) headers: Pairs,
    pub(super) body: Body,
    pub(super) token: Pointers,
    pub(super) expires_in: Option<Pointers>,
    pub(super) header: String,
    pub(super) format: Template,
}

/// Where a token is fetched.
#[derive(Clone, Debug)]
pub(in crate::provider) enum TokenAddress {
    /// Under the base.
    Path(Path),
    Url(Url),
}

/// A signature over parts of the request.
#[derive(Clone, Debug)]
pub(in crate::provider) struct Signature {
    pub(super) secret: Template,
    pub(super) over: Template,
    pub(super) hash: Hash,
    pub(super) encoding: Encoding,
    pub(super) stands: Stands,
    pub(super) format: Template,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Encoding {
    Hex,
    Base64,
}

/// Where a signature is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Stands {
    Header(String),
    /// Last in the query, under this name.
    Query(String),
}

impl Hash {
    pub(super) fn read(table: &Table<'_>) -> Option<Self> {
        let words = [("sha256", Self::Sha256), ("sha1", Self::Sha1), ("sha512", Self::Sha512)];
        table.get("hash").map_or(Some(Self::Sha256), |hash| hash.word(&words))
    }

    /// The HMAC of a text.
    pub(super) fn sign(self, secret: &[u8], text: &[u8]) -> Vec<u8> {
        // HMAC takes a key of any length.
        macro_rules! sign {
            ($hash:ty) => {
                Hmac::<$hash>::new_from_slice(secret).map_or(Vec::new(), |mut mac| {
                    mac.update(text);
                    mac.finalize().into_bytes().to_vec()
                })
            };
        }
        match self {
            Self::Sha1 => sign!(Sha1),
            Self::Sha256 => sign!(Sha256),
            Self::Sha512 => sign!(Sha512),
        }
    }
}

impl Encoding {
    pub(super) fn read(table: &Table<'_>) -> Option<Self> {
        let words = [("hex", Self::Hex), ("base64", Self::Base64)];
        table.get("encoding").map_or(Some(Self::Hex), |encoding| encoding.word(&words))
    }

    pub(super) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex::encode(bytes),
            Self::Base64 => BASE64.encode(bytes),
        }
    }
}

impl Auth {
    /// By a bearer token that is a secret.
    pub(super) fn bearer(secret: &str) -> Self {
        Self::Bearer(Template::of_secret(secret))
    }

    fn read(value: &Value<'_>, allow_plain: bool) -> Option<Self> {
        let table = value.table()?;
        let kind = table.need("kind")?;
        let kinds = ["bearer", "basic", "header", "token", "hmac", "none"];
        let kind = kind.word(&kinds.map(|kind| (kind, kind)))?;
        let template = |key| table.need(key).and_then(|text| read_template(&text, Scope::Auth));
        let auth = match kind {
            "bearer" => template("token").map(Self::Bearer),
            "basic" => {
                let (user, password) = (template("user"), template("password"));
                user.zip(password).map(|(user, password)| Self::Basic { user, password })
            }
            "header" => {
                let headers = table.need("headers");
                headers.and_then(|headers| read_headers(&headers, Scope::Auth)).map(Self::Header)
            }
            "token" => Token::read(&table, allow_plain).map(|token| Self::Token(Box::new(token))),
            "hmac" => Signature::read(&table).map(|hmac| Self::Hmac(Box::new(hmac))),
            _ => Some(Self::None),
        };
        table.finish();
        auth
    }
}

/// Reads `[auth]`, or `[[auth]]` once or twice. A signature comes last.
pub(super) fn read_auth(root: &Table<'_>, allow_plain: bool) -> Vec<Auth> {
    let Some(value) = root.get("auth") else { return Vec::new() };
    let values = value.one_or_list();
    if values.is_empty() || values.len() > 2 {
        value.fault("must be there once or twice");
    }
    let mut auths: Vec<_> =
        values.iter().filter_map(|value| Auth::read(value, allow_plain)).collect();
    let count = |is_kind: fn(&Auth) -> bool| auths.iter().filter(|auth| is_kind(auth)).count();
    if count(|auth| matches!(auth, Auth::Hmac(_))) > 1 {
        value.fault("has two signatures");
    }
    if count(|auth| matches!(auth, Auth::Token(_))) > 1 {
        value.fault("has two tokens to fetch");
    }
    let mut names = BTreeSet::new();
    for name in auths.iter().flat_map(Auth::headers) {
        if !names.insert(name) {
            value.fault(format!("sets the header {name} twice"));
        }
    }
    auths.sort_by_key(|auth| matches!(auth, Auth::Hmac(_)));
    auths
}

impl Token {
    fn read(table: &Table<'_>, allow_plain: bool) -> Option<Self> {
        let scope = Scope::TokenRequest;
        let to = match (table.get("path"), table.get("url")) {
            (Some(path), None) => Path::read(&path, scope).map(TokenAddress::Path),
            (None, Some(url)) => read_url(&url, allow_plain).map(TokenAddress::Url),
            (Some(path), Some(_)) => {
                path.fault("stands beside url: a token has one of them");
                None
            }
            (None, None) => {
                table.fault("auth: path or url is missing");
                None
            }
        };
        let headers = match table.get("headers") {
            Some(headers) => read_headers(&headers, scope),
            None => Some(Vec::new()),
        };
        let body = Body::read(table, scope);
        // A token is asked for with POST, also without a body.
        let method = match table.get("method") {
            Some(_) => read_method(table, None),
            None => Some("POST".to_owned()),
        };
        let take = table.need("take").and_then(|take| take.table());
        let (token, expires_in) = take.map_or((None, None), |take| {
            let token = take.need("token").and_then(|at| Pointers::read(&at));
            let expires_in = take.get("expires_in").and_then(|at| Pointers::read(&at));
            take.finish();
            (token, expires_in)
        });
        let header = match table.get("header") {
            Some(header) => read_header_name(&header),
            None => Some("authorization".to_owned()),
        };
        let format = match table.get("format") {
            Some(format) => read_template(&format, Scope::TokenFormat),
            None => Template::parse("Bearer {{ token }}").ok(),
        };
        Some(Self {
            to: to?,
            method: method?,
            headers: headers?,
            body: body?,
            token: token?,
            expires_in,
            header: header?,
            format: format?,
        })
    }
}

impl Signature {
    fn read(table: &Table<'_>) -> Option<Self> {
        let template = |key| table.need(key).and_then(|text| read_template(&text, Scope::Signed));
        let (secret, over) = (template("secret"), template("over"));
        let (hash, encoding) = (Hash::read(table), Encoding::read(table));
        let stands = match (table.get("header"), table.get("query")) {
            (Some(header), None) => read_header_name(&header).map(Stands::Header),
            (None, Some(query)) => query.filled().map(|name| Stands::Query(name.to_owned())),
            (Some(header), Some(_)) => {
                header.fault("stands beside query: a signature has one of them");
                None
            }
            (None, None) => {
                table.fault("auth: header or query is missing");
                None
            }
        };
        let format = match table.get("format") {
            Some(format) => read_template(&format, Scope::SignatureFormat),
            None => Template::parse("{{ signature }}").ok(),
        };
        Some(Self {
            secret: secret?,
            over: over?,
            hash: hash?,
            encoding: encoding?,
            stands: stands?,
            format: format?,
        })
    }
}

impl Auth {
    /// The headers that it sets.
    fn headers(&self) -> Vec<&str> {
        match self {
            Self::None => Vec::new(),
            Self::Bearer(_) | Self::Basic { .. } => vec!["authorization"],
            Self::Header(headers) => headers.iter().map(|(name, _)| name.as_str()).collect(),
            Self::Token(token) => vec![&token.header],
            Self::Hmac(hmac) => match &hmac.stands {
                Stands::Header(name) => vec![name],
                Stands::Query(_) => Vec::new(),
            },
        }
    }

    /// The names in it.
    pub(super) fn names(&self) -> Vec<&Name> {
        match self {
            Self::None => Vec::new(),
            Self::Bearer(token) => token.names().collect(),
            Self::Basic { user, password } => user.names().chain(password.names()).collect(),
            Self::Header(headers) => headers.iter().flat_map(|(_, leaf)| leaf.names()).collect(),
            Self::Token(token) => {
                let headers = token.headers.iter().flat_map(|(_, leaf)| leaf.names());
                let path = match &token.to {
                    TokenAddress::Path(path) => path.names().collect(),
                    TokenAddress::Url(_) => Vec::new(),
                };
                headers.chain(path).chain(token.body.names()).chain(token.format.names()).collect()
            }
            Self::Hmac(hmac) => {
                hmac.secret.names().chain(hmac.over.names()).chain(hmac.format.names()).collect()
            }
        }
    }
}
