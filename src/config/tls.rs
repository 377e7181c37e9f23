//! The settings of TLS: the same five for each listener.

use std::path::PathBuf;

use clap::Args;

use crate::listener::tls::{ClientAuth, TlsSettings};

/// The settings of one listener: `$flag` and `$variable` are what their names begin with.
macro_rules! tls_args {
    ($name:ident, $flag:literal, $variable:literal, $of:literal) => {
        #[doc = concat!("TLS of ", $of, ".")]
        #[derive(Args, Clone, Debug, Default)]
        pub struct $name {
            #[doc = "The certificate's file."]
            #[arg(
                id = concat!($flag, "tls-cert-file"), long = concat!($flag, "tls-cert-file"),
                env = concat!("HOLDFAST_", $variable, "TLS_CERT_FILE"), value_name = "FILE",
                help = concat!("TLS for ", $of, ": a file with the certificate, and those between it and its CA, in PEM")
            )]
            pub cert_file: Option<PathBuf>,

            #[doc = "The key's file."]
            #[arg(
                id = concat!($flag, "tls-key-file"), long = concat!($flag, "tls-key-file"),
                env = concat!("HOLDFAST_", $variable, "TLS_KEY_FILE"), value_name = "FILE",
                help = concat!("TLS for ", $of, ": a file with the certificate's private key, in PEM")
            )]
            pub key_file: Option<PathBuf>,

            #[doc = "The file of clients' CAs."]
            #[arg(
                id = concat!($flag, "tls-client-ca-file"), long = concat!($flag, "tls-client-ca-file"),
                env = concat!("HOLDFAST_", $variable, "TLS_CLIENT_CA_FILE"), value_name = "FILE",
                help = concat!("TLS for ", $of, ": a file with the CAs of clients' certificates, in PEM. With it, \
                                clients are asked for theirs")
            )]
            pub client_ca_file: Option<PathBuf>,

            #[doc = "The file of lists of revoked certificates."]
            #[arg(
                id = concat!($flag, "tls-client-crl-file"), long = concat!($flag, "tls-client-crl-file"),
                env = concat!("HOLDFAST_", $variable, "TLS_CLIENT_CRL_FILE"), value_name = "FILE",
                help = concat!("TLS for ", $of, ": a file with the revocation lists of these CAs, one of each, in PEM. \
                                A revoked certificate is refused, and its connections end")
            )]
            pub client_crl_file: Option<PathBuf>,

            #[doc = "Whether clients need a certificate."]
            #[arg(
                id = concat!($flag, "tls-client-auth"), long = concat!($flag, "tls-client-auth"),
                env = concat!("HOLDFAST_", $variable, "TLS_CLIENT_AUTH"), value_enum,
                help = concat!("TLS for ", $of, ": whether clients need a certificate. They do when this is not given \
                                and there is a file of CAs")
            )]
            pub client_auth: Option<ClientAuth>,
        }

        impl $name {
            /// The settings, whichever listener they are of.
            pub fn settings(&self) -> TlsSettings {
                TlsSettings {
                    cert_file: self.cert_file.clone(),
                    key_file: self.key_file.clone(),
                    client_ca_file: self.client_ca_file.clone(),
                    client_crl_file: self.client_crl_file.clone(),
                    client_auth: self.client_auth,
                }
            }
        }
    };
}

tls_args!(GrpcTls, "", "", "gRPC");
tls_args!(AdminTls, "admin-", "ADMIN_", "the admin address");
tls_args!(WebhookTls, "webhook-", "WEBHOOK_", "webhooks");
