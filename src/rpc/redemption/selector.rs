//! Selectors, read.

use crate::{
    domain::{
        id::{AccountId, PlanId},
        selector::Selector,
    },
    rpc::{convert::Fields, pb},
    service::batch::Selection,
};

/// The most account ids that a selector may exclude.
const MAX_EXCLUDED: usize = 1000;

pub(super) fn read_selector(
    fields: &mut Fields,
    field: &str,
    selector: Option<pb::AccountSelector>,
) -> Selection {
    let Some(selector) = selector else { return Selection::default() };
    let path = |name: &str| format!("{field}.{name}");
    let account_id =
        fields.optional_id(&path("account_id"), &selector.account_id, AccountId::stored);
    let plan_id = fields.optional_id(&path("plan_id"), &selector.plan_id, PlanId::parse);
    let country_code = fields.country(&path("country_code"), &selector.country_code);
    let min_headroom = fields.money(&path("min_headroom"), selector.min_headroom, 0);
    let expected = fields.money(&path("expected"), selector.expected, 1);
    let labels = fields.labels(&path("labels"), selector.labels);
    if selector.exclude_account_ids.len() > MAX_EXCLUDED {
        fields.refuse(&path("exclude_account_ids"), format!("must be at most {MAX_EXCLUDED}"));
    }
    let excluded = selector.exclude_account_ids.iter().enumerate().take(MAX_EXCLUDED);
    let exclude = excluded
        .filter_map(|(index, id)| {
            fields.id(&path(&format!("exclude_account_ids[{index}]")), id, AccountId::stored)
        })
        .collect();
    Selection {
        selector: Selector {
            account_id,
            plan_id,
            country_code,
            card_country: None,
            min_headroom_minor: min_headroom.map(|money| money.amount_minor),
            labels,
            exclude,
        },
        min_headroom,
        expected,
    }
}
