//! From the JSON of an application to what it says: the same message as a client's, with more about its way.

use std::mem;

use simd_json::{Node, StaticNode, Tape};

use super::data::{member_value, on_one_line};
use super::parse::{Members, Parser, broken, name_in, repeated_key};
use super::{Data, Message, Refusal, Target};
use crate::id::{ClientId, NameRef};

/// Longest text by which a repeat is known, in bytes.
pub const ONCE_BYTES_MAX: usize = 128;

/// What an application says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posting<'a> {
    /// What, and to whom.
    pub message: Message<'a>,
    /// In whose name; nobody's without it.
    pub from: Option<NameRef<'a>>,
    /// The connection that does not get it.
    pub exclude: Option<ClientId>,
    /// By what a repeat of it is known.
    pub once: Option<&'a str>,
}

impl Parser {
    /// Reads what an application says. Fields that are not known are refused, since nobody else could have put them there.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that names the field.
    pub fn parse_posting<'a>(&'a mut self, text: &'a [u8]) -> Result<Posting<'a>, Refusal> {
        self.give_back();
        let Self { scratch, compact, buffers, tape } = self;
        scratch.clear();
        scratch.extend_from_slice(text);
        let mut nodes = mem::replace(tape, Tape(Vec::new())).reset();
        let posting = match simd_json::fill_tape(scratch, buffers, &mut nodes) {
            Ok(()) => understand(&nodes.0, text, buffers.structural_indexes(), compact),
            Err(error) => Err(broken(text, &error)),
        };
        *tape = nodes.reset();
        posting
    }
}

/// The fields, as they are read.
#[derive(Default)]
struct Fields<'a> {
    room: Option<NameRef<'a>>,
    to: Option<NameRef<'a>>,
    everyone: bool,
    from: Option<NameRef<'a>>,
    key: Option<NameRef<'a>>,
    content: Option<&'a str>,
    data: Option<Data<'a>>,
    exclude: Option<ClientId>,
    once: Option<&'a str>,
}

fn understand<'a>(
    nodes: &[Node<'a>],
    text: &'a [u8],
    structurals: &[u32],
    compact: &'a mut Vec<u8>,
) -> Result<Posting<'a>, Refusal> {
    if !matches!(nodes.first(), Some(Node::Object { .. })) {
        return Err(Refusal::bad("what is published must be a JSON object"));
    }
    if let Some(key) = repeated_key(nodes) {
        return Err(Refusal::bad(format!("`{key}` is there twice: send each field once")));
    }
    let mut fields = Fields::default();
    let mut data = None;
    for (member, (key, at)) in Members::of(nodes, 0).enumerate() {
        // A value that is `null` counts as not there.
        let node = nodes.get(at).copied().filter(|node| !matches!(node, Node::Static(StaticNode::Null)));
        match (key, node) {
            ("data", Some(_)) => data = Some(member),
            (_, node) => fields.read(key, node)?,
        }
    }
    if let Some(member) = data {
        let json = member_value(text, structurals, member);
        let json = json.ok_or_else(|| Refusal::bad("`data` was not found again"))?;
        fields.data = Some(on_one_line(json, compact));
    }
    fields.posting()
}

impl<'a> Fields<'a> {
    fn read(&mut self, key: &str, node: Option<Node<'a>>) -> Result<(), Refusal> {
        let name = |called| node.map(|node| name_in(node, called)).transpose();
        let text = |called| match node {
            None => Ok(None),
            Some(Node::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::bad(format!("`{called}` must be a string"))),
        };
        match key {
            "room_id" => self.room = name("room_id")?,
            "to" => self.to = name("to")?,
            "from" => self.from = name("from")?,
            "key" => self.key = name("key")?,
            "content" => self.content = text("content")?,
            "idempotency_key" => self.once = text("idempotency_key")?.map(once).transpose()?,
            "exclude" => self.exclude = text("exclude")?.map(exclude).transpose()?,
            "everyone" => match node {
                None | Some(Node::Static(StaticNode::Bool(true))) => self.everyone = node.is_some(),
                Some(_) => return Err(Refusal::bad("`everyone` must be true, or not there")),
            },
            "data" => {}
            _ => return Err(unknown(key)),
        }
        Ok(())
    }

    fn posting(self) -> Result<Posting<'a>, Refusal> {
        let target = match (self.room, self.to, self.everyone) {
            (Some(room), None, false) => Target::Room(room),
            (None, Some(user), false) => Target::User(user),
            (None, None, true) => Target::Everyone,
            _ => return Err(Refusal::bad("give exactly one of `room_id`, `to` and `everyone`")),
        };
        let Self { key, content, data, from, exclude, once, .. } = self;
        if content.is_none() && data.is_none() {
            return Err(Refusal::bad("`content` is missing: a message needs it, or `data`"));
        }
        Ok(Posting { message: Message { target, key, content, data }, from, exclude, once })
    }
}

/// A text by which a repeat is known.
fn once(text: &str) -> Result<&str, Refusal> {
    if text.is_empty() || text.len() > ONCE_BYTES_MAX {
        let rule = format!("`idempotency_key` must have 1 to {ONCE_BYTES_MAX} bytes");
        return Err(Refusal::bad(rule));
    }
    Ok(text)
}

fn exclude(text: &str) -> Result<ClientId, Refusal> {
    let id = Some(text).filter(|text| text.len() == 16).and_then(ClientId::parse);
    id.ok_or_else(|| Refusal::bad("`exclude` must be 16 hexadecimal digits, the `client_id` of `welcome`"))
}

fn unknown(key: &str) -> Refusal {
    // A long one would be a way to have the answer grow with what is asked.
    let shown: String = key.chars().take(32).collect();
    let known = "room_id, to, everyone, from, key, content, data, exclude, idempotency_key";
    Refusal::bad(format!("{shown:?} is not known here; known are {known}"))
}

#[cfg(test)]
mod tests {
    use super::super::ErrorCode;
    use super::*;

    fn refusal(text: &str) -> String {
        Parser::new().parse_posting(text.as_bytes()).unwrap_err().content
    }

    #[test]
    fn reads_all_that_an_application_can_say() {
        let text = r#" {"room_id":"5","content":"a\n\"b\"","data":{"n":18446744073709551615, "x":[1.50]},"from":7,
            "key":"EUR","exclude":"00000000000000ff","idempotency_key":"é1"} "#;
        let mut parser = Parser::new();
        let posting = parser.parse_posting(text.as_bytes()).unwrap();

        let data = Data(br#"{"n":18446744073709551615, "x":[1.50]}"#);
        let message = Message {
            target: Target::Room(NameRef::Number(5)),
            key: Some(NameRef::Text("EUR")),
            content: Some("a\n\"b\""),
            data: Some(data),
        };
        let (from, exclude, once) = (Some(NameRef::Number(7)), Some(ClientId(255)), Some("é1"));
        assert_eq!(posting, Posting { message, from, exclude, once });

        let posting = parser.parse_posting(br#"{"to":"bo","data":null,"content":"","from":null}"#).unwrap();
        assert_eq!(posting.message.target, Target::User(NameRef::Text("bo")));
        assert_eq!((posting.message.content, posting.message.data, posting.from), (Some(""), None, None));
        let posting = parser.parse_posting(b"{\"everyone\":true,\"data\":[1,\r\n2]}").unwrap();
        assert_eq!(posting.message.target, Target::Everyone);
        assert_eq!(posting.message.data.unwrap().as_bytes(), b"[1,2]");
    }

    #[test]
    fn a_refusal_names_the_field() {
        for (text, part) in [
            ("[]", "must be a JSON object"),
            ("{", "is not valid JSON near byte"),
            (r#"{"room_id":5,"content":"\ud800"}"#, "`content` has text that is not Unicode"),
            (r#"{"room_id":5,"data":1e999}"#, "`data` has a number that is malformed or out of range"),
            (r#"{"room_id":5}"#, "`content` is missing: a message needs it, or `data`"),
            (r#"{"content":"x"}"#, "exactly one of `room_id`, `to` and `everyone`"),
            (r#"{"content":"x","room_id":1,"to":2}"#, "exactly one of"),
            (r#"{"content":"x","room_id":1,"everyone":true}"#, "exactly one of"),
            (r#"{"content":"x","everyone":false}"#, "`everyone` must be true"),
            (r#"{"content":5,"room_id":1}"#, "`content` must be a string"),
            (r#"{"content":"x","room_id":-1}"#, "`room_id` must be an unsigned integer or a string"),
            (r#"{"content":"x","room_id":""}"#, "`room_id` must be an unsigned integer or a string"),
            (r#"{"content":"x","to":[]}"#, "`to` must be an unsigned integer or a string"),
            (r#"{"content":"x","room_id":1,"from":1.5}"#, "`from` must be"),
            (r#"{"content":"x","room_id":1,"exclude":"ff"}"#, "`exclude` must be 16 hexadecimal digits"),
            (r#"{"content":"x","room_id":1,"idempotency_key":""}"#, "`idempotency_key` must have 1 to 128"),
            (r#"{"content":"x","room_id":1,"echo":false}"#, "\"echo\" is not known here; known are room_id"),
            (r#"{"content":"x","room_id":1,"content":"y"}"#, "`content` is there twice"),
        ] {
            let found = refusal(text);
            assert!(found.contains(part), "{text}: {found}");
        }
        let deep = format!(r#"{{"room_id":1,"data":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        assert!(refusal(&deep).contains("`data` is nested too deep"));
        let long = format!(r#"{{"room_id":"{}","content":"x"}}"#, "a".repeat(129));
        assert_eq!(refusal(&long), "`room_id` has 129 bytes: at most 128 are allowed");
        let long = format!(r#"{{"{}":1}}"#, "a".repeat(1000));
        assert!(refusal(&long).len() < 200);
        let mut parser = Parser::new();
        assert_eq!(parser.parse_posting(b"{}").unwrap_err().code, ErrorCode::BadMessage);
        assert!(parser.parse_posting(br#"{"room_id":1,"content":"x"}"#).is_ok(), "goes on after a fault");
    }

    #[test]
    fn any_bytes_cut_anywhere_are_read_without_panic() {
        let text =
            r#"{"room_id":"5","content":"a\u0041","data":{"n":[1,{}]},"everyone":true,"exclude":"00"}"#;
        let mut parser = Parser::new();
        for cut in 0..text.len() {
            assert!(parser.parse_posting(&text.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
    }
}
