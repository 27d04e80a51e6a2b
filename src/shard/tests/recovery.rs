//! Clients that come back and want what they missed, and those that look back.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use crate::history;
use crate::hub::{OnOverflow, PresenceMode, RoomOptions, Rule, Rules};
use crate::ws::{Inflater, message_payloads};

use super::wires::Wires;
use super::*;

#[test]
fn who_comes_back_gets_exactly_what_was_missed_behind_the_answer_and_then_what_is_live() {
    let mut room = Chat::new(history::Limits::default());
    let (ann, ben) = (room.join("ann"), room.join("ben"));
    room.publish(ann, 2);
    room.line.world.leave(ben);
    room.publish(ann, 3);

    let ben = room.come_back("ben", 2);
    room.publish(ann, 1);

    let heard = room.heard(ben);
    assert_eq!(heard[0]["recovered"], true);
    assert_eq!(heard[0]["offset"], 5);
    assert_eq!(offsets(&heard), [3, 4, 5, 6]);
}

#[test]
fn nothing_of_the_old_comes_when_some_of_it_is_gone_or_was_never_there() {
    let mut room = Chat::new(history::Limits { messages: 3, ..history::Limits::default() });
    let ann = room.join("ann");
    room.publish(ann, 10);
    let epoch = room.epoch.clone();
    let join = |epoch: &str, offset: u64| {
        format!(
            r#"{{"type":"join","room_id":"chat","id":1,"recover":{{"epoch":"{epoch}","offset":{offset}}}}}"#
        )
    };
    for (epoch, offset, is_recovered, missed) in [
        (&*epoch, 6, false, 0),
        (&*epoch, 7, true, 3),
        (&*epoch, 10, true, 0),
        (&*epoch, 11, false, 0),
        (&*epoch, u64::MAX, false, 0),
        ("0000000000000000", 10, false, 0),
        ("", 10, false, 0),
        (&*format!("+{}", &epoch[1..]), 10, false, 0),
    ] {
        let ben = room.enter("ben");
        room.line.say(ben, &join(epoch, offset));
        room.line.turn();
        let heard = room.heard(ben);
        assert_eq!(heard[0]["recovered"], is_recovered, "{epoch} {offset}");
        assert_eq!(offsets(&heard).len(), missed, "{epoch} {offset}");
        room.line.world.leave(ben);
    }
}

#[test]
fn who_leaves_while_it_catches_up_and_joins_again_hears_nothing_twice() {
    let mut room = Chat::new(history::Limits::default());
    let (ann, ben) = (room.join("ann"), room.enter("ben"));
    room.publish(ann, 5);
    let join =
        format!(r#"{{"type":"join","room_id":"chat","recover":{{"epoch":"{}","offset":2}}}}"#, room.epoch);
    let leave = r#"{"type":"leave","room_id":"chat"}"#;
    for text in [&*join, leave, &*join, leave, r#"{"type":"join","room_id":"chat"}"#] {
        room.line.say(ben, text);
    }
    room.publish(ann, 2);
    assert_eq!(offsets(&room.heard(ben)), [6, 7]);
    room.line.say(ben, leave);
    room.line.say(ben, &join);
    room.publish(ann, 1);
    assert_eq!(offsets(&room.heard(ben)), [6, 7, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_history_that_is_taken_away_is_told_of_and_one_that_comes_back_has_no_hole() {
    let mut room =
        Chat::new(history::Limits { messages: 5000, bytes: 16 << 20, ..history::Limits::default() });
    let ann = room.join("ann");
    room.publish(ann, 2000);
    let ben = room.enter_slowly("ben");
    let recover = format!(r#""recover":{{"epoch":"{}","offset":0}}"#, room.epoch);
    room.line.say(ben, &format!(r#"{{"type":"join","room_id":"chat",{recover}}}"#));
    room.line.turn();
    let hub = Arc::clone(&room.line.world.hub);
    let rules = |options| Rules(Arc::new([Rule { pattern: "chat".to_owned(), options }]));

    hub.set_rules(rules(RoomOptions::default()));
    room.publish(ann, 3);
    hub.set_rules(rules(Chat::options(history::Limits::default())));
    room.publish(ann, 3);
    for _ in 0..20 {
        room.line.allow(ben, 50_000);
        room.line.turn();
    }

    let heard = room.heard(ben);
    let gap = heard.iter().find(|message| message["type"] == "gap").unwrap();
    assert_eq!((&gap["reason"], gap["to_offset"].as_u64().unwrap()), (&Value::from("history"), 2003));
    let first_missing = gap["from_offset"].as_u64().unwrap();
    assert_eq!(offsets(&heard), (1..first_missing).chain(2004..=2006).collect::<Vec<_>>());
    let cat = room.come_back("cat", 2003);
    assert_eq!(offsets(&room.heard(cat)), [2004, 2005, 2006]);
}

#[test]
fn the_last_few_come_to_who_asks_for_them_and_joining_again_brings_nothing() {
    let mut room = Chat::new(history::Limits::default());
    let ann = room.join("ann");
    room.publish(ann, 5);
    let ben = room.enter("ben");
    for _ in 0..2 {
        room.line.say(ben, r#"{"type":"join","room_id":"chat","history":2}"#);
        room.line.turn();
    }
    assert_eq!(offsets(&room.heard(ben)), [4, 5]);
}

#[test]
fn a_room_without_a_history_says_so_unless_nothing_was_missed() {
    let mut world = World::new();
    let ann = world.enter("ann");
    world.say(ann, r#"{"type":"join","room_id":"plain"}"#);
    world.say(ann, r#"{"type":"message","room_id":"plain","content":"x"}"#);
    let ben = world.enter("ben");
    let ack = world.replies(ben, r#"{"type":"join","room_id":"plain","id":1}"#);
    let epoch = ack.split(r#""epoch":""#).nth(1).unwrap()[..16].to_owned();
    for (offset, is_recovered) in [(0, false), (1, true)] {
        let cat = world.enter("cat");
        let recover = format!(r#""recover":{{"epoch":"{epoch}","offset":{offset}}}"#);
        let ack = world.replies(cat, &format!(r#"{{"type":"join","room_id":"plain","id":1,{recover}}}"#));
        assert!(ack.contains(&format!(r#""recovered":{is_recovered}"#)), "{ack}");
    }
    let answer = world.replies(ben, r#"{"type":"history","room_id":"plain"}"#);
    assert!(answer.contains(r#""code":"unavailable""#), "{answer}");
}

#[test]
fn who_is_slow_to_take_what_it_missed_holds_no_memory_and_is_told_what_is_forgotten_meanwhile() {
    let mut room =
        Chat::new(history::Limits { messages: 5000, bytes: 16 << 20, ..history::Limits::default() });
    Arc::make_mut(&mut room.line.world.shard.core.options).outbound_bytes = 256 << 10;
    let ann = room.join("ann");
    room.publish(ann, 5000);
    let ben = room.enter_slowly("ben");
    let recover = format!(r#""recover":{{"epoch":"{}","offset":0}}"#, room.epoch);
    room.line.say(ben, &format!(r#"{{"type":"join","room_id":"chat","id":1,{recover}}}"#));
    room.publish(ann, 4000);
    assert!(room.line.world.waiting(ben) <= 65 << 10, "{}", room.line.world.waiting(ben));

    for _ in 0..50 {
        room.line.allow(ben, 50_000);
        room.line.turn();
    }

    let heard = room.heard(ben);
    let gaps: Vec<_> = heard.iter().filter(|message| message["type"] == "gap").collect();
    assert_eq!((gaps.len(), &gaps[0]["reason"]), (1, &Value::from("history")));
    let (from, to) = (gaps[0]["from_offset"].as_u64().unwrap(), gaps[0]["to_offset"].as_u64().unwrap());
    assert_eq!(to, 4000);
    assert_eq!(offsets(&heard), (1..from).chain(to + 1..=9000).collect::<Vec<_>>());
    assert!(room.line.world.shard.core.clients[ben].is_open());
}

#[test]
fn looking_back_is_by_pages_and_says_what_is_missing() {
    let mut room = Chat::new(history::Limits { messages: 10, ..history::Limits::default() });
    let ann = room.join("ann");
    room.publish(ann, 20);
    let epoch = room.epoch.clone();
    let ask = |room: &mut Chat, rest: &str| {
        let text = format!(r#"{{"type":"history","room_id":"chat","id":1{rest}}}"#);
        let frames = room.line.world.raw_replies(ann, &text);
        let (_, payload) = message_payloads(&frames).next().unwrap();
        let answer: Value = serde_json::from_slice(payload).unwrap();
        assert_eq!((&answer["epoch"], &answer["offset"]), (&Value::from(&*epoch), &Value::from(20)));
        let offsets: Vec<_> = answer["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["offset"].as_u64().unwrap())
            .collect();
        (offsets, answer["complete"].as_bool().unwrap())
    };
    let since = |offset: u64| format!(r#","since":{{"epoch":"{epoch}","offset":{offset}}}"#);

    assert_eq!(ask(&mut room, r#","limit":3"#), (vec![18, 19, 20], true));
    assert_eq!(ask(&mut room, ""), ((11..=20).collect(), true));
    assert_eq!(ask(&mut room, &(since(12) + r#","limit":2"#)), (vec![13, 14], true));
    assert_eq!(ask(&mut room, &since(20)), (vec![], true));
    assert_eq!(ask(&mut room, &(since(5) + r#","limit":2"#)), (vec![11, 12], false));
    assert_eq!(ask(&mut room, r#","since":{"epoch":"x","offset":0},"limit":1"#), (vec![11], false));
    assert_eq!(ask(&mut room, r#","limit":0"#), (vec![], true));
}

#[test]
fn who_is_there_is_told_to_members_and_to_those_who_may_join() {
    let mut room = Chat::new(history::Limits::default());
    let ann = room.join("ann");
    room.join("ben");
    room.join("ben");
    let answer = room.line.world.replies(ann, r#"{"type":"presence","room_id":"chat","id":1}"#);
    let members = r#""users":2,"connections":3,"members":[{"user":"ann","connections":1},{"user":"ben","connections":2}]"#;
    assert!(answer.contains(members), "{answer}");
    let answer = room.line.world.replies(ann, r#"{"type":"presence","room_id":"chat","limit":1}"#);
    assert!(answer.contains(r#""next":"ann""#), "{answer}");
    let answer = room.line.world.replies(ann, r#"{"type":"presence","room_id":"chat","after":"ann"}"#);
    assert!(answer.contains(r#""members":[{"user":"ben","connections":2}]"#), "{answer}");
    let answer = room.line.world.replies(ann, r#"{"type":"presence","room_id":"elsewhere"}"#);
    assert!(answer.contains("unavailable"), "{answer}");
}

#[test]
fn after_a_panic_nobody_of_the_shard_is_there_and_what_was_said_is() {
    let [mut one, mut other] = Chat::pair(Chat::options(history::Limits::default()));
    let (ann, ben) = (one.join("ann"), other.join("ben"));
    one.publish(ann, 3);
    let cat = one.enter_slowly("cat");
    let recover = format!(r#""recover":{{"epoch":"{}","offset":0}}"#, one.epoch);
    one.line.say(cat, &format!(r#"{{"type":"join","room_id":"chat",{recover}}}"#));

    one.line.world.shard.restart();
    one.line.turn();

    let answer = other.line.world.replies(ben, r#"{"type":"presence","room_id":"chat"}"#);
    assert!(answer.contains(r#""users":1,"connections":1,"members":[{"user":"ben""#), "{answer}");
    let ann = one.come_back("ann", 1);
    assert_eq!(offsets(&one.heard(ann)), [2, 3]);
}

#[test]
fn rooms_with_made_up_names_take_nothing_from_what_is_kept() {
    let options = hub::Options {
        history_bytes: 64 << 10,
        ..Chat::hub_options(Chat::options(history::Limits::default()))
    };
    let rule = Rule { pattern: "*".to_owned(), options: Chat::options(history::Limits::default()) };
    let mut room = Chat::of(World::with(hub::Options { rooms: Rules(Arc::new([rule])), ..options }));
    let ann = room.join("ann");
    room.publish(ann, 3);
    room.line.world.leave(ann);
    let ben = room.enter("ben");
    for number in 0..1000 {
        room.line.say(ben, &format!(r#"{{"type":"history","room_id":{number}}}"#));
        room.line.say(ben, &format!(r#"{{"type":"presence","room_id":{number}}}"#));
        room.line.say(ben, &format!(r#"{{"type":"join","room_id":{number}}}"#));
        room.line.say(ben, &format!(r#"{{"type":"leave","room_id":{number}}}"#));
    }
    let hub = Arc::clone(&room.line.world.hub);
    hub.sweep();

    assert_eq!(hub.budget().messages(), 3);
    assert!(hub.budget().bytes() < 18 << 10, "{} bytes", hub.budget().bytes());
}

#[test]
fn a_room_is_kept_for_its_history_and_forgotten_with_it() {
    let mut room = Chat::new(history::Limits::default());
    let ann = room.join("ann");
    room.publish(ann, 3);
    room.line.world.leave(ann);
    let hub = Arc::clone(&room.line.world.hub);
    assert_eq!((hub.rooms(), hub.budget().messages()), (0, 3));
    hub.sweep();

    let ben = room.come_back("ben", 1);
    assert_eq!(offsets(&room.heard(ben)), [2, 3]);
    assert_eq!(hub.rooms(), 1);
}

proptest! {
    /// One reader is cut off again and again at any place, on either of two shards, plain or compressed, with a socket that takes
    /// any number of bytes, while others go on talking.
    #[test]
    fn over_all_its_connections_a_reader_hears_each_message_once_and_in_order(
        steps in prop::collection::vec((0..8_u8, 0..2_usize, 0..4000_usize), 1..80),
        is_compressed: bool,
        overflow in prop::sample::select(vec![OnOverflow::Disconnect, OnOverflow::DropOldest]),
    ) {
        let options = RoomOptions { overflow, ..Chat::options(history::Limits::default()) };
        let [mut one, mut other] = Chat::pair(options);
        for room in [&mut one, &mut other] {
            Arc::make_mut(&mut room.line.world.shard.core.options).outbound_bytes = 3 << 10;
        }
        let mut rooms = [one, other];
        let writers = [rooms[0].join("ann"), rooms[1].join("ann")];
        let mut epoch = rooms[0].epoch.clone();
        let (mut position, mut heard) = (0_u64, Vec::new());
        let mut reader: Option<(usize, ClientKey)> = None;
        let mut published = 0;
        let mut cut = |rooms: &mut [Chat; 2], reader: &mut Option<(usize, ClientKey)>, position: &mut u64| {
            let Some((shard, key)) = reader.take() else { return };
            for message in rooms[shard].heard(key) {
                let (from, to) = match message["type"].as_str() {
                    Some("message") => (message["offset"].as_u64(), message["offset"].as_u64()),
                    Some("gap") => (message["from_offset"].as_u64(), message["to_offset"].as_u64()),
                    _ => {
                        if let Some(of) = message["epoch"].as_str() {
                            of.clone_into(&mut epoch);
                        }
                        continue;
                    }
                };
                heard.push((from.unwrap(), to.unwrap()));
                *position = to.unwrap();
            }
            rooms[shard].line.world.leave(key);
        };
        for (what, shard, bytes) in steps {
            match what {
                0 => cut(&mut rooms, &mut reader, &mut position),
                1 if reader.is_none() => {
                    let room = &mut rooms[shard];
                    let key = room.enter_as("ben", is_compressed);
                    let recover = format!(r#""recover":{{"epoch":"{}","offset":{position}}}"#, room.epoch);
                    room.line.say(key, &format!(r#"{{"type":"join","room_id":"chat","id":1,{recover}}}"#));
                    reader = Some((shard, key));
                }
                2 => if let Some((shard, key)) = reader {
                    rooms[shard].line.allow(key, bytes);
                },
                3 => rooms[shard].line.turn(),
                4 => if let Some((shard, key)) = reader {
                    // Out and in again in one breath, with what it can know to have: nothing may come twice.
                    rooms[shard].line.allow(key, usize::MAX / 8);
                    rooms[shard].line.say(key, r#"{"type":"leave","room_id":"chat","id":2}"#);
                    let known = rooms[shard].known(key).unwrap_or(position);
                    let recover = format!(r#""recover":{{"epoch":"{}","offset":{known}}}"#, rooms[shard].epoch);
                    rooms[shard].line.say(key, &format!(r#"{{"type":"join","room_id":"chat","id":1,{recover}}}"#));
                },
                _ => {
                    published += 1;
                    rooms[shard].say(writers[shard]);
                }
            }
        }
        for _ in 0..3 {
            // The last one takes everything; one that was too slow was closed, and comes back.
            cut(&mut rooms, &mut reader, &mut position);
            let key = rooms[0].enter_as("ben", is_compressed);
            let recover = format!(r#""recover":{{"epoch":"{}","offset":{position}}}"#, rooms[0].epoch);
            rooms[0].line.say(key, &format!(r#"{{"type":"join","room_id":"chat","id":1,{recover}}}"#));
            reader = Some((0, key));
            for _ in 0..4 {
                rooms[0].line.allow(key, usize::MAX / 8);
                rooms[0].line.turn();
            }
        }
        cut(&mut rooms, &mut reader, &mut position);
        let mut next = 1;
        for (from, to) in heard {
            prop_assert_eq!(from, next);
            next = to + 1;
        }
        prop_assert_eq!(next, published + 1);
    }
}

/// One room with a history, and its members.
struct Chat {
    line: Wires,
    epoch: String,
}

impl Chat {
    fn options(limits: history::Limits) -> RoomOptions {
        RoomOptions { history: Some(limits), presence: PresenceMode::List, ..RoomOptions::default() }
    }

    fn hub_options(options: RoomOptions) -> hub::Options {
        let rooms = Rules(Arc::new([Rule { pattern: "chat".to_owned(), options }]));
        hub::Options { rooms, ..hub::Options::default() }
    }

    fn new(limits: history::Limits) -> Self {
        Self::of(World::with(Self::hub_options(Self::options(limits))))
    }

    fn pair(options: RoomOptions) -> [Self; 2] {
        World::pair_with(Self::hub_options(options)).map(Self::of)
    }

    fn of(world: World) -> Self {
        let room = world.hub.room(&crate::id::RoomId::parse("chat").unwrap()).unwrap();
        let epoch = format!("{:016x}", room.epoch());
        Self { line: Wires::of(world), epoch }
    }

    /// A client that takes everything at once.
    fn enter(&mut self, user: &str) -> ClientKey {
        let client = self.enter_slowly(user);
        self.line.allow(client, usize::MAX / 2);
        client
    }

    fn enter_slowly(&mut self, user: &str) -> ClientKey {
        self.enter_as(user, false)
    }

    fn enter_as(&mut self, user: &str, is_compressed: bool) -> ClientKey {
        let client = if is_compressed {
            self.line.world.enter_compressed(user, crate::http::Endpoint::Ws)
        } else {
            self.line.world.enter(user)
        };
        // Its welcome is no matter here.
        self.line.turn();
        self.line.plug_in(client);
        client
    }

    fn join(&mut self, user: &str) -> ClientKey {
        let client = self.enter(user);
        self.line.say(client, r#"{"type":"join","room_id":"chat"}"#);
        client
    }

    fn come_back(&mut self, user: &str, offset: u64) -> ClientKey {
        let client = self.enter(user);
        let recover = format!(r#""recover":{{"epoch":"{}","offset":{offset}}}"#, self.epoch);
        self.line.say(client, &format!(r#"{{"type":"join","room_id":"chat","id":1,{recover}}}"#));
        self.line.turn();
        client
    }

    fn say(&mut self, from: ClientKey) {
        let content = "x".repeat(100);
        self.line.say(from, &format!(r#"{{"type":"message","room_id":"chat","content":"{content}"}}"#));
    }

    fn publish(&mut self, from: ClientKey, count: usize) {
        for _ in 0..count {
            self.say(from);
            self.line.turn();
        }
    }

    /// The last offset that a client has heard of, by a message or a gap.
    fn known(&self, client: ClientKey) -> Option<u64> {
        self.heard(client).iter().rev().find_map(|message| match message["type"].as_str() {
            Some("message") => message["offset"].as_u64(),
            Some("gap") => message["to_offset"].as_u64(),
            _ => None,
        })
    }

    /// All messages that a client has read to their end.
    fn heard(&self, client: ClientKey) -> Vec<Value> {
        let mut inflater = Inflater::default();
        let bytes = self.line.bytes(client);
        message_payloads(bytes)
            .filter_map(|(is_compressed, payload)| {
                let text =
                    if is_compressed { inflater.inflate(payload, 1 << 20).ok()? } else { payload.to_vec() };
                serde_json::from_slice(&text).ok()
            })
            .collect()
    }
}

fn offsets(heard: &[Value]) -> Vec<u64> {
    let messages = heard.iter().filter(|message| message["type"] == "message");
    messages.map(|message| message["offset"].as_u64().unwrap()).collect()
}
