//! What about a profile does not go with what is there: earlier versions, other providers, pools.

use std::collections::BTreeMap;

use super::lines::line_of_key;
use crate::{
    domain::{access::PoolFilter, id::PoolId, money::Currency, provider::ProfileVersion},
    provider::profile::{Fault, Profile},
    service::{error::Error, webhooks::paths},
    store::{Store, StoreError},
};

/// How many pools are named for one currency; the others are counted.
const NAMED_POOLS: usize = 10;
/// How many pools are read at once.
const PAGE: i64 = 1000;

/// All that does not fit.
pub(super) async fn contradictions(
    store: &Store,
    profile: &Profile,
    text: &str,
) -> Result<Vec<Fault>, Error> {
    let outdated = outdated(store, &profile.pinned(), text).await?;
    let taken = taken_path(store, profile).await?;
    let mut faults: Vec<_> = outdated.into_iter().chain(taken).collect();
    faults.extend(dropped_currencies(store, profile, text).await?);
    faults.sort();
    Ok(faults)
}

/// A version below the newest one would never be used.
async fn outdated(
    store: &Store,
    version: &ProfileVersion,
    text: &str,
) -> Result<Option<Fault>, Error> {
    let newest = store.get_newest_profile(&version.provider_id).await?;
    let newest = newest.map_or(0, |newest| newest.version.version);
    Ok((version.version < newest).then(|| Fault {
        line: line_of_key(text, "version"),
        message: format!(
            "version {} would never be used, because version {newest} of provider {} was applied: give it a higher one",
            version.version, version.provider_id
        ),
    }))
}

/// A webhook's path that another provider has would never be served.
async fn taken_path(store: &Store, profile: &Profile) -> Result<Option<Fault>, Error> {
    let Some(webhook) = &profile.webhook else { return Ok(None) };
    let owner = paths::owner(store, &webhook.path).await?;
    Ok(owner.filter(|owner| *owner != profile.id).map(|owner| Fault {
        line: webhook.path_line,
        message: format!(
            "webhook.path {} is that of provider {owner}: give this one another",
            webhook.path
        ),
    }))
}

/// A pool never changes its currency, so the profile has to take it.
async fn dropped_currencies(
    store: &Store,
    profile: &Profile,
    text: &str,
) -> Result<Vec<Fault>, StoreError> {
    if profile.currencies.is_empty() {
        return Ok(Vec::new());
    }
    let line = line_of_key(text, "currencies");
    let dropped = pools_of_others(store, profile).await?;
    let fault = |(currency, pools): (Currency, Vec<PoolId>)| {
        let named: Vec<_> = pools.iter().take(NAMED_POOLS).map(ToString::to_string).collect();
        let more = match pools.len().saturating_sub(NAMED_POOLS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "currencies lacks {currency}, the currency of pool {}{more} of this provider: a pool's currency never changes",
            named.join(", ")
        );
        Fault { line, message }
    };
    Ok(dropped.into_iter().map(fault).collect())
}

/// The pools of the provider whose currency the profile does not take.
async fn pools_of_others(
    store: &Store,
    profile: &Profile,
) -> Result<BTreeMap<Currency, Vec<PoolId>>, StoreError> {
    let mut unfit: BTreeMap<Currency, Vec<PoolId>> = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = store.list_pools(&after, PAGE, &PoolFilter::all()).await?;
        let Some(last) = page.rows.last() else { return Ok(unfit) };
        after = last.pool_id.to_string();
        for pool in page.rows {
            if pool.provider_id == profile.id && !profile.takes(pool.currency) {
                unfit.entry(pool.currency).or_default().push(pool.pool_id);
            }
        }
        if !page.more {
            return Ok(unfit);
        }
    }
}
