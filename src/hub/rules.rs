//! What is different about rooms, by their names.

use std::sync::Arc;

use crate::history;
use crate::id::{RoomId, matches_pattern};

/// What becomes of messages for a member that takes them more slowly than they come, when its queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnOverflow {
    /// The member is closed as a slow consumer.
    #[default]
    Disconnect,
    /// The oldest that wait are left out, and the member is told which.
    DropOldest,
    /// Of those about the same key only the newest waits at any time, and the member is told which were left out. When even
    /// those are too much, the oldest of them are left out.
    Latest,
}

/// What is known and told of who is in a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PresenceMode {
    /// Nothing.
    #[default]
    Off,
    /// Who asks is told.
    List,
    /// Who asks is told, and the members also when somebody comes or goes.
    Events,
}

impl PresenceMode {
    /// Whether it is known who is in the room.
    pub fn is_kept(self) -> bool {
        self != Self::Off
    }
}

/// Who may do something in a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Any client, as far as its token does not say otherwise.
    #[default]
    Everyone,
    /// Clients whose token names the room.
    Token,
    /// No client.
    Nobody,
}

impl Access {
    /// Whether a client may; `is_named` is whether its token names the room for that, `None` when it names no rooms.
    pub fn allows(self, is_named: impl FnOnce() -> Option<bool>) -> bool {
        match self {
            Self::Everyone => is_named() != Some(false),
            Self::Token => is_named() == Some(true),
            Self::Nobody => false,
        }
    }
}

/// How a room is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomOptions {
    /// What becomes of messages for a slow member.
    pub overflow: OnOverflow,
    /// What is kept of what was said; nothing without.
    pub history: Option<history::Limits>,
    /// What is known and told of who is there.
    pub presence: PresenceMode,
    /// Who may enter.
    pub join: Access,
    /// Which members may say something.
    pub publish: Access,
    /// Who may look back at what was said.
    pub read: Access,
}

impl RoomOptions {
    /// Whether each message says its offset, without which a member could not tell what it was not given, or from where on.
    pub fn is_numbered(self) -> bool {
        self.overflow != OnOverflow::Disconnect || self.history.is_some()
    }
}

/// How the rooms are run whose names fit a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// A name in which `*` stands for any text.
    pub pattern: String,
    /// How.
    pub options: RoomOptions,
}

/// All rules; the first that fits a room's name is the room's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(pub Arc<[Rule]>);

impl Rules {
    /// How the room of this name is run.
    pub fn of(&self, room: &RoomId) -> RoomOptions {
        if self.0.is_empty() {
            return RoomOptions::default();
        }
        let name = room.to_string();
        let rule = self.0.iter().find(|rule| matches_pattern(&rule.pattern, &name));
        rule.map(|rule| rule.options).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_the_name_is_the_rooms() {
        let rule = |pattern: &str, overflow| Rule {
            pattern: pattern.to_owned(),
            options: RoomOptions { overflow, ..RoomOptions::default() },
        };
        let rules = Rules(Arc::new([
            rule("ticker.*", OnOverflow::Latest),
            rule("*.log", OnOverflow::DropOldest),
            rule("7", OnOverflow::DropOldest),
        ]));
        let of = |name| rules.of(&RoomId::parse(name).unwrap()).overflow;

        assert_eq!(of("ticker.log"), OnOverflow::Latest);
        assert_eq!(of("web.log"), OnOverflow::DropOldest);
        assert_eq!(of("7"), OnOverflow::DropOldest, "a number is its decimal");
        assert_eq!(of("chat"), OnOverflow::Disconnect);
        assert_eq!(Rules::default().of(&RoomId::from_u64(7)), RoomOptions::default());
    }
}
