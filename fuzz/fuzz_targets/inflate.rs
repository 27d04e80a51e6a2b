//! Compressed messages of clients: any bytes are bounded, refused or decompressed, and what was compressed comes back.

#![no_main]

use fanfare::ws::{DeflateOptions, Deflater, Inflater, message_payloads};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((limit, payload)) = input.split_first_chunk() else { return };
    let limit = usize::from(u16::from_be_bytes(*limit));
    let mut inflater = Inflater::default();
    if let Ok(message) = inflater.inflate(payload, limit) {
        assert!(message.len() <= limit);
        inflater.give_back(message);
    }
    let mut frame = Vec::new();
    if Deflater::new(DeflateOptions { threshold: 0, level: 3 }).encode(&mut frame, false, payload) {
        let (is_compressed, compressed) = message_payloads(&frame).next().expect("one message");
        assert!(is_compressed && compressed.len() < payload.len());
        assert_eq!(inflater.inflate(compressed, payload.len()).as_deref(), Ok(payload));
    }
});
