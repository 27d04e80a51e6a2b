//! A shard: one thread that owns its connections from accept to close.
//!
//! `state` and its parts are pure: they take bytes, commands and the time, and say what to write. `driver`
//! does the system calls. Nothing of a connection is ever touched by another thread; what others want done
//! arrives as a [`Command`](crate::inbox::Command) in the shard's inbox.

mod backlog;
mod batch;
mod client;
mod conversation;
mod counts;
mod deadline;
mod draining;
mod driver;
mod farewell;
mod footprint;
mod inspection;
mod lookups;
mod membership;
mod outbound;
mod parked;
mod queue;
mod rate;
mod renewal;
mod report;
mod restart;
mod resume;
mod room;
mod state;
mod taps;
mod unsubscribing;
mod wheel;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::hub::Hub;
use crate::id::{NodeId, ShardIndex};
use crate::inbox::Inbox;
use crate::inspect::Vitals;
use crate::memory::Account;
use crate::metrics::ShardMetrics;
use crate::{http, session, ws};

pub use driver::{SpawnError, spawn};
pub use rate::Rates;
pub use resume::SessionOptions;

#[doc(hidden)]
pub mod bench {
    //! The pure parts, for `benches/`.
    pub use super::backlog::{Backlog, Lane, Overflow, Stamp};
    pub use super::room::*;
}

/// When a connection is pinged and given up.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// Between two WebSocket pings to one client.
    pub ping: Duration,
    /// Without anything from the client, until it is closed with 4009.
    pub timeout: Duration,
    /// Without the socket taking a byte of a waiting write, until the client is closed with 4008.
    pub write: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(54),
            timeout: Duration::from_secs(60),
            write: Duration::from_secs(10),
        }
    }
}

/// What every shard of a gateway is given.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest message a client may send, in bytes, over all its fragments.
    pub message_bytes: usize,
    /// What may wait for one client, in bytes; more closes it with 4008.
    pub outbound_bytes: usize,
    /// The most that one batch of a room carries, in bytes, but always one message.
    pub batch_bytes: usize,
    /// Which messages are compressed for clients that can take it.
    pub compression: ws::DeflateOptions,
    /// What each client may say in a second.
    pub rates: Rates,
    /// Liveness.
    pub heartbeat: Heartbeat,
    /// What a session may do.
    pub session: session::Limits,
    /// What is kept of sessions whose connection ended.
    pub sessions: SessionOptions,
    /// This node's name, as `welcome` tells it.
    pub node: NodeId,
}

impl Options {
    /// Bytes that wait for one client at least, for it to count as slow: a quarter of what may.
    pub fn watermark(&self) -> usize {
        self.outbound_bytes / 4
    }
}

/// Everything that one shard works with.
pub struct Parts {
    /// Which one this is.
    pub index: ShardIndex,
    /// Bounds and times.
    pub options: Arc<Options>,
    /// Commands from the listener, the hub and other shards.
    pub inbox: Inbox,
    /// The directories.
    pub hub: Arc<Hub>,
    /// What the handshake needs.
    pub http: Arc<http::Shared>,
    /// This shard's instruments.
    pub metrics: ShardMetrics,
    /// What it takes of memory.
    pub memory: Account,
    /// What others see of this shard.
    pub vitals: Arc<Vitals>,
    /// The process's monotonic time.
    pub clock: Clock,
}
