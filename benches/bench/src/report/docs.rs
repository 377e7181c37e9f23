//! The documentation's page: its table between two marks, and its plots. The rest of it is written by people.

use std::{fs, path::Path};

use anyhow::Context as _;

const BEGIN: &str = "<!-- written by make bench -->";
const END: &str = "<!-- end of what make bench writes -->";

/// Writes the table into `performance.md` of a folder, and the plots into a folder beside it.
pub(super) fn renew(
    folder: &Path,
    table: &str,
    plots: &[(&'static str, String)],
) -> anyhow::Result<()> {
    let page = folder.join("performance.md");
    let text =
        fs::read_to_string(&page).with_context(|| format!("{} cannot be read", page.display()))?;
    let renewed = replaced(&text, table)
        .with_context(|| format!("{} has no marks for the table", page.display()))?;
    fs::write(&page, renewed)?;
    let folder = folder.join("performance");
    fs::create_dir_all(&folder)?;
    for (name, svg) in plots {
        fs::write(folder.join(name), svg)?;
    }
    Ok(())
}

/// A text with something else between the marks.
fn replaced(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{table}\n\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_stays() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nz\n");
        let renewed = replaced(&text, "new").unwrap();
        assert_eq!(renewed, format!("a\n{BEGIN}\n\nnew\n\n{END}\nz\n"));
        assert_eq!(replaced("no marks", "new"), None);
    }
}
