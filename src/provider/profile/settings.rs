//! The tables of a profile that are no op: `http`, `identity`, `times`, `limits`, `webhook`.

use std::{path::PathBuf, time::Duration};

use url::Url;

use super::{
    keys::KeyKind,
    names::Scope,
    source::Table,
    tree::Pairs,
    web::{read_header_name, read_headers, read_url},
};
use crate::domain::redemption::Dedup;

/// Where and how requests are sent.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Without a slash at the end of its path.
    pub base: Url,
    /// Whether plain http to another machine is meant.
    pub allow_plain: bool,
    pub(super) headers: Pairs,
    /// The longest that one call may take.
    pub timeout: Duration,
    /// The longest that connecting may take.
    pub connect_timeout: Duration,
    /// Certificates to trust instead of this machine's.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, and its key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

/// How a redemption is named to the provider, and what naming it twice does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// How the key is written.
    pub key: KeyKind,
    /// What the provider does with a key that it has seen.
    pub dedup: Dedup,
    /// For how long it does so.
    pub window: Duration,
}

/// How long things take at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long after a request arrived a look-up may not find it.
    pub visibility: Duration,
    /// After a send began, the longest until it has had its effect or never will, the way included.
    pub max_processing: Duration,
    /// How long a redemption may be sent after it was recorded.
    pub send_window: Duration,
}

/// What the provider bears.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Calls in a time.
    pub rate: Option<(u32, Duration)>,
    /// Calls at once, after a pause.
    pub burst: Option<u32>,
    /// Calls under way.
    pub in_flight: Option<u32>,
    /// Calls under way for one account.
    pub per_account_in_flight: Option<u32>,
    /// Headers that tell what is left.
    pub quota: Option<Quota>,
    /// Failures after which the provider would block us.
    pub brake: Option<Brake>,
}

/// Headers that tell how many calls are left, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many are left.
    pub remaining: String,
    /// When there are more.
    pub reset: String,
    /// How that is written.
    pub unit: QuotaUnit,
}

/// How the header says when there are more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaUnit {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Ms,
    /// Seconds since 1970.
    Epoch,
    /// Milliseconds since 1970.
    EpochMs,
}

/// Failures that must not happen often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brake {
    /// Failure codes.
    pub on: Vec<String>,
    /// How many there may be.
    pub count: u32,
    /// In which time.
    pub per: Duration,
    /// How long to stop; `None`: until the first of them is `per` ago.
    pub pause: Option<Duration>,
}

const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const VISIBILITY: Duration = Duration::from_secs(5);
const SEND_WINDOW: Duration = Duration::from_secs(30);
/// A shorter key would meet another one.
const MIN_KEY: i64 = 16;
/// The most digits that a 128-bit number can fill.
const MAX_DIGITS: i64 = 38;
const MAX_HEX: i64 = 32;

fn duration(table: &Table<'_>, key: &str, default: Duration) -> Option<Duration> {
    table.get(key).map_or(Some(default), |value| value.duration())
}

impl HttpSettings {
    pub(super) fn read(table: &Table<'_>) -> Option<Self> {
        let allow_plain = table.get("allow_plain").and_then(|allow| allow.truth()).unwrap_or(false);
        let base = table.need("base").and_then(|base| read_url(&base, allow_plain));
        let headers = match table.get("headers") {
            Some(headers) => read_headers(&headers, Scope::Every),
            None => Some(Vec::new()),
        };
        let timeout = duration(table, "timeout", TIMEOUT);
        let default = CONNECT_TIMEOUT.min(timeout.unwrap_or(CONNECT_TIMEOUT));
        let connect_timeout = duration(table, "connect_timeout", default);
        if let (Some(timeout), Some(connect)) = (timeout, connect_timeout)
            && connect > timeout
        {
            table.fault("http.connect_timeout must not be longer than http.timeout");
        }
        let file = |key| table.get(key).and_then(|file| file.filled()).map(PathBuf::from);
        let (ca_file, cert, key) =
            (file("ca_file"), file("client_cert_file"), file("client_key_file"));
        if cert.is_some() != key.is_some() {
            table.fault("http.client_cert_file and http.client_key_file belong together");
        }
        table.finish();
        Some(Self {
            base: base?,
            allow_plain,
            headers: headers?,
            timeout: timeout?,
            connect_timeout: connect_timeout?,
            ca_file,
            client_cert: cert.zip(key),
        })
    }
}

impl Identity {
    pub(super) fn read(table: &Table<'_>) -> Option<Self> {
        let kinds = ["uuid", "hex", "digits"].map(|kind| (kind, kind));
        let kind = table.need("key").and_then(|key| key.word(&kinds));
        let length = table.get("length");
        let key = match (kind, length) {
            (Some("uuid"), Some(length)) => {
                length.fault("is for hex and digits");
                None
            }
            (Some("uuid"), None) => Some(KeyKind::Uuid),
            (Some(kind), None) => {
                table.fault(format!("identity.length is missing, for key = \"{kind}\""));
                None
            }
            (Some(kind), Some(length)) => {
                let most = if kind == "hex" { MAX_HEX } else { MAX_DIGITS };
                let length =
                    length.whole(MIN_KEY, most).and_then(|length| usize::try_from(length).ok());
                length.map(if kind == "hex" { KeyKind::Hex } else { KeyKind::Digits })
            }
            (None, _) => None,
        };
        let dedups = [("replay", Dedup::Replay), ("reject", Dedup::Reject), ("none", Dedup::None)];
        let dedup = table.need("dedup").and_then(|dedup| dedup.word(&dedups));
        let window = match (dedup, table.get("window")) {
            (_, Some(window)) => window.duration(),
            (Some(Dedup::None), None) => Some(Duration::ZERO),
            (_, None) => table.need("window").and_then(|window| window.duration()),
        };
        table.finish();
        Some(Self { key: key?, dedup: dedup?, window: window? })
    }
}

impl Times {
    pub(super) fn read(table: &Table<'_>) -> Option<Self> {
        let max_processing = table.need("max_processing").and_then(|time| time.duration());
        let default = VISIBILITY.min(max_processing.unwrap_or(VISIBILITY));
        let visibility = duration(table, "visibility", default);
        if let (Some(visibility), Some(longest), Some(given)) =
            (visibility, max_processing, table.get("visibility"))
            && visibility > longest
        {
            given.contradicts("must not be longer than times.max_processing");
        }
        let send_window = duration(table, "send_window", SEND_WINDOW);
        table.finish();
        Some(Self {
            visibility: visibility?,
            max_processing: max_processing?,
            send_window: send_window?,
        })
    }
}

/// Faults calls that may take longer than the send window. What is given stands; a default follows what is given.
pub(super) fn fit_times(
    (http_table, http): (&Table<'_>, &mut HttpSettings),
    (times_table, times): (&Table<'_>, &mut Times),
) {
    let given = (http_table.get("timeout").is_some(), times_table.get("send_window"));
    match given {
        (true, Some(window)) if times.send_window < http.timeout => {
            window.contradicts("must not be shorter than http.timeout: a call may take as long");
        }
        (false, Some(window)) => {
            http.timeout = http.timeout.min(times.send_window);
            if http_table.get("connect_timeout").is_none() {
                http.connect_timeout = http.connect_timeout.min(http.timeout);
            } else if http.connect_timeout > http.timeout {
                window.contradicts("must not be shorter than http.connect_timeout");
            }
        }
        (true, None) => times.send_window = times.send_window.max(http.timeout),
        _ => {}
    }
}

impl Limits {
    pub(super) fn read(table: &Table<'_>) -> Self {
        let number = |key| {
            let number = table.get(key).and_then(|value| value.whole(1, 1_000_000));
            number.and_then(|number| u32::try_from(number).ok())
        };
        let limits = Self {
            rate: read_rate(table),
            burst: number("burst"),
            in_flight: number("in_flight"),
            per_account_in_flight: number("per_account_in_flight"),
            quota: table.get("quota").and_then(|quota| Quota::read(&quota.table()?)),
            brake: table.get("brake").and_then(|brake| Brake::read(&brake.table()?)),
        };
        if let (Some(burst), None) = (table.get("burst"), limits.rate) {
            burst.fault("needs a rate");
        }
        if let (Some(each), Some(all)) = (limits.per_account_in_flight, limits.in_flight)
            && each > all
            && let Some(given) = table.get("per_account_in_flight")
        {
            given.contradicts("must not be more than limits.in_flight");
        }
        table.finish();
        limits
    }
}

fn read_rate(table: &Table<'_>) -> Option<(u32, Duration)> {
    let rate = table.get("rate")?;
    let read = |text: &str| {
        let (count, per) = text.split_once('/')?;
        let count: u32 =
            count.trim().parse().ok().filter(|count| (1..=1_000_000).contains(count))?;
        let per = match per.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86400,
            _ => return None,
        };
        Some((count, Duration::from_secs(per)))
    };
    let read = read(rate.text()?);
    if read.is_none() {
        rate.fault("must be a number of calls in a time, such as \"50/s\" or \"100/m\"");
    }
    read
}

impl Quota {
    fn read(table: &Table<'_>) -> Option<Self> {
        let header = |key| table.need(key).and_then(|name| read_header_name(&name));
        let (remaining, reset) = (header("remaining"), header("reset"));
        let units = [
            ("seconds", QuotaUnit::Seconds),
            ("ms", QuotaUnit::Ms),
            ("epoch", QuotaUnit::Epoch),
            ("epoch_ms", QuotaUnit::EpochMs),
        ];
        let unit = table.get("unit").map_or(Some(QuotaUnit::Seconds), |unit| unit.word(&units));
        if let (Some(given), true) = (table.get("reset"), remaining == reset) {
            given.contradicts("must be another header than remaining");
        }
        table.finish();
        Some(Self { remaining: remaining?, reset: reset?, unit: unit? })
    }
}

impl Brake {
    fn read(table: &Table<'_>) -> Option<Self> {
        let on = table.need("on").map(|on| {
            let codes = on.list().unwrap_or_default();
            if codes.is_empty() {
                on.fault("must name a failure");
            }
            codes.iter().filter_map(|code| code.filled().map(str::to_owned)).collect()
        });
        let count = table.need("count").and_then(|count| count.whole(1, 1_000_000));
        let per = table.need("per").and_then(|per| per.duration());
        let pause = match table.get("pause") {
            None => Some(None),
            Some(pause) if pause.text() == Some("until-reset") => Some(None),
            Some(pause) => pause.duration().map(Some),
        };
        table.finish();
        Some(Self { on: on?, count: u32::try_from(count?).ok()?, per: per?, pause: pause? })
    }
}
