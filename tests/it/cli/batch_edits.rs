//! `holdfast redeem-batch` and a file that is edited between two runs: names of items, what is said before anything is
//! sent, and results in the file's order.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use tempfile::TempDir;

use crate::support::{
    program::{Finished, program, run},
    world::World,
};

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Cards worth 1000 each, under a header.
    fn cards(&self, codes: &[&String]) -> String {
        let rows: String = codes.iter().map(|code| format!("{code},1000\n")).collect();
        self.write(&format!("code,amount_minor\n{rows}"))
    }

    fn write(&self, text: &str) -> String {
        fs::write(self.at("cards.csv"), text).unwrap();
        self.at("cards.csv").to_str().unwrap().to_owned()
    }
}

async fn world() -> World {
    let world = World::start().await;
    world.clients(0).await.create_accounts(4).await;
    world
}

async fn redeem(world: &World, cards: &str, more: &[&str]) -> Finished {
    let command = ["redeem-batch", cards, "--pool", "pool", "--batch-id", "b", "--format", "csv"];
    run(world, &[&command[..], more].concat()).await
}

/// Columns of the results, row by row.
fn columns(finished: &Finished, names: &[&str]) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_reader(finished.stdout.as_bytes());
    let header = reader.headers().unwrap().clone();
    let at: Vec<_> = names
        .iter()
        .map(|name| header.iter().position(|column| column == *name).unwrap())
        .collect();
    let rows = reader.records().map(Result::unwrap);
    rows.map(|row| at.iter().map(|at| row[*at].to_owned()).collect()).collect()
}

#[tokio::test]
async fn a_row_that_is_put_in_between_is_redeemed_and_the_others_are_told_again() {
    let (world, files) = (world().await, Files::new());
    let [a, b, c, new] = ["aaaa", "bbbb", "cccc", "new0"].map(|name| world.code(name));
    let done = redeem(&world, &files.cards(&[&a, &b, &c]), &[]).await;
    done.says(0, &["3 items: 3 succeeded"]);
    assert!(!done.printed.contains("compared with"), "{}", done.printed);

    let done = redeem(&world, &files.cards(&[&new, &a, &c, &b]), &[]).await;
    let last4 = &new[new.len() - 4..];
    done.says(
        0,
        &[
            "4 items: 4 succeeded",
            &format!("not begun yet: line 2, card …{last4}\n"),
            "3 rows are as it has them, 0 are changed, 1 are not begun yet; 0 of its items are not in the file",
        ],
    );
    let before = done.printed.find("not begun yet").unwrap();
    assert!(before < done.printed.find("4 items").unwrap());
    let rows = columns(&done, &["line", "code_last4", "outcome", "replayed"]);
    let expected = [(2, &new, "false"), (3, &a, "true"), (4, &c, "true"), (5, &b, "true")].map(
        |(line, code, replayed)| {
            [&line.to_string(), &code[code.len() - 4..], "SUCCEEDED", replayed].map(str::to_owned)
        },
    );
    assert_eq!(rows, expected);
    for code in [&a, &b, &c, &new] {
        let plain = code.replace('-', "");
        assert!(!done.stdout.contains(code.as_str()) && !done.stdout.contains(&plain));
    }
}

#[tokio::test]
async fn another_key_makes_other_names_says_so_and_redeems_no_card_twice() {
    let (world, files) = (world().await, Files::new());
    let [a, b] = ["aaaa", "bbbb"].map(|name| world.code(name));
    let cards = files.cards(&[&a, &b]);
    redeem(&world, &cards, &[]).await.says(0, &["2 items: 2 succeeded"]);
    let key = files.at("deep/other.key");
    let done = redeem(&world, &cards, &["--item-key-file", key.to_str().unwrap()]).await;
    done.says(
        0,
        &[
            "made the key ",
            "2 are not begun yet; 2 of its items are not in the file",
            "2 of them were named with another key",
            "2 rejected (2 of them redeemed already)",
        ],
    );
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let done = redeem(&world, &cards, &["--item-key-file", key.to_str().unwrap()]).await;
    assert!(!done.printed.contains("made the key"), "{}", done.printed);
    // Another machine that has the key makes the same names.
    let copy = files.at("copy.key");
    let own = concat!(env!("CARGO_TARGET_TMPDIR"), "/item.key");
    fs::copy(own, &copy).unwrap();
    let done = redeem(&world, &cards, &["--item-key-file", copy.to_str().unwrap()]).await;
    done.says(0, &["2 rows are as it has them", "2 items: 2 succeeded"]);
}

#[tokio::test]
async fn items_named_after_lines_by_versions_before_are_not_redeemed_twice() {
    let (world, files) = (world().await, Files::new());
    let [a, b, new] = ["aaaa", "bbbb", "new0"].map(|name| world.code(name));
    let old = format!("item_id,code,amount_minor\nline-2,{a},1000\nline-3,{b},1000\n");
    redeem(&world, &files.write(&old), &[]).await.says(0, &["2 items: 2 succeeded"]);
    let done = redeem(&world, &files.cards(&[&new, &a, &b]), &[]).await;
    done.says(
        0,
        &[
            "2 of them are named after lines",
            "not in the file: item line-2",
            "3 items: 1 succeeded",
            "2 rejected (2 of them redeemed already)",
            " of batch:b:line-3",
            "the card was redeemed already",
        ],
    );
}

#[tokio::test]
async fn what_was_changed_is_said_row_by_row_before_anything_is_sent() {
    let (world, files) = (world().await, Files::new());
    let [a, b, c, d] = ["aaaa", "bbbb", "cccc", "dddd"].map(|name| world.code(name));
    let text = format!("item_id,code,amount_minor\nx,{a},1000\ny,{b},1000\nz,{c},1000\n");
    redeem(&world, &files.write(&text), &[]).await.says(0, &["3 items: 3 succeeded"]);
    let text = format!("item_id,code,amount_minor\nx,{a},900\ny,{d},1000\n");
    redeem(&world, &files.write(&text), &[]).await.says(
        3,
        &[
            "changed: line 2, ",
            "its amount is 900, and the batch has 1000 for it (SUCCEEDED)",
            "changed: line 3, ",
            "it is another card: the batch has …",
            "not in the file: item z, ",
            "0 rows are as it has them, 2 are changed, 0 are not begun yet; 1 of its items are not",
            "2 REJECTED REQUEST_ID_REUSED (x, y)",
        ],
    );
}

#[tokio::test]
async fn the_same_card_twice_is_a_bad_row_and_bad_rows_are_results_in_their_place() {
    let (world, files) = (world().await, Files::new());
    let [a, b] = ["aaaa", "bbbb"].map(|name| world.code(name));
    let lower = a.to_lowercase();
    let text = format!("code,amount_minor\nx,1\n{a},1000\n{b},ten\n{lower},1000\n\n,\n");
    let done = redeem(&world, &files.write(&text), &[]).await;
    done.says(
        3,
        &[
            "line 5: code is the same card as on line 3",
            "1 succeeded",
            "3 bad rows",
            "2 blank rows",
        ],
    );
    let rows = columns(&done, &["line", "outcome", "code_last4", "reason", "message"]);
    let ends = [&a, &b].map(|code| code[code.len() - 4..].to_owned());
    let told: Vec<_> = rows.iter().map(|row| row[..4].join("|")).collect();
    let expected = [
        "2|BAD_ROW||BAD_ROW".to_owned(),
        format!("3|SUCCEEDED|{}|", ends[0]),
        format!("4|BAD_ROW|{}|BAD_ROW", ends[1]),
        format!("5|BAD_ROW|{}|BAD_ROW", lower[lower.len() - 4..].to_owned()),
    ];
    assert_eq!(told, expected);
    assert_eq!(rows[3][4], "code is the same card as on line 3");
}

#[tokio::test]
async fn a_dry_run_checks_and_compares_and_sends_nothing() {
    let (world, files) = (world().await, Files::new());
    let [a, b, c] = ["aaaa", "bbbb", "cccc"].map(|name| world.code(name));
    redeem(&world, &files.cards(&[&a, &b]), &[]).await.says(0, &["2 succeeded"]);
    let text = format!("code,amount_minor\n{a},1000\nx,1\n{c},1000\n");
    let cards = files.write(&text);
    fs::write(files.at("out.csv"), "old\n").unwrap();
    let out = files.at("out.csv");
    let done = redeem(&world, &cards, &["--dry-run", "--output", out.to_str().unwrap()]).await;
    done.says(3, &["dry run: 1 items would be redeemed; 1 bad rows. Nothing was sent"]);
    let rows = columns(&done, &["line", "would", "state"]);
    let expected =
        ["2|REPEAT_OUTCOME|SUCCEEDED", "3|NOT_BE_SENT|", "4|REDEEM|", "|NOT_BE_SENT|SUCCEEDED"];
    assert_eq!(rows.iter().map(|row| row.join("|")).collect::<Vec<_>>(), expected);
    assert_eq!(fs::read_to_string(&out).unwrap(), "old\n");
    let mut sql = world.sql().await;
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM redemptions").fetch_one(&mut sql).await.unwrap();
    assert_eq!(count, 2);
    redeem(&world, &files.cards(&[&a, &c]), &["--dry-run"]).await.says(0, &["1 items would be"]);
}

#[tokio::test]
async fn a_batch_that_is_interrupted_leaves_whole_results_where_there_were_none() {
    use std::time::Duration;

    use holdfast::simulator::faults::Faults;
    use rustix::process::Signal;

    use crate::support::{
        program::{finish, signal},
        wait::eventually,
    };

    let (world, files) = (world().await, Files::new());
    let codes: Vec<_> = (0..300).map(|n| world.code(&format!("{n:04}"))).collect();
    let cards = files.cards(&codes.iter().collect::<Vec<_>>());
    world.set_faults(Faults { latency: "200ms".parse().unwrap(), ..Faults::default() });
    let out = files.at("out.csv");
    let command = [
        "redeem-batch",
        &*cards,
        "--pool",
        "pool",
        "--batch-id",
        "b",
        "--output",
        out.to_str().unwrap(),
    ];
    let child = program(&world, &command).spawn().unwrap();
    let mut sql = world.sql().await;
    eventually(Duration::from_secs(60), "some cards are credited", async || {
        let count = "SELECT count(*) FROM redemptions WHERE state = 'SUCCEEDED'";
        let count: i64 = sqlx::query_scalar(count).fetch_one(&mut sql).await.unwrap();
        (count > 4).then_some(())
    })
    .await;
    let second = run(&world, &command).await;
    second.says(1, &["another run is writing its results to"]);
    signal(&child, Signal::INT);
    let done = finish(child).await;
    done.says(1, &["interrupted", "so far: ", " were not begun", "the results so far are in "]);
    let results = fs::read_to_string(&out).unwrap();
    let lines: Vec<_> = results.lines().skip(1).map(|row| row.split(',').nth(2).unwrap()).collect();
    let expected: Vec<_> = (2..302).map(|line| line.to_string()).collect();
    assert_eq!(lines, expected);
    assert!(results.contains(",SUCCEEDED,") && results.contains(",NOT_BEGUN,"));
    let left: Vec<_> = fs::read_dir(files.0.path()).unwrap().map(|it| it.unwrap().path()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
