use std::collections::HashMap;

use proptest::prelude::*;
use slotmap::SlotMap;

use super::*;
use crate::metrics::Source;
use crate::ws::{self, DeflateOptions, Deflater, Inflater, PreparedMessage};

const BATCH_BYTES: usize = 64;

#[test]
fn all_plain_members_share_one_buffer() {
    let (mut room, clients) = room_of::<3>(Flags::PLAIN);
    append(&mut room, 1, None);
    append(&mut room, 2, None);

    let buffers: Vec<_> =
        serve(&mut room).into_iter().map(|(client, bytes)| (client, bytes.as_ptr())).collect();

    assert_eq!(buffers, clients.map(|client| (client, buffers[0].1)));
}

#[test]
fn what_arrives_during_a_batch_is_collected_into_the_next() {
    let (mut room, [first, second]) = room_of(Flags::PLAIN);
    append(&mut room, 1, None);
    assert_eq!(step(&mut room), Some((first, vec![1])));
    append(&mut room, 2, None);
    append(&mut room, 3, None);

    assert_eq!(step(&mut room), Some((second, vec![1])));
    assert_eq!(step(&mut room), None);
    assert_eq!(step(&mut room), Some((first, vec![2, 3])));
}

#[test]
fn a_batch_ends_at_its_limit_and_the_rest_is_the_next_one() {
    let (mut room, [client]) = room_of(Flags::PLAIN);
    (1..=5).for_each(|offset| _ = append_text(&mut room, offset, &format!("{offset:028}")));

    let batches = serve(&mut room).into_iter().map(|(to, bytes)| (to, offsets(&bytes)));

    assert_eq!(batches.collect::<Vec<_>>(), [(client, vec![1, 2]), (client, vec![3, 4]), (client, vec![5])]);
}

#[test]
fn tells_what_a_batch_was_when_all_have_been_served() {
    let (mut room, [first, second]) = room_of(Flags::PLAIN);
    append(&mut room, 5, None);
    append(&mut room, 6, None);

    let delivery =
        |client| Step::Deliver(Delivery { client, publications: 2, payload_bytes: 2, is_sample: true });
    assert_eq!(room.next_step(), delivery(first));
    assert_eq!(room.next_step(), delivery(second));
    let completed = Completed { bytes: 6, publications: 2, recipients: 2, deliveries: 4, read_at: 50 };
    assert_eq!(room.next_step(), Step::Complete(completed));
    assert_eq!(room.next_step(), Step::Idle);
}

#[test]
fn samples_the_first_the_last_and_few_between() {
    let (mut room, _) = room_of::<600>(Flags::PLAIN);
    append(&mut room, 1, None);

    let sampled =
        (0..600).filter(|_| matches!(room.next_step(), Step::Deliver(Delivery { is_sample: true, .. })));

    assert_eq!(sampled.collect::<Vec<_>>(), [0, 256, 512, 599]);
}

#[test]
fn without_members_all_is_dropped_at_once() {
    let (mut room, [_]) = room_of(Flags::PLAIN);
    append_text(&mut room, 1, &"1".repeat(60));
    append_text(&mut room, 2, &"2".repeat(60));
    room.next_step();
    assert_eq!(room.leave(0), Left { missed: 1, moved: SmallVec::new() });

    let completed = Completed { bytes: 124, publications: 2, recipients: 1, deliveries: 1, read_at: 10 };
    assert_eq!(room.next_step(), Step::Complete(completed));
    assert!(!room.is_ready());
}

#[derive(Clone, Debug)]
enum Event {
    Append { length: usize, exclude: Option<usize> },
    Join { behind: u64, flags: u8 },
    Leave(usize),
    SetPersonal(usize),
    Steps(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0_usize..40, prop::option::of(any::<usize>()))
            .prop_map(|(length, exclude)| Event::Append { length, exclude }),
        3 => (prop_oneof![Just(0), 0_u64..6], 0_u8..8).prop_map(|(behind, flags)| Event::Join { behind, flags }),
        2 => any::<usize>().prop_map(Event::Leave),
        1 => any::<usize>().prop_map(Event::SetPersonal),
        6 => (1_usize..6).prop_map(Event::Steps),
    ]
}

/// The naive model: each member has a list of what it is to be given, and one of what it was.
#[derive(Default)]
struct Model {
    slab: SlotMap<ClientKey, ()>,
    /// Offset and exclusion of what was appended and is not complete.
    pending: VecDeque<(u64, Option<ClientKey>)>,
    pending_bytes: usize,
    appended: u64,
    members: HashMap<ClientKey, Expectation>,
}

struct Expectation {
    index: u32,
    slot: u32,
    is_personal: bool,
    expected: Vec<u64>,
    given: Vec<u64>,
}

impl Model {
    fn member(&self, choice: usize) -> Option<ClientKey> {
        let mut clients: Vec<_> = self.members.keys().copied().collect();
        clients.sort_unstable();
        (!clients.is_empty()).then(|| clients[choice % clients.len()])
    }

    fn happen(&mut self, room: &mut Room, event: &Event) {
        match *event {
            Event::Append { length, exclude } => {
                self.appended += 1;
                let offset = self.appended;
                let exclude = exclude.and_then(|choice| self.member(choice));
                // Only those who ask for it are ever excluded.
                let exclude = exclude.filter(|client| self.members[client].is_personal);
                let text = format!("{offset}{}", " ".repeat(length));
                self.pending_bytes += append_excluding(room, offset, &text, exclude).len();
                self.pending.push_back((offset, exclude));
                for (client, member) in &mut self.members {
                    member.expected.extend(Some(offset).filter(|_| exclude != Some(*client)));
                }
            }
            Event::Join { behind, flags } => {
                let (client, after) = (self.slab.insert(()), self.appended.saturating_sub(behind));
                // Any number will do that is the member's own.
                let slot = u32::try_from(self.slab.len()).unwrap();
                let index = room.join(Member { client, after, flags: Flags(flags), slot });
                let offsets = self.pending.iter().map(|(offset, _)| *offset);
                let expected = offsets.filter(|offset| *offset > after).collect();
                let is_personal = Flags(flags).has(Flags::PERSONAL);
                let member = Expectation { index, slot, is_personal, expected, given: Vec::new() };
                self.members.insert(client, member);
            }
            Event::Leave(choice) => {
                let Some(client) = self.member(choice) else { return };
                let member = self.members.remove(&client).unwrap();
                assert!(member.expected.starts_with(&member.given));
                let left = room.leave(member.index);
                assert_eq!(left.missed, member.expected.len() - member.given.len());
                for Moved { client, slot, index } in left.moved {
                    let moved = self.members.get_mut(&client).unwrap();
                    assert_eq!(moved.slot, slot);
                    assert_ne!(moved.index, index, "told of a move that was none");
                    moved.index = index;
                }
            }
            Event::SetPersonal(choice) => {
                let Some(client) = self.member(choice) else { return };
                let member = self.members.get_mut(&client).unwrap();
                member.is_personal = true;
                room.set_personal(member.index);
            }
            Event::Steps(count) => (0..count).for_each(|_| _ = self.step(room)),
        }
        assert_eq!(room.members().len(), self.members.len());
        for (client, member) in &self.members {
            assert_eq!(room.members()[member.index as usize].client, *client, "knows its place");
        }
        assert_eq!(room.is_ready(), !self.pending.is_empty());
    }

    fn step(&mut self, room: &mut Room) -> bool {
        match room.next_step() {
            Step::Deliver(delivery) => {
                check(&delivery, room);
                let given = offsets(room.bytes());
                let member = self.members.get_mut(&delivery.client).expect("only members are served");
                member.given.extend(given);
                assert!(member.expected.starts_with(&member.given), "in order, nothing skipped or twice");
            }
            Step::Complete(completed) => {
                assert_eq!(completed.read_at, 10 * self.pending[0].0);
                self.pending.drain(..completed.publications);
                self.pending_bytes -= completed.bytes;
            }
            Step::Idle => return false,
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn each_member_is_given_exactly_what_is_its_own_whoever_comes_and_goes(
        events in prop::collection::vec(event(), 1..120),
    ) {
        let (mut room, mut model) = (Room::new(BATCH_BYTES, OnOverflow::Disconnect), Model::default());
        for event in &events {
            model.happen(&mut room, event);
        }
        while model.step(&mut room) {}
        prop_assert_eq!(model.pending_bytes, 0);
        for member in model.members.values() {
            prop_assert_eq!(&member.given, &member.expected);
        }
    }
}

pub(in crate::shard) fn room_of<const N: usize>(flags: Flags) -> (Room, [ClientKey; N]) {
    let (mut room, clients) = (Room::new(BATCH_BYTES, OnOverflow::Disconnect), clients());
    for client in clients {
        room.join(Member { client, after: 0, flags, slot: 0 });
    }
    (room, clients)
}

pub(in crate::shard) fn clients<const N: usize>() -> [ClientKey; N] {
    let mut slab = SlotMap::with_key();
    [(); N].map(|()| slab.insert(()))
}

pub(in crate::shard) fn append(room: &mut Room, offset: u64, exclude: Option<ClientKey>) -> Bytes {
    append_excluding(room, offset, &offset.to_string(), exclude)
}

pub(in crate::shard) fn append_text(room: &mut Room, offset: u64, text: &str) -> Bytes {
    append_excluding(room, offset, text, None)
}

fn append_excluding(room: &mut Room, offset: u64, text: &str, exclude: Option<ClientKey>) -> Bytes {
    let message = PreparedMessage::text(text.as_bytes());
    let frame = message.frame().clone();
    let origin = Origin { source: Source::Client, read_at: 10 * offset, dispatched_at: 10 * offset + 1 };
    let mut compressed = Vec::new();
    let is_compressed = room.compressed_members() > 0
        && Deflater::new(DeflateOptions { threshold: 0, level: 1 }).encode(
            &mut compressed,
            true,
            text.as_bytes(),
        );
    let compressed = is_compressed.then(|| compressed.into());
    let publication = Publication { offset, message, key: None, exclude, origin };
    room.append(&publication, compressed, 10 * offset + 2);
    frame
}

/// Everything that is delivered until there is nothing to do.
pub(in crate::shard) fn serve(room: &mut Room) -> Vec<(ClientKey, Bytes)> {
    let mut served = Vec::new();
    loop {
        match room.next_step() {
            Step::Deliver(delivery) => {
                check(&delivery, room);
                served.push((delivery.client, room.bytes().clone()));
            }
            Step::Complete(_) => {}
            Step::Idle => return served,
        }
    }
}

pub(in crate::shard) fn step(room: &mut Room) -> Option<(ClientKey, Vec<u64>)> {
    let Step::Deliver(delivery) = room.next_step() else { return None };
    check(&delivery, room);
    Some((delivery.client, offsets(room.bytes())))
}

/// A delivery is counted by what it says of itself.
fn check(delivery: &Delivery, room: &Room) {
    let bytes = ws::message_payloads(room.bytes()).map(|(_, payload)| payload.len()).sum::<usize>();
    assert_eq!(delivery.payload_bytes, bytes);
    let payloads = payloads(room.bytes());
    let lines = payloads.iter().map(|payload| payload.split(|byte| *byte == b'\n').count());
    assert_eq!(delivery.publications, lines.sum::<usize>());
}

/// The offsets that a peer reads out of these frames.
fn offsets(frames: &[u8]) -> Vec<u64> {
    let text = payloads(frames).join(&b'\n');
    text.split(|byte| *byte == b'\n')
        .map(|line| str::from_utf8(line).unwrap().trim().parse().unwrap())
        .collect()
}

pub(in crate::shard) fn payloads(mut frames: &[u8]) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    while !frames.is_empty() {
        let (frame, behind) = frames.split_at(ws::frame_end(frames).unwrap());
        let header = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let payload = &frame[header..];
        let is_compressed = frame[0] & 0x40 != 0;
        payloads.push(if is_compressed {
            Inflater::default().inflate(payload, 1000).unwrap()
        } else {
            payload.to_vec()
        });
        frames = behind;
    }
    payloads
}
