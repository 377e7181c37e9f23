//! A provider's ledger, compared with what is recorded of its redemptions.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use holdfast::simulator::ledger::{self, State};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::checks::Broken;

/// A provider's ledger, and how it names our redemptions.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    /// The provider, as pools name it.
    pub(crate) provider_id: &'static str,
    /// The file.
    pub(crate) ledger: PathBuf,
    /// Its keys.
    pub(crate) named_by: NamedBy,
}

/// What a ledger's keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamedBy {
    /// The redemption's id.
    Id,
    /// The same, as 32 hex digits.
    Hex,
    /// The provider's id of its task.
    Task,
}

/// A redemption as it is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) id: Uuid,
    pub(crate) task: Option<String>,
    pub(crate) state: String,
    account: String,
    amount: Option<i64>,
    by_a_person: bool,
    is_reversed: bool,
}

impl Recorded {
    fn read(row: PgRow) -> Self {
        Self {
            id: row.get("redemption_id"),
            task: row.get("provider_task"),
            state: row.get("state"),
            account: row.get("account_id"),
            amount: row.get("amount_minor"),
            by_a_person: row.get::<Option<String>, _>("resolved_by").is_some(),
            is_reversed: row.get::<Option<OffsetDateTime>, _>("reversed_at").is_some(),
        }
    }
}

impl Books {
    /// Those of the built-in contract.
    pub(crate) fn built_in(ledger: &Path) -> Self {
        Self { provider_id: "holdfast", ledger: ledger.to_owned(), named_by: NamedBy::Id }
    }

    /// What the ledger calls a redemption; `None` when we were never told.
    fn name(&self, redemption: &Recorded) -> Option<String> {
        match self.named_by {
            NamedBy::Id => Some(redemption.id.to_string()),
            NamedBy::Hex => Some(redemption.id.simple().to_string()),
            NamedBy::Task => redemption.task.clone(),
        }
    }

    /// All redemptions of the provider.
    pub(crate) async fn recorded(&self, db: &mut PgConnection) -> Vec<Recorded> {
        let rows = sqlx::query("SELECT * FROM redemptions WHERE provider_id = $1");
        let rows = rows.bind(self.provider_id).fetch_all(db).await.unwrap();
        rows.into_iter().map(Recorded::read).collect()
    }

    /// No code is credited twice, and each side has the other's credits, to the cent. Every outcome is there, but
    /// those that a person has to find out.
    pub(crate) async fn differences(&self, db: &mut PgConnection) -> Vec<Broken> {
        let mut broken = Vec::new();
        let mut keys_by_code: HashMap<String, String> = HashMap::new();
        let mut theirs: HashMap<String, (String, i64)> = HashMap::new();
        let rows = ledger::read(&self.ledger).unwrap();
        for row in rows {
            if row.state == State::Cancelled && theirs.remove(&row.key).is_some() {
                // Reversed: the card has its value again.
                keys_by_code.retain(|_, key| *key != row.key);
            }
            if row.state != State::Succeeded {
                continue;
            }
            if let Some(code) = row.code_sha256
                && let Some(first) = keys_by_code.insert(code, row.key.clone())
            {
                broken.push(format!("a code was credited twice, under {first} and {}", row.key));
            }
            theirs.insert(row.key, (row.account_ref.unwrap_or_default(), row.amount_minor));
        }
        // The accounts of those whose name was never told, and which a person has, or had.
        let mut nameless = Vec::new();
        for ours in self.recorded(db).await {
            let name = self.name(&ours);
            let is_named = name.is_some();
            let credited = name.and_then(|name| theirs.remove(&name));
            let Recorded { id, state, account, amount, by_a_person, is_reversed, .. } = ours;
            match &*state {
                "SUCCEEDED" if is_reversed => {
                    if credited.is_some() && !is_reversed_by_word(db, id).await {
                        broken
                            .push(format!("redemption {id} is reversed here, {credited:?} there"));
                    }
                }
                "SUCCEEDED" if !by_a_person => {
                    let ours = amount.map(|amount| (account, amount));
                    if credited != ours {
                        broken.push(format!("redemption {id}: {ours:?} here, {credited:?} there"));
                    }
                }
                "FAILED" if !by_a_person => {
                    if credited.is_some() {
                        broken.push(format!("redemption {id} is FAILED here, {credited:?} there"));
                    }
                }
                // A person's word may differ; a review says that something does not fit.
                "SUCCEEDED" | "NEEDS_REVIEW" if !is_named => nameless.push(account),
                "SUCCEEDED" | "FAILED" | "NEEDS_REVIEW" => {}
                open => broken.push(format!("redemption {id} is still {open}")),
            }
        }
        for (key, credit) in theirs {
            match nameless.iter().position(|account| *account == credit.0) {
                Some(place) => drop(nameless.swap_remove(place)),
                None => broken.push(format!(
                    "the provider credited {credit:?} for {key}, of which we know nothing"
                )),
            }
        }
        broken
    }
}

/// Whether a person said that a redemption was taken back: that may differ from what the provider has.
async fn is_reversed_by_word(db: &mut PgConnection, id: Uuid) -> bool {
    let by_word = "SELECT EXISTS (SELECT FROM reversals
        WHERE redemption_id = $1 AND state = 'SUCCEEDED' AND resolved_by IS NOT NULL)";
    sqlx::query_scalar(by_word).bind(id).fetch_one(db).await.unwrap()
}
