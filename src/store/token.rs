//! Tokens: made, revoked, and read by every server.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::types::PgInterval;
use time::OffsetDateTime;

use super::{
    Store, StoreError,
    audit::{self, Written},
    duration, interval,
    page::read_page,
};
use crate::domain::{
    access::{Grant, Grants, PoolPattern, Role, Token},
    id::TokenName,
    page::Page,
    principal::Authority,
};

/// The most tokens that are valid at once. Those beyond it, by name, do not work.
pub const MAX_LIVING: i64 = 10_000;

struct TokenRow {
    name: String,
    roles: Vec<String>,
    pools: Vec<String>,
    created_by: String,
    created_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
    last_used_at: Option<OffsetDateTime>,
}

/// A token that is valid.
#[derive(Clone, Debug)]
pub struct LivingToken {
    /// Its name.
    pub name: String,
    /// The hash of its secret.
    pub secret_hash: [u8; 32],
    /// What it may do.
    pub grants: Grants,
    /// In how long it expires.
    pub expires_in: Option<Duration>,
}

struct LivingRow {
    name: String,
    secret_hash: Vec<u8>,
    roles: Vec<String>,
    pools: Vec<String>,
    expires_in: Option<PgInterval>,
}

impl TokenRow {
    fn read(self) -> Result<Token, StoreError> {
        Ok(Token {
            name: TokenName::parse(&self.name)
                .map_err(|_| StoreError::Unreadable("tokens.name"))?,
            grants: read_grants(&self.roles, &self.pools)?,
            created_by: self.created_by,
            created_at: self.created_at,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            last_used_at: self.last_used_at,
        })
    }
}

impl LivingRow {
    fn read(self) -> Result<LivingToken, StoreError> {
        Ok(LivingToken {
            name: self.name,
            secret_hash: self
                .secret_hash
                .try_into()
                .map_err(|_| StoreError::Unreadable("tokens.secret_hash"))?,
            grants: read_grants(&self.roles, &self.pools)?,
            expires_in: self.expires_in.as_ref().map(duration),
        })
    }
}

fn read_grants(roles: &[String], pools: &[String]) -> Result<Grants, StoreError> {
    let read = |(role, pools): (&String, &String)| {
        let role = Role::parse(role).ok_or(StoreError::Unreadable("tokens.roles"))?;
        let pools = PoolPattern::parse(pools).ok_or(StoreError::Unreadable("tokens.pools"))?;
        Ok(Grant { role, pools })
    };
    roles.iter().zip(pools).map(read).collect::<Result<_, _>>().map(Grants::new)
}

fn columns(grants: &Grants) -> (Vec<String>, Vec<String>) {
    let column = |grant: &Grant| (grant.role.as_str().to_owned(), grant.pools.as_str().to_owned());
    grants.iter().map(column).unzip()
}

/// What the log says of a change of a token.
fn of_token<'a>(action: &'a str, name: &'a str, after: Value) -> Written<'a> {
    Written { action, pool_id: "", subject: name, before: None, after: Some(after), reason: "" }
}

/// The token of a statement's row.
macro_rules! token_row {
    ($row:ident) => {
        TokenRow {
            name: $row.name,
            roles: $row.roles,
            pools: $row.pools,
            created_by: $row.created_by,
            created_at: $row.created_at,
            expires_at: $row.expires_at,
            revoked_at: $row.revoked_at,
            last_used_at: $row.last_used_at,
        }
    };
}

impl Store {
    /// Makes a token; `None` when one has its name. When the reply to it was lost, its name is taken, and its secret is
    /// unknown to whoever asked: they make another.
    pub async fn insert_token(
        &self,
        name: &TokenName,
        secret_hash: &[u8; 32],
        grants: &Grants,
        by: &Authority,
        lifetime: Option<Duration>,
    ) -> Result<Option<Token>, StoreError> {
        let (roles, pools) = columns(grants);
        let made = sqlx::query_file!(
            "src/store/sql/token/insert_token.sql",
            name.as_str(),
            secret_hash.as_slice(),
            &roles,
            &pools,
            by.principal.name(),
            lifetime.map(interval),
            by.peer(),
        )
        .fetch_optional(&self.db)
        .await?;
        let Some(row) = made else { return Ok(None) };
        let after = json!({ "roles": row.roles, "pools": row.pools });
        audit::log_written(by, &of_token("CreateToken", &row.name, after));
        let token = token_row!(row).read()?;
        Ok(Some(token))
    }

    /// Makes a token, or gives the one of this name another secret. May be repeated.
    pub async fn put_token(
        &self,
        name: &TokenName,
        secret_hash: &[u8; 32],
        grants: &Grants,
        created_by: &str,
    ) -> Result<(), StoreError> {
        let (roles, pools) = columns(grants);
        sqlx::query_file!(
            "src/store/sql/token/put_token.sql",
            name.as_str(),
            secret_hash.as_slice(),
            &roles,
            &pools,
            created_by,
        )
        .execute(&self.db)
        .await?;
        Ok(())
    }

    /// Revokes a token; `None` when there is none. May be repeated: it stays revoked since the first time.
    pub async fn revoke_token(
        &self,
        name: &TokenName,
        by: &Authority,
    ) -> Result<Option<Token>, StoreError> {
        let revoked = sqlx::query_file!(
            "src/store/sql/token/revoke_token.sql",
            name.as_str(),
            by.principal.name(),
            by.peer(),
        )
        .fetch_optional(&self.db)
        .await?;
        let Some(row) = revoked else { return Ok(None) };
        if row.is_change {
            let after = json!({ "revoked": true });
            audit::log_written(by, &of_token("RevokeToken", &row.name, after));
        }
        let token = token_row!(row).read()?;
        Ok(Some(token))
    }

    /// Lists tokens after `after` (exclusive), at most `limit`.
    pub async fn list_tokens(&self, after: &str, limit: i64) -> Result<Page<Token>, StoreError> {
        let rows =
            sqlx::query_file_as!(TokenRow, "src/store/sql/token/list_tokens.sql", after, limit);
        // One has at most 32 grants: the limit bounds a page well enough.
        read_page(rows.fetch_all(&self.rest).await?, limit, |_| false, TokenRow::read)
    }

    /// How often tokens were changed.
    pub async fn token_changes(&self) -> Result<i64, StoreError> {
        let changes = sqlx::query_file_scalar!("src/store/sql/token/token_changes.sql");
        Ok(changes.fetch_one(&self.db).await?)
    }

    /// The tokens that are valid. One whose row somebody has made unreadable is not.
    pub async fn living_tokens(&self) -> Result<Vec<LivingToken>, StoreError> {
        let rows =
            sqlx::query_file_as!(LivingRow, "src/store/sql/token/living_tokens.sql", MAX_LIVING);
        let read = |row: LivingRow| {
            let name = row.name.clone();
            row.read()
                .inspect_err(|error| tracing::error!(name, %error, "a token is left out"))
                .ok()
        };
        Ok(rows.fetch_all(&self.db).await?.into_iter().filter_map(read).collect())
    }

    /// Notes that tokens were used, to the minute, and answers of how many. May be repeated.
    pub async fn note_token_use(&self, names: &[String]) -> Result<i64, StoreError> {
        let noted = sqlx::query_file_scalar!("src/store/sql/token/note_token_use.sql", names);
        Ok(noted.fetch_one(&self.db).await?)
    }
}
