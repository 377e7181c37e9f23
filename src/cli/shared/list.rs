//! Lists, printed page by page.

use serde_json::Value;
use tonic::Status;

use super::{
    client::every_page,
    output::{FormatArgs, Rows, Sink},
};

/// Prints every row of a list to standard output: `fetch` gets a page's token and answers with its rows and the next
/// page's token, `row` makes the values of these columns.
pub(in crate::cli) async fn print_list<T>(
    format: FormatArgs,
    columns: &'static [&'static str],
    fetch: impl AsyncFnMut(String) -> Result<(Vec<T>, String), Status>,
    row: impl Fn(&T) -> Vec<Value>,
) -> anyhow::Result<()> {
    let mut rows = Rows::new(format.for_stdout(), columns, Sink::stdout());
    every_page(fetch, |item| rows.push(&row(&item))).await?;
    rows.finish()?;
    Ok(())
}
