//! The listeners of a server: which has TLS, and which may be reached from other machines.

use std::net::SocketAddr;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    config::ServeArgs,
    listener::{
        address::{Exposure, check_exposure},
        tls::{Reload, Tls},
    },
};

/// TLS of each listener that has it.
pub(super) struct Listeners {
    pub(super) grpc: Option<Tls>,
    pub(super) admin: Option<Tls>,
    pub(super) webhook: Option<Tls>,
    reloads: Vec<Reload>,
    /// What is served to other machines although something is missing, because a setting says so.
    exposed: Vec<(&'static str, SocketAddr, Exposure)>,
}

impl Listeners {
    /// As the settings say.
    ///
    /// # Errors
    /// Everything that is wrong with the files of TLS and with the addresses.
    pub(super) fn check(args: &ServeArgs) -> anyhow::Result<Self> {
        let mut listeners = Self {
            grpc: None,
            admin: None,
            webhook: None,
            reloads: Vec::new(),
            exposed: Vec::new(),
        };
        let mut wrong = Vec::new();
        let mut begin = |settings, listener, prefix, protocol| match Reload::begin(
            &settings, listener, prefix, protocol,
        ) {
            Ok(begun) => begun.map(|(tls, reload)| {
                listeners.reloads.push(reload);
                tls
            }),
            Err(faults) => {
                wrong.extend(faults);
                None
            }
        };
        listeners.grpc = begin(args.tls.settings(), "grpc", "HOLDFAST_", "h2");
        listeners.admin = begin(args.admin_tls.settings(), "admin", "HOLDFAST_ADMIN_", "http/1.1");
        if args.webhook_listen.is_some() {
            let settings = args.webhook_tls.settings();
            listeners.webhook = begin(settings, "webhook", "HOLDFAST_WEBHOOK_", "http/1.1");
        }
        let has_auth = args.access.is_on();
        let served = [
            ("gRPC", args.listen, args.tls.cert_file.is_some(), "HOLDFAST_LISTEN", "HOLDFAST_"),
            (
                "the admin address",
                args.admin_listen,
                args.admin_tls.cert_file.is_some(),
                "HOLDFAST_ADMIN_LISTEN",
                "HOLDFAST_ADMIN_",
            ),
        ];
        for (what, addr, has_tls, variable, prefix) in served {
            match check_exposure(addr, has_tls, has_auth, args.access.insecure_listen) {
                Ok(None) => {}
                Ok(Some(exposure)) => listeners.exposed.push((what, addr, exposure)),
                Err(exposure) => wrong.push(format!(
                    "{what} would be served on {addr}, which other machines may reach, {exposure}: set {}, or \
                     {variable} to an address of this machine alone, or say --insecure-listen",
                    exposure.remedy(prefix)
                )),
            }
        }
        anyhow::ensure!(
            wrong.is_empty(),
            "the server cannot listen as it is set: {}",
            wrong.join("; ")
        );
        Ok(listeners)
    }

    /// Warns of what is served to other machines without what should be there.
    pub(super) fn warn(&self) {
        for (what, addr, exposure) in &self.exposed {
            tracing::warn!(
                %addr,
                "{what} is served on {addr}, which other machines may reach, {exposure}: --insecure-listen allows it. \
                 Keep others away by a firewall, or by a proxy in front"
            );
        }
    }

    /// Keeps reading the files of TLS, until `closing`.
    pub(super) fn spawn_reloads(&mut self, loops: &mut JoinSet<()>, closing: &CancellationToken) {
        for reload in self.reloads.drain(..) {
            loops.spawn(reload.run(closing.clone()));
        }
    }
}
