//! The scenarios that are made from a few flags.

use std::time::Duration;

use clap::ValueEnum;

use super::{Phase, Rooms, Scenario, Sizes};
use crate::traffic::load::{Mix, Operation, Share};
use crate::traffic::schedule::Arrivals;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// Every client gets its own messages back: round trips
    Echo,
    /// One room with everybody in it (or --rooms), one publisher
    Broadcast,
    /// Many rooms, of equal sizes or after Zipf's law, each with a publisher
    Rooms,
    /// Messages from user to user
    Direct,
    /// Connects and holds: memory per connection, and what doing nothing costs
    Idle,
    /// Clients come and go while others talk
    Churn,
    /// Some clients stop reading: what the others keep of their throughput
    SlowReader,
    /// Clients are cut off all at once and come back at once, while the others talk
    ReconnectStorm,
    /// Members enter and leave, and ask who is there
    Presence,
}

/// What flags say of a scenario's shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub(crate) connections: Option<u32>,
    pub(crate) connect_rate: Option<f64>,
    pub(crate) ramp: Option<Duration>,
    pub(crate) rooms: Option<u32>,
    pub(crate) sizes: Option<Sizes>,
    pub(crate) per_connection: Option<u32>,
    pub(crate) rate: Option<f64>,
    pub(crate) arrivals: Arrivals,
    pub(crate) window: Option<u32>,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    pub(crate) payload: u32,
    pub(crate) publishers: Share,
    pub(crate) baseline: u32,
    /// The share of slow readers, of a storm, or the clients that come and go a second.
    pub(crate) slow_readers: Share,
    pub(crate) cut: Share,
    pub(crate) churn: f64,
    pub(crate) reconnect: bool,
}

impl Preset {
    /// As it is typed.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Its description.
    pub(crate) fn help(self) -> String {
        self.to_possible_value()
            .and_then(|value| value.get_help().map(ToString::to_string))
            .unwrap_or_default()
    }

    /// The scenario of this preset with what the flags say.
    pub(crate) fn scenario(self, shape: &Shape) -> Scenario {
        let connections = shape.connections.unwrap_or(1000);
        let rooms = match self {
            Self::Echo | Self::Direct | Self::Idle => shape.rooms.unwrap_or(0),
            Self::Broadcast | Self::SlowReader => shape.rooms.unwrap_or(1),
            Self::Rooms => shape.rooms.unwrap_or((connections / 10).max(1)),
            Self::Churn | Self::Presence | Self::ReconnectStorm => {
                shape.rooms.unwrap_or((connections / 100).max(1))
            }
        };
        let standard = if self == Self::Rooms { Sizes::Zipf } else { Sizes::Uniform };
        Scenario {
            name: self.name(),
            targets: Vec::new(),
            dialect: if self == Self::Echo { "plain" } else { "fanfare" }.to_owned(),
            seed: 1,
            rooms: Rooms {
                count: rooms,
                sizes: shape.sizes.unwrap_or(standard),
                per_connection: shape.per_connection.unwrap_or(1),
                ..Rooms::default()
            },
            reconnect: shape.reconnect
                || matches!(self, Self::Churn | Self::SlowReader | Self::ReconnectStorm),
            phases: self.phases(connections, shape),
        }
    }

    fn phases(self, connections: u32, shape: &Shape) -> Vec<Phase> {
        let load = self.load(shape);
        let measured = |name: &str| Phase {
            name: name.to_owned(),
            duration: Some(shape.duration),
            measured: true,
            ..load.clone()
        };
        let mut phases = vec![connect("connect", connections, shape)];
        if self == Self::Idle {
            let baseline = shape.baseline.min(connections / 2).max(1);
            let quiet = |name: &str, seconds| Phase {
                name: name.to_owned(),
                duration: Some(seconds),
                measured: true,
                ..Phase::default()
            };
            let second = Duration::from_secs(1);
            let begin = Phase { measured: false, ..connect("begin", baseline, shape) };
            let rest = Phase { measured: false, ..quiet("baseline", second) };
            let grow = Phase { measured: true, ..connect("grow", connections, shape) };
            return vec![begin, rest, grow, quiet("hold", shape.duration.max(second))];
        }
        if !shape.warmup.is_zero() {
            phases.push(Phase { name: "warm-up".to_owned(), duration: Some(shape.warmup), ..load.clone() });
        }
        match self {
            Self::SlowReader => {
                phases.push(measured("all read"));
                phases.push(Phase { slow_readers: Some(shape.slow_readers), ..measured("some stopped") });
                phases.push(measured("all read again"));
            }
            Self::ReconnectStorm => {
                phases.push(measured("normal"));
                phases.push(Phase { cut: Some(shape.cut), ..measured("storm") });
            }
            Self::Churn => {
                phases.push(Phase { churn: Some(shape.churn), aborts: true, ..measured("churn") });
                let settle = Some(Duration::from_secs(1));
                phases.push(Phase { name: "settle".to_owned(), duration: settle, ..Phase::default() });
            }
            _ => phases.push(measured(&self.name())),
        }
        phases
    }

    /// What all phases with messages have in common.
    fn load(self, shape: &Shape) -> Phase {
        let mix: &[(Operation, u32)] = match self {
            Self::Echo => &[(Operation::Echo, 1)],
            Self::Direct => &[(Operation::Direct, 1)],
            Self::Presence => &[(Operation::Rejoin, 50), (Operation::Presence, 30), (Operation::Message, 20)],
            _ => &[(Operation::Message, 1)],
        };
        let open = match self {
            Self::Rooms | Self::Direct => Some(1000.0),
            Self::Churn | Self::ReconnectStorm => Some(100.0),
            Self::Presence => Some(500.0),
            _ => None,
        };
        let rate = shape.rate.or(open.filter(|_| shape.window.is_none()));
        let standard = if self == Self::SlowReader { 8 } else { 1 };
        Phase {
            rate,
            window: if rate.is_some() { None } else { Some(shape.window.unwrap_or(standard)) },
            arrivals: shape.arrivals,
            mix: mix.iter().copied().collect::<Mix>(),
            payload: vec![(shape.payload, 1)],
            publishers: Some(shape.publishers),
            ..Phase::default()
        }
    }
}

/// The phase that opens connections.
fn connect(name: &str, connections: u32, shape: &Shape) -> Phase {
    Phase {
        name: name.to_owned(),
        connections: Some(connections),
        connect_rate: shape.connect_rate.filter(|_| shape.ramp.is_none()),
        duration: shape.ramp,
        ramp: shape.ramp.is_some(),
        ..Phase::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn shape() -> Shape {
        Shape {
            connections: None,
            connect_rate: None,
            ramp: None,
            rooms: None,
            sizes: None,
            per_connection: None,
            rate: None,
            arrivals: Arrivals::Constant,
            window: None,
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(2),
            payload: 128,
            publishers: Share::Count(1),
            baseline: 1000,
            slow_readers: Share::Percent(10.0),
            cut: Share::Percent(50.0),
            churn: 100.0,
            reconnect: false,
        }
    }

    #[test]
    fn every_preset_is_a_scenario_that_can_be_saved_and_read_again() {
        for preset in Preset::value_variants() {
            for connections in [None, Some(1), Some(50)] {
                let scenario = preset.scenario(&Shape { connections, ..shape() });
                scenario.check().unwrap_or_else(|error| panic!("{preset:?}: {error:#}"));
                let text = toml::to_string(&scenario).unwrap();
                assert_eq!(toml::from_str::<Scenario>(&text).unwrap(), scenario, "{text}");
                assert!(scenario.phases.iter().any(|phase| phase.measured));
            }
            assert!(!preset.help().is_empty());
        }
    }

    #[test]
    fn a_rate_opens_the_loop_and_a_window_closes_it() {
        let measured = |preset: Preset, shape: &Shape| {
            let scenario = preset.scenario(shape);
            let phase = scenario.phases.iter().find(|phase| phase.measured).unwrap();
            (phase.rate, phase.window)
        };
        assert_eq!(measured(Preset::Broadcast, &shape()), (None, Some(1)));
        assert_eq!(measured(Preset::Broadcast, &Shape { rate: Some(5.0), ..shape() }), (Some(5.0), None));
        assert_eq!(measured(Preset::Rooms, &shape()), (Some(1000.0), None));
        assert_eq!(measured(Preset::Rooms, &Shape { window: Some(2), ..shape() }), (None, Some(2)));
    }
}
