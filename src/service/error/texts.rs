//! Parts of what errors say.

use super::*;

pub(super) fn describe(violations: &[Violation]) -> String {
    let each: Vec<_> = violations.iter().map(|v| format!("{}: {}", v.field, v.rule)).collect();
    each.join("; ")
}

/// Each choice with its number, the everyday ones always and the others where there are any.
pub(super) fn count(counts: &Counts) -> String {
    const ALWAYS: [Choice; 5] =
        [Choice::Locked, Choice::Completed, Choice::Inactive, Choice::TooFull, Choice::NotSelected];
    let number = |choice| counts.get(&choice).copied().unwrap_or_default();
    let rest =
        Choice::ALL.into_iter().filter(|choice| !ALWAYS.contains(choice) && number(*choice) > 0);
    let each: Vec<_> = ALWAYS
        .into_iter()
        .chain(rest)
        .map(|choice| format!("{} {}", number(choice), choice.describe()))
        .collect();
    each.join(", ")
}

pub(super) fn rests(cause: Rest) -> &'static str {
    match cause {
        Rest::NextDay => "its plan's next day is not due yet",
        Rest::Cooldown => "its plan's cooldown after the last redemption is not over",
        Rest::Hold => "it is on hold after a failure; UpdateAccount can lift the hold",
    }
}

pub(super) fn amount(expected_minor: Option<i64>) -> String {
    expected_minor.map_or_else(|| "any card now".to_owned(), |amount| format!("a card of {amount}"))
}

pub(super) fn does_not_fit(misfit: Misfit) -> &'static str {
    match misfit {
        Misfit::TooFull => "that is more than it wants",
        Misfit::Denomination => "it does not take this amount",
        Misfit::Remainder => "what is left could not be filled with the amounts that it takes",
        Misfit::DayFull => "that is more than its day still takes",
    }
}

pub(super) fn no_provider(provider_id: &ProviderId, version: Option<i32>) -> String {
    match version {
        None => format!("there is no provider {provider_id}: no profile of it was applied"),
        Some(version) => format!("there is no version {version} of provider {provider_id}"),
    }
}

pub(super) fn such_as(account_id: Option<&AccountId>) -> String {
    account_id.map(|id| format!(", such as {id}")).unwrap_or_default()
}

pub(super) fn lost(loss: LeaseLoss) -> &'static str {
    match loss {
        LeaseLoss::Expired => "its time has passed; acquire the account again",
        LeaseLoss::Released => "it was released; acquire the account again",
        LeaseLoss::TakenOver => "the account was acquired again since",
    }
}

pub(super) fn not_redeemable(known: bool) -> &'static str {
    if known {
        "the provider says that the card cannot be redeemed: it may be used, blocked or not active \
         yet; find out at the provider, and send the item again when it can be"
    } else {
        "the provider does not know the card: check its code, and that it is the provider's"
    }
}

pub(super) fn on_whose_word(word: Option<&CountingWord>) -> String {
    match word {
        Some(word) => format!(", by resolution {} of {}", word.number, word.resolved_by),
        None => ", and stays so".to_owned(),
    }
}

pub(super) fn not_reversed(why: ReversalRefusal, profile: &ProfileVersion) -> String {
    match why {
        ReversalRefusal::NotSucceeded(state) => {
            format!("is {}: there is nothing to take back", state.as_str())
        }
        ReversalRefusal::Unsupported(CannotReverse::NoOp) => format!(
            "cannot be taken back by Holdfast: the profile {profile} has no op.reverse. Take it back at the provider, \
             and record that with the outcome REVERSED"
        ),
        ReversalRefusal::Unsupported(CannotReverse::NeedsCode) => format!(
            "cannot be taken back by Holdfast: op.reverse of the profile {profile} sends the card's code, which is \
             wiped. Take it back at the provider, and record that with the outcome REVERSED"
        ),
        ReversalRefusal::Open(ReversalState::Requested) => {
            "is being taken back: a server is at work on it".to_owned()
        }
        ReversalRefusal::Open(state) => {
            format!("has a reversal already, which is {}", state.as_str())
        }
        ReversalRefusal::AlreadyReversed => "was taken back already, and stays so".to_owned(),
        ReversalRefusal::NothingOpen => "has no reversal that could be closed".to_owned(),
    }
}

pub(super) fn others(needs: &str) -> &'static str {
    match needs {
        OPERATOR => "only that one, or an operator, may release it",
        _ => "only that one may use it; acquire an account of your own",
    }
}

pub(super) fn by_whom(redemption: Option<&(RedemptionId, RequestId)>) -> String {
    match redemption {
        Some((redemption_id, request_id)) => {
            format!("in redemption {redemption_id}, for request_id {request_id}")
        }
        None => "by another principal".to_owned(),
    }
}

pub(super) fn in_use(state: RedemptionState) -> &'static str {
    match state {
        RedemptionState::Succeeded => "redeemed already",
        _ => "being redeemed already",
    }
}
