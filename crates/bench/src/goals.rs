//! The figures, in the order in which they are reported, and what each is to reach.

use serde::Serialize;

/// What a value is to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64, &'static str),
    /// None of what is counted.
    None,
}

impl Goal {
    pub(crate) fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most, _) => value <= most,
            Self::None => value == 0.0,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least}"),
            Self::AtMost(most, "") => format!("≤ {most}"),
            Self::AtMost(most, unit) => format!("≤ {most} {unit}"),
            Self::None => "0".to_owned(),
        }
    }
}

/// A value that was to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) figure: &'static str,
    pub(crate) goal: Goal,
    pub(crate) value: Result<f64, String>,
    /// From the least to the most of the rounds.
    pub(crate) spread: Option<(f64, f64)>,
}

impl Part {
    pub(crate) fn met(&self) -> Option<bool> {
        self.value.as_ref().ok().map(|value| self.goal.met(*value))
    }
}

/// What a value was computed from.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    /// The median of the rounds.
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) rounds: Vec<f64>,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) figure: &'static str,
    /// One, or a few that make up the figure.
    pub(crate) parts: Vec<Part>,
    pub(crate) measured: Vec<Measured>,
    /// What a reader has to know of how it was measured.
    pub(crate) notes: Vec<String>,
    /// Memory in MB over the items of a stream.
    pub(crate) curve: Vec<(u64, f64)>,
}

pub(crate) const NOT_ASKED_FOR: &str = "not asked for";

/// The rows, in their order, without a value yet.
pub(crate) const CYCLES: usize = 0;
pub(crate) const ETCD: usize = 1;
pub(crate) const ECHO: usize = 2;
pub(crate) const ALONE: usize = 3;
pub(crate) const REDEEM: usize = 4;
pub(crate) const GRAPHILE: usize = 5;
pub(crate) const SIZE: usize = 6;
pub(crate) const OVERLOAD: usize = 7;
pub(crate) const MEMORY: usize = 8;
pub(crate) const AUTH: usize = 9;
pub(crate) const CARD: usize = 10;

/// Indexes of the parts of rows that have several.
pub(crate) mod part {
    pub(crate) const GOODPUT: usize = 0;
    pub(crate) const REFUSALS: usize = 1;
    pub(crate) const RENEWALS: usize = 2;
    pub(crate) const WAITING: usize = 0;
    pub(crate) const WAITING_HTTP2: usize = 1;
    pub(crate) const STREAM: usize = 2;
    pub(crate) const TOKEN: usize = 0;
    pub(crate) const TOKEN_TLS: usize = 1;
    pub(crate) const JWT: usize = 2;
}

/// How much more a server may need late in a long stream than early, and still be called flat.
const FLAT: f64 = 1.05;
/// What asking callers who they are may take, of cycles.
const WITH_AUTH: Goal = Goal::AtLeast(0.97);

pub(crate) fn rows() -> Vec<Row> {
    let single = |figure, goal| row(figure, &[(figure, goal)]);
    vec![
        single(
            "acquire+release cycles/s over gRPC at 256 in flight ÷ pgbench with one-row statements, at its \
             best client count",
            Goal::AtLeast(3.0),
        ),
        single("the same ÷ etcd v3 Lock+Unlock, 256 in flight", Goal::AtLeast(2.0)),
        single("the same ÷ an RPC server that touches nothing", Goal::AtLeast(0.55)),
        single(
            "one caller alone: acquire p50 ÷ the same single-row statement from a bare client",
            Goal::AtMost(1.5, ""),
        ),
        single(
            "BatchRedeem redemptions/s, instant provider over HTTP ÷ pgbench with the three commits of a \
             redemption",
            Goal::AtLeast(2.0),
        ),
        single(
            "the same ÷ graphile-worker jobs with the same HTTP call and outcome row",
            Goal::AtLeast(3.0),
        ),
        single(
            "acquire p50 with 1,000,000 accounts and 10,000,000 past redemptions ÷ with 1,000 and none",
            Goal::AtMost(1.3, ""),
        ),
        row(
            "at 10 times the load that saturates: goodput ÷ peak; refusals p99; renewals that fail",
            &[
                ("goodput at 10 times the load that saturates ÷ peak", Goal::AtLeast(0.9)),
                ("refusals, p99", Goal::AtMost(5.0, "ms")),
                ("lease renewals that failed meanwhile", Goal::None),
            ],
        ),
        row(
            "memory of the server: with 10,000 redemptions waiting on a slow provider, over HTTP/1.1 and over \
             HTTP/2; over a stream of 1,000,000 items",
            &[
                (
                    "with 10,000 redemptions waiting on a slow provider, HTTP/1.1",
                    Goal::AtMost(250.0, "MB"),
                ),
                ("the same over HTTP/2", Goal::AtMost(100.0, "MB")),
                (
                    "over a stream of 1,000,000 items: last quarter ÷ second quarter",
                    Goal::AtMost(FLAT, ""),
                ),
            ],
        ),
        row(
            "cycles/s where callers are asked who they are ÷ where they are not: a token; a token over TLS; a JWT",
            &[
                ("cycles/s where callers show a token ÷ where nobody is asked", WITH_AUTH),
                ("the same over TLS", WITH_AUTH),
                ("cycles/s where callers show a JWT ÷ where nobody is asked", WITH_AUTH),
            ],
        ),
        single(
            "Postgres's processor time for a card by RedeemCard ÷ by AcquireAccount, Redeem and ReleaseAccount",
            Goal::AtMost(0.6, ""),
        ),
    ]
}

fn row(figure: &'static str, parts: &[(&'static str, Goal)]) -> Row {
    let part =
        |&(figure, goal)| Part { figure, goal, value: Err(NOT_ASKED_FOR.to_owned()), spread: None };
    Row {
        figure,
        parts: parts.iter().map(part).collect(),
        measured: Vec::new(),
        notes: Vec::new(),
        curve: Vec::new(),
    }
}

impl Row {
    /// Notes the value of one of the parts.
    pub(crate) fn set(&mut self, part: usize, value: f64, spread: Option<(f64, f64)>) {
        self.parts[part].value = Ok(value);
        self.parts[part].spread = spread;
    }

    /// Notes why there is no value.
    pub(crate) fn fail(&mut self, part: usize, reason: &str) {
        self.parts[part].value = Err(reason.to_owned());
    }

    /// Whether all of it was met; `None` when something was not measured.
    pub(crate) fn met(&self) -> Option<bool> {
        let met: Option<Vec<_>> = self.parts.iter().map(Part::met).collect();
        met.map(|met| met.into_iter().all(|met| met))
    }
}
