//! The table, as text that is also Markdown.

use std::fmt::Write as _;

use crate::{
    goals::{Measured, Row},
    machine::Machine,
};

/// The figures with their goals, then all that was measured for them, and the machine.
pub(crate) fn markdown(machine: &Machine, rows: &[Row]) -> String {
    let mut text =
        String::from("| figure | goal | reached | rounds | met |\n|---|--:|--:|--:|:-:|\n");
    for part in rows.iter().flat_map(|row| &row.parts) {
        let reached = match &part.value {
            Ok(value) => rounded(*value),
            Err(reason) => format!("– ({})", first_line(reason)),
        };
        let spread =
            part.spread.map(|(least, most)| format!("{} – {}", rounded(least), rounded(most)));
        let met = match part.met() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "–",
        };
        let (figure, goal) = (part.figure, part.goal.text());
        let spread = spread.unwrap_or_default();
        let _ = writeln!(text, "| {figure} | {goal} | {reached} | {spread} | {met} |");
    }
    text.push_str("\n| measured | median | rounds |\n|---|--:|--:|\n");
    let mut told = Vec::new();
    for line in rows.iter().flat_map(|row| &row.measured).map(measured_line) {
        // What several figures share is told once.
        if !told.contains(&line) {
            let _ = writeln!(text, "{line}");
            told.push(line);
        }
    }
    let notes = rows.iter().flat_map(|row| &row.notes);
    text.push('\n');
    for note in notes {
        let _ = writeln!(text, "- {note}");
    }
    let _ = write!(text, "- {machine}");
    text
}

fn measured_line(measured: &Measured) -> String {
    let Measured { what, unit, median, least, most, .. } = measured;
    let (median, least, most) = (rounded(*median), rounded(*least), rounded(*most));
    format!("| {what} | {median} {unit} | {least} – {most} |")
}

/// To about three digits, which is more than any of it means.
pub(super) fn rounded(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 && value.abs() < 1e6 => format!("{value}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_about_three_digits() {
        let rounded: Vec<_> =
            [7412.6, 22.26, 3.125, 0.0421, 0.0].into_iter().map(rounded).collect();
        assert_eq!(rounded, ["7413", "22.3", "3.12", "0.042", "0"]);
    }
}
