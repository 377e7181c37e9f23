//! Failures of cards: whether a failure is the card's own. If it is not, and the code is not spent, the card still has
//! its value and should be redeemed again.

/// Words that name the card.
const CARD_WORDS: [&str; 8] =
    ["CARD", "CODE", "COUPON", "GIFT", "GIFTCARD", "PIN", "SERIAL", "VOUCHER"];
/// Words that only a card can have, and for good.
const CARD_STATES: [&str; 8] =
    ["CONSUMED", "EXPIRED", "REDEEMED", "SPENT", "STOLEN", "USED", "VOID", "VOIDED"];
/// Words that say something for good beside a word of [`CARD_WORDS`]: alone, they may be about
/// anything.
const STATES: [&str; 7] =
    ["BLOCKED", "CANCELED", "CANCELLED", "INVALID", "LOST", "REVOKED", "UNKNOWN"];
/// Words that may stand between them.
const OTHER_WORDS: [&str; 6] = ["ALREADY", "BEEN", "HAS", "IS", "REPORTED", "WAS"];
/// What else the contract names: no account of the pool takes such a card.
const NOT_FOR_THE_POOL: &str = "CURRENCY_NOT_ACCEPTED";

/// Whether redeeming the card again is of no use: its code is spent, or the reason says something of the
/// card that is for good.
///
/// A reason with any unknown word may name something that passes (`CODE_TEMPORARILY_LOCKED`,
/// `VOUCHER_SYSTEM_DOWN`), and counts as not about the card: it is redeemed again when its batch is opened
/// again, and no value is lost unseen. So do the reasons that Holdfast itself gives.
pub fn is_about_the_card(reason: &str, code_spent: bool) -> bool {
    code_spent || reason == NOT_FOR_THE_POOL || says_something_for_good(reason)
}

fn says_something_for_good(reason: &str) -> bool {
    let reason = reason.to_ascii_uppercase();
    let words: Vec<&str> = reason.split(['_', '-', ' ', '.']).collect();
    let has = |list: &[&str]| words.iter().any(|word| list.contains(word));
    let are_known = words.iter().all(|word| {
        [&CARD_WORDS[..], &CARD_STATES, &STATES, &OTHER_WORDS]
            .iter()
            .any(|list| list.contains(word))
    });
    are_known && (has(&CARD_STATES) || has(&STATES) && has(&CARD_WORDS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::redemption::reason;

    #[test]
    fn a_spent_code_is_about_the_card_whatever_the_reason_says() {
        assert!(is_about_the_card("CODE_USED", true));
        assert!(is_about_the_card("VOUCHER_SYSTEM_DOWN", true));
        assert!(is_about_the_card(reason::PROVIDER_BUSY, true));
    }

    #[test]
    fn what_the_provider_says_of_a_card_for_good_is_about_the_card() {
        for reason in [
            "CODE_UNKNOWN",
            "CARD_EXPIRED",
            "card_expired",
            "CARD-EXPIRED",
            "EXPIRED",
            "INVALID_CODE",
            "ALREADY_REDEEMED",
            "CODE_ALREADY_USED",
            "CARD_HAS_BEEN_REDEEMED",
            "CARD_BLOCKED",
            "CARD_REPORTED_STOLEN",
            "VOUCHER_VOID",
            "CURRENCY_NOT_ACCEPTED",
        ] {
            assert!(is_about_the_card(reason, false), "{reason}");
        }
    }

    #[test]
    fn what_passes_is_not_about_the_card_whatever_it_names() {
        for reason in [
            "VOUCHER_SYSTEM_DOWN",
            "CODE_TEMPORARILY_LOCKED",
            "CODE_TEMPORARILY_INVALID",
            "CARD_NETWORK_TIMEOUT",
            "CODE_CHECK_RATE_LIMITED",
            "REGION_UNAVAILABLE",
            "REGION_BLOCKED",
            "CARD_SERVICE_BUSY",
            "CARD_LIMIT_REACHED",
            "CARD_NOT_ACTIVE",
            "CODE_NOT_USED",
            "SESSION_EXPIRED",
            "UNKNOWN_ERROR",
            "ERROR_CODE_UNKNOWN",
            "UNKNOWN",
            "INVALID",
            "BLOCKED",
            "CARD",
            "ALREADY",
        ] {
            assert!(!is_about_the_card(reason, false), "{reason}");
        }
    }

    #[test]
    fn what_holdfast_says_and_what_is_about_an_account_is_not_about_the_card() {
        for reason in [
            reason::PROVIDER_UNREACHABLE,
            reason::PROVIDER_BUSY,
            reason::CANCELLED,
            reason::UNRESOLVED,
            reason::ACCOUNT_LOGIN_INVALID,
            reason::CURRENCY_MISMATCH,
            "RESOLVED_AS_FAILED",
            "ACCOUNT_LIMIT_REACHED",
            "ACCOUNT_THROTTLED",
            "NOT_AFTER_PASSED",
            "ERROR_CODE",
            "MAINTENANCE",
            "",
        ] {
            assert!(!is_about_the_card(reason, false), "{reason}");
        }
    }
}
