//! What must always hold, and what must be possible.

use stateright::{Model as _, Property};

use super::{
    protocol::Protocol,
    world::{ACCOUNTS, Entry, KEYS, Key, Next, Reconciler, SERVERS, State, WORTH, World},
};

pub(super) const NO_CODE_IS_CREDITED_TWICE: &str = "no code is credited twice";
pub(super) const CREDITS_ARE_RECORDED: &str = "what is credited is recorded, and not as failed";
pub(super) const SUCCESSES_ARE_CREDITS: &str = "what succeeded was credited, to that account";
pub(super) const BALANCES_ARE_SUMS: &str = "a balance is the sum of what succeeded";
pub(super) const SETTLED_ONCE: &str = "a redemption is settled once";
pub(super) const LEASES_DO_NOT_OVERLAP: &str = "a lease that has not run out is its account's";
pub(super) const OPEN_KEEPS_THE_LOCK: &str =
    "an open redemption keeps its account locked under its own token";
pub(super) const STEPS_LEAD_ON: &str = "every step that is no fault leads on";
pub(super) const ALL_ENDS_WELL: &str =
    "where nothing is left to do everything is settled, released and equal";

pub(super) const TASKS_ARE_KEPT: &str = "what is asked about by its task has it on record";

pub(super) const EVERYTHING_CREDITED: &str = "everything is over and each code credited";
pub(super) const TWO_RECONCILERS: &str = "two reconcilers act on one redemption";
pub(super) const CANCELLED: &str = "a redemption is cancelled while the server that sent it waits";
pub(super) const SECOND_TRY: &str = "a code whose first redemption failed succeeds in another";
pub(super) const SETTLED_UNSENT: &str =
    "a redemption is settled before the server that began it has sent it";
/// What happens only to tasks.
pub(super) const OF_TASKS: [&str; 2] = [
    "a task whose id was lost is credited, and a person's",
    "a task is looked up although the server that was told its id crashed",
];

type Named = (&'static str, fn(&Protocol, &World) -> bool);

/// What must never be otherwise.
pub(super) const ALWAYS: [Named; 10] = [
    (NO_CODE_IS_CREDITED_TWICE, |_, world| {
        let mut credits = [0; WORTH.len()];
        for entry in &world.ledger {
            if let Entry::Credited(ask) = entry {
                credits[ask.code] += 1;
            }
        }
        credits.iter().all(|count| *count <= 1) && !world.credited_again
    }),
    (CREDITS_ARE_RECORDED, |_, world| {
        (0..world.ledger.len())
            .filter(|key| world.is_credited(*key))
            .all(|key| world.state(key).is_some_and(|state| state != State::Failed))
    }),
    (SUCCESSES_ARE_CREDITS, |protocol, world| {
        world.redemptions.iter().enumerate().all(|(key, row)| match (row, world.ledger[key]) {
            (Some(row), Entry::Credited(ask)) if row.state == State::Succeeded => {
                (ask.account, ask.code) == (row.account, protocol.code(key))
            }
            (row, _) => row.is_none_or(|row| row.state != State::Succeeded),
        })
    }),
    (BALANCES_ARE_SUMS, |protocol, world| {
        let mut sums = [0; ACCOUNTS];
        for (key, row) in world.redemptions.iter().enumerate() {
            if let Some(row) = row.filter(|row| row.state == State::Succeeded) {
                sums[row.account] += WORTH[protocol.code(key)];
            }
        }
        world.balances() == sums
    }),
    (SETTLED_ONCE, |_, world| {
        world.redemptions.iter().flatten().all(|row| row.settled == u8::from(!row.state.is_open()))
    }),
    (LEASES_DO_NOT_OVERLAP, |_, world| {
        world.redeemers.iter().filter_map(|redeemer| redeemer.lease).all(|lease| {
            let row = world.accounts[lease.account];
            lease.run_out || row.locked && row.token == lease.token
        })
    }),
    (OPEN_KEEPS_THE_LOCK, |_, world| {
        world.redemptions.iter().enumerate().all(|(key, redemption)| {
            redemption.filter(|redemption| redemption.state.is_open()).is_none_or(|redemption| {
                let row = world.accounts[redemption.account];
                row.locked && row.open == Some(key) && row.token == redemption.token
            })
        })
    }),
    (TASKS_ARE_KEPT, |_, world| {
        let is_kept = |key: Key| {
            world.redemptions[key].is_none_or(|row| row.has_task || !row.state.is_open())
        };
        (0..KEYS).all(|key| !world.asked_by_task[key] || is_kept(key))
    }),
    (STEPS_LEAD_ON, |_, world| !world.went_round),
    (ALL_ENDS_WELL, |protocol, world| !is_over(protocol, world) || ended_well(protocol, world)),
];

/// What must be possible: where it is not, the model looks at less than it seems to.
pub(super) const SOMETIMES: [Named; 11] = [
    (EVERYTHING_CREDITED, |protocol, world| {
        world.balances().iter().sum::<u8>() == WORTH.iter().sum::<u8>() && is_over(protocol, world)
    }),
    (
        "a redemption whose server crashed is credited, and still to be settled",
        |protocol, world| {
            (0..KEYS).any(|key| world.is_credited(key) && is_orphan(protocol, world, key))
        },
    ),
    (SETTLED_UNSENT, |protocol, world| {
        server_is(protocol, world, |key, next| next == Next::Send && is_settled(world, key))
    }),
    ("the answer comes when a takeover has already settled the success", |protocol, world| {
        server_is(protocol, world, |key, next| {
            next == Next::Hear && world.state(key) == Some(State::Succeeded)
        })
    }),
    (TWO_RECONCILERS, |_, world| {
        let [one, other] = world.reconcilers;
        one == other && matches!(one, Reconciler::Climb(_))
    }),
    (CANCELLED, |protocol, world| {
        server_is(protocol, world, |key, next| {
            next == Next::Hear
                && world.ledger[key] == Entry::Cancelled
                && world.state(key) == Some(State::Failed)
        })
    }),
    (SECOND_TRY, |protocol, world| {
        (0..KEYS).filter(|key| world.state(*key) == Some(State::Failed)).any(|failed| {
            (0..KEYS).any(|other| {
                world.state(other) == Some(State::Succeeded)
                    && protocol.code(other) == protocol.code(failed)
            })
        })
    }),
    ("a holder's account is another's meanwhile", |_, world| {
        world.redeemers.iter().filter_map(|redeemer| redeemer.lease).any(|lease| {
            let row = world.accounts[lease.account];
            row.locked && row.token != lease.token
        })
    }),
    ("a lease runs out while its redemption is open", |_, world| {
        world.accounts.iter().any(|row| row.run_out && row.open.is_some())
    }),
    (OF_TASKS[0], |_, world| {
        (0..KEYS).any(|key| {
            let is_lost = world.redemptions[key].is_some_and(|row| !row.has_task);
            is_lost && world.is_credited(key) && world.state(key) == Some(State::Review)
        })
    }),
    (OF_TASKS[1], |protocol, world| {
        (0..KEYS).any(|key| {
            let has_task = world.redemptions[key].is_some_and(|row| row.has_task);
            has_task && world.is_final(key) && is_orphan(protocol, world, key)
        })
    }),
];

pub(super) fn all() -> Vec<Property<Protocol>> {
    let always = ALWAYS.iter().map(|(name, holds)| Property::always(name, *holds));
    let sometimes = SOMETIMES.iter().map(|(name, holds)| Property::sometimes(name, *holds));
    always.chain(sometimes).collect()
}

/// Nothing more happens, but for faults.
fn is_over(protocol: &Protocol, world: &World) -> bool {
    // The commonest step first: it is enough to know that there is one.
    if world.accounts.iter().any(|row| row.locked && !row.run_out) {
        return false;
    }
    let mut steps = Vec::new();
    protocol.actions(world, &mut steps);
    steps.iter().all(|step| step.is_fault())
}

fn ended_well(protocol: &Protocol, world: &World) -> bool {
    let mut sums = [0; ACCOUNTS];
    for entry in &world.ledger {
        if let Entry::Credited(ask) = entry {
            sums[ask.account] += WORTH[ask.code];
        }
    }
    (0..SERVERS).all(|server| protocol.key(world, server).is_none())
        && (0..KEYS).all(|key| {
            !world.is_open(key)
                && world.is_credited(key) == (world.state(key) == Some(State::Succeeded))
        })
        && world.accounts.iter().all(|row| !row.locked)
        && sums == world.balances()
}

fn is_settled(world: &World, key: Key) -> bool {
    world.state(key).is_some_and(|state| !state.is_open())
}

/// It is open, no server is at work on it, and none has left it and asked for the release: its server
/// crashed.
fn is_orphan(protocol: &Protocol, world: &World, key: Key) -> bool {
    world.redemptions[key]
        .is_some_and(|row| row.state.is_open() && !world.accounts[row.account].release_requested)
        && (0..SERVERS).all(|server| protocol.key(world, server) != Some(key))
}

fn server_is(protocol: &Protocol, world: &World, check: impl Fn(Key, Next) -> bool) -> bool {
    (0..SERVERS).any(|server| {
        protocol.key(world, server).is_some_and(|key| check(key, world.redeemers[server].next))
    })
}
