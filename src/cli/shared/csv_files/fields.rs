//! A row's fields, and what is wrong with them.

use std::{borrow::Cow, fmt};

use super::{BadRow, POOL_COLUMN, Problem, Row};
use crate::domain::{credentials, id::PoolId, money::MAX_AMOUNT_MINOR};

/// The columns that a file has.
pub(super) struct Layout {
    /// In the file's order.
    columns: Vec<Cow<'static, str>>,
    /// See [`Row`].
    allowed: &'static [&'static str],
    prefix: Option<&'static str>,
    required: &'static str,
}

/// What a row that names columns is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    /// The file's own header again.
    Same,
    /// That of a file with other columns, or in another order.
    Other,
}

impl Layout {
    /// Reads the header.
    pub(super) fn read<T: Row>(header: &[u8]) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !header.contains(&0),
            "it has NUL bytes: it is not text, or UTF-16; save it as CSV UTF-8"
        );
        let mut layout = Self {
            columns: Vec::new(),
            allowed: T::COLUMNS,
            prefix: T::PREFIX,
            required: T::REQUIRED,
        };
        let mut unknown = Vec::new();
        for field in &split(header) {
            let name = std::str::from_utf8(field.trim_ascii())
                .map_err(|_| anyhow::anyhow!("a column's name is not UTF-8"))?;
            match layout.column(name).filter(|column| column == name) {
                Some(column) if layout.columns.contains(&column) => {
                    anyhow::bail!("the column \"{column}\" is there twice")
                }
                Some(column) => layout.columns.push(column),
                None => unknown.push(quoted(name)),
            }
        }
        layout.check(header, &unknown)?;
        Ok(layout)
    }

    fn check(&self, header: &[u8], unknown: &[String]) -> anyhow::Result<()> {
        let Self { columns, required, .. } = self;
        let of_prefix = self.prefix.map(|prefix| format!("{prefix}NAME"));
        let names: Vec<_> =
            self.allowed.iter().copied().chain(of_prefix.as_deref()).chain([POOL_COLUMN]).collect();
        let names = names.join(", ");
        let has_other_marks = header.contains(&b';') || header.contains(&b'\t');
        anyhow::ensure!(
            !columns.is_empty() || header.contains(&b',') || !has_other_marks,
            "columns must be separated by commas; the columns are {names}"
        );
        anyhow::ensure!(
            columns.iter().any(|column| column == required)
                || !unknown.is_empty() && columns.is_empty(),
            "there is no column \"{required}\"; the columns are {names}"
        );
        // Not one column of the file format: most likely there is no header, and these are data.
        anyhow::ensure!(
            !columns.is_empty(),
            "it names none of the columns; the columns are {names}"
        );
        anyhow::ensure!(
            unknown.is_empty(),
            "unknown columns {}; the columns are {names}",
            unknown.join(", ")
        );
        Ok(())
    }

    /// The column of a name, in any case.
    fn column(&self, name: &str) -> Option<Cow<'static, str>> {
        let fixed = self.allowed.iter().chain([&POOL_COLUMN]);
        let fixed = fixed.copied().find(|column| column.eq_ignore_ascii_case(name));
        let of_prefix = || {
            let (begin, rest) = name.split_at_checked(self.prefix?.len())?;
            let fits = begin.eq_ignore_ascii_case(self.prefix?) && credentials::is_name(rest);
            fits.then(|| format!("{}{rest}", self.prefix.unwrap_or_default()).into())
        };
        fixed.map(Cow::Borrowed).or_else(of_prefix)
    }

    /// The name of a column with the prefix, without it.
    fn named<'c>(&self, column: &'c str) -> Option<&'c str> {
        column.strip_prefix(self.prefix?)
    }

    /// What a row is if it is a header: each of its fields names a column, in any case.
    fn header(&self, record: &csv::ByteRecord) -> Option<Header> {
        let named = |field: &[u8]| self.column(std::str::from_utf8(field.trim_ascii()).ok()?);
        let names: Vec<_> = record.iter().map(named).collect::<Option<_>>()?;
        let is_same = names.len() == self.columns.len()
            && names.iter().zip(&self.columns).all(|(name, own)| name.eq_ignore_ascii_case(own));
        if is_same {
            Some(Header::Same)
        } else {
            // Of one column only the required one can be a header: others may be values.
            names.iter().any(|name| name == self.required).then_some(Header::Other)
        }
    }

    /// Whether a row is the end of one file and the header of the next on one line: `…,DEaccount_id,…`.
    fn is_joined(&self, record: &csv::ByteRecord) -> bool {
        let (width, fields) = (self.columns.len(), record.iter().collect::<Vec<_>>());
        let last =
            fields.get(width - 1).and_then(|field| field.strip_suffix(self.columns[0].as_bytes()));
        // A code such as "barcode" may be one; what is not in lower case before it is the end of a code.
        let is_end = |end: &[u8]| {
            width > 1 || self.columns[0] != "code" || !end.iter().any(u8::is_ascii_lowercase)
        };
        fields.len() == 2 * width - 1
            && last.is_some_and(|end| !end.is_empty() && is_end(end))
            && fields[width..]
                .iter()
                .zip(&self.columns[1..])
                .all(|(field, name)| *field == name.as_bytes())
    }
}

fn quoted(name: &str) -> String {
    format!("{name:?}")
}

/// A separator that is not the comma, outside quotes.
fn separator(line: &[u8]) -> Option<&'static str> {
    let mut is_quoted = false;
    line.iter().find_map(|byte| match byte {
        b'"' => {
            is_quoted = !is_quoted;
            None
        }
        b';' if !is_quoted => Some("semicolons"),
        b'\t' if !is_quoted => Some("tabs"),
        _ => None,
    })
}

fn separated_by(mark: &str) -> String {
    format!(": is the file separated by {mark}? export it with commas")
}

/// Whether there is a quote that neither opens nor closes a field, and is not one of two inside of one.
/// A formula's (`="0012"`) are none: what is wrong with it is told by its column.
fn has_stray_quote(line: &[u8]) -> bool {
    let mut is_quoted = false;
    (0..line.len()).filter(|at| line[*at] == b'"').any(|at| {
        let (before, after) = (&line[..at], &line[at + 1..]);
        let was_quoted = is_quoted;
        is_quoted = !was_quoted;
        if was_quoted {
            !matches!(after.trim_ascii_start().first(), None | Some(b','))
                && after.first() != Some(&b'"')
        } else {
            let formula = before.strip_suffix(b"=").unwrap_or(before);
            // The second of two opens the quotes again.
            !matches!(formula.last(), None | Some(b',')) && before.last() != Some(&b'"')
        }
    })
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
        let record = split(bytes);
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
            None if has_stray_quote(bytes) => {
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
                let hint = separator(bytes).map(separated_by).unwrap_or_default();
                format!("has {has} column{s} where the header has {}{hint}", layout.columns.len())
            }
            // Of several columns a field may well hold one, as labels do.
            None if record.len() == 1
                && let Some(mark) = separator(bytes) =>
            {
                format!("has one column, and another separator in it{}", separated_by(mark))
            }
            None => return Self::whole(layout, line, &record),
        };
        Self::unread(layout, line, why)
    }

    fn whole(layout: &'a Layout, line: u64, record: &csv::ByteRecord) -> Self {
        let mut fields =
            Self { layout, line, values: Vec::new(), pool_id: None, problems: Vec::new() };
        for (column, field) in layout.columns.iter().zip(record) {
            let value = fields.value(column, field);
            fields.values.push(value);
        }
        fields.pool_id = fields.optional(POOL_COLUMN, PoolId::parse);
        fields
    }

    #[expect(clippy::ptr_arg, reason = "a fixed name stays borrowed when it is kept")]
    fn value(&mut self, column: &Cow<'static, str>, field: &[u8]) -> Value {
        let Ok(text) = std::str::from_utf8(field) else {
            self.complain_of(column, "is not UTF-8");
            return Value::Bad;
        };
        let rule = if text.contains('\0') {
            "has a NUL byte"
        } else if text.chars().any(char::is_control) {
            "has a control character"
        } else if text.contains('\u{feff}') {
            "has a byte order mark in it: were two files joined?"
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
            let Some(name) = self.layout.named(column) else { continue };
            match value {
                Value::Text(text) if !text.is_empty() => match parse(name, text) {
                    Ok(value) => read.push((name.to_owned(), value)),
                    Err(rule) => problems.push((column, rule.to_string())),
                },
                Value::Text(_) | Value::Bad => {}
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
        let at = self.layout.columns.iter().position(|name| name == column)?;
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
        let at = self.layout.columns.iter().position(|name| name == column);
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
