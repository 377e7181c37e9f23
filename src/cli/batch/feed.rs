//! The messages of a batch, made from a card file.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;

use super::{
    Batch, Progress,
    index::{Index, Indexed},
    item_key::ItemNames,
};
use crate::{
    cli::shared::{
        csv_files::{BadRow, CardRow, CsvFile, Options, input},
        output::note,
        parse::timestamp,
        upload::Upload,
    },
    domain::{
        id::{ItemId, PoolId},
        money::Currency,
    },
    rpc::pb,
};

/// A card file that is open. It is read more than once, each time from its beginning, and stays the
/// same file when another takes its name meanwhile.
#[derive(Clone, Debug)]
pub(in crate::cli) struct CardFile {
    path: PathBuf,
    file: Arc<File>,
    options: Options,
}

impl CardFile {
    /// Opens the file, and reads its header.
    pub(in crate::cli) fn open(path: &Path, options: Options) -> anyhow::Result<Self> {
        let file = Arc::new(input::open_to_read_again(path)?);
        let cards = Self { path: path.to_owned(), file, options };
        cards.rows()?.left_out().iter().for_each(note);
        Ok(cards)
    }

    /// The same file, read for a pool of this currency.
    pub(super) fn of_pool(&self, pool: &PoolId, currency: &str) -> Self {
        let mut cards = self.clone();
        cards.options.pool = Some(pool.clone());
        cards.options.currency = Currency::parse(currency);
        cards
    }

    fn rows(&self) -> anyhow::Result<CsvFile<Reading, CardRow>> {
        let reading = Reading { file: Arc::clone(&self.file), offset: 0 };
        CsvFile::new(reading, &self.options)
            .with_context(|| format!("cannot read the file {}", input::shown(&self.path)))
    }

    /// Its rows, as far as a pool is concerned.
    pub(super) fn rows_of(&self, pool: &PoolId) -> anyhow::Result<PoolRows> {
        Ok(PoolRows { rows: self.rows()?, pool: pool.clone() })
    }
}

/// The rows of a file for a pool.
pub(super) struct PoolRows {
    rows: CsvFile<Reading, CardRow>,
    pool: PoolId,
}

impl Iterator for PoolRows {
    type Item = anyhow::Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?.context("the rest of the file cannot be read");
        let other = |named: &Option<PoolId>| named.as_ref().is_some_and(|it| *it != self.pool);
        Some(row.map(|row| match row {
            Ok(card) if other(&card.pool_id) => Found::OtherPool,
            Ok(card) => Found::Card(card),
            Err(bad) if other(&bad.pool_id) => Found::OtherPool,
            Err(bad) => Found::Bad(bad),
        }))
    }
}

/// One reading of a file, with a position of its own.
struct Reading {
    file: Arc<File>,
    offset: u64,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// What a file holds for a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Survey {
    /// Rows that are items.
    pub(in crate::cli) items: u64,
    /// Rows that cannot be read.
    pub(in crate::cli) bad_rows: u64,
    /// Rows of other pools.
    pub(in crate::cli) skipped: u64,
    /// Rows of nothing.
    pub(in crate::cli) blank: u64,
}

/// What a row is.
pub(super) enum Found {
    Card(CardRow),
    Bad(BadRow),
    OtherPool,
}

/// Reads the file through, naming its bad rows. A file without any row is an error.
pub(super) fn survey(
    cards: &CardFile,
    pool: &PoolId,
    names: &ItemNames,
    progress: &Progress,
) -> anyhow::Result<(Survey, Index)> {
    let mut survey = Survey::default();
    let mut index = Index::new()?;
    let mut rows = cards.rows_of(pool)?;
    for row in &mut rows {
        match row? {
            Found::Card(card) => {
                survey.items += 1;
                index.add(&names.of(&card)?, &card);
            }
            Found::Bad(bad) => {
                survey.bad_rows += 1;
                progress.note(format_args!("bad row: {bad}"));
                index.add_bad(&bad)?;
            }
            Found::OtherPool => survey.skipped += 1,
        }
    }
    anyhow::ensure!(
        survey != Survey::default(),
        "the file {} has no rows besides its header: nothing was redeemed",
        input::shown(&cards.path)
    );
    survey.blank = rows.rows.blank_rows();
    Ok((survey, index))
}

/// Reads the file again, each row beside what was noted of it.
pub(super) fn again(
    cards: &CardFile,
    pool: &PoolId,
    names: &ItemNames,
    index: &Index,
    mut each: impl FnMut(Indexed<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut number = 0;
    for row in cards.rows_of(pool)? {
        let (item_id, card) = match row? {
            Found::OtherPool => continue,
            Found::Bad(_) => (None, None),
            Found::Card(card) => (Some(names.of(&card)?), Some(card)),
        };
        let Some(file_row) = index.file_row(number) else { break };
        each(Indexed { number, file_row, item_id, card })?;
        number += 1;
    }
    Ok(())
}

/// Sends the file's items, as fast as the call takes them, until it has ended. Answers how many.
pub(super) fn feed(
    cards: &CardFile,
    batch: &Batch,
    currency: &str,
    names: &ItemNames,
    upload: &Upload<pb::BatchRedeemRequest>,
) -> anyhow::Result<u64> {
    use pb::batch_redeem_request::Message;

    let mut sent = 0;
    for row in cards.rows_of(&batch.pool_id)? {
        if let Found::Card(card) = row? {
            let item = pb::BatchItem {
                priority: batch.priority,
                not_before: batch.not_before.map(timestamp),
                ..item(&names.of(&card)?, &card, currency)
            };
            let message = Some(Message::Item(item));
            if upload.send(pb::BatchRedeemRequest { message }).is_err() {
                // The call has ended, and its error says why.
                break;
            }
            sent += 1;
        }
    }
    Ok(sent)
}

pub(in crate::cli) fn item(item_id: &ItemId, card: &CardRow, pool_currency: &str) -> pb::BatchItem {
    let expected = card.amount_minor.map(|amount_minor| pb::Money {
        amount_minor,
        currency_code: card.currency.map_or(pool_currency.to_owned(), |code| code.to_string()),
    });
    pb::BatchItem {
        item_id: item_id.to_string(),
        code: card.code.expose().to_owned(),
        expected,
        ..pb::BatchItem::default()
    }
}
