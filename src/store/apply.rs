//! Applying: changes of accounts are decided by [`transition`], and written where the version that they were
//! decided from is still the account's.
//!
//! What is remembered of an account may be old. A change that is decided from it is refused by the database then,
//! the account is read, and the change is decided again. A refusal counts only by an account and terms that were
//! read after the caller came. A reply that was lost is found by the change's id, at the version that it made.

mod audit;
mod decider;
mod row;
mod work;

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicI64, Ordering},
};

use sqlx::types::time::OffsetDateTime;
use uuid::Uuid;

use self::audit::AuditNote;
pub(super) use self::{
    decider::{Decider, Write},
    row::ChangeRow,
    work::{Lost, Work},
};
use super::{
    Store, StoreError,
    lane::{Batch, Ran, at_all_points, steps_of},
    redemption::{Resolution, read_resolution},
};
use crate::{
    domain::{
        account::{Account, AccountChange, AccountEvent, Change, Correction, Refusal},
        id::{AccountId, PoolId, RedemptionId},
        money::Money,
        principal::Authority,
        redemption::{Failure, RedemptionState},
    },
    failpoints::{self, Guard, Step},
};

/// An event that is to happen to an account.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) account_id: AccountId,
    pub(super) event: AccountEvent,
    /// The outcome of a redemption that is recorded with it.
    pub(super) outcome: Option<RecordedOutcome>,
    /// The account as it was told to who asks, if it was.
    pub(self) told: Option<Box<Account>>,
    /// The id of the change, however often it is tried.
    change_id: Uuid,
    /// The version from which a change was written, as far as is known; 0: none. A run that is repeated asks first
    /// what became of it.
    unanswered: AtomicI64,
}

/// What is recorded of a redemption's outcome.
#[derive(Clone, Debug)]
pub(super) struct RecordedOutcome {
    pub(super) redemption_id: RedemptionId,
    /// The state that it must be in; any that is open where none is named.
    pub(super) known_state: Option<RedemptionState>,
    pub(super) state: RedemptionState,
    pub(super) amount: Option<Money>,
    pub(super) provider_ref: Option<String>,
    pub(super) failure: Option<Failure>,
    /// Calls to the provider since the last record.
    pub(super) attempts: i32,
    pub(super) last_answer: Option<String>,
    pub(super) resolution: Option<Resolution>,
}

impl Asked {
    pub(super) fn new(account_id: AccountId, event: AccountEvent) -> Self {
        Self {
            account_id,
            event,
            outcome: None,
            told: None,
            change_id: Uuid::now_v7(),
            unanswered: AtomicI64::new(0),
        }
    }

    /// The same about an account as it was just told.
    pub(super) fn about(account: Account, event: AccountEvent) -> Self {
        let told = Some(Box::new(account.clone()));
        Self { told, ..Self::new(account.account_id, event) }
    }

    /// The same, and the outcome of a redemption is recorded with it.
    pub(super) fn with_outcome(self, outcome: RecordedOutcome) -> Self {
        Self { outcome: Some(outcome), ..self }
    }

    pub(super) fn change_id(&self) -> Uuid {
        self.change_id
    }

    /// What is done in the background, or where another account would do, waits for no row.
    pub(super) fn waits_for_nobody(&self) -> bool {
        let is_background = matches!(
            self.event,
            AccountEvent::Expire { .. } | AccountEvent::EndDay { .. } | AccountEvent::Reopen { .. }
        );
        is_background || self.is_claim()
    }

    /// A claim is one of several that would do: where it is lost another account is chosen.
    pub(super) fn is_claim(&self) -> bool {
        matches!(self.event, AccountEvent::Acquire(_))
    }
}

/// What became of an event.
#[derive(Clone, Debug)]
pub enum Applied {
    /// It happened.
    Done(Box<Done>),
    /// It cannot happen to the account, which is as it was.
    Refused(Refusal, Box<Account>),
    /// The redemption is not in the state that it should be in.
    NotInState,
    /// Another account is to be chosen: somebody else has this one.
    Missed,
    /// There is no such account.
    NoAccount,
    /// There is no such pool.
    NoPool,
    /// The account's row cannot be read.
    Unreadable(StoreError),
}

/// See [`Applied::Done`].
#[derive(Clone, Debug)]
pub struct Done {
    /// The account after it.
    pub account: Account,
    /// What its redemption has by now, where an outcome was recorded; none where the reply was lost at first.
    pub settled: Option<SettledColumns>,
}

/// What a redemption that was settled has, and the program may not know.
#[derive(Clone, Debug)]
pub struct SettledColumns {
    /// When it was settled.
    pub at: OffsetDateTime,
    /// See [`super::redemption::Redemption`].
    pub amount_minor: Option<i64>,
    /// See [`super::redemption::Redemption`].
    pub amount_currency: Option<String>,
    /// See [`super::redemption::Redemption`].
    pub provider_ref: Option<String>,
    /// See [`super::redemption::Redemption`].
    pub attempts: i32,
    /// See [`super::redemption::Redemption`].
    pub last_answer: Option<String>,
    /// See [`super::redemption::Redemption`].
    pub resolution: Option<Resolution>,
}

struct AppliedRow {
    account_id: String,
    at: OffsetDateTime,
    amount_minor: Option<i64>,
    amount_currency: Option<String>,
    provider_ref: Option<String>,
    attempts: Option<i32>,
    last_answer: Option<String>,
    resolved_by: Option<String>,
    resolved_principal: Option<String>,
    resolution_reason: Option<String>,
    resolution_evidence: Option<String>,
}

/// The lane of changes of a pool's accounts.
#[derive(Debug)]
pub(super) struct Apply(pub(super) Decider);

impl Batch for Apply {
    type Input = Asked;
    type Output = Applied;
    const NAME: &'static str = "apply";

    fn step(input: &Asked) -> Option<Step> {
        match input.event {
            AccountEvent::Acquire(_) => Some(Step::Acquire),
            AccountEvent::Renew { .. } => Some(Step::Renew),
            AccountEvent::Settle(_)
            | AccountEvent::CreditLate { .. }
            | AccountEvent::Reverse { .. }
            | AccountEvent::Restate(..) => Some(Step::Settle),
            AccountEvent::Release { .. } => Some(Step::Release),
            AccountEvent::Expire { .. } => Some(Step::Expire),
            AccountEvent::Begin { .. }
            | AccountEvent::Update(..)
            | AccountEvent::Correct(..)
            | AccountEvent::Reopen { .. }
            | AccountEvent::EndDay { .. } => None,
        }
    }

    fn may_be_dropped(input: &Asked) -> bool {
        matches!(input.event, AccountEvent::Acquire(_) | AccountEvent::Renew { .. })
    }

    fn is_urgent(input: &Asked) -> bool {
        !input.is_claim()
    }

    async fn run(
        &self,
        pool_id: &PoolId,
        inputs: &[Asked],
        is_alone: bool,
    ) -> Result<Vec<Ran<Applied>>, sqlx::Error> {
        let apply = async {
            let mut work = Work::new(inputs.iter().collect(), is_alone);
            self.find_own(pool_id, &mut work).await?;
            self.0.run(pool_id, &mut work, &mut Changes(&self.0)).await?;
            Ok(work.into_outputs())
        };
        at_all_points(&steps_of::<Self>(inputs), apply).await
    }

    /// A lease that nobody waited for ends.
    fn take_back(&self, _: &PoolId, output: Applied) -> Option<Asked> {
        let Applied::Done(done) = output else { return None };
        let account = done.account;
        let is_new = account.lease.as_ref().is_some_and(|lease| lease.acquired_at == account.as_of);
        let by = Authority::of(account.lease.as_ref()?.request.principal.clone());
        let release = AccountEvent::Release { token: account.token, by };
        (is_new && account.open_redemption_id.is_none()).then(|| Asked::about(account, release))
    }
}

/// Writes changes of accounts, and the outcomes that go with them.
struct Changes<'a>(&'a Decider);

impl Write for Changes<'_> {
    async fn write(
        &mut self,
        pool_id: &PoolId,
        revision: i64,
        work: &mut Work<'_>,
        changes: Vec<(usize, Change)>,
    ) -> Result<(), sqlx::Error> {
        let mut rows = Vec::with_capacity(changes.len());
        let mut notes = HashMap::new();
        for (place, change) in &changes {
            let asked = &work.inputs[*place];
            if let Some(account) = work.account(*place) {
                rows.push(ChangeRow::new(account, change, asked));
                if let Some(note) = AuditNote::of(asked, account, change) {
                    notes.insert(*place, note);
                }
                asked.unanswered.store(change.from.number, Ordering::Relaxed);
            }
        }
        let written = sqlx::query_file_as!(
            AppliedRow,
            "src/store/sql/account/apply.sql",
            pool_id.as_str(),
            revision,
            &rows as &[ChangeRow],
            self.0.server_id,
            &notes.values().collect::<Vec<_>>() as &[&AuditNote],
        )
        .fetch_all(&self.0.db)
        .await?;
        let mut written: HashMap<_, _> =
            written.into_iter().map(|row| (row.account_id.clone(), row)).collect();
        let lost = Lost { revision, is_all: written.is_empty() };
        for (place, change) in changes {
            let asked = &work.inputs[place];
            match written.remove(asked.account_id.as_str()) {
                Some(row) => {
                    if let Some(note) = notes.remove(&place) {
                        note.log(pool_id.as_str());
                    }
                    let at = row.at;
                    self.0.written(work, place, change, at, row.settled());
                }
                None => self.0.lost(pool_id, work, place, &change, lost),
            }
        }
        Ok(())
    }
}

impl Apply {
    /// Answers those whose change was written by a statement whose reply was lost.
    async fn find_own(&self, pool_id: &PoolId, work: &mut Work<'_>) -> Result<(), sqlx::Error> {
        let unanswered: Vec<_> = (0..work.inputs.len())
            .filter_map(|place| match work.inputs[place].unanswered.load(Ordering::Relaxed) {
                0 => None,
                version => Some((place, version + 1)),
            })
            .collect();
        if unanswered.is_empty() || !failpoints::holds(Guard::LostRepliesAreFound) {
            return Ok(());
        }
        let id = |place: &usize| work.inputs[*place].account_id.to_string();
        let rows = sqlx::query_file!(
            "src/store/sql/account/own_changes.sql",
            pool_id.as_str(),
            &unanswered.iter().map(|(place, _)| id(place)).collect::<Vec<_>>(),
            &unanswered.iter().map(|(_, version)| *version).collect::<Vec<_>>(),
        )
        .fetch_all(&self.0.db)
        .await?;
        let made: HashSet<_> = rows.into_iter().filter_map(|row| row.change_id).collect();
        let own: Vec<_> = unanswered
            .into_iter()
            .map(|(place, _)| place)
            .filter(|place| made.contains(&work.inputs[*place].change_id))
            .collect();
        let mut accounts = self.0.read(pool_id, &own.iter().map(id).collect::<Vec<_>>()).await?;
        for place in own {
            match accounts.remove(work.inputs[place].account_id.as_str()) {
                Some(Ok(account)) => work.found_own(place, account),
                Some(Err(error)) => work.answer(place, Applied::Unreadable(error)),
                None => work.answer(place, Applied::NoAccount),
            }
        }
        Ok(())
    }
}

impl AppliedRow {
    fn settled(self) -> Option<SettledColumns> {
        Some(SettledColumns {
            at: self.at,
            attempts: self.attempts?,
            amount_minor: self.amount_minor,
            amount_currency: self.amount_currency,
            provider_ref: self.provider_ref,
            last_answer: self.last_answer,
            resolution: read_resolution(
                self.resolved_by,
                self.resolved_principal,
                self.resolution_reason,
                self.resolution_evidence,
            ),
        })
    }
}

impl Store {
    /// Changes an account as a person wants it. Not its plan while it is under a lease.
    pub async fn update_account(
        &self,
        pool_id: &PoolId,
        account_id: &AccountId,
        change: AccountChange,
        by: Authority,
    ) -> Result<Applied, StoreError> {
        let event = AccountEvent::Update(Box::new(change), by);
        self.apply.call(pool_id, Asked::new(account_id.clone(), event)).await
    }

    /// Gives an account the balance that a person saw at the provider.
    pub async fn correct_balance(
        &self,
        pool_id: &PoolId,
        account_id: &AccountId,
        correction: Correction,
        by: Authority,
    ) -> Result<Applied, StoreError> {
        let event = AccountEvent::Correct(Box::new(correction), by);
        self.apply.call(pool_id, Asked::new(account_id.clone(), event)).await
    }
}
