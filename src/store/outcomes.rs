//! The outcomes of a pool in the order in which they are told.

use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::{
    id::{PoolId, RedemptionId},
    outcomes::{Era, Mark, Moment, Position},
};

/// How many transactions one statement reads.
const MAX_TRANSACTIONS: usize = 512;

/// A page of outcomes.
#[derive(Debug)]
pub struct OutcomePage {
    /// The database as the statement saw it.
    pub now: Moment,
    /// All of these are seen by it.
    pub round: Moment,
    /// The outcomes, in their order.
    pub outcomes: Vec<(Mark, RedemptionId)>,
    /// Where the next page begins.
    pub next: Position,
    /// There was nothing else to tell.
    pub is_last: bool,
}

struct OutcomeRow {
    now_system_id: i64,
    now_timeline: Option<i32>,
    now_snapshot: String,
    system_id: Option<i64>,
    timeline: Option<i32>,
    xid: Option<i64>,
    redemption_ids: Option<Vec<Uuid>>,
}

impl OutcomeRow {
    fn now(&self) -> Result<Moment, StoreError> {
        let is_standby = || StoreError::Unavailable("it is a standby".to_owned());
        let timeline = self.now_timeline.ok_or_else(is_standby)?;
        let era = Era { system_id: self.now_system_id, timeline };
        let now = Moment::of_snapshot(era, &self.now_snapshot);
        now.ok_or(StoreError::Unreadable("pg_current_snapshot()"))
    }

    /// The transaction's last outcome, and all of them.
    fn transaction(self) -> Option<(Mark, Vec<Uuid>)> {
        let era = Era { system_id: self.system_id?, timeline: self.timeline? };
        Some((Mark { era, xid: self.xid?, number: u32::MAX }, self.redemption_ids?))
    }
}

impl Store {
    /// Reads what is to be told after a position, at most `limit` outcomes. Changes nothing.
    pub async fn follow_outcomes(
        &self,
        pool_id: &PoolId,
        position: &Position,
        limit: usize,
    ) -> Result<OutcomePage, StoreError> {
        let (era, xid) = position.from();
        let rows = sqlx::query_file_as!(
            OutcomeRow,
            "src/store/sql/outcome/follow_outcomes.sql",
            pool_id.as_str(),
            position.seen.era.system_id,
            position.seen.era.timeline,
            &position.in_progress(),
            era.system_id,
            era.timeline,
            xid,
            i64::try_from(MAX_TRANSACTIONS).unwrap_or(i64::MAX),
        )
        .fetch_all(&self.rest)
        .await?;
        let now = rows.first().map(OutcomeRow::now).transpose()?;
        let now = now.ok_or(StoreError::Unreadable("follow_outcomes"))?;
        let is_full = rows.len() >= MAX_TRANSACTIONS;
        let transactions = rows.into_iter().filter_map(OutcomeRow::transaction);
        Ok(page(now, transactions, position, limit, is_full))
    }

    /// The database as it is now.
    pub async fn outcomes_now(&self, pool_id: &PoolId) -> Result<Moment, StoreError> {
        // No transaction comes after this one.
        let era = Era { system_id: i64::MAX, timeline: i32::MAX };
        let end = Moment { era, next_xid: i64::MAX, in_progress: Vec::new() };
        Ok(self.follow_outcomes(pool_id, &Position::at(end, None), 0).await?.now)
    }

    /// Whether the database has the transaction of an outcome that was told.
    pub async fn has_outcome(&self, pool_id: &PoolId, mark: Mark) -> Result<bool, StoreError> {
        let exist = sqlx::query_file_scalar!(
            "src/store/sql/outcome/outcomes_exist.sql",
            pool_id.as_str(),
            mark.era.system_id,
            mark.era.timeline,
            mark.xid,
        );
        Ok(exist.fetch_one(&self.rest).await?)
    }
}

/// Of the transactions the outcomes that are wanted, up to a bound.
fn page(
    now: Moment,
    transactions: impl Iterator<Item = (Mark, Vec<Uuid>)>,
    position: &Position,
    limit: usize,
    is_full: bool,
) -> OutcomePage {
    let round = position.round.clone().unwrap_or_else(|| now.clone());
    let (mut outcomes, mut reached, mut is_last) = (Vec::new(), None, !is_full);
    'all: for (last, ids) in transactions {
        for (number, id) in (0..).zip(ids) {
            let mark = Mark { number, ..last };
            if !position.wants(mark) {
                continue;
            }
            if outcomes.len() == limit {
                is_last = false;
                break 'all;
            }
            outcomes.push((mark, RedemptionId(id)));
            reached = Some(mark);
        }
        // Also where none of it is of this round: the next page begins after it.
        reached = Some(reached.map_or(last, |mark: Mark| mark.max(last)));
    }
    let told = outcomes.last().map(|(mark, _)| *mark).or(position.last);
    let next = match (is_last, reached) {
        (false, Some(reached)) => position.told(&round, reached),
        (false, None) => position.clone(),
        (true, _) => Position::at(round.clone(), told),
    };
    OutcomePage { now, round, outcomes, next, is_last }
}
