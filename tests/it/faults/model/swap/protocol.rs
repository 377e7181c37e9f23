//! What happens: choosing, deciding, the swap, and what goes wrong.

use stateright::{Model, Property};

use super::{
    Rules,
    world::{
        ACCOUNTS, BY_HAND, Backup, Call, Database, Row, SERVERS, Seen, Server, Statement, World,
    },
};

pub(super) const CHANGES_ARE_KEPT: &str = "what a person wrote is kept";
pub(super) const LEASES_ARE_KEPT: &str = "a lease is ended by its own request alone";
pub(super) const ONE_LEASE_A_REQUEST: &str = "a request has one lease";
pub(super) const PAUSES_HOLD: &str = "no lease begins in a paused pool";
pub(super) const TOLD_IS_SO: &str = "callers are told what is so";

type Named = (&'static str, fn(&Protocol, &World) -> bool);

/// What must never be otherwise.
pub(super) const ALWAYS: [Named; 5] = [
    (CHANGES_ARE_KEPT, |_, world| world.database.rows.map(|row| row.note) == world.database.notes),
    (LEASES_ARE_KEPT, |_, world| !world.broken.lease_of_another),
    (ONE_LEASE_A_REQUEST, |_, world| {
        let [one, other] = world.database.rows;
        one.lease.is_none() || one.lease != other.lease
    }),
    (PAUSES_HOLD, |_, world| !world.broken.pause),
    (TOLD_IS_SO, |_, world| !world.broken.told),
];

/// What must be possible: where it is not, the model looks at less than it seems to.
pub(super) const SOMETIMES: [Named; 5] = [
    ("everything is over", |_, world| {
        world.servers.iter().all(|server| server.call == Call::Done)
            && world.database.rows.iter().all(|row| row.lease.is_none())
    }),
    ("a server is about to lose a race", |_, world| {
        world.servers.iter().any(|server| server.call == Call::Acquire && is_behind(world, server))
    }),
    ("a lease is about to be released by an account that is older than it is", |_, world| {
        world.servers.iter().any(|server| server.call == Call::Release && is_behind(world, server))
    }),
    ("a version is there again, made by another change", |_, world| {
        world.servers.iter().filter_map(|server| server.seen).any(|seen| {
            let row = world.database.rows[seen.account];
            row.version == seen.row.version && row.change != seen.row.change
        })
    }),
    ("a statement commits when its server has stopped waiting for it", |_, world| {
        world.servers.iter().any(|server| {
            server.late.is_some_and(|late| world.database.rows[late.account] == late.seen)
                && !server.is_unanswered
        })
    }),
];

fn is_behind(world: &World, server: &Server) -> bool {
    server.seen.is_some_and(|seen| world.database.rows[seen.account] != seen.row)
}

/// The protocol, and the request that each server is asked for.
#[derive(Clone, Debug)]
pub(super) struct Protocol {
    pub(super) rules: Rules,
    pub(super) requests: [usize; SERVERS],
}

/// A step. The first number is the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Reads which account is free, or has the request's lease already.
    Choose(usize, usize),
    /// Reads what it needs to decide and does not know.
    Read(usize),
    /// Decides, writes, and hears what became of it.
    Write(usize),
    /// A fault: it is committed, and the reply is lost.
    WriteUnanswered(usize),
    /// A fault: the connection is lost, and the statement may still commit.
    WriteLate(usize),
    CommitLate(usize),
    /// Looks for the change whose reply was lost.
    Find(usize),
    /// A person writes into an account.
    ChangeByHand,
    PauseOrResume,
    BackUp,
    /// What was committed since the backup is lost.
    Restore,
}

/// What was decided.
enum Decided {
    Change(Statement),
    Refused { is_fresh: bool, is_so: bool },
}

impl Protocol {
    fn server_steps(&self, world: &World, number: usize, steps: &mut Vec<Step>) {
        let server = &world.servers[number];
        if server.late.is_some() {
            steps.push(Step::CommitLate(number));
        }
        if server.is_unanswered {
            steps.push(Step::Find(number));
            return;
        }
        match (server.call, server.seen, server.terms) {
            (Call::Done, ..) => {}
            (Call::Acquire, None, _) => {
                let free = |account: &usize| {
                    let row = world.database.rows[*account];
                    row.lease.is_none() && !world.database.terms.paused
                        || row.lease == Some(self.requests[number])
                };
                steps.extend(
                    (0..ACCOUNTS).filter(free).map(|account| Step::Choose(number, account)),
                );
            }
            (_, None, _) | (_, _, None) => steps.push(Step::Read(number)),
            (_, Some(_), Some(_)) => {
                steps.push(Step::Write(number));
                if world.faults_left > 0 {
                    steps.extend([Step::WriteUnanswered(number), Step::WriteLate(number)]);
                }
            }
        }
    }

    /// The ready set.
    fn choose(&self, world: &mut World, number: usize, account: usize) {
        let row = world.database.rows[account];
        let request = Some(self.requests[number]);
        let own = world.database.rows.iter().position(|row| row.lease == request);
        let server = &mut world.servers[number];
        match own.filter(|_| self.rules.leases_of_requests_are_found) {
            Some(own) => {
                let row = world.database.rows[own];
                begin_release(server, Seen { account: own, row, is_fresh: false });
            }
            None if row.lease.is_none() => {
                server.seen = Some(Seen { account, row, is_fresh: false });
            }
            None => {}
        }
    }

    /// `read_accounts.sql`, `get_terms.sql`.
    fn read(world: &mut World, number: usize) {
        let server = &mut world.servers[number];
        if server.terms.is_none() {
            server.terms = Some(world.database.terms);
            // Only who wants a lease is refused by them.
            server.terms_are_fresh = server.call == Call::Acquire;
        }
        // The account is forgotten only while its lease is to be released.
        if let Some(seen) = server.seen.as_mut().filter(|seen| seen.row.version == FORGOTTEN) {
            seen.row = world.database.rows[seen.account];
            seen.is_fresh = true;
        }
    }

    /// `domain/account.rs`.
    fn decide(&self, world: &World, number: usize) -> Option<Decided> {
        let server = &world.servers[number];
        let (seen, terms) = (server.seen?, server.terms?);
        let own = Some(self.requests[number]);
        let statement = |lease| Statement {
            server: number,
            account: seen.account,
            seen: seen.row,
            revision: terms.revision,
            change: change_id(number, server.call, seen.account),
            lease,
        };
        Some(match server.call {
            Call::Acquire if terms.paused => Decided::Refused {
                is_fresh: server.terms_are_fresh,
                is_so: world.database.terms.paused,
            },
            Call::Release if seen.row.lease != own => Decided::Refused {
                is_fresh: seen.is_fresh,
                is_so: world.database.rows[seen.account].lease != own && !server.has_released,
            },
            Call::Acquire => Decided::Change(statement(own)),
            _ => Decided::Change(statement(None)),
        })
    }

    fn write(&self, world: &mut World, number: usize) {
        match self.decide(world, number) {
            Some(Decided::Change(statement)) => {
                let won = self.commit(world, statement);
                world.servers[number].has_released |= won && statement.lease.is_none();
                if won || !self.rules.winners_alone_are_told {
                    self.won(world, statement);
                } else {
                    self.lost(&mut world.servers[number]);
                }
            }
            Some(Decided::Refused { is_fresh, is_so }) => {
                let server = &mut world.servers[number];
                if self.rules.refusals_are_fresh && !is_fresh {
                    self.lost(server);
                    return;
                }
                world.broken.told |= !is_so && (!is_fresh || server.has_released);
                // Who asked for an account asks again, in another call.
                match server.call {
                    Call::Acquire => (server.seen, server.terms_are_fresh) = (None, false),
                    _ => end(server),
                }
            }
            None => {}
        }
    }

    /// `apply.sql`: whether the change was written.
    fn commit(&self, world: &mut World, statement: Statement) -> bool {
        let rules = self.rules;
        let database = &mut world.database;
        let Statement { account, seen, lease, .. } = statement;
        let is_taken = rules.one_lease_a_request
            && lease.is_some()
            && (0..ACCOUNTS).any(|other| other != account && database.rows[other].lease == lease);
        if is_taken || !self.is_current(database, statement) {
            return false;
        }
        let row = &mut database.rows[account];
        let own = Some(self.requests[statement.server]);
        world.broken.lease_of_another |= row.lease.is_some() && row.lease != own;
        world.broken.pause |= lease.is_some() && database.terms.paused;
        let change = statement.change;
        *row = Row { version: row.version + 1, change, lease, note: seen.note };
        database.events[account].push(change);
        true
    }

    /// Whether what a change was decided from is still so. Where it is not, it never is again.
    fn is_current(&self, database: &Database, statement: Statement) -> bool {
        let (rules, seen) = (self.rules, statement.seen);
        let row = database.rows[statement.account];
        let is_same = row.version == seen.version
            && (row.change == seen.change || !rules.change_id_is_compared);
        let is_of_these_terms = statement.revision == database.terms.revision;
        (is_same || !rules.version_is_compared)
            && (is_of_these_terms || !rules.revision_is_compared)
    }

    /// Tells the caller, who was answered that its change was written.
    fn won(&self, world: &mut World, statement: Statement) {
        let row = world.database.rows[statement.account];
        let server = &mut world.servers[statement.server];
        if server.call == Call::Acquire {
            world.broken.told |= row.lease != statement.lease;
            begin_release(server, Seen { account: statement.account, row, is_fresh: false });
        } else {
            world.broken.told |= !server.has_released;
            end(server);
        }
    }

    /// A claim is lost: another account is chosen. For anything else the account is read again.
    fn lost(&self, server: &mut Server) {
        server.terms = None;
        if server.call == Call::Acquire {
            server.seen = None;
        } else if let Some(seen) = &mut server.seen {
            seen.row.version = FORGOTTEN;
        }
    }

    /// `own_changes.sql`. What is nobody's change is written once more.
    fn find(&self, world: &mut World, number: usize) {
        let server = &mut world.servers[number];
        server.is_unanswered = false;
        let Some(seen) = server.seen.filter(|_| self.rules.lost_replies_are_found) else { return };
        let made = world.database.events[seen.account].get(seen.row.version);
        if made != Some(&change_id(number, server.call, seen.account)) {
            return;
        }
        let row = world.database.rows[seen.account];
        match server.call {
            Call::Acquire if row.lease != Some(self.requests[number]) => self.lost(server),
            Call::Acquire => begin_release(server, Seen { row, is_fresh: false, ..seen }),
            _ => end(server),
        }
    }
}

/// In the stead of a version that is remembered: the account is to be read.
const FORGOTTEN: usize = 0;

/// The id of a change, however often it is tried.
fn change_id(server: usize, call: Call, account: usize) -> usize {
    1 + 4 * server + 2 * usize::from(call == Call::Release) + account
}

/// The caller has its lease, and releases it.
fn begin_release(server: &mut Server, seen: Seen) {
    (server.call, server.seen, server.terms_are_fresh) = (Call::Release, Some(seen), false);
}

/// The caller has done everything. What the server remembers matters to nobody.
fn end(server: &mut Server) {
    (server.call, server.seen, server.terms) = (Call::Done, None, None);
    server.has_released = false;
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for number in 0..SERVERS {
            self.server_steps(world, number, steps);
        }
        if world.database.events[0].iter().all(|change| !BY_HAND.contains(change)) {
            steps.push(Step::ChangeByHand);
        }
        if world.pauses_left > 0 {
            steps.push(Step::PauseOrResume);
        }
        match world.backup {
            Backup::None => steps.push(Step::BackUp),
            Backup::Made(_) => steps.push(Step::Restore),
            Backup::Restored => {}
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        match step {
            Step::Choose(server, account) => self.choose(&mut world, server, account),
            Step::Read(server) => Self::read(&mut world, server),
            Step::Write(server) => self.write(&mut world, server),
            Step::WriteUnanswered(server) | Step::WriteLate(server) => {
                let Some(Decided::Change(statement)) = self.decide(&world, server) else {
                    return None;
                };
                world.faults_left -= 1;
                world.servers[server].is_unanswered = true;
                if step == Step::WriteLate(server) {
                    world.servers[server].late = Some(statement);
                } else {
                    let won = self.commit(&mut world, statement);
                    world.servers[server].has_released |= won && statement.lease.is_none();
                }
            }
            Step::CommitLate(server) => {
                let statement = world.servers[server].late.take()?;
                self.commit(&mut world, statement);
            }
            Step::Find(server) => self.find(&mut world, server),
            Step::ChangeByHand => {
                let change = BY_HAND[usize::from(world.backup == Backup::Restored)];
                let row = &mut world.database.rows[0];
                *row = Row { version: row.version + 1, change, note: true, ..*row };
                world.database.events[0].push(change);
                world.database.notes[0] = true;
            }
            Step::PauseOrResume => {
                let terms = &mut world.database.terms;
                (terms.revision, terms.paused) = (terms.revision + 1, !terms.paused);
                world.pauses_left -= 1;
            }
            Step::BackUp => world.backup = Backup::Made(Box::new(world.database.clone())),
            Step::Restore => {
                let Backup::Made(database) = &world.backup else { return None };
                world.database = database.as_ref().clone();
                world.backup = Backup::Restored;
                for server in &mut world.servers {
                    (server.late, server.has_released) = (None, false);
                }
            }
        }
        // What cannot commit any more is as good as lost.
        for server in &mut world.servers {
            server.late = server.late.filter(|late| self.is_current(&world.database, *late));
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always = ALWAYS.iter().map(|(name, holds)| Property::always(name, *holds));
        let sometimes = SOMETIMES.iter().map(|(name, holds)| Property::sometimes(name, *holds));
        always.chain(sometimes).collect()
    }
}
