//! What holds for all servers together when they call a provider: its pace, its pauses, and the calls under way.
//!
//! All times are the database's. Each statement commits by itself.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use time::OffsetDateTime;

use super::{Store, StoreError, duration, interval};
use crate::domain::{
    id::ProviderId,
    provider::{Failing, ProviderStatus},
};

/// The most providers whose limits are read at once.
const MAX_PROVIDERS: i64 = 10_000;

/// What a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// A call that is under way.
    Call,
    /// A send that may fail in a way of which the provider bears few.
    Brake,
}

impl SlotKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Brake => "brake",
        }
    }
}

/// A place that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    slot: i32,
    /// Which taking of it: what another has taken since is not given back.
    taken: i64,
}

/// What holds back the calls to a provider, as all servers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedState {
    /// The provider.
    pub provider_id: ProviderId,
    /// It fails as a whole.
    pub failing: bool,
    /// How many tries have failed since.
    pub failed_tries: u32,
    /// In how long it is tried next.
    pub retry_in: Duration,
    /// For how long it still wants no calls.
    pub held_for: Duration,
}

impl Store {
    /// Makes the row of a provider's limits, and `slots` places of each kind. May be repeated.
    pub async fn ensure_limits(
        &self,
        provider_id: &ProviderId,
        slots: &[(SlotKind, u32)],
    ) -> Result<(), StoreError> {
        let id = provider_id.as_str();
        sqlx::query_file!("src/store/sql/provider/ensure_limits.sql", id).execute(&self.db).await?;
        for (kind, count) in slots {
            let (kind, count) = (kind.as_str(), number(*count));
            sqlx::query_file!("src/store/sql/provider/ensure_slots.sql", id, kind, count)
                .execute(&self.db)
                .await?;
        }
        Ok(())
    }

    /// Takes one of `of` places for a time. `None`: none is free. When the reply is lost and it is run again, another
    /// is taken, and the first one is free when its time is over.
    pub async fn take_slot(
        &self,
        provider_id: &ProviderId,
        kind: SlotKind,
        of: u32,
        hold: Duration,
        answer_by: Duration,
    ) -> Result<Option<Slot>, StoreError> {
        let taken = sqlx::query_file_as!(
            Slot,
            "src/store/sql/provider/take_slot.sql",
            provider_id.as_str(),
            kind.as_str(),
            number(of),
            interval(hold),
            interval(answer_by),
        );
        Ok(taken.fetch_optional(&self.db).await?)
    }

    /// Says in how long a place is free that was taken. May be repeated.
    pub async fn end_slot(
        &self,
        provider_id: &ProviderId,
        kind: SlotKind,
        slot: Slot,
        free_in: Duration,
    ) -> Result<(), StoreError> {
        sqlx::query_file!(
            "src/store/sql/provider/end_slot.sql",
            provider_id.as_str(),
            kind.as_str(),
            slot.slot,
            slot.taken,
            interval(free_in),
        )
        .execute(&self.db)
        .await?;
        Ok(())
    }

    /// How long a brake of `of` places stays in force. `None`: it is not, because some of them are free or under way.
    pub async fn brake_left(
        &self,
        provider_id: &ProviderId,
        of: u32,
    ) -> Result<Option<Duration>, StoreError> {
        let rows = self.read_status(&[(provider_id, of)]).await?;
        let left = |row: &StatusRow| Some(row.braked_until? - row.db_now);
        let left = rows.first().and_then(left);
        Ok(left.map(|left| left.try_into().unwrap_or_default()))
    }

    /// What holds back the calls to providers, each with how many places its brake has; 0: it has none. Answered in
    /// that order.
    pub async fn list_status(
        &self,
        providers: &[(&ProviderId, u32)],
    ) -> Result<Vec<ProviderStatus>, StoreError> {
        self.read_status(providers).await?.into_iter().map(StatusRow::read).collect()
    }

    async fn read_status(
        &self,
        providers: &[(&ProviderId, u32)],
    ) -> Result<Vec<StatusRow>, StoreError> {
        let (ids, places): (Vec<_>, Vec<_>) =
            providers.iter().map(|(id, places)| (id.as_str().to_owned(), number(*places))).unzip();
        let rows = sqlx::query_file_as!(
            StatusRow,
            "src/store/sql/provider/list_status.sql",
            &ids,
            &places
        );
        Ok(rows.fetch_all(&self.db).await?)
    }

    /// Keeps all places of a brake for a pause, where all of them have failed. May be repeated.
    pub async fn extend_brake(
        &self,
        provider_id: &ProviderId,
        of: u32,
        pause: Duration,
    ) -> Result<(), StoreError> {
        sqlx::query_file!(
            "src/store/sql/provider/extend_brake.sql",
            provider_id.as_str(),
            number(of),
            interval(pause),
        )
        .execute(&self.db)
        .await?;
        Ok(())
    }

    /// Reserves the time of the next call, `every` so often, and answers in how long it is. `burst`: as many may be made
    /// at once, after a pause. `None`: it would be after `within`. A reservation whose reply was lost is not used.
    pub async fn reserve_call(
        &self,
        provider_id: &ProviderId,
        every: Duration,
        burst: u32,
        within: Duration,
    ) -> Result<Option<Duration>, StoreError> {
        let reserved = sqlx::query_file_scalar!(
            "src/store/sql/provider/reserve_call.sql",
            provider_id.as_str(),
            interval(every),
            interval(every.saturating_mul(burst.saturating_sub(1))),
            interval(within),
        );
        Ok(reserved.fetch_optional(&self.db).await?.as_ref().map(duration))
    }

    /// No call to the provider begins for so long. May be repeated.
    pub async fn hold_calls(
        &self,
        provider_id: &ProviderId,
        hold: Duration,
    ) -> Result<(), StoreError> {
        let (id, hold) = (provider_id.as_str(), interval(hold));
        sqlx::query_file!("src/store/sql/provider/hold_calls.sql", id, hold)
            .execute(&self.db)
            .await?;
        Ok(())
    }

    /// Notes that a provider fails as a whole. False: that is noted already, unless `after_a_try`.
    pub async fn note_failing(
        &self,
        provider_id: &ProviderId,
        retry_in: Duration,
        failed_tries: u32,
        after_a_try: bool,
    ) -> Result<bool, StoreError> {
        let noted = sqlx::query_file_scalar!(
            "src/store/sql/provider/note_failing.sql",
            provider_id.as_str(),
            interval(retry_in),
            number(failed_tries),
            after_a_try,
        );
        Ok(noted.fetch_optional(&self.db).await?.is_some())
    }

    /// Whether this server is the one to try a provider that fails. For so long nobody else does.
    pub async fn claim_try(
        &self,
        provider_id: &ProviderId,
        hold: Duration,
    ) -> Result<bool, StoreError> {
        let (id, hold) = (provider_id.as_str(), interval(hold));
        let claimed = sqlx::query_file_scalar!("src/store/sql/provider/claim_try.sql", id, hold);
        Ok(claimed.fetch_optional(&self.db).await?.is_some())
    }

    /// Notes that a provider works again. May be repeated.
    pub async fn note_working(&self, provider_id: &ProviderId) -> Result<(), StoreError> {
        sqlx::query_file!("src/store/sql/provider/note_working.sql", provider_id.as_str())
            .execute(&self.db)
            .await?;
        Ok(())
    }

    /// What holds back the calls to each provider.
    pub async fn list_limits(&self) -> Result<Vec<SharedState>, StoreError> {
        let rows =
            sqlx::query_file_as!(StateRow, "src/store/sql/provider/list_limits.sql", MAX_PROVIDERS);
        rows.fetch_all(&self.db).await?.into_iter().map(StateRow::read).collect()
    }
}

struct StatusRow {
    provider_id: String,
    failing: bool,
    failing_since: Option<OffsetDateTime>,
    failed_tries: i32,
    next_try_at: Option<OffsetDateTime>,
    paused_until: Option<OffsetDateTime>,
    braked_until: Option<OffsetDateTime>,
    db_now: OffsetDateTime,
}

impl StatusRow {
    fn read(self) -> Result<ProviderStatus, StoreError> {
        Ok(ProviderStatus {
            provider_id: read_id(&self.provider_id)?,
            failing: self.failing.then(|| Failing {
                since: self.failing_since,
                next_try_at: self.next_try_at,
                failed_tries: u32::try_from(self.failed_tries).unwrap_or_default(),
            }),
            paused_until: self.paused_until,
            braked_until: self.braked_until,
        })
    }
}

struct StateRow {
    provider_id: String,
    failing: bool,
    failed_tries: i32,
    retry_in: PgInterval,
    held_for: PgInterval,
}

impl StateRow {
    fn read(self) -> Result<SharedState, StoreError> {
        Ok(SharedState {
            provider_id: read_id(&self.provider_id)?,
            failing: self.failing,
            failed_tries: u32::try_from(self.failed_tries).unwrap_or_default(),
            retry_in: duration(&self.retry_in),
            held_for: duration(&self.held_for),
        })
    }
}

fn read_id(text: &str) -> Result<ProviderId, StoreError> {
    ProviderId::parse(text).map_err(|_| StoreError::Unreadable("provider_limits.provider_id"))
}

fn number(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
