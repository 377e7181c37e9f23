//! The quarantine: rows that a statement cannot write are left out, so that they do not delay others.
//!
//! A statement over many rows fails as a whole when one of them cannot be written. A trigger refuses it, or an
//! event with its next version is there already. The statement is then tried over halves of its rows, until the
//! rows that fail are alone. Those are left out for a while, and then tried again. That is 10 s at first, and
//! twice as long each time that they fail once more, up to 10 min. So one bad row costs its pool little, and one
//! that was mended is used again without anybody's doing.
//!
//! Each server finds out for itself, and keeps this in memory: it is lost with the process.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{StoreError, error::is_of_a_row};
use crate::domain::id::PoolId;

/// How long a row is left out the first time.
const FIRST: Duration = Duration::from_secs(10);
/// And at the most, however often it failed.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// The most rows of one pool that are left out of a statement. Where more cannot be written, it is not the rows.
const MAX_ROWS: usize = 1000;
/// The most bad rows that one run finds: each costs a few statements more.
pub(super) const MAX_BAD: usize = 32;
/// So many rows that are held by somebody else, and none that could be written: it is not the rows. Each takes
/// as long as a lock is waited for.
const MAX_BLOCKED: usize = 2;

/// A statement that leaves rows out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Statement {
    /// Leases accounts.
    Acquire,
    /// Ends leases whose time has passed.
    Expire,
    /// Lets accounts go on to their next day.
    AdvanceDays,
    /// Reopens completed accounts.
    Reopen,
    /// Claims redemptions that are due for a check.
    ClaimChecks,
    /// Claims redemptions that dead servers left in progress.
    ClaimEarlyChecks,
}

impl Statement {
    const OF_ACCOUNTS: [Self; 4] = [Self::Acquire, Self::Expire, Self::AdvanceDays, Self::Reopen];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Expire => "expire",
            Self::AdvanceDays => "advance_days",
            Self::Reopen => "reopen",
            Self::ClaimChecks => "claim_checks",
            Self::ClaimEarlyChecks => "claim_early_checks",
        }
    }
}

/// What a statement did where it was split.
#[derive(Debug)]
pub struct Done<T> {
    /// What it answered.
    pub rows: Vec<T>,
    /// There may be more to do: as many as asked for were done, or some were left out just now.
    pub may_be_more: bool,
}

/// Which rows one run of a statement is about, as it takes them.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub(super) ids: Vec<String>,
    /// Only these, or all but these.
    pub(super) only: bool,
}

/// A row that is left out.
#[derive(Debug)]
struct LeftOut {
    until: Instant,
    pause: Duration,
}

type ByRow = HashMap<String, LeftOut>;

/// See [the module](self). Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Quarantine(Arc<Mutex<HashMap<(Statement, PoolId), ByRow>>>);

impl Quarantine {
    /// The rows that a statement leaves out now.
    pub(super) fn left_out(&self, statement: Statement, pool_id: &PoolId) -> Vec<String> {
        self.left_out_at(Instant::now(), statement, pool_id)
    }

    fn left_out_at(&self, now: Instant, statement: Statement, pool_id: &PoolId) -> Vec<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            return Vec::new();
        }
        // One that did not fail again for this time was mended.
        all.retain(|_, rows| {
            rows.retain(|_, row| now < row.until + LONGEST);
            !rows.is_empty()
        });
        set_gauge(&all, statement, now);
        let rows = all.get(&(statement, pool_id.clone()));
        let left_out = rows.into_iter().flatten().filter(|(_, row)| now < row.until);
        left_out.map(|(id, _)| id.clone()).collect()
    }

    /// The accounts of a pool that any statement leaves out now.
    pub(super) fn accounts(&self, pool_id: &PoolId) -> Vec<String> {
        let of = |statement| self.left_out(statement, pool_id);
        let accounts: BTreeSet<_> = Statement::OF_ACCOUNTS.into_iter().flat_map(of).collect();
        accounts.into_iter().collect()
    }

    /// Leaves a row out from now on. False when too many are left out already. `is_of_all`: nothing at all could be
    /// written, so it may not be the row, which is not left out for longer than the first time.
    pub(super) fn leave_out(
        &self,
        statement: Statement,
        pool_id: &PoolId,
        id: &str,
        error: &impl Display,
        is_of_all: bool,
    ) -> bool {
        self.leave_out_at(Instant::now(), statement, pool_id, id, error, is_of_all)
    }

    fn leave_out_at(
        &self,
        now: Instant,
        statement: Statement,
        pool_id: &PoolId,
        id: &str,
        error: &impl Display,
        is_of_all: bool,
    ) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = all.entry((statement, pool_id.clone())).or_default();
        let before = rows.get(id).map(|row| row.pause);
        if before.is_none() && rows.len() >= MAX_ROWS {
            tracing::error!(
                statement = statement.as_str(), %pool_id, row = id, %error,
                "a row cannot be written, and too many others of its pool are left out already"
            );
            return false;
        }
        let before = before.filter(|_| !is_of_all);
        let pause = before.map_or(FIRST, |pause| (pause * 2).min(LONGEST));
        rows.insert(id.to_owned(), LeftOut { until: now + pause, pause });
        count_skipped(statement.as_str());
        set_gauge(&all, statement, now);
        let seconds = pause.as_secs();
        if !Statement::OF_ACCOUNTS.contains(&statement) {
            tracing::error!(
                statement = statement.as_str(), %pool_id, redemption_id = id, seconds, %error,
                "a redemption cannot be written; it is left out, and tried again after that time"
            );
        } else {
            tracing::error!(
                statement = statement.as_str(), %pool_id, account_id = id, seconds, %error,
                "an account cannot be written; it is left out, and tried again after that time"
            );
        }
        true
    }

    /// Runs a statement over all rows but those that are left out, at most `limit`. Where one of them makes it fail,
    /// it is run over halves of what `list` tells, which may be more than the statement is about.
    pub(super) async fn run<T, Run, List>(
        &self,
        statement: Statement,
        pool_id: &PoolId,
        limit: i64,
        run: impl Fn(Rows) -> Run,
        list: impl FnOnce(i64) -> List,
    ) -> Result<Done<T>, StoreError>
    where
        Run: Future<Output = Result<Vec<T>, sqlx::Error>>,
        List: Future<Output = Result<Vec<String>, sqlx::Error>>,
    {
        let left_out = self.left_out(statement, pool_id);
        let skipped = i64::try_from(left_out.len()).unwrap_or(i64::MAX);
        let error = match run(Rows { ids: left_out.clone(), only: false }).await {
            Ok(rows) => {
                let may_be_more = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= limit;
                return Ok(Done { rows, may_be_more });
            }
            Err(error) => error,
        };
        if !is_of_a_row(&error) {
            return Err(error.into());
        }
        let mut ids = list(limit.saturating_add(skipped)).await?;
        ids.retain(|id| !left_out.contains(id));
        ids.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        match self.by_halves(statement, pool_id, ids, run).await? {
            (rows, true) => Ok(Done { rows, may_be_more: true }),
            // Nothing was done, and nothing is left out that was not before: it is not the rows.
            (_, false) => Err(error.into()),
        }
    }

    /// Runs a statement over halves of the rows, and over halves of those, until the rows that fail are alone. These
    /// are left out from then on. Answers what was done, and whether the next run has less to do.
    pub(super) async fn by_halves<T, Run>(
        &self,
        statement: Statement,
        pool_id: &PoolId,
        ids: Vec<String>,
        run: impl Fn(Rows) -> Run,
    ) -> Result<(Vec<T>, bool), StoreError>
    where
        Run: Future<Output = Result<Vec<T>, sqlx::Error>>,
    {
        let halves = by_halves(ids, |ids| run(Rows { ids, only: true }));
        let Halves { done, bad, stopped } = halves.await;
        let mut is_progress = !done.is_empty();
        let is_of_all = done.is_empty() && bad.len() > 1;
        for (id, error) in &bad {
            is_progress |= self.leave_out(statement, pool_id, id, error, is_of_all);
        }
        match stopped {
            Some(error) if done.is_empty() => Err(error.into()),
            _ => Ok((done, is_progress)),
        }
    }
}

/// What became of rows that were tried by halves.
pub(super) struct Halves<I, T> {
    /// What the statement answered for those that are done.
    pub(super) done: Vec<T>,
    /// The rows that cannot be written, and why.
    pub(super) bad: Vec<(I, sqlx::Error)>,
    /// Why the rest was not tried.
    pub(super) stopped: Option<sqlx::Error>,
}

/// Runs a statement over rows, and where it fails over each half of them, until the rows that fail are alone.
pub(super) async fn by_halves<I: Clone, T, Run>(
    rows: Vec<I>,
    run: impl Fn(Vec<I>) -> Run,
) -> Halves<I, T>
where
    Run: Future<Output = Result<Vec<T>, sqlx::Error>>,
{
    let mut halves = Halves { done: Vec::new(), bad: Vec::new(), stopped: None };
    let mut is_any_written = false;
    let mut blocked = 0;
    let mut waiting = vec![rows];
    while let Some(rows) = waiting.pop() {
        if rows.is_empty() {
            continue;
        }
        let error = match run(rows.clone()).await {
            Ok(done) => {
                is_any_written = true;
                halves.done.extend(done);
                continue;
            }
            Err(error) => error,
        };
        blocked += usize::from(super::error::is_blocked(&error));
        let is_of_all = blocked >= MAX_BLOCKED && !is_any_written;
        if !is_of_a_row(&error) || is_of_all || halves.bad.len() >= MAX_BAD {
            halves.stopped = Some(error);
            break;
        }
        if let [row] = rows.as_slice() {
            halves.bad.push((row.clone(), error));
        } else {
            let (first, second) = rows.split_at(rows.len() / 2);
            // The first half is the next to be tried.
            waiting.extend([second.to_vec(), first.to_vec()]);
        }
    }
    halves
}

/// Counts a row that a statement could not write, or whose answer could not be read.
pub(super) fn count_skipped(statement: &'static str) {
    metrics::counter!("holdfast_rows_skipped_total", "statement" => statement).increment(1);
}

fn set_gauge(all: &HashMap<(Statement, PoolId), ByRow>, statement: Statement, now: Instant) {
    let of_statement = all.iter().filter(|((of, _), _)| *of == statement);
    let left_out = of_statement.flat_map(|(_, rows)| rows.values());
    let count = left_out.filter(|row| now < row.until).count();
    metrics::gauge!("holdfast_rows_left_out", "statement" => statement.as_str()).set(count as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> sqlx::Error {
        // What a test can make of the kinds that are of a row.
        super::super::error::of_a_row_for_tests()
    }

    /// Splits `0..count`, where the rows in `bad` fail. Answers what was done, what is bad, and how often the
    /// statement ran.
    async fn split(count: usize, bad: &[usize]) -> (Vec<usize>, Vec<usize>, usize) {
        let runs = std::cell::Cell::new(0);
        let halves = by_halves((0..count).collect(), async |rows: Vec<usize>| {
            runs.set(runs.get() + 1);
            if rows.iter().any(|row| bad.contains(row)) { Err(refused()) } else { Ok(rows) }
        })
        .await;
        let bad = halves.bad.into_iter().map(|(row, _)| row).collect();
        (halves.done, bad, runs.get())
    }

    #[tokio::test]
    async fn rows_that_fail_are_found_alone_and_all_others_are_done_in_their_order() {
        for bad in [vec![], vec![0], vec![499], vec![17, 18, 300]] {
            let (done, found, runs) = split(500, &bad).await;
            assert_eq!(found, bad);
            assert_eq!(done, (0..500).filter(|row| !bad.contains(row)).collect::<Vec<_>>());
            assert!(runs <= 1 + bad.len() * 2 * 10, "{runs} runs for {bad:?}");
        }
    }

    #[tokio::test]
    async fn where_all_rows_fail_the_search_ends() {
        let all: Vec<_> = (0..500).collect();
        let (done, found, runs) = split(500, &all).await;
        assert_eq!((done.len(), found.len()), (0, MAX_BAD));
        assert!(runs < 4 * MAX_BAD, "{runs}");
    }

    #[test]
    fn a_row_is_left_out_for_longer_each_time_and_forgotten_when_it_was_mended() {
        let quarantine = Quarantine::default();
        let [pool, other] = ["pool", "other"].map(|id| PoolId::parse(id).unwrap());
        let mut now = Instant::now();
        let fails =
            |now| quarantine.leave_out_at(now, Statement::Expire, &pool, "a", &"why", false);
        let left_out = |now| quarantine.left_out_at(now, Statement::Expire, &pool);
        for pause in [10, 20, 40, 80, 160, 320, 600, 600].map(Duration::from_secs) {
            assert!(fails(now));
            let nearly = now + pause - Duration::from_secs(1);
            assert_eq!(left_out(nearly), ["a"], "{pause:?}");
            assert!(quarantine.left_out_at(nearly, Statement::Acquire, &pool).is_empty());
            assert!(quarantine.left_out_at(nearly, Statement::Expire, &other).is_empty());
            now += pause;
            assert!(left_out(now).is_empty(), "{pause:?}");
        }
        now += LONGEST;
        assert!(left_out(now).is_empty());
        assert!(fails(now));
        assert!(left_out(now + FIRST).is_empty(), "it begins with the first pause again");
    }

    #[test]
    fn rows_that_all_fail_together_are_left_out_for_no_longer_than_the_first_time() {
        let quarantine = Quarantine::default();
        let pool = PoolId::parse("pool").unwrap();
        let mut now = Instant::now();
        for _ in 0..5 {
            assert!(quarantine.leave_out_at(now, Statement::Expire, &pool, "a", &"why", true));
            now += FIRST;
            assert!(quarantine.left_out_at(now, Statement::Expire, &pool).is_empty());
        }
    }

    #[test]
    fn only_so_many_rows_of_a_pool_are_left_out() {
        let quarantine = Quarantine::default();
        let pool = PoolId::parse("pool").unwrap();
        for n in 0..=MAX_ROWS {
            quarantine.leave_out(Statement::Acquire, &pool, &n.to_string(), &"why", false);
        }
        assert_eq!(quarantine.left_out(Statement::Acquire, &pool).len(), MAX_ROWS);
    }
}
