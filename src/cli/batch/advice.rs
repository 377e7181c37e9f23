//! THE table of what a person can do about an item that was rejected: by its reason, what is so, and
//! what the same command does about it.

use crate::domain::id::PoolId;

/// What running the same command again does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It may well succeed now.
    Tries,
    /// It is refused again until the file or the command is changed.
    Refused,
    /// Only if the redemption that has the card fails.
    IfOtherFails,
    /// Whether it was begun is not known; this finds out.
    FindsOut,
}

impl Again {
    /// As a sentence.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Tries => "The same command tries them again.",
            Self::Refused => "The same command gets the same refusal.",
            Self::IfOtherFails => {
                "The same command gets the same refusal, unless that redemption fails."
            }
            Self::FindsOut => "The same command finds out, and redeems no card twice.",
        }
    }
}

/// Whether a rejected item's card was credited for another request: nothing is left to do about it.
pub(super) fn is_redeemed_already(reason: &str, state: &str) -> bool {
    reason == "CODE_IN_USE" && state == "SUCCEEDED"
}

/// The row of the table for a reason; `state` is that of the redemption which has the card.
pub(super) fn rejected(reason: &str, state: &str, pool: &PoolId) -> (Again, String) {
    use Again::{FindsOut, IfOtherFails, Refused, Tries};

    let (again, text) = match reason {
        "REQUEST_ID_REUSED" => (
            Refused,
            "the item stands for another card or amount in this batch: the file was edited after \
             it was first run. Give new cards item_ids of their own, or run the file under a new --batch-id: cards that were credited are \
             refused there with CODE_IN_USE, and not redeemed twice",
        ),
        _ if is_redeemed_already(reason, state) => (
            Refused,
            "the card was redeemed already, for the request that is named here and in the results; \
             nothing is left to do",
        ),
        "CODE_IN_USE" => (
            IfOtherFails,
            "the card is being redeemed for the request that is named here and in the results: see \
             `holdfast redemption show`",
        ),
        "NO_ACCOUNT_AVAILABLE" => {
            let text = format!(
                "no account that fits became free within --item-timeout: `holdfast account explain \
                 --pool {pool}` says why"
            );
            return (Tries, text);
        }
        "POOL_PAUSED" | "POOL_DRAINING" => {
            let text = format!(
                "the pool begins nothing new: `holdfast pool resume {pool}`, then run this again"
            );
            return (Tries, text);
        }
        "INVALID_ARGUMENT" => {
            (Refused, "the row is not valid; the results say which field: correct it in the file")
        }
        "CARD_NOT_REDEEMABLE" => (
            Tries,
            "the provider would not redeem the card (it is unknown, spent, blocked or not active \
             yet): check the code, and ask the provider",
        ),
        "CURRENCY_MISMATCH" => (
            Refused,
            "the card has another currency than the pool: redeem it in a pool of its currency",
        ),
        "COUNTRY_MISMATCH" => (
            Refused,
            "the card is of another country than the accounts that were asked for: ask for accounts of \
             its country",
        ),
        "INQUIRY_FAILED" => (
            Tries,
            "the provider did not say what the card is worth; it is not asked about cards whose \
             amount_minor is in the file",
        ),
        "PROVIDER_UNAVAILABLE" => (
            Tries,
            "the provider cannot be asked by the server as it is set up, and nothing was begun: the message in \
             the results says why (such as a secret that is missing, or a profile that cannot be read). When that \
             is mended, the same command goes on",
        ),
        "AMOUNT_DOES_NOT_FIT" | "ACCOUNT_NOT_READY" | "ACCOUNT_PAUSED" | "LEASE_LOST" => {
            (Tries, "the accounts that were picked changed before the card was sent")
        }
        "REDEMPTION_OPEN" => (Tries, "the account that was picked has an open redemption"),
        "ACCOUNT_NOT_FOUND" | "PLAN_NOT_FOUND" | "POOL_NOT_FOUND" => (
            Tries,
            "it was deleted meanwhile, or never there: correct --pool or --plan, or create it",
        ),
        "OVERLOADED" | "SHUTTING_DOWN" => (Tries, "the server had no room for it, or was stopping"),
        "DATABASE_UNAVAILABLE" | "DEADLINE_PASSED" | "INTERNAL" => {
            (FindsOut, "the server failed during the call, and a redemption may have been begun")
        }
        _ => (FindsOut, "the results' message says why; whether it was begun is not known here"),
    };
    (again, text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reason: &str, state: &str) -> (Again, String) {
        rejected(reason, state, &PoolId::parse("shop").unwrap())
    }

    #[test]
    fn every_reason_says_what_the_same_command_does() {
        for (reason, state, again, part) in [
            ("REQUEST_ID_REUSED", "", Again::Refused, "new --batch-id"),
            ("CODE_IN_USE", "SUCCEEDED", Again::Refused, "was redeemed already"),
            ("CODE_IN_USE", "IN_DOUBT", Again::IfOtherFails, "is being redeemed"),
            ("CODE_IN_USE", "", Again::IfOtherFails, "is being redeemed"),
            ("NO_ACCOUNT_AVAILABLE", "", Again::Tries, "account explain --pool shop"),
            ("PROVIDER_UNAVAILABLE", "", Again::Tries, "as it is set up, and nothing was begun"),
            ("POOL_PAUSED", "", Again::Tries, "pool resume shop"),
            ("POOL_DRAINING", "", Again::Tries, "pool resume shop"),
            ("INVALID_ARGUMENT", "", Again::Refused, "which field"),
            ("CARD_NOT_REDEEMABLE", "", Again::Tries, "check the code"),
            ("CURRENCY_MISMATCH", "", Again::Refused, "pool of its currency"),
            ("COUNTRY_MISMATCH", "", Again::Refused, "its country"),
            ("INQUIRY_FAILED", "", Again::Tries, "amount_minor"),
            ("AMOUNT_DOES_NOT_FIT", "", Again::Tries, "changed"),
            ("DATABASE_UNAVAILABLE", "", Again::FindsOut, "may have been begun"),
            ("INTERNAL", "", Again::FindsOut, "may have been begun"),
            ("OVERLOADED", "", Again::Tries, "no room"),
            ("SHUTTING_DOWN", "", Again::Tries, "stopping"),
        ] {
            let (told, text) = told(reason, state);
            assert_eq!(told, again, "{reason}");
            assert!(text.contains(part), "{reason}: {text}");
        }
    }

    #[test]
    fn of_a_reason_that_is_not_known_nothing_is_claimed() {
        for reason in ["SOMETHING_NEW", "UNKNOWN", ""] {
            let (again, text) = told(reason, "");
            assert_eq!(again, Again::FindsOut);
            assert!(text.contains("message says why"), "{text}");
        }
    }
}
