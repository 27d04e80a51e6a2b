//! What peers do that say nothing or read nothing, and what it does to the others.

use std::sync::mpsc;

use socket2::{Domain, Socket, Type};
use tokio::sync::oneshot;

use super::tap::tap_of;
use super::*;
use crate::id::RoomId;
use crate::inspect::{Connection, Event, Recent, Room, Tapped};

/// More than there are places.
const MANY: usize = 3 * CONNECTIONS_MAX;

#[test]
fn many_peers_that_say_nothing_or_half_a_request_hold_nobody_up() {
    let world = gateway();
    let silent: Vec<_> = (0..MANY).map(|_| connect(&world)).collect();
    let half: Vec<_> = (0..MANY).map(|_| send(connect(&world), "GET /livez HTTP/1.1\r\nHos")).collect();
    let idle: Vec<_> = (0..MANY).map(|_| send(connect(&world), &get("/livez"))).collect();

    assert_eq!(world.ask("GET", "/livez").0, 200);
    assert_eq!(world.ask("GET", "/metrics").0, 200);
    drop((silent, half, idle));
}

#[test]
fn many_peers_that_ask_and_do_not_read_hold_nobody_up() {
    let world = gateway_of(vec![Shard::answering(many_rooms)]);
    let deaf: Vec<_> =
        (0..MANY).map(|_| send(deaf(&world), &get("/metrics/rooms?k=100").repeat(8))).collect();

    assert_eq!(world.ask("GET", "/livez").0, 200);
    assert_eq!(world.ask("GET", "/metrics").0, 200);
    drop(deaf);
}

#[test]
fn a_peer_that_says_nothing_or_half_a_request_is_let_go() {
    let world = gateway_with(Vec::new(), Options { peer: Duration::from_millis(50), ..Options::default() });
    let mut silent = connect(&world);
    let mut half = send(connect(&world), "GET /livez HTTP/1.1\r\nHos");

    assert_eq!(silent.read_to_end(&mut Vec::new()).unwrap(), 0);
    // What was half said may have been answered with a status for a time that is over.
    half.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_peer_that_asks_for_more_than_one_thing_gets_the_first_only() {
    let world = gateway();
    let mut greedy = send(connect(&world), &get("/livez").repeat(50));

    let mut answer = String::new();
    greedy.read_to_string(&mut answer).unwrap();

    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(answer.matches("alive").count(), 1, "{answer}");
}

#[test]
fn a_tap_whose_reader_does_not_read_ends_and_a_quiet_one_stays() {
    let (shard, questions) = shard();
    let world = gateway_with(vec![shard], Options { peer: Duration::from_millis(50), ..Options::default() });
    let mut quiet = send(connect(&world), &get("/debug/tap?room=5"));
    let quiet_tap = tap_of(&questions);
    let _deaf = send(deaf(&world), &get("/debug/tap?room=5"));
    let deaf_tap = tap_of(&questions);

    let clock = Clock::start();
    while !deaf_tap.is_over() {
        assert!(Duration::from_nanos(clock.now()) < PATIENCE, "the tap keeps its place");
        let text = "x".repeat(1024);
        deaf_tap.show(|| Tapped { shard: 0, event: Event::Received { bytes: 1024, text } });
        thread::yield_now();
    }

    assert!(!quiet_tap.is_over());
    quiet_tap.show(|| Tapped { shard: 0, event: Event::Drained });
    read_until(&mut quiet, "event: drained");
}

#[test]
fn answers_under_way_keep_their_places() {
    let (shard, questions) = shard();
    let world = gateway_of(vec![shard]);
    let mut tap = send(connect(&world), &get("/debug/tap?room=5"));
    let tapped = tap_of(&questions);
    let mut slow = send(connect(&world), &get("/debug/slow"));
    let asked = asked(&questions);

    let idle: Vec<_> = (0..MANY).map(|_| connect(&world)).collect();
    assert_eq!(world.ask("GET", "/livez").0, 200);
    asked.send(Vec::new()).unwrap();
    tapped.show(|| Tapped { shard: 0, event: Event::Drained });

    read_until(&mut slow, "missing_shards");
    read_until(&mut tap, "event: drained");
    drop(idle);
}

#[test]
fn a_newcomer_waits_while_answers_are_under_way_on_all_places() {
    let (shard, questions) = shard();
    let world = gateway_of(vec![shard]);
    let slow: Vec<_> = (0..CONNECTIONS_MAX).map(|_| send(connect(&world), &get("/debug/slow"))).collect();
    let mut asked: Vec<_> = slow.iter().map(|_| asked(&questions)).collect();
    let mut newcomer = send(connect(&world), &get("/livez"));

    asked.pop().unwrap().send(Vec::new()).unwrap();

    read_until(&mut newcomer, "alive");
    drop((slow, asked));
}

/// A shard that hands all questions to the test.
fn shard() -> (Shard, mpsc::Receiver<Question>) {
    let (asked, questions) = mpsc::channel();
    // The test may have ended.
    (Shard::answering(move |question| drop(asked.send(question))), questions)
}

fn asked(questions: &mpsc::Receiver<Question>) -> oneshot::Sender<Vec<Connection>> {
    match questions.recv_timeout(PATIENCE).unwrap() {
        Question::Connections { answer, .. } => answer,
        other => panic!("asked for {other:?}"),
    }
}

/// Rooms that take most of a megabyte to name, each third of them hot by a measure of its own.
fn many_rooms(question: Question) {
    let heat = |number, measure| if number % 3 == measure { 100 } else { 1 };
    let room = |number| Room {
        room: Some(RoomId::parse(&format!("{number:\">128}")).unwrap()),
        members: 1,
        messages: 1,
        bytes: 1,
        deliveries: 1,
        recent: Recent { messages: heat(number, 0), bytes: heat(number, 1), deliveries: heat(number, 2) },
        queue_age_seconds: 0.0,
    };
    // Who asked may be gone.
    match question {
        Question::Rooms { answer, .. } => drop(answer.send((0..300).map(room).collect())),
        Question::RoomsNamed { answer, .. } => drop(answer.send(Vec::new())),
        other => panic!("asked for {other:?}"),
    }
}

fn connect(world: &World) -> TcpStream {
    let stream = TcpStream::connect(world.admin.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A connection that takes next to nothing before it reads.
fn deaf(world: &World) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(&world.admin.addr().into()).unwrap();
    socket.into()
}

fn send(mut stream: TcpStream, request: &str) -> TcpStream {
    // It may have been closed for another one already.
    let _ = stream.write_all(request.as_bytes());
    stream
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n")
}

fn read_until(stream: &mut TcpStream, text: &str) {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(text) {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&bytes[..count]);
    }
}
