//! What is fuzzed of access: the header that says who calls, Holdfast's tokens, and JWTs.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use tokio::time::Instant;

pub(crate) use super::jwt::fuzz::jwt;
use super::{Authenticator, Refusal, Tokens, file::Subjects, hash, tokens::TokenSecret};
use crate::domain::access::Grants;

/// The token that is valid.
const SECRET: &str = "hf_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Reads each line of the input as an `authorization` header of one call.
pub(crate) fn bearer_token(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.append(AUTHORIZATION, value);
        token(line);
    }
    static LIVING: LazyLock<Tokens> = LazyLock::new(Tokens::default);
    let (now, hash) = (Instant::now(), hash(SECRET.as_bytes()));
    LIVING.replace([(hash, "till".to_owned(), Grants::all(), None)], now);
    let subjects = Subjects::open(None).expect("no file");
    let authenticator = Authenticator::new(LIVING.clone(), subjects, None);
    match authenticator.authenticate(&headers, &[], now) {
        Ok(access) => {
            assert_eq!(access.principal().name(), "token:till");
            let (scheme, shown) = input.split_at(input.len().saturating_sub(SECRET.len()));
            assert!(shown == SECRET.as_bytes(), "another token is valid");
            assert!(scheme.eq_ignore_ascii_case(b"bearer "), "another scheme is valid");
        }
        Err(Refusal::Malformed | Refusal::Invalid) => {}
        Err(refusal) => panic!("{refusal:?} is not why"),
    }
}

/// Reads the input as the secret of a token.
fn token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let is_secret = text.len() == 46
        && text.starts_with("hf_")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let read = TokenSecret::parse(text);
    assert_eq!(read.is_some(), is_secret, "what is a token's secret");
    if let Some(secret) = read {
        assert_eq!(secret.expose(), text);
        assert!(!format!("{secret:?}").contains(&text[3..]), "a secret is printed");
    }
}
