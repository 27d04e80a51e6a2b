//! What a shard's clients take of memory, and who is let go of when it is too much.

use std::cmp::Reverse;

use crate::id::ClientKey;
use crate::metrics::CloseReason;
use crate::ws::CloseCode;

use super::client::Client;
use super::room::Member;
use super::state::{Core, LocalRoom};

/// What a client takes besides its input and its queue: its entries in the slabs of state and driver, and in the directory
/// of users.
const CLIENT_BYTES: usize = size_of::<Client>() + 128;

/// Of each room on a shard and each membership.
const ROOM_BYTES: usize = size_of::<LocalRoom>() + 256;
const MEMBERSHIP_BYTES: usize = size_of::<Member>() + 8;

/// Who holds less is never let go of: there is nothing to be had.
const HOLDS_MUCH: usize = 16 << 10;

impl Core {
    /// What all clients and rooms take, in bytes.
    pub(super) fn footprint(&self) -> usize {
        self.meter.bytes()
            + self.counts.queues.overhead
            + self.counts.input
            + self.counts.transports
            + self.clients.len() * CLIENT_BYTES
            + self.rooms.len() * ROOM_BYTES
            + (self.counts.memberships + self.clients.len()) * MEMBERSHIP_BYTES
    }

    /// Counts what a client's input takes, which has changed.
    pub(super) fn count_input(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let bytes = u32::try_from(client.input_footprint()).unwrap_or(u32::MAX);
        if bytes != client.input_bytes {
            self.counts.input = self.counts.input - client.input_bytes as usize + bytes as usize;
            client.input_bytes = bytes;
        }
    }

    /// Closes those who hold most, until so many bytes are free or nobody holds much; returns how many were closed.
    ///
    /// A buffer that many wait for is free when the last of them is gone, so that who has fallen behind furthest, and holds
    /// the oldest buffers, goes first.
    pub(super) fn relieve(&mut self, bytes: usize) -> usize {
        let target = self.footprint().saturating_sub(bytes);
        let mut holders: Vec<_> =
            self.clients.iter().filter_map(|(key, client)| Some((holds(client)?, key))).collect();
        holders.sort_unstable_by_key(|(holds, _)| Reverse(*holds));
        let mut closed = 0;
        for (_, key) in holders {
            if self.footprint() <= target {
                break;
            }
            self.let_go_of(key);
            closed += 1;
        }
        closed
    }

    fn let_go_of(&mut self, key: ClientKey) {
        let client = &self.clients[key];
        let is_slow = client.queue.as_ref().is_some_and(|queue| queue.bytes() >= client.input_bytes as usize);
        if is_slow {
            let text = "memory is short, and too much was waiting to be read";
            self.close(key, CloseCode::SlowConsumer, text, CloseReason::Memory);
        } else {
            let text = "memory is short, and a message was not finished";
            self.close(key, CloseCode::TryLater, text, CloseReason::Memory);
        }
    }
}

/// How much a client holds, when it is much.
fn holds(client: &Client) -> Option<usize> {
    let queued = client.queue.as_ref().map_or(0, |queue| queue.bytes());
    let holds = queued + client.input_bytes as usize;
    (client.is_open() && holds >= HOLDS_MUCH).then_some(holds)
}

#[cfg(test)]
mod tests {
    use super::super::backlog::Lane;
    use super::super::tests::{World, close_code, frame, masked};
    use super::*;

    /// What a client holds who has this much waiting.
    fn stall(world: &mut World, user: &str, bytes: usize) -> ClientKey {
        let client = world.enter(user);
        world.notices();
        let frames = [frame("begun"), frame(&"x".repeat(bytes))].concat();
        world.shard.core.blocked(client, &frames.into(), 1, Lane::Bulk, None);
        client
    }

    #[test]
    fn a_buffer_that_many_wait_for_counts_once() {
        let mut world = World::new();
        let members: Vec<_> = (0..100).map(|number| world.enter(&format!("user-{number}"))).collect();
        for member in &members {
            world.say(*member, r#"{"type":"join","room_id":5}"#);
        }
        world.notices();
        let before = world.shard.core.footprint();
        let text = format!(r#"{{"type":"message","room_id":5,"content":"{}"}}"#, "x".repeat(10_000));
        world.say(members[0], &text);
        world.apply();
        while let Some(member) = world.deliver_one() {
            world.shard.core.delivery_blocked(member, 0);
        }

        let grown = world.shard.core.footprint() - before;

        assert!((10_000..10_000 + 100 * 300).contains(&grown), "{grown}");
        for member in members {
            let waiting = world.waiting(member);
            world.shard.core.drained(member, waiting);
        }
        assert_eq!(world.shard.core.footprint(), before);
    }

    #[test]
    fn who_holds_most_goes_first_and_who_holds_little_stays() {
        let mut world = World::new();
        let slow = [20_000, 60_000, 40_000, 100].map(|bytes| stall(&mut world, "slow", bytes));

        assert_eq!(world.shard.core.relieve(70_000), 2);

        let is_open = |world: &World| slow.map(|client| world.shard.core.clients[client].is_open());
        assert_eq!(is_open(&world), [true, false, false, true]);
        assert_eq!(world.shard.core.relieve(usize::MAX), 1);
        assert_eq!(is_open(&world), [false, false, false, true]);
        assert_eq!(world.shard.core.relieve(usize::MAX), 0, "nobody holds much");
        assert!(world.notices().is_empty(), "their Close waits behind what was begun");
        assert!(slow.iter().all(|client| world.waiting(*client) < 300));
    }

    #[test]
    fn messages_that_are_never_finished_count_and_their_senders_are_told_to_try_later() {
        let mut world = World::new();
        let (ann, ben) = (world.enter("ann"), world.enter("ben"));
        world.notices();
        let before = world.shard.core.footprint();
        let message = masked(0x81, "x".repeat(50_000).as_bytes());
        world.receive(ann, &message[..40_000]);
        let grown = world.shard.core.footprint() - before;
        assert!((40_000..100_000).contains(&grown), "{grown}");

        assert_eq!(world.shard.core.relieve(1), 1);

        let notices = world.notices();
        assert_eq!((notices[0].0, close_code(&notices[0].1)), (ann, 1013));
        assert!(world.shard.core.clients[ben].is_open());
        assert_eq!(world.shard.core.counts.input, 0);
        world.leave(ann);
        assert!(world.shard.core.footprint() < before);
    }
}
