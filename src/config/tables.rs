//! Lists of tables, as [[rooms]] and [[api.keys]] are: each table is one thing, and each mistake in it a line of its own.

use toml::de::DeTable;

use super::value::Value;

/// One of several tables.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    /// Where it begins, when it is in a file.
    pub line: Option<usize>,
    pub entries: Vec<(String, Value)>,
}

/// One reason why a value cannot be taken.
#[derive(Debug)]
pub(super) struct Fault {
    /// Where it is, when that is known better than where the value is.
    pub line: Option<usize>,
    pub reason: String,
}

/// All reasons why a value cannot be taken; never empty.
#[derive(Debug)]
pub(super) struct Faults(pub Vec<Fault>);

impl From<String> for Faults {
    fn from(reason: String) -> Self {
        Self(vec![Fault { line: None, reason }])
    }
}

/// What a list is of.
pub(super) struct Kind {
    /// What each table is called, before its number.
    pub noun: &'static str,
    /// The key by whose value people know it.
    pub known_by: &'static str,
    /// What must be in a file.
    pub wanted: &'static str,
    /// What must be in the environment.
    pub inline: &'static str,
}

/// Reads all tables; `read` is given one and those before it. The reasons name each that is wrong by its place in the list.
pub(super) fn read<T>(
    value: &Value,
    kind: &Kind,
    mut read: impl FnMut(&[(String, Value)], &[T]) -> Result<T, Vec<String>>,
) -> Result<Vec<T>, Faults> {
    let inline;
    let value = match value {
        Value::Plain(text) => {
            inline = as_in_a_file(text).ok_or_else(|| kind.inline.to_owned())?;
            &inline
        }
        other => other,
    };
    let tables = match value {
        Value::Tables(tables) => tables,
        Value::List(none) if none.is_empty() => return Ok(Vec::new()),
        _ => return Err(kind.wanted.to_owned().into()),
    };
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    for (number, Table { line, entries }) in (1..).zip(tables) {
        match read(entries, &found) {
            Ok(one) => found.push(one),
            Err(reasons) => {
                let name = name(entries, kind.known_by);
                faults.extend(reasons.into_iter().map(|reason| Fault {
                    line: *line,
                    reason: format!("{} {number}{name}: {reason}", kind.noun),
                }));
            }
        }
    }
    if faults.is_empty() { Ok(found) } else { Err(Faults(faults)) }
}

pub(super) fn unknown(key: &str, known: &[&str]) -> String {
    let known = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    format!("unknown key `{key}`; known are {known}")
}

/// By what people find it who do not count.
fn name(entries: &[(String, Value)], known_by: &str) -> String {
    let value = entries.iter().find(|(key, _)| key == known_by).map(|(_, value)| value);
    match value {
        Some(Value::Text(name)) if !name.is_empty() => format!(" (`{name}`)"),
        _ => String::new(),
    }
}

/// Tables that are written in the environment as they would be in a file.
fn as_in_a_file(text: &str) -> Option<Value> {
    let line = format!("tables = {text}");
    let table = DeTable::parse(&line).ok()?;
    table.get_ref().get("tables").map(|value| Value::from_toml(value.get_ref(), &|_| None))
}
