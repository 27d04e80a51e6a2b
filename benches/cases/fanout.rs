//! A room, a slow member of it and the inbox of a shard, and a turn of each.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io::IoSlice;

use bytes::Bytes;
use fanfare::hub::OnOverflow;
use fanfare::id::{ClientKey, RoomKey};
use fanfare::inbox::{Command, Inbox, Limits, Origin, Outlet, Publication};
use fanfare::metrics::Source;
use fanfare::shard::bench::{Backlog, Flags, Lane, Member, Room, Stamp, Step};
use fanfare::ws::PreparedMessage;
use slotmap::SlotMap;

pub(crate) const MEMBERS: usize = 1000;

const BATCH_BYTES: usize = 256 << 10;

const STAMP: Stamp = Stamp { since: 0, source: Some(Source::Client) };

pub(crate) fn message() -> PreparedMessage {
    PreparedMessage::text(&[b'x'; 128])
}

fn publication(message: &PreparedMessage, offset: u64) -> Publication {
    let origin = Origin { source: Source::Client, read_at: offset, dispatched_at: offset };
    Publication { offset, message: message.clone(), key: None, exclude: None, origin }
}

/// A room with [`MEMBERS`], all of one kind.
pub(crate) struct Audience {
    room: Room,
    message: PreparedMessage,
    offset: u64,
}

impl Audience {
    pub(crate) fn new(flags: Flags) -> Self {
        let mut slab: SlotMap<ClientKey, ()> = SlotMap::with_key();
        let mut room = Room::new(BATCH_BYTES, OnOverflow::Disconnect);
        for _ in 0..MEMBERS {
            room.join(Member { client: slab.insert(()), after: 0, flags, slot: 0 });
        }
        Self { room, message: message(), offset: 0 }
    }

    /// One batch from append to completion.
    pub(crate) fn turn(&mut self, publications: usize) -> usize {
        for _ in 0..publications {
            self.offset += 1;
            self.room.append(&publication(&self.message, self.offset), None, self.offset);
        }
        let mut bytes = 0;
        loop {
            match self.room.next_step() {
                Step::Deliver(delivery) => {
                    black_box(delivery);
                    bytes += black_box(self.room.bytes()).len();
                }
                Step::Complete(completed) => _ = black_box(completed),
                Step::Idle => return bytes,
            }
        }
    }
}

/// A member whose socket takes as much as comes, but always ends inside a frame.
pub(crate) struct SlowMember {
    backlog: Backlog,
    /// What comes for it at a time.
    batch: Bytes,
}

impl SlowMember {
    pub(crate) fn new(publications: usize) -> Self {
        let batch = Bytes::from(message().frame().repeat(publications));
        Self { backlog: Backlog::for_partial_write(Lane::Bulk, batch.clone(), 1, STAMP), batch }
    }

    /// One more batch waits, and the socket takes some of it.
    pub(crate) fn turn(&mut self) {
        self.backlog.push(Lane::Bulk, self.batch.clone(), STAMP, usize::MAX).expect("no limit");
        let mut slices = [IoSlice::new(&[]); 16];
        black_box(self.backlog.slices(&mut slices));
        self.backlog.advance(self.batch.len());
    }

    /// The backlog of another one, whose socket took all of a batch but the last byte.
    pub(crate) fn begin(&self) -> Backlog {
        Backlog::for_partial_write(Lane::Bulk, self.batch.clone(), self.batch.len() - 1, STAMP)
    }
}

/// Both ends of a shard's inbox.
pub(crate) struct Mailbox {
    outlet: Outlet,
    inbox: Inbox,
    taken: VecDeque<Command>,
    message: PreparedMessage,
}

impl Mailbox {
    pub(crate) fn new() -> Self {
        let (outlet, inbox) = Inbox::pair(Limits::default());
        Self { outlet, inbox, taken: VecDeque::new(), message: message() }
    }

    /// So many publications are pushed, then taken together and dropped.
    pub(crate) fn turn(&mut self, publications: usize) {
        for _ in 0..publications {
            let publication = publication(&self.message, 1);
            let command = Command::Publish { room: RoomKey::default(), publication };
            self.outlet.push(command).expect("there is room");
        }
        self.inbox.take_all(&mut self.taken);
        self.taken.drain(..).for_each(|command| drop(black_box(command)));
    }
}
