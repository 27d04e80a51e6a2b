//! The kinds of values: how each is read from TOML or from text, and written back as TOML.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use toml::de::{DeTable, DeValue};

use super::Choice;
use super::tables::Table;

/// A value as it came, before its setting gives it a meaning.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// From the environment or a flag: everything is text there.
    Plain(String),
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array of strings.
    List(Vec<String>),
    /// A TOML table: its keys and values.
    Table(Vec<(String, Self)>),
    /// A TOML array of tables.
    Tables(Vec<Table>),
    /// Something that no setting takes, by its TOML name.
    Other(&'static str),
}

impl Value {
    /// Takes a TOML value; `line` tells on which line of a file something stands.
    pub(super) fn from_toml(value: &DeValue<'_>, line: &dyn Fn(usize) -> Option<usize>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Boolean(yes) => Self::Bool(*yes),
            DeValue::Integer(number) => {
                let digits = number.as_str().replace('_', "");
                i64::from_str_radix(&digits, number.radix())
                    .map_or(Self::Other("too large an integer"), Self::Integer)
            }
            DeValue::Array(items) => {
                let tables = items.iter().map(|item| {
                    let entries = Self::members(item.get_ref().as_table()?, line);
                    Some(Table { line: line(item.span().start), entries })
                });
                if let Some(tables) = tables.collect::<Option<Vec<_>>>().filter(|tables| !tables.is_empty()) {
                    return Self::Tables(tables);
                }
                let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
                texts
                    .collect::<Option<_>>()
                    .map_or(Self::Other("an array of other things than strings"), Self::List)
            }
            DeValue::Float(_) => Self::Other("a float"),
            DeValue::Datetime(_) => Self::Other("a date"),
            DeValue::Table(table) => Self::Table(Self::members(table, line)),
        }
    }

    fn members(table: &DeTable<'_>, line: &dyn Fn(usize) -> Option<usize>) -> Vec<(String, Self)> {
        table
            .iter()
            .map(|(name, value)| (name.get_ref().to_string(), Self::from_toml(value.get_ref(), line)))
            .collect()
    }

    fn text(&self, wanted: &str) -> Result<&str, String> {
        match self {
            Self::Plain(text) | Self::Text(text) => Ok(text),
            other => Err(other.unexpected(wanted)),
        }
    }

    /// A number that its type can hold.
    fn number<T: TryFrom<i64> + FromStr>(&self) -> Option<T> {
        match self {
            Self::Integer(number) => T::try_from(*number).ok(),
            Self::Plain(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn unexpected(&self, wanted: &str) -> String {
        match self {
            Self::Plain(text) | Self::Text(text) => format!("expected {wanted}, got `{text}`"),
            Self::Integer(number) => format!("expected {wanted}, got {number}"),
            Self::Bool(yes) => format!("expected {wanted}, got {yes}"),
            Self::List(_) | Self::Tables(_) => format!("expected {wanted}, got an array"),
            Self::Table(_) => format!("expected {wanted}, got a table"),
            Self::Other(kind) => format!("expected {wanted}, got {kind}"),
        }
    }
}

/// Text as TOML writes it, with quotes and escapes.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// `true` or `false`.
pub(super) mod flag {
    use super::Value;

    pub(in super::super) fn parse(value: &Value) -> Result<bool, String> {
        match value {
            Value::Bool(yes) => Ok(*yes),
            Value::Plain(text) if text == "true" || text == "1" => Ok(true),
            Value::Plain(text) if text == "false" || text == "0" => Ok(false),
            other => Err(other.unexpected("true or false")),
        }
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        clippy::unnecessary_wraps,
        reason = "all kinds look the same"
    )]
    pub(in super::super) fn print(value: &bool) -> Option<String> {
        Some(value.to_string())
    }
}

/// A number of things, at least one.
pub(super) mod count {
    use super::{Display, Value};

    pub(in super::super) fn parse<T: TryFrom<u64>>(value: &Value) -> Result<T, String> {
        let number = value.number().filter(|number: &u64| *number > 0);
        let number = number.ok_or_else(|| value.unexpected("a number of at least 1"))?;
        T::try_from(number).map_err(|_| format!("{number} is too large"))
    }

    #[expect(clippy::unnecessary_wraps, reason = "all kinds look the same")]
    pub(in super::super) fn print<T: Display>(value: &T) -> Option<String> {
        Some(value.to_string())
    }
}

/// A number of things in a second; 0 for any.
pub(super) mod rate {
    use super::Value;

    pub(in super::super) fn parse(value: &Value) -> Result<Option<usize>, String> {
        let number: usize = value.number().ok_or_else(|| value.unexpected("a number, 0 for no limit"))?;
        Ok(Some(number).filter(|number| *number > 0))
    }

    #[expect(clippy::ref_option, clippy::unnecessary_wraps, reason = "all kinds look the same")]
    pub(in super::super) fn print(value: &Option<usize>) -> Option<String> {
        Some(value.unwrap_or(0).to_string())
    }
}

/// A number of things, at least one; 0 for any.
pub(super) mod most {
    use super::{Value, rate};

    pub(in super::super) fn parse(value: &Value) -> Result<usize, String> {
        rate::parse(value).map(|most| most.unwrap_or(usize::MAX))
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "all kinds look the same")]
    pub(in super::super) fn print(value: &usize) -> Option<String> {
        rate::print(&Some(*value).filter(|most| *most != usize::MAX))
    }
}

/// Networks, or single addresses.
pub(super) mod networks {
    use std::net::IpAddr;

    use ipnet::IpNet;

    use super::{Value, list};

    pub(in super::super) fn parse(value: &Value) -> Result<Vec<IpNet>, String> {
        list::parse(value)?.iter().map(|text| network(text)).collect()
    }

    pub(in super::super) fn print(value: &[IpNet]) -> Option<String> {
        let texts: Vec<_> = value.iter().map(ToString::to_string).collect();
        list::print(&texts)
    }

    fn network(text: &str) -> Result<IpNet, String> {
        let single = || text.parse::<IpAddr>().map(IpNet::from).ok();
        match text.parse().ok().or_else(single) {
            // An address is compared as what it is, so that nothing could ever be in it.
            Some(IpNet::V6(network)) if network.addr().to_ipv4_mapped().is_some() => {
                Err(format!("`{text}` stands for addresses of IPv4: write it as such"))
            }
            Some(network) => Ok(network),
            None => {
                Err(format!("`{text}` is no network: write an address, or one with its length as 10.0.0.0/8"))
            }
        }
    }
}

/// A number of bytes in a second, as people write it; 0 for any.
pub(super) mod byte_rate {
    use super::{Value, size};

    pub(in super::super) fn parse(value: &Value) -> Result<Option<usize>, String> {
        match super::rate::parse(value) {
            Ok(rate) => Ok(rate),
            Err(_) => size::parse(value).map(Some),
        }
    }

    #[expect(clippy::ref_option, reason = "all kinds look the same")]
    pub(in super::super) fn print(value: &Option<usize>) -> Option<String> {
        size::print(&value.unwrap_or(0))
    }
}

/// A number of bytes, at least one, as people write it.
pub(super) mod size {
    use super::{ByteSize, Value, quoted};

    const WANTED: &str = "a size such as \"64KiB\" or a number of bytes, at least 1";

    pub(in super::super) fn parse(value: &Value) -> Result<usize, String> {
        let bytes = match value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Plain(text) | Value::Text(text) => text.parse().ok().map(|size: ByteSize| size.as_u64()),
            _ => None,
        };
        let bytes = bytes.filter(|bytes| *bytes > 0).ok_or_else(|| value.unexpected(WANTED))?;
        usize::try_from(bytes).map_err(|_| format!("{bytes} bytes are too many"))
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        clippy::unnecessary_wraps,
        reason = "all kinds look the same"
    )]
    pub(in super::super) fn print(value: &usize) -> Option<String> {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let whole = units.into_iter().find(|(shift, _)| *value > 0 && value.trailing_zeros() >= *shift);
        Some(
            whole.map_or_else(
                || value.to_string(),
                |(shift, unit)| quoted(&format!("{}{unit}", value >> shift)),
            ),
        )
    }
}

/// A length of time, at most a day.
pub(super) mod duration {
    use super::{Duration, Value, quoted};

    pub(in super::super) fn parse(value: &Value) -> Result<Duration, String> {
        match parse_up_to_a_day(value)? {
            Duration::ZERO => Err("must be longer than nothing".to_owned()),
            some => Ok(some),
        }
    }

    pub(in super::super) fn parse_up_to_a_day(value: &Value) -> Result<Duration, String> {
        let time = parse_or_zero(value)?;
        if time > DAY {
            return Err("must be at most 24h".to_owned());
        }
        Ok(time)
    }

    pub(in super::super) fn parse_or_zero(value: &Value) -> Result<Duration, String> {
        const WANTED: &str = "a duration with its unit such as \"54s\" or \"1m 30s\"";
        humantime::parse_duration(value.text(WANTED)?).map_err(|_| value.unexpected(WANTED))
    }

    #[expect(clippy::unnecessary_wraps, reason = "all kinds look the same")]
    pub(in super::super) fn print(value: &Duration) -> Option<String> {
        Some(quoted(&humantime::format_duration(*value).to_string()))
    }

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
}

/// A length of time, at most a day, or none.
pub(super) mod window {
    pub(in super::super) use super::duration::{parse_up_to_a_day as parse, print};
}

/// A length of time, or none.
pub(super) mod leeway {
    pub(in super::super) use super::duration::{parse_or_zero as parse, print};
}

/// An address to listen on.
pub(super) mod address {
    use super::{SocketAddr, Value, quoted};

    pub(in super::super) fn parse(value: &Value) -> Result<SocketAddr, String> {
        const WANTED: &str =
            "a host or IP address and port, such as 127.0.0.1:8080 (no host name but localhost)";
        let text = value.text(WANTED)?;
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        numeric.as_deref().unwrap_or(text).parse().map_err(|_| value.unexpected(WANTED))
    }

    #[expect(clippy::unnecessary_wraps, reason = "all kinds look the same")]
    pub(in super::super) fn print(value: &SocketAddr) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

/// One of a few words.
pub(super) mod choice {
    use super::{Choice, Value, quoted};

    pub(in super::super) fn parse<T: Choice>(value: &Value) -> Result<T, String> {
        let words: Vec<_> = T::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let wanted = words.join(" or ");
        let text = value.text(&wanted)?;
        let found = T::WORDS.iter().find(|(word, _)| *word == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| value.unexpected(&wanted))
    }

    pub(in super::super) fn print<T: Choice>(value: &T) -> Option<String> {
        T::WORDS.iter().find(|(_, choice)| choice == value).map(|(word, _)| quoted(word))
    }
}

/// Texts; in the environment and flags separated by commas.
pub(super) mod list {
    use super::{Value, quoted};

    pub(in super::super) fn parse(value: &Value) -> Result<Vec<String>, String> {
        let items: Vec<String> = match value {
            Value::List(items) => items.clone(),
            Value::Plain(text) if text.trim().is_empty() => Vec::new(),
            Value::Plain(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
            other => return Err(other.unexpected("a list such as [\"one\", \"two\"]")),
        };
        if items.iter().any(String::is_empty) {
            return Err("has an empty item".to_owned());
        }
        Ok(items)
    }

    #[expect(clippy::unnecessary_wraps, reason = "all kinds look the same")]
    pub(in super::super) fn print(value: &[String]) -> Option<String> {
        let items: Vec<_> = value.iter().map(|item| quoted(item)).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// As [`list`], but one of them may also be given alone.
pub(super) mod one_or_list {
    use super::{Value, list, quoted};

    pub(in super::super) fn parse(value: &Value) -> Result<Vec<String>, String> {
        match value {
            Value::Text(one) => list::parse(&Value::List(vec![one.clone()])),
            other => list::parse(other),
        }
    }

    pub(in super::super) fn print(value: &[String]) -> Option<String> {
        match value {
            [] => None,
            [one] => Some(quoted(one)),
            several => list::print(several),
        }
    }
}

/// The path of a file, or nothing at all.
pub(super) mod path {
    use super::{PathBuf, Value, quoted, text};

    pub(in super::super) fn parse(value: &Value) -> Result<Option<PathBuf>, String> {
        Ok(text::parse(value)?.map(PathBuf::from))
    }

    #[expect(clippy::ref_option, reason = "all kinds look the same")]
    pub(in super::super) fn print(value: &Option<PathBuf>) -> Option<String> {
        value.as_ref().map(|path| quoted(&path.to_string_lossy()))
    }
}

/// Text that is not empty, or nothing at all.
pub(super) mod text {
    use super::{Value, quoted};

    pub(in super::super) fn parse(value: &Value) -> Result<Option<String>, String> {
        match value.text("text")? {
            "" => Err("must not be empty".to_owned()),
            text => Ok(Some(text.to_owned())),
        }
    }

    #[expect(clippy::ref_option, reason = "all kinds look the same")]
    pub(in super::super) fn print(value: &Option<String>) -> Option<String> {
        value.as_deref().map(quoted)
    }
}
