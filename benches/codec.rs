//! The codec without sockets: decoding what clients send, encoding what they get, and the mask.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::ws::{Decoder, Event, PreparedMessage, encode_text};
use fastwebsockets::unmask;

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const PAYLOAD_BYTES: usize = 128;
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// What fits into one read of a shard.
const FRAMES_PER_READ: usize = 480;

criterion_group!(benches, decode, encode, unmask_payload);
criterion_main!(benches);

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode_128_byte_frames");
    group.throughput(Throughput::Elements(FRAMES_PER_READ as u64));
    let bytes = masked_frame().repeat(FRAMES_PER_READ);
    group.bench_function("whole", |bencher| {
        let mut decoder = Decoder::new();
        bencher.iter_batched_ref(
            || bytes.clone(),
            |bytes| count_messages(&mut decoder, bytes),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("cut_in_two", |bencher| {
        let mut decoder = Decoder::new();
        bencher.iter_batched_ref(
            || bytes.clone(),
            |bytes| {
                // A cut in each frame, at a place that moves through it.
                let pieces = bytes.chunks_mut(PAYLOAD_BYTES + 9);
                pieces.map(|piece| count_messages(&mut decoder, piece)).sum::<usize>()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_128_bytes");
    group.throughput(Throughput::Elements(1));
    let payload = [b'x'; PAYLOAD_BYTES];
    group.bench_function("append", |bencher| {
        let mut out = Vec::with_capacity(1024);
        bencher.iter(|| {
            out.clear();
            encode_text(&mut out, black_box(&payload));
            out.len()
        });
    });
    group.bench_function("prepare", |bencher| bencher.iter(|| PreparedMessage::text(black_box(&payload))));
    group.finish();
}

fn unmask_payload(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    let mut payload = vec![b'x'; MESSAGE_BYTES_MAX];
    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function("64_kib", |bencher| bencher.iter(|| unmask(black_box(&mut payload), MASK)));
    group.finish();
}

fn count_messages(decoder: &mut Decoder, mut input: &mut [u8]) -> usize {
    let mut count = 0;
    while let Some(event) = decoder.decode(&mut input, MESSAGE_BYTES_MAX).expect("the frames are legal") {
        count += usize::from(matches!(event, Event::Message { .. }));
    }
    count
}

fn masked_frame() -> Vec<u8> {
    let mut payload = vec![b'x'; PAYLOAD_BYTES];
    unmask(&mut payload, MASK);
    [&[0x81, 0xFE, 0, 128], &MASK[..], &payload].concat()
}
