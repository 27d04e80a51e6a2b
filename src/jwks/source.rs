//! Where the keys are read from: a file, or an address that is asked over HTTP.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::header::{ACCEPT, USER_AGENT};
use hyper::{Request, StatusCode, Uri};

use crate::auth::{JwksSource, SetError};
use crate::egress::{self, AddressError, Client, Connections, TrustError, whole};

/// The longest set of keys that is read.
pub(super) const BODY_BYTES_MAX: usize = 512 * 1024;
/// From the look-up of the name to the last byte of the answer.
const TIME_MAX: Duration = Duration::from_secs(10);
/// A connection would idle for minutes between two questions.
const CONNECTIONS: Connections = Connections { connect: TIME_MAX, idle: Duration::ZERO };

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
    /// Nobody who may have certified the address.
    #[error(transparent)]
    Trust(#[from] TrustError),
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
    Url { uri: Uri, client: Box<Client<Empty<Bytes>>> },
}

impl Source {
    /// Prepares it; nothing is read.
    pub(super) fn new(given: &JwksSource, ca: Option<&str>) -> Result<Self, SourceError> {
        match given {
            JwksSource::File(path) => Ok(Self::File(path.clone())),
            JwksSource::Url(url) => {
                let uri = address(url).map_err(SourceError::Address)?;
                let client = egress::client(&uri, ca, CONNECTIONS)?;
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
    egress::is_open_to_others(&uri)
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

async fn fetch(uri: &Uri, client: &Client<Empty<Bytes>>) -> Result<Vec<u8>, ReadError> {
    let request = Request::get(uri)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, egress::USER_AGENT)
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
    egress::address(url).map_err(|error| match error {
        AddressError::Scheme => "must be the path of a file, or begin with https:// or http://".to_owned(),
        other => other.to_string(),
    })
}
