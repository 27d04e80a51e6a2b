//! The handshake on a socket.
//!
//! The head is read by [`HeadFinder`] and given to hyper in memory, and what hyper prints is written at once. So the
//! parser never sees a byte behind the head (no second request is answered, no frame is swallowed), a handshake
//! that arrives whole costs one read and one write, and its socket enters no reactor.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::time::timeout_at;

use crate::auth::{AuthError, Claims};
use crate::clock::Clock;
use crate::metrics::{AuthResult, HandshakeFailure};
use crate::ws::Compression;

use super::arrival::{Caller, TurnedAway};
use super::extensions::{self, SEC_WEBSOCKET_EXTENSIONS};
use super::guard::{self, Route, Subprotocol};
use super::head::HeadFinder;
use super::identity;
use super::link::{Link, READ_BYTES};
use super::refusal::Refusal;
use crate::transport::Transport;

use super::{Arrival, Endpoint, Options, Outcome, Shared, Upgraded};

/// Serves the one request of a connection, on a runtime with I/O and time.
///
/// Safe to cancel, which closes the connection.
pub async fn handshake(arrival: Arrival, shared: &Shared) -> Outcome {
    let Arrival { stream, peer, refuse, accepted_at } = arrival;
    let mut transport = match &shared.certificates {
        None => Transport::plain(stream),
        Some(certificates) => match Transport::tls(stream, certificates) {
            Ok(transport) => transport,
            Err(_) => return failed(HandshakeFailure::Tls, shared),
        },
    };
    let mut link = Link::new(&mut transport);
    let mut received = Vec::new();
    let mut caller = Caller::new(peer, refuse, shared);
    let deadline = (accepted_at + shared.options.handshake).into();
    let served = timeout_at(deadline, serve(&mut link, &mut received, shared, &mut caller)).await;
    let failure = match served {
        Ok(Ok(Served::Upgrade { end, admitted })) => {
            drop(link);
            shared.metrics.duration.record(accepted_at.elapsed());
            let Admitted { endpoint, claims, ndjson, compression } = admitted;
            let Caller { peer, place, .. } = caller;
            let read_ahead = Bytes::copy_from_slice(&received[end..]);
            return Outcome::Upgraded(Box::new(Upgraded {
                transport,
                peer,
                place,
                read_ahead,
                endpoint,
                claims,
                ndjson,
                compression,
            }));
        }
        Ok(Ok(Served::Page)) => {
            link.linger().await;
            return Outcome::Served;
        }
        Ok(Ok(Served::Refusal(failure))) => {
            link.linger().await;
            failure
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::debug!(%error, "a TLS handshake failed");
            // Time for the peer to see what it was told.
            link.linger().await;
            HandshakeFailure::Tls
        }
        Ok(Ok(Served::Dropped(failure))) => failure,
        Ok(Err(_)) => HandshakeFailure::IoError,
        Err(_) => {
            if !received.is_empty() {
                // One attempt: who is too slow to ask is not waited for to be told.
                let _ = link.write(&print(&shared.parser, &Refusal::timeout(), &received));
            }
            HandshakeFailure::Timeout
        }
    };
    failed(failure, shared)
}

fn failed(failure: HandshakeFailure, shared: &Shared) -> Outcome {
    shared.metrics.failures.count(failure);
    Outcome::Refused(failure)
}

/// The parser, as every handshake uses it.
pub(super) fn parser(options: &Options) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Told not to keep a connection alive, hyper would say `close` also in a 101; the other answers say it themselves.
    builder
        .title_case_headers(true)
        // The head is in bounds before hyper sees it; its own limits must only not be narrower.
        .max_buf_size(options.header_bytes.saturating_add(READ_BYTES).max(HYPER_BUFFER_BYTES_MIN));
    if options.headers > HYPER_HEADERS {
        builder.max_headers(options.headers);
    }
    builder
}

enum Served {
    /// 101 is written; frames begin at `end` of what was received.
    Upgrade {
        end: usize,
        admitted: Admitted,
    },
    Page,
    Refusal(HandshakeFailure),
    /// Nothing was answered.
    Dropped(HandshakeFailure),
}

/// A request that may become a WebSocket.
pub(super) struct Admitted {
    endpoint: Endpoint,
    claims: Claims,
    ndjson: bool,
    compression: Compression,
}

async fn serve(
    link: &mut Link<'_>,
    received: &mut Vec<u8>,
    shared: &Shared,
    caller: &mut Caller,
) -> io::Result<Served> {
    match caller.arrive(link, shared).await? {
        Ok(()) => {}
        Err(TurnedAway::Told(refusal)) => {
            return refused(link, received, shared, (&refusal, caller.peer)).await;
        }
        Err(TurnedAway::Dropped(failure)) => return Ok(Served::Dropped(failure)),
    }
    let end = read_head(link, received, &shared.options).await?;
    let answered = end.and_then(|end| {
        let (answer, admitted) = answer(&received[..end], shared, caller)?;
        Ok((answer, admitted.map(|admitted| (end, admitted))))
    });
    match answered {
        Ok((answer, admitted)) => {
            link.write_all(&answer).await?;
            Ok(admitted.map_or(Served::Page, |(end, admitted)| Served::Upgrade { end, admitted }))
        }
        Err(refusal) => refused(link, received, shared, (&refusal, caller.peer)).await,
    }
}

async fn refused(
    link: &mut Link<'_>,
    received: &[u8],
    shared: &Shared,
    (refusal, peer): (&Refusal, SocketAddr),
) -> io::Result<Served> {
    refusal.log(peer);
    match link.write_all(&print(&shared.parser, refusal, received)).await {
        // TLS has not begun, so that nobody could read it.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
        other => other?,
    }
    Ok(Served::Refusal(refusal.failure()))
}

async fn read_head(
    link: &mut Link<'_>,
    received: &mut Vec<u8>,
    options: &Options,
) -> io::Result<Result<usize, Refusal>> {
    let mut finder = HeadFinder::default();
    loop {
        if link.read(received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if received.starts_with(TLS_HANDSHAKE) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it begins TLS, and this listener has none",
            ));
        }
        match finder.find(received, options) {
            Ok(Some(end)) => return Ok(Ok(end)),
            Ok(None) => {}
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
}

/// The bytes that answer a head, and what the connection becomes by them.
pub(super) fn answer(
    head: &[u8],
    shared: &Shared,
    caller: &mut Caller,
) -> Result<(Vec<u8>, Option<Admitted>), Refusal> {
    if shared.drain.is_draining() {
        return Err(Refusal::draining());
    }
    if let Some(refuse) = caller.refuse {
        return Err(Refusal::at_the_door(refuse));
    }
    let decided = RefCell::new(None);
    let caller = RefCell::new(caller);
    let output =
        converse(&shared.parser, head, |request| match respond(request, shared, &mut caller.borrow_mut()) {
            Ok((response, admitted)) => {
                decided.replace(Some(Ok(admitted)));
                response
            }
            Err(refusal) => {
                let response = refusal.response();
                decided.replace(Some(Err(refusal)));
                response
            }
        });
    match decided.into_inner() {
        Some(Ok(admitted)) => Ok((output, admitted)),
        Some(Err(refusal)) => Err(refusal),
        None => Err(Refusal::malformed("the request cannot be understood")),
    }
}

fn respond<B>(
    mut request: Request<B>,
    shared: &Shared,
    caller: &mut Caller,
) -> Result<(Response<Full<Bytes>>, Option<Admitted>), Refusal> {
    caller.look_at(&request, shared).map_err(Refusal::at_the_door)?;
    let endpoint = match guard::check(&request, &shared.options)? {
        Route::Demo(part) => return Ok((part.response(), None)),
        Route::Upgrade(endpoint) => endpoint,
    };
    if !shared.origins.allow(request.headers()) {
        return Err(Refusal::origin());
    }
    let claims = identify(&request, shared)?;
    let subprotocol = guard::subprotocol(request.headers());
    // The future that comes with the response is hyper's way to the stream; here it never left our hands.
    let (response, _) = fastwebsockets::upgrade::upgrade(&mut request)
        .map_err(|_| Refusal::malformed("the handshake cannot be answered"))?;
    let mut response = response.map(|_| Full::default());
    if let Some(chosen) = subprotocol {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen.name()));
    }
    let ndjson = subprotocol == Some(Subprotocol::Ndjson);
    // Lines are joined as they wait, and what is compressed once cannot be joined any more.
    let may_compress = shared.options.compression && !ndjson;
    let taken = Some(request.headers()).filter(|_| may_compress).and_then(extensions::choose);
    let compression = taken.as_ref().map_or(Compression::Off, |taken| taken.compression);
    if let Some(taken) = taken {
        response.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, taken.answer);
    }
    Ok((response, Some(Admitted { endpoint, claims, ndjson, compression })))
}

/// Finds out who asks, and counts how the check of a token ended.
fn identify<B>(request: &Request<B>, shared: &Shared) -> Result<Claims, Refusal> {
    if !shared.verifier.is_required() {
        return identity::by_name(request, &shared.verifier);
    }
    let begun = shared.clock.now();
    let claims = identity::by_token(request, &shared.verifier, Clock::unix());
    let took = Duration::from_nanos(shared.clock.now().saturating_sub(begun));
    shared.metrics.auth_duration.record(took);
    shared.metrics.auth[result(claims.as_ref().err())].increment(1);
    claims.map_err(|error| Refusal::unauthorized(error.to_string()))
}

fn result(error: Option<&AuthError>) -> AuthResult {
    match error {
        None => AuthResult::Ok,
        Some(AuthError::Missing) => AuthResult::Missing,
        Some(AuthError::Malformed) => AuthResult::Malformed,
        Some(AuthError::BadClaim(_) | AuthError::MissingClaim(_)) => AuthResult::BadClaim,
        Some(AuthError::WrongAlgorithm) => AuthResult::WrongAlgorithm,
        Some(AuthError::UnknownKey) => AuthResult::UnknownKey,
        Some(AuthError::BadSignature) => AuthResult::BadSignature,
        Some(AuthError::Expired) => AuthResult::Expired,
        Some(AuthError::NotYetValid) => AuthResult::NotYetValid,
        Some(AuthError::WrongIssuer) => AuthResult::WrongIssuer,
        Some(AuthError::WrongAudience) => AuthResult::WrongAudience,
        Some(AuthError::Revoked) => AuthResult::Revoked,
    }
}

/// A refusal of `request` as bytes. Not every head that is refused can be parsed, so this answers one that can.
pub(super) fn print(parser: &http1::Builder, refusal: &Refusal, request: &[u8]) -> Vec<u8> {
    // The answer to HEAD has no body (RFC 9110 section 9.3.2), though it is refused.
    let is_head = request.trim_ascii_start().starts_with(b"HEAD ");
    let stand_in: &[u8] = if is_head { b"HEAD / HTTP/1.1\r\n\r\n" } else { b"GET / HTTP/1.1\r\n\r\n" };
    converse(parser, stand_in, |_| refusal.response())
}

/// Has hyper parse a whole head, and print what `respond` answers.
fn converse(
    parser: &http1::Builder,
    head: &[u8],
    respond: impl Fn(Request<hyper::body::Incoming>) -> Response<Full<Bytes>>,
) -> Vec<u8> {
    let service = service_fn(|request| future::ready(Ok::<_, Infallible>(respond(request))));
    let memory = Memory { input: head, output: Vec::with_capacity(ANSWER_BYTES) };
    let mut connection = parser.serve_connection(memory, service);
    // Answering and writing wait for nothing, so one poll is the whole conversation. What it returns says only
    // whether the head could be parsed and a body read, and both are known otherwise.
    let _ = connection.poll_without_shutdown(&mut Context::from_waker(Waker::noop()));
    connection.into_parts().io.output
}

/// Both ends of a conversation in memory.
struct Memory<'a> {
    input: &'a [u8],
    output: Vec<u8>,
}

impl Read for Memory<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            // Not the end, for which hyper would drop the conversation unanswered: a peer that waits.
            return Poll::Pending;
        }
        let (now, later) = self.input.split_at(into.remaining().min(self.input.len()));
        into.put_slice(now);
        self.input = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How every TLS connection begins (RFC 8446, 5.1): a record of the handshake, of version 3.
const TLS_HANDSHAKE: &[u8] = b"\x16\x03";

/// The 101, with room to spare.
const ANSWER_BYTES: usize = 512;

/// hyper takes no smaller limit.
const HYPER_BUFFER_BYTES_MIN: usize = 8192;

/// Headers that hyper takes without being told.
const HYPER_HEADERS: usize = 100;
