//! What the pure parts of fan-out cost, without sockets: all of it has to vanish beside one `send`.

use std::hint::black_box;
use std::io::IoSlice;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fanfare::id::ClientKey;
use fanfare::inbox::Publication;
use fanfare::shard::bench::{Backlog, Flags, Lane, Room, Step};
use fanfare::ws::PreparedMessage;
use slotmap::SlotMap;

const MEMBERS: usize = 1000;
const BATCH_BYTES: usize = 256 << 10;
const PAYLOAD: &[u8] = &[b'x'; 128];

/// One batch from append to completion; throughput counts members served.
fn room(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("room");
    group.throughput(Throughput::Elements(MEMBERS as u64));
    for (name, flags) in [("plain", Flags::PLAIN), ("ndjson", Flags::NDJSON), ("personal", Flags::PERSONAL)] {
        for publications in [1, 64] {
            let mut room = room_of(flags);
            let message = PreparedMessage::text(PAYLOAD);
            let mut offset = 0;
            group.bench_function(format!("{name}_1000_members_batch_of_{publications}"), |bencher| {
                bencher.iter(|| {
                    for _ in 0..publications {
                        offset += 1;
                        room.append(Publication {
                            offset,
                            message: message.clone(),
                            exclude: None,
                            born: offset,
                        });
                    }
                    serve(&mut room)
                });
            });
        }
    }
    group.finish();
}

/// A slow member: one more batch waits, and the socket takes some of it, cut inside a frame.
fn backlog(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("backlog");
    for publications in [1, 64] {
        let batch: Bytes = PreparedMessage::text(PAYLOAD).frame().repeat(publications).into();
        group.bench_function(format!("push_and_advance_batch_of_{publications}"), |bencher| {
            let mut backlog = Backlog::for_partial_write(Lane::Bulk, batch.clone(), 1);
            bencher.iter(|| {
                backlog.push_bulk(batch.clone(), usize::MAX).expect("no limit");
                let mut slices = [IoSlice::new(&[]); 16];
                black_box(backlog.slices(&mut slices));
                backlog.advance(batch.len());
            });
        });
        group.bench_function(format!("begin_at_the_end_of_a_batch_of_{publications}"), |bencher| {
            bencher.iter(|| Backlog::for_partial_write(Lane::Bulk, batch.clone(), batch.len() - 1));
        });
    }
    group.finish();
}

fn room_of(flags: Flags) -> Room {
    let mut slab: SlotMap<ClientKey, ()> = SlotMap::with_key();
    let mut room = Room::new(BATCH_BYTES);
    for _ in 0..MEMBERS {
        room.join(slab.insert(()), 0, flags);
    }
    room
}

fn serve(room: &mut Room) -> usize {
    let mut bytes = 0;
    loop {
        match room.next_step() {
            Step::Deliver(delivery) => {
                black_box(delivery);
                bytes += black_box(room.bytes()).len();
            }
            Step::Complete(completed) => _ = black_box(completed),
            Step::Idle => return bytes,
        }
    }
}

criterion_group!(benches, room, backlog);
criterion_main!(benches);
