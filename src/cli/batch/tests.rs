//! A whole batch against a server that loses its connection.

use std::{io::Write as _, sync::atomic::Ordering};

use super::*;
use crate::cli::shared::{
    client::Server,
    csv_files::Options,
    fake::{Fake, serve},
};

/// Ten good cards, a bad one, and one of another pool.
fn file() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "code,pool_id\nx,p\nOTHER-POOL,q").unwrap();
    for n in 0..10 {
        writeln!(file, "CODE-{n:04},").unwrap();
    }
    file
}

pub(super) fn batch() -> Batch {
    Batch {
        pool_id: PoolId::parse("p").unwrap(),
        batch_id: BatchId::parse("b").unwrap(),
        holder: Holder::parse("h").unwrap(),
        plan: None,
        max_in_flight: 1,
        item_timeout: Duration::from_secs(1),
        priority: 3,
        not_before: None,
        reconnect_for: Duration::from_millis(200),
        wait: Duration::ZERO,
        item_key: ItemKeyArgs::in_file(std::env::temp_dir().join("holdfast-test-item.key")),
    }
}

/// Checks and runs it.
async fn redeem_file(
    server: &Server,
    file: &tempfile::NamedTempFile,
    each: impl FnMut(&Outcome) -> anyhow::Result<()>,
) -> (Done, anyhow::Result<()>) {
    let (cards, progress) =
        (CardFile::open(file.path(), Options::default()).unwrap(), Progress::new("p".into()));
    let ready = prepare(server, &batch(), &cards, &progress).await.unwrap();
    redeem(server, &ready, &progress, std::future::pending(), each).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_after_a_lost_connection_and_tells_every_outcome_once() {
    let fake = Fake { lose: 2, ..Fake::default() };
    let server = serve(fake.clone()).await;
    let mut told = Vec::new();
    let (done, ended) = redeem_file(&server, &file(), |outcome| {
        told.push(outcome.row()[0].as_str().unwrap().to_owned());
        Ok(())
    })
    .await;

    ended.unwrap();
    assert_eq!(fake.opened.load(Ordering::Relaxed), 3);
    told.sort();
    told.dedup();
    assert_eq!((told.len(), done.tally.succeeded), (10, 10));
    assert_eq!((done.file.items, done.file.bad_rows, done.file.skipped), (10, 1, 1));
    assert!(done.wants_a_look());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_gets_no_further_fails_and_tells_what_is_known() {
    let fake = Fake { lose: u32::MAX, silent_after: Some(1), ..Fake::default() };
    let server = serve(fake.clone()).await;
    let mut told = 0;
    let (done, ended) = redeem_file(&server, &file(), |_| {
        told += 1;
        Ok(())
    })
    .await;

    let error = ended.unwrap_err();
    assert!(error.to_string().contains("did not come back within 200ms"), "{error}");
    assert_eq!((told, done.tally.succeeded), (2, 2));
    assert!(fake.opened.load(Ordering::Relaxed) > 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_the_server_was_heard_begins_the_time_to_reconnect_anew() {
    // Of all openings but the first nothing is new. Waiting twice as long after each would take minutes.
    let fake = Fake { lose: 20, ..Fake::default() };
    let server = serve(fake.clone()).await;
    let (done, ended) = redeem_file(&server, &file(), |_| Ok(())).await;
    ended.unwrap();
    assert_eq!((fake.opened.load(Ordering::Relaxed), done.tally.succeeded), (21, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_listed_is_not_compared_and_says_why() {
    let server = serve(Fake::default()).await;
    let file = file();
    let (cards, progress) =
        (CardFile::open(file.path(), Options::default()).unwrap(), Progress::new("p".into()));
    let ready = prepare(&server, &batch(), &cards, &progress).await.unwrap();
    let why = compare::recorded(&server, &batch(), &ready.index).await.err().unwrap();
    assert!(matches!(why, NotCompared::Failed(_)), "{why}");
    let told = why.to_string();
    assert!(told.starts_with("the file is not compared with the batch: "), "{told}");
    assert!(told.contains("not part of this test"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_changed_while_the_batch_ran_have_no_outcome_and_that_is_an_error() {
    let server = serve(Fake::default()).await;
    let file = file();
    let (cards, progress) =
        (CardFile::open(file.path(), Options::default()).unwrap(), Progress::new("p".into()));
    let ready = prepare(&server, &batch(), &cards, &progress).await.unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    std::fs::write(file.path(), text.replace("CODE-0004", "CODE-9999")).unwrap();
    let mut sheet = Sheet::new(std::sync::Arc::clone(&ready.index)).unwrap();
    let stopped = std::future::pending();
    let (_, ended) =
        redeem(&server, &ready, &progress, stopped, |outcome| sheet.put(outcome)).await;
    ended.unwrap();
    let pool = batch().pool_id;
    let file = (&ready.cards, &pool, &*ready.names);
    let mut rows = 0;
    let left = sheet.finish(file, ("UNKNOWN", ""), |_| {
        rows += 1;
        Ok(())
    });
    assert_eq!((left.unwrap(), rows), (1, 11));
    assert!(all_told(1).unwrap_err().to_string().contains("changed meanwhile"));
    all_told(0).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_fails_is_written_to_once_and_ends_the_batch() {
    let server = serve(Fake::default()).await;
    let mut tries = 0;
    let (_, ended) = redeem_file(&server, &file(), |_| {
        tries += 1;
        anyhow::bail!("full")
    })
    .await;
    assert_eq!((tries, &*ended.unwrap_err().to_string()), (1, "full"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_between_two_readings_is_found_out() {
    let server = serve(Fake::default()).await;
    let mut file = file();
    let (cards, progress) =
        (CardFile::open(file.path(), Options::default()).unwrap(), Progress::new("p".into()));
    let ready = prepare(&server, &batch(), &cards, &progress).await.unwrap();
    writeln!(file, "CODE-0010,").unwrap();
    let (_, ended) = redeem(&server, &ready, &progress, std::future::pending(), |_| Ok(())).await;
    assert!(ended.unwrap_err().to_string().contains("changed meanwhile"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_rows_is_an_error_and_so_is_one_that_is_no_file() {
    let server = serve(Fake::default()).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "code\r\n\r").unwrap();
    let (cards, progress) =
        (CardFile::open(file.path(), Options::default()).unwrap(), Progress::new("p".into()));
    let error = prepare(&server, &batch(), &cards, &progress).await.err().unwrap();
    assert!(error.to_string().contains("has no rows"), "{error}");
    for no_file in ["/dev/null", "/"] {
        let error = CardFile::open(Path::new(no_file), Options::default()).unwrap_err().to_string();
        assert!(error.contains("is not a file"), "{error}");
    }
}
