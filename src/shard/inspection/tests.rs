use std::time::Duration;

use bytes::Bytes;
use metrics::Counter;

use super::super::backlog::Lane;
use super::super::tests::{World, counted, frame, masked};
use super::*;
use crate::id::{ClientId, RoomId};
use crate::inspect::{Event, Subject, TapReader, tap};
use crate::metrics::{CloseReason, CloseSent, ReceivedClose, RejectReason, Source};

const SECOND: u64 = 1_000_000_000;

/// A client whose socket took one byte of a message of so many characters.
fn stall(world: &mut World, user: &str, characters: usize) -> ClientKey {
    let client = world.enter(user);
    world.notices();
    let frames = frame(&"x".repeat(characters));
    world.shard.core.blocked(client, &frames, 1, Lane::Bulk, Some(Source::Client));
    client
}

#[test]
fn lists_the_clients_with_most_waiting_first_and_what_is_known_of_them() {
    let mut world = World::new();
    for (user, characters) in [("a", 100), ("b", 5000), ("c", 10), ("d", 300)] {
        stall(&mut world, user, characters);
    }
    world.enter("fast");

    let slowest = world.shard.core.connections(Which::Slowest(2));

    let users: Vec<_> = slowest.iter().map(|(_, connection)| connection.user.to_string()).collect();
    assert_eq!(users, ["b", "d"]);
    let queue = slowest[0].1.queue.unwrap();
    assert_eq!(world.shard.core.worst_queues().bytes, queue.bytes);
    assert_eq!((queue.bytes, queue.messages), (frame(&"x".repeat(5000)).len() - 1, 1));
    assert_eq!(world.shard.core.connections(Which::Slowest(10)).len(), 4, "who keeps up is not slow");
}

#[test]
fn counts_the_messages_that_wait_until_their_last_byte_is_taken() {
    let mut world = World::new();
    let ann = stall(&mut world, "ann", 100);
    let two = Bytes::from([&frame("1")[..], &frame("2")[..]].concat());
    world.shard.core.enqueue(ann, two.clone(), Lane::Bulk, Some(Source::Client));
    let waiting = world.waiting(ann);

    world.shard.core.drained(ann, waiting - two.len());
    assert_eq!(world.shard.core.counts.queues.messages, 2);
    world.shard.core.drained(ann, two.len() - 1);
    assert_eq!((world.shard.core.counts.queues.messages, world.shard.core.counts.queues.bytes), (1, 1));
    world.shard.core.drained(ann, 1);

    assert_eq!(world.shard.core.counts.queues.messages, 0);
    assert!(world.shard.core.backlogged.is_empty());
}

#[test]
fn a_client_is_slow_while_more_than_the_watermark_waits_for_it() {
    let mut world = World::new();
    let watermark = world.shard.core.options.watermark();
    let ann = stall(&mut world, "ann", watermark);
    let ben = stall(&mut world, "ben", 100);
    assert_eq!((world.shard.core.counts.queues.slow, world.shard.core.backlogged.len()), (1, 2));

    let waiting = world.waiting(ann);
    world.shard.core.drained(ann, waiting - watermark);
    assert_eq!(world.shard.core.counts.queues.slow, 0);
    world.shard.core.enqueue(ben, frame(&"x".repeat(watermark)), Lane::Bulk, None);

    assert_eq!(world.shard.core.counts.queues.slow, 1);
}

#[test]
fn the_stall_of_a_client_shows_as_its_own_wait_and_as_the_age_of_the_oldest() {
    let mut world = World::new();
    world.tick(Duration::from_secs(10));
    let ann = stall(&mut world, "ann", 100);
    world.tick(Duration::from_secs(12));
    world.shard.core.enqueue(ann, frame("later"), Lane::Bulk, Some(Source::Client));
    world.shard.core.enqueue(ann, frame("a reply"), Lane::Control, None);
    world.tick(Duration::from_secs(13));
    assert_eq!(world.shard.core.worst_queues().oldest_at, Some(10 * SECOND));
    let queue = world.shard.core.connections(Which::Keys(vec![ann]))[0].1.queue.unwrap();
    assert!((queue.oldest_seconds - 3.0).abs() < 1e-9);

    let waiting = world.waiting(ann);
    world.shard.core.drained(ann, waiting);

    let waits = &world.shard.core.counts.samples.client_queue[Source::Client];
    assert_eq!((waits.count(), waits.sum()), (2, (3 + 1) * SECOND), "of what somebody said, not of replies");
    assert_eq!(world.shard.core.worst_queues().oldest_at, None);
}

#[test]
fn finds_a_connection_by_its_number() {
    let mut world = World::new();
    let (ann, _ben) = (world.enter("ann"), world.enter("ben"));
    world.say(ann, r#"{"type":"join","room_id":5}"#);
    world.say(ann, r#"{"type":"join","room_id":"lobby"}"#);

    let found = world.shard.core.connections(Which::Client(ClientId(1)));

    let (key, connection) = &found[0];
    assert_eq!((*key, connection.user.to_string().as_str()), (ann, "ann"));
    assert_eq!(connection.rooms, [RoomId::from_u64(5), RoomId::parse("lobby").unwrap()]);
    assert_eq!((connection.rooms_total, connection.queue, connection.is_closing), (2, None, false));
    assert!(world.shard.core.connections(Which::Client(ClientId(99))).is_empty());
}

#[test]
fn remembers_why_connections_ended_the_latest_first() {
    let mut world = World::new();
    let slow = stall(&mut world, "slow", 1000);
    let rude = world.enter("rude");
    let polite = world.enter("polite");
    let torn = world.enter("torn");
    world.shard.core.overflow(slow, "too much was waiting to be read");
    world.receive(rude, &[0x81, 1, b'x']);
    world.receive(polite, &masked(0x88, &4321_u16.to_be_bytes()));
    world.shard.core.lost(torn, CloseReason::IoError);

    let closed = world.shard.core.closed(3);

    let told: Vec<_> =
        closed.iter().map(|closed| (closed.user.to_string(), closed.reason, closed.code)).collect();
    let expected = [
        ("torn", CloseReason::IoError, None),
        ("polite", CloseReason::Client, None),
        ("rude", CloseReason::ProtocolError, Some(1002)),
    ];
    assert_eq!(told, expected.map(|(user, reason, code)| (user.to_owned(), reason, code)));
    assert!(closed[1].detail.contains("4321"), "{}", closed[1].detail);
    let of_slow = world.shard.core.closed(4).pop().unwrap();
    assert_eq!(of_slow.queue.unwrap().messages, 1, "as it was before it was let go");
    let counts = &mut world.shard.core.counts;
    let sent = [(CloseSent::ProtocolError, 1), (CloseSent::SlowConsumer, 1), (CloseSent::Reply, 1)];
    assert_eq!(counted(&mut counts.close_sent), sent);
    assert_eq!(counted(&mut counts.close_received), [(ReceivedClose::Application, 1)]);
    assert_eq!(counts.samples.connection_duration.count(), 4);
}

#[test]
fn remembers_a_bounded_number_and_shows_each_to_the_driver_once() {
    let mut world = World::new();
    for number in 0..300 {
        let client = world.enter(&format!("user-{number}"));
        world.shard.core.lost(client, CloseReason::Client);
        if number == 9 {
            assert_eq!(world.shard.core.farewells.take_fresh().count(), 10);
        }
    }
    assert_eq!(world.shard.core.farewells.take_fresh().count(), 256);
    assert_eq!(world.shard.core.farewells.take_fresh().count(), 0);
    let closed = world.shard.core.closed(1000);
    assert_eq!((closed.len(), closed[0].user.to_string()), (256, "user-299".to_owned()));
}

#[test]
fn requests_that_are_refused_are_counted_by_the_code_of_their_error() {
    let mut world = World::new();
    let ann = world.enter("ann");
    for text in [
        "nonsense",
        r#"{"type":"message","room_id":5,"content":"x"}"#,
        r#"{"type":"leave","room_id":5}"#,
        r#"{"type":"dance"}"#,
        r#"{"type":"join"}"#,
        r#"{"type":"ping"}"#,
    ] {
        world.say(ann, text);
    }
    let expected = [
        (RejectReason::BadMessage, 1),
        (RejectReason::UnknownType, 1),
        (RejectReason::MissingField, 1),
        (RejectReason::NotAMember, 2),
    ];
    assert_eq!(counted(&mut world.shard.core.counts.rejected), expected);
}

/// Publishes in rooms as `load` says: how many messages of how many bytes to each.
fn publish(world: &mut World, client: ClientKey, load: impl Iterator<Item = (usize, usize, usize)>) {
    for (room, messages, bytes) in load {
        for _ in 0..messages {
            let content = "x".repeat(bytes);
            world.say(client, &format!(r#"{{"type":"message","room_id":{room},"content":"{content}"}}"#));
        }
        world.deliver();
    }
}

fn all_rooms(core: &Core, limit: usize) -> Vec<Room> {
    let mut scan = RoomScan::new(core, limit, core.time);
    loop {
        if let Some(found) = scan.step(core) {
            return found;
        }
    }
}

#[test]
fn the_hottest_of_very_many_rooms_are_found_by_each_measure() {
    let mut world = World::new();
    let rooms = 100_000;
    let clients: Vec<_> = (0..rooms / 100).map(|number| world.enter(&format!("user-{number}"))).collect();
    for room in 0..rooms {
        world.say(clients[room / 100], &format!(r#"{{"type":"join","room_id":{room}}}"#));
    }
    // Every room says something; few say a little more, or something longer.
    for (index, client) in clients.iter().enumerate() {
        let load = (100 * index..100 * index + 100).map(|room| match room % 9973 {
            3 => (room, 3, 10),
            7 => (room, 1, 500),
            _ => (room, 1, 1),
        });
        publish(&mut world, *client, load);
    }

    let found = all_rooms(&world.shard.core, 11);

    let number = |room: &Room| room.room.as_ref().unwrap().to_string().parse::<usize>().unwrap();
    let by_messages = found.iter().filter(|room| room.messages == 3).map(number);
    let by_bytes = found.iter().filter(|room| room.bytes > 500).map(number);
    let sorted = |rooms: Vec<usize>| {
        let mut rooms = rooms;
        rooms.sort_unstable();
        rooms
    };
    assert_eq!(
        sorted(by_messages.collect()),
        (0..11).map(|n| n * 9973 + 3).filter(|n| *n < rooms).collect::<Vec<_>>()
    );
    assert_eq!(
        sorted(by_bytes.collect()),
        (0..11).map(|n| n * 9973 + 7).filter(|n| *n < rooms).collect::<Vec<_>>()
    );
    assert!(found.len() <= 44);
}

#[test]
fn each_shard_knows_how_hot_a_room_is_everywhere_whoever_has_left_it() {
    let [mut here, mut there] = World::pair();
    let ann = here.enter("ann");
    for room in 0..10 {
        here.say(ann, &format!(r#"{{"type":"join","room_id":{room}}}"#));
    }
    let few: Vec<_> = (0..3).map(|number| there.enter(&format!("user-{number}"))).collect();
    for client in &few {
        there.say(*client, r#"{"type":"join","room_id":7}"#);
    }
    publish(&mut here, ann, (0..10).map(|room| (room, if room == 7 { 2 } else { 5 }, 1)));
    there.deliver();

    let found = all_rooms(&here.shard.core, 1);
    let seven = |world: &World| {
        world
            .shard
            .core
            .rooms_named(&[Some(RoomId::from_u64(7))], 0)
            .pop()
            .map(|room| (room.messages, room.deliveries))
    };

    assert!(
        found.iter().any(|room| room.room == Some(RoomId::from_u64(7))),
        "its members are mostly elsewhere"
    );
    assert_eq!((seven(&here), seven(&there)), (Some((2, 8)), Some((2, 8))));
    for client in few {
        there.leave(client);
    }
    assert_eq!((seven(&here), seven(&there)), (Some((2, 8)), None));
}

#[test]
fn a_room_is_not_missed_when_others_end_during_the_look() {
    let mut world = World::new();
    let (ann, ben) = (world.enter("ann"), world.enter("ben"));
    let rooms = 100 + RoomScan::STEP;
    world.shard.core.options = {
        let mut options = super::super::Options::clone(&world.shard.core.options);
        options.session.rooms = usize::MAX;
        options.into()
    };
    for room in 0..rooms {
        let member = if room % 2 == 0 { ann } else { ben };
        world.say(member, &format!(r#"{{"type":"join","room_id":{room}}}"#));
    }
    let last = rooms - 1;
    publish(&mut world, ben, [(1, 5, 1), (last, 4, 1), (3, 3, 1)].into_iter());

    let mut scan = RoomScan::new(&world.shard.core, 3, 0);
    assert_eq!(scan.step(&world.shard.core), None);
    // The room at the end, which was looked at, takes the place of one that was not.
    world.say(ann, r#"{"type":"leave","room_id":0}"#);
    let found = scan.step(&world.shard.core).unwrap();

    let mut messages: Vec<_> = found.iter().map(|room| room.messages).collect();
    messages.sort_unstable();
    assert_eq!(messages, [3, 4, 5], "each once");
}

#[test]
fn a_room_tells_how_old_its_oldest_message_under_way_is() {
    let mut world = World::new();
    let (ann, ben) = (world.enter("ann"), world.enter("ben"));
    for client in [ann, ben] {
        world.say(client, r#"{"type":"join","room_id":5}"#);
    }
    world.tick(Duration::from_secs(10));
    world.say(ann, r#"{"type":"message","room_id":5,"content":"x"}"#);
    world.apply();
    world.tick(Duration::from_secs(13));
    let age = |world: &World| all_rooms(&world.shard.core, 1)[0].queue_age_seconds;
    assert!((age(&world) - 3.0).abs() < 1e-9);
    world.deliver();
    world.tick(Duration::from_secs(14));
    assert!((age(&world) - 3.0).abs() < 1e-9, "as it was at most lately");
    world.tick(Duration::from_secs(44));
    assert!(age(&world) < 2.0);
}

fn events(reader: &mut TapReader) -> Vec<Event> {
    std::iter::from_fn(|| reader.try_next().map(|tapped| tapped.event)).collect()
}

#[test]
fn a_tapped_room_shows_who_comes_and_goes_and_what_is_said() {
    let mut world = World::new();
    let (ann, ben) = (world.enter("ann"), world.enter("ben"));
    let (shown, mut reader) = tap(Subject::Room(Some(RoomId::from_u64(5))), Counter::noop());
    world.shard.core.add_tap(shown);
    world.say(ann, r#"{"type":"join","room_id":5}"#);
    world.say(ben, r#"{"type":"join","room_id":6}"#);
    world.say(ben, r#"{"type":"message","room_id":6,"content":"elsewhere"}"#);
    world.say(ann, r#"{"type":"message","room_id":5,"content":"hello"}"#);
    world.deliver();
    world.say(ann, r#"{"type":"leave","room_id":5}"#);
    world.say(ben, r#"{"type":"join","room_id":5}"#);

    let shown = events(&mut reader);

    let names: Vec<_> =
        shown.iter().map(|event| serde_json::to_value(event).unwrap()["event"].clone()).collect();
    assert_eq!(names, ["tapped", "joined", "message", "delivered", "left", "joined"]);
    let Event::Message { offset: 1, members: 1, text, .. } = &shown[2] else { panic!("{shown:?}") };
    assert!(text.contains(r#""content":"hello""#), "{text}");

    let (shown, mut reader) = tap(Subject::Room(None), Counter::noop());
    world.shard.core.add_tap(shown);
    world.enter("cat");
    let shown = events(&mut reader);
    assert!(matches!(&shown[..], [Event::Tapped { members: 2 }, Event::Joined { .. }]), "{shown:?}");
}

#[test]
fn a_tapped_connection_shows_what_it_says_and_is_given_until_it_ends() {
    let mut world = World::new();
    let ann = world.enter("ann");
    world.notices();
    let (shown, mut reader) = tap(Subject::Connection(ClientId(1)), Counter::noop());
    world.shard.core.add_tap(shown);
    world.say(ann, r#"{"type":"join","room_id":5}"#);
    world.say(ann, r#"{"type":"message","room_id":5,"content":"x"}"#);
    world.deliver();
    let frames = frame("x");
    world.shard.core.blocked(ann, &frames, 1, Lane::Bulk, None);
    world.shard.core.drained(ann, frames.len() - 1);
    world.shard.core.lost(ann, CloseReason::Client);

    let shown = events(&mut reader);

    let names: Vec<_> =
        shown.iter().map(|event| serde_json::to_value(event).unwrap()["event"].clone()).collect();
    assert_eq!(names, ["tapped", "received", "received", "sent", "blocked", "drained", "closed"]);
    assert!(world.shard.core.taps.is_empty(), "it ends with its subject");
}

#[test]
fn a_tap_on_a_connection_that_is_not_here_is_not_kept() {
    let mut world = World::new();
    let (shown, reader) = tap(Subject::Connection(ClientId(9)), Counter::noop());
    world.shard.core.add_tap(shown);
    assert!(world.shard.core.taps.is_empty());

    let (shown, gone) = tap(Subject::Room(Some(RoomId::from_u64(5))), Counter::noop());
    world.shard.core.add_tap(shown);
    drop((reader, gone));
    world.shard.core.taps.prune();

    assert!(world.shard.core.taps.is_empty(), "nor one that nobody looks at");
}
