use slotmap::KeyData;

use super::*;
use crate::hub::{OnOverflow, RoomOptions, Rule, Rules};
use crate::id::{ClientKey, RoomId, RoomKey, ShardIndex, UserId};
use crate::inbox::Publication;

/// A gateway with one shard that takes what it is given when the test says so.
struct Gateway {
    admin: AdminHandle,
    recorder: Recorder,
    hub: Arc<Hub>,
    keys: KeyRing,
    inbox: Inbox,
}

impl Gateway {
    fn new(options: Options) -> Self {
        let (outlet, inbox) = Inbox::pair(Limits::default());
        let state = state(&[], options);
        let latest = Rule {
            pattern: "ticker.*".to_owned(),
            options: RoomOptions { overflow: OnOverflow::Latest, ..RoomOptions::default() },
        };
        let room_pending_bytes = 1000;
        let rooms = Rules(Arc::new([latest]));
        let options = hub::Options { room_pending_bytes, rooms, ..hub::Options::default() };
        let hub = Hub::new(vec![outlet.clone()], options, state.clock);
        let (recorder, keys) = (state.recorder.clone(), state.keys.clone());
        let state = State { hub: Arc::clone(&hub), shards: vec![outlet], ..state };
        Self { admin: start(ANY_PORT, state).unwrap(), recorder, hub, keys, inbox }
    }

    fn join(&self, room: &str) -> Arc<hub::Room> {
        self.hub.join(&RoomId::parse(room).unwrap(), ShardIndex(0), room_key(1)).0
    }

    /// Status, head and JSON of the answer.
    fn publish(&self, headers: &str, body: &str) -> (u16, String, Value) {
        let headers = format!("Content-Type: application/json\r\n{headers}");
        let (status, answer) = send(&self.admin, "POST", "/api/v1/publish", &headers, body);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, head.to_owned(), serde_json::from_str(body).unwrap())
    }

    /// The answers to lines that are sent in one piece.
    fn lines(&self, body: &str) -> Vec<Value> {
        let headers = "Content-Type: application/x-ndjson\r\n";
        let (status, answer) = send(&self.admin, "POST", "/api/v1/publish", headers, body);
        assert_eq!(status, 200, "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        // Chunks: what is JSON in them is what was asked for.
        body.lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn commands(&self) -> Vec<Command> {
        let mut commands = VecDeque::new();
        self.inbox.take_all(&mut commands);
        commands.into()
    }

    fn publications(&self) -> Vec<Publication> {
        let publication = |command| match command {
            Command::Publish { publication, .. } => publication,
            other => panic!("not a publication: {other:?}"),
        };
        self.commands().into_iter().map(publication).collect()
    }

    fn count(&self, series: &str) -> u64 {
        let page = self.recorder.render();
        let line =
            page.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{page}"));
        line.trim().parse().unwrap()
    }

    fn results(&self) -> [u64; 4] {
        ["ok", "repeated", "refused", "busy"]
            .map(|result| self.count(&format!("fanfare_api_publishes_total{{result=\"{result}\"}}")))
    }
}

/// A request of lines that has begun, and what came of it so far.
struct Stream {
    socket: TcpStream,
    answer: String,
}

impl Stream {
    fn begin(gateway: &Gateway, headers: &str) -> Self {
        let mut socket = TcpStream::connect(gateway.admin.addr()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let kind =
            "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n";
        write!(socket, "POST /api/v1/publish HTTP/1.1\r\nHost: a\r\n{headers}{kind}\r\n").unwrap();
        Self { socket, answer: String::new() }
    }

    fn say(&mut self, lines: &str) {
        write!(self.socket, "{:x}\r\n{lines}\r\n", lines.len()).unwrap();
    }

    fn end(&mut self) {
        self.socket.write_all(b"0\r\n\r\n").unwrap();
    }

    /// Reads until this has come.
    fn hear(&mut self, wanted: &str) {
        while !self.answer.contains(wanted) {
            let mut piece = [0; 1024];
            let read = self.socket.read(&mut piece).unwrap();
            assert!(read > 0, "{}", self.answer);
            self.answer.push_str(str::from_utf8(&piece[..read]).unwrap());
        }
    }

    /// All that comes until the end.
    fn rest(mut self) -> String {
        // What a peer that is cut off sent last makes this an error, behind all that was said before.
        let _ = self.socket.read_to_string(&mut self.answer);
        self.answer
    }
}

fn gateway() -> Gateway {
    Gateway::new(Options { answer: Duration::from_millis(50), ..Options::default() })
}

fn room_key(number: u64) -> RoomKey {
    KeyData::from_ffi(1 << 32 | number).into()
}

/// A message without its time, which is the last number in it.
fn timeless(publication: &Publication) -> String {
    let mut message: Value = serde_json::from_slice(publication.message.payload()).unwrap();
    assert!(message["timestamp"].take().as_u64().unwrap() > 1_000_000_000);
    message.to_string()
}

#[test]
fn a_room_gets_the_same_message_as_of_a_client_and_the_caller_its_place() {
    let gateway = gateway();
    gateway.join("5");
    let body = r#"{"room_id":5,"from":"ann","content":"hi","data":{"n":18446744073709551615},"key":"k"}"#;

    let (status, _, answer) = gateway.publish("", body);

    let position = gateway.hub.existing(&RoomId::from_u64(5)).unwrap().position();
    let epoch = format!("{:016x}", position.epoch);
    assert_eq!((status, answer), (200, json!({ "offset": 1, "epoch": epoch })));
    let publications = gateway.publications();
    let text = str::from_utf8(publications[0].message.payload()).unwrap().to_owned();
    let begin = r#"{"type":"message","from":"ann","room_id":5,"key":"k","content":"hi","data":{"n":18446744073709551615},"timestamp":"#;
    assert!(text.starts_with(begin), "{text}");
    assert_eq!(publications[0].key, None, "the room keeps them all");
    assert_eq!(gateway.count("fanfare_broadcasts_total{source=\"api\"}"), 1);
    assert_eq!(gateway.results(), [1, 0, 0, 0]);
}

#[test]
fn a_room_that_numbers_its_messages_is_told_their_number_and_key() {
    let gateway = gateway();
    gateway.join("ticker.EUR");

    gateway.publish("", r#"{"room_id":"ticker.EUR","content":"1.1","key":"bid"}"#);

    let publications = gateway.publications();
    let expected = r#"{"type":"message","room_id":"ticker.EUR","key":"bid","content":"1.1","timestamp":null,"offset":1}"#;
    let found: Value = serde_json::from_str(&timeless(&publications[0])).unwrap();
    assert_eq!(found, serde_json::from_str::<Value>(expected).unwrap());
    assert!(publications[0].key.is_some());
}

#[test]
fn a_room_without_members_has_no_place_to_tell() {
    let gateway = gateway();

    assert_eq!(gateway.publish("", r#"{"room_id":5,"content":"hi"}"#).2, json!({}));

    assert!(gateway.commands().is_empty());
}

#[test]
fn a_user_and_everyone_can_be_told() {
    let gateway = gateway();
    let client = ClientKey::from(KeyData::from_ffi(1 << 32 | 7));
    gateway.hub.connect(&UserId::from_u64(7), hub::Address { shard: ShardIndex(0), client });
    gateway.hub.join_everyone(ShardIndex(0), room_key(9));

    assert_eq!(gateway.publish("", r#"{"to":7,"content":"hi"}"#).2, json!({ "delivered": 1 }));
    assert_eq!(gateway.publish("", r#"{"to":8,"content":"hi"}"#).2, json!({ "delivered": 0 }));
    assert_eq!(gateway.publish("", r#"{"everyone":true,"content":"hi"}"#).2, json!({}));

    let commands = gateway.commands();
    let Command::Direct { clients, message, .. } = &commands[0] else { panic!("{commands:?}") };
    assert_eq!(clients.as_slice(), [client]);
    assert!(message.payload().starts_with(br#"{"type":"message","to":7,"content":"hi","timestamp":"#));
    assert!(matches!(commands[1], Command::Publish { room, .. } if room == room_key(9)));
    assert_eq!(gateway.count("fanfare_direct_messages_total{source=\"api\"}"), 2);
}

#[test]
fn one_connection_is_left_out_by_the_shard_that_has_it() {
    let gateway = gateway();
    gateway.join("5");

    gateway.publish("", r#"{"room_id":5,"content":"hi","exclude":"00000000000000ff"}"#);

    let commands = gateway.commands();
    assert!(matches!(&commands[0], Command::PublishBut { except, .. } if except.0 == 255), "{commands:?}");
}

#[test]
fn a_repeat_gets_the_first_answer_and_publishes_nothing() {
    let gateway = gateway();
    gateway.join("5");
    let key = "Idempotency-Key: order-7\r\n";

    let first = gateway.publish(key, r#"{"room_id":5,"content":"hi"}"#);
    let again = gateway.publish(key, r#"{"room_id":5,"content":"hi"}"#);
    let by_field = gateway.publish("", r#"{"room_id":5,"content":"hi","idempotency_key":"order-7"}"#);
    let both = gateway.publish(key, r#"{"room_id":5,"content":"hi","idempotency_key":"order-7"}"#);
    let other = gateway.publish("Idempotency-Key: order-8\r\n", r#"{"room_id":5,"content":"hi"}"#);

    assert_eq!(first.2["offset"], 1);
    assert!([&again, &by_field, &both].iter().all(|repeat| repeat.2 == first.2), "{again:?}");
    assert_eq!(other.2["offset"], 2);
    assert_eq!(gateway.publications().len(), 2);
    assert_eq!(gateway.results(), [2, 3, 0, 0]);
    let (status, _, answer) =
        gateway.publish(key, r#"{"room_id":5,"content":"hi","idempotency_key":"order-9"}"#);
    assert_eq!((status, &answer["error"]), (400, &json!("bad_request")));
    let long = format!("Idempotency-Key: {}\r\n", "x".repeat(129));
    assert_eq!(gateway.publish(&long, r#"{"room_id":5,"content":"hi"}"#).0, 400);
}

#[test]
fn a_full_room_is_told_with_retry_after_and_the_key_may_be_tried_again() {
    let gateway = gateway();
    let room = gateway.join("5");
    let body = json!({ "room_id": 5, "content": "x".repeat(600), "idempotency_key": "a" }).to_string();
    let other = json!({ "room_id": 5, "content": "x".repeat(600), "idempotency_key": "b" }).to_string();

    assert_eq!(gateway.publish("", &body).0, 200);
    let (status, head, answer) = gateway.publish("", &other);
    assert_eq!((status, &answer["error"]), (503, &json!("unavailable")));
    assert!(head.contains("\r\nretry-after: 1"), "{head}");
    let bytes = gateway.publications()[0].message.frame().len();
    room.release(ShardIndex(0), room_key(1), hub::Served { bytes, deliveries: 1 }, 0);
    assert_eq!(gateway.publish("", &other).0, 200);
    assert_eq!(gateway.results(), [2, 0, 0, 1]);
}

#[test]
fn what_cannot_be_understood_is_refused_and_named() {
    let gateway = gateway();
    let long = |bytes| format!(r#"{{"room_id":5,"content":"{}"}}"#, "x".repeat(bytes));
    for (body, status, part) in [
        ("{".to_owned(), 400, "is not valid JSON"),
        (r#"{"room_id":5}"#.to_owned(), 400, "`content` is missing"),
        (r#"{"rom_id":5,"content":"x"}"#.to_owned(), 400, "\"rom_id\" is not known here"),
        (long(70_000), 413, "the body has more than 69632 bytes"),
        (long(69_000), 413, "more than `limits.message_bytes`, 65536 bytes"),
    ] {
        let (found, _, answer) = gateway.publish("", &body);
        assert_eq!(found, status, "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(part), "{answer}");
    }
    assert_eq!(gateway.publish("", &long(65_536)).0, 200);
    let (status, answer) =
        send(&gateway.admin, "POST", "/api/v1/publish", "Content-Type: text/plain\r\n", "{}");
    assert_eq!(status, 415, "{answer}");
    let headers = "Content-Type: application/x-ndjson\r\nIdempotency-Key: a\r\n";
    assert_eq!(send(&gateway.admin, "POST", "/api/v1/publish", headers, "{}").0, 400);
    let (status, answer) = send(&gateway.admin, "POST", "/api/v1/publish", "Origin: http://a\r\n", "{}");
    assert_eq!(status, 403, "{answer}");
}

#[test]
fn each_line_is_answered_in_its_turn_whatever_the_others_are() {
    let gateway = gateway();
    gateway.join("5");
    let long = format!(r#"{{"room_id":5,"content":"{}"}}"#, "x".repeat(70_000));
    let lines = [
        r#"{"room_id":5,"content":"one"}"#,
        "",
        r#"{"room_id":6,"content":"nobody"}"#,
        "nonsense",
        &long,
        r#"{"room_id":5,"content":"two","idempotency_key":"a"}"#,
        r#"{"room_id":5,"content":"two","idempotency_key":"a"}"#,
        r#"{"to":5,"content":"three"}"#,
        r#"{"room_id":5,"content":"last, without an end"}"#,
    ];

    let answers = gateway.lines(&lines.join("\n"));

    let told: Vec<_> =
        answers.iter().map(|answer| (answer["offset"].as_u64(), answer["error"].as_str())).collect();
    let expected = [
        (Some(1), None),
        (None, None),
        (None, Some("bad_request")),
        (None, Some("too_long")),
        (Some(2), None),
        (Some(2), None),
        (None, None),
        (Some(3), None),
    ];
    assert_eq!(told, expected);
    assert_eq!(gateway.publications().len(), 3);
}

#[test]
fn lines_that_find_no_room_wait_for_it_and_then_are_refused() {
    let gateway = gateway();
    gateway.join("5");
    let line = json!({ "room_id": 5, "content": "x".repeat(600) }).to_string();

    let answers = gateway.lines(&format!("{line}\n{line}\n{{\"room_id\":6,\"content\":\"other\"}}\n"));

    assert_eq!(answers[0]["offset"], 1);
    assert_eq!(answers[1]["error"], "unavailable");
    assert_eq!(answers[2], json!({}));
}

#[test]
fn a_line_that_comes_drop_by_drop_has_to_end_in_time_as_well() {
    let gateway = Gateway::new(Options { peer: Duration::from_millis(200), ..Options::default() });
    let mut stream = TcpStream::connect(gateway.admin.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let head = "POST /api/v1/publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n";
    write!(stream, "{head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let clock = Clock::start();
    let mut answer = Vec::new();

    while !String::from_utf8_lossy(&answer).contains("{\"error\":\"timeout\"") {
        assert!(Duration::from_nanos(clock.now()) < PATIENCE, "the request keeps its place");
        // It may have ended just now.
        let _ = stream.write_all(b"1\r\nx\r\n");
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).unwrap_or(0);
        answer.extend_from_slice(&piece[..read]);
    }
}

#[test]
fn a_line_is_answered_before_the_next_is_sent_and_silence_ends_the_request() {
    let options = Options { peer: Duration::from_millis(300), ..Options::default() };
    let gateway = Gateway::new(options);
    gateway.join("5");
    let mut stream = Stream::begin(&gateway, "");
    for offset in 1..=3 {
        stream.say("{\"room_id\":5,\"content\":\"hi\"}\n");
        stream.hear(&format!("{{\"offset\":{offset},"));
    }

    let answer = stream.rest();

    assert!(answer.contains("{\"error\":\"timeout\",\"message\":"), "{answer}");
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
}

/// Begins with a key, which then is another or is for something else, and says two lines more.
fn changed_key(scopes: Vec<Scope>, others: &[ApiKey]) -> (String, usize) {
    let secret = "a key to publish, of more than 32 characters";
    let key = |scopes| ApiKey::new("one".to_owned(), secret, scopes);
    let keys = ApiKeys([key(vec![Scope::Publish])].into());
    let gateway = Gateway::new(Options { keys, ..Options::default() });
    gateway.join("5");
    let line = "{\"room_id\":5,\"content\":\"hi\"}\n";
    let mut stream = Stream::begin(&gateway, &format!("Authorization: Bearer {secret}\r\n"));
    stream.say(line);
    stream.hear("{\"offset\":1,");

    let left = if scopes.is_empty() { None } else { Some(key(scopes)) };
    gateway.keys.set(ApiKeys(left.into_iter().chain(others.iter().cloned()).collect()));
    stream.say(&format!("{line}{line}"));
    stream.end();

    (stream.rest(), gateway.publications().len())
}

#[test]
fn lines_are_published_only_as_long_as_the_key_is_for_it() {
    let other =
        ApiKey::new("two".to_owned(), "another key, of more than 32 characters", vec![Scope::Publish]);

    let (answer, published) = changed_key(Vec::new(), std::slice::from_ref(&other));
    assert!(answer.contains("{\"error\":\"unauthorized\",\"message\":"), "{answer}");
    assert_eq!((answer.matches("unauthorized").count(), published), (1, 1), "it ends: {answer}");
    let (answer, published) = changed_key(vec![Scope::Read], &[]);
    assert!(answer.contains("{\"error\":\"forbidden\",\"message\":"), "{answer}");
    assert_eq!((answer.matches("forbidden").count(), published), (1, 1), "it ends: {answer}");
    let (answer, published) = changed_key(vec![Scope::Publish], &[other]);
    assert!(answer.contains("{\"offset\":3,") && published == 3, "still the same key: {answer}");
    let (answer, published) = changed_key(Vec::new(), &[]);
    assert!(answer.contains("{\"offset\":3,") && published == 3, "nobody is asked any more: {answer}");
}

#[test]
fn lines_that_began_without_a_key_end_when_there_are_keys() {
    let gateway = gateway();
    let mut stream = Stream::begin(&gateway, "");
    stream.say("{\"room_id\":5,\"content\":\"hi\"}\n");
    stream.hear("{}");

    let key = ApiKey::new("one".to_owned(), "a key, of more than 32 characters", vec![Scope::Publish]);
    gateway.keys.set(ApiKeys([key].into()));
    // Also what does not end.
    stream.say("{\"room_id\":5,\"content\":\"hi\"}");
    stream.end();

    assert!(stream.rest().contains("{\"error\":\"unauthorized\",\"message\":"));
}

#[test]
fn many_lines_in_one_piece_do_not_hold_up_the_end_of_the_gateway() {
    let gateway = Gateway::new(Options { answer: PATIENCE, ..Options::default() });
    gateway.join("5");
    let line = json!({ "room_id": 5, "content": "x".repeat(600) }).to_string() + "\n";
    let other = "{\"room_id\":6,\"content\":\"other\"}\n";
    let mut stream = Stream::begin(&gateway, "");
    stream.say(&(line.clone() + &other.repeat(1000) + &line.repeat(100)));
    stream.hear("{\"offset\":1,");

    gateway.admin.stop();

    assert!(stream.rest().contains("the gateway is stopping"));
}
