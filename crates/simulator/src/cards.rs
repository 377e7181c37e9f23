//! Cards: which codes are worth what.

use std::{collections::HashMap, path::Path};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::SimulatorArgs;

/// The most that a card can be worth, in minor units.
const MAX_AMOUNT_MINOR: i64 = 1_000_000_000_000_000;

/// A card, as it was before anybody redeemed it here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) amount_minor: i64,
    pub(super) currency_code: String,
    pub(super) country_code: String,
    pub(super) used: bool,
}

/// The cards that exist, by the hash of their code.
pub(super) struct Cards {
    /// `None`: every code is good.
    listed: Option<HashMap<String, Card>>,
    default: Card,
}

#[derive(Deserialize)]
struct Line {
    code: String,
    amount_minor: Option<i64>,
    currency_code: Option<String>,
    country_code: Option<String>,
    state: Option<String>,
}

impl Cards {
    /// Reads the file of cards, if there is one.
    pub(super) fn open(args: &SimulatorArgs) -> anyhow::Result<Self> {
        let default = Card {
            amount_minor: args.default_amount_minor,
            currency_code: args.currency.clone(),
            country_code: args.country.clone(),
            used: false,
        };
        check(&default).context("the default card")?;
        let listed = args.cards.as_deref().map(|file| read(file, &default)).transpose()?;
        Ok(Self { listed, default })
    }

    /// The card with the code of this hash.
    pub(super) fn get(&self, code_sha256: &str) -> Option<&Card> {
        match &self.listed {
            Some(listed) => listed.get(code_sha256),
            None => Some(&self.default),
        }
    }
}

/// The fingerprint of a card, in hex: the same however its code is written, and not the code.
pub(super) fn code_sha256(code: &str) -> String {
    let normalised: String =
        code.chars().filter(|c| !matches!(c, ' ' | '-')).map(|c| c.to_ascii_uppercase()).collect();
    hex::encode(Sha256::digest(normalised))
}

fn read(file: &Path, default: &Card) -> anyhow::Result<HashMap<String, Card>> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(file)
        .with_context(|| format!("the file of cards {} cannot be read", file.display()))?;
    let mut listed = HashMap::new();
    for (index, line) in reader.deserialize::<Line>().enumerate() {
        // The number alone: an error of the reader's own may quote the code.
        let position = || format!("card {} of {}", index + 1, file.display());
        let Ok(line) = line else { bail!("{} cannot be read", position()) };
        let code = code_sha256(&line.code);
        let card = card(line, default).with_context(position)?;
        ensure!(listed.insert(code, card).is_none(), "{} is listed twice", position());
    }
    Ok(listed)
}

fn card(line: Line, default: &Card) -> anyhow::Result<Card> {
    let used = match line.state.as_deref() {
        None | Some("" | "fresh") => false,
        Some("used") => true,
        Some(_) => bail!("the state must be fresh or used"),
    };
    let card = Card {
        amount_minor: line.amount_minor.unwrap_or(default.amount_minor),
        currency_code: given(line.currency_code, &default.currency_code),
        country_code: given(line.country_code, &default.country_code),
        used,
    };
    check(&card)?;
    Ok(card)
}

fn given(text: Option<String>, default: &str) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
}

fn check(card: &Card) -> anyhow::Result<()> {
    ensure!(
        (0..=MAX_AMOUNT_MINOR).contains(&card.amount_minor),
        "the amount must be 0 to {MAX_AMOUNT_MINOR} minor units"
    );
    ensure!(
        card.currency_code.len() == 3 && card.currency_code.bytes().all(|b| b.is_ascii_uppercase()),
        "the currency must be three upper-case letters"
    );
    Ok(())
}
