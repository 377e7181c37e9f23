//! The results as a sheet: a row for every row of the file, in the file's order.
//!
//! An outcome is written when those of all rows before it are. Until then it is kept in a file without a name: a row that
//! waits for its outcome to the end must not hold all that follow it in memory.

use std::sync::Arc;

use serde_json::Value;

use super::{
    CardFile, feed,
    index::{Index, Journal, Kept},
    item_key::ItemNames,
    outcome,
    outcome::Outcome,
};
use crate::domain::id::PoolId;

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
        let kept = vec![None; index.len()];
        Ok(Self { index, journal: Journal::new()?, kept, next: 0 })
    }

    /// Notes an outcome.
    pub(super) fn put(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        if let Some(number) = self.index.number(outcome.item_id()) {
            self.kept[number] = Some(self.keep(outcome)?);
        }
        Ok(())
    }

    /// Keeps the row of an outcome, which is none of the sheet's until it is set.
    pub(super) fn keep(&mut self, outcome: &Outcome) -> anyhow::Result<Kept> {
        self.journal.put(&outcome.row())
    }

    /// Makes a row that was kept that of the file's row of this number.
    pub(super) fn set(&mut self, number: usize, row: Kept) {
        self.kept[number] = Some(row);
    }

    /// The number of an item's row, where it has no outcome yet.
    pub(super) fn waits_for(&self, item_id: &str) -> Option<usize> {
        self.index.number(item_id).filter(|number| self.kept[*number].is_none())
    }

    /// Writes the rows whose turn has come.
    pub(super) fn write(
        &mut self,
        mut push: impl FnMut(&[Value]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        while let Some(file_row) = self.index.file_row(self.next) {
            let row = match (file_row.bad, self.kept[self.next]) {
                (Some(bad), _) => outcome::bad_row(file_row, &self.index.problems(bad)?),
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
        if self.next == self.index.len() {
            return Ok(waiting);
        }
        let index = Arc::clone(&self.index);
        feed::again(cards, pool, names, &index, |row| {
            if row.number != self.next {
                return Ok(());
            }
            if let (Some(item_id), None) = (&row.item_id, self.kept[row.number]) {
                waiting += 1;
                self.next += 1;
                push(&outcome::unknown_row(item_id, row.file_row, row.card.as_ref(), without))?;
            }
            self.write(&mut push)
        })?;
        // Rows that are in the file no more, and what comes after them.
        Ok(waiting + (self.index.len() - self.next) as u64)
    }
}
