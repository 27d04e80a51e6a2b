//! Every setting, once: key, meaning, kind and place. All else is derived from these tables.

mod applications;
mod auth;
mod connections;
mod process;
mod rooms;

use super::Config;
use super::tables::Faults;
use super::value::Value;

/// One key of the configuration.
pub(super) struct Setting {
    /// Dotted, as in TOML.
    pub key: &'static str,
    /// For the default file; lines of at most 100 characters.
    pub doc: &'static str,
    /// Shown in the default file, commented out, where the default is nothing or is found at start.
    pub example: Option<&'static str>,
    /// Reads a value into the configuration; the reasons are without the key.
    pub parse: fn(&mut Config, &Value) -> Result<(), Faults>,
    /// Writes the value as TOML; `None`: not set.
    pub print: fn(&Config) -> Option<String>,
}

/// The setting of this key.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    settings().find(|setting| setting.key == key)
}

/// All settings in the order of the default file: keys without a section first, sections together.
pub(super) fn settings() -> impl Iterator<Item = &'static Setting> {
    PARTS.iter().copied().flatten()
}

/// A setting that is one field of one kind.
macro_rules! setting {
    ($key:literal, $kind:ident, $($field:ident).+, $doc:literal $(, $example:literal)?) => {
        Setting {
            key: $key,
            doc: $doc,
            example: setting!(@example $($example)?),
            parse: |config, value| {
                config.$($field).+ = $kind::parse(value)?;
                Ok(())
            },
            print: |config| $kind::print(&config.$($field).+),
        }
    };
    (@example) => { None };
    (@example $example:literal) => { Some($example) };
}
use setting;

static PARTS: [&[Setting]; 6] = [
    process::PROCESS,
    auth::AUTH,
    connections::CONNECTIONS,
    applications::WEBHOOKS,
    rooms::ROOMS,
    applications::API,
];

/// Keys of the contract that a later version takes, so that they are not called misspelt.
pub(super) fn is_of_later_version(key: &str) -> bool {
    key.starts_with("engine.nats")
}
