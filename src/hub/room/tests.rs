use std::collections::VecDeque;

use slotmap::KeyData;

use super::life::Evicted;
use super::*;
use crate::id::ClientKey;
use crate::inbox::{Command, Inbox, Limits};
use crate::inspect::Recent;
use crate::metrics::Source;
use crate::ws::Draft;

#[test]
fn gives_offsets_from_one_and_to_each_shard_with_members_only() {
    let (outlets, inboxes) = shards(3, Limits::default());
    let room = room();
    room.enter(ShardIndex(0), key(7)).unwrap();
    room.enter(ShardIndex(2), key(9)).unwrap();

    assert_eq!(room.publish(&outlets, said(10), 0, 1 << 20), Ok(1));
    assert_eq!(room.publish(&outlets, said(10), 0, 1 << 20), Ok(2));

    assert_eq!(received(&inboxes[0]), [(key(7), 1, None), (key(7), 2, None)]);
    assert_eq!(received(&inboxes[1]), []);
    assert_eq!(received(&inboxes[2]), [(key(9), 1, None), (key(9), 2, None)]);
    assert_eq!(room.position(), StreamPosition { epoch: 77, offset: 2 });
}

#[test]
fn a_numbered_message_says_the_offset_that_it_is_given() {
    let (outlets, inboxes) = shards(1, Limits::default());
    let room = room();
    room.enter(ShardIndex(0), key(7)).unwrap();
    for _ in 0..12 {
        let text = Text::Numbered(Draft::new(b"at ", b"!"));
        room.publish(&outlets, Said { text, ..said(0) }, 0, 1 << 20).unwrap();
    }

    let mut commands = VecDeque::new();
    inboxes[0].take_all(&mut commands);
    for (offset, command) in (1..).zip(commands) {
        let Command::Publish { publication, .. } = command else { panic!("{command:?}") };
        assert_eq!(publication.message.payload(), format!("at {offset}!").as_bytes());
    }
    assert_eq!(room.position().offset, 12);
}

#[test]
fn names_the_excluded_client_to_its_own_shard_only() {
    let (outlets, inboxes) = shards(2, Limits::default());
    let room = room();
    room.enter(ShardIndex(0), key(1)).unwrap();
    room.enter(ShardIndex(1), key(2)).unwrap();
    let client = ClientKey::from(KeyData::from_ffi(5 << 32 | 3));
    let said = Said { exclude: Some((ShardIndex(1), Excluded::Key(client))), ..said(10) };

    room.publish(&outlets, said, 0, 1 << 20).unwrap();

    assert_eq!(received(&inboxes[0]), [(key(1), 1, None)]);
    assert_eq!(received(&inboxes[1]), [(key(2), 1, Some(client))]);
}

#[test]
fn reaches_no_shard_when_one_inbox_is_full() {
    let (outlets, inboxes) = shards(2, Limits { bytes: 1 << 20, items: 1 });
    let room = room();
    room.enter(ShardIndex(0), key(1)).unwrap();
    room.enter(ShardIndex(1), key(2)).unwrap();
    let taken = outlets[1].reserve(1).unwrap();

    assert_eq!(room.publish(&outlets, said(10), 0, 1 << 20), Err(Busy));
    assert_eq!(received(&inboxes[0]), []);
    drop(taken);

    assert_eq!(room.publish(&outlets, said(10), 0, 1 << 20), Ok(1), "no offset was lost");
    assert_eq!(received(&inboxes[0]).len(), 1);
    assert_eq!(received(&inboxes[1]).len(), 1);
}

#[test]
fn is_busy_until_each_shard_released_what_is_on_its_way() {
    let (outlets, inboxes) = shards(2, Limits::default());
    let room = room();
    room.enter(ShardIndex(0), key(1)).unwrap();
    room.enter(ShardIndex(1), key(2)).unwrap();
    let frame = frame_bytes(100);
    let max = frame * 3 / 2;

    assert_eq!(room.publish(&outlets, said(100), 0, max), Ok(1));
    assert_eq!(room.publish(&outlets, said(100), 0, max), Err(Busy));
    room.release(ShardIndex(0), key(1), served(frame), 0);
    assert_eq!(room.publish(&outlets, said(100), 0, max), Err(Busy), "shard 1 has not");
    room.release(ShardIndex(1), key(2), served(frame), 0);

    assert_eq!(room.publish(&outlets, said(100), 0, max), Ok(2));
    assert_eq!(received(&inboxes[0]).len(), 2);
}

#[test]
fn a_message_over_the_bound_passes_when_nothing_is_on_its_way() {
    let (outlets, _inboxes) = shards(1, Limits::default());
    let room = room();
    room.enter(ShardIndex(0), key(1)).unwrap();

    assert_eq!(room.publish(&outlets, said(1000), 0, 10), Ok(1));
    assert_eq!(room.publish(&outlets, said(1), 0, 10), Err(Busy));
}

#[test]
fn a_shard_that_leaves_gives_back_what_was_on_its_way_to_it() {
    let (outlets, _inboxes) = shards(2, Limits::default());
    let room = room();
    room.enter(ShardIndex(0), key(1)).unwrap();
    room.enter(ShardIndex(1), key(2)).unwrap();
    let frame = frame_bytes(100);
    room.publish(&outlets, said(100), 0, frame).unwrap();
    room.release(ShardIndex(0), key(1), served(frame), 0);

    room.evict(ShardIndex(1), &budget(), 0);
    room.enter(ShardIndex(1), key(3)).unwrap();
    room.release(ShardIndex(1), key(2), served(frame), 0);

    assert_eq!(room.publish(&outlets, said(100), 0, frame), Ok(2));
}

#[test]
fn counts_what_happened_on_all_shards_also_on_those_that_have_left() {
    let (outlets, _inboxes) = shards(2, Limits::default());
    let room = room();
    room.enter(ShardIndex(1), key(2)).unwrap();
    let frame = frame_bytes(100);
    for _ in 0..50 {
        room.publish(&outlets, said(100), 0, 1 << 20).unwrap();
    }
    room.release(ShardIndex(1), key(2), Served { bytes: 50 * frame, deliveries: 50 }, 0);
    room.enter(ShardIndex(0), key(1)).unwrap();
    for _ in 0..10 {
        room.publish(&outlets, said(100), 0, 1 << 20).unwrap();
    }
    room.evict(ShardIndex(1), &budget(), 0);
    room.release(ShardIndex(0), key(1), Served { bytes: 10 * frame, deliveries: 20 }, 0);

    let heat = room.heat();
    assert_eq!((heat.messages, heat.bytes, heat.deliveries), (60, 60 * frame as u64, 70));
    assert_eq!(heat.recent(0), Recent { messages: 60, bytes: 60 * frame as u64, deliveries: 70 });
}

#[test]
fn is_over_when_the_last_shard_left() {
    let room = room();
    room.enter(ShardIndex(0), key(1)).unwrap();
    room.enter(ShardIndex(1), key(2)).unwrap();

    assert_eq!(room.evict(ShardIndex(0), &budget(), 0), Some(Evicted::default()));
    assert_eq!(room.evict(ShardIndex(1), &budget(), 0), Some(Evicted { is_last: true, is_over: true }));
    assert_eq!(room.enter(ShardIndex(0), key(3)), None);
}

#[test]
fn the_room_without_a_name_is_never_over() {
    let (outlets, inboxes) = shards(1, Limits::default());
    let room = Room::new(None, 77, RoomOptions::default(), (&budget(), false, 0));
    room.enter(ShardIndex(0), key(1)).unwrap();

    assert_eq!(room.evict(ShardIndex(0), &budget(), 0), Some(Evicted { is_last: true, is_over: false }));
    assert_eq!(room.publish(&outlets, said(1), 0, 10), Ok(1), "to nobody");
    let position = StreamPosition { epoch: 77, offset: 1 };
    assert_eq!(room.enter(ShardIndex(0), key(2)), Some(Entered { position, is_first: true }));
    assert_eq!(received(&inboxes[0]), []);
}

fn budget() -> Budget {
    Budget::new(1 << 20)
}

fn served(bytes: usize) -> Served {
    Served { bytes, deliveries: 0 }
}

fn room() -> Room {
    Room::new(Some(RoomId::parse("lobby").unwrap()), 77, RoomOptions::default(), (&budget(), false, 0))
}

fn said(payload_bytes: usize) -> Said {
    let text = Text::Whole(PreparedMessage::text(&vec![b'x'; payload_bytes]));
    Said { text, key: None, exclude: None, source: Source::Client, read_at: 0 }
}

fn frame_bytes(payload_bytes: usize) -> usize {
    PreparedMessage::text(&vec![b'x'; payload_bytes]).frame().len()
}

fn key(number: u64) -> RoomKey {
    RoomKey::from(KeyData::from_ffi(1 << 32 | number))
}

fn shards(count: usize, limits: Limits) -> (Vec<Outlet>, Vec<Inbox>) {
    (0..count).map(|_| Inbox::pair(limits)).unzip()
}

fn received(inbox: &Inbox) -> Vec<(RoomKey, u64, Option<ClientKey>)> {
    let mut commands = VecDeque::new();
    inbox.take_all(&mut commands);
    let row = |command| match command {
        Command::Publish { room, publication } => (room, publication.offset, publication.exclude),
        other => panic!("not a publication: {other:?}"),
    };
    commands.into_iter().map(row).collect()
}
