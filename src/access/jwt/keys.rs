//! The issuer's public keys, as its JWKS has them.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};

/// The most keys of an issuer.
const MOST: usize = 64;

/// The keys that JWTs may be signed with.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Key>);

/// One of them.
pub(super) struct Key {
    /// Says whether another is the same.
    pub(super) id: u64,
    pub(super) key: DecodingKey,
    name: Option<String>,
    algorithms: Vec<Algorithm>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.name)
            .field("algorithms", &self.algorithms)
            .finish()
    }
}

impl Keys {
    /// Reads a JWKS. Keys that are not for signatures, or not asymmetric, are left out.
    ///
    /// # Errors
    /// When it is none, or has no key that is left.
    pub(super) fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let set: JwkSet =
            serde_json::from_slice(text).map_err(|error| anyhow::anyhow!("not a JWKS: {error}"))?;
        let keys: Vec<_> = set.keys.iter().filter_map(Key::of).take(MOST).collect();
        anyhow::ensure!(
            !keys.is_empty(),
            "no key for signatures (RSA, EC P-256 or P-384, Ed25519)"
        );
        Ok(Self(keys))
    }

    /// The key of a JWT: by its name, or the only one there is.
    pub(super) fn find(&self, header: &Header) -> Option<&Key> {
        let key = match &header.kid {
            Some(name) => self.0.iter().find(|key| key.name.as_ref() == Some(name))?,
            None => self.0.first().filter(|_| self.0.len() == 1)?,
        };
        key.algorithms.contains(&header.alg).then_some(key)
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|key| other.has(key.id))
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let is_for_signatures =
            matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let possible = match (&jwk.algorithm, key.family()) {
            (AlgorithmParameters::RSA(_), AlgorithmFamily::Rsa) => {
                AlgorithmFamily::Rsa.algorithms().to_vec()
            }
            (AlgorithmParameters::EllipticCurve(ec), _) => match ec.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            (AlgorithmParameters::OctetKeyPair(pair), _) => match pair.curve {
                EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
                _ => return None,
            },
            // A secret that both sides share is not taken: who verifies could sign too.
            _ => return None,
        };
        let algorithms: Vec<_> = possible
            .into_iter()
            .filter(|one| common.key_algorithm.is_none_or(|only| is_same(*one, only)))
            .collect();
        let mut hasher = DefaultHasher::new();
        serde_json::to_string(jwk).ok()?.hash(&mut hasher);
        let is_usable = is_for_signatures && !algorithms.is_empty();
        is_usable.then(|| Self {
            id: hasher.finish(),
            key,
            name: common.key_id.clone(),
            algorithms,
        })
    }
}

/// Both are written alike.
fn is_same(algorithm: Algorithm, of_key: KeyAlgorithm) -> bool {
    format!("{algorithm:?}") == of_key.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(algorithm: Algorithm, kid: Option<&str>) -> Header {
        let mut header = Header::new(algorithm);
        header.kid = kid.map(str::to_owned);
        header
    }

    #[test]
    fn a_key_is_for_its_algorithms_alone_and_secrets_and_keys_for_encryption_are_left_out() {
        let x = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let text = format!(
            r#"{{"keys": [
                {{"kty": "oct", "kid": "secret", "k": "{x}"}},
                {{"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "{x}"}},
                {{"kty": "EC", "crv": "P-256", "kid": "ec", "x": "{x}", "y": "{x}"}},
                {{"kty": "RSA", "kid": "rsa", "alg": "RS256", "n": "{x}", "e": "AQAB"}},
                {{"kty": "RSA", "kid": "enc", "use": "enc", "n": "{x}", "e": "AQAB"}}
            ]}}"#
        );
        let keys = Keys::parse(text.as_bytes()).unwrap();
        let finds = |algorithm, kid| keys.find(&header(algorithm, kid)).is_some();
        assert!(finds(Algorithm::EdDSA, Some("ed")) && finds(Algorithm::ES256, Some("ec")));
        assert!(finds(Algorithm::RS256, Some("rsa")) && !finds(Algorithm::RS512, Some("rsa")));
        assert!(!finds(Algorithm::PS256, Some("rsa")), "its alg says otherwise");
        assert!(!finds(Algorithm::ES384, Some("ec")) && !finds(Algorithm::HS256, Some("secret")));
        assert!(!finds(Algorithm::RS256, Some("enc")) && !finds(Algorithm::EdDSA, Some("other")));
        assert!(!finds(Algorithm::EdDSA, None), "there are several");
        for bad in ["", "{}", r#"{"keys": []}"#, r#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#] {
            assert!(Keys::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
