//! What makes an upgrade valid (RFC 9110, RFC 9112, RFC 6455 section 4.2.1).
//!
//! The HTTP parser checks syntax only and the handshake helper only that a key is there, so what a request must
//! have besides is decided here, in one place, before anything is answered.

use hyper::header::{
    CONTENT_LENGTH, HOST, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING,
};
use hyper::{HeaderMap, Method, Request, Version};

use super::demo::Part;
use super::refusal::Refusal;
use super::{Endpoint, Options};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The demo page, or a part of it.
    Demo(&'static Part),
    /// A WebSocket, by a valid upgrade.
    Upgrade(Endpoint),
}

/// The subprotocols that are spoken here; the client's order decides between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subprotocol {
    /// One object in each frame.
    Plain,
    /// Objects that wait together are joined by `\n`.
    Ndjson,
}

impl Subprotocol {
    /// Its name on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "fanfare.v1",
            Self::Ndjson => "fanfare.v1.ndjson",
        }
    }
}

/// Finds out what is asked for.
///
/// # Errors
///
/// The [`Refusal`] for the first rule that is broken; who asks is not looked at.
pub(super) fn check<B>(request: &Request<B>, options: &Options) -> Result<Route, Refusal> {
    if request.version() != Version::HTTP_11 {
        return Err(Refusal::version());
    }
    check_host(request.headers())?;
    let route = match request.uri().path() {
        "/ws" => Route::Upgrade(Endpoint::Ws),
        "/echo" if options.echo => Route::Upgrade(Endpoint::Echo),
        path => Part::at(path).filter(|_| options.demo).map(Route::Demo).ok_or_else(Refusal::not_found)?,
    };
    if request.method() != Method::GET {
        return Err(Refusal::method());
    }
    if request.headers().contains_key(CONTENT_LENGTH) || request.headers().contains_key(TRANSFER_ENCODING) {
        return Err(Refusal::malformed("a GET request must not have a body here"));
    }
    if matches!(route, Route::Upgrade(_)) {
        check_upgrade(request)?;
    }
    Ok(route)
}

/// The host that the request is for, when it names exactly one.
pub(super) fn host(headers: &HeaderMap) -> Option<&str> {
    only(headers, &HOST)?.to_str().ok().map(str::trim).filter(|host| is_authority(host))
}

/// The first subprotocol offered that is known here.
pub(super) fn subprotocol(headers: &HeaderMap) -> Option<Subprotocol> {
    offered(headers).find_map(|offer| {
        [Subprotocol::Plain, Subprotocol::Ndjson].into_iter().find(|known| known.name() == offer)
    })
}

/// The subprotocols offered, in the client's order.
pub(super) fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn check_host(headers: &HeaderMap) -> Result<(), Refusal> {
    match host(headers) {
        Some(_) => Ok(()),
        None => Err(Refusal::malformed("the request must have one valid Host header")),
    }
}

fn check_upgrade<B>(request: &Request<B>) -> Result<(), Refusal> {
    if !fastwebsockets::upgrade::is_upgrade_request(request) {
        return Err(Refusal::not_upgrade("send Connection: Upgrade and Upgrade: websocket"));
    }
    let headers = request.headers();
    if only(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refusal::not_upgrade("Sec-WebSocket-Version must be 13"));
    }
    if !only(headers, &SEC_WEBSOCKET_KEY).is_some_and(|key| is_key(key.as_bytes())) {
        return Err(Refusal::malformed("Sec-WebSocket-Key must be there once, 16 bytes in base64"));
    }
    Ok(())
}

/// 16 bytes in base64 are 22 digits and two signs of padding.
fn is_key(key: &[u8]) -> bool {
    matches!(key, [digits @ .., b'=', b'='] if digits.len() == 22
        && digits.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')))
}

/// RFC 3986 section 3.2 without user information, as far as it matters: nothing that ends an authority.
fn is_authority(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%')
        })
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a hyper::header::HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use hyper::http::request::Builder;

    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    #[test]
    fn accepts_the_handshake_of_the_rfc() {
        assert_eq!(checked(hello()), Ok(Route::Upgrade(Endpoint::Ws)));
        assert_eq!(checked(hello().uri("/ws?user=7")), Ok(Route::Upgrade(Endpoint::Ws)));
        assert_eq!(checked(hello().uri("/echo")), Ok(Route::Upgrade(Endpoint::Echo)));
    }

    #[test]
    fn reads_connection_and_upgrade_as_lists_without_case() {
        let request = without(&["connection", "upgrade"])
            .header("Connection", "keep-alive, UPGRADE")
            .header("Upgrade", "h2c")
            .header("Upgrade", "WebSocket");

        assert_eq!(checked(request), Ok(Route::Upgrade(Endpoint::Ws)));
    }

    #[test]
    fn refuses_what_is_no_upgrade_with_426() {
        for missing in ["connection", "upgrade", "sec-websocket-version"] {
            assert_eq!(checked(without(&[missing])), Err(426), "without {missing}");
        }
        assert_eq!(checked(without(&["upgrade"]).header("upgrade", "h2c")), Err(426));
        assert_eq!(checked(without(&["connection"]).header("connection", "keep-alive")), Err(426));
        for version in ["8", "13, 8", ""] {
            let request = without(&["sec-websocket-version"]).header("sec-websocket-version", version);
            assert_eq!(checked(request), Err(426), "version {version:?}");
        }
        assert_eq!(checked(hello().header("sec-websocket-version", "13")), Err(426));
    }

    #[test]
    fn refuses_every_wrong_key_with_400() {
        let wrong = [
            "",
            "x",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQAA",
            "dGhlIHNhbXBsZSBub25j*Q==",
            "dGhlIHNhbXBsZSBub25jZWUgYW5kIG1vcmU=",
            "========================",
        ];
        for key in wrong {
            let request = without(&["sec-websocket-key"]).header("sec-websocket-key", key);
            assert_eq!(checked(request), Err(400), "key {key:?}");
        }
        assert_eq!(checked(without(&["sec-websocket-key"])), Err(400));
        assert_eq!(checked(hello().header("sec-websocket-key", KEY)), Err(400));
    }

    #[test]
    fn refuses_other_methods_versions_and_paths() {
        assert_eq!(checked(hello().method("POST")), Err(405));
        assert_eq!(checked(hello().version(Version::HTTP_10)), Err(505));
        for path in ["/wss", "/ws/", "/WS", "//ws", "/admin"] {
            assert_eq!(checked(hello().uri(path)), Err(404), "path {path}");
        }
        assert_eq!(checked(hello().method("POST").uri("/nowhere")), Err(404));
    }

    #[test]
    fn serves_echo_and_demo_only_when_told_to() {
        let options = Options { echo: false, demo: false, ..Options::default() };

        for path in ["/echo", "/", "/demo.css", "/demo.js", "/fanfare.js"] {
            let request = hello().uri(path).body(()).unwrap();
            assert_eq!(check(&request, &options).map_err(|refusal| refusal.status().as_u16()), Err(404));
        }
        for (target, path) in [("/", "/"), ("/?token=x", "/"), ("/demo.js", "/demo.js")] {
            let part = Part::at(path).unwrap();
            assert_eq!(checked(Request::builder().uri(target).header("host", "a")), Ok(Route::Demo(part)));
        }
    }

    #[test]
    fn needs_exactly_one_valid_host() {
        assert_eq!(checked(without(&["host"])), Err(400));
        assert_eq!(checked(hello().header("host", "b")), Err(400));
        for host in ["", "a b", "a/b", "user@a", "a,b", "a?"] {
            assert_eq!(checked(without(&["host"]).header("host", host)), Err(400), "host {host:?}");
        }
        for host in ["a", "a.b:80", "[::1]:8080", "127.0.0.1"] {
            assert!(checked(without(&["host"]).header("host", host)).is_ok(), "host {host:?}");
        }
    }

    #[test]
    fn refuses_a_body() {
        assert_eq!(checked(hello().header("content-length", "0")), Err(400));
        assert_eq!(checked(hello().header("content-length", "5")), Err(400));
        assert_eq!(checked(hello().header("transfer-encoding", "chunked")), Err(400));
    }

    #[test]
    fn chooses_the_first_known_subprotocol_that_was_offered() {
        let chosen = |offers: &[&str]| {
            let mut headers = HeaderMap::new();
            for offer in offers {
                headers.append(SEC_WEBSOCKET_PROTOCOL, offer.parse().unwrap());
            }
            subprotocol(&headers)
        };
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&["chat", "fanfare.v2, fanfare.token.abc"]), None);
        assert_eq!(chosen(&["chat,fanfare.v1"]), Some(Subprotocol::Plain));
        assert_eq!(chosen(&["fanfare.v1.ndjson , fanfare.v1"]), Some(Subprotocol::Ndjson));
        assert_eq!(chosen(&["fanfare.v1", "fanfare.v1.ndjson"]), Some(Subprotocol::Plain));
        assert_eq!(chosen(&["FANFARE.V1"]), None);
    }

    fn checked(request: Builder) -> Result<Route, u16> {
        let options = Options { echo: true, demo: true, ..Options::default() };
        check(&request.body(()).unwrap(), &options).map_err(|refusal| refusal.status().as_u16())
    }

    fn hello() -> Builder {
        without(&[])
    }

    fn without(missing: &[&str]) -> Builder {
        let headers = [
            ("host", "a"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ];
        headers
            .into_iter()
            .filter(|(name, _)| !missing.contains(name))
            .fold(Request::builder().uri("/ws"), |request, (name, value)| request.header(name, value))
    }
}
