//! What an operator asks, answered between two turns.

use crate::id::ClientKey;
use crate::inspect::{Connection, Question, Room};
use tokio::sync::oneshot;

use super::super::inspection::RoomScan;
use super::Driver;

/// A look at all rooms that takes several turns.
pub(super) struct Scan {
    rooms: RoomScan,
    answer: oneshot::Sender<Vec<Room>>,
}

impl Driver {
    pub(super) fn ask(&mut self, question: Question) {
        // Who asked may be gone by the time of the answer, which is then dropped.
        match question {
            Question::Connections { which, answer } => {
                let found = self.shard.core.connections(which);
                let addressed = found.into_iter().map(|(key, connection)| self.addressed(key, connection));
                let _ = answer.send(addressed.collect());
            }
            Question::Closed { limit, answer } => {
                // Some may have ended in this turn.
                self.remember();
                let _ = answer.send(self.shard.core.closed(limit));
            }
            Question::Rooms { limit, now, answer } => {
                let rooms = RoomScan::new(&self.shard.core, limit, now);
                self.scans.push_back(Scan { rooms, answer });
            }
            Question::RoomsNamed { names, now, answer } => {
                let _ = answer.send(self.shard.core.rooms_named(&names, now));
            }
            Question::Tap(tap) => self.shard.core.add_tap(tap),
        }
    }

    fn addressed(&self, key: ClientKey, connection: Connection) -> Connection {
        let peer = self.sockets.get(key).and_then(|socket| socket.peer.addr());
        Connection { peer, ..connection }
    }

    /// Goes on with the first look at all rooms, by one step.
    pub(super) fn scan(&mut self) {
        let Some(scan) = self.scans.front_mut() else { return };
        if scan.answer.is_closed() {
            self.scans.pop_front();
        } else if let Some(found) = scan.rooms.step(&self.shard.core)
            && let Some(scan) = self.scans.pop_front()
        {
            let _ = scan.answer.send(found);
        }
    }
}
