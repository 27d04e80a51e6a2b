//! Frames as a client sees them: walks what the server sent, masks what goes to it.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The key of every masked frame. One run needs no unpredictable keys, and the server cannot
/// take a short cut with this one, as it could with zeros.
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A whole text or binary message.
    Data,
    /// A part of a fragmented message.
    Part,
    Ping,
    Pong,
    Close,
}

/// One whole frame at the head of what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: Kind,
    pub(crate) payload: &'a [u8],
    /// Bytes of header and payload.
    pub(crate) length: usize,
}

/// The frame at the head of `bytes`; `None` when it is not all there.
///
/// # Errors
///
/// What no server may send here: masked or undefined frames, or such with reserved bits.
#[inline]
pub(crate) fn first(bytes: &[u8]) -> Result<Option<Frame<'_>>, &'static str> {
    // Nearly all are short messages in one frame: two comparisons instead of the full header.
    let (header, length) = match *bytes {
        [0x81 | 0x82, length @ 0..=125, ..] => (2, usize::from(length)),
        [0x81 | 0x82, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        _ => return first_of_any_kind(bytes),
    };
    let payload = bytes.get(header..header + length);
    Ok(payload.map(|payload| Frame { kind: Kind::Data, payload, length: header + length }))
}

#[cold]
fn first_of_any_kind(bytes: &[u8]) -> Result<Option<Frame<'_>>, &'static str> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| "a frame of an undefined kind")?;
    let Some((header, length)) = parsed else { return Ok(None) };
    if header.mask.is_some() || header.rsv1 || header.rsv2 || header.rsv3 {
        return Err("a frame that is masked or has reserved bits");
    }
    let kind = match header.opcode {
        OpCode::Data(Data::Text | Data::Binary) if header.is_final => Kind::Data,
        OpCode::Data(Data::Text | Data::Binary | Data::Continue) => Kind::Part,
        OpCode::Control(Control::Ping) => Kind::Ping,
        OpCode::Control(Control::Pong) => Kind::Pong,
        OpCode::Control(Control::Close) => Kind::Close,
        OpCode::Data(_) | OpCode::Control(_) => return Err("a frame of an undefined kind"),
    };
    let Ok(length) = usize::try_from(length) else { return Err("a frame of impossible length") };
    let start = header.len(length as u64);
    let Some(end) = start.checked_add(length) else { return Err("a frame of impossible length") };
    Ok(bytes.get(start..end).map(|payload| Frame { kind, payload, length: end }))
}

/// Appends a masked text frame.
pub(crate) fn write_text(payload: &[u8], out: &mut Vec<u8>) {
    write(OpCode::Data(Data::Text), payload, out);
}

/// Appends a masked binary frame.
pub(crate) fn write_binary(payload: &[u8], out: &mut Vec<u8>) {
    write(OpCode::Data(Data::Binary), payload, out);
}

/// Appends a masked Close with this code.
pub(crate) fn write_close(code: u16, out: &mut Vec<u8>) {
    write(OpCode::Control(Control::Close), &code.to_be_bytes(), out);
}

/// Appends a masked answer to a ping.
pub(crate) fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    write(OpCode::Control(Control::Pong), payload, out);
}

fn write(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, mask: Some(MASK), ..FrameHeader::default() };
    header.format(payload.len() as u64, out).expect("writing into a vector does not fail");
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
        let opcode = OpCode::from(first & 0x0F);
        let header = FrameHeader { opcode, is_final: first & 0x80 != 0, ..FrameHeader::default() };
        let mut bytes = Vec::new();
        header.format(payload.len() as u64, &mut bytes).unwrap();
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn walks_texts_of_every_form_of_length_and_waits_for_the_rest() {
        for length in [0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000] {
            let payload = vec![b'x'; length];
            let bytes = unmasked(0x81, &payload);
            for cut in (0..bytes.len()).take(20).chain([bytes.len() - 1]) {
                assert_eq!(first(&bytes[..cut]), Ok(None), "length {length} cut at {cut}");
            }
            let frame = first(&bytes).unwrap().unwrap();
            assert_eq!((frame.kind, frame.payload.len(), frame.length), (Kind::Data, length, bytes.len()));
        }
    }

    #[test]
    fn tells_control_frames_from_texts() {
        for (byte, kind) in [(0x89, Kind::Ping), (0x8A, Kind::Pong), (0x88, Kind::Close)] {
            let bytes = unmasked(byte, b"ab");
            assert_eq!(first(&bytes), Ok(Some(Frame { kind, payload: b"ab", length: 4 })));
        }
    }

    #[test]
    fn parts_of_a_message_are_told_from_whole_ones() {
        for (byte, kind) in [(0x82, Kind::Data), (0x01, Kind::Part), (0x00, Kind::Part), (0x80, Kind::Part)] {
            assert_eq!(first(&unmasked(byte, b"ab")).unwrap().unwrap().kind, kind);
        }
    }

    #[test]
    fn refuses_what_no_server_may_send() {
        for bytes in [&[0x83, 0][..], &[0xC1, 0], &[0x81, 0x80, 1, 2, 3, 4]] {
            assert!(first(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn masks_what_it_writes() {
        let mut bytes = Vec::new();
        write_text(b"hello", &mut bytes);
        assert_eq!(bytes[..2], [0x81, 0x85]);
        let payload: Vec<u8> =
            bytes[6..].iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        assert_eq!((&bytes[2..6], &payload[..]), (&MASK[..], &b"hello"[..]));
    }

    #[test]
    fn random_bytes_do_no_harm() {
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..16)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()[3]
                })
                .collect();
            let _ = first(&bytes);
        }
    }
}
