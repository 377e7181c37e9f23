//! The private Postgres: it stops with its program, however that ends, and loses nothing it is to
//! keep.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use holdfast::embedded::{DATABASE, Data, Options, Postgres, leave_out_pg_variables};
use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use crate::support::{cluster, wait::eventually};

/// Where [`throw_away_data_goes_with_its_postgres`] keeps its data; empty for throw-away data.
const HOLD_VARIABLE: &str = "HOLDFAST_TEST_HOLD";

const NOBODY: u32 = 65534;

const PATIENCE: Duration = Duration::from_secs(60);

/// Also the program that the other tests kill: they run it by its name, with the variable set, and it
/// then holds its Postgres until it dies.
#[tokio::test]
async fn throw_away_data_goes_with_its_postgres() {
    let held = env::var(HOLD_VARIABLE).ok();
    let data = match held.as_deref() {
        None | Some("") => Data::ThrowAway,
        Some(dir) => Data::Kept(dir.into()),
    };
    let postgres = Postgres::start(Options::new(data)).await.unwrap();
    let directory = postgres.directory().to_owned();
    if held.is_some() {
        println!("\nheld {} {}", directory.display(), postgres.url(DATABASE));
        std::future::pending::<()>().await;
    }
    assert!(directory.exists());
    postgres.stop().await.unwrap();
    assert!(!directory.exists(), "{} is left", directory.display());
}

/// Another program that holds a private Postgres.
struct Holder {
    program: Child,
    directory: PathBuf,
    url: String,
}

impl Holder {
    fn start(dir: Option<&Path>) -> Self {
        Self::start_as(dir, &mut Command::new(env::current_exe().unwrap()))
    }

    fn start_as(dir: Option<&Path>, command: &mut Command) -> Self {
        command
            .args([
                "--exact",
                "database::embedded::throw_away_data_goes_with_its_postgres",
                "--nocapture",
            ])
            .env(HOLD_VARIABLE, dir.unwrap_or(Path::new("")))
            .stdout(Stdio::piped());
        let mut program = command.spawn().unwrap();
        let lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let held = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("held ").map(str::to_owned))
            .expect("the program holds a Postgres");
        let (directory, url) = held.split_once(' ').unwrap();
        Self { program, directory: directory.into(), url: url.into() }
    }

    /// Ends it without giving it a chance to clean up.
    fn kill(&mut self) {
        self.program.kill().unwrap();
        self.program.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The number of the process that all of Postgres's others come from.
fn postmaster(directory: &Path) -> Pid {
    let text = fs::read_to_string(directory.join("postgres/data/postmaster.pid")).unwrap();
    Pid::from_raw(text.lines().next().unwrap().parse().unwrap()).unwrap()
}

fn socket_dir(url: &str) -> PathBuf {
    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    options.get_socket().unwrap().clone()
}

async fn connect(url: &str) -> PgConnection {
    // Of the shell that runs the tests: the driver completes a URL by them.
    leave_out_pg_variables().unwrap();
    PgConnection::connect(url).await.unwrap()
}

async fn write_a_row(url: &str) {
    let mut connection = connect(url).await;
    sqlx::raw_sql("CREATE TABLE kept AS SELECT 42 AS answer")
        .execute(&mut connection)
        .await
        .unwrap();
}

async fn read_the_row(url: &str) -> i32 {
    sqlx::query_scalar("SELECT answer FROM kept").fetch_one(&mut connect(url).await).await.unwrap()
}

/// A directory that whoever runs Postgres can get to.
fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn kept_in(dir: &TempDir) -> Data {
    Data::Kept(dir.path().join("data"))
}

#[tokio::test]
async fn nothing_is_left_of_throw_away_data_when_its_program_is_killed() {
    let mut holder = Holder::start(None);
    let postmaster = postmaster(&holder.directory);
    let connection = connect(&holder.url).await;
    assert!(test_kill_process(postmaster).is_ok());
    holder.kill();
    eventually(PATIENCE, "Postgres to end", async || test_kill_process(postmaster).err()).await;
    let socket_dir = socket_dir(&holder.url);
    for dir in [&holder.directory, &socket_dir] {
        eventually(PATIENCE, "its directories to go", async || (!dir.exists()).then_some(())).await;
    }
    drop(connection);
}

#[tokio::test]
async fn nothing_is_left_of_throw_away_data_when_it_is_dropped() {
    let postgres = Postgres::start(Options::new(Data::ThrowAway)).await.unwrap();
    let postmaster = postmaster(postgres.directory());
    let dirs = [postgres.directory().to_owned(), socket_dir(&postgres.url(DATABASE))];
    let _connection = connect(&postgres.url(DATABASE)).await;
    drop(postgres);
    assert!(test_kill_process(postmaster).is_err());
    assert_eq!(dirs.map(|dir| dir.exists()), [false, false]);
}

#[tokio::test]
async fn kept_data_survives_a_stop() {
    let dir = open_dir();
    let postgres = Postgres::start(Options::new(kept_in(&dir))).await.unwrap();
    write_a_row(&postgres.url(DATABASE)).await;
    postgres.stop().await.unwrap();
    let postgres = Postgres::start(Options::new(kept_in(&dir))).await.unwrap();
    assert_eq!(read_the_row(&postgres.url(DATABASE)).await, 42);
}

#[tokio::test]
async fn kept_data_survives_the_killing_of_its_program() {
    let dir = open_dir();
    let mut holder = Holder::start(Some(&dir.path().join("data")));
    write_a_row(&holder.url).await;
    holder.kill();
    // At once: it waits for the Postgres that was left behind.
    let postgres = Postgres::start(Options::new(kept_in(&dir))).await.unwrap();
    assert_eq!(read_the_row(&postgres.url(DATABASE)).await, 42);
}

#[tokio::test]
async fn kept_data_survives_the_killing_of_postgres() {
    let dir = open_dir();
    let mut postgres = Postgres::start(Options::new(kept_in(&dir))).await.unwrap();
    write_a_row(&postgres.url(DATABASE)).await;
    kill_process(postmaster(postgres.directory()), Signal::KILL).unwrap();
    let error = postgres.ended().await.to_string();
    assert!(error.contains("ready to accept connections"), "its log is there: {error}");
    drop(postgres);
    assert!(dir.path().join("data/postgres/data/postmaster.pid").exists(), "it is stale");
    let postgres = Postgres::start(Options::new(kept_in(&dir))).await.unwrap();
    assert_eq!(read_the_row(&postgres.url(DATABASE)).await, 42);
}

#[tokio::test]
async fn a_second_program_is_told_who_uses_the_directory() {
    let dir = open_dir();
    let holder = Holder::start(Some(&dir.path().join("data")));
    let error = Postgres::start(Options::new(kept_in(&dir))).await.unwrap_err().to_string();
    let process = format!("process {}", holder.program.id());
    let directory = holder.directory.display().to_string();
    assert!(error.contains(&process) && error.contains(&directory), "{error}");
}

#[tokio::test]
async fn half_a_cluster_is_made_anew() {
    let dir = open_dir();
    let cluster_dir = dir.path().join("data/postgres");
    fs::create_dir_all(cluster_dir.join("data.new/base")).unwrap();
    if geteuid().is_root() {
        for half in ["data.new/base", "data.new", ""] {
            chown(cluster_dir.join(half), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let postgres = Postgres::start(Options::new(kept_in(&dir))).await.unwrap();
    write_a_row(&postgres.url(DATABASE)).await;
    assert!(!cluster_dir.join("data.new").exists());
}

#[tokio::test]
async fn a_normal_user_can_run_it() {
    if !geteuid().is_root() {
        return; // Every other test has shown it.
    }
    // Neither the test program nor the data may be anywhere that only root can enter.
    let dir = open_dir();
    let program = dir.path().join("it");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = Command::new(program);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let holder = Holder::start_as(Some(&data), &mut command);
    write_a_row(&holder.url).await;
    assert_eq!(read_the_row(&holder.url).await, 42);
}

#[tokio::test]
async fn root_is_told_of_a_directory_that_others_cannot_enter() {
    if !geteuid().is_root() {
        return;
    }
    let closed = tempfile::tempdir().unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let error = Postgres::start(Options::new(kept_in(&closed))).await.unwrap_err().to_string();
    let barrier = format!("cannot enter {}:", closed.path().display());
    assert!(error.contains(&barrier) && error.contains("--data-dir"), "{error}");
}

#[tokio::test]
async fn without_programs_the_error_names_the_packages() {
    let empty = tempfile::tempdir().unwrap();
    let bin_dir = Some(empty.path().to_owned());
    let data = empty.path().join("data");
    let options = Options { bin_dir, ..Options::new(Data::Kept(data.clone())) };
    let error = Postgres::start(options).await.unwrap_err().to_string();
    assert!(error.contains("postgresql-server"), "{error}");
    assert!(error.contains("HOLDFAST_DATABASE_URL"), "{error}");
    assert!(!data.exists(), "nothing is made in vain");
}

#[tokio::test]
async fn data_of_another_version_is_not_changed() {
    let dir = open_dir();
    let data = dir.path().join("data/postgres/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("PG_VERSION"), "9\n").unwrap();
    let error = Postgres::start(Options::new(kept_in(&dir))).await.unwrap_err().to_string();
    assert!(error.contains("made by Postgres 9, and no Postgres 9 was found"), "{error}");
}

#[tokio::test]
async fn what_postgres_says_is_in_the_error() {
    let settings = vec![("shared_buffers".to_owned(), "a great deal".to_owned())];
    let options = Options { settings, ..Options::new(Data::ThrowAway) };
    let error = Postgres::start(options).await.unwrap_err().to_string();
    assert!(error.contains("invalid value for parameter \"shared_buffers\""), "{error}");
}

#[tokio::test]
async fn every_test_has_a_database_of_its_own() {
    static TEMPLATE: cluster::Template = cluster::Template::new("template_of_one_table");
    let prepare = async |url: String| {
        write_a_row(&url).await;
        Ok(())
    };
    let first = TEMPLATE.fresh_database(prepare).await;
    let second = TEMPLATE.fresh_database(prepare).await;
    let mut connection = connect(&first.url).await;
    sqlx::raw_sql("UPDATE kept SET answer = 43").execute(&mut connection).await.unwrap();
    assert_eq!(read_the_row(&first.url).await, 43);
    assert_eq!(read_the_row(&second.url).await, 42);
    first.drop_database().await;
}
