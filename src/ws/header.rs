//! The head of a frame: RFC 6455, section 5.2.

use fastwebsockets::OpCode;

use super::{DecodeError, Rules};

/// The longest head: two bytes, a length of 64 bits and a mask.
pub const HEADER_BYTES_MAX: usize = 14;

/// The most that a control frame may carry (RFC 6455, section 5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// The head of a frame from a client.
///
/// A value exists only for a frame that is allowed where it stands: known opcode, masked, no reserved bit, control
/// frames whole and short, and fragments in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether this frame ends its message.
    pub fin: bool,
    /// What the frame carries.
    pub opcode: OpCode,
    /// Whether it begins a compressed message (RFC 7692, section 6).
    pub is_compressed: bool,
    /// The key that unmasks the payload (section 5.3).
    pub mask: [u8; 4],
    /// The declared length of the payload in bytes.
    pub payload_len: usize,
    /// The length of this head in bytes.
    pub len: usize,
}

impl FrameHeader {
    /// Reads the head that `bytes` begin with; `Ok(None)` when more bytes are needed.
    ///
    /// `fragments` is how many bytes the earlier fragments of an open message have brought, `None` when no message is
    /// open. A length that takes more bytes than it needs is read all the same.
    ///
    /// # Errors
    ///
    /// Each mistake is reported as soon as the byte that makes it is there, earlier bytes first, so that the way in
    /// which the head was cut never shows in the result.
    pub fn decode(
        bytes: &[u8],
        fragments: Option<usize>,
        rules: impl Into<Rules>,
    ) -> Result<Option<Self>, DecodeError> {
        let rules = rules.into();
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let fin = first & 0x80 != 0;
        let is_compressed = first & 0x70 != 0;
        if is_compressed && !may_be_compressed(first, rules) {
            return Err(DecodeError::ReservedBit);
        }
        let opcode = decode_opcode(first, fin, fragments.is_some())?;
        let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(DecodeError::Unmasked);
        }
        if is_control(opcode) && usize::from(second & 0x7F) > CONTROL_PAYLOAD_BYTES_MAX {
            return Err(DecodeError::LongControlFrame);
        }
        let Some((payload_len, rest)) = decode_length(second & 0x7F, rest)? else { return Ok(None) };
        let (limit, sent) = (rules.message_bytes, fragments.unwrap_or(0));
        let payload_len = match usize::try_from(payload_len) {
            Ok(len) if len <= limit.saturating_sub(sent) || is_control(opcode) => len,
            Ok(len) if is_compressed || rules.is_open_compressed => {
                let room = compressed_bytes_max(limit).saturating_sub(sent);
                if len > room {
                    return Err(DecodeError::TooBig { limit });
                }
                len
            }
            _ => return Err(DecodeError::TooBig { limit }),
        };
        let Some((&mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
        Ok(Some(Self { fin, opcode, is_compressed, mask, payload_len, len: bytes.len() - rest.len() }))
    }

    /// Whether this is a Close, Ping or Pong (section 5.5).
    pub fn is_control(&self) -> bool {
        is_control(self.opcode)
    }
}

/// How many bytes the head takes whose beginning is `bytes`, as far as they tell.
pub(super) fn needed_bytes(bytes: &[u8]) -> usize {
    match bytes.get(1).map(|second| second & 0x7F) {
        None => 2,
        Some(126) => 8,
        Some(127) => HEADER_BYTES_MAX,
        Some(_) => 6,
    }
}

/// What a message of so many bytes may take when it is compressed: data that cannot be compressed grows, by up to 6 % with the
/// smallest memory that zlib's encoder can be given.
#[cold]
pub(super) fn compressed_bytes_max(limit: usize) -> usize {
    limit.saturating_add(limit / 16).saturating_add(64)
}

/// RFC 7692, section 6: the message is compressed.
pub(super) const RSV1: u8 = 0x40;

/// Whether a frame may have the reserved bits that it has: only the first one of a message says that it is compressed.
#[cold]
fn may_be_compressed(first: u8, rules: Rules) -> bool {
    rules.is_deflated && first & 0x70 == RSV1 && matches!(first & 0x0F, 1 | 2)
}

fn decode_opcode(first: u8, fin: bool, message_open: bool) -> Result<OpCode, DecodeError> {
    let opcode = OpCode::try_from(first & 0x0F).map_err(|_| DecodeError::OpCode(first & 0x0F))?;
    match opcode {
        OpCode::Continuation if !message_open => Err(DecodeError::NothingToContinue),
        OpCode::Text | OpCode::Binary if message_open => Err(DecodeError::MessageInsideMessage),
        OpCode::Close | OpCode::Ping | OpCode::Pong if !fin => Err(DecodeError::FragmentedControlFrame),
        _ => Ok(opcode),
    }
}

/// The length of the payload, and the bytes behind it.
fn decode_length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, DecodeError> {
    match short {
        126 => {
            Ok(rest.split_first_chunk().map(|(bytes, rest)| (u64::from(u16::from_be_bytes(*bytes)), rest)))
        }
        127 => match rest.split_first_chunk().map(|(bytes, rest)| (u64::from_be_bytes(*bytes), rest)) {
            Some((len, _)) if len >> 63 != 0 => Err(DecodeError::LengthTopBit),
            other => Ok(other),
        },
        short => Ok(Some((u64::from(short), rest))),
    }
}

fn is_control(opcode: OpCode) -> bool {
    matches!(opcode, OpCode::Close | OpCode::Ping | OpCode::Pong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn head_of_each_size() -> [(&'static [u8], usize); 3] {
        [
            (&[0x81, 0x85, 1, 2, 3, 4], 5),
            (&[0x81, 0xFE, 0x01, 0x00, 1, 2, 3, 4], 256),
            (&[0x81, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4], 65_536),
        ]
    }

    #[test]
    fn reads_heads_with_lengths_of_all_three_sizes() {
        for (bytes, payload_len) in head_of_each_size() {
            let header = FrameHeader {
                fin: true,
                opcode: OpCode::Text,
                is_compressed: false,
                mask: [1, 2, 3, 4],
                payload_len,
                len: bytes.len(),
            };
            assert_eq!(FrameHeader::decode(bytes, None, LIMIT), Ok(Some(header)));
            assert_eq!(needed_bytes(bytes), bytes.len());
        }
    }

    #[test]
    fn waits_for_the_rest_of_a_head_wherever_it_is_cut() {
        for (bytes, _) in head_of_each_size() {
            for cut in 0..bytes.len() {
                assert_eq!(FrameHeader::decode(&bytes[..cut], None, LIMIT), Ok(None), "cut at {cut}");
                assert!(needed_bytes(&bytes[..cut]) > cut, "cut at {cut}");
            }
        }
    }

    #[test]
    fn refuses_a_length_above_the_limit_before_the_mask_arrives() {
        let too_big = Err(DecodeError::TooBig { limit: 255 });
        assert_eq!(FrameHeader::decode(&[0x82, 0xFE, 0x01, 0x00], None, 255), too_big);
        assert_eq!(FrameHeader::decode(&[0x80, 0x81], Some(255), 255), too_big);
        assert_eq!(FrameHeader::decode(&[0x82, 0xFE, 0x01, 0x00], None, 256), Ok(None));
    }

    #[test]
    fn reads_a_length_that_takes_more_bytes_than_it_needs() {
        let header = FrameHeader::decode(&[0x81, 0xFE, 0, 1, 9, 9, 9, 9], None, LIMIT);
        assert_eq!(header.map(|header| header.map(|header| header.payload_len)), Ok(Some(1)));
    }
}
