//! Decides inputs from what is known of their accounts, and again from what is read where that was too old.

use std::collections::{HashMap, HashSet};

use sqlx::types::time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Applied, Asked, RecordedOutcome, SettledColumns,
    work::{Decided, Lost, Work},
};
use crate::{
    domain::{
        account::{Account, Change},
        id::PoolId,
        redemption::RedemptionState,
    },
    failpoints::{Guard, holds},
    store::{StoreError, account::AccountRow, db::Db, ready_set::ReadySets, terms::TermsCache},
};

/// How often inputs are decided again, each time with what was read anew.
const MAX_ROUNDS: usize = 16;

/// A statement that writes changes.
pub(in crate::store) trait Write {
    /// Writes changes that were decided from a revision of the pool, and notes of each whether it was written.
    fn write(
        &mut self,
        pool_id: &PoolId,
        revision: i64,
        work: &mut Work<'_>,
        changes: Vec<(usize, Change)>,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// See [the module](self). Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::store) struct Decider {
    pub(in crate::store) db: Db,
    pub(in crate::store) terms: TermsCache,
    pub(in crate::store) ready: ReadySets,
    /// Which server writes.
    pub(in crate::store) server_id: Uuid,
}

impl Decider {
    /// Decides and writes until each input has its answer, or is left to be run alone.
    pub(in crate::store) async fn run(
        &self,
        pool_id: &PoolId,
        work: &mut Work<'_>,
        writer: &mut (impl Write + Send),
    ) -> Result<(), sqlx::Error> {
        for _ in 0..MAX_ROUNDS {
            let round = work.next_round();
            if round.is_empty() {
                break;
            }
            let last = self.terms.last(&self.db, pool_id).filter(|_| !work.needs_terms());
            let is_fresh = last.is_none();
            let terms = match last {
                Some(terms) => Some(terms),
                None => self.terms.read(&self.db, pool_id).await?,
            };
            let Some(terms) = terms else {
                work.answer_all(&Applied::NoPool);
                break;
            };
            work.told_terms(is_fresh);
            self.tell(pool_id, work, &round).await?;
            let mut changes = Vec::with_capacity(round.len());
            let mut changing = HashSet::new();
            for place in round {
                // Behind a change of the same account: decided from what that makes of it.
                if changing.contains(&work.inputs[place].account_id) {
                    work.hold_back(place);
                    continue;
                }
                match work.decide(place, &terms) {
                    Decided::Change(change) => {
                        changing.insert(&work.inputs[place].account_id);
                        changes.push((place, *change));
                    }
                    Decided::Answered => {}
                    // The next round decides from what is read then.
                    Decided::Old => {}
                    Decided::Stuck => self.stuck(pool_id, work, place).await?,
                }
            }
            if !changes.is_empty() {
                writer.write(pool_id, terms.revision, work, changes).await?;
            }
        }
        Ok(())
    }

    /// Notes that a change was written.
    pub(in crate::store) fn written(
        &self,
        work: &mut Work<'_>,
        place: usize,
        change: Change,
        at: OffsetDateTime,
        settled: Option<SettledColumns>,
    ) {
        if let Some(account) = work.written(place, change, at, settled) {
            self.ready.note(account);
        }
    }

    /// Notes that a change was not written: what it was decided from is not so any more.
    pub(in crate::store) fn lost(
        &self,
        pool_id: &PoolId,
        work: &mut Work<'_>,
        place: usize,
        change: &Change,
        lost: Lost,
    ) {
        self.ready.doubt(pool_id, &work.inputs[place].account_id);
        if lost.is_all {
            self.terms.forget(pool_id);
        }
        work.lost(place, change, lost);
    }

    /// Sees to it that the accounts of a round are there to decide from: as they were told, are remembered, or
    /// are read now.
    async fn tell(
        &self,
        pool_id: &PoolId,
        work: &mut Work<'_>,
        round: &[usize],
    ) -> Result<(), sqlx::Error> {
        let mut unknown = Vec::new();
        for place in round {
            if work.needs_account(*place) {
                let id = &work.inputs[*place].account_id;
                match self.ready.get(pool_id, id).filter(|_| work.may_be_old(*place)) {
                    Some(account) => work.told(*place, account, false),
                    None => unknown.push(*place),
                }
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let ids: HashSet<_> =
            unknown.iter().map(|place| work.inputs[*place].account_id.to_string()).collect();
        let rows = self.read(pool_id, &ids.into_iter().collect::<Vec<_>>()).await?;
        for place in unknown {
            match rows.get(work.inputs[place].account_id.as_str()).cloned() {
                // Written by a statement whose reply was lost, and that was still running when it was asked about.
                Some(Ok(account)) if is_own(&account, work.inputs[place]) => {
                    work.found_own(place, account);
                }
                Some(Ok(account)) => work.told(place, account, true),
                Some(Err(error)) => work.answer(place, Applied::Unreadable(error)),
                None => work.answer(place, Applied::NoAccount),
            }
        }
        Ok(())
    }

    pub(super) async fn read(
        &self,
        pool_id: &PoolId,
        ids: &[String],
    ) -> Result<HashMap<String, Result<Account, StoreError>>, sqlx::Error> {
        Ok(self.ready.read_accounts(pool_id, ids, &[]).await?.into_iter().collect())
    }

    /// What was lost although nothing of the account or its pool has changed: its redemption is in another state,
    /// or somebody holds a row. Alone, that is waited for; what is done in the background never waits.
    async fn stuck(
        &self,
        pool_id: &PoolId,
        work: &mut Work<'_>,
        place: usize,
    ) -> Result<(), sqlx::Error> {
        let asked = work.inputs[place];
        if asked.waits_for_nobody() {
            work.answer(place, Applied::Missed);
            return Ok(());
        }
        if let Some(outcome) = &asked.outcome
            && !self.is_in_state(pool_id, outcome, work.is_alone).await?
        {
            work.answer(place, Applied::NotInState);
            return Ok(());
        }
        if !work.is_alone {
            work.leave(place);
            return Ok(());
        }
        let row = sqlx::query_file_as!(
            AccountRow,
            "src/store/sql/account/lock_account.sql",
            pool_id.as_str(),
            asked.account_id.as_str(),
        );
        match row.fetch_optional(&self.db).await?.map(|row| row.account(pool_id)) {
            Some(Ok(_)) => work.try_again(place),
            Some(Err(error)) => work.answer(place, Applied::Unreadable(error)),
            None => work.answer(place, Applied::NoAccount),
        }
        Ok(())
    }

    /// Whether a redemption is in the state that it should be in. `waits`: until nobody holds it.
    async fn is_in_state(
        &self,
        pool_id: &PoolId,
        outcome: &RecordedOutcome,
        waits: bool,
    ) -> Result<bool, sqlx::Error> {
        let (pool_id, id) = (pool_id.as_str(), outcome.redemption_id.0);
        let state = if waits {
            sqlx::query_file_scalar!("src/store/sql/redemption/lock_redemption.sql", pool_id, id)
                .fetch_optional(&self.db)
                .await?
        } else {
            sqlx::query_file_scalar!("src/store/sql/redemption/get_state.sql", pool_id, id)
                .fetch_optional(&self.db)
                .await?
        };
        let state = state.and_then(|state| RedemptionState::parse(&state));
        Ok(state.is_some_and(|state| match outcome.known_state {
            Some(known) => state == known,
            None => state.is_open(),
        }))
    }
}

/// Whether the last change of an account is the one that is asked for.
fn is_own(account: &Account, asked: &Asked) -> bool {
    account.version.change_id == asked.change_id() && holds(Guard::LostRepliesAreFound)
}
