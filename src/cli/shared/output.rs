//! The output of commands: results on stdout or in a file, everything else on stderr. Nothing
//! else of the program writes to either, besides its log.

mod closed;
mod file;
mod space;

use std::{
    fmt,
    fs::File,
    io::{self, IsTerminal as _, Write},
    os::fd::OwnedFd,
};

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use serde_json::Value;

pub(crate) use self::file::{Draft, Target, check_stdout};

/// Nobody reads the output any more (`holdfast … | head`): the command ends.
#[derive(Debug, thiserror::Error)]
#[error("the output was closed before all of it was written")]
pub(crate) struct Closed;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people. Printed when all rows are there.
    Table,
    /// A header and a line for each row, as they come.
    Csv,
    /// An array of objects, one a line, as they come.
    Json,
}

/// The flag of every command that prints results.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct FormatArgs {
    /// How results are written. A table on a terminal, otherwise CSV, when not given.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

impl FormatArgs {
    /// The format for stdout.
    pub(crate) fn for_stdout(self) -> Format {
        let usual = if io::stdout().is_terminal() { Format::Table } else { Format::Csv };
        self.format.unwrap_or(usual)
    }

    /// The format for rows on stdout that go on coming: a table is printed when all are there.
    pub(crate) fn for_endless_stdout(self) -> anyhow::Result<Format> {
        match self.format {
            Some(Format::Table) => {
                anyhow::bail!(
                    "a table is printed when all rows are there: use --format csv or json"
                )
            }
            format => Ok(format.unwrap_or(Format::Csv)),
        }
    }

    /// The format for a file.
    pub(crate) fn for_file(self) -> Format {
        self.format.unwrap_or(Format::Csv)
    }
}

/// Where results go.
pub(crate) struct Sink {
    out: Box<dyn Write + Send>,
    /// How many characters a line of the terminal has, when it is one.
    width: Option<u16>,
    /// The pipe that it is, or whatever else; to see it closed.
    watched: Option<OwnedFd>,
}

impl Sink {
    /// Standard output, line by line.
    pub(crate) fn stdout() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let size = is_terminal.then(|| rustix::termios::tcgetwinsize(io::stdout()).ok()).flatten();
        // One that does not know says 0.
        let width = size.map(|size| size.ws_col).filter(|width| *width > 0);
        Self { out: Box::new(io::stdout()), width, watched: closed::stdout() }
    }

    /// A device or a pipe that was named.
    fn direct(file: File) -> Self {
        let watched = closed::of(&file);
        Self { out: Box::new(file), width: None, watched }
    }

    /// Anything else.
    pub(crate) fn over(out: impl Write + Send + 'static) -> Self {
        Self { out: Box::new(out), width: None, watched: None }
    }

    /// Waits until nobody reads it any more: never, unless it is a pipe.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + use<> {
        closed::closed(self.watched.as_ref().and_then(|pipe| pipe.try_clone().ok()))
    }

    /// Writes a line, in one piece.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> anyhow::Result<()> {
        let line = format!("{text}\n");
        self.done(|out| out.write_all(line.as_bytes()))
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: &str) -> anyhow::Result<()> {
        self.done(|out| out.write_all(text.as_bytes()))
    }

    /// Writes what is buffered.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.done(|out| out.flush())
    }

    fn done(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
        write(&mut *self.out).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Closed.into(),
            _ => anyhow::Error::new(error).context("the output cannot be written"),
        })
    }
}

/// What printing the outcome of a change gave. When it could not be printed, the error says that the
/// change was made: nobody should make it again, or believe that it was not.
pub(crate) fn after_change(printed: anyhow::Result<()>) -> anyhow::Result<()> {
    printed.map_err(|error| anyhow::anyhow!("the change was made, but {error:#}"))
}

/// Runs what prints to standard output, until nobody reads that any more.
pub(crate) async fn while_read<T>(
    print: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        done = print => done,
        () = closed::closed(closed::stdout()) => Err(Closed.into()),
    }
}

/// What becomes of a table's columns for which a terminal has no space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Long texts are broken into lines; names stay whole, and the table may be wider.
    Whole,
    /// Everything is broken into lines where it has to be: the columns are those that somebody named.
    Broken,
    /// Those that do not fit are left out, and named after the table.
    LeftOut,
    /// The table is as wide as it is.
    Wide,
}

/// Rows under a header, in any [`Format`]. Only a table is held in memory. Nothing is written before
/// the first row or the end, so that a command which is refused leaves its output empty.
pub(crate) struct Rows {
    sink: Sink,
    format: Format,
    columns: Vec<&'static str>,
    /// Which values of a row these columns have.
    picked: Vec<usize>,
    space: Space,
    table: Table,
    /// Which columns of the table have something in them.
    filled: Vec<bool>,
    begun: bool,
}

impl Rows {
    /// Rows of these columns; none is printed yet.
    pub(crate) fn new(format: Format, columns: &'static [&'static str], sink: Sink) -> Self {
        Self::choosing(format, columns, columns.to_vec(), Space::Whole, sink)
    }

    /// Some columns of rows that have all of `of`.
    pub(crate) fn choosing(
        format: Format,
        of: &[&str],
        columns: Vec<&'static str>,
        space: Space,
        sink: Sink,
    ) -> Self {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(columns.iter());
        let index = |column: &&str| of.iter().position(|name| name == column);
        let picked: Vec<usize> = columns.iter().filter_map(index).collect();
        let filled = vec![false; columns.len()];
        Self { sink, format, columns, picked, space, table, filled, begun: false }
    }

    /// Adds a row: a value for each column that there is, in their order.
    pub(crate) fn push(&mut self, row: &[Value]) -> anyhow::Result<()> {
        let row: Vec<Value> = self.picked.iter().filter_map(|at| row.get(*at).cloned()).collect();
        let row = row.as_slice();
        let first = self.begin()?;
        match self.format {
            Format::Table => {
                for (filled, value) in self.filled.iter_mut().zip(row) {
                    *filled |= !text(value).is_empty();
                }
                self.table.add_row(row.iter().map(|value| printable(&text(value))));
                Ok(())
            }
            Format::Csv => {
                let fields: Vec<String> = row.iter().map(csv_text).collect();
                self.sink.line(csv_line(fields.iter().map(String::as_str))?)
            }
            Format::Json => {
                let comma = if first { "" } else { "," };
                self.sink.line(format_args!("{comma}{}", object(&self.columns, row)))
            }
        }
    }

    /// Waits until nobody reads the rows any more: never, unless they go to a pipe.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + use<> {
        self.sink.closed()
    }

    /// Writes what comes before the first row. Answers whether it was not written before.
    fn begin(&mut self) -> anyhow::Result<bool> {
        let first = !std::mem::replace(&mut self.begun, true);
        match self.format {
            Format::Csv if first => self.sink.line(csv_line(self.columns.iter().copied())?)?,
            Format::Json if first => self.sink.line("[")?,
            _ => {}
        }
        Ok(first)
    }

    /// Ends the rows, and gives the sink back for what comes after them.
    pub(crate) fn finish(mut self) -> anyhow::Result<Sink> {
        self.begin()?;
        match self.format {
            Format::Table => {
                let left_out = match self.sink.width {
                    Some(width) => space::arrange(
                        &mut self.table,
                        &self.columns,
                        &self.filled,
                        width,
                        self.space,
                    ),
                    None => Vec::new(),
                };
                self.sink.line(&self.table)?;
                if !left_out.is_empty() {
                    note(format_args!(
                        "left out, for the width of the terminal: {} (--wide shows all, --columns chooses)",
                        left_out.join(", ")
                    ));
                }
            }
            Format::Csv => {}
            Format::Json => self.sink.line("]")?,
        }
        self.sink.flush()?;
        Ok(self.sink)
    }
}

/// Writes one thing: in a table a line for each of its fields, in JSON an object.
pub(crate) fn record(
    format: Format,
    columns: &'static [&'static str],
    row: &[Value],
    mut sink: Sink,
) -> anyhow::Result<Sink> {
    match format {
        Format::Table => {
            let mut table = Table::new();
            table.load_style(presets::UTF8_FULL_CONDENSED);
            for (column, value) in columns.iter().zip(row) {
                table.add_row([(*column).to_owned(), printable(&text(value))]);
            }
            if let Some(width) = sink.width {
                space::fit(&mut table, width);
            }
            sink.line(table)?;
        }
        Format::Csv => {
            let mut rows = Rows::new(format, columns, sink);
            rows.push(row)?;
            return rows.finish();
        }
        Format::Json => sink.line(object(columns, row))?,
    }
    sink.flush()?;
    Ok(sink)
}

/// A JSON object whose keys keep the order of the columns.
pub(crate) fn object(columns: &[&str], row: &[Value]) -> String {
    let fields: Vec<String> = columns
        .iter()
        .zip(row)
        .map(|(column, value)| format!("{}:{value}", Value::from(*column)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// A value outside JSON: nothing for null, `k=v;k=v` for an object, `a,b` for an array.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}={}", text(v))).collect();
            pairs.join(";")
        }
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A value in CSV. Numbers stay as they are.
fn csv_text(value: &Value) -> String {
    let text = text(value);
    if matches!(value, Value::Number(_)) { text } else { defused(text) }
}

/// Text as it is exported: with an apostrophe before what a spreadsheet would run as a formula. Text that has one there by
/// itself gets another, so that our files of accounts and cards are read back as they were (`csv_files`).
pub(in crate::cli) fn defused(text: String) -> String {
    let formula = ['=', '+', '-', '@', '\t', '\r'];
    if text.trim_start_matches('\'').starts_with(formula) { format!("'{text}") } else { text }
}

/// Text for a terminal: what others wrote (a provider's message) must not move the cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The same of text that has lines.
pub(crate) fn printable_lines(text: &str) -> String {
    let is_fine = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.replace("\r\n", "\n").chars().map(|c| if is_fine(c) { c } else { '\u{fffd}' }).collect()
}

fn csv_line<'a>(fields: impl Iterator<Item = &'a str>) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    writer.write_record(fields)?;
    let line = String::from_utf8(writer.into_inner()?)?;
    Ok(line.trim_end_matches('\n').to_owned())
}

/// Tells the person at the terminal something that is no result. That nobody reads it is no error.
pub(crate) fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Asks on the terminal. `None`: there is none.
pub(crate) fn confirm(question: &str) -> Option<bool> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return None;
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question} [y/N] ").and_then(|()| io::stderr().flush());
    let is_read = asked.is_ok() && io::stdin().read_line(&mut answer).is_ok();
    Some(is_read && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Prints an error once, with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    note(format_args!("error: {error}"));
    let mut printed = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Libraries often repeat their cause's text in their own.
        if !printed.contains(&cause) {
            note(format_args!("  caused by: {cause}"));
            printed = cause;
        }
    }
}

#[cfg(test)]
mod tests;
