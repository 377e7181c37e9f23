//! What an acquisition would make of a pool's accounts: of those in memory, or row by row where they are not there.
//!
//! A pool that nobody acquires from is not loaded to explain it. Its accounts are read page by page, and of all of them
//! only counts and the first few are kept. What was read for one is told to others who ask the same, as long as
//! nothing has changed.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashSet},
    sync::Arc,
    time::Duration,
};

use time::OffsetDateTime;
use tokio::{
    sync::oneshot,
    task::coop::consume_budget,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Ready,
    follow::{FOLLOW_WITHIN, FollowRow, Followed},
};
use crate::{
    domain::{
        account::Account,
        choice::{Choice, Considered, Counts, Criteria},
        pool::PoolTerms,
    },
    store::{StoreError, account::skip_unreadable},
};

/// Explanations of a permit take one part in so many of the time: a core has other things to do.
const EXPLAINS_PART: u32 = 4;
/// How many accounts in memory are gone through under one lock, and before it is asked whether somebody waits.
const EXPLAINED_AT_ONCE: usize = 1024;
/// How many accounts one statement reads, and how many bytes these have at the most.
const PAGE_ROWS: i64 = 1_000;
const PAGE_BYTES: i64 = 1024 * 1024;
/// The longest pause between two pages. It is as long as the page took: no more than half of a core is busy.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long the reading of a pool may take.
const READ_WITHIN: Duration = Duration::from_secs(120);

/// How many accounts there are of each choice, and the first of them.
pub type Explanation = (Counts, Vec<Considered>);

/// What is asked. Who asks the same gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which accounts are wanted.
    pub criteria: Criteria,
    /// How many accounts are told, at the most.
    pub limit: usize,
}

/// An explanation that was read, for others who ask the same.
#[derive(Debug)]
pub(super) struct Kept {
    asked: Asked,
    /// The accounts that could not be written then.
    unwritable: HashSet<String>,
    /// As it was when the reading began: since when nothing may have changed.
    followed: Followed,
    revision: i64,
    until: Instant,
    explanation: Explanation,
}

/// Accounts, judged one after the other.
struct Verdicts {
    asked: Asked,
    terms: Arc<PoolTerms>,
    unwritable: HashSet<String>,
    counts: Counts,
    /// The first `limit` of them. The last of these is the greatest.
    first: BinaryHeap<InOrder>,
}

/// An account, by its position in the order of choice.
struct InOrder(Considered);

impl Verdicts {
    fn new(asked: Asked, terms: Arc<PoolTerms>, unwritable: HashSet<String>) -> Self {
        Self { asked, terms, unwritable, counts: Counts::new(), first: BinaryHeap::new() }
    }

    fn judge(&mut self, account: Arc<Account>, now: OffsetDateTime) {
        let Asked { criteria, limit } = &self.asked;
        let is_unwritable = self.unwritable.contains(account.account_id.as_str());
        let choice = Choice::of(&account, criteria, &self.terms, now, is_unwritable);
        *self.counts.entry(choice).or_default() += 1;
        if *limit == 0 {
            return;
        }
        let one = InOrder(Considered::new(account, choice, criteria, &self.terms));
        if self.first.len() < *limit {
            self.first.push(one);
        } else if let Some(mut last) = self.first.peek_mut()
            && one < *last
        {
            *last = one;
        }
    }

    fn unreadable(&mut self, rows: usize) {
        if rows > 0 {
            *self.counts.entry(Choice::Unwritable).or_default() +=
                i64::try_from(rows).unwrap_or(i64::MAX);
        }
    }

    fn told(self) -> Explanation {
        let first = self.first.into_sorted_vec();
        (self.counts, first.into_iter().map(|one| one.0).collect())
    }
}

impl Ord for InOrder {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.in_order(&other.0)
    }
}

impl PartialOrd for InOrder {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for InOrder {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for InOrder {}

impl Kept {
    pub(super) fn is_old(&self) -> bool {
        self.until <= Instant::now()
    }

    /// Whether all is as it was, as a probe by `followed` found.
    fn is_as_it_was(&self, row: &FollowRow, unwritable: &HashSet<String>) -> bool {
        self.revision == row.revision
            && self.followed.is_of(row)
            && row.names_none()
            && self.unwritable == *unwritable
    }
}

impl Ready {
    /// What an acquisition would make of the pool's accounts: how many there are of each choice, and the first
    /// of them. Those that would be picked come first, in their order. It ends when nobody waits for it any
    /// more. `held` is held until then, and for so much longer that those who ask again and again keep no more than a part
    /// of a core busy. `None` where the accounts are not here, or were given up meanwhile.
    pub async fn explain<H: Send + 'static>(
        &self,
        asked: Asked,
        terms: Arc<PoolTerms>,
        held: H,
    ) -> Option<Explanation> {
        let verdicts = Verdicts::new(asked, terms, self.unwritable());
        let this = self.clone();
        let (begun, left) = (Instant::now(), CancellationToken::new());
        // Cancelled when this is dropped: its caller has left.
        let _leaves = left.clone().drop_guard();
        let (explained, answer) = oneshot::channel();
        tokio::spawn(async move {
            let explain = move || this.explain_now(verdicts, &left);
            let _ = explained.send(tokio::task::spawn_blocking(explain).await.unwrap_or_default());
            sleep(begun.elapsed() * (EXPLAINS_PART - 1)).await;
            drop(held);
        });
        answer.await.unwrap_or_default()
    }

    fn unwritable(&self) -> HashSet<String> {
        self.sets.quarantine.accounts(&self.pool_id).into_iter().collect()
    }

    /// Part by part: between two of them others have the lock.
    fn explain_now(&self, mut verdicts: Verdicts, left: &CancellationToken) -> Option<Explanation> {
        let (unreadable, now) = {
            let memory = self.set();
            (memory.set.unreadable(), memory.set.now()?)
        };
        verdicts.unreadable(unreadable);
        let mut from = 0;
        loop {
            let (accounts, next) = {
                let memory = self.set();
                if !memory.set.is_whole || left.is_cancelled() {
                    return None;
                }
                memory.set.part(from, EXPLAINED_AT_ONCE)
            };
            for account in accounts {
                verdicts.judge(account, now);
            }
            let Some(next) = next else { return Some(verdicts.told()) };
            from = next;
        }
    }

    /// What was read last for those who asked the same, if nothing has changed since.
    pub async fn explained(&self, asked: &Asked) -> Result<Option<Explanation>, StoreError> {
        let Some(followed) = self.kept(asked, |kept| kept.followed.clone()) else {
            return Ok(None);
        };
        let Some(row) = self.probe(Some(&followed)).await? else { return Ok(None) };
        let unwritable = self.unwritable();
        let told =
            |kept: &Kept| kept.is_as_it_was(&row, &unwritable).then(|| kept.explanation.clone());
        Ok(self.kept(asked, told).flatten())
    }

    /// The same, for those who cannot be told what is now.
    pub fn explained_lately(&self, asked: &Asked) -> Option<Explanation> {
        self.kept(asked, |kept| kept.explanation.clone())
    }

    fn kept<T>(&self, asked: &Asked, of: impl FnOnce(&Kept) -> T) -> Option<T> {
        let kept = self.pool.explained();
        let kept = kept.as_ref().filter(|kept| kept.asked == *asked);
        kept.filter(|kept| !kept.is_old()).map(of)
    }

    /// Reads what an acquisition would make of the pool's accounts, without keeping any. Goes on when its caller leaves,
    /// with `held`: the next caller is told what was read. `held` is held for so much longer that no more than a part of a
    /// core is busy.
    pub async fn read_explanation<H: Send + 'static>(
        &self,
        asked: Asked,
        terms: Arc<PoolTerms>,
        held: H,
    ) -> Result<Explanation, StoreError> {
        let this = self.clone();
        let (told, answer) = oneshot::channel();
        let read = async move {
            let one = this.pool.explaining.lock().await;
            match this.explained(&asked).await {
                Ok(None) => {
                    let (read, rest) = this.read_and_keep(asked, terms).await;
                    drop(one);
                    let _ = told.send(read);
                    sleep(rest).await;
                    this.sets.let_go_unused(&this.pool_id, &this.pool);
                }
                Ok(Some(explanation)) => drop(told.send(Ok(explanation))),
                Err(error) => drop(told.send(Err(error))),
            }
            drop(held);
        };
        // For nobody: while it waits for a connection, nothing of another pool is read.
        tokio::spawn(read);
        answer.await.unwrap_or(Err(StoreError::Overloaded))
    }

    /// Reads the accounts, and keeps what came of it for as long as nothing else is to be read after it.
    async fn read_and_keep(
        &self,
        asked: Asked,
        terms: Arc<PoolTerms>,
    ) -> (Result<Explanation, StoreError>, Duration) {
        let begun = Instant::now();
        let mut pauses = Duration::ZERO;
        let (revision, unwritable) = (terms.revision, self.unwritable());
        let verdicts = Verdicts::new(asked.clone(), terms, unwritable.clone());
        let read = async {
            let row = self.probe(None).await?;
            Ok((row, self.read_verdicts(verdicts, &mut pauses).await?))
        };
        let read = timeout(READ_WITHIN, read).await.unwrap_or(Err(StoreError::Overloaded));
        let took = begun.elapsed();
        metrics::histogram!("holdfast_explanation_read_seconds").record(took);
        let rest = (took.saturating_sub(pauses) * EXPLAINS_PART).saturating_sub(took);
        let rest = rest.min(FOLLOW_WITHIN);
        let read = read.map(|(row, explanation)| {
            *self.pool.explained() = row.map(|row| Kept {
                asked,
                unwritable,
                followed: Followed::of(row, self.sets.db.generation()),
                revision,
                until: Instant::now() + rest,
                explanation: explanation.clone(),
            });
            explanation
        });
        (read, rest)
    }

    /// Page by page, with pauses between them.
    async fn read_verdicts(
        &self,
        mut verdicts: Verdicts,
        pauses: &mut Duration,
    ) -> Result<Explanation, StoreError> {
        let mut after = String::new();
        loop {
            // One page of all pools at a time. What is read of a small pool waits for no more than a page.
            let _one = self.sets.explaining.lock().await;
            let begun = Instant::now();
            let (rows, is_last) = self.page(&after, PAGE_ROWS, PAGE_BYTES).await?;
            let Some(last) = rows.last() else { break };
            after.clone_from(&last.account_id);
            for row in rows {
                match row.account(&self.pool_id) {
                    Ok(account) => {
                        let now = account.as_of;
                        verdicts.judge(Arc::new(account), now);
                    }
                    Err(error) => {
                        skip_unreadable("explain", &self.pool_id, &row.account_id, &error);
                        verdicts.unreadable(1);
                    }
                }
                consume_budget().await;
            }
            if is_last {
                break;
            }
            let pause = begun.elapsed().min(LONGEST_PAUSE);
            sleep(pause).await;
            *pauses += pause;
        }
        Ok(verdicts.told())
    }

    /// What a server has to know that follows the pool, without following it. Also of its own changes.
    async fn probe(&self, last: Option<&Followed>) -> Result<Option<FollowRow>, StoreError> {
        self.follow_row(&self.sets.rest, last, Uuid::max()).await
    }
}
