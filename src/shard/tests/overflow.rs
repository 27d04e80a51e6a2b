//! Slow members of rooms that leave out messages, and tell which.

use std::sync::Arc;

use hashbrown::HashMap;
use proptest::prelude::*;

use crate::hub::{OnOverflow, RoomOptions, Rule, Rules};
use crate::metrics::SentType;
use crate::ws::message_payloads;

use super::wires::Wires;
use super::*;

const LIMIT: usize = 4 << 10;

#[test]
fn a_slow_member_gets_the_newest_and_a_gap_for_the_rest_and_stays() {
    let mut feed = Feed::new(OnOverflow::DropOldest);
    let (fast, slow) = (feed.join("fast"), feed.join("slow"));
    feed.allow(fast, usize::MAX);
    (0..100).for_each(|_| feed.publish(fast, "", true));

    feed.allow(slow, usize::MAX);

    let heard = feed.heard(slow);
    assert_eq!(feed.heard(fast), (1..=100).map(Heard::Message).collect::<Vec<_>>());
    let [Heard::Message(1), Heard::Gap(2, to), rest @ ..] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(rest, (to + 1..=100).map(Heard::Message).collect::<Vec<_>>());
    assert!(rest.len() > 10, "as much as the limit allows: {heard:?}");
    let dropped = counted(&mut feed.line.world.shard.core.counts.dropped);
    assert_eq!(dropped, [(DropReason::DropOldest, to - 1)]);
    let sent = counted(&mut feed.line.world.shard.core.counts.sent.kinds);
    assert!(sent.contains(&(SentType::Gap, 1)), "{sent:?}");
    assert_eq!(feed.line.world.shard.core.counts.queues, Load::default());
}

#[test]
fn of_each_key_only_the_newest_waits() {
    let mut feed = Feed::new(OnOverflow::Latest);
    let (fast, slow) = (feed.join("fast"), feed.join("slow"));
    feed.allow(fast, usize::MAX);
    for round in 0..50 {
        for key in ["EUR", "USD"] {
            feed.publish(fast, key, round > 0);
        }
    }

    feed.allow(slow, usize::MAX);

    let expected = [Heard::Message(1), Heard::Gap(2, 98), Heard::Message(99), Heard::Message(100)];
    assert_eq!(feed.heard(slow), expected);
    assert_eq!(counted(&mut feed.line.world.shard.core.counts.dropped), [(DropReason::Conflated, 97)]);
}

#[test]
fn what_can_be_left_out_makes_room_for_what_cannot() {
    let mut feed = Feed::new(OnOverflow::DropOldest);
    let (fast, slow) = (feed.join("fast"), feed.join("slow"));
    feed.line.world.say(slow, r#"{"type":"join","room_id":"chat"}"#);
    feed.line.world.say(fast, r#"{"type":"join","room_id":"chat"}"#);
    feed.allow(fast, usize::MAX);
    (0..100).for_each(|_| feed.publish(fast, "", true));
    for _ in 0..10 {
        feed.line.world.say(fast, r#"{"type":"message","room_id":"chat","content":"kept"}"#);
        feed.line.turn();
    }

    feed.allow(slow, usize::MAX);

    assert!(feed.line.world.shard.core.clients[slow].is_open());
    let text = String::from_utf8_lossy(feed.line.bytes(slow)).into_owned();
    assert_eq!(text.matches("kept").count(), 10);
}

#[test]
fn a_room_that_was_left_is_heard_of_no_more_and_one_that_is_closed_counts_what_was_lost() {
    let mut feed = Feed::new(OnOverflow::DropOldest);
    let (fast, slow, gone) = (feed.join("fast"), feed.join("slow"), feed.join("gone"));
    feed.allow(fast, usize::MAX);
    (0..5).for_each(|_| feed.publish(fast, "", true));

    feed.line.world.say(slow, r#"{"type":"leave","room_id":"feed"}"#);
    feed.line.world.leave(gone);
    feed.allow(slow, usize::MAX);

    assert_eq!(feed.heard(slow), [Heard::Message(1)]);
    assert_eq!(counted(&mut feed.line.world.shard.core.counts.dropped), [(DropReason::Closing, 5)]);
    assert_eq!(feed.line.world.shard.core.counts.queues, Load::default());
}

proptest! {
    #[test]
    fn what_each_member_got_and_its_gaps_are_all_that_was_published_in_order(
        is_latest: bool,
        kinds in prop::collection::vec((any::<bool>(), any::<bool>()), 2..5),
        steps in prop::collection::vec((0..4_usize, 0..6_u8, 0..3_u8, 0..3000_usize), 1..120),
    ) {
        let mut feed = Feed::new(if is_latest { OnOverflow::Latest } else { OnOverflow::DropOldest });
        let members: Vec<_> =
            kinds.iter().map(|(is_ndjson, is_compressed)| feed.join_as(*is_ndjson, *is_compressed)).collect();
        let mut own: HashMap<ClientKey, Vec<u64>> = HashMap::default();
        let mut published = 0;
        for (who, what, key, bytes) in steps {
            let member = members[who % members.len()];
            if what < 4 {
                published += 1;
                if what == 0 {
                    own.entry(member).or_default().push(published);
                }
                feed.publish(member, &key.to_string(), what != 0);
            } else {
                feed.allow(member, bytes);
            }
        }
        for member in &members {
            feed.allow(*member, usize::MAX);
        }
        for member in members {
            let mut next = 1;
            let own = own.remove(&member).unwrap_or_default();
            let skip_own = |next: &mut u64| while own.contains(next) { *next += 1 };
            for heard in feed.heard(member) {
                skip_own(&mut next);
                let (from, to) = match heard {
                    Heard::Message(offset) => (offset, offset),
                    Heard::Gap(from, to) => (from, to),
                };
                prop_assert_eq!(from, next);
                next = to + 1;
            }
            skip_own(&mut next);
            prop_assert_eq!(next, published + 1);
        }
        prop_assert_eq!(feed.line.world.shard.core.counts.queues, Load::default());
    }
}

/// What a member hears of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Message(u64),
    Gap(u64, u64),
}

/// One room, and members whose sockets take as much as they are allowed to.
struct Feed {
    line: Wires,
}

impl Feed {
    fn new(overflow: OnOverflow) -> Self {
        let rule =
            Rule { pattern: "feed".to_owned(), options: RoomOptions { overflow, ..RoomOptions::default() } };
        let rooms = Rules(Arc::new([rule]));
        let mut world = World::with(hub::Options { rooms, ..hub::Options::default() });
        Arc::make_mut(&mut world.shard.core.options).outbound_bytes = LIMIT;
        Self { line: Wires::of(world) }
    }

    fn join(&mut self, user: &str) -> ClientKey {
        let member = self.line.world.enter(user);
        self.enter(member)
    }

    fn join_as(&mut self, is_ndjson: bool, is_compressed: bool) -> ClientKey {
        let endpoint = crate::http::Endpoint::Ws;
        let member = if is_compressed && !is_ndjson {
            self.line.world.enter_compressed("ann", endpoint)
        } else {
            self.line.world.enter_as(endpoint, is_ndjson)
        };
        self.enter(member)
    }

    fn enter(&mut self, member: ClientKey) -> ClientKey {
        self.line.world.notices();
        self.line.world.say(member, r#"{"type":"join","room_id":"feed"}"#);
        self.line.plug_in(member);
        member
    }

    fn publish(&mut self, from: ClientKey, key: &str, echo: bool) {
        let key = if key.is_empty() { String::new() } else { format!(r#","key":"{key}""#) };
        let content = "x".repeat(40);
        let text =
            format!(r#"{{"type":"message","room_id":"feed","echo":{echo}{key},"content":"{content}"}}"#);
        self.line.world.say(from, &text);
        self.line.turn();
    }

    fn allow(&mut self, member: ClientKey, bytes: usize) {
        self.line.allow(member, bytes);
    }

    /// What came of the room, as a client reads it.
    fn heard(&self, member: ClientKey) -> Vec<Heard> {
        let mut inflater = crate::ws::Inflater::default();
        let mut heard = Vec::new();
        for (is_compressed, payload) in message_payloads(self.line.bytes(member)) {
            let payload =
                if is_compressed { inflater.inflate(payload, 1 << 20).unwrap() } else { payload.to_vec() };
            let message: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            if message["room_id"] != "feed" {
                continue;
            }
            let number = |field: &str| message[field].as_u64().unwrap();
            match message["type"].as_str().unwrap() {
                "message" => heard.push(Heard::Message(number("offset"))),
                "gap" => heard.push(Heard::Gap(number("from_offset"), number("to_offset"))),
                _ => {}
            }
        }
        heard
    }
}
