//! One client's entry in the slab of its shard, and when it must be looked at next.

use std::time::Duration;

use smallvec::SmallVec;

use crate::http::Endpoint;
use crate::id::RoomKey;
use crate::inbox::{Permit, Whom};
use crate::session::Session;
use crate::ws::{Compression, Decoder};

use super::Heartbeat;
use super::counts::Form;
use super::queue::Queue;
use super::rate::Buckets;
use super::wheel::{TICK, tick_at_or_after as ticks};

/// A client's place in one room of its shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Membership {
    pub(super) room: RoomKey,
    /// Index into the room's members.
    pub(super) index: u32,
}

/// Where a client is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Open,
    /// Close is queued or sent: nothing more is said or heard, the slot waits for the peer's end of stream.
    Leaving {
        until: u32,
    },
}

/// Input that had to wait, because a room took no more or because enough was decompressed for one turn.
pub(super) struct Held {
    /// When it was read, in nanoseconds of the gateway's clock.
    pub(super) read_at: u64,
    /// The message that a room refused, if one did.
    pub(super) message: Option<Vec<u8>>,
    /// What had been read behind it.
    pub(super) rest: Vec<u8>,
}

/// One client of a shard. All times are ticks of the shard's wheel.
pub(super) struct Client {
    pub(super) session: Session,
    pub(super) decoder: Decoder,
    /// Exists only while the socket takes less than there is to send.
    pub(super) queue: Option<Box<Queue>>,
    pub(super) held: Option<Box<Held>>,
    /// Where rates are bounded.
    pub(super) buckets: Option<Box<Buckets>>,
    /// The first is the room of everyone; the others are in no order.
    pub(super) memberships: SmallVec<[Membership; 2]>,
    pub(super) stage: Stage,
    pub(super) endpoint: Endpoint,
    pub(super) compression: Compression,
    pub(super) opened_at: u32,
    pub(super) heard_at: u32,
    pub(super) ping_at: u32,
    /// When the last ping was sent, until it is answered; [`NO_PING`] when none waits for an answer.
    pub(super) pinged_at: u32,
    /// Since when the socket has not taken a byte although there is a queue.
    pub(super) blocked_at: u32,
    /// When the token runs out; `u32::MAX` for never.
    pub(super) expires_at: u32,
    /// The earliest entry of this client in the wheel; later ones are stale.
    pub(super) wheel_at: u32,
    /// What its unfinished and its held input take, as it was last counted.
    pub(super) input_bytes: u32,
    pub(super) _permit: Permit,
}

/// No tick of a ping: the wheel begins later.
pub(super) const NO_PING: u32 = u32::MAX;

/// What a client's deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    Silent,
    Blocked,
    Expired,
    /// The peer had its time to end the stream.
    Gone,
}

impl Client {
    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether it is one of those that are meant.
    pub(super) fn is(&self, whom: &Whom) -> bool {
        match whom {
            Whom::Client(id) => self.session.client() == *id,
            Whom::User(user) => self.session.user() == user,
            Whom::Token(id) => self.session.token_id() == Some(id),
        }
    }

    /// How long it has been open at tick `now`.
    pub(super) fn open_for(&self, now: u32) -> Duration {
        TICK * now.saturating_sub(self.opened_at)
    }

    /// In how many rooms it is, besides that of everyone, which is the first membership.
    pub(super) fn rooms_joined(&self) -> usize {
        self.memberships.len().saturating_sub(1)
    }

    /// What its unfinished and its held input take.
    pub(super) fn input_footprint(&self) -> usize {
        let held = |held: &Held| {
            size_of::<Held>() + held.message.as_ref().map_or(0, Vec::capacity) + held.rest.capacity()
        };
        self.decoder.pending_bytes() + self.held.as_deref().map_or(0, held)
    }

    /// What the messages are that are sent to it.
    pub(super) fn form(&self) -> Form {
        match self.endpoint {
            Endpoint::Echo => Form::Echo,
            Endpoint::Ws if self.session.is_ndjson() => Form::Lines,
            Endpoint::Ws => Form::Json,
        }
    }

    /// The tick at which [`Client::due`] has something to say at the latest.
    pub(super) fn deadline(&self, heartbeat: &Heartbeat) -> u32 {
        if let Stage::Leaving { until } = self.stage {
            return until;
        }
        let silent = self.heard_at.saturating_add(ticks(heartbeat.timeout));
        let blocked = match self.queue {
            Some(_) => self.blocked_at.saturating_add(ticks(heartbeat.write)),
            None => u32::MAX,
        };
        self.ping_at.min(silent).min(blocked).min(self.expires_at)
    }

    /// What is due at `now`; the most serious first.
    pub(super) fn due(&self, now: u32, heartbeat: &Heartbeat) -> Due {
        if let Stage::Leaving { until } = self.stage {
            return if until <= now { Due::Gone } else { Due::Nothing };
        }
        if self.expires_at <= now {
            Due::Expired
        } else if self.queue.is_some() && self.blocked_at.saturating_add(ticks(heartbeat.write)) <= now {
            Due::Blocked
        } else if self.heard_at.saturating_add(ticks(heartbeat.timeout)) <= now {
            Due::Silent
        } else if self.ping_at <= now {
            Due::Ping
        } else {
            Due::Nothing
        }
    }
}
