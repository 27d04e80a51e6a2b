use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use super::*;
use crate::metrics::{ListenerMetrics, ServerMetrics};
use crate::readiness::Cause;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn gateway() -> (AdminHandle, Recorder, Readiness) {
    let (recorder, ready) = (Recorder::new(), Readiness::default());
    let admin = start(ANY_PORT, State::new(recorder.clone(), ready.clone(), Clock::start())).unwrap();
    (admin, recorder, ready)
}

/// Status and whole answer to one request on a connection of its own.
fn ask(admin: &AdminHandle, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

#[test]
fn serves_the_metrics_of_gateway_and_process_as_prometheus_text() {
    let (admin, recorder, _) = gateway();
    ServerMetrics::new(&recorder);
    ListenerMetrics::new(&recorder).accepted.increment(3);

    let (status, answer) = ask(&admin, "GET", "/metrics");

    assert_eq!(status, 200);
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    assert!(answer.contains("\nfanfare_accepted_connections_total{listener=\"public\"} 3\n"), "{answer}");
    assert!(answer.contains("\n# TYPE process_cpu_seconds_total counter\n"), "{answer}");
}

#[test]
fn refreshes_gauges_before_each_scrape() {
    let recorder = Recorder::new();
    let limit = ListenerMetrics::new(&recorder).limit;
    let refresh = Arc::new(move || limit.increment(1.0));
    let admin =
        start(ANY_PORT, State { recorder, ready: Readiness::default(), clock: Clock::start(), refresh })
            .unwrap();

    ask(&admin, "GET", "/metrics");
    let (_, second) = ask(&admin, "GET", "/metrics");

    assert!(second.contains("\nfanfare_connections_limit 2\n"), "{second}");
}

#[test]
fn is_ready_until_a_reason_speaks_against_it_and_alive_all_the_time() {
    let (admin, _, ready) = gateway();
    let body = |path| {
        let (status, answer) = ask(&admin, "GET", path);
        (status, answer.split("\r\n\r\n").nth(1).unwrap().to_owned())
    };

    assert_eq!(body("/readyz"), (200, "{\"ready\":true,\"reasons\":[]}\n".to_owned()));
    ready.block(Cause::Draining, "stopping", 0);
    assert_eq!(body("/readyz"), (503, "{\"ready\":false,\"reasons\":[\"draining\"]}\n".to_owned()));
    assert_eq!(body("/livez"), (200, "alive\n".to_owned()));
    ready.clear(Cause::Draining);
    assert_eq!(body("/readyz").0, 200);
}

#[test]
fn refuses_unknown_paths_and_other_methods() {
    let (admin, ..) = gateway();
    assert_eq!(ask(&admin, "GET", "/").0, 404);
    assert_eq!(ask(&admin, "GET", "/metrics/").0, 404);
    let (status, answer) = ask(&admin, "POST", "/metrics");
    assert_eq!(status, 405);
    assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    let (status, answer) = ask(&admin, "HEAD", "/livez");
    assert_eq!((status, answer.ends_with("\r\n\r\n")), (200, true));
}

#[test]
fn serves_while_more_than_its_share_of_connections_say_nothing_but_half_of_them_go_away() {
    let (admin, ..) = gateway();
    let mut silent: Vec<_> =
        (0..CONNECTIONS_MAX).map(|_| TcpStream::connect(admin.addr()).unwrap()).collect();
    silent.truncate(CONNECTIONS_MAX / 2);

    assert_eq!(ask(&admin, "GET", "/livez").0, 200);
}

#[test]
fn stops_with_open_connections_and_frees_its_port() {
    let (admin, ..) = gateway();
    let addr = admin.addr();
    let _open = TcpStream::connect(addr).unwrap();

    admin.stop();

    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn names_the_address_that_it_could_not_bind() {
    let (admin, ..) = gateway();
    let error =
        start(admin.addr(), State::new(Recorder::new(), Readiness::default(), Clock::start())).err().unwrap();
    assert!(error.to_string().contains(&admin.addr().to_string()), "{error}");
}
