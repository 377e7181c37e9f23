//! What the model of the swap consists of: the database, its backup, and what the servers remember.

pub(super) const SERVERS: usize = 2;
pub(super) const ACCOUNTS: usize = 2;

/// The id of a change.
pub(super) type ChangeId = usize;
/// The change that created an account. Those of servers follow.
pub(super) const CREATED: ChangeId = 0;
/// A person's change, before a restore and after it.
pub(super) const BY_HAND: [ChangeId; 2] = [101, 102];

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) database: Database,
    pub(super) backup: Backup,
    pub(super) servers: [Server; SERVERS],
    /// How often replies may still be lost.
    pub(super) faults_left: usize,
    /// How often the pool may still be paused, or go on.
    pub(super) pauses_left: usize,
    pub(super) broken: Broken,
}

/// What was broken at a step, and cannot be seen in a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Broken {
    /// A server ended a lease that is not its request's.
    pub(super) lease_of_another: bool,
    /// A lease began while the pool was paused.
    pub(super) pause: bool,
    /// A caller was told what is not so.
    pub(super) told: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Database {
    pub(super) rows: [Row; ACCOUNTS],
    /// Which change made each version of each account: their events.
    pub(super) events: [Vec<ChangeId>; ACCOUNTS],
    pub(super) terms: Terms,
    /// What a person wrote, as its row should have it.
    pub(super) notes: [bool; ACCOUNTS],
}

/// An account's row, which is always written as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub(super) version: usize,
    pub(super) change: ChangeId,
    /// The request that has it under a lease.
    pub(super) lease: Option<usize>,
    /// What a person wrote into it.
    pub(super) note: bool,
}

/// The pool's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Terms {
    pub(super) revision: usize,
    pub(super) paused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Backup {
    None,
    Made(Box<Database>),
    Restored,
}

/// A server, with the one call that it is at work on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    pub(super) call: Call,
    /// What it remembers of the account that the call is about.
    pub(super) seen: Option<Seen>,
    /// What it remembers of the pool, and whether it was read since the call came.
    pub(super) terms: Option<Terms>,
    pub(super) terms_are_fresh: bool,
    /// A change was written, and no reply came.
    pub(super) is_unanswered: bool,
    /// A statement that nobody waits for any more, and that may still commit.
    pub(super) late: Option<Statement>,
    /// Its release was committed while it waited for the reply. One that commits late is found at the next try to
    /// have ended the lease before, which is told as done, too.
    pub(super) has_released: bool,
}

/// What a caller wants. After its lease's end a server has done everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Call {
    Acquire,
    Release,
    Done,
}

/// An account as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    pub(super) account: usize,
    pub(super) row: Row,
    /// It was read since the call came.
    pub(super) is_fresh: bool,
}

/// A decided change, on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Statement {
    pub(super) server: usize,
    pub(super) account: usize,
    pub(super) seen: Row,
    pub(super) revision: usize,
    pub(super) change: ChangeId,
    pub(super) lease: Option<usize>,
}

impl World {
    pub(super) fn new() -> Self {
        let row = Row { version: 1, change: CREATED, lease: None, note: false };
        let server = Server {
            call: Call::Acquire,
            seen: None,
            terms: None,
            terms_are_fresh: false,
            is_unanswered: false,
            late: None,
            has_released: false,
        };
        Self {
            database: Database {
                rows: [row; ACCOUNTS],
                events: std::array::from_fn(|_| vec![CREATED]),
                terms: Terms { revision: 1, paused: false },
                notes: [false; ACCOUNTS],
            },
            backup: Backup::None,
            servers: [server.clone(), server],
            faults_left: 1,
            pauses_left: 2,
            broken: Broken::default(),
        }
    }
}
