//! `holdfast redeem-batch` and its report: the exit code, counts by reason, and advice that is right.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use holdfast::simulator::faults::{Fault, Faults, Rule};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::{
    program::{Finished, finish, program, run, signal, write_lines},
    world::World,
};

/// A folder with files of cards.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, header: &str, rows: &[String]) -> PathBuf {
        write_lines(&self.0.path().join("cards.csv"), header, rows.iter().cloned())
    }
}

/// A world whose server is not patient with its provider.
async fn impatient(provider_url: Option<&str>) -> World {
    let world = World::with(
        |args| {
            args.provider.timeout = Duration::from_millis(300);
            args.provider.connect_timeout = Duration::from_millis(200);
            args.provider.send_window = Duration::from_millis(1500);
            if let Some(url) = provider_url {
                args.provider.url = url.to_owned();
            }
        },
        1,
    )
    .await;
    world.clients(0).await.create_accounts(4).await;
    world
}

async fn redeem(world: &World, cards: &Path, batch_id: &str) -> Finished {
    let cards = cards.to_str().unwrap();
    let command = ["redeem-batch", cards, "--pool", "pool", "--batch-id", batch_id];
    run(world, &[&command[..], &["--item-timeout", "1s", "--format", "csv"]].concat()).await
}

fn busy(code: &str) -> Rule {
    Rule { code_prefix: code.to_owned(), fault: Fault::Busy, times: u32::MAX }
}

#[tokio::test]
async fn cards_that_a_busy_provider_left_unspent_are_exit_code_3_until_the_same_command_redeems_them()
 {
    let (world, files) = (impatient(None).await, Files::new());
    let [a, b, c] = ["aaaa", "bbbb", "cccc"].map(|name| world.code(name));
    let cards = files.write("code,amount_minor", &[&a, &b, &c].map(|code| format!("{code},1000")));
    world.set_faults(Faults { rules: vec![busy(&b), busy(&c)], ..Faults::default() });
    let counts = "3 items: 1 succeeded, 2 failed (2 of them to redeem again), 0 in doubt";
    let reason = "2 FAILED PROVIDER_BUSY, code not spent (line ";
    let advice = "run the same command again";
    redeem(&world, &cards, "monday").await.says(3, &[counts, reason, advice]);
    redeem(&world, &cards, "monday").await.says(3, &[counts, reason, advice]);

    world.set_faults(Faults::default());
    redeem(&world, &cards, "monday").await.says(0, &["3 items: 3 succeeded, 0 failed"]);
    let done = redeem(&world, &cards, "tuesday").await;
    done.says(0, &["3 REJECTED CODE_IN_USE", "nothing is left"]);
    assert!(done.printed.contains("line 2 by redemption "), "{}", done.printed);
    assert!(done.printed.contains(" of batch:monday:card-"), "{}", done.printed);
}

#[tokio::test]
async fn a_dry_run_counts_items_that_are_redeemed_again_and_so_does_the_summary() {
    let (world, files) = (impatient(None).await, Files::new());
    let [a, b] = ["aaaa", "bbbb"].map(|name| world.code(name));
    let cards = files.write("code,amount_minor", &[&a, &b].map(|code| format!("{code},1000")));
    world.set_faults(Faults { rules: vec![busy(&b)], ..Faults::default() });
    redeem(&world, &cards, "b").await.says(3, &["1 succeeded, 1 failed (1 of them to redeem"]);
    let name = cards.to_str().unwrap();
    let command = ["redeem-batch", name, "--pool", "pool", "--batch-id", "b", "--dry-run"];
    let dry = run(&world, &[&command[..], &["--format", "csv"]].concat()).await;
    let again = "1 rows are as it has them, 1 are redeemed again, 0 are changed";
    dry.says(0, &[again, "1 items would be redeemed"]);
    for part in [",REPEAT_OUTCOME,SUCCEEDED", ",REDEEM_AGAIN,FAILED"] {
        assert!(dry.stdout.contains(part), "{}", dry.stdout);
    }
    world.set_faults(Faults::default());
    redeem(&world, &cards, "b").await.says(0, &[again, "2 items: 2 succeeded"]);
}

#[tokio::test]
async fn cards_that_an_unreachable_provider_left_unspent_are_exit_code_3() {
    let (world, files) = (impatient(Some("http://127.0.0.1:1")).await, Files::new());
    let cards = files.write("code,amount_minor", &[format!("{},1000", world.code("aaaa"))]);
    redeem(&world, &cards, "b").await.says(
        3,
        &[
            "1 failed (1 of them to redeem again)",
            "1 FAILED PROVIDER_UNREACHABLE, code not spent",
            "run the same command again",
        ],
    );
    let unasked = files.write("code", &[world.code("bbbb")]);
    redeem(&world, &unasked, "c").await.says(
        3,
        &[
            "1 REJECTED INQUIRY_FAILED (line 2)",
            "amount_minor",
            "The same command tries them again.",
        ],
    );
}

#[tokio::test]
async fn cards_that_the_provider_refuses_are_exit_code_0_and_counted_by_reason() {
    let world = World::with_cards(&[("used", "1000,EUR,DE,used")], |_| {}, 1).await;
    world.clients(0).await.create_accounts(2).await;
    let rows = ["used", "none"].map(|name| format!("{},1000", world.code(name)));
    let files = Files::new();
    let cards = files.write("code,amount_minor", &rows);
    let done = redeem(&world, &cards, "b").await;
    done.says(
        0,
        &[
            "2 items: 0 succeeded, 2 failed, 0 in doubt",
            "1 FAILED CODE_USED, code spent (line 2): the provider refuses the card",
            "1 FAILED CODE_UNKNOWN, code not spent (line 3): the provider refuses the card",
        ],
    );
    assert!(!done.printed.contains("new --batch-id"), "{}", done.printed);
    let unasked = files.write("code", &[world.code("gone")]);
    redeem(&world, &unasked, "c").await.says(3, &["1 REJECTED CARD_NOT_REDEEMABLE"]);
}

#[tokio::test]
async fn cards_credited_with_another_amount_than_expected_are_counted_and_exit_code_3() {
    let (world, files) = (World::start().await, Files::new());
    world.clients(0).await.create_accounts(4).await;
    let rows: Vec<_> = (0..20).map(|n| format!("{},900", world.code(&format!("{n:04}")))).collect();
    let cards = files.write("code,amount_minor", &rows);
    for _ in 0..2 {
        redeem(&world, &cards, "b").await.says(
            3,
            &[
                "20 items: 20 succeeded (20 with another amount than expected)",
                "20 SUCCEEDED credited another amount (line ",
            ],
        );
    }
}

#[tokio::test]
async fn what_needs_review_and_what_is_in_doubt_are_counted_and_explained_separately() {
    let (world, files) = (World::start().await, Files::new());
    world.clients(0).await.create_accounts(4).await;
    let policy = ["pool", "update", "pool", "--amount-mismatch", "needs-review"];
    run(&world, &policy).await.says(0, &[]);
    let (review, doubt) = (world.code("aaaa"), world.code("bbbb"));
    let cards =
        files.write("code,amount_minor", &[format!("{review},900"), format!("{doubt},1000")]);
    let rules = Faults::of_card(&doubt, &[Fault::DropBeforeApply]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    redeem(&world, &cards, "b").await.says(
        3,
        &[
            "2 items: 0 succeeded, 0 failed, 1 in doubt, 1 to review, 0 rejected",
            "1 NEEDS_REVIEW AMOUNT_MISMATCH (line 2): a person must decide",
            "--state needs-review`, then `holdfast redemption resolve`",
            "1 IN_DOUBT (line 3): the outcome is not known yet",
        ],
    );
}

#[tokio::test]
async fn items_that_got_no_account_are_tried_again_by_the_same_command() {
    let (world, files) = (World::start().await, Files::new());
    let cards = files.write("code,amount_minor", &[format!("{},1000", world.code("aaaa"))]);
    redeem(&world, &cards, "b").await.says(
        3,
        &[
            "1 REJECTED NO_ACCOUNT_AVAILABLE (line 2)",
            "`holdfast account explain --pool pool` says why",
            "The same command tries them again.",
        ],
    );
    world.clients(0).await.create_accounts(1).await;
    redeem(&world, &cards, "b").await.says(0, &["1 items: 1 succeeded"]);
    run(&world, &["pool", "drain", "pool"]).await.says(0, &[]);
    let more = files.write("item_id,code", &[format!("x,{}", world.code("bbbb"))]);
    redeem(&world, &more, "b").await.says(
        3,
        &["1 REJECTED POOL_DRAINING (x)", "`holdfast pool resume pool`", "tries them again"],
    );
}

#[tokio::test]
async fn items_in_doubt_are_waited_for_at_the_end_for_as_long_as_is_asked() {
    let (world, files) = (World::start().await, Files::new());
    let mut clients = world.clients(0).await;
    clients.create_accounts(3).await;
    let (doubt, fine) = (world.code("aaaa"), world.code("bbbb"));
    let cards = files.write("code,amount_minor", &[&doubt, &fine].map(|c| format!("{c},1000")));
    let rules = Faults::of_card(&doubt, &[Fault::ErrorAfterApply]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let cards = cards.to_str().unwrap();
    let command = ["redeem-batch", cards, "--pool", "pool", "--batch-id", "b", "--format", "csv"];
    let waiting = |wait| program(&world, &[&command[..], &["--wait", wait]].concat());
    let waits = "waiting up to 1s for the outcomes of 1 items that are in doubt";
    let first = finish(waiting("1s").spawn().unwrap()).await;
    first.says(3, &[waits, "1 succeeded", "1 in doubt"]);

    let mut child = waiting("1m").spawn().unwrap();
    let mut printed = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = Vec::new();
    while let Some(line) = printed.next_line().await.unwrap() {
        if line.contains("waiting up to 1m") {
            world.set_faults(Faults::default());
        }
        lines.push(line);
    }
    let done = finish(child).await;
    assert_eq!(done.code, Some(0), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("2 items: 2 succeeded, 0 failed, 0 in doubt")));
    assert_eq!(done.stdout.matches("SUCCEEDED").count(), 2, "{}", done.stdout);
}

#[tokio::test]
async fn ctrl_c_while_items_in_doubt_are_waited_for_ends_the_wait_alone() {
    let (world, files) = (World::start().await, Files::new());
    world.clients(0).await.create_accounts(3).await;
    let (doubt, fine) = (world.code("aaaa"), world.code("bbbb"));
    let cards = files.write("code,amount_minor", &[&doubt, &fine].map(|c| format!("{c},1000")));
    let rules = Faults::of_card(&doubt, &[Fault::ErrorAfterApply]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let out = cards.with_file_name("out.csv");
    std::fs::write(&out, "old\n").unwrap();
    let command = ["redeem-batch", cards.to_str().unwrap(), "--pool", "pool", "--batch-id", "b"];
    let more = ["--wait", "10m", "--output", out.to_str().unwrap()];
    let mut child = program(&world, &[&command[..], &more].concat()).spawn().unwrap();
    let mut printed = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = Vec::new();
    while let Some(line) = printed.next_line().await.unwrap() {
        if line.contains("waiting up to 10m") {
            signal(&child, Signal::INT);
        }
        lines.push(line);
    }
    let done = finish(child).await;
    assert_eq!(done.code, Some(3), "{lines:#?}");
    for part in ["interrupted: no longer waiting for what is in doubt", "1 succeeded", "1 in doubt"]
    {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}: {lines:#?}");
    }
    let results = std::fs::read_to_string(&out).unwrap();
    assert!(results.contains(",SUCCEEDED,") && results.contains(",IN_DOUBT,"), "{results}");
}
