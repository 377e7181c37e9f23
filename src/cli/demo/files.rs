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

/// The files to use.
pub(super) struct Files {
    /// The accounts to import.
    pub(super) accounts: PathBuf,
    /// The cards to redeem.
    pub(super) cards: PathBuf,
    /// The cards that the provider knows; `None`: it takes every code.
    pub(super) provider_cards: Option<PathBuf>,
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
    use crate::cli::shared::csv_files::{AccountRow, CardRow, CsvFile};

    #[test]
    fn the_example_shows_what_it_is_meant_to_show() {
        let accounts: Vec<_> = CsvFile::<_, AccountRow>::new(ACCOUNTS.1.as_bytes())
            .unwrap()
            .map(|row| row.unwrap().unwrap())
            .collect();
        assert_eq!(accounts.len(), 60);
        let plans: HashSet<_> = accounts.iter().filter_map(|it| it.plan_id.clone()).collect();
        assert_eq!(plans.len(), 3);

        let rows = CsvFile::<_, CardRow>::new(CARDS.1.as_bytes()).unwrap();
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

    fn expose(text: &secrecy::SecretString) -> &str {
        secrecy::ExposeSecret::expose_secret(text)
    }
}
