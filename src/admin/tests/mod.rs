//! Over real sockets, with shards that answer as the test says.

mod api;
mod api_keys;
mod connections;
mod places;
mod publish;
mod rooms;
mod tap;

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::*;
use crate::auth;
use crate::hub;
use crate::inbox::{Command, Inbox, Limits};
use crate::inspect::Question;
use crate::metrics::{ListenerMetrics, ServerMetrics};
use crate::readiness::Cause;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// So long that only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The admin listener of a gateway whose shards are not real.
struct World {
    admin: AdminHandle,
    recorder: Recorder,
    ready: Readiness,
    hub: Arc<Hub>,
    _shards: Vec<Shard>,
}

/// What a shard does.
enum Shard {
    /// Answers on a thread of its own.
    Answers(Outlet, Option<JoinHandle<()>>),
    /// Takes nothing from its inbox.
    Silent(Outlet, #[expect(dead_code, reason = "an inbox that is gone would be noticed")] Inbox),
}

impl Shard {
    fn answering(mut answer: impl FnMut(Question) + Send + 'static) -> Self {
        let (outlet, inbox) = Inbox::pair(Limits::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let work = async move {
            let mut commands = VecDeque::new();
            loop {
                inbox.notified().await;
                inbox.take_all(&mut commands);
                for command in commands.drain(..) {
                    match command {
                        Command::Ask(question) => answer(question),
                        _ => return,
                    }
                }
            }
        };
        Self::Answers(outlet, Some(thread::spawn(move || runtime.block_on(work))))
    }

    fn silent() -> Self {
        let (outlet, inbox) = Inbox::pair(Limits::default());
        Self::Silent(outlet, inbox)
    }

    fn outlet(&self) -> &Outlet {
        let (Self::Answers(outlet, _) | Self::Silent(outlet, _)) = self;
        outlet
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        if let Self::Answers(outlet, thread) = self {
            outlet.push(Command::Stop).unwrap();
            let ended = thread.take().unwrap().join();
            assert!(ended.is_ok() || thread::panicking(), "the shard's answer failed");
        }
    }
}

fn state(shards: &[Shard], options: Options) -> State {
    let shards: Vec<_> = shards.iter().map(|shard| shard.outlet().clone()).collect();
    let clock = Clock::start();
    State {
        recorder: Recorder::new(),
        ready: Readiness::default(),
        clock,
        hub: Hub::new(shards.clone(), hub::Options::default(), clock),
        shards,
        refresh: Arc::new(|| {}),
        verifier: Arc::new(Verifier::new(auth::Options::default()).unwrap()),
        drain: drain::controls().0,
        keys: KeyRing::new(options.keys.clone()),
        options,
    }
}

fn gateway() -> World {
    gateway_of(Vec::new())
}

/// With a short patience for answers where a shard is silent.
fn gateway_of(shards: Vec<Shard>) -> World {
    let is_silent = shards.iter().any(|shard| matches!(shard, Shard::Silent(..)));
    let answer = if is_silent { Duration::from_millis(50) } else { PATIENCE };
    gateway_with(shards, Options { answer, ..Options::default() })
}

fn gateway_with(shards: Vec<Shard>, options: Options) -> World {
    let state = state(&shards, options);
    let (recorder, ready, hub) = (state.recorder.clone(), state.ready.clone(), Arc::clone(&state.hub));
    World { admin: start(ANY_PORT, state).unwrap(), recorder, ready, hub, _shards: shards }
}

impl World {
    /// Status and whole answer to one request on a connection of its own.
    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        ask(&self.admin, method, path)
    }

    /// As [`World::ask`], with these lines in the head and this body.
    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        send(&self.admin, method, path, headers, body)
    }

    /// Status and JSON of the answer.
    fn get(&self, path: &str) -> (u16, Value) {
        let (status, answer) = self.ask("GET", path);
        assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(body.ends_with('\n'), "{body:?}");
        (status, serde_json::from_str(body).unwrap())
    }

    /// The text of a refusal with this status.
    fn refusal(&self, path: &str, status: u16) -> String {
        let (found, answer) = self.get(path);
        assert_eq!(found, status, "{path}: {answer}");
        answer["message"].as_str().unwrap().to_owned()
    }

    fn shows(&self, line: &str) -> bool {
        self.recorder.render().lines().any(|shown| shown == line)
    }
}

fn ask(admin: &AdminHandle, method: &str, path: &str) -> (u16, String) {
    send(admin, method, path, "", "")
}

fn send(admin: &AdminHandle, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{headers}{length}");
    write!(stream, "{head}\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

#[test]
fn serves_the_metrics_of_gateway_and_process_as_prometheus_text() {
    let world = gateway();
    ServerMetrics::new(&world.recorder);
    ListenerMetrics::new(&world.recorder).accepted.increment(3);

    let (status, answer) = world.ask("GET", "/metrics");

    assert_eq!(status, 200);
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    assert!(answer.contains("\nfanfare_accepted_connections_total{listener=\"public\"} 3\n"), "{answer}");
    assert!(answer.contains("\n# TYPE process_cpu_seconds_total counter\n"), "{answer}");
}

#[test]
fn refreshes_gauges_before_each_scrape() {
    let state = state(&[], Options::default());
    let limit = ListenerMetrics::new(&state.recorder).limit;
    let refresh = Arc::new(move || limit.increment(1.0));
    let admin = start(ANY_PORT, State { refresh, ..state }).unwrap();

    ask(&admin, "GET", "/metrics");
    let (_, second) = ask(&admin, "GET", "/metrics");

    assert!(second.contains("\nfanfare_connections_limit 2\n"), "{second}");
}

#[test]
fn is_ready_until_a_reason_speaks_against_it_and_alive_all_the_time() {
    let world = gateway();

    assert_eq!(world.get("/readyz"), (200, json!({ "ready": true, "reasons": [] })));
    world.ready.block(Cause::Draining, "stopping", 0);
    let (status, mut answer) = world.get("/readyz");
    assert!(answer["reasons"][0]["for_seconds"].take().as_f64().is_some());
    let reason = json!({ "reason": "draining", "detail": "stopping", "for_seconds": null });
    assert_eq!((status, answer), (503, json!({ "ready": false, "reasons": [reason] })));
    assert!(world.ask("GET", "/livez").1.ends_with("\r\n\r\nalive\n"));
    world.ready.clear(Cause::Draining);
    assert_eq!(world.get("/readyz").0, 200);
}

#[test]
fn refuses_unknown_paths_and_other_methods() {
    let world = gateway();
    assert_eq!(world.ask("GET", "/").0, 404);
    assert_eq!(world.ask("GET", "/metrics/").0, 404);
    let (status, answer) = world.ask("POST", "/metrics");
    assert_eq!(status, 405);
    assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    let (status, answer) = world.ask("HEAD", "/livez");
    assert_eq!((status, answer.ends_with("\r\n\r\n")), (200, true));
    assert!(answer.contains("content-length: 6\r\n"), "{answer}");
}

#[test]
fn every_route_but_health_refuses_parameters_that_it_does_not_know() {
    let world = gateway();
    for path in [
        "/metrics",
        "/metrics/rooms",
        "/debug/slow",
        "/debug/connections",
        "/debug/connections/0000000000000007",
        "/debug/closed",
        "/debug/rooms",
        "/debug/tap",
    ] {
        let (status, answer) = world.get(&format!("{path}?verbose=1"));
        assert_eq!((status, &answer["error"]), (400, &json!("bad_request")), "{path}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.starts_with("verbose=1: no such parameter here; allowed: "), "{message}");
    }
    for path in ["/livez?verbose=1", "/readyz?%ff&verbose=1&verbose=1"] {
        assert_eq!(world.ask("GET", path).0, 200, "{path}");
    }
}

#[test]
fn counts_each_request_by_route_method_and_code() {
    let world = gateway();
    world.ask("GET", "/livez");
    world.ask("HEAD", "/livez");
    world.ask("POST", "/livez");
    world.ask("BREW", "/pot/secret");
    world.ask("GET", "/debug/connections/0000000000000007");
    world.ask("GET", "/debug/slow?k=0");

    for (labels, requests) in [
        (r#"route="/livez",method="GET",code="200""#, 1),
        (r#"route="/livez",method="HEAD",code="200""#, 1),
        (r#"route="/livez",method="POST",code="405""#, 1),
        (r#"route="other",method="other",code="404""#, 1),
        (r#"route="/debug/connections/{id}",method="GET",code="503""#, 1),
        (r#"route="/debug/slow",method="GET",code="400""#, 1),
    ] {
        assert!(world.shows(&format!("fanfare_http_requests_total{{{labels}}} {requests}")), "{labels}");
    }
    assert!(world.shows(r#"fanfare_http_request_duration_seconds_count{route="/livez"} 3"#));
    assert!(!world.recorder.render().contains("secret"));
}

#[test]
fn shows_the_series_of_every_kind_of_request_in_the_first_scrape() {
    let world = gateway();

    let (_, page) = world.ask("GET", "/metrics");

    for labels in [
        r#"route="/metrics",method="GET",code="200""#,
        r#"route="/livez",method="HEAD",code="200""#,
        r#"route="/readyz",method="GET",code="503""#,
        r#"route="/debug/tap",method="GET",code="429""#,
        r#"route="/debug/slow",method="POST",code="405""#,
        r#"route="other",method="other",code="404""#,
    ] {
        assert!(page.contains(&format!("\nfanfare_http_requests_total{{{labels}}} 0\n")), "{labels}: {page}");
    }
    for route in ["/metrics", "/debug/connections/{id}", "other"] {
        let series = format!("fanfare_http_request_duration_seconds_count{{route=\"{route}\"}} 0");
        assert!(page.contains(&format!("\n{series}\n")), "{route}: {page}");
    }
    let requests = page.lines().filter(|line| line.starts_with("fanfare_http_requests_total{")).count();
    assert!(requests < 300, "a bounded number of kinds: {requests}");
}

#[test]
fn stops_with_open_connections_and_frees_its_port() {
    let world = gateway();
    let addr = world.admin.addr();
    let _open = TcpStream::connect(addr).unwrap();

    world.admin.stop();

    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn names_the_address_that_it_could_not_bind() {
    let world = gateway();
    let addr = world.admin.addr();
    let error = start(addr, state(&[], Options::default())).err().unwrap();
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}
