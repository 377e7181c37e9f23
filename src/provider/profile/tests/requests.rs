//! Requests, to the byte.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{super::*, loads, minimal};
use crate::domain::{id::RedemptionId, money::Money};

fn values() -> Values {
    let mut values = Values::at(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap());
    values.nonce = Uuid::nil();
    values.key = Some("k-1".to_owned());
    values.code = Some("A/B \"c\"&=é".to_owned());
    values.account.id = Some("a 1".to_owned());
    let currency = Currency::parse("USD").unwrap();
    values.expected = Some(Money { amount_minor: 1050, currency });
    values.secrets = BTreeMap::from([("s".to_owned(), "key".to_owned())]);
    values
}

#[test]
fn a_request_is_the_bytes_that_the_file_says() {
    let profile = loads(&minimal(""));
    let request = profile.request(OpKind::Send, &values()).unwrap();
    assert_eq!(request.method, "POST");
    assert_eq!(request.url(), "https://provider.test/api/r/k-1");
    assert_eq!(request.body.as_deref(), Some(r#"{"code":"A/B \"c\"&=é","amount":1050}"#));
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("x-account", "a 1"),
    ];
    assert_eq!(request.headers, headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn leaves_that_are_absent_are_left_out_and_tables_with_them() {
    let body = r#"{ z = "{{ expected.minor? }}", t = { a = "{{ task? }}", b = { c = "{{ account.country? }}" } }, e = {}, l = ["{{ account.country? }}", 1, 1.50, true], k = "{{ expected.major | number }}", n = "{{ now.epoch | text }}" }"#;
    let text = minimal("").replace(
        r#"{ code = "{{ code }}", amount = "{{ expected.minor }}" }"#,
        &body.replace("{{ task? }}", "{{ account.labels.x? }}"),
    );
    let profile = loads(&text);
    let request = profile.request(OpKind::Send, &values()).unwrap();
    assert_eq!(
        request.body.unwrap(),
        r#"{"z":1050,"e":{},"l":[1,1.50,true],"k":10.50,"n":"1800000000"}"#
    );
    let mut without = values();
    without.expected = None;
    let refused = profile.request(OpKind::Send, &without).err();
    assert_eq!(refused, Some(Unusable::Missing("expected.major".to_owned())));
}

#[test]
fn no_value_breaks_out_of_where_it_stands() {
    let more = r#"
[op.look_up]
path = "/x/{{ key }}/y"
query = { q = "{{ code }}", "a b" = 1, t = "{{ task? }}" }
headers = { x-h = "{{ code }}" }
as = "send"
"#;
    let profile = loads(&minimal(more));
    let look_up = |key: &str, code: &str| {
        let mut values = values();
        values.key = Some(key.to_owned());
        values.code = Some(code.to_owned());
        profile.request(OpKind::LookUp, &values)
    };
    let request = look_up("a/../b?c#d%", "a&b=c é'~").unwrap();
    assert_eq!(request.path, "/api/x/a%2F..%2Fb%3Fc%23d%25/y");
    assert_eq!(request.query, "q=a%26b%3Dc%20%C3%A9%27~&a%20b=1");
    assert!(url::Url::parse(&request.url()).is_ok_and(|url| url.path() == request.path));
    for key in ["", ".", ".."] {
        assert!(look_up(key, "x").is_err(), "{key:?}");
    }
    for code in ["a\r\nb: c", "a\u{0}", "\u{7f}"] {
        assert!(look_up("k", code).is_err(), "{code:?}");
    }
}

#[test]
fn forms_and_tokens_and_two_ways_to_prove_who_asks() {
    let auth = r#"
[[auth]]
kind = "hmac"
secret = "{{ secret.s }}"
over = "{{ request.method }}\n{{ request.path }}\n{{ request.query }}\n{{ request.header.Authorization }}\n{{ request.body }}{{ now.epoch_ms }}{{ nonce }}"
query = "sig"
[[auth]]
kind = "token"
path = "/oauth/token"
form = { grant_type = "client_credentials", secret = "{{ secret.s }} +" }
take = { token = "/access_token", expires_in = "/expires_in" }
[op.look_up]
path = "/x/{{ key }}"
query = { a = 1 }
as = "send"
"#;
    let profile = loads(&minimal(auth));
    let mut values = values();
    let token = profile.token_request(&values).unwrap().unwrap();
    assert_eq!(token.url(), "https://provider.test/api/oauth/token");
    assert_eq!(token.body.as_deref(), Some("grant_type=client_credentials&secret=key+%2B"));
    assert!(
        token
            .headers
            .contains(&("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned()))
    );
    let told = profile.read_token(200, br#"{"access_token": "t-1", "expires_in": 60}"#).unwrap();
    assert_eq!(told, ("t-1".to_owned(), Some(std::time::Duration::from_secs(60))));
    assert!(profile.read_token(401, br#"{"access_token": "t-1"}"#).is_err());
    assert!(profile.read_token(200, br#"{"access_token": ""}"#).is_err());
    assert_eq!(
        profile.request(OpKind::LookUp, &values).err(),
        Some(Unusable::Missing("token".to_owned()))
    );
    values.token = Some("t-1".to_owned());
    let request = profile.request(OpKind::LookUp, &values).unwrap();
    let over = format!("GET\n/api/x/k-1\na=1\nBearer t-1\n1800000000000{}", Uuid::nil());
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"key").unwrap();
    mac.update(over.as_bytes());
    assert_eq!(request.query, format!("a=1&sig={}", hex::encode(mac.finalize().into_bytes())));
    let again = profile.request(OpKind::LookUp, &values).unwrap();
    assert!(again == request, "the same values are the same bytes");
}

#[test]
fn basic_auth_and_fixed_headers() {
    let auth = "[auth]\nkind = \"basic\"\nuser = \"u\"\npassword = \"{{ secret.s }}\"\n";
    let request = loads(&minimal(auth)).request(OpKind::Send, &values()).unwrap();
    assert!(request.headers.contains(&("authorization".to_owned(), "Basic dTprZXk=".to_owned())));
    let auth = "[auth]\nkind = \"header\"\nheaders = { X-Key = \"{{ secret.missing }}\" }\n";
    let refused = loads(&minimal(auth)).request(OpKind::Send, &values()).err();
    assert_eq!(refused, Some(Unusable::Missing("secret.missing".to_owned())));
}

#[test]
fn keys_are_made_of_the_redemptions_id() {
    let id = RedemptionId(Uuid::from_u128(0x0190_163d_8694_739b_aea5_966c_26f8_ad90));
    assert_eq!(KeyKind::Uuid.of(id), "0190163d-8694-739b-aea5-966c26f8ad90");
    assert_eq!(KeyKind::Hex(16).of(id), "aea5966c26f8ad90");
    assert_eq!(KeyKind::Hex(32).of(id), "0190163d8694739baea5966c26f8ad90");
    let number = id.0.as_u128().to_string();
    assert_eq!(KeyKind::Digits(20).of(id), number[number.len() - 20..]);
    assert_eq!(KeyKind::Digits(38).of(RedemptionId(Uuid::from_u128(7))), format!("{:038}", 7));
    assert!(KeyKind::Digits(20).is_same("00000000000000000012", "12"));
    assert!(KeyKind::Hex(16).is_same("aea5966c26f8ad90", "AEA5966C26F8AD90"));
    assert!(!KeyKind::Uuid.is_same("a", "b"));
}

/// As it was before there were profiles, to the byte.
#[test]
fn the_built_in_profile_asks_with_the_same_bytes() {
    use crate::domain::{
        id::AccountId,
        redemption::{AccountFacts, Ask, CardCode, Known},
    };
    let currency = Currency::parse("EUR").unwrap();
    let mut ask = Ask {
        redemption_id: RedemptionId::parse("0190163d-8694-739b-aea5-966c26f8ad90").unwrap(),
        code: CardCode::parse("AB\"12").unwrap(),
        account_id: AccountId::parse("acc-1").unwrap(),
        expected: Some(Money { amount_minor: 5000, currency }),
        currency,
        not_after: "2026-11-01T00:00:00Z".to_owned(),
        account: AccountFacts::default(),
        known: Known::at_first(OffsetDateTime::UNIX_EPOCH),
    };
    let profile = Profile::built_in();
    let send = |ask: &Ask| {
        profile.request(OpKind::Send, &Values::of_ask(profile.identity.key, ask)).unwrap()
    };
    let request = send(&ask);
    assert_eq!(
        request.body.as_deref().unwrap(),
        r#"{"code":"AB\"12","account_ref":"acc-1","expected":{"amount_minor":5000,"currency_code":"EUR"},"not_after":"2026-11-01T00:00:00Z"}"#
    );
    assert_eq!((&*request.method, &*request.path), ("POST", "/redemptions"));
    let key = ("idempotency-key".to_owned(), ask.redemption_id.to_string());
    assert!(request.headers.contains(&key));
    assert!(request == send(&ask.clone()));
    ask.expected = None;
    assert_eq!(
        send(&ask).body.unwrap(),
        r#"{"code":"AB\"12","account_ref":"acc-1","not_after":"2026-11-01T00:00:00Z"}"#
    );
    let cancel =
        profile.request(OpKind::Cancel, &Values::of_ask(profile.identity.key, &ask)).unwrap();
    assert_eq!(cancel.path, "/redemptions/0190163d-8694-739b-aea5-966c26f8ad90/cancel");
    assert_eq!((&*cancel.method, cancel.body), ("POST", None));
}
