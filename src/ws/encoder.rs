//! Frames as the gateway sends them: whole, final and unmasked (RFC 6455, section 5).

use std::io::Write as _;
use std::iter;

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload};

use super::close::CloseCode;
use super::decoder::PeerClose;
use super::header::{CONTROL_PAYLOAD_BYTES_MAX, RSV1};

/// The longest head of a frame without a mask.
const HEAD_BYTES_MAX: usize = 10;

/// The longest number of 64 bits in decimal.
const DECIMAL_BYTES_MAX: usize = 20;

/// A text message encoded once for many receivers.
///
/// It is one whole frame in one shared allocation; a clone shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedMessage {
    bytes: Bytes,
    header_len: u8,
}

impl PreparedMessage {
    /// Encodes a text message; `payload` is UTF-8.
    pub fn text(payload: &[u8]) -> Self {
        let header_len = head_len(payload.len());
        let mut bytes = Vec::with_capacity(usize::from(header_len) + payload.len());
        encode_text(&mut bytes, payload);
        Self { bytes: bytes.into(), header_len }
    }

    /// The frame, head and payload.
    pub fn frame(&self) -> &Bytes {
        &self.bytes
    }

    /// What the frame carries.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.header_len)..]
    }
}

/// A text message in which one number is not known yet.
///
/// All but the number is encoded before, so that whoever learns it has next to nothing to do.
#[derive(Debug)]
pub struct Draft {
    /// Room for the longest head, then what comes before the number.
    bytes: Vec<u8>,
    after: &'static [u8],
}

impl Draft {
    /// A message of `before`, a decimal number, and `after`, together UTF-8.
    pub fn new(before: &[u8], after: &'static [u8]) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES_MAX + before.len() + DECIMAL_BYTES_MAX + after.len());
        bytes.resize(HEAD_BYTES_MAX, 0);
        bytes.extend_from_slice(before);
        Self { bytes, after }
    }

    /// The message with its number.
    pub fn with_number(self, number: u64) -> PreparedMessage {
        let Self { mut bytes, after } = self;
        write!(bytes, "{number}").expect("a vector takes what it is given");
        bytes.extend_from_slice(after);
        let payload = &bytes[HEAD_BYTES_MAX..];
        let mut head = [0; HEAD_BYTES_MAX];
        let head_len = Frame::new(true, OpCode::Text, None, Payload::Borrowed(payload)).fmt_head(&mut head);
        let begin = HEAD_BYTES_MAX - head_len;
        bytes[begin..HEAD_BYTES_MAX].copy_from_slice(&head[..head_len]);
        let header_len = u8::try_from(head_len).expect("a head is short");
        PreparedMessage { bytes: Bytes::from(bytes).slice(begin..), header_len }
    }
}

/// Appends a text frame (section 5.6); `payload` is UTF-8.
pub fn encode_text(out: &mut Vec<u8>, payload: &[u8]) {
    debug_assert!(simdutf8::basic::from_utf8(payload).is_ok(), "text frames carry UTF-8");
    encode(out, OpCode::Text, payload);
}

/// Appends a binary frame (section 5.6).
pub fn encode_binary(out: &mut Vec<u8>, payload: &[u8]) {
    encode(out, OpCode::Binary, payload);
}

/// Appends a frame of a message that was compressed (RFC 7692, section 6).
pub(super) fn encode_compressed(out: &mut Vec<u8>, is_text: bool, payload: &[u8]) {
    let begin = out.len();
    encode(out, if is_text { OpCode::Text } else { OpCode::Binary }, payload);
    out[begin] |= RSV1;
}

/// Appends a Ping (section 5.5.2) with at most 125 bytes of `payload`.
pub fn encode_ping(out: &mut Vec<u8>, payload: &[u8]) {
    encode(out, OpCode::Ping, cap_control_payload(payload));
}

/// Appends a Pong (section 5.5.3) with at most 125 bytes of `payload`, which are those of the Ping.
pub fn encode_pong(out: &mut Vec<u8>, payload: &[u8]) {
    encode(out, OpCode::Pong, cap_control_payload(payload));
}

/// Appends a Close (section 5.5.1) with as much of `reason` as fits, cut between characters.
///
/// The code must be allowed on the wire.
pub fn encode_close(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    let code = u16::from(code);
    debug_assert!(CloseCode::allowed_on_wire(code), "{code} must not be sent");
    let reason_most = reason.len().min(CONTROL_PAYLOAD_BYTES_MAX - 2);
    let reason_end = (0..=reason_most).rfind(|&at| reason.is_char_boundary(at)).unwrap_or(0);
    let mut payload = [0; CONTROL_PAYLOAD_BYTES_MAX];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + reason_end].copy_from_slice(&reason.as_bytes()[..reason_end]);
    encode(out, OpCode::Close, &payload[..2 + reason_end]);
}

/// Appends the Close that answers the peer's own: the same code, or none when it gave none (section 5.5.1).
pub fn encode_close_reply(out: &mut Vec<u8>, received: Option<&PeerClose<'_>>) {
    match received {
        Some(close) => encode_close(out, close.code, ""),
        None => encode(out, OpCode::Close, &[]),
    }
}

/// Where the first frame in `bytes` ends; `None` when they do not hold it whole.
///
/// For frames of the gateway, which are not masked; `bytes` begin with a head.
pub fn frame_end(bytes: &[u8]) -> Option<usize> {
    split_frame(bytes).map(|(head, payload, _)| head.len() + payload.len())
}

/// The payloads of the messages in whole frames of the gateway, and whether each is compressed; control frames are passed
/// over.
pub fn message_payloads(mut frames: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    iter::from_fn(move || {
        loop {
            let (head, payload, rest) = split_frame(frames)?;
            frames = rest;
            if !is_control(head[0]) {
                return Some((head[0] & RSV1 != 0, payload));
            }
        }
    })
}

/// Head and payload of the first frame, and what is behind it.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&[_, short], rest) = bytes.split_first_chunk()?;
    debug_assert!(short & 0x80 == 0, "the gateway does not mask");
    let (head_len, payload_len) = match short {
        126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
        short => (2, usize::from(short)),
    };
    let (head, rest) = bytes.split_at_checked(head_len)?;
    let (payload, rest) = rest.split_at_checked(payload_len)?;
    Some((head, payload, rest))
}

/// Section 5.5: opcodes of control frames have this bit.
fn is_control(first: u8) -> bool {
    first & 0x08 != 0
}

fn encode(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let mut head = [0; HEAD_BYTES_MAX];
    let head_len = Frame::new(true, opcode, None, Payload::Borrowed(payload)).fmt_head(&mut head);
    out.reserve(head_len + payload.len());
    out.extend_from_slice(&head[..head_len]);
    out.extend_from_slice(payload);
}

fn head_len(payload_len: usize) -> u8 {
    match payload_len {
        0..126 => 2,
        126..0x1_0000 => 4,
        _ => 10,
    }
}

fn cap_control_payload(payload: &[u8]) -> &[u8] {
    debug_assert!(payload.len() <= CONTROL_PAYLOAD_BYTES_MAX, "control frames are short");
    &payload[..payload.len().min(CONTROL_PAYLOAD_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prepared_message_is_one_frame_around_its_payload_at_each_size_of_length() {
        for (len, head_len) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let payload = vec![b'x'; len];
            let message = PreparedMessage::text(&payload);
            assert_eq!(message.payload(), payload);
            assert_eq!(message.frame().len(), head_len + len);
            assert_eq!(message.frame()[0], 0x81);
            assert_eq!(frame_end(message.frame()), Some(head_len + len));
        }
    }

    #[test]
    fn a_draft_becomes_the_message_with_its_number() {
        for (len, number) in [(0, 0), (105, u64::MAX), (124, 7), (124, 10), (65_534, 9), (70_000, 123)] {
            let before = vec![b'x'; len];
            let whole = [&before[..], number.to_string().as_bytes(), b"}"].concat();

            assert_eq!(Draft::new(&before, b"}").with_number(number), PreparedMessage::text(&whole));
        }
    }

    #[test]
    fn frames_can_be_walked_and_a_cut_one_has_no_end() {
        let mut bytes = Vec::new();
        encode_text(&mut bytes, &[b'a'; 300]);
        let second_at = bytes.len();
        encode_binary(&mut bytes, &[7; 3]);
        assert_eq!(frame_end(&bytes), Some(second_at));
        assert_eq!(frame_end(&bytes[second_at..]), Some(5));
        for cut in 0..second_at {
            assert_eq!(frame_end(&bytes[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn messages_are_found_between_control_frames() {
        let mut bytes = Vec::new();
        encode_ping(&mut bytes, b"ping");
        encode_text(&mut bytes, b"");
        encode_pong(&mut bytes, b"pong");
        encode_binary(&mut bytes, &[b'b'; 300]);
        encode_text(&mut bytes, &vec![b'c'; 70_000]);
        encode_close(&mut bytes, CloseCode::Normal, "close");
        let lengths: Vec<_> = message_payloads(&bytes).map(|(_, payload)| payload.len()).collect();
        assert_eq!(lengths, [0, 300, 70_000]);
        for cut in 0..bytes.len() {
            assert!(message_payloads(&bytes[..cut]).count() <= 3, "cut at {cut}");
        }
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        let mut bytes = Vec::new();
        encode_close(&mut bytes, CloseCode::PolicyViolation, &"€".repeat(100));
        assert_eq!(bytes[..4], [0x88, 2 + 123, 0x03, 0xF0]);
        encode_close(&mut bytes, CloseCode::Normal, &format!("a{}", "€".repeat(100)));
        assert_eq!(bytes[127..131], [0x88, 2 + 121, 0x03, 0xE8]);
        assert!(std::str::from_utf8(&bytes[131..]).is_ok());
    }

    #[test]
    fn a_close_without_a_code_is_answered_without_one() {
        let mut bytes = Vec::new();
        encode_close_reply(&mut bytes, None);
        assert_eq!(bytes, [0x88, 0]);
    }

    #[test]
    fn pings_and_pongs_carry_their_payload() {
        let mut bytes = Vec::new();
        encode_ping(&mut bytes, b"hi");
        encode_pong(&mut bytes, b"");
        assert_eq!(bytes, [0x89, 2, b'h', b'i', 0x8A, 0]);
    }
}
