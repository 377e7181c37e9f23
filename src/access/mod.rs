//! Access: who calls, and what they may do.
//!
//! A caller shows a token of Holdfast's, a JWT, or a client certificate. A token or JWT that is sent decides, also where
//! a certificate is there: it is the more particular of the two. One that is not valid is refused, whatever the
//! certificate says. Everything is decided from memory: no call waits for the database or for an issuer.

pub mod file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
pub mod jwt;
mod seen;
pub mod session;
pub mod table;
pub mod tokens;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use self::session::Access;
use self::{file::Subjects, jwt::Jwt, seen::Seen, tokens::Tokens};
use crate::domain::principal::Principal;

/// Why nobody knows who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Nothing was shown.
    Missing,
    /// What was sent is neither a token nor a JWT.
    Malformed,
    /// The token or JWT is not valid. Why is not told: that would help those who guess.
    Invalid,
    /// Very many JWTs that are not valid come now.
    Busy,
    /// The database was not read for too long to say which tokens are valid.
    Unknown,
}

impl Refusal {
    /// As metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Busy => "busy",
            Self::Unknown => "unknown",
        }
    }
}

/// How often it is looked whether the access file has changed.
const FILE_POLL: Duration = Duration::from_secs(1);
/// The longest token or JWT, in bytes.
const MAX_BYTES: usize = 8 * 1024;

/// Finds out who calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Authenticator(Option<Arc<Ways>>);

/// The ways in which callers may show who they are.
#[derive(Debug)]
struct Ways {
    tokens: Tokens,
    subjects: Subjects,
    jwt: Option<Jwt>,
    /// The JWTs and certificates that were found valid.
    seen: Arc<Seen>,
}

impl Authenticator {
    /// Asks nobody.
    pub fn off() -> Self {
        Self(None)
    }

    /// Asks everybody: for one of the tokens, or for a certificate or JWT with a grant in the access file.
    pub fn new(tokens: Tokens, subjects: Subjects, jwt: Option<Jwt>) -> Self {
        Self(Some(Arc::new(Ways { tokens, subjects, jwt, seen: Arc::default() })))
    }

    /// Whether anybody is asked.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Who makes a call at `now` with these headers, over a connection whose verified certificate has these names: none
    /// without a certificate.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        names: &[String],
        now: Instant,
    ) -> Result<Access, Refusal> {
        match &self.0 {
            None => Ok(Access::default()),
            Some(ways) => ways.authenticate(headers, names, now),
        }
    }

    /// Reads the access file again when it changes, until `stop`.
    pub async fn follow_file(self, stop: CancellationToken) {
        let mut ticks = interval(FILE_POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.reload();
        }
    }

    /// Keeps to the issuer's keys until `stop`.
    pub async fn follow_keys(self, stop: CancellationToken) {
        let jwt = self.0.as_ref().and_then(|ways| Some((ways, ways.jwt.as_ref()?)));
        let Some((ways, jwt)) = jwt else { return stop.cancelled().await };
        while let Some(differs) = stop.run_until_cancelled(jwt.refresh()).await {
            if differs {
                ways.seen.keep(|entry| entry.key.is_none_or(|key| jwt.has_key(key)));
            }
        }
    }

    fn reload(&self) {
        let Some(ways) = &self.0 else { return };
        if ways.subjects.reload() {
            let subjects = &ways.subjects;
            ways.seen.keep(|entry| subjects.grants(entry.principal()) == *entry.grants());
        }
        if let Some(jwt) = &ways.jwt {
            jwt.forgive();
        }
    }
}

impl Ways {
    fn authenticate(
        &self,
        headers: &HeaderMap,
        names: &[String],
        now: Instant,
    ) -> Result<Access, Refusal> {
        let access = match bearer(headers)? {
            Some(text) if tokens::is_token(text) => self.tokens.find(text, now)?,
            Some(text) => self.by_jwt(text, now)?,
            None if names.is_empty() => return Err(Refusal::Missing),
            None => self.by_certificate(names),
        };
        if access.is_over(now) {
            return Err(Refusal::Invalid);
        }
        Ok(access)
    }

    fn by_jwt(&self, text: &str, now: Instant) -> Result<Access, Refusal> {
        let jwt = self.jwt.as_ref().ok_or(Refusal::Malformed)?;
        if text.split('.').count() != 3 {
            return Err(Refusal::Malformed);
        }
        let hash = hash(text.as_bytes());
        if let Some(access) = self.seen.get(&hash) {
            return Ok(access);
        }
        let verified = jwt.verify(text, now)?;
        let principal = Principal::named(&verified.principal);
        let grants = self.subjects.grants(&verified.principal);
        let access = Access::new(principal, grants, Some(verified.until));
        Ok(self.seen.keep_new(hash, access, Some(verified.key), now))
    }

    /// The first name with a grant says who it is, or else the first.
    fn by_certificate(&self, names: &[String]) -> Access {
        let mut digest = Sha256::new();
        for name in names {
            digest.update(name.as_bytes());
            digest.update([0]);
        }
        let hash = digest.finalize().into();
        if let Some(access) = self.seen.get(&hash) {
            return access;
        }
        let principals = names.iter().map(|name| format!("cert:{name}"));
        let principals = principals.filter(|name| session::is_kept(name));
        let found = principals.map(|name| (self.subjects.grants(&name), name));
        let mut found: Vec<_> = found.collect();
        let chosen = found.iter().position(|(grants, _)| grants.iter().next().is_some());
        let (grants, name) = match found.is_empty() {
            true => (Default::default(), "cert:".to_owned()),
            false => found.swap_remove(chosen.unwrap_or(0)),
        };
        let access = Access::new(Principal::named(&name), grants, None);
        self.seen.keep_new(hash, access, None, Instant::now())
    }
}

/// What a call shows after `Bearer`, if it shows anything.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| Refusal::Malformed)?;
    let (scheme, shown) = text.split_once(' ').ok_or(Refusal::Malformed)?;
    let is_one = values.next().is_none() && shown.len() <= MAX_BYTES && !shown.is_empty();
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    (is_one && is_bearer).then_some(Some(shown)).ok_or(Refusal::Malformed)
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access::{Grant, Grants, Need, PoolPattern, Role};

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        headers
    }

    fn authenticator(file: &str) -> (Authenticator, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.toml");
        std::fs::write(&path, file).unwrap();
        let subjects = Subjects::open(Some(&path)).unwrap();
        let tokens = Tokens::default();
        let grants = Grants::new(vec![Grant { role: Role::Operator, pools: PoolPattern::all() }]);
        tokens
            .replace([(hash(SECRET.as_bytes()), "till".to_owned(), grants, None)], Instant::now());
        (Authenticator::new(tokens, subjects, None), folder)
    }

    const SECRET: &str = "hf_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn a_token_is_found_by_its_hash_and_all_else_is_refused() {
        let (authenticator, _folder) = authenticator("");
        let of = |values: &[&str]| {
            let access = authenticator.authenticate(&headers(values), &[], Instant::now());
            access.map(|access| access.principal().name().to_owned())
        };
        let good = format!("Bearer {SECRET}");
        assert_eq!(of(&[&good]).as_deref(), Ok("token:till"));
        assert_eq!(of(&[&good.replace("Bearer", "bearer")]).as_deref(), Ok("token:till"));
        assert_eq!(of(&[]), Err(Refusal::Missing));
        assert_eq!(of(&[&good.replace("AAA", "AAB")]), Err(Refusal::Invalid));
        let jwt = "Bearer a.b.c".to_owned();
        for bad in [&jwt, &good[..20], "Bearer", "Bearer ", SECRET, "Basic aGk6aGk=", "Bearer hf_x"]
        {
            assert_eq!(of(&[bad]), Err(Refusal::Malformed), "{bad}");
        }
        assert_eq!(of(&[&good, &good]), Err(Refusal::Malformed), "two");
    }

    #[tokio::test]
    async fn a_certificate_has_the_grants_of_the_first_name_that_has_any_and_a_token_goes_before_it()
     {
        let file = "[[grant]]\nprincipal = \"cert:spiffe://d/ns/*\"\nrole = \"redeemer\"\npools = \"eu\"\n";
        let (authenticator, folder) = authenticator(file);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let of = |sent: &[&str], names: &Vec<String>| {
            authenticator.authenticate(&headers(sent), names, Instant::now())
        };
        let till = names(&["other.example", "spiffe://d/ns/till"]);
        let access = of(&[], &till).unwrap();
        assert_eq!(access.principal().name(), "cert:spiffe://d/ns/till");
        let redeem = Need::Role(Role::Redeemer);
        assert!(access.may(redeem, "eu") && !access.may(redeem, "us"));
        let nobody = of(&[], &names(&["other.example"])).unwrap();
        assert_eq!(nobody.principal().name(), "cert:other.example");
        assert!(!nobody.may(Need::Any, "eu"), "it is somebody, who may do nothing");
        let both = of(&[&format!("Bearer {SECRET}")], &till).unwrap();
        assert_eq!(both.principal().name(), "token:till");
        assert_eq!(of(&["Bearer hf_x"], &till).unwrap_err(), Refusal::Malformed);
        // What was granted by the file ends when the file says otherwise.
        std::fs::write(folder.path().join("access.toml"), "# nothing\n").unwrap();
        authenticator.reload();
        access.ended().await;
        assert!(!of(&[], &till).unwrap().may(Need::Any, "eu"));
    }

    #[test]
    fn where_nobody_is_asked_everybody_may_do_everything() {
        let access = Authenticator::off();
        let access = access.authenticate(&headers(&["nonsense"]), &[], Instant::now()).unwrap();
        assert_eq!(access.principal().name(), "");
        assert!(access.may_everywhere(Need::Role(Role::Admin)));
    }
}
