//! Any texts from clients, one parser for all: no panic, nothing left over from one text to the next, and whatever
//! is understood is printed as one line of JSON again.

#![no_main]

use fanfare::id::NameRef;
use fanfare::protocol::{Parsed, Parser, Request, write_error, write_message, write_pong};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

/// Between two texts of one input; it is in no JSON.
const SEPARATOR: u8 = 0xFF;

fuzz_target!(|data: &[u8]| {
    let mut parser = Parser::new();
    for text in data.split(|&byte| byte == SEPARATOR) {
        let parsed = parser.parse(text);
        assert_eq!(parsed, Parser::new().parse(text));
        print(&parsed);
        post(&mut parser, text);
    }
});

/// The same text as of an application.
fn post(parser: &mut Parser, text: &[u8]) {
    let Ok(posting) = parser.parse_posting(text) else { return };
    let mut out = Vec::new();
    write_message(&posting.message, posting.from, 0, &mut out);
    assert!(!out.contains(&b'\n'));
    serde_json::from_slice::<IgnoredAny>(&out).expect("what we print is JSON");
}

fn print(parsed: &Parsed<'_>) {
    let mut out = Vec::new();
    match &parsed.request {
        Ok(Request::Message { message, .. }) => write_message(message, NameRef::Number(7), 0, &mut out),
        Ok(Request::Ping { data }) => write_pong(parsed.mark, *data, 0, &mut out),
        Ok(_) => return,
        Err(refusal) => write_error(parsed.mark, refusal.code, &refusal.content, 0, &mut out),
    }
    assert!(!out.contains(&b'\n'));
    serde_json::from_slice::<IgnoredAny>(&out).expect("what we print is JSON");
}
