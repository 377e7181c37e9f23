//! JWTs of an issuer: by asymmetric signatures alone, for our audience, for as long as they say.

#[cfg(feature = "fuzzing")]
pub(super) mod fuzz;
mod keys;
mod source;
mod verify;

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use serde::Deserialize;
use tokio::time::Instant;

pub use self::source::{JwksUrl, KeysFrom};
use self::{keys::Keys, source::KeySource};
use super::{Refusal, session::is_kept};

/// No JWT is taken for longer, whatever it says.
const MOST: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// JWTs that turn out not to be valid, each second, until no other is checked: a signature costs much more than a hash.
/// Those that were checked before go on.
const MOST_BAD: u32 = 500;

/// What JWTs must say.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// Who issues them.
    pub issuer: String,
    /// Whom they are for.
    pub audience: String,
    /// How far our clock and the issuer's may be from each other.
    pub clock_skew: Duration,
    /// Where the issuer's keys are.
    pub keys: KeysFrom,
}

/// Verifies JWTs.
#[derive(Debug)]
pub struct Jwt {
    settings: JwtSettings,
    keys: RwLock<Arc<Keys>>,
    source: KeySource,
    bad: AtomicU32,
}

/// A JWT that is valid.
#[derive(Debug)]
pub(super) struct Verified {
    /// The name of its principal.
    pub(super) principal: String,
    pub(super) until: Instant,
    /// The key that it was signed with.
    pub(super) key: u64,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    exp: f64,
}

impl Jwt {
    /// With the issuer's keys, if they can be had now.
    ///
    /// # Errors
    /// When the file of keys cannot be read, or holds none. A URL that does not answer is asked again later.
    pub async fn open(settings: JwtSettings) -> anyhow::Result<Self> {
        verify::install();
        let source = KeySource::new(&settings.keys)?;
        let keys = source.first().await?;
        Ok(Self { settings, keys: RwLock::new(Arc::new(keys)), source, bad: AtomicU32::new(0) })
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the issuer still has a key.
    pub(super) fn has_key(&self, id: u64) -> bool {
        self.keys().has(id)
    }

    /// Reads the issuer's keys, when it is time or one is missing. Answers whether they are others now. Those that
    /// there were stay while the issuer does not answer.
    pub(super) async fn refresh(&self) -> bool {
        let Some(keys) = self.source.next().await else { return false };
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let differs = !current.is_same(&keys);
        *current = Arc::new(keys);
        differs
    }

    /// Forgets the bad ones of the second before.
    pub(super) fn forgive(&self) {
        self.bad.store(0, Ordering::Relaxed);
    }

    pub(super) fn verify(&self, text: &str, now: Instant) -> Result<Verified, Refusal> {
        if self.bad.load(Ordering::Relaxed) >= MOST_BAD {
            return Err(Refusal::Busy);
        }
        self.check(text, now).ok_or_else(|| {
            self.bad.fetch_add(1, Ordering::Relaxed);
            Refusal::Invalid
        })
    }

    fn check(&self, text: &str, now: Instant) -> Option<Verified> {
        let header = decode_header(text).ok()?;
        if !is_asymmetric(header.alg) || header.crit.is_some() {
            return None;
        }
        let keys = self.keys();
        let Some(key) = keys.find(&header) else {
            // Perhaps it is new.
            self.source.want();
            return None;
        };
        let token = decode::<Claims>(text, &key.key, &self.validation(&header)).ok()?;
        let Claims { iss, sub, exp } = token.claims;
        let principal = format!("jwt:{iss}:{sub}");
        let fits = !sub.is_empty() && is_kept(&principal);
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
        let left = exp + self.settings.clock_skew.as_secs_f64() - clock;
        let left = Duration::try_from_secs_f64(left).unwrap_or_default().min(MOST);
        (fits && !left.is_zero()).then(|| Verified { principal, until: now + left, key: key.id })
    }

    fn validation(&self, header: &Header) -> Validation {
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = self.settings.clock_skew.as_secs();
        validation
    }
}

fn is_asymmetric(algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512 | ES256 | ES384 | EdDSA)
}
