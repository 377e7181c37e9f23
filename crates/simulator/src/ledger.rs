//! The book on disk: an append-only file of JSON lines, synced before anything is answered.
//!
//! One thread writes. It takes all lines that wait, writes them at once and syncs once, so that
//! many requests share a sync. When a write or a sync fails, nothing is written ever again: what a
//! file holds after a failed sync is not known.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
    sync::{Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;

/// Bytes that are gathered for one sync at most.
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Where a redemption stands at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Under way. The card is set aside.
    Processing,
    /// The account was credited.
    Succeeded,
    /// Refused.
    Failed,
    /// Cancelled by its key, perhaps before it arrived: a tombstone. Or reversed, after it succeeded.
    Cancelled,
}

/// One line of the ledger: what became of a key. A later line of the same key replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The idempotency key.
    pub key: String,
    /// Where it stands.
    pub state: State,
    /// When the key got this state, by the provider's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The SHA-256 of the request's bytes, in hex. `None`: it was cancelled before it arrived.
    pub payload_sha256: Option<String>,
    /// The SHA-256 of the normalised code, in hex.
    pub code_sha256: Option<String>,
    /// The account to credit.
    pub account_ref: Option<String>,
    /// The provider's own name for it.
    pub provider_ref: String,
    /// What was credited, or will be, in minor units; 0 unless it is `Processing` or `Succeeded`.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency_code: String,
    /// The account's balance after it was credited.
    pub balance_minor: Option<i64>,
    /// Why it was refused.
    pub failure: Option<Failure>,
    /// What an API tells again of it besides, by name. Codes are sealed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, String>,
}

/// Why a redemption was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The failure code.
    pub code: String,
    /// For a person.
    pub message: String,
    /// Whether the card is worth nothing any more.
    pub code_spent: bool,
}

/// Reads every line of a ledger, oldest first. A last line that was only half written is left out:
/// nobody was told of it. For [`State::Succeeded`] there is one line per redemption, so counting
/// these by code finds a card that was applied twice.
pub fn read(file: &Path) -> anyhow::Result<Vec<Row>> {
    let text =
        fs::read(file).with_context(|| format!("the ledger {} cannot be read", file.display()))?;
    Ok(parse(&text).with_context(|| format!("the ledger {}", file.display()))?.0)
}

/// How every row begins. What does not is another file: nothing of it is cut off.
const ROW_BEGINS: &[u8] = b"{\"key\":";

/// The rows, and how many bytes of the text they take.
fn parse(text: &[u8]) -> anyhow::Result<(Vec<Row>, usize)> {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut rows = Vec::new();
    for line in text[..whole].split_inclusive(|byte| *byte == b'\n') {
        let row = serde_json::from_slice(line)
            .with_context(|| format!("line {} is not a row", rows.len() + 1))?;
        rows.push(row);
    }
    let torn = &text[whole..];
    let begin = &ROW_BEGINS[..torn.len().min(ROW_BEGINS.len())];
    anyhow::ensure!(torn.starts_with(begin), "line {} is not a row", rows.len() + 1);
    Ok((rows, whole))
}

/// How far the writer has come.
#[derive(Default)]
struct Progress {
    /// Rows that are on disk.
    durable: u64,
    /// Why nothing is written any more.
    failed: Option<String>,
}

/// The ledger is closed, or could not be written: what was asked may be lost, and no answer may be
/// given.
#[derive(Debug)]
pub(super) struct NotDurable;

/// The ledger's writer.
pub(super) struct Ledger {
    /// `None` ends the writer.
    lines: mpsc::Sender<Option<Vec<u8>>>,
    progress: watch::Receiver<Progress>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Ledger {
    /// Opens the file, or makes it; cuts a half-written last line off; gives the rows.
    pub(super) fn open(path: &Path) -> anyhow::Result<(Self, Vec<Row>)> {
        let (file, rows) = open_file(path)
            .with_context(|| format!("the ledger {} cannot be opened", path.display()))?;
        let (lines, waiting) = mpsc::channel();
        let progress = Progress { durable: rows.len() as u64, failed: None };
        let (report, progress) = watch::channel(progress);
        let writer = thread::Builder::new()
            .name("simulator-ledger".to_owned())
            .spawn(move || write(file, &waiting, &report))
            .context("the ledger's writer cannot be started")?;
        Ok((Self { lines, progress, writer: Mutex::new(Some(writer)) }, rows))
    }

    /// Gives a row to the writer. The caller counts rows, and calls in the order of its count.
    pub(super) fn append(&self, row: &Row) {
        // A row is always JSON, and a writer that has ended reports itself to those who wait.
        if let Ok(mut line) = serde_json::to_vec(row) {
            line.push(b'\n');
            let _ = self.lines.send(Some(line));
        }
    }

    /// Whether the row with this number, counted from 1, is on disk.
    pub(super) fn is_durable(&self, number: u64) -> bool {
        self.progress.borrow().durable >= number
    }

    /// Waits until the row with this number, counted from 1, is on disk.
    pub(super) async fn durable(&self, number: u64) -> Result<(), NotDurable> {
        let mut progress = self.progress.clone();
        let done = |progress: &Progress| progress.failed.is_some() || progress.durable >= number;
        match progress.wait_for(done).await {
            Ok(progress) if progress.durable >= number => Ok(()),
            _ => Err(NotDurable),
        }
    }

    /// Waits until the ledger cannot be written any more, and says why.
    pub(super) async fn failure(&self) -> String {
        let mut progress = self.progress.clone();
        match progress.wait_for(|progress| progress.failed.is_some()).await {
            Ok(progress) => progress.failed.clone().unwrap_or_default(),
            Err(_) => "its writer has ended".to_owned(),
        }
    }

    /// Whether rows can still be written.
    pub(super) fn is_open(&self) -> bool {
        self.progress.has_changed().is_ok() && self.progress.borrow().failed.is_none()
    }

    /// Writes what waits, ends the writer and lets go of the file. Blocks.
    pub(super) fn close(&self) {
        let _ = self.lines.send(None);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the ledger's writer panicked");
        }
    }
}

/// How long the ledger of somebody who has just ended may still be locked: a program that was started
/// meanwhile holds all files of the process that starts it for the moment until it runs.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

fn open_file(path: &Path) -> anyhow::Result<(File, Vec<Row>)> {
    let is_new = !path.exists();
    let mut file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
    let give_up_at = Instant::now() + LOCK_PATIENCE;
    while file.try_lock().is_err() {
        if Instant::now() >= give_up_at {
            bail!("another process uses it");
        }
        std::thread::sleep(LOCK_PATIENCE / 100);
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let (rows, whole) = parse(&text)?;
    if whole < text.len() {
        tracing::warn!(bytes = text.len() - whole, "cutting a half-written line off the ledger");
        file.set_len(whole as u64)?;
    }
    file.seek(std::io::SeekFrom::Start(whole as u64))?;
    file.sync_all()?;
    if is_new {
        // A new file's name is in its folder, which is synced separately.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok((file, rows))
}

/// Writes until it is told to end, or until it cannot.
fn write(
    mut file: File,
    lines: &mpsc::Receiver<Option<Vec<u8>>>,
    report: &watch::Sender<Progress>,
) {
    while let Ok(Some(mut batch)) = lines.recv() {
        let (mut rows, mut ended) = (1, false);
        while batch.len() < MAX_BATCH_BYTES && !ended {
            match lines.try_recv() {
                Ok(Some(line)) => {
                    batch.extend_from_slice(&line);
                    rows += 1;
                }
                Ok(None) => ended = true,
                Err(_) => break,
            }
        }
        if let Err(error) = file.write_all(&batch).and_then(|()| file.sync_data()) {
            tracing::error!(%error, "the ledger cannot be written; nothing is answered any more");
            report.send_modify(|progress| progress.failed = Some(error.to_string()));
            return;
        }
        report.send_modify(|progress| progress.durable += rows);
        if ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str) -> Row {
        Row {
            key: key.to_owned(),
            state: State::Failed,
            at: OffsetDateTime::UNIX_EPOCH,
            payload_sha256: None,
            code_sha256: None,
            account_ref: None,
            provider_ref: String::new(),
            amount_minor: 0,
            currency_code: "EUR".to_owned(),
            balance_minor: None,
            failure: None,
            extra: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn rows_are_read_back_without_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (ledger, rows) = Ledger::open(&path).unwrap();
        assert!(rows.is_empty());
        ledger.append(&row("a"));
        ledger.append(&row("b"));
        ledger.durable(2).await.unwrap();
        assert!(Ledger::open(&path).is_err(), "two writers");
        ledger.close();
        assert!(ledger.durable(3).await.is_err());

        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"key":"c","sta"#).unwrap();
        drop(file);
        assert_eq!(read(&path).unwrap().len(), 2);
        let (ledger, rows) = Ledger::open(&path).unwrap();
        assert_eq!(rows, [row("a"), row("b")]);
        ledger.append(&row("d"));
        ledger.close();
        assert_eq!(read(&path).unwrap(), [row("a"), row("b"), row("d")]);
    }

    #[tokio::test]
    async fn a_file_that_is_no_ledger_is_refused_and_nothing_is_cut_off_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cards.csv");
        for text in ["code,amount_minor", "code\nABCD-1", "{}"] {
            fs::write(&path, text).unwrap();
            assert!(Ledger::open(&path).is_err(), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        for torn in ["", "{", "{\"key\"", "{\"key\":\"a\",\"sta"] {
            fs::write(&path, torn).unwrap();
            Ledger::open(&path).unwrap().0.close();
            assert_eq!(fs::read_to_string(&path).unwrap(), "", "{torn}");
        }
    }

    #[tokio::test]
    async fn a_write_that_fails_is_never_durable() {
        // Every write to this device fails for want of space.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (lines, waiting) = mpsc::channel();
        let (report, progress) = watch::channel(Progress::default());
        let writer = thread::spawn(move || write(full, &waiting, &report));
        let ledger = Ledger { lines, progress, writer: Mutex::new(Some(writer)) };
        ledger.append(&row("a"));
        assert!(ledger.durable(1).await.is_err());
        assert!(!ledger.is_open());
    }

    #[test]
    fn a_broken_line_in_the_middle_is_an_error() {
        assert!(parse(b"{}\n").is_err());
        assert!(parse(b"half").is_err());
        assert_eq!(parse(b"{\"key\":\"ha").unwrap(), (vec![], 0));
    }
}
