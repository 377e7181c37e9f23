//! Files of cards and accounts as spreadsheets write them, and CSV that is exported.

use std::{fs, io::Write as _, process::Stdio};

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use crate::support::{
    program::{Finished, finish, program, run},
    world::World,
};

async fn world() -> (World, TempDir) {
    let world = World::start().await;
    world.clients(0).await.create_accounts(2).await;
    (world, tempfile::tempdir().unwrap())
}

fn write(folder: &TempDir, bytes: impl AsRef<[u8]>) -> String {
    let file = folder.path().join("file.csv");
    fs::write(&file, bytes).unwrap();
    file.to_str().unwrap().to_owned()
}

fn utf_16(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Runs a command that reads `text` from standard input.
async fn piped(world: &World, arguments: &[&str], text: &str) -> Finished {
    let mut child = program(world, arguments).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).await.unwrap();
    drop(stdin);
    finish(child).await
}

#[tokio::test]
async fn cards_from_a_spreadsheet_are_read_as_they_are() {
    let (world, folder) = world().await;
    let code = |n: u32| world.code(&format!("{n:04}"));
    let batch = |file: &str, id: &str, more: &[&str]| {
        let mut arguments: Vec<String> =
            ["redeem-batch", file, "--pool", "pool", "--batch-id", id].map(str::to_owned).to_vec();
        arguments.extend(more.iter().map(|it| (*it).to_owned()));
        arguments
    };
    let redeem = async |bytes: &[u8], id: &str, more: &[&str]| {
        let arguments = batch(&write(&folder, bytes), id, more);
        run(&world, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let semicolons = format!("sep=;\r\nCode;Amount Minor\r\n{};1000\r\n;\r\n", code(1));
    let done = redeem(semicolons.as_bytes(), "a", &[]).await;
    done.says(0, &["1 items: 1 succeeded", "1 blank rows skipped"]);
    let sheet = format!("Card Number\tValue\tShop\r\n{}\t€10,00\tx\r\n", code(2));
    let done = redeem(&utf_16(&sheet), "b", &[]).await;
    done.says(1, &["names none of the columns"]);
    let flags = [
        "--map",
        "card number=code",
        "--map",
        "value=amount",
        "--ignore-columns",
        "--amounts",
        "major",
    ];
    redeem(&utf_16(&sheet), "b", &flags).await.says(0, &["1 items: 1 succeeded"]);
    let done = redeem(&utf_16(&sheet), "b", &flags[..4]).await;
    done.says(1, &["--map value=amount: there is no such column", "unknown columns"]);
    let wrong = format!("code;amount\n{};10.0\n{};20.00\n", code(3), code(4));
    redeem(wrong.as_bytes(), "c", &["--amounts", "major"]).await.says(
        3,
        &[
            "line 2: amount_minor must have 2 digits after the point or comma",
            "1 succeeded (1 with another amount than expected)",
        ],
    );
    redeem(wrong.as_bytes(), "c", &[]).await.says(1, &["say --amounts major (10.00)"]);
    redeem(b"code\n", "d", &["--map", "code"]).await.says(2, &["must be written as HEADER=COLUMN"]);

    let text = format!("code,amount_minor\n{},1000\n", code(5));
    let arguments = batch("-", "e", &[]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    piped(&world, &arguments, &text).await.says(0, &["1 items: 1 succeeded"]);
    piped(&world, &arguments, &text).await.says(0, &["1 rows are as it has them", "1 succeeded"]);
    piped(&world, &arguments, "").await.says(1, &["standard input", "it is empty"]);
    // A pipe has a name where a shell makes one.
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let writing = tokio::task::spawn_blocking({
        let (pipe, text) = (pipe.clone(), format!("code,amount_minor\n{},1000\n", code(6)));
        move || fs::OpenOptions::new().write(true).open(pipe).unwrap().write_all(text.as_bytes())
    });
    let arguments = batch(pipe.to_str().unwrap(), "f", &[]);
    let done = run(&world, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
    done.says(0, &["1 items: 1 succeeded"]);
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn accounts_are_read_as_they_are_and_from_standard_input() {
    let (world, folder) = world().await;
    let import = ["account", "import", "-", "--pool", "pool"];
    let text = "Account ID;Country Code;Balance\nx;DE;12,50\ny;;0,00\n";
    let amounts = [&import[..], &["--amounts", "major"]].concat();
    let dry = [&amounts[..], &["--dry-run"]].concat();
    piped(&world, &dry, text).await.says(0, &["dry run: 2 accounts would be created, 0 exist"]);
    piped(&world, &amounts, text).await.says(0, &["2 created"]);
    let done = piped(&world, &dry, text).await;
    done.says(1, &["line 2: account_id exists already", "0 accounts would be created, 2 exist"]);
    let list = ["account", "list", "--pool", "pool", "--format", "csv"];
    let listed = run(&world, &list).await;
    assert!(listed.stdout.contains("x,") && listed.stdout.contains(",1250,"), "{}", listed.stdout);

    for (name, why) in [
        ("an\u{200b}na", "characters that are not seen"),
        ("\u{202e}anna", "characters that are not seen"),
        ("a\u{308}nna", "normal form C"),
    ] {
        let file = write(&folder, format!("account_id\n{name}\n"));
        let import = ["account", "import", &*file, "--pool", "pool"];
        run(&world, &import).await.says(1, &["line 2: account_id must", why]);
        let show = run(&world, &["account", "show", name, "--pool", "pool"]).await;
        show.says(2, &[why]);
    }
}

#[tokio::test]
async fn cells_that_a_spreadsheet_would_run_are_defused_and_read_back() {
    let (world, folder) = world().await;
    let text = "account_id,labels,balance_minor\n'=SUM(A1),'-k=v,5\n'@cmd,,\n+49,,\n'- x,,\n";
    let file = write(&folder, text);
    run(&world, &["account", "import", &file, "--pool", "pool"]).await.says(0, &["4 created"]);
    let list = ["account", "list", "--pool", "pool", "--format"];
    let csv = run(&world, &[&list[..], &["csv"]].concat()).await;
    for cell in ["'=SUM(A1)", "'@cmd", "'+49", "'- x", "'-k=v"] {
        assert!(csv.stdout.contains(cell), "{cell}: {}", csv.stdout);
    }
    let json = run(&world, &[&list[..], &["json"]].concat()).await;
    assert!(json.stdout.contains("\"=SUM(A1)\"") && json.stdout.contains("\"-k\":\"v\""));
    let exported = write(&folder, &csv.stdout);
    let again =
        ["account", "import", &*exported, "--pool", "pool", "--ignore-columns", "--dry-run"];
    run(&world, &again)
        .await
        .says(1, &["0 accounts would be created, 6 exist already, 0 bad rows"]);
}
