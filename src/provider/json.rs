//! JSON as providers write it, read field by field.
//!
//! What loses nothing is taken. Examples: a byte order mark before the text, `1000.0` or `1e3` for 1000, a field
//! that is given twice with the same value. What cannot be used is named by its field and by what is wrong with
//! it, never by its content. That may be a card's code.

mod number;
mod value;

pub(super) use number::Number;
pub(super) use value::{Contradiction, Json};

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

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &str) -> Result<Option<Json>, Contradiction> {
        let Ok(Json::Object(object)) = Json::read(text.as_bytes()) else { panic!("{text}") };
        object.field("a").map(|value| value.cloned())
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        let whole = |text: &str| match field(&format!("{{\"a\": {text}}}")) {
            Ok(Some(Json::Number(number))) => number.whole(0),
            _ => None,
        };
        for text in ["1000", "1000.0", "1e3", "1.0E+3", "10000e-1"] {
            assert_eq!(whole(text), Some(1000), "{text}");
        }
        assert_eq!(whole("-0.0"), Some(0));
        assert_eq!(whole("9007199254740992.0"), Some(9_007_199_254_740_992));
        for text in ["1000.5", "1e-3", "1e300", "18446744073709551615", "\"1000\"", "true", "[1]"] {
            assert_eq!(whole(text), None, "{text}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_fault() {
        assert!(field("\u{feff}{\"a\": \"b\"}") == Ok(Some(Json::Text("b".into()))));
    }

    #[test]
    fn a_field_that_is_given_twice_counts_only_when_both_say_the_same() {
        assert!(field(r#"{"a": "x", "a": "x"}"#) == Ok(Some(Json::Text("x".into()))));
        for twice in
            [r#"{"a": "x", "a": "y"}"#, r#"{"a": null, "a": "x"}"#, r#"{"a": 1, "a": "x"}"#]
        {
            assert!(field(twice) == Err(Contradiction), "{twice}");
        }
    }

    #[test]
    fn what_is_no_json_says_what_it_is() {
        for (body, why) in [
            ("", "the body is empty"),
            (" \r\n", "the body is empty"),
            ("\u{feff}", "the body is empty"),
            ("<!doctype html>", "the body is not JSON but begins like HTML"),
            ("{\"a\": ", "the body is JSON that breaks off"),
            ("busy", "the body is not JSON"),
            ("{} {}", "the body is not JSON"),
        ] {
            assert_eq!(Json::read(body.as_bytes()).err(), Some(why), "{body:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(Json::read(deep.as_bytes()).is_err(), "it is refused, and nothing overflows");
    }
}
