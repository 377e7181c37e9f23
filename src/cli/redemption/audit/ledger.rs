//! The provider's ledger as a file: a redemption of the provider's contract on each line, in JSON,
//! and `at`, the time since when it has this state. The simulator's ledger is such a file.

use std::{fs::File, path::Path};

use anyhow::Context as _;
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    Window,
    compare::{Names, State},
    progress::Progress,
    provider::{Theirs, read_listed},
};
use crate::{
    cli::shared::{
        csv_files::{Line, Lines, MAX_LINE_BYTES},
        output::note,
    },
    domain::money::Currency,
    provider::{
        of_line,
        profile::{KeyKind, Values},
        question::Listed,
    },
};

/// Lines between two updates of the progress.
const SHOW_EVERY: u64 = 10_000;

struct Row {
    listed: Listed,
    at: Option<OffsetDateTime>,
}

#[derive(Deserialize)]
struct Time {
    /// Since when it has this state; in a file without it, all rows are of the audit's time.
    #[serde(default, with = "time::serde::rfc3339::option")]
    at: Option<OffsetDateTime>,
}

impl Row {
    fn read(line: &[u8], values: &Values, currency: Currency) -> Option<Self> {
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        let Time { at } = serde_json::from_slice(line).ok()?;
        Some(Self { listed: of_line(line, values, currency)?, at })
    }
}

/// A ledger that was read.
pub(in crate::cli) struct Ledger {
    /// What it has.
    pub(in crate::cli) theirs: Theirs,
    /// Until when it has all that the provider completed, as far as it can be told: the end of the
    /// window, or the last time in the file where that is later.
    pub(super) end: OffsetDateTime,
}

/// Reads a ledger. What was completed outside the window is kept, to be looked up. `kind` says how keys are written
/// there, `currency` is that of what tells none.
pub(in crate::cli) fn read(
    path: &Path,
    window: Window,
    (kind, currency): (KeyKind, Currency),
    names: &mut Names,
    progress: &mut Progress,
) -> anyhow::Result<Ledger> {
    let unreadable = || format!("the ledger {} cannot be read", path.display());
    let file = File::open(path).with_context(unreadable)?;
    let mut lines = Lines::new(file);
    let mut ledger = Ledger { theirs: Theirs::new(kind), end: window.to };
    let mut broken: Option<u64> = None;
    let mut rows = 0_u64;
    let values = Values::at(OffsetDateTime::now_utc());
    while let Some(line) = lines.next_line().with_context(unreadable)? {
        if let Some(number) = broken {
            anyhow::bail!("line {number} of {} is not a redemption", path.display());
        }
        match line {
            Line::TooLong(number) => {
                anyhow::bail!(
                    "line {number} of {} is longer than {MAX_LINE_BYTES} bytes",
                    path.display()
                )
            }
            // What is wrong with it is left out: it may hold a code.
            Line::Whole(number, text) => match Row::read(text, &values, currency) {
                None => broken = Some(number),
                Some(row) => {
                    rows += 1;
                    ledger.add(&row, window, names)?;
                    if number % SHOW_EVERY == 0 {
                        progress.show(format_args!("the ledger: {number} lines"));
                    }
                }
            },
        }
    }
    if let Some(number) = broken {
        anyhow::ensure!(rows > 0, "line {number} of {} is not a redemption", path.display());
        // A program that is writing the file has not told anybody of it yet.
        note(format_args!(
            "the last line of {}, {number}, is half written: left out",
            path.display()
        ));
    }
    if rows == 0 {
        note(format_args!("the ledger {} is empty", path.display()));
    }
    Ok(ledger)
}

impl Ledger {
    fn add(&mut self, row: &Row, window: Window, names: &mut Names) -> anyhow::Result<()> {
        let record = read_listed(&row.listed, names);
        let in_time = row.at.is_none_or(|at| window.from <= at && at < window.to);
        let inside = in_time && record.state != State::Processing;
        self.end = self.end.max(row.at.unwrap_or(self.end));
        self.theirs.add(&row.listed.key, record, inside)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use uuid::Uuid;

    use super::*;

    const DAY: &str = "2026-11-24T00:00:00Z";
    const NEXT: &str = "2026-11-25T00:00:00Z";

    fn time(text: &str) -> OffsetDateTime {
        crate::cli::shared::parse::time(text).unwrap()
    }

    fn read_text(text: &str) -> anyhow::Result<Ledger> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let window = Window { from: time(DAY), to: time(NEXT) };
        let keys = (KeyKind::Uuid, Currency::parse("EUR").unwrap());
        read(file.path(), window, keys, &mut Names::default(), &mut Progress::hidden())
    }

    fn rest(ledger: &Ledger) -> Vec<Uuid> {
        ledger.theirs.rest().into_iter().filter_map(|(_, id)| id).collect()
    }

    fn line(key: Uuid, state: &str, at: &str) -> String {
        let at = if at.is_empty() { String::new() } else { format!(r#","at":"{at}""#) };
        format!(
            r#"{{"key":"{key}","state":"{state}","amount_minor":5,"currency_code":"EUR","account_ref":"a"{at}}}"#
        )
    }

    #[test]
    fn a_day_begins_with_its_first_moment_and_ends_before_the_next() {
        let keys: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
        let times = ["2026-11-23T23:59:59.999Z", DAY, "2026-11-24T23:59:59.999999999Z", NEXT];
        let lines: Vec<_> =
            keys.iter().zip(times).map(|(key, at)| line(*key, "succeeded", at)).collect();
        let mut ledger = read_text(&lines.join("\n")).unwrap();
        assert_eq!(rest(&ledger), keys[1..3]);
        assert_eq!(ledger.end, time(NEXT));
        assert!(ledger.theirs.take(keys[0]).is_some(), "to be looked up");
        let late = line(keys[0], "succeeded", "2026-11-25T00:03:00Z");
        assert_eq!(read_text(&late).unwrap().end, time("2026-11-25T00:03:00Z"));
    }

    #[test]
    fn a_file_without_times_is_all_of_the_window() {
        let key = Uuid::now_v7();
        let ledger = read_text(&line(key, "failed", "")).unwrap();
        assert_eq!((rest(&ledger), ledger.end), (vec![key], time(NEXT)));
    }

    #[test]
    fn what_is_under_way_was_not_completed() {
        let key = Uuid::now_v7();
        let begun = line(key, "processing", "2026-11-24T12:00:00Z");
        let mut ledger = read_text(&begun).unwrap();
        assert!(ledger.theirs.rest().is_empty());
        assert_eq!(ledger.theirs.take(key).unwrap().state, State::Processing);
        let done = line(key, "succeeded", "2026-11-25T00:00:01Z");
        assert!(read_text(&format!("{begun}\n{done}\n")).unwrap().theirs.rest().is_empty());
    }

    #[test]
    fn a_half_written_last_line_is_left_out_and_any_other_is_an_error() {
        let good = line(Uuid::now_v7(), "succeeded", DAY);
        let torn = &good[..good.len() / 2];
        assert_eq!(read_text(&format!("{good}\n{torn}")).unwrap().theirs.len(), 1);
        let error = read_text(&format!("{good}\n{torn}\n{good}\n")).err().unwrap();
        assert!(error.to_string().starts_with("line 2 of "), "{error}");
        assert!(!error.to_string().contains("EUR"), "nothing of the line: {error}");
        assert_eq!(read_text("").unwrap().theirs.len(), 0);
        for other in ["code", "\u{feff}code,amount_minor", torn] {
            let error = read_text(other).err().unwrap().to_string();
            assert!(error.ends_with("is not a redemption"), "{error}");
        }
        assert!(read_text(&"x".repeat(MAX_LINE_BYTES + 1)).is_err());
    }
}
