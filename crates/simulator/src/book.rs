//! The provider's book and rules: what was asked for, and the outcome. Everything here happens under one
//! lock and never waits; the answer waits afterwards, until the ledger is on disk.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use time::OffsetDateTime;

use super::{
    Api, SimulatorArgs,
    cards::{Card, Cards},
    ledger::{Failure, Ledger, Row, State},
};

/// Added to a card's amount by the fault that credits another one.
const WRONG_BY_MINOR: i64 = 100;

/// A request for a redemption, without its code.
pub(super) struct Asked {
    pub(super) key: String,
    pub(super) payload_sha256: String,
    pub(super) code_sha256: String,
    pub(super) account_ref: String,
    pub(super) expected_currency: Option<String>,
    /// How much of the card is taken, in minor units. `None`: all of it.
    pub(super) amount_minor: Option<i64>,
    pub(super) not_after: Option<OffsetDateTime>,
    /// The provider's own name for it. `None`: made from the row's number.
    pub(super) provider_ref: Option<String>,
    /// See [`Row::extra`].
    pub(super) extra: BTreeMap<String, String>,
}

/// How a new redemption is executed.
#[derive(Clone, Copy, Default)]
pub(super) struct How {
    /// Begin it only; [`Book::finish`] does the rest.
    pub(super) slowly: bool,
    /// Credit another amount than the card's.
    pub(super) wrong_amount: bool,
    /// Refuse it, with this failure code.
    pub(super) refused: Option<&'static str>,
}

/// What a key that comes again gets.
#[derive(Clone, Copy)]
enum Repeats {
    /// The first outcome.
    Replayed,
    /// An error, until so long after the first request. Then it counts as new.
    Refused { within: Duration },
    /// Whatever a new one would get, unless it was cancelled.
    Executed,
}

impl Repeats {
    fn of(args: &SimulatorArgs) -> Self {
        match args.api {
            _ if !args.deduplicates => Self::Executed,
            Api::Fiserv => Self::Refused { within: args.duplicate_window },
            Api::Holdfast | Api::Task | Api::Square => Self::Replayed,
        }
    }
}

/// One execution of a key, and the number of the ledger's row that says how it stands, counted from 1.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) row: Row,
    pub(super) number: u64,
    /// When the key was first seen.
    pub(super) since: OffsetDateTime,
    /// When this execution began.
    begun: OffsetDateTime,
}

/// A card as it stands now.
pub(super) struct Standing {
    pub(super) card: Card,
    /// Whether nothing of it was taken.
    pub(super) is_whole: bool,
    /// What is left of it.
    pub(super) left_minor: i64,
}

/// What an execution took from a card.
struct Taken {
    key: String,
    provider_ref: String,
    amount_minor: i64,
}

/// What came of asking.
pub(super) enum Submitted {
    /// A redemption that was not there before.
    New(Entry),
    /// One that was, or that is refused because it was.
    Repeated(Entry),
    /// The key is there with another payload.
    Reused,
}

/// Where a completion stands among all: its time, and its row's number.
pub(super) type Position = (OffsetDateTime, u64);

/// See the module.
pub(super) struct Book {
    ledger: Arc<Ledger>,
    cards: Cards,
    currency: String,
    invalid_accounts: HashSet<String>,
    repeats: Repeats,
    /// The executions of a key, oldest first.
    entries: HashMap<String, Vec<Entry>>,
    /// What was taken from a card, by the hash of its code.
    taken: HashMap<String, Vec<Taken>>,
    balances: HashMap<String, i64>,
    completed: BTreeMap<Position, String>,
    /// The key of each execution, and its index among those of the key, by the number of its first row.
    begun: BTreeMap<u64, (String, usize)>,
    rows: u64,
    /// The time of the last row. Times never go back, so that pages stay in order.
    last: OffsetDateTime,
}

impl Book {
    pub(super) fn open(
        args: &SimulatorArgs,
        ledger: Arc<Ledger>,
        rows: Vec<Row>,
    ) -> anyhow::Result<Self> {
        let mut book = Self {
            ledger,
            cards: Cards::open(args)?,
            currency: args.currency.clone(),
            repeats: Repeats::of(args),
            invalid_accounts: args.invalid_accounts.iter().cloned().collect(),
            entries: HashMap::new(),
            taken: HashMap::new(),
            balances: HashMap::new(),
            completed: BTreeMap::new(),
            begun: BTreeMap::new(),
            rows: 0,
            last: OffsetDateTime::UNIX_EPOCH,
        };
        for row in rows {
            book.apply(row);
        }
        Ok(book)
    }

    /// How many rows there are: an answer that draws on all of them waits for the last.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Begins a redemption, or finds it.
    pub(super) fn submit(&mut self, asked: Asked, how: How) -> Submitted {
        let at = self.now();
        if let Some(entry) = self.latest(&asked.key) {
            let cancelled = entry.row.state == State::Cancelled;
            let same = entry.row.payload_sha256.as_ref() == Some(&asked.payload_sha256);
            match self.repeats {
                Repeats::Refused { within } if at < entry.begun + within => {
                    return Submitted::Repeated(entry.clone());
                }
                // A tombstone answers every payload: it may have been laid before any was seen.
                Repeats::Replayed | Repeats::Executed if cancelled => {
                    return Submitted::Repeated(entry.clone());
                }
                Repeats::Replayed if same => return Submitted::Repeated(entry.clone()),
                Repeats::Replayed => return Submitted::Reused,
                Repeats::Refused { .. } | Repeats::Executed => {}
            }
        }
        let judged = match how.refused {
            Some(code) => Err(refusal(code, "the account was refused", false)),
            None => self.judge(&asked, at),
        };
        let mut row = Row {
            key: asked.key,
            state: State::Failed,
            at,
            payload_sha256: Some(asked.payload_sha256),
            code_sha256: Some(asked.code_sha256),
            account_ref: Some(asked.account_ref),
            provider_ref: asked.provider_ref.unwrap_or_else(|| self.next_ref()),
            amount_minor: 0,
            currency_code: self.currency.clone(),
            balance_minor: None,
            failure: None,
            extra: asked.extra,
        };
        match judged {
            Err(failure) => row.failure = Some(failure),
            Ok(card) => {
                let wrong_by = if how.wrong_amount { WRONG_BY_MINOR } else { 0 };
                row.amount_minor = asked.amount_minor.unwrap_or(card.amount_minor) + wrong_by;
                row.currency_code = card.currency_code;
                row.state = State::Processing;
                if !how.slowly {
                    self.credit(&mut row);
                }
            }
        }
        Submitted::New(self.record(row))
    }

    /// Ends a redemption that was begun slowly, unless something else ended it.
    pub(super) fn finish(&mut self, key: &str, provider_ref: &str) {
        let is_it = |entry: &&Entry| entry.row.provider_ref == provider_ref;
        let Some(entry) = self.all(key).iter().find(is_it) else { return };
        if entry.row.state == State::Processing {
            let mut row = entry.row.clone();
            row.at = self.now();
            self.credit(&mut row);
            self.record(row);
        }
    }

    /// Sees to it that the key never succeeds, unless it did. Gives what is known of it then.
    pub(super) fn cancel(&mut self, key: &str) -> Entry {
        let mut row = match self.latest(key) {
            Some(entry) if entry.row.state != State::Processing => return entry.clone(),
            Some(entry) => entry.row.clone(),
            None => self.tombstone(key),
        };
        row.at = self.now();
        row.state = State::Cancelled;
        row.amount_minor = 0;
        self.record(row)
    }

    /// Takes back what a key was credited, if it was. Gives what is known of it then.
    pub(super) fn reverse(&mut self, key: &str) -> Option<Entry> {
        let is_credited = |entry: &&Entry| entry.row.state == State::Succeeded;
        let Some(entry) = self.all(key).iter().rfind(is_credited) else { return self.get(key) };
        let mut row = entry.row.clone();
        row.at = self.now();
        row.state = State::Cancelled;
        row.balance_minor = Some(self.balance(&row).saturating_sub(row.amount_minor));
        row.amount_minor = 0;
        Some(self.record(row))
    }

    /// What is known of a key.
    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        self.latest(key).cloned()
    }

    /// Every execution of a key, oldest first.
    pub(super) fn all(&self, key: &str) -> &[Entry] {
        self.entries.get(key).map_or(&[], Vec::as_slice)
    }

    fn latest(&self, key: &str) -> Option<&Entry> {
        self.all(key).last()
    }

    /// What is under way.
    pub(super) fn processing(&self) -> Vec<Row> {
        let under_way = |entry: &&Entry| entry.row.state == State::Processing;
        self.entries.values().flatten().filter(under_way).map(|entry| entry.row.clone()).collect()
    }

    /// A card as it stands now.
    pub(super) fn inquire(&self, code_sha256: &str) -> Option<Standing> {
        let card = self.cards.get(code_sha256)?.clone();
        let taken = self.taken_from(code_sha256);
        let is_whole = !card.used && taken.is_empty();
        let gone: i64 = taken.iter().map(|taken| taken.amount_minor).sum();
        let left_minor = if card.used { 0 } else { (card.amount_minor - gone).max(0) };
        Some(Standing { card, is_whole, left_minor })
    }

    fn taken_from(&self, code_sha256: &str) -> &[Taken] {
        self.taken.get(code_sha256).map_or(&[], Vec::as_slice)
    }

    /// Executions that `wanted` accepts, the newest first, begun before the row `before`, at most `limit`.
    pub(super) fn newest(
        &self,
        before: Option<u64>,
        limit: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Vec<(u64, Entry)> {
        let all = self.begun.range(..before.unwrap_or(u64::MAX)).rev();
        all.filter_map(|(number, (key, index))| Some((*number, self.all(key).get(*index)?.clone())))
            .filter(|(_, entry)| wanted(entry))
            .take(limit)
            .collect()
    }

    /// What was completed from `from` until before `to`, in order, past `after`, at most `limit`.
    pub(super) fn list(
        &self,
        from: OffsetDateTime,
        to: OffsetDateTime,
        after: Option<Position>,
        limit: usize,
    ) -> Vec<Entry> {
        let start = after.map_or(Bound::Included((from, 0)), |position| {
            Bound::Excluded(position.max((from, 0)))
        });
        self.completed
            .range((start, Bound::Unbounded))
            .take_while(|((at, _), _)| *at < to)
            .take(limit)
            .filter_map(|(_, key)| self.get(key))
            .collect()
    }

    /// Whether the request may be executed, and what it is worth then.
    fn judge(&self, asked: &Asked, now: OffsetDateTime) -> Result<Card, Failure> {
        if asked.not_after.is_some_and(|not_after| now > not_after) {
            return Err(refusal("NOT_AFTER_PASSED", "it came after its not_after", false));
        }
        if self.invalid_accounts.contains(&asked.account_ref) {
            return Err(refusal("ACCOUNT_LOGIN_INVALID", "the account's login was refused", false));
        }
        let Some(Standing { card, is_whole, left_minor }) = self.inquire(&asked.code_sha256) else {
            return Err(refusal("CODE_UNKNOWN", "there is no such card", false));
        };
        // Careless: the same key redeems the card a second time.
        let taken = self.taken_from(&asked.code_sha256);
        let again = matches!(self.repeats, Repeats::Executed)
            && !taken.is_empty()
            && taken.iter().all(|taken| taken.key == asked.key);
        match asked.amount_minor {
            _ if again => {}
            None if is_whole => {}
            Some(amount) if amount <= left_minor => {}
            Some(_) if left_minor > 0 => {
                return Err(refusal("INSUFFICIENT_FUNDS", "not enough is left on the card", false));
            }
            _ => return Err(refusal("CODE_USED", "the card was redeemed before", true)),
        }
        if asked.expected_currency.as_ref().is_some_and(|wanted| *wanted != card.currency_code) {
            return Err(refusal("CURRENCY_NOT_ACCEPTED", "the card has another currency", false));
        }
        Ok(card)
    }

    fn credit(&self, row: &mut Row) {
        row.balance_minor = Some(self.balance(row).saturating_add(row.amount_minor));
        row.state = State::Succeeded;
    }

    /// What the row's account has.
    fn balance(&self, row: &Row) -> i64 {
        let account_ref = row.account_ref.as_deref().unwrap_or_default();
        self.balances.get(account_ref).copied().unwrap_or(0)
    }

    fn tombstone(&self, key: &str) -> Row {
        Row {
            key: key.to_owned(),
            state: State::Cancelled,
            at: self.now(),
            payload_sha256: None,
            code_sha256: None,
            account_ref: None,
            provider_ref: self.next_ref(),
            amount_minor: 0,
            currency_code: self.currency.clone(),
            balance_minor: None,
            failure: None,
            extra: BTreeMap::new(),
        }
    }

    fn next_ref(&self) -> String {
        format!("sim-{}", self.rows + 1)
    }

    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc().max(self.last)
    }

    fn record(&mut self, row: Row) -> Entry {
        self.ledger.append(&row);
        self.apply(row)
    }

    fn apply(&mut self, row: Row) -> Entry {
        self.rows += 1;
        self.last = self.last.max(row.at);
        self.take(&row);
        if let (Some(account_ref), Some(balance)) = (&row.account_ref, row.balance_minor) {
            self.balances.insert(account_ref.clone(), balance);
        }
        if row.state != State::Processing {
            self.completed.insert((row.at, self.rows), row.key.clone());
        }
        let all = self.entries.entry(row.key.clone()).or_default();
        let since = all.first().map_or(row.at, |first| first.since);
        let mut entry = Entry { begun: row.at, since, number: self.rows, row };
        match all.iter_mut().find(|before| before.row.provider_ref == entry.row.provider_ref) {
            Some(before) => {
                entry.begun = before.begun;
                before.clone_from(&entry);
            }
            None => {
                self.begun.insert(self.rows, (entry.row.key.clone(), all.len()));
                all.push(entry.clone());
            }
        }
        entry
    }

    /// Notes what the row takes from its card. A cancelled redemption gives it back; a refused one never had it.
    fn take(&mut self, row: &Row) {
        let Some(code) = &row.code_sha256 else { return };
        let taken = self.taken.entry(code.clone()).or_default();
        taken.retain(|taken| taken.provider_ref != row.provider_ref);
        if matches!(row.state, State::Processing | State::Succeeded) {
            taken.push(Taken {
                key: row.key.clone(),
                provider_ref: row.provider_ref.clone(),
                amount_minor: row.amount_minor,
            });
        }
        if taken.is_empty() {
            self.taken.remove(code);
        }
    }
}

fn refusal(code: &str, message: &str, code_spent: bool) -> Failure {
    Failure { code: code.to_owned(), message: message.to_owned(), code_spent }
}
