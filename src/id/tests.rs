use super::*;
use std::hash::BuildHasher;

fn room(text: &str) -> RoomId {
    RoomId::parse(text).unwrap()
}

fn json(id: &RoomId) -> String {
    let mut out = Vec::new();
    id.write_json(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_number_and_its_decimal_text_are_one_room() {
    assert_eq!(RoomId::from_u64(5), room("5"));
    assert_eq!(RoomId::from_u64(NUMBER_MAX), room("9007199254740991"));
    assert_eq!(RoomId::from_u64(u64::MAX), room("18446744073709551615"));
}

#[test]
fn a_number_that_is_not_canonical_is_another_room() {
    assert_ne!(room("05"), room("5"));
    assert_ne!(room("+5"), room("5"));
    assert_ne!(room("5.0"), room("5"));
    assert_ne!(room("٥"), room("5"));
}

#[test]
fn prints_a_number_up_to_2_to_the_53_less_1_and_a_string_above() {
    assert_eq!(json(&room("0")), "0");
    assert_eq!(json(&room("9007199254740991")), "9007199254740991");
    assert_eq!(json(&room("9007199254740992")), "\"9007199254740992\"");
    assert_eq!(json(&RoomId::from_u64(u64::MAX)), "\"18446744073709551615\"");
    assert_eq!(json(&room("007")), "\"007\"");
}

#[test]
fn escapes_what_json_demands() {
    assert_eq!(json(&room("a\"b\\c\n\u{1}\u{1f}é\u{7f}")), "\"a\\\"b\\\\c\\n\\u0001\\u001fé\u{7f}\"");
    assert_eq!(json(&room("\u{8}\u{c}\r\t")), "\"\\b\\f\\r\\t\"");
    assert_eq!(json(&room(&"\u{1}".repeat(128))).len(), 2 + 6 * 128);
}

#[test]
fn a_borrowed_name_finds_the_owned_one() {
    let mut table = hashbrown::HashMap::new();
    for id in [room("5"), room("lobby"), RoomId::from_u64(u64::MAX)] {
        table.insert(id.clone(), id);
    }
    assert!(table.contains_key(&NameRef::Number(5)));
    assert!(table.contains_key(&NameRef::parse("lobby").unwrap()));
    assert!(table.contains_key(&NameRef::Number(u64::MAX)));
    assert!(table.contains_key(&NameRef::parse("18446744073709551615").unwrap()));
    assert!(!table.contains_key(&NameRef::Number(u64::MAX - 1)));
}

#[test]
fn equal_names_have_equal_hashes_in_every_form() {
    let state = foldhash::fast::RandomState::default();
    let big = NameRef::Number(1 << 53);
    assert_eq!(state.hash_one(big), state.hash_one(RoomId::from(big)));
    assert_eq!(state.hash_one(big), state.hash_one(room("9007199254740992")));
    assert_eq!(state.hash_one(NameRef::Number(5)), state.hash_one(room("5")));
}

#[test]
fn refuses_names_that_are_empty_or_too_long() {
    assert_eq!(RoomId::parse(""), Err(NameError::Empty));
    assert!(RoomId::parse(&"é".repeat(64)).is_ok());
    assert_eq!(RoomId::parse(&"x".repeat(129)), Err(NameError::TooLong { max: 128 }));
}

#[test]
fn orders_numbers_by_value_and_before_texts() {
    let mut rooms = [room("b"), room("10"), room("9"), room("a")];
    rooms.sort();
    assert_eq!(rooms, [room("9"), room("10"), room("a"), room("b")]);
}

#[test]
fn a_client_prints_as_sixteen_hexadecimal_digits() {
    assert_eq!(ClientId(0xbeef).to_string(), "000000000000beef");
}

#[test]
fn a_node_name_has_only_characters_that_are_safe_in_subjects() {
    assert_eq!(NodeId::parse("eu-1.a_b").unwrap().as_str(), "eu-1.a_b");
    assert_eq!(NodeId::parse("a b"), Err(NameError::Character));
    assert_eq!(NodeId::parse(""), Err(NameError::Empty));
    assert_eq!(NodeId::parse(&"n".repeat(65)), Err(NameError::TooLong { max: 64 }));
}
