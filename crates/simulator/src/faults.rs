//! Faults, and how often they occur: set by flags at start, and by `PUT /faults` at run time.

use std::{fmt, str::FromStr, time::Duration};

use clap::Args;
use humantime::parse_duration;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};

/// What goes wrong. The percentages are of the requests for a redemption; one request meets at most
/// one of them, so together they are at most 100.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// How long every request for a redemption waits before anything is done: 50ms, or a range as
    /// 50ms..200ms.
    #[arg(
        id = "fault_latency",
        long = "fault-latency",
        env = "HOLDFAST_SIMULATOR_FAULT_LATENCY",
        default_value = "0ms"
    )]
    pub latency: Latency,

    /// Percent of requests that are executed, and then get no answer: the connection is cut.
    #[arg(id = "fault_apply_then_drop", long = "fault-apply-then-drop", value_name = "PERCENT",
          env = "HOLDFAST_SIMULATOR_FAULT_APPLY_THEN_DROP", default_value_t = 0.0, value_parser = parse_percent)]
    pub apply_then_drop: f64,

    /// Percent of requests whose connection is cut before anything is executed.
    #[arg(id = "fault_drop_before_apply", long = "fault-drop-before-apply", value_name = "PERCENT",
          env = "HOLDFAST_SIMULATOR_FAULT_DROP_BEFORE_APPLY", default_value_t = 0.0, value_parser = parse_percent)]
    pub drop_before_apply: f64,

    /// Percent of requests that are executed, and then answered with HTTP 500.
    #[arg(id = "fault_error_after_apply", long = "fault-error-after-apply", value_name = "PERCENT",
          env = "HOLDFAST_SIMULATOR_FAULT_ERROR_AFTER_APPLY", default_value_t = 0.0, value_parser = parse_percent)]
    pub error_after_apply: f64,

    /// Percent of requests that are answered with HTTP 202, and done after the processing time.
    #[arg(id = "fault_slow_202", long = "fault-slow-202", value_name = "PERCENT",
          env = "HOLDFAST_SIMULATOR_FAULT_SLOW_202", default_value_t = 0.0, value_parser = parse_percent)]
    pub slow_202: f64,

    /// Percent of requests that are executed, and then answered with half a body.
    #[arg(id = "fault_garbage", long = "fault-garbage", value_name = "PERCENT",
          env = "HOLDFAST_SIMULATOR_FAULT_GARBAGE", default_value_t = 0.0, value_parser = parse_percent)]
    pub garbage: f64,

    /// Percent of requests that credit another amount than the card's.
    #[arg(id = "fault_wrong_amount", long = "fault-wrong-amount", value_name = "PERCENT",
          env = "HOLDFAST_SIMULATOR_FAULT_WRONG_AMOUNT", default_value_t = 0.0, value_parser = parse_percent)]
    pub wrong_amount: f64,

    /// Percent of requests that are answered with HTTP 503 and not executed.
    #[arg(id = "fault_busy", long = "fault-busy", value_name = "PERCENT",
          env = "HOLDFAST_SIMULATOR_FAULT_BUSY", default_value_t = 0.0, value_parser = parse_percent)]
    pub busy: f64,

    /// Percent of look-ups that are answered with HTTP 500.
    #[arg(id = "fault_lookup_error", long = "fault-lookup-error", value_name = "PERCENT",
          env = "HOLDFAST_SIMULATOR_FAULT_LOOKUP_ERROR", default_value_t = 0.0, value_parser = parse_percent)]
    pub lookup_error: f64,

    /// How long every inquiry waits: 50ms, or a range as 50ms..200ms.
    #[arg(
        id = "inquire_latency",
        long = "inquire-latency",
        env = "HOLDFAST_SIMULATOR_INQUIRE_LATENCY",
        default_value = "0ms"
    )]
    pub inquire_latency: Latency,

    /// Percent of inquiries that are answered with HTTP 500.
    #[arg(id = "fault_inquire_error", long = "fault-inquire-error", value_name = "PERCENT",
          env = "HOLDFAST_SIMULATOR_FAULT_INQUIRE_ERROR", default_value_t = 0.0, value_parser = parse_percent)]
    pub inquire_error: f64,

    /// Percent of webhooks that are never sent.
    #[arg(id = "fault_webhook_lost", long = "fault-webhook-lost", value_name = "PERCENT",
          env = "HOLDFAST_SIMULATOR_FAULT_WEBHOOK_LOST", default_value_t = 0.0, value_parser = parse_percent)]
    pub webhook_lost: f64,

    /// Percent of webhooks that are sent twice.
    #[arg(id = "fault_webhook_repeated", long = "fault-webhook-repeated", value_name = "PERCENT",
          env = "HOLDFAST_SIMULATOR_FAULT_WEBHOOK_REPEATED", default_value_t = 0.0, value_parser = parse_percent)]
    pub webhook_repeated: f64,

    /// How long a redemption takes that is answered with HTTP 202.
    #[arg(id = "processing_time", long = "processing-time", env = "HOLDFAST_SIMULATOR_PROCESSING_TIME",
          default_value = "300ms", value_parser = parse_duration)]
    #[serde(with = "duration_text")]
    pub processing_time: Duration,

    /// Faults for chosen cards, which come before the dice. The first that fits is taken.
    #[arg(skip)]
    pub rules: Vec<Rule>,
}

/// A fault for the cards whose code begins with some text, as often as it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// How the code begins, as it is sent.
    pub code_prefix: String,
    /// What goes wrong.
    pub fault: Fault,
    /// For how many requests.
    pub times: u32,
}

/// One thing that goes wrong with one request for a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Cut the connection; execute nothing.
    DropBeforeApply,
    /// Execute; cut the connection.
    ApplyThenDrop,
    /// Execute; answer 500.
    ErrorAfterApply,
    /// Answer 202; execute after the processing time.
    #[serde(rename = "slow_202")]
    Slow202,
    /// Execute; answer with half a body.
    Garbage,
    /// Credit another amount than the card's.
    WrongAmount,
    /// Answer 503 with `"executed": false`; execute nothing.
    Busy,
    /// Execute; never answer, and keep the connection. Only by a [`Rule`].
    Stall,
    /// Refuse, because the account's login is not accepted. Only by a [`Rule`], as those below.
    LoginInvalid,
    /// Refuse, because the account has had as much as it may.
    LimitReached,
    /// Refuse, because the account is to be slower.
    Throttled,
}

impl Fault {
    /// The failure code of a refusal.
    pub(super) fn refusal(self) -> Option<&'static str> {
        match self {
            Self::LoginInvalid => Some("ACCOUNT_LOGIN_INVALID"),
            Self::LimitReached => Some("ACCOUNT_LIMIT_REACHED"),
            Self::Throttled => Some("ACCOUNT_THROTTLED"),
            _ => None,
        }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            latency: Latency::default(),
            apply_then_drop: 0.0,
            drop_before_apply: 0.0,
            error_after_apply: 0.0,
            slow_202: 0.0,
            garbage: 0.0,
            wrong_amount: 0.0,
            busy: 0.0,
            lookup_error: 0.0,
            inquire_latency: Latency::default(),
            inquire_error: 0.0,
            webhook_lost: 0.0,
            webhook_repeated: 0.0,
            processing_time: Duration::from_millis(300),
            rules: Vec::new(),
        }
    }
}

impl Faults {
    /// The fault of one request after another for one card, in the given order.
    pub fn of_card(code_prefix: &str, faults: &[Fault]) -> Vec<Rule> {
        let rule =
            |fault: &Fault| Rule { code_prefix: code_prefix.to_owned(), fault: *fault, times: 1 };
        faults.iter().map(rule).collect()
    }

    fn percentages(&self) -> [(Fault, f64); 7] {
        [
            (Fault::ApplyThenDrop, self.apply_then_drop),
            (Fault::DropBeforeApply, self.drop_before_apply),
            (Fault::ErrorAfterApply, self.error_after_apply),
            (Fault::Slow202, self.slow_202),
            (Fault::Garbage, self.garbage),
            (Fault::WrongAmount, self.wrong_amount),
            (Fault::Busy, self.busy),
        ]
    }

    fn check(&self) -> anyhow::Result<()> {
        let percentages = self.percentages().map(|(_, percent)| percent);
        let valid = |percent: &f64| (0.0..=100.0).contains(percent);
        let alone =
            [self.lookup_error, self.inquire_error, self.webhook_lost, self.webhook_repeated];
        anyhow::ensure!(
            percentages.iter().chain(&alone).all(valid),
            "a fault's percentage must be 0 to 100"
        );
        anyhow::ensure!(
            percentages.iter().sum::<f64>() <= 100.0,
            "the faults' percentages must together be at most 100"
        );
        Ok(())
    }
}

/// How long a request waits: at least, and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Latency {
    /// At least.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

impl FromStr for Latency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let read = |text| parse_duration(text).map_err(|error| error.to_string());
        let (min, max) = (read(min)?, read(max)?);
        if min > max {
            return Err("a range is written from the shorter to the longer".to_owned());
        }
        Ok(Self { min, max })
    }
}

impl TryFrom<String> for Latency {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Latency> for String {
    fn from(latency: Latency) -> Self {
        latency.to_string()
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [min, max] = [self.min, self.max].map(humantime::format_duration);
        write!(f, "{min}..{max}")
    }
}

mod duration_text {
    use std::time::Duration;

    use humantime::parse_duration;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("must be 0 to 100".to_owned()),
    }
}

/// Throws the dice.
pub(super) struct Injector {
    faults: Faults,
    dice: StdRng,
}

impl Injector {
    pub(super) fn new(faults: Faults, seed: u64) -> anyhow::Result<Self> {
        faults.check()?;
        Ok(Self { faults, dice: StdRng::seed_from_u64(seed) })
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(super) fn set(&mut self, faults: Faults) -> anyhow::Result<()> {
        faults.check()?;
        self.faults = faults;
        Ok(())
    }

    /// How long a request for a redemption waits, and what goes wrong with it then.
    pub(super) fn of_request(&mut self, code: &str) -> (Duration, Option<Fault>) {
        let latency = self.wait(self.faults.latency);
        (latency, self.by_rule(code).or_else(|| self.by_dice()))
    }

    /// Whether a look-up fails.
    pub(super) fn of_lookup(&mut self) -> bool {
        self.faults.lookup_error > 0.0 && self.throw() < self.faults.lookup_error
    }

    /// How long an inquiry waits, and whether it fails then.
    pub(super) fn of_inquiry(&mut self) -> (Duration, bool) {
        let latency = self.wait(self.faults.inquire_latency);
        (latency, self.faults.inquire_error > 0.0 && self.throw() < self.faults.inquire_error)
    }

    /// How often a webhook is sent.
    pub(super) fn of_webhook(&mut self) -> usize {
        let Faults { webhook_lost, webhook_repeated, .. } = self.faults;
        if webhook_lost > 0.0 && self.throw() < webhook_lost {
            0
        } else if webhook_repeated > 0.0 && self.throw() < webhook_repeated {
            2
        } else {
            1
        }
    }

    fn wait(&mut self, Latency { min, max }: Latency) -> Duration {
        if max.is_zero() { max } else { self.dice.random_range(min..=max) }
    }

    fn by_rule(&mut self, code: &str) -> Option<Fault> {
        let rules = &mut self.faults.rules;
        let fits = |rule: &Rule| rule.times > 0 && code.starts_with(&rule.code_prefix);
        let found = rules.iter().position(fits)?;
        let fault = rules[found].fault;
        rules[found].times -= 1;
        rules.retain(|rule| rule.times > 0);
        Some(fault)
    }

    fn by_dice(&mut self) -> Option<Fault> {
        let mut thrown = self.throw();
        for (fault, percent) in self.faults.percentages() {
            if thrown < percent {
                return Some(fault);
            }
            thrown -= percent;
        }
        None
    }

    fn throw(&mut self) -> f64 {
        self.dice.random_range(0.0..100.0)
    }
}
