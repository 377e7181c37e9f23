//! The report of what cycles and redemptions take: as a table, and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::table::rounded;
use crate::{figures::costs::Cost, machine::Machine};

/// What `costs.json` has.
#[derive(Serialize)]
pub(super) struct Costs<'a> {
    pub(super) machine: &'a Machine,
    pub(super) costs: &'a [Cost],
}

/// The numbers, then the statements, of each kind of work.
pub(super) fn markdown(machine: &Machine, costs: &[Cost]) -> String {
    let mut text = String::new();
    for cost in costs {
        let (one, per_second) = (cost.one, rounded(cost.per_second));
        let _ = writeln!(text, "| of one {one}, at {per_second}/s | |\n|---|--:|");
        for (what, number, unit) in &cost.numbers {
            let _ =
                writeln!(text, "| {what} | {} |", format!("{} {unit}", rounded(*number)).trim());
        }
        let statements = cost.statements();
        if !statements.is_empty() {
            text.push_str(
                "\n| statement | calls | mean ms | rows a call | pages a call | WAL bytes a call |\n\
                 |---|--:|--:|--:|--:|--:|\n",
            );
        }
        for (what, cells) in statements {
            let cells = cells.map(rounded).join(" | ");
            let _ = writeln!(text, "| {what} | {cells} |");
        }
        text.push('\n');
        for missing in &cost.missing {
            let _ = writeln!(text, "- {missing}");
        }
    }
    let _ = write!(text, "- {machine}");
    text
}
