//! Failpoints and switched-off guards, for the fault suite alone: without the feature
//! `crash-points`, which only tests turn on, everything here is nothing.
//!
//! A *failpoint* is before or after one step of the protocol. `HOLDFAST_CRASH_POINTS` names
//! points, what happens there, and at which pass: `begin.after=kill`, `send.before=stop@3`,
//! `settle.before=delay:500ms`, separated by commas. Each strikes once.
//!
//! A *guard* is a condition in Rust that keeps a promise. `HOLDFAST_GUARDS_OFF` names those that do
//! not hold, so that the suite can show that it notices.

/// A step of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The statement that gives leases.
    Acquire,
    /// The statement that makes leases end later.
    Renew,
    /// The statement that records redemptions.
    Begin,
    /// The request that may spend a card.
    Send,
    /// The statement that records outcomes.
    Settle,
    /// The statement that records doubt.
    Defer,
    /// The statement that ends leases for their holders.
    Release,
    /// The statement that ends leases whose time has passed.
    Expire,
    /// The statement that claims redemptions to check.
    Claim,
    /// The question what became of a key.
    LookUp,
    /// The same request once more, for a redemption in doubt.
    SendAgain,
    /// The search for what became of a redemption.
    Find,
    /// The request that nothing happens under a key any more.
    Cancel,
    /// The request that takes back what was done.
    Reverse,
    /// The statement that records a reversal, before it is asked for.
    BeginReversal,
    /// The statement that keeps the provider's id of its work.
    RecordTask,
    /// The statement that notes that a redemption is sent again.
    NoteSend,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 17] = [
        Self::Acquire,
        Self::Renew,
        Self::Begin,
        Self::Send,
        Self::Settle,
        Self::Defer,
        Self::Release,
        Self::Expire,
        Self::Claim,
        Self::LookUp,
        Self::SendAgain,
        Self::Find,
        Self::Cancel,
        Self::Reverse,
        Self::BeginReversal,
        Self::RecordTask,
        Self::NoteSend,
    ];

    /// The word for it, in metrics, logs and the variable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Renew => "renew",
            Self::Begin => "begin",
            Self::Send => "send",
            Self::Settle => "settle",
            Self::Defer => "defer",
            Self::Release => "release",
            Self::Expire => "expire",
            Self::Claim => "claim",
            Self::LookUp => "look_up",
            Self::SendAgain => "send_again",
            Self::Find => "find",
            Self::Cancel => "cancel",
            Self::Reverse => "reverse",
            Self::BeginReversal => "begin_reversal",
            Self::RecordTask => "record_task",
            Self::NoteSend => "note_send",
        }
    }
}

/// Which side of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Nothing of it has been done.
    Before,
    /// It has been done, and nothing that follows from it.
    After,
}

/// A condition that keeps a promise, and can be switched off to show that its absence is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// A server that stood still for too long does not send any more.
    LateIsNotSent,
    /// That no answer came proves nothing.
    LostIsNoProof,
    /// A failure counts, once in doubt, only when it is told by the key.
    FailureByKey,
    /// An answer that names nobody proves nothing on a connection that carried another request before.
    ReusedIsNoProof,
    /// Once in doubt, a refused send proves something only where the provider answers a key as it did first.
    RefusedAgainIsNoProof,
    /// That a redemption is not found proves nothing, unless the provider's profile says that it does.
    NotFoundIsNoProof,
    /// Nor does it before the redemption can no longer come.
    NotFoundIsLate,
    /// What was found by its code alone may be another's.
    CodesFindOthers,
    /// What only follows from what one server sent holds only while nobody else has taken over.
    InferredIsNotProof,
    /// Codes are taken out of what a provider says before it is kept.
    CodesAreTakenOut,
    /// A request that was seen before must ask for the same.
    SameRequest,
    /// A lease is handed out only while it lasts.
    HandedOutAlive,
    /// A row that cannot be written is left out, so that its neighbours go on.
    BadRowsAreLeftOut,
    /// A change whose reply was lost is found by its id before anything else is decided.
    LostRepliesAreFound,
    /// A call under a lease names its token.
    TokensAreCompared,
    /// A pool that is paused begins nothing new.
    PausedPoolsBeginNothing,
    /// An account that is paused begins nothing new.
    PausedAccountsBeginNothing,
    /// An account is not used before its time.
    RestingAccountsAreNotUsed,
    /// A plan takes only what fits it.
    PlansTakeWhatFits,
    /// An account whose login is refused, or that a person took out of use, is not leased.
    InactiveAccountsAreNotLeased,
    /// A lease with an open redemption does not run out.
    OpenRedemptionsKeepTheLease,
    /// A lease does not run out before its time.
    LeasesLastTheirTime,
    /// The outcome of a redemption is recorded once.
    OutcomesAreRecordedOnce,
    /// A refusal counts only by what was read since the caller came.
    RefusalsAreFresh,
    /// A provider's call counts only with its signature.
    WebhooksAreSigned,
    /// A reversal is recorded before the provider is asked for it.
    ReversalsAreRecordedFirst,
    /// A lease is used by the principal that acquired it.
    LeasesAreTheirPrincipals,
    /// Another principal's redemption is not named.
    OthersAreNotNamed,
}

impl Guard {
    /// Every guard.
    pub const ALL: [Self; 28] = [
        Self::LateIsNotSent,
        Self::LostIsNoProof,
        Self::FailureByKey,
        Self::ReusedIsNoProof,
        Self::RefusedAgainIsNoProof,
        Self::NotFoundIsNoProof,
        Self::NotFoundIsLate,
        Self::CodesFindOthers,
        Self::InferredIsNotProof,
        Self::CodesAreTakenOut,
        Self::SameRequest,
        Self::HandedOutAlive,
        Self::BadRowsAreLeftOut,
        Self::LostRepliesAreFound,
        Self::TokensAreCompared,
        Self::PausedPoolsBeginNothing,
        Self::PausedAccountsBeginNothing,
        Self::RestingAccountsAreNotUsed,
        Self::PlansTakeWhatFits,
        Self::InactiveAccountsAreNotLeased,
        Self::OpenRedemptionsKeepTheLease,
        Self::LeasesLastTheirTime,
        Self::OutcomesAreRecordedOnce,
        Self::RefusalsAreFresh,
        Self::WebhooksAreSigned,
        Self::ReversalsAreRecordedFirst,
        Self::LeasesAreTheirPrincipals,
        Self::OthersAreNotNamed,
    ];

    /// The word for it in the variable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LateIsNotSent => "late_is_not_sent",
            Self::LostIsNoProof => "lost_is_no_proof",
            Self::FailureByKey => "failure_by_key",
            Self::ReusedIsNoProof => "reused_is_no_proof",
            Self::RefusedAgainIsNoProof => "refused_again_is_no_proof",
            Self::NotFoundIsNoProof => "not_found_is_no_proof",
            Self::NotFoundIsLate => "not_found_is_late",
            Self::CodesFindOthers => "codes_find_others",
            Self::InferredIsNotProof => "inferred_is_not_proof",
            Self::CodesAreTakenOut => "codes_are_taken_out",
            Self::SameRequest => "same_request",
            Self::HandedOutAlive => "handed_out_alive",
            Self::BadRowsAreLeftOut => "bad_rows_are_left_out",
            Self::LostRepliesAreFound => "lost_replies_are_found",
            Self::TokensAreCompared => "tokens_are_compared",
            Self::PausedPoolsBeginNothing => "paused_pools_begin_nothing",
            Self::PausedAccountsBeginNothing => "paused_accounts_begin_nothing",
            Self::RestingAccountsAreNotUsed => "resting_accounts_are_not_used",
            Self::PlansTakeWhatFits => "plans_take_what_fits",
            Self::InactiveAccountsAreNotLeased => "inactive_accounts_are_not_leased",
            Self::OpenRedemptionsKeepTheLease => "open_redemptions_keep_the_lease",
            Self::LeasesLastTheirTime => "leases_last_their_time",
            Self::OutcomesAreRecordedOnce => "outcomes_are_recorded_once",
            Self::RefusalsAreFresh => "refusals_are_fresh",
            Self::WebhooksAreSigned => "webhooks_are_signed",
            Self::ReversalsAreRecordedFirst => "reversals_are_recorded_first",
            Self::LeasesAreTheirPrincipals => "leases_are_their_principals",
            Self::OthersAreNotNamed => "others_are_not_named",
        }
    }
}

#[cfg(feature = "crash-points")]
pub(crate) use armed::{check, holds, reach};
#[cfg(not(feature = "crash-points"))]
pub(crate) use disarmed::{check, holds, reach};

#[cfg(not(feature = "crash-points"))]
mod disarmed {
    use std::io;

    use super::{Guard, Side, Step};

    /// Nothing strikes.
    #[inline]
    pub(crate) async fn reach(_: Step, _: Side) -> io::Result<()> {
        Ok(())
    }

    /// Every guard holds.
    #[inline]
    pub(crate) const fn holds(_: Guard) -> bool {
        true
    }

    /// There is nothing to read.
    pub(crate) fn check() -> anyhow::Result<()> {
        Ok(())
    }
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::{
        collections::HashSet,
        env, io,
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    use anyhow::{Context as _, ensure};
    use rustix::process::{Signal, getpid, kill_process};

    use super::{Guard, Side, Step};

    /// What happens at a point.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Action {
        /// The process is gone, as by `kill -9`.
        Kill,
        /// The process stands still until somebody lets it go on.
        Stop,
        /// The step fails.
        Error,
        /// The step takes longer.
        Delay(Duration),
    }

    /// Longer than a process takes to stop all its threads, on a busy machine too.
    const STANDING_STILL: Duration = Duration::from_millis(250);

    struct Charge {
        step: Step,
        side: Side,
        action: Action,
        /// At which pass, counted from 1.
        pass: u64,
        passed: AtomicU64,
    }

    struct Settings {
        charges: Vec<Charge>,
        guards_off: HashSet<Guard>,
    }

    static SETTINGS: OnceLock<Result<Settings, String>> = OnceLock::new();

    fn settings() -> &'static Result<Settings, String> {
        SETTINGS.get_or_init(|| read().map_err(|error| format!("{error:#}")))
    }

    fn read() -> anyhow::Result<Settings> {
        let variable = |name| env::var(name).unwrap_or_default();
        let words = |text: String| -> Vec<String> {
            text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let charges = words(variable("HOLDFAST_CRASH_POINTS"));
        let guards = words(variable("HOLDFAST_GUARDS_OFF"));
        Ok(Settings {
            charges: charges.iter().map(|word| parse(word)).collect::<Result<_, _>>()?,
            guards_off: guards.iter().map(|word| guard(word)).collect::<Result<_, _>>()?,
        })
    }

    fn guard(word: &str) -> anyhow::Result<Guard> {
        let found = Guard::ALL.into_iter().find(|guard| guard.as_str() == word);
        found.with_context(|| format!("HOLDFAST_GUARDS_OFF: there is no guard {word:?}"))
    }

    fn parse(word: &str) -> anyhow::Result<Charge> {
        let unknown = || format!("HOLDFAST_CRASH_POINTS: {word:?} cannot be read");
        let (point, rest) = word.split_once('=').with_context(unknown)?;
        let (step, side) = point.split_once('.').with_context(unknown)?;
        let step = Step::ALL.into_iter().find(|one| one.as_str() == step);
        let side = match side {
            "before" => Some(Side::Before),
            "after" => Some(Side::After),
            _ => None,
        };
        let (action, pass) = rest.split_once('@').unwrap_or((rest, "1"));
        let action = match action.split_once(':') {
            None if action == "kill" => Some(Action::Kill),
            None if action == "stop" => Some(Action::Stop),
            None if action == "error" => Some(Action::Error),
            Some(("delay", time)) => humantime::parse_duration(time).ok().map(Action::Delay),
            _ => None,
        };
        let pass = pass.parse().with_context(unknown)?;
        ensure!(pass > 0, unknown());
        Ok(Charge {
            step: step.with_context(unknown)?,
            side: side.with_context(unknown)?,
            action: action.with_context(unknown)?,
            pass,
            passed: AtomicU64::new(0),
        })
    }

    /// Reads the variables, so that one that cannot be read is not a fault that never strikes.
    pub(crate) fn check() -> anyhow::Result<()> {
        match settings() {
            Ok(_) => Ok(()),
            Err(error) => Err(anyhow::anyhow!("{error}")),
        }
    }

    /// Passes by a point. An error means that the step is to fail.
    pub(crate) async fn reach(step: Step, side: Side) -> io::Result<()> {
        let Ok(settings) = settings() else { return Ok(()) };
        // Every one counts the pass, also those after one that fails the step.
        let strikes = |charge: &&Charge| {
            (charge.step, charge.side) == (step, side)
                && charge.passed.fetch_add(1, Ordering::Relaxed) + 1 == charge.pass
        };
        let striking: Vec<_> = settings.charges.iter().filter(strikes).collect();
        for charge in striking {
            tracing::warn!(step = step.as_str(), ?side, action = ?charge.action, "a crash point strikes");
            strike(charge.action).await?;
        }
        Ok(())
    }

    async fn strike(action: Action) -> io::Result<()> {
        match action {
            Action::Kill => kill_process(getpid(), Signal::KILL)?,
            Action::Stop => {
                kill_process(getpid(), Signal::STOP)?;
                // The signal may be taken by another thread, and this one would go on until it hears of it. So it
                // stays here, with its thread, until the process surely stands still.
                std::thread::sleep(STANDING_STILL);
            }
            Action::Error => return Err(io::Error::other("a crash point")),
            Action::Delay(time) => tokio::time::sleep(time).await,
        }
        Ok(())
    }

    /// Whether a guard holds.
    pub(crate) fn holds(guard: Guard) -> bool {
        settings().as_ref().map_or(true, |settings| !settings.guards_off.contains(&guard))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn points_are_read_as_they_are_written() {
            let charge = parse("begin.after=kill").unwrap();
            assert_eq!((charge.step, charge.side), (Step::Begin, Side::After));
            assert_eq!((charge.action, charge.pass), (Action::Kill, 1));
            let charge = parse("look_up.before=delay:500ms@3").unwrap();
            assert_eq!(charge.action, Action::Delay(Duration::from_millis(500)));
            assert_eq!(charge.pass, 3);
            for bad in ["begin", "begin.after", "begin.now=kill", "x.after=kill", "begin.after=x"] {
                assert!(parse(bad).is_err(), "{bad}");
            }
            assert!(parse("begin.after=kill@0").is_err());
            assert!(guard("no_such_guard").is_err());
        }
    }
}
