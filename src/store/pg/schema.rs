//! The schema: whether the database has it, who may bring it up to date, and what a role that serves has to be
//! allowed.

use sqlx::{
    Connection as _, PgConnection,
    migrate::{AppliedMigration, Migrate as _, MigrateError, Migration, Migrator},
};

use crate::store::{Store, StoreError};

/// The migrations, as compiled in.
static MIGRATOR: Migrator = sqlx::migrate!();

/// Where sqlx notes which migrations were applied.
const NOTES: &str = "_sqlx_migrations";

/// What serving does with each table. A test compares it with the statements.
pub const RIGHTS: [(&str, &[&str]); 23] = [
    // The first server to start inserts into it, once.
    ("installation", &["SELECT"]),
    ("secret_keys", &["SELECT"]),
    ("pools", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("plans", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("accounts", &["SELECT", "INSERT", "UPDATE"]),
    ("leases", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("account_events", &["SELECT", "INSERT"]),
    ("account_changes", &["SELECT", "INSERT", "DELETE"]),
    ("account_credentials", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("redemptions", &["SELECT", "INSERT", "UPDATE"]),
    ("redemption_outcomes", &["SELECT", "INSERT"]),
    ("reversals", &["SELECT", "INSERT", "UPDATE"]),
    ("subscriptions", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("deliveries", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("superseded_resolutions", &["SELECT", "INSERT"]),
    ("audit_events", &["SELECT", "INSERT"]),
    ("servers", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("providers", &["SELECT", "INSERT"]),
    ("provider_keys", &["SELECT", "INSERT"]),
    ("provider_limits", &["SELECT", "INSERT", "UPDATE"]),
    ("provider_slots", &["SELECT", "INSERT", "UPDATE"]),
    ("tokens", &["SELECT", "INSERT", "UPDATE"]),
    // By the triggers of tokens.
    ("token_changes", &["SELECT", "UPDATE"]),
];

/// The functions of Postgres's own that serving needs, of those that a database may keep from roles: which database it
/// is, and which of its timelines, for those who watch outcomes.
const FUNCTIONS: [&str; 3] =
    ["pg_control_system()", "pg_current_wal_insert_lsn()", "pg_walfile_name(pg_lsn)"];

/// How far the database is, and what the role may do about it.
#[derive(Debug)]
struct State {
    role: String,
    schema: Option<String>,
    noted: bool,
    readable: bool,
    may_create: bool,
    not_owned: Vec<String>,
}

impl Store {
    /// Brings the schema up to date. One that is needs no right but to read which migrations were applied. Servers
    /// that do so at once wait for each other.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.db.connect_to_migrate().await?;
        let done = bring_up_to_date(&mut connection).await;
        let _ = connection.close().await;
        done
    }

    /// Refuses a role that may not do all that serving needs, and names what it may not.
    pub async fn check_rights(&self) -> Result<(), StoreError> {
        let needs =
            || RIGHTS.iter().flat_map(|(table, rights)| rights.iter().map(|it| (*table, *it)));
        let (tables, rights): (Vec<String>, Vec<String>) =
            needs().map(|(table, right)| (table.to_owned(), right.to_owned())).unzip();
        let missing = sqlx::query_file!("src/store/sql/pg/missing_rights.sql", &tables, &rights)
            .fetch_all(&self.db)
            .await?;
        let functions = FUNCTIONS.map(str::to_owned);
        let functions =
            sqlx::query_file_scalar!("src/store/sql/pg/missing_functions.sql", &functions)
                .fetch_all(&self.db)
                .await?;
        if missing.is_empty() && functions.is_empty() {
            return Ok(());
        }
        let missing = missing.iter().map(|it| format!("{} ON {}", it.privilege, it.object));
        let functions = functions.iter().map(|it| format!("EXECUTE ON FUNCTION {it}"));
        let missing: Vec<_> = missing.chain(functions).collect();
        Err(StoreError::Schema(format!(
            "the database's role lacks rights that serving needs: {}. Let the owner of the tables give them \
             (GRANT … TO the role)",
            missing.join(", ")
        )))
    }

    /// Which migrations the database lacks, in words; none of one that is up to date. Nothing is changed.
    ///
    /// # Errors
    /// When the database has others than this program's, or they may not be read.
    pub async fn missing_migrations(&self) -> Result<Vec<String>, StoreError> {
        let mut connection = self.db.connect_to_migrate().await?;
        let missing = read_missing(&mut connection).await;
        let _ = connection.close().await;
        let name = |it: &Migration| format!("{} ({})", it.version, it.description);
        Ok(missing?.1.into_iter().map(name).collect())
    }

    /// Whether the role may have tables' rows counted.
    pub async fn may_count_rows(&self) -> Result<bool, StoreError> {
        let may = sqlx::query_file_scalar!("src/store/sql/pg/may_count_rows.sql");
        Ok(may.fetch_one(&self.db).await?)
    }
}

async fn bring_up_to_date(connection: &mut PgConnection) -> Result<(), StoreError> {
    let (state, missing) = read_missing(connection).await?;
    if missing.is_empty() {
        return Ok(());
    }
    state.check_may_apply(&missing)?;
    MIGRATOR.run_direct(None, connection, false).await.map_err(failed)
}

/// How far the database is, and what it lacks.
async fn read_missing(
    connection: &mut PgConnection,
) -> Result<(State, Vec<&'static Migration>), StoreError> {
    let tables = RIGHTS.map(|(table, _)| table.to_owned());
    let state = sqlx::query_file_as!(State, "src/store/sql/pg/schema_state.sql", &tables)
        .fetch_one(&mut *connection)
        .await?;
    if state.noted && !state.readable {
        return Err(state.unreadable());
    }
    let applied = if state.noted { applied(connection).await? } else { Vec::new() };
    Ok((state, missing(&applied)?))
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<AppliedMigration>, StoreError> {
    if let Some(version) = connection.dirty_version(NOTES).await.map_err(failed)? {
        return Err(failed(MigrateError::Dirty(version)));
    }
    connection.list_applied_migrations(NOTES).await.map_err(failed)
}

fn failed(error: MigrateError) -> StoreError {
    StoreError::Migration(error.to_string())
}

/// The migrations that the database lacks. Refuses one that has others than this program's.
fn missing(applied: &[AppliedMigration]) -> Result<Vec<&'static Migration>, StoreError> {
    let ours = |version: i64| MIGRATOR.iter().find(|it| it.version == version);
    let last = MIGRATOR.iter().map(|it| it.version).max().unwrap_or_default();
    // A newer version has all migrations of this one. So this is checked first.
    let differs = |it: &&AppliedMigration| {
        it.version <= last && ours(it.version).is_none_or(|ours| ours.checksum != it.checksum)
    };
    let others: Vec<_> = applied.iter().filter(differs).map(|it| it.version.to_string()).collect();
    if !others.is_empty() {
        return Err(StoreError::Schema(format!(
            "the database has other migrations than this program: {} differ. It was made by another build of \
             Holdfast; run that one, or use another database or schema",
            others.join(", ")
        )));
    }
    let newest = applied.iter().map(|it| it.version).max().unwrap_or_default();
    if newest > last {
        return Err(StoreError::Schema(format!(
            "the database was brought up to date by a newer version of Holdfast: it has migration {newest}, and this \
             program knows them up to {last}. Run that version or a later one"
        )));
    }
    let is_missing = |it: &&Migration| applied.iter().all(|applied| applied.version != it.version);
    Ok(MIGRATOR.iter().filter(is_missing).collect())
}

impl State {
    fn unreadable(&self) -> StoreError {
        StoreError::Schema(format!(
            "the role {:?} may not read which migrations were applied: let the owner of the tables run GRANT SELECT \
             ON {NOTES} TO {:?}",
            self.role, self.role
        ))
    }

    /// Refuses a role that may not apply migrations, and says why it may not.
    fn check_may_apply(&self, missing: &[&Migration]) -> Result<(), StoreError> {
        let role = &self.role;
        let Some(schema) = &self.schema else {
            return Err(StoreError::Schema(format!(
                "the search_path of the role {role:?} names no schema that is there and that it may use"
            )));
        };
        let mut why = Vec::new();
        if !self.may_create {
            why.push(format!("it may not make anything in the schema {schema:?}"));
        }
        if !self.not_owned.is_empty() {
            why.push(format!("it does not own {}", self.not_owned.join(", ")));
        }
        if why.is_empty() {
            return Ok(());
        }
        let names = missing.iter().map(|it| format!("{} ({})", it.version, it.description));
        let names: Vec<_> = names.collect();
        let lacks = if self.noted {
            format!("the schema {schema:?} lacks the migrations {}", names.join(", "))
        } else {
            format!("the schema {schema:?} has no tables of Holdfast yet")
        };
        Err(StoreError::Schema(format!(
            "{lacks}, and the role {role:?} may not apply them: {}. Run `holdfast migrate` as a role that may (the \
             owner of the tables), then start again",
            why.join(", and ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_applied() -> Vec<AppliedMigration> {
        MIGRATOR
            .iter()
            .map(|it| AppliedMigration { version: it.version, checksum: it.checksum.clone() })
            .collect()
    }

    #[test]
    fn a_database_with_all_migrations_lacks_none_and_an_empty_one_all() {
        assert!(missing(&all_applied()).unwrap().is_empty());
        assert_eq!(missing(&[]).unwrap().len(), MIGRATOR.iter().count());
        assert_eq!(missing(&all_applied()[1..]).unwrap()[0].version, 1);
    }

    #[test]
    fn a_newer_database_and_one_of_another_build_are_refused_in_different_words() {
        let mut applied = all_applied();
        applied.push(AppliedMigration { version: 999_999, checksum: vec![0; 48].into() });
        let error = missing(&applied).unwrap_err().to_string();
        assert!(error.contains("newer version") && error.contains("999999"), "{error}");
        // A build from before the migrations were rewritten has more of them, and others.
        applied[2].checksum = vec![0; 48].into();
        let error = missing(&applied).unwrap_err().to_string();
        assert!(error.contains(": 3 differ") && error.contains("another build"), "{error}");
    }

    #[test]
    fn a_role_that_may_not_migrate_is_told_why_and_what_to_do() {
        let mut state = State {
            role: "app".into(),
            schema: Some("hf".into()),
            noted: true,
            readable: true,
            may_create: false,
            not_owned: vec!["accounts".into()],
        };
        let lacking = missing(&all_applied()[1..]).unwrap();
        let error = state.check_may_apply(&lacking).unwrap_err().to_string();
        for part in
            ["1 (installation)", "\"app\"", "\"hf\"", "not own accounts", "holdfast migrate"]
        {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        state.schema = None;
        let error = state.check_may_apply(&lacking).unwrap_err().to_string();
        assert!(error.contains("search_path"), "{error}");
    }
}
