//! Requests, byte for byte. What is sent is what was signed.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use super::{
    super::json::Json,
    Profile,
    auth::{Auth, Signature, Stands, Token, TokenAddress},
    names::OpKind,
    template::Unusable,
    tree::{Body, Pairs, encode, query, render_pairs},
    values::{RequestParts, Values},
};

/// A request, whole. No `Debug`: it holds a card's code and secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Scheme, host and port.
    pub origin: String,
    /// With the base's path, encoded.
    pub path: String,
    /// Without its `?`, encoded; empty is none.
    pub query: String,
    /// Names in lower case, each once.
    pub headers: Vec<(String, String)>,
    /// What it carries, if anything.
    pub body: Option<String>,
}

impl Request {
    /// Where it goes.
    pub fn url(&self) -> String {
        let mark = if self.query.is_empty() { "" } else { "?" };
        format!("{}{}{mark}{}", self.origin, self.path, self.query)
    }

    fn set(&mut self, name: &str, value: String) {
        match self.headers.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value,
            None => self.headers.push((name.to_owned(), value)),
        }
    }

    fn parts(&self) -> RequestParts {
        RequestParts {
            method: self.method.clone(),
            path: self.path.clone(),
            query: self.query.clone(),
            body: self.body.clone().unwrap_or_default(),
            headers: self.headers.clone(),
        }
    }
}

impl Profile {
    /// The request for an op, with these values.
    pub fn request(&self, kind: OpKind, values: &Values) -> Result<Request, Unusable> {
        let op = self.op(kind).ok_or(Unusable::NoOp(kind.name()))?;
        let mut request = self.plain(&op.method, &op.path.render(values)?);
        request.query = query(&render_pairs(&op.query, values)?);
        self.fill(&mut request, [&self.http.headers, &op.headers], &op.body, values)?;
        self.prove_who_asks(&mut request, values)?;
        check_headers(&request)?;
        Ok(request)
    }

    /// The request for a token, where the profile has one.
    pub fn token_request(&self, values: &Values) -> Option<Result<Request, Unusable>> {
        let token = self.token()?;
        let make = || {
            let mut request = match &token.to {
                TokenAddress::Path(path) => self.plain(&token.method, &path.render(values)?),
                TokenAddress::Url(url) => Request {
                    origin: url.origin().ascii_serialization(),
                    path: url.path().to_owned(),
                    ..self.plain(&token.method, "")
                },
            };
            self.fill(&mut request, [&Vec::new(), &token.headers], &token.body, values)?;
            check_headers(&request)?;
            Ok(request)
        };
        Some(make())
    }

    /// The token that an answer tells, and how long it lasts. The error says what is wrong with it.
    pub fn read_token(
        &self,
        status: u16,
        body: &[u8],
    ) -> Result<(String, Option<Duration>), String> {
        let token = self.token().ok_or("the profile fetches no token")?;
        if !(200..300).contains(&status) {
            return Err(format!("HTTP {status} instead of a token"));
        }
        let body = Json::read(body)?;
        let text = match token.token.get(&body, None) {
            Ok(Some(Json::Text(text)))
                if !text.is_empty() && !text.chars().any(char::is_control) =>
            {
                text.clone()
            }
            _ => return Err("the answer tells no token".to_owned()),
        };
        let seconds = token.expires_in.as_ref().and_then(|at| match at.get(&body, None) {
            Ok(Some(Json::Number(number))) => Some(number.about()),
            Ok(Some(Json::Text(text))) => text.parse().ok(),
            _ => None,
        });
        let lasts = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok((text, lasts))
    }

    /// Whether its requests are made with a token that is fetched.
    pub fn fetches_token(&self) -> bool {
        self.token().is_some()
    }

    fn token(&self) -> Option<&Token> {
        self.auth.iter().find_map(|auth| match auth {
            Auth::Token(token) => Some(&**token),
            _ => None,
        })
    }

    fn plain(&self, method: &str, path: &str) -> Request {
        let base = self.http.base.path().trim_end_matches('/');
        Request {
            method: method.to_owned(),
            origin: self.http.base.origin().ascii_serialization(),
            path: format!("{base}{path}"),
            query: String::new(),
            headers: Vec::new(),
            body: None,
        }
    }

    fn fill(
        &self,
        request: &mut Request,
        headers: [&Pairs; 2],
        body: &Body,
        values: &Values,
    ) -> Result<(), Unusable> {
        if let Some((media_type, body)) = body.render(values)? {
            request.set("content-type", media_type.to_owned());
            request.body = Some(body);
        }
        for pairs in headers {
            for (name, value) in render_pairs(pairs, values)? {
                request.set(&name, value);
            }
        }
        Ok(())
    }

    fn prove_who_asks(&self, request: &mut Request, values: &Values) -> Result<(), Unusable> {
        let mut values = values.clone();
        for auth in &self.auth {
            values.request = Some(request.parts());
            match auth {
                Auth::None => {}
                Auth::Bearer(token) => {
                    request.set("authorization", format!("Bearer {}", token.text(&values)?));
                }
                Auth::Basic { user, password } => {
                    let pair = format!("{}:{}", user.text(&values)?, password.text(&values)?);
                    request.set("authorization", format!("Basic {}", BASE64.encode(pair)));
                }
                Auth::Header(headers) => {
                    for (name, value) in render_pairs(headers, &values)? {
                        request.set(&name, value);
                    }
                }
                Auth::Token(token) => request.set(&token.header, token.format.text(&values)?),
                Auth::Hmac(hmac) => sign(request, hmac, &mut values)?,
            }
        }
        Ok(())
    }
}

/// Signs what is there by now.
fn sign(request: &mut Request, hmac: &Signature, values: &mut Values) -> Result<(), Unusable> {
    let secret = hmac.secret.text(values)?;
    let over = hmac.over.text(values)?;
    let signature = hmac.hash.sign(secret.as_bytes(), over.as_bytes());
    // One that is given stands for it, where a request is shown.
    values.signature.get_or_insert_with(|| hmac.encoding.encode(&signature));
    let text = hmac.format.text(values)?;
    match &hmac.stands {
        Stands::Header(name) => request.set(name, text),
        Stands::Query(name) => {
            let mark = if request.query.is_empty() { "" } else { "&" };
            request.query = format!("{}{mark}{}={}", request.query, encode(name), encode(&text));
        }
    }
    Ok(())
}

/// A control character would end a header.
fn check_headers(request: &Request) -> Result<(), Unusable> {
    let wrong = request.headers.iter().find(|(_, value)| value.chars().any(char::is_control));
    wrong.map_or(Ok(()), |(name, _)| {
        Err(Unusable::Unfit(format!("header {name}"), "it has a control character"))
    })
}
