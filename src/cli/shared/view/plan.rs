//! The table of plans.

use serde_json::Value;

use super::{amount, currency, span, text, time};
use crate::rpc::pb::{self, plan::Denominations};

/// A plan's columns. Those for programs repeat as numbers what `days` and `denominations` say in
/// words.
pub(crate) const PLAN: &[&str] = &[
    "pool_id",
    "plan_id",
    "target_minor",
    "currency_code",
    "days",
    "day_tolerance_minor",
    "day_interval",
    "redemption_interval",
    "denominations",
    "day_amounts_minor",
    "min_amount_minor",
    "max_amount_minor",
    "multiples_of_minor",
    "fixed_amounts_minor",
    "create_time",
    "update_time",
];

/// The columns of a list in a table: what fits on a terminal.
pub(crate) const PLAN_AT_A_GLANCE: &[&str] = &[
    "plan_id",
    "target_minor",
    "currency_code",
    "days",
    "day_tolerance_minor",
    "day_interval",
    "redemption_interval",
    "denominations",
];

/// The columns of one plan in a table: what a person reads of it.
pub(crate) const PLAN_FOR_PEOPLE: &[&str] = &[
    "pool_id",
    "plan_id",
    "target_minor",
    "currency_code",
    "days",
    "day_tolerance_minor",
    "day_interval",
    "redemption_interval",
    "denominations",
    "create_time",
    "update_time",
];

/// A plan's row.
pub(crate) fn plan(plan: &pb::Plan) -> Vec<Value> {
    let [min, max, multiples_of, fixed] = numbers(plan.denominations.as_ref());
    vec![
        text(&plan.pool_id),
        text(&plan.plan_id),
        amount(plan.target.as_ref()),
        currency(plan.target.as_ref()),
        text(&days(&plan.day_amounts)),
        amount(plan.day_tolerance.as_ref()),
        span(plan.day_interval.as_ref()),
        span(plan.redemption_interval.as_ref()),
        words(plan.denominations.as_ref()).into(),
        amounts(&plan.day_amounts),
        min,
        max,
        multiples_of,
        fixed,
        time(plan.create_time.as_ref()),
        time(plan.update_time.as_ref()),
    ]
}

fn amounts(list: &[pb::Money]) -> Value {
    list.iter().map(|money| Value::from(money.amount_minor)).collect()
}

/// `5000 x 6, 10000`: the amount of each day, equal ones that follow each other together.
fn days(list: &[pb::Money]) -> String {
    let runs = list.chunk_by(|a, b| a.amount_minor == b.amount_minor);
    let runs = runs.map(|run| match run {
        [day] => day.amount_minor.to_string(),
        run => format!("{} x {}", run.first().map_or(0, |day| day.amount_minor), run.len()),
    });
    runs.collect::<Vec<_>>().join(", ")
}

fn words(denominations: Option<&Denominations>) -> String {
    match denominations {
        Some(Denominations::AmountRange(range)) => {
            // The server fills in the least, which is the currency's minor unit.
            let min = range.min.as_ref().map_or(1, |min| min.amount_minor);
            match range.max.as_ref().map(|max| max.amount_minor) {
                None if min <= 1 => "any amount".to_owned(),
                None => format!("{min} or more"),
                Some(max) if min <= 1 => format!("at most {max}"),
                Some(max) => format!("{min} to {max}"),
            }
        }
        Some(Denominations::MultiplesOf(base)) => format!("multiples of {}", base.amount_minor),
        Some(Denominations::FixedAmounts(fixed)) => {
            let list = fixed.amounts.iter().map(|money| money.amount_minor.to_string());
            list.collect::<Vec<_>>().join(", ")
        }
        None => "any amount".to_owned(),
    }
}

/// The least, the most, the base of multiples, the fixed amounts: null where it is not that kind.
fn numbers(denominations: Option<&Denominations>) -> [Value; 4] {
    const NULL: Value = Value::Null;
    match denominations {
        Some(Denominations::AmountRange(range)) => {
            [amount(range.min.as_ref()), amount(range.max.as_ref()), NULL, NULL]
        }
        Some(Denominations::MultiplesOf(base)) => [NULL, NULL, amount(Some(base)), NULL],
        Some(Denominations::FixedAmounts(fixed)) => [NULL, NULL, NULL, amounts(&fixed.amounts)],
        None => [NULL; 4],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::shared::view::choose;

    fn money(amount_minor: i64) -> pb::Money {
        pb::Money { amount_minor, currency_code: "EUR".into() }
    }

    fn seen(plan: &pb::Plan, columns: &[&str]) -> Vec<Value> {
        choose(columns, PLAN, &super::plan(plan))
    }

    #[test]
    fn every_column_of_a_table_is_one_of_a_plans() {
        let row = plan(&pb::Plan::default());
        assert_eq!(row.len(), PLAN.len());
        for columns in [PLAN_FOR_PEOPLE, PLAN_AT_A_GLANCE] {
            assert_eq!(choose(columns, PLAN, &row).len(), columns.len());
        }
    }

    #[test]
    fn days_are_told_in_words_and_in_numbers() {
        let days = [500, 500, 500, 700, 500].map(money).to_vec();
        let plan = pb::Plan { day_amounts: days, ..Default::default() };
        assert_eq!(
            seen(&plan, &["days", "day_amounts_minor"]),
            [json!("500 x 3, 700, 500"), json!([500, 500, 500, 700, 500])]
        );
        let none = pb::Plan::default();
        assert_eq!(seen(&none, &["days", "day_amounts_minor"]), [json!(null), json!([])]);
    }

    #[test]
    fn denominations_are_told_in_words_and_in_numbers() {
        let columns = [
            "denominations",
            "min_amount_minor",
            "max_amount_minor",
            "multiples_of_minor",
            "fixed_amounts_minor",
        ];
        let range = |min: Option<i64>, max: Option<i64>| {
            let (min, max) = (min.map(money), max.map(money));
            Denominations::AmountRange(pb::AmountRange { min, max })
        };
        let fixed = pb::FixedAmounts { amounts: [1000, 2500].map(money).to_vec() };
        for (given, wanted) in [
            (range(Some(1), None), json!(["any amount", 1, null, null, null])),
            (range(Some(100), None), json!(["100 or more", 100, null, null, null])),
            (range(Some(1), Some(900)), json!(["at most 900", 1, 900, null, null])),
            (range(Some(100), Some(900)), json!(["100 to 900", 100, 900, null, null])),
            (
                Denominations::MultiplesOf(money(500)),
                json!(["multiples of 500", null, null, 500, null]),
            ),
            (
                Denominations::FixedAmounts(fixed),
                json!(["1000, 2500", null, null, null, [1000, 2500]]),
            ),
        ] {
            let plan = pb::Plan { denominations: Some(given), ..Default::default() };
            assert_eq!(Value::from(seen(&plan, &columns)), wanted);
        }
    }
}
