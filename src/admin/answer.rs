//! What answers are made of.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::keys::Denied;

/// The body of any answer; that of a tap has no end of its own.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An answer of text.
pub(super) fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", body)
}

/// An answer in the Prometheus text format.
pub(super) fn metrics(page: String) -> Response<Body> {
    whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page)
}

/// An answer of JSON, on a line.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut body = Vec::new();
    write_json(value, &mut body);
    of_json(status, body)
}

/// An answer of what is JSON on a line already.
pub(super) fn of_json(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    whole(status, "application/json", body)
}

fn write_json(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, value).expect("no answer has a map whose keys are not text");
    out.push(b'\n');
}

/// An answer with its body as a whole.
fn whole(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    of(status, kind, Full::new(body.into()).boxed_unsync())
}

/// An answer of any body.
pub(super) fn of(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Why a request is not answered with what it asks for.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    #[serde(skip)]
    status: StatusCode,
    error: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_shards: Vec<u16>,
    /// What else is to be known of it, in the head of the answer.
    #[serde(skip)]
    header: Option<Box<(HeaderName, String)>>,
}

impl Refusal {
    /// The request needs a key, or another one.
    pub(super) fn denied(denied: Denied) -> Self {
        let unauthorized =
            |message: &str| Self::of(StatusCode::UNAUTHORIZED, "unauthorized", message.to_owned());
        let (refusal, challenge) = match denied {
            Denied::Missing => {
                (unauthorized("a key is needed: send `Authorization: Bearer KEY`"), String::new())
            }
            Denied::Unknown => {
                let refusal =
                    unauthorized("the key is not one of `api.keys`, or was not sent as `Bearer KEY`");
                (refusal, ", error=\"invalid_token\"".to_owned())
            }
            Denied::Forbidden(scope) => {
                let scope = scope.as_str();
                let message = format!("the key is not for this: it needs \"{scope}\" among its `scopes`");
                (Self::forbidden(message), format!(", error=\"insufficient_scope\", scope=\"{scope}\""))
            }
        };
        // RFC 6750, 3.
        let header = Some(Box::new((WWW_AUTHENTICATE, format!("Bearer realm=\"fanfare\"{challenge}"))));
        Self { header, ..refusal }
    }

    /// The request makes no sense.
    pub(super) fn bad_request(message: String) -> Self {
        Self::of(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// No such thing, as all shards say.
    pub(super) fn not_found(message: String) -> Self {
        Self::of(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// There are only these methods at this path.
    pub(super) fn method_not_allowed(allowed: String) -> Self {
        let message = format!("use one of {allowed} here");
        let header = Some(Box::new((ALLOW, allowed)));
        Self { header, ..Self::of(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message) }
    }

    /// One of these shards may have it, but did not say so in time.
    pub(super) fn unavailable(message: String, missing_shards: Vec<u16>) -> Self {
        Self { missing_shards, ..Self::of(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message) }
    }

    /// It may be done after so many seconds.
    pub(super) fn busy(message: String, retry_after: u64) -> Self {
        let header = Some(Box::new((RETRY_AFTER, retry_after.to_string())));
        Self { header, ..Self::unavailable(message, Vec::new()) }
    }

    /// As many are under way as may be.
    pub(super) fn too_many(message: String) -> Self {
        Self::of(StatusCode::TOO_MANY_REQUESTS, "too_many", message)
    }

    /// Not for whoever asks.
    pub(super) fn forbidden(message: String) -> Self {
        Self::of(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// The body did not come in time.
    pub(super) fn timeout(message: String) -> Self {
        Self::of(StatusCode::REQUEST_TIMEOUT, "timeout", message)
    }

    /// It cannot be done as things are.
    pub(super) fn conflict(message: String) -> Self {
        Self::of(StatusCode::CONFLICT, "conflict", message)
    }

    /// The body is longer than it may be.
    pub(super) fn too_long(message: String) -> Self {
        Self::of(StatusCode::PAYLOAD_TOO_LARGE, "too_long", message)
    }

    /// The body is of another kind.
    pub(super) fn not_json(message: String) -> Self {
        Self::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message)
    }

    /// A list is full.
    pub(super) fn no_room(message: String) -> Self {
        Self::of(StatusCode::INSUFFICIENT_STORAGE, "no_room", message)
    }

    fn of(status: StatusCode, error: &'static str, message: String) -> Self {
        Self { status, error, message, missing_shards: Vec::new(), header: None }
    }

    /// Appends it to an answer of many lines.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_json(self, out);
    }

    /// The whole answer.
    pub(super) fn response(&self) -> Response<Body> {
        let mut response = json(self.status, self);
        if let Some((name, value)) = self.header.as_deref() {
            let value = HeaderValue::from_str(value).expect("what is made here is visible ASCII");
            response.headers_mut().insert(name, value);
        }
        response
    }
}
