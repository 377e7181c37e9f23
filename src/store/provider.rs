//! Profiles of providers, as they were applied. The built-in one has no row: it ships with the program.

use serde_json::Value;
use time::OffsetDateTime;

use super::{
    Store, StoreError,
    audit::{self, Written},
    page::{MAX_BYTES, read_page},
    patience::read_patiently,
};
use crate::domain::{
    id::ProviderId,
    page::Page,
    principal::Authority,
    provider::{AppliedProfile, ProfileVersion},
};

struct ProfileRow {
    provider_id: String,
    version: i32,
    profile: String,
    applied_at: OffsetDateTime,
}

struct AppliedRow {
    provider_id: String,
    version: i32,
    profile: String,
    applied_at: OffsetDateTime,
    before: Option<Value>,
    after: Option<Value>,
}

struct VersionRow {
    provider_id: String,
    version: i32,
    applied_at: OffsetDateTime,
}

struct ListedRow {
    provider_id: String,
    version: i32,
    profile: String,
    applied_at: OffsetDateTime,
    more: bool,
}

impl ProfileRow {
    fn read(self) -> Result<AppliedProfile, StoreError> {
        let provider_id = ProviderId::parse(&self.provider_id)
            .map_err(|_| StoreError::Unreadable("providers.provider_id"))?;
        Ok(AppliedProfile {
            version: ProfileVersion { provider_id, version: self.version },
            text: self.profile,
            applied_at: self.applied_at,
        })
    }
}

impl ListedRow {
    fn read(self) -> Result<AppliedProfile, StoreError> {
        let Self { provider_id, version, profile, applied_at, .. } = self;
        ProfileRow { provider_id, version, profile, applied_at }.read()
    }
}

impl Store {
    /// Keeps a version of a profile; `None` when that version is there already. When the reply to it was lost and it is
    /// run again, it is there: whoever asks compares the texts, and finds them the same.
    pub async fn insert_profile(
        &self,
        id: &ProfileVersion,
        text: &str,
        by: &Authority,
    ) -> Result<Option<AppliedProfile>, StoreError> {
        let applied = sqlx::query_file_as!(
            AppliedRow,
            "src/store/sql/provider/insert_profile.sql",
            id.provider_id.as_str(),
            id.version,
            text,
            by.principal.name(),
            by.peer(),
        )
        .fetch_optional(&self.db)
        .await?;
        let read = |row: AppliedRow| {
            let AppliedRow { provider_id, version, profile, applied_at, before, after } = row;
            let (action, pool_id, subject, reason) = ("ApplyProvider", "", &*provider_id, "");
            audit::log_written(by, &Written { action, pool_id, subject, before, after, reason });
            ProfileRow { provider_id, version, profile, applied_at }.read()
        };
        applied.map(read).transpose()
    }

    /// Reads a version of a profile.
    pub async fn get_profile(
        &self,
        id: &ProfileVersion,
    ) -> Result<Option<AppliedProfile>, StoreError> {
        let read = || {
            sqlx::query_file_as!(
                ProfileRow,
                "src/store/sql/provider/get_profile.sql",
                id.provider_id.as_str(),
                id.version,
            )
            .fetch_optional(&self.db)
        };
        read_patiently(read).await?.map(ProfileRow::read).transpose()
    }

    /// Reads the newest version of a provider's profile.
    pub async fn get_newest_profile(
        &self,
        provider_id: &ProviderId,
    ) -> Result<Option<AppliedProfile>, StoreError> {
        let read = || {
            sqlx::query_file_as!(
                ProfileRow,
                "src/store/sql/provider/get_newest_profile.sql",
                provider_id.as_str(),
            )
            .fetch_optional(&self.db)
        };
        read_patiently(read).await?.map(ProfileRow::read).transpose()
    }

    /// Lists every version that was applied, and when.
    pub async fn list_profile_versions(
        &self,
    ) -> Result<Vec<(ProfileVersion, OffsetDateTime)>, StoreError> {
        let rows =
            sqlx::query_file_as!(VersionRow, "src/store/sql/provider/list_profile_versions.sql");
        let read = |VersionRow { provider_id, version, applied_at }| {
            let provider_id = ProviderId::parse(&provider_id)
                .map_err(|_| StoreError::Unreadable("providers.provider_id"))?;
            Ok((ProfileVersion { provider_id, version }, applied_at))
        };
        rows.fetch_all(&self.rest).await?.into_iter().map(read).collect()
    }

    /// Lists the newest version of each provider after `after` (exclusive), at most `limit`.
    pub async fn list_profiles(
        &self,
        after: &str,
        limit: i64,
    ) -> Result<Page<AppliedProfile>, StoreError> {
        let rows = sqlx::query_file_as!(
            ListedRow,
            "src/store/sql/provider/list_profiles.sql",
            after,
            limit,
            MAX_BYTES,
        );
        read_page(rows.fetch_all(&self.rest).await?, limit, |row| row.more, ListedRow::read)
    }
}
