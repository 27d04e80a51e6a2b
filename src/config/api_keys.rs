//! The keys of the API: a list of tables.

use crate::admin::{ApiKey, ApiKeys, KEY_BYTES_MIN, Scope};

use super::Choice;
use super::tables::{self, Faults, Kind};
use super::value::{Value, choice, list, quoted, text};

/// What a table has.
const KEYS: [&str; 3] = ["name", "key", "scopes"];

const KIND: Kind = Kind {
    noun: "key",
    known_by: "name",
    wanted: "must be tables in the file, such as [[api.keys]] with `name`, `key` and `scopes`",
    inline: "must be a TOML array of tables, such as [{ name = \"backend\", key = \"...\", scopes = [\"publish\"] }]",
};

impl Choice for Scope {
    const WORDS: &'static [(&'static str, Self)] =
        &[("publish", Self::Publish), ("read", Self::Read), ("manage", Self::Manage)];
}

/// Reads all keys; no reason repeats a secret.
pub(super) fn parse(value: &Value) -> Result<ApiKeys, Faults> {
    let keys = tables::read(value, &KIND, |entries, others| {
        let key = api_key(entries)?;
        twin_of(&key, others).map_or(Ok(key), |reason| Err(vec![reason]))
    });
    keys.map(|keys| ApiKeys(keys.into()))
}

pub(super) fn print(keys: &ApiKeys) -> String {
    let key = |key: &ApiKey| {
        let scopes: Vec<_> = key.scopes().iter().map(|scope| quoted(scope.as_str())).collect();
        let (name, scopes) = (quoted(key.name()), scopes.join(", "));
        format!("{{ name = {name}, key = \"********\", scopes = [{scopes}] }}")
    };
    let keys: Vec<_> = keys.0.iter().map(key).collect();
    format!("[{}]", keys.join(", "))
}

/// What of a key was there before.
fn twin_of(key: &ApiKey, others: &[ApiKey]) -> Option<String> {
    let twin = |is: &dyn Fn(&ApiKey) -> bool| others.iter().find(|other| is(other));
    if twin(&|other| other.name() == key.name()).is_some() {
        return Some(format!("`name`: there is another key called `{}`", key.name()));
    }
    let twin = twin(&|other| other.is_same_secret(key))?;
    Some(format!("`key`: is that of `{}` as well; give each its own", twin.name()))
}

fn api_key(table: &[(String, Value)]) -> Result<ApiKey, Vec<String>> {
    let mut mistakes = Vec::new();
    let (mut name, mut secret, mut scopes) = (None, None, None);
    for (key, value) in table {
        let read = match key.as_str() {
            "name" => text::parse(value).map(|text| name = text),
            "key" => parse_secret(value).map(|text| secret = Some(text)),
            "scopes" => parse_scopes(value).map(|read| scopes = Some(read)),
            _ => {
                mistakes.push(tables::unknown(key, &KEYS));
                continue;
            }
        };
        mistakes.extend(read.err().map(|reason| format!("`{key}`: {reason}")));
    }
    for missing in KEYS.iter().filter(|wanted| !table.iter().any(|(key, _)| key == *wanted)) {
        mistakes.push(format!("`{missing}` is missing"));
    }
    match (name, secret, scopes) {
        (Some(name), Some(secret), Some(scopes)) if mistakes.is_empty() => {
            Ok(ApiKey::new(name, secret, scopes))
        }
        _ => Err(mistakes),
    }
}

/// The usual reasons would repeat the value.
fn parse_secret(value: &Value) -> Result<&str, String> {
    let Value::Text(secret) = value else { return Err("must be text".to_owned()) };
    if secret.len() < KEY_BYTES_MIN {
        let bytes = secret.len();
        return Err(format!("has {bytes} bytes: at least {KEY_BYTES_MIN} are needed, best at random"));
    }
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be visible ASCII without spaces, since it is sent in a header".to_owned());
    }
    Ok(secret)
}

fn parse_scopes(value: &Value) -> Result<Vec<Scope>, String> {
    let words = list::parse(value)?;
    if words.is_empty() {
        return Err("is empty, so that the key is for nothing".to_owned());
    }
    let mut scopes = Vec::new();
    for word in words {
        let scope: Scope = choice::parse(&Value::Text(word))?;
        if scopes.contains(&scope) {
            return Err(format!("has \"{}\" twice", scope.as_str()));
        }
        scopes.push(scope);
    }
    Ok(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str =
        "{ name = \"a\", key = \"0123456789-0123456789-0123456789a\", scopes = [\"publish\"] }";

    fn read(text: &str) -> Result<ApiKeys, String> {
        let told =
            |faults: Faults| faults.0.into_iter().map(|fault| fault.reason).collect::<Vec<_>>().join("; ");
        parse(&Value::Plain(text.to_owned())).map_err(told)
    }

    #[test]
    fn reads_keys_and_prints_them_without_their_secrets() {
        let second =
            "{ name = \"b\", key = \"0123456789-0123456789-0123456789b\", scopes = [\"read\", \"manage\"] }";

        let keys = read(&format!("[{FIRST}, {second}]")).unwrap();

        assert_eq!(
            print(&keys),
            "[{ name = \"a\", key = \"********\", scopes = [\"publish\"] }, \
             { name = \"b\", key = \"********\", scopes = [\"read\", \"manage\"] }]"
        );
        assert_eq!(print(&read("[]").unwrap()), "[]");
    }

    #[test]
    fn tells_each_mistake_by_its_place_and_no_secret() {
        for (key, mistake) in [
            ("{ }", "key 2: `name` is missing; key 2: `key` is missing; key 2: `scopes` is missing"),
            (
                "{ name = \"b\", key = \"secret\", scopes = [\"read\"] }",
                "key 2 (`b`): `key`: has 6 bytes: at least 32",
            ),
            ("{ name = \"b\", key = 5, scopes = [\"read\"] }", "key 2 (`b`): `key`: must be text"),
            (
                "{ name = \"b\", key = \"0123456789 secret 6789-0123456789\", scopes = [\"read\"] }",
                "key 2 (`b`): `key`: must be visible ASCII without spaces",
            ),
            (
                "{ name = \"b\", key = \"0123456789-secret-6789-0123456789\", scopes = [\"write\"] }",
                "key 2 (`b`): `scopes`: expected \"publish\" or \"read\" or \"manage\", got `write`",
            ),
            (
                "{ name = \"b\", key = \"0123456789-secret-6789-0123456789\", scopes = [] }",
                "key 2 (`b`): `scopes`: is empty",
            ),
            (
                "{ name = \"b\", key = \"0123456789-secret-6789-0123456789\", scopes = [\"read\", \"read\"] }",
                "key 2 (`b`): `scopes`: has \"read\" twice",
            ),
            (
                "{ name = \"b\", key = \"0123456789-secret-6789-0123456789\", scope = [\"read\"], scopes = [\"read\"] }",
                "key 2 (`b`): unknown key `scope`; known are `name`, `key`, `scopes`",
            ),
            (
                "{ name = \"a\", key = \"0123456789-secret-6789-0123456789\", scopes = [\"read\"] }",
                "key 2 (`a`): `name`: there is another key called `a`",
            ),
            (
                "{ name = \"b\", key = \"0123456789-0123456789-0123456789a\", scopes = [\"read\"] }",
                "key 2 (`b`): `key`: is that of `a` as well",
            ),
        ] {
            let told = read(&format!("[{FIRST}, {key}]")).unwrap_err();
            assert!(told.starts_with(mistake), "{told}");
            assert!(!told.contains("secret") && !told.contains("0123"), "{told}");
        }
        for text in ["backend", "5", "[5]", "[\"backend\"]"] {
            assert!(read(text).unwrap_err().starts_with("must be "), "{text}");
        }
    }
}
