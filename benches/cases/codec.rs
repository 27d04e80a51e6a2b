//! What clients send and what they get, and one way to go through each.

use std::hint::black_box;

use fanfare::id::NameRef;
use fanfare::protocol::{Message, Parser, Target, write_message};
use fanfare::ws::{Decoder, Event};
use fastwebsockets::unmask;

pub(crate) const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
pub(crate) const PAYLOAD: [u8; 128] = [b'x'; 128];
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

pub(crate) const PING: &[u8] = br#"{"type":"ping","id":1}"#;
pub(crate) const TEXT: &[u8] = br#"{"type":"message","room_id":"lobby","id":7,"content":"Does the train at half past seven stop here, or only at the old harbour?"}"#;
pub(crate) const NESTED: &[u8] = br#"{"type":"message","room_id":5,"id":8,"data":{"at":[51.4779,-0.0015],"tags":["tide","wind"],"reading":{"unit":"kPa","value":101.325,"flags":{"raw":true,"seen":null}}}}"#;

const _: () = assert!(TEXT.len() == PAYLOAD.len());

/// So many frames of [`PAYLOAD`], as a client masks them.
pub(crate) fn masked_frames(count: usize) -> Vec<u8> {
    let mut payload = PAYLOAD;
    unmask(&mut payload, MASK);
    [&[0x81, 0xFE, 0, 128], &MASK[..], &payload].concat().repeat(count)
}

/// Decodes all of one read.
pub(crate) fn decode_whole(decoder: &mut Decoder, mut input: &mut [u8]) -> usize {
    let mut messages = 0;
    while let Some(event) = decoder.decode(&mut input, MESSAGE_BYTES_MAX).expect("the frames are legal") {
        messages += usize::from(matches!(event, Event::Message { .. }));
    }
    messages
}

/// Decodes in reads that end inside a frame, at a place that moves through it.
pub(crate) fn decode_cut(decoder: &mut Decoder, input: &mut [u8]) -> usize {
    input.chunks_mut(PAYLOAD.len() + 9).map(|read| decode_whole(decoder, read)).sum()
}

pub(crate) fn parse(parser: &mut Parser, request: &[u8]) {
    black_box(parser.parse(black_box(request)));
}

/// Prints the message that the others in the room get for [`TEXT`], over what was there.
pub(crate) fn print(out: &mut Vec<u8>) {
    let content = Some("Does the train at half past seven stop here, or only at the old harbour?");
    let message = Message { target: Target::Room(NameRef::Text("lobby")), key: None, content, data: None };
    out.clear();
    write_message(black_box(&message), NameRef::Number(7), 1_763_000_000, out);
    black_box(out);
}
