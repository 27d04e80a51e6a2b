//! Places in the text of a frame: the bytes of one member's value, and what can be told of a frame that is no JSON.

use super::{Data, Mark};

/// Longest text of a client's mark, in bytes.
pub(super) const MARK_BYTES_MAX: usize = 128;

/// The value of the top-level member number `member` (from 0) of the valid JSON object `text`.
///
/// `structurals` are the places of at least all braces, brackets, colons and commas outside strings, in order. They
/// come from the parse that has validated `text`, which saves a second scan over every byte.
pub(super) fn member_value<'a>(text: &'a [u8], structurals: &[u32], member: usize) -> Option<&'a [u8]> {
    let mut depth = 0_usize;
    let mut commas = 0;
    let mut from = None;
    for &at in structurals {
        let at = usize::try_from(at).ok()?;
        match text.get(at)? {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b':' if depth == 1 && commas == member => from = from.or(Some(at + 1)),
            b',' if depth == 1 => commas += 1,
            _ => {}
        }
        let ended = depth == 0 || commas > member;
        if ended {
            return text.get(from?..at).map(<[u8]>::trim_ascii);
        }
    }
    None
}

/// `json` without line breaks. It is copied to `compact` only when it has any.
pub(super) fn on_one_line<'a>(json: &'a [u8], compact: &'a mut Vec<u8>) -> Data<'a> {
    // A valid JSON string has no raw control character, so each of these stands between two tokens.
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !json.iter().any(is_break) {
        return Data(json);
    }
    compact.clear();
    compact.extend(json.iter().filter(|byte| !is_break(byte)));
    Data(compact)
}

/// What can be told of a text that is no valid JSON: enough to answer it so that its author finds the fault.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Remains<'a> {
    /// The client's mark, when it is a plain string or integer.
    pub(super) mark: Option<Mark<'a>>,
    /// The top-level key whose value the fault is in.
    pub(super) field: Option<&'a str>,
}

/// Looks through `text`, whose first fault is at or after byte `fault`, for [`Remains`].
///
/// Best effort and linear: nothing is validated, escapes are not undone, and strange texts give nothing.
pub(super) fn remains(text: &[u8], fault: usize) -> Remains<'_> {
    let mut remains = Remains::default();
    let mut depth = 0_usize;
    let mut key = None;
    let mut at = 0;
    let mut last_string = None;
    while let Some(&byte) = text.get(at) {
        let mut next = at + 1;
        // A number's fault is found right behind it, so the comma there still belongs to the field.
        let field = key;
        match byte {
            b'"' => {
                next = string_end(text, at);
                last_string = plain_text(text, at, next);
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b':' if depth == 1 => {
                key = last_string;
                if key == Some("id") && remains.mark.is_none() {
                    remains.mark = plain_mark(text, next);
                }
            }
            b',' if depth == 1 => key = None,
            _ => {}
        }
        if at <= fault && fault < next {
            remains.field = field;
        }
        at = next;
    }
    remains
}

/// The place behind the string that begins at `from`, or the end of the text.
fn string_end(text: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// The string from `from` to `end`, quotes included, when it has no escapes.
fn plain_text(text: &[u8], from: usize, end: usize) -> Option<&str> {
    let inside = text.get(from + 1..end.checked_sub(1)?)?;
    let plain = inside.len() <= MARK_BYTES_MAX && !inside.iter().any(|byte| *byte == b'\\' || *byte < b' ');
    if plain { str::from_utf8(inside).ok() } else { None }
}

fn plain_mark(text: &[u8], from: usize) -> Option<Mark<'_>> {
    let rest = text.get(from..)?;
    let from = text.len() - rest.trim_ascii_start().len();
    if text.get(from) == Some(&b'"') {
        return plain_text(text, from, string_end(text, from)).map(Mark::Text);
    }
    let length =
        text[from..].iter().position(|byte| matches!(byte, b',' | b'}') || byte.is_ascii_whitespace())?;
    let token = str::from_utf8(&text[from..from + length]).ok()?;
    if token.starts_with('-') {
        token.parse().ok().map(Mark::Signed)
    } else {
        token.parse().ok().map(Mark::Unsigned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structurals(text: &[u8]) -> Vec<u32> {
        let mut places = Vec::new();
        let mut at = 0;
        while at < text.len() {
            if text[at] == b'"' {
                at = string_end(text, at);
                continue;
            }
            if b"{}[]:,".contains(&text[at]) {
                places.push(u32::try_from(at).unwrap());
            }
            at += 1;
        }
        places
    }

    fn value(text: &str, member: usize) -> Option<&str> {
        let found = member_value(text.as_bytes(), &structurals(text.as_bytes()), member)?;
        Some(str::from_utf8(found).unwrap())
    }

    #[test]
    fn finds_each_value_whole() {
        let text = r#" { "a" : 1 , "b":{"a":[1,{"x":"}],\""}],"c":2} ,"c":[ ] , "d" : "x,\\" } "#;
        assert_eq!(value(text, 0), Some("1"));
        assert_eq!(value(text, 1), Some(r#"{"a":[1,{"x":"}],\""}],"c":2}"#));
        assert_eq!(value(text, 2), Some("[ ]"));
        assert_eq!(value(text, 3), Some(r#""x,\\""#));
        assert_eq!(value(text, 4), None);
        assert_eq!(value("{}", 0), None);
    }

    #[test]
    fn takes_line_breaks_out_and_nothing_else() {
        let mut compact = b"old".to_vec();
        let data = on_one_line(b"{\r\n \"a\\n\":\t1\n}", &mut compact);
        assert_eq!(data.as_bytes(), b"{ \"a\\n\":\t1}");
    }

    #[test]
    fn tells_the_mark_and_the_field_of_a_broken_text() {
        let text = br#"{"id":7,"data":{"a":[1e999]},"x":1}"#;
        assert_eq!(remains(text, 21), Remains { mark: Some(Mark::Unsigned(7)), field: Some("data") });
        let text = br#"{"content":"\ud800", "id" : "a-1"}"#;
        assert_eq!(remains(text, 11), Remains { mark: Some(Mark::Text("a-1")), field: Some("content") });
        let text = br#"{"id":-3,"x":1"#;
        assert_eq!(remains(text, 14), Remains { mark: Some(Mark::Signed(-3)), field: None });
    }

    #[test]
    fn a_broken_text_of_any_bytes_cut_anywhere_is_looked_through_without_panic() {
        let text = br#"{"id":"\"x\\", "data":[{"a":"\u12"},-1e5],"id":-}}]"#;
        for cut in 0..=text.len() {
            for fault in 0..=text.len() {
                remains(&text[..cut], fault);
            }
            member_value(&text[..cut], &structurals(text), 1);
        }
    }
}
