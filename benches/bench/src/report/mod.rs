//! What is told: a table for people, JSON for programs, and plots.

mod docs;
mod plots;
mod svg;
mod table;

use std::fs;

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    args::Args,
    goals::{Measured, Row},
    machine::Machine,
};

/// Says on standard error what is being done.
#[allow(clippy::print_stderr, reason = "progress is not the result")]
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

#[allow(clippy::print_stdout, reason = "the table is what it is for")]
fn print(text: &str) {
    println!("{text}");
}

/// A figure of `summary.json`.
#[derive(Serialize)]
struct Entry<'a> {
    figure: &'a str,
    /// Of a figure that has several parts, the first part's.
    value: Option<f64>,
    goal: String,
    /// Of all parts; null when one of them was not measured.
    met: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Entry<'a>>,
}

/// What `details.json` has: all that was measured, and where.
#[derive(Serialize)]
struct Details<'a> {
    machine: &'a Machine,
    whole_run: bool,
    rounds: usize,
    seconds_a_turn: u64,
    figures: Vec<DetailedRow<'a>>,
}

#[derive(Serialize)]
struct DetailedRow<'a> {
    figure: &'a str,
    measured: &'a [Measured],
    notes: &'a [String],
}

/// Prints the table, and writes what there is to write.
pub(crate) fn write(args: &Args, machine: &Machine, rows: &[Row]) -> anyhow::Result<()> {
    let out = &args.out;
    fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    let summary: Vec<_> = rows.iter().map(entry).collect();
    fs::write(out.join("summary.json"), serde_json::to_string_pretty(&summary)? + "\n")?;
    let details = Details {
        machine,
        whole_run: args.is_whole(),
        rounds: args.rounds(),
        seconds_a_turn: args.turn().as_secs(),
        figures: rows.iter().map(detailed).collect(),
    };
    fs::write(out.join("details.json"), serde_json::to_string_pretty(&details)? + "\n")?;
    let plots = plots::all(rows);
    for (name, svg) in &plots {
        fs::write(out.join(name), svg)?;
    }
    if let Some(folder) = &args.docs {
        if args.is_whole() {
            docs::renew(folder, &table::markdown(machine, rows), &plots)?;
        } else {
            progress(
                "the documentation shows runs of everything at full size: it was left as it is",
            );
        }
    }
    print(&table::markdown(machine, rows));
    Ok(())
}

fn entry(row: &Row) -> Entry<'_> {
    let mut parts: Vec<_> = row
        .parts
        .iter()
        .map(|part| Entry {
            figure: part.figure,
            value: part.value.as_ref().ok().copied().filter(|value| value.is_finite()),
            goal: part.goal.text(),
            met: part.met(),
            reason: part.value.as_ref().err().map(String::as_str),
            parts: Vec::new(),
        })
        .collect();
    if parts.len() == 1 {
        return parts.remove(0);
    }
    Entry {
        figure: row.figure,
        value: parts[0].value,
        goal: parts.iter().map(|part| part.goal.as_str()).collect::<Vec<_>>().join("; "),
        met: row.met(),
        reason: parts.iter().find_map(|part| part.reason),
        parts,
    }
}

fn detailed(row: &Row) -> DetailedRow<'_> {
    DetailedRow { figure: row.figure, measured: &row.measured, notes: &row.notes }
}
