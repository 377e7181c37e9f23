//! The selector: which accounts a caller allows to be acquired.

use super::{
    account::Labels,
    id::{AccountId, PlanId},
};

/// Which accounts may be picked. What is `None` or empty does not narrow the choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Only this account.
    pub account_id: Option<AccountId>,
    /// Accounts of this plan first, then ones without a plan.
    pub plan_id: Option<PlanId>,
    /// Only accounts of this country.
    pub country_code: Option<String>,
    /// Only accounts of this country, which is the card's, or of none that is known.
    pub card_country: Option<String>,
    /// Only accounts whose plan still wants this much today, in minor units.
    pub min_headroom_minor: Option<i64>,
    /// Only accounts that carry all of these.
    pub labels: Labels,
    /// Not these.
    pub exclude: Vec<AccountId>,
}
