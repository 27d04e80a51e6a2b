//! What is to be published, before and after it has its place.

use crate::id::{ClientId, ClientKey, MessageKey, RoomKey, ShardIndex};
use crate::inbox::{Command, Origin, Publication};
use crate::metrics::Source;
use crate::ws::{Draft, PreparedMessage};

/// What is to be published.
#[derive(Debug)]
pub struct Said {
    /// The message.
    pub text: Text,
    /// What it is about, where that matters.
    pub key: Option<MessageKey>,
    /// The client that does not get it, and its shard.
    pub exclude: Option<(ShardIndex, Excluded)>,
    /// What kind of publisher said it.
    pub source: Source,
    /// When the request was read, in nanoseconds of the gateway's clock.
    pub read_at: u64,
}

/// Who does not get a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excluded {
    /// The client in this place of its shard, which knows that this may come.
    Key(ClientKey),
    /// The one with this number, for its shard to find.
    Id(ClientId),
}

/// A message that is to be published.
#[derive(Debug)]
pub enum Text {
    /// As it is.
    Whole(PreparedMessage),
    /// It says its offset.
    Numbered(Draft),
}

impl Said {
    /// The message at its place.
    pub(super) fn at(self, offset: u64, dispatched_at: u64) -> Placed {
        let Self { text, key, exclude, source, read_at } = self;
        let (message, is_numbered) = match text {
            Text::Whole(message) => (message, false),
            Text::Numbered(draft) => (draft.with_number(offset), true),
        };
        let origin = Origin { source, read_at, dispatched_at };
        Placed { message, is_numbered, offset, key, exclude, origin }
    }
}

/// What is published at its place in the room's order.
pub(super) struct Placed {
    pub(super) message: PreparedMessage,
    /// Whether it says its offset.
    pub(super) is_numbered: bool,
    offset: u64,
    key: Option<MessageKey>,
    exclude: Option<(ShardIndex, Excluded)>,
    pub(super) origin: Origin,
}

impl Placed {
    /// What a shard is told of it, where it knows the room as `room`.
    pub(super) fn command(&self, to: ShardIndex, room: RoomKey) -> Command {
        let excluded = self.exclude.and_then(|(shard, excluded)| (shard == to).then_some(excluded));
        let exclude = match excluded {
            Some(Excluded::Key(key)) => Some(key),
            Some(Excluded::Id(_)) | None => None,
        };
        let (offset, origin) = (self.offset, self.origin);
        let publication =
            Publication { offset, message: self.message.clone(), key: self.key.clone(), exclude, origin };
        match excluded {
            Some(Excluded::Id(except)) => {
                Command::PublishBut { room, publication: Box::new(publication), except }
            }
            Some(Excluded::Key(_)) | None => Command::Publish { room, publication },
        }
    }
}
