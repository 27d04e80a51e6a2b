//! What the passing of time asks for: heartbeats, expired tokens, blocked writes, and the drain.

use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::time::Duration;

use bytes::Bytes;

use crate::id::{ClientId, ClientKey};
use crate::metrics::CloseReason;
use crate::ws::{self, CloseCode};

use super::client::{Due, NO_PING, Stage};
use super::draining::Drain;
use super::state::{Core, Notice};
use super::wheel::{tick_at_or_after, ticks_passed};

/// Ticks whose pings go out together: a quarter of a second.
const PING_TICKS: u32 = 4;

/// Up to so many clients of a shard, that is at most fifty pings at once with the usual heartbeat.
const PINGED_TOGETHER_MAX: usize = 10_000;

/// The pings of a shard. Their payload is the time to the nanosecond, so that a pong tells the round trip and only the tick of
/// the ping is kept for it; it is disguised, so that a client does not learn how long the gateway has been running. Each ping
/// is answered once, and a client can make itself look slower, or less than a tick faster, but not with more than its one
/// sample.
#[derive(Debug)]
pub(super) struct Pings {
    disguise: u64,
    now: u64,
    /// The frame of this tick, once there is one to ping.
    frame: Option<Bytes>,
}

impl Default for Pings {
    fn default() -> Self {
        // The standard library seeds its hashers from the system's random source.
        Self { disguise: RandomState::new().hash_one(0), now: 0, frame: None }
    }
}

impl Pings {
    fn begin_tick(&mut self, now: u64) {
        self.now = now;
        self.frame = None;
    }

    /// A ping, shared by all clients that are pinged in this tick.
    fn frame(&mut self) -> Bytes {
        let payload = (self.now ^ self.disguise).to_be_bytes();
        let frame = self.frame.get_or_insert_with(|| {
            let mut frame = Vec::new();
            ws::encode_ping(&mut frame, &payload);
            frame.into()
        });
        frame.clone()
    }

    /// When the ping was sent that this pong answers, in nanoseconds, as the client says.
    fn sent_at(&self, pong: &[u8]) -> Option<u64> {
        Some(u64::from_be_bytes(pong.try_into().ok()?) ^ self.disguise)
    }
}

impl Core {
    /// Brings the wheel to `now` (nanoseconds) and acts on every deadline that has passed. `unix` are seconds since
    /// the Unix epoch, for the timestamps of messages.
    pub(super) fn tick(&mut self, now: u64, unix: u64) {
        self.timestamp = unix;
        self.time = now;
        let tick = ticks_passed(Duration::from_nanos(now));
        if tick == self.wheel.now() {
            return;
        }
        self.pings.begin_tick(now);
        let mut due = mem::take(&mut self.due);
        self.wheel.advance(tick, &mut due);
        for (key, at) in due.drain(..) {
            let Some(client) = self.clients.get_mut(key) else { continue };
            if client.wheel_at == at {
                client.wheel_at = u32::MAX;
                self.meet_deadline(key, tick);
            }
        }
        self.due = due;
        self.lobby.expire(tick);
        for key in self.lobby.overdue(tick) {
            self.restore(key, None);
        }
        self.drain_some(tick);
    }

    fn meet_deadline(&mut self, key: ClientKey, now: u32) {
        let client = &mut self.clients[key];
        match client.due(now, &self.options.heartbeat) {
            Due::Nothing => {}
            Due::Ping => {
                // Kept to the rhythm of the first, so that pings stay spread.
                let every = tick_at_or_after(self.options.heartbeat.ping).max(1);
                let at = client.ping_at.saturating_add(every).max(now + 1);
                let ping_at = self.ping_together(at);
                let client = &mut self.clients[key];
                (client.ping_at, client.pinged_at) = (ping_at, now);
                self.notices.push_back(Notice::control(key, self.pings.frame()));
            }
            Due::Silent => {
                self.counts.ping_timeouts += 1;
                self.close(
                    key,
                    CloseCode::NoHeartbeat,
                    "nothing came for too long",
                    CloseReason::PingTimeout,
                );
            }
            Due::Blocked => self.overflow(key, "a write was blocked for too long"),
            Due::Expired => {
                self.close(key, CloseCode::TokenExpired, "the token has expired", CloseReason::TokenExpired);
            }
            Due::Gone => return self.lost(key, CloseReason::Client),
        }
        self.reschedule(key);
    }

    /// How long the way to a client and back took, in nanoseconds, by its pong at `now`. None when that does not answer the
    /// last ping, or that one was answered already.
    pub(super) fn round_trip(&mut self, key: ClientKey, pong: &[u8], now: u64) -> Option<u64> {
        let sent_at = self.pings.sent_at(pong)?;
        let client = self.clients.get_mut(key)?;
        if ticks_passed(Duration::from_nanos(sent_at)) != client.pinged_at {
            return None;
        }
        client.pinged_at = NO_PING;
        now.checked_sub(sent_at)
    }

    /// The tick of a ping that is due at `at`: a few ticks share one, since each tick with pings wakes the shard for
    /// them and again for the answers. With very many clients a tick has enough of them by itself.
    pub(super) fn ping_together(&self, at: u32) -> u32 {
        let ticks = if self.clients.len() <= PINGED_TOGETHER_MAX { PING_TICKS } else { 1 };
        at.checked_next_multiple_of(ticks).unwrap_or(at)
    }

    /// The tick at which a token runs out that lasts for so many seconds; `u32::MAX` for one that does not.
    pub(super) fn expiry(&self, expires_in: Option<u64>) -> u32 {
        let ticks = expires_in.map_or(u32::MAX, |seconds| tick_at_or_after(Duration::from_secs(seconds)));
        self.now().saturating_add(ticks)
    }

    /// Makes sure that the wheel wakes this client in time.
    pub(super) fn reschedule(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let deadline = client.deadline(&self.options.heartbeat);
        if deadline < client.wheel_at {
            client.wheel_at = self.wheel.schedule(key, deadline);
        }
    }

    pub(super) fn next_tick(&self) -> Option<u32> {
        if self.drain.as_ref().is_some_and(Drain::has_more) {
            Some(self.wheel.now() + 1)
        } else {
            self.wheel.next_tick()
        }
    }

    pub(super) fn now(&self) -> u32 {
        self.wheel.now()
    }

    /// The process stood still for so many ticks: nobody is to blame for what was not read or written meanwhile.
    pub(super) fn excuse(&mut self, lag: u32) {
        for client in self.clients.values_mut() {
            client.heard_at = client.heard_at.saturating_add(lag);
            client.blocked_at = client.blocked_at.saturating_add(lag);
            if let Stage::Leaving { until } = &mut client.stage {
                *until = until.saturating_add(lag);
            }
        }
    }
}

/// A number of a client's own, evenly spread over all clients.
pub(super) fn lot(id: ClientId) -> u32 {
    u32::try_from(foldhash::quality::FixedState::default().hash_one(id.0) >> 32).unwrap_or(0)
}

/// The same in 0..1.
pub(super) fn share(id: ClientId) -> f64 {
    f64::from(lot(id)) / (f64::from(u32::MAX) + 1.0)
}

/// Ticks until a client's first ping: anywhere in the interval, so that a crowd that came together is not
/// pinged together.
pub(super) fn first_ping(id: ClientId, every: u32) -> u32 {
    let ticks = f64::from(every) * share(id);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `every`")]
    let ticks = ticks as u32;
    ticks + 1
}

#[cfg(test)]
mod tests {
    use super::super::tests::{World, masked};

    use super::*;

    /// Brings a client to its first ping, and returns its payload.
    fn ping(world: &mut World, seconds: u64) -> Vec<u8> {
        world.notices();
        world.tick(Duration::from_secs(seconds));
        let (_, frame) = world.notices().pop().expect("a ping is due by then");
        assert_eq!(frame[0], 0x89, "a ping");
        frame[2..].to_vec()
    }

    fn samples(world: &World) -> (u64, u64) {
        let samples = &world.shard.core.counts.samples.ping_rtt;
        (samples.count(), samples.sum())
    }

    #[test]
    fn a_ping_is_answered_once_by_what_it_said() {
        let mut world = World::new();
        let ann = world.enter("ann");
        let first = ping(&mut world, 54);
        world.now += 7_000_000;
        let mut altered = first.clone();
        altered[0] ^= 1;
        for made_up in [&b""[..], &[0; 8], &altered] {
            world.receive(ann, &masked(0x8a, made_up));
        }
        assert_eq!(samples(&world), (0, 0));

        for _ in 0..1000 {
            world.receive(ann, &masked(0x8a, &first));
        }
        assert_eq!(samples(&world), (1, 7_000_000));

        let second = ping(&mut world, 109);
        world.receive(ann, &masked(0x8a, &first));
        assert_eq!(samples(&world).0, 1, "it answers the ping before");
        world.receive(ann, &masked(0x8a, &second));
        assert_eq!(samples(&world).0, 2);
    }

    #[test]
    fn clients_that_are_pinged_together_share_one_frame() {
        let mut pings = Pings::default();
        pings.begin_tick(5_000_000_000);

        let frame = pings.frame();

        assert_eq!(pings.frame().as_ptr(), frame.as_ptr());
        assert_eq!(pings.sent_at(&frame[2..]), Some(5_000_000_000));
    }
}
