//! Begin: recording redemptions before they are sent, and why one was not.

use std::{collections::HashMap, time::Duration};

use sqlx::postgres::types::PgInterval;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store, StoreError,
    db::Db,
    duration, interval,
    lane::Batch,
    lease::{LeaseNow, lease_loss},
    redemption::{Redemption, redemption_row},
};
use crate::{
    admission::Caller,
    domain::{
        account::Rest,
        id::{PlanId, PoolId, RedemptionId, RequestId},
        lease::{LeaseLoss, LeaseRef},
        plan::Misfit,
        redemption::RedemptionState,
    },
    failpoints::Step,
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
    /// The provider said that amount, and nobody asked for it.
    pub expected_learned: bool,
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
    /// A person paused the account.
    AccountPaused,
    /// The account rests.
    NotReady {
        /// Why.
        cause: Rest,
        /// For how long.
        left: Duration,
    },
    /// The account's plan would not take the amount now, or wants nothing more.
    DoesNotFit {
        /// The plan.
        plan_id: PlanId,
        /// Why.
        misfit: Misfit,
        /// What the plan still wants, in minor units.
        headroom_minor: i64,
        /// How much of that today.
        day_headroom_minor: i64,
    },
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
redemption_row!(BegunRow { not_after: OffsetDateTime });

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
    account_paused: Option<bool>,
    rest_cause: Option<String>,
    rest_left: Option<PgInterval>,
    misfit: Option<String>,
    plan_id: Option<String>,
    headroom_minor: Option<i64>,
    day_headroom_minor: Option<i64>,
    same_request: Option<Uuid>,
    same_request_fingerprint: Option<Vec<u8>>,
    same_code: Option<Uuid>,
    same_code_request_id: Option<String>,
    same_code_state: Option<String>,
}
impl Store {
    /// Records a redemption under its lease, before it is sent.
    pub async fn begin(&self, new: NewRedemption, limits: SendLimits) -> Result<Begun, StoreError> {
        self.begin_for(&Caller::default(), new, limits).await
    }

    /// The same for a call: not recorded once the call's deadline has passed.
    pub async fn begin_for(
        &self,
        caller: &Caller,
        new: NewRedemption,
        limits: SendLimits,
    ) -> Result<Begun, StoreError> {
        let pool_id = new.lease.pool_id.clone();
        self.begin.call_for(caller, &pool_id, (new, limits)).await
    }
}

/// The lane of begins. May be repeated: an input that was recorded is found under its own id.
#[derive(Debug)]
pub(super) struct Begin {
    pub(super) db: Db,
}

impl Batch for Begin {
    type Input = (NewRedemption, SendLimits);
    type Output = Begun;
    const STEP: Step = Step::Begin;
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
            &new().map(|n| n.expected_learned).collect::<Vec<_>>(),
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
            &new().map(|n| n.expected_minor).collect::<Vec<_>>() as &[Option<i64>],
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

    /// What of the account itself, or of its plan, stands in the way.
    fn account_refusal(&self) -> Option<BeginRefusal> {
        if self.account_paused == Some(true) {
            return Some(BeginRefusal::AccountPaused);
        }
        if let (Some(cause), Some(left)) = (&self.rest_cause, &self.rest_left) {
            return Some(BeginRefusal::NotReady {
                cause: Rest::parse(cause)?,
                left: duration(left),
            });
        }
        Some(BeginRefusal::DoesNotFit {
            plan_id: PlanId::parse(self.plan_id.as_deref()?).ok()?,
            misfit: Misfit::parse(self.misfit.as_deref()?)?,
            headroom_minor: self.headroom_minor?,
            day_headroom_minor: self.day_headroom_minor?,
        })
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
            None => self.account_refusal().unwrap_or(BeginRefusal::TryAgain),
        }
    }
}
