//! `AccessService`: who may call, and who changed what, over gRPC.

use std::time::Duration;

use tonic::{Request, Response, Status};

use super::{
    audit_events,
    convert::{Fields, timestamp},
    layers::authority_of,
    page::page,
    pb,
    status::status,
};
use crate::{
    domain::{
        access::{Grant, Grants, MAX_GRANTS, MAX_LIFETIME, MIN_LIFETIME, PoolPattern, Role, Token},
        id::TokenName,
    },
    service::{
        Error,
        admin::{audit_events::AuditTrail, tokens::Tokens},
    },
};

/// Serves `AccessService`.
#[derive(Clone, Debug)]
pub struct AccessRpc {
    tokens: Tokens,
    trail: AuditTrail,
}

impl AccessRpc {
    /// Over the tokens, and the audit trail.
    pub fn new(tokens: Tokens, trail: AuditTrail) -> Self {
        Self { tokens, trail }
    }
}

#[tonic::async_trait]
impl pb::access_service_server::AccessService for AccessRpc {
    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        let by = authority_of(&request);
        let (name, grants, lifetime) =
            read_new_token(request.into_inner()).map_err(|e| status(&e))?;
        let made = self.tokens.create(&name, &grants, lifetime, &by).await;
        let (token, secret) = made.map_err(|e| status(&e))?;
        Ok(Response::new(pb::CreateTokenResponse {
            token: Some(token_message(&token)),
            secret: secret.expose().to_owned(),
        }))
    }

    async fn list_tokens(
        &self,
        request: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        let (after, limit) = read_list(request.into_inner()).map_err(|e| status(&e))?;
        let after = after.map(|name| name.to_string()).unwrap_or_default();
        let found = self.tokens.list(&after, limit).await.map_err(|e| status(&e))?;
        let (tokens, next_page_token) = page(&found, |token| token.name.to_string(), token_message);
        Ok(Response::new(pb::ListTokensResponse { tokens, next_page_token }))
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        let by = authority_of(&request);
        let name = read_name(request.into_inner()).map_err(|e| status(&e))?;
        let token = self.tokens.revoke(&name, &by).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::RevokeTokenResponse { token: Some(token_message(&token)) }))
    }

    async fn list_audit_events(
        &self,
        request: Request<pb::ListAuditEventsRequest>,
    ) -> Result<Response<pb::ListAuditEventsResponse>, Status> {
        audit_events::list(&self.trail, request).await
    }
}

/// The token's name, what it may do, and for how long.
pub(super) fn read_new_token(
    request: pb::CreateTokenRequest,
) -> Result<(TokenName, Grants, Option<Duration>), Error> {
    let mut fields = Fields::default();
    let name = fields.id("name", &request.name, TokenName::parse);
    let grants = read_grants(&mut fields, &request.grants);
    let lifetime = fields.duration("lifetime", request.lifetime, MIN_LIFETIME, MAX_LIFETIME);
    fields.finish(name.zip(grants).map(|(name, grants)| (name, grants, lifetime)))
}

/// After which token, and how many.
pub(super) fn read_list(request: pb::ListTokensRequest) -> Result<(Option<TokenName>, i64), Error> {
    let mut fields = Fields::default();
    let limit = fields.page_size(request.page_size);
    let after = fields.page_token(&request.page_token, |key| TokenName::parse(key).ok());
    fields.finish(Some((after, limit)))
}

pub(super) fn read_name(request: pb::RevokeTokenRequest) -> Result<TokenName, Error> {
    let mut fields = Fields::default();
    let name = fields.id("name", &request.name, TokenName::parse);
    fields.finish(name)
}

fn read_grants(fields: &mut Fields, given: &[pb::Grant]) -> Option<Grants> {
    if !(1..=MAX_GRANTS).contains(&given.len()) {
        fields.refuse("grants", format!("must be 1 to {MAX_GRANTS}"));
        return None;
    }
    let grants = given.iter().enumerate().map(|(n, grant)| {
        let field = format!("grants[{n}].role");
        let role = fields.choice(&field, grant.role, read_role);
        if role.is_none() {
            fields.refuse(&field, "must be set");
        }
        let pools = PoolPattern::parse(&grant.pools);
        if pools.is_none() {
            let rule = "must be a pool's id, or the beginning of ids and '*': shop-*, or * for all";
            fields.refuse(&format!("grants[{n}].pools"), rule);
        }
        Some(Grant { role: role?, pools: pools? })
    });
    let grants: Vec<_> = grants.collect();
    grants.into_iter().collect::<Option<_>>().map(Grants::new)
}

fn read_role(role: pb::Role) -> Option<Role> {
    match role {
        pb::Role::Unspecified => None,
        pb::Role::Redeemer => Some(Role::Redeemer),
        pb::Role::Operator => Some(Role::Operator),
        pb::Role::Auditor => Some(Role::Auditor),
        pb::Role::Admin => Some(Role::Admin),
    }
}

fn role_message(role: Role) -> pb::Role {
    match role {
        Role::Redeemer => pb::Role::Redeemer,
        Role::Operator => pb::Role::Operator,
        Role::Auditor => pb::Role::Auditor,
        Role::Admin => pb::Role::Admin,
    }
}

fn token_message(token: &Token) -> pb::Token {
    let grant = |grant: &Grant| pb::Grant {
        role: role_message(grant.role).into(),
        pools: grant.pools.as_str().to_owned(),
    };
    pb::Token {
        name: token.name.to_string(),
        grants: token.grants.iter().map(grant).collect(),
        create_time: Some(timestamp(token.created_at)),
        expire_time: token.expires_at.map(timestamp),
        revoke_time: token.revoked_at.map(timestamp),
        last_use_time: token.last_used_at.map(timestamp),
        created_by: token.created_by.clone(),
    }
}
