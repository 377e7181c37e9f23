//! Pointers into JSON, by RFC 6901. One that begins with `@` reads the element that was chosen.

use super::{
    super::json::{Contradiction, Json},
    source::Value,
};

/// One pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) struct Pointer {
    /// It reads the element, not the whole body.
    pub(super) of_element: bool,
    tokens: Vec<String>,
}

/// A pointer, or several: the first that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) struct Pointers(pub(super) Vec<Pointer>);

impl Pointer {
    /// Reads a pointer; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (of_element, path) = match text.strip_prefix('@') {
            Some(path) => (true, path),
            None => (false, text),
        };
        if path.is_empty() {
            return Ok(Self { of_element, tokens: Vec::new() });
        }
        let path = path
            .strip_prefix('/')
            .ok_or("must be a pointer: \"\", or text that begins with '/' or '@'")?;
        let tokens = path.split('/').map(unescape).collect::<Option<Vec<_>>>();
        Ok(Self { of_element, tokens: tokens.ok_or("must have '~0' or '~1' for each '~'")? })
    }

    /// Whether it points to the same as another one, or to something within that.
    pub(super) fn is_at_or_within(&self, other: &Self) -> bool {
        self.of_element == other.of_element && self.tokens.starts_with(&other.tokens)
    }

    /// What it points to in a body and its chosen element; null is nothing.
    pub(in crate::provider) fn get<'a>(
        &self,
        body: &'a Json,
        element: Option<&'a Json>,
    ) -> Result<Option<&'a Json>, Contradiction> {
        let root = if self.of_element { element } else { Some(body) };
        root.map_or(Ok(None), |root| self.within(root))
    }

    /// What it points to in a value, whichever it is meant for.
    pub(super) fn within<'a>(&self, root: &'a Json) -> Result<Option<&'a Json>, Contradiction> {
        let mut at = root;
        for token in &self.tokens {
            let next = match at {
                Json::Object(object) => object.field(token)?,
                Json::List(list) => index(token).and_then(|index| list.get(index)),
                _ => None,
            };
            match next {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at).filter(|value| !matches!(value, Json::Null)))
    }

    /// Changes what it points to; answers whether all that were there could be.
    pub(super) fn change(
        &self,
        root: &mut Json,
        change: &mut dyn FnMut(&mut Json) -> bool,
    ) -> bool {
        let mut at = root;
        for token in &self.tokens {
            let next = match at {
                Json::Object(object) => match object.field(token) {
                    Err(Contradiction) => return false,
                    Ok(None) => None,
                    Ok(Some(_)) => object.field_mut(token),
                },
                Json::List(list) => index(token).and_then(|index| list.get_mut(index)),
                _ => None,
            };
            match next {
                Some(next) => at = next,
                None => return true,
            }
        }
        change(at)
    }
}

impl Pointers {
    /// Reads one pointer, or a list of them.
    pub(super) fn read(value: &Value<'_>) -> Option<Self> {
        let values = value.one_or_list();
        if values.is_empty() {
            value.fault("must have a pointer");
            return None;
        }
        let pointers: Vec<_> = values.iter().map(read_pointer).collect();
        pointers.into_iter().collect::<Option<_>>().map(Self)
    }

    /// What the first that is there points to.
    pub(in crate::provider) fn get<'a>(
        &self,
        body: &'a Json,
        element: Option<&'a Json>,
    ) -> Result<Option<&'a Json>, Contradiction> {
        for pointer in &self.0 {
            if let Some(value) = pointer.get(body, element)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Whether one of them reads the element.
    pub(super) fn need_element(&self) -> bool {
        self.0.iter().any(|pointer| pointer.of_element)
    }
}

/// Reads a pointer that a value is.
pub(super) fn read_pointer(value: &Value<'_>) -> Option<Pointer> {
    let parsed = Pointer::parse(value.text()?);
    parsed.map_err(|why| value.fault(why)).ok()
}

fn unescape(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut whole = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) = match part.as_bytes().first()? {
            b'0' => ('~', &part[1..]),
            b'1' => ('/', &part[1..]),
            _ => return None,
        };
        whole.push(sign);
        whole.push_str(rest);
    }
    Some(whole)
}

fn index(token: &str) -> Option<usize> {
    let is_index = token == "0"
        || token.starts_with(|c: char| ('1'..='9').contains(&c))
            && token.bytes().all(|b| b.is_ascii_digit());
    is_index.then(|| token.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"a/b": [10, {"~": "x"}], "": 1, "n": null, "t": 1, "t": 2}"#;

    fn get(pointer: &str) -> Option<Result<String, Contradiction>> {
        let body = Json::read(BODY.as_bytes()).ok().unwrap();
        let found = Pointer::parse(pointer).unwrap();
        match found.get(&body, None) {
            Err(contradiction) => Some(Err(contradiction)),
            Ok(None) => None,
            Ok(Some(Json::Number(number))) => Some(Ok(number.as_str().to_owned())),
            Ok(Some(Json::Text(text))) => Some(Ok(text.clone())),
            Ok(Some(_)) => Some(Ok("…".to_owned())),
        }
    }

    #[test]
    fn a_pointer_reads_as_the_rfc_has_it() {
        let is = |text: &str| Some(Ok(text.to_owned()));
        assert_eq!(get(""), is("…"));
        assert_eq!(get("/a~1b/0"), is("10"));
        assert_eq!(get("/a~1b/1/~0"), is("x"));
        assert_eq!(get("/"), is("1"));
        for absent in ["/n", "/a~1b/2", "/a~1b/00", "/a~1b/-", "/a~1b/0/x", "/x", "@", "@/t"] {
            assert_eq!(get(absent), None, "{absent}");
        }
        assert_eq!(get("/t"), Some(Err(Contradiction)));
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for text in ["a", "a/b", "@a", "/~", "/~2", "#/a"] {
            assert!(Pointer::parse(text).is_err(), "{text}");
        }
    }
}
