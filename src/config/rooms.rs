//! The rules for rooms: a list of tables.

use std::time::Duration;

use crate::history;
use crate::hub::{Access, PresenceMode, RoomOptions, Rule, Rules};

use super::tables::{self, Faults, Kind};
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

const KIND: Kind = Kind {
    noun: "rule",
    known_by: "match",
    wanted: "must be tables in the file, such as [[rooms]] with `match = \"chat.*\"`",
    inline: "must be a TOML array of tables, such as [{ match = \"chat.*\", overflow = \"latest\" }]",
};

/// Reads all rules.
pub(super) fn parse(value: &Value) -> Result<Rules, Faults> {
    tables::read(value, &KIND, |entries, _| rule(entries)).map(|rules| Rules(rules.into()))
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

fn rule(table: &[(String, Value)]) -> Result<Rule, Vec<String>> {
    let mut mistakes = Vec::new();
    let (mut pattern, mut options) = (None, RoomOptions::default());
    for (key, value) in table {
        let read = match key.as_str() {
            "match" => text::parse(value).map(|text| pattern = text),
            "overflow" => choice::parse(value).map(|overflow| options.overflow = overflow),
            "history" => {
                match history(value) {
                    Ok(history) => options.history = history,
                    Err(reasons) => {
                        mistakes.extend(reasons.into_iter().map(|reason| format!("`history`: {reason}")));
                    }
                }
                continue;
            }
            "presence" => presence(value).map(|presence| options.presence = presence),
            "join" => choice::parse(value).map(|access| options.join = access),
            "publish" => choice::parse(value).map(|access| options.publish = access),
            "read" => choice::parse(value).map(|access| options.read = access),
            _ => {
                mistakes.push(tables::unknown(key, &KEYS));
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

fn history(value: &Value) -> Result<Option<history::Limits>, Vec<String>> {
    let table = match value {
        Value::Bool(false) => return Ok(None),
        Value::Bool(true) => return Ok(Some(history::Limits::default())),
        Value::Table(table) => table,
        _ => {
            let wanted = "expected a table such as { messages = 1000, age = \"10m\", bytes = \"1MiB\" }";
            return Err(vec![wanted.to_owned()]);
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
                mistakes.push(tables::unknown(key, &HISTORY_KEYS));
                continue;
            }
        };
        mistakes.extend(read.err().map(|reason| format!("`{key}`: {reason}")));
    }
    if limits.age < AGE_MIN {
        mistakes.push("`age`: is less than 1s".to_owned());
    }
    if mistakes.is_empty() { Ok(Some(limits)) } else { Err(mistakes) }
}

/// Yes and no stand for all or nothing.
fn presence(value: &Value) -> Result<PresenceMode, String> {
    match value {
        Value::Bool(true) => Ok(PresenceMode::Events),
        Value::Bool(false) => Ok(PresenceMode::Off),
        other => choice::parse(other),
    }
}
