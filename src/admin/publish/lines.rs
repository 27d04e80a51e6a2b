//! Lines out of a body that comes in pieces.

/// Puts lines together that are cut anywhere, and keeps at most one.
#[derive(Debug)]
pub(super) struct Splitter {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// What `begun` holds was given out, and is to be cleared.
    is_given: bool,
    /// The line that has begun is longer than allowed, and what has come of it was dropped.
    is_too_long: bool,
    line_bytes_max: usize,
}

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Whole(&'a [u8]),
    TooLong,
}

impl Splitter {
    pub(super) fn new(line_bytes_max: usize) -> Self {
        Self { begun: Vec::new(), is_given: false, is_too_long: false, line_bytes_max }
    }

    /// Takes the next line that ends in this piece out of it. `None` when none does; the piece is then empty, and what was in
    /// it is kept.
    pub(super) fn next<'a, 'p: 'a>(&'a mut self, piece: &mut &'p [u8]) -> Option<Line<'a>> {
        self.clear_given();
        let Some(end) = piece.iter().position(|byte| *byte == b'\n') else {
            let rest = std::mem::take(piece);
            self.keep(rest);
            return None;
        };
        let (line, rest) = (&piece[..end], &piece[end + 1..]);
        *piece = rest;
        if self.begun.is_empty() && !self.is_too_long && line.len() <= self.line_bytes_max {
            return Some(Line::Whole(line));
        }
        self.keep(line);
        Some(self.give())
    }

    /// What came behind the last end of a line, if anything did.
    pub(super) fn rest(&mut self) -> Option<Line<'_>> {
        self.clear_given();
        (self.is_too_long || !self.begun.is_empty()).then(|| self.give())
    }

    fn keep(&mut self, part: &[u8]) {
        if self.is_too_long || self.begun.len() + part.len() > self.line_bytes_max {
            self.begun.clear();
            self.is_too_long = true;
        } else {
            self.begun.extend_from_slice(part);
        }
    }

    fn give(&mut self) -> Line<'_> {
        if std::mem::take(&mut self.is_too_long) {
            return Line::TooLong;
        }
        self.is_given = true;
        Line::Whole(&self.begun)
    }

    fn clear_given(&mut self) {
        if std::mem::take(&mut self.is_given) {
            self.begun.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let mut splitter = Splitter::new(5);
        let mut lines = Vec::new();
        let owned = |line: Line<'_>| match line {
            Line::Whole(bytes) => Some(bytes.to_vec()),
            Line::TooLong => None,
        };
        for piece in pieces {
            let mut piece = *piece;
            while let Some(line) = splitter.next(&mut piece) {
                lines.push(owned(line));
            }
        }
        lines.extend(splitter.rest().map(owned));
        assert!(splitter.begun.capacity() <= 8, "never more than a line: {}", splitter.begun.capacity());
        lines
    }

    #[test]
    fn lines_cut_anywhere_are_the_same_lines() {
        let text: &[u8] = b"one\n\ntwo\r\nlonger\n12345\nmuch longer than that\nlast";
        let line = |text: &str| Some(text.as_bytes().to_vec());
        let whole = [line("one"), line(""), line("two\r"), None, line("12345"), None, line("last")];

        assert_eq!(split(&[text]), whole);
        for cut in 0..=text.len() {
            assert_eq!(split(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
        let single: Vec<_> = text.chunks(1).collect();
        assert_eq!(split(&single), whole);
        assert_eq!(split(&[b"one\n"]), [line("one")], "no line behind the last end");
        assert_eq!(split(&[b"much ", b"too long"]), [None]);
    }
}
