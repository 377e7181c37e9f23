//! Errors: why a request was not done. `rpc::status` is where each becomes a gRPC error.

mod texts;

use std::time::Duration;

use self::texts::{
    amount, by_whom, count, describe, does_not_fit, in_use, lost, no_provider, not_redeemable,
    not_reversed, on_whose_word, others, rests, such_as,
};
use crate::{
    domain::{
        account::Rest,
        choice::{Choice, Counts},
        id::{
            AccountId, PlanId, PoolId, ProviderId, RedemptionId, RequestId, SubscriptionId,
            TokenName,
        },
        lease::{LeaseLoss, LeaseRef},
        money::{Currency, Money},
        plan::Misfit,
        pool::PoolUse,
        provider::ProfileVersion,
        redemption::{CannotReverse, Redemption, RedemptionState, ReversalRefusal, ReversalState},
    },
    store::StoreError,
};

/// A field that breaks a rule, by its path in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// As `lease.pool_id`.
    pub field: String,
    /// What it must be. Never repeats a card's code.
    pub rule: String,
}

impl Violation {
    /// A violation of `rule` by `field`.
    pub fn new(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { field: field.into(), rule: rule.into() }
    }
}

/// A person's word by which a redemption has its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountingWord {
    /// Which of the redemption's resolutions it is, counted from 1.
    pub number: i32,
    /// Who said so.
    pub resolved_by: String,
}

impl CountingWord {
    /// The word that a redemption's outcome rests on, if one is.
    pub(super) fn of(redemption: &Redemption) -> Option<Self> {
        let resolution = redemption.resolution.as_ref().filter(|_| redemption.is_settled_by_word());
        resolution.map(|resolution| Self {
            number: redemption.resolution_number(),
            resolved_by: resolution.resolved_by.clone(),
        })
    }
}

/// Why a request was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Fields break rules: all of them at once.
    #[error("{}", describe(.0))]
    Invalid(Vec<Violation>),
    /// There is no such pool.
    #[error("there is no pool {0}")]
    PoolNotFound(PoolId),
    /// There is no such account.
    #[error("there is no account {1} in pool {0}")]
    AccountNotFound(PoolId, AccountId),
    /// There is no such plan.
    #[error("there is no plan {1} in pool {0}")]
    PlanNotFound(PoolId, PlanId),
    /// There is no such redemption.
    #[error("there is no redemption {1} in pool {0}")]
    RedemptionNotFound(PoolId, String),
    /// The database is not the one, or has not any more, what a cursor comes after.
    #[error(
        "the database does not have the outcomes of pool {0} that this cursor comes after: it was restored from a \
         backup, or is another one. Compare what you were told with the redemptions that there are, and watch again \
         without a cursor, or from \"now\""
    )]
    CursorLost(PoolId),
    /// Nothing can be begun with the provider now.
    #[error(
        "provider {provider_id} cannot be used by this server now, and nothing was begun: {why}"
    )]
    ProviderUnavailable {
        /// The provider.
        provider_id: ProviderId,
        /// What is missing, or wrong.
        why: String,
        /// When it may be tried again, where that is known.
        retry_after: Option<Duration>,
    },
    /// No profile of such a provider was applied, or not this version.
    #[error("{}", no_provider(.provider_id, *.version))]
    ProviderNotFound {
        /// The provider.
        provider_id: ProviderId,
        /// The version that was asked for, if one was.
        version: Option<i32>,
    },
    /// The version of the profile is there already, with another text.
    #[error(
        "version {} of provider {} was applied before with another text, and never changes: give the changed \
         profile a higher version", .0.version, .0.provider_id
    )]
    ProviderVersionExists(ProfileVersion),
    /// There is no such token.
    #[error("there is no token {0}")]
    TokenNotFound(TokenName),
    /// A token has this name.
    #[error(
        "a token {0} was made before: names are never used again, so that records stay true. Choose another"
    )]
    TokenExists(TokenName),
    /// There is no such subscription.
    #[error("there is no subscription {1} in pool {0}")]
    SubscriptionNotFound(PoolId, SubscriptionId),
    /// The subscription is there already.
    #[error("subscription {1} exists already in pool {0}")]
    SubscriptionExists(PoolId, SubscriptionId),
    /// The pool has as many subscriptions as it may have.
    #[error(
        "pool {0} has {1} subscriptions, and no pool may have more: delete one that is not needed"
    )]
    TooManySubscriptions(PoolId, u32),
    /// The pool is there already.
    #[error("pool {0} exists already")]
    PoolExists(PoolId),
    /// The plan is there already.
    #[error("plan {1} exists already in pool {0}")]
    PlanExists(PoolId, PlanId),
    /// The account is there already.
    #[error("account {1} exists already in pool {0}")]
    AccountExists(PoolId, AccountId),
    /// The request stands for something else.
    #[error("request_id {request_id} was used before with another {}", .differ.join(", another "))]
    RequestIdReused {
        /// The request.
        request_id: RequestId,
        /// The fields that are not as they were.
        differ: Vec<&'static str>,
    },
    /// No account became available in time.
    #[error(
        "no account of pool {pool_id} is available for these criteria; waited {}, position {position} of {waiting}: {}",
        humantime::format_duration(*.waited), count(.counts)
    )]
    NoAccountAvailable {
        /// Of this pool.
        pool_id: PoolId,
        /// How long was waited.
        waited: Duration,
        /// The caller's position among those who waited on this server, from 1.
        position: usize,
        /// How many of them there were.
        waiting: usize,
        /// How many accounts there are of each cause.
        counts: Counts,
    },
    /// The lease is not the caller's any more.
    #[error("the lease with token {} on account {} is lost: {}", .lease.token, .lease.account_id, lost(*.loss))]
    LeaseLost {
        /// The lease.
        lease: LeaseRef,
        /// Why.
        loss: LeaseLoss,
    },
    /// The lease is another caller's.
    #[error(
        "the lease with token {} on account {} was acquired by another principal: {}",
        .lease.token, .lease.account_id, others(.needs)
    )]
    OthersLease {
        /// The lease.
        lease: LeaseRef,
        /// What the caller would need: a role, or [`OWN_LEASE`].
        needs: &'static str,
    },
    /// The account has a redemption whose outcome is not known.
    #[error(
        "redemption {0} is open on the account; read it with GetRedemption, and wait until it is settled"
    )]
    RedemptionOpen(RedemptionId),
    /// The code is being redeemed, or was.
    #[error("the code is {} {}", in_use(*.state), by_whom(.redemption.as_ref()))]
    CodeInUse {
        /// By this redemption, for this request; `None` where the caller may not read it.
        redemption: Option<(RedemptionId, RequestId)>,
        /// Which stands so.
        state: RedemptionState,
    },
    /// The provider would not redeem the card.
    #[error("{}", not_redeemable(*.known))]
    CardNotRedeemable {
        /// Whether the provider knows the card at all.
        known: bool,
    },
    /// The card is of another currency than the pool.
    #[error(
        "the card is worth {card_currency}, and the pool's currency is {pool_currency}: redeem it in a pool of {card_currency}"
    )]
    CurrencyMismatch {
        /// The card's.
        card_currency: Currency,
        /// The pool's.
        pool_currency: Currency,
    },
    /// The card is of another country than the accounts that were asked for.
    #[error(
        "the card is of {card_country}, and accounts of {selector_country} were asked for: ask for accounts of {card_country}, or of any country"
    )]
    CountryMismatch {
        /// The card's.
        card_country: String,
        /// The selector's.
        selector_country: String,
    },
    /// The provider could not be asked about the card; nothing was begun.
    #[error(
        "the provider did not answer what the card is worth: {why}; nothing was begun: send the item again"
    )]
    InquiryFailed {
        /// The outcome of the last question.
        why: String,
        /// When the provider wants to be asked again, if it tells.
        retry_after: Option<Duration>,
    },
    /// The pool begins nothing new.
    #[error("pool {0} is paused: nothing new is begun in it until it is resumed with UpdatePool")]
    PoolPaused(PoolId),
    /// The pool gives out no new leases.
    #[error(
        "pool {0} is draining: no new lease is given in it until it is resumed with UpdatePool"
    )]
    PoolDraining(PoolId),
    /// Nothing new is begun on the account.
    #[error(
        "account {1} of pool {0} is paused: nothing is redeemed into it until it is resumed with \
         UpdateAccount"
    )]
    AccountPaused(PoolId, AccountId),
    /// The account rests for a while.
    #[error(
        "account {account_id} of pool {pool_id} cannot be used for another {}: {}",
        humantime::format_duration(Duration::from_secs(.left.as_secs() + 1)), rests(*.cause)
    )]
    AccountNotReady {
        /// Its pool.
        pool_id: PoolId,
        /// The account.
        account_id: AccountId,
        /// Why.
        cause: Rest,
        /// For how long.
        left: Duration,
    },
    /// The account's plan would not take the amount.
    #[error(
        "plan {plan_id}, of account {account_id}, would not take {}: {}; it still wants \
         {headroom_minor} (in minor units), and {day_headroom_minor} of it today",
        amount(*.expected_minor), does_not_fit(*.misfit)
    )]
    AmountDoesNotFit {
        /// The account.
        account_id: AccountId,
        /// Its plan.
        plan_id: PlanId,
        /// What was expected, in minor units.
        expected_minor: Option<i64>,
        /// Why it does not fit.
        misfit: Misfit,
        /// What the plan still wants.
        headroom_minor: i64,
        /// How much of that today.
        day_headroom_minor: i64,
    },
    /// The pool has accounts, or had some: they and their history are kept.
    #[error(
        "pool {0} has {accounts} accounts and {redemptions} redemptions, and only a pool that never had an account is \
         deleted: drain it instead, and its history stays",
        accounts = .1.accounts,
        redemptions = .1.redemptions
    )]
    PoolInUse(PoolId, PoolUse),
    /// Accounts are bound to the plan.
    #[error(
        "plan {plan_id} of pool {pool_id} has accounts bound to it{}: give them another plan, or none, \
         first",
        such_as(.account_id.as_ref())
    )]
    PlanInUse {
        /// Its pool.
        pool_id: PoolId,
        /// The plan.
        plan_id: PlanId,
        /// One of the accounts; none when the last has gone since.
        account_id: Option<AccountId>,
    },
    /// The account's plan cannot be changed while it is under a lease.
    #[error("account {1} of pool {0} is LOCKING: its plan can be changed when its lease has ended")]
    AccountLocked(PoolId, AccountId),
    /// The redemption is settled, with another outcome than the one that was given.
    #[error("redemption {redemption_id} is {} already{}", .state.as_str(), on_whose_word(.word.as_ref()))]
    AlreadySettled {
        /// The redemption.
        redemption_id: RedemptionId,
        /// As which it is settled.
        state: RedemptionState,
        /// The person's word by which it is, which can be corrected; none where the provider proved it.
        word: Option<CountingWord>,
    },
    /// The redemption cannot be taken back so.
    #[error("redemption {redemption_id} {}", not_reversed(*.why, profile))]
    ReversalRefused {
        /// The redemption.
        redemption_id: RedemptionId,
        /// Why not.
        why: ReversalRefusal,
        /// The profile that it was redeemed under.
        profile: ProfileVersion,
    },
    /// The account has less than is to be taken off.
    #[error(
        "account {account_id} has {balance_minor} (in minor units), less than the {amount} that redemption \
         {redemption_id} brought: find out where it went, and correct the balance first; nothing was sent"
    )]
    BalanceTooLow {
        /// The redemption.
        redemption_id: RedemptionId,
        /// Its account.
        account_id: AccountId,
        /// What it has.
        balance_minor: i64,
        /// What is to be taken off.
        amount: Money,
    },
    /// Another resolution counts than the one that is to be corrected.
    #[error(
        "resolution {} of redemption {redemption_id} counts, by {}, and another one was to be corrected: read the \
         redemption, and correct what is still wrong",
        word.number, word.resolved_by
    )]
    ResolutionChanged {
        /// The redemption.
        redemption_id: RedemptionId,
        /// The resolution that counts.
        word: CountingWord,
    },
    /// The account has another balance than the one that a person compared.
    #[error(
        "account {account_id} has {balance_minor} (in minor units), and {expected_minor} was expected: it has changed \
         since it was compared. Read it, compare it with the provider's again, and correct what is still wrong"
    )]
    BalanceChanged {
        /// The account.
        account_id: AccountId,
        /// What it has.
        balance_minor: i64,
        /// What was expected.
        expected_minor: i64,
    },
    /// A message of the request began, and did not end in time; nothing was begun.
    #[error(
        "the request was not complete within {}; nothing was begun: send it again, with its end",
        humantime::format_duration(*.0)
    )]
    RequestIncomplete(Duration),
    /// Nothing came on a stream for too long. What came before was done.
    #[error(
        "nothing came on the stream for {}; what came before was done: send the rest in another",
        humantime::format_duration(*.0)
    )]
    StreamIdle(Duration),
    /// The server is stopping, and the call has begun nothing.
    #[error(
        "the server is shutting down, and has begun nothing of this call: make it again, on another server or on this \
         one when it is back"
    )]
    ShuttingDown,
    /// A stream ends before its client has sent all of it. What was begun stays begun.
    #[error(
        "{}: of {received} items that were read, {begun} were begun, and are finished whatever becomes of the stream; \
         send all of them again, to another server or to this one: nothing is done twice", why.describe()
    )]
    StreamStopped {
        /// Why it ends.
        why: StreamStop,
        /// Items that were read.
        received: i64,
        /// Of those: items that stay begun.
        begun: i64,
    },
    /// There is no room for one more who waits; nothing was done.
    #[error("too many calls wait for the database")]
    Overloaded,
    /// The caller's deadline passed before anything was begun; nothing was done.
    #[error("the deadline passed before anything was begun")]
    DeadlinePassed,
    /// The database cannot be reached or takes no writes; the same call may be tried again.
    #[error("the database is unavailable: {0}")]
    DatabaseUnavailable(String),
    /// The database, or a row of it, is not as the program expects: a bug of ours, or a change by hand.
    #[error(transparent)]
    Database(StoreError),
    /// A bug of ours.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// Why a stream ends before its client has sent all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStop {
    /// The server is stopping.
    ShuttingDown,
    /// What its client had sent was evicted, to make room for others.
    Overloaded,
}

impl StreamStop {
    fn describe(self) -> &'static str {
        match self {
            Self::ShuttingDown => "the server is shutting down",
            Self::Overloaded => "the server is overloaded",
        }
    }
}

impl Error {
    /// The same of a stream of which something may have been begun.
    pub fn of_stream(self, received: i64, begun: i64) -> Self {
        let why = match self {
            Self::ShuttingDown => StreamStop::ShuttingDown,
            Self::Overloaded => StreamStop::Overloaded,
            other => return other,
        };
        Self::StreamStopped { why, received, begun }
    }
}

/// The role that ends the leases of others.
pub const OPERATOR: &str = "operator";
/// No role helps: a lease is used by the one that acquired it.
pub const OWN_LEASE: &str = "own-lease";

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Overloaded => Self::Overloaded,
            StoreError::DeadlinePassed => Self::DeadlinePassed,
            // A statement may have been under way.
            StoreError::ShuttingDown => Self::DatabaseUnavailable(
                "the server stopped before the database answered".to_owned(),
            ),
            StoreError::Unavailable(cause) => Self::DatabaseUnavailable(cause),
            StoreError::KeyChanged => Self::DatabaseUnavailable(error.to_string()),
            StoreError::Refused(_)
            | StoreError::CodeRedeemedAgain
            | StoreError::Unreadable(_)
            | StoreError::BadUrl(_)
            | StoreError::Migration(_)
            | StoreError::Schema(_) => Self::Database(error),
        }
    }
}

/// All checks in one: every field that one of them refuses is named.
pub(super) fn all(checks: impl IntoIterator<Item = Result<(), Error>>) -> Result<(), Error> {
    let mut violations = Vec::new();
    for check in checks {
        match check {
            Err(Error::Invalid(more)) => violations.extend(more),
            other => other?,
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}
