//! A row's fields, and what is wrong with them.

use std::fmt;

use super::{BadRow, POOL_COLUMN, Problem, lines::MAX_LINE_BYTES};
use crate::domain::{id::PoolId, money::MAX_AMOUNT_MINOR};

/// The columns that a file has, in its order.
pub(super) struct Layout(Vec<&'static str>);

impl Layout {
    /// Reads the header.
    pub(super) fn read(
        header: &[u8],
        known: &'static [&'static str],
        required: &str,
    ) -> anyhow::Result<Self> {
        let mut columns = Vec::new();
        let mut unknown = Vec::new();
        for field in &split(header) {
            let name = std::str::from_utf8(field.trim_ascii())
                .map_err(|_| anyhow::anyhow!("a column's name is not UTF-8"))?;
            match known.iter().chain([&POOL_COLUMN]).find(|column| **column == name) {
                Some(column) if columns.contains(column) => {
                    anyhow::bail!("the column \"{column}\" is there twice")
                }
                Some(column) => columns.push(*column),
                None => unknown.push(quoted(name)),
            }
        }
        let known = known.join(", ");
        anyhow::ensure!(
            columns.contains(&required) || !unknown.is_empty() && columns.is_empty(),
            "there is no column \"{required}\"; known are {known}, {POOL_COLUMN}"
        );
        // Not one known column: most likely there is no header, and these are data.
        anyhow::ensure!(
            !columns.is_empty(),
            "it names none of the columns; known are {known}, {POOL_COLUMN}"
        );
        anyhow::ensure!(
            unknown.is_empty(),
            "unknown columns {}; known are {known}, {POOL_COLUMN}",
            unknown.join(", ")
        );
        Ok(Self(columns))
    }
}

fn quoted(name: &str) -> String {
    format!("{name:?}")
}

/// The fields of one line of CSV.
fn split(line: &[u8]) -> csv::ByteRecord {
    let mut record = csv::ByteRecord::new();
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(line.len().clamp(64, 8 * 1024))
        .from_reader(line);
    // Reading from memory cannot fail, and any line is some record.
    let _ = reader.read_byte_record(&mut record);
    record
}

enum Value {
    Text(String),
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
    /// A row of which nothing could be read.
    pub(super) fn unread(layout: &'a Layout, line: u64) -> Self {
        let mut fields =
            Self { layout, line, values: Vec::new(), pool_id: None, problems: Vec::new() };
        fields.complain(None, format!("is longer than {MAX_LINE_BYTES} bytes"));
        fields
    }

    /// Splits a line into its fields.
    pub(super) fn read(layout: &'a Layout, line: u64, bytes: &[u8]) -> Self {
        let mut fields =
            Self { layout, line, values: Vec::new(), pool_id: None, problems: Vec::new() };
        let quotes = bytes.iter().filter(|byte| **byte == b'"').count();
        let record = split(bytes);
        if quotes % 2 == 1 {
            fields.complain(None, "has a quote that is not closed");
        } else if record.len() != layout.0.len() {
            let (has, s) = (record.len(), if record.len() == 1 { "" } else { "s" });
            let wants = layout.0.len();
            fields.complain(None, format!("has {has} column{s} where the header has {wants}"));
        } else {
            for (column, field) in layout.0.iter().zip(&record) {
                let value = fields.value(column, field);
                fields.values.push(value);
            }
            fields.pool_id = fields.optional(POOL_COLUMN, PoolId::parse);
        }
        fields
    }

    fn value(&mut self, column: &'static str, field: &[u8]) -> Value {
        let Ok(text) = std::str::from_utf8(field) else {
            self.complain(Some(column), "is not UTF-8");
            return Value::Bad;
        };
        if text.chars().any(char::is_control) {
            self.complain(Some(column), "has a control character");
            return Value::Bad;
        }
        Value::Text(text.trim_matches(' ').to_owned())
    }

    /// Whether the line could be split into the header's columns.
    pub(super) fn is_whole(&self) -> bool {
        self.values.len() == self.layout.0.len()
    }

    /// The row's line.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// The pool that the row is for, when it names one.
    pub(crate) fn pool_id(&self) -> Option<&PoolId> {
        self.pool_id.as_ref()
    }

    /// Notes what is wrong.
    pub(crate) fn complain(&mut self, column: Option<&'static str>, rule: impl Into<String>) {
        self.problems.push(Problem { column, rule: rule.into() });
    }

    /// Reads a field that may be empty.
    pub(crate) fn optional<T, E: fmt::Display>(
        &mut self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let at = self.layout.0.iter().position(|name| *name == column)?;
        let parsed = match self.values.get(at)? {
            Value::Text(text) if !text.is_empty() => parse(text),
            _ => return None,
        };
        parsed.map_err(|rule| self.complain(Some(column), rule.to_string())).ok()
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
        let at = self.layout.0.iter().position(|name| *name == column);
        match at.and_then(|at| self.values.get(at)) {
            Some(Value::Text(text)) => text.is_empty(),
            Some(Value::Bad) => false,
            None => true,
        }
    }

    /// The row, unless something is wrong with it.
    pub(super) fn judge<T>(self, row: Option<T>) -> Result<T, BadRow> {
        match row {
            Some(row) if self.problems.is_empty() => Ok(row),
            _ => Err(BadRow { line: self.line, pool_id: self.pool_id, problems: self.problems }),
        }
    }
}

/// Reads an amount in minor units, of at least `min`.
pub(super) fn amount(text: &str, min: i64) -> Result<i64, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<i64>() {
        Ok(amount) if digits && (min..=MAX_AMOUNT_MINOR).contains(&amount) => Ok(amount),
        _ => Err(format!(
            "must be a whole number of minor units, {min} to {MAX_AMOUNT_MINOR}, in digits only"
        )),
    }
}
