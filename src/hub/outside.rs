//! What applications and operators want of rooms and users, who are members of nothing.

use std::collections::BinaryHeap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Address, Busy, HistoryPage, Hub, Portion, Room, RoomOptions, Said, Start, StreamPosition};
use crate::id::{NameRef, RoomId, UserId, matches_pattern};
use crate::inbox::{Command, Origin};
use crate::metrics::Source;
use crate::presence::Page;
use crate::ws::PreparedMessage;

impl Hub {
    /// Publishes to the room of this name, if somebody is in it or it has a history; `said` is told how it is run. The position
    /// is the message's own.
    ///
    /// # Errors
    ///
    /// As [`Hub::publish`].
    pub fn publish_to(
        &self,
        room: &RoomId,
        mut said: impl FnMut(RoomOptions) -> Said,
    ) -> Result<Option<StreamPosition>, Busy> {
        let (now, pending_bytes_max) = (self.clock.now(), self.options.room_pending_bytes);
        while let Some(found) = self.room(room) {
            let said = said(found.options());
            if let Some(offset) = found.publish_unless_over(&self.shards, said, now, pending_bytes_max)? {
                return Ok(Some(StreamPosition { epoch: found.epoch(), offset }));
            }
            // Whoever ended it is about to do the same, but may not have come to it yet.
            self.directory.forget(room, &found);
        }
        Ok(None)
    }

    /// The room of this name, if somebody is in it or something of it is kept.
    pub fn existing(&self, room: &RoomId) -> Option<Arc<Room>> {
        self.directory.find(room)
    }

    /// As [`Room::look_back`], in the room of this name. One that nobody has said anything in has nothing to show, and does not
    /// begin because somebody looked: whoever makes up names must not take the place of what is kept.
    pub fn look_back(&self, room: &RoomId, start: Start, most: Portion) -> Option<HistoryPage> {
        if let Some(room) = self.existing(room) {
            return room.look_back(start, most);
        }
        self.rules_of(room).history?;
        let position = StreamPosition { epoch: 0, offset: 0 };
        Some(HistoryPage { position, messages: Vec::new(), is_complete: matches!(start, Start::Last(_)) })
    }

    /// Some of those who are in the room of this name; `None` where that is not kept. Looking does not begin a room.
    pub fn present(&self, room: &RoomId, after: Option<&UserId>, limit: usize) -> Option<Page> {
        match self.existing(room) {
            Some(room) => room.present(after, limit),
            None => self.rules_of(room).presence.is_kept().then(Page::default),
        }
    }

    /// The first rooms, at most so many, of those whose names fit the pattern and come after this one in the order of names.
    ///
    /// Looks at all rooms.
    pub fn rooms_after(&self, after: Option<&RoomId>, pattern: Option<&str>, limit: usize) -> Vec<RoomId> {
        let mut first = BinaryHeap::new();
        self.directory.for_each_room(|id| {
            let is_late = first.len() >= limit && first.peek().is_none_or(|last| id >= last);
            if is_late || after.is_some_and(|after| id <= after) {
                return;
            }
            if pattern.is_none_or(|pattern| matches_pattern(pattern, &id.to_string())) {
                first.push(id.clone());
                if first.len() > limit {
                    first.pop();
                }
            }
        });
        first.into_sorted_vec()
    }

    /// Sends to every connection of a user but the one at `except`. Returns to how many; 0 when the user is not here.
    ///
    /// # Errors
    ///
    /// [`Busy`] when one of the inboxes is full.
    pub fn direct_but(
        &self,
        user: NameRef<'_>,
        except: Option<Address>,
        message: &PreparedMessage,
        (source, read_at): (Source, u64),
    ) -> Result<usize, Busy> {
        let origin = Origin { source, read_at, dispatched_at: self.clock.now() };
        let mut addresses = self.directory.addresses(&UserId::from(user));
        addresses.retain(|address| Some(*address) != except);
        addresses.sort_unstable_by_key(|address| address.shard);
        let bytes = message.frame().len();
        let mut parts = SmallVec::<[_; 4]>::new();
        for part in addresses.chunk_by(|one, next| one.shard == next.shard) {
            let outlet = &self.shards[usize::from(part[0].shard.0)];
            parts.push((outlet.reserve(bytes).map_err(|_| Busy)?, part));
        }
        for (reservation, part) in parts {
            let clients = part.iter().map(|address| address.client).collect();
            drop(reservation.push(Command::Direct { clients, message: message.clone(), origin }));
        }
        Ok(addresses.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use slotmap::KeyData;

    use super::super::{Options, Rule, Rules, Text};
    use super::*;
    use crate::clock::Clock;
    use crate::id::{RoomKey, ShardIndex};
    use crate::inbox::{Inbox, Limits};
    use crate::ws::Draft;

    fn room(name: &str) -> RoomId {
        RoomId::parse(name).unwrap()
    }

    fn key(number: u64) -> RoomKey {
        KeyData::from_ffi(1 << 32 | number).into()
    }

    fn said(_: RoomOptions) -> Said {
        let text = Text::Whole(PreparedMessage::text(b"{}"));
        Said { text, key: None, exclude: None, source: Source::Api, read_at: 0 }
    }

    #[test]
    fn publishes_to_rooms_that_there_are_and_to_no_other() {
        let (outlet, inbox) = Inbox::pair(Limits::default());
        let hub = Hub::new(vec![outlet], Options::default(), Clock::start());
        let (joined, before) = hub.join(&room("a"), ShardIndex(0), key(1));
        hub.publish(&joined, said(RoomOptions::default())).unwrap();

        let position = hub.publish_to(&room("a"), said).unwrap();

        assert_eq!(position, Some(StreamPosition { epoch: before.epoch, offset: 2 }));
        assert_eq!(hub.existing(&room("a")).map(|room| room.position()), position);
        let asked = |_| panic!("there is nobody to say it to");
        assert_eq!(hub.publish_to(&room("b"), asked), Ok(None));
        assert!(hub.existing(&room("b")).is_none());
        let mut commands = VecDeque::new();
        inbox.take_all(&mut commands);
        assert_eq!(commands.len(), 2);
    }

    #[test]
    fn a_room_with_a_history_need_not_have_members() {
        let limits = crate::history::Limits { messages: 10, age: Duration::from_secs(60), bytes: 1 << 20 };
        let options = RoomOptions { history: Some(limits), ..RoomOptions::default() };
        let rules = Rules(Arc::new([Rule { pattern: "kept".to_owned(), options }]));
        let hub = Hub::new(Vec::new(), Options { rooms: rules, ..Options::default() }, Clock::start());
        let said = |options: RoomOptions| {
            assert!(options.is_numbered());
            Said { text: Text::Numbered(Draft::new(b"", b"")), ..said(options) }
        };

        let positions = [(); 2].map(|()| hub.publish_to(&room("kept"), said).unwrap().unwrap());

        assert_eq!(positions.map(|position| position.offset), [1, 2]);
        let kept = hub.existing(&room("kept")).unwrap();
        assert_eq!(kept.kept().map(|(messages, _)| messages), Some(2));
        assert_eq!(hub.rooms(), 0, "nobody is in it");
    }

    #[test]
    fn lists_rooms_in_the_order_of_their_names() {
        let (outlet, _inbox) = Inbox::pair(Limits::default());
        let hub = Hub::new(vec![outlet], Options::default(), Clock::start());
        for (number, name) in (1..).zip(["b", "10", "chat.1", "a", "9", "chat.2"]) {
            hub.join(&room(name), ShardIndex(0), key(number));
        }
        let list = |after: Option<&str>, pattern, limit| {
            let after = after.map(room);
            let names = hub.rooms_after(after.as_ref(), pattern, limit);
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };

        assert_eq!(list(None, None, 9), ["9", "10", "a", "b", "chat.1", "chat.2"]);
        assert_eq!(list(None, None, 2), ["9", "10"]);
        assert_eq!(list(Some("10"), None, 2), ["a", "b"]);
        assert_eq!(list(Some("aa"), None, 2), ["b", "chat.1"], "also after one that is gone");
        assert_eq!(list(None, Some("chat.*"), 1), ["chat.1"]);
        assert_eq!(list(Some("chat.1"), Some("chat.*"), 1), ["chat.2"]);
        assert!(list(Some("chat.2"), None, 9).is_empty());
    }
}
