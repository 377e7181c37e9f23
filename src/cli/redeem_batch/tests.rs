//! A whole batch against a server that loses its connection.

use std::{io::Write as _, sync::atomic::Ordering};

use super::*;
use crate::cli::fake::{Fake, serve};

/// Ten good cards, a bad one, and one of another pool.
fn file() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "code,pool_id\nx,p\nOTHER-POOL,q").unwrap();
    for n in 0..10 {
        writeln!(file, "CODE-{n:04},").unwrap();
    }
    file
}

fn batch(file: &tempfile::NamedTempFile) -> Batch {
    Batch {
        file: file.path().to_owned(),
        pool_id: PoolId::parse("p").unwrap(),
        batch_id: BatchId::parse("b").unwrap(),
        holder: Holder::parse("h").unwrap(),
        plan: None,
        max_in_flight: 1,
        item_timeout: Duration::from_secs(1),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_after_a_lost_connection_and_tells_every_outcome_once() {
    let fake = Fake { lose: 2, ..Fake::default() };
    let server = serve(fake.clone()).await;
    let file = file();
    let mut told = Vec::new();
    let done = redeem(&server, &batch(&file), &Progress::new("p".into()), |outcome| {
        told.push(outcome.row()[0].as_str().unwrap().to_owned());
        Ok(())
    })
    .await
    .unwrap();

    assert_eq!(fake.opened.load(Ordering::Relaxed), 3);
    told.sort();
    told.dedup();
    assert_eq!((told.len(), done.tally.succeeded), (10, 10));
    assert_eq!((done.file.items, done.file.bad_rows, done.file.skipped), (10, 1, 1));
    assert!(done.wants_a_look());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_gets_further_is_given_up() {
    let fake = Fake { lose: u32::MAX, ..Fake::default() };
    let server = serve(fake.clone()).await;
    let file = file();
    let mut told = 0;
    let error = redeem(&server, &batch(&file), &Progress::new("p".into()), |_| {
        told += 1;
        Ok(())
    })
    .await
    .unwrap_err();

    assert!(error.to_string().contains("run the same command again"), "{error}");
    assert_eq!(told, 2);
    assert_eq!(fake.opened.load(Ordering::Relaxed), 6);
}
