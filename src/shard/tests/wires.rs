//! A shard whose clients' sockets take as many bytes as a test allows, written to as the driver does it.

use std::io::IoSlice;

use hashbrown::HashMap;

use crate::id::ClientKey;

use super::super::backlog::Lane;
use super::World;

pub(super) struct Wires {
    pub(super) world: World,
    wires: HashMap<ClientKey, Wire>,
}

#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    /// What the socket would still take.
    space: usize,
}

impl Wires {
    pub(super) fn of(world: World) -> Self {
        Self { world, wires: HashMap::default() }
    }

    /// From here on what is written to this client is kept; its socket takes nothing yet.
    pub(super) fn plug_in(&mut self, client: ClientKey) {
        self.wires.insert(client, Wire::default());
    }

    /// All bytes that a client's socket has taken.
    pub(super) fn bytes(&self, client: ClientKey) -> &[u8] {
        &self.wires[&client].bytes
    }

    /// One turn of the driver's loop, from what other threads asked for to what is written.
    pub(super) fn turn(&mut self) {
        self.world.apply();
        loop {
            self.world.shard.core.catch_up();
            self.notices();
            self.deliver();
            if !self.world.shard.core.catch_ups.is_ready() {
                return;
            }
        }
    }

    /// A client says something, and its replies are written.
    pub(super) fn say(&mut self, client: ClientKey, text: &str) {
        let replies = self.world.raw_replies(client, text);
        if replies.is_empty() {
            return;
        }
        let core = &mut self.world.shard.core;
        if core.has_backlog(client) {
            return core.enqueue(client, replies.into(), Lane::Control, None);
        }
        let messages = std::mem::take(&mut core.counts.replies);
        let taken = self.take(client, &replies);
        let core = &mut self.world.shard.core;
        if taken < replies.len() {
            core.blocked(client, &replies.into(), taken, Lane::Control, None);
        } else {
            core.counts.sent.append(messages);
        }
    }

    fn notices(&mut self) {
        while let Some(notice) = self.world.shard.core.next_notice() {
            let taken = self.take(notice.client, &notice.frame);
            if taken < notice.frame.len() {
                self.world.shard.core.blocked(notice.client, &notice.frame, taken, notice.lane, None);
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(client) = self.world.deliver_one() {
            let bytes = self.world.shard.core.delivery_bytes().clone();
            let taken = self.take(client, &bytes);
            if taken < bytes.len() {
                self.world.shard.core.delivery_blocked(client, taken);
            }
        }
    }

    /// Has a client's socket take so many more bytes.
    pub(super) fn allow(&mut self, client: ClientKey, bytes: usize) {
        let wire = self.wires.get_mut(&client).unwrap();
        wire.space = wire.space.saturating_add(bytes);
        loop {
            let core = &mut self.world.shard.core;
            let mut slices = [IoSlice::new(&[]); 8];
            let (count, _) = core.backlog_slices(client, &mut slices);
            let waiting: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            let taken = self.take(client, &waiting);
            if taken == 0 {
                return;
            }
            self.world.shard.core.drained(client, taken);
        }
    }

    fn take(&mut self, client: ClientKey, bytes: &[u8]) -> usize {
        // Who is not plugged in takes everything, and nobody looks at it.
        let Some(wire) = self.wires.get_mut(&client) else { return bytes.len() };
        let taken = bytes.len().min(wire.space);
        wire.space -= taken;
        wire.bytes.extend_from_slice(&bytes[..taken]);
        taken
    }
}
