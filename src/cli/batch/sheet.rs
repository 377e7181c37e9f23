//! The results as a sheet: a row for every row of the file, in the file's order.
//!
//! An outcome is written when those of all rows before it are. Until then it is kept in a file without a name: a row that
//! waits for its outcome to the end must not hold all that follow it in memory.

use std::{collections::HashMap, fs::File, io::Write as _, os::unix::fs::FileExt as _, sync::Arc};

use anyhow::Context as _;
use serde_json::Value;

use super::{CardFile, item_key::ItemNames, outcome, outcome::Outcome, results::digest};
use crate::{
    cli::shared::{
        csv_files::{BadRow, CardRow, Problems},
        unnamed::unnamed,
    },
    domain::id::{ItemId, PoolId},
};

/// What is kept of a row between two readings of the file. A few bytes: a file may have millions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Its line.
    pub(super) line: u64,
    last4: [u8; 4],
    /// Whether the file gives the item's name.
    pub(super) is_named: bool,
    /// Of a bad row: its row of the results.
    bad: Option<Kept>,
}

impl Place {
    fn new(line: u64, last4: &str, is_named: bool, bad: Option<Kept>) -> Self {
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
    pub(super) place: &'a Place,
    /// The item's name, unless it is a bad row.
    pub(super) item_id: Option<ItemId>,
    /// The card.
    pub(super) card: Option<CardRow>,
}

/// The rows of a file: their order, and where each item is.
#[derive(Debug)]
pub(super) struct Index {
    places: Vec<Place>,
    items: HashMap<[u8; 16], u32>,
    bad_rows: Journal,
}

impl Index {
    /// Of nothing yet.
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { places: Vec::new(), items: HashMap::new(), bad_rows: Journal::new()? })
    }

    /// Adds an item.
    pub(super) fn add(&mut self, item_id: &ItemId, card: &CardRow) {
        let number = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.items.entry(digest(item_id.as_str())).or_insert(number);
        self.places.push(Place::new(card.line, card.code.last4(), card.item_id.is_some(), None));
    }

    /// Adds a bad row.
    pub(super) fn add_bad(&mut self, bad: &BadRow) -> anyhow::Result<()> {
        let row = outcome::bad_row(bad.line, &bad.code_last4, &Problems(&bad.problems).to_string());
        let kept = self.bad_rows.put(&row)?;
        self.places.push(Place::new(bad.line, &bad.code_last4, false, Some(kept)));
        Ok(())
    }

    /// What was noted of a row.
    pub(super) fn place(&self, number: usize) -> Option<&Place> {
        self.places.get(number)
    }

    /// What was noted of an item.
    pub(super) fn of(&self, item_id: &str) -> Option<&Place> {
        self.place(self.number(item_id)?)
    }

    /// What is wrong with a bad row.
    pub(super) fn problems(&self, place: &Place) -> anyhow::Result<String> {
        let Some(bad) = place.bad else { return Ok(String::new()) };
        let row = self.bad_rows.get(bad)?;
        Ok(row.iter().rev().find_map(Value::as_str).unwrap_or_default().to_owned())
    }

    fn number(&self, item_id: &str) -> Option<usize> {
        self.items.get(&digest(item_id)).and_then(|number| usize::try_from(*number).ok())
    }
}

/// The rows of results, as their outcomes come.
pub(super) struct Sheet {
    index: Arc<Index>,
    journal: Journal,
    kept: Vec<Option<Kept>>,
    /// The first row that was not written yet.
    next: usize,
}

impl Sheet {
    /// Without an outcome yet.
    pub(super) fn new(index: Arc<Index>) -> anyhow::Result<Self> {
        let kept = vec![None; index.places.len()];
        Ok(Self { index, journal: Journal::new()?, kept, next: 0 })
    }

    /// Notes an outcome.
    pub(super) fn put(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        if let Some(number) = self.index.number(outcome.item_id()) {
            self.kept[number] = Some(self.journal.put(&outcome.row())?);
        }
        Ok(())
    }

    /// Whether it is an item of the file that has no outcome yet.
    pub(super) fn waits_for(&self, item_id: &str) -> bool {
        self.index.number(item_id).is_some_and(|number| self.kept[number].is_none())
    }

    /// Writes the rows whose turn has come.
    pub(super) fn write(
        &mut self,
        mut push: impl FnMut(&[Value]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        while let Some(place) = self.index.places.get(self.next) {
            let row = match (place.bad, self.kept[self.next]) {
                (Some(bad), _) => self.index.bad_rows.get(bad)?,
                (None, Some(kept)) => self.journal.get(kept)?,
                (None, None) => break,
            };
            self.next += 1;
            push(&row)?;
        }
        Ok(())
    }

    /// Writes the rest. Rows without an outcome are given one: the file is read again for their names. Answers how many
    /// those were.
    pub(super) fn finish(
        mut self,
        (cards, pool, names): (&CardFile, &PoolId, &ItemNames),
        without: (&str, &str),
        mut push: impl FnMut(&[Value]) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        self.write(&mut push)?;
        let mut waiting = 0;
        if self.next == self.index.places.len() {
            return Ok(waiting);
        }
        let index = Arc::clone(&self.index);
        super::feed::again(cards, pool, names, &index, |row| {
            if row.number != self.next {
                return Ok(());
            }
            if let (Some(item_id), None) = (&row.item_id, self.kept[row.number]) {
                waiting += 1;
                self.next += 1;
                push(&outcome::unknown_row(item_id, row.place, row.card.as_ref(), without))?;
            }
            self.write(&mut push)
        })?;
        Ok(waiting)
    }
}

/// Where a row is kept.
#[derive(Clone, Copy, Debug)]
struct Kept {
    at: u64,
    bytes: u32,
}

/// Rows in a file that has no name. Codes are never among them.
#[derive(Debug)]
struct Journal {
    file: File,
    end: u64,
}

impl Journal {
    fn new() -> anyhow::Result<Self> {
        let file = unnamed().context("no temporary file can be made for the results")?;
        Ok(Self { file: file, end: 0 })
    }

    fn put(&mut self, row: &[Value]) -> anyhow::Result<Kept> {
        let text = serde_json::to_vec(row)?;
        self.file.write_all(&text).context("the results cannot be kept in a temporary file")?;
        let kept = Kept { at: self.end, bytes: u32::try_from(text.len())? };
        self.end += text.len() as u64;
        Ok(kept)
    }

    fn get(&self, kept: Kept) -> anyhow::Result<Vec<Value>> {
        let mut text = vec![0; usize::try_from(kept.bytes)?];
        let about = "the results cannot be read from a temporary file";
        self.file.read_exact_at(&mut text, kept.at).context(about)?;
        serde_json::from_slice(&text).context(about)
    }
}
