//! The codec as a whole: the rules of the wire, every cutting of the bytes, another implementation, and noise.

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;
use tungstenite::protocol::frame::coding::{Data, OpCode as TungsteniteOpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use super::*;

const LIMIT: usize = 1 << 20;

#[test]
fn breaking_the_protocol_is_answered_with_1002() {
    let cases: [(&str, &[&[u8]]); 15] = [
        ("not masked", &[&[0x81, 0x01, b'a']]),
        ("RSV1", &[&[0xC1]]),
        ("RSV2", &[&[0xA1]]),
        ("RSV3", &[&[0x91]]),
        ("RSV1 on a control frame", &[&[0xC9]]),
        ("reserved data opcode", &[&[0x83]]),
        ("reserved control opcode", &[&[0x8B]]),
        ("fragmented ping", &[&[0x09]]),
        ("fragmented close", &[&[0x08]]),
        ("ping of 126 bytes", &[&[0x89, 0xFE]]),
        ("close of 64-bit length", &[&[0x88, 0xFF]]),
        ("continuation without start", &[&[0x80]]),
        ("continuation after a whole message", &[&masked(0x81, b"a"), &[0x80]]),
        ("message inside a message", &[&masked(0x01, b"a"), &[0x82]]),
        ("64-bit length with the top bit", &[&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]]),
    ];
    for (name, bytes) in cases {
        assert_eq!(close_code_of(&bytes.concat(), LIMIT), Some(1002), "{name}");
    }
}

#[test]
fn a_compressed_message_is_taken_only_when_that_was_negotiated_and_only_its_first_frame_says_so() {
    let rules = Rules::new(LIMIT, true);
    let last = |bytes: &[u8]| events(bytes, &[], rules).pop();
    let compressed = |payload: &[u8]| Some(Seen::Compressed(MessageKind::Text, payload.to_vec()));

    assert_eq!(last(&masked(0xC1, b"\xff\xfe")), compressed(b"\xff\xfe"));
    let fragments =
        [masked(0x41, b"a"), masked(0x89, b""), masked(0x00, b"\xff"), masked(0x80, b"c")].concat();
    assert_eq!(last(&fragments), compressed(b"a\xffc"));
    let plain = [masked(0xC2, b"a"), masked(0x81, b"b")].concat();
    assert_eq!(last(&plain), Some(text("b")));
    for wrong in [
        &masked(0xC9, b"")[..],
        &[masked(0x41, b"a"), masked(0xC0, b"b")].concat(),
        &[masked(0x01, b"a"), masked(0xC0, b"b")].concat(),
        &masked(0xE1, b"a"),
        &masked(0x91, b"a"),
    ] {
        assert_eq!(last(wrong), Some(Seen::Error(DecodeError::ReservedBit)), "{wrong:x?}");
    }
}

#[test]
fn a_compressed_message_may_be_a_little_longer_than_the_limit_and_is_the_same_however_it_is_cut() {
    let rules = Rules::new(64, true);
    let fragments = [masked(0x42, &[7; 60]), masked(0x80, &[7; 72])].concat();
    let whole = events(&fragments, &[], rules);
    assert_eq!(whole, [Seen::Compressed(MessageKind::Binary, vec![7; 132])]);
    for cut in 1..fragments.len() {
        assert_eq!(events(&fragments, &[cut], rules), whole, "cut at {cut}");
    }
    let longer = masked(0xC2, &[7; 133]);
    assert_eq!(events(&longer, &[], rules), [Seen::Error(DecodeError::TooBig { limit: 64 })]);
    assert_eq!(close_code_of(&masked(0x82, &[7; 65]), 64), Some(1009));
}

#[test]
fn a_close_that_may_not_be_is_answered_with_1002() {
    assert_eq!(close_code_of(&masked(0x88, &[3]), LIMIT), Some(1002));
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        assert_eq!(close_code_of(&masked(0x88, &code.to_be_bytes()), LIMIT), Some(1002), "{code}");
    }
}

#[test]
fn a_legal_close_is_echoed_with_its_code() {
    for code in [1000_u16, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
        let mut bytes = masked(0x88, &[&code.to_be_bytes()[..], "grüße".as_bytes()].concat());
        let mut decoder = Decoder::new();
        let Ok(Some(Event::Close(Some(close)))) = decoder.decode(&mut &mut bytes[..], LIMIT) else {
            panic!("{code} is refused");
        };
        assert_eq!(&*close.reason, "grüße".as_bytes());
        let mut reply = Vec::new();
        encode_close_reply(&mut reply, Some(&close));
        assert_eq!(reply, [&[0x88, 2], &code.to_be_bytes()[..]].concat());
    }
}

#[test]
fn nothing_after_a_close_or_an_error_is_processed() {
    let close = [masked(0x88, b""), masked(0x81, b"late"), vec![0xFF; 9]].concat();
    assert_eq!(events(&close, &[], LIMIT), [Seen::Close(None)]);
    let error = [vec![0xF0], masked(0x81, b"late")].concat();
    assert_eq!(events(&error, &[], LIMIT), [Seen::Error(DecodeError::ReservedBit)]);
}

#[test]
fn text_that_is_not_utf8_is_answered_with_1007_at_its_first_hopeless_byte() {
    let head_of_ten = [0x81, 0x8A, 0, 0, 0, 0];
    let cases: [(&str, &[&[u8]]); 8] = [
        ("in a whole frame", &[&masked(0x81, b"a\xFFb")]),
        ("before the rest of the frame", &[&head_of_ten, b"ab\xC0"]),
        ("surrogate, before the rest of the frame", &[&head_of_ten, b"\xED\xA0"]),
        ("in the first fragment", &[&masked(0x01, b"\xF5")]),
        ("across fragments", &[&masked(0x01, b"\xE2\x82"), &masked(0x00, b"a")]),
        ("cut by the end of the message", &[&masked(0x01, b"\xE2\x82"), &masked(0x80, b"")]),
        ("cut by the end of the frame", &[&masked(0x81, b"\xE2\x82")]),
        ("in a close reason", &[&masked(0x88, b"\x03\xE8\xFF")]),
    ];
    for (name, bytes) in cases {
        assert_eq!(close_code_of(&bytes.concat(), LIMIT), Some(1007), "{name}");
    }
}

#[test]
fn a_code_point_may_be_cut_by_fragments_with_a_ping_between() {
    let [a, b, c, d] = *"𐍈".as_bytes() else { panic!("four bytes") };
    let bytes = [
        masked(0x01, &[a]),
        masked(0x89, b"?"),
        masked(0x00, &[b, c]),
        masked(0x00, &[]),
        masked(0x80, &[d]),
    ];
    assert_eq!(events(&bytes.concat(), &[], LIMIT), [Seen::Ping(b"?".to_vec()), text("𐍈")]);
}

#[test]
fn a_message_of_exactly_the_limit_is_accepted_and_one_more_byte_answered_with_1009() {
    let whole = masked(0x82, &[7; 300]);
    assert_eq!(close_code_of(&whole, 300), None);
    assert_eq!(close_code_of(&whole, 299), Some(1009));
    let fragments = [masked(0x02, &[7; 100]), masked(0x00, &[7; 100]), masked(0x80, &[7; 100])].concat();
    assert_eq!(close_code_of(&fragments, 300), None);
    assert_eq!(close_code_of(&fragments, 299), Some(1009));
    assert_eq!(close_code_of(&masked(0x89, &[7; 125]), 10), None, "control frames have their own limit");
}

#[test]
fn a_length_above_the_limit_is_refused_before_the_payload_and_reserves_nothing() {
    let mut decoder = Decoder::new();
    let mut head = [0x82, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(decoder.decode(&mut &mut head[..], LIMIT), Err(DecodeError::TooBig { limit: LIMIT }));
    assert!(decoder.pending_bytes() < 200);
}

#[test]
fn a_declared_length_reserves_no_more_than_what_arrived() {
    let mut decoder = Decoder::new();
    let mut input = [&[0x82, 0xFF, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 2, 3, 4], &[0; 50][..]].concat();
    assert_eq!(decoder.decode(&mut &mut input[..], LIMIT), Ok(None));
    assert!(decoder.pending_bytes() < 300, "{}", decoder.pending_bytes());
}

#[test]
fn a_million_fragments_of_one_byte_stay_inside_the_limit_and_are_freed() {
    let limit = 1_000_001;
    let mut decoder = Decoder::new();
    let mut decode_one = |frame: Vec<u8>| {
        let mut frame = frame;
        let len = match decoder.decode(&mut &mut frame[..], limit).expect("a legal fragment") {
            Some(Event::Message { payload, .. }) => Some(payload.len()),
            _ => None,
        };
        assert!(decoder.pending_bytes() < limit + 256);
        (len, decoder.pending_bytes())
    };
    assert_eq!(decode_one(masked(0x01, b"a")).0, None);
    for _ in 1..1_000_000 {
        assert_eq!(decode_one(masked(0x00, b"a")).0, None);
    }
    assert_eq!(decode_one(masked(0x80, b"a")), (Some(limit), 0));
}

#[test]
fn a_million_empty_fragments_take_no_memory() {
    let mut bytes = masked(0x01, b"");
    bytes.extend(masked(0x00, b"").repeat(1_000_000));
    let mut decoder = Decoder::new();
    assert_eq!(decoder.decode(&mut &mut bytes[..], LIMIT), Ok(None));
    assert!(decoder.pending_bytes() < 200);
}

#[test]
fn empty_messages_and_pongs_and_two_hundred_frames_in_one_read_are_handled() {
    let bytes = [masked(0x81, b""), masked(0x8A, b"late"), masked(0x82, b"")].concat().repeat(200);
    let round = [text(""), Seen::Pong(b"late".to_vec()), Seen::Binary(Vec::new())];
    assert_eq!(events(&bytes, &[], LIMIT), vec![round; 200].concat());
}

#[test]
fn a_whole_frame_stays_in_the_input_and_leaves_the_decoder_idle() {
    let mut bytes = masked(0x81, b"hello");
    let mut decoder = Decoder::new();
    let mut input = &mut bytes[..];
    let Ok(Some(Event::Message { payload: Payload::Borrowed(payload), .. })) =
        decoder.decode(&mut input, LIMIT)
    else {
        panic!("a legal frame is copied or refused");
    };
    assert_eq!(payload, b"hello");
    assert_eq!(decoder.pending_bytes(), 0);
    assert_eq!(decoder.decode(&mut input, LIMIT), Ok(None));
    assert_eq!(decoder.pending_bytes(), 0);
}

#[test]
fn random_bytes_never_panic_and_never_pass_the_bounds() {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()
    };
    for _ in 0..20_000 {
        let mut decoder = Decoder::new();
        for _ in 0..next()[0] % 16 {
            let mut bytes: Vec<u8> = (0..=next()[0] % 8).flat_map(|_| next()).collect();
            // Legal first bytes, often: pure noise ends at the first frame.
            bytes[0] &= 0x8F | next()[1];
            bytes[1] |= 0x80;
            let mut input = &mut bytes[..];
            while let Ok(Some(_)) = decoder.decode(&mut input, 512) {}
            assert!(decoder.pending_bytes() < 512 + 125 + 200);
        }
    }
}

proptest! {
    #[test]
    fn any_cutting_of_the_bytes_gives_the_same_events(
        bytes in streams(),
        cuts in prop::collection::vec(0_usize..2_000, 0..12),
        limit in prop_oneof![Just(LIMIT), 0_usize..400],
    ) {
        let whole = events(&bytes, &[], limit);
        prop_assert_eq!(&events(&bytes, &cuts, limit), &whole);
        let every_byte: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&events(&bytes, &every_byte, limit), &whole);
    }

    #[test]
    fn what_tungstenite_sends_is_decoded_as_it_was_meant(messages in prop::collection::vec(messages(), 0..12)) {
        let mut client = WebSocket::from_raw_socket(Wire::default(), Role::Client, None);
        for message in &messages {
            client.send(message.clone()).expect("a wire in memory takes everything");
        }
        let expected: Vec<Seen> = messages.iter().map(Seen::from).collect();
        prop_assert_eq!(events(&client.get_ref().sent, &[], LIMIT), expected);
    }

    #[test]
    fn what_we_encode_is_read_by_tungstenite(messages in prop::collection::vec(messages(), 0..12)) {
        let mut bytes = Vec::new();
        for message in &messages {
            encode_message(&mut bytes, message);
        }
        encode_close(&mut bytes, CloseCode::SlowConsumer, "slow");
        let wire = Wire { received: Cursor::new(bytes), sent: Vec::new() };
        let mut client = WebSocket::from_raw_socket(wire, Role::Client, None);
        for message in &messages {
            let read = client.read().expect("a frame that is allowed");
            prop_assert_eq!(Seen::from(&read), Seen::from(message));
        }
        let close = CloseFrame { code: 4008.into(), reason: "slow".into() };
        prop_assert_eq!(client.read().ok(), Some(Message::Close(Some(close))));
    }

    #[test]
    fn we_and_tungstenite_accept_the_same_streams(bytes in streams()) {
        let ours: Vec<Seen> = events(&bytes, &[], LIMIT).into_iter().map(as_tungstenite_reads_it).collect();
        let wire = Wire { received: Cursor::new(bytes), sent: Vec::new() };
        let mut server = WebSocket::from_raw_socket(wire, Role::Server, None);
        let mut theirs = Vec::new();
        let refused = loop {
            match server.read() {
                Ok(Message::Close(close)) => {
                    theirs.push(Seen::from(&Message::Close(close)));
                    break false;
                }
                Ok(message) => theirs.push(Seen::from(&message)),
                Err(Error::Io(_) | Error::ConnectionClosed) => break false,
                Err(error) => break !matches!(error, Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)),
            }
        };
        let (ours_refused, ours) = match ours.split_last() {
            Some((Seen::Error(_), before)) => (true, before),
            _ => (false, &ours[..]),
        };
        // Tungstenite replaces a close code that it does not allow instead of refusing the frame, and finds bad
        // text only when the message is complete; so we may refuse more, at the end, and never less.
        let common = if ours_refused { &theirs[..ours.len().min(theirs.len())] } else { &theirs[..] };
        prop_assert_eq!(common, ours);
        prop_assert!(ours_refused || !refused);
    }
}

/// An [`Event`] that outlives its bytes.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Compressed(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, Vec<u8>)>),
    Error(DecodeError),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message { kind: MessageKind::Text, payload } => Self::Text(payload.into_vec()),
            Event::Message { kind: MessageKind::Binary, payload } => Self::Binary(payload.into_vec()),
            Event::Compressed { kind, payload } => Self::Compressed(kind, payload.into_vec()),
            Event::Ping(payload) => Self::Ping(payload.into_vec()),
            Event::Pong(payload) => Self::Pong(payload.into_vec()),
            Event::Close(close) => {
                Self::Close(close.map(|close| (close.code.into(), close.reason.into_vec())))
            }
        }
    }
}

impl From<&Message> for Seen {
    fn from(message: &Message) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.as_bytes().to_vec()),
            Message::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Message::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Message::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Message::Close(close) => {
                Self::Close(close.as_ref().map(|close| (close.code.into(), close.reason.as_bytes().to_vec())))
            }
            Message::Frame(frame) => panic!("a bare frame: {frame}"),
        }
    }
}

/// Tungstenite does not know 1014, which the IANA registry allows, and replaces it like any forbidden code.
fn as_tungstenite_reads_it(seen: Seen) -> Seen {
    match seen {
        Seen::Close(Some((1014, _))) => Seen::Close(Some((1002, b"Protocol violation".to_vec()))),
        seen => seen,
    }
}

/// A connection in memory.
#[derive(Default)]
struct Wire {
    received: Cursor<Vec<u8>>,
    sent: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.received.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sent.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All that comes of `bytes` when they arrive cut at `cuts`, an error last.
fn events(bytes: &[u8], cuts: &[usize], rules: impl Into<Rules>) -> Vec<Seen> {
    let rules = rules.into();
    let mut cuts: Vec<usize> = cuts.iter().copied().filter(|&cut| cut < bytes.len()).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut decoder = Decoder::new();
    let mut seen = Vec::new();
    let mut from = 0;
    for cut in cuts {
        let mut piece = bytes[from..cut].to_vec();
        from = cut;
        let mut input = &mut piece[..];
        loop {
            match decoder.decode(&mut input, rules) {
                Ok(Some(event)) => seen.push(event.into()),
                Ok(None) => break,
                Err(error) => seen.push(Seen::Error(error)),
            }
        }
        assert!(input.is_empty(), "`Ok(None)` means that everything was consumed");
    }
    seen
}

fn close_code_of(bytes: &[u8], limit: usize) -> Option<u16> {
    match events(bytes, &[], limit).last() {
        Some(Seen::Error(error)) => Some(error.close_code().into()),
        _ => None,
    }
}

fn text(text: &str) -> Seen {
    Seen::Text(text.as_bytes().to_vec())
}

/// A frame of a client, written down independently of the code under test.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(len @ 0..126) => frame.push(0x80 | len.to_be_bytes()[1]),
        Ok(len) => {
            frame.push(0xFE);
            frame.extend(len.to_be_bytes());
        }
        Err(_) => {
            frame.push(0xFF);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn encode_message(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Text(text) => out.extend_from_slice(PreparedMessage::text(text.as_bytes()).frame()),
        Message::Binary(bytes) => encode_binary(out, bytes),
        Message::Ping(bytes) => encode_ping(out, bytes),
        Message::Pong(bytes) => encode_pong(out, bytes),
        Message::Close(_) | Message::Frame(_) => panic!("not made by `messages`"),
    }
}

fn messages() -> impl Strategy<Value = Message> {
    let long = prop_oneof![8 => 0_usize..200, 1 => 65_530_usize..65_540];
    prop_oneof![
        ".{0,80}".prop_map(Message::text),
        (long, any::<u8>()).prop_map(|(len, byte)| Message::binary(vec![byte; len])),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(|bytes| Message::Ping(bytes.into())),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(|bytes| Message::Pong(bytes.into())),
    ]
}

/// Client streams: mostly legal frames, in legal and illegal orders, sometimes with a changed byte, sometimes cut short.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        4 => ".{0,40}".prop_map(String::into_bytes),
        2 => prop::collection::vec(any::<u8>(), 0..140),
        1 => (1000_u16..1016).prop_map(|code| code.to_be_bytes().to_vec()),
        1 => Just("é".repeat(100).into_bytes()),
        1 => Just(b"\xE2\x82".to_vec()),
    ];
    let first = prop_oneof![
        6 => Just(0x81_u8), 2 => Just(0x82), 4 => Just(0x01), 1 => Just(0x02), 4 => Just(0x00), 4 => Just(0x80),
        2 => Just(0x89), 1 => Just(0x8A), 1 => Just(0x88),
    ];
    let frame = (first, payload).prop_map(|(first, payload)| masked(first, &payload));
    let change = prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>()));
    let cut = prop::option::weighted(0.2, any::<prop::sample::Index>());
    (prop::collection::vec(frame, 1..8), change, cut).prop_map(|(frames, change, cut)| {
        let mut bytes = frames.concat();
        if let Some((index, byte)) = change {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(index) = cut {
            bytes.truncate(index.index(bytes.len()));
        }
        bytes
    })
}

#[test]
fn fragments_from_tungstenite_become_one_message() {
    let mut client = WebSocket::from_raw_socket(Wire::default(), Role::Client, None);
    let pieces = [(Data::Text, "a€"), (Data::Continue, ""), (Data::Continue, "b")];
    for (index, (data, payload)) in pieces.into_iter().enumerate() {
        let frame = Frame::message(payload.as_bytes().to_vec(), TungsteniteOpCode::Data(data), index == 2);
        client.send(Message::Frame(frame)).expect("a wire in memory takes everything");
    }
    assert_eq!(events(&client.get_ref().sent, &[], LIMIT), [text("a€b")]);
}
