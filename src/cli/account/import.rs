//! `holdfast account import`: streams the accounts of a file to the server.

use std::{
    collections::HashMap,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;

use crate::{
    cli::shared::{
        client::{
            PAGE_SIZE, RpcError, Server, ServerArgs, every_page, reason_of, status_of, unary,
        },
        csv_files::{AccountRow, BadRow, CsvFile, FileArgs, Options, input},
        output::note,
        parse,
        pools::pool_currency,
        upload::{Upload, upload},
    },
    domain::{account::LoginStatus, credentials::Credentials, id::PoolId, money::Currency},
    rpc::pb,
};

/// Rows that may wait to be sent. Beyond that, reading the file waits for the server.
const READ_AHEAD: usize = 256;
/// A failure that means that an earlier import made the account.
const ALREADY_THERE: &str = "ACCOUNT_ALREADY_EXISTS";

#[derive(Args, Debug)]
pub(in crate::cli) struct ImportArgs {
    /// The file, or - for standard input: CSV with a header, columns account_id (required), country_code, plan_id,
    /// balance_minor, login_status, labels (k=v;k=v), credential.NAME (one for each credential),
    /// pool_id (rows of other pools are skipped).
    file: PathBuf,
    #[command(flatten)]
    reading: FileArgs,
    /// Read and check the file, and say which accounts would be made: make none.
    #[arg(long)]
    dry_run: bool,
    /// The pool that the accounts are for.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    #[command(flatten)]
    server: ServerArgs,
}

/// What an import did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Imported {
    /// Accounts that were created.
    pub(in crate::cli) created: i64,
    /// Accounts that the server did not create.
    pub(in crate::cli) failed: i64,
    /// Rows that were not sent.
    pub(in crate::cli) bad_rows: u64,
    /// Rows of other pools.
    pub(in crate::cli) skipped: u64,
    /// Rows of nothing.
    pub(in crate::cli) blank: u64,
}

impl Imported {
    fn has_rows_of_the_pool(&self) -> bool {
        self.created > 0 || self.failed > 0 || self.bad_rows > 0
    }
}

/// Imports a file. Bad rows and failures are named on stderr, and make it an error in the end.
pub(in crate::cli) async fn run(args: ImportArgs) -> anyhow::Result<()> {
    let server = args.server.connect().await?;
    let options = args.reading.options(&args.pool);
    if args.dry_run {
        return dry_run(&server, &args.file, &args.pool, options).await;
    }
    let done = import(&server, &args.file, &args.pool, options).await?;
    anyhow::ensure!(
        done.has_rows_of_the_pool(),
        "none of the file's {} rows is for pool {}: nothing was imported",
        done.skipped,
        args.pool
    );
    note(format_args!(
        "{} created, {} not created, {} bad rows, {} rows of other pools and {} blank rows skipped",
        done.created, done.failed, done.bad_rows, done.skipped, done.blank
    ));
    anyhow::ensure!(
        done.failed == 0 && done.bad_rows == 0,
        "no account was created for {} of the file's rows",
        done.failed.unsigned_abs() + done.bad_rows
    );
    Ok(())
}

/// A file of accounts, and its rows.
type Accounts = CsvFile<Box<dyn Read + Send>, AccountRow>;

/// Opens a file, and reads its header.
pub(in crate::cli) fn open(file: &Path, options: &Options) -> anyhow::Result<Accounts> {
    let accounts = CsvFile::new(input::open(file)?, options)
        .with_context(|| format!("cannot read the file {}", input::shown(file)))?;
    accounts.left_out().iter().for_each(note);
    Ok(accounts)
}

/// Says what an import would do. The server is only read.
async fn dry_run(
    server: &Server,
    file: &Path,
    pool: &PoolId,
    mut options: Options,
) -> anyhow::Result<()> {
    options.currency = Currency::parse(&pool_currency(server, pool).await?);
    let mut rows = open(file, &options)?;
    let mut done = Imported::default();
    let (mut would, mut lines) = (0_u64, HashMap::new());
    for row in &mut rows {
        match read(row.context("the rest of the file cannot be read")?, pool) {
            Found::Account(account) => {
                would += 1;
                lines.insert(account.account_id.as_str().to_owned(), account.line);
            }
            Found::OtherPool => done.skipped += 1,
            Found::Bad(bad) => {
                done.bad_rows += 1;
                note(bad);
            }
        }
    }
    anyhow::ensure!(would + done.bad_rows + done.skipped > 0, "{}", without_rows(file));
    let mut accounts = server.accounts();
    let mut there = 0_u64;
    every_page(
        async |page_token| {
            let request = pb::ListAccountsRequest {
                pool_id: pool.to_string(),
                page_size: PAGE_SIZE,
                page_token,
                ..Default::default()
            };
            let page = accounts.list_accounts(unary(request)).await?.into_inner();
            Ok((page.accounts, page.next_page_token))
        },
        |account| {
            if let Some(line) = lines.remove(&account.account_id) {
                there += 1;
                note(format_args!(
                    "line {line}: account_id exists already; it would not be changed"
                ));
            }
            Ok(())
        },
    )
    .await?;
    note(format_args!(
        "dry run: {} accounts would be created, {there} exist already, {} bad rows, {} rows of other pools and {} \
         blank rows skipped. Nothing was sent",
        would - there,
        done.bad_rows,
        done.skipped,
        rows.blank_rows()
    ));
    anyhow::ensure!(
        there == 0 && done.bad_rows == 0,
        "no account would be created for {} of the file's rows",
        there + done.bad_rows
    );
    Ok(())
}

fn without_rows(file: &Path) -> String {
    format!("the file {} has no rows besides its header: nothing was imported", input::shown(file))
}

/// What a row is to a pool.
enum Found {
    Account(AccountRow),
    Bad(BadRow),
    OtherPool,
}

fn read(row: Result<AccountRow, BadRow>, pool: &PoolId) -> Found {
    match row {
        Ok(row) if row.pool_id.as_ref().is_some_and(|named| named != pool) => Found::OtherPool,
        Ok(row) => Found::Account(row),
        Err(bad) if bad.pool_id.as_ref().is_some_and(|named| named != pool) => Found::OtherPool,
        Err(bad) => Found::Bad(bad),
    }
}

/// Imports a file's accounts, naming on stderr what cannot be. A file without any row is an error.
pub(in crate::cli) async fn import(
    server: &Server,
    file: &Path,
    pool: &PoolId,
    mut options: Options,
) -> anyhow::Result<Imported> {
    let currency = pool_currency(server, pool).await?;
    options.currency = Currency::parse(&currency);
    let rows = open(file, &options)?;
    let (send, receive, ended) = upload(READ_AHEAD);
    let pool_id = pool.clone();
    let feed = tokio::task::spawn_blocking(move || feed(rows, &pool_id, &currency, &send));

    let reply = server.accounts().import_accounts(receive).await;
    drop(ended);
    let mut fed = feed.await.context("reading the file ended early")??;
    let reply = match reply {
        Ok(reply) => reply.into_inner(),
        // Nothing was sent, so the server could not tell what pool is meant; that is no error.
        Err(_) if fed.lines.is_empty() => pb::ImportAccountsResponse::default(),
        Err(status) => return Err(RpcError(status).into()),
    };
    let has_rows = !fed.lines.is_empty() || fed.done.bad_rows + fed.done.skipped > 0;
    anyhow::ensure!(has_rows, "{}", without_rows(file));
    for failure in &reply.failures {
        note(told(failure, &fed.lines));
    }
    let named = i64::try_from(reply.failures.len()).unwrap_or(i64::MAX);
    if reply.failed > named {
        note(format_args!("… and {} more", reply.failed - named));
    }
    fed.done.created = reply.created;
    fed.done.failed = reply.failed;
    Ok(fed.done)
}

/// A failure, by the line of its row.
fn told(failure: &pb::ImportFailure, lines: &[u64]) -> String {
    let number = usize::try_from(failure.index).ok().and_then(|index| lines.get(index));
    let line = number.map_or("line ?".to_owned(), |line| format!("line {line}"));
    let status = failure.error.as_ref().map(status_of);
    match status {
        Some(status) if reason_of(&status) == ALREADY_THERE => {
            format!("{line}: account_id exists already; it was not changed")
        }
        Some(status) => format!("{line}: {}", RpcError(status)),
        None => format!("{line}: no account was created"),
    }
}

struct Fed {
    /// The line of each account that was sent, by its index in the stream.
    lines: Vec<u64>,
    done: Imported,
}

/// Reads the file and sends its rows, as fast as the server takes them.
fn feed(
    mut rows: Accounts,
    pool: &PoolId,
    currency: &str,
    send: &Upload<pb::ImportAccountsRequest>,
) -> anyhow::Result<Fed> {
    let mut fed = Fed { lines: Vec::new(), done: Imported::default() };
    for row in &mut rows {
        match read(row.context("the rest of the file cannot be read")?, pool) {
            Found::OtherPool => fed.done.skipped += 1,
            Found::Account(row) => {
                let line = row.line;
                let account = Some(message(row, pool, currency));
                if send.send(pb::ImportAccountsRequest { account }).is_err() {
                    // The call has ended; its error says why.
                    break;
                }
                fed.lines.push(line);
            }
            Found::Bad(bad) => {
                fed.done.bad_rows += 1;
                note(bad);
            }
        }
    }
    fed.done.blank = rows.blank_rows();
    Ok(fed)
}

pub(in crate::cli) fn message(row: AccountRow, pool: &PoolId, currency: &str) -> pb::Account {
    let login_status = match row.login_status {
        LoginStatus::Active => pb::LoginStatus::Active,
        LoginStatus::Inactive => pb::LoginStatus::Inactive,
        LoginStatus::Invalid => pb::LoginStatus::Invalid,
    };
    pb::Account {
        pool_id: pool.to_string(),
        account_id: row.account_id.to_string(),
        login_status: login_status.into(),
        plan_id: row.plan_id.map(|plan| plan.to_string()).unwrap_or_default(),
        country_code: row.country_code.unwrap_or_default(),
        balance: Some(pb::Money {
            amount_minor: row.balance_minor,
            currency_code: currency.to_owned(),
        }),
        labels: row.labels,
        credentials: credentials_message(&row.credentials),
        ..Default::default()
    }
}

/// Credentials as a request has them.
pub(super) fn credentials_message(credentials: &Credentials) -> HashMap<String, String> {
    credentials.expose().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::cli::shared::fake::{Fake, serve};

    #[tokio::test]
    async fn good_rows_are_sent_whatever_the_others_are() {
        let fake = Fake::default();
        let server = serve(fake.clone()).await;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(
            file,
            "account_id,balance_minor,pool_id,credential.pin\na,5,,12\nb,-1,,\nc,,p,\nd,,q,\ne,,,"
        )
        .unwrap();
        let pool = PoolId::parse("p").unwrap();
        let options = FileArgs::default().options(&pool);
        let done = import(&server, file.path(), &pool, options).await.unwrap();
        let expected = Imported { created: 2, failed: 1, bad_rows: 1, skipped: 1, blank: 0 };
        assert_eq!(done, expected);

        let imported = fake.imported.lock().unwrap();
        let names: Vec<_> = imported.iter().map(|it| it.account_id.as_str()).collect();
        assert_eq!(names, ["a", "c", "e"]);
        let balance = imported[0].balance.as_ref().unwrap();
        assert_eq!((balance.amount_minor, balance.currency_code.as_str()), (5, "EUR"));
        assert_eq!(imported[0].credentials, HashMap::from([("pin".to_owned(), "12".to_owned())]));
        assert!(imported[1].credentials.is_empty());
    }

    #[tokio::test]
    async fn a_file_without_rows_is_an_error() {
        let server = serve(Fake::default()).await;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "account_id\r\r\n").unwrap();
        let pool = PoolId::parse("p").unwrap();
        let options = FileArgs::default().options(&pool);
        let error = import(&server, file.path(), &pool, options).await.unwrap_err();
        assert!(error.to_string().contains("has no rows"), "{error}");
    }

    #[test]
    fn a_failure_is_told_by_its_line() {
        let error = |message: &str| tonic_types::Status {
            code: 3,
            message: message.into(),
            details: vec![],
        };
        let failure =
            pb::ImportFailure { index: 1, error: Some(error("no")), ..Default::default() };
        assert_eq!(told(&failure, &[2, 7]), "line 7: INVALID_ARGUMENT: no");
    }
}
