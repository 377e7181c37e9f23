//! JSON as providers write it, read field by field.
//!
//! What loses nothing is taken. Examples: a byte order mark before the text, `1000.0` or `1e3` for 1000, a field
//! that is given twice with the same value. What cannot be used is named by its field and by what is wrong with
//! it, never by its content. That may be a card's code.

mod number;
mod value;

use std::time::Duration;

pub(super) use number::Number;
pub(super) use value::{Contradiction, Json, Object};

/// A field of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field<T> {
    /// It is not there, or null.
    Missing,
    /// It is there and can be used.
    Is(T),
    /// It is there and cannot be used: what is wrong with it, to follow its name.
    Wrong(&'static str),
}

impl<T> Field<T> {
    /// The value; the error names the field and what is wrong with it.
    pub(super) fn needed(self, name: &str) -> Result<T, String> {
        match self {
            Self::Is(value) => Ok(value),
            Self::Missing => Err(format!("{name} is missing")),
            Self::Wrong(why) => Err(format!("{name} {why}")),
        }
    }

    /// The value of a field that may be left out.
    pub(super) fn optional(self, name: &str) -> Result<Option<T>, String> {
        match self {
            Self::Missing => Ok(None),
            field => field.needed(name).map(Some),
        }
    }

    /// The value of a field that proves nothing: one that cannot be used is passed over.
    pub(super) fn if_any(self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Missing | Self::Wrong(_) => None,
        }
    }

    /// Reads the value on.
    pub(super) fn and_then<U>(self, read: impl FnOnce(T) -> Field<U>) -> Field<U> {
        match self {
            Self::Is(value) => read(value),
            Self::Missing => Field::Missing,
            Self::Wrong(why) => Field::Wrong(why),
        }
    }
}

impl Field<String> {
    /// The text, which must not be empty.
    pub(super) fn filled(self) -> Self {
        self.and_then(|text| if text.is_empty() { Self::Wrong("is empty") } else { Self::Is(text) })
    }
}

/// The value that several fields make, or all that is wrong with them.
pub(super) fn all_wrong(errors: impl IntoIterator<Item = Option<String>>) -> String {
    errors.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

impl Object {
    /// Reads a body. The error says why it is none.
    pub(super) fn read(body: &[u8]) -> Result<Self, &'static str> {
        match Json::read(body)? {
            Json::Object(object) => Ok(object),
            _ => Err("the body is not a JSON object"),
        }
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Field<String> {
        self.get(name).and_then(|value| match value {
            Json::Text(text) => Field::Is(text.clone()),
            _ => Field::Wrong("is not a text"),
        })
    }

    /// A whole number, however it is written.
    pub(super) fn whole(&self, name: &str) -> Field<i64> {
        self.get(name).and_then(|value| match value {
            Json::Number(number) => {
                number.whole(0).map_or(Field::Wrong("is not a whole number"), Field::Is)
            }
            _ => Field::Wrong("is not a whole number"),
        })
    }

    /// Milliseconds: fractions are left out, and too many are the most that there are.
    pub(super) fn milliseconds(&self, name: &str) -> Field<Duration> {
        self.get(name).and_then(|value| {
            let Json::Number(number) = value else { return Field::Wrong("is not a number") };
            let number = number.about();
            // Saturates.
            if number >= 0.0 {
                Field::Is(Duration::from_millis(number as u64))
            } else {
                Field::Wrong("is negative")
            }
        })
    }

    /// A list of objects.
    pub(super) fn objects(&self, name: &str) -> Field<Vec<Self>> {
        self.get(name).and_then(|value| {
            let Json::List(list) = value else { return Field::Wrong("is not a list") };
            let objects = list.iter().map(|value| match value {
                Json::Object(object) => Some(object.clone()),
                _ => None,
            });
            let objects = objects.collect::<Option<Vec<_>>>();
            objects.map_or(Field::Wrong("is not a list of objects"), Field::Is)
        })
    }

    fn get(&self, name: &str) -> Field<&Json> {
        match self.field(name) {
            Ok(value) => value.map_or(Field::Missing, Field::Is),
            Err(Contradiction) => Field::Wrong("is given twice, with different values"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Object {
        Object::read(text.as_bytes()).unwrap_or_default()
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        let number = |text: &str| read(&format!("{{\"n\": {text}}}")).whole("n");
        for text in ["1000", "1000.0", "1e3", "1.0E+3", "10000e-1"] {
            assert_eq!(number(text), Field::Is(1000), "{text}");
        }
        assert_eq!(number("-0.0"), Field::Is(0));
        assert_eq!(number("9007199254740992.0"), Field::Is(9_007_199_254_740_992));
        for text in ["1000.5", "1e-3", "1e300", "18446744073709551615", "\"1000\"", "true", "[1]"] {
            assert_eq!(number(text), Field::Wrong("is not a whole number"), "{text}");
        }
        assert_eq!(number("null"), Field::Missing);
    }

    #[test]
    fn a_wait_is_read_whatever_number_it_is_and_a_negative_one_is_none() {
        let wait = |text: &str| read(&format!("{{\"n\": {text}}}")).milliseconds("n").if_any();
        assert_eq!(wait("250"), Some(Duration::from_millis(250)));
        assert_eq!(wait("250.7"), Some(Duration::from_millis(250)));
        assert_eq!(wait("1e300"), Some(Duration::from_millis(u64::MAX)));
        for text in ["-1", "-1e300", "\"250\"", "null"] {
            assert_eq!(wait(text), None, "{text}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_fault() {
        let body = [b"\xEF\xBB\xBF".as_slice(), b"{\"a\": \"b\"}"].concat();
        assert_eq!(
            Object::read(&body).ok().map(|body| body.text("a")),
            Some(Field::Is("b".into()))
        );
    }

    #[test]
    fn a_field_that_is_given_twice_counts_only_when_both_say_the_same() {
        assert_eq!(read(r#"{"a": "x", "a": "x"}"#).text("a"), Field::Is("x".into()));
        for twice in
            [r#"{"a": "x", "a": "y"}"#, r#"{"a": null, "a": "x"}"#, r#"{"a": 1, "a": "x"}"#]
        {
            let wrong = Field::Wrong("is given twice, with different values");
            assert_eq!(read(twice).text("a"), wrong, "{twice}");
        }
        let nested = read(r#"{"f": [{"code": "A", "code": "B"}]}"#).objects("f");
        let nested = nested.if_any().unwrap_or_default();
        assert!(matches!(nested[0].text("code"), Field::Wrong(_)));
    }

    #[test]
    fn what_is_no_object_says_what_it_is() {
        for (body, why) in [
            ("", "the body is empty"),
            (" \r\n", "the body is empty"),
            ("\u{feff}", "the body is empty"),
            ("<!doctype html>", "the body is not JSON but begins like HTML"),
            ("{\"a\": ", "the body is JSON that breaks off"),
            ("busy", "the body is not JSON"),
            ("{} {}", "the body is not JSON"),
            ("[]", "the body is not a JSON object"),
            ("7", "the body is not a JSON object"),
        ] {
            assert_eq!(Object::read(body.as_bytes()).err(), Some(why), "{body:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(Object::read(deep.as_bytes()).is_err(), "it is refused, and nothing overflows");
    }
}
