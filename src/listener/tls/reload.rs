//! The files of a listener's TLS, read again when they change, and watched for when the certificate expires.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ServerConfig;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Tls,
    files::{Contents, Loaded, TlsFiles, TlsSettings, written},
};

/// How often the files are read.
const EVERY: Duration = Duration::from_secs(2);
/// A certificate that expires within this time is warned of.
const SOON: i64 = 14 * 24 * 60 * 60;
/// How often it is.
const WARN_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// See [the module](self).
#[derive(Debug)]
pub struct Reload {
    files: TlsFiles,
    listener: &'static str,
    config: watch::Sender<Arc<ServerConfig>>,
    /// What is in use.
    digest: [u8; 32],
    expires: i64,
    expiry: metrics::Gauge,
    warned: Option<Instant>,
    /// What was last wrong with the files: it is logged once.
    wrong: Vec<String>,
}

/// What became of the files since they were last read.
enum Change {
    None,
    New(Box<(Contents, Loaded)>),
    Wrong(Vec<String>),
}

impl Reload {
    /// TLS for a listener, as its files are now; `None` where no TLS is set. `prefix` is what the names of its variables
    /// begin with, `protocol` what is spoken inside TLS.
    ///
    /// # Errors
    /// Everything that is wrong with the settings and the files.
    pub fn begin(
        settings: &TlsSettings,
        listener: &'static str,
        prefix: &str,
        protocol: &str,
    ) -> Result<Option<(Tls, Self)>, Vec<String>> {
        let Some(files) = settings.files(prefix, protocol)? else { return Ok(None) };
        let contents = files.read()?;
        let loaded = files.load(&contents, OffsetDateTime::now_utc())?;
        files.warn_of(&contents);
        let (sender, receiver) = watch::channel(loaded.config);
        let expiry = metrics::gauge!("holdfast_certificate_expiry_seconds", "listener" => listener);
        let mut reload = Self {
            files,
            listener,
            config: sender,
            digest: contents.digest(),
            expires: loaded.expires,
            expiry,
            warned: None,
            wrong: Vec::new(),
        };
        reload.note_expiry();
        Ok(Some((Tls::new(receiver, listener), reload)))
    }

    /// Reads the files again and again, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            let (files, digest) = (self.files.clone(), self.digest);
            // A file may lie on a network that does not answer.
            let read = tokio::task::spawn_blocking(move || change_of(&files, digest));
            match stop.run_until_cancelled(read).await {
                Some(Ok(change)) => self.apply(change),
                Some(Err(error)) => {
                    tracing::warn!(%error, "the files of TLS could not be read");
                }
                None => return,
            }
            self.note_expiry();
        }
    }

    fn apply(&mut self, change: Change) {
        let listener = self.listener;
        match change {
            Change::None => self.wrong.clear(),
            Change::New(new) => {
                let (contents, loaded) = *new;
                self.files.warn_of(&contents);
                (self.digest, self.expires) = (contents.digest(), loaded.expires);
                (self.warned, self.wrong) = (None, Vec::new());
                self.config.send_replace(loaded.config);
                tracing::info!(
                    listener,
                    expires = written(self.expires),
                    "new files of TLS are used for new connections"
                );
            }
            Change::Wrong(wrong) if wrong != self.wrong => {
                tracing::warn!(
                    listener,
                    "the files of TLS changed and cannot be used, so the certificate from before is kept: {}",
                    wrong.join("; ")
                );
                self.wrong = wrong;
            }
            Change::Wrong(_) => {}
        }
    }

    fn note_expiry(&mut self) {
        let left = self.expires - OffsetDateTime::now_utc().unix_timestamp();
        self.expiry.set(left as f64);
        let is_due = self.warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY);
        if left < SOON && is_due {
            self.warned = Some(Instant::now());
            tracing::warn!(
                listener = self.listener,
                expires = written(self.expires),
                "the certificate expires soon, or has expired: replace its files"
            );
        }
    }
}

fn change_of(files: &TlsFiles, before: [u8; 32]) -> Change {
    let loaded = files.read().and_then(|contents| {
        if contents.digest() == before {
            return Ok(None);
        }
        let loaded = files.load(&contents, OffsetDateTime::now_utc())?;
        Ok(Some(Box::new((contents, loaded))))
    });
    match loaded {
        Ok(None) => Change::None,
        Ok(Some(new)) => Change::New(new),
        Err(wrong) => Change::Wrong(wrong),
    }
}
