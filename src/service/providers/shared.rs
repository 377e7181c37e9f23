//! The limits of a provider that hold for all servers together: permits for calls, and brakes.
//!
//! The database arbitrates: places for what is under way, the time of the next call by the rate. Who waits for a place
//! does so in a queue of this server, one asking for all behind it. A server that dies keeps its places until their
//! time is over, which is when the calls that had them have ended too.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt as _;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::state::{Change, Held, State};
use crate::{
    admission::{FairPermit, FairPermits},
    domain::{
        id::{PoolId, ProviderId},
        provider::{Condition, Health},
    },
    provider::profile::{Brake, Limits},
    store::{
        Store, StoreError,
        provider_limits::{SharedState, Slot, SlotKind},
    },
};

/// The most calls to one provider that are under way on a server. The others wait, and are known not to have been sent.
/// Each call over HTTP/1.1 has a connection with its buffers.
const MAX_CALLS: usize = 1024;
/// How often a place is asked for while none is free.
const SLOT_POLL: Duration = Duration::from_millis(100);
/// The same for a brake's, which are held until an outcome is known.
const BRAKE_POLL: Duration = Duration::from_millis(250);
/// Beside what a call takes at the longest, for what is done around it.
const MARGIN: Duration = Duration::from_secs(1);
/// The shortest pause that is worth telling the other servers.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// Why there is no permit.
#[derive(Clone, Debug)]
pub(super) enum NoPermit {
    /// Not in time.
    Held(Held),
    /// The limits cannot be read.
    Store(StoreError),
    /// The server stops: it begins no more calls.
    Closing,
}

impl From<StoreError> for NoPermit {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The limits of one provider.
pub(super) struct Shared {
    store: Store,
    provider_id: ProviderId,
    /// Of the newest version of its profile that is loaded.
    limits: Mutex<Arc<Limits>>,
    /// Those for which the database has rows.
    ensured: Mutex<Option<Arc<Limits>>>,
    calls: FairPermits,
    /// Held by the one who asks for a place.
    turn: tokio::sync::Mutex<()>,
    /// A place was given back.
    freed: Notify,
    state: Mutex<State>,
    closing: CancellationToken,
}

/// The permit for one call.
pub struct Permit {
    shared: Arc<Shared>,
    _call: FairPermit,
    slot: Option<Slot>,
    is_try: bool,
}

/// What became of a send that a brake counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrakeOutcome {
    /// It counts as no failure.
    Free,
    /// It failed in the way that counts.
    Failed,
    /// That is not known: it counts.
    Unknown,
}

/// The permit for a send that may fail in a way of which the provider bears few. Dropped, it counts as a failure.
pub struct BrakePermit {
    shared: Arc<Shared>,
    brake: Brake,
    slot: Slot,
}

impl Shared {
    /// Once `closing` is cancelled there are no more permits.
    pub(super) fn new(
        store: Store,
        provider_id: ProviderId,
        limits: Limits,
        closing: CancellationToken,
    ) -> Self {
        Self {
            store,
            provider_id,
            limits: Mutex::new(Arc::new(limits)),
            ensured: Mutex::default(),
            calls: FairPermits::for_work(MAX_CALLS),
            turn: tokio::sync::Mutex::default(),
            freed: Notify::new(),
            state: Mutex::default(),
            closing,
        }
    }

    /// From now on these hold.
    pub(super) fn set_limits(&self, limits: &Limits) {
        let mut current = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if **current != *limits {
            *current = Arc::new(limits.clone());
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what all servers know together.
    pub(super) fn read(&self, shared: &SharedState) {
        self.state().read(Instant::now(), shared);
        self.measure();
    }

    fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for the permit for a call that takes `longest` at the most.
    pub(super) async fn permit(
        self: &Arc<Self>,
        pool_id: &PoolId,
        longest: Duration,
        patience: Duration,
    ) -> Result<Permit, NoPermit> {
        let permit = self.permit_in_time(pool_id, longest, patience);
        self.closing.run_until_cancelled(permit).await.unwrap_or(Err(NoPermit::Closing))
    }

    async fn permit_in_time(
        self: &Arc<Self>,
        pool_id: &PoolId,
        longest: Duration,
        patience: Duration,
    ) -> Result<Permit, NoPermit> {
        let deadline = Instant::now() + patience;
        self.check(patience)?;
        let call = timeout_at(deadline, self.calls.acquire(pool_id.as_str()))
            .await
            .map_err(|_| busy("as many calls to it as this server makes are under way"))?;
        // In a box: thousands may wait for the above, and need no room for it.
        Box::pin(self.permit_among_servers(call, longest, deadline)).await
    }

    /// Waits for what the servers share, for one of the calls that this server makes.
    async fn permit_among_servers(
        self: &Arc<Self>,
        call: FairPermit,
        longest: Duration,
        deadline: Instant,
    ) -> Result<Permit, NoPermit> {
        let is_try = self.claim_try(longest).await?;
        let mut permit = Permit { shared: Arc::clone(self), _call: call, slot: None, is_try };
        let limits = self.limits();
        if let Some(in_flight) = limits.in_flight {
            permit.slot = Some(self.slot(in_flight, longest, deadline).await?);
        }
        if let Some((calls, time)) = limits.rate {
            let every = time / calls.max(1);
            self.pace(every, limits.burst.unwrap_or(1), deadline).await?;
        }
        while let Some(held) = self.held_for() {
            self.check(deadline.saturating_duration_since(Instant::now()))?;
            sleep(held).await;
        }
        if !is_try {
            self.check(Duration::ZERO)?;
        }
        Ok(permit)
    }

    fn held_for(&self) -> Option<Duration> {
        self.state().held_for(Instant::now())
    }

    /// Whether its calls fail one after the other, so that few are made to try it.
    pub(super) fn is_failing(&self) -> bool {
        self.state().is_failing()
    }

    fn check(&self, patience: Duration) -> Result<(), NoPermit> {
        self.state().held(Instant::now(), patience).map_or(Ok(()), |held| Err(NoPermit::Held(held)))
    }

    /// Whether this call is the one that tries a provider that fails. An error where another one does.
    async fn claim_try(&self, longest: Duration) -> Result<bool, NoPermit> {
        let hold = longest + MARGIN;
        {
            let mut state = self.state();
            if !state.is_failing() {
                return Ok(false);
            }
            let now = Instant::now();
            if let Some(held) = state.held(now, Duration::MAX) {
                return Err(NoPermit::Held(held));
            }
            state.note_try(now + hold);
        }
        if self.store.claim_try(&self.provider_id, hold).await? {
            return Ok(true);
        }
        // Another server tries it, or knows that it works: that is read within a second.
        Err(NoPermit::Held(Held {
            why: "its calls have failed one after the other; it is being tried".to_owned(),
            retry_after: MARGIN,
        }))
    }

    async fn slot(&self, of: u32, longest: Duration, deadline: Instant) -> Result<Slot, NoPermit> {
        self.ensure().await?;
        let busy = || busy("as many calls to it as its profile allows are under way");
        let _turn = timeout_at(deadline, self.turn.lock()).await.map_err(|_| busy())?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let hold = left + longest + MARGIN;
            let slot = self.store.take_slot(&self.provider_id, SlotKind::Call, of, hold, hold);
            if let Some(slot) = slot.await? {
                return Ok(slot);
            }
            if left.is_zero() {
                return Err(busy());
            }
            tokio::select! {
                () = self.freed.notified() => {}
                () = sleep(jittered(SLOT_POLL).min(left)) => {}
            }
        }
    }

    /// Waits until the call's time by the rate.
    async fn pace(&self, every: Duration, burst: u32, deadline: Instant) -> Result<(), NoPermit> {
        self.ensure().await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let reserved = self.store.reserve_call(&self.provider_id, every, burst, left).await?;
        let wait = reserved.ok_or_else(|| busy("its rate of calls is used up for now"))?;
        if !wait.is_zero() {
            sleep(wait).await;
        }
        Ok(())
    }

    /// Waits for the permit for a send that a brake counts, if there is one. `answer_by`: when its outcome must be there.
    pub(super) async fn brake(
        self: &Arc<Self>,
        answer_by: Duration,
        patience: Duration,
    ) -> Result<Option<BrakePermit>, NoPermit> {
        let permit = self.brake_in_time(answer_by, patience);
        self.closing.run_until_cancelled(permit).await.unwrap_or(Err(NoPermit::Closing))
    }

    async fn brake_in_time(
        self: &Arc<Self>,
        answer_by: Duration,
        patience: Duration,
    ) -> Result<Option<BrakePermit>, NoPermit> {
        let Some(brake) = self.limits().brake.clone() else { return Ok(None) };
        let deadline = Instant::now() + patience;
        self.check(patience)?;
        self.ensure().await?;
        let (id, of) = (&self.provider_id, brake.count);
        loop {
            let slot = self.store.take_slot(id, SlotKind::Brake, of, brake.per, answer_by).await?;
            if let Some(slot) = slot {
                return Ok(Some(BrakePermit { shared: Arc::clone(self), brake, slot }));
            }
            if let Some(free_in) = self.store.brake_left(id, of).await? {
                self.state().stop(Instant::now() + free_in);
                self.check(Duration::ZERO)?;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(busy("as many cards as its profile's brake allows are under way"));
            }
            sleep(jittered(BRAKE_POLL).min(left)).await;
        }
    }

    /// Makes the rows that the limits need, once.
    async fn ensure(&self) -> Result<(), StoreError> {
        let limits = self.limits();
        if self.ensured.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(&limits) {
            return Ok(());
        }
        let calls = limits.in_flight.map(|count| (SlotKind::Call, count));
        let brake = limits.brake.as_ref().map(|brake| (SlotKind::Brake, brake.count));
        let slots: Vec<_> = calls.into_iter().chain(brake).collect();
        self.store.ensure_limits(&self.provider_id, &slots).await?;
        *self.ensured.lock().unwrap_or_else(PoisonError::into_inner) = Some(limits);
        Ok(())
    }

    /// Takes note of what a call showed of the provider.
    fn note(self: &Arc<Self>, condition: Condition, is_try: bool) {
        let now = Instant::now();
        let change = match condition.health {
            Health::Working => self.state().works(),
            Health::Failing => self.state().fails(now, is_try),
            Health::Unknown => None,
        };
        if let Some(change) = change {
            self.measure();
            self.tell(change);
        }
        if let Some(hold) = condition.hold
            && self.state().hold(now, hold)
            && hold >= WORTH_TELLING
        {
            let shared = Arc::clone(self);
            self.told_later(async move {
                shared.ensure().await?;
                shared.store.hold_calls(&shared.provider_id, hold).await
            });
        }
    }

    fn tell(self: &Arc<Self>, change: Change) {
        let shared = Arc::clone(self);
        let provider_id = &self.provider_id;
        match change {
            Change::Working => tracing::info!(%provider_id, "the provider works again"),
            Change::Failing { retry_in, failed_tries: 0, .. } => tracing::warn!(
                %provider_id, ?retry_in,
                "the provider's calls fail one after the other: its pools give out no accounts until it works"
            ),
            Change::Failing { retry_in, failed_tries, .. } => {
                tracing::info!(%provider_id, ?retry_in, failed_tries, "the provider still fails");
            }
        }
        self.told_later(async move {
            shared.ensure().await?;
            let id = &shared.provider_id;
            match change {
                Change::Working => shared.store.note_working(id).await,
                Change::Failing { retry_in, failed_tries, after_a_try } => {
                    shared.store.note_failing(id, retry_in, failed_tries, after_a_try).await?;
                    Ok(())
                }
            }
        });
    }

    /// Nobody waits until the other servers are told.
    fn told_later(&self, told: impl Future<Output = Result<(), StoreError>> + Send + 'static) {
        let provider_id = self.provider_id.clone();
        tokio::spawn(async move {
            if let Err(error) = told.await {
                tracing::warn!(%provider_id, %error, "the other servers could not be told how the provider is");
            }
        });
    }

    fn measure(&self) {
        let failing = if self.state().is_failing() { 1.0 } else { 0.0 };
        let provider = self.provider_id.as_str().to_owned();
        metrics::gauge!("holdfast_provider_failing", "provider" => provider).set(failing);
    }
}

impl Permit {
    /// Takes note of what the call showed of the provider.
    pub(super) fn note(&self, condition: Condition) {
        self.shared.note(condition, self.is_try);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let shared = Arc::clone(&self.shared);
        self.shared.told_later(async move {
            let free = Duration::ZERO;
            let id = &shared.provider_id;
            let ended = shared.store.end_slot(id, SlotKind::Call, slot, free).await;
            shared.freed.notify_one();
            ended
        });
    }
}

impl BrakePermit {
    /// What a failure with this reason is.
    pub(super) fn outcome_of(&self, reason: &str) -> BrakeOutcome {
        if self.brake.on.iter().any(|on| on == reason) {
            BrakeOutcome::Failed
        } else {
            BrakeOutcome::Free
        }
    }

    /// Says what became of the send.
    pub fn conclude(self, outcome: BrakeOutcome) {
        let Self { shared, brake, slot } = self;
        let free_in = match outcome {
            BrakeOutcome::Free => Duration::ZERO,
            BrakeOutcome::Failed => brake.per,
            BrakeOutcome::Unknown => return,
        };
        let told = Arc::clone(&shared);
        shared.told_later(async move {
            let id = &told.provider_id;
            told.store.end_slot(id, SlotKind::Brake, slot, free_in).await?;
            match (outcome, brake.pause) {
                (BrakeOutcome::Failed, Some(pause)) => {
                    told.store.extend_brake(id, brake.count, pause).await
                }
                _ => Ok(()),
            }
        });
    }
}

fn busy(why: &str) -> NoPermit {
    NoPermit::Held(Held { why: why.to_owned(), retry_after: MARGIN })
}

/// A bit less: servers are not to ask at the same moment.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.6..1.0))
}
