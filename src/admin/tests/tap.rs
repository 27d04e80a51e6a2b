use std::io::{BufRead as _, BufReader};
use std::sync::mpsc;

use super::*;
use crate::admin::tap::TAPS_MAX;
use crate::id::{ClientId, RoomId, UserId};
use crate::inspect::{Connection, Event, Subject, Tap, Tapped, Which};

/// A shard that hands the questions about taps to the test, and has one connection.
fn shard() -> (Shard, mpsc::Receiver<Question>) {
    let (asked, questions) = mpsc::channel();
    let shard = Shard::answering(move |question| match question {
        Question::Connections { which: Which::Client(id), answer } => {
            answer.send((id == ClientId(7)).then(connection).into_iter().collect()).unwrap();
        }
        question => drop(asked.send(question)),
    });
    (shard, questions)
}

fn connection() -> Connection {
    Connection {
        key: crate::id::ClientKey::default(),
        client_id: ClientId(7),
        user: UserId::from_u64(1),
        shard: 0,
        peer: None,
        endpoint: "/ws",
        is_closing: false,
        open_seconds: 0.0,
        silent_seconds: 0.0,
        expires_in_seconds: None,
        rooms: Vec::new(),
        rooms_total: 0,
        is_held: false,
        queue: None,
    }
}

pub(super) fn tap_of(questions: &mpsc::Receiver<Question>) -> Tap {
    match questions.recv_timeout(PATIENCE).unwrap() {
        Question::Tap(tap) => tap,
        other => panic!("asked for {other:?}"),
    }
}

/// Whether it comes true within the patience.
fn eventually(mut is_true: impl FnMut() -> bool) -> bool {
    let pause = Duration::from_millis(1);
    (0..PATIENCE.as_millis()).any(|_| {
        let has_come = is_true();
        if !has_come {
            thread::sleep(pause);
        }
        has_come
    })
}

/// An operator who looks. HTTP/1.0, so that the body comes without chunks around it.
struct Reader(BufReader<TcpStream>);

/// One event, or a comment.
#[derive(Debug, Default)]
struct Shown {
    event: String,
    data: Value,
    id: Option<String>,
    comment: Option<String>,
}

impl Reader {
    fn open(world: &World, query: &str) -> Self {
        let mut stream = TcpStream::connect(world.admin.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /debug/tap?{query} HTTP/1.0\r\n\r\n").unwrap();
        let mut reader = Self(BufReader::new(stream));
        let head: Vec<_> = std::iter::from_fn(|| reader.line()).take_while(|line| !line.is_empty()).collect();
        assert!(head[0].contains(" 200 "), "{head:?}");
        assert!(head.contains(&"content-type: text/event-stream".to_owned()), "{head:?}");
        reader
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.0.read_line(&mut line).unwrap() > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The next event; `None` at the end of the stream.
    fn next(&mut self) -> Option<Shown> {
        let mut shown = Shown::default();
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                None => return Some(shown),
                Some(("", comment)) => shown.comment = Some(comment.to_owned()),
                Some(("event", name)) => shown.event = name.to_owned(),
                Some(("data", json)) => shown.data = serde_json::from_str(json).unwrap(),
                Some(("id", id)) => shown.id = Some(id.to_owned()),
                Some(_) => panic!("{line}"),
            }
        }
    }

    /// The next event, which has this name, without its time.
    fn expect(&mut self, name: &str) -> Value {
        let mut shown = self.next().unwrap();
        assert_eq!(shown.event, name, "{shown:?}");
        let time = shown.data.as_object_mut().unwrap().remove("time").unwrap();
        assert!(time.as_f64().unwrap() > 1.7e9, "{time}");
        shown.data
    }
}

fn message(epoch: u64, offset: u64) -> Event {
    Event::Message { epoch, offset, members: 2, bytes: 4, text: "\"a\n\"".to_owned() }
}

#[test]
fn shows_what_happens_in_a_room_as_server_sent_events() {
    let (shard, questions) = shard();
    let world = gateway_of(vec![shard]);
    let mut reader = Reader::open(&world, "room=caf%C3%A9+5");
    let tap = tap_of(&questions);
    assert_eq!(tap.subject, Subject::Room(Some(RoomId::parse("café 5").unwrap())));

    tap.show(|| Tapped { shard: 0, event: Event::Tapped { members: 2 } });
    tap.show(|| Tapped { shard: 0, event: message(10, 1) });
    tap.show(|| Tapped { shard: 0, event: Event::Delivered { messages: 1, recipients: 2, seconds: 0.25 } });

    assert_eq!(reader.expect("tapped"), json!({ "shard": 0, "event": "tapped", "members": 2 }));
    let shown = reader.next().unwrap();
    assert_eq!((shown.event.as_str(), shown.id.as_deref()), ("message", Some("1")));
    assert_eq!((&shown.data["epoch"], &shown.data["offset"]), (&json!("000000000000000a"), &json!(1)));
    assert_eq!(shown.data["text"], "\"a\n\"");
    assert_eq!(reader.expect("delivered")["seconds"], 0.25);
    assert!(world.shows("fanfare_debug_taps 1"));
}

#[test]
fn shows_a_message_once_that_several_shards_have_members_for() {
    let ((one, first), (other, second)) = (shard(), shard());
    let world = gateway_of(vec![one, other]);
    let mut reader = Reader::open(&world, "room=5");
    let (first, second) = (tap_of(&first), tap_of(&second));

    for (shard, tap, offset) in [(0, &first, 1), (1, &second, 1), (1, &second, 2), (0, &first, 2)] {
        tap.show_message(3, offset, || Tapped { shard, event: message(3, offset) });
    }
    second.show_message(4, 1, || Tapped { shard: 1, event: message(4, 1) });
    second.show(|| Tapped { shard: 1, event: Event::Tapped { members: 0 } });

    let mut shown = || {
        let data = reader.expect("message");
        [&data["shard"], &data["offset"]].map(|number| number.as_u64().unwrap())
    };
    assert_eq!([shown(), shown(), shown()], [[0, 1], [1, 2], [1, 1]]);
    reader.expect("tapped");
}

#[test]
fn is_over_for_the_shards_when_the_reader_goes_away() {
    let ((one, first), (other, second)) = (shard(), shard());
    let world = gateway_of(vec![one, other]);
    let reader = Reader::open(&world, "room=5");
    let taps = [tap_of(&first), tap_of(&second)];

    drop(reader);

    assert!(eventually(|| taps.iter().all(Tap::is_over)));
    assert!(world.shows("fanfare_debug_taps 0"));
}

#[test]
fn refuses_a_ninth_tap_until_one_of_eight_ends() {
    let (shard, questions) = shard();
    let world = gateway_of(vec![shard]);
    let mut readers: Vec<_> = (0..TAPS_MAX).map(|_| Reader::open(&world, "room=5")).collect();
    let taps: Vec<_> = readers.iter().map(|_| tap_of(&questions)).collect();
    assert!(world.shows("fanfare_debug_taps 8"));

    let (status, answer) = world.get("/debug/tap?room=5");
    assert_eq!((status, &answer["error"]), (429, &json!("too_many")));

    drop(readers.pop());
    assert!(eventually(|| taps.iter().filter(|tap| tap.is_over()).count() == 1));
    readers.push(Reader::open(&world, "room="));
    assert_eq!(tap_of(&questions).subject, Subject::Room(None));
}

#[test]
fn says_how_many_events_a_slow_reader_lost() {
    const SHOWN: u64 = 30_000;
    let (shard, questions) = shard();
    let world = gateway_of(vec![shard]);
    let mut reader = Reader::open(&world, "room=5");
    let tap = tap_of(&questions);

    // More than the sockets' buffers take.
    let text = "x".repeat(1024);
    for _ in 0..SHOWN {
        tap.show(|| Tapped { shard: 0, event: Event::Received { bytes: 1024, text: text.clone() } });
    }
    drop(tap);

    let (mut came, mut lost) = (0, 0);
    loop {
        let shown = reader.next().unwrap();
        match shown.event.as_str() {
            "received" => {
                assert_eq!(shown.id, Some(came.to_string()));
                came += 1;
            }
            "lost" => lost += shown.data["count"].as_u64().unwrap(),
            "end" => break,
            _ => panic!("{shown:?}"),
        }
    }
    assert!(lost > 0);
    assert_eq!(came + lost, SHOWN);
    assert!(world.shows(&format!("fanfare_debug_tap_events_lost_total {lost}")));
}

#[test]
fn ends_with_the_connection_that_it_looks_at() {
    let (shard, questions) = shard();
    let world = gateway_of(vec![shard]);
    let mut reader = Reader::open(&world, "connection=0000000000000007");
    let tap = tap_of(&questions);
    assert_eq!(tap.subject, Subject::Connection(ClientId(7)));

    tap.show(|| Tapped { shard: 0, event: Event::Closed { reason: "client" } });
    drop(tap);

    assert_eq!(reader.expect("closed")["reason"], "client");
    assert_eq!(reader.expect("end"), json!({ "reason": "closed" }));
    assert!(reader.next().is_none());
}

#[test]
fn ends_when_the_gateway_stops() {
    let (shard, questions) = shard();
    let world = gateway_of(vec![shard]);
    let mut reader = Reader::open(&world, "room=5");
    let _tap = tap_of(&questions);

    world.admin.stop();

    assert_eq!(reader.expect("end"), json!({ "reason": "stopped" }));
    assert!(reader.next().is_none());
}

#[test]
fn gives_a_sign_of_life_while_nothing_happens() {
    let (shard, questions) = shard();
    let keep_alive = Duration::from_millis(10);
    let world = gateway_with(vec![shard], Options { keep_alive, ..Options::default() });
    let mut reader = Reader::open(&world, "room=5");
    let tap = tap_of(&questions);

    assert_eq!(reader.next().unwrap().comment.as_deref(), Some("nothing new"));
    assert_eq!(reader.next().unwrap().comment.as_deref(), Some("nothing new"));
    tap.show(|| Tapped { shard: 0, event: Event::Drained });
    while reader.next().unwrap().event != "drained" {}
}

#[test]
fn refuses_to_look_at_nothing_at_two_things_and_at_a_connection_that_is_not_there() {
    let (shard, questions) = shard();
    let world = gateway_of(vec![shard]);

    for query in ["", "?room=5&connection=0000000000000007"] {
        let message = world.refusal(&format!("/debug/tap{query}"), 400);
        assert_eq!(message, "exactly one of room= and connection= is needed");
    }
    let long = format!("room={}", "x".repeat(129));
    let message = world.refusal(&format!("/debug/tap?{long}"), 400);
    assert_eq!(message, format!("{long}: must be 1 to 128 bytes of UTF-8"));
    let message = world.refusal("/debug/tap?connection=0000000000000008", 404);
    assert_eq!(message, "no open connection has the number 0000000000000008");
    let (status, answer) = world.ask("HEAD", "/debug/tap?room=5");
    assert_eq!((status, answer.contains("text/event-stream")), (200, true), "{answer}");

    assert!(questions.try_recv().is_err(), "no shard was tapped");
    assert!(world.shows("fanfare_debug_taps 0"));
}
