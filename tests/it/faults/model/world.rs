//! What the model's world consists of: the rows of the database, the wire, the provider's ledger, and
//! what the servers' tasks have in memory.

pub(super) type Account = usize;
pub(super) type Code = usize;
/// A redemption's id, which is also its idempotency key.
pub(super) type Key = usize;

pub(super) const SERVERS: usize = 2;
pub(super) const ACCOUNTS: usize = 2;
/// What the codes are worth: differently much, so that sums tell them apart.
pub(super) const WORTH: [u8; 2] = [1, 2];
/// The most redemptions.
pub(super) const KEYS: usize = 3;
/// A key that no redemption has. Only a broken rule sends it.
pub(super) const STRAY: Key = KEYS;

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) accounts: [AccountRow; ACCOUNTS],
    pub(super) redemptions: [Option<RedemptionRow>; KEYS],
    /// The requests that are on their way, by key. One that is may arrive at any time, any number of
    /// times, or be lost. Answers need no place: what the ledger says of a key is final, so an answer
    /// that comes late or twice is one that is heard late, or by two.
    pub(super) wire: [Option<Ask>; KEYS + 1],
    pub(super) ledger: [Entry; KEYS + 1],
    /// A key was credited for a second time.
    pub(super) credited_again: bool,
    /// The provider was asked about them by the ids of their tasks.
    pub(super) asked_by_task: [bool; KEYS],
    pub(super) redeemers: [Redeemer; SERVERS],
    /// In order, because it does not matter which is which.
    pub(super) reconcilers: [Reconciler; SERVERS],
    /// A step that was no fault did not lead on: things could go round for ever.
    pub(super) went_round: bool,
}

/// An account's row, as far as a lease needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct AccountRow {
    pub(super) token: u8,
    pub(super) locked: bool,
    /// The lease's time has passed.
    pub(super) run_out: bool,
    pub(super) release_requested: bool,
    pub(super) open: Option<Key>,
    pub(super) balance: u8,
}

/// A redemption's row. Its code follows from its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RedemptionRow {
    pub(super) account: Account,
    pub(super) token: u8,
    pub(super) state: State,
    /// How often it was settled.
    pub(super) settled: u8,
    /// The provider's id of its task is committed.
    pub(super) has_task: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    Submitted,
    InDoubt,
    /// A person's.
    Review,
    Succeeded,
    Failed,
}

impl State {
    pub(super) fn is_open(self) -> bool {
        matches!(self, State::Submitted | State::InDoubt | State::Review)
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ask {
    pub(super) account: Account,
    pub(super) code: Code,
}

/// What the provider has under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    NeverSeen,
    /// At work on it, as a task.
    Working(Ask),
    Credited(Ask),
    Refused,
    /// A tombstone: what arrives later is refused.
    Cancelled,
}

/// What a server's task has in memory of the wish that it is at work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Redeemer {
    /// How many wishes it has done with.
    pub(super) done: usize,
    pub(super) lease: Option<Lease>,
    pub(super) next: Next,
}

/// A lease, as its holder knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lease {
    pub(super) account: Account,
    pub(super) token: u8,
    /// Its time has passed. The holder need not have noticed.
    pub(super) run_out: bool,
}

/// What a redeemer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Next {
    Acquire,
    Begin,
    Send,
    Hear,
    /// Knows the id of the provider's task.
    KeepTask,
    /// Asks by that id.
    Poll,
    /// Nothing that it sent was executed: it gives up.
    GiveUp,
    Release,
}

/// What a reconciler does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Reconciler {
    LookUp,
    /// The provider had not seen the key when it was looked up.
    Climb(Key),
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            accounts: [AccountRow::default(); ACCOUNTS],
            redemptions: [None; KEYS],
            wire: [None; KEYS + 1],
            ledger: [Entry::NeverSeen; KEYS + 1],
            credited_again: false,
            asked_by_task: [false; KEYS],
            redeemers: [Redeemer { done: 0, lease: None, next: Next::Acquire }; SERVERS],
            reconcilers: [Reconciler::LookUp; SERVERS],
            went_round: false,
        }
    }

    pub(super) fn state(&self, key: Key) -> Option<State> {
        self.redemptions.get(key)?.map(|row| row.state)
    }

    pub(super) fn is_open(&self, key: Key) -> bool {
        self.state(key).is_some_and(State::is_open)
    }

    /// The provider has done with it.
    pub(super) fn is_final(&self, key: Key) -> bool {
        !matches!(self.ledger[key], Entry::NeverSeen | Entry::Working(_))
    }

    pub(super) fn is_credited(&self, key: Key) -> bool {
        matches!(self.ledger[key], Entry::Credited(_))
    }

    pub(super) fn balances(&self) -> [u8; ACCOUNTS] {
        self.accounts.map(|row| row.balance)
    }

    /// Makes one world of those that differ only in which account is which.
    pub(super) fn put_accounts_in_order(&mut self) {
        if self.accounts[0] <= self.accounts[1] {
            return;
        }
        self.accounts.swap(0, 1);
        let leased = self.redeemers.iter_mut().filter_map(|it| it.lease.as_mut());
        let begun = self.redemptions.iter_mut().flatten();
        let sent = self.wire.iter_mut().flatten();
        let credited = self.ledger.iter_mut().filter_map(|it| match it {
            Entry::Credited(ask) | Entry::Working(ask) => Some(ask),
            _ => None,
        });
        let known = leased.map(|it| &mut it.account).chain(begun.map(|it| &mut it.account));
        for account in known.chain(sent.chain(credited).map(|it| &mut it.account)) {
            *account = 1 - *account;
        }
    }

    /// A number that every step which is no fault makes smaller. So without more faults everything
    /// comes to an end.
    pub(super) fn distance(&self) -> usize {
        let mut distance = 0;
        for redeemer in &self.redeemers {
            let next = match redeemer.next {
                Next::Acquire => 900,
                Next::Begin => 800,
                Next::Send => 500,
                Next::Hear | Next::GiveUp => 400,
                Next::KeepTask => 380,
                Next::Poll => 360,
                Next::Release => 200,
            };
            distance += (KEYS - redeemer.done) * 1000 + next;
        }
        for row in &self.accounts {
            distance += usize::from(row.locked) + usize::from(row.locked && !row.run_out);
        }
        for key in 0..KEYS {
            distance += match self.state(key) {
                Some(State::Submitted | State::InDoubt) => 100,
                Some(State::Review) => 90,
                _ => 0,
            };
            distance += match (self.ledger[key], self.wire[key]) {
                (Entry::NeverSeen, None) => 12,
                (Entry::NeverSeen, Some(_)) => 10,
                (Entry::Working(_), _) => 5,
                _ => 0,
            };
        }
        for reconciler in self.reconcilers {
            distance += match reconciler {
                Reconciler::LookUp => 1,
                Reconciler::Climb(key) if self.ledger[key] == Entry::NeverSeen => 0,
                Reconciler::Climb(_) => 2,
            };
        }
        distance
    }
}
