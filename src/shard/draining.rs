//! How a shard sends its clients away: evenly over a window, each with advice of its own when to come back.

use std::mem;
use std::time::Duration;

use crate::http::Endpoint;
use crate::id::ClientKey;
use crate::metrics::{CloseReason, SentType};
use crate::protocol;
use crate::ws::{CloseCode, PreparedMessage};

use super::backlog::Lane;
use super::deadline::{lot, share};
use super::state::{Core, Notice};
use super::wheel::{TICK, tick_at_or_after};

pub(super) const SHUTTING_DOWN: &str = "the gateway is shutting down";

/// At least over so long those come back who were sent away.
const RECONNECT_SPREAD_MIN: Duration = Duration::from_secs(2);

/// The drain of a shard. Times are ticks of the shard's wheel.
pub(super) struct Drain {
    /// In the order in which they are closed.
    keys: Vec<ClientKey>,
    closed: usize,
    began: u32,
    window: u32,
}

impl Drain {
    /// The same drain, of which only those who come are left to be closed.
    pub(super) fn of_nobody(self) -> Self {
        Self { keys: Vec::new(), closed: 0, ..self }
    }

    /// Whether there are clients left to be closed.
    pub(super) fn has_more(&self) -> bool {
        self.closed < self.keys.len()
    }

    /// Those to be closed at `now`: as many as the part of the window that has passed asks for.
    fn due(&mut self, now: u32) -> Vec<ClientKey> {
        let total = self.keys.len();
        let passed = now.saturating_sub(self.began) as usize + 1;
        let wanted = total.min((total * passed).div_ceil(self.window as usize + 1));
        let wanted = wanted.max(self.closed);
        let from = mem::replace(&mut self.closed, wanted);
        self.keys[from..wanted].to_vec()
    }
}

impl Core {
    /// Begins to close all clients, or begins anew with those that are left.
    pub(super) fn start_drain(&mut self, window: Duration) {
        let mut keys: Vec<_> = self.clients.iter().filter(|(_, client)| client.is_open()).collect();
        // Mixed, so that at no time the members of one room are closed more than those of others, who may have come
        // together and do not all have to be told of each other at once.
        keys.sort_by_cached_key(|(_, client)| lot(client.session.client()));
        let keys = keys.into_iter().map(|(key, _)| key).collect();
        let began = self.now();
        self.drain = Some(Drain { keys, closed: 0, began, window: tick_at_or_after(window) });
        self.drain_some(began);
    }

    /// Lets those stay who were not closed yet, and newcomers.
    pub(super) fn abort_drain(&mut self) {
        self.drain = None;
    }

    /// Closes those whose time has come.
    pub(super) fn drain_some(&mut self, now: u32) {
        let Some(drain) = &mut self.drain else { return };
        for key in drain.due(now) {
            self.advise_to_reconnect(key);
            self.close(key, CloseCode::GoingAway, SHUTTING_DOWN, CloseReason::Shutdown);
        }
    }

    /// Tells a client how long to wait before it comes back: a time of its own, so that not all come at once.
    fn advise_to_reconnect(&mut self, key: ClientKey) {
        let (Some(client), Some(drain)) = (self.clients.get(key), &self.drain) else { return };
        if !client.is_open() || client.endpoint != Endpoint::Ws {
            return;
        }
        let spread = (TICK * drain.window).max(RECONNECT_SPREAD_MIN);
        let after = spread.mul_f64(share(client.session.client()));
        self.json.clear();
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        protocol::write_reconnect(after_ms, SHUTTING_DOWN, self.timestamp, &mut self.json);
        let message = PreparedMessage::text(&self.json);
        self.notices.push_back(Notice::message(key, Lane::Control, SentType::Reconnect, &message));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;
    use super::*;

    #[test]
    fn the_members_of_a_room_that_came_together_are_not_closed_together() {
        let mut world = World::new();
        let members: Vec<_> = (0..1000).map(|number| world.enter(&format!("user-{number}"))).collect();

        world.shard.core.start_drain(Duration::from_secs(10));
        world.tick(Duration::from_secs(5));

        let (first, second) = members.split_at(500);
        let closed =
            |part: &[ClientKey]| part.iter().filter(|key| !world.shard.core.clients[**key].is_open()).count();
        assert!((200..300).contains(&closed(first)), "{}", closed(first));
        assert!((200..300).contains(&closed(second)), "{}", closed(second));
    }

    #[test]
    fn an_aborted_drain_keeps_who_is_left_and_takes_newcomers() {
        let mut world = World::new();
        (0..100).for_each(|_| _ = world.enter("ann"));
        world.shard.core.start_drain(Duration::from_secs(10));
        world.tick(Duration::from_secs(5));
        let closed_during = world.enter("late");

        world.shard.core.abort_drain();
        world.tick(Duration::from_secs(20));
        let newcomer = world.enter("new");

        let core = &world.shard.core;
        assert!(!core.clients[closed_during].is_open() && core.clients[newcomer].is_open());
        let open = core.clients.values().filter(|client| client.is_open()).count();
        assert!((45..55).contains(&open), "{open}");
    }

    #[test]
    fn a_drain_that_is_begun_anew_closes_the_rest_over_the_new_window() {
        let mut world = World::new();
        (0..100).for_each(|_| _ = world.enter("ann"));
        world.shard.core.start_drain(Duration::from_secs(1000));
        world.tick(Duration::from_secs(10));

        world.shard.core.start_drain(Duration::from_secs(10));
        let open =
            |world: &World| world.shard.core.clients.values().filter(|client| client.is_open()).count();
        world.tick(Duration::from_secs(15));
        assert!((40..60).contains(&open(&world)), "{}", open(&world));
        world.tick(Duration::from_millis(20_100));

        assert_eq!(open(&world), 0);
    }
}
