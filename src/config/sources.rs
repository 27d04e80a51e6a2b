//! What was given, and where: the file, the environment, the flags, in the order in which later ones win.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::table::{SETTINGS, Setting, find, is_of_later_version};
use super::value::Value;
use super::{Mistake, Origin};

/// Everything outside that a configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The TOML file, if one was named; `FANFARE_CONFIG` names it otherwise.
    pub file: Option<PathBuf>,
    /// The process's environment; only `FANFARE_*` is looked at.
    pub environment: Vec<(OsString, OsString)>,
    /// What the command line sets.
    pub flags: Vec<Flag>,
}

/// A flag that sets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// As typed, such as `--listen`.
    pub name: &'static str,
    /// The key that it sets.
    pub key: &'static str,
    /// As typed.
    pub value: String,
}

/// A value for a setting, not yet read.
pub(super) struct Given {
    pub setting: &'static Setting,
    pub value: Value,
    pub origin: Origin,
}

/// Collects what is given for known keys; what is not known becomes a mistake.
pub(super) fn collect(sources: &Sources, mistakes: &mut Vec<Mistake>) -> Vec<Given> {
    let mut given = Vec::new();
    let variables = environment(&sources.environment, mistakes);
    let named = variables.iter().find(|(name, _)| name == CONFIG).map(|(_, path)| PathBuf::from(path));
    if let Some(path) = sources.file.clone().or(named) {
        match std::fs::read_to_string(&path) {
            Ok(text) => read_file(&path, &text, &mut given, mistakes),
            Err(error) => {
                let reason = format!("cannot read the configuration file {}: {error}", path.display());
                mistakes.push(Mistake { place: None, key: None, reason });
            }
        }
    }
    for (name, value) in variables.into_iter().filter(|(name, _)| name != CONFIG) {
        read_variable(name, value, &mut given, mistakes);
    }
    for flag in &sources.flags {
        let setting = find(flag.key).expect("flags set keys of the table, as a test shows");
        given.push(Given {
            setting,
            value: Value::Plain(flag.value.clone()),
            origin: Origin::Flag(flag.name),
        });
    }
    given
}

/// The variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

fn environment(all: &[(OsString, OsString)], mistakes: &mut Vec<Mistake>) -> Vec<(String, String)> {
    let mut ours = Vec::new();
    for (name, value) in all {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        match value.to_str() {
            Some(value) => ours.push((name.to_owned(), value.to_owned())),
            None => mistakes.push(Mistake {
                place: Some(Origin::Environment(name.to_owned())),
                key: None,
                reason: "is not UTF-8".to_owned(),
            }),
        }
    }
    // The system's order means nothing; mistakes come in the same order each time.
    ours.sort();
    ours
}

fn read_variable(name: String, value: String, given: &mut Vec<Given>, mistakes: &mut Vec<Mistake>) {
    let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
    let is_exact = name == name.to_uppercase();
    if let Some(setting) = find(unaliased(&key)).filter(|_| is_exact) {
        given.push(Given { setting, value: Value::Plain(value), origin: Origin::Environment(name) });
        return;
    }
    let reason = unknown(&key, variable);
    mistakes.push(Mistake { place: Some(Origin::Environment(name)), key: None, reason });
}

fn read_file(path: &Path, text: &str, given: &mut Vec<Given>, mistakes: &mut Vec<Mistake>) {
    let line = |offset: usize| 1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count();
    let place = |offset: usize| Origin::File { path: path.to_owned(), line: line(offset) };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        let reason = error.message().replace('\n', ", ");
        mistakes.push(Mistake { place: Some(place(offset)), key: None, reason });
    }
    let mut leaves = Vec::new();
    flatten("", table.get_ref(), &|offset| Some(line(offset)), &mut leaves);
    leaves.sort_by_key(|(_, offset, _)| *offset);
    for (key, offset, value) in leaves {
        if let Some(setting) = find(unaliased(&key)) {
            given.push(Given { setting, value, origin: place(offset) });
        } else {
            let reason = unknown(&key, str::to_owned);
            mistakes.push(Mistake { place: Some(place(offset)), key: Some(key), reason });
        }
    }
}

/// Lists what is no table by its dotted key; an empty table counts when its name is not that of a section.
fn flatten(
    prefix: &str,
    table: &DeTable<'_>,
    line: &dyn Fn(usize) -> Option<usize>,
    leaves: &mut Vec<(String, usize, Value)>,
) {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) if is_section(&key) || !inner.is_empty() => {
                flatten(&format!("{key}."), inner, line, leaves);
            }
            other => leaves.push((key, name.span().start, Value::from_toml(other, line))),
        }
    }
}

/// The contract also writes `auth = "jwt"`.
fn unaliased(key: &str) -> &str {
    if key == "auth" { "auth.mode" } else { key }
}

fn is_section(key: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key.split_once('.').is_some_and(|(section, _)| section == key))
}

fn unknown(key: &str, spell: fn(&str) -> String) -> String {
    if is_of_later_version(key) {
        return "not available in this version".to_owned();
    }
    if is_section(key) {
        return format!("is a section; give the keys in it, such as `{}`", spell(nearest(key)));
    }
    format!("unknown key; the nearest one is `{}`", spell(nearest(key)))
}

/// The known key that was most likely meant: by its whole, or by its last word in another section.
fn nearest(key: &str) -> &'static str {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |known: &str| {
        let whole = strsim::normalized_damerau_levenshtein(key, known);
        whole.max(0.95 * strsim::normalized_damerau_levenshtein(&last(key), &last(known)))
    };
    let best = SETTINGS.iter().max_by(|a, b| likeness(a.key).total_cmp(&likeness(b.key)));
    best.map_or("listen", |setting| setting.key)
}

const PREFIX: &str = "FANFARE_";
/// Names the file, as `--config` does.
const CONFIG: &str = "FANFARE_CONFIG";
