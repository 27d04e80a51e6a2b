//! What a message carries, and how a receiver finds it again in a few nanoseconds.

use std::io::Write as _;

use memchr::memmem;

/// Digits of the sequence number: of fixed width, so that all messages of a run have one length.
const SEQUENCE_DIGITS: usize = 10;
const MARK: &[u8] = b"lt#";

/// The head of a message: `lt#<audience>:<sequence>:<padding>`. It is plain ASCII that stands in JSON, in a line of text
/// and in a URL as it is, and short, so that it fits into a small message. When the message was due is known where it
/// was sent from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Whom the message is for.
    pub(crate) audience: u32,
    /// Its number among all that were sent to the audience.
    pub(crate) sequence: u64,
}

impl Stamp {
    /// Appends the stamp, padded to this length if it is shorter.
    pub(crate) fn write(self, length: usize, out: &mut Vec<u8>) {
        let Self { audience, sequence } = self;
        let start = out.len();
        out.extend_from_slice(MARK);
        write!(out, "{audience}:{sequence:0SEQUENCE_DIGITS$}:").expect("writing into a vector does not fail");
        if out.len() < start + length {
            out.resize(start + length, b'x');
        }
    }

    fn read(content: &[u8]) -> Option<Self> {
        let mut audience = 0_u32;
        let mut at = 0;
        loop {
            match *content.get(at)? {
                digit @ b'0'..=b'9' if at < 9 => audience = audience * 10 + u32::from(digit - b'0'),
                b':' if at > 0 => break,
                _ => return None,
            }
            at += 1;
        }
        let digits: &[u8; SEQUENCE_DIGITS] = content.get(at + 1..)?.first_chunk()?;
        if content.get(at + 1 + SEQUENCE_DIGITS) != Some(&b':') {
            return None;
        }
        let mut sequence = 0_u64;
        let mut valid = true;
        for digit in digits {
            valid &= digit.is_ascii_digit();
            sequence = sequence * 10 + u64::from(digit & 0x0F);
        }
        valid.then_some(Self { audience, sequence })
    }
}

/// Finds the stamp in a text. Most messages of a run look alike, so the place where the last one had its stamp is
/// tried before anything is searched.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    place: usize,
}

impl Finder {
    /// The stamp of a message, or `None` when the text is something else.
    #[inline]
    pub(crate) fn find(&mut self, text: &[u8]) -> Option<Stamp> {
        let end = self.place + MARK.len();
        if text.get(self.place..end) == Some(MARK) {
            return Stamp::read(&text[end..]);
        }
        self.search(text)
    }

    #[cold]
    fn search(&mut self, text: &[u8]) -> Option<Stamp> {
        let place = memmem::find(text, MARK)?;
        let stamp = Stamp::read(&text[place + MARK.len()..])?;
        self.place = place;
        Some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(stamp: Stamp, before: &str) -> Vec<u8> {
        let mut text = format!("{{\"type\":\"message\",{before}\"content\":\"").into_bytes();
        stamp.write(64, &mut text);
        text.extend_from_slice(b"\",\"timestamp\":1}");
        text
    }

    #[test]
    fn finds_what_was_written_wherever_the_content_stands() {
        let mut finder = Finder::default();
        for before in ["", "\"from\":7,", "\"from\":7,", "\"from\":\"anon-12\",", ""] {
            for (audience, sequence) in [(0, 0), (7, 12_345), (19_899, 9_999_999_999)] {
                let stamp = Stamp { audience, sequence };
                assert_eq!(finder.find(&text(stamp, before)), Some(stamp));
            }
        }
    }

    #[test]
    fn messages_have_the_length_that_was_asked_for() {
        let length = |audience, sequence| text(Stamp { audience, sequence }, "").len();
        assert_eq!([length(3, 0), length(3, 1_000_000), length(19_899, 5)], [length(0, 0); 3]);
    }

    #[test]
    fn text_without_a_stamp_is_something_else() {
        let mut finder = Finder::default();
        for text in [
            "",
            "{}",
            "lt#",
            "{\"content\":\"lt#1",
            "{\"content\":\"lt#1:",
            "{\"content\":\"lt#:0000000001:",
            "{\"content\":\"lt#1:00000000x1:00:\"}",
            "{\"content\":\"lt#1:0000000001\"}",
            "{\"content\":\"lt#4294967296:0000000001:\"}",
            "{\"type\":\"error\",\"content\":\"not a member\"}",
        ] {
            assert_eq!(finder.find(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn every_cut_of_a_message_is_survived() {
        let whole = text(Stamp { audience: 1, sequence: 2 }, "");
        for cut in 0..whole.len() {
            let mut finder = Finder::default();
            let _ = finder.find(&whole);
            let _ = finder.find(&whole[..cut]);
        }
    }
}
