//! The provider's book and rules: what was asked for, and the outcome. Everything here happens under one
//! lock and never waits; the answer waits afterwards, until the ledger is on disk.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use time::OffsetDateTime;

use super::{
    SimulatorArgs,
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
    pub(super) not_after: OffsetDateTime,
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

/// What is known of a key, and the number of the ledger's row that says so, counted from 1.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) row: Row,
    pub(super) number: u64,
    /// When the key was first seen.
    pub(super) since: OffsetDateTime,
}

/// What came of asking.
pub(super) enum Submitted {
    /// A redemption that was not there before.
    New(Entry),
    /// One that was.
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
    deduplicates: bool,
    entries: HashMap<String, Entry>,
    /// The key that a card went to, by the hash of its code.
    taken: HashMap<String, String>,
    balances: HashMap<String, i64>,
    completed: BTreeMap<Position, String>,
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
            deduplicates: args.deduplicates,
            invalid_accounts: args.invalid_accounts.iter().cloned().collect(),
            entries: HashMap::new(),
            taken: HashMap::new(),
            balances: HashMap::new(),
            completed: BTreeMap::new(),
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
        if let Some(entry) = self.entries.get(&asked.key)
            && (self.deduplicates || entry.row.state == State::Cancelled)
        {
            let same = entry.row.payload_sha256.as_ref() == Some(&asked.payload_sha256);
            // A tombstone answers every payload: it may have been laid before any was seen.
            return if same || entry.row.state == State::Cancelled {
                Submitted::Repeated(entry.clone())
            } else {
                Submitted::Reused
            };
        }
        let at = self.now();
        let judged = match how.refused {
            Some(code) => Err(refusal(code, "a fault of the account's", false)),
            None => self.judge(&asked, at),
        };
        let mut row = Row {
            key: asked.key,
            state: State::Failed,
            at,
            payload_sha256: Some(asked.payload_sha256),
            code_sha256: Some(asked.code_sha256),
            account_ref: Some(asked.account_ref),
            provider_ref: format!("sim-{}", self.rows + 1),
            amount_minor: 0,
            currency_code: self.currency.clone(),
            balance_minor: None,
            failure: None,
        };
        match judged {
            Err(failure) => row.failure = Some(failure),
            Ok(card) => {
                let wrong_by = if how.wrong_amount { WRONG_BY_MINOR } else { 0 };
                row.amount_minor = card.amount_minor + wrong_by;
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
    pub(super) fn finish(&mut self, key: &str) {
        let Some(mut row) = self.entries.get(key).map(|entry| entry.row.clone()) else { return };
        if row.state == State::Processing {
            row.at = self.now();
            self.credit(&mut row);
            self.record(row);
        }
    }

    /// Sees to it that the key never succeeds, unless it did. Gives what is known of it then.
    pub(super) fn cancel(&mut self, key: &str) -> Entry {
        let mut row = match self.entries.get(key) {
            Some(entry) if entry.row.state != State::Processing => return entry.clone(),
            Some(entry) => entry.row.clone(),
            None => self.tombstone(key),
        };
        row.at = self.now();
        row.state = State::Cancelled;
        row.amount_minor = 0;
        self.record(row)
    }

    /// What is known of a key.
    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        self.entries.get(key).cloned()
    }

    /// The keys that are under way.
    pub(super) fn processing(&self) -> Vec<String> {
        let under_way = |entry: &&Entry| entry.row.state == State::Processing;
        self.entries.values().filter(under_way).map(|entry| entry.row.key.clone()).collect()
    }

    /// A card, and whether it could be redeemed now.
    pub(super) fn inquire(&self, code_sha256: &str) -> Option<(Card, bool)> {
        let card = self.cards.get(code_sha256)?;
        Some((card.clone(), !card.used && !self.taken.contains_key(code_sha256)))
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
        if now > asked.not_after {
            return Err(refusal("NOT_AFTER_PASSED", "it came after its not_after", false));
        }
        if self.invalid_accounts.contains(&asked.account_ref) {
            return Err(refusal("ACCOUNT_LOGIN_INVALID", "the account's login was refused", false));
        }
        let Some((card, redeemable)) = self.inquire(&asked.code_sha256) else {
            return Err(refusal("CODE_UNKNOWN", "there is no such card", false));
        };
        // Careless: the same key redeems the card a second time.
        let again = !self.deduplicates && self.taken.get(&asked.code_sha256) == Some(&asked.key);
        if !redeemable && !again {
            return Err(refusal("CODE_USED", "the card was redeemed before", true));
        }
        if asked.expected_currency.as_ref().is_some_and(|wanted| *wanted != card.currency_code) {
            return Err(refusal("CURRENCY_NOT_ACCEPTED", "the card has another currency", false));
        }
        Ok(card)
    }

    fn credit(&self, row: &mut Row) {
        let account_ref = row.account_ref.as_deref().unwrap_or_default();
        let balance = self.balances.get(account_ref).copied().unwrap_or(0);
        row.balance_minor = Some(balance.saturating_add(row.amount_minor));
        row.state = State::Succeeded;
    }

    fn tombstone(&self, key: &str) -> Row {
        Row {
            key: key.to_owned(),
            state: State::Cancelled,
            at: self.now(),
            payload_sha256: None,
            code_sha256: None,
            account_ref: None,
            provider_ref: format!("sim-{}", self.rows + 1),
            amount_minor: 0,
            currency_code: self.currency.clone(),
            balance_minor: None,
            failure: None,
        }
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
        let key = row.key.clone();
        if let Some(code) = &row.code_sha256 {
            match row.state {
                State::Processing | State::Succeeded => {
                    self.taken.insert(code.clone(), key.clone());
                }
                // A cancelled redemption gives its card back; a refused one may never have had it.
                State::Failed | State::Cancelled => {
                    if self.taken.get(code) == Some(&key) {
                        self.taken.remove(code);
                    }
                }
            }
        }
        if let (Some(account_ref), Some(balance)) = (&row.account_ref, row.balance_minor) {
            self.balances.insert(account_ref.clone(), balance);
        }
        if row.state != State::Processing {
            self.completed.insert((row.at, self.rows), key.clone());
        }
        let since = self.entries.get(&key).map_or(row.at, |entry| entry.since);
        let entry = Entry { row, number: self.rows, since };
        self.entries.insert(key, entry.clone());
        entry
    }
}

fn refusal(code: &str, message: &str, code_spent: bool) -> Failure {
    Failure { code: code.to_owned(), message: message.to_owned(), code_spent }
}
