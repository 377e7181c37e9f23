//! Tables of the accounts that were considered for a card, and of their number by verdict.

use serde_json::Value;

use super::{amount, name, status, text, time};
use crate::rpc::pb::{self, AcquireVerdict as Verdict};

/// The columns of how many accounts there are of a verdict.
pub(crate) const VERDICT: &[&str] = &["verdict", "accounts", "meaning"];

/// The row of how many accounts there are of a verdict.
pub(crate) fn verdict(count: &pb::VerdictCount) -> Vec<Value> {
    vec![short(count.verdict()), count.accounts.into(), meaning(count.verdict()).into()]
}

/// The columns of an account that was considered.
pub(crate) const CONSIDERED: &[&str] = &[
    "account_id",
    "verdict",
    "why",
    "status",
    "plan_id",
    "headroom_minor",
    "day_headroom_minor",
    "plan_day",
    "available_time",
    "country_code",
];

/// The row of an account that was considered.
pub(crate) fn considered(one: &pb::ConsideredAccount) -> Vec<Value> {
    let nobody = pb::Account::default();
    let account = one.account.as_ref().unwrap_or(&nobody);
    let planned = !account.plan_id.is_empty();
    vec![
        text(&account.account_id),
        short(one.verdict()),
        text(&why(one.verdict(), one, account)),
        status(account.status()),
        text(&account.plan_id),
        amount(one.headroom.as_ref()),
        amount(one.day_headroom.as_ref()),
        if planned { account.plan_day.into() } else { Value::Null },
        time(account.available_time.as_ref()),
        text(&account.country_code),
    ]
}

fn short(verdict: Verdict) -> Value {
    name(verdict.as_str_name(), "ACQUIRE_VERDICT_")
}

/// What a verdict means.
fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unspecified => "of a later version than this program",
        Verdict::Fits => "would be picked",
        Verdict::NotSelected => "not what was asked for",
        Verdict::Completed => "the plan's target is reached",
        Verdict::Inactive => "the login is not active",
        Verdict::Paused => "paused by a person",
        Verdict::Draining => "draining: a person asked for it",
        Verdict::Unwritable => "the database refuses to change its row; the server's log says why",
        Verdict::TooFull => "the plan wants nothing more, or less than the card",
        Verdict::Denomination => "the plan does not take cards of this amount",
        Verdict::Remainder => "what is left of the plan, now or afterwards, no cards can fill",
        Verdict::DayFull => "the card is more than the day still takes",
        Verdict::OnHold => "failed, and is on hold",
        Verdict::NextDay => "the plan's next day is not due yet",
        Verdict::CoolingDown => "the last redemption is too short ago",
        Verdict::Locked => "under a lease",
    }
}

/// What the verdict means for this account, with the values behind it.
fn why(verdict: Verdict, one: &pb::ConsideredAccount, account: &pb::Account) -> String {
    let shown = |value: Value| value.as_str().map(str::to_owned).unwrap_or_default();
    let until = shown(time(account.available_time.as_ref()));
    let number = |money: Option<&pb::Money>| money.map_or(0, |money| money.amount_minor);
    match verdict {
        Verdict::Inactive => {
            format!(
                "its login is {}",
                shown(name(account.login_status().as_str_name(), "LOGIN_STATUS_"))
            )
        }
        Verdict::TooFull => format!("its plan wants {} more", number(one.headroom.as_ref())),
        Verdict::Remainder => {
            format!(
                "no cards can fill what is left, or would be, of {}",
                number(one.headroom.as_ref())
            )
        }
        Verdict::DayFull => {
            let left = number(one.day_headroom.as_ref());
            format!("day {} takes {left} more", account.plan_day)
        }
        Verdict::OnHold => {
            let hold = account.hold.unwrap_or_default();
            let cause = shown(name(hold.cause().as_str_name(), "HOLD_CAUSE_"));
            let until = shown(time(hold.expire_time.as_ref()));
            format!("{cause}, {} in a row; until {until}", hold.count)
        }
        Verdict::NextDay => format!("day {} begins; not before {until}", account.plan_day),
        Verdict::CoolingDown => format!("not before {until}"),
        Verdict::Locked => locked(account),
        _ => meaning(verdict).to_owned(),
    }
}

fn locked(account: &pb::Account) -> String {
    let lease = account.lease.clone().unwrap_or_default();
    let until = lease.expire_time.map(|time| time.to_string()).unwrap_or_default();
    let open = &account.open_redemption_id;
    if open.is_empty() {
        format!("leased by {} until {until}", lease.holder)
    } else {
        format!("leased by {}; redemption {open} is open", lease.holder)
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::cli::shared::view::choose;

    fn told(verdict: Verdict, account: pb::Account) -> String {
        let money = |amount_minor| Some(pb::Money { amount_minor, currency_code: "EUR".into() });
        let one = pb::ConsideredAccount {
            account: Some(account),
            verdict: verdict.into(),
            headroom: money(700),
            day_headroom: money(300),
        };
        let row = considered(&one);
        choose(&["why"], CONSIDERED, &row).remove(0).as_str().unwrap().to_owned()
    }

    #[test]
    fn why_an_account_is_passed_over_is_told_with_what_one_would_ask_next() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let plain = pb::Account { plan_day: 2, available_time: at(60), ..Default::default() };
        assert_eq!(told(Verdict::TooFull, plain.clone()), "its plan wants 700 more");
        assert_eq!(told(Verdict::DayFull, plain.clone()), "day 2 takes 300 more");
        assert_eq!(
            told(Verdict::NextDay, plain.clone()),
            "day 2 begins; not before 1970-01-01T00:01:00Z"
        );
        let hold = pb::AccountHold {
            cause: pb::HoldCause::LimitReached.into(),
            expire_time: at(120),
            count: 3,
        };
        assert_eq!(
            told(Verdict::OnHold, pb::Account { hold: Some(hold), ..plain.clone() }),
            "LIMIT_REACHED, 3 in a row; until 1970-01-01T00:02:00Z"
        );
        let lease = pb::Lease { holder: "maria".into(), expire_time: at(0), ..Default::default() };
        let mut held = pb::Account { lease: Some(lease), ..plain };
        assert_eq!(
            told(Verdict::Locked, held.clone()),
            "leased by maria until 1970-01-01T00:00:00Z"
        );
        held.open_redemption_id = "r".into();
        assert_eq!(told(Verdict::Locked, held), "leased by maria; redemption r is open");
    }
}
