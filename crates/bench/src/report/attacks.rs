//! The report of attacks: as a table, and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::table::rounded;
use crate::{
    figures::attacks::{Attacked, MEMORY, One, SERVED, TIMES_ALONE},
    machine::Machine,
};

/// What `attacks.json` has.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    pub(super) machine: &'a Machine,
    pub(super) attacked: &'a Attacked,
}

/// A row for each attack, then what failed.
pub(super) fn markdown(machine: &Machine, attacked: &Attacked) -> String {
    let mut text = format!(
        "| beside | served, % | p50, ms | p99, ms | p99 ÷ alone | MB before | at most | after | back after, s \
         | done | server, % of a core | attacker, % | met |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|:-:|\n\
         | goal | {} | | | {} | | {} | | ≤ 60 | | | | |\n| nothing | 100 | {} | {} | 1 | | | | | | | | |\n",
        SERVED.text(),
        TIMES_ALONE.text(),
        MEMORY.text(),
        rounded(attacked.alone_p50_ms),
        rounded(attacked.alone_p99_ms),
    );
    for one in &attacked.attacks {
        let _ = writeln!(text, "{}", row(one, attacked.alone_p99_ms));
    }
    text.push('\n');
    for one in attacked.attacks.iter().filter(|one| !one.failures.is_empty()) {
        let _ = writeln!(text, "- {}: {}", one.attack.text(), one.failures.join("; "));
    }
    let _ = write!(
        text,
        "- each attack lasted {} s; the pool that was explained had {} accounts\n- {machine}",
        attacked.seconds, attacked.accounts
    );
    text
}

/// One row.
pub(super) fn row(one: &One, alone_p99_ms: f64) -> String {
    let numbers = [
        one.served_percent,
        one.p50_ms,
        one.p99_ms,
        one.p99_ms / alone_p99_ms,
        one.before_mb,
        one.most_mb,
        one.after_mb,
    ];
    let back = one.back_after_s.map_or_else(|| "–".to_owned(), rounded);
    let met = if one.met(alone_p99_ms) { "yes" } else { "no" };
    format!(
        "| {} | {} | {back} | {} {} | {} | {} | {met} |",
        one.attack.text(),
        numbers.map(rounded).join(" | "),
        one.done,
        one.attack.unit(),
        rounded(one.server_cpu_percent),
        rounded(one.attacker_cpu_percent),
    )
}
