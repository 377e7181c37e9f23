//! What is printed for somebody else to run, with more rights: migrations, and the rights of a role that serves.

use std::fmt::Write as _;

use sqlx::migrate::Migration;

use super::rights::RIGHTS;
use crate::domain::database::{SETTINGS, SqlName};

/// What a role needs beside what serving always does: the first server to start keeps the check value of the secret
/// key, and a person's change by hand raises what servers follow.
const BESIDE: [(&str, &str); 3] =
    [("installation", "INSERT"), ("secret_keys", "INSERT"), ("account_changes", "UPDATE")];

/// The order in which rights are told.
const ORDER: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

/// A name as an identifier of SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// The SQL that applies migrations, as one transaction, and notes them as this program does.
pub(super) fn of(
    missing: &[&Migration],
    notes: &str,
    schema: Option<&str>,
    makes_schema: bool,
) -> String {
    let mut sql = String::from(
        "-- The migrations of Holdfast that are missing. Run it as the role that owns the tables, or will.\n\
         BEGIN;\nSET LOCAL statement_timeout = 0;\nSET LOCAL lock_timeout = '60s';\n",
    );
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _ = writeln!(sql, "{line}");
    };
    if let Some(schema) = schema {
        if makes_schema {
            line(format_args!("CREATE SCHEMA IF NOT EXISTS {schema};"));
        }
        line(format_args!("SET LOCAL search_path = {schema};"));
    }
    line(format_args!(
        "CREATE TABLE IF NOT EXISTS {notes} (\n    version bigint PRIMARY KEY,\n    description text NOT NULL,\n    \
         installed_on timestamptz NOT NULL DEFAULT now(),\n    success boolean NOT NULL,\n    checksum bytea NOT \
         NULL,\n    execution_time bigint NOT NULL\n);"
    ));
    for it in missing {
        let checksum: String = it.checksum.iter().map(|byte| format!("{byte:02x}")).collect();
        let (version, description) = (it.version, text(&it.description));
        line(format_args!("\n-- Migration {version}: {}\n", it.description));
        line(format_args!("{}\n", it.sql.as_str().trim_end()));
        line(format_args!(
            "INSERT INTO {notes} (version, description, success, checksum, execution_time)\n\
             VALUES ({version}, {description}, true, '\\x{checksum}', -1);"
        ));
    }
    line(format_args!("\nCOMMIT;"));
    sql
}

/// The SQL that gives a role what serving needs, and no more. `notes`: where it is noted which migrations were applied.
pub fn grants(
    role: &SqlName,
    schema: Option<&SqlName>,
    notes: &str,
    behind_a_pooler: bool,
) -> String {
    let to = role.quoted();
    let mut lines = Vec::new();
    let within = schema.map(|schema| format!("{}.", schema.quoted())).unwrap_or_default();
    if let Some(schema) = schema {
        lines.push(format!("GRANT USAGE ON SCHEMA {} TO {to};", schema.quoted()));
    }
    lines.push(format!("GRANT SELECT ON {within}{notes} TO {to};"));
    for (rights, tables) in by_rights() {
        let tables: Vec<_> = tables.iter().map(|table| format!("{within}{table}")).collect();
        lines.push(format!("GRANT {rights} ON {} TO {to};", tables.join(", ")));
    }
    if behind_a_pooler {
        lines.push("-- A pooler leaves out what a connection asks for itself.".to_owned());
        for (name, value) in SETTINGS {
            lines.push(format!("ALTER ROLE {to} SET {name} = {};", text(value)));
        }
        if let Some(schema) = schema {
            lines.push(format!("ALTER ROLE {to} SET search_path = {};", schema.quoted()));
        }
    }
    lines.join("\n") + "\n"
}

/// The tables with the same rights together, in the order of [`RIGHTS`].
fn by_rights() -> Vec<(String, Vec<&'static str>)> {
    let mut all: Vec<(String, Vec<&str>)> = Vec::new();
    for (table, rights) in RIGHTS {
        let beside = |right: &str| BESIDE.contains(&(table, right));
        let has = |right: &&&str| rights.contains(right) || beside(right);
        let rights: Vec<_> = ORDER.iter().filter(has).copied().collect();
        let rights = rights.join(", ");
        match all.iter_mut().find(|(of, _)| *of == rights) {
            Some((_, tables)) => tables.push(table),
            None => all.push((rights, vec![table])),
        }
    }
    all
}
