//! Whole shards on threads of their own, over real sockets.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use super::*;
use crate::admission;
use crate::auth::{self, Verifier};
use crate::drain;
use crate::hub::{self, Hub};
use crate::id::{NodeId, RoomKey, ShardIndex};
use crate::inbox::{Admission, Gate, Limits, Origin, Outlet, Publication};
use crate::memory::{self, Ledger};
use crate::metrics::{HttpMetrics, Recorder, ShardMetrics, Source};
use crate::session;
use crate::shard::{Heartbeat, Options, Rates};
use crate::ws::{self, PreparedMessage};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_panic_costs_only_the_clients_of_its_shard_and_they_are_told() {
    let mut world = World::start(2);
    let mut struck: Vec<_> = (0..3).map(|_| world.connect(0)).collect();
    let mut spared = world.connect(1);

    world.break_an_invariant(0);

    for client in &mut struck {
        assert_eq!(client.close_code(), 1011);
    }
    spared.ping();
    let mut newcomer = world.connect(0);
    newcomer.ping();
    world.wait_until(|world| world.shows("fanfare_shard_panics_total{shard=\"0\"} 1"));
    world.wait_until(|world| world.shows("fanfare_connections_closed_total{reason=\"internal\"} 3"));
    assert!(world.shows("fanfare_shard_panics_total{shard=\"1\"} 0"));
    drop(struck);
    world.wait_until(|world| world.gate.open() == 2);
    world.stop();
}

#[test]
fn a_shard_that_panics_again_and_again_ends() {
    let mut world = World::start(1);
    for _ in 0..5 {
        let mut client = world.connect(0);
        world.break_an_invariant(0);
        assert_eq!(client.close_code(), 1011);
    }

    world.break_an_invariant(0);

    assert!(world.threads.pop().unwrap().join().is_err());
    assert!(world.shows("fanfare_shard_panics_total{shard=\"0\"} 6"));
}

#[test]
fn who_waited_too_long_for_a_turn_is_told_to_come_back_at_a_time_of_its_own() {
    let mut world = World::start(1);
    let mut here = world.connect(0);
    let long_ago = test_now().checked_sub(Duration::from_millis(1500)).unwrap();
    let mut times = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let (head, _) = world.arrive(0, long_ago);
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        let after = head.lines().find_map(|line| line.strip_prefix("Retry-After: ")).unwrap();
        times.insert(after.parse::<u64>().unwrap());
    }
    assert_eq!(times, (1..=10).collect());
    here.ping();
    world.wait_until(|world| world.shows("fanfare_handshake_failures_total{reason=\"overload\"} 10"));
    world.stop();
}

struct World {
    outlets: Vec<Outlet>,
    threads: Vec<JoinHandle<()>>,
    recorder: Recorder,
    gate: Gate,
    listener: TcpListener,
    ids: u64,
    /// How often each shard's room of everyone was made.
    lives: Vec<u64>,
    _running: drain::Signal,
}

struct Client(TcpStream);

impl World {
    fn start(shards: u16) -> Self {
        let (outlets, inboxes): (Vec<_>, Vec<_>) =
            (0..shards).map(|_| Inbox::pair(Limits::default())).unzip();
        let (clock, recorder) = (Clock::start(), Recorder::new());
        let (running, watch) = drain::pair();
        let hub = Hub::new(outlets.clone(), hub::Options::default(), clock);
        let verifier = Arc::new(Verifier::new(auth::Options::default()).unwrap());
        let metrics = HttpMetrics::new(&recorder);
        let desk = admission::Desk::new(admission::Options::default(), 100);
        let http =
            Arc::new(http::Shared::new(http::Options::default(), verifier, desk, watch, metrics, clock));
        let options = Arc::new(Options {
            message_bytes: 64 << 10,
            outbound_bytes: 1 << 20,
            batch_bytes: 256 << 10,
            compression: ws::DeflateOptions::default(),
            rates: Rates::default(),
            heartbeat: Heartbeat::default(),
            session: session::Limits::default(),
            sessions: super::super::SessionOptions::default(),
            node: NodeId::parse("node").unwrap(),
        });
        let ledger = Ledger::new(usize::from(shards), memory::Limits::of(usize::MAX));
        let shard = |(index, inbox): (u16, Inbox)| {
            let parts = Parts {
                index: ShardIndex(index),
                options: Arc::clone(&options),
                inbox,
                hub: Arc::clone(&hub),
                http: Arc::clone(&http),
                metrics: ShardMetrics::new(&recorder, usize::from(index)),
                memory: ledger.account(usize::from(index)),
                vitals: Vitals::new(clock.now()),
                clock,
            };
            spawn(parts).unwrap()
        };
        let threads = (0..shards).zip(inboxes).map(shard).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (gate, lives) = (Gate::new(100), vec![1; usize::from(shards)]);
        Self { outlets, threads, recorder, gate, listener, ids: 0, lives, _running: running }
    }

    /// A client of this shard that was welcomed.
    fn connect(&mut self, shard: usize) -> Client {
        let (head, mut client) = self.arrive(shard, test_now());
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(client.text().contains("welcome"));
        client
    }

    /// A connection to this shard that was accepted then, and the head of the answer to its request.
    fn arrive(&mut self, shard: usize, accepted_at: Instant) -> (String, Client) {
        let mut client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let hello = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        client.write_all(hello.as_bytes()).unwrap();
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let Admission::Admitted(permit) = self.gate.admit() else { panic!("the gate is open") };
        self.ids += 1;
        let (id, peer) = (ClientId(self.ids), stream.peer_addr().unwrap());
        let accept = Command::Accept { stream, peer, permit, id, refuse: None, accepted_at };
        self.outlets[shard].push(accept).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            head.extend_from_slice(&byte);
        }
        (String::from_utf8(head).unwrap(), Client(client))
    }

    /// Has a shard panic: publications of a room come in the order of their offsets, or the gateway has a fault.
    fn break_an_invariant(&mut self, shard: usize) {
        let life = self.lives[shard];
        self.lives[shard] += 2;
        let everyone = RoomKey::from(KeyData::from_ffi(life << 32 | 1));
        // So many that the shard does not take each by itself.
        for offset in (1..=1000).rev() {
            let origin = Origin { source: Source::Client, read_at: 0, dispatched_at: 0 };
            let message = PreparedMessage::text(b"{\"type\":\"message\"}");
            let publication = Publication { offset, message, key: None, exclude: None, origin };
            self.outlets[shard].push(Command::Publish { room: everyone, publication }).unwrap();
        }
    }

    fn shows(&self, line: &str) -> bool {
        self.recorder.render().lines().any(|shown| shown == line)
    }

    /// Waits until it is true, within the patience.
    fn wait_until(&self, is_true: impl Fn(&Self) -> bool) {
        let pause = Duration::from_millis(1);
        for _ in 0..PATIENCE.as_millis() {
            if is_true(self) {
                return;
            }
            thread::sleep(pause);
        }
        panic!("{} connections, {}", self.gate.open(), self.recorder.render());
    }

    fn stop(self) {
        for outlet in &self.outlets {
            outlet.push(Command::Stop).unwrap();
        }
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

impl Client {
    /// The payload of the next text frame, after those that are shorter than 126 bytes.
    fn text(&mut self) -> String {
        let (first, payload) = self.frame();
        assert_eq!(first, 0x81);
        String::from_utf8(payload).unwrap()
    }

    fn close_code(&mut self) -> u16 {
        loop {
            let (first, payload) = self.frame();
            if first == 0x88 {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }

    fn ping(&mut self) {
        self.0.write_all(&[0x89, 0x80, 0, 0, 0, 0]).unwrap();
        assert_eq!(self.frame().0, 0x8a);
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut length = usize::from(head[1]);
        if length == 126 {
            let mut long = [0; 2];
            self.0.read_exact(&mut long).unwrap();
            length = usize::from(u16::from_be_bytes(long));
        }
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        (head[0], payload)
    }
}

#[expect(clippy::disallowed_methods, reason = "an instant is needed, whichever it is")]
fn test_now() -> Instant {
    Instant::now()
}
