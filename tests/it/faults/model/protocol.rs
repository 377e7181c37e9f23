//! The redeem protocol as steps, each one atomic: a statement of the database, an arrival at the
//! provider, or a message heard. Between any two of its steps a server may stand still for as long as
//! it likes, because nothing says whose step is next.

use stateright::{Model, Property};

use super::{
    properties,
    rules::Rules,
    step::Step,
    world::{
        ACCOUNTS, Account, Ask, Code, Entry, KEYS, Key, Lease, Next, Reconciler, RedemptionRow,
        SERVERS, STRAY, State, WORTH, World,
    },
};

/// What a provider does with a key that it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dedup {
    /// Answers what it answered first.
    Replay,
    /// Refuses it.
    Reject,
    /// Executes it anew.
    None,
}

/// What a provider can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Provider {
    pub(super) dedup: Dedup,
    /// It makes tasks, and is asked by their ids alone. Otherwise it is asked by the key.
    pub(super) by_task: bool,
    pub(super) cancels: bool,
}

impl Provider {
    /// The built-in contract.
    pub(super) const REPLAYS: Self = Self { dedup: Dedup::Replay, by_task: false, cancels: true };
    pub(super) const REJECTS: Self = Self { dedup: Dedup::Reject, ..Self::REPLAYS };
    pub(super) const COUNTS_AGAIN: Self = Self { dedup: Dedup::None, ..Self::REPLAYS };
    pub(super) const TASKS: Self = Self { dedup: Dedup::None, by_task: true, cancels: false };
}

/// The protocol, and how much of it there is.
#[derive(Clone, Debug)]
pub(super) struct Protocol {
    pub(super) rules: Rules,
    pub(super) provider: Provider,
    /// For each server, the codes that it is asked to redeem, one after the other, each by a request
    /// of its own.
    pub(super) wishes: [&'static [Code]; SERVERS],
    /// How many reconcilers may be at work at once.
    pub(super) reconcilers: usize,
}

/// What is recorded of a redemption.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Credited,
    NotCredited,
    /// Inferred from what this server sent.
    NothingExecuted,
}

impl Protocol {
    /// The key under which a server redeems, or will, the wish that is its next.
    pub(super) fn key(&self, world: &World, server: usize) -> Option<Key> {
        let done = world.redeemers[server].done;
        let before: usize = self.wishes[..server].iter().map(|wishes| wishes.len()).sum();
        (done < self.wishes[server].len()).then_some(before + done)
    }

    /// The code that a redemption is of.
    pub(super) fn code(&self, key: Key) -> Code {
        let first = self.wishes[0];
        if key < first.len() { first[key] } else { self.wishes[1][key - first.len()] }
    }

    fn redeemer_steps(&self, world: &World, server: usize, steps: &mut Vec<Step>) {
        let Some(key) = self.key(world, server) else { return };
        match world.redeemers[server].next {
            // Nothing is in memory yet that a crash could take.
            Next::Acquire => {
                for account in 0..ACCOUNTS {
                    if !world.accounts[account].locked {
                        steps.push(Step::Acquire(server, account));
                    }
                }
                return;
            }
            Next::Begin => steps.push(Step::Begin(server)),
            Next::Send => steps.extend([Step::Send(server), Step::TurnedAway(server)]),
            Next::Hear => {
                if world.ledger[key] != Entry::NeverSeen {
                    steps.push(Step::Hear(server));
                } else if self.provider.by_task && world.wire[key].is_none() {
                    steps.push(Step::NothingCame(server));
                }
                steps.push(Step::HearNothing(server));
            }
            Next::KeepTask => steps.push(Step::KeepTask(server)),
            Next::Poll => {
                // While the provider is at work, it is asked again: that is no step.
                if world.is_final(key) {
                    steps.push(Step::Hear(server));
                }
                steps.push(Step::HearNothing(server));
            }
            Next::GiveUp => steps.push(Step::GiveUp(server)),
            Next::Release => steps.push(Step::Release(server)),
        }
        steps.push(Step::Crash(server));
    }

    fn reconciler_steps(&self, world: &World, number: usize, steps: &mut Vec<Step>) {
        match world.reconcilers[number] {
            // They are in order: if any looks for work then the first does. It takes over at any time:
            // that a server is given the time to send, and a claim holds for a while, is economy.
            Reconciler::LookUp if number == 0 => {
                let idle = world.reconcilers.iter().filter(|it| **it == Reconciler::LookUp);
                if SERVERS - idle.count() < self.reconcilers {
                    let open = (0..KEYS).filter(|key| self.may_be_checked(world, *key));
                    steps.extend(open.map(|key| Step::LookUp(number, key)));
                }
            }
            Reconciler::LookUp => {}
            // Which of the two is a matter of `not_after`, which may pass at any time. Sending what is
            // under way already is no step.
            Reconciler::Climb(key) => {
                let counts_once = self.provider.dedup != Dedup::None;
                if world.wire[key].is_none() && (counts_once || !self.rules.uncounted_is_sent_once)
                {
                    steps.push(Step::SendAgain(number));
                }
                if self.provider.dedup == Dedup::Reject && world.is_credited(key) {
                    steps.push(Step::HearRefused(number));
                }
                steps.extend([Step::Cancel(number), Step::Forget(number)]);
            }
        }
    }

    /// What is a person's is not checked any more, and a task that the provider is at work on is asked about again,
    /// which is no step.
    fn may_be_checked(&self, world: &World, key: Key) -> bool {
        let Some(row) = world.redemptions[key] else { return false };
        let is_at_work = self.provider.by_task && row.has_task && !world.is_final(key);
        matches!(row.state, State::Submitted | State::InDoubt) && !is_at_work
    }

    /// A person waits until the provider can have nothing more to do.
    fn person_steps(&self, world: &World, steps: &mut Vec<Step>) {
        for key in (0..KEYS).filter(|key| world.state(*key) == Some(State::Review)) {
            let is_unsent = (0..SERVERS).any(|server| {
                self.key(world, server) == Some(key) && world.redeemers[server].next == Next::Send
            });
            let is_at_work = matches!(world.ledger[key], Entry::Working(_));
            if world.wire[key].is_none() && !is_at_work && !is_unsent {
                steps.push(Step::Resolve(key));
            }
        }
    }

    fn provider_steps(&self, world: &World, steps: &mut Vec<Step>) {
        for key in 0..world.wire.len() {
            if matches!(world.ledger[key], Entry::Working(_)) {
                steps.extend([Step::Credit(key), Step::Refuse(key)]);
            } else if world.wire[key].is_some() && self.provider.by_task {
                steps.extend([Step::TakeUp(key), Step::Lose(key)]);
            } else if world.wire[key].is_some() && self.may_begin(world.ledger[key]) {
                // Nobody relies on it that a spent code is refused.
                steps.extend([Step::Credit(key), Step::Refuse(key), Step::Lose(key)]);
            }
        }
    }

    fn may_begin(&self, entry: Entry) -> bool {
        match entry {
            Entry::NeverSeen => true,
            Entry::Working(_) => false,
            Entry::Cancelled => !self.rules.tombstones,
            Entry::Credited(_) | Entry::Refused => self.provider.dedup == Dedup::None,
        }
    }

    fn database_steps(&self, world: &World, steps: &mut Vec<Step>) {
        for (account, row) in world.accounts.iter().enumerate() {
            if row.locked && !row.run_out {
                steps.push(Step::RunOut(account));
            }
            if row.locked && row.run_out && (row.open.is_none() || !self.rules.open_keeps_the_lock)
            {
                steps.push(Step::Expire(account));
            }
        }
    }

    /// A redeemer's step, and what it does next.
    fn redeem(&self, world: &mut World, step: Step, server: usize) -> Next {
        let rules = self.rules;
        let key = self.key(world, server).unwrap();
        let lease = world.redeemers[server].lease;
        match (step, lease) {
            // `account::acquire`.
            (Step::Acquire(_, account), _) => {
                let row = &mut world.accounts[account];
                row.locked = true;
                row.run_out = false;
                row.token += 1;
                let lease = Lease { account, token: row.token, run_out: false };
                world.redeemers[server].lease = Some(lease);
                if rules.begin_before_send { Next::Begin } else { Next::Send }
            }
            (Step::Begin(_), Some(lease)) => match self.begin(world, key, lease) {
                true if rules.begin_before_send => Next::Send,
                true => Next::Hear,
                false => Next::Release,
            },
            (Step::Send(_), Some(lease)) => {
                world.wire[key] = Some(Ask { account: lease.account, code: self.code(key) });
                if rules.begin_before_send { Next::Hear } else { Next::Begin }
            }
            (Step::TurnedAway(_), Some(lease)) => {
                if !rules.refusals_speak_for_copies {
                    world.wire[key] = Some(Ask { account: lease.account, code: self.code(key) });
                }
                Next::GiveUp
            }
            (Step::Hear(_), _)
                if world.redeemers[server].next == Next::Hear && self.provider.by_task =>
            {
                if rules.task_is_kept_first { Next::KeepTask } else { Next::Poll }
            }
            (Step::KeepTask(_), _) => {
                // `record_task.sql`.
                if let Some(row) = &mut world.redemptions[key] {
                    row.has_task |= row.state.is_open();
                }
                Next::Poll
            }
            (Step::Hear(_), _) => {
                world.asked_by_task[key] = self.provider.by_task;
                self.record_what_the_ledger_says(world, key);
                Next::Release
            }
            // `defer.sql`.
            (Step::HearNothing(_) | Step::NothingCame(_), _) => {
                world.asked_by_task[key] |= world.redeemers[server].next == Next::Poll;
                if rules.silence_proves_nothing {
                    doubt(world, key);
                } else {
                    self.settle(world, key, Outcome::Credited);
                }
                Next::Release
            }
            (Step::GiveUp(_), _) => {
                self.settle(world, key, Outcome::NothingExecuted);
                Next::Release
            }
            (Step::Release(_), Some(lease)) => {
                self.release(world, lease);
                end_wish(world, server)
            }
            _ => end_wish(world, server),
        }
    }

    /// `account::begin`, and the indexes of redemptions.
    fn begin(&self, world: &mut World, key: Key, lease: Lease) -> bool {
        let code = self.code(key);
        let code_in_use = (0..KEYS).any(|other| {
            world.state(other).is_some_and(|state| state != State::Failed)
                && self.code(other) == code
        });
        let row = &mut world.accounts[lease.account];
        let begins = row.locked
            && (row.token == lease.token || !self.rules.begin_is_fenced)
            && !row.run_out
            && row.open.is_none()
            && !row.release_requested
            && !(code_in_use && self.rules.one_living_redemption_a_code);
        if begins {
            row.open = Some(key);
            world.redemptions[key] = Some(RedemptionRow {
                account: lease.account,
                token: lease.token,
                state: State::Submitted,
                settled: 0,
                has_task: false,
            });
        }
        begins
    }

    /// What the provider says of a key is final, so it makes no difference whether a pause comes
    /// between hearing it and recording it, or before hearing it.
    fn record_what_the_ledger_says(&self, world: &mut World, key: Key) {
        match world.ledger[key] {
            Entry::NeverSeen | Entry::Working(_) => {}
            Entry::Credited(_) => self.settle(world, key, Outcome::Credited),
            Entry::Refused | Entry::Cancelled => self.settle(world, key, Outcome::NotCredited),
        }
    }

    /// `account::settled`.
    fn settle(&self, world: &mut World, key: Key, outcome: Outcome) {
        let Some(redemption) = &mut world.redemptions[key] else { return };
        let account = &mut world.accounts[redemption.account];
        let open = redemption.state.is_open() && account.open == Some(key);
        let taken_over = redemption.state != State::Submitted;
        let inferred = outcome == Outcome::NothingExecuted;
        if inferred && taken_over && self.rules.inference_ends_with_a_takeover
            || !open && self.rules.settled_once
        {
            return;
        }
        redemption.settled = (redemption.settled + 1).min(2);
        if outcome == Outcome::Credited {
            redemption.state = State::Succeeded;
            account.balance += WORTH[self.code(key)];
        } else {
            redemption.state = State::Failed;
        }
        if account.open == Some(key) {
            account.open = None;
            if account.release_requested || account.run_out {
                account.locked = false;
                account.run_out = false;
            }
            account.release_requested = false;
        }
    }

    /// `account::release`.
    fn release(&self, world: &mut World, lease: Lease) {
        let row = &mut world.accounts[lease.account];
        if row.locked && (row.token == lease.token || !self.rules.release_is_fenced) {
            if row.open.is_some() {
                row.release_requested = true;
            } else {
                row.locked = false;
                row.run_out = false;
            }
        }
    }

    /// What a reconciler does next. It does not wait for the answer to what it sends again or cancels:
    /// the answer says what the next look says.
    fn reconcile(&self, world: &mut World, step: Step, before: Reconciler) -> Reconciler {
        match (step, before) {
            (Step::LookUp(_, key), _) => {
                // `claim_checks.sql`.
                doubt(world, key);
                if self.provider.by_task {
                    self.check_task(world, key);
                } else if world.ledger[key] != Entry::NeverSeen {
                    self.record_what_the_ledger_says(world, key);
                } else if !self.rules.not_found_proves_nothing {
                    self.settle(world, key, Outcome::NotCredited);
                } else if self.rules.reconcilers_climb {
                    return Reconciler::Climb(key);
                }
            }
            (Step::SendAgain(_), Reconciler::Climb(key)) => {
                let under = if self.rules.same_key_again { key } else { STRAY };
                let code = self.code(key);
                world.wire[under] =
                    world.redemptions[key].map(|row| Ask { account: row.account, code });
            }
            (Step::HearRefused(_), Reconciler::Climb(key))
                if !self.rules.refused_again_proves_nothing =>
            {
                self.settle(world, key, Outcome::NotCredited);
            }
            // That it arrives late, or twice, is a reconciler who stood still before it sent it.
            (Step::Cancel(_), Reconciler::Climb(key)) => {
                let entry = &mut world.ledger[key];
                *entry = if *entry == Entry::NeverSeen { Entry::Cancelled } else { *entry };
            }
            _ => {}
        }
        Reconciler::LookUp
    }

    /// Asks by the task, if it was told. Otherwise nothing can be asked.
    fn check_task(&self, world: &mut World, key: Key) {
        match &mut world.redemptions[key] {
            Some(row) if row.has_task => self.record_what_the_ledger_says(world, key),
            Some(row) if self.rules.lost_task_proves_nothing => row.state = State::Review,
            _ => self.settle(world, key, Outcome::NotCredited),
        }
    }

    fn resolve(&self, world: &mut World, key: Key) {
        let is_credited = world.is_credited(key);
        self.settle(world, key, if is_credited { Outcome::Credited } else { Outcome::NotCredited });
    }

    /// A request arrives and is executed, or a task ends.
    fn credit(&self, world: &mut World, key: Key) -> Option<()> {
        let ask = match world.ledger[key] {
            Entry::Working(ask) => ask,
            _ => world.wire[key]?,
        };
        world.credited_again |= world.is_credited(key);
        world.ledger[key] = Entry::Credited(ask);
        self.take_from_wire(world, key);
        Some(())
    }

    /// Where keys count again, a request that arrives twice is one that was sent twice.
    fn take_from_wire(&self, world: &mut World, key: Key) {
        if self.provider.dedup == Dedup::None {
            world.wire[key] = None;
        }
    }

    fn run_out(&self, world: &mut World, account: Account) {
        let row = &mut world.accounts[account];
        row.run_out = true;
        for lease in world.redeemers.iter_mut().filter_map(|it| it.lease.as_mut()) {
            lease.run_out |= lease.account == account && lease.token == row.token;
        }
    }

    /// What arrives about a key that is final changes nothing.
    fn forget_what_cannot_matter(&self, world: &mut World) {
        for (wire, entry) in world.wire.iter_mut().zip(&world.ledger) {
            if !self.may_begin(*entry) {
                *wire = None;
            }
        }
    }
}

fn doubt(world: &mut World, key: Key) {
    if let Some(row) = world.redemptions[key].as_mut().filter(|row| row.state == State::Submitted) {
        row.state = State::InDoubt;
    }
}

fn end_wish(world: &mut World, server: usize) -> Next {
    let redeemer = &mut world.redeemers[server];
    redeemer.done += 1;
    redeemer.lease = None;
    Next::Acquire
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for number in 0..SERVERS {
            self.redeemer_steps(world, number, steps);
            self.reconciler_steps(world, number, steps);
        }
        self.provider_steps(world, steps);
        self.person_steps(world, steps);
        self.database_steps(world, steps);
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        match step {
            Step::Acquire(server, _)
            | Step::Begin(server)
            | Step::Send(server)
            | Step::TurnedAway(server)
            | Step::Hear(server)
            | Step::HearNothing(server)
            | Step::NothingCame(server)
            | Step::KeepTask(server)
            | Step::GiveUp(server)
            | Step::Release(server)
            | Step::Crash(server) => {
                world.redeemers[server].next = self.redeem(&mut world, step, server);
            }
            Step::LookUp(number, _)
            | Step::SendAgain(number)
            | Step::Cancel(number)
            | Step::HearRefused(number)
            | Step::Forget(number) => {
                let before = world.reconcilers[number];
                world.reconcilers[number] = self.reconcile(&mut world, step, before);
                world.reconcilers.sort_unstable();
            }
            Step::TakeUp(key) => world.ledger[key] = Entry::Working(world.wire[key].take()?),
            Step::Credit(key) => self.credit(&mut world, key)?,
            Step::Refuse(key) => {
                world.ledger[key] = Entry::Refused;
                self.take_from_wire(&mut world, key);
            }
            Step::Resolve(key) => self.resolve(&mut world, key),
            Step::Lose(key) => world.wire[key] = None,
            Step::RunOut(account) => self.run_out(&mut world, account),
            // `account::expire`.
            Step::Expire(account) => {
                world.accounts[account].locked = false;
                world.accounts[account].run_out = false;
            }
        }
        self.forget_what_cannot_matter(&mut world);
        world.put_accounts_in_order();
        world.went_round |= !step.is_fault() && world.distance() >= last.distance();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
