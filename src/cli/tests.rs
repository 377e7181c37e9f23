use clap::{Args as _, CommandFactory as _};

use super::*;

#[test]
fn the_commands_fit_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_flag_of_serve_has_a_variable() {
    let serve = crate::config::ServeArgs::augment_args(clap::Command::new("serve"));
    for flag in serve.get_arguments() {
        let variable = flag.get_env().map(|name| name.to_string_lossy().into_owned());
        let name = flag.get_long().unwrap_or_default().replace('-', "_").to_uppercase();
        assert_eq!(variable, Some(format!("HOLDFAST_{name}")));
    }
}

#[test]
fn an_address_that_the_simulator_cannot_read_is_answered_with_how_to_write_one() {
    let words = ["holdfast", "simulate-provider", "--ledger=l", "--listen=localhost:50080"];
    let error = Cli::try_parse_from(words).unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:50051"), "{error}");
}

#[test]
fn every_flag_of_the_simulator_has_a_variable() {
    let simulator = holdfast_simulator::SimulatorArgs::augment_args(clap::Command::new("s"));
    for flag in simulator.get_arguments() {
        let variable = flag.get_env().map(|name| name.to_string_lossy().into_owned());
        let name = flag.get_long().unwrap_or_default().replace('-', "_").to_uppercase();
        assert_eq!(variable, Some(format!("HOLDFAST_SIMULATOR_{name}")));
    }
}

#[test]
fn commands_are_read_as_they_are_documented() {
    for line in [
        "serve",
        "serve --listen 127.0.0.1:0 --data-dir d --provider-timeout 3s --log debug",
        "migrate --database-url postgres://localhost/x",
        "demo",
        "demo --stay --accounts a.csv --cards c.csv",
        "simulate-provider --listen 127.0.0.1:0 --ledger l.jsonl --fault-busy 5",
        "pool create p --currency EUR",
        "pool create p --currency EUR --default-lease 60s --min-lease 1s --max-lease 10m --amount-mismatch needs-review",
        "pool create p --currency EUR --provider square",
        "pool list --format json",
        "serve --auth off --reflection off --insecure-listen --access-file a.toml",
        "serve --jwt-issuer i --jwt-audience a --jwt-jwks-url https://i.example/k --jwt-clock-skew 30s",
        "token create till-7 --role redeemer --pools shop-* --lifetime 30d --out t.token",
        "token create first --role admin --pools * --database-url postgres://localhost/x",
        "token create two --role redeemer --pools a --role operator --pools b-* --token-file t",
        "token list --format json",
        "token revoke till-7 --server http://127.0.0.1:1",
        "provider check f.toml",
        "provider apply f.toml",
        "provider apply f.toml --dry-run --format json --server http://127.0.0.1:1",
        "provider list --format csv",
        "provider show square",
        "provider show square --version 2 --format json",
        "provider show square --file-only",
        "pool create p --currency EUR --holder-share-percent 30 --hold-login-invalid 2h --hold-limit-reached 1h --hold-throttled 30s --hold-longest 12h",
        "pool update p --max-lease 5m --amount-mismatch accept",
        "pool update p --holder-share-percent 100 --hold-longest 0s",
        "pool pause p",
        "pool drain p",
        "pool drain p --wait --format json",
        "lease end a --pool p --format json",
        "completions fish",
        "man --output pages",
        "pool resume p --server http://127.0.0.1:1",
        "plan create s --pool p --target 50000",
        "plan create s --pool p --target 50000 --day-amounts 5000,5000,10000 --day-tolerance 500 --day-interval 24h --redemption-interval 60s --fixed-amounts 1000,2500",
        "plan create s --pool p --target 50000 --amounts 1000-50000",
        "plan create s --pool p --target 50000 --amounts 1000-",
        "plan create s --pool p --target 50000 --amounts -50000",
        "plan create s --pool p --target 50000 --multiples-of 500 --day-tolerance 0",
        "plan update s --pool p --target 60000",
        "plan update s --pool p --no-days --any-amount --day-tolerance 0 --redemption-interval 0s",
        "plan update s --pool p --day-amounts 100 --fixed-amounts 100",
        "plan delete s --pool p",
        "plan show s --pool p --format json",
        "plan list --pool p",
        "account import f.csv --pool p",
        "account list --pool p --status waiting --login-status active --plan s",
        "account show a --pool p",
        "account pause a --pool p",
        "account drain a --pool p --format json",
        "account resume a --pool p",
        "account lift-hold a --pool p",
        "account activate a --pool p",
        "account explain --pool p",
        "account explain --pool p --amount 2500 --plan s --account a --country DE --min-headroom 100 --label tier=gold --label x= --exclude b,c --limit 10 --format json",
        "redeem-batch f.csv --pool p --batch-id b",
        "redeem-batch f.csv --pool p --batch-id b --holder h --max-in-flight 8 --item-timeout 30s --plan s --format json --output o",
        "redemption list --pool p --state in-doubt --state needs-review --batch-id b --account a",
        "redemption list --pool p --state in-doubt,needs-review",
        "redemption list --state in-doubt",
        "redemption audit --from 2026-11-24 --to 2026-11-25",
        "redemption audit --from 2026-11-24T06:00:00+01:00 --to 2026-11-25 --pool p --pool q --provider-url http://127.0.0.1:1 --provider-timeout 3s --format json",
        "redemption audit --from 2026-11-24 --to 2026-11-25 --ledger l.jsonl",
        "redemption show 01890a5d-ac96-774b-bcce-b302099a8057 --pool p",
        "redemption resolve 01890a5d-ac96-774b-bcce-b302099a8057 --pool p --outcome succeeded --amount-minor 5 --provider-ref r --reason seen --evidence ticket --by me",
        "redemption resolve 01890a5d-ac96-774b-bcce-b302099a8057 --pool p --outcome failed --code-spent --reason seen --evidence ticket --by me",
    ] {
        let words = ["holdfast"].into_iter().chain(line.split(' '));
        assert!(Cli::try_parse_from(words).is_ok(), "{line}");
    }
}

#[test]
fn arguments_that_break_a_rule_are_refused_before_anything_is_sent() {
    for line in [
        "pool create p",
        "pool create p/q --currency EUR",
        "pool create p --currency eur",
        "pool create p --currency EUR --provider Square",
        "pool update p --provider square",
        "provider apply",
        "provider show a/b",
        "provider show square --version 0",
        "provider show square --file-only --format json",
        "plan create s --pool p --target 0",
        "plan create s --pool p --target -5",
        "plan create s --pool p --target 5000 --day-amounts 5000,",
        "plan create s --pool p --target 5000 --day-tolerance -1",
        "plan create s --pool p --target 5000 --amounts 50-10",
        "plan create s --pool p --target 5000 --amounts - --multiples-of 5",
        "plan create s --pool p --target 5000 --amounts 10- --multiples-of 5",
        "plan create s --pool p --target 5000 --fixed-amounts 10 --multiples-of 5",
        "plan update s --pool p",
        "plan update s --pool p --no-days --day-amounts 100",
        "plan update s --pool p --any-amount --amounts 100-",
        "plan delete s",
        "pool update p",
        "pool update p --holder-share-percent 0",
        "pool create p --currency EUR --holder-share-percent 101",
        "account explain",
        "account explain --pool p --country de",
        "account explain --pool p --label gold",
        "account explain --pool p --limit 0",
        "account lift-hold --pool p",
        "redeem-batch f.csv --pool p --batch-id a:b",
        "redeem-batch f.csv --pool p --batch-id b --max-in-flight 1025",
        "redemption show x --pool p",
        "redemption resolve 01890a5d-ac96-774b-bcce-b302099a8057 --pool p --outcome succeeded --reason seen --evidence ticket --by me",
        "redemption resolve 01890a5d-ac96-774b-bcce-b302099a8057 --pool p --outcome failed --reason seen --by me",
        "redemption audit --from 2026-11-24",
        "redemption audit --from yesterday --to 2026-11-25",
        "redemption audit --from 2026-11-31 --to 2026-12-01",
        "redemption audit --from 2026-11-24T06:00:00 --to 2026-11-25",
        "redemption audit --from 2026-11-24 --to 2026-11-25 --pool p/q",
    ] {
        let words = ["holdfast"].into_iter().chain(line.split(' '));
        assert!(Cli::try_parse_from(words).is_err(), "{line}");
    }
}
