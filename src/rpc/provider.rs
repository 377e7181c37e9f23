//! `ProviderService`: the profiles of providers over gRPC.

use tonic::{Request, Response, Status};

use super::{
    convert::{Fields, timestamp},
    layers::authority_of,
    page::{first_of, page},
    pb,
    status::status,
};
use crate::{
    domain::{id::ProviderId, provider::ProviderStatus},
    service::{
        Error,
        admin::providers::{Provider, Providers},
    },
};

/// Serves `ProviderService`.
#[derive(Clone, Debug)]
pub struct ProviderRpc {
    providers: Providers,
}

impl ProviderRpc {
    /// Over the providers.
    pub fn new(providers: Providers) -> Self {
        Self { providers }
    }
}

#[tonic::async_trait]
impl pb::provider_service_server::ProviderService for ProviderRpc {
    async fn apply_provider(
        &self,
        request: Request<pb::ApplyProviderRequest>,
    ) -> Result<Response<pb::ApplyProviderResponse>, Status> {
        let by = authority_of(&request);
        let text = request.into_inner().profile;
        let provider = self.providers.apply(&text, &by).await.map_err(|e| status(&e))?;
        let provider = Some(provider_message(&provider));
        Ok(Response::new(pb::ApplyProviderResponse { provider }))
    }

    async fn check_provider(
        &self,
        request: Request<pb::CheckProviderRequest>,
    ) -> Result<Response<pb::CheckProviderResponse>, Status> {
        let text = request.into_inner().profile;
        let checked = self.providers.check(&text).await.map_err(|e| status(&e))?;
        let faults = checked.faults.iter().map(|fault| pb::ProfileFault {
            line: number(fault.line),
            message: fault.message.clone(),
        });
        Ok(Response::new(pb::CheckProviderResponse {
            faults: first_of(faults),
            fault_count: number(checked.faults.len()),
            provider: checked.provider.as_ref().map(provider_message),
        }))
    }

    async fn get_provider(
        &self,
        request: Request<pb::GetProviderRequest>,
    ) -> Result<Response<pb::GetProviderResponse>, Status> {
        let (provider_id, version) = read_get(request.into_inner()).map_err(|e| status(&e))?;
        let provider = self.providers.get(&provider_id, version).await.map_err(|e| status(&e))?;
        let provider = Some(provider_message(&provider));
        Ok(Response::new(pb::GetProviderResponse { provider }))
    }

    async fn list_providers(
        &self,
        request: Request<pb::ListProvidersRequest>,
    ) -> Result<Response<pb::ListProvidersResponse>, Status> {
        let (after, limit) = read_list(request.into_inner()).map_err(|e| status(&e))?;
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let found = self.providers.list(&after, limit).await.map_err(|e| status(&e))?;
        let id = |provider: &Provider| provider.version.provider_id.to_string();
        let (providers, next_page_token) = page(&found, id, listed_message);
        Ok(Response::new(pb::ListProvidersResponse { providers, next_page_token }))
    }
}

/// The provider, and which version of its profile; none is the newest.
pub(super) fn read_get(
    request: pb::GetProviderRequest,
) -> Result<(ProviderId, Option<i32>), Error> {
    let mut fields = Fields::default();
    let provider_id = fields.id("provider_id", &request.provider_id, ProviderId::parse);
    if request.version < 0 {
        fields.refuse("version", "must be 0, for the newest, or more");
    }
    let version = (request.version != 0).then_some(request.version);
    fields.finish(provider_id.map(|provider_id| (provider_id, version)))
}

/// After which provider, and how many.
pub(super) fn read_list(
    request: pb::ListProvidersRequest,
) -> Result<(Option<ProviderId>, i64), Error> {
    let mut fields = Fields::default();
    let limit = fields.page_size(request.page_size);
    let after = fields.page_token(&request.page_token, |key| ProviderId::parse(key).ok());
    fields.finish(Some((after, limit)))
}

fn provider_message(provider: &Provider) -> pb::Provider {
    pb::Provider { profile: provider.text.to_string(), ..listed_message(provider) }
}

/// Without the file.
fn listed_message(provider: &Provider) -> pb::Provider {
    let facts = &provider.facts;
    pb::Provider {
        provider_id: provider.version.provider_id.to_string(),
        version: provider.version.version,
        profile: String::new(),
        currencies: facts.currencies.iter().map(ToString::to_string).collect(),
        operations: facts.operations.iter().copied().map(str::to_owned).collect(),
        secrets: facts.secrets.iter().cloned().collect(),
        case_count: number(facts.cases),
        apply_time: provider.applied_at.map(timestamp),
        built_in: provider.version.provider_id.is_built_in(),
        status: provider.status.as_ref().map(status_message),
    }
}

/// What holds back the calls to a provider.
pub(super) fn status_message(status: &ProviderStatus) -> pb::ProviderStatus {
    let ProviderStatus { provider_id: _, failing, paused_until, braked_until } = status;
    pb::ProviderStatus {
        failing: failing.is_some(),
        fail_time: failing.and_then(|failing| failing.since).map(timestamp),
        next_try_time: failing.and_then(|failing| failing.next_try_at).map(timestamp),
        failed_tries: failing.map_or(0, |failing| number(failing.failed_tries)),
        pause_end_time: paused_until.map(timestamp),
        brake_end_time: braked_until.map(timestamp),
    }
}

fn number(count: impl TryInto<i32>) -> i32 {
    count.try_into().unwrap_or(i32::MAX)
}
