//! The documentation's page: its table between two marks, and its plots. The rest of it is written by people.

use std::{fs, path::Path};

use anyhow::Context as _;

/// Writes a table into its section of `performance.md` of a folder, and the plots into a folder beside it.
pub(super) fn renew(
    folder: &Path,
    section: &str,
    table: &str,
    plots: &[(&'static str, String)],
) -> anyhow::Result<()> {
    let page = folder.join("performance.md");
    let text =
        fs::read_to_string(&page).with_context(|| format!("{} cannot be read", page.display()))?;
    let renewed = replaced(&text, section, table)
        .with_context(|| format!("{} has no marks for the table {section}", page.display()))?;
    fs::write(&page, renewed)?;
    let folder = folder.join("performance");
    fs::create_dir_all(&folder)?;
    for (name, svg) in plots {
        fs::write(folder.join(name), svg)?;
    }
    Ok(())
}

/// A text with another table between the marks of a section.
fn replaced(text: &str, section: &str, table: &str) -> Option<String> {
    let begin = format!("<!-- {section}: written by make bench -->");
    let end = format!("<!-- {section}: end of what make bench writes -->");
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n\n{table}\n\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_stays() {
        let marks = |inside: &str| {
            format!(
                "a\n<!-- it: written by make bench -->\n{inside}\n<!-- it: end of what make bench writes -->\nz\n"
            )
        };
        let renewed = replaced(&marks("old"), "it", "new").unwrap();
        assert_eq!(renewed, marks("\nnew\n"));
        assert_eq!(replaced(&renewed, "another", "new"), None);
    }
}
