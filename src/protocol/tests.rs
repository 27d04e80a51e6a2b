//! What every kind of message from a client is taken for.

use super::{
    Data, ErrorCode, Mark, Message, Parser, Rejoin, Request, StreamPosition, Target, write_message,
    write_pong,
};
use crate::id::{NameRef, RoomId};

/// The refusal of `text`, and its mark as text.
fn refusal(text: &[u8]) -> (ErrorCode, String, String) {
    let mut parser = Parser::new();
    let parsed = parser.parse(text);
    let mark = parsed.mark.map(|mark| format!("{mark:?}")).unwrap_or_default();
    match parsed.request {
        Err(refusal) => (refusal.code, refusal.content, mark),
        Ok(request) => panic!("{} was taken for {request:?}", String::from_utf8_lossy(text)),
    }
}

#[track_caller]
fn assert_refused(text: impl AsRef<[u8]>, code: ErrorCode, named: &str) {
    let (got, content, _) = refusal(text.as_ref());
    assert_eq!(got, code, "{content}");
    assert!(content.contains(named), "{content}");
}

#[track_caller]
fn assert_bad(text: impl AsRef<[u8]>, named: &str) {
    assert_refused(text, ErrorCode::BadMessage, named);
}

#[track_caller]
fn assert_taken(text: &str, expected: Request<'_>) {
    assert_eq!(Parser::new().parse(text.as_bytes()).request, Ok(expected));
}

/// The bytes of `data` in a ping whose `data` is written as `json`.
#[track_caller]
fn passed_on(json: &str) -> String {
    let text = format!(r#"{{"x":[1,{{}}],"data":{json},"type":"ping"}}"#);
    let mut parser = Parser::new();
    match parser.parse(text.as_bytes()).request {
        Ok(Request::Ping { data: Some(data) }) => String::from_utf8(data.as_bytes().to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn said(target: Target<'static>, content: &'static str) -> Request<'static> {
    Request::Message {
        message: Message { target, key: None, content: Some(content), data: None },
        echo: true,
    }
}

#[test]
fn takes_each_type() {
    let room = NameRef::Number(5);
    assert_taken(r#"{"type":"ping"}"#, Request::Ping { data: None });
    assert_taken(r#"{"type":"pong","data":1}"#, Request::Pong);
    assert_taken(r#"{"type":"join","room_id":5}"#, Request::Join { room, recover: None, history: None });
    assert_taken(r#"{"type":"leave","room_id":5}"#, Request::Leave { room });
    assert_taken(r#"{"type":"presence","room_id":5}"#, Request::Presence { room, after: None, limit: None });
    assert_taken(
        r#"{"type":"presence","room_id":5,"after":"ann","limit":3}"#,
        Request::Presence { room, after: Some(NameRef::Text("ann")), limit: Some(3) },
    );
    let since = Some(StreamPosition { epoch: "e", offset: 7 });
    assert_taken(
        r#"{"type":"history","room_id":5,"limit":3,"since":{"epoch":"e","offset":7}}"#,
        Request::History { room, since, limit: Some(3) },
    );
    let rooms = vec![Rejoin { room, recover: since }, Rejoin { room: NameRef::Text("a"), recover: None }];
    assert_taken(
        r#"{"type":"resume","session":"s","rooms":[{"room_id":5,"epoch":"e","offset":7},{"room_id":"a","more":[{}]}]}"#,
        Request::Resume { session: "s", rooms },
    );
    assert_taken(r#"{"type":"resume","session":"s"}"#, Request::Resume { session: "s", rooms: Vec::new() });
    assert_taken(r#"{"type":"auth","token":"a.b.c"}"#, Request::Auth { token: "a.b.c" });
    assert_taken(r#"{"type":"message","room_id":5,"content":"x"}"#, said(Target::Room(room), "x"));
    assert_taken(r#"{"type":"message","to":"bo","content":""}"#, said(Target::User(NameRef::Text("bo")), ""));
    assert_taken(r#"{"type":"message","content":"x"}"#, said(Target::Everyone, "x"));
}

#[test]
fn takes_a_join_that_recovers() {
    let recover = Some(StreamPosition { epoch: "e1", offset: u64::MAX });
    assert_taken(
        r#"{"type":"join","room_id":5,"recover":{"x":[{}],"offset":18446744073709551615,"epoch":"e1"},"history":4}"#,
        Request::Join { room: NameRef::Number(5), recover, history: Some(4) },
    );
}

#[test]
fn the_tutorials_message_is_taken_whatever_it_says_of_from_and_timestamp() {
    let text = r#"{"type":"message","from":-1.5,"room_id":5,"content":"hi","timestamp":[{"a":"}"}]}"#;
    assert_taken(text, said(Target::Room(NameRef::Number(5)), "hi"));
}

#[test]
fn a_field_that_is_null_is_not_there() {
    let text = r#"{"type":"message","to":null,"room_id":null,"id":null,"content":"x","echo":null}"#;
    assert_taken(text, said(Target::Everyone, "x"));
}

#[test]
fn unknown_fields_are_ignored() {
    assert_taken(r#"{"a":{"type":"x"},"type":"ping","b":[[],{}],"c":null}"#, Request::Ping { data: None });
}

#[test]
fn keys_and_texts_may_be_written_with_escapes() {
    let text = r#"{"\u0074ype":"mess\u0061ge","room_i\u0064":"l\u00f6bby \ud83d\ude00","content":"a\"\\\n"}"#;
    assert_taken(text, said(Target::Room(NameRef::Text("löbby 😀")), "a\"\\\n"));
}

#[test]
fn rooms_are_one_by_number_and_by_text() {
    let room = |id: &str| {
        let text = format!(r#"{{"type":"leave","room_id":{id}}}"#);
        match Parser::new().parse(text.as_bytes()).request {
            Ok(Request::Leave { room }) => RoomId::from(room),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(room("5"), room("\"5\""));
    assert_eq!(room("18446744073709551615"), room("\"18446744073709551615\""));
    assert_eq!(room("9007199254740993"), RoomId::parse("9007199254740993").unwrap());
    assert_ne!(room("9007199254740993"), room("9007199254740992"));
    assert_ne!(room("\"05\""), room("5"));
    assert_eq!(room("0").to_string(), "0");
}

#[test]
fn data_is_passed_on_byte_for_byte() {
    for json in [
        "9223372036854775807",
        "18446744073709551615",
        "-9223372036854775808",
        "0.1000000000000000055",
        "1E+2",
        "null",
        "false",
        r#""}],{\"\\""#,
        r#"{"b":1,"a":{"data":"}{\"x\":","b":[ 1 , [] ]}}"#,
        r#"{"a":1,"a":2}"#,
        r#""\u00e9\/""#,
        "[]",
    ] {
        assert_eq!(passed_on(json), json);
    }
}

#[test]
fn data_under_an_escaped_key_is_found_again() {
    let text = br#"{"x":"\"data\":0,","d\u0061ta":{"n":1},"type":"ping"}"#;
    let mut parser = Parser::new();
    assert_eq!(parser.parse(text).request, Ok(Request::Ping { data: Some(Data(br#"{"n":1}"#)) }));
}

#[test]
fn data_loses_line_breaks_between_tokens_only() {
    assert_eq!(passed_on("\r\n { \"a\\n\" :\n 1 }\n"), "{ \"a\\n\" : 1 }");
}

#[test]
fn data_longer_than_a_block_of_the_parser_is_passed_on() {
    for length in 0..300 {
        let json = format!(r#"{{"k":["{}\\\"}}",{length}]}}"#, "ä,:".repeat(length));
        assert_eq!(passed_on(&json), json);
    }
}

#[test]
fn data_alone_is_a_message_even_when_null() {
    let message = Message { target: Target::Everyone, key: None, content: None, data: Some(Data(b"null")) };
    assert_taken(r#"{"type":"message","data":null}"#, Request::Message { message, echo: true });
}

#[test]
fn a_parser_forgets_the_message_before() {
    let mut parser = Parser::new();
    let first = br#"{"type":"message","room_id":"long name","content":"x","data":[1,2,3],"id":1}"#;
    assert!(parser.parse(first).request.is_ok());
    assert!(parser.parse(b"{\"type\":").request.is_err());
    let parsed = parser.parse(br#"{"type":"ping"}"#);
    assert_eq!((parsed.mark, parsed.request), (None, Ok(Request::Ping { data: None })));
}

#[test]
fn a_giant_message_is_taken_and_its_buffers_are_given_back() {
    let mut parser = Parser::new();
    let giant = format!(r#"{{"type":"message","content":"{}"}}"#, "x".repeat(5 << 20));
    for _ in 0..2 {
        assert!(parser.parse(giant.as_bytes()).request.is_ok());
    }
    assert!(parser.parse(br#"{"type":"pong"}"#).request.is_ok());
    assert!(parser.retained_bytes() < 1 << 20, "the buffers of the giant are gone");
}

#[test]
fn marks_are_integers_or_texts() {
    let mark = |id: &str| {
        let text = format!(r#"{{"type":"pong","id":{id}}}"#);
        let mut parser = Parser::new();
        let parsed = parser.parse(text.as_bytes());
        assert!(parsed.request.is_ok());
        format!("{:?}", parsed.mark)
    };
    assert_eq!(mark("7"), "Some(Unsigned(7))");
    assert_eq!(mark("18446744073709551615"), "Some(Unsigned(18446744073709551615))");
    assert_eq!(mark("-7"), "Some(Signed(-7))");
    assert_eq!(mark("\"7\""), "Some(Text(\"7\"))");
    for id in ["1.5", "[]", "true", &format!("\"{}\"", "x".repeat(129))] {
        assert_bad(format!(r#"{{"type":"pong","id":{id}}}"#), "`id`");
    }
}

#[test]
fn the_mark_is_kept_when_another_field_is_wrong() {
    for text in [
        r#"{"type":"join","room_id":-1,"id":"m"}"#,
        r#"{"id":"m","type":"dance"}"#,
        r#"{"id":"m"}"#,
        r#"{"id":"m","type":1}"#,
        r#"{"type":"ping","type":"ping","id":"m"}"#,
        r#"{"type":"ping","x":1,"x":1,"id":"m"}"#,
        r#"{"id":"m","type":"ping","data":1e999}"#,
        r#"{"type":"message","content":"\ud800","id":"m"}"#,
    ] {
        assert_eq!(refusal(text.as_bytes()).2, "Text(\"m\")", "{text}");
    }
}

#[test]
fn refuses_what_is_not_json() {
    for text in ["", " ", "nonsense", "{", "{]", "{\"type\"}", r#"{"type":"ping"}}"#, r#"{"type":"ping"} {}"#]
    {
        assert_bad(text, "JSON");
    }
    assert_bad(r#"{"type":"ping",}"#, "JSON");
    assert_bad(r"{'type':'ping'}", "JSON");
    assert_bad("{\"type\":\"a\nb\"}", "");
    assert_bad(b"{\"type\":\"\xff\"}", "");
}

#[test]
fn refuses_what_is_no_object() {
    for text in ["[]", "1", "\"ping\"", "null", "[{\"type\":\"ping\"}]"] {
        assert_bad(text, "object");
    }
}

#[test]
fn refuses_unknown_types_without_repeating_them_at_length() {
    assert_refused(r#"{"type":"dance"}"#, ErrorCode::UnknownType, "dance");
    assert_refused(r#"{"type":""}"#, ErrorCode::UnknownType, "`type`");
    let long = refusal(format!(r#"{{"type":"{}"}}"#, "\u{1f600}".repeat(10_000)).as_bytes());
    assert!(long.1.len() < 400);
}

#[test]
fn refuses_missing_fields_by_name() {
    let missing = |text: &str, named| assert_refused(text, ErrorCode::MissingField, named);
    missing("{}", "`type`");
    missing(r#"{"type":null}"#, "`type`");
    missing(r#"{"type":"join"}"#, "`room_id`");
    missing(r#"{"type":"leave","room_id":null}"#, "`room_id`");
    missing(r#"{"type":"presence"}"#, "`room_id`");
    missing(r#"{"type":"history"}"#, "`room_id`");
    missing(r#"{"type":"message","room_id":5}"#, "`content`");
    missing(r#"{"type":"message","content":null}"#, "`content`");
    missing(r#"{"type":"auth"}"#, "`token`");
}

#[test]
fn refuses_wrong_fields_by_name() {
    assert_bad(r#"{"type":5}"#, "`type`");
    assert_bad(r#"{"type":"message","content":5}"#, "`content`");
    assert_bad(r#"{"type":"message","content":"x","echo":"no"}"#, "`echo`");
    assert_bad(r#"{"type":"auth","token":5}"#, "`token`");
    for history in ["-1", "4294967296", "\"3\"", "1.0"] {
        assert_bad(format!(r#"{{"type":"join","room_id":5,"history":{history}}}"#), "`history`");
    }
    for recover in
        ["1", "{}", r#"{"epoch":"e"}"#, r#"{"epoch":1,"offset":1}"#, r#"{"epoch":"e","offset":-1}"#]
    {
        assert_bad(format!(r#"{{"type":"join","room_id":5,"recover":{recover}}}"#), "`recover`");
    }
    assert_bad(r#"{"type":"join","room_id":5,"recover":{"epoch":"e","offset":1,"offset":2}}"#, "`recover`");
}

#[test]
fn refuses_names_that_are_no_unsigned_integer_or_short_text() {
    let long = format!("\"{}\"", "x".repeat(129));
    for id in ["-1", "1.0", "5e0", "\"\"", "true", "[]", "{}", &long] {
        assert_bad(format!(r#"{{"type":"join","room_id":{id}}}"#), "`room_id`");
        assert_bad(format!(r#"{{"type":"message","room_id":{id},"content":"x"}}"#), "`room_id`");
        assert_bad(format!(r#"{{"type":"message","to":{id},"content":"x"}}"#), "`to`");
    }
    let longest = format!(r#"{{"type":"leave","room_id":"{}"}}"#, "ä".repeat(64));
    assert!(Parser::new().parse(longest.as_bytes()).request.is_ok());
}

#[test]
fn refuses_a_room_and_a_user_together() {
    let text = r#"{"type":"message","room_id":5,"to":7,"content":"x"}"#;
    assert_bad(text, "`room_id`");
    assert_bad(text, "`to`");
}

#[test]
fn refuses_duplicate_keys_by_name() {
    assert_bad(r#"{"type":"ping","type":"ping"}"#, "`type`");
    assert_bad(r#"{"type":"ping","data":1,"d\u0061ta":2}"#, "`data`");
    assert_bad(r#"{"type":"ping","from":1,"from":1}"#, "`from`");
    assert_bad(r#"{"type":"ping","id":1,"id":2}"#, "`id`");
    assert_bad(r#"{"x":1,"type":"ping","y":{"x":1},"x":{}}"#, "`x`");
}

#[test]
fn refuses_numbers_out_of_range_by_field() {
    for number in
        ["1e999", "-1e400", "18446744073709551616", "-9223372036854775809", "99999999999999999999999"]
    {
        assert_bad(format!(r#"{{"type":"ping","data":{{"n":[{number}]}}}}"#), "`data`");
        assert_bad(format!(r#"{{"room_id":{number},"type":"join"}}"#), "`room_id`");
    }
    assert_bad(r#"{"type":"ping","data":01}"#, "`data`");
}

#[test]
fn refuses_lone_surrogates() {
    for text in [r"\ud800", r"\udc00", r"\ud800x", r"\ud800\u0041", r"\ud800\ud800"] {
        assert_bad(format!(r#"{{"type":"message","content":"{text}"}}"#), "`content` has text that is not");
        assert_bad(format!(r#"{{"type":"join","room_id":"{text}"}}"#), "`room_id` has text that is not");
        assert_bad(format!(r#"{{"type":"ping","data":["{text}"]}}"#), "`data` has text that is not");
        assert_bad(format!(r#"{{"type":"ping","{text}":1}}"#), "the message has text that is not");
    }
}

#[test]
fn names_the_field_of_a_bad_escape_behind_sound_ones() {
    let sound = r#""x":"\\ud800 \ud83d\ude00 \u00e9\"\n","id":7,"type":"message""#;
    for (bad, named) in [
        (r"\ud800", "`content` has text that is not"),
        (r"\u12", "`content` has text that is not"),
        (r"\u+123", "`content` has text that is not"),
        (r"\x", "`content` is not valid JSON near byte 94:"),
    ] {
        let long = "a".repeat(20);
        let text = format!(r#"{{{sound},"content":"{long}{bad}","to":"b"}}"#);
        let (_, content, mark) = refusal(text.as_bytes());
        assert!(content.contains(named), "{text}: {content}");
        assert_eq!(mark, "Unsigned(7)", "{text}");
    }
    assert_eq!(refusal(br#"{"type":"ping","id":"\udc00"}"#).2, "");
    assert_bad(r#"{"type":"ping","id":"\udc00"}"#, "`id` has text that is not");
}

#[test]
fn refuses_deep_nesting_anywhere() {
    for depth in [101, 10_000, 30_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let value = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert_bad(format!(r#"{{"type":"ping","data":{value}}}"#), "`data` is nested too deep");
            assert_bad(format!(r#"{{"x":{value},"type":"ping"}}"#), "`x` is nested too deep");
        }
        assert_bad("[".repeat(depth), "nested too deep");
    }
    let fine = format!("{}{}", "[".repeat(90), "]".repeat(90));
    assert_eq!(passed_on(&fine), fine);
}

#[test]
fn any_cut_of_a_message_is_refused_and_its_whole_is_taken() {
    let text =
        r#"{"type":"message","id":7,"room_id":"lö","content":"a\"\u00e9","data":{"a":[1,-2.5e3,{"b":"]"}]}}"#;
    let mut parser = Parser::new();
    for cut in 0..text.len() {
        assert!(parser.parse(&text.as_bytes()[..cut]).request.is_err(), "cut at {cut}");
    }
    assert!(parser.parse(text.as_bytes()).request.is_ok());
}

#[test]
fn what_is_printed_of_a_message_is_what_was_said() {
    let text =
        r#"{"type":"message","room_id":"5","content":"a\"\\\u0001é","data":{"n":9223372036854775807}}"#;
    let mut parser = Parser::new();
    let Ok(Request::Message { message, .. }) = parser.parse(text.as_bytes()).request else {
        panic!("not taken")
    };
    let mut out = Vec::new();
    write_message(&message, NameRef::Text("bo"), 9, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"type":"message","from":"bo","room_id":5,"content":"a\"\\\u0001é","data":{"n":9223372036854775807},"timestamp":9}"#
    );
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, cut in 0_usize..200, at in 0_usize..110, byte: u8) {
        let mut parser = Parser::new();
        parser.parse(&bytes);
        let mut text = br#"{"type":"message","id":"q","room_id":5,"content":"\u00e9x","data":{"a":[1,-2e3,{"b":"]"}]},"x":null}"#.to_vec();
        if let Some(place) = text.get_mut(at) {
            *place = byte;
        }
        text.truncate(cut);
        parser.parse(&text);
    }

    #[test]
    fn any_data_comes_back_as_the_same_value(keys: Vec<String>, texts: Vec<String>, number: i64) {
        let value = serde_json::json!({ "k": keys, "n": number, "t": { "x": texts } });
        for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let text = format!(r#"{{"type":"ping","z":{json},"data": {json} ,"id":-4}}"#);
            let mut parser = Parser::new();
            let Ok(Request::Ping { data }) = parser.parse(text.as_bytes()).request else { panic!("not taken") };
            let mut out = Vec::new();
            write_pong(Some(Mark::Signed(-4)), data, 9, &mut out);
            proptest::prop_assert!(!out.contains(&b'\n'));
            let printed: serde_json::Value = serde_json::from_slice(&out).unwrap();
            proptest::prop_assert_eq!(&printed["data"], &value);
        }
    }
}
