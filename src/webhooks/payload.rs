//! The body of a request, pure.

use crate::id::{NodeId, write_decimal, write_json_string};

use super::outbox::Entry;

/// Writes a batch as JSON. `process` tells this process from all others, also of the same name, so that the ids of events
/// are unique; those of an event are the same at each attempt.
pub(super) fn encode(batch: &[Entry], node: &NodeId, process: u64, sent_at: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + batch.len() * 160);
    out.extend_from_slice(b"{\"node\":");
    write_json_string(node.as_str(), &mut out);
    out.extend_from_slice(b",\"sent_at\":");
    write_decimal(sent_at, &mut out);
    out.extend_from_slice(b",\"events\":[");
    for (place, entry) in batch.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_event(entry, process, &mut out);
    }
    out.extend_from_slice(b"]}");
    out
}

fn write_event(Entry { number, event, .. }: &Entry, process: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":");
    write_json_string(&format!("{process:016x}-{number}"), out);
    out.extend_from_slice(b",\"type\":");
    write_json_string(event.kind.as_str(), out);
    out.extend_from_slice(b",\"room_id\":");
    event.room.write_json(out);
    if let Some(user) = &event.user {
        out.extend_from_slice(b",\"user\":");
        user.write_json(out);
    }
    out.extend_from_slice(b",\"at\":");
    write_decimal(event.at, out);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::id::{RoomId, UserId};
    use crate::webhooks::outbox::Outbox;
    use crate::webhooks::{Event, EventKind};

    #[test]
    fn tells_each_event_with_an_id_of_its_own() {
        let mut outbox = Outbox::new(1 << 20);
        let room = RoomId::parse("a \"b\"\n").unwrap();
        outbox.push(Event { kind: EventKind::RoomOccupied, room, user: None, at: 5 }, 0);
        let (room, user) = (RoomId::from_u64(7), UserId::parse("ann").ok());
        outbox.push(Event { kind: EventKind::MemberJoined, room, user, at: 1_790_000_000_123 }, 0);
        let batch = outbox.next_batch(1_000_000_000).unwrap();

        let body = encode(&batch, &NodeId::parse("eu-1").unwrap(), 0xab, 1_790_000_000_456);

        let body: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({
            "node": "eu-1",
            "sent_at": 1_790_000_000_456_u64,
            "events": [
                {"id": "00000000000000ab-1", "type": "room_occupied", "room_id": "a \"b\"\n", "at": 5},
                {
                    "id": "00000000000000ab-2",
                    "type": "member_joined",
                    "room_id": 7,
                    "user": "ann",
                    "at": 1_790_000_000_123_u64,
                },
            ],
        });
        assert_eq!(body, expected);
    }
}
