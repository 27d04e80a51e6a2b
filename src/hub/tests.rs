use std::collections::{HashMap, VecDeque};
use std::thread;

use slotmap::KeyData;

use super::*;
use crate::id::ClientKey;
use crate::inbox::{Command, Inbox, Limits, Publication};

#[test]
fn publications_of_four_threads_enter_every_inbox_in_the_order_of_their_offsets() {
    const EACH: u64 = 2_000;
    let (hub, inboxes) = hub(4, roomy());
    let id = RoomId::parse("lobby").unwrap();
    let rooms: Vec<_> = (0..4).map(|index| hub.join(&id, ShardIndex(index), key(1)).0).collect();

    thread::scope(|scope| {
        for room in &rooms {
            let hub = &hub;
            scope.spawn(move || {
                let mut last = 0;
                for _ in 0..EACH {
                    let offset = hub.publish(room, said()).unwrap();
                    assert!(offset > last);
                    last = offset;
                }
            });
        }
    });

    for inbox in &inboxes {
        let offsets: Vec<_> = publications(inbox).map(|(_, publication)| publication.offset).collect();
        assert_eq!(offsets, (1..=EACH * 4).collect::<Vec<_>>());
    }
}

#[test]
fn a_user_never_has_more_connections_than_allowed_however_many_come_at_once_and_none_at_last() {
    let (outlets, _inboxes): (Vec<_>, Vec<_>) = (0..4).map(|_| Inbox::pair(roomy())).unzip();
    let options = Options { connections_per_user: 3, ..Options::default() };
    let hub = Hub::new(outlets, options, Clock::start());
    let user = UserId::from_u64(7);

    let let_in: usize = thread::scope(|scope| {
        let come_and_go = |shard| {
            let (hub, user) = (&hub, &user);
            move || {
                let once = |number| {
                    let address = address(shard, number);
                    let is_let_in = hub.connect(user, address);
                    assert!(hub.connections(user).len() <= 3);
                    // As a shard does, also for one that was closed at once.
                    hub.disconnect(user, address);
                    usize::from(is_let_in)
                };
                (1..=5_000).map(once).sum::<usize>()
            }
        };
        let threads: Vec<_> = (0..4).map(|shard| scope.spawn(come_and_go(shard))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });

    assert!(let_in > 0);
    assert_eq!(hub.users(), 0);
}

#[test]
fn what_is_published_while_a_shard_joins_is_in_its_position_or_its_inbox() {
    const JOINS: u64 = 2_000;
    let (hub, inboxes) = hub(2, roomy());
    let id = RoomId::from_u64(5);
    let (room, _) = hub.join(&id, ShardIndex(0), key(1));

    let stays = thread::scope(|scope| {
        let joiner = scope.spawn(|| {
            let stay = |number| {
                let (room, position) = hub.join(&id, ShardIndex(1), key(number));
                thread::yield_now();
                let until = room.position().offset;
                hub.leave(&room, ShardIndex(1));
                (key(number), position.offset, until)
            };
            (1..=JOINS).map(stay).collect::<Vec<_>>()
        });
        while !joiner.is_finished() {
            hub.publish(&room, said()).unwrap();
            let served = Served { bytes: message().frame().len(), deliveries: 0 };
            room.release(ShardIndex(0), key(1), served, 0);
        }
        joiner.join().unwrap()
    });

    let received = by_room(&inboxes[1]);
    for (key, position, until) in stays {
        let offsets = received.get(&key).map_or(&[][..], Vec::as_slice);
        let contiguous: Vec<_> = (position + 1..).take(offsets.len()).collect();
        assert_eq!(offsets, contiguous, "from the position on, without a hole or a repetition");
        assert!(position + offsets.len() as u64 >= until, "at least what was there when it left");
    }
}

#[test]
fn races_of_many_threads_on_few_rooms_leave_the_directory_empty_and_no_hole() {
    const SHARDS: u16 = 8;
    let (hub, inboxes) = hub(SHARDS, roomy());

    let stays: Vec<Vec<Stay>> = thread::scope(|scope| {
        let hub = &hub;
        let run = |shard| move || come_and_go(hub, ShardIndex(shard));
        let threads: Vec<_> = (0..SHARDS).map(|shard| scope.spawn(run(shard))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    assert_eq!((hub.rooms(), hub.users()), (0, 0));
    for (stays, inbox) in stays.iter().zip(&inboxes) {
        let received = by_room(inbox);
        for stay in stays {
            let offsets = received.get(&stay.key).map_or(&[][..], Vec::as_slice);
            let contiguous: Vec<_> = (stay.position.offset + 1..).take(offsets.len()).collect();
            assert_eq!(offsets, contiguous);
            assert!(stay.published.iter().all(|offset| offsets.contains(offset)), "its own among them");
        }
    }
    no_publication_has_the_place_of_another(&stays);
}

#[test]
fn a_room_that_begins_again_has_another_epoch() {
    let (hub, _inboxes) = hub(1, roomy());
    let id = RoomId::parse("lobby").unwrap();

    let (room, first) = hub.join(&id, ShardIndex(0), key(1));
    hub.publish(&room, said()).unwrap();
    hub.leave(&room, ShardIndex(0));
    let (_room, second) = hub.join(&id, ShardIndex(0), key(2));

    assert_ne!(first.epoch, second.epoch);
    assert_eq!(second.offset, 0);
    assert_eq!(hub.rooms(), 1);
}

#[test]
fn everyone_is_a_room_that_is_not_counted_and_outlives_its_members() {
    let (hub, inboxes) = hub(2, roomy());
    let (room, _) = hub.join_everyone(ShardIndex(1), key(1));

    assert_eq!(hub.publish(hub.everyone(), said()), Ok(1));
    assert_eq!(publications(&inboxes[0]).count(), 0);
    assert_eq!(publications(&inboxes[1]).count(), 1);
    assert_eq!(hub.rooms(), 0);

    hub.leave(&room, ShardIndex(1));
    let (_, position) = hub.join_everyone(ShardIndex(1), key(2));
    assert_eq!(position.offset, 1);
}

#[test]
fn a_direct_message_reaches_all_connections_of_the_user_by_one_command_per_shard() {
    let (hub, inboxes) = hub(3, roomy());
    let user = UserId::parse("ada").unwrap();
    for (shard, client) in [(0, 1), (2, 1), (0, 2), (2, 2), (0, 3)] {
        hub.connect(&user, address(shard, client));
    }
    hub.connect(&UserId::parse("bob").unwrap(), address(1, 9));

    assert_eq!(hub.direct(user.as_ref(), &message(), Source::Client, 7), Ok(5));

    assert_eq!(direct_clients(&inboxes[0]), [vec![client(1), client(2), client(3)]]);
    assert!(direct_clients(&inboxes[1]).is_empty());
    assert_eq!(direct_clients(&inboxes[2]), [vec![client(1), client(2)]]);
    assert_eq!(hub.direct(NameRef::Text("nobody"), &message(), Source::Client, 7), Ok(0));
}

#[test]
fn a_direct_message_reaches_nobody_when_one_inbox_is_full() {
    let (hub, inboxes) = hub(2, Limits { bytes: 1 << 20, items: 1 });
    let user = UserId::from_u64(7);
    hub.connect(&user, address(0, 1));
    hub.connect(&user, address(1, 1));
    let taken = hub.shards[1].reserve(1).unwrap();

    assert_eq!(hub.direct(user.as_ref(), &message(), Source::Client, 0), Err(Busy));

    assert!(direct_clients(&inboxes[0]).is_empty());
    drop(taken);
    assert_eq!(hub.direct(user.as_ref(), &message(), Source::Client, 0), Ok(2));
}

#[test]
fn a_loud_room_is_busy_while_others_are_not() {
    let (outlet, _inbox) = Inbox::pair(Limits::default());
    let frame = message().frame().len();
    let hub = Hub::new(
        vec![outlet],
        Options { room_pending_bytes: frame * 2, ..Options::default() },
        Clock::start(),
    );
    let (loud, _) = hub.join(&RoomId::from_u64(1), ShardIndex(0), key(1));
    let (calm, _) = hub.join(&RoomId::from_u64(2), ShardIndex(0), key(2));

    hub.publish(&loud, said()).unwrap();
    hub.publish(&loud, said()).unwrap();

    assert_eq!(hub.publish(&loud, said()), Err(Busy));
    assert_eq!(hub.publish(&calm, said()), Ok(1));
    loud.release(ShardIndex(0), key(1), Served { bytes: frame, deliveries: 0 }, 0);
    assert_eq!(hub.publish(&loud, said()), Ok(3));
}

/// One shard's time in a room.
struct Stay {
    id: RoomId,
    key: RoomKey,
    position: StreamPosition,
    /// The offsets of what it published itself.
    published: Vec<u64>,
}

/// Joins, publishes to and leaves three rooms, and connects and disconnects one user, again and again.
fn come_and_go(hub: &Hub, shard: ShardIndex) -> Vec<Stay> {
    let user = UserId::parse("ada").unwrap();
    let mut stays = Vec::new();
    for turn in 1..=1_000_u64 {
        let id = RoomId::from_u64((turn * 7 + u64::from(shard.0)) % 3);
        let address = address(shard.0, turn);
        hub.connect(&user, address);
        let (room, position) = hub.join(&id, shard, key(turn));
        let publish = |_| hub.publish(&room, said()).unwrap();
        let published = (0..turn % 4).map(publish).collect();
        assert!(hub.direct(user.as_ref(), &message(), Source::Client, 0).unwrap() >= 1);
        hub.leave(&room, shard);
        hub.disconnect(&user, address);
        stays.push(Stay { id, key: key(turn), position, published });
    }
    stays
}

fn no_publication_has_the_place_of_another(stays: &[Vec<Stay>]) {
    let places = stays
        .iter()
        .flatten()
        .flat_map(|stay| stay.published.iter().map(|offset| (stay.id.clone(), stay.position.epoch, *offset)));
    let mut places: Vec<_> = places.collect();
    let count = places.len();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), count);
}

#[test]
fn when_histories_take_too_much_the_rooms_that_were_quiet_longest_lose_theirs() {
    const LIMIT: usize = 64 << 10;
    let rule = Rule {
        pattern: "*".to_owned(),
        options: RoomOptions { history: Some(crate::history::Limits::default()), ..RoomOptions::default() },
    };
    let options = Options { history_bytes: LIMIT, rooms: Rules([rule].into()), ..Options::default() };
    let hub = Hub::new(Vec::new(), options, Clock::start());
    let said = |_: RoomOptions| {
        let text = Text::Numbered(crate::ws::Draft::new(&[b'x'; 900], b"}"));
        Said { text, ..said() }
    };
    let mut rooms = 0;
    while hub.budget().bytes() < LIMIT / 16 * 15 {
        rooms += 1;
        hub.publish_to(&RoomId::from_u64(rooms), said).unwrap();
    }
    let kept =
        |room| hub.existing(&RoomId::from_u64(room)).and_then(|room| room.kept()).unwrap_or_default().0;
    assert!((1..=rooms).all(|room| kept(room) == 1));

    hub.sweep();

    assert!(hub.budget().bytes() <= LIMIT / 16 * 14, "{}", hub.budget().bytes());
    let lost = (1..=rooms).take_while(|room| kept(*room) == 0).count();
    assert!((1..10).contains(&lost), "{lost} of {rooms}");
    assert!((lost as u64 + 1..=rooms).all(|room| kept(room) == 1), "the later ones lose nothing");
}

fn hub(shards: u16, limits: Limits) -> (Arc<Hub>, Vec<Inbox>) {
    let (outlets, inboxes) = (0..shards).map(|_| Inbox::pair(limits)).unzip();
    (
        Hub::new(outlets, Options { room_pending_bytes: 1 << 30, ..Options::default() }, Clock::start()),
        inboxes,
    )
}

/// Bounds that the tests of order do not reach.
fn roomy() -> Limits {
    Limits { bytes: 1 << 30, items: 1 << 24 }
}

fn said() -> Said {
    Said { text: Text::Whole(message()), key: None, exclude: None, source: Source::Client, read_at: 0 }
}

fn message() -> PreparedMessage {
    PreparedMessage::text(b"{}")
}

fn key(number: u64) -> RoomKey {
    KeyData::from_ffi(1 << 32 | number).into()
}

fn client(number: u64) -> ClientKey {
    KeyData::from_ffi(1 << 32 | number).into()
}

fn address(shard: u16, number: u64) -> Address {
    Address { shard: ShardIndex(shard), client: client(number) }
}

fn commands(inbox: &Inbox) -> VecDeque<Command> {
    let mut commands = VecDeque::new();
    inbox.take_all(&mut commands);
    commands
}

/// What is published, with direct messages left aside.
fn publications(inbox: &Inbox) -> impl Iterator<Item = (RoomKey, Publication)> {
    commands(inbox).into_iter().filter_map(|command| match command {
        Command::Publish { room, publication } => Some((room, publication)),
        _ => None,
    })
}

fn by_room(inbox: &Inbox) -> HashMap<RoomKey, Vec<u64>> {
    let mut rooms = HashMap::<_, Vec<_>>::new();
    for (room, publication) in publications(inbox) {
        rooms.entry(room).or_default().push(publication.offset);
    }
    rooms
}

fn direct_clients(inbox: &Inbox) -> Vec<Vec<ClientKey>> {
    let sorted = |command| match command {
        Command::Direct { clients, .. } => {
            let mut clients = clients.to_vec();
            clients.sort();
            clients
        }
        other => panic!("not a direct message: {other:?}"),
    };
    commands(inbox).into_iter().map(sorted).collect()
}
