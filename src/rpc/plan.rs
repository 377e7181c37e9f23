//! Conversion of plans from messages and to them.

use std::time::Duration;

use super::{
    convert::{self, Fields, timestamp},
    mask::Mask,
    pb,
};
use crate::{
    domain::{
        id::{PlanId, PoolId},
        money::{Currency, Money},
        plan::{Denominations, MAX_DAYS, MAX_FIXED, MAX_INTERVAL, Terms},
        pool::Plan,
    },
    service::{
        Error,
        admin::plans::{Amounts, PlanChange},
    },
};

/// The fields that an update may name.
const CHANGEABLE: [&str; 6] = [
    "target",
    "day_amounts",
    "day_tolerance",
    "day_interval",
    "redemption_interval",
    "denominations",
];

/// What of a plan's message is set, with every amount as it was given.
#[derive(Default)]
struct Given {
    change: PlanChange,
    amounts: Amounts,
}

pub(super) fn read_new_plan(
    request: pb::CreatePlanRequest,
) -> Result<(PoolId, PlanId, Terms, Amounts), Error> {
    let mut fields = Fields::default();
    let plan = fields.required("plan", request.plan);
    let read = plan.and_then(|plan| {
        let names = read_names(&mut fields, &plan);
        fields.required("plan.target", plan.target.as_ref());
        let Given { change, amounts } = read_given(&mut fields, plan);
        let (pool_id, plan_id) = names?;
        let defaults = Terms::up_to(change.target_minor?);
        Some((pool_id, plan_id, change.apply(&defaults), amounts))
    });
    fields.finish(read)
}

pub(super) fn read_plan_change(
    request: pb::UpdatePlanRequest,
) -> Result<(PoolId, PlanId, PlanChange, Amounts), Error> {
    let mut fields = Fields::default();
    let mask = Mask::read(&mut fields, request.update_mask, &CHANGEABLE);
    let plan = fields.required("plan", request.plan);
    let read = plan.and_then(|plan| {
        let names = read_names(&mut fields, &plan);
        if mask.names("target") {
            fields.required("plan.target", plan.target.as_ref());
        }
        let Given { change, amounts } = read_given(&mut fields, plan);
        let (pool_id, plan_id) = names?;
        Some((pool_id, plan_id, masked(change, &mask), amounts))
    });
    fields.finish(read)
}

/// Only what the mask allows; what it names and is not set has its default again.
fn masked(change: PlanChange, mask: &Mask) -> PlanChange {
    fn field<T>(mask: &Mask, name: &str, given: Option<T>, default: impl Fn() -> T) -> Option<T> {
        if mask.names(name) {
            Some(given.unwrap_or_else(default))
        } else {
            given.filter(|_| mask.allows(name))
        }
    }
    let defaults = Terms::up_to(1);
    PlanChange {
        target_minor: change.target_minor.filter(|_| mask.allows("target")),
        day_amounts_minor: field(mask, "day_amounts", change.day_amounts_minor, Vec::new),
        day_tolerance_minor: field(mask, "day_tolerance", change.day_tolerance_minor, || 0),
        day_interval: field(mask, "day_interval", change.day_interval, || defaults.day_interval),
        redemption_interval: field(mask, "redemption_interval", change.redemption_interval, || {
            defaults.redemption_interval
        }),
        denominations: field(mask, "denominations", change.denominations, || {
            defaults.denominations.clone()
        }),
    }
}

pub(super) fn read_plan_names(pool_id: &str, plan_id: &str) -> Result<(PoolId, PlanId), Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", pool_id, PoolId::parse);
    let plan_id = fields.id("plan_id", plan_id, PlanId::parse);
    fields.finish(pool_id.zip(plan_id))
}

/// The pool, after which of its plans, and how many.
pub(super) fn read_plan_list(
    request: pb::ListPlansRequest,
) -> Result<(PoolId, Option<PlanId>, i64), Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let limit = fields.page_size(request.page_size);
    let after = fields.page_token(&request.page_token, |key| PlanId::parse(key).ok());
    fields.finish(pool_id.map(|pool_id| (pool_id, after, limit)))
}

fn read_names(fields: &mut Fields, plan: &pb::Plan) -> Option<(PoolId, PlanId)> {
    let pool_id = fields.id("plan.pool_id", &plan.pool_id, PoolId::parse);
    let plan_id = fields.id("plan.plan_id", &plan.plan_id, PlanId::parse);
    pool_id.zip(plan_id)
}

/// Reads amounts, and keeps each with its field: the pool's currency is not known here.
struct Reader<'a> {
    fields: &'a mut Fields,
    amounts: Amounts,
}

impl Reader<'_> {
    fn money(&mut self, field: &str, money: Option<pb::Money>, least: i64) -> Option<i64> {
        let money: Money = self.fields.money(field, money, least)?;
        self.amounts.push((field.to_owned(), money));
        Some(money.amount_minor)
    }

    fn list(&mut self, field: &str, list: Vec<pb::Money>, most: usize) -> Vec<i64> {
        if list.len() > most {
            self.fields.refuse(field, format!("must be at most {most}"));
        }
        let numbered = list.into_iter().take(most).enumerate();
        numbered
            .filter_map(|(index, money)| self.money(&format!("{field}[{index}]"), Some(money), 1))
            .collect()
    }
}

fn read_given(fields: &mut Fields, plan: pb::Plan) -> Given {
    let mut interval =
        |name: &str, given| fields.duration(name, given, Duration::ZERO, MAX_INTERVAL);
    let day_interval = interval("plan.day_interval", plan.day_interval);
    let redemption_interval = interval("plan.redemption_interval", plan.redemption_interval);
    let mut reader = Reader { fields, amounts: Amounts::new() };
    let target_minor = reader.money("plan.target", plan.target, 1);
    let has_days = !plan.day_amounts.is_empty();
    let day_amounts = reader.list("plan.day_amounts", plan.day_amounts, MAX_DAYS);
    let day_tolerance_minor = reader.money("plan.day_tolerance", plan.day_tolerance, 0);
    let denominations = plan.denominations.and_then(|given| read_denominations(&mut reader, given));
    Given {
        amounts: reader.amounts,
        change: PlanChange {
            target_minor,
            day_amounts_minor: has_days.then_some(day_amounts),
            day_tolerance_minor,
            day_interval,
            redemption_interval,
            denominations,
        },
    }
}

fn read_denominations(
    reader: &mut Reader<'_>,
    given: pb::plan::Denominations,
) -> Option<Denominations> {
    match given {
        pb::plan::Denominations::AmountRange(range) => {
            let smallest = reader.money("plan.amount_range.min", range.min, 1);
            let largest = reader.money("plan.amount_range.max", range.max, 1);
            Some(Denominations::Any {
                smallest_minor: smallest.unwrap_or(1),
                largest_minor: largest,
            })
        }
        pb::plan::Denominations::MultiplesOf(base) => {
            reader.money("plan.multiples_of", Some(base), 1).map(Denominations::MultiplesOf)
        }
        pb::plan::Denominations::FixedAmounts(fixed) => {
            let mut amounts = reader.list("plan.fixed_amounts.amounts", fixed.amounts, MAX_FIXED);
            amounts.sort_unstable();
            Some(Denominations::Fixed(amounts.into()))
        }
    }
}

pub(super) fn plan_message(plan: &Plan, currency: Currency) -> pb::Plan {
    let money = |amount: i64| convert::money(amount, currency);
    let terms = &plan.terms;
    pb::Plan {
        pool_id: plan.pool_id.to_string(),
        plan_id: plan.plan_id.to_string(),
        target: Some(money(terms.target_minor)),
        create_time: Some(timestamp(plan.created_at)),
        update_time: Some(timestamp(plan.updated_at)),
        day_amounts: terms.day_amounts_minor.iter().copied().map(money).collect(),
        day_tolerance: Some(money(terms.day_tolerance_minor)),
        day_interval: Some(convert::duration(terms.day_interval)),
        redemption_interval: Some(convert::duration(terms.redemption_interval)),
        denominations: Some(match &terms.denominations {
            Denominations::Any { smallest_minor, largest_minor } => {
                pb::plan::Denominations::AmountRange(pb::AmountRange {
                    min: Some(money(*smallest_minor)),
                    max: largest_minor.map(money),
                })
            }
            Denominations::MultiplesOf(base) => pb::plan::Denominations::MultiplesOf(money(*base)),
            Denominations::Fixed(amounts) => {
                pb::plan::Denominations::FixedAmounts(pb::FixedAmounts {
                    amounts: amounts.iter().copied().map(money).collect(),
                })
            }
        }),
    }
}
