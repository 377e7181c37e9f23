use uuid::Uuid;

use super::*;
use crate::domain::{
    id::{FencingToken, Holder, ProviderId, RequestId},
    money::Currency,
    principal::Principal,
    provider::ProfileVersion,
};

const MINUTE: Duration = Duration::from_secs(60);

fn words(reason: &str) -> Resolution {
    Resolution {
        resolved_by: "a person".to_owned(),
        principal: Principal::anonymous(),
        reason: reason.to_owned(),
        evidence: None,
    }
}

fn redemption(state: RedemptionState) -> Redemption {
    Redemption {
        redemption_id: RedemptionId(Uuid::nil()),
        request_id: RequestId::parse_any("request").unwrap(),
        attempt: 1,
        principal: Principal::anonymous(),
        pool_id: PoolId::parse("pool").unwrap(),
        account_id: AccountId::parse("a").unwrap(),
        token: FencingToken(1),
        holder: Holder::parse("me").unwrap(),
        state,
        code_last4: String::new(),
        expected_minor: None,
        expected_learned: false,
        release_on_completion: false,
        begun_on: None,
        amount: Some(Money { amount_minor: 5, currency: Currency::parse("EUR").unwrap() }),
        provider_ref: None,
        profile: ProfileVersion { provider_id: ProviderId::parse("p").unwrap(), version: 1 },
        provider_task: None,
        failure: None,
        resolution: None,
        superseded: 0,
        attempts: 1,
        last_answer: None,
        next_check_at: None,
        created_at: OffsetDateTime::UNIX_EPOCH,
        finished_at: Some(OffsetDateTime::UNIX_EPOCH),
        reversed_at: None,
    }
}

fn reversal(state: ReversalState) -> Reversal {
    Reversal {
        redemption_id: RedemptionId(Uuid::nil()),
        number: 3,
        state,
        request: words("wrong account"),
        resolution: None,
        attempts: 1,
        last_answer: None,
        next_check_at: None,
        created_at: OffsetDateTime::UNIX_EPOCH,
        finished_at: None,
    }
}

/// Reverses with a key, and answers a key as it did first; it cannot be asked what became of it.
fn able() -> ReversalMeans {
    ReversalMeans {
        cannot: None,
        counts_once: false,
        sends_key: true,
        dedup: Dedup::Replay,
        window: 10 * MINUTE,
        asks: false,
        max_processing: 2 * MINUTE,
    }
}

fn doubt(age: Duration) -> ReversalDoubt {
    ReversalDoubt { age, lead_time: Duration::from_secs(10) }
}

/// What follows from a request, by the newest reversal.
fn step(
    request: ReversalRequest,
    newest: Option<ReversalState>,
    reason: &str,
) -> Result<ReversalStep, ReversalRefusal> {
    let is_reversed = newest == Some(ReversalState::Succeeded);
    let redemption = Redemption {
        reversed_at: is_reversed.then_some(OffsetDateTime::UNIX_EPOCH),
        ..redemption(RedemptionState::Succeeded)
    };
    request.step(&redemption, newest.map(reversal).as_ref(), &words(reason), &able())
}

#[test]
fn only_a_success_is_taken_back() {
    for state in RedemptionState::ALL {
        for request in
            [ReversalRequest::Ask, ReversalRequest::WasReversed, ReversalRequest::WasNotReversed]
        {
            let step = request.step(&redemption(state), None, &words("x"), &able());
            if state == RedemptionState::Succeeded {
                assert_ne!(step, Err(ReversalRefusal::NotSucceeded(state)));
            } else {
                assert_eq!(step, Err(ReversalRefusal::NotSucceeded(state)));
            }
        }
    }
}

#[test]
fn the_same_words_twice_ask_once_and_other_words_are_refused() {
    use ReversalState::{Failed, InDoubt, NeedsReview, Requested, Succeeded};
    let ask = |newest, reason| step(ReversalRequest::Ask, newest, reason);
    assert_eq!(ask(None, "wrong account"), Ok(ReversalStep::Begin(1)));
    for open in [Requested, InDoubt, NeedsReview] {
        assert_eq!(ask(Some(open), "wrong account"), Ok(ReversalStep::AsItIs));
        assert_eq!(ask(Some(open), "another reason"), Err(ReversalRefusal::Open(open)));
    }
    assert_eq!(ask(Some(Succeeded), "wrong account"), Ok(ReversalStep::AsItIs));
    assert_eq!(ask(Some(Succeeded), "once more"), Err(ReversalRefusal::AlreadyReversed));
    // It had no effect.
    assert_eq!(ask(Some(Failed), "wrong account"), Ok(ReversalStep::Begin(4)));
}

#[test]
fn a_person_closes_what_is_open_and_nobody_is_at_work_on() {
    use ReversalState::{Failed, InDoubt, NeedsReview, Requested, Succeeded};
    let was = |newest| step(ReversalRequest::WasReversed, newest, "x");
    let was_not = |newest| step(ReversalRequest::WasNotReversed, newest, "x");
    for open in [InDoubt, NeedsReview] {
        assert_eq!(was(Some(open)), Ok(ReversalStep::Succeed));
        assert_eq!(was_not(Some(open)), Ok(ReversalStep::Fail));
    }
    assert_eq!(was(Some(Requested)), Err(ReversalRefusal::Open(Requested)));
    assert_eq!(was_not(Some(Requested)), Err(ReversalRefusal::Open(Requested)));
    assert_eq!(
        (was(None), was(Some(Failed))),
        (Ok(ReversalStep::Note(1)), Ok(ReversalStep::Note(4)))
    );
    assert_eq!(was_not(None), Err(ReversalRefusal::NothingOpen));
    // The same word twice.
    assert_eq!(was(Some(Succeeded)), Ok(ReversalStep::AsItIs));
    assert_eq!(was_not(Some(Failed)), Ok(ReversalStep::AsItIs));
    assert_eq!(was_not(Some(Succeeded)), Err(ReversalRefusal::AlreadyReversed));
}

#[test]
fn what_cannot_be_asked_for_can_be_told() {
    for why in [CannotReverse::NoOp, CannotReverse::NeedsCode] {
        let means = ReversalMeans { cannot: Some(why), ..able() };
        let success = redemption(RedemptionState::Succeeded);
        let step = |request: ReversalRequest| request.step(&success, None, &words("x"), &means);
        assert_eq!(step(ReversalRequest::Ask), Err(ReversalRefusal::Unsupported(why)));
        assert_eq!(step(ReversalRequest::WasReversed), Ok(ReversalStep::Note(1)));
    }
}

#[test]
fn only_what_counts_once_is_asked_for_again() {
    let first = |means: ReversalMeans, age| means.first_action(&doubt(age));
    assert_eq!(first(able(), MINUTE), ReversalAction::Again);
    let after = able().next_action(ReversalAction::Again, &doubt(MINUTE));
    assert_eq!(after, ReversalAction::Wait);
    for weaker in [
        ReversalMeans { sends_key: false, ..able() },
        ReversalMeans { dedup: Dedup::None, ..able() },
        ReversalMeans { window: MINUTE, ..able() },
    ] {
        assert_eq!(first(weaker, MINUTE), ReversalAction::Review, "{weaker:?}");
        let once = ReversalMeans { counts_once: true, ..weaker };
        assert_eq!(first(once, MINUTE), ReversalAction::Again, "{weaker:?}");
        // Asked what became of it, it may still tell.
        let asks = ReversalMeans { asks: true, ..weaker };
        assert_eq!(first(asks, MINUTE), ReversalAction::Question);
        let after = asks.next_action(ReversalAction::Question, &doubt(MINUTE));
        assert_eq!(after, ReversalAction::Wait);
    }
    // A key that the first call would bring after it is forgotten counts twice.
    let short = ReversalMeans { window: 30 * Duration::from_secs(1), ..able() };
    assert_eq!(first(short, Duration::from_secs(1)), ReversalAction::Review);
    // By a profile without a reversal nothing is asked for.
    let none = ReversalMeans { cannot: Some(CannotReverse::NoOp), ..able() };
    assert_eq!(first(none, MINUTE), ReversalAction::Review);
}

#[test]
fn after_all_its_time_it_is_a_persons() {
    for asks in [false, true] {
        let means = ReversalMeans { asks, counts_once: true, ..able() };
        let late = doubt(4 * MINUTE);
        let after = means.next_action(ReversalAction::Question, &late);
        assert_eq!(after, ReversalAction::Review);
        assert_eq!(means.next_action(ReversalAction::Again, &late), ReversalAction::Review);
    }
    assert_eq!(able().first_action(&doubt(4 * MINUTE)), ReversalAction::Review);
}
