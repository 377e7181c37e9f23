//! Profiles that are refused: with all that is wrong, and its lines.

use std::{fs, os::unix::fs::PermissionsExt as _};

use tonic::Code;
use tonic_types::StatusExt as _;

use super::{apply, check, get, give_secret, line_of, profile, world_with};
use crate::support::world::{Clients, bad_fields};

/// Asserts that a profile is refused with these faults, each at its line, and that nothing is kept of it.
async fn is_refused(clients: &mut Clients, text: &str, faults: &[(usize, &str)]) {
    let told = check(clients, text).await;
    assert!(told.provider.is_none());
    assert_eq!(usize::try_from(told.fault_count).unwrap(), told.faults.len());
    for (line, part) in faults {
        let line = i32::try_from(*line).unwrap();
        let found = told.faults.iter().any(|it| it.line == line && it.message.contains(part));
        assert!(found, "{line}: {part}: {told:#?}");
    }
    let lines: Vec<_> = told.faults.iter().map(|fault| fault.line).collect();
    assert!(lines.is_sorted(), "{lines:?}");

    let error = apply(clients, text).await.unwrap_err();
    assert!(bad_fields(&error).iter().all(|field| field == "profile"), "{error:?}");
    let violations = error.get_error_details();
    let violations = &violations.bad_request().unwrap().field_violations;
    for (line, part) in faults {
        let start = format!("line {line}: ");
        let is_it = |text: &str| {
            text.starts_with(&start) && text.contains(&part[..part.floor_char_boundary(20)])
        };
        assert!(violations.iter().any(|it| is_it(&it.description)), "{line}: {part}: {error:?}");
    }
    assert_eq!(get(clients, "shop", 0).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn all_faults_of_a_profile_are_told_at_once_each_with_its_line() {
    let (_world, mut clients) = world_with(&["shop"]).await;
    let text = profile("shop", 1)
        .replacen("[http]", "[http]\ncolour = \"red\"", 1)
        .replacen("https://cards.example", "http://cards.example", 1)
        .replacen("dedup = \"replay\"", "dedup = \"maybe\"", 1)
        .replacen("{{ account.id }}", "{{ account.name }}", 1)
        .replacen("[422], has = [\"/key\"]", "[422], has = [\"key\"]", 1);
    is_refused(
        &mut clients,
        &text,
        &[
            (line_of(&text, "colour"), "unknown key colour"),
            (line_of(&text, "base"), "http.base"),
            (line_of(&text, "dedup"), "identity.dedup must be"),
            (line_of(&text, "body = { key"), "account.name"),
            (line_of(&text, "when = { status = [422]"), "op.send.rule.when.has must be a pointer"),
        ],
    )
    .await;
    let text = profile("shop", 1).replacen("[http]", "[http]\n\"a\\nb\\u001b[0m\" = 1", 1);
    let line = line_of(&text, "\"a");
    is_refused(&mut clients, &text, &[(line, "unknown key a\u{fffd}b\u{fffd}[0m in http")]).await;
    let text = "id = \"shop\"\nversion =\n[http\n";
    is_refused(&mut clients, text, &[(2, "not TOML"), (3, "not TOML")]).await;
    is_refused(&mut clients, "", &[(1, "id is missing"), (1, "op is missing")]).await;
    let long = format!("{}#{}", profile("shop", 1), "x".repeat(256 * 1024));
    is_refused(&mut clients, &long, &[(1, "longer than 256 KiB")]).await;
}

#[tokio::test]
async fn cases_that_mean_something_else_and_missing_secrets_are_faults_together() {
    let (world, mut clients) = world_with(&["other"]).await;
    let text = profile("shop", 1)
        .replacen("amount_minor = 1000", "amount_minor = 1001", 1)
        .replacen("then = \"in_doubt\"", "then = \"succeeded\"", 1)
        .replacen(
            "base =",
            "headers = { x-shop = \"{{ secret.shop-id }}\", x-a = \"{{ secret.open }}\" }\nbase =",
            1,
        );
    give_secret(&world, "shop", "open", "hush-open");
    let folder = world.args().secrets_dir.as_ref().unwrap().join("shop");
    fs::set_permissions(folder.join("open"), fs::Permissions::from_mode(0o666)).unwrap();
    let cases: Vec<_> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| *line == "[[case]]")
        .map(|(n, _)| n + 1)
        .collect();
    let faults = [
        (line_of(&text, "headers"), "secret.shop-id is missing on this server"),
        (line_of(&text, "headers"), "secret.open cannot be used"),
        (line_of(&text, "token"), "secret.token is missing on this server"),
        (cases[0], "the case's amount is 1000, not 1001"),
        (cases[1], "the case means in_doubt, not succeeded"),
    ];
    is_refused(&mut clients, &text, &faults).await;
    let told = format!("{:?}", check(&mut clients, &text).await);
    assert!(!told.contains("hush"), "{told}");

    // Each is a fault by itself, too.
    let right = profile("shop", 1);
    is_refused(&mut clients, &right, &[(line_of(&right, "token"), "secret.token is missing")])
        .await;
    give_secret(&world, "shop", "token", "hush");
    let wrong = right.replacen("amount_minor = 1000", "amount_minor = 1001", 1);
    is_refused(&mut clients, &wrong, &[(line_of(&wrong, "[[case]]"), "not 1001")]).await;
    apply(&mut clients, &right).await.unwrap();
}

#[tokio::test]
async fn a_check_tells_more_faults_than_an_error_has_room_for() {
    let (_world, mut clients) = world_with(&["shop"]).await;
    let unknown: String = (0..5000).map(|n| format!("key-{n:04} = 1\n")).collect();
    let text = profile("shop", 1).replacen("[http]", &format!("{unknown}[http]"), 1);
    let told = check(&mut clients, &text).await;
    assert_eq!((told.fault_count, told.faults.len()), (5000, 5000));
    let error = apply(&mut clients, &text).await.unwrap_err();
    let named = bad_fields(&error).len();
    assert!((4..5000).contains(&named), "{named}");
    assert!(error.message().contains("more"), "{error:?}");
    // More than a page's bytes: they are counted.
    let told = check(&mut clients, &"=\n".repeat(40_000)).await;
    assert!(told.fault_count >= 40_000, "{}", told.fault_count);
    assert!((1000..40_000).contains(&told.faults.len()), "{}", told.faults.len());
}
