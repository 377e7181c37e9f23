//! `holdfast subscription`, as people run it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::receiver::{Answer, Receiver};
use crate::{
    support::{
        program::run,
        wait::eventually,
        world::{POOL, World},
    },
    watch::redeem,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_made_followed_changed_and_deleted() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let receiver = Receiver::start().await;
    receiver.answer(|got| Answer::Status(if got.account_id() == "a-000" { 404 } else { 200 }));
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("ledger.secret");
    let (url, out_text) = (receiver.url(), out.to_str().unwrap().to_owned());
    let call = async |arguments: &[&str]| {
        let arguments = [&["subscription"][..], arguments, &["--pool", POOL]].concat();
        run(&world, &arguments).await
    };
    let made = call(&["create", "ledger", "--url", &url, "--out", &out_text]).await;
    made.says(0, &["the secret of subscription ledger is in"]);
    let secret = fs::read_to_string(&out).unwrap();
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!made.printed.contains(secret.trim()));
    call(&["create", "other", "--url", &url, "--out", &out_text])
        .await
        .says(1, &["is there already"]);
    call(&["create", "ledger", "--url", &url])
        .await
        .says(1, &["SUBSCRIPTION_ALREADY_EXISTS", "holdfast subscription list"]);
    redeem(&mut clients, &world.code("bad0"), "a-000").await.unwrap();
    // It is seen to be at fault by one that is taken after it.
    receiver.gets(1).await;
    let good = redeem(&mut clients, &world.code("good"), "a-001").await.unwrap();
    let got = receiver.takes([&good.redemption_id]).await;
    assert!(got[0].is_signed_by(secret.trim()));
    eventually(super::LIMIT, "one is tried again", async || {
        let listed = call(&["deliveries", "ledger", "--format", "csv"]).await;
        listed.stdout.contains("HTTP 404").then_some(())
    })
    .await;
    let shown = call(&["show", "ledger", "--format", "json"]).await.stdout;
    assert!(shown.contains("\"retrying\":1") && shown.contains("\"dead\":0"), "{shown}");
    assert!(call(&["list"]).await.stdout.contains("ledger"));
    let updated = call(&["update", "ledger", "--pause", "--state", "succeeded"]).await;
    assert!(updated.says(0, &[]).stdout.contains("SUCCEEDED"), "{updated:?}");
    call(&["update", "ledger"]).await.says(2, &["--resume"]);
    let rotated = call(&["rotate-secret", "ledger", "--overlap", "1h"]).await;
    assert!(rotated.says(0, &["not shown again"]).stdout.starts_with("whsec_"));
    call(&["retry", "ledger", "--all-dead"]).await.says(0, &["0 deliveries are tried again"]);
    call(&["delete", "ledger"]).await.says(0, &["is deleted"]);
    call(&["show", "ledger"]).await.says(1, &["SUBSCRIPTION_NOT_FOUND"]);
}
