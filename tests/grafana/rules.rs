//! Reads the rule files, which are YAML of one plain form: a rule begins with a dash, a long value with a bar.

use std::collections::BTreeMap;
use std::fs;

use crate::folder;

/// A recording rule or an alert.
#[derive(Debug, Default)]
pub(crate) struct Rule {
    pub(crate) name: String,
    /// By the key as it stands in the file; those under `labels` and `annotations` by `annotations.summary`.
    pub(crate) fields: BTreeMap<String, String>,
}

impl Rule {
    /// A field of the rule; empty when it is not there.
    pub(crate) fn field(&self, key: &str) -> &str {
        self.fields.get(key).map_or("", String::as_str)
    }
}

/// The recording rules.
pub(crate) fn recording() -> Vec<Rule> {
    read("recording.yml", "record")
}

/// The alerts.
pub(crate) fn alerts() -> Vec<Rule> {
    read("alerts.yml", "alert")
}

fn read(file: &str, kind: &str) -> Vec<Rule> {
    let path = folder().join("prometheus").join(file);
    let text = fs::read_to_string(path).expect("the rules can be read");
    let mut rules: Vec<Rule> = Vec::new();
    let (mut section, mut block) = (String::new(), None);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix(&format!("- {kind}: ")) {
            rules.push(Rule { name: name.to_owned(), ..Rule::default() });
            (section, block) = (String::new(), None);
            continue;
        }
        let Some(rule) = rules.last_mut() else { continue };
        if let Some((key, depth)) = &block
            && indent > *depth
        {
            let value: &mut String = rule.fields.entry(String::clone(key)).or_default();
            value.push_str(line);
            value.push('\n');
            continue;
        }
        block = None;
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        let key = if indent > FIELD { format!("{section}.{key}") } else { key.to_owned() };
        match value {
            "" => section = key,
            "|" => block = Some((key, indent)),
            _ => drop(rule.fields.insert(key, value.trim_matches('"').to_owned())),
        }
    }
    assert!(!rules.is_empty(), "{file} has rules");
    rules
}

/// How far the fields of a rule are indented.
const FIELD: usize = 8;
