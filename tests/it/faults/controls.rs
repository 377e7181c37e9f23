//! Negative controls: each guard is taken out, and the suite must notice. A suite that cannot fail
//! proves nothing.
//!
//! Each scenario is played twice: as things are, when nothing may be broken, and without the guard,
//! when the named promise must be. Statements lose their guards on their way to Postgres, in a proxy;
//! the database's own guards are dropped; those in Rust are switched off; and two controls tell the
//! servers that the provider can do what it cannot. Where two guards keep one promise, both are taken out.

mod plans;
mod principals;
mod scenarios;
mod swap;
mod webhooks;

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
    /// What the database is told when the first server has started: it verifies the schema.
    sql: &'static str,
    /// Guards in Rust that are off.
    guards_off: &'static str,
    /// What the servers are told of the provider that is not so.
    lies: &'static [&'static str],
}

/// Where a scenario is played.
struct Stage {
    fleet: Fleet,
    /// Between the servers and the database.
    proxy: Proxy<Postgres>,
    /// Past the proxy.
    db_url: String,
    env: Vec<(&'static str, &'static str)>,
    /// What the database is yet to be told.
    sql: &'static str,
}

impl Stage {
    /// Starts one more server, without the guard if it is to be so.
    async fn start_server(&mut self, crash_points: &'static str) -> usize {
        let mut env = self.env.clone();
        env.push(("HOLDFAST_CRASH_POINTS", crash_points));
        let server = self.fleet.start_server(&env).await;
        let sql = std::mem::take(&mut self.sql);
        if !sql.is_empty() {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.sql().await).await.unwrap();
        }
        server
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
    let mut stage = Stage { fleet, proxy, db_url, env, sql: without.sql };
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

/// The head of the statement that lists leases whose time has passed.
const DUE_LEASES: &str = "-- Accounts whose lease has run out";
/// The same of the one that lists their pools.
const DUE_POOLS: &str = "-- Which pools may have a lease to end";
/// Where a statement names the pool's revision, and the same for any revision.
const REVISION: &str = "AND p.revision = $2";
const ANY_REVISION: &str = "AND $2::bigint IS NOT NULL";
/// Lets a request have a second lease.
const NO_REQUEST_KEY: &str = "ALTER TABLE leases DROP CONSTRAINT leases_pkey";
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
    // What domain/account.rs decides.
    begin_without_the_token: over(WHOLE, &[]), Without {
        guards_off: "tokens_are_compared", ..Without::default()
    }, "a stale holder began", scenarios::a_stale_holder_redeems;
    release_without_the_token: over(WHOLE, &[]), Without {
        guards_off: "tokens_are_compared", ..Without::default()
    }, "a stale holder ended", scenarios::a_stale_holder_releases;
    renew_without_the_token: over(WHOLE, &[]), Without {
        guards_off: "tokens_are_compared", ..Without::default()
    }, "a stale holder renewed", scenarios::a_stale_holder_renews;
    begin_without_the_pause: over(WHOLE, &[]), Without {
        guards_off: "paused_pools_begin_nothing", ..Without::default()
    }, "a paused pool began", scenarios::a_paused_pool_is_asked;
    begin_without_the_account_s_pause: over(WHOLE, &[]), Without {
        guards_off: "paused_accounts_begin_nothing", ..Without::default()
    }, "a paused account was redeemed into", plans::a_paused_account_is_redeemed_into;
    begin_without_the_account_s_rest: over(WHOLE, &[]), Without {
        guards_off: "resting_accounts_are_not_used",
        rewrites: &[("-- Begin:", "AND (a.usable_at IS NULL OR a.usable_at <= now())", "")],
        ..Without::default()
    }, "an account that rests was redeemed into", plans::a_card_follows_at_once;
    acquire_without_the_account_s_rest: over(WHOLE, &[]), Without {
        guards_off: "resting_accounts_are_not_used",
        rewrites: &[
            ("-- Apply:", "AND (c.guard <> 'free' OR a.usable_at IS NULL OR a.usable_at <= now())", ""),
        ], ..Without::default()
    }, "an account that rests was leased", plans::an_account_that_rests_is_asked_for;
    begin_a_card_without_the_account_s_rest: over(WHOLE, &[]), Without {
        guards_off: "resting_accounts_are_not_used",
        rewrites: &[("-- Begin:", "AND (a.usable_at IS NULL OR a.usable_at <= now())", "")],
        ..Without::default()
    }, "an account that rests got a card", plans::a_card_is_for_an_account_that_rests;
    begin_without_the_plan: over(WHOLE, &[]), Without {
        guards_off: "plans_take_what_fits", ..Without::default()
    }, "a full account was redeemed into", plans::a_card_is_too_much_for_its_plan;
    acquire_without_the_plan: over(WHOLE, &[]), Without {
        guards_off: "plans_take_what_fits", ..Without::default()
    }, "an account was leased for a card that it does not take",
        plans::an_account_is_asked_for_a_card_that_it_does_not_take;
    acquire_without_the_login_status: over(WHOLE, &[]), Without {
        guards_off: "inactive_accounts_are_not_leased", ..Without::default()
    }, "an account that is set aside was leased", scenarios::an_inactive_account_is_asked_for;
    expire_in_spite_of_an_open_redemption: over(WHOLE, &[]), Without {
        guards_off: "open_redemptions_keep_the_lease",
        rewrites: &[(DUE_LEASES, "AND a.open_redemption_id IS NULL", "")],
        sql: "ALTER TABLE accounts DROP CONSTRAINT accounts_open_redemption_stays_locked",
        ..Without::default()
    }, "an account with an open redemption is free", scenarios::a_redemption_outlasts_its_lease;
    settle_what_is_settled: over(WHOLE, &[]), Without {
        guards_off: "outcomes_are_recorded_once",
        rewrites: &[
            (
                "-- Apply:",
                "AND (k.reverses OR k.corrects OR (r.finished_at IS NULL) = (COALESCE(k.known_state, '') <> 'FAILED'))",
                "",
            ),
        ], ..Without::default()
    }, "a balance is what it began with", scenarios::an_answer_comes_after_it_was_looked_up;

    // Time, by the database's clock.
    begin_without_the_lease_s_time: over(WHOLE, &[NO_SWEEP]), Without {
        rewrites: &[("-- Begin:", "AND (c.guard <> 'alive' OR a.lease_expires_at > now())", "")],
        ..Without::default()
    }, "a redemption is begun under the lease that was out then", scenarios::a_holder_redeems_too_late;
    renew_without_the_lease_s_time: over(WHOLE, &[NO_SWEEP]), Without {
        rewrites: &[("-- Apply:", "AND (c.guard <> 'alive' OR a.lease_expires_at > now())", "")],
        ..Without::default()
    }, "a lease was renewed after its time", scenarios::a_holder_renews_too_late;
    expire_without_the_lease_s_time: over(WHOLE, &[]), Without {
        guards_off: "leases_last_their_time",
        rewrites: &[
            (DUE_POOLS, "WHERE l.expires_at <= now()", "WHERE true"),
            (DUE_LEASES, "AND l.expires_at <= now()", ""),
            (DUE_LEASES, "AND a.lease_expires_at <= now()", ""),
            ("-- Apply:", "AND (c.guard <> 'ended' OR a.lease_expires_at <= now())", ""),
        ], ..Without::default()
    }, "a lease ended before its time", scenarios::a_lease_is_kept;

    // The revision of the pool.
    begin_without_the_pool_s_revision: over(WHOLE, &[]), Without {
        rewrites: &[("-- Begin:", REVISION, ANY_REVISION)], ..Without::default()
    }, "a paused pool began", scenarios::a_paused_pool_is_asked;
    begin_without_the_revision_of_a_plan: over(WHOLE, &[]), Without {
        rewrites: &[("-- Begin:", REVISION, ANY_REVISION)], ..Without::default()
    }, "a full account was redeemed into", plans::a_target_is_lowered_between_two_cards;
    acquire_without_the_pool_s_revision: over(WHOLE, &[]), Without {
        rewrites: &[("-- Apply:", REVISION, ANY_REVISION)], ..Without::default()
    }, "a paused pool gave out a lease", swap::a_pool_is_paused_after_the_choice;
    settle_without_the_revision_of_a_plan: over(WHOLE, &[]), Without {
        rewrites: &[("-- Apply:", REVISION, ANY_REVISION)], ..Without::default()
    }, "a full account is not COMPLETED", plans::a_target_is_lowered_before_the_outcome_is_recorded;

    // The version and the change from which a change was decided.
    a_change_decided_from_an_older_version: over(WHOLE, &[]), Without {
        rewrites: &[
            ("-- Apply:", "AND a.version = c.version", ""),
            ("-- Apply:", "AND a.change_id = c.seen", ""),
            ("-- Apply:", "AND a.version = k.version", ""),
            ("-- Apply:", "AND a.change_id = k.seen", ""),
            // The key of the events refuses it otherwise: the version is there already.
            ("-- Apply:", "version = k.version + 1", "version = a.version + 1"),
        ], ..Without::default()
    }, "a person's change was overwritten", swap::a_person_changes_a_leased_account;
    a_change_decided_before_the_database_was_restored: over(WHOLE, &[]), Without {
        rewrites: &[
            ("-- Apply:", "AND a.change_id = c.seen", ""),
            ("-- Apply:", "AND a.change_id = k.seen", ""),
        ], ..Without::default()
    }, "a restored account was overwritten", swap::the_database_is_restored;
    a_lost_reply_that_is_not_looked_for: over(WHOLE, &[]), Without {
        guards_off: "lost_replies_are_found", ..Without::default()
    }, "one call renewed a lease twice", swap::the_reply_to_a_renewal_is_lost;
    a_request_whose_lease_is_not_found: over(WHOLE, &[]), Without {
        guards_off: "lost_replies_are_found", sql: NO_REQUEST_KEY, ..Without::default()
    }, "a request has two leases", swap::the_reply_to_an_acquisition_is_lost;
    a_request_whose_lease_is_not_found_at_the_next_try: over(WHOLE, &[]), Without {
        sql: NO_REQUEST_KEY, guards_off: "lost_replies_are_found", ..Without::default()
    }, "a request has two leases", swap::an_acquisition_fails_after_its_commit;
    a_row_that_is_waited_for: over(WHOLE, &[NO_SWEEP]), Without {
        rewrites: &[("-- Apply:", "FOR NO KEY UPDATE OF a SKIP LOCKED", "FOR NO KEY UPDATE OF a")],
        ..Without::default()
    }, "a row that a person holds held up another", swap::a_person_holds_an_account_s_row;

    a_begin_that_waits_for_a_row: over(WHOLE, &[NO_SWEEP]), Without {
        rewrites: &[("-- Begin:", "FOR NO KEY UPDATE OF a SKIP LOCKED", "FOR NO KEY UPDATE OF a")],
        ..Without::default()
    }, "a row that a person holds held up another", swap::a_person_holds_the_row_of_a_begin;
    a_refusal_by_terms_that_are_remembered: over(WHOLE, &[]), Without {
        guards_off: "refusals_are_fresh", ..Without::default()
    }, "a pool that goes on was refused", swap::a_paused_pool_goes_on;
    a_refusal_by_terms_that_another_server_remembers: over(WHOLE, &[]), Without {
        guards_off: "refusals_are_fresh", ..Without::default()
    }, "a pool that goes on was refused", swap::a_paused_pool_goes_on_at_another_server;

    // What is written, and what the database keeps by itself.
    settle_without_wiping_the_code: over(WHOLE, &[]), Without {
        rewrites: &[("-- Apply:", "code_ciphertext = NULL,", "")],
        sql: "ALTER TABLE redemptions DROP CONSTRAINT redemptions_code_is_wiped",
        ..Without::default()
    }, "the code of what is settled is wiped", scenarios::a_card_is_redeemed;
    a_change_without_its_event: over(WHOLE, &[]), Without {
        rewrites: &[("-- Apply:", "FROM done d\n)", "FROM done d WHERE false\n)")],
        ..Without::default()
    }, "an account is where its last event left it", scenarios::a_card_is_redeemed;
    a_begin_without_its_event: over(WHOLE, &[]), Without {
        rewrites: &[("-- Begin:", "FROM marked m\n)", "FROM marked m WHERE false\n)")],
        ..Without::default()
    }, "each event begins where the one before it ended", scenarios::a_card_is_redeemed;
    a_pause_without_its_trigger: over(WHOLE, &[]), Without {
        sql: "DROP TRIGGER pool_raise_revision ON pools", ..Without::default()
    }, "a paused pool began", scenarios::a_paused_pool_is_asked;
    a_lowered_target_without_its_trigger: over(WHOLE, &[]), Without {
        sql: "DROP TRIGGER plan_raise_revision ON plans", ..Without::default()
    }, "a full account was redeemed into", plans::a_target_is_lowered_between_two_cards;
    a_person_s_change_without_its_trigger: over(WHOLE, &[]), Without {
        sql: "DROP TRIGGER account_changed_by_hand ON accounts", ..Without::default()
    }, "a person's change was overwritten", swap::a_person_changes_a_leased_account;
    a_change_by_hand_without_its_trigger: over(WHOLE, &[]), Without {
        sql: "DROP TRIGGER account_changed_by_hand ON accounts", ..Without::default()
    }, "an account is where its last event left it", swap::a_person_changes_a_free_account;
    a_living_code_without_its_index: over(WHOLE, &[]), Without {
        sql: "DROP INDEX redemptions_living_code", ..Without::default()
    }, "a living code was begun twice", scenarios::a_code_is_used_twice;
    a_request_without_its_index: over(WHOLE, &[]), Without {
        sql: "DROP INDEX redemptions_request;
              CREATE INDEX redemptions_request ON redemptions (pool_id, request_id, principal, attempt)",
        ..Without::default()
    }, "a request was begun twice", scenarios::a_request_is_used_twice;
    events_without_their_key: over(WHOLE, &[]), Without {
        sql: "ALTER TABLE account_events DROP CONSTRAINT account_events_pkey", ..Without::default()
    }, "there is one account of each id", scenarios::an_account_is_created_twice;

    // In Rust, beside the account's rules.
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
        guards_off: "same_request", ..Without::default()
    }, "another card was answered with the first", scenarios::a_request_is_used_twice;
    a_lease_handed_out_after_its_time: over(WHOLE, &[NO_SWEEP]), Without {
        guards_off: "handed_out_alive", ..Without::default()
    }, "a lease was handed out after its time", scenarios::a_request_for_a_lease_is_repeated_too_late;
    a_row_that_cannot_be_written_among_others: over(WHOLE, &[NO_SWEEP]), Without {
        guards_off: "bad_rows_are_left_out", ..Without::default()
    }, "an account beside a bad one was not leased", scenarios::an_account_cannot_be_written;

    a_webhook_that_anyone_may_send: over(WHOLE, &[]), Without {
        guards_off: "webhooks_are_signed", ..Without::default()
    }, "a forged webhook was heard", webhooks::a_forged_webhook_comes;

    // What belongs to whom, and what is recorded of it.
    a_lease_renewed_by_another: over(WHOLE, &[]), Without {
        guards_off: "leases_are_their_principals", ..Without::default()
    }, "another's lease was renewed", principals::another_s_lease_is_used;
    a_lease_redeemed_under_by_another: over(WHOLE, &[]), Without {
        guards_off: "leases_are_their_principals", ..Without::default()
    }, "another's lease was redeemed under", principals::another_s_lease_is_redeemed_under;
    a_lease_released_by_another: over(WHOLE, &[]), Without {
        guards_off: "leases_are_their_principals", ..Without::default()
    }, "another's lease was released", principals::another_s_lease_is_released;
    a_request_of_everybody: over(WHOLE, &[]), Without {
        rewrites: &[
            ("-- What stands in the way", "AND r.principal = w.principal", ""),
        ],
        sql: "DROP INDEX redemptions_request;
              CREATE UNIQUE INDEX redemptions_request ON redemptions (pool_id, request_id)",
        ..Without::default()
    }, "another's request was joined", principals::another_s_request_is_sent;
    a_redemption_named_to_another: over(WHOLE, &[]), Without {
        guards_off: "others_are_not_named", ..Without::default()
    }, "another's redemption was named", principals::another_s_card_is_sent;
    an_act_without_its_event: over(WHOLE, &[]), Without {
        rewrites: &[("-- Apply:", "JOIN done d ON d.change_id = n.change_id", "JOIN done d ON false")],
        ..Without::default()
    }, "an operator's act is not in the trail", principals::an_operator_ends_another_s_lease;
    an_event_without_its_trigger: over(WHOLE, &[]), Without {
        sql: "DROP TRIGGER audit_events_append_only ON audit_events", ..Without::default()
    }, "an event of the trail was changed", principals::an_event_of_the_trail_is_changed;

    // Settings that are not true.
    a_provider_that_is_said_to_count_keys_once: over(NEITHER, &[]), Without {
        lies: &["--provider-deduplicates=true"], ..Without::default()
    }, "a code was credited twice", scenarios::an_answer_is_lost;
}
