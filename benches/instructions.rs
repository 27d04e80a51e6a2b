//! Counted instructions instead of time: the same on a busy machine as on an idle one, so that they can be a gate.
//!
//! `scripts/instructions` gets what this needs, runs it, and fails when something is over its budget.

#![expect(missing_docs, unused_qualifications, reason = "what the macros of the harness expand to")]

mod cases {
    pub(crate) mod codec;
    pub(crate) mod fanout;
}

use std::hint::black_box;

use cases::codec::{NESTED, PAYLOAD, PING, TEXT, decode_cut, decode_whole, masked_frames};
use cases::fanout::{Audience, MEMBERS, Mailbox, SlowMember};
use fanfare::protocol::Parser;
use fanfare::shard::bench::Flags;
use fanfare::ws::{Decoder, PreparedMessage, encode_text};
use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};

/// Instructions that one of each may take, as rustc 1.95 makes them for x86-64 and a processor with AVX2 runs them.
///
/// A change that makes something cheaper lowers its budget as well, or the next one may spend the gain unseen.
mod budget {
    pub(super) const DECODE_WHOLE: u64 = 286;
    pub(super) const DECODE_CUT_IN_TWO: u64 = 1981;
    pub(super) const PARSE_PING: u64 = 1191;
    pub(super) const PARSE_128_BYTES: u64 = 2025;
    pub(super) const PARSE_NESTED_DATA: u64 = 6418;
    pub(super) const PRINT: u64 = 1683;
    pub(super) const ENCODE: u64 = 107;
    pub(super) const PREPARE: u64 = 315;

    // For a member.
    pub(super) const ROOM_PLAIN: u64 = 63;
    pub(super) const ROOM_PLAIN_BATCH: u64 = 80;
    pub(super) const ROOM_NDJSON_BATCH: u64 = 282;
    pub(super) const ROOM_PERSONAL_BATCH: u64 = 742;

    pub(super) const BACKLOG_TURN: u64 = 574;
    pub(super) const BACKLOG_BEGIN: u64 = 1993;

    // For a message, pushed and taken.
    pub(super) const INBOX_SINGLE: u64 = 514;
    pub(super) const INBOX_BURST: u64 = 360;
}

/// How far over its budget something may be, in per cent.
///
/// The code that rustc 1.97 makes differs by less than 1; that of 1.89, the oldest one supported, takes up to 12 more.
const TOLERANCE_PERCENT: u64 = 10;

/// How often each is done: what is counted then reads as thousandths of its budget, and what is done once vanishes.
const TIMES: usize = 1000;
const BATCH: usize = 64;

const _: () = assert!(MEMBERS == TIMES, "one turn of a room serves so many");

library_benchmark_group!(name = codec, benchmarks = [decode, parse, print, encode, prepare]);
library_benchmark_group!(name = fanout, benchmarks = [room, backlog, begin_backlog, inbox]);
main!(library_benchmark_groups = [codec, fanout]);

fn within(budget: u64) -> LibraryBenchmarkConfig {
    let limit = budget * TIMES as u64 * (100 + TOLERANCE_PERCENT) / 100;
    let mut callgrind = Callgrind::with_args(["--cache-sim=no"]);
    callgrind.format([EventKind::Ir]).hard_limits([(EventKind::Ir, limit)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

type Decode = fn(&mut Decoder, &mut [u8]) -> usize;

#[library_benchmark(setup = frames)]
#[bench::whole(args = (decode_whole), config = within(budget::DECODE_WHOLE))]
#[bench::cut_in_two(args = (decode_cut), config = within(budget::DECODE_CUT_IN_TWO))]
fn decode((decode, mut decoder, mut frames): (Decode, Decoder, Vec<u8>)) -> (Decoder, Vec<u8>) {
    decode(&mut decoder, &mut frames);
    (decoder, frames)
}

fn frames(decode: Decode) -> (Decode, Decoder, Vec<u8>) {
    (decode, Decoder::new(), masked_frames(TIMES))
}

#[library_benchmark(setup = parser)]
#[bench::ping(args = (PING), config = within(budget::PARSE_PING))]
#[bench::of_128_bytes(args = (TEXT), config = within(budget::PARSE_128_BYTES))]
#[bench::nested_data(args = (NESTED), config = within(budget::PARSE_NESTED_DATA))]
fn parse((mut parser, request): (Parser, &[u8])) -> Parser {
    for _ in 0..TIMES {
        cases::codec::parse(&mut parser, request);
    }
    parser
}

/// With buffers that have grown.
fn parser(request: &'static [u8]) -> (Parser, &'static [u8]) {
    let mut parser = Parser::new();
    cases::codec::parse(&mut parser, request);
    (parser, request)
}

#[library_benchmark]
#[bench::message(args = (Vec::with_capacity(1024)), config = within(budget::PRINT))]
fn print(mut out: Vec<u8>) -> Vec<u8> {
    for _ in 0..TIMES {
        cases::codec::print(&mut out);
    }
    out
}

#[library_benchmark]
#[bench::append(args = (Vec::with_capacity(1024)), config = within(budget::ENCODE))]
fn encode(mut out: Vec<u8>) -> Vec<u8> {
    for _ in 0..TIMES {
        out.clear();
        encode_text(&mut out, black_box(&PAYLOAD));
        black_box(&mut out);
    }
    out
}

#[library_benchmark(config = within(budget::PREPARE))]
fn prepare() {
    for _ in 0..TIMES {
        black_box(PreparedMessage::text(black_box(&PAYLOAD)));
    }
}

#[library_benchmark(setup = audience)]
#[bench::plain(args = (Flags::PLAIN, 1), config = within(budget::ROOM_PLAIN))]
#[bench::plain_batch(args = (Flags::PLAIN, BATCH), config = within(budget::ROOM_PLAIN_BATCH))]
#[bench::ndjson_batch(args = (Flags::NDJSON, BATCH), config = within(budget::ROOM_NDJSON_BATCH))]
#[bench::personal_batch(args = (Flags::PERSONAL, BATCH), config = within(budget::ROOM_PERSONAL_BATCH))]
fn room((mut audience, publications): (Audience, usize)) -> Audience {
    black_box(audience.turn(publications));
    audience
}

/// With buffers that have grown, as below.
fn audience(flags: Flags, publications: usize) -> (Audience, usize) {
    let mut audience = Audience::new(flags);
    audience.turn(publications);
    (audience, publications)
}

#[library_benchmark(setup = SlowMember::new)]
#[bench::turn(args = (1), config = within(budget::BACKLOG_TURN))]
fn backlog(mut member: SlowMember) -> SlowMember {
    for _ in 0..TIMES {
        member.turn();
    }
    member
}

#[library_benchmark(setup = SlowMember::new)]
#[bench::at_the_end_of_a_batch(args = (BATCH), config = within(budget::BACKLOG_BEGIN))]
fn begin_backlog(member: SlowMember) -> SlowMember {
    for _ in 0..TIMES {
        black_box(member.begin());
    }
    member
}

#[library_benchmark(setup = mailbox)]
#[bench::single(args = (1), config = within(budget::INBOX_SINGLE))]
#[bench::burst(args = (TIMES), config = within(budget::INBOX_BURST))]
fn inbox((mut mailbox, publications): (Mailbox, usize)) -> Mailbox {
    for _ in 0..TIMES / publications {
        mailbox.turn(publications);
    }
    mailbox
}

fn mailbox(publications: usize) -> (Mailbox, usize) {
    let mut mailbox = Mailbox::new();
    // The two ends take turns with two queues.
    mailbox.turn(publications);
    mailbox.turn(publications);
    (mailbox, publications)
}
