//! Templates: `{{ name }}`, `{{ name? }}`, `{{ name | text }}`, `{{ name | number }}`. They are rendered once: a
//! value that holds `{{` stays text.

use super::{
    super::json::Number,
    names::Name,
    values::{Given, Values},
};

/// A text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Placeholder),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Placeholder {
    name: Name,
    /// It may be absent.
    optional: bool,
    cast: Option<Cast>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cast {
    Text,
    Number,
}

/// Why a template has no value: nothing is sent then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The value of this name is not there.
    #[error("{0} has no value")]
    Missing(String),
    /// It is there, and cannot stand where it is to be sent.
    #[error("{0} cannot be sent: {1}")]
    Unfit(String, &'static str),
    /// The profile has no such op.
    #[error("the profile has no op.{0}")]
    NoOp(&'static str),
}

/// What a template is, once rendered.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::provider) enum Rendered {
    Text(String),
    Whole(i64),
    /// As it is written.
    Number(String),
}

impl Rendered {
    pub(in crate::provider) fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Number(text) => text,
            Self::Whole(number) => number.to_string(),
        }
    }
}

impl Template {
    /// A text without placeholders.
    pub(super) fn plain(text: &str) -> Self {
        Self(vec![Part::Text(text.to_owned())])
    }

    /// The value of a secret.
    pub(super) fn of_secret(name: &str) -> Self {
        let name = Name::Secret(name.to_owned());
        Self(vec![Part::Value(Placeholder { name, optional: false, cast: None })])
    }

    /// Reads a template. The error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            let inner = &rest[start + 2..];
            let end = inner.find("}}").ok_or("has a '{{' without its '}}'")?;
            parts.push(Part::Value(placeholder(&inner[..end])?));
            rest = &inner[end + 2..];
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// The names in it.
    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().filter_map(|part| match part {
            Part::Value(placeholder) => Some(&placeholder.name),
            Part::Text(_) => None,
        })
    }

    /// Its text, where it has no placeholders.
    pub(super) fn fixed(&self) -> Option<String> {
        let texts = self.0.iter().map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Value(_) => None,
        });
        texts.collect::<Option<Vec<_>>>().map(|texts| texts.concat())
    }

    /// The fixed texts in it.
    pub(super) fn without_values(&self) -> Vec<&str> {
        let texts = self.0.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Value(_) => None,
        });
        texts.collect()
    }

    /// Its name, where it is one placeholder and nothing else.
    pub(super) fn sole_name(&self) -> Option<&Name> {
        match &*self.0 {
            [Part::Value(placeholder)] => Some(&placeholder.name),
            _ => None,
        }
    }

    /// Renders a leaf. `None`: it is left out.
    pub(super) fn leaf(&self, values: &Values) -> Result<Option<Rendered>, Unusable> {
        match &*self.0 {
            [Part::Value(sole)] => match values.get(&sole.name) {
                None if sole.optional => Ok(None),
                None => Err(Unusable::Missing(sole.name.text())),
                Some(given) => cast(sole, given).map(Some),
            },
            _ => self.text(values).map(|text| Some(Rendered::Text(text))),
        }
    }

    /// Renders it as a text. What may be absent, and is, is no text.
    pub(in crate::provider) fn text(&self, values: &Values) -> Result<String, Unusable> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Value(placeholder) => match values.get(&placeholder.name) {
                    None if placeholder.optional => {}
                    None => return Err(Unusable::Missing(placeholder.name.text())),
                    Some(given) => text.push_str(&cast(placeholder, given)?.into_text()),
                },
            }
        }
        Ok(text)
    }

    /// Renders it with each value encoded, the fixed text as it is.
    pub(super) fn encoded(
        &self,
        values: &Values,
        encode: fn(&str) -> String,
    ) -> Result<String, Unusable> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Value(placeholder) => match values.get(&placeholder.name) {
                    None if placeholder.optional => {}
                    None => return Err(Unusable::Missing(placeholder.name.text())),
                    Some(given) => text.push_str(&encode(&cast(placeholder, given)?.into_text())),
                },
            }
        }
        Ok(text)
    }

    /// Splits the fixed text at a character: a placeholder is part of one piece.
    pub(super) fn split(&self, at: char) -> Vec<Self> {
        let mut pieces = vec![Vec::new()];
        for part in &self.0 {
            match part {
                Part::Text(text) => {
                    for (index, piece) in text.split(at).enumerate() {
                        if index > 0 {
                            pieces.push(Vec::new());
                        }
                        if let Some(last) = pieces.last_mut().filter(|_| !piece.is_empty()) {
                            last.push(Part::Text(piece.to_owned()));
                        }
                    }
                }
                Part::Value(placeholder) => {
                    if let Some(last) = pieces.last_mut() {
                        last.push(Part::Value(placeholder.clone()));
                    }
                }
            }
        }
        pieces.into_iter().map(Self).collect()
    }
}

fn cast(placeholder: &Placeholder, given: Given) -> Result<Rendered, Unusable> {
    match (placeholder.cast, given) {
        (None, Given::Text(text)) => Ok(Rendered::Text(text)),
        (None | Some(Cast::Number), Given::Whole(number)) => Ok(Rendered::Whole(number)),
        (Some(Cast::Text), given) => Ok(Rendered::Text(given.into_text())),
        (Some(Cast::Number), Given::Text(text)) => match Number::parse(&text) {
            Some(_) => Ok(Rendered::Number(text)),
            None => Err(Unusable::Unfit(placeholder.name.text(), "it is not a number")),
        },
    }
}

fn placeholder(text: &str) -> Result<Placeholder, String> {
    let (name, cast) = match text.split_once('|') {
        None => (text.trim(), None),
        Some((name, cast)) => {
            let cast = match cast.trim() {
                "text" => Cast::Text,
                "number" => Cast::Number,
                other => return Err(format!("has '| {other}': only text and number are there")),
            };
            (name.trim(), Some(cast))
        }
    };
    let (name, optional) = match name.strip_suffix('?') {
        Some(name) => (name.trim_end(), true),
        None => (name, false),
    };
    let parsed = Name::parse(name).ok_or_else(|| format!("names '{name}', which nothing has"))?;
    Ok(Placeholder { name: parsed, optional, cast })
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn values() -> Values {
        let mut values = Values::at(OffsetDateTime::UNIX_EPOCH);
        values.key = Some("k-1".to_owned());
        values.code = Some("{{ key }}".to_owned());
        values
    }

    fn render(text: &str) -> Result<String, Unusable> {
        Template::parse(text).unwrap().text(&values())
    }

    #[test]
    fn a_template_is_rendered_once() {
        assert_eq!(render("a {{ code }} {{key}} }} {").unwrap(), "a {{ key }} k-1 }} {");
        assert_eq!(render("").unwrap(), "");
    }

    #[test]
    fn a_value_that_is_absent_is_an_error_unless_it_may_be() {
        assert_eq!(render("{{ task }}"), Err(Unusable::Missing("task".to_owned())));
        assert_eq!(render("x{{ task? }}y").unwrap(), "xy");
        assert!(Template::parse("{{ task? }}").unwrap().leaf(&values()) == Ok(None));
    }

    #[test]
    fn a_sole_placeholder_keeps_its_type_or_gets_another() {
        let leaf = |text: &str| Template::parse(text).unwrap().leaf(&values());
        assert!(leaf("{{ now.epoch }}") == Ok(Some(Rendered::Whole(0))));
        assert!(leaf("{{ now.epoch | text }}") == Ok(Some(Rendered::Text("0".to_owned()))));
        assert!(leaf("{{ key | number }}").is_err());
        let mut numeric = values();
        numeric.key = Some("0012".to_owned());
        let number = Template::parse("{{ key | number }}").unwrap();
        assert!(number.leaf(&numeric).is_err(), "JSON has no number with zeros before it");
        numeric.key = Some("12.50".to_owned());
        assert!(number.leaf(&numeric) == Ok(Some(Rendered::Number("12.50".to_owned()))));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in [
            "{{ key",
            "{{ nobody }}",
            "{{ }}",
            "{{ key | upper }}",
            "{{ secret. }}",
            "{{ secret.a/b }}",
            "{{ secret... }}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
