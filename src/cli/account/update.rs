//! `holdfast account update`: changes an account's credentials.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use secrecy::SecretString;

use super::import::credentials_message;
use crate::{
    cli::shared::{
        client::{RpcError, ServerArgs, required, unary},
        csv_files::{Line, Lines, MAX_LINE_BYTES},
        output::{FormatArgs, Sink, after_change, record},
        parse, view,
    },
    domain::{
        credentials::{Credentials, Fault},
        id::{AccountId, PoolId},
    },
    rpc::pb,
};

#[derive(Args, Debug)]
pub(in crate::cli) struct UpdateArgs {
    /// The account.
    #[arg(value_parser = parse::account)]
    account: AccountId,
    /// Its pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    /// A file with its credentials, a line NAME=VALUE for each. They take the place of those that
    /// it has.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "remove_credentials",
        required_unless_present = "remove_credentials"
    )]
    credentials_file: Option<PathBuf>,
    /// Remove all its credentials.
    #[arg(long)]
    remove_credentials: bool,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Changes the account, and prints it.
pub(super) async fn run(args: UpdateArgs) -> anyhow::Result<()> {
    let credentials = match &args.credentials_file {
        Some(file) => read(file)?,
        None => Credentials::default(),
    };
    let account = pb::Account {
        pool_id: args.pool.to_string(),
        account_id: args.account.to_string(),
        credentials: credentials_message(&credentials),
        ..Default::default()
    };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["credentials".to_owned()] });
    let request = unary(pb::UpdateAccountRequest { account: Some(account), update_mask });
    let reply = args.server.connect().await?.accounts().update_account(request).await;
    let account = reply.map_err(RpcError)?.into_inner().account;
    let print = || {
        let row = view::account(&required(account, "account")?);
        record(args.format.for_stdout(), view::ACCOUNT, &row, Sink::stdout()).map(drop)
    };
    after_change(print())
}

/// Reads a file of credentials. What is wrong is named by its line, or by the credential, without a value.
pub(in crate::cli) fn read(path: &Path) -> anyhow::Result<Credentials> {
    let name = || format!("the file {}", path.display());
    let file = File::open(path).with_context(|| format!("cannot open {}", name()))?;
    let mut lines = Lines::new(file);
    let mut given: BTreeMap<String, SecretString> = BTreeMap::new();
    let mut problems = Vec::new();
    while let Some(line) = lines.next_line().with_context(|| format!("cannot read {}", name()))? {
        let (number, bytes) = match line {
            Line::Whole(number, bytes) => (number, bytes),
            Line::TooLong(number) => {
                problems.push(format!("line {number} is longer than {MAX_LINE_BYTES} bytes"));
                continue;
            }
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            problems.push(format!("line {number} is not UTF-8"));
            continue;
        };
        let Some((name, value)) = text.split_once('=') else {
            problems.push(format!("line {number} must be written as NAME=VALUE"));
            continue;
        };
        if given.insert(name.to_owned(), value.into()).is_some() {
            problems.push(format!("line {number} has a name that another line has"));
        }
    }
    let is_empty = given.is_empty() && problems.is_empty();
    anyhow::ensure!(
        !is_empty,
        "{} has no credentials; --remove-credentials removes those that the account has",
        name()
    );
    let credentials = Credentials::new(given).map_err(|faults| {
        problems.extend(faults.into_iter().map(|Fault { name, rule }| match name {
            Some(name) => format!("the credential {name} {rule}"),
            None => format!("the credentials {rule}"),
        }));
    });
    match credentials {
        Ok(credentials) if problems.is_empty() => Ok(credentials),
        _ => anyhow::bail!("{}: {}", name(), problems.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &[u8]) -> Result<Vec<(String, String)>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let read = read(file.path()).map_err(|error| format!("{error:#}"))?;
        Ok(read.expose().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn values_are_read_as_they_are_written() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let read = of(b"\xef\xbb\xbfpin= 0=1 \r\n\r\nuser=\"x\",'y'\n").unwrap();
        assert_eq!(read, [pair("pin", " 0=1 "), pair("user", "\"x\",'y'")]);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_and_no_value_is() {
        let error = of(b"S3C\na=S\x013C\nb=\nb=S3C\n\xff=S3C\nS3 C=1\n").unwrap_err();
        for part in [
            "line 1 must be written as NAME=VALUE",
            "line 4 has a name that another line has",
            "line 5 is not UTF-8",
            "the credential a must be",
            "the credentials must have names",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("S3"), "{error}");
        assert!(of(b"\n").unwrap_err().contains("--remove-credentials"));
    }
}
