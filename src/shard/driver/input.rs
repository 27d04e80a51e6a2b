//! What comes into a shard from its sockets.

use std::io;

use crate::id::ClientKey;
use crate::metrics::CloseReason;
use crate::transport::Received;

use super::super::conversation::StillHeld;
use super::{Driver, HELD_RETRY_NANOS};

/// Reads in one turn, before deliveries have theirs.
const READS_PER_TURN: usize = 256;

/// Refusals after which the rest of the held input waits for the next try: each costs the parsing of a message.
const REFUSALS_PER_RETRY: usize = 16;

enum Read {
    /// The socket has no more.
    Dry,
    /// There may be more.
    More,
    /// The peer has ended the stream, or it broke.
    End(CloseReason),
}

impl Driver {
    pub(super) fn read(&mut self) {
        for _ in 0..READS_PER_TURN.min(self.readable.len()) {
            if self.has_compressed_enough() {
                break;
            }
            let Some(key) = self.readable.pop_front() else { break };
            let Some(socket) = self.sockets.get_mut(key) else { continue };
            socket.queued = false;
            if self.shard.core.reads_are_paused(key) {
                continue;
            }
            match self.read_once(key) {
                Read::Dry => {}
                Read::More => self.read_later(key),
                Read::End(reason) => self.shard.core.lost(key, reason),
            }
        }
    }

    /// Tries input again that a room refused, and goes on reading from those whose input it took.
    pub(super) fn retry_held(&mut self) {
        let now = self.clock.now();
        if now < self.retry_at {
            return;
        }
        self.retry_at = now + HELD_RETRY_NANOS;
        let mut refused = 0;
        for _ in 0..self.shard.core.held.len() {
            match self.shard.retry_held(&mut self.replies) {
                Ok(Some(key)) => {
                    self.write_replies(key);
                    self.read_later(key);
                }
                Ok(None) => {}
                Err(StillHeld) => refused += 1,
            }
            if refused == REFUSALS_PER_RETRY || self.has_compressed_enough() {
                break;
            }
        }
    }

    pub(super) fn read_later(&mut self, key: ClientKey) {
        if let Some(socket) = self.sockets.get_mut(key)
            && !socket.queued
        {
            socket.queued = true;
            self.readable.push_back(key);
        }
    }

    fn read_once(&mut self, key: ClientKey) -> Read {
        let Some(socket) = self.sockets.get_mut(key) else { return Read::Dry };
        match socket.transport.read(&mut self.scratch) {
            Ok(Received { bytes: 0, .. }) => Read::End(CloseReason::Client),
            Ok(Received { bytes, is_dry }) => {
                let dry = is_dry && !socket.ended;
                self.shard.core.counts.wire_received += bytes as u64;
                let read_at = self.clock.now();
                self.shard.receive(key, &mut self.scratch[..bytes], read_at, &mut self.replies);
                self.write_replies(key);
                if dry { Read::Dry } else { Read::More }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Read::Dry,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Read::More,
            Err(_) => Read::End(CloseReason::IoError),
        }
    }
}
