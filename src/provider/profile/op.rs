//! Ops: the request that a profile makes for one, and how its answer is read.

use std::collections::BTreeMap;

use super::{
    money::Unit,
    names::{Name, OpKind, Scope},
    pointer::{Pointer, Pointers},
    rule::{Rule, Then, read_match, read_parse},
    source::{Table, Value},
    tree::{Body, Leaf, Pairs, read_pairs},
    web::{Path, read_headers, read_method},
};

/// An op of a profile.
#[derive(Clone, Debug)]
pub(in crate::provider) struct Op {
    pub(in crate::provider) kind: OpKind,
    pub(super) line: usize,
    /// Nothing is wrong with what the file says of it.
    pub(super) is_whole: bool,
    pub(super) method: String,
    pub(super) path: Path,
    pub(super) query: Pairs,
    pub(super) headers: Pairs,
    pub(super) body: Body,
    /// What its "not found" proves, or, of `reverse`, its `undone`.
    pub(in crate::provider) ends_doubt: bool,
    /// Of a question: it is told why a send was refused, with the key.
    pub(in crate::provider) tells_refusals: bool,
    pub(in crate::provider) take: Take,
    pub(super) items: Option<Pointers>,
    pub(super) matches: Vec<(Pointer, Leaf)>,
    pub(super) pages: Option<Pages>,
    pub(super) parse: Vec<Pointer>,
    pub(in crate::provider) rules: Vec<Rule>,
}

/// What is taken out of an answer.
#[derive(Clone, Debug, Default)]
pub(in crate::provider) struct Take {
    pub(super) texts: BTreeMap<&'static str, Pointers>,
    pub(in crate::provider) amount: Option<Amount>,
    pub(super) retry_after: Option<(Pointers, TimeUnit)>,
    pub(super) time: Option<(Pointers, TimeUnit)>,
}

/// What of an answer is a text.
const TEXTS: [&str; 8] =
    ["ref", "task", "key", "account", "currency", "failure", "message", "country"];

/// Where the amount is told.
#[derive(Clone, Debug)]
pub(in crate::provider) enum Amount {
    At(Pointers, Unit),
    /// It is never told, and is what was expected.
    Expected,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider) enum TimeUnit {
    Seconds,
    Ms,
    Epoch,
    EpochMs,
    Rfc3339,
}

/// Where the next page is told.
#[derive(Clone, Debug)]
pub(in crate::provider) struct Pages {
    pub(super) next: Pointers,
    /// `next` is a URL of which only this parameter is used.
    pub(super) param: Option<String>,
}

/// An op before `as` is followed.
pub(super) struct Draft<'a> {
    pub(super) op: Op,
    of: Option<(OpKind, Value<'a>)>,
    says: [bool; 5],
}

impl Take {
    pub(in crate::provider) fn has(&self, what: &str) -> bool {
        self.texts.contains_key(what)
    }

    /// The names of the texts that it takes, in the order of the documents.
    pub(in crate::provider) fn text_names(&self) -> impl Iterator<Item = &'static str> {
        TEXTS.into_iter().filter(|name| self.has(name))
    }

    /// Whether an answer tells when it happened.
    pub(in crate::provider) fn has_time(&self) -> bool {
        self.time.is_some()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let table = value.table()?;
        let mut take = Self::default();
        for what in TEXTS {
            if let Some(pointers) = table.get(what).and_then(|at| Pointers::read(&at)) {
                take.texts.insert(what, pointers);
            }
        }
        take.amount = table.get("amount").and_then(|amount| Amount::read(&amount));
        let after = [
            ("seconds", TimeUnit::Seconds),
            ("ms", TimeUnit::Ms),
            ("epoch", TimeUnit::Epoch),
            ("epoch_ms", TimeUnit::EpochMs),
        ];
        take.retry_after = table.get("retry_after").and_then(|at| read_time(&at, &after));
        let time = [
            ("epoch", TimeUnit::Epoch),
            ("epoch_ms", TimeUnit::EpochMs),
            ("rfc3339", TimeUnit::Rfc3339),
        ];
        take.time = table.get("time").and_then(|at| read_time(&at, &time));
        table.finish();
        Some(take)
    }

    fn needs_items(&self) -> bool {
        let amount = match &self.amount {
            Some(Amount::At(at, _)) => at.need_element(),
            _ => false,
        };
        let times = [&self.retry_after, &self.time];
        amount
            || self.texts.values().any(Pointers::need_element)
            || times.into_iter().flatten().any(|(at, _)| at.need_element())
    }
}

impl Amount {
    fn read(value: &Value<'_>) -> Option<Self> {
        if !value.is_table() {
            value.word(&[("expected", ())])?;
            return Some(Self::Expected);
        }
        let table = value.table()?;
        let at = table.need("at").and_then(|at| Pointers::read(&at));
        let units = [("minor", Unit::Minor), ("major", Unit::Major), ("symbol", Unit::Symbol)];
        let unit = table.need("unit").and_then(|unit| unit.word(&units));
        table.finish();
        Some(Self::At(at?, unit?))
    }
}

fn read_time(value: &Value<'_>, units: &[(&str, TimeUnit)]) -> Option<(Pointers, TimeUnit)> {
    let table = value.table()?;
    let at = table.need("at").and_then(|at| Pointers::read(&at));
    let unit = table.need("unit").and_then(|unit| unit.word(units));
    table.finish();
    Some((at?, unit?))
}

impl Pages {
    fn read(value: &Value<'_>) -> Option<Self> {
        let table = value.table()?;
        let next = table.need("next").and_then(|next| Pointers::read(&next));
        let param = table.get("param").map(|param| param.filled().map(str::to_owned));
        table.finish();
        Some(Self { next: next?, param: param.map_or(Some(None), |param| param.map(Some))? })
    }
}

impl<'a> Draft<'a> {
    pub(super) fn read(value: &Value<'a>, kind: OpKind) -> Option<Self> {
        let table = value.table()?;
        let faults = table.faults.count();
        let scope = Scope::Op(kind);
        let pairs = |key| match table.get(key) {
            Some(pairs) => read_pairs(&pairs, scope),
            None => Some(Vec::new()),
        };
        let path = table.need("path").and_then(|path| Path::read(&path, scope));
        let query = pairs("query");
        let headers = match table.get("headers") {
            Some(headers) => read_headers(&headers, scope),
            None => Some(Vec::new()),
        };
        let body = Body::read(&table, scope);
        let method = read_method(&table, body.as_ref());
        let tells = table.get("tells_refusals");
        if let Some(tells) = &tells
            && !matches!(kind, OpKind::LookUp | OpKind::Find)
        {
            tells.fault("is for look_up and find");
        }
        let tells_refusals = tells.and_then(|tells| tells.truth()).unwrap_or(false);
        let ends_doubt = table.get("ends_doubt").map(|ends| (ends.truth(), ends));
        if let Some((Some(true), ends)) = &ends_doubt
            && !matches!(kind, OpKind::LookUp | OpKind::Find | OpKind::Reverse)
        {
            ends.fault("is for look_up, find and reverse alone");
        }
        let take = table.get("take");
        let items = table.get("items");
        let matches = table.get("match");
        let pages = table.get("pages");
        let parse = table.get("parse");
        let rules = table.get("rule");
        let says = [&take, &items, &matches, &pages, &parse].map(Option::is_some);
        let of = table.get("as").and_then(|of| Some((of.word(&OpKind::ALL)?, of)));
        let rules = rules.and_then(|rules| rules.list()).unwrap_or_default();
        // A part with a fault is left out: what is wrong with the others is to be found too.
        let mut op = Op {
            kind,
            line: value.line(),
            is_whole: false,
            ends_doubt: ends_doubt.is_some_and(|(ends, _)| ends == Some(true)),
            tells_refusals,
            take: take.and_then(|take| Take::read(&take)).unwrap_or_default(),
            items: items.and_then(|items| Pointers::read(&items)),
            matches: matches.and_then(|matches| read_match(&matches, kind)).unwrap_or_default(),
            pages: pages.and_then(|pages| Pages::read(&pages)),
            parse: parse.and_then(|parse| read_parse(&parse)).unwrap_or_default(),
            rules: rules.iter().filter_map(|rule| Rule::read(rule, kind)).collect(),
            method: method.unwrap_or_default(),
            path: path.unwrap_or_default(),
            query: query.unwrap_or_default(),
            headers: headers.unwrap_or_default(),
            body: body.unwrap_or(Body::None),
        };
        table.finish();
        op.is_whole = table.faults.count() == faults;
        Some(Self { op, of, says })
    }

    /// Takes from another op what this one does not say itself.
    pub(super) fn follow(mut self, others: &BTreeMap<OpKind, Op>, chained: &[OpKind]) -> Op {
        let Some((of, at)) = self.of else { return self.op };
        let op = &mut self.op;
        if of == op.kind || chained.contains(&of) {
            at.fault("names an op that itself says \"as\"");
            op.is_whole = false;
            return self.op;
        }
        let Some(other) = others.get(&of) else {
            at.fault(format!("names op.{}, which is not there", of.name()));
            op.is_whole = false;
            return self.op;
        };
        op.is_whole &= other.is_whole;
        let [take, items, matches, pages, parse] = self.says;
        if !take {
            op.take = other.take.clone();
        }
        if !items {
            op.items = other.items.clone();
        }
        if !matches {
            op.matches = other.matches.clone();
        }
        if !pages {
            op.pages = other.pages.clone();
        }
        if !parse {
            op.parse = other.parse.clone();
        }
        if op.rules.is_empty() {
            op.rules = other.rules.clone();
        }
        self.op
    }

    pub(super) fn kind_if_as(&self) -> Option<OpKind> {
        self.of.as_ref().map(|_| self.op.kind)
    }
}

impl Op {
    /// The names in its path, query and body: what it asks about. Headers may only say who asks.
    fn asked_with(&self) -> impl Iterator<Item = &Name> {
        let query = self.query.iter().flat_map(|(_, leaf)| leaf.names());
        self.path.names().chain(query).chain(self.body.names())
    }

    /// Whether it asks about our key.
    pub(in crate::provider) fn asks_by_key(&self) -> bool {
        self.asked_with().any(|name| *name == Name::Key)
    }

    /// Whether it asks about the provider's id of its work.
    pub(in crate::provider) fn asks_by_task(&self) -> bool {
        self.asked_with().any(|name| *name == Name::Task)
    }

    /// Whether the code is part of the question, or of what is compared.
    pub(in crate::provider) fn asks_by_code(&self) -> bool {
        let compared = self.matches.iter().flat_map(|(_, leaf)| leaf.names());
        self.request_names().chain(compared).any(|name| *name == Name::Code)
    }

    /// Whether the chosen element is ours by this name alone.
    pub(in crate::provider) fn matches_by(&self, name: &Name) -> bool {
        self.matches.iter().any(|(_, leaf)| match leaf {
            Leaf::Template(template) => template.sole_name() == Some(name),
            _ => false,
        })
    }

    /// Whether its answer may tell whose it is.
    pub(in crate::provider) fn tells_whose(&self) -> bool {
        self.take.has("key")
            || self.take.has("task") && self.kind != OpKind::Send && self.asks_by_task()
            || self.matches_by(&Name::Key)
            || self.matches_by(&Name::Task)
    }

    /// Whether its answer has elements of which one is chosen.
    pub(in crate::provider) fn has_items(&self) -> bool {
        self.items.is_some()
    }

    /// Whether it needs the card's code.
    pub(super) fn needs_code(&self) -> bool {
        self.all_names().any(|name| *name == Name::Code)
    }

    /// Every name in its request.
    pub(super) fn request_names(&self) -> impl Iterator<Item = &Name> {
        let headers = self.headers.iter().flat_map(|(_, leaf)| leaf.names());
        self.asked_with().chain(headers)
    }

    /// Every name in it: also what answers are compared with.
    pub(super) fn all_names(&self) -> impl Iterator<Item = &Name> {
        self.request_names().chain(self.compared_names())
    }

    /// The names of what answers are compared with.
    pub(super) fn compared_names(&self) -> impl Iterator<Item = &Name> {
        let matches = self.matches.iter().flat_map(|(_, leaf)| leaf.names());
        let rules = self.rules.iter().flat_map(|rule| rule.when.names());
        matches.chain(rules)
    }

    /// Whether an answer of it may be definite although it does not tell whose it is: then it is asked
    /// on a connection of its own.
    pub(super) fn needs_own_connection(&self) -> bool {
        self.rules.iter().any(|rule| self.follows_untold(rule))
    }

    /// Whether something may follow from a rule although the answer does not tell whose it is.
    fn follows_untold(&self, rule: &Rule) -> bool {
        let needs_key = self.take.has("key");
        let is_question = self.kind != OpKind::Send;
        let is_told = ["key", "task"].iter().any(|what| {
            let at = self.take.texts.get(what);
            (*what == "key" || is_question) && at.is_some_and(|at| rule.when.needs(at))
        });
        let by_match = self.matches_by(&Name::Key) || self.matches_by(&Name::Task);
        let is_told = is_told || by_match && rule.when.needs_found();
        match &rule.then {
            // What is not there tells nothing.
            Then::NotFound => self.ends_doubt && !is_told,
            Then::InDoubt | Then::Duplicate => false,
            // No success counts without the key where it is taken, and no failure that a question is answered by.
            Then::Succeeded | Then::Review => !is_told && !needs_key,
            Then::Processing => self.take.has("task") && !is_told && !(is_question && needs_key),
            Then::NotExecuted | Then::Unauthorized => !is_question && !is_told,
            Then::Failed { .. } | Then::Undone => !(is_told || is_question && needs_key),
        }
    }

    pub(super) fn says(&self, wanted: fn(&Then) -> bool) -> bool {
        self.rules.iter().any(|rule| wanted(&rule.then))
    }

    pub(super) fn needs_items(&self) -> bool {
        let of_pages = self.pages.is_some() && self.kind == OpKind::List;
        of_pages
            || !self.matches.is_empty()
            || self.take.needs_items()
            || self.parse.iter().any(|pointer| pointer.of_element)
            || self.rules.iter().any(|rule| rule.when.needs_items())
    }
}

/// Reads every op of a profile.
pub(super) fn read_ops(table: &Table<'_>) -> BTreeMap<OpKind, Op> {
    let drafts: Vec<_> = OpKind::ALL
        .into_iter()
        .filter_map(|(name, kind)| Draft::read(&table.get(name)?, kind))
        .collect();
    table.finish();
    let chained: Vec<_> = drafts.iter().filter_map(Draft::kind_if_as).collect();
    let said: BTreeMap<_, _> =
        drafts.iter().map(|draft| (draft.op.kind, draft.op.clone())).collect();
    drafts.into_iter().map(|draft| (draft.op.kind, draft.follow(&said, &chained))).collect()
}
