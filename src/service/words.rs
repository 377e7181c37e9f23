//! What a person says of a redemption is kept in clear, for good. So it must not repeat a card's code.

use super::{Error, error::Violation, providers::fingerprint_name, redeem::code_context};
use crate::{
    domain::{
        id::{PoolId, ProviderId},
        pool::Pool,
        redemption::{Redemption, Resolution},
    },
    provider::{codes_in, holds_code},
    secret::SecretKeys,
    store::Store,
};

/// A text that is kept, and the request's field that has it.
pub(super) type Word<'a> = (&'static str, &'a str);

/// What a person says of themselves, and why. `by` is the field that has who.
pub(super) fn words_of<'a>(by: &'static str, said: &'a Resolution) -> Vec<Word<'a>> {
    let Resolution { resolved_by, reason, evidence, .. } = said;
    let evidence = evidence.as_deref().map(|evidence| ("evidence", evidence));
    [("reason", reason.as_str()), (by, resolved_by.as_str())].into_iter().chain(evidence).collect()
}

/// Refuses words about a redemption that repeat a card's code. Of a redemption that is settled nobody knows the code any
/// more. Then, and of all other redemptions of the pool, it is told by its fingerprint.
pub(super) async fn check_words(
    store: &Store,
    secret: &SecretKeys,
    about: &Redemption,
    words: &[Word<'_>],
) -> Result<(), Error> {
    let stored = store.get_code(&about.pool_id, about.redemption_id).await?;
    let context = code_context(&about.pool_id, about.redemption_id);
    // One that cannot be decrypted is why a person has to review it, and must not keep them from it.
    let own = stored.and_then(|code| secret.decrypt(&context, &code).ok());
    let of_pool = (&about.pool_id, &about.profile.provider_id);
    let mut wrong = Vec::new();
    for (field, text) in words {
        if own.as_ref().is_some_and(|code| holds_code(code, text)) {
            wrong.push(Violation::new(*field, "must not hold the card's code"));
        } else if holds_another(store, secret, of_pool, text).await? {
            wrong.push(Violation::new(*field, "must not hold the code of a card"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(wrong)) }
}

/// Refuses words about an account that repeat the code of a card which was redeemed in its pool.
pub(super) async fn check_words_of_pool(
    store: &Store,
    secret: &SecretKeys,
    pool: &Pool,
    words: &[Word<'_>],
) -> Result<(), Error> {
    let mut wrong = Vec::new();
    for (field, text) in words {
        if holds_another(store, secret, (&pool.pool_id, &pool.provider_id), text).await? {
            wrong.push(Violation::new(*field, "must not hold the code of a card"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(wrong)) }
}

/// Whether a text holds the code of a redemption of the pool which is open or was credited.
async fn holds_another(
    store: &Store,
    secret: &SecretKeys,
    (pool_id, provider_id): (&PoolId, &ProviderId),
    text: &str,
) -> Result<bool, Error> {
    let name = fingerprint_name(provider_id);
    for code in codes_in(text) {
        let fingerprints = secret.fingerprints(name, &code);
        if store.get_living_redemption(pool_id, &fingerprints).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
