//! Account and card files: CSV as it is found, with a header; columns in any order. The separator is found
//! from the header, and UTF-16 by its byte order mark ([`Lines`]).
//!
//! A file is read as a stream, line by line: a line is a row, so that a quote which somebody forgot
//! to close spoils its own row and not the rest of the file. A bad row is named by its line with
//! all that is wrong in it, by rule: what a row holds is never repeated, because in a row that is
//! out of order any column may hold a code.

mod account;
mod amounts;
mod card;
mod damage;
mod fields;
pub(in crate::cli) mod input;
mod layout;
mod lines;
mod options;

use std::{borrow::Cow, collections::HashMap, fmt, io, marker::PhantomData};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::amounts::Amounts;
pub(in crate::cli) use self::lines::{Line, Lines, MAX_LINE_BYTES};
pub(crate) use self::{
    account::AccountRow,
    card::CardRow,
    options::{FileArgs, Options},
};
use self::{
    fields::Fields,
    layout::{Layout, named_separator},
};
use crate::domain::id::PoolId;

/// A column of both kinds of file: the pool that the row is for. Commands skip the rows of other
/// pools than theirs; a row without it is for the command's pool.
const POOL_COLUMN: &str = "pool_id";

/// What a kind of file has in a row.
pub(crate) trait Row: Sized {
    /// Its columns, besides [`POOL_COLUMN`].
    const COLUMNS: &'static [&'static str];
    /// How further columns begin, if there may be any: the rest is the name of a credential.
    const PREFIX: Option<&'static str> = None;
    /// The name of a column whose amounts are in what `--amounts` says, and the column that it is.
    const AMOUNT: (&'static str, &'static str);
    /// The one that a file must have.
    const REQUIRED: &'static str;

    /// Reads a row. Problems are noted in the fields; without any, this is `Some`.
    fn read(fields: &mut Fields<'_>, seen: &mut Seen) -> Option<Self>;
}

/// What is wrong with a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadRow {
    /// The row's line, counted from 1.
    pub(crate) line: u64,
    /// The pool that it names, if it can be read.
    pub(crate) pool_id: Option<PoolId>,
    /// The end of its code, if it can be told.
    pub(crate) code_last4: String,
    /// Everything that is wrong.
    pub(crate) problems: Vec<Problem>,
}

/// One thing that is wrong with a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The column; `None` when it is the row as a whole.
    pub(crate) column: Option<Cow<'static, str>>,
    /// The rule that is broken.
    pub(crate) rule: String,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, Problems(&self.problems))
    }
}

/// Everything that is wrong with a row, on one line.
pub(crate) struct Problems<'a>(pub(crate) &'a [Problem]);

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            let gap = if n == 0 { "" } else { "; " };
            match &problem.column {
                Some(column) => write!(f, "{gap}{column} {}", problem.rule)?,
                None => write!(f, "{gap}{}", problem.rule)?,
            }
        }
        Ok(())
    }
}

/// The rows of a file, as they are read.
pub(crate) struct CsvFile<R, T> {
    lines: Lines<R>,
    layout: Layout,
    /// The line of a second header with other columns: no row after it can be read.
    other_header: Option<u64>,
    /// Rows of nothing but separators.
    blank: u64,
    seen: Seen,
    rows: PhantomData<fn() -> T>,
}

impl<R: io::Read, T: Row> CsvFile<R, T> {
    /// Reads the header.
    pub(crate) fn new(input: R, options: &Options) -> anyhow::Result<Self> {
        let mut lines = Lines::new(input);
        let mut separator = None;
        let layout = loop {
            match lines.next_line()? {
                Some(Line::Whole(number, bytes)) => {
                    let about = || format!("line {number} is not the header");
                    if separator.is_none() {
                        separator = named_separator(bytes).with_context(about)?;
                        if separator.is_some() {
                            continue;
                        }
                    }
                    break Layout::read::<T>(bytes, separator, options).with_context(about)?;
                }
                Some(Line::TooLong(_)) => {
                    anyhow::bail!(
                        "the first line is too long to be a header: is it a CSV file, with the names of the columns in \
                         its first line?"
                    )
                }
                None => anyhow::bail!("it is empty; the first line must name the columns"),
            }
        };
        let seen = Seen::default();
        Ok(Self { lines, layout, other_header: None, blank: 0, seen, rows: PhantomData })
    }

    /// A note of the columns that are left out, if there are any.
    pub(crate) fn left_out(&self) -> Option<String> {
        let named = self.layout.unknown().filter(|name| !name.is_empty());
        let names: Vec<_> = named.map(|name| format!("{name:?}")).collect();
        (!names.is_empty()).then(|| format!("columns that are left out: {}", names.join(", ")))
    }

    /// How many blank rows there were so far.
    pub(crate) fn blank_rows(&self) -> u64 {
        self.blank + self.lines.blank()
    }

    fn row(&mut self) -> io::Result<Option<Result<T, BadRow>>> {
        let mut fields = loop {
            match self.lines.next_line()? {
                None => return Ok(None),
                Some(Line::Whole(_, bytes)) if self.layout.is_blank(bytes) => self.blank += 1,
                Some(Line::Whole(number, bytes)) => {
                    break Fields::read(&self.layout, number, bytes, &mut self.other_header);
                }
                Some(Line::TooLong(number)) => {
                    let rule = format!("is longer than {MAX_LINE_BYTES} bytes");
                    break Fields::unread(&self.layout, number, rule);
                }
            }
        };
        let row = if fields.is_whole() { T::read(&mut fields, &mut self.seen) } else { None };
        Ok(Some(fields.judge(row)))
    }
}

impl<R: io::Read, T: Row> Iterator for CsvFile<R, T> {
    /// An error of the file; or a row, or what is wrong with it.
    type Item = io::Result<Result<T, BadRow>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.row().transpose()
    }
}

/// The names that a file has used, and where. Holds 24 bytes a name, whatever its length: a digest
/// long enough that two names never share one.
#[derive(Default)]
pub(crate) struct Seen(HashMap<[u8; 16], u64>);

impl Seen {
    /// Notes a name; answers with the line that had it before.
    pub(crate) fn before(&mut self, pool: Option<&PoolId>, name: &str, line: u64) -> Option<u64> {
        let mut digest = Sha256::new();
        digest.update(pool.map_or("", PoolId::as_str));
        // No pool has this byte in its name.
        digest.update([0]);
        digest.update(name);
        let mut key = [0; 16];
        key.copy_from_slice(&digest.finalize()[..16]);
        match self.0.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => Some(*entry.get()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(line);
                None
            }
        }
    }
}

/// Tests' way to read a file: every row, or what is wrong with it as text.
#[cfg(test)]
fn read_all<T: Row>(text: impl AsRef<[u8]>) -> Vec<Result<T, String>> {
    read_with(text, &Options::default())
}

/// The same, read so.
#[cfg(test)]
fn read_with<T: Row>(text: impl AsRef<[u8]>, options: &Options) -> Vec<Result<T, String>> {
    CsvFile::<_, T>::new(text.as_ref(), options)
        .unwrap()
        .map(|row| row.unwrap().map_err(|bad| bad.to_string()))
        .collect()
}

#[cfg(test)]
mod tests;
