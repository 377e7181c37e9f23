//! Account and card files: comma-separated, UTF-8, with a header; columns in any order.
//!
//! A file is read as a stream, line by line: a line is a row, so that a quote which somebody forgot
//! to close spoils its own row and not the rest of the file. A bad row is named by its line with
//! all that is wrong in it, by rule: what a row holds is never repeated, because in a row that is
//! out of order any column may hold a code.

mod account;
mod card;
mod damage;
mod fields;
mod lines;

use std::{
    borrow::Cow, collections::HashMap, fmt, fs::File, io, io::BufReader, marker::PhantomData,
    path::Path,
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use self::fields::{Fields, Layout};
pub(in crate::cli) use self::lines::{Line, Lines, MAX_LINE_BYTES};
pub(crate) use self::{account::AccountRow, card::CardRow};
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
        write!(f, "line {}: ", self.line)?;
        for (n, problem) in self.problems.iter().enumerate() {
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
    seen: Seen,
    rows: PhantomData<fn() -> T>,
}

impl<T: Row> CsvFile<BufReader<File>, T> {
    /// Opens a file and reads its header.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = || format!("the file {}", path.display());
        let file = File::open(path).with_context(|| format!("cannot open {}", name()))?;
        Self::new(BufReader::new(file)).with_context(|| format!("cannot read {}", name()))
    }
}

impl<R: io::BufRead, T: Row> CsvFile<R, T> {
    /// Reads the header.
    pub(crate) fn new(input: R) -> anyhow::Result<Self> {
        let mut lines = Lines::new(input);
        let layout = match lines.next_line()? {
            Some(Line::Whole(number, bytes)) => Layout::read::<T>(bytes)
                .with_context(|| format!("line {number} is not the header"))?,
            Some(Line::TooLong(_)) => anyhow::bail!("the first line is too long to be a header"),
            None => anyhow::bail!("it is empty; the first line must name the columns"),
        };
        Ok(Self { lines, layout, other_header: None, seen: Seen::default(), rows: PhantomData })
    }

    fn row(&mut self) -> io::Result<Option<Result<T, BadRow>>> {
        let mut fields = match self.lines.next_line()? {
            None => return Ok(None),
            Some(Line::Whole(number, bytes)) => {
                Fields::read(&self.layout, number, bytes, &mut self.other_header)
            }
            Some(Line::TooLong(number)) => {
                let rule = format!("is longer than {MAX_LINE_BYTES} bytes");
                Fields::unread(&self.layout, number, rule)
            }
        };
        let row = if fields.is_whole() { T::read(&mut fields, &mut self.seen) } else { None };
        Ok(Some(fields.judge(row)))
    }
}

impl<R: io::BufRead, T: Row> Iterator for CsvFile<R, T> {
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
    CsvFile::<_, T>::new(text.as_ref())
        .unwrap()
        .map(|row| row.unwrap().map_err(|bad| bad.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_error(text: &[u8]) -> String {
        match CsvFile::<_, CardRow>::new(text) {
            Ok(_) => panic!("a header was expected to be refused"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn a_header_is_required_and_its_columns_are_known() {
        assert!(header_error(b"").contains("empty"));
        assert!(header_error(b"code,colour,size\n").contains("\"colour\", \"size\""));
        assert!(header_error(b"item_id\n").contains("no column \"code\""));
        assert!(header_error(b"code,code\n").contains("twice"));
        assert!(header_error(b"co\xffde\n").contains("UTF-8"));
        assert!(header_error(b"code;amount_minor\n").contains("the columns are"));
    }

    #[test]
    fn a_header_that_is_no_header_is_not_repeated_in_full() {
        // Somebody forgot the header: the first line is a card.
        let error = header_error(b"ABCD-EFGH-1234\n");
        assert!(!error.contains("ABCD-EFGH-1234"), "{error}");
    }

    #[test]
    fn columns_come_in_any_order_and_a_bom_is_fine() {
        let rows = read_all::<CardRow>("\u{feff}amount_minor, code\r\n500,ABCD1\r\n\r\n700,ABCD2");
        let ids: Vec<_> = rows.into_iter().map(|row| row.unwrap().item_id.to_string()).collect();
        assert_eq!(ids, ["line-2", "line-4"]);
    }

    #[test]
    fn a_row_with_another_number_of_columns_is_named_and_the_next_one_is_read() {
        let rows = read_all::<CardRow>("code,amount_minor\nABCD1\nABCD2,1,2\nABCD3,1\n");
        assert_eq!(rows[0].as_ref().unwrap_err(), "line 2: has 1 column where the header has 2");
        assert_eq!(rows[1].as_ref().unwrap_err(), "line 3: has 3 columns where the header has 2");
        assert!(rows[2].is_ok());
    }

    #[test]
    fn a_quote_left_open_spoils_one_row_only() {
        let rows = read_all::<CardRow>("code,item_id\n\"ABCD1,a\nABCD2,b\n\"ABCD3\",\"c,d\"\n");
        assert_eq!(rows[0].as_ref().unwrap_err(), "line 2: has a quote that is not closed");
        assert_eq!(rows[1].as_ref().unwrap().item_id.as_str(), "b");
        assert_eq!(rows[2].as_ref().unwrap().item_id.as_str(), "c,d");
    }

    #[test]
    fn a_quote_in_the_middle_of_a_field_spoils_its_row() {
        for bad in ["\"X-0041\"x", "QQ\"\"Q-0042", "A-\"B\"-123", " \"ABCD1\"", "\"A\" \"B-12\""] {
            let rows = read_all::<CardRow>(format!("code,item_id\n{bad},a\nABCD2,b\n"));
            let why = rows[0].as_ref().unwrap_err();
            assert!(
                why.starts_with("line 2: has a quote in the middle of a field"),
                "{bad}: {why}"
            );
            assert!(rows[1].is_ok());
        }
        for (text, code) in [
            ("\"ABCD1\"", "ABCD1"),
            ("\"ABCD1\" ", "ABCD1"),
            ("\"AB\"\"CD1\"", "AB\"CD1"),
            ("\"\"\"ABCD1\"\"\"", "\"ABCD1\""),
        ] {
            let rows = read_all::<CardRow>(format!("code,item_id\n{text},\"\"\n"));
            assert_eq!(rows[0].as_ref().unwrap().code.expose(), code, "{text}");
        }
    }

    #[test]
    fn a_row_with_another_separator_is_a_bad_row_that_names_it() {
        for (header, bad, mark) in [
            ("code", "ABCD-1;1000", "semicolons"),
            ("code", "ABCD-1\t1000", "tabs"),
            ("code,amount_minor", "ABCD-1;1000", "semicolons"),
            ("code,amount_minor", "ABCD-1\t1000", "tabs"),
        ] {
            let why = read_all::<CardRow>(format!("{header}\n{bad}\n")).remove(0).unwrap_err();
            let hint = format!("is the file separated by {mark}? export it with commas");
            assert!(why.starts_with("line 2: has ") && why.ends_with(&hint), "{why}");
            assert!(!why.contains("ABCD"), "{why}");
        }
        for taken in ["code\n\"AB;CD-1\"\n", "code,item_id\nAB;CD-1,a\n"] {
            assert!(read_all::<CardRow>(taken)[0].is_ok(), "{taken}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_named_by_their_column() {
        let rows = read_all::<CardRow>(b"code,item_id\nAB\xffCD,a\nABCD2,\x1bb\nABC\x00D,c\n");
        assert_eq!(rows[0].as_ref().unwrap_err(), "line 2: code is not UTF-8");
        assert_eq!(rows[1].as_ref().unwrap_err(), "line 3: item_id has a control character");
        assert_eq!(rows[2].as_ref().unwrap_err(), "line 4: code has a NUL byte");
    }

    #[test]
    fn an_endless_line_is_named_and_the_next_one_is_read() {
        let text = format!("code\n{}\nABCD2\n", "x".repeat(MAX_LINE_BYTES + 1));
        let rows = read_all::<CardRow>(text);
        assert_eq!(rows[0].as_ref().unwrap_err(), "line 2: is longer than 65536 bytes");
        assert_eq!(rows[1].as_ref().unwrap().item_id.as_str(), "line-3");
    }

    #[test]
    fn a_bad_row_tells_its_pool_when_it_can() {
        let mut file = CsvFile::<_, CardRow>::new(&b"code,pool_id\nx,p\nABCD,a b\n"[..]).unwrap();
        let bad = file.next().unwrap().unwrap().unwrap_err();
        assert_eq!(bad.pool_id.map(|pool| pool.to_string()), Some("p".to_owned()));
        let bad = file.next().unwrap().unwrap().unwrap_err();
        assert_eq!((bad.pool_id, bad.problems[0].column.as_deref()), (None, Some("pool_id")));
    }

    #[test]
    fn names_are_unique_in_a_pool() {
        let mut seen = Seen::default();
        let pool = PoolId::parse("p").unwrap();
        assert_eq!(seen.before(None, "a", 2), None);
        assert_eq!(seen.before(Some(&pool), "a", 3), None);
        assert_eq!(seen.before(Some(&pool), "a", 4), Some(3));
    }

    #[test]
    fn rows_end_with_lf_crlf_or_cr_also_in_one_file() {
        let files = [
            "code,amount_minor\nAAAA-1,1000\rBBBB-2,1000\n",
            "code,amount_minor\rAAAA-1,1000\rBBBB-2,1000\r",
            "code,amount_minor\r\nAAAA-1,1000\r\nBBBB-2,1000",
            "code,amount_minor\rAAAA-1,1000\nBBBB-2,1000\r\n",
        ];
        for file in files {
            let rows = read_all::<CardRow>(file).into_iter().map(Result::unwrap);
            let ids: Vec<_> = rows.map(|row| row.item_id.to_string()).collect();
            assert_eq!(ids, ["line-2", "line-3"], "{file:?}");
        }
    }

    #[test]
    fn a_header_in_the_middle_of_a_file_is_a_bad_row_and_the_rows_after_it_are_read() {
        for again in [
            "account_id,country_code",
            "\u{feff}account_id,country_code",
            " ACCOUNT_ID , Country_Code",
        ] {
            let rows =
                read_all::<AccountRow>(format!("account_id,country_code\na,DE\n{again}\nb,DE\n"));
            let why = rows[1].as_ref().unwrap_err();
            assert!(why.starts_with("line 3: repeats the header"), "{why}");
            assert_eq!(rows[2].as_ref().unwrap().account_id.as_str(), "b");
        }
        let rows = read_all::<AccountRow>("account_id\na\naccount_id\nlabels\n");
        assert!(rows[1].is_err() && rows[2].is_ok());
    }

    #[test]
    fn after_a_header_with_other_columns_no_row_is_read() {
        for again in ["amount_minor,code", "item_id,code,amount_minor", "code"] {
            let rows =
                read_all::<CardRow>(format!("code,amount_minor\nABCD1,5\n{again}\n1234,5678\n"));
            assert!(rows[0].is_ok());
            let why = rows[1].as_ref().unwrap_err();
            assert!(why.starts_with("line 3: is a second header, with other columns"), "{why}");
            let why = rows[2].as_ref().unwrap_err();
            assert!(why.starts_with("line 4: comes after the second header on line 3"), "{why}");
        }
    }

    #[test]
    fn files_that_were_joined_without_a_line_end_between_them_are_found_out() {
        let file = "account_id\na\nb\u{feff}account_id\nc\n";
        assert!(read_all::<AccountRow>(file)[1].as_ref().unwrap_err().contains("joined"));
        let file = "account_id\na\nbaccount_id\nc\n";
        assert!(read_all::<AccountRow>(file)[1].as_ref().unwrap_err().contains("joined"));
        let file = "account_id\na\u{feff}b\n";
        assert!(read_all::<AccountRow>(file)[0].as_ref().unwrap_err().contains("byte order mark"));
        let file = "code,amount_minor\nABCD1,5code,amount_minor\nABCD2,5\n";
        let rows = read_all::<CardRow>(file);
        assert!(rows[0].as_ref().unwrap_err().contains("joined") && rows[1].is_ok());
        let rows = read_all::<CardRow>("code\nABCD1code\nbarcode\n");
        assert!(rows[0].as_ref().unwrap_err().contains("joined"));
        assert!(rows[1].is_ok(), "a code that may be one");
    }

    #[test]
    fn a_file_that_is_not_utf_8_text_is_refused_with_what_it_is() {
        assert!(header_error(b"\xff\xfec\0o\0d\0e\0\n\0A\0").contains("UTF-16"));
        assert!(header_error(b"c\0o\0d\0e\0\n\0").contains("NUL"));
        assert!(header_error(b"PK\x03\x04\x14\0").contains("export the sheet as CSV"));
        assert!(header_error(b"code;amount_minor\nABCD1;5\n").contains("separated by commas"));
    }

    #[test]
    fn texts_that_a_spreadsheet_damaged_are_bad_rows_with_a_hint_and_are_not_repeated() {
        for text in
            ["1.23457E+15", "\"1,23457E+15\"", "=\"0012\"", "\"=\"\"0012\"\"\"", "#N/A", "#REF!"]
        {
            for column in ["code", "item_id"] {
                let other = if column == "code" { "item_id" } else { "code" };
                let rows = read_all::<CardRow>(format!("{column},{other}\n{text},ABCD-1\n"));
                let why = rows[0].as_ref().unwrap_err();
                assert!(why.starts_with(&format!("line 2: {column} is ")), "{why}");
                assert!(why.contains("export") && !why.contains("0012"), "{why}");
            }
            let rows = read_all::<AccountRow>(format!("account_id\n{text}\n"));
            let why = rows[0].as_ref().unwrap_err();
            assert!(why.starts_with("line 2: account_id is "), "{why}");
        }
        let why = read_all::<CardRow>("code\n9.87654E+11\n").remove(0).unwrap_err();
        assert!(!why.contains("9.8"), "{why}");
    }
}
