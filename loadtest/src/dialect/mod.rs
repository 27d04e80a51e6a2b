//! How a server is spoken to: the texts that join, publish and answer, so that one harness drives them all.
//!
//! A delivery is recognised by its stamp wherever in a message it stands, so there is nothing to parse.

mod template;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::traffic::load::Operation;

use crate::frames;

pub(crate) use template::{Template, Values};

const BUILT_IN: [(&str, &str); 2] =
    [("fanfare", include_str!("fanfare.toml")), ("plain", include_str!("plain.toml"))];

/// A dialect as its file has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DialectFile {
    pub(crate) name: String,
    /// The kind of frames that the client sends.
    #[serde(default)]
    pub(crate) frames: Frames,
    /// What stands between messages, where a frame may hold several.
    pub(crate) delimiter: Option<String>,
    /// A message may begin in one frame and end in another: only the delimiter ends it.
    #[serde(default)]
    pub(crate) spans_frames: bool,
    /// Replaces the path of the target's URL.
    pub(crate) path: Option<String>,
    /// Sent behind the upgrade, one frame each.
    #[serde(default)]
    pub(crate) open: Vec<String>,
    /// Enters a room; without it, to be connected is enough.
    pub(crate) join: Option<String>,
    /// What the answer to `join` contains; without it none is awaited.
    pub(crate) joined: Option<String>,
    pub(crate) leave: Option<String>,
    pub(crate) left: Option<String>,
    /// Sends to a room.
    pub(crate) publish: String,
    /// Sends to a user.
    pub(crate) direct: Option<String>,
    /// Sends to everyone.
    pub(crate) everyone: Option<String>,
    /// An application's own heartbeat, and what its answer contains.
    pub(crate) ping: Option<String>,
    pub(crate) pong: Option<String>,
    /// Asks who is in a room, and what the answer contains.
    pub(crate) presence: Option<String>,
    pub(crate) present: Option<String>,
    /// What the server asks, and the answer.
    #[serde(default)]
    pub(crate) answers: Vec<AnswerFile>,
    /// How messages begin that tell of a failure.
    #[serde(default)]
    pub(crate) errors: Vec<String>,
    /// Messages are Fanfare's JSON: `gap`, `reconnect` and `error` are understood, and types are counted.
    #[serde(default)]
    pub(crate) typed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnswerFile {
    /// How the server's message begins.
    pub(crate) to: String,
    pub(crate) with: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Frames {
    #[default]
    Text,
    Binary,
}

impl Frames {
    /// Appends a text as a frame of this kind.
    pub(crate) fn write(self, text: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Text => frames::write_text(text, out),
            Self::Binary => frames::write_binary(text, out),
        }
    }
}

/// A request whose answer is awaited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) text: Template,
    /// What the answer contains; `None` when there is none.
    pub(crate) answer: Option<Vec<u8>>,
}

/// A dialect that is ready to be spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) name: String,
    /// What the names of rooms and users begin with: another for each of several load tests beside each other.
    pub(crate) prefix: String,
    pub(crate) frames: Frames,
    pub(crate) delimiter: Option<Vec<u8>>,
    pub(crate) spans_frames: bool,
    pub(crate) path: Option<Template>,
    pub(crate) open: Vec<Template>,
    pub(crate) join: Option<Request>,
    pub(crate) leave: Option<Request>,
    pub(crate) ping: Option<Request>,
    pub(crate) presence: Option<Request>,
    pub(crate) publish: Template,
    pub(crate) direct: Option<Template>,
    pub(crate) everyone: Option<Template>,
    pub(crate) answers: Vec<(Vec<u8>, Template)>,
    pub(crate) errors: Vec<Vec<u8>>,
    pub(crate) typed: bool,
}

impl Dialect {
    /// The dialect of this name, or that of a file.
    ///
    /// # Errors
    ///
    /// When it is neither, or the file is not a dialect.
    pub(crate) fn load(name: &str) -> Result<Self> {
        let built_in = BUILT_IN.iter().find(|(known, _)| *known == name);
        let text = match built_in {
            Some((_, text)) => (*text).to_owned(),
            None if name.contains(['/', '.']) => std::fs::read_to_string(Path::new(name))
                .with_context(|| format!("the dialect {name} cannot be read"))?,
            None => {
                bail!("unknown dialect {name}: fanfare, plain, or the path of a file such as ./mine.toml")
            }
        };
        let file = toml::from_str(&text).with_context(|| format!("the dialect {name} is not understood"))?;
        Self::new(file).with_context(|| format!("the dialect {name}"))
    }

    fn new(file: DialectFile) -> Result<Self> {
        let request = |text: Option<String>, answer: Option<String>| {
            text.map(|text| Request { text: Template::parse(&text), answer: answer.map(String::into_bytes) })
        };
        let template = |text: Option<String>| text.map(|text| Template::parse(&text));
        let dialect = Self {
            name: file.name,
            prefix: "load".to_owned(),
            frames: file.frames,
            delimiter: file.delimiter.filter(|text| !text.is_empty()).map(String::into_bytes),
            spans_frames: file.spans_frames,
            path: template(file.path),
            open: file.open.iter().map(|text| Template::parse(text)).collect(),
            join: request(file.join, file.joined),
            leave: request(file.leave, file.left),
            ping: request(file.ping, file.pong),
            presence: request(file.presence, file.present),
            publish: Template::parse(&file.publish),
            direct: template(file.direct),
            everyone: template(file.everyone),
            answers: file
                .answers
                .into_iter()
                .map(|answer| (answer.to.into_bytes(), Template::parse(&answer.with)))
                .collect(),
            errors: file.errors.into_iter().map(String::into_bytes).collect(),
            typed: file.typed,
        };
        let carriers = [Some(&dialect.publish), dialect.direct.as_ref(), dialect.everyone.as_ref()];
        if carriers.into_iter().flatten().any(|carrier| !carrier.holds_a_message()) {
            bail!("`publish`, `direct` and `everyone` must contain {{message}}");
        }
        Ok(dialect)
    }

    /// Whether there are words for an operation.
    pub(crate) fn speaks(&self, operation: Operation) -> bool {
        match operation {
            Operation::Message | Operation::Echo => true,
            Operation::Direct => self.direct.is_some(),
            Operation::Everyone => self.everyone.is_some() || !self.has_rooms(),
            Operation::Ping => self.ping.is_some(),
            Operation::Presence => self.presence.is_some(),
            Operation::Rejoin => self.leave.is_some() && self.join.is_some(),
        }
    }

    /// Whether rooms are told apart at all: else everybody gets everything.
    pub(crate) fn has_rooms(&self) -> bool {
        self.join.is_some() || self.path.as_ref().is_some_and(Template::names_a_room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_dialects_are_dialects() {
        for (name, _) in BUILT_IN {
            assert_eq!(Dialect::load(name).unwrap().name, name);
        }
        let fanfare = Dialect::load("fanfare").unwrap();
        assert!(fanfare.has_rooms() && fanfare.typed);
        let plain = Dialect::load("plain").unwrap();
        assert!(!plain.has_rooms());
        let both = |operation| [fanfare.speaks(operation), plain.speaks(operation)];
        assert_eq!([Operation::Direct, Operation::Echo].map(both), [[true, false], [true, true]]);
    }

    #[test]
    fn what_is_wrong_with_a_dialect_is_said() {
        let said = |text: &str| {
            toml::from_str::<DialectFile>(text)
                .map_err(anyhow::Error::from)
                .and_then(Dialect::new)
                .map_err(|error| format!("{error:#}"))
        };
        assert!(said("name = \"x\"\npublish = \"{message}\"").is_ok());
        assert!(said("name = \"x\"\npublish = \"nothing\"").unwrap_err().contains("{message}"));
        assert!(said("name = \"x\"\npublish = \"{message}\"\njoins = \"\"").unwrap_err().contains("joins"));
        assert!(Dialect::load("fanfair").unwrap_err().to_string().contains("plain"));
        assert!(Dialect::load("./no-such.toml").unwrap_err().to_string().contains("no-such"));
    }
}
