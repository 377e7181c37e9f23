//! Whether a failure lies with the card. If it does not, and the code is not spent, the card still has
//! its value and should be redeemed again.

/// First or last words of a reason that is about the card.
const CARD_WORDS: [&str; 8] =
    ["CARD", "CODE", "COUNTRY", "CURRENCY", "DENOMINATION", "PIN", "REGION", "VOUCHER"];
/// Words of a reason that is about something else, whatever its other words are.
const OTHER_WORDS: [&str; 5] = ["ACCOUNT", "ERROR", "PROVIDER", "SERVICE", "STATUS"];

/// Whether redeeming the card again is of no use: its code is spent, or the reason is about the card.
///
/// The reasons that Holdfast itself gives are never about the card. A reason of the provider's that
/// says nothing of a card counts as not about it: a person looks, and no value is lost unseen.
pub fn is_about_the_card(reason: &str, code_spent: bool) -> bool {
    let words: Vec<&str> = reason.split('_').collect();
    let has_card_word =
        [words.first(), words.last()].into_iter().flatten().any(|word| CARD_WORDS.contains(word));
    let has_other_word = words.iter().any(|word| OTHER_WORDS.contains(word));
    code_spent || has_card_word && !has_other_word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::redemption::reason;

    #[test]
    fn a_spent_code_is_about_the_card_whatever_the_reason_says() {
        assert!(is_about_the_card("CODE_USED", true));
        assert!(is_about_the_card(reason::PROVIDER_BUSY, true));
    }

    #[test]
    fn what_the_provider_says_of_a_card_is_about_the_card() {
        for reason in ["CODE_UNKNOWN", "CARD_EXPIRED", "INVALID_CODE", "CURRENCY_NOT_ACCEPTED"] {
            assert!(is_about_the_card(reason, false), "{reason}");
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
