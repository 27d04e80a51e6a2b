//! UTF-8 that arrives in pieces.

/// The bytes cannot become UTF-8, whatever follows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidUtf8;

/// Checks `bytes` as a complete text.
pub(super) fn check(bytes: &[u8]) -> Result<(), InvalidUtf8> {
    simdutf8::basic::from_utf8(bytes).map(drop).map_err(|_| InvalidUtf8)
}

/// Checks `bytes` as the beginning of a text; they begin at a code point.
///
/// Gives the length of the part that need not be looked at again: all but a code point that is cut at the end. That
/// is refused as soon as no further byte can complete it.
pub(super) fn check_beginning(bytes: &[u8]) -> Result<usize, InvalidUtf8> {
    let (whole, tail) = bytes.split_at(bytes.len() - cut_code_point_len(bytes));
    check(whole)?;
    match std::str::from_utf8(tail) {
        Err(error) if error.error_len().is_some() => Err(InvalidUtf8),
        _ => Ok(whole.len()),
    }
}

/// How many bytes at the end of `bytes` begin a code point that needs more of them.
fn cut_code_point_len(bytes: &[u8]) -> usize {
    for (len, byte) in (1..=3).zip(bytes.iter().rev()) {
        let needed = match byte {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xFF => 4,
            0x00..=0x7F => 1,
        };
        return if needed > len { len } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cut_at_any_byte_is_a_beginning_up_to_its_last_whole_code_point() {
        let text = "aß€𐍈 z\u{10FFFF}\u{D7FF}";
        for cut in 0..=text.len() {
            let whole = (0..=cut).rev().find(|&at| text.is_char_boundary(at)).expect("0 is a boundary");
            assert_eq!(check_beginning(&text.as_bytes()[..cut]), Ok(whole), "cut at {cut}");
        }
    }

    #[test]
    fn what_no_byte_can_mend_is_refused_at_once() {
        let hopeless: [&[u8]; 9] = [
            b"\x80",
            b"\xC0",
            b"\xC1",
            b"\xE0\x80",
            b"\xED\xA0",
            b"\xF0\x80",
            b"\xF4\x90",
            b"\xF5",
            b"a\xBF\xBF\xBF\xBF",
        ];
        for bytes in hopeless {
            assert_eq!(check_beginning(bytes), Err(InvalidUtf8), "{bytes:x?}");
        }
    }

    #[test]
    fn agrees_with_the_standard_library_on_all_beginnings_of_three_bytes() {
        for number in 0..1_u32 << 24 {
            let [_, bytes @ ..] = number.to_be_bytes();
            // Most second bytes behave alike; one in eight keeps the test short and still meets every class.
            if bytes[2] % 8 > 1 {
                continue;
            }
            let expected = match std::str::from_utf8(&bytes) {
                Ok(_) => Ok(3),
                Err(error) if error.error_len().is_some() => Err(InvalidUtf8),
                Err(error) => Ok(error.valid_up_to()),
            };
            assert_eq!(check_beginning(&bytes), expected, "{bytes:x?}");
        }
    }
}
