//! What clients send: frames in any pieces become whole messages (RFC 6455, sections 5 to 8).

#![expect(
    clippy::mut_mut,
    reason = "decoding moves the caller's slice on, and events borrow from what is behind it"
)]

use std::mem;
use std::ops::{Deref, DerefMut};

use fastwebsockets::{OpCode, unmask};
use thiserror::Error;

use super::close::CloseCode;
use super::header::{FrameHeader, HEADER_BYTES_MAX, compressed_bytes_max, needed_bytes};
use super::utf8;

/// Something that a client said.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message, of one frame or of many fragments (sections 5.4 and 5.6). The payload of
    /// [`MessageKind::Text`] is valid UTF-8 (section 8.1).
    Message {
        /// What the payload is.
        kind: MessageKind,
        /// The bytes of all fragments in order, unmasked.
        payload: Payload<'a>,
    },
    /// As [`Event::Message`], still compressed (RFC 7692, section 6.2): whether it is UTF-8, and within the limit, is to
    /// be seen.
    Compressed {
        /// What the message is.
        kind: MessageKind,
        /// The bytes of all fragments in order, unmasked.
        payload: Payload<'a>,
    },
    /// A Ping (section 5.5.2), also between fragments; it wants a Pong with the same payload, at most 125 bytes.
    Ping(Payload<'a>),
    /// A Pong (section 5.5.3), asked for or not.
    Pong(Payload<'a>),
    /// A Close (sections 5.5.1 and 7.1.5), `None` without a code. Whatever follows it is discarded (section 1.4).
    Close(Option<PeerClose<'a>>),
}

/// What a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The most that a message may have, in bytes, over all its fragments. One that is compressed may take a little more.
    pub message_bytes: usize,
    /// Whether messages may be compressed, as was negotiated.
    pub is_deflated: bool,
    /// Whether the message is compressed whose fragments are coming.
    pub(super) is_open_compressed: bool,
}

impl Rules {
    /// Messages of at most so many bytes, compressed or not.
    pub fn new(message_bytes: usize, is_deflated: bool) -> Self {
        Self { message_bytes, is_deflated, is_open_compressed: false }
    }
}

/// Messages of at most so many bytes, without an extension.
impl From<usize> for Rules {
    fn from(message_bytes: usize) -> Self {
        Self::new(message_bytes, false)
    }
}

/// The two kinds of messages (section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// The body of a peer's Close (section 5.5.1).
#[derive(Debug, PartialEq, Eq)]
pub struct PeerClose<'a> {
    /// One of those that are allowed on the wire (section 7.4).
    pub code: CloseCode,
    /// Valid UTF-8, at most 123 bytes, for people (section 7.1.6).
    pub reason: Payload<'a>,
}

/// Unmasked bytes: in place in the input when the frame was whole, or gathered from pieces.
#[derive(Debug)]
pub enum Payload<'a> {
    /// A part of the input.
    Borrowed(&'a mut [u8]),
    /// The decoder's buffer, given away.
    Owned(Vec<u8>),
}

/// How a client broke the rules; the connection is to be closed with [`DecodeError::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Section 5.2: no extension was negotiated that would give a meaning to RSV1 to RSV3.
    #[error("a reserved bit is set")]
    ReservedBit,
    /// Section 5.2: opcodes 3 to 7 and 11 to 15 are reserved.
    #[error("opcode {0:#x} is reserved")]
    OpCode(u8),
    /// Section 5.1: clients mask every frame.
    #[error("the frame is not masked")]
    Unmasked,
    /// Section 5.5: control frames are never fragmented.
    #[error("the control frame is fragmented")]
    FragmentedControlFrame,
    /// Section 5.5: control frames carry at most 125 bytes.
    #[error("the control frame is longer than 125 bytes")]
    LongControlFrame,
    /// Section 5.4: a continuation without a first fragment.
    #[error("there is no message to continue")]
    NothingToContinue,
    /// Section 5.4: fragments of messages are not interleaved.
    #[error("a message begins inside another")]
    MessageInsideMessage,
    /// Section 5.2: the top bit of a length of 64 bits is 0.
    #[error("the top bit of the length is set")]
    LengthTopBit,
    /// Section 10.4: the message would pass the limit.
    #[error("the message is longer than {limit} bytes")]
    TooBig {
        /// What a message may have, in bytes.
        limit: usize,
    },
    /// RFC 7692, section 6.2: what is said to be compressed is not.
    #[error("the compressed message cannot be decompressed")]
    Compressed,
    /// Section 8.1: text that is not UTF-8, in a message or in the reason of a Close.
    #[error("the text is not valid UTF-8")]
    InvalidUtf8,
    /// Section 5.5.1: the body of a Close is empty or begins with two bytes of code.
    #[error("the close frame holds half a code")]
    HalfCloseCode,
    /// Section 7.4: the code must not stand in a Close frame.
    #[error("close code {0} is not allowed on the wire")]
    CloseCode(u16),
}

/// Turns the bytes of one client into [`Event`]s.
///
/// Between messages it is a null pointer. It allocates only for a frame or message that the input does not hold
/// whole, as much as has arrived of it (at most twice that, and never above the message limit), and frees that with
/// the event. The time is linear in the bytes, however they are cut.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

/// An idle connection pays one pointer for its decoder.
const _: () = assert!(size_of::<Decoder>() == size_of::<usize>());

impl Decoder {
    /// A decoder for a connection on which nothing was said yet.
    pub const fn new() -> Self {
        Self { partial: None }
    }

    /// Takes the next event off the front of `input`, which it unmasks in place.
    ///
    /// `Ok(None)` means that all input is consumed and more is needed. After a Close or an error the decoder consumes and ignores everything.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] at the first byte that no legal continuation could mend, before the payload of a frame that is
    /// too long arrives. The rest of `input` means nothing then.
    #[inline]
    pub fn decode<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        rules: impl Into<Rules>,
    ) -> Result<Option<Event<'a>>, DecodeError> {
        let result = self.next_event(input, rules.into());
        if matches!(result, Err(_) | Ok(Some(Event::Close(_)))) {
            self.partial = Some(Box::new(Partial { finished: true, ..Partial::default() }));
        }
        result
    }

    /// How many bytes of memory it holds for what is not complete.
    pub fn pending_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            let message = partial.message.as_ref().map_or(0, |message| message.bytes.capacity());
            size_of::<Partial>() + partial.control.capacity() + message
        })
    }

    fn next_event<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        rules: Rules,
    ) -> Result<Option<Event<'a>>, DecodeError> {
        if self.partial.is_none() {
            let event = decode_whole_frame(input, rules)?;
            if event.is_some() || input.is_empty() {
                return Ok(event);
            }
        }
        let partial = self.partial.get_or_insert_default();
        let event = partial.decode(input, rules)?;
        if partial.is_empty() {
            self.partial = None;
        }
        Ok(event)
    }
}

impl DecodeError {
    /// The close code to answer this error with (section 7.4.1).
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::TooBig { .. } => CloseCode::MessageTooBig,
            Self::InvalidUtf8 | Self::Compressed => CloseCode::InvalidPayload,
            Self::ReservedBit
            | Self::OpCode(_)
            | Self::Unmasked
            | Self::FragmentedControlFrame
            | Self::LongControlFrame
            | Self::NothingToContinue
            | Self::MessageInsideMessage
            | Self::LengthTopBit
            | Self::HalfCloseCode
            | Self::CloseCode(_) => CloseCode::ProtocolError,
        }
    }
}

impl From<utf8::InvalidUtf8> for DecodeError {
    fn from(_: utf8::InvalidUtf8) -> Self {
        Self::InvalidUtf8
    }
}

impl Payload<'_> {
    /// The bytes as a vector, copied only if they are part of the input.
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Borrowed(bytes) => bytes.to_vec(),
            Self::Owned(bytes) => bytes,
        }
    }

    fn remove_front(self, count: usize) -> Self {
        match self {
            Self::Borrowed(bytes) => Self::Borrowed(&mut bytes[count..]),
            Self::Owned(mut bytes) => {
                bytes.drain(..count);
                Self::Owned(bytes)
            }
        }
    }
}

impl Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl DerefMut for Payload<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Two payloads are equal when their bytes are, wherever these live.
impl PartialEq for Payload<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload<'_> {}

/// What is known of frames and messages that are not complete.
#[derive(Debug, Default)]
struct Partial {
    /// After a Close or an error.
    finished: bool,
    /// How much of `head` is filled; 0 while `frame` is there.
    head_len: u8,
    head: [u8; HEADER_BYTES_MAX],
    /// The frame whose payload is being read; its mask is turned to the next byte.
    frame: Option<FrameHeader>,
    /// How much of that payload is still to come.
    frame_remaining: usize,
    /// The payload of a control frame; apart, for it may stand between the fragments of `message`.
    control: Vec<u8>,
    message: Option<Message>,
}

/// A message that is not complete.
#[derive(Debug)]
struct Message {
    kind: MessageKind,
    is_compressed: bool,
    bytes: Vec<u8>,
    /// Up to here a text is known to be UTF-8; at most 3 bytes, a cut code point, are behind it.
    checked_len: usize,
}

impl Partial {
    fn decode<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        rules: Rules,
    ) -> Result<Option<Event<'a>>, DecodeError> {
        if self.finished {
            *input = &mut [];
            return Ok(None);
        }
        loop {
            let header = match self.frame {
                Some(header) => header,
                None => match self.read_head(input, rules)? {
                    Some(header) => self.begin_frame(header),
                    None => return Ok(None),
                },
            };
            let chunk_len = self.frame_remaining.min(input.len());
            let chunk = take_front(input, chunk_len);
            unmask(chunk, header.mask);
            if header.is_control() {
                self.control.extend_from_slice(chunk);
            } else if let Some(message) = &mut self.message {
                let limit = rules.message_bytes;
                let whole = if message.is_compressed { compressed_bytes_max(limit) } else { limit };
                let most = if header.fin { message.bytes.len() + self.frame_remaining } else { whole };
                message.append(chunk, most)?;
            }
            self.frame_remaining -= chunk_len;
            if self.frame_remaining > 0 {
                self.frame = Some(FrameHeader { mask: rotate(header.mask, chunk_len), ..header });
                return Ok(None);
            }
            self.frame = None;
            if let Some(event) = self.finish_frame(&header)? {
                return Ok(Some(event));
            }
        }
    }

    /// Gathers a head; never takes a byte behind it.
    fn read_head(&mut self, input: &mut &mut [u8], rules: Rules) -> Result<Option<FrameHeader>, DecodeError> {
        let is_open_compressed = self.message.as_ref().is_some_and(|message| message.is_compressed);
        let rules = Rules { is_open_compressed, ..rules };
        let fragments = self.message.as_ref().map(|message| message.bytes.len());
        loop {
            let filled = usize::from(self.head_len);
            let bytes = take_front(input, (needed_bytes(&self.head[..filled]) - filled).min(input.len()));
            let filled_after = filled + bytes.len();
            self.head[filled..filled_after].copy_from_slice(bytes);
            let header = FrameHeader::decode(&self.head[..filled_after], fragments, rules)?;
            self.head_len = if header.is_some() { 0 } else { u8::try_from(filled_after).unwrap_or(u8::MAX) };
            if header.is_some() || input.is_empty() {
                return Ok(header);
            }
        }
    }

    fn begin_frame(&mut self, header: FrameHeader) -> FrameHeader {
        self.frame_remaining = header.payload_len;
        let kind = match header.opcode {
            OpCode::Text => MessageKind::Text,
            OpCode::Binary => MessageKind::Binary,
            OpCode::Continuation => return header,
            OpCode::Close | OpCode::Ping | OpCode::Pong => {
                self.control.reserve_exact(header.payload_len);
                return header;
            }
        };
        let is_compressed = header.is_compressed;
        self.message = Some(Message { kind, is_compressed, bytes: Vec::new(), checked_len: 0 });
        header
    }

    fn finish_frame(&mut self, header: &FrameHeader) -> Result<Option<Event<'static>>, DecodeError> {
        if header.is_control() {
            return control_event(header.opcode, Payload::Owned(mem::take(&mut self.control))).map(Some);
        }
        if !header.fin {
            return Ok(None);
        }
        let Some(message) = self.message.take() else { return Ok(None) };
        if message.is_compressed {
            let (kind, payload) = (message.kind, Payload::Owned(message.bytes));
            return Ok(Some(Event::Compressed { kind, payload }));
        }
        if message.kind == MessageKind::Text && message.checked_len != message.bytes.len() {
            return Err(DecodeError::InvalidUtf8);
        }
        Ok(Some(Event::Message { kind: message.kind, payload: Payload::Owned(message.bytes) }))
    }

    fn is_empty(&self) -> bool {
        !self.finished && self.head_len == 0 && self.frame.is_none() && self.message.is_none()
    }
}

impl Message {
    /// Appends unmasked bytes; `most` is what the message can have in the end.
    fn append(&mut self, chunk: &[u8], most: usize) -> Result<(), DecodeError> {
        let needed = self.bytes.len() + chunk.len();
        if needed > self.bytes.capacity() {
            // Doubling keeps a million small pieces linear; the cap keeps the memory inside the limit.
            let capacity = (self.bytes.capacity() * 2).min(most).max(needed);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(chunk);
        if self.kind == MessageKind::Text && !self.is_compressed {
            self.checked_len += utf8::check_beginning(&self.bytes[self.checked_len..])?;
        }
        Ok(())
    }
}

/// The common case: the input holds a whole frame that is no fragment, and nothing is copied.
#[inline]
fn decode_whole_frame<'a>(input: &mut &'a mut [u8], rules: Rules) -> Result<Option<Event<'a>>, DecodeError> {
    let Some(header) = FrameHeader::decode(input, None, rules)? else { return Ok(None) };
    if !header.fin || input.len() - header.len < header.payload_len {
        return Ok(None);
    }
    let frame = take_front(input, header.len + header.payload_len);
    let payload = &mut frame[header.len..];
    unmask(payload, header.mask);
    match header.opcode {
        _ if header.is_compressed => {
            let kind = if header.opcode == OpCode::Text { MessageKind::Text } else { MessageKind::Binary };
            Ok(Some(Event::Compressed { kind, payload: Payload::Borrowed(payload) }))
        }
        OpCode::Text => {
            utf8::check(payload)?;
            Ok(Some(Event::Message { kind: MessageKind::Text, payload: Payload::Borrowed(payload) }))
        }
        OpCode::Binary => {
            Ok(Some(Event::Message { kind: MessageKind::Binary, payload: Payload::Borrowed(payload) }))
        }
        OpCode::Continuation => Err(DecodeError::NothingToContinue),
        control => control_event(control, Payload::Borrowed(payload)).map(Some),
    }
}

fn control_event(opcode: OpCode, payload: Payload<'_>) -> Result<Event<'_>, DecodeError> {
    match opcode {
        OpCode::Ping => return Ok(Event::Ping(payload)),
        OpCode::Pong => return Ok(Event::Pong(payload)),
        _ => {}
    }
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(Event::Close(None)) } else { Err(DecodeError::HalfCloseCode) };
    };
    let code = u16::from_be_bytes(code);
    if !CloseCode::allowed_on_wire(code) {
        return Err(DecodeError::CloseCode(code));
    }
    utf8::check(reason)?;
    Ok(Event::Close(Some(PeerClose { code: code.into(), reason: payload.remove_front(2) })))
}

/// Checks the text of a message that was compressed.
///
/// # Errors
///
/// [`DecodeError::InvalidUtf8`] when it is not UTF-8.
pub fn check_text(payload: &[u8]) -> Result<(), DecodeError> {
    Ok(utf8::check(payload)?)
}

fn take_front<'a>(input: &mut &'a mut [u8], count: usize) -> &'a mut [u8] {
    let (front, rest) = mem::take(input).split_at_mut(count);
    *input = rest;
    front
}

/// The mask as it stands after `count` bytes.
fn rotate(mut mask: [u8; 4], count: usize) -> [u8; 4] {
    mask.rotate_left(count % 4);
    mask
}
