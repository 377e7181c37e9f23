//! Reports: a table for people, JSON for programs, and plots.

mod attacks;
mod bloat;
mod costs;
mod docs;
mod plots;
mod svg;
mod table;
mod timeline;

use std::fs;

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    args::Args,
    figures::{
        attacks::{Attacked, One},
        bloat::Bloat,
        costs::Cost,
    },
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
    /// Of a figure that has several parts, the first part's. Null when it was not measured.
    value: Option<f64>,
    /// Of a figure that has several parts, those of all, in their order.
    goal: String,
    /// Of all parts; null when one of them was not measured.
    met: Option<bool>,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// Where there are several, each like a figure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Entry<'a>>,
}

/// What `details.json` has: all that was measured, and where.
#[derive(Serialize)]
struct Details<'a> {
    machine: &'a Machine,
    whole_run: bool,
    rounds: usize,
    seconds_a_run: u64,
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
    write_json(args, "summary.json", &summary(rows))?;
    let details = Details {
        machine,
        whole_run: args.is_whole(),
        rounds: args.rounds(),
        seconds_a_run: args.run_duration().as_secs(),
        figures: rows.iter().map(detailed).collect(),
    };
    write_json(args, "details.json", &details)?;
    let plots = plots::all(rows);
    for (name, svg) in &plots {
        fs::write(out.join(name), svg)?;
    }
    if let Some(folder) = &args.docs {
        if args.is_whole() {
            docs::renew(folder, "goals", &table::markdown(machine, rows), &plots)?;
        } else {
            progress(
                "the documentation shows runs of everything at full size: it was left as it is",
            );
        }
    }
    print(&table::markdown(machine, rows));
    Ok(())
}

/// Prints what cycles and redemptions take, and writes it.
pub(crate) fn costs(args: &Args, machine: &Machine, costs: &[Cost]) -> anyhow::Result<()> {
    write_json(args, "costs.json", &costs::Costs { machine, costs })?;
    print(&costs::markdown(machine, costs));
    Ok(())
}

/// How one attack went, in a line.
pub(crate) fn attack(one: &One, alone_p99_ms: f64) -> String {
    let failures = one.failures.iter().map(|why| format!("\n    {why}"));
    format!("{}{}", attacks::row(one, alone_p99_ms), failures.collect::<String>())
}

/// Prints how a well-behaved client fared beside attacks, and writes it; all of them also into the documentation.
pub(crate) fn attacks(args: &Args, machine: &Machine, attacked: &Attacked) -> anyhow::Result<()> {
    write_json(args, "attacks.json", &attacks::Report { machine, attacked })?;
    let table = attacks::markdown(machine, attacked);
    match &args.docs {
        Some(folder) if attacked.is_whole => docs::renew(folder, "attacks", &table, &[])?,
        Some(_) => {
            progress("the documentation shows all attacks at full size: it was left as it is")
        }
        None => {}
    }
    print(&table);
    Ok(())
}

/// Prints how an hour at half load went, and writes it; a whole hour also into the documentation.
pub(crate) fn bloat(args: &Args, bloat: &Bloat) -> anyhow::Result<()> {
    write_json(args, "bloat.json", bloat)?;
    let plot = bloat::plot(bloat);
    fs::write(args.out.join(bloat::PLOT), &plot)?;
    let table = bloat::markdown(bloat);
    match &args.docs {
        Some(folder) if args.is_whole_bloat() => {
            let with_plot = format!(
                "{table}\n\n![Sizes, dead rows and times over an hour at half load](performance/{})",
                bloat::PLOT
            );
            docs::renew(folder, "bloat", &with_plot, &[(bloat::PLOT, plot)])?;
        }
        Some(_) => progress("the documentation shows runs of an hour: it was left as it is"),
        None => {}
    }
    print(&table);
    Ok(())
}

fn write_json(args: &Args, name: &str, what: &impl Serialize) -> anyhow::Result<()> {
    let out = &args.out;
    fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    fs::write(out.join(name), serde_json::to_string_pretty(what)? + "\n")?;
    Ok(())
}

/// The figures, in the order of the table.
fn summary(rows: &[Row]) -> Vec<Entry<'_>> {
    rows.iter().map(entry).collect()
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::goals;

    #[test]
    fn the_summary_has_the_eleven_figures_in_their_order() {
        let mut rows = goals::rows();
        rows[goals::CYCLES].set(0, 3.5, Some((3.0, 4.0)));
        rows[goals::OVERLOAD].set(goals::part::GOODPUT, 0.95, None);
        rows[goals::OVERLOAD].set(goals::part::REFUSALS, 7.0, None);
        rows[goals::OVERLOAD].set(goals::part::RENEWALS, 0.0, None);
        let summary = serde_json::to_value(summary(&rows)).unwrap();
        let summary = summary.as_array().unwrap();
        assert_eq!(summary.len(), 11);
        let fields = |entry: &Value, names: [&str; 3]| names.map(|name| entry[name].clone());
        let first = fields(&summary[goals::CYCLES], ["value", "goal", "met"]);
        assert_eq!(first, [json!(3.5), json!("≥ 3"), json!(true)]);
        let unmeasured = fields(&summary[goals::ETCD], ["value", "met", "reason"]);
        assert_eq!(unmeasured, [Value::Null, Value::Null, json!(goals::NOT_ASKED_FOR)]);
        let overload = fields(&summary[goals::OVERLOAD], ["value", "goal", "met"]);
        assert_eq!(overload, [json!(0.95), json!("≥ 0.9; ≤ 5 ms; 0"), json!(false)]);
        let parts = summary[goals::OVERLOAD]["parts"].as_array().unwrap();
        let met: Vec<_> = parts.iter().map(|part| part["met"].clone()).collect();
        assert_eq!(met, [json!(true), json!(false), json!(true)]);
    }
}
