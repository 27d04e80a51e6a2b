//! From an accepted socket to a client of the shard.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mio::{Interest, Token};
use slotmap::Key;
use tokio::task::JoinError;

use crate::admission::Refuse;
use crate::auth::Verifier;
use crate::clock::Clock;
use crate::http;
use crate::id::ClientId;
use crate::inbox::Permit;
use crate::metrics::CloseReason;
use crate::session::Session;
use crate::transport::Peer;
use crate::ws::CloseCode;

use super::super::renewal::permissions;
use super::super::state::Newcomer;
use super::turnstile::{TURN_NANOS, Throttled};
use super::{Driver, Handshake, Socket};

/// How long a connection may wait for its handshake to begin; what waits longer, in a crowd, is told to come back later, which
/// costs less than to let it in.
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(1);

/// Over so many seconds those come back who were told to.
const RETURN_SECONDS_MAX: u64 = 10;

/// A connection whose handshake has not begun, with its place and its number.
type Waiting = (http::Arrival, Permit, ClientId);

/// With so many that wait it is looked who of them comes back.
const CROWD: usize = 16;

/// What is looked at of a request for that, in bytes.
const PEEKED_BYTES: usize = 512;

/// Of so many that are let in one is a newcomer, as long as there are any, so that nobody who keeps coming back keeps others out.
const RETURNING_OF: u8 = 4;

/// Connections whose handshake has not begun. Clients that come back go before most others: they were served until a moment ago.
#[derive(Default)]
pub(super) struct Newcomers {
    returning: VecDeque<Waiting>,
    others: VecDeque<Waiting>,
    turn: u8,
}

impl Newcomers {
    pub(super) fn is_empty(&self) -> bool {
        self.returning.is_empty() && self.others.is_empty()
    }

    pub(super) fn push(&mut self, waiting: Waiting, verifier: &Verifier) {
        let is_crowd = self.returning.len() + self.others.len() >= CROWD;
        let is_returning = is_crowd && names_a_session(&waiting.0, verifier);
        if is_returning { &mut self.returning } else { &mut self.others }.push_back(waiting);
    }

    fn pop(&mut self) -> Option<Waiting> {
        self.turn = (self.turn + 1) % RETURNING_OF;
        let Self { returning, others, turn } = self;
        let (first, second) = if *turn == 0 { (others, returning) } else { (returning, others) };
        first.pop_front().or_else(|| second.pop_front())
    }
}

/// Whether the request, as far as it has come and can be read without TLS, names a session of this process. Nobody gets ahead
/// with one that is made up.
fn names_a_session(arrival: &http::Arrival, verifier: &Verifier) -> bool {
    let mut head = [0; PEEKED_BYTES];
    let Ok(length) = arrival.stream.peek(&mut head) else { return false };
    http::session_named(&head[..length]).is_some_and(|token| verifier.sessions().read(token).is_some())
}

impl Driver {
    /// Begins and ends handshakes, for so long as one turn allows.
    pub(super) fn let_in(&mut self) {
        while let Some(done) = self.handshakes.try_join_next() {
            self.finished.push_back(done);
        }
        self.turnstile.open();
        if self.finished.is_empty() && self.newcomers.is_empty() {
            return;
        }
        let until = self.clock.now().saturating_add(TURN_NANOS);
        while self.clock.now() < until {
            if let Some(done) = self.finished.pop_front() {
                self.finish_handshake(done);
            } else if let Some(arrival) = self.newcomers.pop() {
                self.begin_handshake(arrival);
            } else {
                return;
            }
        }
    }

    fn begin_handshake(&mut self, (mut arrival, permit, id): Waiting) {
        if arrival.accepted_at.elapsed() > ARRIVAL_PATIENCE && arrival.refuse.is_none() {
            // Each at another time, so that they do not come back together.
            arrival.refuse =
                Some(Refuse::Crowd(1 + u8::try_from(id.0 % RETURN_SECONDS_MAX).unwrap_or_default()));
        }
        let shared = Arc::clone(&self.http);
        self.start_handshake(Box::pin(async move { (http::handshake(arrival, &shared).await, id, permit) }));
    }

    /// Most requests are there when their connection is: those need no task, and leave no memory behind.
    fn start_handshake(&mut self, mut handshake: Pin<Box<dyn Future<Output = Handshake>>>) {
        match handshake.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            // The task polls again first, so that nothing depends on the waker that was not there.
            Poll::Pending => {
                let turnstile = Rc::clone(&self.turnstile);
                let throttled = Throttled { inner: handshake, turnstile, clock: self.clock };
                drop(self.handshakes.spawn_local(throttled));
            }
            Poll::Ready(done) => self.finish_handshake(Ok(done)),
        }
    }

    pub(super) fn finish_handshake(&mut self, done: Result<Handshake, JoinError>) {
        let (upgraded, id, mut permit) = match done {
            Ok((http::Outcome::Upgraded(upgraded), id, permit)) => (*upgraded, id, permit),
            Ok(_) => return,
            Err(error) => {
                // The panic itself was reported by the panic hook.
                if let Some(left_out) = self.failing.admit(self.clock.now()) {
                    tracing::error!(%error, left_out, "a handshake failed for a fault of the gateway");
                }
                return self.report.panicked();
            }
        };
        permit.add(upgraded.place);
        let mut read_ahead = upgraded.read_ahead.to_vec();
        let claims = upgraded.claims;
        let expires_in = claims.expires_at.map(|at| at.saturating_sub(Clock::unix()));
        let is_revoked = self.http.verifier().is_revoked(&claims, Clock::unix());
        let user = claims.user.clone();
        let session = Session::new(id, user, permissions(claims).boxed(), upgraded.ndjson);
        let newcomer = Newcomer {
            session,
            endpoint: upgraded.endpoint,
            compression: upgraded.compression,
            expires_in,
            permit,
        };
        let peer = Peer::from(upgraded.peer);
        let mut transport = upgraded.transport;
        let key = self.shard.core.admit(newcomer);
        let token = Token(usize::try_from(key.data().as_ffi()).expect("a 64-bit system"));
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.get_ref().registry().register(&mut transport, token, interest) {
            if let Some(left_out) = self.failing.admit(self.clock.now()) {
                tracing::error!(%error, left_out, "a socket cannot be registered");
            }
            self.shard.core.lost(key, CloseReason::Internal);
            return;
        }
        self.sockets.insert(key, Socket { transport, queued: false, ended: false, peer });
        if is_revoked {
            // By who looked at the clients that were here, while its handshake was under way.
            let text = "the token was revoked";
            self.shard.core.close(key, CloseCode::TokenExpired, text, CloseReason::TokenRevoked);
        }
        self.notices();
        if !read_ahead.is_empty() {
            self.shard.core.counts.wire_received += read_ahead.len() as u64;
            let born = self.clock.now();
            self.shard.receive(key, &mut read_ahead, born, &mut self.replies);
            self.write_replies(key);
        }
        self.read_later(key);
    }
}
