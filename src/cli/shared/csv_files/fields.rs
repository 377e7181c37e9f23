//! A row's fields, and what is wrong with them.

use std::{borrow::Cow, fmt};

use super::{
    BadRow, POOL_COLUMN, Problem,
    amounts::{self, Amounts},
    layout::{Header, Layout, has_stray_quote, other_separator},
};
use crate::domain::{id::PoolId, money::Currency, redemption::CardCode};

/// How texts begin that a spreadsheet would run as formulas.
const DEFUSED: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

enum Value {
    Text(String),
    /// Of a column that is left out.
    Ignored,
    /// There is something, and it has been complained about.
    Bad,
}

/// A row being read.
pub(crate) struct Fields<'a> {
    layout: &'a Layout,
    line: u64,
    values: Vec<Value>,
    pool_id: Option<PoolId>,
    problems: Vec<Problem>,
}

impl<'a> Fields<'a> {
    /// A row that cannot be read at all.
    pub(super) fn unread(layout: &'a Layout, line: u64, rule: impl Into<String>) -> Self {
        let mut fields =
            Self { layout, line, values: Vec::new(), pool_id: None, problems: Vec::new() };
        fields.complain(None, rule);
        fields
    }

    /// Splits a line into its fields. A second header with other columns is noted in `other_header`,
    /// and spoils the rows after it.
    pub(super) fn read(
        layout: &'a Layout,
        line: u64,
        bytes: &[u8],
        other_header: &mut Option<u64>,
    ) -> Self {
        let quotes = bytes.iter().filter(|byte| **byte == b'"').count();
        let record = layout.split(bytes);
        let why = match layout.header(&record) {
            Some(Header::Same) if other_header.is_none() => {
                "repeats the header: were two files joined? take the line out".to_owned()
            }
            Some(_) => {
                *other_header = Some(line);
                "is a second header, with other columns: were two files joined? split the file here"
                    .to_owned()
            }
            None if other_header.is_some() => format!(
                "comes after the second header on line {}, which has other columns: split the file \
                 there",
                other_header.unwrap_or_default()
            ),
            None if quotes % 2 == 1 => "has a quote that is not closed".to_owned(),
            None if has_stray_quote(bytes, layout.separator) => {
                "has a quote in the middle of a field: put the whole field in quotes, and write each \
                 quote in it twice"
                    .to_owned()
            }
            None if layout.is_joined(&record) => {
                "ends with the header: were two files joined, and the first has no line end? put \
                 one in between"
                    .to_owned()
            }
            None if record.len() != layout.columns.len() => {
                let (has, s) = (record.len(), if record.len() == 1 { "" } else { "s" });
                let other = other_separator(bytes, layout.separator);
                let hint = other.map(|mark| separated_by(mark, layout)).unwrap_or_default();
                format!("has {has} column{s} where the header has {}{hint}", layout.columns.len())
            }
            // Of several columns a field may well hold one, as labels do.
            None if record.len() == 1
                && let Some(mark) = other_separator(bytes, layout.separator) =>
            {
                format!("has one column, and another separator in it{}", separated_by(mark, layout))
            }
            None if layout.is_beside(&record) => {
                "has something in a column without a name: name it in the header, or say --ignore-columns"
                    .to_owned()
            }
            None => return Self::whole(layout, line, &record),
        };
        Self::unread(layout, line, why)
    }

    fn whole(layout: &'a Layout, line: u64, record: &csv::ByteRecord) -> Self {
        let mut fields =
            Self { layout, line, values: Vec::new(), pool_id: None, problems: Vec::new() };
        for (column, field) in layout.columns.iter().zip(record) {
            let value = match column {
                Some(column) => fields.value(column, field),
                None => Value::Ignored,
            };
            fields.values.push(value);
        }
        fields.pool_id = fields.optional(POOL_COLUMN, |text| PoolId::parse(undefused(text)));
        fields.pool_id = fields.pool_id.take().or_else(|| match fields.is_empty(POOL_COLUMN) {
            true => layout.options.pool.clone(),
            false => None,
        });
        fields
    }

    #[expect(clippy::ptr_arg, reason = "a fixed name stays borrowed when it is kept")]
    fn value(&mut self, column: &Cow<'static, str>, field: &[u8]) -> Value {
        let Ok(text) = std::str::from_utf8(field) else {
            self.complain_of(column, "is not UTF-8: save the file as CSV UTF-8");
            return Value::Bad;
        };
        let rule = if text.contains('\0') {
            "has a NUL byte"
        } else if text.chars().any(char::is_control) {
            "has a control character"
        } else if text.contains('\u{feff}') {
            "has a byte order mark in it: were two files joined?"
        } else if text.contains(char::REPLACEMENT_CHARACTER) {
            "has a character that was lost (U+FFFD): export the file again, as CSV UTF-8"
        } else if self.layout.named(column).is_some() {
            // Spaces may be part of it.
            return Value::Text(text.to_owned());
        } else {
            return Value::Text(text.trim_matches(' ').to_owned());
        };
        self.complain_of(column, rule);
        Value::Bad
    }

    /// Whether the line could be split into the header's columns.
    pub(super) fn is_whole(&self) -> bool {
        self.values.len() == self.layout.columns.len()
    }

    /// The row's line.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// The pool that the row is for, when it names one.
    pub(crate) fn pool_id(&self) -> Option<&PoolId> {
        self.pool_id.as_ref()
    }

    /// See [`Options`](super::Options).
    pub(super) fn may_repeat_cards(&self) -> bool {
        self.layout.options.may_repeat_cards
    }

    /// Notes what is wrong.
    pub(crate) fn complain(&mut self, column: Option<&'static str>, rule: impl Into<String>) {
        self.problems.push(Problem { column: column.map(Cow::Borrowed), rule: rule.into() });
    }

    #[expect(clippy::ptr_arg, reason = "a fixed name stays borrowed when it is kept")]
    fn complain_of(&mut self, column: &Cow<'static, str>, rule: impl Into<String>) {
        self.problems.push(Problem { column: Some(column.clone()), rule: rule.into() });
    }

    /// Reads what is not empty of the columns with the prefix, by their names without it.
    pub(crate) fn named<T, E: fmt::Display>(
        &mut self,
        parse: impl Fn(&str, &str) -> Result<T, E>,
    ) -> Vec<(String, T)> {
        let mut read = Vec::new();
        let mut problems = Vec::new();
        for (column, value) in self.layout.columns.iter().zip(&self.values) {
            let Some(column) = column else { continue };
            let Some(name) = self.layout.named(column) else { continue };
            match value {
                Value::Text(text) if !text.is_empty() => match parse(name, text) {
                    Ok(value) => read.push((name.to_owned(), value)),
                    Err(rule) => problems.push((column, rule.to_string())),
                },
                Value::Text(_) | Value::Bad | Value::Ignored => {}
            }
        }
        problems.into_iter().for_each(|(column, rule)| self.complain_of(column, rule));
        read
    }

    /// Reads a field that may be empty.
    pub(crate) fn optional<T, E: fmt::Display>(
        &mut self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let at = self.layout.position(column)?;
        let parsed = match self.values.get(at)? {
            Value::Text(text) if !text.is_empty() => parse(text),
            _ => return None,
        };
        parsed.map_err(|rule| self.complain(Some(column), rule.to_string())).ok()
    }

    /// Reads an amount of at least `min`, in the row's currency or else the pool's.
    pub(crate) fn amount(
        &mut self,
        column: &'static str,
        currency: Option<Currency>,
        min: i64,
    ) -> Option<i64> {
        let options = &self.layout.options;
        let currency = currency.or(options.currency);
        match (options.amounts, currency) {
            (Some(Amounts::Major), Some(currency)) => {
                self.optional(column, |text| amounts::major(text, min, currency))
            }
            // Nobody has said the currency yet: what it is worth is not needed.
            (Some(Amounts::Major), None) => None,
            _ => self.optional(column, |text| amounts::minor(text, min)),
        }
    }

    /// Reads a field that must not be empty.
    pub(crate) fn required<T, E: fmt::Display>(
        &mut self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if self.is_empty(column) {
            self.complain(Some(column), "is required");
            return None;
        }
        self.optional(column, parse)
    }

    /// Whether a field is empty, or its column is not there.
    pub(crate) fn is_empty(&self, column: &str) -> bool {
        let at = self.layout.position(column);
        match at.and_then(|at| self.values.get(at)) {
            Some(Value::Text(text)) => text.is_empty(),
            Some(Value::Bad) => false,
            Some(Value::Ignored) | None => true,
        }
    }

    /// The row, unless something is wrong with it.
    pub(super) fn judge<T>(self, row: Option<T>) -> Result<T, BadRow> {
        match row {
            Some(row) if self.problems.is_empty() => Ok(row),
            _ => Err(BadRow {
                code_last4: self.code_last4(),
                line: self.line,
                pool_id: self.pool_id,
                problems: self.problems,
            }),
        }
    }

    /// The end of the row's code, where it can be told.
    fn code_last4(&self) -> String {
        let value = self.layout.position("code").and_then(|at| self.values.get(at));
        let Some(Value::Text(text)) = value else { return String::new() };
        CardCode::parse(text).map_or(String::new(), |code| code.last4().to_owned())
    }
}

fn separated_by(mark: &str, layout: &Layout) -> String {
    format!(": is it separated by {mark}, and the header by {}?", layout.separated_by())
}

/// A text as it was before it was exported: see `output::defused`.
pub(super) fn undefused(text: &str) -> &str {
    match text.strip_prefix('\'') {
        Some(rest) if rest.trim_start_matches('\'').starts_with(DEFUSED) => rest,
        _ => text,
    }
}
