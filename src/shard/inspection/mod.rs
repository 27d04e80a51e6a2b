//! What an operator wants to know, read from the state of a shard.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::http::Endpoint;
use crate::id::{ClientKey, RoomId, RoomKey};
use crate::inspect::{Closed, Connection, Queue, ROOMS_LISTED_MAX, Room, Which};

use super::client::Client;
use super::state::Core;
use super::wheel::TICK;

impl Core {
    /// The connections that are meant, the most interesting first, each with its place.
    ///
    /// To find one by its number all are looked at, which takes about a millisecond for each 20,000.
    pub(super) fn connections(&self, which: Which) -> Vec<(ClientKey, Connection)> {
        let keys = match which {
            Which::Slowest(limit) => self.slowest(limit),
            Which::Client(id) => {
                let found = self.clients.iter().find(|(_, client)| client.session.client() == id);
                found.map(|(key, _)| key).into_iter().collect()
            }
            Which::Keys(keys) => keys,
        };
        let view = |key: ClientKey| Some((key, self.connection_view(key)?));
        keys.into_iter().filter_map(view).collect()
    }

    /// The connections that ended last, the latest first.
    pub(super) fn closed(&self, limit: usize) -> Vec<Closed> {
        self.farewells.latest().take(limit).cloned().collect()
    }

    /// The rooms of these names, as far as they have members here.
    ///
    /// What happened lately is as of `now` nanoseconds, so that all shards say the same of it.
    pub(super) fn rooms_named(&self, names: &[Option<RoomId>], now: u64) -> Vec<Room> {
        let keys = names.iter().filter_map(|name| self.room_named(name.as_ref()));
        keys.filter_map(|key| self.room_view(key, now)).collect()
    }

    /// The room of this name, or the one of everyone without a name, if it has members here.
    pub(super) fn room_named(&self, name: Option<&RoomId>) -> Option<RoomKey> {
        name.map_or(Some(self.everyone), |id| self.names.get(id).copied())
    }

    /// The clients with most bytes waiting, then with the oldest.
    fn slowest(&self, limit: usize) -> Vec<ClientKey> {
        let weight = |key: &ClientKey| {
            let queue = self.clients[*key].queue.as_ref().expect("the list holds those with a queue");
            (Reverse(queue.bytes()), queue.oldest().unwrap_or(u64::MAX), *key)
        };
        let mut weighed: Vec<_> = self.backlogged.iter().map(weight).collect();
        if weighed.len() > limit {
            weighed.select_nth_unstable(limit);
            weighed.truncate(limit);
        }
        weighed.sort_unstable();
        weighed.into_iter().map(|(_, _, key)| key).collect()
    }

    fn connection_view(&self, key: ClientKey) -> Option<Connection> {
        let client = self.clients.get(key)?;
        let now = self.now();
        let rooms = client.memberships.iter().filter_map(|membership| {
            let room = self.rooms.get(membership.room)?;
            room.hub.id().cloned()
        });
        let expires_in =
            (client.expires_at != u32::MAX).then(|| TICK * client.expires_at.saturating_sub(now));
        Some(Connection {
            key,
            client_id: client.session.client(),
            user: client.session.user().clone(),
            shard: self.index.0,
            peer: None,
            endpoint: match client.endpoint {
                Endpoint::Ws => "/ws",
                Endpoint::Echo => "/echo",
            },
            is_closing: !client.is_open(),
            open_seconds: client.open_for(now).as_secs_f64(),
            silent_seconds: (TICK * now.saturating_sub(client.heard_at)).as_secs_f64(),
            expires_in_seconds: expires_in.map(|left| left.as_secs_f64()),
            rooms: rooms.take(ROOMS_LISTED_MAX).collect(),
            rooms_total: client.rooms_joined(),
            is_held: client.held.is_some(),
            queue: self.queue_view(client),
        })
    }

    pub(super) fn queue_view(&self, client: &Client) -> Option<Queue> {
        let queue = client.queue.as_ref()?;
        let oldest = queue.oldest().unwrap_or(self.time);
        Some(Queue {
            bytes: queue.bytes(),
            messages: queue.messages(),
            oldest_seconds: Duration::from_nanos(self.time.saturating_sub(oldest)).as_secs_f64(),
            blocked_seconds: (TICK * self.now().saturating_sub(client.blocked_at)).as_secs_f64(),
        })
    }

    fn room_view(&self, key: RoomKey, now: u64) -> Option<Room> {
        let local = self.rooms.get(key)?;
        let heat = local.hub.heat();
        Some(Room {
            room: local.hub.id().cloned(),
            members: local.room.members().len(),
            messages: heat.messages,
            bytes: heat.bytes,
            deliveries: heat.deliveries,
            recent: heat.recent(now),
            queue_age_seconds: Duration::from_nanos(self.room_age(key, now)).as_secs_f64(),
        })
    }

    /// The age of the oldest message under way, or the greatest lately, in nanoseconds.
    fn room_age(&self, key: RoomKey, now: u64) -> u64 {
        let Some(local) = self.rooms.get(key) else { return 0 };
        let oldest = local.room.oldest().map_or(0, |read_at| self.time.saturating_sub(read_at));
        oldest.max(local.age.at(now))
    }
}

/// A look at all rooms of a shard for the hottest, some at a time, since there may be very many.
pub(super) struct RoomScan {
    limit: usize,
    /// When the heat of all rooms is compared, in nanoseconds.
    now: u64,
    /// Places in the list of rooms that are to be looked at: from here down to the first. A room that another one's end
    /// moves goes to a lower place, so that it may be seen twice, but is not missed.
    left: usize,
    /// The best by each measure; the least of them on top.
    best: [BinaryHeap<Reverse<(u64, RoomKey)>>; 4],
}

impl RoomScan {
    /// Rooms looked at in one step, between which the shard's other work has its turns: some fifty microseconds, as each is
    /// likely to be in no cache.
    pub(super) const STEP: usize = 128;

    /// A look for at most `limit` rooms by each measure, as of `now` nanoseconds.
    pub(super) fn new(core: &Core, limit: usize, now: u64) -> Self {
        Self { limit, now, left: core.listed.len(), best: Default::default() }
    }

    /// Looks at some more. `Some` with what was found when that were the last.
    pub(super) fn step(&mut self, core: &Core) -> Option<Vec<Room>> {
        let end = self.left.min(core.listed.len());
        self.left = end.saturating_sub(Self::STEP);
        for key in &core.listed[self.left..end] {
            self.look_at(core, *key);
        }
        (self.left == 0).then(|| self.found(core))
    }

    fn look_at(&mut self, core: &Core, key: RoomKey) {
        let recent = core.rooms[key].hub.heat().recent(self.now);
        let measures = [recent.messages, recent.bytes, recent.deliveries, core.room_age(key, self.now)];
        for (best, measure) in self.best.iter_mut().zip(measures) {
            if measure == 0 {
                continue;
            }
            let is_full = best.len() >= self.limit;
            let is_better = !is_full || best.peek().is_some_and(|least| least.0.0 < measure);
            if !is_better || best.iter().any(|Reverse((_, seen))| *seen == key) {
                continue;
            }
            if is_full {
                best.pop();
            }
            best.push(Reverse((measure, key)));
        }
    }

    fn found(&self, core: &Core) -> Vec<Room> {
        let mut keys: Vec<_> = self.best.iter().flatten().map(|Reverse((_, key))| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().filter_map(|key| core.room_view(key, self.now)).collect()
    }
}

#[cfg(test)]
mod tests;
