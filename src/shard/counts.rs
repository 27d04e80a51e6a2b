//! What a shard counts, as plain integers.

use std::marker::PhantomData;
use std::mem;

use crate::metrics::{
    CloseReason, CloseSent, Compressed, Direction, DropReason, LabelValue, ReceivedClose, ReceivedType,
    Recovery, RejectReason, Resumption, SentType, ShardSamples,
};
use crate::ws;

use super::queue::Load;
use super::room::Completed;

/// Plain counts that the driver publishes.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) opened: Tally<Compressed>,
    /// Bytes of publications before they were compressed, and of the frames after.
    pub(super) compression_input: u64,
    pub(super) compression_output: u64,
    pub(super) closed: Tally<CloseReason>,
    pub(super) close_sent: Tally<CloseSent>,
    pub(super) close_received: Tally<ReceivedClose>,
    pub(super) rejected: Tally<RejectReason>,
    pub(super) received: Tally<ReceivedType>,
    /// What sockets have taken to the last byte.
    pub(super) sent: Messages,
    /// The messages among the replies that are being gathered.
    pub(super) replies: Messages,
    pub(super) dropped: Tally<DropReason>,
    pub(super) recoveries: Tally<Recovery>,
    pub(super) resumes: Tally<Resumption>,
    pub(super) payload_received: u64,
    pub(super) wire_received: u64,
    pub(super) ping_timeouts: u64,
    /// Messages published to a room or to everyone.
    pub(super) broadcasts: u64,
    /// Messages to users.
    pub(super) direct: u64,
    pub(super) held: u64,
    pub(super) samples: ShardSamples,
    pub(super) memberships: usize,
    /// The sum of what waits for the clients.
    pub(super) queues: Load,
    /// The sum of what the clients' unfinished and held input takes, in bytes.
    pub(super) input: usize,
    /// What TLS takes for this shard's connections, in bytes, as the driver last said.
    pub(super) transports: usize,
}

impl Counts {
    /// Counts a message from a client that was dealt with.
    pub(super) fn heard(&mut self, kind: ReceivedType, payload: usize) {
        self.received.add(kind, 1);
        self.payload_received += payload as u64;
        self.samples.message_size[Direction::Received].record(payload as u64);
    }

    /// Counts a batch that was given to all.
    pub(super) fn complete(&mut self, batch: &Completed) {
        self.samples.recipients.record(batch.recipients as u64);
        self.samples.write_batch.record(batch.publications as u64);
    }

    /// Counts the messages in whole frames that a client was not given; returns how many.
    #[cold]
    pub(super) fn drop_frames(&mut self, reason: DropReason, form: Form, frames: &[u8]) -> usize {
        let mut messages = Messages::default();
        let count = messages.add_frames(form, frames);
        self.drop_messages(reason, messages);
        count
    }

    /// Counts messages that a client was not given.
    #[cold]
    pub(super) fn drop_messages(&mut self, reason: DropReason, mut messages: Messages) {
        messages.kinds.take(|_, count| self.dropped.add(reason, count));
    }
}

/// What a message in a frame to a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One JSON object.
    Json,
    /// One or more of them, a line each.
    Lines,
    /// What the client said itself.
    Echo,
}

/// Messages to clients.
#[derive(Default)]
pub(super) struct Messages {
    pub(super) kinds: Tally<SentType>,
    /// Their bytes, without frame headers.
    pub(super) payload: u64,
}

impl Messages {
    #[inline]
    pub(super) fn add(&mut self, kind: SentType, count: usize, payload: usize) {
        self.kinds.add(kind, count as u64);
        self.payload += payload as u64;
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.kinds.values.iter().sum::<u64>()).unwrap_or(usize::MAX)
    }

    /// Adds those of another count.
    pub(super) fn append(&mut self, mut other: Self) {
        other.kinds.take(|kind, count| self.kinds.add(kind, count));
        self.payload += other.payload;
    }

    /// Adds those in whole frames, as they say themselves what they are; returns how many.
    ///
    /// Whoever makes a message knows what it is, and whoever writes one at once counts what it knows; this is for
    /// those that had to wait, so that their queue holds nothing but bytes.
    #[cold]
    pub(super) fn add_frames(&mut self, form: Form, frames: &[u8]) -> usize {
        let mut count = 0;
        for (is_compressed, payload) in ws::message_payloads(frames) {
            self.payload += payload.len() as u64;
            for message in form.messages(payload) {
                let kind = match form {
                    Form::Echo => SentType::Echo,
                    // Nothing else is compressed.
                    Form::Json if is_compressed => SentType::Message,
                    Form::Json | Form::Lines => kind_of(message),
                };
                self.kinds.add(kind, 1);
                count += 1;
            }
        }
        count
    }
}

impl Form {
    /// How many messages there are in whole frames.
    pub(super) fn count(self, frames: &[u8]) -> usize {
        ws::message_payloads(frames).map(|(_, payload)| self.messages(payload).count()).sum()
    }

    fn messages(self, payload: &[u8]) -> impl Iterator<Item = &[u8]> {
        payload.split(move |byte| self == Self::Lines && *byte == b'\n')
    }
}

/// What a message of the gateway is: each begins with its type.
fn kind_of(json: &[u8]) -> SentType {
    let begins_with = |kind: &&SentType| {
        let rest =
            json.strip_prefix(br#"{"type":""#).and_then(|name| name.strip_prefix(kind.as_str().as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&b'"'))
    };
    let kind = SentType::ALL.iter().find(begins_with);
    debug_assert!(kind.is_some(), "a message without a type: {}", String::from_utf8_lossy(json));
    kind.copied().unwrap_or(SentType::Message)
}

/// A count for each value of a label.
pub(super) struct Tally<L> {
    values: [u64; TALLY_VALUES],
    label: PhantomData<L>,
}

impl<L> Default for Tally<L> {
    fn default() -> Self {
        Self { values: [0; TALLY_VALUES], label: PhantomData }
    }
}

impl<L: LabelValue> Tally<L> {
    const FITS: () = assert!(L::ALL.len() <= TALLY_VALUES, "a label with more values than a tally holds");

    pub(super) fn add(&mut self, label: L, count: u64) {
        let () = Self::FITS;
        self.values[label.index()] += count;
    }

    /// Takes all counts that are not 0.
    pub(super) fn take(&mut self, mut each: impl FnMut(L, u64)) {
        for label in L::ALL {
            let count = mem::take(&mut self.values[label.index()]);
            if count > 0 {
                each(*label, count);
            }
        }
    }
}

/// No label has more values.
const TALLY_VALUES: usize = 20;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::backlog::Lane;
    use super::super::tests::{World, counted, frame, masked};
    use super::*;
    use crate::http::Endpoint;
    use crate::hub;

    #[test]
    fn counts_what_clients_said_by_type_once_it_was_dealt_with() {
        let mut world = World::with(hub::Options { room_pending_bytes: 100, ..hub::Options::default() });
        let ann = world.enter("ann");
        let join = r#"{"type":"join","room_id":5}"#;
        let message = format!(r#"{{"type":"message","room_id":5,"content":"{}"}}"#, "x".repeat(80));
        for text in [join, "nonsense", &message, &message] {
            world.say(ann, text);
        }
        world.receive(ann, &masked(0x8a, b"a control frame is no message"));
        assert!(world.shard.core.reads_are_paused(ann), "the second message is held");
        let mut payload = join.len() + "nonsense".len() + message.len();
        let received = [(ReceivedType::Message, 1), (ReceivedType::Join, 1), (ReceivedType::Invalid, 1)];
        assert_eq!(counted(&mut world.shard.core.counts.received), received);
        assert_eq!(world.shard.core.counts.payload_received, payload as u64);
        world.deliver();
        world.retry();
        world.receive(ann, &masked(0x82, b"binary"));
        payload += message.len() + "binary".len();
        let received = [(ReceivedType::Message, 1), (ReceivedType::Invalid, 1)];
        assert_eq!(counted(&mut world.shard.core.counts.received), received);
        assert_eq!(world.shard.core.counts.payload_received, payload as u64);
    }

    #[test]
    fn counts_the_size_of_a_message_once_for_each_member_that_it_is_for() {
        let mut world = World::new();
        let members = ["ann", "ben", "cat"].map(|user| world.enter(user));
        for member in members {
            world.say(member, r#"{"type":"join","room_id":5}"#);
        }
        world.say(members[0], r#"{"type":"message","room_id":5,"content":"x"}"#);
        world.say(members[0], r#"{"type":"message","room_id":5,"content":"x","echo":false}"#);
        world.apply();

        assert_eq!(world.shard.core.counts.samples.message_size[Direction::Sent].count(), 3 + 2);
    }

    #[test]
    fn counts_a_message_as_sent_only_when_its_last_byte_was_taken() {
        let mut world = World::new();
        let ann = world.enter("ann");
        world.notices();
        let (first, second) = (frame("first"), frame("second"));
        let frames = Bytes::from([&first[..], &second[..]].concat());
        world.shard.core.blocked(ann, &frames, first.len() - 1, Lane::Bulk, None);
        assert_eq!(counted(&mut world.shard.core.counts.sent.kinds), []);
        world.shard.core.drained(ann, 1 + second.len() - 1);
        assert_eq!(counted(&mut world.shard.core.counts.sent.kinds), [(SentType::Message, 1)]);
        assert_eq!(world.shard.core.counts.sent.payload, first.len() as u64 - 2);
        world.shard.core.lost(ann, CloseReason::IoError);
        assert_eq!(counted(&mut world.shard.core.counts.sent.kinds), []);
        assert_eq!(counted(&mut world.shard.core.counts.dropped), [(DropReason::Closing, 1)]);
    }

    #[test]
    fn waiting_messages_are_told_apart_when_they_are_taken() {
        let mut world = World::new();
        let ann = world.enter("ann");
        world.notices();
        let mut input = masked(0x89, b"control");
        for text in [
            r#"{"type":"ping"}"#,
            r#"{"type":"join","room_id":5,"id":1}"#,
            r#"{"type":"message","room_id":5,"content":"type\":\"error","id":2}"#,
            r#"{"type":"leave","room_id":6}"#,
        ] {
            input.extend_from_slice(&masked(0x81, text.as_bytes()));
        }
        let mut replies = Vec::new();
        world.shard.receive(ann, &mut input, 0, &mut replies);
        let expected = [(SentType::Ack, 2), (SentType::Error, 1), (SentType::Pong, 1)];
        assert_eq!(counted(&mut world.shard.core.counts.replies.kinds), expected);
        let (payload, bytes) = (world.shard.core.counts.replies.payload, replies.len());
        world.shard.core.blocked(ann, &replies.into(), 0, Lane::Control, None);
        assert_eq!(counted(&mut world.shard.core.counts.sent.kinds), []);
        world.shard.core.drained(ann, bytes);
        assert_eq!(counted(&mut world.shard.core.counts.sent.kinds), expected);
        assert_eq!(world.shard.core.counts.sent.payload, payload);
    }

    #[test]
    fn every_message_ends_as_sent_or_dropped_and_is_counted_once() {
        for protocol in [Endpoint::Ws, Endpoint::Echo] {
            for is_ndjson in [false, true] {
                let mut world = World::new();
                let (reader, goer) =
                    (world.enter_as(protocol, is_ndjson), world.enter_as(protocol, is_ndjson));
                for client in [reader, goer] {
                    world.say(client, r#"{"type":"join","room_id":5}"#);
                    world.shard.core.blocked(client, &Bytes::from_static(&[0x89, 0]), 1, Lane::Control, None);
                }
                for round in 0..30 {
                    for _ in 0..=round % 3 {
                        let text = format!(r#"{{"type":"message","room_id":5,"content":"{round}"}}"#);
                        let mut replies = Vec::new();
                        world.shard.receive(reader, &mut masked(0x81, text.as_bytes()), 0, &mut replies);
                        if !replies.is_empty() {
                            world.shard.core.enqueue(reader, replies.into(), Lane::Control, None);
                        }
                    }
                    world.notices();
                    world.deliver();
                    // Never all of it, so that none of it is written directly.
                    let waiting = world.waiting(reader);
                    world.shard.core.drained(reader, waiting.min(37 * round).saturating_sub(1));
                }
                world.shard.core.lost(goer, CloseReason::Client);
                let waiting = world.waiting(reader);
                world.shard.core.drained(reader, waiting);
                let counts = &mut world.shard.core.counts;
                let said = 10 * (1 + 2 + 3);
                let (sent, dropped) = match protocol {
                    Endpoint::Ws => (vec![(SentType::Welcome, 1), (SentType::Message, said)], said + 1),
                    Endpoint::Echo => (vec![(SentType::Echo, said)], 0),
                };
                assert_eq!(counted(&mut counts.sent.kinds), sent);
                let dropped: Vec<_> =
                    Some((DropReason::Closing, dropped)).filter(|_| dropped > 0).into_iter().collect();
                assert_eq!(counted(&mut counts.dropped), dropped);
                assert_eq!(counts.queues, Load::default());
            }
        }
    }

    #[test]
    fn a_message_to_a_user_is_timed_for_its_first_and_last_connection() {
        let mut world = World::new();
        let ann: Vec<_> = (0..4).map(|_| world.enter("ann")).collect();
        world.notices();
        world.say(ann[0], r#"{"type":"message","to":"ann","content":"x"}"#);
        world.apply();
        let samples: Vec<_> =
            std::iter::from_fn(|| world.shard.core.next_notice().map(|notice| notice.is_sample)).collect();
        assert_eq!(samples, [true, false, false, true]);
    }
}
