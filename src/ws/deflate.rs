//! Compressed messages: permessage-deflate (RFC 7692), without a context between messages.
//!
//! Neither side keeps its window from one message to the next. So an idle connection holds nothing, one compressor and one
//! decompressor serve all connections of a shard, and a message that is compressed once can be sent to everybody who has
//! negotiated the extension: it refers to nothing before it.

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

use super::decoder::DecodeError;
use super::encoder;

/// What a flush ends a message with, and what is left away on the wire (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// That, and a last block: only where the data ended between two blocks is this an end, and the data whole.
const END: [u8; 6] = [0, 0, 0xFF, 0xFF, 0x03, 0];

/// The largest window there is, 32 KiB, which is the one that is used.
pub const WINDOW_BITS_MAX: u8 = 15;

/// What a decompressed message begins with room for, in bytes.
const OUTPUT_BYTES_MIN: usize = 4 << 10;

/// Room that is kept for the next message, in bytes.
const OUTPUT_BYTES_KEPT: usize = 64 << 10;

/// What was negotiated for one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Nothing: every message is as it is.
    #[default]
    Off,
    /// The client may compress. It cannot take what was compressed with a window of 32 KiB, so that it gets nothing
    /// compressed.
    FromClient,
    /// Both sides may compress.
    Both,
}

/// Which messages are compressed, and how hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Messages of fewer bytes are sent as they are.
    pub threshold: usize,
    /// From 1, the fastest, to 9, the smallest.
    pub level: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { threshold: 512, level: 3 }
    }
}

/// Compresses messages, one after the other. Takes some 300 KB from its first message on.
pub struct Deflater {
    options: Options,
    engine: Option<Box<Deflate>>,
    output: Vec<u8>,
}

impl Deflater {
    /// One that has compressed nothing yet.
    pub fn new(options: Options) -> Self {
        Self { options, engine: None, output: Vec::new() }
    }

    /// Appends a message as one frame, compressed, when that makes it shorter; says whether it did.
    ///
    /// `payload` is that of a text message, or any bytes of a binary one.
    pub fn encode(&mut self, out: &mut Vec<u8>, is_text: bool, payload: &[u8]) -> bool {
        match self.compress(payload) {
            Some(compressed) => {
                encoder::encode_compressed(out, is_text, compressed);
                true
            }
            None => false,
        }
    }

    fn compress(&mut self, payload: &[u8]) -> Option<&[u8]> {
        if payload.len() < self.options.threshold.max(1) {
            return None;
        }
        let level = i32::try_from(self.options.level).unwrap_or(9).clamp(1, 9);
        let engine = self.engine.get_or_insert_with(|| Box::new(Deflate::new(level, false, WINDOW_BITS_MAX)));
        engine.reset();
        // What does not fit is no shorter.
        self.output.resize(payload.len(), 0);
        engine.compress(payload, &mut self.output, DeflateFlush::SyncFlush).ok()?;
        let length = usize::try_from(engine.total_out()).ok()?;
        let is_whole = engine.total_in() == payload.len() as u64 && length < self.output.len();
        self.output.truncate(length);
        let compressed = self.output.strip_suffix(&TAIL).filter(|_| is_whole)?;
        Some(compressed)
    }
}

/// Decompresses messages, one after the other. Takes some 50 KB from its first message on.
#[derive(Default)]
pub struct Inflater {
    engine: Option<Box<Inflate>>,
    /// Room that was given back.
    spare: Vec<u8>,
}

impl Inflater {
    /// Decompresses the payload of a message to at most `limit` bytes.
    ///
    /// The memory is bounded by the limit as well, before anything is decompressed.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooBig`] when there would be more, [`DecodeError::Compressed`] when it is no DEFLATE data.
    pub fn inflate(&mut self, payload: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
        let engine = self.engine.get_or_insert_with(|| Box::new(Inflate::new(false, WINDOW_BITS_MAX)));
        engine.reset(false);
        let mut output = std::mem::take(&mut self.spare);
        match inflate(engine, payload, limit, &mut output) {
            Ok(()) => Ok(output),
            Err(error) => {
                self.give_back(output);
                Err(error)
            }
        }
    }

    /// Takes the room of a message back.
    pub fn give_back(&mut self, mut output: Vec<u8>) {
        output.clear();
        output.shrink_to(OUTPUT_BYTES_KEPT);
        self.spare = output;
    }
}

fn inflate(
    engine: &mut Inflate,
    payload: &[u8],
    limit: usize,
    output: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    // One more than may be, so that what is too long shows.
    let most = limit.saturating_add(1);
    output.resize(output.capacity().max(OUTPUT_BYTES_MIN).min(most), 0);
    let mut filled = 0;
    for (mut input, is_end) in [(payload, false), (&END[..], true)] {
        while !input.is_empty() || filled == output.len() {
            if filled == output.len() {
                output.resize((filled * 2).min(most), 0);
            }
            let (read, written) = (engine.total_in(), engine.total_out());
            let status = engine.decompress(input, &mut output[filled..], InflateFlush::NoFlush);
            let status = status.map_err(|_| DecodeError::Compressed)?;
            filled += count(engine.total_out() - written);
            if filled > limit {
                return Err(DecodeError::TooBig { limit });
            }
            let taken = count(engine.total_in() - read);
            input = &input[taken..];
            if status == Status::StreamEnd {
                if is_end && !input.is_empty() {
                    return Err(DecodeError::Compressed);
                }
                if input.is_empty() {
                    output.truncate(filled);
                    return Ok(());
                }
                // A last block ended the data, and other blocks follow (section 7.2.3.5).
                engine.reset(false);
            } else if taken == 0 && !input.is_empty() && filled < output.len() {
                return Err(DecodeError::Compressed);
            }
        }
    }
    Err(DecodeError::Compressed)
}

fn count(bytes: u64) -> usize {
    usize::try_from(bytes).expect("no more than a buffer holds")
}

/// The payload of a compressed message, also where that is longer than the message: clients may do so.
#[cfg(test)]
pub(crate) fn compress_always(payload: &[u8]) -> Vec<u8> {
    let mut engine = Deflate::new(6, false, WINDOW_BITS_MAX);
    let mut output = vec![0; payload.len() * 2 + 64];
    engine.compress(payload, &mut output, DeflateFlush::SyncFlush).unwrap();
    output.truncate(count(engine.total_out()));
    output.strip_suffix(&TAIL).unwrap().to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ws::message_payloads;

    const LIMIT: usize = 64 << 10;

    #[test]
    fn what_was_compressed_comes_back_and_each_message_stands_alone() {
        let text = "to be or not to be, that is the question; ".repeat(100);
        let mut deflater = Deflater::new(Options::default());
        let mut inflater = Inflater::default();
        let mut frames = Vec::new();
        assert!((0..3).all(|_| deflater.encode(&mut frames, true, text.as_bytes())));

        let payloads: Vec<_> = message_payloads(&frames).map(|(_, payload)| payload.to_vec()).collect();
        assert!(payloads.iter().all(|payload| *payload == payloads[0]) && payloads[0].len() < 200);
        for payload in payloads.iter().rev() {
            let message = inflater.inflate(payload, LIMIT).unwrap();
            assert_eq!(message, text.as_bytes());
            inflater.give_back(message);
        }
    }

    #[test]
    fn what_is_short_or_gets_no_shorter_is_left_as_it_is() {
        let mut deflater = Deflater::new(Options { threshold: 100, level: 9 });
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[0]
        });
        let noise: Vec<_> = noise.take(1000).collect();
        let mut out = Vec::new();

        assert!(!deflater.encode(&mut out, true, &[b'x'; 99]));
        assert!(!deflater.encode(&mut out, false, &noise));
        assert!(out.is_empty());
        assert!(deflater.encode(&mut out, true, &[b'x'; 100]));
    }

    #[test]
    fn a_message_of_exactly_the_limit_is_taken_and_a_longer_one_is_not() {
        let mut inflater = Inflater::default();
        for limit in [1, 5, 4095, 4096, 4097, LIMIT] {
            let message = inflater.inflate(&compress_always(&vec![b'x'; limit]), limit);
            assert_eq!(message.map(|message| message.len()), Ok(limit));
            let longer = compress_always(&vec![b'x'; limit + 1]);
            assert_eq!(inflater.inflate(&longer, limit), Err(DecodeError::TooBig { limit }));
        }
    }

    #[test]
    fn a_bomb_takes_no_more_memory_than_the_limit() {
        let bomb = compress_always(&vec![0; 64 << 20]);
        assert!(bomb.len() < LIMIT + 2000, "{}", bomb.len());
        let mut inflater = Inflater::default();

        assert_eq!(inflater.inflate(&bomb, LIMIT), Err(DecodeError::TooBig { limit: LIMIT }));

        assert!(inflater.spare.capacity() <= 2 * LIMIT);
    }

    #[test]
    fn a_last_block_ends_a_message_and_an_empty_one_is_empty() {
        let mut inflater = Inflater::default();
        // Section 7.2.3.4: "Hello" in a block with BFINAL, and the byte behind it.
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(inflater.inflate(&last, LIMIT), Ok(b"Hello".to_vec()));
        // Section 7.2.3.1, 7.2.3.3 (no compression) and 7.2.3.6 (empty).
        assert_eq!(
            inflater.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], LIMIT),
            Ok(b"Hello".to_vec())
        );
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        assert_eq!(inflater.inflate(&stored, LIMIT), Ok(b"Hello".to_vec()));
        assert_eq!(inflater.inflate(&[0x00], LIMIT), Ok(Vec::new()));
    }

    #[test]
    fn blocks_may_follow_a_last_one() {
        let mut inflater = Inflater::default();
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflater.inflate(&last, LIMIT), Ok(b"Hello".to_vec()));
        let two = [&last[..], &compress_always(b" world")].concat();
        assert_eq!(inflater.inflate(&two, LIMIT), Ok(b"Hello world".to_vec()));
        assert_eq!(inflater.inflate(&two, 10), Err(DecodeError::TooBig { limit: 10 }));
        let garbage = [&last[..], &[0xFF; 3]].concat();
        assert_eq!(inflater.inflate(&garbage, LIMIT), Err(DecodeError::Compressed));
    }

    #[test]
    fn what_is_not_whole_or_no_deflate_data_is_refused_and_the_next_message_is_not() {
        let mut inflater = Inflater::default();
        let text = b"hello hello hello hello, and something else";
        let good = compress_always(text);
        for cut in 1..good.len() {
            assert_eq!(inflater.inflate(&good[..cut], LIMIT), Err(DecodeError::Compressed), "cut at {cut}");
            assert_eq!(inflater.inflate(&good, LIMIT), Ok(text.to_vec()));
        }
        assert_eq!(inflater.inflate(&[0xFF; 20], LIMIT), Err(DecodeError::Compressed));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_or_are_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let mut inflater = Inflater::default();
            let _ = inflater.inflate(&bytes, 1000);
            let mut frame = Vec::new();
            if Deflater::new(Options { threshold: 0, level: 1 }).encode(&mut frame, false, &bytes) {
                let (_, payload) = message_payloads(&frame).next().unwrap();
                prop_assert_eq!(inflater.inflate(payload, bytes.len()).unwrap(), bytes);
            }
        }
    }
}
