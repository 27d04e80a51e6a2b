//! The rules for rooms: a list of tables.

use toml::de::DeTable;

use crate::hub::{RoomOptions, Rule, Rules};

use super::value::{Value, choice, quoted, text};

/// What a table has at most.
const KEYS: [&str; 2] = ["match", "overflow"];

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
    let rule = |Rule { pattern, options }: &Rule| {
        let overflow = choice::print(&options.overflow).unwrap_or_default();
        format!("{{ match = {}, overflow = {overflow} }}", quoted(pattern))
    };
    let rules: Vec<_> = rules.0.iter().map(rule).collect();
    format!("[{}]", rules.join(", "))
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
            _ => {
                let known = KEYS.map(|key| format!("`{key}`")).join(" and ");
                mistakes.push(format!("unknown key `{key}`; known are {known}"));
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
