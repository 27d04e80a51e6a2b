//! Messages that are compressed, from clients and to them.

use crate::http::Endpoint;
use crate::metrics::SentType;
use crate::ws::{DeflateOptions, Deflater, Inflater, compress_always, message_payloads};

use super::*;

const LIMIT: usize = 64 << 10;

/// A client's frame of a compressed text.
fn compressed(text: &[u8]) -> Vec<u8> {
    masked(0xC1, &compress_always(text))
}

fn inflated(frames: &[u8]) -> Vec<String> {
    let mut inflater = Inflater::default();
    let mut whole = |(is_compressed, payload): (bool, &[u8])| {
        if is_compressed { inflater.inflate(payload, LIMIT).unwrap() } else { payload.to_vec() }
    };
    message_payloads(frames).map(|message| String::from_utf8(whole(message)).unwrap()).collect()
}

fn joined(world: &mut World, clients: &[ClientKey]) {
    for client in clients {
        world.say(*client, r#"{"type":"join","room_id":5}"#);
    }
}

#[test]
fn a_long_message_is_compressed_once_for_all_who_can_take_it() {
    let mut world = World::new();
    let ann = world.enter("ann");
    let others = ["ben", "cat"].map(|user| world.enter_compressed(user, Endpoint::Ws));
    joined(&mut world, &[ann, others[0], others[1]]);
    let content = "compress me ".repeat(100);
    world.say(ann, r#"{"type":"message","room_id":5,"content":"short"}"#);
    world.say(ann, &format!(r#"{{"type":"message","room_id":5,"content":"{content}"}}"#));

    let deliveries = world.deliver();

    let of = |client| deliveries.iter().find(|(to, _)| *to == client).unwrap().1.clone();
    assert!(of(ann).iter().all(|byte| byte.is_ascii() || *byte >= 0x7e) && of(ann).len() > content.len());
    assert!(of(others[0]).len() < 500);
    assert_eq!(of(others[0]).as_ptr(), of(others[1]).as_ptr(), "one buffer");
    assert_eq!(inflated(&of(others[0])), inflated(&of(ann)));
    let counts = &world.shard.core.counts;
    assert!(counts.compression_input > content.len() as u64 && counts.compression_output < 500);
}

#[test]
fn nothing_is_compressed_for_nobody() {
    let mut world = World::new();
    let (ann, ben) = (world.enter("ann"), world.enter_compressed("ben", Endpoint::Ws));
    joined(&mut world, &[ann, ben]);
    world.say(ben, r#"{"type":"leave","room_id":5}"#);
    world.say(ann, &format!(r#"{{"type":"message","room_id":5,"content":"{}"}}"#, "x".repeat(1000)));
    world.deliver();
    assert_eq!(world.shard.core.counts.compression_input, 0);
}

#[test]
fn nothing_is_compressed_for_a_sender_that_is_left_out() {
    let mut world = World::new();
    let (ann, ben) = (world.enter("ann"), world.enter_compressed("ben", Endpoint::Ws));
    joined(&mut world, &[ann, ben]);
    let content = "x".repeat(1000);
    let silent = format!(r#"{{"type":"message","room_id":5,"content":"{content}","echo":false}}"#);
    world.say(ben, &silent);
    assert_eq!(world.deliver().len(), 1);
    assert_eq!((world.shard.core.counts.compression_input, world.shard.core.compression_work), (0, 0));
    world.say(ann, &silent);
    assert_eq!(world.deliver().len(), 1);
    assert!(world.shard.core.counts.compression_input > 1000);
}

#[test]
fn a_compressed_message_means_what_it_says_when_it_is_whole_again() {
    let mut world = World::new();
    let (ann, ben) = (world.enter("ann"), world.enter_compressed("ben", Endpoint::Ws));
    joined(&mut world, &[ann]);
    world.receive(ben, &compressed(br#"{"type":"join","room_id":5}"#));
    world.receive(ben, &compressed(br#"{"type":"message","room_id":5,"content":"hello hello hello"}"#));

    let deliveries = world.deliver();
    assert_eq!(count(&deliveries, ann, "hello hello hello"), 1);
    assert_eq!(count(&deliveries, ben, "hello hello hello"), 1);
}

#[test]
fn what_cannot_be_decompressed_closes_its_client() {
    let bomb = compressed(&vec![b' '; 4 << 20]);
    for (input, code) in [
        (bomb, 1009),
        (masked(0xC1, &[0xFF; 20]), 1007),
        (compressed(&[b"\xff\xff".repeat(20), b"x".to_vec()].concat()), 1007),
        (masked(0xC9, b""), 1002),
    ] {
        let mut world = World::new();
        let ann = world.enter_compressed("ann", Endpoint::Ws);
        world.notices();
        world.receive(ann, &input);
        assert_eq!(close_code(&world.notices()[0].1), code);
    }
    let mut world = World::new();
    let ann = world.enter("ann");
    world.notices();
    world.receive(ann, &compressed(b"hello hello hello hello"));
    assert_eq!(close_code(&world.notices()[0].1), 1002, "it was not negotiated");
}

#[test]
fn what_a_client_s_input_becomes_is_bounded_for_each_turn_and_nothing_of_it_is_lost() {
    let mut world = World::new();
    let ann = world.enter_compressed("ann", Endpoint::Ws);
    world.notices();
    let data = " ".repeat(60_000);
    let ping = compressed(format!(r#"{{"type":"ping","data":"{data}"}}"#).as_bytes());
    let mut input = ping.repeat(100);
    assert!(input.len() < 16_000, "{}", input.len());

    let mut replies = Vec::new();
    world.shard.receive(ann, &mut input, 0, &mut replies);
    let mut answered = 0;
    loop {
        assert!(replies.len() < (256 << 10) + 2 * 61_000, "{}", replies.len());
        answered += message_payloads(&replies).count();
        replies.clear();
        if world.shard.core.held.is_empty() {
            break;
        }
        assert!(world.shard.core.reads_are_paused(ann));
        assert!(matches!(world.shard.retry_held(&mut replies), Ok(Some(_))));
    }
    assert_eq!(answered, 100);
}

#[test]
fn an_echo_comes_back_compressed_where_that_is_shorter() {
    let mut world = World::new();
    let ann = world.enter_compressed("ann", Endpoint::Echo);
    let long = "long ".repeat(200);
    for text in [long.as_str(), "short"] {
        let mut replies = Vec::new();
        world.shard.receive(ann, &mut compressed_or_plain(text), world.now, &mut replies);
        assert_eq!(replies[0] & 0x40 != 0, text.len() > 512);
        assert_eq!(inflated(&replies), [text]);
    }
    assert_eq!(counted(&mut world.shard.core.counts.replies.kinds), [(SentType::Echo, 2)]);
}

fn compressed_or_plain(text: &str) -> Vec<u8> {
    if text.len() > 100 { compressed(text.as_bytes()) } else { masked(0x81, text.as_bytes()) }
}

#[test]
fn a_compressed_message_that_waits_is_counted_as_one_when_it_was_taken() {
    let mut world = World::new();
    let ann = world.enter_compressed("ann", Endpoint::Ws);
    world.notices();
    let mut frame = Vec::new();
    let text = format!(r#"{{"type":"message","content":"{}"}}"#, "x".repeat(1000));
    assert!(Deflater::new(DeflateOptions::default()).encode(&mut frame, true, text.as_bytes()));
    let length = frame.len();
    world.shard.core.blocked(ann, &frame.into(), 1, Lane::Bulk, None);
    world.shard.core.drained(ann, length - 1);
    assert_eq!(counted(&mut world.shard.core.counts.sent.kinds), [(SentType::Message, 1)]);
}
