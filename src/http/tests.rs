//! The handshake over real sockets, fed raw bytes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::*;
use crate::admission;
use crate::auth;
use crate::metrics::{HttpMetrics, Recorder};

const HELLO: &str = "GET /ws?user=7 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn upgrades_with_the_answer_of_the_rfc() {
    let (outcome, answer) = exchange(HELLO).await;

    let upgraded = upgraded(outcome);
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    assert!(has(&answer, "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    assert!(has(&answer, "upgrade: websocket\r\n") && has(&answer, "connection: upgrade\r\n"), "{answer}");
    assert!(!has(&answer, "sec-websocket-protocol") && !has(&answer, "content-length"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"));
    assert_eq!(upgraded.claims.user, crate::id::UserId::from_u64(7));
    assert_eq!((upgraded.endpoint, upgraded.ndjson), (Endpoint::Ws, false));
    assert!(upgraded.read_ahead.is_empty());
}

#[tokio::test]
async fn keeps_what_is_pipelined_behind_the_head() {
    for behind in ["\x01\x02\x03\n\n\n\r\n\r\n", HELLO] {
        let (outcome, answer) = exchange(&format!("{HELLO}{behind}")).await;

        assert_eq!(upgraded(outcome).read_ahead, behind.as_bytes());
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn loses_nothing_of_frames_that_come_later_or_in_great_number() {
    let shared = shared(Options::default());
    let (mut client, server) = connected();
    let frames = vec![b'f'; 200_000];
    let sent = frames.clone();
    let peer = thread::spawn(move || {
        client.write_all(HELLO.as_bytes()).unwrap();
        client.write_all(&sent).unwrap();
        client
    });

    let mut upgraded = upgraded(handshake(arrival(server), &shared).await);
    let mut rest = upgraded.read_ahead.to_vec();
    while rest.len() < frames.len() {
        let mut chunk = vec![0; 65_536];
        match upgraded.transport.read(&mut chunk) {
            Ok(received) => rest.extend_from_slice(&chunk[..received.bytes]),
            Err(_) => tokio::task::yield_now().await,
        }
    }

    assert!(rest == frames);
    drop(peer.join().unwrap());
}

#[tokio::test]
async fn understands_a_head_in_pieces() {
    let shared = shared(Options::default());
    let (mut client, server) = connected();
    client.set_nodelay(true).unwrap();
    let peer = thread::spawn(move || {
        for byte in HELLO.as_bytes() {
            client.write_all(&[*byte]).unwrap();
        }
        client
    });

    let outcome = handshake(arrival(server), &shared).await;

    assert!(matches!(outcome, Outcome::Upgraded(_)), "{outcome:?}");
    drop(peer.join().unwrap());
}

#[tokio::test]
async fn answers_every_wrong_request_with_its_status() {
    let head = |from: &str, to: &str| {
        assert!(HELLO.contains(from), "{from}");
        HELLO.replacen(from, to, 1)
    };
    let with = |header: &str| head("Host: a\r\n", &format!("Host: a\r\n{header}\r\n"));
    let rows = [
        (426, head("Connection: Upgrade\r\n", "")),
        (426, head("Upgrade: websocket\r\n", "")),
        (426, head("websocket", "h2c")),
        (426, head("n: 13", "n: 8")),
        (426, head("Sec-WebSocket-Version: 13\r\n", "")),
        (400, head("dGhlIHNhbXBsZSBub25jZQ==", "")),
        (400, head("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=")),
        (400, with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")),
        (405, head("GET", "POST")),
        (505, head("HTTP/1.1", "HTTP/1.0")),
        (400, head("HTTP/1.1", "HTTP/3.7")),
        (400, head("Host: a\r\n", "")),
        (400, with("Host: b")),
        (400, head("GET /ws", "GET  /ws")),
        (400, head("GET", "G\tT")),
        (400, with("No colon")),
        (400, with("Space : x")),
        (400, with("X: a\r\n folded")),
        (400, with("X: a\0b")),
        (400, with("Content-Length: 5")),
        (400, with("Content-Length: 0")),
        (400, with("Content-Length: x")),
        (400, with("Transfer-Encoding: chunked")),
        (400, with("Transfer-Encoding: chunked\r\nContent-Length: 3")),
        (431, with(&format!("X: {}", "a".repeat(17_000)))),
        (431, with("X: a\r\n".repeat(70).trim_end())),
        (414, head("/ws", &format!("/ws{}", "a".repeat(8_192)))),
        (414, head("/ws", &format!("/ws{}", "a".repeat(60_000)))),
        (404, head("/ws", "/other")),
        (404, head("/ws", "/echo")),
        (404, head("/ws", "/")),
        (403, with("Origin: http://evil.example")),
        (400, head("user=7", "user=")),
        (400, head("user=7", "user=%ff")),
        (400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
    ];
    for (status, request) in rows {
        let (outcome, answer) = exchange(&request).await;

        let shown = &request[..request.len().min(300)];
        assert!(matches!(outcome, Outcome::Refused(_)), "{shown}");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}\n{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1 + usize::from(status == 505), "{answer}");
        let closes = has(&answer, "connection: close\r\n") || has(&answer, "connection: upgrade, close\r\n");
        assert!(closes, "{answer}");
        let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert!(body["error"].is_string() && body["message"].is_string(), "{answer}");
    }
}

#[tokio::test]
async fn names_what_would_be_right() {
    let answer = exchange("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n").await.1;
    assert!(has(&answer, "upgrade: websocket") && has(&answer, "sec-websocket-version: 13"), "{answer}");
    assert!(has(&answer, "connection: upgrade"), "{answer}");

    let answer = exchange("POST /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await.1;
    assert!(has(&answer, "allow: get"), "{answer}");
}

#[tokio::test]
async fn sends_away_for_later_when_full_or_draining() {
    let (signal, watch) = drain::pair();
    let shared = shared_with(Options::default(), auth::Options::default(), watch);

    let (outcome, answer) = talk(HELLO.as_bytes(), &shared, true).await;
    assert!(matches!(outcome, Outcome::Refused(HandshakeFailure::Capacity)), "{outcome:?}");
    assert!(answer.starts_with("HTTP/1.1 503 ") && has(&answer, "retry-after: 5"), "{answer}");

    signal.drain();
    let (outcome, answer) = talk(HELLO.as_bytes(), &shared, false).await;
    assert!(matches!(outcome, Outcome::Refused(HandshakeFailure::Draining)), "{outcome:?}");
    assert!(answer.starts_with("HTTP/1.1 503 ") && has(&answer, "retry-after: 5"), "{answer}");
}

#[tokio::test]
async fn lets_only_good_tokens_in() {
    let options = auth::Options {
        mode: auth::Mode::Jwt,
        secret: Some(auth::Secret::new("0123456789abcdef0123456789abcdef")),
        ..auth::Options::default()
    };
    let grant = auth::Grant {
        user: crate::id::UserId::from_u64(9),
        ttl: Duration::from_secs(60),
        publish: None,
        rooms: None,
        broadcast: false,
    };
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let (good, expired) = (options.issue(&grant, now).unwrap(), options.issue(&grant, now - 3600).unwrap());
    let recorder = Recorder::new();
    let metrics = HttpMetrics::new(&recorder);
    let verifier = Verifier::new(options).unwrap();
    let desk = Desk::new(admission::Options::default(), 100);
    let shared =
        Shared::new(Options::default(), Arc::new(verifier), desk, running(), metrics, Clock::start());
    let with = |header: String| HELLO.replacen("Host: a\r\n", &format!("Host: a\r\n{header}\r\n"), 1);

    for request in [
        with(format!("Authorization: Bearer {good}")),
        with(format!("Sec-WebSocket-Protocol: fanfare.token.{good}, fanfare.v1.ndjson")),
        HELLO.replacen("user=7", &format!("user=7&token={good}"), 1),
    ] {
        let (outcome, answer) = talk(request.as_bytes(), &shared, false).await;
        let upgraded = upgraded(outcome);
        assert_eq!(upgraded.claims.user, crate::id::UserId::from_u64(9));
        assert_eq!(upgraded.ndjson, has(&answer, "sec-websocket-protocol: fanfare.v1.ndjson"));
        assert!(!answer.contains("token"), "{answer}");
    }
    for request in [
        HELLO.to_owned(),
        with(format!("Authorization: Bearer {expired}")),
        with(format!("Authorization: Bearer {good}x")),
        with("Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOjl9.".to_owned()),
        with("Authorization: Bearer \u{fc}".to_owned()),
    ] {
        let (outcome, answer) = talk(request.as_bytes(), &shared, false).await;
        assert!(matches!(outcome, Outcome::Refused(HandshakeFailure::Auth)), "{outcome:?}");
        assert!(answer.starts_with("HTTP/1.1 401 ") && has(&answer, "www-authenticate: bearer"), "{answer}");
        assert!(answer.contains(r#"{"error":"unauthorized","message":""#), "{answer}");
    }
    let page = recorder.render();
    for (result, count) in [
        ("ok", 3),
        ("missing", 1),
        ("expired", 1),
        ("bad_signature", 1),
        ("wrong_algorithm", 1),
        ("malformed", 1),
    ] {
        let series = format!("fanfare_auth_attempts_total{{result=\"{result}\"}} {count}\n");
        assert!(page.contains(&series), "{series}");
    }
}

#[tokio::test]
async fn declines_every_extension() {
    let offer = "Host: a\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=08, ;;=\r\n";

    let (outcome, answer) = exchange(&HELLO.replacen("Host: a\r\n", offer, 1)).await;

    assert!(matches!(outcome, Outcome::Upgraded(_)));
    assert!(!has(&answer, "sec-websocket-extensions"), "{answer}");
}

#[tokio::test]
async fn serves_the_demo_page_with_its_parts_when_told_to() {
    let shared = shared(Options { demo: true, ..Options::default() });

    for (path, media_type) in [
        ("/", "text/html"),
        ("/?token=a.b.c", "text/html"),
        ("/demo.css", "text/css"),
        ("/demo.js", "text/javascript"),
        ("/fanfare.js", "text/javascript"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (outcome, answer) = talk(request.as_bytes(), &shared, false).await;

        assert!(matches!(outcome, Outcome::Served), "{path}: {outcome:?}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {head}");
        for line in [
            &*format!("content-type: {media_type}; charset=utf-8\r\n"),
            &*format!("content-length: {}", body.len()),
            "cache-control: no-store",
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "connection: close",
        ] {
            assert!(has(head, line), "{path}: {line} in {head}");
        }
    }
}

#[tokio::test]
async fn serves_no_part_of_the_demo_page_unless_told_to() {
    for path in ["/", "/demo.css", "/demo.js", "/fanfare.js"] {
        let (outcome, answer) = exchange(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;

        assert!(matches!(outcome, Outcome::Refused(HandshakeFailure::NotFound)), "{path}: {outcome:?}");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
}

#[tokio::test]
async fn serves_echo_when_told_to() {
    let shared = shared(Options { echo: true, ..Options::default() });

    let (outcome, _) = talk(HELLO.replacen("/ws", "/echo", 1).as_bytes(), &shared, false).await;

    assert_eq!(upgraded(outcome).endpoint, Endpoint::Echo);
}

#[tokio::test]
async fn lets_go_of_those_that_say_nothing_or_never_end() {
    let shared = shared(Options { handshake: Duration::from_millis(50), ..Options::default() });
    for (said, answered) in [("", ""), ("GET /ws HTTP/1.1\r\nX: ", "HTTP/1.1 408 ")] {
        let (mut client, server) = connected();
        client.write_all(said.as_bytes()).unwrap();

        let outcome = handshake(arrival(server), &shared).await;

        assert!(matches!(outcome, Outcome::Refused(HandshakeFailure::Timeout)), "{outcome:?}");
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(answered) && answer.is_empty() == answered.is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn ends_with_a_peer_that_goes_away() {
    let shared = shared(Options::default());
    for reset in [false, true] {
        let (mut client, server) = connected();
        client.write_all(b"GET /ws HT").unwrap();
        if reset {
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(client);

        let outcome = handshake(arrival(server), &shared).await;

        assert!(matches!(outcome, Outcome::Refused(HandshakeFailure::IoError)), "{outcome:?}");
    }
}

#[tokio::test]
async fn bounds_what_a_refused_peer_may_go_on_sending() {
    let shared = shared(Options::default());
    let (mut client, server) = connected();
    let peer = thread::spawn(move || {
        client.write_all(b"POST /ws HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let chunk = [b'x'; 4096];
        while client.write_all(&chunk).is_ok() {}
    });

    let outcome = handshake(arrival(server), &shared).await;

    assert!(matches!(outcome, Outcome::Refused(HandshakeFailure::BadRequest)), "{outcome:?}");
    peer.join().unwrap();
}

async fn exchange(request: &str) -> (Outcome, String) {
    talk(request.as_bytes(), &shared(Options::default()), false).await
}

/// Sends a request, ends its side, and reads all that comes back.
async fn talk(request: &[u8], shared: &Shared, full: bool) -> (Outcome, String) {
    let (mut client, server) = connected();
    let request = request.to_vec();
    let peer = thread::spawn(move || {
        client.write_all(&request).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client
    });
    let refuse = full.then_some(Refuse::Full);
    let mut outcome = handshake(Arrival { refuse, ..arrival(server) }, shared).await;
    if let Outcome::Upgraded(upgraded) = &mut outcome {
        upgraded.transport.shutdown_write().unwrap();
    }
    let mut answer = String::new();
    peer.join().unwrap().read_to_string(&mut answer).unwrap();
    (outcome, answer)
}

fn upgraded(outcome: Outcome) -> Upgraded {
    match outcome {
        Outcome::Upgraded(upgraded) => *upgraded,
        other => panic!("not upgraded: {other:?}"),
    }
}

fn has(answer: &str, line: &str) -> bool {
    answer.to_ascii_lowercase().contains(&line.to_ascii_lowercase())
}

/// A watch whose signal never speaks.
fn running() -> drain::Watch {
    let (signal, watch) = drain::pair();
    std::mem::forget(signal);
    watch
}

fn shared(options: Options) -> Shared {
    shared_with(options, auth::Options::default(), running())
}

/// What lets connections in by these limits.
pub(super) fn shared_by(options: admission::Options) -> Shared {
    Shared { desk: Desk::new(options, 100), ..shared(Options::default()) }
}

fn shared_with(options: Options, auth: auth::Options, watch: drain::Watch) -> Shared {
    let verifier = Verifier::new(auth).unwrap();
    let desk = Desk::new(admission::Options::default(), 100);
    Shared::new(options, Arc::new(verifier), desk, watch, HttpMetrics::new(&Recorder::new()), Clock::start())
}

#[expect(clippy::disallowed_methods, reason = "the listener's part")]
fn arrival(stream: TcpStream) -> Arrival {
    // Unknown once the peer has reset the connection.
    let peer = stream.peer_addr().unwrap_or((std::net::Ipv4Addr::LOCALHOST, 1).into());
    Arrival { stream, peer, refuse: None, accepted_at: Instant::now() }
}

pub(super) fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let server = listener.accept().unwrap().0;
    server.set_nonblocking(true).unwrap();
    (client, server)
}
