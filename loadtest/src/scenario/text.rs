//! How durations and payloads are written in a scenario file.

/// `"1m 30s"`, or a number of seconds.
pub(super) mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Text {
        Seconds(f64),
        Words(String),
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        match Text::deserialize(from)? {
            Text::Seconds(seconds) => Duration::try_from_secs_f64(seconds).map_err(de::Error::custom),
            Text::Words(words) => humantime::parse_duration(&words)
                .map_err(|error| de::Error::custom(format!("{words:?} is no duration such as 30s: {error}"))),
        }
        .map(Some)
    }

    #[expect(clippy::ref_option, reason = "the shape that serde asks for")]
    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, into: S) -> Result<S::Ok, S::Error> {
        duration.map(|duration| humantime::format_duration(duration).to_string()).serialize(into)
    }
}

/// `128`, or `[[128, 9], [4096, 1]]`: lengths with their weights.
pub(super) mod payload {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Text {
        One(u32),
        Several(Vec<(u32, u32)>),
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(u32, u32)>, D::Error> {
        Ok(match Text::deserialize(from)? {
            Text::One(length) => vec![(length, 1)],
            Text::Several(lengths) => lengths,
        })
    }

    pub(crate) fn serialize<S: Serializer>(payload: &[(u32, u32)], into: S) -> Result<S::Ok, S::Error> {
        match payload {
            [(length, 1)] => length.serialize(into),
            several => several.serialize(into),
        }
    }
}
