//! Holdfast's own tokens: their secrets, and those that are valid, in memory.
//!
//! A secret is 256 random bits. Only its SHA-256 is kept: nobody can try so many, so no slow hash is needed to keep
//! them from trying, and a slow one would let those who guess cost a server its time.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::zeroize::Zeroizing;
use tokio::time::Instant;

use super::{Access, Refusal, hash};
use crate::domain::{access::Grants, principal::Principal};

/// How every secret begins.
const START: &str = "hf_";
/// The length of one: 32 bytes in base64 after the start.
const LENGTH: usize = START.len() + 43;
/// For so long tokens are taken as they were read last while the database cannot be read. It is longer than a call
/// waits for a database, and without one no call changes anything.
const FRESH: Duration = Duration::from_secs(15);

/// Whether a text looks like one of Holdfast's tokens, well formed or not.
pub(super) fn is_token(text: &str) -> bool {
    text.starts_with(START)
}

/// The secret of a token: what its owner shows.
pub struct TokenSecret(Zeroizing<String>);

impl TokenSecret {
    /// A new one.
    pub fn generate() -> Self {
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
        Self(Zeroizing::new(format!("{START}{}", BASE64_URL_SAFE_NO_PAD.encode(*bytes))))
    }

    /// Reads one that somebody has kept.
    pub fn parse(text: &str) -> Option<Self> {
        is_well_formed(text).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// As it is sent.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn hash(&self) -> [u8; 32] {
        hash(self.0.as_bytes())
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(hidden)")
    }
}

fn is_well_formed(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.len() == LENGTH && is_token(text) && text.bytes().all(fits)
}

/// A token that is valid, as the database has it: the hash of its secret, its name, what it may do, and in how long it
/// expires.
pub type Living = ([u8; 32], String, Grants, Option<Duration>);

/// The tokens that are valid. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    living: RwLock<HashMap<[u8; 32], Access>>,
    /// When they were read last, in milliseconds since the start.
    read_at: AtomicU64,
    start: Instant,
}

impl Default for Tokens {
    fn default() -> Self {
        Self(Arc::new(Shared {
            living: RwLock::default(),
            read_at: AtomicU64::new(0),
            start: Instant::now(),
        }))
    }
}

impl Tokens {
    /// The token that a caller shows. Nothing but memory is asked.
    pub(super) fn find(&self, text: &str, now: Instant) -> Result<Access, Refusal> {
        if !is_well_formed(text) {
            return Err(Refusal::Malformed);
        }
        let access = {
            let living = self.0.living.read().unwrap_or_else(PoisonError::into_inner);
            living.get(&hash(text.as_bytes())).cloned()
        };
        if now.saturating_duration_since(self.read_at()) > FRESH {
            return Err(Refusal::Unknown);
        }
        let access = access.ok_or(Refusal::Invalid)?;
        access.note_use();
        Ok(access)
    }

    fn read_at(&self) -> Instant {
        self.0.start + Duration::from_millis(self.0.read_at.load(Ordering::Relaxed))
    }

    /// They were found unchanged in the database, by what was asked at `asked`.
    pub fn confirm(&self, asked: Instant) {
        let since = asked.saturating_duration_since(self.0.start).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        self.0.read_at.fetch_max(since, Ordering::Relaxed);
    }

    /// These are the valid ones, by what was asked at `asked`. Those that are not among them any more end, with the
    /// streams that were opened with them.
    pub fn replace(&self, tokens: impl IntoIterator<Item = Living>, asked: Instant) {
        let mut living = self.0.living.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *living);
        for (hash, name, grants, expires_in) in tokens {
            let principal = Principal::named(&format!("token:{name}"));
            let until = expires_in.map(|left| asked + left);
            let is_same = before
                .get(&hash)
                .is_some_and(|access| access.is_for(&principal, &grants) && access.is_until(until));
            let same = if is_same { before.remove(&hash) } else { None };
            living.insert(hash, same.unwrap_or_else(|| Access::new(principal, grants, until)));
        }
        drop(living);
        before.into_values().for_each(|access| access.end());
        self.confirm(asked);
    }

    /// Whether no token is valid.
    pub fn is_empty(&self) -> bool {
        self.0.living.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The names of those that were used since this was last asked.
    pub fn take_used(&self) -> Vec<String> {
        let living = self.0.living.read().unwrap_or_else(PoisonError::into_inner);
        let used = living.values().filter(|access| access.take_use());
        let name =
            |access: &Access| access.principal().name().strip_prefix("token:").map(str::to_owned);
        used.filter_map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn living(secret: &TokenSecret, name: &str, left: Option<Duration>) -> Living {
        (secret.hash(), name.to_owned(), Grants::all(), left)
    }

    #[test]
    fn a_secret_is_256_bits_and_prints_nothing() {
        let (one, other) = (TokenSecret::generate(), TokenSecret::generate());
        assert_ne!(one.expose(), other.expose());
        assert!(is_well_formed(one.expose()) && one.expose().len() == 46);
        assert_eq!(TokenSecret::parse(one.expose()).unwrap().hash(), one.hash());
        assert!(!format!("{one:?}").contains(&one.expose()[3..]));
        for bad in ["", "hf_", "hf_é", &one.expose()[..45], &format!("{}=", one.expose())] {
            assert!(TokenSecret::parse(bad).is_none(), "{bad}");
        }
    }

    #[tokio::test]
    async fn one_that_is_gone_or_whose_time_is_over_ends_and_the_others_go_on() {
        let (a, b, c) = (TokenSecret::generate(), TokenSecret::generate(), TokenSecret::generate());
        let tokens = Tokens::default();
        let soon = Duration::from_millis(300);
        let all = || [living(&a, "a", None), living(&b, "b", None), living(&c, "c", Some(soon))];
        tokens.replace(all(), Instant::now());
        let find = |secret: &TokenSecret| tokens.find(secret.expose(), Instant::now());
        let [of_a, of_b, of_c] = [&a, &b, &c].map(|secret| find(secret).unwrap());
        let mut used = tokens.take_used();
        used.sort_unstable();
        assert_eq!(used, ["a", "b", "c"]);
        assert_eq!(tokens.take_used(), [""; 0]);
        let [_, b_again, c_again] = all();
        tokens.replace([b_again, c_again], Instant::now());
        of_a.ended().await;
        assert_eq!(find(&a).unwrap_err(), Refusal::Invalid);
        assert!(!of_b.is_over(Instant::now()) && !of_c.is_over(Instant::now()));
        of_c.ended().await;
        assert!(of_c.is_over(Instant::now()) && !of_b.is_over(Instant::now()));
    }

    #[test]
    fn tokens_that_were_not_read_for_long_say_nothing() {
        let secret = TokenSecret::generate();
        let tokens = Tokens::default();
        let now = Instant::now();
        tokens.replace([living(&secret, "a", None)], now);
        assert!(tokens.find(secret.expose(), now + FRESH - Duration::from_secs(1)).is_ok());
        let later = now + FRESH + Duration::from_secs(1);
        assert_eq!(tokens.find(secret.expose(), later).unwrap_err(), Refusal::Unknown);
        tokens.confirm(later);
        assert!(tokens.find(secret.expose(), later).is_ok());
    }
}
