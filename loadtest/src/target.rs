//! Where to connect, and the upgrade: one request for all connections of a run.

use std::net::{SocketAddr, ToSocketAddrs as _};

use anyhow::{Context as _, Result, bail};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::{Response, generate_request};
use tungstenite::handshake::derive_accept_key;

pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The bytes of the upgrade request. Every connection sends the same key: it protects
    /// caches from being confused, and there is none between a load test and its server.
    pub(crate) request: Vec<u8>,
    accept_key: String,
}

impl Target {
    /// # Errors
    ///
    /// When the URL is not one of plain WebSocket, or its host is unknown.
    pub(crate) fn new(url: &str, token: Option<&str>) -> Result<Self> {
        let mut request =
            url.into_client_request().with_context(|| format!("{url} is not a WebSocket URL"))?;
        let uri = request.uri().clone();
        if uri.scheme_str() != Some("ws") {
            bail!("{url}: only ws:// is supported");
        }
        let host = uri.host().with_context(|| format!("{url} names no host"))?.trim_matches(['[', ']']);
        let address = (host, uri.port_u16().unwrap_or(80)).to_socket_addrs()?.next();
        let address = address.with_context(|| format!("{host} has no address"))?;
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().context("the token cannot stand in a header")?;
            request.headers_mut().insert("Authorization", value);
        }
        let (request, key) = generate_request(request)?;
        Ok(Self { address, request, accept_key: derive_accept_key(key.as_bytes()) })
    }

    /// # Errors
    ///
    /// When the answer is not the upgrade that was asked for.
    pub(crate) fn verify(&self, response: &Response) -> Result<()> {
        if response.status().as_u16() != 101 {
            bail!("the server refused the upgrade with {}", response.status());
        }
        let accept = response.headers().get("Sec-WebSocket-Accept");
        if accept.is_none_or(|accept| accept.as_bytes() != self.accept_key.as_bytes()) {
            bail!("the server answered the upgrade with a wrong Sec-WebSocket-Accept");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tungstenite::handshake::machine::TryParse as _;

    use super::*;

    #[test]
    fn the_answer_must_match_the_request() {
        let target = Target::new("ws://127.0.0.1:9/ws?user=1", Some("abc")).unwrap();
        let request = String::from_utf8(target.request.clone()).unwrap();
        assert!(request.starts_with("GET /ws?user=1 HTTP/1.1\r\n") && request.contains("Bearer abc\r\n"));
        for (status, key, good) in
            [(101, &*target.accept_key, true), (101, "other", false), (503, &*target.accept_key, false)]
        {
            let text = format!("HTTP/1.1 {status} X\r\nSec-WebSocket-Accept: {key}\r\n\r\n");
            let (_, response) = Response::try_parse(text.as_bytes()).unwrap().unwrap();
            assert_eq!(target.verify(&response).is_ok(), good);
        }
    }

    #[test]
    fn only_plain_websocket_is_supported() {
        for url in ["http://h/ws", "wss://127.0.0.1/ws", "127.0.0.1:80", ""] {
            assert!(Target::new(url, None).is_err(), "{url}");
        }
    }
}
