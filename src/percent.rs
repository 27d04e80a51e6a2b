//! Percent-encoding, as it stands in the path and the query of a request.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Undoes percent-encoding, and the `+` that forms and `URLSearchParams` write for a space.
///
/// `None` where an escape is not whole, or the outcome is not UTF-8.
pub fn decoded(value: &str) -> Option<Cow<'_, str>> {
    if !value.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(value));
    }
    let spaced = value.replace('+', " ");
    decoded_in_path(&spaced).map(|decoded| Cow::Owned(decoded.into_owned()))
}

/// As [`decoded`], in the path, where `+` stands for itself.
pub fn decoded_in_path(value: &str) -> Option<Cow<'_, str>> {
    // The library lets broken escapes stand.
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    let is_whole = value.split('%').skip(1).all(is_escape);
    percent_decode_str(value).decode_utf8().ok().filter(|_| is_whole)
}
