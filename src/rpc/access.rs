//! `AccessService`: who may call, and who changed what, over gRPC.

use tonic::{Request, Response, Status};

use super::{audit_events, pb, status::not_served};
use crate::service::admin::audit_events::AuditTrail;

/// Serves `AccessService`.
#[derive(Clone, Debug)]
pub struct AccessRpc {
    trail: AuditTrail,
}

impl AccessRpc {
    /// Over the audit trail.
    pub fn new(trail: AuditTrail) -> Self {
        Self { trail }
    }
}

#[tonic::async_trait]
impl pb::access_service_server::AccessService for AccessRpc {
    async fn create_token(
        &self,
        _: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        Err(not_served())
    }

    async fn list_tokens(
        &self,
        _: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        Err(not_served())
    }

    async fn revoke_token(
        &self,
        _: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        Err(not_served())
    }

    async fn list_audit_events(
        &self,
        request: Request<pb::ListAuditEventsRequest>,
    ) -> Result<Response<pb::ListAuditEventsResponse>, Status> {
        audit_events::list(&self.trail, request).await
    }
}
