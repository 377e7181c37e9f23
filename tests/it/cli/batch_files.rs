//! `holdfast redeem-batch` and its files: what is read, what is replaced and when, and outputs that
//! are closed or full.

use std::{
    fs,
    os::fd::AsFd as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use holdfast::simulator::faults::Faults;
use rustix::process::Signal;
use sqlx::PgConnection;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::{
    program::{ended, finish, program, run, signal, write_lines},
    wait::eventually,
    world::World,
};

const OLD: &str = "results of an earlier run\n";

/// A world with accounts, and a folder with a card file of so many rows and an earlier result.
async fn world_with_cards(accounts: usize, rows: usize) -> (World, TempDir) {
    let world = World::start().await;
    if accounts > 0 {
        world.clients(0).await.create_accounts(accounts).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let codes = (0..rows).map(|n| format!("i-{n:05},{},1000", world.code(&format!("{n:05}"))));
    write_lines(&folder.path().join("cards.csv"), "item_id,code,amount_minor", codes);
    fs::write(folder.path().join("out.csv"), OLD).unwrap();
    (world, folder)
}

fn at(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

fn batch<'a>(cards: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["redeem-batch", cards, "--pool", "pool", "--batch-id", "b"][..], more].concat()
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// The temporary files of results in a folder.
fn partial(folder: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|it| it == "partial")).collect()
}

/// How many redemptions were begun.
async fn begun(sql: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM redemptions").fetch_one(sql).await.unwrap()
}

/// Asserts that the server begins no more than it had begun when the command ended and what was under
/// way then, far less than the file has.
async fn assert_broken_off(world: &World, rows: i64) {
    let mut sql = world.sql().await;
    let idle = "SELECT count(*) FROM accounts WHERE status = 'LOCKING'";
    eventually(Duration::from_secs(30), "the last item under way has ended", async || {
        let locked: i64 = sqlx::query_scalar(idle).fetch_one(&mut sql).await.unwrap();
        (locked == 0).then_some(())
    })
    .await;
    let count = begun(&mut sql).await;
    assert!(count < rows / 2, "{count} of {rows} were begun for nobody");
}

#[tokio::test]
async fn an_output_that_is_the_card_file_is_refused_under_every_name() {
    let (world, folder) = world_with_cards(0, 3).await;
    let cards = at(&folder, "cards.csv");
    let before = text(&cards);
    symlink("cards.csv", at(&folder, "link.csv")).unwrap();
    fs::hard_link(&cards, at(&folder, "hard.csv")).unwrap();
    for output in ["cards.csv", "link.csv", "hard.csv"] {
        let done = run(&world, &batch(&cards, &["--output", &at(&folder, output)])).await;
        done.says(1, &["is the same file as", "name another file"]);
        let done = run(&world, &batch(&at(&folder, output), &["--output", &cards])).await;
        done.says(1, &["is the same file as"]);
    }
    let appended = fs::OpenOptions::new().append(true).open(&cards).unwrap();
    let done = finish(program(&world, &batch(&cards, &[])).stdout(appended).spawn().unwrap()).await;
    done.says(1, &["standard output is the file"]);
    assert_eq!(text(&cards), before);
    assert_eq!(begun(&mut world.sql().await).await, 0);
}

#[tokio::test]
async fn an_output_that_is_standard_input_or_a_file_of_secrets_is_refused() {
    let (world, folder) = world_with_cards(0, 3).await;
    let cards = at(&folder, "cards.csv");
    let before = text(&cards);
    let read = || fs::File::open(&cards).unwrap();
    let mut command = program(&world, &batch("-", &["--output", &cards]));
    let done = finish(command.stdin(read()).spawn().unwrap()).await;
    done.says(1, &["is the same file as standard input", "name another file"]);
    let appended = fs::OpenOptions::new().append(true).open(&cards).unwrap();
    let mut command = program(&world, &batch("-", &[]));
    let done = finish(command.stdin(read()).stdout(appended).spawn().unwrap()).await;
    done.says(1, &["standard output is the file standard input"]);

    let secret = at(&folder, "secret");
    fs::write(&secret, "secret").unwrap();
    for flags in [
        &["--item-key-file", &secret][..],
        &["--token-file", &secret],
        &["--ca-file", &secret],
        &["--cert-file", &secret, "--key-file", &cards],
        &["--cert-file", &cards, "--key-file", &secret],
    ] {
        let done = run(&world, &batch(&cards, &[flags, &["--output", &secret]].concat())).await;
        done.says(1, &["is the same file as"]);
    }
    assert_eq!((text(&cards), text(&secret)), (before, "secret".to_owned()));
    assert_eq!(begun(&mut world.sql().await).await, 0);
}

#[tokio::test]
async fn a_run_that_is_refused_leaves_the_earlier_results_as_they_are() {
    let (world, folder) = world_with_cards(0, 3).await;
    let (cards, out) = (at(&folder, "cards.csv"), at(&folder, "out.csv"));
    let file = |name: &str, text: &str| {
        fs::write(at(&folder, name), text).unwrap();
        at(&folder, name)
    };
    let output = ["--output", &out];
    let wrong_pool =
        ["redeem-batch", &cards, "--pool", "wrong", "--batch-id", "b", "--output", &out];
    run(&world, &wrong_pool).await.says(1, &["POOL_NOT_FOUND"]);
    let with_plan = batch(&cards, &["--plan", "none", "--output", &out]);
    run(&world, &with_plan).await.says(1, &["PLAN_NOT_FOUND"]);
    for (cards, why) in [
        (file("empty.csv", ""), "it is empty"),
        (file("header.csv", "code\n"), "has no rows besides its header"),
        (file("blank.csv", "code\r\n\r\r\n"), "has no rows besides its header"),
        (
            file("others.csv", "code,pool_id\nABCD-1,q\n"),
            "none of the file's 1 rows is for pool pool",
        ),
        (file("no-header.csv", "ABCD-1\n"), "is not the header"),
        (at(&folder, "none.csv"), "cannot open the file"),
        (folder.path().to_str().unwrap().to_owned(), "is not a file"),
        ("/dev/null".to_owned(), "is not a file"),
    ] {
        run(&world, &batch(&cards, &output)).await.says(1, &[why]);
    }
    fs::write(at(&folder, "utf16.csv"), b"\xff\xfec\0o\0d\0e\0\n\0").unwrap();
    let utf16 = run(&world, &batch(&at(&folder, "utf16.csv"), &output)).await;
    utf16.says(1, &["has no rows besides its header"]);
    run(&world, &["pool", "pause", "pool"]).await.says(0, &[]);
    run(&world, &batch(&cards, &output)).await.says(1, &["POOL_PAUSED", "pool resume"]);
    let nowhere = batch(&cards, &["--output", &out, "--max-in-flight", "0"]);
    run(&world, &nowhere).await.says(2, &[]);
    assert_eq!(text(&out), OLD);
    assert!(partial(&folder).is_empty());
    for (output, why) in [("", "is a folder"), ("none/out.csv", "there is no folder")] {
        let output = at(&folder, output);
        run(&world, &batch(&cards, &["--output", &output])).await.says(1, &[&output, why]);
    }
    assert_eq!(begun(&mut world.sql().await).await, 0);
}

#[tokio::test]
async fn results_replace_the_file_with_its_permissions_when_the_batch_went_through() {
    let (world, folder) = world_with_cards(4, 20).await;
    let (cards, out) = (at(&folder, "cards.csv"), at(&folder, "out.csv"));
    fs::set_permissions(&out, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("out.csv", at(&folder, "link.csv")).unwrap();
    let done = run(&world, &batch(&cards, &["--output", &at(&folder, "link.csv")])).await;
    done.says(0, &["20 items: 20 succeeded, 0 failed, 0 in doubt, 0 to review, 0 rejected"]);
    assert_eq!((text(&out).lines().count(), done.stdout.len()), (21, 0));
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(at(&folder, "link.csv")).unwrap().is_symlink());
    assert!(partial(&folder).is_empty());
    let done = run(&world, &batch(&cards, &["--output", "/dev/stdout", "--format", "json"])).await;
    let rows: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn a_closed_output_ends_the_batch_with_an_error_and_begins_nothing_more() {
    for rows in [2_000, 3_000] {
        let (world, folder) = world_with_cards(8, rows).await;
        let cards = at(&folder, "cards.csv");
        let mut child = program(&world, &batch(&cards, &[])).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().unwrap();
        assert!(first.starts_with("item_id,"), "{first}");
        drop(lines);
        let done = finish(child).await;
        done.says(1, &["the output was closed", "run the same command again"]);
        assert_broken_off(&world, rows.try_into().unwrap()).await;
    }
}

#[tokio::test]
async fn a_closed_output_is_noticed_before_anything_is_written_to_it() {
    let (world, folder) = world_with_cards(2, 3_000).await;
    world.set_faults(Faults { latency: "10ms".parse().unwrap(), ..Faults::default() });
    let mut child =
        program(&world, &batch(&at(&folder, "cards.csv"), &["--format", "table"])).spawn().unwrap();
    drop(child.stdout.take());
    finish(child).await.says(1, &["the output was closed"]);
    assert_broken_off(&world, 3_000).await;
}

#[tokio::test]
async fn a_full_output_ends_the_batch_with_an_error_and_begins_nothing_more() {
    let (world, folder) = world_with_cards(8, 3_000).await;
    let cards = at(&folder, "cards.csv");
    let done = run(&world, &batch(&cards, &["--output", "/dev/full"])).await;
    done.says(1, &["the output cannot be written", "No space left", "run the same command again"]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = program(&world, &batch(&cards, &[]));
    finish(command.stdout(full).spawn().unwrap()).await.says(1, &["No space left"]);
    assert_broken_off(&world, 3_000).await;
}

#[tokio::test]
async fn results_that_came_before_an_interruption_are_kept_beside_the_earlier_ones() {
    for (sign, is_told) in [(Signal::INT, true), (Signal::TERM, true), (Signal::KILL, false)] {
        let (world, folder) = world_with_cards(2, 400).await;
        let (cards, out) = (at(&folder, "cards.csv"), at(&folder, "out.csv"));
        world.set_faults(Faults { latency: "20ms".parse().unwrap(), ..Faults::default() });
        let arguments = batch(&cards, &["--output", &out]);
        let child = program(&world, &arguments).spawn().unwrap();
        eventually(Duration::from_secs(60), "some results are written", async || {
            let files = partial(&folder);
            files.iter().any(|file| text(file).lines().count() > 3).then_some(())
        })
        .await;
        signal(&child, sign);
        let done = finish(child).await;
        let [kept] = &*partial(&folder) else { panic!("{:?}", partial(&folder)) };
        if is_told {
            let path = kept.to_str().unwrap();
            done.says(1, &["interrupted", path, "was left as it was", "so far: "]);
        }
        let results = text(kept);
        assert!(results.starts_with("item_id,outcome,") && results.ends_with('\n'), "{results}");
        assert!(results.lines().skip(1).all(|row| row.starts_with("i-")), "{results}");
        if is_told {
            let rows: Vec<_> = results.lines().skip(1).map(|row| &row[..7]).collect();
            let all: Vec<_> = (0..400).map(|n| format!("i-{n:05}")).collect();
            assert_eq!(rows, all, "a row for every row, in its order");
            done.says(
                1,
                &[" more are under way, and the server finishes them; ", " were not begun"],
            );
            assert!(
                results.contains(",NOT_BEGUN,") && results.contains(",SUCCEEDED,"),
                "{results}"
            );
        }
        assert_eq!(text(&out), OLD);

        world.set_faults(Faults::default());
        run(&world, &arguments).await.says(0, &["400 succeeded"]);
        assert_eq!(text(&out).lines().count(), 401);
        assert_eq!(text(kept), results, "nothing takes them away");
    }
}

#[tokio::test]
async fn a_second_signal_ends_a_command_whose_output_nobody_takes() {
    let (world, folder) = world_with_cards(4, 3_000).await;
    let mut child = program(&world, &batch(&at(&folder, "cards.csv"), &[])).spawn().unwrap();
    let unread = child.stdout.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap();
    eventually(Duration::from_secs(60), "the pipe is nearly full", async || {
        // It holds 65,536 bytes, and all rows together are more.
        (rustix::io::ioctl_fionread(&unread).unwrap() > 60_000).then_some(())
    })
    .await;
    signal(&child, Signal::INT);
    let status = eventually(Duration::from_secs(60), "it ends", async || {
        // A signal that comes before the first was noticed counts as the same.
        signal(&child, Signal::INT);
        child.try_wait().unwrap()
    })
    .await;
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn lists_and_imports_end_when_their_output_is_closed_or_full() {
    let (world, folder) = world_with_cards(0, 1).await;
    let ids = (0..3_000).map(|n| format!("account-{n:05}"));
    let accounts = write_lines(&folder.path().join("accounts.csv"), "account_id", ids);
    let import = ["account", "import", accounts.to_str().unwrap(), "--pool", "pool"];
    run(&world, &import).await.says(0, &["3000 created"]);

    // Its thousand failures are told to nobody, and all the same the exit code says that there were.
    let mut again = program(&world, &import).spawn().unwrap();
    let mut printed = BufReader::new(again.stderr.take().unwrap()).lines();
    assert!(printed.next_line().await.unwrap().unwrap().contains("exists already"));
    drop(printed);
    assert_eq!(ended(&mut again).await.code(), Some(1));

    let list = ["account", "list", "--pool", "pool", "--format"];
    for format in ["csv", "json", "table"] {
        let arguments = [&list[..], &[format]].concat();
        let mut child = program(&world, &arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next_line().await.unwrap().is_some());
        drop(lines);
        finish(child).await.says(1, &["the output was closed"]);
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let child = program(&world, &arguments).stdout(Stdio::from(full)).spawn().unwrap();
        finish(child).await.says(1, &["No space left"]);
    }
    let explain = ["account", "explain", "--pool", "pool", "--limit", "1000", "--format", "csv"];
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = program(&world, &explain).stdout(Stdio::from(full)).spawn().unwrap();
    finish(child).await.says(1, &["No space left"]);
    let audit = ["redemption", "audit", "--from", "2026-01-01", "--to", "2026-01-02", "--ledger"];
    let ledger = at(&folder, "ledger.jsonl");
    fs::write(&ledger, "").unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = program(&world, &[&audit[..], &[&ledger]].concat());
    finish(command.stdout(full).spawn().unwrap()).await.says(1, &["No space left"]);
    let appended = fs::OpenOptions::new().append(true).open(&ledger).unwrap();
    let done = finish(command.stdout(appended).spawn().unwrap()).await;
    done.says(1, &["standard output is the file"]);
    assert_eq!(text(&ledger), "");
}

#[tokio::test]
async fn a_change_whose_output_cannot_be_written_is_reported_as_made() {
    let (world, _folder) = world_with_cards(1, 0).await;
    run(&world, &["plan", "create", "plan", "--pool", "pool", "--target", "1000"])
        .await
        .says(0, &[]);
    for change in [
        &["pool", "create", "second", "--currency", "EUR"][..],
        &["pool", "update", "pool", "--holder-share-percent", "60"],
        &["pool", "pause", "pool"],
        &["pool", "drain", "pool", "--wait"],
        &["pool", "resume", "pool"],
        &["plan", "create", "other", "--pool", "pool", "--target", "1000"],
        &["plan", "update", "plan", "--pool", "pool", "--target", "2000"],
        &["account", "pause", "a-000", "--pool", "pool"],
        &["account", "resume", "a-000", "--pool", "pool"],
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let child = program(&world, change).stdout(Stdio::from(full)).spawn().unwrap();
        let told = "error: the change was made, but the output cannot be written: No space left";
        finish(child).await.says(1, &[told]);
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut pause = program(&world, &["pool", "pause", "pool"]);
    let done = finish(pause.stdout(Stdio::from(writer)).spawn().unwrap()).await;
    done.says(1, &["the change was made, but the output was closed"]);
    let list = run(&world, &["pool", "list", "--format", "json"]).await;
    assert!(list.stdout.contains("second") && list.stdout.contains("\"paused\":true"), "{list:#?}");
    let plans = run(&world, &["plan", "list", "--pool", "pool", "--format", "csv"]).await;
    assert!(plans.stdout.contains("other") && plans.stdout.contains("2000"), "{plans:#?}");
    // Shown without a change, nothing is claimed.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut show = program(&world, &["plan", "show", "plan", "--pool", "pool"]);
    let done = finish(show.stdout(full).spawn().unwrap()).await;
    done.says(1, &["the output cannot be written"]);
    assert!(!done.printed.contains("the change was made"), "{done:#?}");
}

#[tokio::test]
async fn rows_that_end_with_cr_are_read_and_joined_and_damaged_files_are_named() {
    let (world, folder) = world_with_cards(4, 0).await;
    let file = |name: &str, text: String| {
        fs::write(at(&folder, name), text).unwrap();
        at(&folder, name)
    };
    let (a, b, c) = (world.code("aaaa"), world.code("bbbb"), world.code("cccc"));
    let mixed = format!("code,amount_minor\n{a},1000\r{b},1000\n");
    run(&world, &batch(&file("mixed.csv", mixed), &[])).await.says(0, &["2 items: 2 succeeded"]);

    let damaged = format!(
        "item_id,code\nx,{c}\ny,1.23457E+15\nz,=\"0012\"\nw,#N/A\nv,{c}9\u{0}\n ITEM_ID,Code\n"
    );
    let done = run(&world, &batch(&file("damaged.csv", damaged), &[])).await;
    done.says(
        3,
        &[
            "1 items: 1 succeeded",
            "5 bad rows",
            "line 3: code is a number that a spreadsheet shortened",
            "line 4: code is a formula",
            "line 5: code is the error of a spreadsheet's formula",
            "line 6: code has a NUL byte",
            "line 7: repeats the header",
        ],
    );
    assert!(!done.printed.contains("0012") && !done.printed.contains(&c), "{}", done.printed);

    let import = async |name: &str, text: &str| {
        let file = file(name, text.to_owned());
        run(&world, &["account", "import", &file, "--pool", "pool"]).await
    };
    import("cr.csv", "account_id,country_code\rx,DE\ry,AT\r").await.says(0, &["2 created"]);
    let joined = "account_id\nm\naccount_id\nn\no\u{feff}account_id\np\n";
    let done = import("joined.csv", joined).await;
    done.says(1, &["3 created", "2 bad rows", "line 3: repeats the header", "line 5: ends with"]);
    import("header.csv", "account_id\r").await.says(1, &["has no rows", "nothing was imported"]);
    import("others.csv", "account_id,pool_id\nz,q\n").await.says(1, &["1 rows is for pool pool"]);
    let list = run(&world, &["account", "list", "--pool", "pool", "--format", "csv"]).await;
    assert!(!list.stdout.contains("account_id,pool\n") && list.stdout.lines().count() == 10);
    assert!(list.stdout.lines().skip(1).all(|row| !row.contains("account_id")), "{}", list.stdout);
}
