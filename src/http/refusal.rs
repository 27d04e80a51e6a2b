//! The answers that are not 101.

use std::borrow::Cow;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE};
use hyper::http::response;
use hyper::{Response, StatusCode};

use crate::admission::Refuse;
use crate::metrics::{HandshakeFailure, LabelValue as _};

/// Why a request is not served: the answer, and what it is counted as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    failure: HandshakeFailure,
    error: &'static str,
    message: Cow<'static, str>,
    /// In seconds, where the status asks for it.
    retry_after: u8,
}

impl Refusal {
    fn new(
        status: StatusCode,
        failure: HandshakeFailure,
        error: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, failure, error, message: message.into(), retry_after: RETRY_AFTER_SECONDS }
    }

    /// A request that breaks a rule of HTTP or of the handshake.
    pub(super) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, HandshakeFailure::BadRequest, "bad_request", message)
    }

    pub(super) fn head_too_large(limit: usize) -> Self {
        Self::headers(format!("the request's head is longer than {limit} bytes"))
    }

    pub(super) fn too_many_headers(limit: usize) -> Self {
        Self::headers(format!("the request has more than {limit} headers"))
    }

    fn headers(message: String) -> Self {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self::new(status, HandshakeFailure::BadRequest, "headers_too_large", message)
    }

    pub(super) fn target_too_long(limit: usize) -> Self {
        let message = format!("the request line is longer than {limit} bytes");
        Self::new(StatusCode::URI_TOO_LONG, HandshakeFailure::BadRequest, "target_too_long", message)
    }

    pub(super) fn timeout() -> Self {
        let message = "the request was not complete in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, HandshakeFailure::Timeout, "timeout", message)
    }

    pub(super) fn version() -> Self {
        let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
        Self::new(status, HandshakeFailure::BadRequest, "http_version", "HTTP/1.1 is spoken here")
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, HandshakeFailure::NotFound, "not_found", "WebSockets are at /ws")
    }

    pub(super) fn method() -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, HandshakeFailure::BadRequest, "method_not_allowed", "only GET is served here")
    }

    /// A request for something else than WebSocket version 13.
    pub(super) fn not_upgrade(message: &'static str) -> Self {
        Self::new(StatusCode::UPGRADE_REQUIRED, HandshakeFailure::NotUpgrade, "upgrade_required", message)
    }

    pub(super) fn origin() -> Self {
        let message = "pages of this origin may not connect";
        Self::new(StatusCode::FORBIDDEN, HandshakeFailure::Origin, "forbidden_origin", message)
    }

    pub(super) fn unauthorized(message: String) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, HandshakeFailure::Auth, "unauthorized", message)
    }

    /// One that is not let in, whatever it asks for.
    pub(super) fn at_the_door(refuse: Refuse) -> Self {
        let (full, many) = (StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS);
        let (status, error, message, after) = match refuse {
            Refuse::Full => {
                (full, "full", "no more connections are taken; come back later", RETRY_AFTER_SECONDS)
            }
            Refuse::Crowd(after) => (full, "overload", "very many come at once; come back later", after),
            Refuse::AddressLimit => {
                (many, "address_limit", "too many connections come from this address", RETRY_AFTER_SECONDS)
            }
            Refuse::AddressRate => (many, "address_rate", "connections come too fast from this address", 1),
            Refuse::Rate => (many, "rate", "connections come too fast; come back later", 1),
        };
        Self { retry_after: after, ..Self::new(status, refuse.failure(), error, message) }
    }

    /// A connection of a proxy that does not say for whom it is.
    pub(super) fn proxy() -> Self {
        let message = "connections from this address begin with a header of the PROXY protocol";
        Self::new(StatusCode::BAD_REQUEST, HandshakeFailure::Proxy, "proxy", message)
    }

    pub(super) fn draining() -> Self {
        let message = "the gateway is shutting down; come back later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, HandshakeFailure::Draining, "draining", message)
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// What it is counted as.
    pub(super) fn failure(&self) -> HandshakeFailure {
        self.failure
    }

    /// Writes a line about it, at a level for those who look for what peers do wrong.
    pub(super) fn log(&self, peer: SocketAddr) {
        let (status, reason, detail) = (self.status.as_u16(), self.failure.as_str(), &*self.message);
        tracing::debug!(%peer, status, reason, detail, "a request was refused");
    }

    /// The whole answer.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({ "error": self.error, "message": self.message }).to_string();
        let builder = Response::builder().status(self.status).header(CONTENT_TYPE, "application/json");
        self.advise(builder).body(Full::from(body)).expect("all parts are valid")
    }

    /// Adds the headers by which RFC 9110 and 6455 tell a client what would be right.
    fn advise(&self, builder: response::Builder) -> response::Builder {
        match self.status {
            StatusCode::UPGRADE_REQUIRED => builder
                .header(CONNECTION, "upgrade")
                .header(UPGRADE, "websocket")
                .header("Sec-WebSocket-Version", "13"),
            StatusCode::UNAUTHORIZED => builder.header(WWW_AUTHENTICATE, "Bearer"),
            StatusCode::METHOD_NOT_ALLOWED => builder.header(ALLOW, "GET"),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                builder.header(RETRY_AFTER, u32::from(self.retry_after))
            }
            _ => builder,
        }
        .header(CONNECTION, "close")
    }
}

/// Long enough for another node to start, short enough for a person to wait.
const RETRY_AFTER_SECONDS: u8 = 5;
