//! The schema: whether the database has it, who may bring it up to date, and what a role that serves has to be
//! allowed.

use sqlx::{
    Connection as _, PgConnection,
    migrate::{AppliedMigration, Migrate as _, MigrateError, Migration, Migrator},
};

pub use super::rights::{NOTES, RIGHTS};
use super::{
    script,
    shape::{self, Object},
    target::Opened,
};
use crate::{
    domain::database::SqlName,
    store::{Store, StoreError},
};

/// The migrations, as compiled in.
static MIGRATOR: Migrator = sqlx::migrate!();

/// The functions of Postgres's own that serving needs, of those that a database may keep from roles: which database it
/// is, and which of its timelines, for those who watch outcomes.
const FUNCTIONS: [&str; 3] =
    ["pg_control_system()", "pg_current_wal_insert_lsn()", "pg_walfile_name(pg_lsn)"];

/// How far the database is, and what the role may do about it.
#[derive(Debug)]
struct State {
    role: String,
    schema: Option<String>,
    notes: Option<String>,
    readable: bool,
    may_create: bool,
    not_owned: Vec<String>,
    encoding: String,
}

impl Store {
    /// Brings the schema up to date. One that is needs no right but to read which migrations were applied. Servers
    /// that do so at once wait for each other.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut opened = self.db.connect_to_migrate().await?;
        let done = bring_up_to_date(&mut opened, self.db.target().schema()).await;
        let _ = opened.connection.close().await;
        done
    }

    /// The SQL of the migrations that are missing, for somebody else to run; none where the schema is up to date.
    pub async fn script(&self) -> Result<Option<String>, StoreError> {
        let mut opened = self.db.connect_to_migrate().await?;
        let read = read_missing(&mut opened.connection).await;
        let _ = opened.connection.close().await;
        let (state, missing) = read?;
        if missing.is_empty() {
            return Ok(None);
        }
        let asked = self.db.target().schema().map(SqlName::quoted);
        let schema = asked.or_else(|| state.schema.as_deref().map(script::quoted));
        let notes = state.notes.as_deref().unwrap_or(NOTES);
        Ok(Some(script::of(&missing, notes, schema.as_deref(), state.schema.is_none())))
    }

    /// The table where the database notes which migrations were applied.
    pub async fn notes(&self) -> Result<String, StoreError> {
        let mut opened = self.db.connect_to_migrate().await?;
        let state = read_state(&mut opened.connection).await;
        let _ = opened.connection.close().await;
        Ok(state?.notes.unwrap_or_else(|| NOTES.to_owned()))
    }

    /// Refuses a database that is not as serving needs it, and names all that is missing: migrations, parts of the
    /// schema, and rights of the role.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        let mut opened = self.db.connect_to_migrate().await?;
        let read = read_missing(&mut opened.connection).await;
        let _ = opened.connection.close().await;
        let (state, migrations) = read?;
        let mut lacks = Vec::new();
        if let Some(schema) = &state.schema {
            if !migrations.is_empty() {
                lacks.push(format!("the schema {schema:?} {}", state.lacks(&migrations)));
            } else {
                let objects = self.missing_objects().await?;
                if !objects.is_empty() {
                    lacks.push(format!("the schema {schema:?} has no {}", objects.join(", no ")));
                }
            }
        } else {
            lacks.push(match self.db.target().schema() {
                Some(schema) => format!(
                    "the schema \"{schema}\" is not there, or the role {:?} may not use it (GRANT USAGE ON SCHEMA)",
                    state.role
                ),
                None => state.no_schema(),
            });
        }
        let rights = if state.notes.is_some() { self.missing_rights().await? } else { Vec::new() };
        if !rights.is_empty() {
            lacks.push(format!("the role {:?} lacks the rights {}", state.role, rights.join(", ")));
        }
        if lacks.is_empty() {
            return Ok(());
        }
        Err(StoreError::Schema(format!(
            "{}. `holdfast migrate` brings the schema up to date as a role that may (`holdfast migrate --print` prints \
             the SQL instead), and `holdfast grants --role {:?}` prints what this role needs",
            lacks.join("; and "),
            state.role
        )))
    }

    /// Refuses a role that may not do all that serving needs, and names what it may not.
    pub async fn check_rights(&self) -> Result<(), StoreError> {
        let missing = self.missing_rights().await?;
        if missing.is_empty() {
            return Ok(());
        }
        Err(StoreError::Schema(format!(
            "the database's role lacks rights that serving needs: {}. Let the owner of the tables give them \
             (GRANT … TO the role: `holdfast grants` prints all)",
            missing.join(", ")
        )))
    }

    async fn missing_rights(&self) -> Result<Vec<String>, StoreError> {
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
        let missing = missing.iter().map(|it| format!("{} ON {}", it.privilege, it.object));
        let functions = functions.iter().map(|it| format!("EXECUTE ON FUNCTION {it}"));
        Ok(missing.chain(functions).collect())
    }

    /// What the schema lacks, in words. Where a table is missing, its parts are not named.
    async fn missing_objects(&self) -> Result<Vec<String>, StoreError> {
        let objects = shape::objects();
        let column = |of: fn(&Object) -> &str| -> Vec<String> {
            objects.iter().map(|it| of(it).to_owned()).collect()
        };
        let missing = sqlx::query_file!(
            "src/store/sql/pg/missing_objects.sql",
            &column(|it| it.kind),
            &column(|it| &it.table),
            &column(|it| &it.name)
        )
        .fetch_all(&self.db)
        .await?;
        let is_missing =
            |table: &str| missing.iter().any(|it| it.kind == "table" && it.name == table);
        let named = missing.iter().filter(|it| !is_missing(&it.table_name)).map(|it| {
            let of = if it.table_name.is_empty() { "" } else { " of " };
            format!("{} {}{of}{}", it.kind, it.name, it.table_name)
        });
        Ok(named.collect())
    }

    /// Which migrations the database lacks, in words; none of one that is up to date. Nothing is changed.
    ///
    /// # Errors
    /// When the database has others than this program's, or they may not be read.
    pub async fn missing_migrations(&self) -> Result<Vec<String>, StoreError> {
        let mut opened = self.db.connect_to_migrate().await?;
        let missing = read_missing(&mut opened.connection).await;
        let _ = opened.connection.close().await;
        Ok(missing?.1.into_iter().map(named).collect())
    }

    /// Whether the role may have tables' rows counted.
    pub async fn may_count_rows(&self) -> Result<bool, StoreError> {
        let may = sqlx::query_file_scalar!("src/store/sql/pg/may_count_rows.sql");
        Ok(may.fetch_one(&self.db).await?)
    }
}

/// The SQL of all migrations, for an empty database.
pub fn whole_script(schema: Option<&SqlName>) -> String {
    let all: Vec<_> = MIGRATOR.iter().collect();
    let name = schema.map(SqlName::quoted);
    script::of(&all, NOTES, name.as_deref(), schema.is_some())
}

fn named(it: &Migration) -> String {
    format!("{} ({})", it.version, it.description)
}

async fn bring_up_to_date(opened: &mut Opened, schema: Option<&SqlName>) -> Result<(), StoreError> {
    let connection = &mut opened.connection;
    let (mut state, missing) = read_missing(connection).await?;
    if missing.is_empty() {
        return Ok(());
    }
    if opened.is_pooled {
        return Err(StoreError::Schema(format!(
            "the database {}, and a pooler is in front of it, which migrations cannot go through: name Postgres itself \
             with HOLDFAST_MIGRATION_DATABASE_URL",
            state.lacks(&missing)
        )));
    }
    if let (None, Some(schema)) = (&state.schema, schema) {
        let made = connection.create_schema_if_not_exists(&schema.quoted()).await;
        made.map_err(|error| {
            StoreError::Schema(format!(
                "the schema \"{schema}\" is not there, or the role {:?} may not use it, and it cannot be made: {error}",
                state.role
            ))
        })?;
        state = read_state(connection).await?;
    }
    state.check_may_apply(&missing)?;
    let notes = state.notes.unwrap_or_else(|| NOTES.to_owned());
    let migrations = MIGRATOR.iter().cloned().collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name(notes);
    migrator.run_direct(None, connection, false).await.map_err(failed)
}

async fn read_state(connection: &mut PgConnection) -> Result<State, StoreError> {
    let tables = RIGHTS.map(|(table, _)| table.to_owned());
    let state = sqlx::query_file_as!(State, "src/store/sql/pg/schema_state.sql", &tables)
        .fetch_one(connection)
        .await?;
    if state.encoding != "UTF8" {
        return Err(StoreError::Schema(format!(
            "the database encodes text as {}, and names in it may be of any script: make it anew with ENCODING 'UTF8' \
             (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)",
            state.encoding
        )));
    }
    Ok(state)
}

/// How far the database is, and what it lacks.
async fn read_missing(
    connection: &mut PgConnection,
) -> Result<(State, Vec<&'static Migration>), StoreError> {
    let state = read_state(connection).await?;
    let applied = match &state.notes {
        Some(notes) if !state.readable => return Err(state.unreadable(notes)),
        Some(notes) => applied(connection, notes).await?,
        None => Vec::new(),
    };
    Ok((state, missing(&applied)?))
}

async fn applied(
    connection: &mut PgConnection,
    notes: &str,
) -> Result<Vec<AppliedMigration>, StoreError> {
    if let Some(version) = connection.dirty_version(notes).await.map_err(failed)? {
        return Err(failed(MigrateError::Dirty(version)));
    }
    connection.list_applied_migrations(notes).await.map_err(failed)
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
    fn unreadable(&self, notes: &str) -> StoreError {
        StoreError::Schema(format!(
            "the role {:?} may not read which migrations were applied: let the owner of the tables run GRANT SELECT \
             ON {notes} TO {:?}",
            self.role, self.role
        ))
    }

    fn no_schema(&self) -> String {
        format!(
            "the search_path of the role {:?} names no schema that is there and that it may use",
            self.role
        )
    }

    /// What a schema lacks.
    fn lacks(&self, missing: &[&Migration]) -> String {
        if self.notes.is_none() {
            return "has no tables of Holdfast yet".to_owned();
        }
        let names: Vec<_> = missing.iter().copied().map(named).collect();
        format!("lacks the migrations {}", names.join(", "))
    }

    /// Refuses a role that may not apply migrations, and says why it may not.
    fn check_may_apply(&self, missing: &[&Migration]) -> Result<(), StoreError> {
        let role = &self.role;
        let Some(schema) = &self.schema else {
            return Err(StoreError::Schema(self.no_schema()));
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
        Err(StoreError::Schema(format!(
            "the schema {schema:?} {}, and the role {role:?} may not apply them: {}. Run `holdfast migrate` as a role \
             that may (the owner of the tables), then start again",
            self.lacks(missing),
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
            notes: Some(NOTES.into()),
            readable: true,
            encoding: "UTF8".into(),
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
