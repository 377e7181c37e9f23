//! The tables: where migrations are noted, and what serving does with each of the others.

/// Where it is noted which migrations were applied. sqlx's own name for it is other programs' too: only a database that
/// began with it has it. (In two parts: a text that begins so is a metric.)
pub const NOTES: &str = concat!("holdfast", "_migrations");

/// What serving does with each table. A test compares it with the statements.
pub const RIGHTS: [(&str, &[&str]); 23] = [
    // The first server to start inserts into it, once.
    ("installation", &["SELECT"]),
    ("secret_keys", &["SELECT"]),
    ("pools", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("plans", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("accounts", &["SELECT", "INSERT", "UPDATE"]),
    ("leases", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("account_events", &["SELECT", "INSERT"]),
    ("account_changes", &["SELECT", "INSERT", "DELETE"]),
    ("account_credentials", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("redemptions", &["SELECT", "INSERT", "UPDATE"]),
    ("redemption_outcomes", &["SELECT", "INSERT"]),
    ("reversals", &["SELECT", "INSERT", "UPDATE"]),
    ("subscriptions", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("deliveries", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("superseded_resolutions", &["SELECT", "INSERT"]),
    ("audit_events", &["SELECT", "INSERT"]),
    ("servers", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("providers", &["SELECT", "INSERT"]),
    ("provider_keys", &["SELECT", "INSERT"]),
    ("provider_limits", &["SELECT", "INSERT", "UPDATE"]),
    ("provider_slots", &["SELECT", "INSERT", "UPDATE"]),
    ("tokens", &["SELECT", "INSERT", "UPDATE"]),
    // By the triggers of tokens.
    ("token_changes", &["SELECT", "UPDATE"]),
];
