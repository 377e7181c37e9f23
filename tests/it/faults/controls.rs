//! Negative controls: each guard is taken out, and the suite must notice. A suite that cannot fail
//! proves nothing.
//!
//! Each scenario is played twice: as things are, when nothing may be broken, and without the guard,
//! when the named promise must be. Statements lose their guards on their way to Postgres, in a proxy;
//! the database's own guards are dropped; those in Rust are switched off; and two controls tell the
//! servers that the provider can do what it cannot.

mod plans;
mod scenarios;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::{
    checks::Broken,
    fleet::{Able, Fleet, Setup},
    proxy::{Proxy, postgres::Postgres},
    world::{INVALID_ACCOUNT, POOL, fresh_database},
};

/// Counts a key once, tells what became of it, cancels it.
const WHOLE: Able = Able { deduplicates: true, looks_up: true, cancels: true };
/// Only tells what became of a key.
const LOOKS_UP: Able = Able { deduplicates: false, looks_up: true, cancels: false };
/// Does none of it.
const NEITHER: Able = Able { deduplicates: false, looks_up: false, cancels: false };

/// How a guard is taken out.
#[derive(Clone, Copy, Debug, Default)]
struct Without {
    /// In a statement that holds the first text, the second is replaced by the third.
    rewrites: &'static [(&'static str, &'static str, &'static str)],
    /// What the database is told first.
    sql: &'static str,
    /// Guards in Rust that are off.
    guards_off: &'static str,
    /// What the servers are told of the provider that is not so.
    lies: &'static [&'static str],
}

/// Where a scenario is played.
struct Stage {
    fleet: Fleet,
    /// Past the proxy.
    db_url: String,
    env: Vec<(&'static str, &'static str)>,
}

impl Stage {
    /// Starts one more server, without the guard if it is to be so.
    async fn start_server(&mut self, crash_points: &'static str) -> usize {
        let mut env = self.env.clone();
        env.push(("HOLDFAST_CRASH_POINTS", crash_points));
        self.fleet.start_server(&env).await
    }

    async fn sql(&self) -> PgConnection {
        PgConnection::connect(&self.db_url).await.unwrap()
    }
}

/// Plays a scenario, and answers with every promise that was broken.
async fn play(
    setup: Setup,
    without: Without,
    scenario: impl AsyncFn(&mut Stage) -> Vec<Broken>,
) -> Vec<Broken> {
    let database = fresh_database().await;
    let db_url = database.url.clone();
    if !without.sql.is_empty() {
        let mut db = PgConnection::connect(&db_url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(without.sql)).execute(&mut db).await.unwrap();
    }
    let proxy = Proxy::<Postgres>::before(&db_url);
    let rewritten: Vec<_> = without
        .rewrites
        .iter()
        .map(|(statement, piece, by)| proxy.rewrite(statement, piece, by))
        .collect();
    let mut setup = setup;
    setup.serve.extend(without.lies.iter().map(|lie| (*lie).to_owned()));
    let fleet = Fleet::over(setup, proxy.url(&db_url), Some(database)).await;
    let env = vec![("HOLDFAST_GUARDS_OFF", without.guards_off)];
    let mut stage = Stage { fleet, db_url, env };
    let mut broken = scenario(&mut stage).await;
    broken.extend(stage.fleet.finish().await);
    for rewritten in rewritten {
        assert!(rewritten.times() > 0, "the guard was not taken out");
    }
    broken
}

/// Plays the scenario with the guard and without it.
async fn control(
    setup: Setup,
    without: Without,
    promise: &str,
    scenario: impl AsyncFn(&mut Stage) -> Vec<Broken>,
) {
    let broken = play(setup.clone(), Without::default(), &scenario).await;
    assert!(broken.is_empty(), "broken with the guard: {broken:#?}");
    let broken = play(setup, without, &scenario).await;
    let noticed = broken.iter().any(|broken| broken.contains(promise));
    assert!(noticed, "without the guard {promise:?} should be broken, not {broken:#?}");
}

fn over(able: Able, serve: &[&str]) -> Setup {
    let serve = serve.iter().map(|flag| (*flag).to_owned()).collect();
    Setup { able, serve, provider: Vec::new() }
}

/// A provider that repeats a card's code when it refuses a login.
fn careless() -> Setup {
    let provider =
        vec!["--tells-codes=true".to_owned(), format!("--invalid-accounts={INVALID_ACCOUNT}")];
    Setup { provider, ..over(WHOLE, &[]) }
}

/// Nobody ends a lease whose time has passed but those who want the account.
const NO_SWEEP: &str = "--sweep-interval=1h";

macro_rules! controls {
    ($($name:ident: $setup:expr, $without:expr, $promise:literal, $scenario:path;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                control($setup, $without, $promise, $scenario).await;
            }
        )*
    };
}

controls! {
    // Statements.
    begin_without_the_token: over(WHOLE, &[]), Without {
        rewrites: &[("-- Begin,", "  AND a.fencing_token = w.token\n", "")], ..Without::default()
    }, "a stale holder began", scenarios::a_stale_holder_redeems;
    begin_without_the_lease_s_time: over(WHOLE, &[NO_SWEEP]), Without {
        rewrites: &[("-- Begin,", "  AND a.lease_expires_at > now()\n", "")], ..Without::default()
    }, "a redemption is begun under the lease that was out then", scenarios::a_holder_redeems_too_late;
    begin_without_the_pause: over(WHOLE, &[]), Without {
        rewrites: &[("-- Begin,", " AND NOT p.paused", "")], ..Without::default()
    }, "a paused pool began", scenarios::a_paused_pool_is_asked;
    release_without_the_token: over(WHOLE, &[]), Without {
        rewrites: &[("-- Release,", "AND a.fencing_token = w.token", "")], ..Without::default()
    }, "a stale holder ended", scenarios::a_stale_holder_releases;
    renew_without_the_token: over(WHOLE, &[]), Without {
        rewrites: &[("-- Renew,", "AND a.fencing_token = w.token", "")], ..Without::default()
    }, "a stale holder renewed", scenarios::a_stale_holder_renews;
    expire_without_the_lease_s_time: over(WHOLE, &[]), Without {
        rewrites: &[("-- Expire,", "AND a.lease_expires_at <= now()", "")], ..Without::default()
    }, "a lease ended before its time", scenarios::a_lease_is_kept;
    expire_in_spite_of_an_open_redemption: over(WHOLE, &[]), Without {
        rewrites: &[("-- Expire,", "AND a.open_redemption_id IS NULL", "")],
        sql: "ALTER TABLE accounts DROP CONSTRAINT accounts_open_redemption_stays_locked",
        ..Without::default()
    }, "an account with an open redemption is free", scenarios::a_redemption_outlasts_its_lease;
    acquire_without_the_login_status: over(WHOLE, &[]), Without {
        rewrites: &[("-- Acquire,", "AND a.login_status = 'ACTIVE'", "")], ..Without::default()
    }, "an account that is set aside was leased", scenarios::an_inactive_account_is_asked_for;
    settle_what_is_settled: over(WHOLE, &[]), Without {
        rewrites: &[
            ("-- Settle,", "AND a.open_redemption_id = r.redemption_id", ""),
            ("-- Settle,", "AND a.open_redemption_id = s.redemption_id", ""),
            ("-- Settle,", "AND r.finished_at IS NULL", ""),
        ], ..Without::default()
    }, "a balance is what it began with", scenarios::an_answer_comes_after_it_was_looked_up;
    settle_without_wiping_the_code: over(WHOLE, &[]), Without {
        rewrites: &[("-- Settle,", "code_ciphertext = NULL,", "")],
        sql: "ALTER TABLE redemptions DROP CONSTRAINT redemptions_code_is_wiped",
        ..Without::default()
    }, "the code of what is settled is wiped", scenarios::a_card_is_redeemed;
    begin_without_the_plan: over(WHOLE, &[]), Without {
        rewrites: &[("-- Begin,", "n.plan_id IS NULL OR plan_misfit(", "true OR plan_misfit(")],
        ..Without::default()
    }, "a full account was redeemed into", plans::a_card_is_too_much_for_its_plan;
    begin_without_the_account_s_rest: over(WHOLE, &[]), Without {
        rewrites: &[("-- Begin,", "AND (a.usable_at IS NULL OR a.usable_at <= now())", "")],
        ..Without::default()
    }, "an account that rests was redeemed into", plans::a_card_follows_at_once;
    begin_without_the_account_s_pause: over(WHOLE, &[]), Without {
        rewrites: &[("-- Begin,", "AND NOT a.paused", "")], ..Without::default()
    }, "a paused account was redeemed into", plans::a_paused_account_is_redeemed_into;
    acquire_without_the_plan: over(WHOLE, &[]), Without {
        rewrites: &[
            ("-- Acquire,", "k.target_minor IS NULL OR plan_misfit(", "true OR plan_misfit("),
            ("-- Acquire,", "(w.expected % t.step_minor = 0) IS NOT FALSE", "true"),
            ("-- Acquire,", "(w.expected >= t.smallest_minor AND w.expected <= t.largest_minor) IS NOT FALSE", "true"),
        ], ..Without::default()
    }, "an account was leased for a card that it does not take",
        plans::an_account_is_asked_for_a_card_that_it_does_not_take;

    // What the database keeps by itself.
    a_living_code_without_its_index: over(WHOLE, &[]), Without {
        sql: "DROP INDEX redemptions_living_code", ..Without::default()
    }, "a living code was begun twice", scenarios::a_code_is_used_twice;
    a_request_without_its_index: over(WHOLE, &[]), Without {
        sql: "DROP INDEX redemptions_request;
              CREATE INDEX redemptions_request ON redemptions (pool_id, request_id)",
        ..Without::default()
    }, "a request was begun twice", scenarios::a_request_is_used_twice;
    events_without_their_key: over(WHOLE, &[]), Without {
        sql: "ALTER TABLE account_events DROP CONSTRAINT account_events_pkey", ..Without::default()
    }, "there is one account of each id", scenarios::an_account_is_created_twice;
    an_account_without_its_event_trigger: over(WHOLE, &[]), Without {
        sql: "DROP TRIGGER account_note_event ON accounts", ..Without::default()
    }, "an account is where its last event left it", scenarios::a_card_is_redeemed;

    // In Rust.
    a_lost_answer_taken_for_no_answer: over(LOOKS_UP, &[]), Without {
        guards_off: "lost_is_no_proof", ..Without::default()
    }, "a code was credited twice", scenarios::an_answer_is_lost;
    an_answer_to_nobody_taken_for_proof: over(WHOLE, &[]), Without {
        guards_off: "reused_is_no_proof", ..Without::default()
    }, "is FAILED here", scenarios::a_provider_speaks_unasked;
    an_inference_taken_for_proof: over(WHOLE, &[]), Without {
        guards_off: "inferred_is_not_proof", ..Without::default()
    }, "is FAILED here", scenarios::a_server_gives_up_after_it_was_overtaken;
    a_send_that_is_too_late: over(NEITHER, &[]), Without {
        guards_off: "late_is_not_sent", ..Without::default()
    }, "a card was sent long after its redemption was begun", scenarios::a_server_stands_still_before_it_sends;
    codes_left_in_what_a_provider_says: careless(), Without {
        guards_off: "codes_are_taken_out", ..Without::default()
    }, "codes stand in clear in redemptions", scenarios::a_provider_repeats_the_code;
    another_code_under_the_same_request: over(WHOLE, &[]), Without {
        guards_off: "same_wish", ..Without::default()
    }, "another card was answered with the first", scenarios::a_request_is_used_twice;
    a_lease_handed_out_after_its_time: over(WHOLE, &[NO_SWEEP]), Without {
        guards_off: "handed_out_alive", ..Without::default()
    }, "a lease was handed out after its time", scenarios::a_request_for_a_lease_is_repeated_too_late;
    a_row_that_cannot_be_written_among_others: over(WHOLE, &[NO_SWEEP]), Without {
        guards_off: "bad_rows_are_left_out", ..Without::default()
    }, "an account beside a bad one was not leased", scenarios::an_account_cannot_be_written;

    // Settings that are not true.
    a_provider_that_is_said_to_count_keys_once: over(NEITHER, &[]), Without {
        lies: &["--provider-deduplicates=true"], ..Without::default()
    }, "a code was credited twice", scenarios::an_answer_is_lost;
}
