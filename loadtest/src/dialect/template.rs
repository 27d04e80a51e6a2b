//! Texts with placeholders, compiled once and written many times.

use std::io::Write as _;

/// What a template is filled with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Values<'a> {
    /// What the names of rooms and users begin with.
    pub(crate) prefix: &'a str,
    pub(crate) room: u32,
    pub(crate) user: u32,
    /// The stamp with its padding.
    pub(crate) message: &'a [u8],
}

/// A text with `{room}`, `{user}`, `{message}` and `{length}`, the bytes of the message, in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Room,
    User,
    Message,
    Length,
}

/// Names have one length up to 99,999, so that all messages of a run do.
const DIGITS: usize = 5;

impl Template {
    /// Any other text in braces is itself: most texts are JSON.
    pub(crate) fn parse(text: &str) -> Self {
        const NAMES: [(&str, Piece); 4] = [
            ("{room}", Piece::Room),
            ("{user}", Piece::User),
            ("{message}", Piece::Message),
            ("{length}", Piece::Length),
        ];
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let found = NAMES
                .iter()
                .filter_map(|(name, piece)| Some((rest.find(name)?, name, piece)))
                .min_by_key(|found| found.0);
            let Some((at, name, piece)) = found else {
                pieces.push(Piece::Literal(rest.into()));
                break;
            };
            if at > 0 {
                pieces.push(Piece::Literal(rest[..at].into()));
            }
            pieces.push(piece.clone());
            rest = &rest[at + name.len()..];
        }
        Self(pieces)
    }

    /// A text with a template behind it.
    pub(crate) fn join(before: &str, after: &Self) -> Self {
        let mut pieces = vec![Piece::Literal(before.into())];
        pieces.extend_from_slice(&after.0);
        Self(pieces)
    }

    /// Whether the text differs from client to client.
    pub(crate) fn varies(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Room | Piece::User))
    }

    /// Whether the text differs from room to room.
    pub(crate) fn names_a_room(&self) -> bool {
        self.0.contains(&Piece::Room)
    }

    /// Whether it can carry a message.
    pub(crate) fn holds_a_message(&self) -> bool {
        self.0.contains(&Piece::Message)
    }

    /// Appends the text.
    pub(crate) fn write(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Message => out.extend_from_slice(values.message),
                Piece::Room => write_name(values.prefix, values.room, out),
                Piece::User => write_name(values.prefix, values.user, out),
                Piece::Length => {
                    write!(out, "{}", values.message.len()).expect("writing into a vector does not fail");
                }
            }
        }
    }

    pub(crate) fn text(&self, values: &Values<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(values, &mut out);
        out
    }
}

fn write_name(prefix: &str, number: u32, out: &mut Vec<u8>) {
    write!(out, "{prefix}-{number:0DIGITS$}").expect("writing into a vector does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_other_braces_stay() {
        let template = Template::parse("{\"a\":{},\"r\":\"{room}\"}{user}|{length}|{message}");
        let values = Values { prefix: "load", room: 7, user: 123_456, message: b"hello" };
        assert_eq!(template.text(&values), b"{\"a\":{},\"r\":\"load-00007\"}load-123456|5|hello");
        assert!(template.names_a_room() && template.holds_a_message());
    }

    #[test]
    fn a_text_without_placeholders_is_itself() {
        for text in ["", "x", "{", "{rooms}", "}{"] {
            assert_eq!(Template::parse(text).text(&Values::default()), text.as_bytes());
        }
    }
}
