//! The public HTTP side: from an accepted socket to a WebSocket, or to the answer that says why not.
//!
//! Owns nothing that outlives a handshake. [`handshake`] reads the head of one request inside its bounds, has it
//! parsed by hyper, checks it (`guard`, `origin`, `identity`), answers, and gives the socket back with whatever came
//! behind the head.

mod arrival;
mod demo;
mod extensions;
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod head;
mod identity;
mod link;
mod origin;
mod refusal;
mod upgrade;

#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::server::conn::http1;

use crate::admission::{Desk, Place, Refuse};
use crate::auth::{Claims, Verifier};
use crate::clock::Clock;
use crate::drain;
use crate::metrics::{HandshakeFailure, HttpMetrics};
use crate::transport::{Certificates, Transport};
use crate::ws::Compression;

pub use identity::session_named;
use origin::Origins;
pub use upgrade::handshake;

/// Bounds of a request, and what is served.
#[expect(clippy::struct_excessive_bools, reason = "each switches one thing, on its own")]
#[derive(Clone, Debug)]
pub struct Options {
    /// From accept until the answer must be written.
    pub handshake: Duration,
    /// The longest head: request line, headers and the empty line, in bytes.
    pub header_bytes: usize,
    /// The most headers.
    pub headers: usize,
    /// The longest request line, in bytes.
    pub target_bytes: usize,
    /// The origins whose pages may connect, `*` standing for any part of a host or port; empty: those of the
    /// host that the request is for.
    pub origins: Vec<String>,
    /// Whether pages of this machine may connect as well, from any port.
    pub allow_loopback_origins: bool,
    /// Whether `/echo` is served.
    pub echo: bool,
    /// Whether `/` is the demo page.
    pub demo: bool,
    /// Whether messages may be compressed, with clients that offer it.
    pub compression: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            header_bytes: 16 * 1024,
            headers: 64,
            target_bytes: 8 * 1024,
            origins: Vec::new(),
            allow_loopback_origins: false,
            echo: false,
            demo: false,
            compression: true,
        }
    }
}

/// What all handshakes of a gateway share.
pub struct Shared {
    options: Options,
    origins: Origins,
    verifier: Arc<Verifier>,
    desk: Desk,
    drain: drain::Watch,
    metrics: HttpMetrics,
    parser: http1::Builder,
    clock: Clock,
    /// Where connections are TLS.
    certificates: Option<Certificates>,
}

impl Shared {
    /// Prepares what every handshake needs.
    pub fn new(
        options: Options,
        verifier: Arc<Verifier>,
        desk: Desk,
        drain: drain::Watch,
        metrics: HttpMetrics,
        clock: Clock,
    ) -> Self {
        let origins = Origins::new(&options.origins, options.allow_loopback_origins);
        let parser = upgrade::parser(&options);
        Self { options, origins, verifier, desk, drain, metrics, parser, clock, certificates: None }
    }

    /// The same, for connections over TLS where there are certificates.
    #[must_use]
    pub fn with_certificates(self, certificates: Option<Certificates>) -> Self {
        Self { certificates, ..self }
    }

    /// What checks tokens, also those that come later.
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier)
    }
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Arrival {
    /// The socket, non-blocking, with nothing read from it.
    pub stream: TcpStream,
    /// The other end of it.
    pub peer: SocketAddr,
    /// Why its request can only be answered with that, if so.
    pub refuse: Option<Refuse>,
    /// From when its time counts.
    pub accepted_at: Instant,
}

/// How a handshake ended. Refusals have been counted.
#[derive(Debug)]
pub enum Outcome {
    /// 101 is written; frames follow.
    Upgraded(Box<Upgraded>),
    /// The demo page was served, and the connection is closed.
    Served,
    /// The peer has been told so, where there was someone to tell, and the connection is closed.
    Refused(HandshakeFailure),
}

/// A connection that speaks WebSocket from here on.
#[derive(Debug)]
pub struct Upgraded {
    /// The connection, registered nowhere.
    pub transport: Transport,
    /// Who is at the other end, behind what proxies there are.
    pub peer: SocketAddr,
    /// Its place among those of its address, where that was not known before.
    pub place: Option<Place>,
    /// What came behind the request's head: the first bytes of frames.
    pub read_ahead: Bytes,
    /// What it asked for.
    pub endpoint: Endpoint,
    /// Who it is and what it may do.
    pub claims: Claims,
    /// Whether `fanfare.v1.ndjson` was chosen.
    pub ndjson: bool,
    /// What was negotiated for it.
    pub compression: Compression,
}

/// What a WebSocket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Rooms and messages, at `/ws`.
    Ws,
    /// Every message comes back as it was, at `/echo`.
    Echo,
}
