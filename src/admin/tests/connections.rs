use slotmap::KeyData;

use super::*;
use crate::hub::Address;
use crate::id::{ClientId, ClientKey, RoomId, ShardIndex, UserId};
use crate::inspect::{Closed, Connection, LIST_MAX, Queue, Which};
use crate::metrics::CloseReason;

fn connection(shard: u16, id: u64, queue: Option<(usize, f64)>) -> Connection {
    Connection {
        key: ClientKey::default(),
        client_id: ClientId(id),
        user: UserId::parse("ann").unwrap(),
        shard,
        peer: Some("127.0.0.1:5000".parse().unwrap()),
        endpoint: "/ws",
        is_closing: false,
        open_seconds: 1.5,
        silent_seconds: 0.5,
        expires_in_seconds: None,
        rooms: vec![RoomId::from_u64(5)],
        rooms_total: 1,
        is_held: false,
        queue: queue.map(|(bytes, oldest_seconds)| Queue {
            bytes,
            messages: 1,
            oldest_seconds,
            blocked_seconds: 0.0,
        }),
    }
}

/// A shard that answers questions about connections.
fn shard(mut answer: impl FnMut(Which) -> Vec<Connection> + Send + 'static) -> Shard {
    Shard::answering(move |question| match question {
        Question::Connections { which, answer: to } => drop(to.send(answer(which))),
        other => panic!("asked for {other:?}"),
    })
}

/// A shard on which there is one connection.
fn shard_with(index: u16, id: u64) -> Shard {
    shard(move |which| match which {
        Which::Client(asked) => Vec::from_iter((asked == ClientId(id)).then(|| connection(index, id, None))),
        other => panic!("asked for {other:?}"),
    })
}

/// A shard that asserts the limit it is asked with.
fn slow_shard(limit: usize, slow: Vec<Connection>) -> Shard {
    shard(move |which| {
        assert!(matches!(which, Which::Slowest(asked) if asked == limit), "{which:?}");
        slow.clone()
    })
}

fn ids(answer: &Value) -> Vec<&str> {
    let connections = answer["connections"].as_array().unwrap().iter();
    connections.map(|connection| connection["client_id"].as_str().unwrap()).collect()
}

#[test]
fn lists_the_slowest_of_all_shards_by_bytes_and_then_by_age() {
    let first = vec![connection(0, 1, Some((500, 1.0))), connection(0, 2, Some((10, 0.1)))];
    let second = vec![connection(1, 3, Some((900, 0.5))), connection(1, 4, Some((500, 2.0)))];
    let world = gateway_of(vec![slow_shard(3, first), slow_shard(3, second)]);

    let (status, answer) = world.get("/debug/slow?k=3");

    assert_eq!(status, 200);
    assert_eq!(ids(&answer), ["0000000000000003", "0000000000000004", "0000000000000001"]);
    assert_eq!(answer["missing_shards"], json!([]));
    let fastest = json!({
        "client_id": "0000000000000003",
        "user": "ann",
        "shard": 1,
        "peer": "127.0.0.1:5000",
        "endpoint": "/ws",
        "is_closing": false,
        "open_seconds": 1.5,
        "silent_seconds": 0.5,
        "expires_in_seconds": null,
        "rooms": [5],
        "rooms_total": 1,
        "is_held": false,
        "queue": { "bytes": 900, "messages": 1, "oldest_seconds": 0.5, "blocked_seconds": 0.0 },
    });
    assert_eq!(answer["connections"][0], fastest);
}

#[test]
fn lists_ten_of_the_slowest_unless_told_otherwise() {
    let world = gateway_of(vec![slow_shard(10, Vec::new())]);

    assert_eq!(world.get("/debug/slow"), (200, json!({ "connections": [], "missing_shards": [] })));
    for (value, path) in [("0", "/debug/slow?k=0"), ("1001", "/debug/slow?k=1001"), ("", "/debug/slow?k")] {
        let message = world.refusal(path, 400);
        assert_eq!(message, format!("k={value}: must be a whole number from 1 to 1000"));
    }
}

#[test]
fn names_the_shards_that_did_not_answer_in_time() {
    let answering = slow_shard(10, vec![connection(0, 1, Some((500, 1.0)))]);
    let gone = {
        let (outlet, inbox) = Inbox::pair(Limits::default());
        drop(inbox);
        Shard::Silent(outlet, Inbox::pair(Limits::default()).1)
    };
    let world = gateway_of(vec![Shard::silent(), answering, gone]);

    let (status, answer) = world.get("/debug/slow");

    assert_eq!((status, ids(&answer)), (200, vec!["0000000000000001"]));
    assert_eq!(answer["missing_shards"], json!([0, 2]));
}

#[test]
fn finds_a_connection_on_whatever_shard_it_is() {
    let world = gateway_of(vec![shard_with(0, 8), shard_with(1, 0xff)]);

    let (status, answer) = world.get("/debug/connections/00000000000000FF");

    assert_eq!(status, 200);
    assert_eq!((&answer["connection"]["shard"], answer.as_object().unwrap().len()), (&json!(1), 1));
    let answer = world.get("/debug/connections/0000000000000001");
    let message = "no open connection has the number 0000000000000001";
    assert_eq!(answer, (404, json!({ "error": "not_found", "message": message })));
    let message = world.refusal("/debug/connections/7", 400);
    assert_eq!(message, "id=7: must be 16 hexadecimal digits, the `client_id` of `welcome`");
}

#[test]
fn asks_only_the_shard_that_the_number_names_and_says_when_it_is_silent() {
    let world = gateway_of(vec![shard_with(0, 8), Shard::silent()]);

    assert_eq!(world.get("/debug/connections/0000000000000008").0, 200);
    assert_eq!(world.get("/debug/connections/000000000000000a").0, 404);
    let (status, answer) = world.get("/debug/connections/0000000000000007");

    assert_eq!((status, &answer["error"]), (503, &json!("unavailable")));
    assert_eq!(answer["missing_shards"], json!([1]));
}

fn address(shard: u16, client: u64) -> Address {
    Address { shard: ShardIndex(shard), client: ClientKey::from(KeyData::from_ffi(1 << 32 | client)) }
}

/// A shard with all the connections that are asked for by their places.
fn shard_of_user(index: u16) -> Shard {
    shard(move |which| {
        let Which::Keys(keys) = which else { panic!("asked for {which:?}") };
        let id = |key: ClientKey| slotmap::Key::data(&key).as_ffi() & 0xffff_ffff;
        keys.into_iter().map(|key| connection(index, id(key), None)).collect()
    })
}

#[test]
fn lists_the_connections_of_a_user_on_all_shards_that_have_some() {
    let world = gateway_of(vec![shard_of_user(0), Shard::silent(), shard_of_user(2)]);
    let user = UserId::parse("jürgen m+").unwrap();
    for address in [address(2, 3), address(0, 1), address(2, 4)] {
        world.hub.connect(&user, address);
    }

    let (status, answer) = world.get("/debug/connections?user=j%C3%BCrgen+m%2B");

    assert_eq!(status, 200);
    assert_eq!(ids(&answer), ["0000000000000001", "0000000000000003", "0000000000000004"]);
    assert_eq!((&answer["total"], &answer["missing_shards"]), (&json!(3), &json!([])));
    world.hub.connect(&user, address(1, 9));
    let (status, answer) = world.get("/debug/connections?user=j%C3%BCrgen+m%2B");
    assert_eq!((status, ids(&answer).len(), &answer["missing_shards"]), (200, 3, &json!([1])));
    let nobody = json!({ "connections": [], "total": 0, "missing_shards": [] });
    assert_eq!(world.get("/debug/connections?user=nobody"), (200, nobody));
}

#[test]
fn lists_at_most_a_thousand_connections_of_a_user_and_says_how_many_there_are() {
    let world = gateway_of(vec![shard_of_user(0), shard_of_user(1)]);
    let user = UserId::from_u64(7);
    for client in 1..=800 {
        world.hub.connect(&user, address(0, client));
        world.hub.connect(&user, address(1, client));
    }

    let (status, answer) = world.get("/debug/connections?user=7");

    assert_eq!((status, ids(&answer).len(), &answer["total"]), (200, LIST_MAX, &json!(1600)));
}

#[test]
fn refuses_to_list_connections_without_saying_of_whom() {
    let world = gateway();

    assert!(world.refusal("/debug/connections", 400).starts_with("user= is needed"));
    let message = world.refusal("/debug/connections?user=a&user=b", 400);
    assert_eq!(message, "user=b: given twice; allowed: once");
    let message = world.refusal("/debug/connections?user=", 400);
    assert_eq!(message, "user=: must be 1 to 128 bytes of UTF-8");
    let message = world.refusal("/debug/connections?user=%FF", 400);
    assert_eq!(message, "user=%FF: must be percent-encoded UTF-8");
}

fn closed(shard: u16, id: u64, closed_at: f64) -> Closed {
    Closed {
        client_id: ClientId(id),
        user: UserId::from_u64(7),
        shard,
        peer: None,
        reason: CloseReason::SlowConsumer,
        code: Some(4008),
        detail: "too much waits".into(),
        closed_at,
        open_seconds: 60.0,
        rooms_total: 2,
        queue: None,
    }
}

fn closed_shard(limit: usize, closed: Vec<Closed>) -> Shard {
    Shard::answering(move |question| {
        let Question::Closed { limit: asked, answer } = question else { panic!("asked for {question:?}") };
        assert_eq!(asked, limit);
        answer.send(closed.clone()).unwrap();
    })
}

#[test]
fn lists_what_closed_last_on_all_shards_first() {
    let first = vec![closed(0, 1, 1000.0), closed(0, 2, 1000.0), closed(0, 3, 900.0)];
    let second = vec![closed(1, 4, 1001.0), closed(1, 5, 950.0)];
    let world = gateway_of(vec![closed_shard(4, first), closed_shard(4, second), Shard::silent()]);

    let (status, answer) = world.get("/debug/closed?k=4");

    let ids: Vec<_> =
        answer["closed"].as_array().unwrap().iter().map(|closed| &closed["client_id"]).collect();
    let expected = ["0000000000000004", "0000000000000001", "0000000000000002", "0000000000000005"];
    assert_eq!((status, ids), (200, expected.map(Value::from).iter().collect()));
    assert_eq!(answer["missing_shards"], json!([2]));
    let latest = json!({
        "client_id": "0000000000000004",
        "user": 7,
        "shard": 1,
        "peer": null,
        "reason": "slow_consumer",
        "code": 4008,
        "detail": "too much waits",
        "closed_at": 1001.0,
        "open_seconds": 60.0,
        "rooms_total": 2,
        "queue": null,
    });
    assert_eq!(answer["closed"][0], latest);
}

#[test]
fn lists_a_hundred_that_closed_unless_told_otherwise() {
    let world = gateway_of(vec![closed_shard(100, Vec::new())]);

    assert_eq!(world.get("/debug/closed"), (200, json!({ "closed": [], "missing_shards": [] })));
    let message = world.refusal("/debug/closed?k=2000", 400);
    assert_eq!(message, "k=2000: must be a whole number from 1 to 1000");
}
