//! The configuration as TOML: what is in force, and the commented default file.

use super::table::{Setting, settings};
use super::{Config, Loaded};

impl Loaded {
    /// Every key with the value in force, secrets masked, and where it came from.
    pub fn to_toml(&self) -> String {
        sections(|setting| {
            let origin =
                self.origins.get(setting.key).map_or_else(|| "default".to_owned(), ToString::to_string);
            match (setting.print)(&self.config) {
                Some(value) => format!("{} = {value}  # {origin}\n", name(setting)),
                None => format!("# {} is not set\n", name(setting)),
            }
        })
    }
}

/// A configuration file that says what every key means and sets it to its default.
pub fn default_file() -> String {
    let config = Config::default();
    let body = sections(|setting| {
        let doc = setting.doc.replace('\n', "\n# ");
        let value = match setting.example {
            Some(example) => format!("# {} = {example}", name(setting)),
            None => format!("{} = {}", name(setting), (setting.print)(&config).unwrap_or_default()),
        };
        format!("\n# {doc}\n{value}\n")
    });
    format!("{HEAD}{body}")
}

/// Puts the heads of the sections between the lines of the settings.
fn sections(line: impl Fn(&Setting) -> String) -> String {
    let mut text = String::new();
    let mut current = "";
    for setting in settings() {
        let section = setting.key.split_once('.').map_or("", |(section, _)| section);
        if section != current {
            current = section;
            text.push_str("\n[");
            text.push_str(section);
            text.push_str("]\n");
        }
        text.push_str(&line(setting));
    }
    text
}

fn name(setting: &Setting) -> &'static str {
    setting.key.split_once('.').map_or(setting.key, |(_, name)| name)
}

const HEAD: &str = "\
# The configuration of Fanfare, with every key at its default.
# The environment wins over this file (FANFARE_LISTEN, FANFARE_AUTH__SECRET), flags win over both.
# `fanfare check` reads it as the gateway would; `fanfare config` shows what is in force and why.
";
