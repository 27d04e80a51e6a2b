//! The codec without sockets: decoding and parsing what clients send, printing and encoding what they get, and
//! the mask.

mod cases {
    pub(crate) mod codec;
}

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::protocol::Parser;
use fanfare::ws::{Decoder, PreparedMessage, encode_text};
use fastwebsockets::unmask;

use cases::codec::{MASK, MESSAGE_BYTES_MAX, NESTED, PAYLOAD, PING, TEXT};

/// What fits into one read of a shard.
const FRAMES_PER_READ: usize = 480;

criterion_group!(benches, decode, parse, print, encode, unmask_payload);
criterion_main!(benches);

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode_128_byte_frames");
    group.throughput(Throughput::Elements(FRAMES_PER_READ as u64));
    let frames = cases::codec::masked_frames(FRAMES_PER_READ);
    for (name, decode) in [
        ("whole", cases::codec::decode_whole as fn(&mut _, &mut _) -> _),
        ("cut_in_two", cases::codec::decode_cut),
    ] {
        let mut decoder = Decoder::new();
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || frames.clone(),
                |frames| decode(&mut decoder, frames),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(1));
    let mut parser = Parser::new();
    for (name, request) in [("ping", PING), ("128_bytes", TEXT), ("nested_data", NESTED)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| cases::codec::parse(&mut parser, request));
        });
    }
    group.finish();
}

fn print(criterion: &mut Criterion) {
    let mut out = Vec::with_capacity(1024);
    criterion.bench_function("print_message", |bencher| bencher.iter(|| cases::codec::print(&mut out)));
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_128_bytes");
    group.throughput(Throughput::Elements(1));
    group.bench_function("append", |bencher| {
        let mut out = Vec::with_capacity(1024);
        bencher.iter(|| {
            out.clear();
            encode_text(&mut out, black_box(&PAYLOAD));
            out.len()
        });
    });
    group.bench_function("prepare", |bencher| bencher.iter(|| PreparedMessage::text(black_box(&PAYLOAD))));
    group.finish();
}

fn unmask_payload(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    let mut payload = vec![b'x'; MESSAGE_BYTES_MAX];
    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function("64_kib", |bencher| bencher.iter(|| unmask(black_box(&mut payload), MASK)));
    group.finish();
}
