//! The demo's certificates: a CA of its own, and what it signs for this machine. They end with the demo's folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::app::write_secret;

/// Where the server listens.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// Files in PEM.
pub(super) struct Certificates {
    /// What clients trust.
    pub(super) ca_file: PathBuf,
    /// The server's certificate.
    pub(super) cert_file: PathBuf,
    /// Its key, which its owner alone can read.
    pub(super) key_file: PathBuf,
}

impl Certificates {
    /// Makes them in a folder.
    pub(super) fn make(folder: &Path) -> anyhow::Result<Self> {
        let made = Self {
            ca_file: folder.join("ca.pem"),
            cert_file: folder.join("server.pem"),
            key_file: folder.join("server.key"),
        };
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "the demo's CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Its key is kept nowhere: nothing else can be signed.
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(NAMES.map(str::to_owned))?;
        let certificate = params.signed_by(&key, &authority)?;
        let cannot = || format!("certificates cannot be written to {}", folder.display());
        fs::write(&made.ca_file, authority.pem()).with_context(cannot)?;
        fs::write(&made.cert_file, certificate.pem()).with_context(cannot)?;
        write_secret(&made.key_file, key.serialize_pem().trim_end())?;
        Ok(made)
    }
}
