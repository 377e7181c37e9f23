//! Runs the cases of a profile: each recorded answer must mean what the file says.

use time::{Duration as Span, OffsetDateTime};

use super::{
    classify::{Circumstances, Doubt, Proof, Secrets, Subject, prove},
    profile::{Answered, Case, Fault, OpKind, Profile, Reading, Values},
};
use crate::domain::{
    money::{Currency, Money},
    redemption::CardCode,
};

/// The sample values of cases.
const CODE: &str = "SAMPLE-CODE-1234";
const ACCOUNT: &str = "account-1";
const TASK: &str = "task-1";
const REFERENCE: &str = "ref-1";
const EXPECTED_MINOR: i64 = 1000;

/// Reads a profile and runs its cases. The errors are all that is wrong.
pub fn check(text: &str) -> Result<Profile, Vec<Fault>> {
    let profile = Profile::parse(text)?;
    let faults = run_cases(&profile);
    if faults.is_empty() { Ok(profile) } else { Err(faults) }
}

/// Runs the cases of a profile, and answers with those that mean something else.
pub fn run_cases(profile: &Profile) -> Vec<Fault> {
    profile.cases.iter().filter_map(|case| run(profile, case)).collect()
}

/// What is wrong with a case, if anything.
fn run(profile: &Profile, case: &Case) -> Option<Fault> {
    let fault = |message: String| Some(Fault { line: case.line, message });
    match judge(profile, case) {
        Err(why) => fault(format!("the case cannot be run: {why}")),
        Ok(proofs) => {
            let proofs: Vec<Proof> = proofs;
            proofs.iter().find_map(|proof| differs(case, proof)).and_then(fault)
        }
    }
}

fn judge(profile: &Profile, case: &Case) -> Result<Vec<Proof>, String> {
    let op = profile.op(case.op).ok_or("its op is not there")?;
    let usd = Currency::parse("USD").ok_or("no currency")?;
    let currency = case.currency.or(profile.currencies.first().copied()).unwrap_or(usd);
    let now = OffsetDateTime::now_utc();
    let values = samples(profile, case, currency, now);
    let body = case.body.text(&values).map_err(|why| why.to_string())?;
    let subject = Subject {
        key: values.key.clone().unwrap_or_default(),
        task: values.task.clone(),
        account: ACCOUNT.to_owned(),
        currency,
        code: CardCode::parse(CODE).ok(),
        recorded_at: now - Span::seconds(1),
        secrets: Secrets::default(),
    };
    let circumstances = Circumstances {
        doubt: if case.doubt { Doubt::InDoubt } else { Doubt::FirstSend },
        in_window: true,
        is_alone: true,
        since_recorded: std::time::Duration::from_secs(1),
        since_last_send: Some(std::time::Duration::from_secs(1)),
    };
    let answered = Answered { status: case.status, body: body.as_bytes(), retry_after: None };
    let readings = if op.kind == OpKind::List {
        Reading::of_each(op, &values, currency, answered).unwrap_or_else(|whole| vec![*whole])
    } else {
        vec![Reading::of(op, &values, currency, &[answered], true)]
    };
    let prove_one = |reading: &Reading| {
        // Whose each element of a list is: its own.
        let mut subject = subject.clone();
        if op.kind == OpKind::List {
            subject.own(reading);
        }
        prove(profile, op, reading, &subject, &circumstances)
    };
    Ok(readings.iter().map(prove_one).collect())
}

fn samples(profile: &Profile, case: &Case, currency: Currency, now: OffsetDateTime) -> Values {
    let money = |amount_minor| Money { amount_minor, currency };
    let mut values = Values::at(now);
    values.key = Some(profile.identity.key.sample());
    values.code = Some(CODE.to_owned());
    values.account.id = Some(ACCOUNT.to_owned());
    values.account.country = Some("US".to_owned());
    for name in profile.account_names() {
        let sample = format!("sample {}", name.rsplit('.').next().unwrap_or_default());
        match name.strip_prefix("account.secret.") {
            Some(secret) => values.account.secrets.insert(secret.to_owned(), sample),
            None => values.account.labels.insert(name.replacen("account.labels.", "", 1), sample),
        };
    }
    let secrets = profile.secrets();
    values.secrets =
        secrets.into_iter().map(|name| (name.clone(), format!("sample {name}"))).collect();
    values.expected = Some(money(case.expected_minor.unwrap_or(EXPECTED_MINOR)));
    values.amount = values.expected;
    values.task = Some(TASK.to_owned());
    values.reference = Some(REFERENCE.to_owned());
    values
}

/// How an answer differs from what the case says.
fn differs(case: &Case, proof: &Proof) -> Option<String> {
    let (amount, spent) = match proof {
        Proof::Succeeded { amount, .. } => (Some(amount.amount_minor), None),
        Proof::Review { amount, .. } => (amount.map(|amount| amount.amount_minor), None),
        Proof::Failed { failure, .. } | Proof::Undone(failure) => (None, Some(failure.code_spent)),
        _ => (None, None),
    };
    let why = match proof {
        Proof::InDoubt { answer } | Proof::Unproven { answer } => format!(": {answer}"),
        Proof::Review { failure, .. } => format!(": {}", failure.message),
        _ => String::new(),
    };
    let shown = |amount: Option<i64>| amount.map_or("none".to_owned(), |amount| amount.to_string());
    if proof.word() != case.then {
        return Some(format!("the case means {}, not {}{why}", proof.word(), case.then));
    }
    if case.amount_minor.is_some() && case.amount_minor != amount {
        return Some(format!(
            "the case's amount is {}, not {}",
            shown(amount),
            shown(case.amount_minor)
        ));
    }
    if case.spent.is_some() && case.spent != spent {
        let told =
            spent.map_or(
                "not told to be spent or not",
                |spent| if spent { "spent" } else { "not spent" },
            );
        return Some(format!("the case's code is {told}"));
    }
    None
}
