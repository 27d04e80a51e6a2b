//! What a phase asks of the clients: how much, how fast, of what kind and size.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::schedule::Arrivals;

/// One kind of operation in a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    /// A message to a room.
    Message,
    /// A message to one user.
    Direct,
    /// A message to everybody.
    Everyone,
    /// A message that comes back to its sender alone.
    Echo,
    /// The protocol's own heartbeat, with its answer.
    Ping,
    /// To leave a room and enter it again.
    Rejoin,
    /// To ask who is in a room.
    Presence,
}

impl Operation {
    /// Whether it sends a message, so that it can be done in a closed loop as well.
    pub(crate) fn publishes(self) -> bool {
        matches!(self, Self::Message | Self::Direct | Self::Everyone | Self::Echo)
    }
}

/// How messages are paced.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum Pace {
    #[default]
    Quiet,
    /// Closed loop: each audience has so many messages outstanding, and the next is sent when all have one.
    Window(u32),
    /// Open loop: so many operations a second over all audiences, whatever the server does.
    Rate(f64, Arrivals),
}

/// What one phase asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Load {
    pub(crate) pace: Pace,
    pub(crate) mix: Vec<(Operation, u32)>,
    /// Lengths of a message as delivered, in bytes, each with its weight.
    pub(crate) payload: Vec<(u32, u32)>,
    pub(crate) publishers: Share,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            pace: Pace::Quiet,
            mix: vec![(Operation::Message, 1)],
            payload: vec![(128, 1)],
            publishers: Share::Count(1),
        }
    }
}

/// So many, or so many of a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ShareText", into = "ShareText")]
pub(crate) enum Share {
    Count(u32),
    Percent(f64),
}

impl Share {
    pub(crate) const NONE: Self = Self::Count(0);

    /// The number of these many, rounded up, so that a share that is not 0 is somebody.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `all`")]
    pub(crate) fn of(self, all: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(all),
            Self::Percent(percent) => (f64::from(all) * percent / 100.0).ceil().min(f64::from(all)) as u32,
        }
    }
}

/// How a share is written: `10`, `"10"`, `"2.5%"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum ShareText {
    Number(u32),
    Text(String),
}

impl TryFrom<ShareText> for Share {
    type Error = String;

    fn try_from(text: ShareText) -> Result<Self, String> {
        match text {
            ShareText::Number(count) => Ok(Self::Count(count)),
            ShareText::Text(text) => text.parse(),
        }
    }
}

impl std::str::FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("a number such as 10 or a share such as 5%, not {text:?}");
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
                (0.0..=100.0).contains(&percent).then_some(Self::Percent(percent)).ok_or_else(wrong)
            }
            None => text.parse().map(Self::Count).map_err(|_| wrong()),
        }
    }
}

impl From<Share> for ShareText {
    fn from(share: Share) -> Self {
        match share {
            Share::Count(count) => Self::Number(count),
            Share::Percent(percent) => Self::Text(format!("{percent}%")),
        }
    }
}

/// Chooses by weight.
pub(crate) fn choose<T: Copy>(weighted: &[(T, u32)], random: &mut fastrand::Rng) -> T {
    if let [(only, _)] = weighted {
        return *only;
    }
    let total: u32 = weighted.iter().map(|(_, weight)| weight).sum();
    let mut ticket = random.u32(..total.max(1));
    for (value, weight) in weighted {
        match ticket.checked_sub(*weight) {
            Some(rest) => ticket = rest,
            None => return *value,
        }
    }
    weighted.last().expect("a mix is never empty").0
}

/// A mix as a file has it.
pub(crate) type Mix = BTreeMap<Operation, u32>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_numbers_or_percentages() {
        assert_eq!("10".parse(), Ok(Share::Count(10)));
        assert_eq!("2.5%".parse(), Ok(Share::Percent(2.5)));
        assert!(["", "%", "-1", "101%", "x"].iter().all(|text| text.parse::<Share>().is_err()));
        assert_eq!((Share::Percent(10.0).of(1005), Share::Count(7).of(5)), (101, 5));
        assert_eq!((Share::Percent(0.001).of(100), Share::NONE.of(100)), (1, 0));
    }

    #[test]
    fn choices_follow_their_weights_and_the_seed() {
        let mut random = fastrand::Rng::with_seed(1);
        let mix = [('a', 90), ('b', 10), ('c', 0)];
        let drawn: Vec<char> = (0..10_000).map(|_| choose(&mix, &mut random)).collect();
        let count = |letter| drawn.iter().filter(|drawn| **drawn == letter).count();
        assert!((8_800..9_200).contains(&count('a')) && count('c') == 0);
        assert_eq!(choose(&[('x', 0)], &mut random), 'x');
    }
}
