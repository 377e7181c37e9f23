//! Settings of `holdfast simulate-provider`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{ArgAction, Args};
use humantime::parse_duration;

use super::{api::Api, faults::Faults};

/// Settings of `holdfast simulate-provider`.
#[derive(Args, Clone, Debug)]
pub struct SimulatorArgs {
    /// The API that is served: Holdfast's own contract, or a fake of a real one.
    #[arg(long, env = "HOLDFAST_SIMULATOR_API", value_enum, default_value_t = Api::Holdfast)]
    pub api: Api,

    /// The address that the provider's contract is served on, over HTTP.
    #[arg(long, env = "HOLDFAST_SIMULATOR_LISTEN", default_value = "127.0.0.1:50080")]
    pub listen: SocketAddr,

    /// The file that redemptions are kept in: JSON lines, synced before they are answered. Made if
    /// it is missing, read back if it is there.
    #[arg(long, env = "HOLDFAST_SIMULATOR_LEDGER")]
    pub ledger: PathBuf,

    /// A CSV file of the cards that exist: code,amount_minor,currency_code,country_code,state,
    /// where the state is fresh or used and only the code is required. Without a file, every code
    /// is a fresh card.
    #[arg(long, env = "HOLDFAST_SIMULATOR_CARDS")]
    pub cards: Option<PathBuf>,

    /// What a card is worth that no amount is given for, in minor units.
    #[arg(long, env = "HOLDFAST_SIMULATOR_DEFAULT_AMOUNT_MINOR", default_value_t = 1000,
          value_parser = clap::value_parser!(i64).range(0..=1_000_000_000))]
    pub default_amount_minor: i64,

    /// The currency of a card that no currency is given for.
    #[arg(long, env = "HOLDFAST_SIMULATOR_CURRENCY", default_value = "EUR")]
    pub currency: String,

    /// The country of a card that no country is given for.
    #[arg(long, env = "HOLDFAST_SIMULATOR_COUNTRY", default_value = "DE")]
    pub country: String,

    /// Accounts whose login is refused.
    #[arg(long, env = "HOLDFAST_SIMULATOR_INVALID_ACCOUNTS", value_delimiter = ',')]
    pub invalid_accounts: Vec<String>,

    /// The caller's key: x-api-key of the task API, Square's bearer token, api-key of Fiserv. Without
    /// one, none is checked.
    #[arg(long, env = "HOLDFAST_SIMULATOR_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,

    /// What Fiserv's requests are signed with. Without it, no signature and no time is checked.
    #[arg(long, env = "HOLDFAST_SIMULATOR_API_SECRET", hide_env_values = true)]
    pub api_secret: Option<String>,

    /// A CSV file of the logins that the task API accepts: username,password. Without it, it
    /// accepts every login.
    #[arg(long, env = "HOLDFAST_SIMULATOR_ACCOUNTS")]
    pub accounts: Option<PathBuf>,

    /// Where the task API sends a webhook when a task has ended. Without it, it sends none.
    #[arg(long, env = "HOLDFAST_SIMULATOR_WEBHOOK_URL")]
    pub webhook_url: Option<String>,

    /// What webhooks are signed with.
    #[arg(long, env = "HOLDFAST_SIMULATOR_WEBHOOK_SECRET", hide_env_values = true)]
    pub webhook_secret: Option<String>,

    /// How long Fiserv's API refuses a transaction id that it has seen.
    #[arg(long, env = "HOLDFAST_SIMULATOR_DUPLICATE_WINDOW", default_value = "5m", value_parser = parse_duration)]
    pub duplicate_window: Duration,

    /// Whether a key counts once. Otherwise each request for it is executed anew, as careless
    /// providers do.
    #[arg(long, env = "HOLDFAST_SIMULATOR_DEDUPLICATES", default_value_t = true, action = ArgAction::Set)]
    pub deduplicates: bool,

    /// Whether look-ups by key are served. Otherwise every key is unknown there.
    #[arg(long, env = "HOLDFAST_SIMULATOR_LOOKS_UP", default_value_t = true, action = ArgAction::Set)]
    pub looks_up: bool,

    /// Whether keys can be cancelled. Otherwise the path is not there.
    #[arg(long, env = "HOLDFAST_SIMULATOR_CANCELS", default_value_t = true, action = ArgAction::Set)]
    pub cancels: bool,

    /// How long after a request a look-up does not find its key yet.
    #[arg(long, env = "HOLDFAST_SIMULATOR_VISIBILITY_LAG", default_value = "0ms", value_parser = parse_duration)]
    pub visibility_lag: Duration,

    /// Whether a refusal repeats the card's code, as careless providers do.
    #[arg(long, env = "HOLDFAST_SIMULATOR_TELLS_CODES", default_value_t = false, action = ArgAction::Set)]
    pub tells_codes: bool,

    /// Where the dice that decide about faults begin.
    #[arg(long, env = "HOLDFAST_SIMULATOR_FAULT_SEED", default_value_t = 1)]
    pub fault_seed: u64,

    /// What goes wrong, how often.
    #[command(flatten)]
    pub faults: Faults,
}

impl SimulatorArgs {
    /// A simulator on a free local port, where every code is good and nothing goes wrong.
    pub fn new(ledger: impl Into<PathBuf>) -> Self {
        Self {
            api: Api::Holdfast,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            ledger: ledger.into(),
            cards: None,
            default_amount_minor: 1000,
            currency: "EUR".to_owned(),
            country: "DE".to_owned(),
            invalid_accounts: Vec::new(),
            api_key: None,
            api_secret: None,
            accounts: None,
            webhook_url: None,
            webhook_secret: None,
            duplicate_window: Duration::from_secs(5 * 60),
            deduplicates: true,
            looks_up: true,
            cancels: true,
            visibility_lag: Duration::ZERO,
            tells_codes: false,
            fault_seed: 1,
            faults: Faults::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        simulator: SimulatorArgs,
    }

    fn parse(args: &[&str]) -> Result<SimulatorArgs, clap::Error> {
        let args = ["simulate", "--ledger", "file"].iter().chain(args);
        Cli::try_parse_from(args).map(|cli| cli.simulator)
    }

    #[test]
    fn the_defaults_are_those_of_code_but_for_the_port() {
        let mut parsed = parse(&[]).unwrap();
        assert_eq!(parsed.listen.to_string(), "127.0.0.1:50080");
        parsed.listen.set_port(0);
        assert_eq!(format!("{parsed:?}"), format!("{:?}", SimulatorArgs::new("file")));
    }

    #[test]
    fn faults_are_flags() {
        let args = [
            "--fault-latency=50ms..200ms",
            "--fault-apply-then-drop=2",
            "--fault-error-after-apply=2.5",
            "--fault-slow-202=3",
            "--processing-time=1s",
            "--fault-garbage=1",
            "--fault-wrong-amount=1",
            "--fault-busy=2",
            "--fault-drop-before-apply=1",
            "--fault-lookup-error=4",
            "--fault-inquire-error=5",
            "--inquire-latency=10ms",
            "--invalid-accounts=a,b",
        ];
        let parsed = parse(&args).unwrap();
        assert_eq!(parsed.faults.latency, "50ms..200ms".parse().unwrap());
        assert_eq!(parsed.faults.inquire_latency, "10ms".parse().unwrap());
        assert_eq!((parsed.faults.lookup_error, parsed.faults.inquire_error), (4.0, 5.0));
        assert_eq!((parsed.faults.error_after_apply, parsed.faults.slow_202), (2.5, 3.0));
        assert_eq!(parsed.invalid_accounts, ["a", "b"]);
        for bad in ["--fault-busy=101", "--fault-busy=NaN", "--fault-latency=2s..1s"] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }
}
