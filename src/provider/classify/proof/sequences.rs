//! Sequences of calls to a provider that does what its profile declares, and no more: requests arrive late or never,
//! answers are lost, or are to somebody else, a card was used before. What is made definite is compared with what the
//! provider truly did, in the end.
//!
//! With any guard of these rules off, some sequence ends in a wrong outcome: so each of them is needed.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    tests::{KEY, NOW, subject},
    *,
};
use crate::provider::profile::{Answered, Profile, Values};

const OTHERS_KEY: &str = "0190163d-8694-739b-aea5-966c26f8ad91";
/// From when a send began until it has had its effect or never will, in seconds.
const MAX_PROCESSING: u64 = 60;
/// Until what has arrived is found, at the most.
const VISIBILITY: u64 = 5;
const AMOUNT: i64 = 1000;

/// What the profile declares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Declared {
    dedup: &'static str,
    window: u64,
    /// Answers tell the key that they are about.
    tells_keys: bool,
    /// A send makes a task, which is looked up by its id.
    tasks: bool,
    find: Option<&'static str>,
    cancels: bool,
    ends_doubt: bool,
}

thread_local! {
    /// What was loaded before: most of the time would go into it.
    static LOADED: RefCell<HashMap<Declared, Option<Rc<Profile>>>> = RefCell::default();
}

impl Declared {
    fn loaded(&self) -> Option<Rc<Profile>> {
        let load = || self.profile().map(Rc::new);
        LOADED.with_borrow_mut(|loaded| loaded.entry(self.clone()).or_insert_with(load).clone())
    }

    fn profile(&self) -> Option<Profile> {
        let key = if self.tells_keys { "key = \"/key\", " } else { "" };
        let take =
            format!("{key}task = \"/task\", amount = {{ at = \"/amount\", unit = \"minor\" }}");
        let ends = self.ends_doubt;
        let rules = |op: &str| {
            let states = [
                ("ok", "\"succeeded\""),
                ("no", "{ failed = { spent = false, reason = \"NO\" } }"),
                ("used", "{ failed = { spent = true, reason = \"USED\" } }"),
                ("unknown", "{ failed = { spent = false, reason = \"UNKNOWN\" } }"),
                ("working", "\"processing\""),
                ("busy", "\"not_executed\""),
                ("seen", "\"duplicate\""),
                ("gone", "\"undone\""),
            ];
            let rules: String = states
                .iter()
                .filter(|(_, then)| op == "cancel" || *then != "\"undone\"")
                .map(|(state, then)| {
                    format!("[[op.{op}.rule]]\nwhen = {{ eq = {{ \"/state\" = \"{state}\" }} }}\nthen = {then}\n")
                })
                .collect();
            let not_found =
                format!("[[op.{op}.rule]]\nwhen = {{ status = [404] }}\nthen = \"not_found\"\n");
            rules + &not_found
        };
        let by = if self.tasks { "task" } else { "key" };
        let find = match self.find {
            Some("code") => format!(
                "[op.find]\npath = \"/f/{{{{ code }}}}\"\nends_doubt = {ends}\ntake = {{ account = \"/user\", time = {{ at = \"/at\", unit = \"epoch\" }}, amount = {{ at = \"/amount\", unit = \"minor\" }} }}\n{}",
                rules("find")
            ),
            Some(_) => format!(
                "[op.find]\npath = \"/f/{{{{ key }}}}\"\nends_doubt = {ends}\ntake = {{ {take} }}\n{}",
                rules("find")
            ),
            None => String::new(),
        };
        let cancel = if self.cancels {
            format!(
                "[op.cancel]\npath = \"/c/{{{{ key }}}}\"\ntake = {{ {take} }}\n{}",
                rules("cancel")
            )
        } else {
            String::new()
        };
        let text = format!(
            "id = \"p\"\nversion = 1\n[http]\nbase = \"https://p.test\"\n[identity]\nkey = \"uuid\"\ndedup = \"{}\"\nwindow = \"{}s\"\n[times]\nvisibility = \"{VISIBILITY}s\"\nmax_processing = \"{MAX_PROCESSING}s\"\nsend_window = \"10s\"\n[op.send]\npath = \"/s/{{{{ key }}}}/{{{{ code }}}}\"\ntake = {{ {take} }}\n{}[op.look_up]\npath = \"/l/{{{{ {by} }}}}\"\nends_doubt = {ends}\ntake = {{ {take} }}\n{}{find}{cancel}",
            self.dedup,
            self.window,
            rules("send"),
            rules("look_up"),
        );
        Profile::parse(&text).ok()
    }
}

/// One call, and its luck.
#[derive(Clone, Debug)]
struct Turn {
    kind: OpKind,
    /// How long after the call before it.
    wait: u64,
    /// The answer is lost, and the request arrives this much later; or never.
    lost: Option<Option<u64>>,
    /// It goes over a connection that carried another request before.
    is_shared: bool,
    /// Whatever else can be so or not.
    luck: u8,
}

/// What became of an arrival.
#[derive(Clone, Debug)]
struct Attempt {
    at: u64,
    done_at: u64,
    state: &'static str,
    task: String,
}

/// The provider, and its only card.
struct Model {
    declared: Declared,
    attempts: Vec<Attempt>,
    is_cancelled: bool,
    /// Who used the card, and when, from the begin of the sequence.
    used: Option<(&'static str, i64)>,
    is_credited: bool,
    /// When requests arrive whose answers are lost, and their luck.
    under_way: Vec<(u64, u8)>,
}

impl Model {
    /// Lets everything arrive that does until then.
    fn run_to(&mut self, now: u64) {
        self.under_way.sort_unstable();
        while let Some(place) = self.under_way.iter().position(|(at, _)| *at <= now) {
            let (at, luck) = self.under_way.remove(place);
            self.arrive(at, luck);
        }
    }

    /// A send arrives. Answers with what is told.
    fn arrive(&mut self, now: u64, luck: u8) -> Value {
        if self.is_cancelled {
            return self.tell("no", None);
        }
        let seen = self.attempts.last().filter(|last| last.at + self.declared.window > now);
        match (seen.cloned(), self.declared.dedup) {
            (Some(seen), "replay") => return self.tell_of(&seen, now),
            // Some look at the card first.
            (Some(_), "reject") if luck.is_multiple_of(2) && self.used.is_some() => {
                return self.tell("used", None);
            }
            (Some(_), "reject") => return self.tell("seen", None),
            _ => {}
        }
        let state = match self.used {
            Some(_) => "used",
            None if !self.would_credit(luck) => "no",
            None => {
                self.used = Some(("acc-1", i64::try_from(now).unwrap()));
                self.is_credited = true;
                "ok"
            }
        };
        let slow = if luck.is_multiple_of(5) { u64::from(luck) % 20 } else { 0 };
        let task = format!("t-{}", self.attempts.len());
        let attempt = Attempt { at: now, done_at: now + slow, state, task };
        let told = self.tell_of(&attempt, now);
        self.attempts.push(attempt);
        if self.declared.tasks {
            json!({"state": "working", "task": told["task"], "key": told["key"]})
        } else {
            told
        }
    }

    /// Whether a send that is not known any more would use the card.
    fn would_credit(&self, luck: u8) -> bool {
        self.used.is_none() && !luck.is_multiple_of(3)
    }

    fn tell(&self, state: &str, task: Option<&str>) -> Value {
        let mut told = json!({"state": state, "amount": AMOUNT, "task": task});
        if self.declared.tells_keys {
            told["key"] = json!(KEY);
        }
        told
    }

    fn tell_of(&self, attempt: &Attempt, now: u64) -> Value {
        let state = if now < attempt.done_at { "working" } else { attempt.state };
        self.tell(state, self.declared.tasks.then_some(&*attempt.task))
    }

    /// What became of the key, or the task. `None`: it is not found.
    fn look_up(&self, now: u64, task: Option<&str>, luck: u8) -> Option<Value> {
        // One that does not say that this ends doubt may not find what is there.
        if !self.declared.ends_doubt && luck.is_multiple_of(4) {
            return None;
        }
        let lag = u64::from(luck) % (VISIBILITY + 1);
        let found = self.attempts.iter().filter(|it| it.at + lag <= now);
        let mut found = found.filter(|it| task.is_none_or(|task| it.task == task));
        let attempt = found.clone().find(|it| it.state == "ok").or_else(|| found.next_back());
        match attempt {
            Some(attempt) => Some(self.tell_of(attempt, now)),
            None => self.is_cancelled.then(|| self.tell("no", None)),
        }
    }

    fn find_card(&self, luck: u8) -> Value {
        match self.used {
            Some((user, at)) => {
                json!({"state": "ok", "user": user, "at": NOW + at, "amount": AMOUNT})
            }
            None if luck.is_multiple_of(2) => json!({"state": "unknown"}),
            None => json!({"state": "fresh"}),
        }
    }

    fn cancel(&mut self, now: u64) -> Value {
        let credited = self.attempts.iter().find(|attempt| attempt.state == "ok");
        match credited.or(self.attempts.last()) {
            Some(attempt) => self.tell_of(attempt, now),
            None => {
                self.is_cancelled = true;
                self.tell("gone", None)
            }
        }
    }

    /// The answer to somebody else's request of the same kind.
    fn others(&self, kind: OpKind, luck: u8) -> (u16, Value) {
        if kind == OpKind::Cancel && luck.is_multiple_of(3) {
            return (200, self.with_others_key(json!({"state": "gone"})));
        }
        let states = ["ok", "no", "used", "working", "busy"];
        let state = states[usize::from(luck) % states.len()];
        let user = if kind == OpKind::Find && self.declared.find == Some("code") {
            json!("acc-2")
        } else {
            Value::Null
        };
        let task = self.declared.tasks.then_some("t-other");
        let told = json!({"state": state, "amount": 7, "task": task, "user": user, "at": NOW});
        (200, self.with_others_key(told))
    }

    fn with_others_key(&self, mut told: Value) -> Value {
        if self.declared.tells_keys {
            told["key"] = json!(OTHERS_KEY);
        }
        told
    }
}

/// One redemption, as the program asks about it.
struct Asked {
    profile: Rc<Profile>,
    subject: Subject,
    doubt: Doubt,
    last_send: Option<u64>,
}

/// A sequence that ended in a wrong outcome.
#[derive(Debug)]
struct Wrong(#[allow(dead_code, reason = "for whoever reads it")] String);

impl Asked {
    fn may_send(&self, model: &Model, turn: &Turn, now: u64) -> bool {
        if self.last_send.is_none() || self.doubt == Doubt::FirstSend {
            return true;
        }
        let capabilities = self.profile.capabilities(None);
        let age = Duration::from_secs(now);
        if capabilities.may_send_again(age, Duration::from_secs(1)) {
            return true;
        }
        // Too late for the program, which does not send it: so nothing may come of it. What is told then must prove nothing
        // all the same.
        let has_landed = now > MAX_PROCESSING && model.under_way.is_empty();
        let is_harmless = has_landed
            && turn.lost.is_none()
            && !model.declared.tasks
            && !model.would_credit(turn.luck);
        capabilities.dedup == Dedup::Replay && is_harmless
    }

    /// Makes a call; `None` where none is made, or its answer is lost.
    fn call(&mut self, model: &mut Model, turn: &Turn, now: u64) -> Option<Proof> {
        let doubt = if turn.kind == OpKind::Send { self.doubt } else { Doubt::InDoubt };
        let since_last_send = self.last_send.map(|at| Duration::from_secs(now - at));
        let task = self.subject.task.clone();
        let (status, told) = match turn.kind {
            OpKind::Send => {
                if !self.may_send(model, turn, now) {
                    return None;
                }
                self.last_send = Some(now);
                match turn.lost {
                    Some(delay) => {
                        self.doubt = Doubt::InDoubt;
                        model.under_way.extend(delay.map(|delay| (now + delay, turn.luck)));
                        return None;
                    }
                    None if turn.luck.is_multiple_of(7) => (429, model.tell("busy", None)),
                    None => (200, model.arrive(now, turn.luck)),
                }
            }
            // Nothing is asked before anything is sent.
            _ if self.doubt == Doubt::FirstSend => return None,
            OpKind::LookUp if model.declared.tasks && task.is_none() => return None,
            OpKind::LookUp | OpKind::Find
                if turn.kind == OpKind::LookUp || model.declared.find == Some("key") =>
            {
                let task =
                    task.as_deref().filter(|_| turn.kind == OpKind::LookUp && model.declared.tasks);
                match model.look_up(now, task, turn.luck) {
                    Some(told) => (200, told),
                    None => (404, json!({})),
                }
            }
            OpKind::Find => (200, model.find_card(turn.luck)),
            _ => (200, model.cancel(now)),
        };
        if turn.kind != OpKind::Send && turn.lost.is_some() {
            return None;
        }
        let is_others = turn.is_shared && turn.luck.is_multiple_of(2);
        let (status, told) =
            if is_others { model.others(turn.kind, turn.luck / 2) } else { (status, told) };
        let circumstances = Circumstances {
            doubt,
            in_window: now < model.declared.window,
            is_alone: !turn.is_shared,
            since_recorded: Duration::from_secs(now),
            since_last_send,
        };
        let body = told.to_string();
        let answered = Answered { status, body: body.as_bytes(), retry_after: None };
        let mut values = Values::at(OffsetDateTime::from_unix_timestamp(NOW).unwrap());
        values.key = Some(KEY.to_owned());
        values.code = Some("SECRET-1234".to_owned());
        values.task = task;
        values.account.id = Some(self.subject.account.clone());
        let pages = (&[answered][..], true);
        Some(judge(&self.profile, turn.kind, &values, &self.subject, &circumstances, pages))
    }
}

/// Plays a sequence. Answers with whether an outcome became definite.
fn play(
    declared: &Declared,
    used: Option<&'static str>,
    turns: &[Turn],
) -> Result<Option<bool>, Wrong> {
    let Some(profile) = declared.loaded() else { return Ok(None) };
    let mut model = Model {
        declared: declared.clone(),
        attempts: Vec::new(),
        is_cancelled: false,
        used: used.map(|user| (user, -3600)),
        is_credited: false,
        under_way: Vec::new(),
    };
    let mut asked = Asked { profile, subject: subject(), doubt: Doubt::FirstSend, last_send: None };
    let mut now = 0;
    for turn in turns {
        now += turn.wait;
        model.run_to(now);
        let has = declared.find.is_some() || turn.kind != OpKind::Find;
        let has = has && (declared.cancels || turn.kind != OpKind::Cancel);
        if !has || (asked.last_send.is_none() && turn.kind != OpKind::Send) {
            continue;
        }
        let Some(proof) = asked.call(&mut model, turn, now) else { continue };
        let told = format!("{turn:?} at {now}: {proof:?}");
        let is_unsent = !model.is_credited && model.under_way.is_empty();
        match &proof {
            Proof::NotExecuted { .. } if is_unsent => continue,
            Proof::NotExecuted { .. } => return Err(Wrong(told)),
            Proof::Processing { task: Some(task), .. } => {
                if !model.attempts.iter().any(|attempt| attempt.task == *task) {
                    return Err(Wrong(told));
                }
                asked.subject.task.get_or_insert(task.clone());
            }
            Proof::Succeeded { .. } | Proof::Failed { .. } | Proof::Undone(_) => {
                model.run_to(now + MAX_PROCESSING + 1);
                let says_credited = match &proof {
                    Proof::Succeeded { amount, .. } if amount.amount_minor != AMOUNT => {
                        return Err(Wrong(told));
                    }
                    Proof::Succeeded { .. } => true,
                    _ => false,
                };
                if says_credited != model.is_credited {
                    return Err(Wrong(told));
                }
                return Ok(Some(true));
            }
            _ => {}
        }
        asked.doubt = Doubt::InDoubt;
    }
    Ok(Some(false))
}

fn declared() -> impl Strategy<Value = Declared> {
    (
        proptest::sample::select(vec!["replay", "reject", "none"]),
        proptest::sample::select(vec![20_u64, 100, 3600]),
        any::<bool>(),
        proptest::bool::weighted(0.3),
        proptest::sample::select(vec![None, Some("key"), Some("code")]),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(dedup, window, tells_keys, tasks, find, cancels, ends_doubt)| Declared {
            dedup,
            window,
            tells_keys,
            tasks,
            find,
            cancels,
            ends_doubt,
        })
}

fn turn() -> impl Strategy<Value = Turn> {
    let kinds =
        [OpKind::Send, OpKind::Send, OpKind::LookUp, OpKind::LookUp, OpKind::Find, OpKind::Cancel];
    let delay = prop_oneof![4 => (0..=MAX_PROCESSING).prop_map(Some), 1 => Just(None)];
    (
        proptest::sample::select(kinds.to_vec()),
        prop_oneof![3 => 0_u64..10, 1 => 0_u64..120],
        proptest::option::weighted(0.4, delay),
        proptest::bool::weighted(0.25),
        any::<u8>(),
    )
        .prop_map(|(kind, wait, lost, is_shared, luck)| Turn {
            kind,
            wait,
            lost,
            is_shared,
            luck,
        })
}

fn sequence() -> impl Strategy<Value = (Declared, Option<&'static str>, Vec<Turn>)> {
    let used = prop_oneof![
        6 => Just(None),
        1 => Just(Some("acc-1")),
        1 => Just(Some("acc-2")),
    ];
    (declared(), used, proptest::collection::vec(turn(), 1..12))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_calls_ends_in_a_wrong_outcome((declared, used, turns) in sequence()) {
        let played = play(&declared, used, &turns);
        prop_assert!(played.is_ok(), "{:?}", played);
    }
}

/// The same sequences each time: with a guard off, some of them end wrongly.
#[test]
fn these_sequences_end_in_no_wrong_outcome() {
    use proptest::strategy::ValueTree as _;
    let mut runner = TestRunner::deterministic();
    let (mut played, mut ended) = (0, 0);
    for _ in 0..4000 {
        let (declared, used, turns) = sequence().new_tree(&mut runner).unwrap().current();
        match play(&declared, used, &turns) {
            Ok(None) => {}
            Ok(Some(has_ended)) => {
                played += 1;
                ended += usize::from(has_ended);
            }
            Err(wrong) => panic!("{declared:#?} {used:?} {turns:#?}: {wrong:?}"),
        }
    }
    assert!(played > 2000 && ended > 1000, "{played} played, {ended} ended");
}
