//! What is fuzzed of JWTs: those that somebody else made, and what one says that the issuer has signed.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock, RwLock, atomic::AtomicU32},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Jwt, JwtSettings, KeySource, Keys, KeysFrom, Verified, verify};

const ISSUER: &str = "https://issuer.test";
const AUDIENCE: &str = "holdfast";
const SKEW: Duration = Duration::from_secs(30);

/// The issuer's key.
static KEY: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed"));

static JWT: LazyLock<Jwt> = LazyLock::new(|| {
    verify::install();
    let from = KeysFrom::File(PathBuf::from("none"));
    let x = BASE64.encode(KEY.public_key());
    // Beside the key that signs there are others, as an issuer has them, and one that is none.
    let keys = json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "x": x},
        {"kty": "RSA", "kid": "rsa", "n": x, "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "kid": "ec", "x": x, "y": x},
        {"kty": "oct", "kid": "oct", "k": x},
    ]});
    let source = KeySource::new(&from).expect("a file");
    let settings = JwtSettings {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        clock_skew: SKEW,
        keys: from,
    };
    let keys = Keys::parse(keys.to_string().as_bytes()).expect("a JWKS");
    Jwt { settings, keys: RwLock::new(Arc::new(keys)), source, bad: AtomicU32::new(0) }
});

/// Verifies the input as it is, which nobody has signed; and its first line as a header with the rest of it as claims,
/// which the issuer has signed.
pub(crate) fn jwt(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    assert!(verified(&text).is_none(), "a JWT is valid that nobody has signed");
    let line_end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (header, claims) = input.split_at(line_end);
    let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature = BASE64.encode(KEY.sign(signed.as_bytes()));
    if let Some(found) = verified(&format!("{signed}.{signature}")) {
        check(header, claims, &found);
    }
}

fn verified(text: &str) -> Option<Verified> {
    JWT.forgive();
    JWT.verify(text, Instant::now()).ok()
}

/// One that is valid says what it must.
fn check(header: &[u8], claims: &[u8], found: &Verified) {
    let [header, claims]: [Value; 2] =
        [header, claims].map(|part| serde_json::from_slice(part).expect("a JWT that is not JSON"));
    assert_eq!((&header["alg"], &header["kid"]), (&json!("EdDSA"), &json!("ed")));
    assert!(header["crit"].is_null(), "what must be understood is not");
    assert_eq!(claims["iss"], ISSUER);
    let audiences = claims["aud"].as_array();
    let is_for_us = |audience: &Value| audience == AUDIENCE;
    assert!(is_for_us(&claims["aud"]) || audiences.is_some_and(|all| all.iter().any(is_for_us)));
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let (now, skew) = (clock.as_secs_f64(), SKEW.as_secs_f64());
    // Both are read a moment later than they were, and as whole seconds.
    assert!(claims["exp"].as_f64().expect("exp") > now - skew - 2.0, "it has expired");
    let not_before = &claims["nbf"];
    assert!(not_before.as_f64().is_none_or(|nbf| nbf < now + skew + 2.0), "it is not valid yet");
    let subject = claims["sub"].as_str().expect("sub");
    assert!(!subject.is_empty());
    assert_eq!(found.principal, format!("jwt:{ISSUER}:{subject}"));
}
