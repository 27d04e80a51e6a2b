//! The rules for rooms: a list of tables.

use std::time::Duration;

use toml::de::DeTable;

use crate::history;
use crate::hub::{Access, PresenceMode, RoomOptions, Rule, Rules};

use super::value::{Value, choice, count, duration, quoted, size, text};

/// What a table has at most.
const KEYS: [&str; 7] = ["match", "overflow", "history", "presence", "join", "publish", "read"];

/// What the table of a history has at most.
const HISTORY_KEYS: [&str; 3] = ["messages", "age", "bytes"];

/// The least age of a history, which is looked at every second.
const AGE_MIN: Duration = Duration::from_secs(1);

/// How rooms are run in development mode, where nothing else is said: those of the demo page have all there is, and of others
/// it is known who is there.
pub(super) fn for_development() -> Rules {
    let rule = |pattern: &str, history, presence| {
        let options = RoomOptions { history, presence, ..RoomOptions::default() };
        Rule { pattern: pattern.to_owned(), options }
    };
    let demo = rule("demo.*", Some(history::Limits::default()), PresenceMode::Events);
    Rules([demo, rule("*", None, PresenceMode::List)].into())
}

const INLINE: &str =
    "must be a TOML array of tables, such as [{ match = \"chat.*\", overflow = \"latest\" }]";

/// Reads all rules; the error names each that is wrong by its place in the list.
pub(super) fn parse(value: &Value) -> Result<Rules, String> {
    let tables = match value {
        Value::Plain(text) => return parse(&inline(text).ok_or(INLINE)?),
        Value::Tables(tables) => tables,
        Value::List(none) if none.is_empty() => return Ok(Rules::default()),
        _ => return Err("must be tables in the file, such as [[rooms]] with `match = \"chat.*\"`".to_owned()),
    };
    let (mut rules, mut mistakes) = (Vec::new(), Vec::new());
    for (number, table) in (1..).zip(tables) {
        match rule(table) {
            Ok(rule) => rules.push(rule),
            Err(reasons) => {
                mistakes.extend(reasons.into_iter().map(|reason| format!("rule {number}: {reason}")));
            }
        }
    }
    if mistakes.is_empty() { Ok(Rules(rules.into())) } else { Err(mistakes.join("; ")) }
}

pub(super) fn print(rules: &Rules) -> String {
    let rules: Vec<_> = rules.0.iter().map(print_rule).collect();
    format!("[{}]", rules.join(", "))
}

/// A rule, without what it leaves as it would be.
fn print_rule(Rule { pattern, options }: &Rule) -> String {
    let usual = RoomOptions::default();
    let other = |access: Access, usual| choice::print(&access).filter(|_| access != usual);
    let history = options.history.map(|history::Limits { messages, age, bytes }| {
        table(&[
            ("messages", count::print(&messages)),
            ("age", duration::print(&age)),
            ("bytes", size::print(&bytes)),
        ])
    });
    table(&[
        ("match", Some(quoted(pattern))),
        ("overflow", choice::print(&options.overflow)),
        ("history", history),
        ("presence", choice::print(&options.presence).filter(|_| options.presence != usual.presence)),
        ("join", other(options.join, usual.join)),
        ("publish", other(options.publish, usual.publish)),
        ("read", other(options.read, usual.read)),
    ])
}

fn table(fields: &[(&str, Option<String>)]) -> String {
    let fields: Vec<_> =
        fields.iter().filter_map(|(key, value)| Some(format!("{key} = {}", value.as_ref()?))).collect();
    format!("{{ {} }}", fields.join(", "))
}

/// Tables that are written in the environment as they would be in a file.
pub(super) fn inline(text: &str) -> Option<Value> {
    let line = format!("tables = {text}");
    let table = DeTable::parse(&line).ok()?;
    table.get_ref().get("tables").map(|value| Value::from_toml(value.get_ref()))
}

fn rule(table: &[(String, Value)]) -> Result<Rule, Vec<String>> {
    let mut mistakes = Vec::new();
    let (mut pattern, mut options) = (None, RoomOptions::default());
    for (key, value) in table {
        let read = match key.as_str() {
            "match" => text::parse(value).map(|text| pattern = text),
            "overflow" => choice::parse(value).map(|overflow| options.overflow = overflow),
            "history" => history(value).map(|history| options.history = history),
            "presence" => presence(value).map(|presence| options.presence = presence),
            "join" => choice::parse(value).map(|access| options.join = access),
            "publish" => choice::parse(value).map(|access| options.publish = access),
            "read" => choice::parse(value).map(|access| options.read = access),
            _ => {
                mistakes.push(unknown(key, &KEYS));
                continue;
            }
        };
        mistakes.extend(read.err().map(|reason| format!("`{key}`: {reason}")));
    }
    if !table.iter().any(|(key, _)| key == "match") {
        mistakes.push("`match` is missing: the pattern of the names of rooms that it is for".to_owned());
    }
    match pattern {
        Some(pattern) if mistakes.is_empty() => Ok(Rule { pattern, options }),
        _ => Err(mistakes),
    }
}

fn history(value: &Value) -> Result<Option<history::Limits>, String> {
    let table = match value {
        Value::Bool(false) => return Ok(None),
        Value::Bool(true) => return Ok(Some(history::Limits::default())),
        Value::Table(table) => table,
        _ => {
            return Err(
                "expected a table such as { messages = 1000, age = \"10m\", bytes = \"1MiB\" }".to_owned()
            );
        }
    };
    let mut limits = history::Limits::default();
    let mut mistakes = Vec::new();
    for (key, value) in table {
        let read = match key.as_str() {
            "messages" => count::parse(value).map(|messages| limits.messages = messages),
            "age" => duration::parse(value).map(|age| limits.age = age),
            "bytes" => size::parse(value).map(|bytes| limits.bytes = bytes),
            _ => {
                mistakes.push(unknown(key, &HISTORY_KEYS));
                continue;
            }
        };
        mistakes.extend(read.err().map(|reason| format!("`{key}`: {reason}")));
    }
    if limits.age < AGE_MIN {
        mistakes.push("`age`: is less than 1s".to_owned());
    }
    if mistakes.is_empty() { Ok(Some(limits)) } else { Err(mistakes.join("; ")) }
}

/// Yes and no stand for all or nothing.
fn presence(value: &Value) -> Result<PresenceMode, String> {
    match value {
        Value::Bool(true) => Ok(PresenceMode::Events),
        Value::Bool(false) => Ok(PresenceMode::Off),
        other => choice::parse(other),
    }
}

fn unknown(key: &str, known: &[&str]) -> String {
    let known = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    format!("unknown key `{key}`; known are {known}")
}
