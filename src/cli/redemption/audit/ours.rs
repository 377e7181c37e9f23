//! Our records of the redemptions, over gRPC.

use std::sync::Arc;

use prost_types::Timestamp;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Window,
    compare::{Names, Record, State},
};
use crate::{
    cli::shared::client::{Connection, PAGE_SIZE, RpcError, Server, unary},
    domain::{
        id::RedemptionId,
        money::{Currency, Money},
    },
    provider::question::About,
    rpc::pb::{self, redemption_service_client::RedemptionServiceClient},
};

/// A redemption of ours.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Ours {
    /// Its id, which is the provider's idempotency key.
    pub(in crate::cli) key: Uuid,
    /// Its pool.
    pub(in crate::cli) pool_id: Arc<str>,
    /// When its outcome was recorded; when it was itself, while it is open.
    pub(in crate::cli) known_at: Option<OffsetDateTime>,
    /// What we say of it.
    pub(in crate::cli) record: Record,
    /// The version of the profile that it was begun under.
    pub(in crate::cli) profile: (Arc<str>, i32),
    /// The provider's id of its work, where it told one.
    pub(in crate::cli) task: Option<Box<str>>,
    /// What was expected: its currency and amount.
    pub(in crate::cli) expected: Option<(Arc<str>, i64)>,
}

impl Ours {
    /// One of the built-in provider's.
    #[cfg(test)]
    pub(in crate::cli) fn of(key: Uuid, pool_id: &str, record: Record) -> Self {
        let profile = ("holdfast".into(), 1);
        let pool_id = pool_id.into();
        Self { key, pool_id, known_at: None, record, profile, task: None, expected: None }
    }

    /// What the provider is asked about it with.
    pub(super) fn about(&self) -> About {
        let name = self.record.provider_ref.as_deref().filter(|name| !name.is_empty());
        let expected = self.expected.as_ref().and_then(|(currency, amount_minor)| {
            let currency = Currency::parse(currency)?;
            Some(Money { amount_minor: *amount_minor, currency })
        });
        About {
            id: RedemptionId(self.key),
            task: self.task.as_deref().map(str::to_owned),
            reference: name.map(str::to_owned),
            account: self.record.account.to_string(),
            expected,
        }
    }

    /// Reads it from its message.
    pub(in crate::cli) fn read(
        redemption: &pb::Redemption,
        names: &mut Names,
    ) -> anyhow::Result<Self> {
        let key = Uuid::try_parse(&redemption.redemption_id)?;
        let known_at = redemption.finish_time.or(redemption.create_time);
        let amount = redemption.amount.as_ref();
        // A person who resolves a redemption need not name it; all others that settle it do.
        let is_named = redemption.resolution.is_none() || !redemption.provider_ref.is_empty();
        Ok(Self {
            key,
            pool_id: names.share(&redemption.pool_id),
            profile: (names.share(&redemption.provider_id), redemption.provider_version),
            task: Some(&*redemption.provider_task).filter(|task| !task.is_empty()).map(Into::into),
            expected: redemption
                .expected
                .as_ref()
                .map(|money| (names.share(&money.currency_code), money.amount_minor)),
            known_at: known_at.and_then(read_time),
            record: Record {
                state: match redemption.reverse_time {
                    Some(_) => State::Reversed,
                    None => read_state(redemption.state()),
                },
                account: names.share(&redemption.account_id),
                amount_minor: amount.map(|amount| amount.amount_minor),
                currency_code: names.share(amount.map_or("", |amount| &amount.currency_code)),
                provider_ref: is_named.then(|| redemption.provider_ref.as_str().into()),
            },
        })
    }
}

fn read_state(state: pb::RedemptionState) -> State {
    match state {
        pb::RedemptionState::Submitted => State::Submitted,
        pb::RedemptionState::InDoubt => State::InDoubt,
        pb::RedemptionState::NeedsReview => State::NeedsReview,
        pb::RedemptionState::Succeeded => State::Succeeded,
        pb::RedemptionState::Failed => State::Failed,
        pb::RedemptionState::Unspecified => State::Unknown,
    }
}

fn read_time(time: Timestamp) -> Option<OffsetDateTime> {
    let nanos = u32::try_from(time.nanos).ok()?;
    OffsetDateTime::from_unix_timestamp(time.seconds).ok()?.replace_nanosecond(nanos).ok()
}

fn wire_time(time: OffsetDateTime) -> Timestamp {
    Timestamp { seconds: time.unix_timestamp(), nanos: time.nanosecond().cast_signed() }
}

/// The redemptions of a pool, a page at a time, newest first.
pub(super) struct Pages {
    client: RedemptionServiceClient<Connection>,
    /// Asks for the next page; `None` after the last.
    next: Option<pb::ListRedemptionsRequest>,
}

impl Pages {
    /// Those that were recorded in the window.
    pub(super) fn new(server: &Server, pool_id: &str, window: Window) -> Self {
        let request = pb::ListRedemptionsRequest {
            pool_id: pool_id.to_owned(),
            page_size: PAGE_SIZE,
            create_time_from: Some(wire_time(window.from)),
            create_time_to: Some(wire_time(window.to)),
            ..Default::default()
        };
        Self { client: server.redemptions(), next: Some(request) }
    }

    /// The next page.
    pub(super) async fn next(&mut self, names: &mut Names) -> anyhow::Result<Option<Vec<Ours>>> {
        let Some(request) = self.next.take() else { return Ok(None) };
        let reply = self.client.list_redemptions(unary(request.clone())).await;
        let page = reply.map_err(RpcError)?.into_inner();
        if !page.next_page_token.is_empty() {
            let page_token = page.next_page_token;
            self.next = Some(pb::ListRedemptionsRequest { page_token, ..request });
        }
        let read = |redemption| Ours::read(redemption, names);
        page.redemptions.iter().map(read).collect::<anyhow::Result<_>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_same_there_and_back() {
        for seconds in [-1.5, 0.0, 1_764_028_800.25] {
            let time = OffsetDateTime::UNIX_EPOCH + time::Duration::seconds_f64(seconds);
            assert_eq!(read_time(wire_time(time)), Some(time));
        }
    }

    #[test]
    fn the_name_that_a_person_did_not_give_is_not_compared() {
        let read = |redemption: &pb::Redemption| {
            Ours::read(redemption, &mut Names::default()).unwrap().record.provider_ref
        };
        let mut redemption = pb::Redemption {
            redemption_id: Uuid::nil().to_string(),
            state: pb::RedemptionState::Succeeded.into(),
            ..Default::default()
        };
        assert_eq!(read(&redemption).as_deref(), Some(""));
        redemption.resolution = Some(pb::Resolution::default());
        assert_eq!(read(&redemption), None);
        redemption.provider_ref = "ref".into();
        assert_eq!(read(&redemption).as_deref(), Some("ref"));
    }
}
