//! What is wrong with a profile as a whole: rules that can never hold, outcomes that nothing would prove.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Profile,
    auth::Auth,
    case::Case,
    names::{Name, OpKind},
    op::Op,
    rule::Then,
    source::Faults,
};
use crate::domain::redemption::Dedup;

/// Faults each op by itself. Of one that has faults already only what those cannot be the reason for.
pub(super) fn check_ops(ops: &BTreeMap<OpKind, Op>, faults: &Faults) {
    if !ops.contains_key(&OpKind::Send) {
        faults.add_at_line(1, "op.send is missing");
    }
    for op in ops.values() {
        let fault = |why: &str| {
            faults.add_at_line(op.line, format!("op.{} {why}", op.kind.name()));
        };
        check_dead_rules(op, faults);
        if op.is_whole {
            check_rules(op, &fault, faults);
            check_identity(op, &fault);
            check_items(op, &fault);
        }
    }
}

/// Faults cases of ops that are not there.
pub(super) fn check_cases(cases: &[Case], ops: &BTreeMap<OpKind, Op>, faults: &Faults) {
    for case in cases.iter().filter(|case| !ops.contains_key(&case.op)) {
        let why = format!("the case is for op.{}, which is not there", case.op.name());
        faults.add_at_line(case.line, why);
    }
}

/// Faults a send that lacks what the rest of the file says of it.
pub(super) fn check_send(profile: &Profile, faults: &Faults) {
    let Some(send) = profile.op(OpKind::Send).filter(|send| send.is_whole) else { return };
    let names = send.request_names();
    let every = profile.http.headers.iter().flat_map(|(_, leaf)| leaf.names());
    let auth = profile.auth.iter().flat_map(Auth::names);
    let sends_key = names.chain(every).chain(auth).any(|name| *name == Name::Key);
    if !sends_key && profile.identity.dedup != Dedup::None {
        let why = "op.send never sends {{ key }}, so nothing is deduplicated: send it, or say dedup = \"none\"";
        faults.add_at_line(send.line, why);
    }
}

/// Faults rules that earlier ones always precede.
fn check_dead_rules(op: &Op, faults: &Faults) {
    for (index, rule) in op.rules.iter().enumerate() {
        let earlier = &op.rules[..index];
        let first = |status| earlier.iter().find(|one| one.when.covers(&rule.when, status));
        let covering: Option<BTreeSet<usize>> =
            rule.when.statuses().map(|status| first(status).map(|one| one.line)).collect();
        let Some(lines) = covering else { continue };
        let why = match lines.iter().map(ToString::to_string).collect::<Vec<_>>().as_slice() {
            [line] => format!("the one of line {line} always does first"),
            lines => format!("one of those of lines {} always does first", lines.join(", ")),
        };
        faults.add_at_line(rule.line, format!("the rule can never match: {why}"));
    }
}

fn check_rules(op: &Op, fault: &dyn Fn(&str), faults: &Faults) {
    if op.rules.is_empty() {
        fault("has no rule: every answer would be in doubt");
    }
    for rule in &op.rules {
        if matches!(&rule.then, Then::Failed { reason: None, .. }) && !op.take.has("failure") {
            let why = "says failed without a reason: give one here, or say take.failure";
            faults.add_at_line(rule.line, why);
        }
    }
    if op.says(|then| *then == Then::Succeeded) && op.take.amount.is_none() {
        fault("says succeeded, and nothing says the amount: take.amount, or amount = \"expected\"");
    }
}

/// Whose answer it is must be clear before anything follows from it.
fn check_identity(op: &Op, fault: &dyn Fn(&str)) {
    let asks_by_key = op.asks_by_key() || op.asks_by_task();
    // Some APIs have the key in a header. Of a find that is not enough: there it may only name the request.
    let names_it = names(op, &Name::Key) || names(op, &Name::Task);
    let tells = op.tells_whose();
    match op.kind {
        OpKind::LookUp if !tells && (!names_it || op.asks_by_code() && !asks_by_key) => {
            fault("asks neither by key nor by task; by code or a search it is op.find");
        }
        OpKind::Find if !asks_by_key && !tells && !op.asks_by_code() => {
            fault("looks for neither key, task nor code: what it finds could be anybody's");
        }
        OpKind::Cancel | OpKind::Reverse if !names_it && !tells && !names(op, &Name::Ref) => {
            fault("names neither key, task nor ref: it could be about anybody's");
        }
        OpKind::List if !op.take.has("key") => {
            fault("needs take.key: nothing else says whose each is")
        }
        _ => {}
    }
    let is_by_code =
        op.kind == OpKind::Find && !op.tells_whose() && (op.asks_by_code() || !asks_by_key);
    let is_backed = op.take.has("account") && op.take.has_time();
    if is_by_code && op.says(|then| *then == Then::Succeeded) && !is_backed {
        fault("says succeeded by the code alone: that needs take.account and take.time");
    }
    if op.kind == OpKind::Find
        && op.take.has("task")
        && !op.take.has("key")
        && is_by_code
        && !is_backed
    {
        fault("finds a task by the code alone: that needs take.account and take.time");
    }
}

fn names(op: &Op, name: &Name) -> bool {
    op.request_names().any(|other| other == name)
}

fn check_items(op: &Op, fault: &dyn Fn(&str)) {
    let is_list = op.kind == OpKind::List;
    match (&op.items, op.needs_items()) {
        (None, true) => fault("reads an element, by '@', found or match, and has no items"),
        (None, false) if is_list => fault("has no items"),
        (Some(_), _) if op.matches.is_empty() && !is_list => fault("has items and no match"),
        (Some(_), _) if is_list && !op.matches.is_empty() => fault("takes every element: no match"),
        (Some(items), _) if items.need_element() => fault("has items that begin with '@'"),
        _ => {}
    }
    let names_page = names(op, &Name::Page);
    match &op.pages {
        Some(_) if !names_page => fault("has pages, and its request never names {{ page? }}"),
        None if names_page => fault("names {{ page }}, and has no pages"),
        _ => {}
    }
}
