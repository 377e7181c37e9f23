//! Selectors: which accounts an acquisition may pick.

use super::{
    account::{Account, Labels},
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

impl Selector {
    /// About how many bytes it occupies.
    pub fn bytes(&self) -> usize {
        /// Besides its text, of each that is named.
        const EACH: usize = 32;
        let labels = self.labels.iter().map(|(key, value)| key.len() + value.len() + 2 * EACH);
        let excluded = self.exclude.iter().map(|id| id.as_str().len() + EACH);
        labels.chain(excluded).sum()
    }

    /// Whether an account may be picked, as far as it is named, by its plan, country and labels. What its plan takes
    /// is another question: see [`super::plan::Terms::misfit_for`].
    pub fn allows(&self, account: &Account) -> bool {
        let country = account.country_code.as_ref();
        let is_of_plan = |plan_id| account.plan_id.as_ref().is_none_or(|own| own == plan_id);
        let has_label = |(key, value)| account.labels.get(key) == Some(value);
        self.account_id.as_ref().is_none_or(|id| *id == account.account_id)
            && self.plan_id.as_ref().is_none_or(is_of_plan)
            && (self.country_code.is_none() || self.country_code.as_ref() == country)
            && self.card_country.as_ref().is_none_or(|card| country.is_none_or(|own| own == card))
            && self.labels.iter().all(has_label)
            && !self.exclude.contains(&account.account_id)
    }
}
