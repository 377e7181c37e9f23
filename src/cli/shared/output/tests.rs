use std::sync::{Arc, Mutex};

use serde_json::json;

use super::*;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn written(format: Format, rows: &[Vec<Value>]) -> String {
    written_in(None, format, &["name", "labels"], rows)
}

fn written_in(
    width: Option<u16>,
    format: Format,
    columns: &'static [&'static str],
    rows: &[Vec<Value>],
) -> String {
    let memory = Memory::default();
    let sink = Sink { width, ..Sink::over(memory.clone()) };
    let mut out = Rows::new(format, columns, sink);
    for row in rows {
        out.push(row).unwrap();
    }
    out.finish().unwrap();
    let bytes = memory.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn json_is_one_array_with_an_object_a_line() {
    let text =
        written(Format::Json, &[vec![json!("a"), json!({"k": "v"})], vec![json!(1), json!(null)]]);
    let read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read, json!([{"name": "a", "labels": {"k": "v"}}, {"name": 1, "labels": null}]));
    assert_eq!(serde_json::from_str::<Value>(&written(Format::Json, &[])).unwrap(), json!([]));
}

#[test]
fn a_command_that_is_refused_leaves_its_output_empty() {
    let memory = Memory::default();
    let sink = Sink::over(memory.clone());
    drop(Rows::new(Format::Json, &["name"], sink));
    assert!(memory.0.lock().unwrap().is_empty());
}

#[test]
fn csv_quotes_what_needs_it_and_leaves_null_empty() {
    let text = written(Format::Csv, &[vec![json!("a,\"b"), json!(null)]]);
    assert_eq!(text, "name,labels\n\"a,\"\"b\",\n");
    assert!(
        written(Format::Csv, &[vec![json!("x"), json!({"k": "v", "l": "w"})]]).contains("k=v;l=w")
    );
    assert!(written(Format::Csv, &[vec![json!("x"), json!([1, 2])]]).ends_with("\nx,\"1,2\"\n"));
}

#[test]
fn a_table_cannot_be_used_to_write_to_the_terminal() {
    assert!(!written(Format::Table, &[vec![json!("a\u{1b}[2J"), json!(null)]]).contains('\u{1b}'));
}

#[test]
fn on_a_terminal_long_texts_are_broken_and_names_are_not() {
    let (id, message) =
        ("01890a5d-ac96-774b-bcce-b302099a8057", "the provider answered ".repeat(9));
    let rows = [vec![json!(id), json!(message)]];
    let columns = &["redemption_id", "last_answer"];
    let longest = |width| {
        let text = written_in(width, Format::Table, columns, &rows);
        assert!(text.contains(id), "{text}");
        text.lines().map(|line| line.chars().count()).max().unwrap()
    };
    assert!(longest(None) > 200 && longest(Some(80)) <= 80);
    assert!(longest(Some(30)) > 30, "what cannot be read is no better for fitting");
    let piped = written_in(Some(80), Format::Csv, columns, &rows);
    assert!(piped.contains(&message), "{piped}");
}

#[test]
fn on_a_terminal_a_column_without_anything_is_left_out() {
    let rows = [vec![json!("a"), json!(null)]];
    let shown = |width, rows: &[Vec<Value>]| {
        let text = written_in(width, Format::Table, &["name", "reason"], rows);
        (text.contains("name"), text.contains("reason"))
    };
    assert_eq!(shown(Some(80), &rows), (true, false));
    assert_eq!(shown(Some(80), &[]), (true, true));
    assert_eq!(shown(None, &rows), (true, true));
}

#[test]
fn an_output_that_fails_after_a_change_says_that_the_change_was_made() {
    let full = || anyhow::anyhow!("no space").context("the output cannot be written");
    let told = after_change(Err(full())).unwrap_err().to_string();
    assert_eq!(told, "the change was made, but the output cannot be written: no space");
    let told = after_change(Err(Closed.into())).unwrap_err().to_string();
    assert!(told.starts_with("the change was made, but the output was closed"), "{told}");
    assert!(after_change(Ok(())).is_ok());
}

#[test]
fn a_closed_output_is_an_error_of_its_own() {
    let error = Sink::over(Broken).line("x").unwrap_err();
    assert!(error.is::<Closed>());
}
