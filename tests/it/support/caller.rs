//! Clients of a server that asks who calls: each shows a token, or nothing.

use holdfast::rpc::pb::{
    self, access_service_client::AccessServiceClient, account_service_client::AccountServiceClient,
    pool_service_client::PoolServiceClient, redemption_service_client::RedemptionServiceClient,
};
use tonic::{
    Request, Status, metadata::AsciiMetadataValue, service::Interceptor,
    service::interceptor::InterceptedService, transport::Channel,
};

/// What is shown with each call.
#[derive(Clone)]
pub(crate) struct Shown(Option<AsciiMetadataValue>);

impl Interceptor for Shown {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

pub(crate) type Connection = InterceptedService<Channel, Shown>;

/// A connection of somebody who shows a token or JWT, or nothing.
pub(crate) fn connection(channel: Channel, secret: Option<&str>) -> Connection {
    showing(channel, secret.map(|secret| format!("Bearer {secret}")).as_deref())
}

fn showing(channel: Channel, header: Option<&str>) -> Connection {
    InterceptedService::new(channel, Shown(header.map(|header| header.parse().unwrap())))
}

/// The clients of somebody.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) connection: Connection,
    pub(crate) redemptions: RedemptionServiceClient<Connection>,
    pub(crate) accounts: AccountServiceClient<Connection>,
    pub(crate) pools: PoolServiceClient<Connection>,
    pub(crate) access: AccessServiceClient<Connection>,
}

impl Caller {
    /// Who shows a token or JWT.
    pub(crate) fn with(channel: Channel, secret: &str) -> Self {
        Self::showing(channel, Some(&format!("Bearer {secret}")))
    }

    /// Who sends this header, or none.
    pub(crate) fn showing(channel: Channel, header: Option<&str>) -> Self {
        let connection = showing(channel, header);
        Self {
            redemptions: RedemptionServiceClient::new(connection.clone()),
            accounts: AccountServiceClient::new(connection.clone()),
            pools: PoolServiceClient::new(connection.clone()),
            access: AccessServiceClient::new(connection.clone()),
            connection,
        }
    }

    /// The names of the pools that are shown.
    pub(crate) async fn pools(&mut self) -> Result<Vec<String>, Status> {
        let reply = self.pools.list_pools(pb::ListPoolsRequest::default()).await?.into_inner();
        Ok(reply.pools.into_iter().map(|pool| pool.pool_id).collect())
    }

    pub(crate) async fn create_pool(&mut self, pool_id: &str) -> Result<(), Status> {
        let pool = pb::Pool {
            pool_id: pool_id.to_owned(),
            currency_code: "EUR".to_owned(),
            ..Default::default()
        };
        let request = pb::CreatePoolRequest { pool: Some(pool) };
        self.pools.create_pool(request).await.map(drop)
    }

    /// Makes a token, and answers its secret.
    pub(crate) async fn create_token(
        &mut self,
        name: &str,
        grants: &[(pb::Role, &str)],
        lifetime_seconds: Option<i64>,
    ) -> Result<String, Status> {
        let grant = |(role, pools): &(pb::Role, &str)| pb::Grant {
            role: (*role).into(),
            pools: (*pools).to_owned(),
        };
        let request = pb::CreateTokenRequest {
            name: name.to_owned(),
            grants: grants.iter().map(grant).collect(),
            lifetime: lifetime_seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        };
        Ok(self.access.create_token(request).await?.into_inner().secret)
    }

    pub(crate) async fn revoke(&mut self, name: &str) -> Result<pb::Token, Status> {
        let request = pb::RevokeTokenRequest { name: name.to_owned() };
        Ok(self.access.revoke_token(request).await?.into_inner().token.unwrap())
    }
}
