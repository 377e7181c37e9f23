//! What changes redemptions: begin, settle and defer, each a lane.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store, StoreError,
    account::read_status,
    interval,
    lane::Batch,
    lease::{LeaseNow, lease_loss},
    redemption::{Redemption, Resolution, redemption_row},
};
use crate::domain::{
    account::AccountStatus,
    id::{PoolId, RedemptionId, RequestId},
    lease::{LeaseLoss, LeaseRef},
    money::Money,
    redemption::{Failure, RedemptionState},
};

/// A redemption to record before it is sent.
#[derive(Clone, Debug)]
pub struct NewRedemption {
    /// Its name, and the provider's idempotency key.
    pub redemption_id: RedemptionId,
    /// The lease that it is under.
    pub lease: LeaseRef,
    /// The wish that it stands for.
    pub request_id: RequestId,
    /// Ends the lease when the outcome is known.
    pub release_on_completion: bool,
    /// Finds the same code again.
    pub code_fingerprint: [u8; 32],
    /// The code, encrypted.
    pub code_ciphertext: Vec<u8>,
    /// The last characters of the code.
    pub code_last4: String,
    /// The amount that is expected, in minor units.
    pub expected_minor: Option<i64>,
}

/// What became of a redemption that was to be recorded.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It is recorded, and may be sent.
    Recorded {
        /// As recorded.
        redemption: Box<Redemption>,
        /// The provider is not to begin after this time.
        not_after: OffsetDateTime,
    },
    /// The request has a redemption already: of this code or of another.
    SameRequest {
        /// That redemption's name.
        redemption_id: RedemptionId,
        /// Whether it is of the same code.
        same_code: bool,
    },
    /// Nothing was recorded.
    Refused(BeginRefusal),
    /// A row of the answer could not be read.
    Unreadable(StoreError),
}

/// Why a redemption was not recorded.
#[derive(Clone, Debug)]
pub enum BeginRefusal {
    /// There is no such pool.
    NoPool,
    /// There is no such account.
    NoAccount,
    /// The lease is not the caller's any more.
    LeaseLost(LeaseLoss),
    /// The account has another redemption whose outcome is not known.
    RedemptionOpen(RedemptionId),
    /// The code is being redeemed, or was, for another request.
    CodeInUse {
        /// By this redemption.
        redemption_id: RedemptionId,
        /// For this request.
        request_id: RequestId,
        /// Which stands so.
        state: RedemptionState,
    },
    /// The pool begins nothing new.
    Paused,
    /// What stood in the way has gone: the same call may be made again.
    TryAgain,
}

/// How long the provider, and then this server, may take.
#[derive(Clone, Copy, Debug)]
pub struct SendLimits {
    /// How long after now the provider may still begin.
    pub not_after: Duration,
    /// When, from now, the reconciler takes over if nobody has settled it.
    pub take_over: Duration,
}

/// An outcome to record.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The redemption.
    pub redemption_id: RedemptionId,
    /// What became of it.
    pub outcome: Outcome,
    /// Calls to the provider since the last record.
    pub attempts: i32,
    /// Who settles: a holder, the reconciler, or a person.
    pub actor: String,
    /// A person's word, when it is that.
    pub resolution: Option<Resolution>,
    /// The provider refused the account's login.
    pub login_invalid: bool,
    /// It only follows from what this server sent: it does not hold once the redemption is in doubt,
    /// because then somebody else may have sent it too.
    pub inferred: bool,
}

/// See [`Settlement`].
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Credited.
    Succeeded {
        /// This much.
        amount: Money,
        /// The provider's own name for it, if it is known.
        provider_ref: Option<String>,
    },
    /// Not credited.
    Failed(Failure),
}

/// What a settlement did.
#[derive(Clone, Debug)]
pub enum Settled {
    /// It is recorded.
    Recorded {
        /// As settled.
        redemption: Box<Redemption>,
        /// The account's status now.
        account_status: AccountStatus,
        /// The account's balance now, in minor units.
        account_balance_minor: i64,
    },
    /// The redemption was settled before, or there is none, or it is in doubt and the outcome was only
    /// inferred.
    Already,
    /// A row of the answer could not be read.
    Unreadable(StoreError),
}

/// Doubt to record.
#[derive(Clone, Debug)]
pub struct Deferral {
    /// The redemption.
    pub redemption_id: RedemptionId,
    /// What was answered.
    pub answer: String,
    /// Calls to the provider since the last record.
    pub attempts: i32,
    /// What to do next.
    pub next: Next,
}

/// See [`Deferral`].
#[derive(Clone, Debug)]
pub enum Next {
    /// The reconciler looks at it, after a while.
    Check {
        /// How long.
        after: Duration,
        /// Whether the provider did not know the key this time.
        not_found: bool,
    },
    /// A person looks at it.
    Review {
        /// What does not fit.
        failure: Failure,
        /// What the provider says that it credited.
        amount: Option<Money>,
        /// The provider's own name for it.
        provider_ref: Option<String>,
    },
}

redemption_row!(BegunRow { not_after: OffsetDateTime });
redemption_row!(SettledRow { account_status: String, account_balance_minor: i64 });
redemption_row!(DeferredRow {});

struct BeginMiss {
    place: i32,
    pool_exists: bool,
    pool_paused: bool,
    status: Option<String>,
    fencing_token: Option<i64>,
    lease_end: Option<String>,
    lease_expired: Option<bool>,
    release_requested: Option<bool>,
    open_redemption_id: Option<Uuid>,
    same_request: Option<Uuid>,
    same_request_fingerprint: Option<Vec<u8>>,
    same_code: Option<Uuid>,
    same_code_request_id: Option<String>,
    same_code_state: Option<String>,
}

impl Store {
    /// Records a redemption under its lease, before it is sent.
    pub async fn begin(&self, new: NewRedemption, limits: SendLimits) -> Result<Begun, StoreError> {
        let pool_id = new.lease.pool_id.clone();
        self.begin.call(&pool_id, (new, limits)).await
    }

    /// Records an outcome, credits the account and gives it back if that was wished or due.
    pub async fn settle(
        &self,
        pool_id: &PoolId,
        settlement: Settlement,
    ) -> Result<Settled, StoreError> {
        self.settle.call(pool_id, settlement).await
    }

    /// Records that an outcome is not known yet; `None` when it is known, or is a person's to find.
    pub async fn defer(
        &self,
        pool_id: &PoolId,
        deferral: Deferral,
    ) -> Result<Option<Redemption>, StoreError> {
        self.defer.call(pool_id, deferral).await?.transpose()
    }
}

/// The lane of begins. May be repeated: an input that was recorded is found under its own id.
#[derive(Debug)]
pub(super) struct Begin {
    pub(super) db: PgPool,
}

impl Batch for Begin {
    type Input = (NewRedemption, SendLimits);
    type Output = Begun;
    const NAME: &'static str = "begin";
    const DROPPED_WITH_CALLER: bool = true;

    async fn run(
        &self,
        pool_id: &PoolId,
        inputs: &[Self::Input],
    ) -> Result<Vec<Begun>, sqlx::Error> {
        let Some((_, limits)) = inputs.first() else { return Ok(Vec::new()) };
        let mut answers: HashMap<Uuid, Begun> = HashMap::with_capacity(inputs.len());
        for row in self.insert(pool_id, inputs, *limits).await? {
            answers.insert(row.redemption_id, row.begun(pool_id));
        }
        let missed: Vec<_> = inputs
            .iter()
            .enumerate()
            .filter(|(_, (new, _))| !answers.contains_key(&new.redemption_id.0))
            .collect();
        let mut explained: HashMap<usize, BeginMiss> = HashMap::new();
        if !missed.is_empty() {
            for miss in self.explain(pool_id, &missed).await? {
                explained.insert(usize::try_from(miss.place).unwrap_or(usize::MAX), miss);
            }
        }
        let mut outputs = Vec::with_capacity(inputs.len());
        for (place, (new, _)) in inputs.iter().enumerate() {
            outputs.push(match (answers.remove(&new.redemption_id.0), explained.remove(&place)) {
                (Some(begun), _) => begun,
                (None, Some(miss)) => miss.begun(new),
                (None, None) => Begun::Refused(BeginRefusal::TryAgain),
            });
        }
        Ok(outputs)
    }
}

impl Begin {
    async fn insert(
        &self,
        pool_id: &PoolId,
        inputs: &[(NewRedemption, SendLimits)],
        limits: SendLimits,
    ) -> Result<Vec<BegunRow>, sqlx::Error> {
        let new = || inputs.iter().map(|(new, _)| new);
        sqlx::query_file_as!(
            BegunRow,
            "src/store/sql/begin.sql",
            pool_id.as_str(),
            &new().map(|n| n.redemption_id.0).collect::<Vec<_>>(),
            &new().map(|n| n.lease.account_id.to_string()).collect::<Vec<_>>(),
            &new().map(|n| n.lease.token.0).collect::<Vec<_>>(),
            &new().map(|n| n.request_id.to_string()).collect::<Vec<_>>(),
            &new().map(|n| n.release_on_completion).collect::<Vec<_>>(),
            &new().map(|n| n.code_fingerprint.to_vec()).collect::<Vec<_>>(),
            &new().map(|n| n.code_ciphertext.clone()).collect::<Vec<_>>(),
            &new().map(|n| n.code_last4.clone()).collect::<Vec<_>>(),
            &new().map(|n| n.expected_minor).collect::<Vec<_>>() as &[Option<i64>],
            interval(limits.not_after),
            interval(limits.take_over),
        )
        .fetch_all(&self.db)
        .await
    }

    async fn explain(
        &self,
        pool_id: &PoolId,
        missed: &[(usize, &(NewRedemption, SendLimits))],
    ) -> Result<Vec<BeginMiss>, sqlx::Error> {
        let new = || missed.iter().map(|(_, (new, _))| new);
        let places: Vec<_> =
            missed.iter().map(|(place, _)| i32::try_from(*place).unwrap_or(i32::MAX)).collect();
        sqlx::query_file_as!(
            BeginMiss,
            "src/store/sql/explain_begin.sql",
            pool_id.as_str(),
            &places,
            &new().map(|n| n.lease.account_id.to_string()).collect::<Vec<_>>(),
            &new().map(|n| n.request_id.to_string()).collect::<Vec<_>>(),
            &new().map(|n| n.code_fingerprint.to_vec()).collect::<Vec<_>>(),
        )
        .fetch_all(&self.db)
        .await
    }
}

impl BegunRow {
    fn begun(self, pool_id: &PoolId) -> Begun {
        let not_after = self.not_after;
        match self.redemption(pool_id) {
            Ok(redemption) => Begun::Recorded { redemption: Box::new(redemption), not_after },
            Err(error) => Begun::Unreadable(error),
        }
    }
}

impl BeginMiss {
    /// Says what stood in the way of `new`. The request comes first: whatever lease a retry comes
    /// under, it is answered with what it began.
    fn begun(self, new: &NewRedemption) -> Begun {
        if let Some(id) = self.same_request {
            return Begun::SameRequest {
                redemption_id: RedemptionId(id),
                same_code: self.same_request_fingerprint.as_deref()
                    == Some(&new.code_fingerprint[..]),
            };
        }
        Begun::Refused(self.refusal(new))
    }

    fn refusal(self, new: &NewRedemption) -> BeginRefusal {
        if !self.pool_exists {
            return BeginRefusal::NoPool;
        }
        let (Some(status), Some(token)) = (self.status.as_deref(), self.fencing_token) else {
            return BeginRefusal::NoAccount;
        };
        let now = LeaseNow {
            status,
            token,
            end: self.lease_end.as_deref(),
            expired: self.lease_expired.unwrap_or(false),
            release_requested: self.release_requested.unwrap_or(false),
        };
        if let Some(loss) = lease_loss(new.lease.token, &now) {
            return BeginRefusal::LeaseLost(loss);
        }
        if let Some(id) = self.open_redemption_id {
            return BeginRefusal::RedemptionOpen(RedemptionId(id));
        }
        let code_in_use = self.same_code.and_then(|id| {
            let request_id = RequestId::parse_any(self.same_code_request_id.as_deref()?).ok()?;
            let state = RedemptionState::parse(self.same_code_state.as_deref()?)?;
            Some(BeginRefusal::CodeInUse { redemption_id: RedemptionId(id), request_id, state })
        });
        match code_in_use {
            Some(refusal) => refusal,
            None if self.pool_paused => BeginRefusal::Paused,
            None => BeginRefusal::TryAgain,
        }
    }
}

/// The inputs without those that name a redemption which an earlier one names: a statement changes a
/// row once, and which of two inputs it took could not be told. The later ones find it changed.
fn firsts<T>(inputs: &[T], id: impl Fn(&T) -> RedemptionId) -> impl Iterator<Item = &T> {
    let mut seen = HashSet::new();
    inputs.iter().filter(move |input| seen.insert(id(input)))
}

/// The lane of settlements. May be repeated: one that was recorded is found settled, and whoever
/// settles then reads what is there.
#[derive(Debug)]
pub(super) struct Settle {
    pub(super) db: PgPool,
}

impl Batch for Settle {
    type Input = Settlement;
    type Output = Settled;
    const NAME: &'static str = "settle";
    const DROPPED_WITH_CALLER: bool = false;

    async fn run(
        &self,
        pool_id: &PoolId,
        inputs: &[Settlement],
    ) -> Result<Vec<Settled>, sqlx::Error> {
        let first: Vec<_> = firsts(inputs, |settlement| settlement.redemption_id).collect();
        let rows = self.update(pool_id, &first).await?;
        let mut settled: HashMap<Uuid, Settled> =
            rows.into_iter().map(|row| (row.redemption_id, row.settled(pool_id))).collect();
        Ok(inputs
            .iter()
            .map(|input| settled.remove(&input.redemption_id.0).unwrap_or(Settled::Already))
            .collect())
    }
}

impl Settle {
    async fn update(
        &self,
        pool_id: &PoolId,
        inputs: &[&Settlement],
    ) -> Result<Vec<SettledRow>, sqlx::Error> {
        let column = |read: fn(&Settlement) -> Option<String>| -> Vec<Option<String>> {
            inputs.iter().map(|settlement| read(settlement)).collect()
        };
        sqlx::query_file_as!(
            SettledRow,
            "src/store/sql/settle.sql",
            pool_id.as_str(),
            &inputs.iter().map(|s| s.redemption_id.0).collect::<Vec<_>>(),
            &inputs.iter().map(|s| s.outcome.state().as_str().to_owned()).collect::<Vec<_>>(),
            &inputs.iter().map(|s| s.outcome.amount().map(|m| m.amount_minor)).collect::<Vec<_>>()
                as &[Option<i64>],
            &column(|s| s.outcome.amount().map(|m| m.currency.to_string())) as &[Option<String>],
            &column(|s| s.outcome.provider_ref()) as &[Option<String>],
            &column(|s| s.outcome.failure().map(|f| f.reason.clone())) as &[Option<String>],
            &column(|s| s.outcome.failure().map(|f| f.message.clone())) as &[Option<String>],
            &inputs.iter().map(|s| s.outcome.failure().map(|f| f.code_spent)).collect::<Vec<_>>()
                as &[Option<bool>],
            &inputs.iter().map(|s| s.attempts).collect::<Vec<_>>(),
            &inputs.iter().map(|s| s.actor.clone()).collect::<Vec<_>>(),
            &column(|s| s.resolution.as_ref().map(|r| r.resolved_by.clone()))
                as &[Option<String>],
            &column(|s| s.resolution.as_ref().map(|r| r.reason.clone())) as &[Option<String>],
            &inputs.iter().map(|s| s.login_invalid).collect::<Vec<_>>(),
            &inputs.iter().map(|s| s.inferred).collect::<Vec<_>>(),
        )
        .fetch_all(&self.db)
        .await
    }
}

impl SettledRow {
    fn settled(self, pool_id: &PoolId) -> Settled {
        let account_balance_minor = self.account_balance_minor;
        let read = read_status(&self.account_status)
            .and_then(|status| Ok((status, Box::new(self.redemption(pool_id)?))));
        match read {
            Ok((account_status, redemption)) => {
                Settled::Recorded { redemption, account_status, account_balance_minor }
            }
            Err(error) => Settled::Unreadable(error),
        }
    }
}

impl Outcome {
    fn state(&self) -> RedemptionState {
        match self {
            Self::Succeeded { .. } => RedemptionState::Succeeded,
            Self::Failed(_) => RedemptionState::Failed,
        }
    }

    fn amount(&self) -> Option<Money> {
        match self {
            Self::Succeeded { amount, .. } => Some(*amount),
            Self::Failed(_) => None,
        }
    }

    fn provider_ref(&self) -> Option<String> {
        match self {
            Self::Succeeded { provider_ref, .. } => provider_ref.clone(),
            Self::Failed(_) => None,
        }
    }

    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Succeeded { .. } => None,
            Self::Failed(failure) => Some(failure),
        }
    }
}

/// The lane of deferrals. May be repeated: the same doubt twice is counted twice, and is no worse.
#[derive(Debug)]
pub(super) struct Defer {
    pub(super) db: PgPool,
}

impl Batch for Defer {
    type Input = Deferral;
    type Output = Option<Result<Redemption, StoreError>>;
    const NAME: &'static str = "defer";
    const DROPPED_WITH_CALLER: bool = false;

    async fn run(
        &self,
        pool_id: &PoolId,
        inputs: &[Deferral],
    ) -> Result<Vec<Self::Output>, sqlx::Error> {
        let first: Vec<_> = firsts(inputs, |deferral| deferral.redemption_id).collect();
        let rows = self.update(pool_id, &first).await?;
        let mut deferred: HashMap<Uuid, _> =
            rows.into_iter().map(|row| (row.redemption_id, row.redemption(pool_id))).collect();
        Ok(inputs.iter().map(|input| deferred.remove(&input.redemption_id.0)).collect())
    }
}

impl Defer {
    async fn update(
        &self,
        pool_id: &PoolId,
        inputs: &[&Deferral],
    ) -> Result<Vec<DeferredRow>, sqlx::Error> {
        let text = |read: fn(&Next) -> Option<String>| -> Vec<Option<String>> {
            inputs.iter().map(|d| read(&d.next)).collect()
        };
        sqlx::query_file_as!(
            DeferredRow,
            "src/store/sql/defer.sql",
            pool_id.as_str(),
            &inputs.iter().map(|d| d.redemption_id.0).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.next.state().as_str().to_owned()).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.answer.clone()).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.next.after().map(interval)).collect::<Vec<_>>()
                as &[Option<sqlx::postgres::types::PgInterval>],
            &inputs.iter().map(|d| d.attempts).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.next.not_found()).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.next.amount().map(|m| m.amount_minor)).collect::<Vec<_>>()
                as &[Option<i64>],
            &text(|n| n.amount().map(|m| m.currency.to_string())) as &[Option<String>],
            &text(|n| n.provider_ref()) as &[Option<String>],
            &text(|n| n.failure().map(|f| f.reason.clone())) as &[Option<String>],
            &text(|n| n.failure().map(|f| f.message.clone())) as &[Option<String>],
            &inputs.iter().map(|d| d.next.failure().map(|f| f.code_spent)).collect::<Vec<_>>()
                as &[Option<bool>],
        )
        .fetch_all(&self.db)
        .await
    }
}

impl Next {
    fn state(&self) -> RedemptionState {
        match self {
            Self::Check { .. } => RedemptionState::InDoubt,
            Self::Review { .. } => RedemptionState::NeedsReview,
        }
    }

    fn after(&self) -> Option<Duration> {
        match self {
            Self::Check { after, .. } => Some(*after),
            Self::Review { .. } => None,
        }
    }

    fn not_found(&self) -> bool {
        matches!(self, Self::Check { not_found: true, .. })
    }

    fn amount(&self) -> Option<Money> {
        match self {
            Self::Check { .. } => None,
            Self::Review { amount, .. } => *amount,
        }
    }

    fn provider_ref(&self) -> Option<String> {
        match self {
            Self::Check { .. } => None,
            Self::Review { provider_ref, .. } => provider_ref.clone(),
        }
    }

    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Check { .. } => None,
            Self::Review { failure, .. } => Some(failure),
        }
    }
}
