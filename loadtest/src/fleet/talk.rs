//! What a client says and hears besides the messages of the run.

use anyhow::{Context as _, Result, bail};
use memchr::memmem;
use tungstenite::handshake::client::Response;
use tungstenite::handshake::machine::TryParse as _;

use super::client::{Awaited, Reading, Stage};
use super::{Fleet, id_of};
use crate::dialect::{Request, Template, Values};
use crate::frames::{self, Kind};
use crate::tally::Text;
use crate::traffic::latency::Kind as Latency;
use crate::traffic::load::Operation;

impl Fleet {
    /// Handles what is whole at the head of the bytes, and says how many they were.
    pub(super) fn digest(&mut self, number: usize, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        if self.clients[number].stage == Stage::Upgrading {
            let Some((length, response)) = Response::try_parse(bytes).context("the answer to the upgrade")?
            else {
                return Ok(0);
            };
            used = length;
            if !self.answered(number, &response)? {
                return Ok(bytes.len());
            }
            self.traffic.tally.wire_received += (bytes.len() - used) as u64;
            self.enter(number);
        }
        self.traffic.bytes_arrived();
        while let Some(frame) = frames::first(&bytes[used..]).map_err(anyhow::Error::msg)? {
            used += frame.length;
            match frame.kind {
                Kind::Data => self.message(number, frame.payload),
                Kind::Part => self.part(number, frame.payload)?,
                Kind::Ping => {
                    let mut pong = Vec::new();
                    frames::write_pong(frame.payload, &mut pong);
                    self.traffic.tally.wire_sent += pong.len() as u64;
                    self.send(number, &pong);
                }
                Kind::Pong => {}
                Kind::Close => {
                    let (code, words) = describe_close(frame.payload);
                    self.told(number, code, &words);
                }
            }
            if self.clients[number].stream.is_none() {
                // Nothing counts that comes behind the end.
                return Ok(bytes.len());
            }
        }
        Ok(used)
    }

    #[inline]
    fn message(&mut self, number: usize, payload: &[u8]) {
        self.traffic.tally.payload_received += payload.len() as u64;
        if self.dialect.delimiter.is_some() {
            return self.lines(number, payload);
        }
        self.text(number, payload);
    }

    #[inline]
    fn text(&mut self, number: usize, text: &[u8]) {
        let id = id_of(number);
        if !self.traffic.deliver(id, &mut self.clients[number].seats, text) {
            self.other(number, text);
        }
    }

    /// Takes a frame apart that may hold several messages.
    fn lines(&mut self, number: usize, payload: &[u8]) {
        let dialect = self.dialect();
        let Some(delimiter) = &dialect.delimiter else { return };
        let mut partial = std::mem::take(&mut self.clients[number].partial);
        let bytes = if partial.is_empty() {
            payload
        } else {
            partial.extend_from_slice(payload);
            &partial
        };
        let mut rest = bytes;
        while let Some(end) = memmem::find(rest, delimiter) {
            if end > 0 {
                self.text(number, &rest[..end]);
            }
            rest = &rest[end + delimiter.len()..];
        }
        if !rest.is_empty() && !dialect.spans_frames {
            self.text(number, rest);
            rest = &[];
        }
        self.clients[number].partial = rest.to_vec();
    }

    /// Fragments can only be told apart where frames do not matter.
    fn part(&mut self, number: usize, payload: &[u8]) -> Result<()> {
        if !self.dialect.spans_frames {
            bail!("a fragmented message, which this dialect does not expect");
        }
        self.message(number, payload);
        Ok(())
    }

    /// The connection is up: says what opens it, and enters the rooms.
    fn enter(&mut self, number: usize) {
        let dialect = self.dialect();
        self.clients[number].stage = Stage::Joining;
        let mut frames = Vec::new();
        for text in &dialect.open {
            self.write(number, text, None, &mut frames);
        }
        let rooms = self.clients[number].rooms;
        let mut awaited = 0..0;
        if let Some(join) = &dialect.join {
            for seat in 0..rooms {
                self.write(number, &join.text, Some(seat), &mut frames);
                self.traffic.tally.texts_sent.add(Text::Join);
            }
            if join.answer.is_some() {
                awaited = 0..rooms;
            }
        }
        let client = &mut self.clients[number];
        for seat in &mut client.seats {
            seat.inside = true;
        }
        client.asked_at = self.clock.nanos();
        client.joining = awaited.clone();
        if !frames.is_empty() {
            self.send(number, &frames);
        }
        if awaited.is_empty() && self.clients[number].stage == Stage::Joining {
            self.ready_now(number);
        }
    }

    /// Asks something for a client that asks nothing at the moment.
    pub(super) fn ask(&mut self, number: usize, operation: Operation) {
        let dialect = self.dialect();
        let client = &self.clients[number];
        if client.awaited != Awaited::Nothing
            || !client.joining.is_empty()
            || client.reading == Reading::Stopped
        {
            self.traffic.unsent += 1;
            return;
        }
        let mut frames = Vec::new();
        match operation {
            Operation::Ping | Operation::Presence => {
                let (request, kind) = match operation {
                    Operation::Ping => (&dialect.ping, Text::Ping),
                    _ => (&dialect.presence, Text::Presence),
                };
                let Some(request) = request else { return };
                self.write(number, &request.text, Some(0), &mut frames);
                self.traffic.tally.texts_sent.add(kind);
                if request.answer.is_some() {
                    self.clients[number].awaited = Awaited::Answer;
                }
            }
            Operation::Rejoin => {
                let (Some(leave), Some(join)) = (&dialect.leave, &dialect.join) else { return };
                if client.rooms > 0 {
                    self.rejoin(number, leave, join, &mut frames);
                }
            }
            _ => {}
        }
        self.clients[number].asked_at = self.clock.nanos();
        self.send(number, &frames);
    }

    /// Leaves the first room, and enters it again.
    fn rejoin(&mut self, number: usize, leave: &Request, join: &Request, frames: &mut Vec<u8>) {
        self.write(number, &leave.text, Some(0), frames);
        self.write(number, &join.text, Some(0), frames);
        self.traffic.tally.texts_sent.add(Text::Leave);
        self.traffic.tally.texts_sent.add(Text::Join);
        let client = &mut self.clients[number];
        let id = id_of(number);
        self.traffic.dismiss(id, &mut client.seats[0]);
        if leave.answer.is_some() {
            client.awaited = Awaited::Leave;
        }
        if join.answer.is_some() {
            client.joining = 0..1;
        } else {
            client.seats[0].receiver.restart();
            self.traffic.admit(id, &mut client.seats[0]);
        }
    }

    /// Appends a text of the dialect as a frame.
    fn write(&mut self, number: usize, template: &Template, seat: Option<usize>, frames: &mut Vec<u8>) {
        let room = seat.and_then(|seat| self.clients[number].seats.get(seat));
        let room = room.and_then(|seat| self.traffic.room_of(seat)).unwrap_or(0);
        let user = id_of(number);
        let text = template.text(&Values { prefix: &self.dialect.prefix, room, user, message: b"" });
        let before = frames.len();
        self.dialect.frames.write(&text, frames);
        self.traffic.tally.payload_sent += text.len() as u64;
        self.traffic.tally.wire_sent += (frames.len() - before) as u64;
    }

    /// A text that is no message of the run.
    #[cold]
    fn other(&mut self, number: usize, text: &[u8]) {
        let dialect = self.dialect();
        if dialect.errors.iter().any(|error| text.starts_with(error)) {
            self.traffic.tally.texts_received.add(Text::Error);
            return self.refused(number, text);
        }
        if let Some((_, answer)) = dialect.answers.iter().find(|(to, _)| text.starts_with(to)) {
            let mut frames = Vec::new();
            self.write(number, answer, None, &mut frames);
            self.send(number, &frames);
            // The same text may answer a join as well.
        }
        let has = |request: &Option<Request>| {
            let answer = request.as_ref().and_then(|request| request.answer.as_ref());
            answer.is_some_and(|answer| memmem::find(text, answer).is_some())
        };
        let client = &self.clients[number];
        if client.awaited == Awaited::Leave && has(&dialect.leave) {
            self.traffic.tally.texts_received.add(Text::Ack);
            self.left(number);
        } else if !client.joining.is_empty() && has(&dialect.join) {
            self.traffic.tally.texts_received.add(Text::Ack);
            self.joined(number);
        } else if client.awaited == Awaited::Answer && (has(&dialect.ping) || has(&dialect.presence)) {
            let kind = if has(&dialect.ping) { Text::Pong } else { Text::Presence };
            self.traffic.tally.texts_received.add(kind);
            self.record(number, Latency::Request);
            self.clients[number].awaited = Awaited::Nothing;
        } else if dialect.typed {
            self.typed(number, text);
        } else {
            self.traffic.tally.texts_received.add(Text::Other);
        }
    }

    fn left(&mut self, number: usize) {
        self.record(number, Latency::Request);
        let client = &mut self.clients[number];
        client.awaited = Awaited::Nothing;
        client.seats[0].inside = false;
        client.seats[0].receiver.restart();
    }

    fn joined(&mut self, number: usize) {
        self.record(number, Latency::Join);
        let id = id_of(number);
        let client = &mut self.clients[number];
        let Some(seat) = client.joining.next() else { return };
        if client.stage == Stage::Joining {
            if client.joining.is_empty() {
                self.ready_now(number);
            }
        } else if client.stage == Stage::Ready {
            if self.dialect.leave.as_ref().is_some_and(|leave| leave.answer.is_none()) {
                // Where it was left is not known: what came until this answer does not count.
                client.seats[seat].receiver.restart();
            }
            self.traffic.admit(id, &mut client.seats[seat]);
        }
    }

    fn refused(&mut self, number: usize, text: &[u8]) {
        let is_not_offered =
            |answer: &serde_json::Value| answer["code"] == "unavailable" && answer["id"] == PRESENCE_ID;
        if self.dialect.typed && serde_json::from_slice(text).is_ok_and(|answer| is_not_offered(&answer)) {
            self.clients[number].awaited = Awaited::Nothing;
            self.traffic.give_up(Operation::Presence);
            let note = "this server does not answer `presence`: it was not asked any further";
            if !self.notes.iter().any(|known| known == note) {
                self.notes.push(note.to_owned());
            }
            return;
        }
        self.troubles.refused += 1;
        // Fanfare's errors carry the time: without it, those that say the same are one.
        let words = match serde_json::from_slice::<serde_json::Value>(text) {
            Ok(error) if error["code"].is_string() => format!("{}: {}", error["code"], error["content"]),
            _ => String::from_utf8_lossy(text).into_owned(),
        };
        self.troubles.remark(&format!("refused: {words}"));
        let client = &mut self.clients[number];
        client.awaited = Awaited::Nothing;
        if client.stage == Stage::Joining {
            self.broken(number, "the server refused a join");
        }
    }

    /// What Fanfare says of its own accord.
    fn typed(&mut self, number: usize, text: &[u8]) {
        let value: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
        let kind = value["type"].as_str().unwrap_or_default();
        let kind = Text::ALL.into_iter().find(|known| known.as_str() == kind).unwrap_or(Text::Other);
        self.traffic.tally.texts_received.add(kind);
        match kind {
            Text::Welcome | Text::Join | Text::Leave => {}
            Text::Reconnect => {
                let after = value["after_ms"].as_u64().unwrap_or(0).saturating_mul(1_000_000);
                self.clients[number].advice = Some(after);
            }
            Text::Gap => self.gap(number, &value),
            _ => {
                self.troubles.surprises += 1;
                self.troubles.remark(&format!("unexpected: {}", String::from_utf8_lossy(text)));
            }
        }
    }

    fn gap(&mut self, number: usize, gap: &serde_json::Value) {
        let number_of =
            |name: &str| name.strip_prefix(&*self.dialect.prefix)?.strip_prefix('-')?.parse::<u32>().ok();
        let room = gap["room_id"].as_str().and_then(number_of);
        let messages = gap["from_offset"]
            .as_u64()
            .zip(gap["to_offset"].as_u64())
            .and_then(|(from, to)| to.checked_sub(from)?.checked_add(1));
        if let (Some(room), Some(messages)) = (room, messages) {
            self.traffic.gap(id_of(number), room, messages);
        } else {
            self.troubles.surprises += 1;
            self.troubles.remark(&format!("a gap that names nothing: {gap}"));
        }
    }

    fn record(&mut self, number: usize, kind: Latency) {
        let now = self.clock.nanos();
        self.traffic.latencies.record(kind, now.saturating_sub(self.clients[number].asked_at));
    }
}

/// The `id` of the question in Fanfare's dialect.
const PRESENCE_ID: u64 = 4;

fn describe_close(payload: &[u8]) -> (Option<u16>, String) {
    match payload {
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            (Some(code), format!("the server closed with {code} {}", String::from_utf8_lossy(reason)))
        }
        _ => (None, "the server closed without a code".to_owned()),
    }
}
