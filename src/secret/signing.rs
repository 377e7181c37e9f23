//! What deliveries are signed with, in the form of Standard Webhooks.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chacha20poly1305::aead::Generate as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;

use crate::domain::credentials::Credentials;

/// How every secret begins, as receivers have it.
const START: &str = "whsec_";
const BYTES: usize = 32;
/// The name under which it is encrypted.
const NAME: &str = "whsec";

/// The secret of a subscription. Never printed, and wiped from memory when it is dropped.
#[derive(Clone)]
pub struct SigningSecret(Zeroizing<[u8; BYTES]>);

impl SigningSecret {
    /// A new one.
    pub fn generate() -> Self {
        Self(Zeroizing::new(<[u8; BYTES]>::generate()))
    }

    /// As the receiver has it.
    pub fn expose(&self) -> Zeroizing<String> {
        let text = Zeroizing::new(BASE64_STANDARD.encode(*self.0));
        Zeroizing::new(format!("{START}{}", *text))
    }

    /// As it is encrypted.
    pub fn to_credentials(&self) -> Credentials {
        let text = Zeroizing::new(BASE64_STANDARD.encode(*self.0));
        Credentials::new([(NAME.to_owned(), text.as_str().into())].into()).unwrap_or_default()
    }

    /// As [`Self::to_credentials`] made it.
    pub fn of_credentials(credentials: &Credentials) -> Option<Self> {
        let (_, text) = credentials.expose().find(|(name, _)| *name == NAME)?;
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(text).ok()?);
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    /// The signature of a delivery: its name, the time in seconds since 1970, and its body.
    pub fn sign(&self, delivery_id: &str, timestamp: i64, body: &str) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&*self.0).expect("HMAC takes keys of any length");
        for part in [delivery_id, ".", &timestamp.to_string(), ".", body] {
            mac.update(part.as_bytes());
        }
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By another program: `openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…07 -binary | base64`.
    #[test]
    fn a_signature_is_what_libraries_of_standard_webhooks_verify() {
        let secret = SigningSecret(Zeroizing::new([7; BYTES]));
        assert_eq!(&**secret.expose(), "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
        assert_eq!(secret.sign("out_1", 1_700_000_000, "{\"a\":1}"), PINNED);
    }

    const PINNED: &str = "v1,KVYdPgZkZYTuof5QuWFh4vMNdU6GLuUWLppYnza8EiY=";

    #[test]
    fn a_secret_is_kept_as_credentials_are_and_does_not_print() {
        let secret = SigningSecret::generate();
        let again = SigningSecret::of_credentials(&secret.to_credentials()).unwrap();
        assert_eq!(*secret.expose(), *again.expose());
        assert_eq!(format!("{secret:?}"), "SigningSecret(…)");
        assert!(SigningSecret::of_credentials(&Credentials::default()).is_none());
    }
}
