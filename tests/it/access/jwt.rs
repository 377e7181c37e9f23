//! JWTs of an issuer whose keys are in a file or at a URL.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as URL},
};
use holdfast::{access::jwt::JwksUrl, config::AccessArgs, rpc::pb};
use ring::{
    hmac,
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
    },
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::Code;

use super::{admin, caller, code, refused_after, world};
use crate::support::{
    wait::eventually,
    world::{POOL, World},
};

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "holdfast";
/// For tests alone.
const RSA_KEY: &str = include_str!("rsa_key.b64");

/// The issuer's keys.
struct Issuer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
    random: SystemRandom,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let rsa = BASE64_STANDARD.decode(RSA_KEY.trim()).unwrap();
        Self {
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random)
                .unwrap(),
            rsa: RsaKeyPair::from_pkcs8(&rsa).unwrap(),
            random,
        }
    }

    fn jwks(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        let public: rsa::PublicKeyComponents<Vec<u8>> = self.rsa.public().into();
        json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": URL.encode(self.ed.public_key().as_ref()) },
            { "kty": "EC", "crv": "P-256", "kid": "ec", "x": URL.encode(&point[1..33]), "y": URL.encode(&point[33..]) },
            { "kty": "RSA", "kid": "rsa", "use": "sig", "n": URL.encode(public.n), "e": URL.encode(public.e) },
        ]})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let message = signed.as_bytes();
        let of_rsa = |padding| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(padding, &self.random, message, &mut signature).unwrap();
            signature
        };
        let signature = match header["alg"].as_str().unwrap() {
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            "ES256" => self.ec.sign(&self.random, message).unwrap().as_ref().to_vec(),
            "RS256" => of_rsa(&RSA_PKCS1_SHA256),
            "PS256" => of_rsa(&RSA_PSS_SHA256),
            "HS256" => {
                // With what everybody knows: the public key.
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.ed.public_key().as_ref());
                hmac::sign(&key, message).as_ref().to_vec()
            }
            _ => Vec::new(),
        };
        format!("{signed}.{}", URL.encode(signature))
    }

    /// One of a subject, with some claims changed. Null takes one away.
    fn jwt(&self, subject: &str, changed: &Value) -> String {
        self.sign(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims(subject, changed))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims(subject: &str, changed: &Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": now() + 600, "nbf": now() - 10,
    });
    for (name, value) in changed.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// What the subjects of the issuer are granted.
fn grants() -> String {
    format!(
        "[[grant]]\nprincipal = \"jwt:{ISSUER}:till-*\"\nrole = \"redeemer\"\npools = \"{POOL}\"\n\
         [[grant]]\nprincipal = \"jwt:{ISSUER}:boss\"\nrole = \"admin\"\npools = \"*\"\n"
    )
}

struct Scene {
    world: World,
    issuer: Issuer,
    access_file: PathBuf,
    jwks_file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn new(change: impl FnOnce(&mut AccessArgs)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let issuer = Issuer::new();
        let access_file = folder.path().join("access.toml");
        let jwks_file = folder.path().join("jwks.json");
        fs::write(&access_file, grants()).unwrap();
        fs::write(&jwks_file, issuer.jwks().to_string()).unwrap();
        let world = world(1, |access| {
            access.access_file = Some(access_file.clone());
            access.jwt_issuer = Some(ISSUER.to_owned());
            access.jwt_audience = Some(AUDIENCE.to_owned());
            access.jwt_jwks_file = Some(jwks_file.clone());
            access.jwt_clock_skew = Duration::from_secs(2);
            change(access);
        })
        .await;
        Self { world, issuer, access_file, jwks_file, _folder: folder }
    }

    async fn pools(&self, jwt: &str) -> Result<Vec<String>, tonic::Status> {
        caller(&self.world, 0, jwt).await.pools().await
    }
}

#[tokio::test]
async fn a_jwt_of_the_issuer_is_taken_by_each_kind_of_key_and_no_other_is() {
    let scene = Scene::new(|_| {}).await;
    let issuer = &scene.issuer;
    let none = json!({});
    for (algorithm, kid) in [("EdDSA", "ed"), ("ES256", "ec"), ("RS256", "rsa"), ("PS256", "rsa")] {
        let header = json!({ "alg": algorithm, "kid": kid, "typ": "JWT" });
        let jwt = issuer.sign(&header, &claims("till-1", &none));
        assert_eq!(scene.pools(&jwt).await.unwrap(), [POOL], "{algorithm}");
    }
    let with = |header: Value| issuer.sign(&header, &claims("boss", &none));
    let stranger = Issuer::new();
    let good = issuer.jwt("boss", &none);
    assert!(scene.pools(&good).await.is_ok());
    let (body, signature) = good.rsplit_once('.').unwrap();
    let other_claims = URL.encode(claims("till-1", &none).to_string());
    let bad = [
        ("none", with(json!({ "alg": "none" }))),
        ("none with a kid", with(json!({ "alg": "none", "kid": "ed" }))),
        ("no signature", format!("{body}.")),
        ("HS256 with the public key", with(json!({ "alg": "HS256", "kid": "ed" }))),
        ("a key of another kind", with(json!({ "alg": "ES256", "kid": "ed" }))),
        ("an unknown kid", with(json!({ "alg": "EdDSA", "kid": "new" }))),
        ("no kid of several", with(json!({ "alg": "EdDSA" }))),
        ("crit", with(json!({ "alg": "EdDSA", "kid": "ed", "crit": ["exp"], "exp": 1 }))),
        ("another's key", stranger.jwt("boss", &none)),
        ("another body", format!("{}.{other_claims}.{signature}", body.split_once('.').unwrap().0)),
        ("aud", issuer.jwt("boss", &json!({ "aud": "others" }))),
        ("no aud", issuer.jwt("boss", &json!({ "aud": null }))),
        ("iss", issuer.jwt("boss", &json!({ "iss": "https://other.example" }))),
        ("no iss", issuer.jwt("boss", &json!({ "iss": null }))),
        ("exp", issuer.jwt("boss", &json!({ "exp": now() - 10 }))),
        ("no exp", issuer.jwt("boss", &json!({ "exp": null }))),
        ("exp as text", issuer.jwt("boss", &json!({ "exp": "9999999999" }))),
        ("nbf", issuer.jwt("boss", &json!({ "nbf": now() + 60 }))),
        ("nbf as text", issuer.jwt("boss", &json!({ "nbf": "1" }))),
        ("no sub", issuer.jwt("boss", &json!({ "sub": null }))),
        ("an empty sub", issuer.jwt("", &none)),
        ("a sub with a line", issuer.jwt("boss\nx", &none)),
        ("a long sub", issuer.jwt(&"x".repeat(300), &none)),
    ];
    for (what, jwt) in bad {
        let error = scene.pools(&jwt).await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated, "{what}");
        assert!(!format!("{error:?}").contains(&jwt), "{what}");
    }
    // Within the clocks' difference it is taken, and an audience may be one of several.
    let late = issuer.jwt("till-1", &json!({ "exp": now() - 1, "aud": ["others", AUDIENCE] }));
    assert!(scene.pools(&late).await.is_ok());
    // Who is known and was granted nothing may do nothing.
    let nobody = issuer.jwt("nobody", &none);
    assert_eq!(code(scene.pools(&nobody).await), Code::PermissionDenied);
}

#[tokio::test]
async fn what_waits_ends_when_its_jwt_expires() {
    let scene = Scene::new(|access| access.jwt_clock_skew = Duration::ZERO).await;
    let jwt = scene.issuer.jwt("till-1", &json!({ "exp": now() + 3 }));
    let mut till = caller(&scene.world, 0, &jwt).await;
    let begun = Instant::now();
    let request = pb::AcquireAccountRequest {
        request_id: "waits".to_owned(),
        pool_id: POOL.to_owned(),
        holder: "till".to_owned(),
        wait_timeout: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    };
    assert_eq!(code(till.redemptions.acquire_account(request).await), Code::Unauthenticated);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(code(till.pools().await), Code::Unauthenticated);
}

#[tokio::test]
async fn grants_and_keys_are_read_again_when_their_files_change() {
    let scene = Scene::new(|_| {}).await;
    let none = json!({});
    let mut till = caller(&scene.world, 0, &scene.issuer.jwt("till-1", &none)).await;
    assert_eq!(till.pools().await.unwrap(), [POOL]);
    // With a fault in it nothing changes; a file that grants it nothing takes what it had.
    fs::write(&scene.access_file, "[[grant]]\nprincipal = 7\n").unwrap();
    let mut clerk = caller(&scene.world, 0, &scene.issuer.jwt("clerk", &none)).await;
    assert_eq!(code(clerk.pools().await), Code::PermissionDenied);
    assert_eq!(till.pools().await.unwrap(), [POOL]);
    fs::write(&scene.access_file, grants().replace("till-*", "clerk")).unwrap();
    let limit = Duration::from_secs(10);
    eventually(limit, "the new grants count", async || clerk.pools().await.ok()).await;
    assert_eq!(code(till.pools().await), Code::PermissionDenied);
    // Another issuer's keys: what the one before signed is not taken any more.
    let other = Issuer::new();
    fs::write(&scene.jwks_file, other.jwks().to_string()).unwrap();
    refused_after(&mut clerk, Instant::now()).await;
    let mut again = caller(&scene.world, 0, &other.jwt("clerk", &none)).await;
    assert_eq!(again.pools().await.unwrap(), [POOL]);
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_keeps_nobody_else_waiting() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            silent.push(stream);
        }
    });
    let scene = Scene::new(|access| {
        access.jwt_jwks_file = None;
        access.jwt_jwks_url = Some(JwksUrl::parse(&url).unwrap());
    })
    .await;
    let jwt = scene.issuer.jwt("boss", &json!({}));
    let begun = Instant::now();
    assert_eq!(code(scene.pools(&jwt).await), Code::Unauthenticated);
    assert!(admin(&scene.world).await.pools().await.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn keys_at_a_url_are_read_at_the_start() {
    let issuer = Issuer::new();
    let jwks = issuer.jwks().to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/jwks", axum::routing::get(async move || jwks.clone()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let scene = Scene::new(|access| {
        access.jwt_jwks_file = None;
        access.jwt_jwks_url = Some(JwksUrl::parse(&url).unwrap());
    })
    .await;
    assert_eq!(scene.pools(&issuer.jwt("till-1", &json!({}))).await.unwrap(), [POOL]);
}
