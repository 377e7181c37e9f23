//! Delivers the outcomes of one subscription, for as long as this server has it claimed.
//!
//! It is told outcomes as a caller of `WatchRedemptions` is, from the subscription's cursor on, and takes no more than it can
//! send. The cursor is noted when all before it was delivered, or is kept as a delivery that is tried again.

use std::{collections::HashSet, sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{body::body, sending::Sender};
use crate::{
    domain::{
        id::{AccountId, RedemptionId},
        money::Currency,
        outcomes::Position,
        principal::Authority,
        redemption::RedemptionState,
        subscription::{
            DeliveryId, Pauses,
            backlog::{Backlog, MOST_UNDER_WAY},
            verdict::{Failed, Verdict},
        },
    },
    service::{
        Error,
        watching::{After, Told, WatchEvent, Watching},
    },
    store::{
        Store, StoreError,
        delivery::{Claim, Claimed, DueDelivery, NextTry, ReceiverState},
    },
};

/// How often progress is noted, and deliveries are read that are due again.
const TICK: Duration = Duration::from_millis(500);
/// How many of those are read at once.
const MAX_DUE: i64 = 32;

/// What deliverers use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The database.
    pub store: Store,
    /// Tells outcomes.
    pub watching: Watching,
    /// The pauses between tries.
    pub pauses: Pauses,
}

/// An outcome to be sent.
#[derive(Debug)]
struct Outcome {
    redemption_id: RedemptionId,
    body: String,
    /// What comes after it.
    cursor: String,
    /// Since when it is there.
    since: Instant,
}

/// What was sent.
enum Sent {
    Outcome(DeliveryId),
    Again(DueDelivery),
}

/// How a deliverer does, for the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Status {
    /// Since when its oldest outcome waits.
    pub(super) oldest: Option<Instant>,
    /// Its receiver takes nothing.
    pub(super) is_failing: bool,
}

/// Why it ends.
enum End {
    /// Another server delivers, or nobody is to.
    NotMine,
    Stopped,
    /// The database did not answer.
    Store(StoreError),
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// See the module.
pub(super) struct Deliverer {
    tools: Tools,
    claim: Claim,
    sender: Sender,
    states: Vec<RedemptionState>,
    currency: Currency,
    backlog: Backlog<Outcome>,
    cursor: String,
    posts: JoinSet<(Sent, Verdict)>,
    /// Deliveries that are being tried again.
    again: HashSet<DeliveryId>,
    /// There may be deliveries that are tried again: an outcome may have to wait behind one.
    may_have_living: bool,
    told_living: watch::Receiver<bool>,
    status: Arc<watch::Sender<Status>>,
    /// While the receiver takes nothing: since when, and when it is tried next.
    failing_since: Option<Instant>,
    next_try: Instant,
    last_error: String,
    /// Progress that is not noted yet.
    is_new: bool,
    tick: Instant,
}

impl Deliverer {
    pub(super) fn new(
        tools: Tools,
        claimed: Claimed,
        sender: Sender,
        currency: Currency,
        told_living: watch::Receiver<bool>,
        status: Arc<watch::Sender<Status>>,
    ) -> Self {
        let now = Instant::now();
        let receiver = claimed.receiver;
        let failing_for = receiver.failing_for.unwrap_or_default();
        Self {
            tools,
            sender,
            states: claimed.states,
            currency,
            backlog: Backlog::new(receiver.failures),
            cursor: claimed.cursor,
            claim: claimed.claim,
            posts: JoinSet::new(),
            again: HashSet::new(),
            may_have_living: true,
            told_living,
            status,
            failing_since: (receiver.failures > 0)
                .then(|| now.checked_sub(failing_for).unwrap_or(now)),
            next_try: now + receiver.next_try_in.unwrap_or_default(),
            last_error: receiver.last_error,
            is_new: false,
            tick: now,
        }
    }

    /// Delivers until `stop`, or until the claim is lost.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => End::Stopped,
            ended = self.deliver() => ended,
        };
        let Claim { pool_id, subscription_id, .. } = self.claim.clone();
        match ended {
            End::NotMine => {}
            // What is under way is sent again by the next one.
            End::Stopped => self.note_at_the_end().await,
            End::Store(error) => {
                tracing::debug!(%pool_id, %subscription_id, %error, "deliveries begin anew");
            }
        }
    }

    async fn note_at_the_end(&mut self) {
        self.posts.abort_all();
        self.take_out_done();
        if self.is_new {
            let _ = self.note(false).await;
        }
    }

    async fn deliver(&mut self) -> End {
        let mut events = match self.open().await {
            Ok(events) => events,
            Err(end) => return end,
        };
        loop {
            if let Err(end) = self.step().await {
                return end;
            }
            let tries = self.backlog.failures() > 0 && self.posts.is_empty();
            let wakes = if tries { self.tick.min(self.next_try) } else { self.tick };
            tokio::select! {
                Some(ended) = self.posts.join_next(), if !self.posts.is_empty() => {
                    let (sent, verdict) = match ended {
                        Ok(ended) => ended,
                        Err(panic) => return End::Store(StoreError::Unavailable(panic.to_string())),
                    };
                    if let Err(end) = self.judge(sent, verdict).await {
                        return end;
                    }
                }
                event = events.recv(), if self.backlog.has_room() => match event {
                    Some(WatchEvent::Outcome(told, position)) => self.take(&told, &position),
                    Some(WatchEvent::Nothing(_)) => {}
                    Some(WatchEvent::Ended(error)) => return self.cannot_go_on(error).await,
                    None => return End::Stopped,
                },
                () = sleep_until(wakes.max(Instant::now() + Duration::from_millis(1))) => {}
            }
        }
    }

    async fn open(&mut self) -> Result<mpsc::Receiver<WatchEvent>, End> {
        let position = Position::of_cursor(&self.claim.pool_id, &self.cursor);
        let position = position.map_err(|_| StoreError::Unreadable("subscriptions.cursor"))?;
        let after = After::Position(Box::new(position));
        let opened =
            self.tools.watching.open(&self.claim.pool_id, after, Authority::default()).await;
        match opened {
            Ok((_, events)) => Ok(events),
            Err(error) => Err(self.cannot_go_on(error).await),
        }
    }

    /// Nothing is told. A cursor that is lost is a person's matter; everything else passes.
    async fn cannot_go_on(&mut self, error: Error) -> End {
        if let Error::CursorLost(_) = error {
            let Claim { pool_id, subscription_id, .. } = &self.claim;
            tracing::error!(%pool_id, %subscription_id, %error, "a subscription cannot go on, and is paused");
            self.last_error = "the database was restored, and lacks the outcomes after which it was to go on: make another \
                               subscription, from where it is to begin"
                .to_owned();
            return self.note(true).await.err().unwrap_or(End::NotMine);
        }
        End::Store(StoreError::Unavailable(error.to_string()))
    }

    /// Takes in an outcome.
    fn take(&mut self, told: &Told, position: &Position) {
        let Some(mark) = position.last else { return };
        let redemption = &told.0;
        let age = redemption.finished_at.map(|at| OffsetDateTime::now_utc() - at);
        let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
        let now = Instant::now();
        let delivery_id = DeliveryId::of(mark);
        let outcome = Outcome {
            redemption_id: redemption.redemption_id,
            body: body(&delivery_id, told, self.currency),
            cursor: position.cursor(&self.claim.pool_id),
            since: now.checked_sub(age).unwrap_or(now),
        };
        // What corrects an outcome is told also where its state is not asked for: the one before may have been told.
        let is_wanted = self.states.is_empty()
            || self.states.contains(&redemption.state)
            || redemption.superseded > 0;
        self.backlog.push(delivery_id, redemption.account_id.clone(), outcome, is_wanted);
    }

    /// Does all that can be done now.
    async fn step(&mut self) -> Result<(), End> {
        self.keep_failed().await?;
        self.may_have_living |= *self.told_living.borrow();
        if self.backlog.failures() > 0 {
            self.try_receiver().await?;
        } else {
            self.start_more().await?;
        }
        if self.posts.is_empty() && self.backlog.doubt() {
            self.receiver_fails(None);
        }
        self.take_out_done();
        let oldest = self.backlog.oldest().map(|outcome| outcome.since);
        self.status.send_replace(Status { oldest, is_failing: self.backlog.failures() > 0 });
        if Instant::now() >= self.tick {
            self.tick = Instant::now() + TICK;
            self.every_tick().await?;
        }
        Ok(())
    }

    async fn every_tick(&mut self) -> Result<(), End> {
        if self.is_new {
            self.note(false).await?;
        }
        if self.may_have_living && self.backlog.failures() == 0 {
            self.try_due(MAX_DUE).await?;
            // Those that a person lets be tried again are told by the list of claims.
            self.may_have_living = self.tools.store.has_living_deliveries(&self.claim).await?;
        }
        Ok(())
    }

    fn take_out_done(&mut self) {
        while let Some(outcome) = self.backlog.pop_done() {
            self.cursor = outcome.cursor;
            self.is_new = true;
        }
    }

    /// Notes progress.
    async fn note(&mut self, is_paused: bool) -> Result<(), End> {
        let receiver = ReceiverState {
            failures: self.backlog.failures(),
            failing_for: self.failing_since.map(|since| since.elapsed()),
            next_try_in: self
                .failing_since
                .map(|_| self.next_try.saturating_duration_since(Instant::now())),
            last_error: self.last_error.clone(),
            is_paused,
        };
        self.is_new = false;
        match self.tools.store.note_progress(&self.claim, &self.cursor, &receiver).await? {
            true => Ok(()),
            false => Err(End::NotMine),
        }
    }

    /// Keeps those that were not taken although the receiver takes others.
    async fn keep_failed(&mut self) -> Result<(), End> {
        while let Some(failed) = self.backlog.to_keep() {
            let delivery = DueDelivery {
                delivery_id: failed.delivery_id.clone(),
                redemption_id: failed.content.redemption_id,
                account_id: failed.account_id.clone(),
                attempts: failed.tries,
                tried_for: None,
            };
            let pause = self.tools.pauses.after(failed.tries, None);
            let next = if failed.is_dead { NextTry::Never } else { NextTry::In(pause) };
            // From here on outcomes of its account wait behind it.
            self.may_have_living = true;
            self.tools.store.keep_delivery(&self.claim, &delivery, failed.why, next).await?;
            self.log_kept(&delivery, failed.why, next);
            self.backlog.done(&delivery.delivery_id);
        }
        Ok(())
    }

    fn log_kept(&self, delivery: &DueDelivery, why: &str, next: NextTry) {
        let Claim { pool_id, subscription_id, .. } = &self.claim;
        let delivery_id = &delivery.delivery_id;
        match next {
            NextTry::Never => {
                metrics::counter!("holdfast_deliveries_total", "outcome" => "dead").increment(1);
                tracing::error!(%pool_id, %subscription_id, %delivery_id, why, "a delivery was given up");
            }
            NextTry::In(pause) => {
                tracing::warn!(
                    %pool_id, %subscription_id, %delivery_id, why, ?pause,
                    "a delivery was not taken: trying again"
                );
            }
        }
    }

    async fn start_more(&mut self) -> Result<(), End> {
        while self.posts.len() < MOST_UNDER_WAY {
            let Some((delivery_id, account_id, outcome)) = self.backlog.start() else {
                return Ok(());
            };
            let (delivery_id, account_id) = (delivery_id.clone(), account_id.clone());
            let (redemption_id, body) = (outcome.redemption_id, outcome.body.clone());
            self.send_unless_held(delivery_id, &account_id, redemption_id, body).await?;
        }
        Ok(())
    }

    async fn send_unless_held(
        &mut self,
        delivery_id: DeliveryId,
        account_id: &AccountId,
        redemption_id: RedemptionId,
        body: String,
    ) -> Result<(), End> {
        if self.may_have_living {
            let held = self.tools.store.hold_delivery(
                &self.claim,
                &delivery_id,
                redemption_id,
                account_id,
            );
            if held.await? {
                self.backlog.done(&delivery_id);
                return Ok(());
            }
        }
        self.send(Sent::Outcome(delivery_id), body);
        Ok(())
    }

    fn send(&mut self, sent: Sent, body: String) {
        let delivery_id = match &sent {
            Sent::Outcome(delivery_id) => delivery_id.clone(),
            Sent::Again(due) => due.delivery_id.clone(),
        };
        let sending = self.sender.clone().send(delivery_id, body);
        self.posts.spawn(async move { (sent, sending.await) });
    }

    /// Tries a receiver that takes nothing, with one delivery.
    async fn try_receiver(&mut self) -> Result<(), End> {
        if !self.posts.is_empty() || Instant::now() < self.next_try {
            return Ok(());
        }
        while self.posts.is_empty() {
            let Some((delivery_id, account_id, outcome)) = self.backlog.probe() else { break };
            let (delivery_id, account_id) = (delivery_id.clone(), account_id.clone());
            let (redemption_id, body) = (outcome.redemption_id, outcome.body.clone());
            self.send_unless_held(delivery_id, &account_id, redemption_id, body).await?;
        }
        if self.posts.is_empty() && self.may_have_living {
            self.try_due(1).await?;
        }
        if self.posts.is_empty() {
            // There is nothing to try it with.
            self.next_try = Instant::now() + TICK;
        }
        Ok(())
    }

    /// Tries deliveries again that are due.
    async fn try_due(&mut self, limit: i64) -> Result<(), End> {
        let due = self.tools.store.due_deliveries(&self.claim, limit).await?;
        let free = MOST_UNDER_WAY.saturating_sub(self.posts.len());
        let due: Vec<_> =
            due.into_iter().filter(|it| !self.again.contains(&it.delivery_id)).take(free).collect();
        if due.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = due.iter().map(|it| it.redemption_id).collect();
        let mut told = self.tools.watching.read_outcomes(&self.claim.pool_id, &ids).await?;
        for due in due {
            let Some(told) = told.remove(&due.redemption_id) else {
                self.failed_again(&due, "its redemption cannot be read by this server", None)
                    .await?;
                continue;
            };
            let body = body(&due.delivery_id, &told, self.currency);
            self.again.insert(due.delivery_id.clone());
            self.send(Sent::Again(due), body);
        }
        Ok(())
    }

    /// Does what follows from what became of a POST.
    async fn judge(&mut self, sent: Sent, verdict: Verdict) -> Result<(), End> {
        let outcome = if verdict == Verdict::Taken { "taken" } else { "failed" };
        metrics::counter!("holdfast_deliveries_total", "outcome" => outcome).increment(1);
        match (sent, verdict) {
            (Sent::Outcome(delivery_id), Verdict::Taken) => {
                self.backlog.done(&delivery_id);
                self.receiver_took();
            }
            (Sent::Outcome(delivery_id), Verdict::Failed(failed)) => {
                self.failed(&delivery_id, failed)
            }
            (Sent::Again(due), Verdict::Taken) => {
                self.again.remove(&due.delivery_id);
                self.receiver_took();
                self.tools.store.end_delivery(&self.claim, &due.delivery_id).await?;
                // The next one of its account is due now.
                self.tick = Instant::now();
            }
            (Sent::Again(due), Verdict::Failed(failed)) => {
                self.again.remove(&due.delivery_id);
                if failed.is_away && self.backlog.receiver_failed(failed.is_busy) {
                    self.last_error.clone_from(&failed.why);
                    self.receiver_fails(failed.retry_after);
                }
                self.failed_again(&due, &failed.why, failed.retry_after).await?;
            }
            (_, Verdict::Gone) => return Err(self.gone().await),
        }
        Ok(())
    }

    async fn gone(&mut self) -> End {
        let Claim { pool_id, subscription_id, .. } = &self.claim;
        tracing::warn!(%pool_id, %subscription_id, "a receiver is gone for good (HTTP 410): its subscription is paused");
        self.last_error =
            "HTTP 410: the receiver is gone for good, so nothing more is sent".to_owned();
        self.take_out_done();
        self.failing_since = None;
        self.note(true).await.err().unwrap_or(End::NotMine)
    }

    fn receiver_took(&mut self) {
        if self.failing_since.take().is_some() {
            let Claim { pool_id, subscription_id, .. } = &self.claim;
            tracing::info!(%pool_id, %subscription_id, "a receiver takes deliveries again");
        }
        if !self.last_error.is_empty() {
            self.last_error.clear();
            self.is_new = true;
        }
        self.backlog.receiver_took();
    }

    fn failed(&mut self, delivery_id: &DeliveryId, failed: Failed) {
        let Failed { why, is_busy, retry_after, .. } = failed;
        self.last_error.clone_from(&why);
        self.is_new = true;
        if !self.backlog.failed(delivery_id, &why, is_busy) {
            return;
        }
        if self.failing_since.is_some_and(|since| since.elapsed() >= self.tools.pauses.give_up) {
            self.backlog.give_up(delivery_id);
            self.failing_since = Some(Instant::now());
        }
        self.receiver_fails(retry_after);
    }

    /// The receiver takes nothing: it is tried again after a pause.
    fn receiver_fails(&mut self, asked: Option<Duration>) {
        let failures = self.backlog.failures();
        let pause = self.tools.pauses.of_receiver(failures, asked);
        self.next_try = Instant::now() + pause;
        self.is_new = true;
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            let Claim { pool_id, subscription_id, .. } = &self.claim;
            tracing::warn!(
                %pool_id, %subscription_id, why = self.last_error, ?pause,
                "a receiver takes nothing: its outcomes wait"
            );
        }
    }

    async fn failed_again(
        &mut self,
        due: &DueDelivery,
        why: &str,
        asked: Option<Duration>,
    ) -> Result<(), End> {
        let is_over = due.tried_for.is_some_and(|it| it >= self.tools.pauses.give_up);
        let pause = self.tools.pauses.after(due.attempts + 1, asked);
        let next = if is_over { NextTry::Never } else { NextTry::In(pause) };
        self.tools.store.fail_delivery(&self.claim, &due.delivery_id, why, next).await?;
        self.log_kept(due, why, next);
        Ok(())
    }
}
