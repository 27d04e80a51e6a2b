use std::cmp::Reverse;

use super::*;
use crate::id::RoomId;
use crate::inspect::{Recent, Room};

fn room(name: Option<&str>, members: usize, messages: u64) -> Room {
    Room {
        room: name.map(|name| RoomId::parse(name).unwrap()),
        members,
        messages,
        bytes: 100 * messages,
        deliveries: members as u64 * messages,
        recent: Recent { messages, bytes: 100 * messages, deliveries: members as u64 * messages },
        queue_age_seconds: 0.0,
    }
}

fn shard(limit: usize, rooms: Vec<Room>) -> Shard {
    Shard::answering(move |question| match question {
        Question::Rooms { limit: asked, answer, .. } => {
            assert_eq!(asked, limit);
            let mut hot: Vec<_> = rooms.iter().filter(|room| room.recent.messages > 0).cloned().collect();
            hot.sort_by_key(|room| Reverse(room.recent.messages));
            hot.truncate(limit);
            answer.send(hot).unwrap();
        }
        Question::RoomsNamed { names, answer, .. } => {
            let named = rooms.iter().filter(|room| names.contains(&room.room));
            answer.send(named.cloned().collect()).unwrap();
        }
        other => panic!("asked for {other:?}"),
    })
}

#[test]
fn counts_the_members_on_a_shard_that_has_hotter_rooms_to_name() {
    let wide = room(Some("wide"), 19, 3);
    let first = vec![Room { members: 10, ..wide.clone() }];
    let second = vec![room(Some("loud"), 1, 31), Room { members: 9, ..wide }];
    let world = gateway_of(vec![shard(1, first), shard(1, second)]);

    let (_, answer) = world.get("/debug/rooms?k=1");

    let told = |room: &Value| (room["room"].clone(), room["members"].clone(), room["deliveries"].clone());
    let rooms: Vec<_> = answer["rooms"].as_array().unwrap().iter().map(told).collect();
    assert_eq!(rooms, [(json!("loud"), json!(1), json!(31)), (json!("wide"), json!(19), json!(57))]);
}

#[test]
fn prints_the_hottest_rooms_of_all_shards_for_prometheus() {
    let both = room(Some("a\"b"), 5, 9);
    let first = vec![Room { members: 3, ..both.clone() }, room(None, 10, 1)];
    let second = vec![Room { members: 2, ..both }, room(Some("cold"), 7, 0)];
    let world = gateway_of(vec![shard(10, first), shard(10, second)]);

    let (status, answer) = world.ask("GET", "/metrics/rooms");

    assert_eq!(status, 200);
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    let samples: Vec<_> = answer.lines().filter(|line| line.starts_with("fanfare_")).collect();
    let expected = [
        r#"fanfare_room_messages_total{room=""} 1"#,
        r#"fanfare_room_messages_total{room="a\"b"} 9"#,
        r#"fanfare_room_published_bytes_total{room=""} 100"#,
        r#"fanfare_room_published_bytes_total{room="a\"b"} 900"#,
        r#"fanfare_room_deliveries_total{room=""} 10"#,
        r#"fanfare_room_deliveries_total{room="a\"b"} 45"#,
        r#"fanfare_room_members{room=""} 10"#,
        r#"fanfare_room_members{room="a\"b"} 5"#,
        r#"fanfare_room_queue_age_seconds{room=""} 0"#,
        r#"fanfare_room_queue_age_seconds{room="a\"b"} 0"#,
        "fanfare_rooms_missing_shards 0",
    ];
    assert_eq!(samples, expected);
}

#[test]
fn lists_the_hottest_rooms_as_json_and_says_who_did_not_answer() {
    let world = gateway_of(vec![Shard::silent(), shard(1, vec![room(None, 10, 1), room(Some("5"), 3, 9)])]);

    let (status, answer) = world.get("/debug/rooms?k=1");

    let hot = json!({
        "room": 5,
        "members": 3,
        "messages": 9,
        "bytes": 900,
        "deliveries": 27,
        "recent": { "messages": 9, "bytes": 900, "deliveries": 27 },
        "queue_age_seconds": 0.0,
    });
    assert_eq!((status, answer), (200, json!({ "rooms": [hot], "missing_shards": [0] })));
    let (status, page) = world.ask("GET", "/metrics/rooms?k=1");
    assert_eq!(status, 200);
    assert!(page.ends_with("\nfanfare_rooms_missing_shards 1\n"), "{page}");
}

#[test]
fn the_room_of_everyone_has_no_name() {
    let world = gateway_of(vec![shard(10, vec![room(None, 10, 1)])]);

    let (_, answer) = world.get("/debug/rooms");

    assert_eq!(answer["rooms"][0]["room"], Value::Null);
    assert_eq!(answer["rooms"][0]["members"], 10);
}

#[test]
fn refuses_more_than_a_hundred_rooms_by_each_measure() {
    let world = gateway();
    for path in ["/debug/rooms", "/metrics/rooms"] {
        let message = world.refusal(&format!("{path}?k=101"), 400);
        assert_eq!(message, "k=101: must be a whole number from 1 to 100");
    }
}
