//! The columns that a file has: its header, and what of the rows follows from it.

use std::borrow::Cow;

use super::{Options, POOL_COLUMN, Row};
use crate::domain::credentials;

/// The separators that are found by themselves, the usual one first, and their names.
const SEPARATORS: [(u8, &str); 3] = [(b',', "commas"), (b';', "semicolons"), (b'\t', "tabs")];

/// One that the header alone can show: in a row it may be part of a code.
const BAR: u8 = b'|';

/// See the module.
pub(super) struct Layout {
    /// In the file's order; `None` is one that is left out.
    pub(super) columns: Vec<Option<Cow<'static, str>>>,
    /// The header's fields, as the file writes them.
    written: Vec<String>,
    /// What is between two fields.
    pub(super) separator: u8,
    /// How the file is read.
    pub(super) options: Options,
    /// See [`Row`].
    allowed: &'static [&'static str],
    amount: (&'static str, &'static str),
    prefix: Option<&'static str>,
    required: &'static str,
}

/// What a row that names columns is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// The file's own header again.
    Same,
    /// That of a file with other columns, or in another order.
    Other,
}

impl Layout {
    /// Reads the header. The separator is the one that was named before it, or else the one that makes the most columns
    /// of it.
    pub(super) fn read<T: Row>(
        header: &[u8],
        named: Option<u8>,
        options: &Options,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !header.contains(&0),
            "it has NUL bytes: it is not text, or UTF-16 without a byte order mark; save it as CSV UTF-8"
        );
        let mut layout = Self {
            columns: Vec::new(),
            written: Vec::new(),
            separator: named.unwrap_or(SEPARATORS[0].0),
            options: options.clone(),
            allowed: T::COLUMNS,
            amount: T::AMOUNT,
            prefix: T::PREFIX,
            required: T::REQUIRED,
        };
        if named.is_none() {
            let known = |separator| {
                let fields = split(header, separator);
                fields.iter().filter(|name| layout.column_of(name).is_some()).count()
            };
            // Of several with as many, the last is taken: the usual one must be it.
            let marks = SEPARATORS.iter().map(|(mark, _)| *mark).chain([BAR]);
            let best = marks.rev().max_by_key(|mark| known(*mark));
            layout.separator = best.unwrap_or(layout.separator);
        }
        for field in &split(header, layout.separator) {
            let name = std::str::from_utf8(field).map_err(|_| {
                anyhow::anyhow!("a column's name is not UTF-8: save the file as CSV UTF-8")
            })?;
            layout.columns.push(layout.column(name));
            layout.written.push(name.trim().to_owned());
        }
        let faults = layout.faults();
        anyhow::ensure!(faults.is_empty(), "{}", faults.join("; "));
        Ok(layout)
    }

    /// Everything that is wrong with the header and with what was said of it.
    fn faults(&self) -> Vec<String> {
        let mut faults = self.faults_of_map();
        let of_prefix = self.prefix.map(|prefix| format!("{prefix}NAME"));
        let names: Vec<_> =
            self.allowed.iter().copied().chain(of_prefix.as_deref()).chain([POOL_COLUMN]).collect();
        let names = names.join(", ");
        let known: Vec<&str> = self.columns.iter().flatten().map(AsRef::as_ref).collect();
        if known.is_empty() {
            // Most likely there is no header, and these are data: they are not repeated.
            let kind = match self.written.first().and_then(|name| name.chars().next()) {
                Some('<') => ": it is a web page, not CSV; was one saved instead of the file?",
                Some('{' | '[') => ": it is JSON, not CSV",
                _ => "",
            };
            faults.push(format!(
                "it names none of the columns (there is no column \"{}\"){kind}; the columns are {names}",
                self.required
            ));
            return faults;
        }
        let twice = |at: usize| known[..at].contains(&known[at]);
        for at in (0..known.len()).filter(|at| twice(*at)) {
            faults.push(format!("the column \"{}\" is there twice", known[at]));
        }
        if !known.contains(&self.required) {
            let column = self.required;
            faults.push(format!(
                "there is no column \"{column}\"; the columns are {names}. `--map HEADER={column}` says \
                 which of the file's it is"
            ));
        }
        // A spreadsheet writes separators behind its last column: of one without a name, what is in it counts.
        let named = self.unknown().filter(|name| !name.is_empty());
        let unknown: Vec<_> = named.map(|name| format!("{name:?}")).collect();
        if !unknown.is_empty() && !self.options.ignore_columns {
            faults.push(format!(
                "unknown columns {}; the columns are {names}. `--map HEADER=COLUMN` says which of them a \
                 header is, and --ignore-columns leaves out the others",
                unknown.join(", ")
            ));
        }
        // Left out, it would not be seen that cards are sent without their amounts.
        let amount = self.unknown().find(|name| plain(name) == self.amount.0);
        if let Some(name) = amount {
            faults.push(format!(
                "of the column {name:?} it is not told what it is in: say --amounts major (10.00) or \
                 --amounts minor (1000)"
            ));
        }
        faults
    }

    /// The headers of columns that are left out.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &str> {
        let pairs = self.columns.iter().zip(&self.written);
        pairs.filter(|(column, _)| column.is_none()).map(|(_, name)| name.as_str())
    }

    fn faults_of_map(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (header, column) in &self.options.map {
            if self.own(column).is_none() {
                faults.push(format!("--map {header}={column}: there is no such column"));
            } else if !self.written.iter().any(|name| plain(name) == plain(header)) {
                faults.push(format!("--map {header}={column}: the file has no such header"));
            }
        }
        faults
    }

    fn column_of(&self, field: &[u8]) -> Option<Cow<'static, str>> {
        self.column(std::str::from_utf8(field).ok()?)
    }

    /// The column that a header names: the one that it is mapped to, or else its own.
    fn column(&self, name: &str) -> Option<Cow<'static, str>> {
        let mapped = self.options.map.iter().find(|(header, _)| plain(header) == plain(name));
        self.own(mapped.map_or(name, |(_, column)| column))
    }

    /// The column of a name: in any case, and with spaces or hyphens for each `_`. What follows a prefix is taken as
    /// it is written.
    fn own(&self, name: &str) -> Option<Cow<'static, str>> {
        let plain = plain(name);
        let fixed = self.allowed.iter().chain([&POOL_COLUMN]);
        if let Some(column) = fixed.copied().find(|column| *column == plain) {
            return Some(Cow::Borrowed(column));
        }
        if plain == self.amount.0 && self.options.amounts.is_some() {
            return Some(Cow::Borrowed(self.amount.1));
        }
        let prefix = self.prefix?;
        let (begin, rest) = name.trim().split_at_checked(prefix.len())?;
        let fits = begin.eq_ignore_ascii_case(prefix) && credentials::is_name(rest);
        fits.then(|| format!("{prefix}{rest}").into())
    }

    /// The name of a column with the prefix, without it.
    pub(super) fn named<'c>(&self, column: &'c str) -> Option<&'c str> {
        column.strip_prefix(self.prefix?)
    }

    /// Whether a row has something in a column without a name, which was not said to be left out.
    pub(super) fn is_beside(&self, record: &csv::ByteRecord) -> bool {
        let mut fields = record.iter().zip(&self.written);
        !self.options.ignore_columns
            && fields.any(|(field, name)| name.is_empty() && !field.trim_ascii().is_empty())
    }

    /// Where a column is.
    pub(super) fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|name| name.as_deref() == Some(column))
    }

    /// The fields of a line.
    pub(super) fn split(&self, line: &[u8]) -> csv::ByteRecord {
        split(line, self.separator)
    }

    /// Whether a line has nothing but separators, as a spreadsheet writes a row that is blank.
    pub(super) fn is_blank(&self, line: &[u8]) -> bool {
        let is_mark = |byte: &u8| *byte == self.separator || matches!(*byte, b' ' | b'\t' | b'"');
        line.iter().all(is_mark)
            && self.split(line).iter().all(|field| field.trim_ascii().is_empty())
    }

    /// The separator, for people.
    pub(super) fn separated_by(&self) -> &'static str {
        let named = SEPARATORS.iter().find(|(mark, _)| *mark == self.separator);
        named.map_or("bars", |(_, name)| name)
    }

    /// What a row is if it is a header: each of its fields names a column, in any case.
    pub(super) fn header(&self, record: &csv::ByteRecord) -> Option<Header> {
        let fields: Vec<&str> =
            record.iter().map(std::str::from_utf8).collect::<Result<_, _>>().ok()?;
        let is_same = fields.len() == self.written.len()
            && fields.iter().zip(&self.written).all(|(name, own)| plain(name) == plain(own));
        if is_same {
            return Some(Header::Same);
        }
        // Of one column only the required one can be a header: others may be values.
        let mut has_required = false;
        let are_columns = fields.iter().all(|name| {
            let column = self.column(name);
            has_required |= column.as_deref() == Some(self.required);
            column.is_some()
        });
        (has_required && are_columns).then_some(Header::Other)
    }

    /// Whether a row is the end of one file and the header of the next on one line: `…,DEaccount_id,…`.
    pub(super) fn is_joined(&self, record: &csv::ByteRecord) -> bool {
        let (width, fields) = (self.written.len(), record.iter().collect::<Vec<_>>());
        let first = self.written[0].as_bytes();
        let last = fields.get(width - 1).and_then(|field| field.strip_suffix(first));
        // A code such as "barcode" may be one; what is not in lower case before it is the end of a code.
        let is_end = |end: &[u8]| {
            width > 1
                || self.columns[0].as_deref() != Some("code")
                || !end.iter().any(u8::is_ascii_lowercase)
        };
        fields.len() == 2 * width - 1
            && last.is_some_and(|end| !first.is_empty() && !end.is_empty() && is_end(end))
            && fields[width..]
                .iter()
                .zip(&self.written[1..])
                .all(|(field, name)| field.trim_ascii() == name.as_bytes())
    }
}

/// A header's name as it is compared: in lower case, without spaces around it, and with `_` for spaces and hyphens.
fn plain(name: &str) -> String {
    let mark = |c: char| if c == '-' || c.is_whitespace() { '_' } else { c.to_ascii_lowercase() };
    name.trim().chars().map(mark).collect()
}

/// The separator that a first line `sep=;` names, as some spreadsheets write it.
pub(super) fn named_separator(line: &[u8]) -> anyhow::Result<Option<u8>> {
    let line =
        line.strip_prefix(b"\"").map_or(line, |rest| rest.strip_suffix(b"\"").unwrap_or(rest));
    let Some((begin, rest)) = line.split_at_checked(4) else { return Ok(None) };
    if !begin.eq_ignore_ascii_case(b"sep=") {
        return Ok(None);
    }
    match rest {
        [mark @ (b',' | b';' | b'\t' | b'|')] => Ok(Some(*mark)),
        // What comes behind it in a file that has fields.
        [mark @ (b',' | b';' | b'\t' | b'|'), more @ ..]
            if more.iter().all(|byte| byte == mark) =>
        {
            Ok(Some(*mark))
        }
        _ => anyhow::bail!(
            "it names a separator that is none: a comma, a semicolon, a tab or a bar is one"
        ),
    }
}

/// A separator that is not the file's, outside quotes.
pub(super) fn other_separator(line: &[u8], own: u8) -> Option<&'static str> {
    let mut is_quoted = false;
    line.iter().find_map(|byte| {
        is_quoted ^= *byte == b'"';
        let other = SEPARATORS.iter().find(|(mark, _)| mark == byte && *mark != own);
        // A comma may be part of a text: alone it says nothing.
        other.filter(|(mark, _)| !is_quoted && *mark != b',').map(|(_, name)| *name)
    })
}

/// Whether there is a quote that neither opens nor closes a field, and is not one of two inside of one.
/// A formula's (`="0012"`) are none: what is wrong with it is told by its column.
pub(super) fn has_stray_quote(line: &[u8], separator: u8) -> bool {
    let mut is_quoted = false;
    (0..line.len()).filter(|at| line[*at] == b'"').any(|at| {
        let (before, after) = (&line[..at], &line[at + 1..]);
        let was_quoted = is_quoted;
        is_quoted = !was_quoted;
        if was_quoted {
            let next = after.iter().find(|byte| **byte != b' ');
            next.is_some_and(|byte| *byte != separator) && after.first() != Some(&b'"')
        } else {
            let formula = before.strip_suffix(b"=").unwrap_or(before);
            // The second of two opens the quotes again.
            formula.last().is_some_and(|byte| *byte != separator) && before.last() != Some(&b'"')
        }
    })
}

/// The fields of one line of CSV.
fn split(line: &[u8], separator: u8) -> csv::ByteRecord {
    let mut record = csv::ByteRecord::new();
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(separator)
        .buffer_capacity(line.len().clamp(64, 8 * 1024))
        .from_reader(line);
    // Reading from memory cannot fail, and any line is some record.
    let _ = reader.read_byte_record(&mut record);
    record
}
