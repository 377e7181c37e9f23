//! The database, where this machine has its URL: whether it keeps what is committed, has room, and is of this program.

use super::{DoctorArgs, Of, about_file, told};
use crate::{
    app::examine::{self, Examined},
    domain::{database::Facts, secret_key::StoredKey},
};

/// The first version of Postgres that is served, as Postgres counts.
const OLDEST: i64 = 150_000;
/// Connections of a server beside its pool: health has two, one to ask over and one to commit over, and one cancels.
const BESIDE: i64 = 3;
/// Clocks that differ by more are a warning, and by much more a failure: certificates and JWTs are judged by them.
const CLOCK_WARNING_MS: i64 = 2_000;
const CLOCK_FAILURE_MS: i64 = 60_000;

/// Checks the database. Answers with the keys that it knows, where it tells.
pub(super) async fn check(
    args: &DoctorArgs,
    of: &mut Of<'_>,
) -> anyhow::Result<Option<Vec<StoredKey>>> {
    let address = match args.database.given() {
        Ok(Some(address)) => address,
        Ok(None) => {
            of.ok("settings", "not checked: no --database-url is given here (a private Postgres is its server's own)")?;
            return Ok(None);
        }
        Err(error) => {
            let otherwise =
                "write one database URL into the file, postgres://user:password@host/database";
            let next = about_file(&error, "--database-url-file", otherwise);
            of.failed("settings", told(&error), &next)?;
            return Ok(None);
        }
    };
    let Examined { facts, clock_ms, missing_migrations, rights, keys } =
        match examine::database(&address).await {
            Ok(examined) => examined,
            Err(error) => {
                let next =
                    "see whether Postgres runs, is the primary, and takes this role and password";
                of.failed("reachable", told(&error), next)?;
                return Ok(None);
            }
        };
    of.ok("reachable", "it answers, and takes writes")?;
    version(&facts, of)?;
    durability(&facts, of)?;
    standbys(&facts, of)?;
    connections(&facts, args.database_connections.into(), of)?;
    own_settings(&facts, of)?;
    clock(clock_ms, of)?;
    schema(&missing_migrations, of)?;
    match rights {
        Ok(()) => of.ok("rights", "the role may do all that serving needs")?,
        Err(why) => {
            of.failed("rights", why, "let the owner of the tables grant them: docs/database.md")?
        }
    }
    match keys {
        Ok(keys) => Ok(Some(keys)),
        Err(why) => {
            of.warning("keys", why, "")?;
            Ok(None)
        }
    }
}

fn version(facts: &Facts, of: &mut Of<'_>) -> anyhow::Result<()> {
    let version = facts.setting("server_version");
    if facts.number("server_version_num") < OLDEST {
        of.failed("version", format_args!("Postgres {version}"), "use Postgres 15 or later")?;
    } else {
        of.ok("version", format_args!("Postgres {version}"))?;
    }
    match facts.setting("server_encoding") {
        "UTF8" => of.ok("encoding", "UTF8"),
        other => of.failed("encoding", other, "make the database anew with ENCODING 'UTF8'"),
    }
}

/// Whether what was answered as done survives a crash.
fn durability(facts: &Facts, of: &mut Of<'_>) -> anyhow::Result<()> {
    let lost = "a power cut loses what was redeemed, and cards could be sent twice";
    for name in ["fsync", "full_page_writes"] {
        if facts.setting(name) == "on" {
            of.ok(name, "on")?;
        } else {
            let next = format!("ALTER SYSTEM SET {name} = on, then restart Postgres");
            of.failed(name, format_args!("off: {lost}"), &next)?;
        }
    }
    match facts.setting("synchronous_commit") {
        "off" => of.failed(
            "synchronous_commit",
            format_args!("off: {lost}"),
            "ALTER SYSTEM SET synchronous_commit = on, then SELECT pg_reload_conf(); see that neither the role nor the \
             database has another one",
        ),
        other => of.ok("synchronous_commit", other),
    }
}

fn standbys(facts: &Facts, of: &mut Of<'_>) -> anyhow::Result<()> {
    let (names, commit) =
        (facts.setting("synchronous_standby_names"), facts.setting("synchronous_commit"));
    let (here, unknown) = (facts.synchronous_standbys, facts.unknown_standbys);
    let is_waited_for = !names.is_empty() && !["off", "local"].contains(&commit);
    if names.is_empty() {
        of.ok(
            "standbys",
            "commits wait for none: what was not copied yet is lost with this machine's disk",
        )
    } else if !is_waited_for {
        of.warning(
            "standbys",
            format_args!("synchronous_standby_names is set, and synchronous_commit = {commit} does not wait for them"),
            "set synchronous_commit to on, or take the names out",
        )
    } else if here > 0 {
        of.ok("standbys", format_args!("commits wait for {names}: {here} are connected"))
    } else if unknown > 0 {
        of.warning(
            "standbys",
            format_args!(
                "{unknown} are connected; this role may not see whether commits wait for them"
            ),
            "GRANT pg_monitor to the role, to have it checked",
        )
    } else {
        of.failed(
            "standbys",
            format_args!("commits wait for {names}, and none of these standbys is connected: nothing can be written"),
            "start a standby, or take the names out",
        )
    }
}

fn connections(facts: &Facts, pool: i64, of: &mut Of<'_>) -> anyhow::Result<()> {
    let role = facts.role_connections;
    let all = facts.number("max_connections") - facts.number("superuser_reserved_connections");
    let may = if role < 0 { all } else { all.min(role) };
    let needs = pool + BESIDE;
    let found =
        format!("{may} may be open, {} are; a server opens up to {needs}", facts.connections);
    let next =
        "raise max_connections (or the role's CONNECTION LIMIT), or lower --database-connections";
    if needs > may {
        of.failed("connections", found, next)
    } else if facts.connections + needs > may {
        let next = format!("fine where those that are open are the servers' own; otherwise {next}");
        of.warning("connections", found, &next)
    } else {
        of.ok("connections", found)
    }
}

fn own_settings(facts: &Facts, of: &mut Of<'_>) -> anyhow::Result<()> {
    let not_taken = facts.not_taken();
    if not_taken.is_empty() {
        return of.ok(
            "timeouts",
            "statements end after 15 s, waits for locks after 2 s; times are in UTC",
        );
    }
    of.failed(
        "timeouts",
        format_args!("what a connection asks for does not arrive: {}", not_taken.join(", ")),
        "give these settings to the role (`holdfast grants --role NAME --pooler` prints how), or connect to Postgres itself",
    )
}

fn clock(clock_ms: i64, of: &mut Of<'_>) -> anyhow::Result<()> {
    let span = std::time::Duration::from_millis(clock_ms.unsigned_abs());
    let span = humantime::format_duration(span);
    let side = if clock_ms < 0 { "behind" } else { "before" };
    let next = "let both machines follow one clock (NTP)";
    match clock_ms.abs() {
        ms if ms > CLOCK_FAILURE_MS => {
            of.failed("clock", format_args!("the database's is {span} {side} this machine's"), next)
        }
        ms if ms > CLOCK_WARNING_MS => of.warning(
            "clock",
            format_args!("the database's is {span} {side} this machine's"),
            next,
        ),
        _ => of.ok("clock", "the database's and this machine's agree"),
    }
}

fn schema(missing: &Result<Vec<String>, String>, of: &mut Of<'_>) -> anyhow::Result<()> {
    match missing {
        Ok(missing) if missing.is_empty() => {
            of.ok("schema", "it has all migrations of this program")
        }
        Ok(missing) => of.warning(
            "schema",
            format_args!("it lacks {} migrations: {}", missing.len(), missing.join(", ")),
            "run `holdfast migrate`, or start a server whose role may apply them",
        ),
        Err(why) => of.failed(
            "schema",
            why,
            "use the program that the database was made by, or a later one",
        ),
    }
}

#[cfg(test)]
mod tests;
