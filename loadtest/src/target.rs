//! Where to connect, and the request for the upgrade.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::{Response, generate_request};
use tungstenite::handshake::derive_accept_key;
use tungstenite::http::HeaderName;

use crate::dialect::{Template, Values};
use crate::fleet::Tls;

/// Every connection sends the same key: it protects caches from being confused, and there is none between a load
/// test and its server.
const KEY: &str = "bG9hZCB0ZXN0IGtleSAgIA==";
/// How long a token of ours is good: longer than any run.
const TOKEN_LIFE: u64 = 86_400;

/// Who the clients say they are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials {
    /// One token for all.
    pub(crate) token: Option<String>,
    /// Signs a token for each client's own user.
    pub(crate) jwt_secret: Option<String>,
    /// Header lines, `Name: value`.
    pub(crate) headers: Vec<String>,
    pub(crate) subprotocol: Option<String>,
    /// What the names of the users begin with.
    pub(crate) prefix: String,
    /// Whether any certificate of a server is taken.
    pub(crate) insecure: bool,
}

#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// What TLS begins with, where the URL asks for it.
    pub(crate) tls: Option<Tls>,
    url: Template,
    credentials: Credentials,
    /// The request, where it is the same for all clients.
    shared: Option<Vec<u8>>,
    accept_key: String,
}

/// Why the upgrade was not had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The server has no room at the moment.
    #[error("the server refused the upgrade with 503: try again after {} ms", after / 1_000_000)]
    Later {
        /// In nanoseconds, as `Retry-After` says.
        after: u64,
    },
    #[error("the server refused the upgrade with {0}")]
    Status(u16),
    #[error("the server answered the upgrade with a wrong Sec-WebSocket-Accept")]
    AcceptKey,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
    broadcast: bool,
}

impl Target {
    /// # Errors
    ///
    /// When the URL is not one of a WebSocket, or asks for TLS that is not to be insecure, its host is unknown, or the credentials cannot stand in a header.
    pub(crate) fn new(url: &str, path: Option<&Template>, credentials: Credentials) -> Result<Self> {
        let plain = url.replace("{user}", "u").replace("{room}", "r");
        let request =
            plain.as_str().into_client_request().with_context(|| format!("{url} is not a WebSocket URL"))?;
        let uri = request.uri().clone();
        let host = uri.host().with_context(|| format!("{url} names no host"))?.trim_matches(['[', ']']);
        let scheme = uri.scheme_str().unwrap_or_default();
        let (tls, port) = match scheme {
            "ws" => (None, 80),
            "wss" if credentials.insecure => (Some(Tls::insecure(host)?), 443),
            "wss" => bail!("{url}: certificates are not verified here: say --insecure"),
            _ => bail!("{url}: only ws:// and wss:// are supported"),
        };
        let address = (host, uri.port_u16().unwrap_or(port))
            .to_socket_addrs()
            .with_context(|| format!("{host} is not known"))?
            .next();
        let address = address.with_context(|| format!("{host} has no address"))?;
        let url = match path {
            None => Template::parse(url),
            Some(path) => {
                let authority = uri.authority().context("the URL names no host")?;
                Template::join(&format!("{scheme}://{authority}"), path)
            }
        };
        let mut target = Self {
            address,
            tls,
            url,
            credentials,
            shared: None,
            accept_key: derive_accept_key(KEY.as_bytes()),
        };
        let first = target.build(0, None)?;
        let differs = target.url.varies() || target.credentials.jwt_secret.is_some();
        target.shared = (!differs).then_some(first);
        Ok(target)
    }

    /// The bytes of the request of one client, whose first room is this.
    pub(crate) fn request(&self, client: u32, room: Option<u32>) -> Vec<u8> {
        match &self.shared {
            Some(shared) => shared.clone(),
            // What could fail has been tried with the first client.
            None => self.build(client, room).unwrap_or_default(),
        }
    }

    fn build(&self, client: u32, room: Option<u32>) -> Result<Vec<u8>> {
        let prefix = &*self.credentials.prefix;
        let values = Values { prefix, user: client, room: room.unwrap_or(0), message: b"" };
        let url = String::from_utf8(self.url.text(&values))?;
        let mut request = url.as_str().into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Key", KEY.parse()?);
        if let Some(subprotocol) = &self.credentials.subprotocol {
            let value = subprotocol.parse().context("the subprotocol cannot stand in a header")?;
            headers.insert("Sec-WebSocket-Protocol", value);
        }
        let user = Template::parse("{user}").text(&values);
        let token = match &self.credentials.jwt_secret {
            Some(secret) => Some(sign(&String::from_utf8(user)?, secret)?),
            None => self.credentials.token.clone(),
        };
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().context("the token cannot stand in a header")?;
            headers.insert("Authorization", value);
        }
        for line in &self.credentials.headers {
            let (name, value) =
                line.split_once(':').with_context(|| format!("{line:?} is no header: Name: value"))?;
            let name: HeaderName =
                name.trim().parse().with_context(|| format!("{name:?} names no header"))?;
            headers.insert(
                name,
                value.trim().parse().with_context(|| format!("{value:?} is no header's value"))?,
            );
        }
        Ok(generate_request(request)?.0)
    }

    /// # Errors
    ///
    /// When the answer is not the upgrade that was asked for.
    pub(crate) fn verify(&self, response: &Response) -> Result<(), Refusal> {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        match response.status().as_u16() {
            101 => {}
            503 => {
                let seconds = header("Retry-After").and_then(|text| text.trim().parse().ok()).unwrap_or(1);
                let after = Duration::from_secs(seconds).as_nanos();
                return Err(Refusal::Later { after: u64::try_from(after).unwrap_or(u64::MAX) });
            }
            status => return Err(Refusal::Status(status)),
        }
        let accept = header("Sec-WebSocket-Accept");
        if accept == Some(&*self.accept_key) { Ok(()) } else { Err(Refusal::AcceptKey) }
    }
}

/// A token for one user, good for a day.
fn sign(user: &str, secret: &str) -> Result<String> {
    let claims =
        Claims { sub: user, exp: jsonwebtoken::get_current_timestamp() + TOKEN_LIFE, broadcast: true };
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).context("signing a token")
}

#[cfg(test)]
mod tests {
    use tungstenite::handshake::machine::TryParse as _;

    use super::*;

    fn target(url: &str, credentials: Credentials) -> Target {
        Target::new(url, None, credentials).unwrap()
    }

    fn text(target: &Target, client: u32) -> String {
        String::from_utf8(target.request(client, Some(3))).unwrap()
    }

    #[test]
    fn the_answer_must_match_the_request() {
        let target = target("ws://127.0.0.1:9/ws?user=1", Credentials::default());
        let key = &*target.accept_key;
        for (status, key, outcome) in [
            (101, key, Ok(())),
            (101, "other", Err(Refusal::AcceptKey)),
            (401, key, Err(Refusal::Status(401))),
            (503, key, Err(Refusal::Later { after: 7_000_000_000 })),
        ] {
            let text =
                format!("HTTP/1.1 {status} X\r\nSec-WebSocket-Accept: {key}\r\nRetry-After: 7\r\n\r\n");
            let (_, response) = Response::try_parse(text.as_bytes()).unwrap().unwrap();
            assert_eq!(target.verify(&response), outcome);
        }
    }

    #[test]
    fn credentials_stand_in_the_request() {
        let credentials = Credentials {
            token: Some("abc".into()),
            headers: vec!["X-One: 1".into()],
            subprotocol: Some("fanfare.v1".into()),
            ..Credentials::default()
        };
        let request = text(&target("ws://127.0.0.1:9/ws", credentials), 0).to_lowercase();
        assert!(request.starts_with("get /ws http/1.1\r\n"));
        for line in ["authorization: bearer abc", "x-one: 1", "sec-websocket-protocol: fanfare.v1"] {
            assert!(request.contains(line), "{line} in {request}");
        }
    }

    #[test]
    fn each_client_may_have_its_own_path_user_and_token() {
        let load = Credentials { prefix: "load".into(), ..Credentials::default() };
        let own = target("ws://127.0.0.1:9/{room}?user={user}", load.clone());
        assert!(text(&own, 4).starts_with("GET /load-00003?user=load-00004 HTTP/1.1\r\n"));
        let path = Template::parse("/sub/{room}");
        let other = Target::new("ws://127.0.0.1:9/ws", Some(&path), load).unwrap();
        assert!(text(&other, 4).starts_with("GET /sub/load-00003 HTTP/1.1\r\n"));
        let secret = Credentials { jwt_secret: Some("s".into()), ..Credentials::default() };
        let signed = target("ws://127.0.0.1:9/", secret);
        assert_ne!(text(&signed, 1), text(&signed, 2));
    }

    #[test]
    fn what_cannot_be_a_target_is_refused() {
        for url in ["http://h/ws", "wss://127.0.0.1/ws", "127.0.0.1:80", "", "ws://no.such.host.invalid/"] {
            assert!(Target::new(url, None, Credentials::default()).is_err(), "{url}");
        }
        let insecure = Credentials { insecure: true, ..Credentials::default() };
        assert!(target("wss://127.0.0.1/ws", insecure).tls.is_some());
        let wrong = Credentials { headers: vec!["nothing".into()], ..Credentials::default() };
        assert!(Target::new("ws://127.0.0.1/", None, wrong).is_err());
    }
}
