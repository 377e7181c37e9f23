//! Requests as people may see them: with names instead of codes and secrets.
//!
//! The request is rendered with a number that occurs nowhere else in the place of each value that is hidden, and then
//! the numbers are replaced by the names. So nothing has to be searched for, however a value is encoded. Digits
//! mean the same in JSON, forms, queries and paths.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use super::{
    Profile, Values,
    names::{Name, OpKind},
    request::Request,
    template::Unusable,
};

/// A request for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its method.
    pub method: String,
    /// Its URL, encoded.
    pub url: String,
    /// Its headers, in the order in which they are made.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Option<String>,
}

/// The numbers that stand for values.
struct Hidden {
    values: Values,
    names: Vec<(String, String)>,
}

impl Profile {
    /// The request for an op, or for a token where there is none, as people may see it.
    pub fn shown(&self, kind: Option<OpKind>, values: &Values) -> Result<Shown, Unusable> {
        let hidden = Hidden::of(values);
        let request = match kind {
            Some(kind) => self.request(kind, &hidden.values)?,
            None => self.token_request(&hidden.values).ok_or(Unusable::NoOp("token"))??,
        };
        Ok(hidden.show(request))
    }

    /// What a request needs, or what its answer is compared with, and has no value: as templates write it.
    pub fn lacks(&self, kind: Option<OpKind>, values: &Values) -> Vec<String> {
        let mut values = Hidden::of(values).values;
        let mut lacking = Vec::new();
        // Each round finds one, and gives it a value.
        loop {
            let made = match kind {
                Some(kind) => self.request(kind, &values).map(drop),
                None => self.token_request(&values).transpose().map(drop),
            };
            match made {
                Err(Unusable::Missing(name)) if !lacking.contains(&name) => {
                    if let Some(name) = Name::parse(&name) {
                        values.fill(&name, "1");
                    }
                    lacking.push(name);
                }
                _ => break,
            }
        }
        let compared = kind.and_then(|kind| self.op(kind));
        for name in compared.into_iter().flat_map(super::Op::compared_names) {
            if values.get(name).is_none() && !lacking.contains(&name.text()) {
                lacking.push(name.text());
            }
        }
        lacking
    }
}

impl Hidden {
    fn of(values: &Values) -> Self {
        let mut hidden = Self { values: values.clone(), names: Vec::new() };
        let secrets = values.secrets.keys().cloned().map(Name::Secret);
        let credentials = values.account.secrets.keys().cloned().map(Name::AccountSecret);
        let others = [Name::Code, Name::Token, Name::Signature];
        let others = others.into_iter().filter(|name| values.get(name).is_some());
        let names: Vec<_> = secrets.chain(credentials).chain(others).collect();
        let signature = (!names.contains(&Name::Signature)).then_some(Name::Signature);
        for name in names.into_iter().chain(signature) {
            // Of one length, so that none is a part of another.
            let number = format!("9{:039}", rand::random::<u128>());
            hidden.values.fill(&name, &number);
            hidden.names.push((number, format!("{{{{ {} }}}}", name.text())));
        }
        hidden
    }

    fn show(&self, request: Request) -> Shown {
        let url = self.named(&request.url());
        let headers = request.headers.into_iter().map(|(name, value)| {
            let basic = value.strip_prefix("Basic ").and_then(|pair| BASE64.decode(pair).ok());
            match basic.and_then(|pair| String::from_utf8(pair).ok()) {
                Some(pair) => (name, format!("Basic base64({})", self.named(&pair))),
                None => (name, self.named(&value)),
            }
        });
        Shown {
            method: request.method,
            headers: headers.collect(),
            url,
            body: request.body.map(|body| self.named(&body)),
        }
    }

    fn named(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (number, name) in &self.names {
            text = text.replace(number, name);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    const FILE: &str = r#"
id = "shop"
version = 1
[http]
base = "https://cards.example"
headers = { x-app = "{{ secret.app }}" }
[[auth]]
kind = "basic"
user = "{{ secret.user }}"
password = "{{ secret.pass }}"
[[auth]]
kind = "hmac"
secret = "{{ secret.sign }}"
over = "{{ request.body }}"
header = "x-sign"
[identity]
key = "uuid"
dedup = "none"
window = "1h"
[times]
max_processing = "1m"
[op.send]
path = "/cards/{{ code }}"
query = { pin = "{{ account.secret.pin }}", task = "{{ nonce }}" }
body = { code = "{{ code | number }}", note = "say \"{{ account.secret.note }}\"", key = "{{ key }}" }
take = { amount = "expected", failure = "/f" }
[[op.send.rule]]
when = { status = [200], eq = { "/account" = "{{ account.id }}" } }
then = "succeeded"
"#;

    #[test]
    fn what_is_hidden_is_named_wherever_it_is_and_however_it_is_encoded() {
        let profile = Profile::parse(FILE).unwrap();
        let mut values = Values::at(OffsetDateTime::UNIX_EPOCH);
        values.code = Some("12345678".into());
        values.key = Some("k".into());
        for name in ["app", "user", "pass", "sign"] {
            values.secrets.insert(name.into(), format!("hush {name}\""));
        }
        for name in ["pin", "note"] {
            values.account.secrets.insert(name.into(), format!("hush {name}\""));
        }
        let shown = profile.shown(Some(OpKind::Send), &values).unwrap();
        let nonce = values.nonce;
        assert_eq!(
            shown.url,
            format!(
                "https://cards.example/cards/{{{{ code }}}}?pin={{{{ account.secret.pin }}}}&task={nonce}"
            )
        );
        assert_eq!(
            shown.body.as_deref(),
            Some(r#"{"code":{{ code }},"note":"say \"{{ account.secret.note }}\"","key":"k"}"#)
        );
        let header = |name: &str| {
            let found = shown.headers.iter().find(|(other, _)| other == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(header("x-app"), Some("{{ secret.app }}"));
        assert_eq!(header("x-sign"), Some("{{ signature }}"));
        assert_eq!(
            header("authorization"),
            Some("Basic base64({{ secret.user }}:{{ secret.pass }})")
        );
        let text = format!("{shown:?}");
        assert!(!text.contains("hush") && !text.contains("1234"), "{text}");
    }

    #[test]
    fn all_that_a_request_lacks_is_told_at_once() {
        let profile = Profile::parse(FILE).unwrap();
        let mut values = Values::at(OffsetDateTime::UNIX_EPOCH);
        for name in profile.secrets() {
            values.secrets.insert(name, "x".into());
        }
        let lacking = profile.lacks(Some(OpKind::Send), &values);
        for name in ["code", "account.secret.pin", "account.secret.note", "key", "account.id"] {
            assert!(lacking.iter().any(|it| it == name), "{name}: {lacking:?}");
        }
        assert_eq!(lacking.len(), 5);
    }
}
