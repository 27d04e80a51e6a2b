//! What is to be published, before and after it has its place.

use crate::id::{ClientKey, MessageKey, ShardIndex};
use crate::inbox::{Origin, Publication};
use crate::metrics::Source;
use crate::ws::{Draft, PreparedMessage};

/// What is to be published.
#[derive(Debug)]
pub struct Said {
    /// The message.
    pub text: Text,
    /// What it is about, where that matters.
    pub key: Option<MessageKey>,
    /// The client that does not get it.
    pub exclude: Option<(ShardIndex, ClientKey)>,
    /// What kind of publisher said it.
    pub source: Source,
    /// When the request was read, in nanoseconds of the gateway's clock.
    pub read_at: u64,
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
    exclude: Option<(ShardIndex, ClientKey)>,
    pub(super) origin: Origin,
}

impl Placed {
    /// The same as one shard is given it.
    pub(super) fn publication(&self, to: ShardIndex) -> Publication {
        let exclude = self.exclude.and_then(|(shard, client)| (shard == to).then_some(client));
        let (offset, origin) = (self.offset, self.origin);
        Publication { offset, message: self.message.clone(), key: self.key.clone(), exclude, origin }
    }
}
