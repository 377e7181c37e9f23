//! Tables on a terminal: what goes into its width.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};

use super::Space;

/// What people and providers wrote, and so may be long. In a table on a terminal it is broken into
/// lines; everything else stays whole, so that it can be copied.
const PROSE: [&str; 12] = [
    "message",
    "last_answer",
    "resolution",
    "evidence",
    "labels",
    "days",
    "denominations",
    "holds",
    "why",
    // Of `doctor` and `config show`.
    "found",
    "next",
    "value",
];
/// The least width of such a column: in less nobody can read.
const MIN_PROSE: u16 = 20;
/// What a column takes beside what is in it: a space at each side, and a line.
const BESIDE: u16 = 3;

/// Makes a table fit a terminal, as far as it can.
pub(super) fn fit(table: &mut Table, width: u16) {
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
}

/// Leaves out the columns that have nothing in them, unless none has, or somebody named them, and shares out the width
/// among the others. Answers with the names of those that do not fit, and are left out too.
pub(super) fn arrange(
    table: &mut Table,
    columns: &[&'static str],
    filled: &[bool],
    width: u16,
    space: Space,
) -> Vec<&'static str> {
    if space != Space::Wide {
        fit(table, width);
    }
    let is_empty = !filled.contains(&true);
    let mut left_out = Vec::new();
    let mut left = width.saturating_sub(1);
    let needed = table.column_max_content_widths();
    for (index, column) in table.column_iter_mut().enumerate() {
        let name = columns.get(index).copied().unwrap_or_default();
        let (is_prose, needs) = (PROSE.contains(&name), needed.get(index).copied().unwrap_or(0));
        let has_something = is_empty || filled.get(index) == Some(&true) || space == Space::Broken;
        let takes = BESIDE + if is_prose { needs.min(MIN_PROSE) } else { needs };
        let fits = takes <= left || index == 0 || space != Space::LeftOut;
        if has_something && fits {
            left = left.saturating_sub(takes);
        } else if has_something {
            left_out.push(name);
        }
        let constraint = match (has_something && fits, space, is_prose) {
            (false, ..) => ColumnConstraint::Hidden,
            (true, Space::Broken, _) => continue,
            (true, _, true) => ColumnConstraint::LowerBoundary(Width::Fixed(needs.min(MIN_PROSE))),
            (true, _, false) => ColumnConstraint::ContentWidth,
        };
        column.set_constraint(constraint);
    }
    left_out
}
