//! A server whose role of the database may do what serving needs, and no more.

use holdfast::{
    app::App,
    config::ServeArgs,
    rpc::pb::{CreatePlanRequest, DeletePlanRequest, Money, Plan, RedemptionState},
    store::Store,
};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::{
    cluster::Template,
    fleet::Process,
    world::{Clients, POOL, World, lease},
};

/// A role of one test's own, and a world whose server has kept its key already.
struct Stage {
    world: World,
    role: String,
    db: PgConnection,
}

impl Stage {
    async fn new() -> Self {
        let world = World::start().await;
        let mut db = world.sql().await;
        let role = role_of(&mut db).await;
        let stage = Self { world, role, db };
        stage.grant_all().await
    }

    /// Gives the role what the page says that it needs.
    async fn grant_all(mut self) -> Self {
        let page = include_str!("../../../docs/database.md");
        let grants = page.split("```sql").nth(1).unwrap().split("```").next().unwrap();
        assert!(grants.matches(" TO \"app\";").count() > 4, "{grants}");
        self.run(&grants.replace(" TO \"app\";", &format!(" TO {};", self.role))).await;
        self
    }

    async fn run(&mut self, sql: &str) {
        run(&mut self.db, sql).await;
    }

    fn args(&self) -> ServeArgs {
        let mut args = self.world.args().clone();
        args.database_url = Some(as_role(&self.world.db_url, &self.role).into());
        args
    }

    async fn refused(&self) -> String {
        format!("{:#}", App::start(&self.args()).await.unwrap_err())
    }
}

async fn run(db: &mut PgConnection, sql: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// A new role that may connect, and nothing else.
async fn role_of(db: &mut PgConnection) -> String {
    let name: String =
        sqlx::query_scalar("SELECT current_database()").fetch_one(&mut *db).await.unwrap();
    let role = format!("app_{name}");
    run(db, &format!("CREATE ROLE {role} LOGIN")).await;
    role
}

fn as_role(url: &str, role: &str) -> String {
    url.replace("holdfast:none@", &format!("{role}:none@"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_only_read_and_write_rows_serves_everything() {
    let stage = Stage::new().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = stage.args();
    let args = [
        "serve".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        "--admin-listen=127.0.0.1:0".to_owned(),
        "--drain-delay=0s".to_owned(),
        format!("--secret-key-file={}", settings.secret_key_file.unwrap().display()),
        format!("--provider-url={}", settings.provider.url),
    ];
    let url = as_role(&stage.world.db_url, &stage.role);
    let env = [("HOLDFAST_DATABASE_URL", &*url)];
    let mut server = Process::start("server", folder.path(), &args, &env).await;
    let mut clients = Clients::connect(&format!("http://{}", server.addr)).await;
    clients.create_pool("another").await;
    let plan = Plan {
        pool_id: POOL.to_owned(),
        plan_id: "s".to_owned(),
        target: Some(Money { amount_minor: 5000, currency_code: "EUR".to_owned() }),
        ..Plan::default()
    };
    clients.pools.create_plan(CreatePlanRequest { plan: Some(plan) }).await.unwrap();
    clients.create_account("a", |account| account.plan_id = "s".to_owned()).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let code = stage.world.code("by a role without rights");
    let redeemed = clients.redeem(&held, &code, |_| {}).await.unwrap().redemption.unwrap();
    assert_eq!(redeemed.state(), RedemptionState::Succeeded);
    clients.release(&held).await.unwrap();
    clients.create_account("b", |_| {}).await;
    let deleted = DeletePlanRequest { pool_id: POOL.to_owned(), plan_id: "none".to_owned() };
    let error = clients.pools.delete_plan(deleted).await.unwrap_err();
    assert_eq!(crate::support::world::reason(&error), "PLAN_NOT_FOUND");
    server.end().await;
    let printed = server.said();
    assert_eq!(printed.matches("cannot run ANALYZE").count(), 1, "{printed}");
    assert!(!printed.contains("permission denied"), "{printed}");
}

#[tokio::test]
async fn a_role_that_lacks_rights_is_told_at_the_start_which() {
    let mut stage = Stage::new().await;
    let role = stage.role.clone();
    stage.run(&format!("REVOKE UPDATE ON accounts FROM {role}")).await;
    stage.run(&format!("REVOKE ALL ON account_events FROM {role}")).await;
    stage.run(&format!("REVOKE DELETE ON plans FROM {role}")).await;
    let printed = stage.refused().await;
    for part in [
        "UPDATE ON accounts",
        "SELECT ON account_events",
        "INSERT ON account_events",
        "DELETE ON plans",
    ] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
    assert!(!printed.contains("INSERT ON accounts"), "{printed}");
    // Column by column is as good.
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 'accounts'::regclass AND attnum > 0
            AND NOT attisdropped AND attgenerated = ''",
    )
    .fetch_all(&mut stage.db)
    .await
    .unwrap();
    stage.run(&format!("GRANT UPDATE ({}) ON accounts TO {role}", columns.join(", "))).await;
    assert!(!stage.refused().await.contains("UPDATE ON accounts"));
}

#[tokio::test]
async fn a_role_that_may_not_migrate_is_told_what_is_missing_and_what_to_do() {
    let mut stage = Stage::new().await;
    // One that can be applied again: it sets what is set.
    stage.run("DELETE FROM holdfast_migrations WHERE version = 6").await;
    let printed = stage.refused().await;
    for part in [
        "lacks the migrations 6 (",
        &format!("the role {:?} may not apply them", stage.role),
        "may not make anything in the schema \"public\"",
        "does not own account_changes, account_credentials, account_events, accounts,",
        "Run `holdfast migrate` as a role that may",
    ] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
    // Its owner may, and then the role serves.
    let owner = Store::open(&stage.world.db_url.clone().into(), 2).unwrap();
    owner.migrate().await.unwrap();
    App::start(&stage.args()).await.unwrap().stop().await.unwrap();

    stage.run(&format!("REVOKE SELECT ON holdfast_migrations FROM {}", stage.role)).await;
    let printed = stage.refused().await;
    assert!(printed.contains("GRANT SELECT ON holdfast_migrations"), "{printed}");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_in_plain_words() {
    let mut stage = Stage::new().await;
    stage
        .run(
            "INSERT INTO holdfast_migrations VALUES (4242, 'of tomorrow', now(), true, '\\x00', 1)",
        )
        .await;
    for args in [stage.args(), stage.world.args().clone()] {
        let printed = format!("{:#}", App::start(&args).await.unwrap_err());
        assert!(printed.contains("newer version of Holdfast: it has migration 4242"), "{printed}");
    }
}

#[tokio::test]
async fn an_empty_database_is_not_taken_for_one_that_is_up_to_date() {
    static EMPTY: Template = Template::new("empty_for_roles");
    let database = EMPTY.fresh_database(async |_| Ok(())).await;
    let mut db = <PgConnection as sqlx::Connection>::connect(&database.url).await.unwrap();
    let role = role_of(&mut db).await;
    let store = Store::open(&as_role(&database.url, &role).into(), 2).unwrap();
    let printed = store.migrate().await.unwrap_err().to_string();
    assert!(printed.contains("the schema \"public\" has no tables of Holdfast yet"), "{printed}");
    // A role that may make things, and owns nothing yet, begins.
    run(&mut db, &format!("GRANT CREATE ON SCHEMA public TO {role}")).await;
    store.migrate().await.unwrap();
    store.check_rights().await.unwrap();
    assert!(store.may_count_rows().await.unwrap());
    store.close().await;
    drop(db);
    database.drop_database().await;
}
