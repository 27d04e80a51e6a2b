//! What an operator can ask the shards about their connections and rooms, and what they answer.
//!
//! A question goes to a shard through its inbox, and the shard answers between two turns of its loop. It may be too busy to
//! do so, or stand still: whoever asks waits a bounded time, and says what is missing. [`Vitals`] are what can be told of a
//! shard without asking it.

mod tap;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tokio::sync::oneshot;

use crate::id::{ClientId, ClientKey, RoomId, UserId};
use crate::metrics::CloseReason;

pub use tap::{Event, Subject, TEXT_BYTES_MAX, Tap, TapReader, Tapped, beginning, tap};

/// The most that one list of an answer holds.
pub const LIST_MAX: usize = 1000;

/// The room names that the entry of a connection holds; a connection may be in more.
pub const ROOMS_LISTED_MAX: usize = 16;

/// What can be asked of a shard. When nobody waits for the answer any more, it is dropped.
#[derive(Debug)]
pub enum Question {
    /// The connections that somebody means.
    Connections {
        /// Which.
        which: Which,
        /// The most interesting first.
        answer: oneshot::Sender<Vec<Connection>>,
    },
    /// The connections that ended last.
    Closed {
        /// At most so many.
        limit: usize,
        /// The latest first.
        answer: oneshot::Sender<Vec<Closed>>,
    },
    /// The rooms with the greatest heat, as far as this shard knows.
    Rooms {
        /// At most so many by each measure.
        limit: usize,
        /// When heat is compared, in nanoseconds of the gateway's clock: the same for all shards.
        now: u64,
        /// In no order; no room twice.
        answer: oneshot::Sender<Vec<Room>>,
    },
    /// The rooms of these names, as far as they have members here.
    RoomsNamed {
        /// None for the room of everyone.
        names: Arc<[Option<RoomId>]>,
        /// As in [`Question::Rooms`].
        now: u64,
        /// In no order.
        answer: oneshot::Sender<Vec<Room>>,
    },
    /// Say from here on what happens in a room or on a connection, until the tap's reader is gone.
    Tap(Tap),
}

/// Which connections are meant.
#[derive(Debug)]
pub enum Which {
    /// Those for which most bytes wait, at most so many.
    Slowest(usize),
    /// The one with this number.
    Client(ClientId),
    /// Those in these places; the ones that are gone by now are left out.
    Keys(Vec<ClientKey>),
}

/// One open connection, as its shard sees it.
#[derive(Clone, Debug, Serialize)]
pub struct Connection {
    /// Its place on its shard, which means nothing to people.
    #[serde(skip)]
    pub key: ClientKey,
    /// The number that `welcome` told the client.
    pub client_id: ClientId,
    /// Whose it is.
    pub user: UserId,
    /// The shard that owns it.
    pub shard: u16,
    /// The other end of the socket; none when that is broken.
    pub peer: Option<SocketAddr>,
    /// `/ws` or `/echo`.
    pub endpoint: &'static str,
    /// Close was sent, or is to be.
    pub is_closing: bool,
    /// Since the upgrade.
    pub open_seconds: f64,
    /// Since anything came from the client.
    pub silent_seconds: f64,
    /// Until the token expires; none when it does not.
    pub expires_in_seconds: Option<f64>,
    /// The first [`ROOMS_LISTED_MAX`] of its rooms.
    pub rooms: Vec<RoomId>,
    /// How many rooms it is in.
    pub rooms_total: usize,
    /// Whether what it says waits, and it is not read from.
    pub is_held: bool,
    /// What waits to be written to it; none for a client that keeps up.
    pub queue: Option<Queue>,
}

/// What waits for one client.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Queue {
    /// Bytes, frame headers included.
    pub bytes: usize,
    /// Messages, the one that is partly written included.
    pub messages: usize,
    /// How long the oldest of them has been waiting.
    pub oldest_seconds: f64,
    /// Since the socket last took a byte.
    pub blocked_seconds: f64,
}

/// One connection that ended.
#[derive(Clone, Debug, Serialize)]
pub struct Closed {
    /// The number that `welcome` told the client.
    pub client_id: ClientId,
    /// Whose it was.
    pub user: UserId,
    /// The shard that owned it.
    pub shard: u16,
    /// The other end of the socket; none when that was broken by then.
    pub peer: Option<SocketAddr>,
    /// Why, as in `fanfare_connections_closed_total`.
    pub reason: CloseReason,
    /// The code of the Close frame that the gateway chose; none when the client closed or broke off.
    pub code: Option<u16>,
    /// The reason of that frame, for people.
    pub detail: Cow<'static, str>,
    /// When, in seconds since the Unix epoch.
    pub closed_at: f64,
    /// How long it was open.
    pub open_seconds: f64,
    /// How many rooms it was in.
    pub rooms_total: usize,
    /// What waited for it then.
    pub queue: Option<Queue>,
}

/// One room with members on a shard. Counts are those of all shards, and begin with the room's first member.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Room {
    /// Its name; none for the room of everyone.
    pub room: Option<RoomId>,
    /// Connections in it on this shard.
    pub members: usize,
    /// Messages published to it.
    pub messages: u64,
    /// Their bytes, frame headers included.
    pub bytes: u64,
    /// Messages given to members, once for each.
    pub deliveries: u64,
    /// The same lately: what counts for the order, halved every 30 seconds.
    pub recent: Recent,
    /// How long the oldest of its messages that not all members here were given has been under way, or was at most lately.
    pub queue_age_seconds: f64,
}

/// What happened in a room lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recent {
    /// Messages published to it.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages given to members.
    pub deliveries: u64,
}

/// What a shard shows of itself without being asked. Times are nanoseconds of the gateway's clock.
#[derive(Debug)]
pub struct Vitals {
    beat_at: AtomicU64,
    oldest_queued_at: AtomicU64,
}

impl Vitals {
    /// Those of a shard that is alive at `now` and has nothing waiting.
    pub fn new(now: u64) -> Arc<Self> {
        Arc::new(Self { beat_at: AtomicU64::new(now), oldest_queued_at: AtomicU64::new(NOTHING_WAITS) })
    }

    /// The shard came round at `now`; it does several times a second.
    pub fn beat(&self, now: u64) {
        self.beat_at.store(now, Ordering::Relaxed);
    }

    /// When the shard last came round.
    pub fn beat_at(&self) -> u64 {
        self.beat_at.load(Ordering::Relaxed)
    }

    /// Says since when the oldest that waits for a client has been waiting, if anything does.
    pub fn set_oldest_queued_at(&self, at: Option<u64>) {
        self.oldest_queued_at.store(at.unwrap_or(NOTHING_WAITS), Ordering::Relaxed);
    }

    /// Since when the oldest that waits for a client has been waiting, if anything does.
    pub fn oldest_queued_at(&self) -> Option<u64> {
        Some(self.oldest_queued_at.load(Ordering::Relaxed)).filter(|at| *at != NOTHING_WAITS)
    }
}

const NOTHING_WAITS: u64 = u64::MAX;
