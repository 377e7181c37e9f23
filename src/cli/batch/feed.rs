//! The messages of a batch, made from a card file.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;

use super::Progress;
use crate::{
    cli::shared::{
        csv_files::{BadRow, CardRow, CsvFile},
        upload::Upload,
    },
    domain::id::PoolId,
    rpc::pb,
};

/// A card file that is open. It is read more than once, each time from its beginning, and stays the
/// same file when another takes its name meanwhile.
#[derive(Clone, Debug)]
pub(in crate::cli) struct CardFile {
    path: PathBuf,
    file: Arc<File>,
}

impl CardFile {
    /// Opens the file, and reads its header.
    pub(in crate::cli) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let cannot = || format!("cannot open the file {shown}");
        // Opening a pipe would wait for its writer.
        anyhow::ensure!(
            fs::metadata(path).with_context(cannot)?.is_file(),
            "{shown} is not a file, and cards are read more than once: a pipe or a folder will not do; \
             write the cards to a file first"
        );
        let file = Arc::new(File::open(path).with_context(cannot)?);
        let cards = Self { path: path.to_owned(), file };
        cards.rows()?;
        Ok(cards)
    }

    fn rows(&self) -> anyhow::Result<CsvFile<BufReader<Reading>, CardRow>> {
        let reading = Reading { file: Arc::clone(&self.file), offset: 0 };
        CsvFile::new(BufReader::new(reading))
            .with_context(|| format!("cannot read the file {}", self.path.display()))
    }

    fn rows_of(
        &self,
        pool: &PoolId,
    ) -> anyhow::Result<impl Iterator<Item = io::Result<Found>> + use<>> {
        let pool = pool.clone();
        Ok(self.rows()?.map(move |row| {
            let other = |named: &Option<PoolId>| named.as_ref().is_some_and(|named| *named != pool);
            row.map(|row| match row {
                Ok(card) if other(&card.pool_id) => Found::OtherPool,
                Ok(card) => Found::Card(card),
                Err(bad) if other(&bad.pool_id) => Found::OtherPool,
                Err(bad) => Found::Bad(bad),
            })
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
}

enum Found {
    Card(CardRow),
    Bad(BadRow),
    OtherPool,
}

/// Reads the file through, naming its bad rows. A file without any row is an error.
pub(super) fn survey(
    cards: &CardFile,
    pool: &PoolId,
    progress: &Progress,
) -> anyhow::Result<Survey> {
    let mut survey = Survey::default();
    for row in cards.rows_of(pool)? {
        match row.context("the rest of the file cannot be read")? {
            Found::Card(_) => survey.items += 1,
            Found::Bad(bad) => {
                survey.bad_rows += 1;
                progress.note(format_args!("bad row: {bad}"));
            }
            Found::OtherPool => survey.skipped += 1,
        }
    }
    anyhow::ensure!(
        survey != Survey::default(),
        "the file {} has no rows besides its header: nothing was redeemed",
        cards.path.display()
    );
    Ok(survey)
}

/// Sends the file's items, as fast as the call takes them, until it has ended. Answers how many.
pub(super) fn feed(
    cards: &CardFile,
    pool: &PoolId,
    currency: &str,
    upload: &Upload<pb::BatchRedeemRequest>,
) -> anyhow::Result<u64> {
    use pb::batch_redeem_request::Message;

    let mut sent = 0;
    for row in cards.rows_of(pool)? {
        if let Found::Card(card) = row.context("the rest of the file cannot be read")? {
            let message = Some(Message::Item(item(&card, currency)));
            if upload.send(pb::BatchRedeemRequest { message }).is_err() {
                // The call has ended, and its error says why.
                break;
            }
            sent += 1;
        }
    }
    Ok(sent)
}

pub(in crate::cli) fn item(card: &CardRow, pool_currency: &str) -> pb::BatchItem {
    let expected = card.amount_minor.map(|amount_minor| pb::Money {
        amount_minor,
        currency_code: card.currency.map_or(pool_currency.to_owned(), |code| code.to_string()),
    });
    pb::BatchItem {
        item_id: card.item_id.to_string(),
        code: card.code.expose().to_owned(),
        expected,
        selector: None,
    }
}
