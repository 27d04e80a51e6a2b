//! The WebSocket wire format of RFC 6455, as a server speaks it, without I/O.
//!
//! It owns the rules of sections 5 to 8: what a frame may look like, how frames make a message, and which close
//! code answers a mistake. Bytes go in, [`Event`]s come out; frames to send are appended to buffers of the caller.
//! The opening handshake (section 4) belongs to `http`.
//!
//! [`Decoder`] reads what clients send; [`PreparedMessage`] and the `encode_*` functions write what the gateway
//! sends; [`CloseCode`] is the vocabulary of both.

mod close;
mod decoder;
mod deflate;
mod encoder;
mod header;
mod utf8;

#[cfg(test)]
mod tests;

pub use close::CloseCode;
pub use decoder::{DecodeError, Decoder, Event, MessageKind, Payload, PeerClose, Rules, check_text};
#[cfg(test)]
pub(crate) use deflate::compress_always;
pub use deflate::{Compression, Deflater, Inflater, Options as DeflateOptions, WINDOW_BITS_MAX};
pub use encoder::{
    Draft, PreparedMessage, encode_binary, encode_close, encode_close_reply, encode_ping, encode_pong,
    encode_text, frame_end, message_payloads,
};
pub use header::{CONTROL_PAYLOAD_BYTES_MAX, FrameHeader, HEADER_BYTES_MAX};
