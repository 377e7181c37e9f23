//! Rules: when an answer is so, then it means that. The first that holds counts.

use super::{
    super::json::{Contradiction, Json, Number},
    names::{Name, OpKind, Scope},
    pointer::{Pointer, Pointers},
    source::Value,
    template::Rendered,
    tree::Leaf,
    values::Values,
};
use crate::domain::hold::HoldCause;

/// A rule of an op.
#[derive(Clone, Debug)]
pub(in crate::provider) struct Rule {
    pub(in crate::provider) when: When,
    pub(in crate::provider) then: Then,
    pub(super) line: usize,
}

/// What an answer means, as far as a profile can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Then {
    Succeeded,
    Failed { spent: bool, reason: Option<String>, account: Option<HoldCause> },
    Undone,
    Processing,
    NotExecuted,
    Unauthorized,
    Duplicate,
    NotFound,
    Review,
    InDoubt,
}

/// What must hold, all of it.
#[derive(Clone, Debug, Default)]
pub(in crate::provider) struct When {
    /// The first and the last status of each range; empty is every status.
    status: Vec<(u16, u16)>,
    /// What a pointer must be equal to, one of them.
    equal: Vec<(Pointer, Vec<Leaf>)>,
    has: Vec<Pointers>,
    absent: Vec<Pointers>,
    found: Option<bool>,
}

/// An answer, as rules see it.
pub(super) struct Seen<'a> {
    pub(super) status: u16,
    /// `None`: it is no JSON.
    pub(super) body: Option<&'a Json>,
    pub(super) element: Option<&'a Json>,
    pub(super) found: Option<bool>,
    pub(super) values: &'a Values,
}

impl Rule {
    pub(super) fn read(value: &Value<'_>, kind: OpKind) -> Option<Self> {
        let table = value.table()?;
        let faults = table.faults.count();
        let when = match table.get("when") {
            Some(when) => When::read(&when, Scope::Op(kind)),
            None => Some(When::default()),
        };
        let then = table.need("then").and_then(|then| Then::read(&then));
        table.finish();
        let rule = Self { when: when?, then: then?, line: value.line() };
        let is_definite = matches!(rule.then, Then::Succeeded | Then::Failed { .. });
        let is_whole = table.faults.count() == faults;
        if is_definite && rule.when.is_of_status_alone() && is_whole {
            value.fault(
                "says succeeded or failed by the status alone: a rule for that reads the body",
            );
        }
        if rule.then == Then::Undone && !matches!(kind, OpKind::Cancel | OpKind::Reverse) {
            value.fault("says undone, which only cancel and reverse can");
        }
        Some(rule)
    }
}

impl Then {
    fn read(value: &Value<'_>) -> Option<Self> {
        if !value.is_table() {
            if value.text() == Some("failed") {
                value.fault("must say whether the code is spent: { failed = { spent = false } }");
                return None;
            }
            return Self::word(value);
        }
        let table = value.table()?;
        let failed = table.need("failed");
        table.finish();
        let failed = failed?.table()?;
        let spent = failed.need("spent").and_then(|spent| spent.truth());
        let reason = failed.get("reason").map(|reason| reason.filled().map(str::to_owned));
        let account = failed.get("account").map(|account| {
            account.word(&[
                ("login_invalid", HoldCause::LoginInvalid),
                ("limit_reached", HoldCause::LimitReached),
                ("throttled", HoldCause::Throttled),
            ])
        });
        failed.finish();
        Some(Self::Failed {
            spent: spent?,
            reason: reason.map_or(Some(None), |reason| reason.map(Some))?,
            account: account.map_or(Some(None), |account| account.map(Some))?,
        })
    }

    fn word(value: &Value<'_>) -> Option<Self> {
        let words = [
            "succeeded",
            "undone",
            "processing",
            "not_executed",
            "unauthorized",
            "duplicate",
            "not_found",
            "review",
            "in_doubt",
        ];
        let word = value.word(&words.map(|word| (word, word)))?;
        Some(match word {
            "succeeded" => Self::Succeeded,
            "undone" => Self::Undone,
            "processing" => Self::Processing,
            "not_executed" => Self::NotExecuted,
            "unauthorized" => Self::Unauthorized,
            "duplicate" => Self::Duplicate,
            "not_found" => Self::NotFound,
            "review" => Self::Review,
            _ => Self::InDoubt,
        })
    }
}

impl When {
    fn read(value: &Value<'_>, scope: Scope) -> Option<Self> {
        let table = value.table()?;
        let status = table.get("status").map(|status| read_statuses(&status));
        let mut equal = Vec::new();
        for (key, is_list) in [("eq", false), ("in", true)] {
            let Some(pairs) = table.get(key) else { continue };
            for (at, wanted) in pairs.table()?.entries() {
                let pointer = Pointer::parse(at).map_err(|why| wanted.fault(why)).ok();
                if is_list != wanted.is_list() {
                    wanted.fault(if is_list {
                        "must be a list of values"
                    } else {
                        "must be one value"
                    });
                    continue;
                }
                let values = wanted.one_or_list();
                if values.is_empty() {
                    wanted.fault("is empty: the rule can never match");
                }
                let leaves: Vec<_> =
                    values.iter().filter_map(|value| Leaf::read(value, scope)).collect();
                if let Some(pointer) = pointer.filter(|_| leaves.len() == values.len()) {
                    equal.push((pointer, leaves));
                }
            }
        }
        let there = |key| match table.get(key) {
            None => Vec::new(),
            Some(list) => list.one_or_list().iter().filter_map(Pointers::read).collect::<Vec<_>>(),
        };
        let (has, absent) = (there("has"), there("absent"));
        let found = table.get("found").map(|found| found.truth());
        table.finish();
        let when = Self {
            status: status.unwrap_or(Some(Vec::new()))?,
            equal,
            has,
            absent,
            found: found.map_or(Some(None), |found| found.map(Some))?,
        };
        when.contradicts_itself()
            .then(|| value.fault("can never hold: what must be there must be absent too"));
        Some(when)
    }

    fn contradicts_itself(&self) -> bool {
        let there = self.has.iter().filter_map(|pointers| match &*pointers.0 {
            [one] => Some(one),
            _ => None,
        });
        let compared = self.equal.iter().map(|(pointer, _)| pointer);
        let mut needed = there.chain(compared);
        needed.any(|pointer| {
            let absent = self.absent.iter().flat_map(|absent| &absent.0);
            // What a value is compared with is no table and no list.
            let mut values = self.equal.iter().map(|(value, _)| value);
            absent
                .chain(values.by_ref().filter(|value| *value != pointer))
                .any(|at| pointer.is_at_or_within(at))
                || self.found == Some(false) && pointer.of_element
        }) || self.compares_with_different_values()
    }

    /// Whether one field must be equal to different values.
    fn compares_with_different_values(&self) -> bool {
        let is_never = |(pointer, values): &(Pointer, Vec<Leaf>)| {
            let others = self.equal.iter().filter(|(other, _)| other == pointer);
            others.into_iter().any(|(_, others)| {
                !values.iter().any(|value| others.iter().any(|other| value.may_equal(other)))
            })
        };
        self.equal.iter().any(is_never)
    }

    /// Whether it looks at nothing but the status.
    pub(super) fn is_of_status_alone(&self) -> bool {
        self.equal.is_empty()
            && self.has.is_empty()
            && self.absent.is_empty()
            && self.found.is_none()
    }

    /// Whether it holds only where one of these is there.
    pub(super) fn needs(&self, at: &Pointers) -> bool {
        let has = |pointers: &Pointers| pointers.0.iter().all(|pointer| at.0.contains(pointer));
        self.has.iter().any(has) || self.equal.iter().any(|(pointer, _)| at.0.contains(pointer))
    }

    /// Whether it holds only where an element was chosen.
    pub(super) fn needs_found(&self) -> bool {
        let of_element = |pointers: &Pointers| pointers.0.iter().all(|pointer| pointer.of_element);
        self.found == Some(true)
            || self.has.iter().any(of_element)
            || self.equal.iter().any(|(pointer, _)| pointer.of_element)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.equal.iter().flat_map(|(_, wanted)| wanted.iter().flat_map(Leaf::names))
    }

    pub(super) fn needs_items(&self) -> bool {
        self.found.is_some()
            || self.equal.iter().any(|(pointer, _)| pointer.of_element)
            || self.has.iter().chain(&self.absent).any(Pointers::need_element)
    }

    /// Whether it names a status itself. A class such as "2xx" does not name the statuses of answers that are not whole.
    pub(super) fn names_status(&self, status: u16) -> bool {
        self.status.iter().any(|(first, last)| {
            (*first..=*last).contains(&status) && (first == last || !is_partial(status))
        })
    }

    /// The statuses that it may hold for.
    pub(super) fn statuses(&self) -> impl Iterator<Item = u16> {
        let every = self.status.is_empty().then_some((100, 599));
        self.status.iter().copied().chain(every).flat_map(|(first, last)| first..=last)
    }

    /// Whether it holds for a status wherever the other one does.
    pub(super) fn covers(&self, other: &Self, status: u16) -> bool {
        self.statuses().any(|mine| mine == status)
            && self.equal.iter().all(|(pointer, wanted)| {
                other.equal.iter().any(|(theirs, values)| {
                    theirs == pointer && values.iter().all(|value| wanted.contains(value))
                })
            })
            && self.has.iter().all(|one| other.has.contains(one))
            && self.absent.iter().all(|one| other.absent.contains(one))
            && self.found.is_none_or(|found| other.found == Some(found))
            // A body that is no JSON meets only what looks at the status.
            && (self.is_of_status_alone() || !other.is_of_status_alone())
    }

    /// Whether it holds. The error says why that cannot be told.
    pub(super) fn holds(&self, seen: &Seen<'_>) -> Result<bool, String> {
        let is_status = |(first, last): &(u16, u16)| (*first..=*last).contains(&seen.status);
        if !self.status.is_empty() && !self.status.iter().any(is_status) {
            return Ok(false);
        }
        if self.is_of_status_alone() {
            return Ok(true);
        }
        let Some(body) = seen.body else { return Ok(false) };
        if self.found.is_some_and(|found| seen.found != Some(found)) {
            return Ok(false);
        }
        let there = |pointers: &Pointers| {
            let got = pointers.get(body, seen.element);
            got.map(|value| value.is_some()).map_err(|Contradiction| twice())
        };
        for pointers in &self.has {
            if !there(pointers)? {
                return Ok(false);
            }
        }
        for pointers in &self.absent {
            if there(pointers)? {
                return Ok(false);
            }
        }
        for (pointer, wanted) in &self.equal {
            let told = pointer.get(body, seen.element).map_err(|Contradiction| twice())?;
            let Some(told) = told else { return Ok(false) };
            let mut is_one = false;
            for leaf in wanted {
                is_one |= is_equal(told, leaf, seen.values)?;
            }
            if !is_one {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Reset content and partial content: there is no answer, or a part of one.
pub(in crate::provider) fn is_partial(status: u16) -> bool {
    matches!(status, 205 | 206)
}

fn twice() -> String {
    "a field that decides is given twice, with different values".to_owned()
}

/// Whether a value of an answer is what a profile says: of the same type too.
pub(super) fn is_equal(told: &Json, wanted: &Leaf, values: &Values) -> Result<bool, String> {
    let is_number = |text: &str| match (told, Number::parse(text)) {
        (Json::Number(told), Some(wanted)) => *told == wanted,
        _ => false,
    };
    Ok(match wanted {
        Leaf::Bool(wanted) => matches!(told, Json::Bool(told) if told == wanted),
        Leaf::Number(wanted) => is_number(wanted),
        Leaf::Template(template) => match template.leaf(values).map_err(|why| why.to_string())? {
            None => false,
            Some(Rendered::Text(wanted)) => matches!(told, Json::Text(told) if *told == wanted),
            Some(Rendered::Whole(wanted)) => is_number(&wanted.to_string()),
            Some(Rendered::Number(wanted)) => is_number(&wanted),
        },
    })
}

fn read_statuses(value: &Value<'_>) -> Option<Vec<(u16, u16)>> {
    let values = value.one_or_list();
    if values.is_empty() {
        value.fault("is empty: the rule can never match");
    }
    let read = |value: &Value<'_>| {
        if let toml::de::DeValue::String(text) = value.node() {
            let class = text.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok());
            let class = class.filter(|class| (1..=5).contains(class) && text.len() == 3);
            if class.is_none() {
                value.fault("must be a status, such as 200 or \"4xx\"");
            }
            return class.map(|class| (class * 100, class * 100 + 99));
        }
        let status = u16::try_from(value.whole(100, 599)?).ok()?;
        Some((status, status))
    };
    let statuses: Vec<_> = values.iter().map(read).collect();
    statuses.into_iter().collect()
}

/// Reads a list of pointers that must each be one.
pub(super) fn read_parse(value: &Value<'_>) -> Option<Vec<Pointer>> {
    let mut pointers = Vec::new();
    for (at, how) in value.table()?.entries() {
        how.word(&[("json", ())]);
        match Pointer::parse(at) {
            Ok(pointer) => pointers.push(pointer),
            Err(why) => how.fault(why),
        }
    }
    Some(pointers)
}

/// Reads what an element must be like to be the one.
pub(super) fn read_match(value: &Value<'_>, kind: OpKind) -> Option<Vec<(Pointer, Leaf)>> {
    let entries = value.table()?.entries();
    if entries.is_empty() {
        value.fault("must name a field");
    }
    let entries = entries.iter().map(|(at, wanted)| {
        let pointer = Pointer::parse(at).map_err(|why| wanted.fault(why)).ok();
        Some((pointer?, Leaf::read(wanted, Scope::Op(kind))?))
    });
    let entries: Vec<_> = entries.collect();
    entries.into_iter().collect()
}
