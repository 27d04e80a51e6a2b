//! Any bytes from a client, cut in any way: no panic, memory inside the limit, and the same events as uncut.
//!
//! The first bytes choose the message limit and the cutting; the others are the stream.

#![no_main]

use fanfare::ws::{Decoder, Event, MessageKind};
use libfuzzer_sys::fuzz_target;

/// What the decoder may hold above the message limit: a control frame and its own state.
const OVERHEAD_BYTES_MAX: usize = 125 + 256;

fuzz_target!(|data: &[u8]| {
    let [limit_high, limit_low, piece_len, stream @ ..] = data else { return };
    let limit = usize::from(u16::from_be_bytes([*limit_high, *limit_low]));
    let whole = events(stream, stream.len().max(1), limit);
    assert_eq!(events(stream, usize::from(*piece_len).max(1), limit), whole);
    assert_eq!(events(stream, 1, limit), whole);
});

/// The events that come of `stream` in pieces of `piece_len` bytes, each as a text of its own.
fn events(stream: &[u8], piece_len: usize, limit: usize) -> Vec<String> {
    let mut decoder = Decoder::new();
    let mut seen = Vec::new();
    for piece in stream.chunks(piece_len) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            match decoder.decode(&mut input, limit) {
                Ok(Some(event)) => seen.push(describe(&event, limit)),
                Ok(None) => break,
                Err(error) => seen.push(format!("{error:?}, close {}", error.close_code())),
            }
        }
        assert!(input.is_empty());
        assert!(decoder.pending_bytes() <= limit + OVERHEAD_BYTES_MAX);
    }
    seen
}

fn describe(event: &Event<'_>, limit: usize) -> String {
    match event {
        Event::Message { kind, payload } => {
            assert!(payload.len() <= limit);
            assert!(*kind == MessageKind::Binary || std::str::from_utf8(payload).is_ok());
            format!("{kind:?} {:x?}", &payload[..])
        }
        Event::Compressed { .. } => unreachable!("it was not negotiated"),
        Event::Ping(payload) => format!("ping {:x?}", &payload[..]),
        Event::Pong(payload) => format!("pong {:x?}", &payload[..]),
        Event::Close(None) => "close".to_owned(),
        Event::Close(Some(close)) => format!("close {} {:x?}", close.code, &close.reason[..]),
    }
}
