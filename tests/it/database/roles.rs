//! Migrations by one role, or by a person with printed SQL; serving by another that may create nothing.

use holdfast::{
    app::{App, schema},
    domain::database::{Address, SqlName},
    rpc::pb::RedemptionState,
    store::{
        Store,
        pg::{schema::NOTES, script},
    },
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::{
    cluster::{Template, TestDatabase},
    world::{World, lease},
};

/// A database with nothing in it, in which nobody but its owner may create anything, and two roles.
struct Stage {
    database: TestDatabase,
    /// May make tables.
    owner: String,
    /// May connect.
    app: String,
}

impl Stage {
    async fn new() -> Self {
        static EMPTY: Template = Template::new("empty_of_roles");
        let database = EMPTY.fresh_database(async |_| Ok(())).await;
        let mut db = connect(&database.url).await;
        let name: String =
            sqlx::query_scalar("SELECT current_database()").fetch_one(&mut db).await.unwrap();
        let (owner, app) = (format!("owner_{name}"), format!("app_{name}"));
        run(
            &mut db,
            &format!(
                "CREATE ROLE {owner} LOGIN; CREATE ROLE {app} LOGIN; REVOKE ALL ON SCHEMA public FROM PUBLIC;
                 GRANT CREATE ON DATABASE {name} TO {owner};
                 GRANT USAGE, CREATE ON SCHEMA public TO {owner}; GRANT USAGE ON SCHEMA public TO {app}"
            ),
        )
        .await;
        Self { database, owner, app }
    }

    fn as_role(&self, role: &str) -> String {
        self.database.url.replace("holdfast:none@", &format!("{role}:none@"))
    }

    async fn owner(&self) -> PgConnection {
        connect(&self.as_role(&self.owner)).await
    }

    fn app_name(&self) -> SqlName {
        self.app.parse().unwrap()
    }
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

async fn run(db: &mut PgConnection, sql: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await;
    done.unwrap_or_else(|error| panic!("{error}: {}", sql.chars().take(2000).collect::<String>()));
}

fn address(url: &str, schema: Option<&SqlName>) -> Address {
    Address { schema: schema.cloned(), ..url.into() }
}

/// Serves as a role that may create nothing, and redeems a card.
async fn serves(stage: &Stage, schema: Option<&SqlName>) {
    let url = stage.as_role(&stage.app);
    let mut world = World::with(
        |args| {
            args.database_url = Some(url.clone().into());
            args.database.database_schema = schema.cloned();
            args.schema.no_migrate = true;
        },
        1,
    )
    .await;
    let path = schema.map_or(String::new(), |it| format!("&options=-csearch_path%3D{it}"));
    world.db_url = format!("{}{path}", stage.database.url);
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let redeemed = clients.redeem(&held, &world.code("of a role"), |_| {}).await.unwrap();
    assert_eq!(redeemed.redemption.unwrap().state(), RedemptionState::Succeeded);
    clients.release(&held).await.unwrap();
}

#[tokio::test]
async fn printed_migrations_and_grants_are_all_that_a_server_without_rights_to_create_needs() {
    let stage = Stage::new().await;
    let app = address(&stage.as_role(&stage.app), None);
    let store = Store::open(&app, 2).unwrap();
    let printed = store.check_schema().await.unwrap_err().to_string();
    assert!(printed.contains("the schema \"public\" has no tables of Holdfast yet"), "{printed}");
    assert!(printed.contains("holdfast migrate --print"), "{printed}");

    let whole = schema::printed(Some(&app), None).await.unwrap().unwrap();
    run(&mut stage.owner().await, &whole).await;
    let printed = store.check_schema().await.unwrap_err().to_string();
    assert!(printed.contains("GRANT SELECT ON holdfast_migrations"), "{printed}");
    let grants = schema::grants(None, &stage.app_name(), None, false).await.unwrap();
    run(&mut stage.owner().await, &grants).await;
    store.check_schema().await.unwrap();
    assert!(schema::printed(Some(&app), None).await.unwrap().is_none(), "nothing is missing");
    serves(&stage, None).await;

    // Only what is missing is printed, and it is noted where the others are.
    run(&mut stage.owner().await, "DELETE FROM holdfast_migrations WHERE version = 6").await;
    let rest = schema::printed(Some(&app), None).await.unwrap().unwrap();
    assert!(rest.contains("-- Migration 6: ") && !rest.contains("-- Migration 5: "), "{rest}");
    run(&mut stage.owner().await, &rest).await;
    store.check_schema().await.unwrap();
    store.close().await;
    stage.database.drop_database().await;
}

#[tokio::test]
async fn the_same_holds_in_a_schema_of_its_own_printed_without_a_database() {
    let stage = Stage::new().await;
    let name: SqlName = "cards".parse().unwrap();
    let whole = schema::printed(None, Some(&name)).await.unwrap().unwrap();
    let grants = schema::grants(None, &stage.app_name(), Some(&name), false).await.unwrap();
    let app = address(&stage.as_role(&stage.app), Some(&name));
    let store = Store::open(&app, 2).unwrap();
    let printed = store.check_schema().await.unwrap_err().to_string();
    assert!(printed.contains("the schema \"cards\" is not there"), "{printed}");
    run(&mut stage.owner().await, &whole).await;
    run(&mut stage.owner().await, &grants).await;
    store.check_schema().await.unwrap();
    store.close().await;
    serves(&stage, Some(&name)).await;
    stage.database.drop_database().await;
}

#[tokio::test]
async fn all_that_is_missing_is_named_at_once() {
    let stage = Stage::new().await;
    let owner: Address = stage.as_role(&stage.owner).into();
    schema::migrate(&owner).await.unwrap();
    let mut db = stage.owner().await;
    let grants = script::grants(&stage.app_name(), None, NOTES, false);
    run(&mut db, &grants).await;
    run(
        &mut db,
        &format!(
            "DROP INDEX redemptions_due; ALTER TABLE accounts DISABLE TRIGGER account_keep_id;
             ALTER TABLE reversals RENAME COLUMN evidence TO proof; DROP TABLE token_changes CASCADE;
             REVOKE UPDATE ON accounts FROM {}",
            stage.app
        ),
    )
    .await;
    let world = World::start().await;
    let mut args = world.args().clone();
    args.database_url = Some(stage.as_role(&stage.app).into());
    for no_migrate in [true, false] {
        args.schema.no_migrate = no_migrate;
        let printed = format!("{:#}", App::start(&args).await.unwrap_err());
        for part in [
            "index redemptions_due of redemptions",
            "trigger account_keep_id of accounts",
            "column evidence of reversals",
            "table token_changes",
            "UPDATE ON accounts",
            "holdfast grants --role",
        ] {
            assert!(printed.contains(part), "{part} is not in {printed}");
        }
        assert!(!printed.contains("of token_changes"), "{printed}");
    }
    stage.database.drop_database().await;
}

#[tokio::test]
async fn a_server_that_may_not_create_migrates_by_the_url_of_a_role_that_may() {
    let stage = Stage::new().await;
    let world = World::start().await;
    let mut args = world.args().clone();
    args.database_url = Some(stage.as_role(&stage.app).into());
    args.schema.migrations.migration_database_url = Some(stage.as_role(&stage.owner).into());
    let printed = format!("{:#}", App::start(&args).await.unwrap_err());
    assert!(printed.contains("may not read which migrations were applied"), "{printed}");
    let grants = script::grants(&stage.app_name(), None, NOTES, false);
    run(&mut stage.owner().await, &grants).await;
    App::start(&args).await.unwrap().stop().await.unwrap();
    stage.database.drop_database().await;
}

#[test]
fn the_page_has_the_grants_that_the_command_prints() {
    let page = include_str!("../../../docs/database.md");
    let shown = page.split("```sql").nth(1).unwrap().split("```").next().unwrap();
    let shown: Vec<_> = shown.lines().filter(|line| line.starts_with("GRANT")).collect();
    let printed = script::grants(&"app".parse().unwrap(), None, NOTES, false);
    assert_eq!(shown, printed.lines().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_database_that_began_with_sqlx_s_own_table_of_migrations_goes_on_with_it() {
    let stage = Stage::new().await;
    let owner: Address = stage.as_role(&stage.owner).into();
    schema::migrate(&owner).await.unwrap();
    let mut db = stage.owner().await;
    run(
        &mut db,
        "ALTER TABLE holdfast_migrations RENAME TO _sqlx_migrations; DELETE FROM _sqlx_migrations WHERE version = 6",
    )
    .await;
    schema::migrate(&owner).await.unwrap();
    let noted = "SELECT count(*) FROM _sqlx_migrations WHERE version = 6";
    assert_eq!(sqlx::query_scalar::<_, i64>(noted).fetch_one(&mut db).await.unwrap(), 1);
    let other = "SELECT to_regclass('holdfast_migrations') IS NULL";
    assert!(sqlx::query_scalar::<_, bool>(other).fetch_one(&mut db).await.unwrap());
    let app = stage.app_name();
    let grants = schema::grants(Some(&owner), &app, None, false).await.unwrap();
    assert!(grants.contains("ON _sqlx_migrations TO"), "{grants}");
    stage.database.drop_database().await;
}

#[tokio::test]
async fn another_program_s_table_of_migrations_beside_ours_is_left_alone() {
    let stage = Stage::new().await;
    let mut db = stage.owner().await;
    // One that the owner may not even read.
    let mut superuser = connect(&stage.database.url).await;
    run(
        &mut superuser,
        "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL,
             installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL,
             execution_time bigint NOT NULL);
         INSERT INTO _sqlx_migrations VALUES (1, 'users', now(), true, '\\x00', 1), (20990101, 'x', now(), true, '\\x00', 1)",
    )
    .await;
    let owner: Address = stage.as_role(&stage.owner).into();
    schema::migrate(&owner).await.unwrap();
    schema::migrate(&owner).await.unwrap();
    let ours = "SELECT count(*) FROM holdfast_migrations";
    assert!(sqlx::query_scalar::<_, i64>(ours).fetch_one(&mut db).await.unwrap() > 15);
    let theirs = "SELECT count(*) FROM _sqlx_migrations";
    assert_eq!(sqlx::query_scalar::<_, i64>(theirs).fetch_one(&mut superuser).await.unwrap(), 2);
    run(&mut db, &script::grants(&stage.app_name(), None, NOTES, false)).await;
    serves(&stage, None).await;
    stage.database.drop_database().await;
}
