//! The demo's files: those that were named, else those of the repository, else the copies that the
//! program carries.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::DemoArgs;

/// Where the example files are, seen from the repository's root.
const FOLDER: &str = "examples";
const ACCOUNTS: (&str, &str) =
    ("accounts.csv", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/accounts.csv")));
const CARDS: (&str, &str) =
    ("cards.csv", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cards.csv")));
const PROVIDER_CARDS: (&str, &str) = (
    "provider-cards.csv",
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/provider-cards.csv")),
);

const TASK_ACCOUNTS: (&str, &str) = (
    "task-accounts.csv",
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/task-accounts.csv")),
);
const TASK_CARDS: (&str, &str) = (
    "task-cards.csv",
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/task-cards.csv")),
);
const TASK_LOGINS: (&str, &str) = (
    "task-logins.csv",
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/task-logins.csv")),
);
const TASK_PROFILE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/task-api.toml"));

/// What the task API's profile says otherwise here: a visitor is less patient than a provider is slow.
const TASK_TIMES: [(&str, &str); 4] =
    [("timeout", "3s"), ("visibility", "200ms"), ("max_processing", "20s"), ("send_window", "5s")];

/// The profile of the task API, for one that is served at this URL. Without its brake: an answer that is lost counts
/// as a refusal, and here answers are lost on purpose.
pub(super) fn task_profile(url: &str) -> String {
    let changed = |line: &str| {
        let (name, _) = line.split_once(" = ")?;
        if name == "brake" {
            return Some(String::new());
        }
        let time = TASK_TIMES.iter().find(|(other, _)| *other == name).map(|(_, time)| *time);
        let value = if name == "base" { Some(url) } else { time };
        value.map(|value| format!("{name} = \"{value}\"\n"))
    };
    TASK_PROFILE.lines().map(|line| changed(line).unwrap_or_else(|| format!("{line}\n"))).collect()
}

/// The files to use.
pub(super) struct Files {
    /// The accounts to import.
    pub(super) accounts: PathBuf,
    /// The cards to redeem.
    pub(super) cards: PathBuf,
    /// The cards that the provider knows; `None`: it takes every code.
    pub(super) provider_cards: Option<PathBuf>,
    /// The accounts of the pool of the task API, with their logins.
    pub(super) task_accounts: PathBuf,
    /// The cards that are redeemed to them.
    pub(super) task_cards: PathBuf,
    /// The logins that the task API accepts.
    pub(super) task_logins: PathBuf,
}

impl Files {
    /// Chooses each of them. Copies are written to `folder`.
    pub(super) fn choose(args: &DemoArgs, folder: &Path) -> anyhow::Result<Self> {
        let provider_cards = match (&args.provider_cards, &args.cards) {
            (Some(named), _) => Some(named.clone()),
            (None, Some(_)) => None,
            (None, None) => Some(example(PROVIDER_CARDS, folder)?),
        };
        Ok(Self {
            accounts: chosen(args.accounts.as_ref(), ACCOUNTS, folder)?,
            cards: chosen(args.cards.as_ref(), CARDS, folder)?,
            provider_cards,
            task_accounts: example(TASK_ACCOUNTS, folder)?,
            task_cards: example(TASK_CARDS, folder)?,
            task_logins: example(TASK_LOGINS, folder)?,
        })
    }
}

fn chosen(named: Option<&PathBuf>, copy: (&str, &str), folder: &Path) -> anyhow::Result<PathBuf> {
    named.map_or_else(|| example(copy, folder), |named| Ok(named.clone()))
}

fn example((name, copy): (&str, &str), folder: &Path) -> anyhow::Result<PathBuf> {
    let here = Path::new(FOLDER).join(name);
    if here.is_file() {
        return Ok(here);
    }
    let written = folder.join(name);
    fs::write(&written, copy).with_context(|| format!("cannot write {}", written.display()))?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        cli::shared::csv_files::{AccountRow, CardRow, CsvFile, Options},
        provider::profile::Profile,
    };

    #[test]
    fn the_example_shows_what_it_is_meant_to_show() {
        let accounts: Vec<_> =
            CsvFile::<_, AccountRow>::new(ACCOUNTS.1.as_bytes(), &Options::default())
                .unwrap()
                .map(|row| row.unwrap().unwrap())
                .collect();
        assert_eq!(accounts.len(), 60);
        let plans: HashSet<_> = accounts.iter().filter_map(|it| it.plan_id.clone()).collect();
        assert_eq!(plans.len(), 3);

        let options = Options { may_repeat_cards: true, ..Options::default() };
        let rows = CsvFile::<_, CardRow>::new(CARDS.1.as_bytes(), &options).unwrap();
        let (cards, bad): (Vec<_>, Vec<_>) = rows.map(Result::unwrap).partition(Result::is_ok);
        assert_eq!((cards.len(), bad.len()), (550, 6));
        // Each bad row tells its pool, so that only that pool's batch names it.
        assert!(bad.into_iter().all(|row| row.unwrap_err().pool_id.is_some()));
        let cards: Vec<_> = cards.into_iter().map(Result::unwrap).collect();
        let pools: HashSet<_> = cards.iter().map(|card| card.pool_id.clone()).collect();
        assert_eq!(pools.len(), 2);
        let codes: HashSet<_> =
            cards.iter().map(|card| hex::encode(expose(&card.code.normalised()))).collect();
        assert_eq!(cards.len() - codes.len(), 24, "duplicates");
    }

    #[test]
    fn the_task_apis_example_has_a_login_of_each_account_and_one_that_is_wrong() {
        let accounts: Vec<_> =
            CsvFile::<_, AccountRow>::new(TASK_ACCOUNTS.1.as_bytes(), &Options::default())
                .unwrap()
                .map(|row| row.unwrap().unwrap())
                .collect();
        let logins: HashSet<_> = TASK_LOGINS.1.lines().skip(1).collect();
        let is_good = |account: &&AccountRow| {
            let of = |name: &str| {
                let mut given = account.credentials.expose();
                given.find(|(other, _)| *other == name).unwrap().1.to_owned()
            };
            // The report compares accounts by the names that the provider knows.
            assert_eq!(of("username"), account.account_id.to_string());
            logins.contains(&*format!("{},{}", of("username"), of("password")))
        };
        assert_eq!((accounts.len(), accounts.iter().filter(is_good).count()), (10, 9));
        let cards =
            CsvFile::<_, CardRow>::new(TASK_CARDS.1.as_bytes(), &Options::default()).unwrap();
        assert_eq!(cards.filter(|row| row.as_ref().unwrap().is_ok()).count(), 45);
    }

    #[test]
    fn the_task_apis_profile_is_one_with_another_base_and_times() {
        let profile = Profile::parse(&task_profile("http://127.0.0.1:7")).unwrap();
        assert_eq!(profile.http.base.as_str(), "http://127.0.0.1:7/");
        assert_eq!(profile.times.max_processing, std::time::Duration::from_secs(20));
        assert_eq!(profile.http.timeout, std::time::Duration::from_secs(3));
    }

    fn expose(text: &secrecy::SecretString) -> &str {
        secrecy::ExposeSecret::expose_secret(text)
    }
}
