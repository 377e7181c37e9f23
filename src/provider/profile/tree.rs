//! Tables of templates: bodies, forms, queries, headers.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use toml::de::DeValue;

use super::{
    names::{Name, Scope},
    source::{Table, Value},
    template::{Rendered, Template, Unusable},
    values::Values,
};

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes all but unreserved characters.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A body as it is written in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Tree {
    Leaf(Leaf),
    List(Vec<Tree>),
    /// In the order of the file.
    Table(Vec<(String, Tree)>),
}

/// A value that is no table and no list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Leaf {
    Template(Template),
    /// As JSON has it.
    Number(String),
    Bool(bool),
}

impl Leaf {
    pub(super) fn read(value: &Value<'_>, scope: Scope) -> Option<Self> {
        let of = match value.node() {
            DeValue::String(text) => match Template::parse(text) {
                Ok(template) => {
                    for name in template.names().filter(|name| !scope.has(name)) {
                        value.fault(format!("names {}, which has no value here", name.text()));
                    }
                    return Some(Self::Template(template));
                }
                Err(why) => {
                    value.fault(why);
                    return None;
                }
            },
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .map(|number| Self::Number(number.to_string())),
            DeValue::Float(number) => {
                let text: String = number.as_str().replace('_', "");
                let text = text.trim_start_matches('+');
                super::super::json::Number::parse(text)
                    .map(|number| Self::Number(number.as_str().to_owned()))
            }
            DeValue::Boolean(truth) => Some(Self::Bool(*truth)),
            _ => None,
        };
        if of.is_none() {
            value.fault("must be a text, a number, or true or false");
        }
        of
    }

    /// Whether some value is equal to both.
    pub(super) fn may_equal(&self, other: &Self) -> bool {
        let has_names = |leaf: &Self| !leaf.names().is_empty();
        let number = |leaf: &Self| match leaf {
            Self::Number(text) => super::super::json::Number::parse(text),
            _ => None,
        };
        self == other
            || has_names(self)
            || has_names(other)
            || number(self).is_some_and(|mine| number(other) == Some(mine))
    }

    pub(super) fn names(&self) -> Vec<&Name> {
        match self {
            Self::Template(template) => template.names().collect(),
            _ => Vec::new(),
        }
    }

    /// As text. `None`: it is left out.
    pub(super) fn text(&self, values: &Values) -> Result<Option<String>, Unusable> {
        Ok(match self {
            Self::Template(template) => template.leaf(values)?.map(Rendered::into_text),
            Self::Number(number) => Some(number.clone()),
            Self::Bool(truth) => Some(truth.to_string()),
        })
    }

    fn json(&self, values: &Values) -> Result<Option<String>, Unusable> {
        Ok(match self {
            Self::Template(template) => template.leaf(values)?.map(|rendered| match rendered {
                Rendered::Text(text) => quoted(&text),
                other => other.into_text(),
            }),
            other => other.text(values)?,
        })
    }
}

impl Tree {
    pub(super) fn read(value: &Value<'_>, scope: Scope) -> Option<Self> {
        if value.is_table() {
            let entries = value.table()?.entries();
            let entries = entries
                .into_iter()
                .map(|(key, value)| Some((key.to_owned(), Self::read(&value, scope)?)));
            // Every one is read, so that every fault is named.
            let entries: Vec<_> = entries.collect();
            return entries.into_iter().collect::<Option<_>>().map(Self::Table);
        }
        if value.is_list() {
            let items: Vec<_> = value.list()?.iter().map(|item| Self::read(item, scope)).collect();
            return items.into_iter().collect::<Option<_>>().map(Self::List);
        }
        Leaf::read(value, scope).map(Self::Leaf)
    }

    pub(super) fn names(&self) -> Vec<&Name> {
        match self {
            Self::Leaf(leaf) => leaf.names(),
            Self::List(items) => items.iter().flat_map(Self::names).collect(),
            Self::Table(entries) => entries.iter().flat_map(|(_, tree)| tree.names()).collect(),
        }
    }

    /// Compact JSON. The whole is never left out.
    pub(super) fn render(&self, values: &Values) -> Result<String, Unusable> {
        Ok(self.json(values)?.unwrap_or_else(|| "{}".to_owned()))
    }

    /// `None`: it is left out.
    fn json(&self, values: &Values) -> Result<Option<String>, Unusable> {
        match self {
            Self::Leaf(leaf) => leaf.json(values),
            Self::List(items) => {
                let mut kept = Vec::new();
                for item in items {
                    kept.extend(item.json(values)?);
                }
                Ok(Some(format!("[{}]", kept.join(","))))
            }
            Self::Table(entries) => {
                let mut kept = Vec::new();
                for (key, tree) in entries {
                    if let Some(json) = tree.json(values)? {
                        kept.push(format!("{}:{json}", quoted(key)));
                    }
                }
                let became_empty = kept.is_empty() && !entries.is_empty();
                Ok((!became_empty).then(|| format!("{{{}}}", kept.join(","))))
            }
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What a request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Body {
    None,
    Json(Tree),
    Form(Pairs),
}

impl Body {
    /// Reads `body` or `form`.
    pub(super) fn read(table: &Table<'_>, scope: Scope) -> Option<Self> {
        let form = table.get("form");
        match (table.get("body"), form) {
            (Some(_), Some(form)) => {
                form.fault("stands beside body: a request has one of them");
                None
            }
            (Some(body), None) if !body.is_table() && !body.is_list() => {
                body.fault("must be a table or a list");
                None
            }
            (Some(body), None) => Tree::read(&body, scope).map(Self::Json),
            (None, Some(form)) => read_pairs(&form, scope).map(Self::Form),
            (None, None) => Some(Self::None),
        }
    }

    pub(super) fn names(&self) -> Vec<&Name> {
        match self {
            Self::None => Vec::new(),
            Self::Json(tree) => tree.names(),
            Self::Form(pairs) => pairs.iter().flat_map(|(_, leaf)| leaf.names()).collect(),
        }
    }

    /// Its media type, and what it is with these values.
    pub(super) fn render(
        &self,
        values: &Values,
    ) -> Result<Option<(&'static str, String)>, Unusable> {
        Ok(match self {
            Self::None => None,
            Self::Json(tree) => Some(("application/json", tree.render(values)?)),
            Self::Form(pairs) => {
                let form = form(&render_pairs(pairs, values)?);
                Some(("application/x-www-form-urlencoded", form))
            }
        })
    }
}

/// Reads a text that is a template.
pub(super) fn read_template(value: &Value<'_>, scope: Scope) -> Option<Template> {
    value.text()?;
    match Leaf::read(value, scope)? {
        Leaf::Template(template) => Some(template),
        _ => None,
    }
}

/// Names with values, in the order of the file.
pub(in crate::provider) type Pairs = Vec<(String, Leaf)>;

/// Reads a flat table.
pub(super) fn read_pairs(value: &Value<'_>, scope: Scope) -> Option<Pairs> {
    let entries = value.table()?.entries();
    let pairs: Vec<_> = entries
        .into_iter()
        .map(|(key, value)| Leaf::read(&value, scope).map(|leaf| (key.to_owned(), leaf)))
        .collect();
    pairs.into_iter().collect()
}

/// The pairs that are not left out.
pub(super) fn render_pairs(
    pairs: &Pairs,
    values: &Values,
) -> Result<Vec<(String, String)>, Unusable> {
    let mut rendered = Vec::with_capacity(pairs.len());
    for (name, leaf) in pairs {
        if let Some(text) = leaf.text(values)? {
            rendered.push((name.clone(), text));
        }
    }
    Ok(rendered)
}

/// `name=value&…`, with all but unreserved characters encoded.
pub(super) fn query(pairs: &[(String, String)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// As forms are written.
pub(super) fn form(pairs: &[(String, String)]) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(pairs);
    form.finish()
}
