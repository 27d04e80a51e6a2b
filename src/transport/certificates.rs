//! The certificate of the gateway and its key: read from files, checked, and swapped while connections live.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// Where the certificate comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A PEM file: the certificate, and those that vouch for it.
    pub certificate: Option<PathBuf>,
    /// A PEM file: its private key.
    pub key: Option<PathBuf>,
    /// A PEM file: who must have signed the certificates of clients. Without it none is asked for.
    pub client_ca: Option<PathBuf>,
}

impl Options {
    /// The files of a gateway that speaks TLS.
    pub fn files(&self) -> Option<Files> {
        let (certificate, key) = (self.certificate.clone()?, self.key.clone()?);
        Some(Files { certificate, key, client_ca: self.client_ca.clone() })
    }
}

/// The files, all that are needed.
#[derive(Clone, Debug)]
pub struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
}

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The certificates.
    Certificate,
    /// The private key.
    Key,
    /// The certificates of who signs those of clients.
    ClientCa,
}

/// Why files cannot be used: which of them, and what is wrong with it. Says nothing of what is in a key.
#[derive(Debug, thiserror::Error)]
#[error("`{}`: {reason}", path.display())]
pub struct CertificateError {
    /// The file to be looked at.
    pub file: File,
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    #[error("is not well-formed PEM")]
    NotPem,
    #[error("holds no certificate in PEM form")]
    NoCertificate,
    #[error("holds no private key in PEM form; one that is encrypted is not taken")]
    NoKey,
    #[error("holds a certificate that cannot be read: {0}")]
    BadCertificate(#[source] x509_cert::der::Error),
    #[error("does not fit the certificate, or is of a kind that is not known: {0}")]
    BadKey(#[source] rustls::Error),
    #[error("cannot be used: {0}")]
    Unusable(String),
}

/// What the files hold, checked: a gateway can speak with it.
#[derive(Clone, Debug)]
pub struct Identity {
    config: Arc<ServerConfig>,
    /// When the first of the certificates runs out, since the Unix epoch.
    pub not_after: Duration,
}

/// The identity in force, which all handshakes ask for; cheap to clone.
#[derive(Clone, Debug)]
pub struct Certificates(Arc<RwLock<Arc<ServerConfig>>>);

impl Certificates {
    /// Begins with this one.
    pub fn new(identity: Identity) -> Self {
        Self(Arc::new(RwLock::new(identity.config)))
    }

    /// New handshakes use this one; those under way and open connections stay with theirs.
    pub fn replace(&self, identity: Identity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identity.config;
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What stands in the files.
pub struct Contents {
    files: Files,
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Files {
    /// Reads them all.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] of the first one that cannot be read.
    pub fn read(&self) -> Result<Contents, CertificateError> {
        let read = |file| {
            let unreadable = |error| self.error(file, Reason::Unreadable(error));
            std::fs::read(self.path(file)).map_err(unreadable)
        };
        Ok(Contents {
            certificate: read(File::Certificate)?,
            key: read(File::Key)?,
            client_ca: self.client_ca.is_some().then(|| read(File::ClientCa)).transpose()?,
            files: self.clone(),
        })
    }

    /// Reads and checks them all.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] of the first one that is no good.
    pub fn load(&self) -> Result<Identity, CertificateError> {
        self.read()?.check()
    }

    fn path(&self, file: File) -> &Path {
        match file {
            File::Certificate => &self.certificate,
            File::Key => &self.key,
            File::ClientCa => self.client_ca.as_deref().unwrap_or(Path::new("")),
        }
    }

    fn error(&self, file: File, reason: Reason) -> CertificateError {
        CertificateError { file, path: self.path(file).to_owned(), reason }
    }
}

impl Contents {
    /// A number that is another for other contents, within one process.
    pub fn fingerprint(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((&self.certificate, &self.key, &self.client_ca))
    }

    /// Makes an identity of them.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] of the first one that is no good, also when the key is another certificate's.
    pub fn check(&self) -> Result<Identity, CertificateError> {
        let error = |file, reason| self.files.error(file, reason);
        let chain = certificates(&self.certificate).map_err(|reason| error(File::Certificate, reason))?;
        let not_after =
            chain.iter().map(not_after).try_fold(Duration::MAX, |first, end| end.map(|end| first.min(end)));
        let not_after =
            not_after.map_err(|reason| error(File::Certificate, Reason::BadCertificate(reason)))?;
        let key =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|pem| error(File::Key, not_a_key(&pem)))?;

        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|unusable| error(File::Certificate, Reason::Unusable(unusable.to_string())))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let roots = roots(pem).map_err(|reason| error(File::ClientCa, reason))?;
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
                let unusable =
                    |unusable: rustls::server::VerifierBuilderError| Reason::Unusable(unusable.to_string());
                builder.with_client_cert_verifier(
                    verifier.map_err(|reason| error(File::ClientCa, unusable(reason)))?,
                )
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|reason| error(File::Key, Reason::BadKey(reason)))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A returning client shows its ticket, for which nothing is kept here. Where clients need a certificate, each connection
        // shows it anew.
        config.send_tls13_tickets = 0;
        if self.client_ca.is_none() {
            config.send_tls13_tickets = TICKETS;
            config.ticketer = Ticketer::new()
                .map_err(|unusable| error(File::Certificate, Reason::Unusable(unusable.to_string())))?;
        }
        Ok(Identity { config: config.into(), not_after })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Reason> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| Reason::NotPem)?;
    if chain.is_empty() { Err(Reason::NoCertificate) } else { Ok(chain) }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, Reason> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|unusable| Reason::Unusable(unusable.to_string()))?;
    }
    Ok(roots)
}

/// When a certificate runs out, since the Unix epoch.
fn not_after(certificate: &CertificateDer<'_>) -> Result<Duration, x509_cert::der::Error> {
    let certificate = Certificate::from_der(certificate)?;
    Ok(certificate.tbs_certificate().validity().not_after.to_unix_duration())
}

/// What the parser says of it may hold a part of the key.
fn not_a_key(error: &pem::Error) -> Reason {
    if matches!(error, pem::Error::NoItemsFound) { Reason::NoKey } else { Reason::NotPem }
}

/// Tickets for each connection: a client that comes back gets a new one.
const TICKETS: usize = 1;
