//! The provider's settings, and the defaults that follow from those that are set.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::{MAX_SETTING, parse_duration};

const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const SEND_WINDOW: Duration = Duration::from_secs(30);
const NOT_AFTER: Duration = Duration::from_secs(15 * 60);
const VISIBILITY_HORIZON: Duration = Duration::from_secs(5);
const MAX_PROCESSING_TIME: Duration = Duration::from_secs(2 * 60);

/// The provider's settings, complete.
#[derive(Clone, Debug)]
pub struct ProviderArgs {
    /// The base URL.
    pub url: String,
    /// A file that holds a bearer token.
    pub token_file: Option<PathBuf>,
    /// The longest that one call may take.
    pub timeout: Duration,
    /// The longest that connecting may take.
    pub connect_timeout: Duration,
    /// How long a redemption may be sent, sent again and polled.
    pub send_window: Duration,
    /// How long after a redemption was recorded the provider may still begin it.
    pub not_after: Duration,
    /// A key counts once, however often it is sent.
    pub deduplicates: bool,
    /// It tells what became of a key.
    pub looks_up: bool,
    /// It cancels a key.
    pub cancels: bool,
    /// It tells what a card is worth without redeeming it.
    pub inquires: bool,
    /// How long after it was first seen a key counts once.
    pub key_retention: Duration,
    /// How long after a request arrived its key may still be unknown.
    pub visibility_horizon: Duration,
    /// The longest that it is at work on a redemption.
    pub max_processing_time: Duration,
}

/// The same as they are given: a setting that must be shorter or longer than others has a default that follows from
/// those.
#[derive(Args, Clone, Debug)]
struct Given {
    /// The provider's base URL.
    #[arg(
        id = "provider_url",
        long = "provider-url",
        env = "HOLDFAST_PROVIDER_URL",
        default_value = "http://127.0.0.1:50080"
    )]
    url: String,

    /// A file that holds a bearer token for the provider.
    #[arg(
        id = "provider_token_file",
        long = "provider-token-file",
        env = "HOLDFAST_PROVIDER_TOKEN_FILE"
    )]
    token_file: Option<PathBuf>,

    /// The longest that one call to the provider may take, from connecting to the last byte. 10s when not given, or
    /// what fits between the connect timeout and the send window.
    #[arg(id = "provider_timeout", long = "provider-timeout", env = "HOLDFAST_PROVIDER_TIMEOUT",
          value_parser = parse_duration)]
    timeout: Option<Duration>,

    /// The longest that connecting to the provider may take. 2s when not given, or the timeout where that is shorter.
    #[arg(id = "provider_connect_timeout", long = "provider-connect-timeout",
          env = "HOLDFAST_PROVIDER_CONNECT_TIMEOUT", value_parser = parse_duration)]
    connect_timeout: Option<Duration>,

    /// How long a redemption may be sent, sent again and polled before it is in doubt and left to
    /// the reconciler. 30s when not given, or what fits between the timeout and not-after.
    #[arg(id = "provider_send_window", long = "provider-send-window",
          env = "HOLDFAST_PROVIDER_SEND_WINDOW", value_parser = parse_duration)]
    send_window: Option<Duration>,

    /// How long after a redemption was recorded the provider may still begin it. 15m when not given, or what is
    /// longer than the send window.
    #[arg(id = "provider_not_after", long = "provider-not-after",
          env = "HOLDFAST_PROVIDER_NOT_AFTER", value_parser = parse_duration)]
    not_after: Option<Duration>,

    /// Whether the provider counts an idempotency key once, however often it is sent. Only then is a
    /// redemption in doubt sent again.
    #[arg(id = "provider_deduplicates", long = "provider-deduplicates",
          env = "HOLDFAST_PROVIDER_DEDUPLICATES", default_value_t = true, action = ArgAction::Set)]
    deduplicates: bool,

    /// Whether the provider tells what became of a key.
    #[arg(id = "provider_looks_up", long = "provider-looks-up",
          env = "HOLDFAST_PROVIDER_LOOKS_UP", default_value_t = true, action = ArgAction::Set)]
    looks_up: bool,

    /// Whether the provider cancels a key, also one that it has never seen, so that a later arrival is
    /// refused. It must refuse to cancel one that has succeeded, however long ago.
    #[arg(id = "provider_cancels", long = "provider-cancels",
          env = "HOLDFAST_PROVIDER_CANCELS", default_value_t = true, action = ArgAction::Set)]
    cancels: bool,

    /// Whether the provider tells what a card is worth without redeeming it. Only then is an account
    /// chosen by the amount of a batch's item that says none.
    #[arg(id = "provider_inquires", long = "provider-inquires",
          env = "HOLDFAST_PROVIDER_INQUIRES", default_value_t = true, action = ArgAction::Set)]
    inquires: bool,

    /// How long after it was first seen the provider counts a key once. A redemption in doubt is sent again only
    /// within it. Follows from no other setting: wrongly long, it loses money.
    #[arg(id = "provider_key_retention", long = "provider-key-retention",
          env = "HOLDFAST_PROVIDER_KEY_RETENTION", default_value = "24h", value_parser = parse_duration)]
    key_retention: Duration,

    /// How long after a request arrived the provider may still not know its key when it is asked. 5s when not given,
    /// or half the longest processing time where that is not longer.
    #[arg(id = "provider_visibility_horizon", long = "provider-visibility-horizon",
          env = "HOLDFAST_PROVIDER_VISIBILITY_HORIZON", value_parser = parse_duration)]
    visibility_horizon: Option<Duration>,

    /// The longest that the provider is at work on a redemption. One that takes longer is cancelled,
    /// or in the end left to a person. 2m when not given, or what is longer than the visibility horizon.
    #[arg(id = "provider_max_processing_time", long = "provider-max-processing-time",
          env = "HOLDFAST_PROVIDER_MAX_PROCESSING_TIME", value_parser = parse_duration)]
    max_processing_time: Option<Duration>,
}

impl Given {
    /// Gives a default to what is not set, in order: each fits what is set, and the defaults before it.
    fn complete(self) -> ProviderArgs {
        let until = |limits: [Option<Duration>; 2]| {
            limits.into_iter().flatten().chain([MAX_SETTING]).min().unwrap_or(MAX_SETTING)
        };
        let timeout = self.timeout.unwrap_or_else(|| {
            let connect = self.connect_timeout.unwrap_or_default();
            between(TIMEOUT, connect, until([self.send_window, self.not_after]))
        });
        let connect_timeout = self.connect_timeout.unwrap_or(CONNECT_TIMEOUT.min(timeout));
        let send_window = self
            .send_window
            .unwrap_or_else(|| between(SEND_WINDOW, timeout, until([self.not_after, None])));
        let not_after =
            self.not_after.unwrap_or_else(|| between(NOT_AFTER, send_window, until([None, None])));
        let horizon = self.visibility_horizon.filter(|_| self.looks_up).unwrap_or_default();
        let max_processing_time = self
            .max_processing_time
            .unwrap_or_else(|| between(MAX_PROCESSING_TIME, horizon, until([None, None])));
        let visibility_horizon = self
            .visibility_horizon
            .unwrap_or_else(|| between(VISIBILITY_HORIZON, Duration::ZERO, max_processing_time));
        ProviderArgs {
            url: self.url,
            token_file: self.token_file,
            timeout,
            connect_timeout,
            send_window,
            not_after,
            deduplicates: self.deduplicates,
            looks_up: self.looks_up,
            cancels: self.cancels,
            inquires: self.inquires,
            key_retention: self.key_retention,
            visibility_horizon,
            max_processing_time,
        }
    }
}

/// A default that is longer than one duration and shorter than another: itself, where it is; else twice the shorter
/// or half the longer one, or what is in the middle. Where nothing fits it stays, and is refused later.
fn between(default: Duration, above: Duration, below: Duration) -> Duration {
    if above >= below {
        return default;
    }
    let fits = |it: &Duration| above < *it && *it < below;
    let middle = above + (below - above) / 2;
    let other = if default <= above { above.saturating_mul(2) } else { below / 2 };
    [default, other].into_iter().find(fits).unwrap_or(middle)
}

impl FromArgMatches for ProviderArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Given::from_arg_matches(matches)?.complete())
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for ProviderArgs {
    fn augment_args(command: Command) -> Command {
        Given::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Given::augment_args_for_update(command)
    }
}

impl ProviderArgs {
    /// Every pair of settings that contradict each other, in words.
    pub(super) fn contradictions(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let connect = ("HOLDFAST_PROVIDER_CONNECT_TIMEOUT", self.connect_timeout);
        let timeout = ("HOLDFAST_PROVIDER_TIMEOUT", self.timeout);
        if connect.1 > timeout.1 {
            wrong.push(contradiction(connect, "must not be longer than", timeout));
        }
        // Each shorter than all that come after it.
        let sending = vec![
            timeout,
            ("HOLDFAST_PROVIDER_SEND_WINDOW", self.send_window),
            ("HOLDFAST_PROVIDER_NOT_AFTER", self.not_after),
        ];
        let mut at_work = vec![("HOLDFAST_PROVIDER_MAX_PROCESSING_TIME", self.max_processing_time)];
        if self.looks_up {
            at_work.insert(0, ("HOLDFAST_PROVIDER_VISIBILITY_HORIZON", self.visibility_horizon));
        }
        for chain in [sending, at_work] {
            for (index, short) in chain.iter().enumerate() {
                let longer = chain[index + 1..].iter().filter(|long| short.1 >= long.1);
                wrong.extend(
                    longer.map(|long| contradiction(*short, "must be shorter than", *long)),
                );
            }
        }
        wrong
    }
}

fn contradiction(a: (&str, Duration), rule: &str, b: (&str, Duration)) -> String {
    let [a_duration, b_duration] = [a.1, b.1].map(humantime::format_duration);
    format!("{} ({a_duration}) {rule} {} ({b_duration})", a.0, b.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(flags: &[&str]) -> ProviderArgs {
        let command = ProviderArgs::augment_args(Command::new("provider"));
        let words = ["provider"].iter().chain(flags);
        ProviderArgs::from_arg_matches(&command.try_get_matches_from(words).unwrap()).unwrap()
    }

    #[test]
    fn without_flags_the_defaults_are_those_that_are_documented() {
        let args = parse(&[]);
        let durations = [
            args.timeout,
            args.connect_timeout,
            args.send_window,
            args.not_after,
            args.key_retention,
            args.visibility_horizon,
            args.max_processing_time,
        ];
        assert_eq!(durations.map(|it| it.as_secs()), [10, 2, 30, 900, 86_400, 5, 120]);
        assert_eq!(args.contradictions(), [""; 0]);
    }

    #[test]
    fn a_timeout_of_two_seconds_alone_is_taken() {
        let args = parse(&["--provider-timeout=2s"]);
        assert_eq!(args.connect_timeout, Duration::from_secs(2));
        assert_eq!(args.contradictions(), [""; 0]);
    }

    #[test]
    fn any_setting_alone_is_taken_and_the_defaults_follow() {
        for name in [
            "timeout",
            "connect-timeout",
            "send-window",
            "not-after",
            "visibility-horizon",
            "max-processing-time",
            "key-retention",
        ] {
            for value in
                ["10ms", "1s", "2s", "5s", "10s", "30s", "60s", "2m", "15m", "1h", "12h", "23h"]
            {
                let args = parse(&[&format!("--provider-{name}={value}")]);
                assert_eq!(args.contradictions(), [""; 0], "{name}={value}: {args:?}");
            }
        }
    }

    #[test]
    fn the_key_retention_never_follows_and_may_be_shorter_than_anything() {
        for flags in [&["--provider-not-after=48h"][..], &["--provider-key-retention=5m"]] {
            let args = parse(flags);
            assert_eq!(args.contradictions(), [""; 0], "{flags:?}");
            let is_given = flags[0].contains("retention");
            assert_eq!(args.key_retention.as_secs(), if is_given { 300 } else { 86_400 });
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_all_named_with_both_values() {
        let args = parse(&[
            "--provider-timeout=1m",
            "--provider-connect-timeout=2m",
            "--provider-send-window=30s",
            "--provider-not-after=2d",
            "--provider-max-processing-time=1s",
            "--provider-visibility-horizon=1s",
        ]);
        assert_eq!(
            args.contradictions(),
            [
                "HOLDFAST_PROVIDER_CONNECT_TIMEOUT (2m) must not be longer than HOLDFAST_PROVIDER_TIMEOUT (1m)",
                "HOLDFAST_PROVIDER_TIMEOUT (1m) must be shorter than HOLDFAST_PROVIDER_SEND_WINDOW (30s)",
                "HOLDFAST_PROVIDER_VISIBILITY_HORIZON (1s) must be shorter than \
                 HOLDFAST_PROVIDER_MAX_PROCESSING_TIME (1s)",
            ]
        );
    }

    proptest! {
        #[test]
        fn what_is_set_in_order_is_never_refused_for_a_default(
            mut lengths in proptest::collection::btree_set(1_u64..80_000_000, 5),
            set in proptest::collection::vec(any::<bool>(), 5),
        ) {
            let names = ["connect-timeout", "timeout", "send-window", "not-after", "key-retention"];
            let mut flags = Vec::new();
            for (name, set) in names.iter().zip(set) {
                let length = lengths.pop_first().unwrap();
                if set {
                    flags.push(format!("--provider-{name}={length}ms"));
                }
            }
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let args = parse(&flags);
            prop_assert_eq!(args.contradictions(), [""; 0], "{:?}", flags);
        }
    }
}
