//! What is left of a shard after a panic, and how it goes on.

use std::mem;
use std::sync::Arc;

use crate::id::ClientKey;
use crate::metrics::CloseReason;
use crate::ws::{CloseCode, Decoder};

use super::client::Client;
use super::counts::Messages;
use super::draining::Drain;
use super::queue::Load;
use super::state::{Core, Shard};

impl Shard {
    /// Begins anew after a panic: all clients are closed with 1011, and nothing of the shard is left in the directories.
    ///
    /// What was half done is not looked at. Kept are the clients, until they have been told, what waits for each, what was
    /// counted, and the two maps of keys, so that no key is given again which something under way may still name.
    pub(super) fn restart(&mut self) {
        let old = &mut self.core;
        old.hub.forget(old.index);
        let mut rooms = mem::take(&mut old.rooms);
        rooms.clear();
        let (options, hub, verifier) =
            (Arc::clone(&old.options), Arc::clone(&old.hub), Arc::clone(&old.verifier));
        let mut new = Self::with_keys(old.index, options, hub, verifier, rooms);
        let core = &mut new.core;
        core.clients = mem::take(&mut old.clients);
        core.counts = mem::take(&mut old.counts);
        (core.counts.memberships, core.counts.queues, core.counts.input) = (0, Load::default(), 0);
        core.meter = old.meter.clone();
        core.counts.replies = Messages::default();
        core.farewells = mem::take(&mut old.farewells);
        core.pings = mem::take(&mut old.pings);
        core.drain = old.drain.take().map(Drain::of_nobody);
        (core.time, core.timestamp) = (old.time, old.timestamp);
        core.wheel.advance(old.wheel.now(), &mut Vec::new());
        for key in core.clients.keys().collect::<Vec<_>>() {
            core.close_after_a_panic(key);
        }
        *self = new;
    }
}

impl Core {
    fn close_after_a_panic(&mut self, key: ClientKey) {
        let watermark = self.options.watermark();
        let client = &mut self.clients[key];
        client.begin_anew();
        if let Some(queue) = &mut client.queue {
            queue.place = u32::try_from(self.backlogged.len()).expect("there are fewer clients than that");
            self.backlogged.push(key);
            self.counts.queues.replace(Load::default(), queue.load(watermark));
        }
        if client.is_open() {
            self.close(key, CloseCode::Internal, "the gateway failed", CloseReason::Internal);
        } else {
            self.reschedule(key);
            // The end of its sending side may have been what was not done.
            self.end_sending(key);
        }
    }
}

impl Client {
    /// Forgets what it has to do with the rest of the shard.
    fn begin_anew(&mut self) {
        self.memberships.clear();
        self.held = None;
        self.decoder = Decoder::default();
        self.input_bytes = 0;
        self.wheel_at = u32::MAX;
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::time::Duration;

    use super::super::backlog::Lane;
    use super::super::tests::{World, counted, frame};
    use super::*;
    use crate::id::UserId;

    #[test]
    fn all_clients_are_told_and_nothing_of_them_stays_in_rooms_or_directories() {
        let [mut failing, mut other] = World::pair();
        let (ann, ben, cat) = (failing.enter("ann"), failing.enter("ben"), other.enter("cat"));
        for world_client in [(&mut failing, ann), (&mut other, cat)] {
            let (world, client) = world_client;
            world.say(client, r#"{"type":"join","room_id":5}"#);
        }
        failing.say(ben, r#"{"type":"join","room_id":6}"#);
        failing.say(ann, r#"{"type":"message","room_id":5,"content":"before"}"#);
        failing.notices();
        failing.tick(Duration::from_secs(5));
        let whole = frame("half written");
        failing.shard.core.blocked(ben, &whole, 3, Lane::Bulk, None);

        failing.shard.restart();

        let told = failing.notices();
        assert_eq!(told.len(), 1, "ben's Close waits behind the frame that is half written");
        assert_eq!((told[0].0, &told[0].1[..4]), (ann, &[0x88, told[0].1[1], 0x03, 0xf3][..]));
        let mut slices = [IoSlice::new(&[]); 4];
        let (count, _) = failing.shard.core.backlog_slices(ben, &mut slices);
        assert_eq!(&*slices[0], &whole[3..]);
        assert_eq!((count, slices[1][0]), (2, 0x88));
        assert_eq!((failing.hub.rooms(), failing.hub.users()), (1, 1), "of the other shard");
        assert_eq!(counted(&mut failing.shard.core.counts.closed), [(CloseReason::Internal, 2)]);
        assert!(failing.deliver().is_empty(), "what was under way is for members that are gone");
        assert_eq!(other.deliver().len(), 1);
        assert!(failing.hub.connections(&UserId::parse("ann").unwrap()).is_empty());
    }

    #[test]
    fn the_shard_goes_on_with_new_clients_and_the_old_ones_end_in_time() {
        let mut world = World::new();
        let old = world.enter("ann");
        world.tick(Duration::from_secs(100));
        world.shard.restart();
        world.notices();

        let new = world.enter("ben");
        assert_ne!(old, new);
        world.say(new, r#"{"type":"join","room_id":5}"#);
        world.say(new, r#"{"type":"message","room_id":5,"content":"x"}"#);
        world.say(new, r#"{"type":"message","content":"to everyone"}"#);
        let given: Vec<_> = world.deliver().into_iter().map(|(client, _)| client).collect();
        assert_eq!(given, [new, new]);

        world.tick(Duration::from_secs(103));
        assert_eq!(world.shard.core.next_gone(), Some(old), "it did not end the stream");
        world.shard.core.remove(old);
        assert_eq!(world.gate.open(), 1);
    }
}
