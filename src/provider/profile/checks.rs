//! What is wrong with a profile as a whole: rules that can never hold, outcomes that nothing would prove.

use super::{
    Profile,
    auth::Auth,
    names::{Name, OpKind},
    op::Op,
    rule::Then,
    source::Faults,
};
use crate::domain::redemption::Dedup;

/// Faults all of it.
pub(super) fn check(profile: &Profile, faults: &Faults) {
    match profile.op(OpKind::Send) {
        None => faults.add_at_line(1, "op.send is missing"),
        Some(send) => check_send(profile, send, faults),
    }
    for op in profile.ops.values() {
        let fault = |why: &str| {
            faults.add_at_line(op.line, format!("op.{} {why}", op.kind.name()));
        };
        check_rules(op, &fault, faults);
        check_identity(op, &fault);
        check_items(op, &fault);
    }
    for case in &profile.cases {
        if !profile.has(case.op) {
            faults.add_at_line(
                case.line,
                format!("the case is for op.{}, which is not there", case.op.name()),
            );
        }
    }
}

fn check_send(profile: &Profile, send: &Op, faults: &Faults) {
    let names = send.request_names();
    let every = profile.http.headers.iter().flat_map(|(_, leaf)| leaf.names());
    let auth = profile.auth.iter().flat_map(Auth::names);
    let sends_key = names.chain(every).chain(auth).any(|name| *name == Name::Key);
    if !sends_key && profile.identity.dedup != Dedup::None {
        let why = "op.send never sends {{ key }}, so nothing is deduplicated: send it, or say dedup = \"none\"";
        faults.add_at_line(send.line, why);
    }
}

fn check_rules(op: &Op, fault: &dyn Fn(&str), faults: &Faults) {
    if op.rules.is_empty() {
        fault("has no rule: every answer would be in doubt");
    }
    for (index, rule) in op.rules.iter().enumerate() {
        if let Some(earlier) =
            op.rules[..index].iter().find(|earlier| earlier.when.covers(&rule.when))
        {
            let why = format!(
                "the rule can never match: the one of line {} always does first",
                earlier.line
            );
            faults.add_at_line(rule.line, why);
        }
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
        OpKind::LookUp if !names_it && !tells => {
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
