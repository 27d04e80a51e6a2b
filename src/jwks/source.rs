//! Where the keys are read from: a file, or an address that is asked over HTTP.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::header::{ACCEPT, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::auth::{JwksSource, SetError};

/// The longest set of keys that is read.
pub(super) const BODY_BYTES_MAX: usize = 512 * 1024;
/// From the look-up of the name to the last byte of the answer.
const TIME_MAX: Duration = Duration::from_secs(10);
/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Why the keys cannot be looked for at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Not an address.
    #[error("{0}")]
    Address(String),
    /// The file.
    #[error("cannot be used: {0}")]
    File(#[from] ReadError),
    /// What the file says.
    #[error("{0}")]
    Set(#[from] SetError),
    /// Not a certificate.
    #[error("is not a PEM text with one certificate or more")]
    Ca,
    /// Nobody is trusted.
    #[error(
        "the system has no list of trusted certificates: install one (Debian: ca-certificates), or give `auth.jwks_ca`"
    )]
    NoRoots,
    /// The TLS library refused what it was given.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why the keys could not be read this time. Says nothing of what was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No such file, or no permission.
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
    /// A folder, a pipe, a device.
    #[error("it is not a file")]
    NotAFile,
    /// No connection, no TLS, or no HTTP.
    #[error("{0}")]
    Unreachable(String),
    /// An answer, but not the set. Redirections are not followed.
    #[error("the answer is {0}, not 200")]
    Status(u16),
    /// It was given up.
    #[error("it is longer than {BODY_BYTES_MAX} bytes")]
    TooLong,
    /// It was given up.
    #[error("it took longer than {} s", TIME_MAX.as_secs())]
    TooSlow,
}

/// Something that can be read again and again.
#[derive(Debug)]
pub(super) enum Source {
    File(PathBuf),
    Url { uri: Uri, client: Box<Client<HttpsConnector<HttpConnector>, Empty<Bytes>>> },
}

impl Source {
    /// Prepares it; nothing is read.
    pub(super) fn new(given: &JwksSource, ca: Option<&str>) -> Result<Self, SourceError> {
        match given {
            JwksSource::File(path) => Ok(Self::File(path.clone())),
            JwksSource::Url(url) => {
                let uri = address(url).map_err(SourceError::Address)?;
                let tls = tls(uri.scheme_str() == Some("https"), ca)?;
                let connector =
                    HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
                // A connection would idle for minutes between two questions.
                let client = Client::builder(TokioExecutor::new())
                    .pool_max_idle_per_host(0)
                    .http1_max_buf_size(HEAD_BYTES_MAX)
                    .build(connector);
                Ok(Self::Url { uri, client: Box::new(client) })
            }
        }
    }

    /// Reads it to its end, within [`BODY_BYTES_MAX`] and [`TIME_MAX`].
    pub(super) async fn read(&self) -> Result<Vec<u8>, ReadError> {
        let read = async {
            match self {
                Self::File(path) => {
                    let path = path.clone();
                    let reading = tokio::task::spawn_blocking(move || read_file(&path));
                    reading.await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
                }
                Self::Url { uri, client } => fetch(uri, client).await,
            }
        };
        tokio::time::timeout(TIME_MAX, read).await.unwrap_or(Err(ReadError::TooSlow))
    }
}

/// Tells files and addresses apart.
///
/// # Errors
///
/// The reason, for what begins like an address and cannot be asked.
pub fn locate(given: &str) -> Result<JwksSource, String> {
    if !given.contains("://") {
        return Ok(JwksSource::File(given.into()));
    }
    address(given).map(|_| JwksSource::Url(given.to_owned()))
}

/// Whether what is read from there could have been changed on its way.
pub fn is_open_to_others(source: &JwksSource) -> bool {
    let JwksSource::Url(url) = source else { return false };
    let Ok(uri) = address(url) else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback());
    uri.scheme_str() == Some("http") && !is_here
}

/// Reads a file now.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    // To open a pipe would wait for whoever writes to it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(ReadError::NotAFile);
    }
    let mut text = Vec::new();
    let limit = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)?.take(limit).read_to_end(&mut text)?;
    if text.len() > BODY_BYTES_MAX { Err(ReadError::TooLong) } else { Ok(text) }
}

async fn fetch(
    uri: &Uri,
    client: &Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
) -> Result<Vec<u8>, ReadError> {
    let request = Request::get(uri)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("fanfare/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|error| ReadError::Unreachable(whole(&error)))?;
    let answer = client.request(request).await.map_err(|error| ReadError::Unreachable(whole(&error)))?;
    if answer.status() != StatusCode::OK {
        return Err(ReadError::Status(answer.status().as_u16()));
    }
    match Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(ReadError::TooLong),
        Err(error) => Err(ReadError::Unreachable(whole(error.as_ref()))),
    }
}

fn address(url: &str) -> Result<Uri, String> {
    let uri: Uri = url.parse().map_err(|error| format!("is not an address: {error}"))?;
    if !matches!(uri.scheme_str(), Some("https" | "http")) {
        return Err("must be the path of a file, or begin with https:// or http://".to_owned());
    }
    if uri.authority().is_none_or(|authority| authority.host().is_empty() || authority.as_str().contains('@'))
    {
        return Err("must have a host, and no name or password before it".to_owned());
    }
    Ok(uri)
}

/// Trusts the system's certificates and `ca`; nobody where TLS is not used.
fn tls(is_used: bool, ca: Option<&str>) -> Result<ClientConfig, SourceError> {
    let mut roots = RootCertStore::empty();
    for certificate in ca.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes())) {
        roots.add(certificate.map_err(|_| SourceError::Ca)?).map_err(|_| SourceError::Ca)?;
    }
    if ca.is_some() && roots.is_empty() {
        return Err(SourceError::Ca);
    }
    if is_used {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(SourceError::NoRoots);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// An error with all its causes: the outermost alone says little.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
