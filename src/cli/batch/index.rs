//! The rows of a file between two readings of it: their order, where each item is, and what is wrong with bad ones.

use std::{collections::HashMap, fs::File, io::Write as _, os::unix::fs::FileExt as _};

use anyhow::Context as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    cli::shared::{
        csv_files::{BadRow, CardRow, Problems},
        unnamed::unnamed,
    },
    domain::id::ItemId,
};

/// What is kept of a row between two readings of the file. A few bytes: a file may have millions.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileRow {
    /// Its line.
    pub(super) line: u64,
    last4: [u8; 4],
    /// Whether the file gives the item's name.
    pub(super) is_named: bool,
    /// Of a bad row: what is wrong with it.
    pub(super) bad: Option<Kept>,
}

impl FileRow {
    /// Of a row.
    pub(super) fn new(line: u64, last4: &str, is_named: bool, bad: Option<Kept>) -> Self {
        Self { line, last4: last4.as_bytes().try_into().unwrap_or([0; 4]), is_named, bad }
    }

    /// The end of the card's code; nothing where that is not told.
    pub(super) fn last4(&self) -> &str {
        std::str::from_utf8(&self.last4).unwrap_or_default().trim_end_matches('\0')
    }
}

/// A row of the file on its second reading.
pub(super) struct Indexed<'a> {
    /// Its number among the rows of the pool.
    pub(super) number: usize,
    /// What was noted of it.
    pub(super) file_row: &'a FileRow,
    /// The item's name, unless it is a bad row.
    pub(super) item_id: Option<ItemId>,
    /// The card.
    pub(super) card: Option<CardRow>,
}

/// The rows of a file: their order, and where each item is.
#[derive(Debug)]
pub(super) struct Index {
    rows: Vec<FileRow>,
    items: HashMap<[u8; 16], u32>,
    bad_rows: Journal,
}

impl Index {
    /// Of nothing yet.
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { rows: Vec::new(), items: HashMap::new(), bad_rows: Journal::new()? })
    }

    /// Adds an item.
    pub(super) fn add(&mut self, item_id: &ItemId, card: &CardRow) {
        let number = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.items.entry(digest(item_id.as_str())).or_insert(number);
        self.rows.push(FileRow::new(card.line, card.code.last4(), card.item_id.is_some(), None));
    }

    /// Adds a bad row.
    pub(super) fn add_bad(&mut self, bad: &BadRow) -> anyhow::Result<()> {
        let problems = Value::from(Problems(&bad.problems).to_string());
        let kept = self.bad_rows.put(&[problems])?;
        self.rows.push(FileRow::new(bad.line, &bad.code_last4, false, Some(kept)));
        Ok(())
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// What was noted of a row.
    pub(super) fn file_row(&self, number: usize) -> Option<&FileRow> {
        self.rows.get(number)
    }

    /// What was noted of an item.
    pub(super) fn of(&self, item_id: &str) -> Option<&FileRow> {
        self.file_row(self.number(item_id)?)
    }

    /// What is wrong with a bad row.
    pub(super) fn problems(&self, bad: Kept) -> anyhow::Result<String> {
        let kept = self.bad_rows.get(bad)?;
        Ok(kept.first().and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// The number of an item's row.
    pub(super) fn number(&self, item_id: &str) -> Option<usize> {
        self.items.get(&digest(item_id)).and_then(|number| usize::try_from(*number).ok())
    }
}

/// Where a row is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    at: u64,
    bytes: u32,
}

/// Rows in a file that has no name. Codes are never among them.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    end: u64,
}

impl Journal {
    /// An empty one.
    pub(super) fn new() -> anyhow::Result<Self> {
        let file = unnamed().context("no temporary file can be made for the results")?;
        Ok(Self { file, end: 0 })
    }

    /// Keeps a row.
    pub(super) fn put(&mut self, row: &[Value]) -> anyhow::Result<Kept> {
        let text = serde_json::to_vec(row)?;
        self.file.write_all(&text).context("the results cannot be kept in a temporary file")?;
        let kept = Kept { at: self.end, bytes: u32::try_from(text.len())? };
        self.end += text.len() as u64;
        Ok(kept)
    }

    /// A row that was kept.
    pub(super) fn get(&self, kept: Kept) -> anyhow::Result<Vec<Value>> {
        let mut text = vec![0; usize::try_from(kept.bytes)?];
        let about = "the results cannot be read from a temporary file";
        self.file.read_exact_at(&mut text, kept.at).context(about)?;
        serde_json::from_slice(&text).context(about)
    }
}

/// Sixteen bytes an item, whatever its name's length: a batch may have millions.
pub(super) fn digest(item_id: &str) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&Sha256::digest(item_id)[..16]);
    key
}
