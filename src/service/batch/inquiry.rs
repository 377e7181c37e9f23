//! Inquiry: what a card is worth, asked of the provider before an account is chosen for it.
//!
//! A question changes nothing at the provider. So it may be asked again, ended in the middle, and
//! answered from the answer of a moment ago.

use std::{fmt, sync::Arc, time::Duration};

use moka::future::Cache;
use rand::RngExt as _;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{FairPermits, origin},
    domain::{
        id::PoolId,
        money::{Currency, Money},
        redemption::CardCode,
    },
    provider::{CallError, profile::OpKind, question::Card},
    secret::SecretKeys,
    service::{
        Error,
        providers::{LimitedProvider, fingerprint_name},
    },
};

/// How often the provider is asked about a card before the item is refused.
const MAX_TRIES: u32 = 6;
/// The pause after the first try without an answer; twice as long after each one more.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The most cards that are remembered.
const MAX_REMEMBERED: u64 = 10_000;

/// How the provider may be asked.
#[derive(Clone, Copy, Debug)]
pub struct InquiryLimits {
    /// How many cards this server asks about at once.
    pub concurrency: usize,
    /// How long an answer is remembered; zero: not at all.
    pub remember: Duration,
}

/// What a card is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worth {
    /// Its value.
    pub amount: Money,
    /// Its country, where the provider says one: two upper-case letters.
    pub country_code: Option<String>,
}

/// The provider's reply about a card. Nothing in it can be a code, whatever the provider answers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reply {
    /// There is no such card.
    Unknown,
    /// There is, and it is not to be redeemed, or there is nothing on it.
    NotRedeemable,
    /// It is worth this.
    Redeemable(Worth),
}

/// The asking about cards. Cheap to clone.
#[derive(Clone)]
pub struct Inquiry(Arc<Inner>);

struct Inner {
    secret: SecretKeys,
    limits: InquiryLimits,
    /// Fair among the callers of pools: one's cards do not stand before all others'.
    permits: FairPermits,
    /// By the code's fingerprint, which is the provider's too. Those who ask about one card at the same
    /// time share a question. `None` when nothing is to be remembered.
    cache: Option<Cache<([u8; 32], Currency), Reply>>,
    closing: CancellationToken,
}

impl fmt::Debug for Inquiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inquiry").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl Inquiry {
    /// When `closing` is cancelled, those who wait are told so.
    pub fn new(secret: SecretKeys, limits: InquiryLimits, closing: CancellationToken) -> Self {
        let cache = (!limits.remember.is_zero()).then(|| {
            Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(limits.remember).build()
        });
        let permits = FairPermits::for_work(limits.concurrency);
        Self(Arc::new(Inner { secret, limits, permits, cache, closing }))
    }

    /// What the card is worth; `None` when the provider cannot be asked. `currency` is the pool's. A card that cannot be redeemed
    /// is an error. When this is dropped no more is asked.
    pub async fn ask(
        &self,
        provider: &LimitedProvider,
        pool_id: &PoolId,
        currency: Currency,
        code: &CardCode,
    ) -> Result<Option<Worth>, Error> {
        if !provider.profile().has(OpKind::Inquire) {
            return Ok(None);
        }
        let reply = tokio::select! {
            reply = self.0.remembered(provider, pool_id, currency, code) => reply?,
            () = self.0.closing.cancelled() => return Err(Error::ShuttingDown),
        };
        match reply {
            Reply::Unknown => Err(Error::CardNotRedeemable { known: false }),
            Reply::NotRedeemable => Err(Error::CardNotRedeemable { known: true }),
            Reply::Redeemable(worth) => Ok(Some(worth)),
        }
    }
}

impl Inner {
    async fn remembered(
        &self,
        provider: &LimitedProvider,
        pool_id: &PoolId,
        currency: Currency,
        code: &CardCode,
    ) -> Result<Reply, Error> {
        let Some(cache) = &self.cache else {
            return self.patiently(provider, pool_id, currency, code).await;
        };
        let name = fingerprint_name(&provider.version().provider_id);
        let key = (self.secret.fingerprint(name, code), currency);
        // Errors are told to all who wait for the same card now, and not remembered.
        let entry = cache
            .entry(key)
            .or_try_insert_with(self.patiently(provider, pool_id, currency, code))
            .await
            .map_err(|error| Error::clone(&error))?;
        if !entry.is_fresh() {
            metrics::counter!("holdfast_inquiry_cache_hits_total").increment(1);
        }
        Ok(entry.into_value())
    }

    /// Asks until there is an answer, a few times, unless asking again is no use.
    async fn patiently(
        &self,
        provider: &LimitedProvider,
        pool_id: &PoolId,
        currency: Currency,
        code: &CardCode,
    ) -> Result<Reply, Error> {
        // How long after the first question none is asked again.
        let patience = provider.limits().send_window;
        let origin = origin::current();
        let caller = origin.as_ref().map(|origin| origin.name().as_ref()).unwrap_or_default();
        // A pool's id has no space in it.
        let share = format!("{pool_id} {caller}");
        let mut deadline = None;
        let mut tries = 1;
        loop {
            if let Some(origin) = &origin {
                origin.may_inquire().await;
            }
            let answer = {
                let _permit = self.permits.acquire(&share).await;
                // Not from when it got in line: a provider that is only slow refuses nobody.
                deadline.get_or_insert_with(|| Instant::now() + patience);
                provider.inquire(code, currency, patience).await?.map(Reply::from)
            };
            count(&answer);
            let error = match answer {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let pause = pause_after(&error, tries);
            let left = deadline.map(|at: Instant| at.saturating_duration_since(Instant::now()));
            let in_time = |pause| left.is_some_and(|left| pause < left);
            match pause {
                Some(pause) if tries < MAX_TRIES && in_time(pause) => sleep(pause).await,
                _ => {
                    let why = error.to_string();
                    tracing::warn!(error = %why, tries, "the provider did not answer what a card is worth");
                    let retry_after = match error {
                        CallError::Busy { after, .. } => after,
                        _ => None,
                    };
                    return Err(Error::InquiryFailed { why, retry_after });
                }
            }
            tries += 1;
        }
    }
}

/// Refuses a card that is not of the pool's currency, or not of the country that was asked for.
pub fn check_fit(
    worth: &Worth,
    pool_currency: Currency,
    selector_country: Option<&str>,
) -> Result<(), Error> {
    let card_currency = worth.amount.currency;
    if card_currency != pool_currency {
        return Err(Error::CurrencyMismatch { card_currency, pool_currency });
    }
    match (worth.country_code.as_deref(), selector_country) {
        (Some(card), Some(selector)) if card != selector => Err(Error::CountryMismatch {
            card_country: card.to_owned(),
            selector_country: selector.to_owned(),
        }),
        _ => Ok(()),
    }
}

impl From<Option<Card>> for Reply {
    fn from(card: Option<Card>) -> Self {
        match card {
            None => Self::Unknown,
            Some(Card::NotRedeemable) => Self::NotRedeemable,
            Some(Card::Redeemable { amount, country_code }) => {
                Self::Redeemable(Worth { amount, country_code })
            }
        }
    }
}

/// How long to wait before the provider is asked again; `None` when that is no use.
fn pause_after(error: &CallError, tries: u32) -> Option<Duration> {
    let told = match error {
        CallError::Busy { after, .. } => *after,
        CallError::NeverSent(_) | CallError::Lost(_) | CallError::Status(500..) => None,
        CallError::Status(_) | CallError::Malformed(_) => return None,
    };
    // Those who were refused together are not to come back together. What the provider asks for is the
    // least, so that one which always asks for little is not asked for ever faster.
    let backoff = FIRST_PAUSE * (1 << (tries - 1).min(10));
    Some(backoff.mul_f64(rand::rng().random_range(0.5..1.0)).max(told.unwrap_or_default()))
}

fn count(answer: &Result<Reply, CallError>) {
    let outcome = match answer {
        Ok(Reply::Redeemable(_)) => "redeemable",
        Ok(Reply::NotRedeemable) => "not_redeemable",
        Ok(Reply::Unknown) => "unknown",
        Err(CallError::Busy { .. }) => "busy",
        Err(CallError::NeverSent(_)) => "unreachable",
        Err(CallError::Lost(_)) => "lost",
        Err(CallError::Status(_)) => "refused",
        Err(CallError::Malformed(_)) => "malformed",
    };
    metrics::counter!("holdfast_inquiries_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worth(currency: &str, country: Option<&str>) -> Worth {
        let currency = Currency::parse(currency).unwrap();
        let amount = Money { amount_minor: 500, currency };
        Worth { amount, country_code: country.map(str::to_owned) }
    }

    #[test]
    fn a_card_fits_by_currency_and_by_a_country_that_both_say() {
        let eur = Currency::parse("EUR").unwrap();
        let fits = |currency, card: Option<&str>, selector| {
            check_fit(&worth(currency, card), eur, selector)
        };
        for (card, selector) in
            [(None, None), (Some("DE"), None), (None, Some("DE")), (Some("DE"), Some("DE"))]
        {
            assert!(fits("EUR", card, selector).is_ok(), "{card:?} {selector:?}");
        }
        let wrong = fits("EUR", Some("FR"), Some("DE"));
        assert!(matches!(wrong, Err(Error::CountryMismatch { .. })), "{wrong:?}");
        // Told first, because it cannot be mended by another selector.
        let wrong = fits("USD", Some("FR"), Some("DE"));
        assert!(matches!(wrong, Err(Error::CurrencyMismatch { .. })), "{wrong:?}");
    }

    #[test]
    fn a_question_is_asked_again_where_that_may_help() {
        let busy = |after| CallError::Busy { status: 429, after };
        for tries in 1..MAX_TRIES {
            let most = FIRST_PAUSE * (1 << (tries - 1));
            for error in [
                CallError::NeverSent("refused".into()),
                CallError::Lost("reset".into()),
                CallError::Status(500),
                busy(None),
            ] {
                let pause = pause_after(&error, tries).unwrap();
                assert!(most / 2 <= pause && pause <= most, "{error:?} {tries} {pause:?}");
            }
        }
        let told = Duration::from_secs(7);
        assert_eq!(pause_after(&busy(Some(told)), 3), Some(told), "it is the least");
        let least = pause_after(&busy(Some(Duration::from_millis(100))), 5).unwrap();
        assert!(least >= FIRST_PAUSE * 8, "{least:?}: a short one does not end the back-off");
        let malformed = CallError::Malformed("amount_minor is missing".to_owned());
        for error in [CallError::Status(401), CallError::Status(422), malformed] {
            assert_eq!(pause_after(&error, 1), None, "{error:?}");
        }
    }
}
