//! Paths: whose a webhook's path is. The first provider of which a version with it was applied has it for good, so that
//! two servers at which two profiles are applied at once judge the same way.

use std::collections::HashMap;

use time::OffsetDateTime;

use crate::{
    domain::{
        id::ProviderId,
        provider::{AppliedProfile, ProfileVersion},
    },
    provider::profile::Profile,
    service::Error,
    store::Store,
};

/// What a version of a profile was applied as.
pub(super) type Applied = (ProfileVersion, OffsetDateTime);

/// Brings versions into the order in which their paths count.
pub(super) fn sort(versions: &mut [Applied]) {
    versions.sort_by(|(one, at), (other, other_at)| (at, one).cmp(&(other_at, other)));
}

/// Chooses for each path what serves it, from the versions that have it in their order: of the first one's provider the
/// highest version.
pub(super) fn choose<T>(
    versions: impl IntoIterator<Item = (String, ProfileVersion, T)>,
) -> HashMap<String, (ProfileVersion, T)> {
    let mut chosen: HashMap<String, (ProfileVersion, T)> = HashMap::new();
    for (path, version, it) in versions {
        let is_better = chosen.get(&path).is_none_or(|(before, _)| {
            before.provider_id == version.provider_id && before.version < version.version
        });
        if is_better {
            chosen.insert(path, (version, it));
        }
    }
    chosen
}

/// The provider that has a path. Reads all profiles: that is asked when one is applied.
pub(in crate::service) async fn owner(
    store: &Store,
    path: &str,
) -> Result<Option<ProviderId>, Error> {
    let mut versions = store.list_profile_versions().await?;
    sort(&mut versions);
    for (version, _) in versions {
        let Some(AppliedProfile { text, .. }) = store.get_profile(&version).await? else {
            continue;
        };
        // To read a long file takes a while, in which other calls go on.
        let read = tokio::task::spawn_blocking(move || Profile::parse_applied(&text));
        let read = read.await.map_err(|_| Error::Internal("the reading of a profile panicked"))?;
        let webhook = read.ok().and_then(|profile| profile.webhook);
        if webhook.is_some_and(|webhook| webhook.path == path) {
            return Ok(Some(version.provider_id));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(id: &str, version: i32, at: i64) -> Applied {
        let provider_id = ProviderId::parse(id).unwrap();
        let at = OffsetDateTime::from_unix_timestamp(at).unwrap();
        (ProfileVersion { provider_id, version }, at)
    }

    #[test]
    fn a_path_is_the_first_providers_as_its_newest_version_says() {
        let mut versions =
            vec![applied("b", 9, 3), applied("b", 2, 2), applied("b", 1, 1), applied("a", 7, 2)];
        sort(&mut versions);
        let with_path = versions.iter().map(|(it, _)| ("p".to_owned(), it.clone(), ()));
        let chosen = choose(with_path);
        assert_eq!(chosen["p"].0.to_string(), "b 9");
        let mut at_once = vec![applied("b", 1, 1), applied("a", 1, 1)];
        sort(&mut at_once);
        let with_path = at_once.iter().map(|(it, _)| ("p".to_owned(), it.clone(), ()));
        assert_eq!(choose(with_path)["p"].0.to_string(), "a 1");
    }
}
