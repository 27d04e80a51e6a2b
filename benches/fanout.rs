//! What the parts of fan-out cost, without sockets: all of it has to vanish beside one `send`.

mod cases {
    pub(crate) mod fanout;
}

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fanfare::shard::bench::Flags;

use cases::fanout::{Audience, MEMBERS, Mailbox, SlowMember};

criterion_group!(benches, room, backlog, inbox);
criterion_main!(benches);

/// Throughput counts members served.
fn room(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("room");
    group.throughput(Throughput::Elements(MEMBERS as u64));
    for (name, flags) in [("plain", Flags::PLAIN), ("ndjson", Flags::NDJSON), ("personal", Flags::PERSONAL)] {
        for publications in [1, 64] {
            let mut audience = Audience::new(flags);
            group.bench_function(format!("{name}_1000_members_batch_of_{publications}"), |bencher| {
                bencher.iter(|| audience.turn(publications));
            });
        }
    }
    group.finish();
}

fn backlog(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("backlog");
    for publications in [1, 64] {
        let mut member = SlowMember::new(publications);
        group.bench_function(format!("push_and_advance_batch_of_{publications}"), |bencher| {
            bencher.iter(|| member.turn());
        });
        group.bench_function(format!("begin_at_the_end_of_a_batch_of_{publications}"), |bencher| {
            bencher.iter(|| member.begin());
        });
    }
    group.finish();
}

/// Throughput counts messages that went through.
fn inbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inbox");
    for publications in [1, 64] {
        let mut mailbox = Mailbox::new();
        group.throughput(Throughput::Elements(publications as u64));
        group.bench_function(format!("push_and_take_{publications}"), |bencher| {
            bencher.iter(|| mailbox.turn(publications));
        });
    }
    group.finish();
}
