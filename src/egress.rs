//! What the gateway itself asks of others over HTTP: which addresses that may be, whom it trusts, and the client.

use std::error::Error;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Uri;
use hyper::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// As whom it shows itself.
pub const USER_AGENT: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));

/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A client for one address. Redirections are not followed.
pub type Client<B> = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, B>;

/// Why a text is no address that can be asked.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No URL.
    #[error("is not an address: {0}")]
    Syntax(#[from] hyper::http::uri::InvalidUri),
    /// Neither of the two.
    #[error("must begin with https:// or http://")]
    Scheme,
    /// Nobody to ask, or a password that would be shown wherever the address is.
    #[error("must have a host, and no name or password before it")]
    Host,
}

/// Why nobody can be trusted as configured.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Not a certificate.
    #[error("is not a PEM text with one certificate or more")]
    Ca,
    /// Nobody is trusted.
    #[error(
        "the system has no list of trusted certificates: install one (Debian: ca-certificates), or give those to trust"
    )]
    NoRoots,
    /// The TLS library refused what it was given.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// How long connections take and are kept.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Until there is one, the handshake of TLS left out.
    pub connect: Duration,
    /// For how long one is kept for the next request; nothing: it is not.
    pub idle: Duration,
}

/// Reads an address.
///
/// # Errors
///
/// [`AddressError`].
pub fn address(url: &str) -> Result<Uri, AddressError> {
    let uri: Uri = url.parse()?;
    if !matches!(uri.scheme_str(), Some("https" | "http")) {
        return Err(AddressError::Scheme);
    }
    if uri.authority().is_none_or(|authority| authority.host().is_empty() || authority.as_str().contains('@'))
    {
        return Err(AddressError::Host);
    }
    Ok(uri)
}

/// Whether what goes there and comes back could be read and changed on its way.
pub fn is_open_to_others(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback());
    uri.scheme_str() == Some("http") && !is_here
}

/// A client for this address, which trusts the system's certificates and those in `ca`. Nothing is asked yet.
///
/// # Errors
///
/// [`TrustError`].
pub fn client<B>(uri: &Uri, ca: Option<&str>, connections: Connections) -> Result<Client<B>, TrustError>
where
    B: Body<Data = Bytes> + Send,
{
    let tls = tls(uri.scheme_str() == Some("https"), ca)?;
    let mut http = HttpConnector::new();
    // The scheme is checked by `address`; TLS comes on top of this.
    http.enforce_http(false);
    http.set_connect_timeout(Some(connections.connect));
    http.set_nodelay(true);
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
    Ok(hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(connections.idle)
        .pool_max_idle_per_host(usize::from(!connections.idle.is_zero()))
        .http1_max_buf_size(HEAD_BYTES_MAX)
        .build(connector))
}

/// An error with all its causes: the outermost alone says little.
pub fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// Trusts the system's certificates and `ca`; nobody where TLS is not used.
fn tls(is_used: bool, ca: Option<&str>) -> Result<ClientConfig, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in ca.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes())) {
        roots.add(certificate.map_err(|_| TrustError::Ca)?).map_err(|_| TrustError::Ca)?;
    }
    if ca.is_some() && roots.is_empty() {
        return Err(TrustError::Ca);
    }
    if is_used {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TrustError::NoRoots);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_to_other_machines_is_open_to_others() {
        let is_open = |url| is_open_to_others(&address(url).unwrap());

        for open in [
            "http://example.org/",
            "http://10.0.0.1:80/",
            "http://[2001:db8::1]/",
            "http://localhost.example.org/",
        ] {
            assert!(is_open(open), "{open}");
        }
        for here in [
            "http://127.0.0.1:8000/",
            "http://127.9.9.9/",
            "http://[::1]:80/",
            "http://LocalHost/",
            "https://example.org/",
        ] {
            assert!(!is_open(here), "{here}");
        }
    }

    #[test]
    fn an_address_has_a_scheme_and_a_host_and_no_password() {
        assert_eq!(address("https://a.example/b?c=d").unwrap().host(), Some("a.example"));
        assert!(matches!(address("ftp://a/b"), Err(AddressError::Scheme)));
        assert!(matches!(address("/b"), Err(AddressError::Scheme)));
        assert!(matches!(address("https://user:pass@a/"), Err(AddressError::Host)));
        for wrong in ["https://", "https://a b/", "://", ""] {
            assert!(matches!(address(wrong), Err(AddressError::Syntax(_))), "{wrong}");
        }
    }
}
