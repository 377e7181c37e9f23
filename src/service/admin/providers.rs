//! Providers: their profiles, applied, checked and read.
//!
//! The built-in profile ships with the program. It is read and listed like the others, and cannot be applied.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use time::OffsetDateTime;

mod fit;
mod lines;

use self::{
    fit::contradictions,
    lines::{line_of_key, line_of_secret},
};
use crate::{
    domain::{
        id::ProviderId,
        money::Currency,
        page::Page,
        principal::Authority,
        provider::{AppliedProfile, ProfileVersion, ProviderStatus},
    },
    provider::{
        SecretValues,
        check::run_cases,
        client,
        profile::{BUILT_IN, Fault, Profile},
        secrets::Secrets,
    },
    service::error::{Error, Violation},
    store::Store,
};

/// The keeping of providers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Providers {
    store: Store,
    secrets_dir: Option<PathBuf>,
}

/// A version of a provider's profile.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Which one.
    pub version: ProfileVersion,
    /// The file.
    pub text: Arc<str>,
    /// When it was first applied; `None` for the built-in profile, and for one that is only checked.
    pub applied_at: Option<OffsetDateTime>,
    /// What the file says. Nothing where this program cannot read it, because another version of it applied it.
    pub facts: Facts,
    /// What holds back the calls to the provider, where that was asked for.
    pub status: Option<ProviderStatus>,
}

/// What a profile says of itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Which currencies pools may have; empty is any.
    pub currencies: Vec<Currency>,
    /// What can be asked of the provider, by its name in the file.
    pub operations: Vec<&'static str>,
    /// The secrets that it names.
    pub secrets: BTreeSet<String>,
    /// How many recorded answers it has.
    pub cases: usize,
    /// How many places its brake has; 0: it has none.
    pub brake: u32,
}

/// What came of a check.
#[derive(Clone, Debug)]
pub struct Checked {
    /// All that is wrong; nothing when it can be applied.
    pub faults: Vec<Fault>,
    /// The profile, where nothing is wrong with it.
    pub provider: Option<Provider>,
}

impl Providers {
    /// The providers of a store, whose secrets are files in this folder.
    pub fn new(store: Store, secrets_dir: Option<PathBuf>) -> Self {
        Self { store, secrets_dir }
    }

    /// Applies a profile: its redemptions from now on are begun under it. The same text again is fine.
    pub async fn apply(&self, text: &str, by: &Authority) -> Result<Provider, Error> {
        let profile = self.judge(text).await?.map_err(|faults| invalid(&faults))?;
        let version = profile.pinned();
        if let Some(before) = self.store.get_profile(&version).await? {
            return same_text(before, text);
        }
        let faults = contradictions(&self.store, &profile, text).await?;
        if !faults.is_empty() {
            return Err(invalid(&faults));
        }
        match self.store.insert_profile(&version, text, by).await? {
            Some(applied) => {
                tracing::info!(
                    provider_id = %version.provider_id, version = version.version, "profile applied"
                );
                Ok(Provider::read(applied))
            }
            // Somebody else applied that version just now, or this call did, and a reply was lost.
            None => {
                let before = self.store.get_profile(&version).await?;
                same_text(before.ok_or(Error::Internal("a profile that is there is not"))?, text)
            }
        }
    }

    /// Says what [`Providers::apply`] would refuse, and changes nothing.
    pub async fn check(&self, text: &str) -> Result<Checked, Error> {
        let profile = match self.judge(text).await? {
            Ok(profile) => profile,
            Err(faults) => return Ok(Checked { faults, provider: None }),
        };
        let version = profile.pinned();
        let faults = match self.store.get_profile(&version).await? {
            Some(before) => {
                let line = line_of_key(text, "version");
                let fault = same_text(before, text).err();
                let fault = fault.map(|error| Fault { line, message: error.to_string() });
                fault.into_iter().collect()
            }
            None => contradictions(&self.store, &profile, text).await?,
        };
        let facts = Facts::of(&profile);
        let provider =
            Provider { version, text: text.into(), applied_at: None, facts, status: None };
        Ok(Checked { provider: faults.is_empty().then_some(provider), faults })
    }

    /// Reads a version of a profile; the newest when none is named.
    pub async fn get(
        &self,
        provider_id: &ProviderId,
        version: Option<i32>,
    ) -> Result<Provider, Error> {
        let not_found = || Error::ProviderNotFound { provider_id: provider_id.clone(), version };
        if provider_id.is_built_in() {
            let built_in = Provider::built_in();
            let is_asked = version.is_none_or(|version| version == built_in.version.version);
            let asked = is_asked.then_some(built_in).ok_or_else(not_found)?;
            let brake = asked.facts.brake;
            return self.with_status(asked, brake).await;
        }
        let newest = self.store.get_newest_profile(provider_id).await?.ok_or_else(not_found)?;
        let newest = on_a_thread(move || Provider::read(newest)).await?;
        // The limits of the newest version hold.
        let brake = newest.facts.brake;
        let asked = match version {
            Some(version) if version != newest.version.version => {
                let provider_id = provider_id.clone();
                let asked = ProfileVersion { provider_id, version };
                let asked = self.store.get_profile(&asked).await?.ok_or_else(not_found)?;
                on_a_thread(move || Provider::read(asked)).await?
            }
            _ => newest,
        };
        self.with_status(asked, brake).await
    }

    async fn with_status(&self, provider: Provider, brake: u32) -> Result<Provider, Error> {
        let status = self.store.list_status(&[(&provider.version.provider_id, brake)]).await?;
        Ok(Provider { status: status.into_iter().next(), ..provider })
    }

    /// Lists the newest version of each provider after `after`, at most `limit`.
    pub async fn list(&self, after: &str, limit: i64) -> Result<Page<Provider>, Error> {
        let page = self.store.list_profiles(after, limit).await?;
        let read = move || Page {
            rows: page.rows.into_iter().map(Provider::read).collect(),
            more: page.more,
        };
        let mut page = with_built_in(on_a_thread(read).await?, after, limit);
        let asked = page.rows.iter().map(|row| (&row.version.provider_id, row.facts.brake));
        let status = self.store.list_status(&asked.collect::<Vec<_>>()).await?;
        for (row, status) in page.rows.iter_mut().zip(status) {
            row.status = Some(status);
        }
        Ok(page)
    }

    /// What is wrong with a profile by itself, on this server.
    async fn judge(&self, text: &str) -> Result<Result<Profile, Vec<Fault>>, Error> {
        let (text, secrets_dir) = (text.to_owned(), self.secrets_dir.clone());
        on_a_thread(move || judge(&text, secrets_dir)).await
    }
}

impl Provider {
    fn built_in() -> Self {
        let profile = Profile::built_in();
        Self {
            version: profile.pinned(),
            text: BUILT_IN.into(),
            applied_at: None,
            facts: Facts::of(profile),
            status: None,
        }
    }

    fn read(applied: AppliedProfile) -> Self {
        let facts = Profile::parse_applied(&applied.text).map(|profile| Facts::of(&profile));
        let facts = facts.unwrap_or_else(|_| {
            let ProfileVersion { provider_id, version } = &applied.version;
            tracing::warn!(%provider_id, version, "a profile cannot be read by this program");
            Facts::default()
        });
        Self {
            version: applied.version,
            text: applied.text.into(),
            applied_at: Some(applied.applied_at),
            facts,
            status: None,
        }
    }
}

impl Facts {
    fn of(profile: &Profile) -> Self {
        Self {
            currencies: profile.currencies.clone(),
            operations: profile.operations(),
            secrets: profile.secrets(),
            cases: profile.case_count(),
            brake: profile.limits.brake.as_ref().map_or(0, |brake| brake.count),
        }
    }
}

/// The newest profile of a provider.
pub(super) async fn newest_profile(
    store: &Store,
    provider_id: &ProviderId,
) -> Result<Profile, Error> {
    if provider_id.is_built_in() {
        return Ok(Profile::built_in().clone());
    }
    let newest = store.get_newest_profile(provider_id).await?;
    let newest = newest.ok_or_else(|| Error::ProviderNotFound {
        provider_id: provider_id.clone(),
        version: None,
    })?;
    let profile = on_a_thread(move || Profile::parse_applied(&newest.text)).await?;
    profile.map_err(|_| {
        let rule = format!("has a profile that this server cannot read: {provider_id}");
        Error::Invalid(vec![Violation::new("pool.provider_id", rule)])
    })
}

/// To read a long profile takes a while, in which other calls go on.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::Internal("the reading of a profile panicked"))
}

fn judge(text: &str, secrets_dir: Option<PathBuf>) -> Result<Profile, Vec<Fault>> {
    let profile = Profile::parse(text)?;
    let mut faults = Vec::new();
    if profile.id.is_built_in() {
        faults.push(Fault {
            line: line_of_key(text, "id"),
            message:
                "holdfast is the profile that ships with the program: give this one another id"
                    .to_owned(),
        });
    } else {
        let secrets = Secrets::new(secrets_dir, &profile.id);
        faults.extend(missing_secrets(&profile, &secrets, text));
        // Its certificates are files too.
        if let Err(why) = client::Provider::new(profile.clone(), SecretValues::Files(secrets), None)
        {
            faults.push(Fault { line: 1, message: format!("{why:#}") });
        }
    }
    faults.extend(run_cases(&profile));
    faults.sort();
    if faults.is_empty() { Ok(profile) } else { Err(faults) }
}

/// Each secret that this server does not have, at the line that first names it.
fn missing_secrets(profile: &Profile, secrets: &Secrets, text: &str) -> Vec<Fault> {
    let faults = profile.secrets().into_iter().filter_map(|name| {
        let line = line_of_secret(text, &name);
        let why = secrets.read(&BTreeSet::from([name])).err()?;
        Some(Fault { line, message: why.concat() })
    });
    faults.collect()
}

/// The profile as it was applied before, if it is the same file, byte by byte.
fn same_text(before: AppliedProfile, text: &str) -> Result<Provider, Error> {
    if before.text == text {
        Ok(Provider::read(before))
    } else {
        Err(Error::ProviderVersionExists(before.version))
    }
}

fn invalid(faults: &[Fault]) -> Error {
    let violation = |fault: &Fault| Violation::new("profile", fault.to_string());
    Error::Invalid(faults.iter().map(violation).collect())
}

/// Puts the built-in profile at its place of the list.
fn with_built_in(mut page: Page<Provider>, after: &str, limit: i64) -> Page<Provider> {
    let built_in = Provider::built_in();
    let id = built_in.version.provider_id.clone();
    let place = page.rows.partition_point(|row| row.version.provider_id < id);
    // Behind the last row it is the next page's, where there is one.
    if id.as_str() <= after || page.more && place == page.rows.len() {
        return page;
    }
    page.rows.insert(place, built_in);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    page.more |= page.rows.len() > limit;
    page.rows.truncate(limit);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(id: &str) -> Provider {
        let provider_id = ProviderId::parse(id).unwrap();
        let version = ProfileVersion { provider_id, version: 1 };
        Provider {
            version,
            text: "".into(),
            applied_at: None,
            facts: Facts::default(),
            status: None,
        }
    }

    /// All ids of a list, page by page.
    fn listed(stored: &[&str], limit: usize) -> Vec<String> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let rows: Vec<_> = stored.iter().filter(|id| ***id > *after).collect();
            let rows: Vec<_> = rows.into_iter().take(limit).map(|id| provider(id)).collect();
            let more = rows.len() == limit;
            let page = with_built_in(Page { rows, more }, &after, i64::try_from(limit).unwrap());
            assert!(page.rows.len() <= limit);
            all.extend(page.rows.iter().map(|row| row.version.provider_id.to_string()));
            match page.rows.last() {
                Some(last) if page.more => after = last.version.provider_id.to_string(),
                _ => return all,
            }
        }
    }

    #[test]
    fn the_built_in_profile_is_listed_once_at_its_place() {
        for stored in [
            &[][..],
            &["a"],
            &["z"],
            &["a", "b", "x", "z"],
            &["a", "b", "c"],
            &["i", "j", "k"],
            &["a", "b", "c", "d", "e", "x"],
        ] {
            let mut wanted = [stored, &["holdfast"]].concat();
            wanted.sort_unstable();
            for limit in 1..8 {
                assert_eq!(listed(stored, limit), wanted, "pages of {limit}");
            }
        }
    }

    #[test]
    fn a_secret_is_faulted_where_it_is_named_first() {
        let text = "a = \"{{ account.secret.token }}\"\nb = \"{{ secret.token2 }}\"\n\
                    c = \"x{{secret.token}}\"\nd = \"{{ secret.token }}\"\n";
        assert_eq!(line_of_secret(text, "token"), 3);
        assert_eq!(line_of_secret(text, "token2"), 2);
        assert_eq!(line_of_secret(text, "none"), 1);
    }

    #[test]
    fn keys_are_found_before_all_tables() {
        let text = "# version = 0\nid = \"x\"\n version=2\n[http]\nbase = \"x\"\nidentity = 1\n";
        assert_eq!((line_of_key(text, "id"), line_of_key(text, "version")), (2, 3));
        assert_eq!(line_of_key(text, "base"), 1);
    }
}
