//! Tokens of those who call servers that ask who calls.

use std::{collections::HashMap, time::Duration};

use holdfast::{
    app::{self, NewToken},
    domain::{
        access::{Grant, Grants, PoolPattern, Role},
        id::TokenName,
    },
};
use tokio::sync::Mutex;
use tonic::{Code, transport::Channel};

use super::{caller::Caller, wait::eventually};

/// Who may do everything.
pub(crate) const ADMIN: &str = "token:test-admin";

/// The tokens of a test, made when they are first wanted.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<String, String>>);

impl Tokens {
    /// The secret of the token of the principal `token:NAME`, which has one role everywhere.
    pub(crate) async fn of(&self, db_url: &str, principal: &str, role: Role) -> String {
        let mut secrets = self.0.lock().await;
        if let Some(secret) = secrets.get(principal) {
            return secret.clone();
        }
        let name = principal.strip_prefix("token:").expect("the principal of a token");
        let new = NewToken {
            name: TokenName::parse(name).unwrap(),
            grants: Grants::new(vec![Grant { role, pools: PoolPattern::all() }]),
            lifetime: None,
        };
        let (_, secret) = app::create_token(&db_url.to_owned().into(), new).await.unwrap();
        let secret = secret.expose().to_owned();
        secrets.insert(principal.to_owned(), secret.clone());
        secret
    }
}

/// Waits until a server knows a token.
pub(crate) async fn accepted(channel: &Channel, secret: &str) {
    let mut caller = Caller::with(channel.clone(), secret);
    eventually(Duration::from_secs(10), "the server knows the token", async || {
        match caller.pools().await {
            Err(error) if error.code() == Code::Unauthenticated => None,
            _ => Some(()),
        }
    })
    .await;
}
