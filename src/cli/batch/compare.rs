//! A file compared with what the server has of its batch: what is new, what differs, and what is in the file no more.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::Duration,
};

use serde_json::Value;
use tonic::Code;

use super::{
    Batch, feed,
    index::{Index, Indexed, digest},
    session::Ready,
};
use crate::{
    cli::shared::{
        client::{PAGE_SIZE, RpcError, Server, every_page, unary},
        view,
    },
    rpc::pb::{self, RedemptionState},
};

/// Rows of one kind that are named on the console.
const MAX_NAMED: u64 = 20;
/// How long the server may take to tell what was begun, when the batch was broken off.
const TELL_WITHIN: Duration = Duration::from_secs(10);
/// How many characters of a code are told.
const LAST4: usize = 4;
/// How versions before named items that the file did not name: after their lines.
const BY_LINE: &str = "line-";

/// The columns of a dry run.
pub(super) const COLUMNS: &[&str] =
    &["line", "item_id", "code_last4", "expected_minor", "would", "state", "message"];

/// An item that the server has.
#[derive(Debug)]
struct Item {
    state: RedemptionState,
    /// Whether it failed, and is redeemed again when its batch is opened again.
    is_again: bool,
    /// The amount that was asked for with it. One that the provider told later is none.
    expected_minor: Option<i64>,
    last4: String,
    rank: Rank,
}

impl Item {
    fn of(redemption: &pb::Redemption) -> Self {
        let state = redemption.state();
        let retryable = redemption.failure.as_ref().is_some_and(|failure| failure.retryable);
        let asked = redemption.expected.as_ref().filter(|_| !redemption.expected_learned);
        Self {
            state,
            is_again: state == RedemptionState::Failed && retryable,
            expected_minor: asked.map(|money| money.amount_minor),
            last4: redemption.code_last4.clone(),
            rank: Rank::of(redemption),
        }
    }
}

/// Which of the attempts of one item the server answers with: the greatest. One that did not fail is before those that
/// failed, and then the last attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(bool, i32);

impl Rank {
    /// Of an attempt.
    pub(super) fn of(redemption: &pb::Redemption) -> Self {
        Self(redemption.state() != RedemptionState::Failed, redemption.attempt)
    }
}

/// The principals whose redemptions were listed: an auditor sees those of others, whose batches may have the same id.
#[derive(Debug, Default)]
pub(super) struct Principals(HashSet<String>);

impl Principals {
    /// Notes whose it is.
    pub(super) fn note(&mut self, redemption: &pb::Redemption) {
        if !self.0.contains(&redemption.principal) {
            self.0.insert(redemption.principal.clone());
        }
    }

    /// Whether there are several: which of them the caller is, is not told here.
    pub(super) fn are_several(&self) -> bool {
        self.0.len() > 1
    }
}

/// Why a file is not compared with its batch.
#[derive(Debug)]
pub(super) enum NotCompared {
    /// This caller may not list redemptions.
    Denied,
    /// So many principals have a batch of this id.
    Several(usize),
    /// Listing them failed.
    Failed(anyhow::Error),
}

impl fmt::Display for NotCompared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the file is not compared with the batch: ")?;
        match self {
            Self::Denied => f.write_str("listing redemptions needs the role auditor"),
            Self::Several(principals) => write!(
                f,
                "{principals} principals have redemptions in batches of this id, and which of them are this \
                 caller's is not told"
            ),
            Self::Failed(error) => f.write_str(&format!("{error:#}").replace("\n  ", "; ")),
        }
    }
}

/// What the server has of a batch.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    items: HashMap<[u8; 16], Item>,
    /// Those that are not in the file, by their names.
    gone: BTreeMap<String, Item>,
    principals: Principals,
}

impl Recorded {
    fn note(&mut self, index: &Index, name: &str, redemption: &pb::Redemption) {
        self.principals.note(redemption);
        let item = Item::of(redemption);
        let held = match index.of(name) {
            Some(_) => self.items.get(&digest(name)),
            None => self.gone.get(name),
        };
        if held.is_some_and(|held| held.rank >= item.rank) {
            return;
        }
        match index.of(name) {
            Some(_) => drop(self.items.insert(digest(name), item)),
            None => drop(self.gone.insert(name.to_owned(), item)),
        }
    }
}

/// What a row of the file is to the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The batch has not begun it.
    New,
    /// The batch has it as it is.
    Same,
    /// The batch has it, failed without the card being spent: it is redeemed again.
    Again,
    /// The batch has it with another amount or another card.
    Differs,
    /// A bad row.
    Bad,
    /// The batch has it, and the file has not.
    Gone,
}

/// A row, as it is compared.
pub(super) struct Compared<'a> {
    /// What it is to the batch.
    pub(super) kind: Kind,
    name: &'a str,
    row: Option<&'a Indexed<'a>>,
    item: Option<&'a Item>,
    message: String,
}

impl Compared<'_> {
    /// As a line for people.
    fn line(&self) -> String {
        let state = self.item.map(|item| name_of(item.state)).unwrap_or_default();
        let last4 = match (self.row, self.item) {
            (Some(row), _) => row.file_row.last4(),
            (None, Some(item)) => &item.last4,
            (None, None) => "",
        };
        let card = if last4.is_empty() { String::new() } else { format!(", card …{last4}") };
        match (self.row, self.kind) {
            (Some(row), Kind::Differs) => {
                format!("changed: line {}{card}: {} ({state})", row.file_row.line, self.message)
            }
            (Some(row), _) => format!("not begun yet: line {}{card}", row.file_row.line),
            (None, _) => format!("not in the file: item {}{card} ({state})", self.name),
        }
    }

    /// As a row of [`COLUMNS`].
    pub(super) fn row(&self, is_compared: bool) -> Vec<Value> {
        let card = self.row.and_then(|row| row.card.as_ref());
        let would = match self.kind {
            Kind::New if is_compared => "REDEEM",
            Kind::New => "SEND",
            Kind::Same => "REPEAT_OUTCOME",
            Kind::Again => "REDEEM_AGAIN",
            Kind::Differs => "BE_REJECTED",
            Kind::Bad | Kind::Gone => "NOT_BE_SENT",
        };
        let last4 = self.row.map_or_else(
            || self.item.map(|item| item.last4.clone()).unwrap_or_default(),
            |row| row.file_row.last4().to_owned(),
        );
        vec![
            self.row.map_or(Value::Null, |row| row.file_row.line.into()),
            view::text(self.name),
            view::text(&last4),
            card.and_then(|card| card.amount_minor).into(),
            would.into(),
            self.item.map_or(Value::Null, |item| name_of(item.state).into()),
            view::text(&self.message),
        ]
    }
}

fn name_of(state: RedemptionState) -> String {
    view::state(state).as_str().unwrap_or_default().to_owned()
}

/// How many rows there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// See [`Kind`].
    pub(super) new: u64,
    /// See [`Kind`].
    pub(super) same: u64,
    /// See [`Kind`].
    pub(super) again: u64,
    /// See [`Kind`].
    pub(super) differs: u64,
    /// See [`Kind`].
    pub(super) bad: u64,
    /// See [`Kind`].
    pub(super) gone: u64,
    /// Of those that are gone: named by versions before, after their lines.
    pub(super) by_line: u64,
    /// Of those that are gone: named by another key.
    pub(super) other_key: u64,
}

impl Counts {
    fn add(&mut self, kind: Kind) -> u64 {
        let count = match kind {
            Kind::New => &mut self.new,
            Kind::Same => &mut self.same,
            Kind::Again => &mut self.again,
            Kind::Differs => &mut self.differs,
            Kind::Bad => &mut self.bad,
            Kind::Gone => &mut self.gone,
        };
        *count += 1;
        *count
    }
}

/// Reads what the server has of a batch.
pub(super) async fn recorded(
    server: &Server,
    batch: &Batch,
    index: &Index,
) -> Result<Recorded, NotCompared> {
    let mut recorded = Recorded::default();
    let read = each(server, batch, |name, redemption| {
        recorded.note(index, name, redemption);
        Ok(())
    })
    .await;
    match read {
        Ok(()) if recorded.principals.are_several() => {
            Err(NotCompared::Several(recorded.principals.0.len()))
        }
        Ok(()) => Ok(recorded),
        Err(error) => match error.downcast_ref::<RpcError>() {
            Some(RpcError(status)) if status.code() == Code::PermissionDenied => {
                Err(NotCompared::Denied)
            }
            _ => Err(NotCompared::Failed(error)),
        },
    }
}

/// Gives each redemption of a batch, by its item's name, the newest first.
pub(super) async fn each(
    server: &Server,
    batch: &Batch,
    mut each: impl FnMut(&str, &pb::Redemption) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut redemptions = server.redemptions();
    let prefix = format!("batch:{}:", batch.batch_id);
    every_page(
        async |page_token| {
            let request = pb::ListRedemptionsRequest {
                pool_id: batch.pool_id.to_string(),
                batch_id: batch.batch_id.to_string(),
                page_size: PAGE_SIZE,
                page_token,
                ..Default::default()
            };
            let page = redemptions.list_redemptions(unary(request)).await?.into_inner();
            Ok((page.redemptions, page.next_page_token))
        },
        |redemption| match redemption.request_id.strip_prefix(&prefix) {
            Some(name) => each(name, &redemption),
            None => Ok(()),
        },
    )
    .await
}

/// As [`each`], for as long as a person waits who has ended the command.
pub(super) async fn each_soon(
    server: &Server,
    batch: &Batch,
    then: impl FnMut(&str, &pb::Redemption) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    tokio::time::timeout(TELL_WITHIN, each(server, batch, then)).await?
}

/// Compares the file with it, row by row in the file's order.
pub(super) fn compare(
    ready: &Ready,
    batch: &Batch,
    recorded: &Recorded,
    mut each: impl FnMut(&Compared<'_>, u64) -> anyhow::Result<()>,
) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    let (pool, names, index) = (&batch.pool_id, &*ready.names, &*ready.index);
    feed::again(&ready.cards, pool, names, index, |row| {
        let name = row.item_id.as_ref().map(|name| name.as_str()).unwrap_or_default();
        let item = recorded.items.get(&digest(name));
        let (kind, message) = judge(&row, item, index)?;
        let compared = Compared { kind, name, row: Some(&row), item, message };
        each(&compared, counts.add(kind))
    })?;
    for (name, item) in &recorded.gone {
        counts.by_line += u64::from(name.starts_with(BY_LINE));
        counts.other_key += u64::from(names.is_of_another_key(name));
        let message = "the batch has it, and the file has not".to_owned();
        let compared = Compared { kind: Kind::Gone, name, row: None, item: Some(item), message };
        each(&compared, counts.add(Kind::Gone))?;
    }
    Ok(counts)
}

fn judge(row: &Indexed<'_>, item: Option<&Item>, index: &Index) -> anyhow::Result<(Kind, String)> {
    let Some(card) = &row.card else {
        let problems = row.file_row.bad.map(|bad| index.problems(bad)).transpose()?;
        return Ok((Kind::Bad, problems.unwrap_or_default()));
    };
    let Some(item) = item else { return Ok((Kind::New, String::new())) };
    let mut message = Vec::new();
    // An item that the file does not name is named after its card: it cannot be another.
    let last4 = if row.file_row.is_named { row.file_row.last4() } else { "" };
    let are_whole = [last4, &item.last4].iter().all(|last4| last4.chars().count() == LAST4);
    if are_whole && last4.to_lowercase() != item.last4.to_lowercase() {
        message
            .push(format!("it is another card: the batch has …{} under this item_id", item.last4));
    }
    match (card.amount_minor, item.expected_minor) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            message.push(format!("its amount is {ours}, and the batch has {theirs} for it"));
        }
        (Some(ours), None) => {
            message.push(format!("its amount is {ours}, and the batch has it without an amount"));
        }
        (None, Some(theirs)) => {
            message.push(format!("it has no amount, and the batch has it with {theirs}"));
        }
        _ => {}
    }
    let kind = match message.is_empty() {
        true if item.is_again => Kind::Again,
        true => Kind::Same,
        false => Kind::Differs,
    };
    Ok((kind, message.join("; ")))
}

/// What is said before anything is sent, a line each. Nothing of a batch that is new.
pub(super) fn told(
    ready: &Ready,
    batch: &Batch,
    recorded: &Recorded,
    mut note: impl FnMut(&str),
) -> anyhow::Result<()> {
    if recorded.items.is_empty() && recorded.gone.is_empty() {
        return Ok(());
    }
    let counts = compare(ready, batch, recorded, |row, number| {
        if matches!(row.kind, Kind::New | Kind::Differs | Kind::Gone) && number <= MAX_NAMED {
            note(&row.line());
        }
        Ok(())
    })?;
    let Counts { new, differs, gone, .. } = counts;
    let more = [(new, "not begun yet"), (differs, "changed"), (gone, "not in the file")];
    for (count, what) in more.into_iter().filter(|(count, _)| *count > MAX_NAMED) {
        note(&format!("… and {} more {what}; --dry-run names all", count - MAX_NAMED));
    }
    note(&summary(batch, &counts));
    hints(&counts).iter().for_each(|hint| note(hint));
    Ok(())
}

/// The counts, for people.
pub(super) fn summary(batch: &Batch, counts: &Counts) -> String {
    let Counts { new, same, again, differs, gone, .. } = counts;
    let again = match again {
        0 => String::new(),
        rows => format!(", {rows} are redeemed again"),
    };
    format!(
        "compared with batch {} on the server: {same} rows are as it has them{again}, {differs} are changed, \
         {new} are not begun yet; {gone} of its items are not in the file",
        batch.batch_id
    )
}

/// What explains items that are not in the file.
pub(super) fn hints(counts: &Counts) -> Vec<String> {
    let mut hints = Vec::new();
    if counts.by_line > 0 {
        hints.push(format!(
            "{} of them are named after lines, as versions before named items without item_id. Their cards are \
             not redeemed twice: those that were credited are answered with CODE_IN_USE",
            counts.by_line
        ));
    }
    if counts.other_key > 0 {
        hints.push(format!(
            "{} of them were named with another key than this one: run this with that key (--item-key-file) to \
             go on with them. Cards that were credited are not redeemed twice",
            counts.other_key
        ));
    }
    hints
}

#[cfg(test)]
mod tests;
