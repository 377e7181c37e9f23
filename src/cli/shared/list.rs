//! Lists, printed page by page, with the columns that are wanted.

use clap::Args;
use serde_json::Value;
use tonic::Status;

use super::{
    client::every_page,
    output::{Format, FormatArgs, Rows, Sink, Space},
};

/// The flags of every command that prints a list.
#[derive(Args, Clone, Debug, Default)]
pub(in crate::cli) struct ListOptions {
    #[command(flatten)]
    format: FormatArgs,
    /// Only these columns, in this order, with commas between them. A wrong name is answered with those that there are.
    #[arg(long, value_delimiter = ',', value_name = "COLUMN,COLUMN")]
    columns: Vec<String>,
    /// In a table, every column that has something in it, also where the table is wider than the terminal.
    #[arg(long, conflicts_with = "columns")]
    wide: bool,
}

impl ListOptions {
    /// Rows for standard output: each is given with a value for all of these columns, and has those that are wanted. Where
    /// nothing is wanted, a table has the columns that tell most at a glance.
    ///
    /// # Errors
    /// When there is no column of a name that is wanted, or it is wanted twice.
    pub(in crate::cli) fn rows(
        &self,
        all: &'static [&'static str],
        at_a_glance: &'static [&'static str],
        sink: Sink,
    ) -> anyhow::Result<Rows> {
        self.rows_as(self.format.for_stdout(), all, at_a_glance, sink)
    }

    /// The same for rows that go on coming, which are no table.
    pub(in crate::cli) fn endless_rows(
        &self,
        all: &'static [&'static str],
    ) -> anyhow::Result<Rows> {
        self.rows_as(self.format.for_endless_stdout()?, all, all, Sink::stdout())
    }

    fn rows_as(
        &self,
        format: Format,
        all: &'static [&'static str],
        at_a_glance: &'static [&'static str],
        sink: Sink,
    ) -> anyhow::Result<Rows> {
        let (columns, space) = if !self.columns.is_empty() {
            (chosen(&self.columns, all)?, Space::Broken)
        } else if format == Format::Table && !self.wide {
            (at_a_glance.to_vec(), Space::LeftOut)
        } else {
            (all.to_vec(), Space::Wide)
        };
        Ok(Rows::choosing(format, all, columns, space, sink))
    }
}

/// The columns of these names.
fn chosen(names: &[String], all: &[&'static str]) -> anyhow::Result<Vec<&'static str>> {
    let mut columns = Vec::new();
    for name in names {
        let name = name.trim();
        let Some(column) = all.iter().find(|column| **column == name) else {
            anyhow::bail!("there is no column {name:?}. The columns are: {}", all.join(", "));
        };
        anyhow::ensure!(!columns.contains(column), "the column {name} is named twice in --columns");
        columns.push(*column);
    }
    Ok(columns)
}

/// Prints every row of a list to standard output: `fetch` gets a page's token and answers with its rows and the next
/// page's token, `row` makes the values of all columns.
pub(in crate::cli) async fn print_list<T>(
    mut rows: Rows,
    fetch: impl AsyncFnMut(String) -> Result<(Vec<T>, String), Status>,
    row: impl Fn(&T) -> Vec<Value>,
) -> anyhow::Result<()> {
    every_page(fetch, |item| rows.push(&row(&item))).await?;
    rows.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_in_the_order_in_which_they_are_named_and_a_wrong_name_is_answered_with_all() {
        let names = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let all = ["pool_id", "paused", "create_time"];
        assert_eq!(chosen(&names("paused,pool_id"), &all).unwrap(), ["paused", "pool_id"]);
        let error = chosen(&names("pool_id,pause"), &all).unwrap_err().to_string();
        assert!(
            error.contains("\"pause\"") && error.contains("pool_id, paused, create_time"),
            "{error}"
        );
        assert!(chosen(&names("paused,paused"), &all).unwrap_err().to_string().contains("twice"));
    }
}
