//! From a card file to the messages of a batch.

use std::{fs::File, io::BufReader};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::{Batch, Progress};
use crate::{
    cli::csv_files::{BadRow, CardRow, CsvFile},
    domain::id::PoolId,
    rpc::pb,
};

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

/// Reads the file through, naming its bad rows.
pub(super) fn survey(batch: &Batch, progress: &Progress) -> anyhow::Result<Survey> {
    let mut survey = Survey::default();
    for row in rows(batch)? {
        match row.context("the file cannot be read on")? {
            Found::Card(_) => survey.items += 1,
            Found::Bad(bad) => {
                survey.bad_rows += 1;
                progress.note(format_args!("bad row: {bad}"));
            }
            Found::OtherPool => survey.skipped += 1,
        }
    }
    Ok(survey)
}

/// Sends the file's items, as fast as the channel takes them. Answers how many.
pub(super) fn feed(
    batch: &Batch,
    currency: &str,
    send: &mpsc::Sender<pb::BatchRedeemRequest>,
) -> anyhow::Result<u64> {
    use pb::batch_redeem_request::Message;

    let mut sent = 0;
    for row in rows(batch)? {
        if let Found::Card(card) = row.context("the file cannot be read on")? {
            let message = Some(Message::Item(item(&card, currency)));
            if send.blocking_send(pb::BatchRedeemRequest { message }).is_err() {
                // The call has ended, and its error says why.
                break;
            }
            sent += 1;
        }
    }
    Ok(sent)
}

enum Found {
    Card(CardRow),
    Bad(BadRow),
    OtherPool,
}

fn rows(batch: &Batch) -> anyhow::Result<impl Iterator<Item = std::io::Result<Found>> + use<>> {
    let file = CsvFile::<BufReader<File>, CardRow>::open(&batch.file)?;
    let pool = batch.pool_id.clone();
    Ok(file.map(move |row| {
        let other = |named: &Option<PoolId>| named.as_ref().is_some_and(|named| *named != pool);
        row.map(|row| match row {
            Ok(card) if other(&card.pool_id) => Found::OtherPool,
            Ok(card) => Found::Card(card),
            Err(bad) if other(&bad.pool_id) => Found::OtherPool,
            Err(bad) => Found::Bad(bad),
        })
    }))
}

fn item(card: &CardRow, pool_currency: &str) -> pb::BatchItem {
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
