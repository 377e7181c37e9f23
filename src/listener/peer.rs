//! Who is at the other end of a connection: its network address, and the names of its certificate.

use std::{net::SocketAddr, sync::Arc};

use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

/// The names (SAN URI, then SAN DNS in lower case) of the client certificate that TLS verified. Empty without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNames(pub Arc<[String]>);

/// The other end of a connection. Every call has it in its extensions.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The network address: of a proxy, where there is one in between.
    pub addr: Option<SocketAddr>,
    /// The names of its certificate.
    pub names: PeerNames,
}

impl PeerNames {
    /// Of a certificate that was verified, in DER.
    pub(super) fn of(certificate: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Self::default();
        };
        let Ok(Some(names)) = certificate.subject_alternative_name() else {
            return Self::default();
        };
        let all = || names.value.general_names.iter();
        let uris = all().filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        let hosts = all().filter_map(|name| match name {
            GeneralName::DNSName(host) => Some(host.to_ascii_lowercase()),
            _ => None,
        });
        // What is not plain characters is no URI and no host, and could forge a line of a log.
        let is_plain =
            |name: &String| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
        Self(uris.chain(hosts).filter(is_plain).collect())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType, string::Ia5String};

    use super::*;

    fn names_of(names: Vec<SanType>) -> Vec<String> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerNames::of(certificate.der()).0.to_vec()
    }

    #[test]
    fn uris_come_first_then_hosts_and_nothing_else() {
        let ia5 = |text: &str| Ia5String::try_from(text).unwrap();
        let names = names_of(vec![
            SanType::DnsName(ia5("Till.Example")),
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::Rfc822Name(ia5("a@example")),
            SanType::URI(ia5("spiffe://example/Till")),
            SanType::DnsName(ia5("b.example\n{\"level\":\"ERROR\"}")),
        ]);
        assert_eq!(names, ["spiffe://example/Till", "till.example"]);
        assert_eq!(names_of(Vec::new()), [""; 0]);
        assert_eq!(PeerNames::of(b"no certificate"), PeerNames::default());
    }
}
