//! The files of a listener's TLS, read again when they change, and watched for when the certificate expires.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Current, Tls,
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
    current: watch::Sender<Arc<Current>>,
    /// What is in use.
    digest: [u8; 32],
    certificate: Expiry,
    /// The revocation lists, where there are any.
    lists: Option<Expiry>,
    /// What was last wrong with the files: it is logged once.
    wrong: Vec<String>,
}

/// When something expires, as it is watched.
#[derive(Debug)]
struct Expiry {
    at: i64,
    left: metrics::Gauge,
    warned: Option<Instant>,
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
        let Loaded { config, clients, expires, lists_expire } = loaded;
        let (sender, receiver) = watch::channel(Arc::new(Current { config, clients }));
        let left = metrics::gauge!("holdfast_certificate_expiry_seconds", "listener" => listener);
        let certificate = Expiry::new(expires, left);
        let lists = lists_expire.map(|at| {
            let name = "holdfast_revocation_list_expiry_seconds";
            Expiry::new(at, metrics::gauge!(name, "listener" => listener))
        });
        let tls = Tls::new(receiver, lists.is_some(), listener);
        let mut reload = Self {
            files,
            listener,
            current: sender,
            digest: contents.digest(),
            certificate,
            lists,
            wrong: Vec::new(),
        };
        reload.note_expiry();
        Ok(Some((tls, reload)))
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
                let Loaded { config, clients, expires, lists_expire } = loaded;
                (self.digest, self.wrong) = (contents.digest(), Vec::new());
                self.certificate.is_now(expires);
                if let Some((lists, expire)) = self.lists.as_mut().zip(lists_expire) {
                    lists.is_now(expire);
                }
                self.current.send_replace(Arc::new(Current { config, clients }));
                tracing::info!(
                    listener,
                    expires = written(expires),
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
        let listener = self.listener;
        if let Some(expires) = self.certificate.due_warning(SOON) {
            tracing::warn!(
                listener,
                expires,
                "the certificate expires soon, or has expired: replace its files"
            );
        }
        if let Some(expired) = self.lists.as_mut().and_then(|lists| lists.due_warning(0)) {
            tracing::warn!(
                listener,
                expired,
                "a revocation list of clients' certificates has expired, and is used all the same: certificates that were \
                 revoked since are taken. Replace the file"
            );
        }
    }
}

impl Expiry {
    fn new(at: i64, left: metrics::Gauge) -> Self {
        Self { at, left, warned: None }
    }

    /// What was replaced expires at another time.
    fn is_now(&mut self, at: i64) {
        (self.at, self.warned) = (at, None);
    }

    /// Notes how long it is until then. Answers when that is where it is to be warned of: it is less than `soon` seconds.
    fn due_warning(&mut self, soon: i64) -> Option<String> {
        let left = self.at - OffsetDateTime::now_utc().unix_timestamp();
        self.left.set(left as f64);
        let is_due = self.warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY);
        (left < soon && is_due).then(|| {
            self.warned = Some(Instant::now());
            written(self.at)
        })
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
