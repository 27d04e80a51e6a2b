//! Keeps the certificate in force the one that stands in its files.

use std::hash::RandomState;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::metrics::{Recorder, ReloadResult, TlsMetrics};
use crate::transport::{CertificateError, Certificates, Contents, Files, Identity, Options};

use super::Error;

/// How often the files are looked at. What is new is taken when it has stood there for so long, so that a certificate and its
/// key may be written one after the other.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reads the certificate again when it changes or SIGHUP comes.
pub(super) struct Reloads {
    hangup: Signal,
    tls: Option<Tls>,
}

/// The files of a gateway that speaks TLS, and what is in force of them.
struct Tls {
    files: Files,
    certificates: Certificates,
    metrics: TlsMetrics,
    hasher: RandomState,
    seen: Seen,
}

/// What the files held, as fingerprints; none when they could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// When they were last looked at.
    last: Option<u64>,
    /// When they were last tried, with whatever result.
    tried: Option<u64>,
}

impl Seen {
    /// Whether what is there now is to be tried: it is new, and has stood there since the last look.
    fn look(&mut self, now: Option<u64>) -> bool {
        let is_settled = self.last == now;
        self.last = now;
        let is_new = is_settled && self.tried != now;
        if is_new {
            self.tried = now;
        }
        is_new
    }
}

impl Reloads {
    /// Loads the certificate where the options name one, and takes SIGHUP from here on.
    pub(super) fn begin(options: &Options, recorder: &Recorder) -> Result<Self, Error> {
        let hangup = signal(SignalKind::hangup()).map_err(Error::Start)?;
        let tls = options.files().map(|files| Tls::load(files, recorder)).transpose()?;
        Ok(Self { hangup, tls })
    }

    /// What handshakes use; none without TLS.
    pub(super) fn certificates(&self) -> Option<Certificates> {
        self.tls.as_ref().map(|tls| tls.certificates.clone())
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(self) {
        if let Some(tls) = self.tls {
            tls.run(self.hangup).await;
        }
    }
}

impl Tls {
    fn load(files: Files, recorder: &Recorder) -> Result<Self, CertificateError> {
        let (contents, hasher) = (files.read()?, RandomState::new());
        let fingerprint = Some(contents.fingerprint(&hasher));
        let identity = contents.check()?;
        let metrics = TlsMetrics::new(recorder);
        metrics.not_after.set(identity.not_after.as_secs_f64());
        let certificates = Certificates::new(identity);
        let seen = Seen { last: fingerprint, tried: fingerprint };
        Ok(Self { files, certificates, metrics, hasher, seen })
    }

    async fn run(mut self, mut hangup: Signal) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                asked = hangup.recv() => asked.is_some(),
                _ = looks.tick() => false,
            };
            let (fingerprint, contents) = self.read().await;
            if self.seen.look(fingerprint) || is_asked {
                self.seen.tried = fingerprint;
                self.take(elsewhere(move || contents?.check()).await);
            }
        }
    }

    /// What stands in the files now, and its fingerprint.
    async fn read(&self) -> (Option<u64>, Result<Contents, CertificateError>) {
        let (files, hasher) = (self.files.clone(), self.hasher.clone());
        elsewhere(move || {
            let contents = files.read();
            (contents.as_ref().ok().map(|contents| contents.fingerprint(&hasher)), contents)
        })
        .await
    }

    fn take(&self, identity: Result<Identity, CertificateError>) {
        match identity {
            Ok(identity) => {
                tracing::info!(not_after = identity.not_after.as_secs(), "a new certificate is in force");
                self.metrics.not_after.set(identity.not_after.as_secs_f64());
                self.metrics.reloads[ReloadResult::Ok].increment(1);
                self.certificates.replace(identity);
            }
            Err(error) => {
                tracing::warn!(%error, "a new certificate is no good: the old one stays in force");
                self.metrics.reloads[ReloadResult::Error].increment(1);
            }
        }
    }
}

/// Does this on another thread, since a disk may be slow, and so is the arithmetic of keys.
async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.expect("it does not panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_tried_once_and_when_it_has_settled() {
        let mut seen = Seen { last: Some(1), tried: Some(1) };

        assert!(!seen.look(Some(1)));
        assert!(!seen.look(Some(2)), "the key may still be written");
        assert!(!seen.look(Some(3)));
        assert!(seen.look(Some(3)));
        assert!(!seen.look(Some(3)), "whatever came of it");
        assert!(!seen.look(None));
        assert!(seen.look(None), "files that are gone are told of once");
        assert!(!seen.look(None));
        assert!(!seen.look(Some(3)));
        assert!(seen.look(Some(3)));
    }
}
