//! Sessions that go on with another connection.

use std::sync::Arc;

use serde_json::Value;

use crate::ws::message_payloads;

use super::*;

#[test]
fn one_message_brings_back_all_rooms_of_a_connection_that_broke() {
    let mut world = World::new();
    let (ann, session) = enter(&mut world, "ann");
    for room in ["1", "\"a\"", "\"b\""] {
        world.say(ann, &format!(r#"{{"type":"join","room_id":{room}}}"#));
    }
    world.leave(ann);

    let (ann, _) = enter(&mut world, "ann");
    let ack = resume(&mut world, ann, &session, r#"[{"room_id":"c"}]"#);

    assert_eq!((&ack["id"], &ack["resumed"]), (&Value::from(9), &Value::from(true)));
    assert_eq!(rooms(&ack), ["\"c\"", "1", "\"a\"", "\"b\""]);
    assert_eq!(world.shard.core.clients[ann].rooms_joined(), 4);
    let (ben, _) = enter(&mut world, "ann");
    let again = resume(&mut world, ben, &session, "[]");
    assert_eq!((&again["resumed"], rooms(&again).len()), (&Value::from(false), 0), "a session goes on once");
}

#[test]
fn a_session_goes_on_from_another_shard_and_ends_a_connection_that_is_still_open() {
    let [mut one, mut other] = World::pair();
    other.shard.core.verifier = Arc::clone(&one.shard.core.verifier);
    let (old, session) = enter(&mut one, "ann");
    one.say(old, r#"{"type":"join","room_id":"a"}"#);

    let (new, _) = enter(&mut other, "ann");
    other.say(new, &format!(r#"{{"type":"resume","id":9,"session":"{session}"}}"#));
    assert_eq!(other.shard.core.clients[new].rooms_joined(), 0, "the other shard was not asked yet");
    one.apply();
    other.apply();

    let ack = answers(&mut other, new);
    assert_eq!((&ack[0]["resumed"], rooms(&ack[0])), (&Value::from(true), vec!["\"a\"".to_owned()]));
    let (to, close) = one.notices().pop().unwrap();
    assert_eq!((to, close_code(&close)), (old, 1000));
}

#[test]
fn nobody_goes_on_with_another_users_session_nor_with_a_made_up_one() {
    let mut world = World::new();
    let (ann, session) = enter(&mut world, "ann");
    world.say(ann, r#"{"type":"join","room_id":"a"}"#);
    for token in [&*session, "nonsense", ""] {
        let (ben, _) = enter(&mut world, "ben");
        let ack = resume(&mut world, ben, token, r#"[{"room_id":"c"}]"#);
        assert_eq!((&ack["resumed"], rooms(&ack)), (&Value::from(false), vec!["\"c\"".to_owned()]));
    }
    assert!(world.shard.core.clients[ann].is_open());
    let own = resume(&mut world, ann, &session, "[]");
    assert_eq!(own["resumed"], false, "nobody goes on with itself");
    assert!(world.shard.core.clients[ann].is_open());
}

#[test]
fn a_session_is_forgotten_after_its_time_and_the_oldest_when_there_are_too_many() {
    let mut world = World::new();
    let come_and_go = |world: &mut World| {
        let (ann, session) = enter(world, "ann");
        world.say(ann, r#"{"type":"join","room_id":"a"}"#);
        world.leave(ann);
        session
    };
    let first = come_and_go(&mut world);
    world.tick(Duration::from_secs(61));
    let (ann, _) = enter(&mut world, "ann");
    assert_eq!(resume(&mut world, ann, &first, "[]")["resumed"], false);
    assert_eq!(world.shard.core.lobby.bytes(), 0);

    let mut options = super::super::Options::clone(&world.shard.core.options);
    options.sessions.bytes = 1000;
    world.shard.core.options = options.into();
    let sessions: Vec<_> = (0..50).map(|_| come_and_go(&mut world)).collect();
    assert!(world.shard.core.lobby.bytes() <= 1000);
    let (ben, _) = enter(&mut world, "ann");
    assert_eq!(resume(&mut world, ben, &sessions[0], "[]")["resumed"], false);
    assert_eq!(resume(&mut world, ben, &sessions[49], "[]")["resumed"], true);
}

#[test]
fn rooms_that_may_not_be_entered_are_named_and_the_others_are_entered() {
    let mut world = World::new();
    let mut options = super::super::Options::clone(&world.shard.core.options);
    options.session.rooms = 2;
    world.shard.core.options = options.into();
    let (ann, _) = enter(&mut world, "ann");
    world.say(ann, r#"{"type":"join","room_id":"a"}"#);
    let ack = resume(&mut world, ann, "x", r#"[{"room_id":"b"},{"room_id":"c"}]"#);
    assert_eq!(ack["rooms"][0]["recovered"], false);
    assert_eq!(ack["rooms"][1]["code"], "too_many_rooms");
    let refused = resume(&mut world, ann, "x", r#"[{"room_id":1},{"room_id":2},{"room_id":3}]"#);
    assert_eq!(refused["code"], "too_many_rooms");
}

#[test]
fn the_hub_does_not_lose_count_of_sessions_that_are_taken_over() {
    let mut world = World::new();
    let (mut ann, mut session) = enter(&mut world, "ann");
    world.say(ann, r#"{"type":"join","room_id":"a"}"#);
    for _ in 0..100 {
        let (next, token) = enter(&mut world, "ann");
        assert_eq!(resume(&mut world, next, &session, "[]")["resumed"], true);
        (ann, session) = (next, token);
    }
    let hub = Arc::clone(&world.hub);
    assert_eq!((hub.rooms(), hub.users()), (1, 1));
    world.leave(ann);
    assert_eq!((hub.rooms(), hub.users()), (0, 0));
}

/// A client and the session token of its welcome.
fn enter(world: &mut World, user: &str) -> (ClientKey, String) {
    let client = world.enter(user);
    let welcome = answers(world, client).pop().unwrap();
    (client, welcome["session"].as_str().unwrap().to_owned())
}

fn resume(world: &mut World, client: ClientKey, session: &str, rooms: &str) -> Value {
    let text = format!(r#"{{"type":"resume","id":9,"session":"{session}","rooms":{rooms}}}"#);
    let replies = world.raw_replies(client, &text);
    // Once to leave, once to arrive.
    world.apply();
    world.apply();
    let mut answers = answers(world, client);
    let refusal = message_payloads(&replies).map(|(_, payload)| serde_json::from_slice(payload).unwrap());
    answers.extend(refusal);
    answers.pop().unwrap()
}

fn answers(world: &mut World, client: ClientKey) -> Vec<Value> {
    let notices = world.notices().into_iter().filter(|(to, frame)| *to == client && frame[0] == 0x81);
    let frames = notices.map(|(_, frame)| frame).collect::<Vec<_>>().concat();
    message_payloads(&frames).map(|(_, payload)| serde_json::from_slice(payload).unwrap()).collect()
}

fn rooms(ack: &Value) -> Vec<String> {
    ack["rooms"].as_array().unwrap().iter().map(|room| room["room_id"].to_string()).collect()
}
