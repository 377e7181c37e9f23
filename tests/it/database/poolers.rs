//! PgBouncer in front of Postgres. From version 1.21 on in transaction mode; an older one, which knows no prepared
//! statements, in session mode. `HOLDFAST_TEST_PGBOUNCER` names another program than the installed one.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use holdfast::{
    app::App,
    config::ServeArgs,
    domain::database::Address,
    rpc::pb::{AccountSelector, RedemptionState},
    store::{
        Store,
        pg::{schema::NOTES, script},
    },
};
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::{
    cluster,
    plans::psql,
    wait::eventually,
    world::{World, lease, reason, seconds},
};

const LIMIT: Duration = Duration::from_secs(30);
/// Debian's folder of it is not one that every user searches.
const INSTALLED: [&str; 3] =
    ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];

fn program() -> PathBuf {
    let given = std::env::var_os("HOLDFAST_TEST_PGBOUNCER").map(PathBuf::from);
    let found = given.or_else(|| INSTALLED.iter().map(PathBuf::from).find(|path| path.exists()));
    found.expect("PgBouncer is installed: scripts/setup.sh does so")
}

/// Whether it knows the prepared statements of clients, in transaction mode.
fn knows_prepared_statements() -> bool {
    let said = Command::new(program()).arg("--version").output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    let version = said.split_whitespace().nth(1).unwrap_or_else(|| panic!("{said}"));
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (1, 21)
}

/// A PgBouncer before the Postgres of all tests, and a role of its own there.
struct Bouncer {
    program: Child,
    port: u16,
    role: String,
    _folder: TempDir,
}

impl Bouncer {
    /// In the mode in which this version serves.
    async fn start() -> Self {
        let mode = if knows_prepared_statements() {
            "pool_mode = transaction\nmax_prepared_statements = 200"
        } else {
            "pool_mode = session"
        };
        Self::with(mode).await
    }

    async fn with(mode: &str) -> Self {
        let postgres = cluster::shared().await;
        let role = format!("pooled_{}", Uuid::now_v7().simple());
        psql(&mut superuser().await, &format!("CREATE ROLE {role} LOGIN SUPERUSER")).await;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let users = folder.path().join("users");
        fs::write(&users, format!("\"{role}\" \"\"\n")).unwrap();
        let settings = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\n{mode}\ndefault_pool_size = 24\n\
             ignore_startup_parameters = options\n",
            postgres.socket_dir().display(),
            users.display()
        );
        fs::write(&settings, text).unwrap();
        // As the user that Postgres runs as: it refuses to be root, and others cannot reach the socket.
        let owner = fs::metadata(postgres.socket_dir()).unwrap();
        let (uid, gid) = (
            std::os::unix::fs::MetadataExt::uid(&owner),
            std::os::unix::fs::MetadataExt::gid(&owner),
        );
        let mut command = Command::new(program());
        command.arg(&settings).stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(uid).gid(gid);
        }
        let program = command.spawn().unwrap();
        let bouncer = Self { program, port, role, _folder: folder };
        eventually(LIMIT, "PgBouncer listens", async || {
            TcpStream::connect(("127.0.0.1", bouncer.port)).ok().map(drop)
        })
        .await;
        bouncer
    }

    /// A database, through it.
    fn url(&self, database: &str) -> String {
        format!("postgres://{}:none@127.0.0.1:{}/{database}?sslmode=disable", self.role, self.port)
    }

    /// The same database, through it.
    fn before(&self, url: &str) -> String {
        let (_, path) = url.split_once('@').unwrap();
        let database = path.split('/').nth(1).unwrap().split('?').next().unwrap();
        self.url(database)
    }

    /// Gives its role what a pooler leaves out, as `holdfast grants` prints it.
    async fn set_up_role(&self) {
        let sql = script::grants(&self.role.parse().unwrap(), None, NOTES, true);
        let settings: Vec<_> = sql.lines().filter(|line| line.starts_with("ALTER ROLE")).collect();
        assert!(settings.len() > 5, "{sql}");
        psql(&mut superuser().await, &settings.join("\n")).await;
    }

    fn put_before(&self) -> impl FnOnce(&mut ServeArgs) {
        |args| {
            let direct = args.database_url.as_ref().unwrap().expose_secret().to_owned();
            args.database_url = Some(self.before(&direct).into());
        }
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.program.kill().unwrap();
        self.program.wait().unwrap();
    }
}

async fn superuser() -> PgConnection {
    PgConnection::connect(&cluster::shared().await.url("postgres")).await.unwrap()
}

#[tokio::test]
async fn behind_a_pooler_limits_hold_and_a_row_that_somebody_holds_delays_its_own_calls_alone() {
    let bouncer = Bouncer::start().await;
    bouncer.set_up_role().await;
    let world = World::with(bouncer.put_before(), 1).await;
    let mut clients = world.clients(0).await;
    clients.create_account("held", |_| {}).await;
    clients.create_account("other", |_| {}).await;
    let acquire = |account_id: &'static str| AccountSelector {
        account_id: account_id.to_owned(),
        ..Default::default()
    };
    let of_held = clients.acquire(|r| r.selector = Some(acquire("held"))).await;
    let of_held = lease(&of_held.unwrap());
    let of_other = clients.acquire(|r| r.selector = Some(acquire("other"))).await;
    let of_other = lease(&of_other.unwrap());
    let redeemed = clients.redeem(&of_other, &world.code("pooled"), |_| {}).await.unwrap();
    assert_eq!(redeemed.redemption.unwrap().state(), RedemptionState::Succeeded);

    let mut db = world.sql().await;
    psql(&mut db, "BEGIN; SELECT FROM accounts WHERE account_id = 'held' FOR UPDATE").await;
    let came = Instant::now();
    let mut same = clients.clone();
    let (held, other) = tokio::join!(
        same.renew(&of_held, Duration::from_secs(60)),
        clients.renew(&of_other, Duration::from_secs(60)),
    );
    other.unwrap();
    assert_eq!(reason(&held.unwrap_err()), "DATABASE_UNAVAILABLE");
    assert!(came.elapsed() < Duration::from_secs(12), "{:?}", came.elapsed());
    psql(&mut db, "ROLLBACK").await;
    clients.renew(&of_held, Duration::from_secs(60)).await.unwrap();
    for held in [&of_held, &of_other] {
        clients.release(held).await.unwrap();
    }
    drop(world);
}

#[tokio::test]
async fn a_pooler_whose_connections_lack_the_settings_is_refused_and_told_which() {
    let bouncer = Bouncer::start().await;
    let world = World::start().await;
    let mut args = world.args().clone();
    bouncer.put_before()(&mut args);
    let printed = format!("{:#}", App::start(&args).await.unwrap_err());
    for part in [
        "statement_timeout is 0, not 15s",
        "lock_timeout is 0, not 2s",
        "plan_cache_mode is auto",
        "enable_seqscan is on",
        "`holdfast grants --role NAME --pooler`",
    ] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
}

#[tokio::test]
async fn settings_that_are_lost_while_a_server_runs_take_it_out_until_they_are_back() {
    let bouncer = Bouncer::start().await;
    bouncer.set_up_role().await;
    let world = World::with(bouncer.put_before(), 1).await;
    let ready = format!("http://{}/readyz", world.server(0).admin_addr());
    let is_ready = async || reqwest::get(&ready).await.unwrap().status().is_success();
    assert!(is_ready().await);
    let mut db = superuser().await;
    let anew = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'",
        bouncer.role
    );
    psql(&mut db, &format!("ALTER ROLE {} SET lock_timeout = '1min'; {anew}", bouncer.role)).await;
    eventually(LIMIT, "it is not ready", async || (!is_ready().await).then_some(())).await;
    let lines = crate::support::logs::lines_with("lock_timeout is 1min, not 2s");
    assert!(!lines.is_empty(), "it says so");
    psql(&mut db, &format!("ALTER ROLE {} SET lock_timeout = '2s'; {anew}", bouncer.role)).await;
    eventually(LIMIT, "it is ready", async || is_ready().await.then_some(())).await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = clients.acquire(|request| request.wait_timeout = seconds(10.0)).await.unwrap();
    clients.release(&lease(&held)).await.unwrap();
}

#[tokio::test]
async fn a_pooler_that_knows_no_prepared_statements_is_refused_at_the_start() {
    let mode = if knows_prepared_statements() {
        "pool_mode = transaction\nmax_prepared_statements = 0"
    } else {
        "pool_mode = transaction"
    };
    let bouncer = Bouncer::with(mode).await;
    bouncer.set_up_role().await;
    let world = World::start().await;
    let mut args = world.args().clone();
    bouncer.put_before()(&mut args);
    let printed = format!("{:#}", App::start(&args).await.unwrap_err());
    assert!(printed.contains("PgBouncer needs version 1.21 or later"), "{printed}");
}

#[tokio::test]
async fn migrations_behind_a_pooler_ask_for_the_url_of_postgres_itself() {
    let bouncer = Bouncer::start().await;
    bouncer.set_up_role().await;
    let world = World::start().await;
    let mut db = world.sql().await;
    // One that can be applied again: it sets what is set.
    psql(&mut db, "DELETE FROM holdfast_migrations WHERE version = 6").await;
    let mut args = world.args().clone();
    bouncer.put_before()(&mut args);
    let pooled: Address = args.database_url.clone().unwrap().into();
    let store = Store::open(&pooled, 2).unwrap();
    let printed = store.migrate().await.unwrap_err().to_string();
    assert!(printed.contains("lacks the migrations 6 ("), "{printed}");
    assert!(printed.contains("HOLDFAST_MIGRATION_DATABASE_URL"), "{printed}");
    args.schema.migrations.migration_database_url = world.args().database_url.clone();
    App::start(&args).await.unwrap().stop().await.unwrap();
    // Now there is nothing to do, and none is asked for.
    args.schema.migrations.migration_database_url = None;
    App::start(&args).await.unwrap().stop().await.unwrap();
}
