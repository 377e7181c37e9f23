//! Answers, read as a profile says. What follows from them is for `classify` to say.

use std::time::Duration;

use super::{
    super::json::{Contradiction, Field, Json, Number},
    money,
    names::Name,
    op::{Amount, Op, TimeUnit},
    pointer::Pointers,
    rule::{Seen, Then, is_equal},
    values::Values,
};
use crate::domain::money::Currency;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// An answer, or a page of one.
#[derive(Clone, Copy)]
pub struct Answered<'a> {
    /// The status code.
    pub status: u16,
    /// The whole body.
    pub body: &'a [u8],
    /// `Retry-After`, where it is given in seconds.
    pub retry_after: Option<Duration>,
}

/// An answer as it was read.
pub(in crate::provider) struct Reading {
    pub(in crate::provider) status: u16,
    /// The body is JSON, of every page.
    pub(in crate::provider) is_json: bool,
    pub(in crate::provider) then: Then,
    /// The line of the rule that matched.
    pub(in crate::provider) rule: Option<usize>,
    /// That rule names the answer's status.
    pub(in crate::provider) names_status: bool,
    /// Why it is in doubt, where that is not a rule's word.
    pub(in crate::provider) why: Option<String>,
    pub(in crate::provider) told: Told,
    /// Of an op with items: whether exactly one fits. `None`: several do, or there is no array.
    pub(in crate::provider) found: Option<bool>,
    /// The chosen element was chosen by our key, or by the task.
    pub(in crate::provider) is_ours_by_match: bool,
}

/// What an answer tells, each field by itself.
pub(in crate::provider) struct Told {
    pub(in crate::provider) key: Field<String>,
    pub(in crate::provider) task: Field<String>,
    pub(in crate::provider) reference: Field<String>,
    pub(in crate::provider) account: Field<String>,
    pub(in crate::provider) currency: Field<Currency>,
    pub(in crate::provider) amount: Field<i64>,
    pub(in crate::provider) failure: Field<String>,
    pub(in crate::provider) message: Option<String>,
    pub(in crate::provider) country: Field<String>,
    pub(in crate::provider) retry_after: Option<Duration>,
    pub(in crate::provider) time: Field<OffsetDateTime>,
}

impl Reading {
    /// Reads an answer of one op. `pages` are all that there are, the first first; `is_whole` says so.
    pub(in crate::provider) fn of(
        op: &Op,
        values: &Values,
        currency: Currency,
        pages: &[Answered<'_>],
        is_whole: bool,
    ) -> Self {
        let Some(first) = pages.first() else {
            return Self::unreadable(op, values, 0, "there is no answer");
        };
        let mut bodies = pages.iter().map(|page| Json::read(page.body)).collect::<Vec<_>>();
        if !is_whole || pages.iter().any(|page| page.status != first.status) {
            return Self::unreadable(op, values, first.status, "its pages were not all told");
        }
        if bodies.len() > 1 && bodies.iter().any(Result::is_err) {
            return Self::unreadable(op, values, first.status, "a page of it is not JSON");
        }
        for body in bodies.iter_mut().flatten() {
            if !parse_within(op, body, false) {
                return Self::unreadable(
                    op,
                    values,
                    first.status,
                    "a text in it is not the JSON that it should be",
                );
            }
        }
        let bodies: Vec<_> = bodies.iter().map(|body| body.as_ref().map_err(|why| *why)).collect();
        let (element, found) = match choose(op, values, &bodies) {
            Ok(chosen) => chosen,
            Err(why) => return Self::unreadable(op, values, first.status, &why),
        };
        Self::judge(op, values, currency, *first, bodies.first().copied(), element, found)
    }

    /// Reads each element of a page of a list by itself. The error is the page as a whole, where it has no elements.
    pub(in crate::provider) fn of_each(
        op: &Op,
        values: &Values,
        currency: Currency,
        page: Answered<'_>,
    ) -> Result<Vec<Self>, Box<Self>> {
        let whole = |body: Result<&Json, &'static str>| {
            Err(Box::new(Self::judge(op, values, currency, page, Some(body), None, None)))
        };
        let mut body = match Json::read(page.body) {
            Ok(body) => body,
            Err(why) => return whole(Err(why)),
        };
        if !parse_within(op, &mut body, false) {
            return whole(Err("a text in it is not the JSON that it should be"));
        }
        let items = op.items.as_ref().map(|items| items.get(&body, None));
        let Some(Ok(Some(Json::List(items)))) = items else { return whole(Ok(&body)) };
        if !(200..300).contains(&page.status) {
            return whole(Ok(&body));
        }
        let each = items.iter();
        Ok(each.map(|it| Self::of_element(op, values, currency, page, &body, it)).collect())
    }

    /// Reads one element of a list.
    pub(in crate::provider) fn of_element(
        op: &Op,
        values: &Values,
        currency: Currency,
        page: Answered<'_>,
        body: &Json,
        element: &Json,
    ) -> Self {
        let element = Some(element.clone());
        Self::judge(op, values, currency, page, Some(Ok(body)), element, Some(true))
    }

    fn judge(
        op: &Op,
        values: &Values,
        currency: Currency,
        page: Answered<'_>,
        body: Option<Result<&Json, &'static str>>,
        mut element: Option<Json>,
        found: Option<bool>,
    ) -> Self {
        let status = page.status;
        if let Some(element) = &mut element
            && !parse_within(op, element, true)
        {
            return Self::unreadable(
                op,
                values,
                status,
                "a text in it is not the JSON that it should be",
            );
        }
        let (json, why_no_json) = match body {
            Some(Ok(json)) => (Some(json), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        let seen = Seen { status, body: json, element: element.as_ref(), found, values };
        let mut then = Then::InDoubt;
        let mut why = why_no_json.map(str::to_owned);
        let (mut line, mut names_status) = (None, false);
        for rule in &op.rules {
            match rule.when.holds(&seen) {
                Ok(false) => {}
                Ok(true) => {
                    (then, why, line) = (rule.then.clone(), None, Some(rule.line));
                    names_status = rule.when.names_status(status);
                    break;
                }
                Err(problem) => {
                    why = Some(problem);
                    break;
                }
            }
        }
        let told = match json {
            Some(json) => {
                Told::read(op, json, element.as_ref(), values, currency, page.retry_after)
            }
            None => Told::nothing(page.retry_after),
        };
        let by_match = op.matches_by(&Name::Key) || op.matches_by(&Name::Task);
        let is_ours_by_match = found == Some(true) && by_match;
        let is_json = json.is_some();
        Self { status, is_json, then, rule: line, names_status, why, told, found, is_ours_by_match }
    }

    fn unreadable(_op: &Op, _values: &Values, status: u16, why: &str) -> Self {
        Self {
            status,
            is_json: false,
            then: Then::InDoubt,
            rule: None,
            names_status: false,
            why: Some(why.to_owned()),
            told: Told::nothing(None),
            found: None,
            is_ours_by_match: false,
        }
    }
}

/// Replaces texts that hold JSON by what they hold.
fn parse_within(op: &Op, root: &mut Json, of_element: bool) -> bool {
    op.parse.iter().filter(|pointer| pointer.of_element == of_element).all(|pointer| {
        pointer.change(root, &mut |value| {
            let Json::Text(text) = value else { return true };
            match Json::read(text.as_bytes()) {
                Ok(json) => {
                    *value = json;
                    true
                }
                Err(_) => false,
            }
        })
    })
}

/// The one element that fits, and whether there is exactly one.
#[allow(clippy::type_complexity, reason = "used once")]
fn choose(
    op: &Op,
    values: &Values,
    bodies: &[Result<&Json, &'static str>],
) -> Result<(Option<Json>, Option<bool>), String> {
    let Some(items) = &op.items else { return Ok((None, None)) };
    let mut fitting: Vec<&Json> = Vec::new();
    for body in bodies {
        let Ok(body) = body else { return Ok((None, None)) };
        let Ok(Some(Json::List(list))) = items.get(body, None) else { return Ok((None, None)) };
        for element in list {
            match fits(op, values, element)? {
                None => return Ok((None, None)),
                Some(true) if !fitting.contains(&element) => fitting.push(element),
                Some(_) => {}
            }
        }
    }
    Ok(match &*fitting {
        [] => (None, Some(false)),
        [one] => (Some((*one).clone()), Some(true)),
        _ => (None, None),
    })
}

/// Whether an element is the one; `None` when it contradicts itself.
fn fits(op: &Op, values: &Values, element: &Json) -> Result<Option<bool>, String> {
    let mut fits = true;
    for (pointer, wanted) in &op.matches {
        match pointer.within(element) {
            Err(Contradiction) => return Ok(None),
            Ok(None) => fits = false,
            Ok(Some(told)) => fits &= is_equal(told, wanted, values)?,
        }
    }
    Ok(Some(fits))
}

impl Told {
    fn nothing(retry_after: Option<Duration>) -> Self {
        Self {
            key: Field::Missing,
            task: Field::Missing,
            reference: Field::Missing,
            account: Field::Missing,
            currency: Field::Missing,
            amount: Field::Missing,
            failure: Field::Missing,
            message: None,
            country: Field::Missing,
            retry_after,
            time: Field::Missing,
        }
    }

    /// What each pointer of an op gave, for people.
    pub(in crate::provider) fn each(&self, op: &Op) -> Vec<(&'static str, String)> {
        let field = |name: &str| match name {
            "ref" => shown(&self.reference),
            "task" => shown(&self.task),
            "key" => shown(&self.key),
            "account" => shown(&self.account),
            "currency" => shown(&self.currency),
            "failure" => shown(&self.failure),
            "country" => shown(&self.country),
            _ => self.message.clone().unwrap_or_else(|| NOT_THERE.to_owned()),
        };
        let mut each: Vec<_> = op.take.text_names().map(|name| (name, field(name))).collect();
        if op.take.amount.is_some() {
            let amount = match &self.amount {
                Field::Is(minor) => format!("{minor} (minor units)"),
                other => shown(other),
            };
            each.push(("amount", amount));
        }
        if op.take.has_time() {
            each.push(("time", shown(&self.time)));
        }
        if let Some(after) = self.retry_after {
            each.push(("retry_after", format!("{} ms", after.as_millis())));
        }
        each
    }

    fn read(
        op: &Op,
        body: &Json,
        element: Option<&Json>,
        values: &Values,
        currency: Currency,
        retry_after: Option<Duration>,
    ) -> Self {
        let text = |what: &str| match op.take.texts.get(what) {
            None => Field::Missing,
            Some(at) => take_text(at, body, element),
        };
        let told_currency = text("currency").and_then(|code| {
            Currency::parse(&code.to_ascii_uppercase())
                .map_or(Field::Wrong("is not a currency's three letters"), Field::Is)
        });
        let in_currency = match &told_currency {
            Field::Is(told) => *told,
            _ => currency,
        };
        let amount = match &op.take.amount {
            None => Field::Missing,
            Some(Amount::Expected) => {
                values.expected.map_or(Field::Missing, |money| Field::Is(money.amount_minor))
            }
            Some(Amount::At(at, unit)) => taken(at, body, element).and_then(|value| {
                let minor = money::read(value, *unit, in_currency);
                minor.map_or(Field::Wrong("is no amount"), Field::Is)
            }),
        };
        let after = op
            .take
            .retry_after
            .as_ref()
            .and_then(|(at, unit)| wait(taken(at, body, element).if_any()?, *unit, values.now));
        let time = match &op.take.time {
            None => Field::Missing,
            Some((at, unit)) => taken(at, body, element).and_then(|value| {
                moment(value, *unit).map_or(Field::Wrong("is no time"), Field::Is)
            }),
        };
        Self {
            key: text("key"),
            task: text("task").filled(),
            reference: text("ref").filled(),
            account: text("account"),
            currency: told_currency,
            amount,
            failure: text("failure"),
            message: text("message").if_any(),
            country: text("country"),
            retry_after: after.or(retry_after),
            time,
        }
    }
}

/// What a pointer gave, where that is nothing.
const NOT_THERE: &str = "(not there)";

fn shown<T: std::fmt::Display>(field: &Field<T>) -> String {
    match field {
        Field::Missing => NOT_THERE.to_owned(),
        Field::Is(value) => value.to_string(),
        Field::Wrong(why) => format!("(cannot be used: it {why})"),
    }
}

fn taken<'a>(at: &Pointers, body: &'a Json, element: Option<&'a Json>) -> Field<&'a Json> {
    match at.get(body, element) {
        Err(Contradiction) => Field::Wrong("is given twice, with different values"),
        Ok(None) => Field::Missing,
        Ok(Some(value)) => Field::Is(value),
    }
}

/// A text, or a number as it is written.
fn take_text(at: &Pointers, body: &Json, element: Option<&Json>) -> Field<String> {
    taken(at, body, element).and_then(|value| match value {
        Json::Text(text) => Field::Is(text.clone()),
        Json::Number(number) => Field::Is(number.as_str().to_owned()),
        _ => Field::Wrong("is not a text"),
    })
}

fn number(value: &Json) -> Option<Number> {
    match value {
        Json::Number(number) => Some(number.clone()),
        Json::Text(text) => Number::parse(text),
        _ => None,
    }
}

fn wait(value: &Json, unit: TimeUnit, now: OffsetDateTime) -> Option<Duration> {
    let until = |moment: OffsetDateTime| Duration::try_from(moment - now).ok();
    let number = number(value)?.about();
    match unit {
        TimeUnit::Seconds | TimeUnit::Ms if !number.is_finite() || number < 0.0 => None,
        TimeUnit::Seconds => Duration::try_from_secs_f64(number).ok(),
        // Saturates.
        TimeUnit::Ms => Some(Duration::from_millis(number as u64)),
        _ => until(moment(value, unit)?),
    }
}

fn moment(value: &Json, unit: TimeUnit) -> Option<OffsetDateTime> {
    match (unit, value) {
        (TimeUnit::Rfc3339, Json::Text(text)) => OffsetDateTime::parse(text, &Rfc3339).ok(),
        (TimeUnit::Rfc3339, _) => None,
        (TimeUnit::EpochMs | TimeUnit::Ms, _) => {
            let ms = i128::from(number(value)?.whole(0)?);
            OffsetDateTime::from_unix_timestamp_nanos(ms * 1_000_000).ok()
        }
        _ => {
            let ms = i128::from(number(value)?.whole(3)?);
            OffsetDateTime::from_unix_timestamp_nanos(ms * 1_000_000).ok()
        }
    }
}
