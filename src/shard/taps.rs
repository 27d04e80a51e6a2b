//! The live looks at rooms and connections that operators take at the moment; nearly always none.

use std::time::Duration;

use smallvec::SmallVec;

use crate::id::{ClientKey, RoomId, RoomKey};
use crate::inbox::Publication;
use crate::inspect::{Event, Subject, Tap, Tapped, beginning};
use crate::metrics::{CloseReason, LabelValue as _};

use super::room::Completed;
use super::state::Core;

/// The taps of a shard.
#[derive(Default)]
pub(super) struct Taps {
    all: SmallVec<[Active; 1]>,
}

struct Active {
    tap: Tap,
    target: Target,
}

/// What a tap's subject is on this shard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Room(RoomKey),
    Client(ClientKey),
    /// A room that has no members here at the moment.
    Nothing,
}

impl Taps {
    /// Whether nobody looks, as nearly always.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Lets go of taps whose readers are gone.
    pub(super) fn prune(&mut self) {
        self.all.retain(|active| !active.tap.is_over());
    }

    pub(super) fn room_opened(&mut self, id: &RoomId, key: RoomKey) {
        for active in &mut self.all {
            if matches!(&active.tap.subject, Subject::Room(Some(name)) if name == id) {
                active.target = Target::Room(key);
            }
        }
    }

    pub(super) fn room_closed(&mut self, key: RoomKey) {
        for active in &mut self.all {
            if active.target == Target::Room(key) {
                active.target = Target::Nothing;
            }
        }
    }

    /// The taps on one target.
    fn of(&self, target: Target) -> impl Iterator<Item = &Tap> {
        self.all.iter().filter(move |active| active.target == target).map(|active| &active.tap)
    }
}

impl Core {
    /// Begins to show a room, whether it has members here or not, or a connection, if it is here.
    pub(super) fn add_tap(&mut self, tap: Tap) {
        let (target, members) = match &tap.subject {
            Subject::Room(id) => match self.room_named(id.as_ref()) {
                Some(key) => (Target::Room(key), self.rooms[key].room.members().len()),
                None => (Target::Nothing, 0),
            },
            Subject::Connection(id) => {
                let is_it = |(_, client): &(ClientKey, &super::client::Client)| {
                    client.session.client() == *id && client.is_open()
                };
                // A tap that no shard keeps is over.
                let Some((key, _)) = self.clients.iter().find(is_it) else { return };
                (Target::Client(key), 1)
            }
        };
        tap.show(|| Tapped { shard: self.index.0, event: Event::Tapped { members } });
        self.taps.all.push(Active { tap, target });
    }

    /// Shows an event, which is only made when somebody looks.
    #[inline]
    fn show(&self, target: Target, event: impl Fn() -> Event) {
        if !self.taps.is_empty() {
            self.show_to_readers(target, event);
        }
    }

    #[cold]
    fn show_to_readers(&self, target: Target, event: impl Fn() -> Event) {
        for tap in self.taps.of(target) {
            tap.show(|| Tapped { shard: self.index.0, event: event() });
        }
    }

    #[inline]
    pub(super) fn tap_message(&self, room: RoomKey, publication: &Publication, members: usize) {
        if !self.taps.is_empty() {
            self.show_message(room, publication, members);
        }
    }

    #[cold]
    fn show_message(&self, room: RoomKey, publication: &Publication, members: usize) {
        let (epoch, offset) = (self.rooms[room].hub.epoch(), publication.offset);
        let payload = publication.message.payload();
        for tap in self.taps.of(Target::Room(room)) {
            tap.show_message(epoch, offset, || {
                let (bytes, text) = (payload.len(), beginning(payload));
                let event = Event::Message { epoch, offset, members, bytes, text };
                Tapped { shard: self.index.0, event }
            });
        }
    }

    #[inline]
    pub(super) fn tap_delivered(&self, room: RoomKey, batch: &Completed) {
        self.show(Target::Room(room), || {
            let seconds = Duration::from_nanos(self.time.saturating_sub(batch.read_at)).as_secs_f64();
            Event::Delivered { messages: batch.publications, recipients: batch.recipients, seconds }
        });
    }

    #[inline]
    pub(super) fn tap_joined(&self, client: ClientKey, room: RoomKey) {
        self.show(Target::Room(room), || {
            let session = &self.clients[client].session;
            Event::Joined { client_id: session.client(), user: session.user().clone() }
        });
    }

    #[inline]
    pub(super) fn tap_left(&self, client: ClientKey, room: RoomKey) {
        self.show(Target::Room(room), || {
            let session = &self.clients[client].session;
            Event::Left { client_id: session.client(), user: session.user().clone() }
        });
    }

    #[inline]
    pub(super) fn tap_received(&self, client: ClientKey, message: &[u8]) {
        self.show(Target::Client(client), || Event::Received {
            bytes: message.len(),
            text: beginning(message),
        });
    }

    #[inline]
    pub(super) fn tap_sent(&self, client: ClientKey, messages: usize, bytes: usize, is_queued: bool) {
        self.show(Target::Client(client), || Event::Sent { messages, bytes, is_queued });
    }

    #[inline]
    pub(super) fn tap_blocked(&self, client: ClientKey, bytes: usize) {
        self.show(Target::Client(client), || Event::Blocked { bytes });
    }

    #[inline]
    pub(super) fn tap_drained(&self, client: ClientKey) {
        self.show(Target::Client(client), || Event::Drained);
    }

    /// The last that a tap shows of a connection: it ends with it.
    #[inline]
    pub(super) fn tap_closed(&mut self, client: ClientKey, reason: CloseReason) {
        self.show(Target::Client(client), || Event::Closed { reason: reason.as_str() });
        self.taps.all.retain(|active| active.target != Target::Client(client));
    }
}
