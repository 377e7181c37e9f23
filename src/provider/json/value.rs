//! JSON values, read without losing anything: fields that are given twice, and numbers as they are written.
//!
//! Numbers are kept as text, by serde_json's `RawValue`. Its feature `arbitrary_precision` would do so too, but it
//! changes how every number in the program is read.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

use super::Number;

/// What editors and some libraries write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// The deepest nesting that is read. Each level is read once more than the one around it.
const MAX_DEPTH: usize = 64;

/// A value. No `Debug`: it may hold a card's code.
#[derive(Clone, PartialEq)]
pub(in crate::provider) enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object.
    Object(Object),
}

/// An object: its fields in order, those that are given twice too.
#[derive(Clone, Default, PartialEq)]
pub(in crate::provider) struct Object(pub(super) Vec<(String, Json)>);

/// A field that is given twice, with different values: which of them is meant cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider) struct Contradiction;

impl Object {
    /// The value of a field; null is none.
    pub(in crate::provider) fn field(&self, name: &str) -> Result<Option<&Json>, Contradiction> {
        let mut given = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        match given.next() {
            Some(first) if given.any(|other| other != first) => Err(Contradiction),
            None | Some(Json::Null) => Ok(None),
            Some(value) => Ok(Some(value)),
        }
    }

    /// The first of a field's values.
    pub(in crate::provider) fn field_mut(&mut self, name: &str) -> Option<&mut Json> {
        self.0.iter_mut().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl Json {
    /// Reads a body. The error says why it is none.
    pub(in crate::provider) fn read(body: &[u8]) -> Result<Self, &'static str> {
        let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body).trim_ascii();
        let read = serde_json::from_slice::<&RawValue>(text);
        match read.and_then(|raw| build(raw, 0)) {
            Ok(json) => Ok(json),
            Err(_) if text.is_empty() => Err("the body is empty"),
            Err(_) if text.starts_with(b"<") => Err("the body is not JSON but begins like HTML"),
            Err(error) if error.classify() == Category::Eof => {
                Err("the body is JSON that breaks off")
            }
            Err(_) => Err("the body is not JSON"),
        }
    }
}

fn build(raw: &RawValue, depth: usize) -> serde_json::Result<Json> {
    if depth > MAX_DEPTH {
        return Err(serde::de::Error::custom("it is nested too deeply"));
    }
    let text = raw.get();
    Ok(match text.as_bytes().first() {
        Some(b'{') => {
            let Fields(fields) = serde_json::from_str(text)?;
            let fields = fields.into_iter().map(|(name, raw)| Ok((name, build(raw, depth + 1)?)));
            Json::Object(Object(fields.collect::<serde_json::Result<_>>()?))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            let items = items.into_iter().map(|raw| build(raw, depth + 1));
            Json::List(items.collect::<serde_json::Result<_>>()?)
        }
        Some(b'"') => Json::Text(serde_json::from_str(text)?),
        Some(b'n') => Json::Null,
        Some(b't' | b'f') => Json::Bool(serde_json::from_str(text)?),
        _ => Json::Number(Number::written(text)),
    })
}

/// An object's fields, each as it is written.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_refused_in_little_time() {
        let lone = r#"{"a": "\ud800"}"#;
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        let deep_objects = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
        for text in [lone, &deep, &deep_objects, "{\"a\": NaN}", "[1,]", "\u{0}"] {
            assert!(Json::read(text.as_bytes()).is_err(), "{text:.40}");
        }
        assert!(Json::read(b"{\"a\": \"\xff\"}").is_err());
    }

    #[test]
    fn numbers_stay_as_they_are_written() {
        let Ok(Json::List(list)) = Json::read(b"[1e400, 0.1, 12345678901234567890]") else {
            panic!("it is a list")
        };
        let texts = list.iter().map(|value| match value {
            Json::Number(number) => number.as_str(),
            _ => "",
        });
        assert_eq!(texts.collect::<Vec<_>>(), ["1e400", "0.1", "12345678901234567890"]);
    }
}
