//! What the schema consists of, by `schema.sql`: so that a server can say what a database lacks of it.

/// The schema as the migrations leave it. A test compares the two.
const SCHEMA: &str = include_str!("../../../schema.sql");

/// A part of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// `table`, `column`, `index`, `trigger`, `function` or `type`.
    pub(super) kind: &'static str,
    /// The table that it belongs to; empty where it belongs to none.
    pub(super) table: String,
    pub(super) name: String,
}

/// All parts of the schema.
pub(super) fn objects() -> Vec<Object> {
    let mut objects = Vec::new();
    let mut table = String::new();
    for line in SCHEMA.lines() {
        let mut add = |kind, table: &str, name: &str| {
            let name = name.trim_matches('"').to_owned();
            objects.push(Object { kind, table: table.to_owned(), name });
        };
        let words: Vec<_> = line.split([' ', '(']).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            ["CREATE", "TABLE", name, ..] => {
                table = (*name).to_owned();
                add("table", "", name);
            }
            ["CREATE", "TYPE", name, ..] => add("type", "", name),
            ["CREATE", "FUNCTION", name, ..] => add("function", "", name),
            ["CREATE", "INDEX", name, "ON", of, ..]
            | ["CREATE", "UNIQUE", "INDEX", name, "ON", of, ..] => add("index", of, name),
            ["CREATE", "TRIGGER", name, ..] => {
                let of = words.iter().skip_while(|word| **word != "ON").nth(1);
                add("trigger", of.unwrap_or(&""), name);
            }
            // The end of a table.
            [end, ..] if end.starts_with(')') => table.clear(),
            [name, ..]
                if !table.is_empty() && line.starts_with("    ") && *name != "CONSTRAINT" =>
            {
                add("column", &table, name);
            }
            _ => {}
        }
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_schema_are_read_from_its_file() {
        let objects = objects();
        let has = |kind, table: &str, name: &str| {
            let of = Object { kind, table: table.to_owned(), name: name.to_owned() };
            assert!(objects.contains(&of), "{of:?}");
        };
        has("table", "", "accounts");
        has("column", "accounts", "balance_minor");
        has("column", "pools", "hold_login_invalid");
        has("index", "redemptions", "redemptions_living_code");
        has("trigger", "accounts", "account_changed_by_hand");
        has("trigger", "tokens", "tokens_changed");
        has("function", "", "code_is_free");
        has("type", "", "account_change");
        assert!(!objects.iter().any(|it| it.name == "CONSTRAINT" || it.name.contains([',', ')'])));
        let tables = objects.iter().filter(|it| it.kind == "table").count();
        assert_eq!(tables, super::super::rights::RIGHTS.len());
    }
}
