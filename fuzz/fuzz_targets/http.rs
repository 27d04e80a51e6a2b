//! Any bytes at the beginning of a connection: no panic, one whole answer, the same however they are cut, and 101 only for
//! a head that a second reader, who knows nothing but lines, finds right as well.
//!
//! The first byte chooses the gateway and whether a proxy speaks first, the second the cutting.

#![no_main]

use std::sync::{Arc, LazyLock};

use fanfare::admission::{self, Desk, Proxies, proxy};
use fanfare::auth::{self, Mode, Secret, Verifier};
use fanfare::clock::Clock;
use fanfare::drain;
use fanfare::http::{Options, Shared, fuzz::answer_to};
use fanfare::metrics::{HttpMetrics, Recorder};
use libfuzzer_sys::fuzz_target;

/// Small, so that inputs reach them.
const LIMITS: (usize, usize, usize) = (1024, 16, 256);

static OPEN: LazyLock<Shared> = LazyLock::new(|| gateway(auth::Options::default()));
static SECURED: LazyLock<Shared> = LazyLock::new(|| {
    let secret = Some(Secret::new("a secret of the fuzzing target, at least 32 bytes"));
    gateway(auth::Options { mode: Mode::Jwt, secret, ..auth::Options::default() })
});

fuzz_target!(|data: &[u8]| {
    let [choice, piece_len, input @ ..] = data else { return };
    let shared: &Shared = if choice & 1 == 0 { &OPEN } else { &SECURED };
    let mut input = input;
    if choice & 2 != 0 {
        let Ok(Some(header)) = proxy::parse(input) else { return };
        input = &input[header.bytes..];
    }
    let whole = answer_to(input, input.len().max(1), shared);
    let described = whole.as_ref().map(describe);
    assert_eq!(answer_to(input, usize::from(*piece_len).max(1), shared).as_ref().map(describe), described);
    assert_eq!(answer_to(input, 1, shared).as_ref().map(describe), described);
    let Some((status, Some(end))) = described else { return };
    assert!(end <= LIMITS.0 && input[..end].ends_with(b"\n"));
    if status == 101 {
        check_upgrade(&input[..end]);
    }
});

/// Status and length of the head; all else is checked to be one answer.
fn describe((answer, end): &(Vec<u8>, Option<usize>)) -> (u16, Option<usize>) {
    let text = str::from_utf8(answer).expect("answers are text");
    let status =
        text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect("a status line").parse();
    let answers = text.lines().filter(|line| line.starts_with("HTTP/1.1 ")).count();
    assert!(text.contains("\r\n\r\n") && answers == 1, "{text:?}");
    (status.expect("a status"), *end)
}

fn check_upgrade(head: &[u8]) {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let lines: Vec<_> = head.trim_start_matches(['\r', '\n']).lines().collect();
    let count = |name: &str| lines.iter().filter(|line| line.starts_with(name)).count();
    assert!(lines[0].starts_with("get /") && lines[0].ends_with("http/1.1"), "{head:?}");
    for once in ["host:", "sec-websocket-key:", "sec-websocket-version:"] {
        assert_eq!(count(once), 1, "{once} in {head:?}");
    }
    for never in ["content-length:", "transfer-encoding:"] {
        assert_eq!(count(never), 0, "{never} in {head:?}");
    }
    assert!(count("upgrade:") > 0 && count("connection:") > 0, "{head:?}");
    assert!(lines.len() <= 2 + LIMITS.1, "{head:?}");
}

fn gateway(auth: auth::Options) -> Shared {
    let (header_bytes, headers, target_bytes) = LIMITS;
    let origins = vec!["https://*.example:*".to_owned()];
    let options = Options {
        header_bytes,
        headers,
        target_bytes,
        origins,
        echo: true,
        demo: true,
        ..Options::default()
    };
    let trusted = vec!["127.0.0.0/8".parse().expect("a network")];
    let proxies = Proxies { trusted, protocol: false, forwarded_for: true };
    let desk = Desk::new(admission::Options { proxies, ..admission::Options::default() }, 100);
    let verifier = Arc::new(Verifier::new(auth).expect("keys that fit"));
    let (signal, watch) = drain::pair();
    // For ever, or all is told that the gateway drains.
    std::mem::forget(signal);
    let metrics = HttpMetrics::new(&Recorder::new());
    Shared::new(options, verifier, desk, watch, metrics, Clock::start())
}
