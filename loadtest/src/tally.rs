//! What the clients have seen, in plain counts of the whole run; differences of two copies give those of a part.

/// The types of Fanfare's messages, as far as a load test tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    Message,
    Join,
    Leave,
    Ping,
    Pong,
    Presence,
    Ack,
    Error,
    Welcome,
    Reconnect,
    Gap,
    /// None of these, or of another server's protocol.
    Other,
}

impl Text {
    pub(crate) const ALL: [Self; 12] = [
        Self::Message,
        Self::Join,
        Self::Leave,
        Self::Ping,
        Self::Pong,
        Self::Presence,
        Self::Ack,
        Self::Error,
        Self::Welcome,
        Self::Reconnect,
        Self::Gap,
        Self::Other,
    ];

    /// As the `type` of the JSON and the label of the gateway's counters has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Presence => "presence",
            Self::Ack => "ack",
            Self::Error => "error",
            Self::Welcome => "welcome",
            Self::Reconnect => "reconnect",
            Self::Gap => "gap",
            Self::Other => "other",
        }
    }
}

/// Texts by type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Texts([u64; Text::ALL.len()]);

impl Texts {
    #[inline]
    pub(crate) fn add(&mut self, text: Text) {
        self.0[text as usize] += 1;
    }

    pub(crate) fn of(&self, text: Text) -> u64 {
        self.0[text as usize]
    }
}

/// Counts since the start of the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Connections that were upgraded.
    pub(crate) opened: u64,
    /// Upgrades that the server refused.
    pub(crate) rejected: u64,
    /// Connections that ended before all that the server had sent was read: what is known of their traffic
    /// is only a bound.
    pub(crate) cut: u64,
    /// Messages sent, each counted once.
    pub(crate) published: u64,
    /// Messages that arrived, at one receiver each.
    pub(crate) deliveries: u64,
    /// Messages that have arrived at everybody they were for.
    pub(crate) completed: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    pub(crate) foreign: u64,
    /// `gap` messages, and how many messages they named.
    pub(crate) gaps: u64,
    pub(crate) gap_messages: u64,
    pub(crate) texts_sent: Texts,
    pub(crate) texts_received: Texts,
    /// Bytes of the messages in data frames, without frame headers.
    pub(crate) payload_sent: u64,
    pub(crate) payload_received: u64,
    /// All bytes after the upgrade.
    pub(crate) wire_sent: u64,
    pub(crate) wire_received: u64,
}
