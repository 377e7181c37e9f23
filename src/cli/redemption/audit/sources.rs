//! The providers of an audit: each by the version of its profile that a redemption was begun under.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::Context as _;

use crate::{
    cli::shared::client::{RpcError, Server, required, unary},
    config::ProviderArgs,
    domain::{
        id::{ProviderId, RedemptionId},
        money::{Currency, Money},
    },
    provider::{
        Provider, SecretValues,
        profile::{OpKind, Profile},
        question::About,
        secrets::Secrets,
    },
    rpc::pb,
};

/// Gives providers by their profiles, each read once.
pub(super) struct Sources {
    server: Server,
    secrets_dir: Option<PathBuf>,
    built_in: ProviderArgs,
    /// By id and version; version 0 is the newest.
    loaded: BTreeMap<(String, i32), Provider>,
}

/// How a provider can be audited.
pub(super) struct Way {
    /// By its list; the currency is that of what tells none.
    pub(super) list: Option<Currency>,
    /// By asking it about redemptions of ours.
    pub(super) looks_up: bool,
}

impl Sources {
    pub(super) fn new(
        server: Server,
        secrets_dir: Option<PathBuf>,
        built_in: ProviderArgs,
    ) -> Self {
        Self { server, secrets_dir, built_in, loaded: BTreeMap::new() }
    }

    /// A provider by a version of its profile; 0 is the newest.
    pub(super) async fn get(&mut self, id: &str, version: i32) -> anyhow::Result<Provider> {
        let key = (id.to_owned(), version);
        if let Some(loaded) = self.loaded.get(&key) {
            return Ok(loaded.clone());
        }
        let provider = self.load(id, version).await?;
        self.loaded.insert(key, provider.clone());
        Ok(provider)
    }

    async fn load(&self, id: &str, version: i32) -> anyhow::Result<Provider> {
        if id == Profile::built_in().id.as_str() {
            return Provider::built_in(&self.built_in);
        }
        let request = pb::GetProviderRequest { provider_id: id.to_owned(), version };
        let reply = self.server.providers().get_provider(unary(request)).await.map_err(RpcError)?;
        let file = required(reply.into_inner().provider, "provider")?.profile;
        let profile = Profile::parse_applied(&file).map_err(|faults| {
            let fault = faults.first().map(|it| format!("line {}: {}", it.line, it.message));
            anyhow::anyhow!(
                "this program cannot read the profile of {id}: {}",
                fault.unwrap_or_default()
            )
        })?;
        let secrets = Secrets::new(self.secrets_dir.clone(), &ProviderId::parse(id)?);
        Provider::new(profile, SecretValues::Files(secrets), None)
    }
}

impl Way {
    /// How a provider can be audited whose pools have these currencies. The error says why it cannot.
    pub(super) fn of(provider: &Provider, currencies: &BTreeSet<Currency>) -> Result<Self, String> {
        let profile = provider.profile();
        provider.secrets().map_err(|missing| missing.join("; "))?;
        let list = match currencies.first() {
            Some(first) if profile.lists_amounts(currencies.len() > 1) => Some(*first),
            _ => None,
        };
        let can_look_up = sample(currencies).map(|about| provider.looks_up_by(&about));
        match (list, can_look_up) {
            (list, Some(Ok(_))) => Ok(Self { list, looks_up: true }),
            (Some(list), _) => Ok(Self { list: Some(list), looks_up: false }),
            (None, Some(Err(needed))) if !needed.is_empty() => Err(format!(
                "it has no list, and cannot be asked about a redemption without {}, which nobody is told any more",
                needed.join(", ")
            )),
            _ => Err("it has neither a list nor a look-up".to_owned()),
        }
    }
}

/// A redemption of which all is known that can be.
fn sample(currencies: &BTreeSet<Currency>) -> Option<About> {
    Some(About {
        id: RedemptionId::new(),
        task: Some("1".to_owned()),
        reference: Some("1".to_owned()),
        account: "1".to_owned(),
        expected: Some(Money { amount_minor: 1, currency: *currencies.first()? }),
    })
}

/// How a redemption is asked about, where all that this needs is known of it.
pub(super) fn op_for(provider: &Provider, about: &About) -> Option<OpKind> {
    provider.looks_up_by(about).ok()
}

/// A currency, as pools and redemptions have it.
pub(super) fn currency(code: &str) -> anyhow::Result<Currency> {
    Currency::parse(code).with_context(|| format!("{code:?} is no currency"))
}
