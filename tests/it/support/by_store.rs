//! Acquiring without a server, as the server's dispatcher does.

use std::{collections::HashMap, sync::Arc};

use holdfast::{
    domain::{choice::Criteria, id::PoolId, principal::RequestKey},
    store::{
        Store,
        acquire::{Acquired, Claim, Wanted},
    },
};

/// Leases accounts to those who ask, in their order. A request that has a lease already gets that. Others' changes are
/// read before.
pub(crate) async fn acquire(
    store: &Store,
    pool_id: &PoolId,
    asked: &[(Wanted, Criteria)],
) -> HashMap<RequestKey, Acquired> {
    let ready = store.ready(pool_id);
    assert!(ready.follow().await.unwrap(), "the pool is there");
    let requests: Vec<_> = asked.iter().map(|(wanted, _)| wanted.request.clone()).collect();
    let mut found = store.leases_of(pool_id, &requests).await.unwrap();
    let asked: Vec<_> = asked
        .iter()
        .filter(|(wanted, _)| !found.contains_key(&wanted.request))
        .map(|(wanted, criteria)| (wanted.clone(), Arc::new(criteria.clone())))
        .collect();
    let terms = ready.terms().unwrap();
    let chosen = ready.choose(asked.iter().map(|(_, criteria)| criteria), &terms, asked.len());
    let accounts: Vec<_> = chosen.iter().map(|one| one.account.account_id.clone()).collect();
    let claims = chosen.into_iter().map(|chosen| {
        let (wanted, criteria) = asked[chosen.number].clone();
        Claim { wanted, criteria, account: chosen.account }
    });
    let claimed = store.claim(pool_id, claims.collect()).await.unwrap();
    ready.conclude(&accounts);
    assert!(claimed.failed.is_empty(), "{:?}", claimed.failed);
    found.extend(claimed.leased);
    found
}
