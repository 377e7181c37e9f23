//! `holdfast keys`: which secret keys are in use, and changing to another while servers run.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::shared::{
    database::DatabaseArgs,
    list::ListOptions,
    log::Logging,
    output::{Sink, note, while_read},
};
use crate::{
    app::keys,
    config::parse_duration,
    domain::secret_key::{KeyId, StoredKey},
};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// List the secret keys that the database knows, what is made with each, and which are needed no more.
    Status(StatusArgs),
    /// Make the first key of the key file the current one, and encrypt with it all that is stored. Run it again to go
    /// on where it was ended.
    Rotate(Logging<RotateArgs>),
}

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(Args, Debug)]
pub(super) struct RotateArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The file of the secret keys, as servers have it. Its first key becomes the current one.
    #[arg(long, env = "HOLDFAST_SECRET_KEY_FILE")]
    secret_key_file: PathBuf,

    /// How long to wait for servers that have not read the new key.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    wait: Duration,

    /// Why, for the audit trail: at most 1000 characters.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = reason)]
    reason: String,
}

/// Runs one of the commands.
pub(super) async fn run(command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Status(args) => while_read(status(args)).await,
        KeysCommand::Rotate(args) => rotate(args.begin()?).await,
    }
}

/// The columns of a key.
const KEY: &[&str] = &["key_id", "state", "codes", "credentials", "fingerprints"];

async fn status(args: StatusArgs) -> anyhow::Result<()> {
    let mut rows = args.list.rows(KEY, KEY, Sink::stdout())?;
    let uses = keys::uses(&args.database.address()?).await?;
    let stored: Vec<StoredKey> = uses.iter().map(|(key, _)| key.clone()).collect();
    let removable = keys::removable(&stored);
    for (key, made) in &uses {
        let state = if key.is_current {
            "CURRENT"
        } else if removable.contains(&key.key_id) {
            "REMOVABLE"
        } else {
            "NEEDED"
        };
        let key_id = Value::from(key.key_id.number());
        rows.push(&[
            key_id,
            state.into(),
            made.codes.into(),
            made.credentials.into(),
            made.fingerprints.into(),
        ])?;
    }
    rows.finish()?;
    Ok(())
}

async fn rotate(args: RotateArgs) -> anyhow::Result<()> {
    let url = args.database.address()?;
    let mut told = |progress| note(progress);
    let rotated =
        keys::rotate(&url, &args.secret_key_file, args.wait, &args.reason, &mut told).await?;
    note(format!("all that is stored is encrypted with the secret key {}", rotated.current));
    if !rotated.removable.is_empty() {
        note(format!(
            "these keys are needed no more, and may be removed from every key file: {}. What they made fingerprints with \
             is in the database, encrypted with the secret key {}",
            list(&rotated.removable),
            rotated.current
        ));
    }
    Ok(())
}

/// The longest reason, in characters: RPCs take no longer one.
const MAX_REASON: usize = 1000;

fn reason(text: &str) -> Result<String, &'static str> {
    let is_short = text.chars().count() <= MAX_REASON;
    let is_plain = !text.chars().any(|c| c.is_control() && c != '\n');
    if is_short && is_plain {
        Ok(text.to_owned())
    } else {
        Err("must be at most 1000 characters without control characters")
    }
}

fn list(keys: &[KeyId]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
