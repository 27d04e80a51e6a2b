//! From an accepted socket to a client of the shard.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use mio::{Interest, Token};
use slotmap::Key;
use tokio::task::JoinError;

use crate::clock::Clock;
use crate::http;
use crate::metrics::CloseReason;
use crate::session::Session;
use crate::transport::{Peer, Transport};
use crate::ws::CloseCode;

use super::super::renewal::permissions;
use super::super::state::Newcomer;
use super::{Driver, Handshake, Socket};

impl Driver {
    pub(super) fn finish_handshakes(&mut self) {
        while let Some(done) = self.handshakes.try_join_next() {
            self.finished.push_back(done);
        }
        while let Some(done) = self.finished.pop_front() {
            self.finish_handshake(done);
        }
    }

    /// Most requests are there when their connection is: those need no task, and leave no memory behind.
    pub(super) fn start_handshake(&mut self, mut handshake: Pin<Box<dyn Future<Output = Handshake>>>) {
        match handshake.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            // The task polls again first, so that nothing depends on the waker that was not there.
            Poll::Pending => drop(self.handshakes.spawn_local(handshake)),
            Poll::Ready(done) => self.finish_handshake(Ok(done)),
        }
    }

    pub(super) fn finish_handshake(&mut self, done: Result<Handshake, JoinError>) {
        let (upgraded, id, permit) = match done {
            Ok((http::Outcome::Upgraded(upgraded), id, permit)) => (upgraded, id, permit),
            Ok(_) => return,
            Err(error) => {
                // The panic itself was reported by the panic hook.
                if let Some(left_out) = self.failing.admit(self.clock.now()) {
                    tracing::error!(%error, left_out, "a handshake failed for a fault of the gateway");
                }
                return self.report.panicked();
            }
        };
        let mut read_ahead = upgraded.read_ahead.to_vec();
        let claims = upgraded.claims;
        let expires_in = claims.expires_at.map(|at| at.saturating_sub(Clock::unix()));
        let is_revoked = self.http.verifier().is_revoked(&claims);
        let user = claims.user.clone();
        let session = Session::new(id, user, permissions(claims).boxed(), upgraded.ndjson);
        let newcomer = Newcomer {
            session,
            endpoint: upgraded.endpoint,
            compression: upgraded.compression,
            expires_in,
            permit,
        };
        let peer = Peer::of(&upgraded.stream);
        let mut transport = Transport::plain(upgraded.stream);
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
