//! What a run does: who connects, and what happens in which phase. A preset is a scenario that is made from a few flags.

mod preset;
mod text;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::traffic::Layout;
use crate::traffic::load::{Load, Mix, Operation, Pace, Share};
use crate::traffic::schedule::Arrivals;

pub(crate) use preset::{Preset, Shape};

/// A whole scenario, as its TOML file has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// Where to connect; clients take turns over several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) targets: Vec<String>,
    /// A built-in dialect, or the path of a file.
    #[serde(default = "fanfare")]
    pub(crate) dialect: String,
    #[serde(default = "one")]
    pub(crate) seed: u64,
    #[serde(default)]
    pub(crate) rooms: Rooms,
    /// Clients come back when the server has ended their connection, as it advises or after a growing pause of random
    /// length.
    #[serde(default)]
    pub(crate) reconnect: bool,
    pub(crate) phases: Vec<Phase>,
}

/// The rooms, and who is in them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rooms {
    pub(crate) count: u32,
    pub(crate) sizes: Sizes,
    /// Of `zipf`: the room in place k has a share of 1/k to this power.
    pub(crate) exponent: f64,
    /// In how many rooms each client is.
    pub(crate) per_connection: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sizes {
    /// All rooms are as large as each other.
    #[default]
    Uniform,
    /// A few are large and most are small.
    Zipf,
}

/// One part of the run. It ends when its time is over and the connections are there; without a duration, as soon as
/// they are there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Phase {
    pub(crate) name: String,
    #[serde(default, with = "text::optional_duration", skip_serializing_if = "Option::is_none")]
    pub(crate) duration: Option<Duration>,
    /// Clients to be connected; as before if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<u32>,
    /// New connections a second at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connect_rate: Option<f64>,
    /// The new connections are spread over the duration.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) ramp: bool,
    /// Open loop: operations a second, over all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    #[serde(default)]
    pub(crate) arrivals: Arrivals,
    /// Closed loop: messages that each room (user, client) has outstanding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<u32>,
    /// Operations by weight; messages to rooms if absent.
    #[serde(default, skip_serializing_if = "Mix::is_empty")]
    pub(crate) mix: Mix,
    /// The length of a message as delivered, in bytes, or several with their weights.
    #[serde(default, with = "text::payload")]
    pub(crate) payload: Vec<(u32, u32)>,
    /// Who publishes in a room, of its members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) publishers: Option<Share>,
    /// Clients that stop reading for the phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slow_readers: Option<Share>,
    /// Clients whose connections are cut at the beginning, all at once, and that come back at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cut: Option<Share>,
    /// Clients that leave and come back, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) churn: Option<f64>,
    /// Half of those that leave reset the connection instead of closing it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) aborts: bool,
    /// Whether the figures of the whole run include the phase.
    #[serde(default)]
    pub(crate) measured: bool,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { count: 1, sizes: Sizes::Uniform, exponent: 1.0, per_connection: 1 }
    }
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// What is wrong, and where in the file.
    pub(crate) fn read(path: &str) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("the scenario {path} cannot be read"))?;
        let scenario: Self =
            toml::from_str(&text).with_context(|| format!("the scenario {path} is not understood"))?;
        scenario.check().with_context(|| format!("the scenario {path}"))?;
        Ok(scenario)
    }

    /// # Errors
    ///
    /// What one part says against another.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.phases.is_empty(), "`phases` is empty: nothing would happen");
        ensure!(self.clients() > 0, "`connections` must be at least 1 in some phase");
        let rooms = &self.rooms;
        ensure!(
            rooms.count <= self.clients().saturating_mul(rooms.per_connection.max(1)),
            "`rooms.count` is {}, more than the places that {} connections take",
            rooms.count,
            self.clients()
        );
        ensure!(
            rooms.count == 0 || (1..=rooms.count).contains(&rooms.per_connection),
            "`rooms.per_connection` must be from 1 to `rooms.count`"
        );
        ensure!((0.0..=10.0).contains(&rooms.exponent), "`rooms.exponent` must be from 0 to 10");
        for phase in &self.phases {
            phase.check(rooms.count).with_context(|| format!("phase {:?}", phase.name))?;
        }
        Ok(())
    }

    /// The most clients that are connected at once.
    pub(crate) fn clients(&self) -> u32 {
        self.phases.iter().filter_map(|phase| phase.connections).max().unwrap_or(0)
    }

    pub(crate) fn layout(&self) -> Layout {
        let does = |operation| {
            let has = |phase: &Phase| phase.mix.get(&operation).is_some_and(|weight| *weight > 0);
            self.phases.iter().any(has)
        };
        Layout {
            clients: self.clients(),
            rooms: self.rooms.count,
            users: does(Operation::Direct),
            own: does(Operation::Echo),
            everyone: does(Operation::Everyone),
        }
    }

    /// The rooms of each client.
    pub(crate) fn seating(&self) -> Vec<SmallVec<[u32; 1]>> {
        let Rooms { count, sizes, exponent, per_connection } = self.rooms;
        let clients = self.clients();
        if count == 0 {
            return vec![SmallVec::new(); clients as usize];
        }
        match sizes {
            Sizes::Uniform => (0..clients)
                .map(|client| {
                    // The rooms of a client lie so far apart that they are different ones.
                    let stride = (count / per_connection).max(1);
                    (0..per_connection).map(|turn| (client + turn * stride) % count).collect()
                })
                .collect(),
            Sizes::Zipf => {
                let shares = zipf(count, exponent);
                (0..clients).map(|client| draw(&shares, client, clients, per_connection)).collect()
            }
        }
    }
}

/// The cumulative shares of rooms whose sizes follow Zipf's law.
fn zipf(count: u32, exponent: f64) -> Vec<f64> {
    let weights = (1..=count).map(|place| f64::from(place).powf(-exponent));
    let mut shares: Vec<f64> = weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    let total = *shares.last().expect("there is a room");
    for share in &mut shares {
        *share /= total;
    }
    shares
}

/// The rooms of one client: places spread evenly over the shares, so that sizes are as exact as whole numbers allow.
/// The first clients fill each room with one member.
fn draw(shares: &[f64], client: u32, clients: u32, per_connection: u32) -> SmallVec<[u32; 1]> {
    let count = u32::try_from(shares.len()).unwrap_or(u32::MAX);
    let mut rooms = SmallVec::new();
    for turn in 0..per_connection {
        let place = turn * clients + client;
        let room = if place < count {
            place
        } else {
            let rest = f64::from(place - count) + 0.5;
            let all = f64::from(clients) * f64::from(per_connection) - f64::from(count);
            let ticket = rest / all;
            u32::try_from(shares.partition_point(|share| *share < ticket)).unwrap_or(0).min(count - 1)
        };
        let free = (0..count).map(|step| (room + step) % count).find(|room| !rooms.contains(room));
        rooms.extend(free);
    }
    rooms
}

impl Phase {
    fn check(&self, rooms: u32) -> Result<()> {
        ensure!(
            self.rate.is_none() || self.window.is_none(),
            "`rate` (open loop) and `window` (closed loop) exclude each other"
        );
        ensure!(
            [self.rate, self.churn, self.connect_rate]
                .iter()
                .flatten()
                .all(|rate| *rate > 0.0 && *rate <= 1e7),
            "`rate`, `churn` and `connect_rate` must be above 0, at most 10 million"
        );
        ensure!(
            self.window.is_none_or(|window| (1..=65_536).contains(&window)),
            "`window` must be from 1 to 65536"
        );
        ensure!(
            !self.ramp || self.duration.is_some(),
            "`ramp` needs a `duration` to spread the connections over"
        );
        ensure!(!self.ramp || self.connect_rate.is_none(), "`ramp` and `connect_rate` exclude each other");
        ensure!(
            self.duration.is_some_and(|duration| !duration.is_zero())
                || self.connections.is_some()
                || self.cut.is_some(),
            "it has neither a `duration` above 0 nor `connections`, so it would be over at once"
        );
        ensure!(
            self.payload.iter().all(|(size, _)| *size <= PAYLOAD_MAX),
            "`payload` must be at most {PAYLOAD_MAX} bytes"
        );
        let mix: u64 = self.mix.values().copied().map(u64::from).sum();
        let payload: u64 = self.payload.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let weights = 1..=u64::from(u32::MAX);
        ensure!(
            (self.mix.is_empty() || weights.contains(&mix))
                && (self.payload.is_empty() || weights.contains(&payload)),
            "the weights in `mix` and in `payload` must have a sum above 0 that fits into 32 bits"
        );
        if self.pace() == Pace::Quiet {
            return Ok(());
        }
        ensure!(
            !matches!(self.publishers, Some(none) if none.of(u32::MAX) == 0),
            "`publishers` must be above 0: without a `rate` and a `window` nobody publishes"
        );
        let is_for_rooms = |operation: &Operation| {
            matches!(operation, Operation::Message | Operation::Rejoin | Operation::Presence)
        };
        if rooms == 0 && (self.mix.is_empty() || self.mix.keys().any(is_for_rooms)) {
            bail!("it needs rooms for its messages, and `rooms.count` is 0");
        }
        if self.window.is_some()
            && !self.mix.is_empty()
            && !self.mix.keys().any(|operation| operation.publishes())
        {
            bail!("a `window` needs messages in the `mix`");
        }
        Ok(())
    }

    fn pace(&self) -> Pace {
        match (self.rate, self.window) {
            (Some(rate), _) => Pace::Rate(rate, self.arrivals),
            (None, Some(window)) => Pace::Window(window),
            (None, None) => Pace::Quiet,
        }
    }

    pub(crate) fn load(&self) -> Load {
        let standard = Load::default();
        Load {
            pace: self.pace(),
            mix: if self.mix.is_empty() { standard.mix } else { self.mix.clone().into_iter().collect() },
            payload: if self.payload.is_empty() { standard.payload } else { self.payload.clone() },
            publishers: self.publishers.unwrap_or(standard.publishers),
        }
    }

    /// Whether messages are sent in it.
    pub(crate) fn publishes(&self) -> bool {
        self.pace() != Pace::Quiet
            && self.load().mix.iter().any(|(operation, weight)| operation.publishes() && *weight > 0)
    }

    pub(crate) fn slow_readers(&self) -> Share {
        self.slow_readers.unwrap_or(Share::NONE)
    }

    pub(crate) fn cut(&self) -> Share {
        self.cut.unwrap_or(Share::NONE)
    }
}

/// The longest message that a client of this load test reads in one frame, with room for what the server adds.
const PAYLOAD_MAX: u32 = 250_000;

fn fanfare() -> String {
    "fanfare".to_owned()
}

fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(text: &str) -> Result<Scenario> {
        let scenario: Scenario = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    const SMALL: &str = "name = 'x'\n[[phases]]\nname = 'a'\nconnections = 10\n";

    fn sizes(rooms: Rooms, clients: u32) -> Vec<usize> {
        let mut scenario = scenario(SMALL).unwrap();
        scenario.phases[0].connections = Some(clients);
        let count = rooms.count;
        scenario.rooms = rooms;
        let seating = scenario.seating();
        assert!(seating.iter().all(|rooms| {
            let mut sorted = rooms.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            sorted.len() == rooms.len()
        }));
        (0..count).map(|room| seating.iter().filter(|rooms| rooms.contains(&room)).count()).collect()
    }

    #[test]
    fn a_small_file_has_sensible_defaults() {
        let scenario = scenario(SMALL).unwrap();
        assert_eq!((scenario.clients(), &*scenario.dialect, scenario.seed), (10, "fanfare", 1));
        assert_eq!(scenario.phases[0].load(), Load::default());
    }

    #[test]
    fn a_whole_file_is_understood_and_can_be_written_again() {
        let text = "name = 'x'\nreconnect = true\n[rooms]\ncount = 5\nsizes = 'zipf'\n[[phases]]\nname = 'a'\n\
            duration = '1m 30s'\nconnections = 100\nramp = true\nrate = 50.5\narrivals = 'poisson'\n\
            mix = { message = 9, ping = 1 }\npayload = [[128, 9], [4096, 1]]\npublishers = '5%'\nslow_readers = 3\n\
            cut = '50%'\nchurn = 10\naborts = true\nmeasured = true\n";
        let whole = scenario(text).unwrap();
        assert_eq!(whole.phases[0].duration, Some(Duration::from_secs(90)));
        assert_eq!(whole.phases[0].payload, [(128, 9), (4096, 1)]);
        assert_eq!(toml::from_str::<Scenario>(&toml::to_string(&whole).unwrap()).unwrap(), whole);
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_the_phase_and_the_key() {
        for (line, key) in [
            ("rate = 1.0\nwindow = 1", "window"),
            ("ramp = true", "ramp"),
            ("window = 0", "window"),
            ("rate = 0.0", "rate"),
            ("mix = { ping = 1 }\nwindow = 2", "mix"),
            ("mix = { ping = 0 }\nrate = 1", "mix"),
            ("payload = [[128, 4000000000], [256, 4000000000]]", "payload"),
            ("payload = 1000000", "payload"),
            ("churn = inf", "churn"),
            ("publishers = 0\nrate = 1", "publishers"),
        ] {
            let error = format!("{:#}", scenario(&format!("{SMALL}{line}\n")).unwrap_err());
            assert!(error.contains(key) && error.contains("\"a\""), "{error}");
        }
        assert!(scenario(&format!("rooms.count = 11\n{SMALL}")).is_err());
        assert!(scenario(&format!("{SMALL}rat = 1.0\n")).unwrap_err().to_string().contains("rat"));
        assert!(scenario("name = 'x'\nphases = []\n").is_err());
        assert!(scenario(&format!("{SMALL}[[phases]]\nname = 'b'\nduration = 0\nrate = 1\n")).is_err());
        assert!(scenario(&format!("rooms.count = 0\n{SMALL}rate = 1\nmix = {{ presence = 1 }}\n")).is_err());
    }

    #[test]
    fn uniform_rooms_are_equally_large() {
        let rooms = Rooms { count: 10, ..Rooms::default() };
        assert_eq!(sizes(rooms.clone(), 100), [10; 10]);
        assert_eq!(sizes(Rooms { per_connection: 3, ..rooms }, 100), [30; 10]);
    }

    #[test]
    fn zipf_rooms_follow_the_law_and_none_is_empty() {
        let rooms = Rooms { count: 100, sizes: Sizes::Zipf, ..Rooms::default() };
        let sizes = sizes(rooms, 10_000);
        assert_eq!(sizes.iter().sum::<usize>(), 10_000);
        assert!(sizes.iter().all(|size| *size > 0));
        let ratio = sizes[0] / sizes[9];
        assert!((9..=10).contains(&ratio), "{sizes:?}");
    }
}
