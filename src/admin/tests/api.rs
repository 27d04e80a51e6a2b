use super::*;
use crate::hub::Address;
use crate::id::{ClientKey, RoomId, RoomKey, ShardIndex, UserId};
use crate::inspect::{Recent, Room, Which};

/// A room with these members on a shard.
fn room(name: &RoomId, members: usize) -> Room {
    let recent = Recent { messages: 1, bytes: 10, deliveries: 2 };
    Room {
        room: Some(name.clone()),
        members,
        messages: 4,
        bytes: 40,
        deliveries: 8,
        recent,
        queue_age_seconds: 0.0,
    }
}

/// A shard on which each room has two members.
fn shard() -> Shard {
    Shard::answering(|question| match question {
        Question::RoomsNamed { names, answer, .. } => {
            answer.send(names.iter().flatten().map(|name| room(name, 2)).collect()).unwrap();
        }
        Question::Connections { which: Which::Keys(keys), answer } => {
            assert_eq!(keys, [ClientKey::default()]);
            answer.send(Vec::new()).unwrap();
        }
        other => panic!("asked for {other:?}"),
    })
}

fn join(world: &World, name: &str) {
    world.hub.join(&RoomId::parse(name).unwrap(), ShardIndex(0), RoomKey::default());
}

#[test]
fn lists_rooms_page_by_page() {
    let world = gateway_of(vec![shard(), shard()]);
    for name in ["chat.2", "5", "chat.1"] {
        join(&world, name);
    }

    let (status, first) = world.get("/api/v1/rooms?limit=2");

    let chat = json!({
        "room_id": "chat.1",
        "members": 4,
        "messages": 0,
        "bytes": 0,
        "deliveries": 0,
        "recent": { "messages": 0, "bytes": 0, "deliveries": 0 },
    });
    assert_eq!((status, &first["rooms"][0]["room_id"]), (200, &json!(5)));
    assert_eq!((&first["rooms"][1], &first["next"]), (&chat, &json!("chat.1")));
    let (_, second) = world.get("/api/v1/rooms?limit=2&after=chat.1");
    assert_eq!((&second["rooms"][0]["room_id"], second.get("next")), (&json!("chat.2"), None));
    let (_, matching) = world.get("/api/v1/rooms?match=*.1");
    assert_eq!(matching, json!({ "rooms": [chat], "missing_shards": [] }));
    assert!(world.refusal("/api/v1/rooms?limit=1001", 400).contains("from 1 to 1000"));
    assert!(world.refusal("/api/v1/rooms?after=", 400).contains("1 to 128 bytes"));
}

#[test]
fn tells_where_a_room_stands_whose_name_is_percent_encoded() {
    let world = gateway_of(vec![shard()]);
    join(&world, "a/ö+");

    let (status, answer) = world.get("/api/v1/rooms/a%2F%C3%B6+");

    assert_eq!((status, &answer["room_id"], &answer["members"]), (200, &json!("a/ö+"), &json!(2)));
    assert_eq!(answer["offset"], 0);
    assert_eq!(answer["epoch"].as_str().unwrap().len(), 16);
    assert!(world.refusal("/api/v1/rooms/b", 404).contains("nobody is in a room called b"));
    assert!(world.refusal("/api/v1/rooms/%zz", 400).contains("must be percent-encoded"));
}

#[test]
fn tells_who_is_in_a_room_and_what_was_said_there() {
    let limits = crate::history::Limits { messages: 3, age: PATIENCE, bytes: 1 << 20 };
    let (history, presence) = (Some(limits), hub::PresenceMode::List);
    let options = hub::RoomOptions { history, presence, ..hub::RoomOptions::default() };
    let rules = hub::Rules(Arc::new([hub::Rule { pattern: "kept*".to_owned(), options }]));
    let state = state(&[], Options::default());
    let hub = Hub::new(Vec::new(), hub::Options { rooms: rules, ..hub::Options::default() }, state.clock);
    let state = State { hub: Arc::clone(&hub), ..state };
    let admin = start(ANY_PORT, state).unwrap();
    let get = |path: &str| {
        let (status, answer) = ask(&admin, "GET", path);
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, serde_json::from_str::<Value>(body).unwrap())
    };
    let publish = |content: &str| {
        let headers = "Content-Type: application/json\r\n";
        let body = json!({ "room_id": "kept/1", "content": content }).to_string();
        assert_eq!(send(&admin, "POST", "/api/v1/publish", headers, &body).0, 200);
    };

    let nobody = json!({ "room_id": "kept/1", "users": 0, "connections": 0, "members": [] });
    assert_eq!(get("/api/v1/rooms/kept%2F1/presence"), (200, nobody));
    ["a", "b", "c", "d"].into_iter().for_each(publish);
    let room = hub.existing(&RoomId::parse("kept/1").unwrap()).unwrap();
    for user in ["ann", "ben", "ann", "cat"] {
        hub.arrive(&room, &UserId::parse(user).unwrap(), ShardIndex(0));
    }

    let (_, page) = get("/api/v1/rooms/kept%2F1/presence?limit=2");
    let members = json!([{ "user": "ann", "connections": 2 }, { "user": "ben", "connections": 1 }]);
    assert_eq!((&page["members"], &page["next"], &page["users"]), (&members, &json!("ben"), &json!(3)));
    let (_, rest) = get("/api/v1/rooms/kept%2F1/presence?after=ben");
    assert_eq!(rest["members"], json!([{ "user": "cat", "connections": 1 }]));
    let contents = |answer: &Value| {
        let messages = answer["messages"].as_array().unwrap().iter();
        messages.map(|message| message["content"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (_, last) = get("/api/v1/rooms/kept%2F1/history?limit=2");
    assert_eq!((contents(&last), &last["offset"]), (vec!["c".to_owned(), "d".to_owned()], &json!(4)));
    let epoch = last["epoch"].as_str().unwrap();
    let (_, behind) = get(&format!("/api/v1/rooms/kept%2F1/history?epoch={epoch}&offset=2"));
    assert_eq!((contents(&behind).join(""), &behind["complete"]), ("cd".to_owned(), &json!(true)));
    let (_, behind) = get(&format!("/api/v1/rooms/kept%2F1/history?epoch={epoch}&offset=0"));
    assert_eq!((contents(&behind).join(""), &behind["complete"]), ("bcd".to_owned(), &json!(false)));
    let (_, other) = get("/api/v1/rooms/kept%2F1/history?epoch=+123456789abcdef&offset=3");
    assert_eq!(other["complete"], false);
    let (_, room) = get("/api/v1/rooms/kept%2F1");
    assert_eq!((&room["members"], &room["messages"], &room["offset"]), (&json!(0), &json!(4), &json!(4)));
    for path in ["presence", "history"] {
        assert_eq!(get(&format!("/api/v1/rooms/other/{path}")).0, 404, "{path}");
    }
    assert_eq!(get("/api/v1/rooms/kept/history?epoch=0").0, 400);
    assert_eq!(get("/api/v1/rooms/kept/history?epoch=0&offset=-1").0, 400);
}

#[test]
fn a_room_whose_shards_do_not_answer_is_told_all_the_same() {
    let world = gateway_of(vec![Shard::silent()]);
    join(&world, "5");

    let (status, answer) = world.get("/api/v1/rooms/5");

    assert_eq!((status, &answer["members"], &answer["missing_shards"]), (200, &json!(0), &json!([0])));
}

#[test]
fn lists_the_connections_of_a_user() {
    let world = gateway_of(vec![shard()]);
    let address = Address { shard: ShardIndex(0), client: ClientKey::default() };
    world.hub.connect(&UserId::parse("a b").unwrap(), address);

    let (status, answer) = world.get("/api/v1/users/a%20b/connections");

    assert_eq!((status, answer), (200, json!({ "connections": [], "total": 1, "missing_shards": [] })));
    assert_eq!(world.get("/api/v1/users/x/connections").1["total"], 0);
}

#[test]
fn sums_up_what_all_shards_have_counted() {
    let world = gateway_of(vec![Shard::silent()]);
    join(&world, "5");
    let shards: Vec<_> =
        (0..2).map(|shard| crate::metrics::ShardMetrics::new(&world.recorder, shard)).collect();
    shards[0].received[crate::metrics::ReceivedType::Ping].increment(3);
    shards[1].received[crate::metrics::ReceivedType::Message].increment(4);

    let (status, answer) = world.get("/api/v1/stats");

    assert_eq!((status, &answer["rooms"], &answer["messages_received"]), (200, &json!(1), &json!(7)));
    assert!(answer["uptime_seconds"].as_f64().unwrap() > 0.0);
    assert!(answer["resident_bytes"].as_u64().unwrap() > 1 << 20);
}

#[test]
fn takes_out_of_a_room_who_is_meant_and_says_how_many() {
    let (outlet, inbox) = Inbox::pair(Limits::default());
    let taker = thread::spawn(move || {
        let mut taken = Vec::new();
        let mut commands = VecDeque::new();
        while taken.len() < 2 {
            inbox.take_all(&mut commands);
            for command in commands.drain(..) {
                let Command::Unsubscribe { room, whom, answer } = command else { panic!("{command:?}") };
                answer.send(3).unwrap();
                taken.push((room, whom));
            }
            thread::sleep(Duration::from_millis(1));
        }
        taken
    });
    let options = Options { answer: PATIENCE, ..Options::default() };
    let state = State { shards: vec![outlet], ..state(&[], options) };
    let admin = start(ANY_PORT, state).unwrap();
    let ask = |body: &str| {
        let headers = "Content-Type: application/json\r\n";
        let (status, answer) = send(&admin, "POST", "/api/v1/unsubscribe", headers, body);
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, serde_json::from_str::<Value>(body).unwrap())
    };

    let three = json!({ "unsubscribed": 3, "missing_shards": [] });
    assert_eq!(ask(r#"{"room_id":5,"user":"ann"}"#), (200, three.clone()));
    assert_eq!(ask(r#"{"room_id":"a","client_id":"00000000000000ff"}"#), (200, three));
    for (body, part) in [
        (r#"{"user":"ann"}"#, "missing field `room_id`"),
        (r#"{"room_id":5}"#, "exactly one of `user` and `client_id`"),
        (r#"{"room_id":5,"user":1,"client_id":"00000000000000ff"}"#, "exactly one"),
        (r#"{"room_id":-5,"user":1}"#, "unsigned integer"),
    ] {
        let (status, answer) = ask(body);
        assert!(status == 400 && answer["message"].as_str().unwrap().contains(part), "{answer}");
    }
    let asked = taker.join().unwrap();
    let ann = crate::inbox::Whom::User(UserId::parse("ann").unwrap());
    let one = crate::inbox::Whom::Client(crate::id::ClientId(255));
    assert_eq!(asked, [(RoomId::from_u64(5), ann), (RoomId::parse("a").unwrap(), one)]);
}

#[test]
fn one_connection_is_closed_by_the_shard_that_has_it() {
    let (outlets, inboxes): (Vec<_>, Vec<_>) = (0..2).map(|_| Inbox::pair(Limits::default())).unzip();
    let options = Options { answer: Duration::from_millis(50), ..Options::default() };
    let admin = start(ANY_PORT, State { shards: outlets, ..state(&[], options) }).unwrap();
    let headers = "Content-Type: application/json\r\n";
    let told = |body: &str| {
        let (_, answer) = send(&admin, "POST", "/api/v1/disconnect", headers, body);
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let commands = inboxes.iter().map(|inbox| {
            let mut commands = VecDeque::new();
            inbox.take_all(&mut commands);
            commands.len()
        });
        (serde_json::from_str::<Value>(body).unwrap()["missing_shards"].clone(), commands.collect::<Vec<_>>())
    };

    assert_eq!(told(r#"{"client_id":"00000000000000ff"}"#), (json!([1]), vec![0, 1]));
    assert_eq!(told(r#"{"client_id":"00000000000000fe"}"#), (json!([0]), vec![1, 0]));
    assert_eq!(told(r#"{"user":7}"#), (json!([0, 1]), vec![1, 1]));
}

#[test]
fn unknown_paths_and_other_methods_of_the_api_are_told_as_all_its_errors_are() {
    let world = gateway();
    for path in ["/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v1/rooms/a/b"] {
        let message = world.refusal(path, 404);
        assert!(message.contains("/api/v1/openapi.json"), "{message}");
    }
    let (status, answer) = world.ask("PUT", "/api/v1/drain");
    assert_eq!(status, 405);
    assert!(answer.contains("allow: GET, HEAD, POST, DELETE\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    let expected =
        "{\"error\":\"method_not_allowed\",\"message\":\"use one of GET, HEAD, POST, DELETE here\"}\n";
    assert!(answer.ends_with(expected), "{answer}");
    for (method, path) in [("GET", "/api/v2"), ("GET", "/api/v10/x"), ("POST", "/metrics")] {
        let (_, answer) = world.ask(method, path);
        assert!(answer.contains("content-type: text/plain; charset=utf-8\r\n"), "{answer}");
    }
}

#[test]
fn describes_itself() {
    let world = gateway();

    let (status, answer) = world.get("/api/v1/openapi.json");

    assert_eq!((status, &answer["openapi"]), (200, &json!("3.1.0")));
    assert_eq!(answer["paths"]["/api/v1/publish"]["post"]["security"], json!([{ "key": ["publish"] }]));
}
