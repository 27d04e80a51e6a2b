//! `/metrics/rooms` and `/debug/rooms`: the hottest rooms, in the text format and as JSON.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::{Display, Write as _};
use std::sync::Arc;

use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::id::RoomId;
use crate::inspect::{Question, Room};
use crate::metrics::{Metric, RoomMetrics, write_head};

use super::State;
use super::answer::{self, Body, Refusal};
use super::ask::{ask, ask_all};
use super::query::Query;

/// The most rooms that are listed by one measure. A page of text is then below a megabyte: four measures, five series
/// with a name of at most 128 bytes, twice as many when escaped.
const BY_MEASURE_MAX: usize = 100;

/// By what a room is hot. More is hotter; 0 is not hot at all.
const MEASURES: [fn(&Room) -> u64; 4] = [
    |room| room.recent.messages,
    |room| room.recent.bytes,
    |room| room.recent.deliveries,
    // The bits of numbers from 0 up are in the order of the numbers.
    |room| room.queue_age_seconds.max(0.0).to_bits(),
];

pub(super) async fn metrics(state: &State, query: &Query<'_>) -> Result<Response<Body>, Refusal> {
    let hot = Hot::ask(state, query).await?;
    Ok(answer::metrics(hot.text()))
}

pub(super) async fn json(state: &State, query: &Query<'_>) -> Result<Response<Body>, Refusal> {
    let hot = Hot::ask(state, query).await?;
    Ok(answer::json(StatusCode::OK, &hot))
}

/// The hottest rooms. Invariant: no room twice, sorted by name, the room of everyone first.
#[derive(Debug, Serialize)]
struct Hot {
    rooms: Vec<Room>,
    missing_shards: Vec<u16>,
}

impl Hot {
    async fn ask(state: &State, query: &Query<'_>) -> Result<Self, Refusal> {
        let limit = query.number("k", 10, 1..=BY_MEASURE_MAX)?;
        let now = state.clock.now();
        let found = ask_all(state, |answer| Question::Rooms { limit, now, answer }).await;
        // A shard names the rooms that are hottest everywhere among those with members on it, so that the hottest of all are
        // among those named. But their members on other shards, which know hotter rooms, are still to be counted.
        let mut names: Vec<_> = found.said.into_iter().flatten().map(|room| room.room).collect();
        names.sort_unstable();
        names.dedup();
        let names: Arc<[_]> = names.into();
        // Who did not answer the first question is not waited for again.
        let present: Vec<_> =
            (0..).take(state.shards.len()).filter(|shard| !found.missing.contains(shard)).collect();
        let parts = |_, answer| Question::RoomsNamed { names: Arc::clone(&names), now, answer };
        let all = ask(state, present.into_iter(), parts).await;
        let mut missing_shards = [found.missing, all.missing].concat();
        missing_shards.sort_unstable();
        missing_shards.dedup();
        Ok(Self { rooms: hottest(merged(all.said), limit), missing_shards })
    }

    fn text(&self) -> String {
        let mut page = String::new();
        self.family(&mut page, RoomMetrics::MESSAGES, |room| room.messages);
        self.family(&mut page, RoomMetrics::BYTES, |room| room.bytes);
        self.family(&mut page, RoomMetrics::DELIVERIES, |room| room.deliveries);
        self.family(&mut page, RoomMetrics::MEMBERS, |room| room.members);
        self.family(&mut page, RoomMetrics::AGE, |room| room.queue_age_seconds);
        let missing = RoomMetrics::SHARDS_MISSING;
        write_head(&mut page, missing);
        // Writing to a `String` cannot fail.
        let _ = writeln!(page, "{} {}", missing.name, self.missing_shards.len());
        page
    }

    /// Appends one metric of all rooms.
    fn family<V: Display>(&self, page: &mut String, metric: &Metric, value: impl Fn(&Room) -> V) {
        write_head(page, metric);
        for room in &self.rooms {
            let name = room.room.as_ref().map_or_else(String::new, |name| escaped(&name.to_string()));
            let _ = writeln!(page, "{}{{room=\"{name}\"}} {}", metric.name, value(room));
        }
        page.push('\n');
    }
}

/// The rooms of these names, as far as they have members, and the shards that did not say so.
pub(super) async fn named(state: &State, names: &Arc<[Option<RoomId>]>) -> (Vec<Room>, Vec<u16>) {
    let now = state.clock.now();
    let parts = |answer| Question::RoomsNamed { names: Arc::clone(names), now, answer };
    let answers = ask_all(state, parts).await;
    (merged(answers.said), answers.missing)
}

/// Puts together what several shards say of one room: each has members of its own, and all say the same of the rest, only that
/// some were asked a little later.
fn merged(answers: Vec<Vec<Room>>) -> Vec<Room> {
    let mut rooms = BTreeMap::new();
    for part in answers.into_iter().flatten() {
        match rooms.entry(part.room.clone()) {
            Entry::Vacant(place) => drop(place.insert(part)),
            Entry::Occupied(mut room) => add(room.get_mut(), &part),
        }
    }
    rooms.into_values().collect()
}

fn add(room: &mut Room, part: &Room) {
    room.members += part.members;
    room.messages = room.messages.max(part.messages);
    room.bytes = room.bytes.max(part.bytes);
    room.deliveries = room.deliveries.max(part.deliveries);
    room.recent.messages = room.recent.messages.max(part.recent.messages);
    room.recent.bytes = room.recent.bytes.max(part.recent.bytes);
    room.recent.deliveries = room.recent.deliveries.max(part.recent.deliveries);
    room.queue_age_seconds = room.queue_age_seconds.max(part.queue_age_seconds);
}

/// The first `limit` by each measure, in the order in which they came.
fn hottest(rooms: Vec<Room>, limit: usize) -> Vec<Room> {
    let mut is_hot = vec![false; rooms.len()];
    for measure in MEASURES {
        let mut order: Vec<_> = (0..rooms.len()).filter(|index| measure(&rooms[*index]) > 0).collect();
        // Rooms that are equally hot stay in their order, so that the choice between them is the same each time.
        order.sort_by_key(|index| Reverse(measure(&rooms[*index])));
        order.iter().take(limit).for_each(|index| is_hot[*index] = true);
    }
    rooms.into_iter().zip(is_hot).filter_map(|(room, is_hot)| is_hot.then_some(room)).collect()
}

/// A label's value as the text format writes it.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Recent;

    fn room(name: &str) -> Room {
        Room {
            room: RoomId::parse(name).ok(),
            members: 1,
            messages: 0,
            bytes: 0,
            deliveries: 0,
            recent: Recent::default(),
            queue_age_seconds: 0.0,
        }
    }

    fn names(rooms: &[Room]) -> Vec<String> {
        rooms.iter().map(|room| room.room.as_ref().map_or_else(String::new, ToString::to_string)).collect()
    }

    #[test]
    fn a_room_on_several_shards_has_their_members_and_what_was_last_said_of_the_rest() {
        let recent = |messages, deliveries| Recent { messages, bytes: 10 * messages, deliveries };
        let one =
            Room { members: 3, messages: 7, bytes: 70, deliveries: 21, recent: recent(4, 12), ..room("a") };
        let other =
            Room { members: 2, messages: 5, bytes: 50, deliveries: 10, recent: recent(5, 10), ..room("a") };
        let other = Room { queue_age_seconds: 0.5, ..other };

        let merged = merged(vec![vec![room("b"), one], vec![other]]);

        let together = Room { members: 5, messages: 7, bytes: 70, deliveries: 21, ..room("a") };
        let together = Room { recent: recent(5, 12), queue_age_seconds: 0.5, ..together };
        assert_eq!(merged, [together, room("b")]);
    }

    #[test]
    fn lists_the_first_by_each_measure_once_and_none_that_is_cold() {
        let mut rooms: Vec<_> = ["", "age", "bytes", "cold", "fan", "loud", "second"].map(room).into();
        rooms[0].recent = Recent { messages: 1, bytes: 1, deliveries: 1 };
        rooms[1].queue_age_seconds = 1e-9;
        rooms[2].recent = Recent { messages: 2, bytes: 9000, deliveries: 2 };
        rooms[4].recent = Recent { messages: 3, bytes: 3, deliveries: 9000 };
        rooms[5].recent = Recent { messages: 9000, bytes: 4, deliveries: 4 };
        rooms[6].recent = Recent { messages: 8000, bytes: 8000, deliveries: 8000 };

        assert_eq!(names(&hottest(rooms.clone(), 1)), ["age", "bytes", "fan", "loud"]);
        assert_eq!(names(&hottest(rooms.clone(), 2)), ["age", "bytes", "fan", "loud", "second"]);
        assert_eq!(names(&hottest(rooms, 100)), ["", "age", "bytes", "fan", "loud", "second"]);
    }

    #[test]
    fn prints_names_as_the_text_format_demands() {
        let rooms = vec![room(""), Room { queue_age_seconds: 0.25, ..room("a\"b\\n\nä{}") }];

        let page = Hot { rooms, missing_shards: vec![1, 3] }.text();

        assert!(page.contains("\nfanfare_room_members{room=\"\"} 1\n"), "{page}");
        let series = r#"fanfare_room_queue_age_seconds{room="a\"b\\n\nä{}"} 0.25"#;
        assert!(page.lines().any(|line| line == series), "{page}");
        assert!(page.ends_with("\nfanfare_rooms_missing_shards 2\n"), "{page}");
        let types: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let expected = [
            "fanfare_room_messages_total counter",
            "fanfare_room_published_bytes_total counter",
            "fanfare_room_deliveries_total counter",
            "fanfare_room_members gauge",
            "fanfare_room_queue_age_seconds gauge",
            "fanfare_rooms_missing_shards gauge",
        ];
        assert_eq!(types, expected);
    }

    #[test]
    fn a_page_of_the_longest_names_is_below_a_megabyte() {
        let name = |index: usize| format!("{}{index:03}", "\"".repeat(125));
        let rooms = (0..4 * BY_MEASURE_MAX).map(|index| Room {
            messages: u64::MAX,
            bytes: u64::MAX,
            deliveries: u64::MAX,
            queue_age_seconds: 1.0 / 3e6,
            ..room(&name(index))
        });

        let page = Hot { rooms: rooms.collect(), missing_shards: Vec::new() }.text();

        assert!(page.len() < 1_000_000, "{}", page.len());
    }
}
