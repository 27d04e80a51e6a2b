//! The flags as typed: names, help, defaults; no meaning.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// Load-test harness for WebSocket gateways
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs one preset against a gateway
    Run(Run),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// Publishers keep a window of messages outstanding; each counts when all members have it
    Broadcast,
    /// Connects and holds: connects per second, and the server's memory per connection
    Idle,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Run {
    /// Where to connect, such as `ws://127.0.0.1:8080/ws`
    pub(crate) url: String,
    #[arg(long, value_enum, default_value = "broadcast")]
    pub(crate) preset: Preset,
    /// Connections to open; 10k means 10,000
    #[arg(short, long, default_value = "1k", value_parser = count)]
    pub(crate) connections: u32,
    /// Rooms to join: connection i joins room i % rooms, and each room has a publisher
    /// [default: 1 for broadcast, 0 for idle]
    #[arg(long, value_parser = count)]
    pub(crate) rooms: Option<u32>,
    /// Messages that each publisher keeps outstanding
    #[arg(long, default_value = "1", value_parser = count)]
    pub(crate) window: u32,
    /// How long to measure (broadcast) or to hold (idle), in seconds
    #[arg(short, long, default_value = "10", value_parser = seconds)]
    pub(crate) duration: Duration,
    /// How long to run before measuring, in seconds
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub(crate) warmup: Duration,
    /// Length of a whole JSON text as delivered, in bytes
    #[arg(long, default_value = "128", value_parser = count)]
    pub(crate) payload: u32,
    /// Idle: measure the memory per connection from this many connections on
    #[arg(long, default_value = "1k", value_parser = count)]
    pub(crate) baseline: u32,
    /// New connections per second at most [default: as fast as they are accepted]
    #[arg(long, value_parser = count)]
    pub(crate) connect_rate: Option<u32>,
    /// Address or range (127.0.0.2-127.0.0.9) to connect from; may be given several times
    #[arg(long, value_name = "ADDRESS", value_parser = addresses)]
    pub(crate) source_ip: Vec<Vec<IpAddr>>,
    /// Token to present at the upgrade
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// The server's process, to read its CPU time and memory from /proc
    #[arg(long, value_name = "PID", conflicts_with = "metrics")]
    pub(crate) server_pid: Option<u32>,
    /// The server's metrics page, to read its CPU time and memory there
    #[arg(long, value_name = "URL")]
    pub(crate) metrics: Option<String>,
    /// Print one JSON object instead of lines for people
    #[arg(long)]
    pub(crate) json: bool,
}

impl Run {
    pub(crate) fn rooms(&self) -> u32 {
        self.rooms.unwrap_or(match self.preset {
            Preset::Broadcast => 1,
            Preset::Idle => 0,
        })
    }

    /// What one flag says about another.
    ///
    /// # Errors
    ///
    /// The mistake in words, for standard error and exit code 2.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { connections, .. } = *self;
        if self.rooms() > connections {
            return Err(format!("--rooms {} needs at least as many --connections", self.rooms()));
        }
        match self.preset {
            Preset::Broadcast if self.rooms() == 0 => {
                Err("--preset broadcast needs --rooms 1 or more".into())
            }
            Preset::Broadcast if !(1..=65_536).contains(&self.window) => {
                Err("--window is a number from 1 to 65536".into())
            }
            Preset::Idle if self.baseline >= connections => {
                Err(format!("--baseline {} must be less than --connections {connections}", self.baseline))
            }
            _ if connections == 0 => Err("--connections must be at least 1".into()),
            _ => Ok(()),
        }
    }
}

fn count(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    let number: Option<u32> = digits.parse().ok();
    number.and_then(|number| number.checked_mul(unit)).ok_or_else(|| "a number such as 500 or 10k".into())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: Option<f64> = text.strip_suffix('s').unwrap_or(text).parse().ok();
    let duration = number.and_then(|number| Duration::try_from_secs_f64(number).ok());
    duration.filter(|d| d.as_secs() < 86_400).ok_or_else(|| "seconds, such as 10 or 0.5, below a day".into())
}

fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let wrong = || format!("an address, or a range of at most 65536 IPv4 addresses: {text}");
    let Some((first, last)) = text.split_once('-') else {
        return text.parse().map(|address| vec![address]).map_err(|_| wrong());
    };
    let first: Ipv4Addr = first.parse().map_err(|_| wrong())?;
    let last: Ipv4Addr = last.parse().map_err(|_| wrong())?;
    let range = first.to_bits()..=last.to_bits();
    if range.is_empty() || range.end() - range.start() > 0xFFFF {
        return Err(wrong());
    }
    Ok(range.map(|bits| Ipv4Addr::from_bits(bits).into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Run {
        let Command::Run(run) =
            Cli::try_parse_from(["fanfare-loadtest", "run"].into_iter().chain(line.split(' ')))
                .unwrap()
                .command;
        run
    }

    #[test]
    fn counts_may_be_written_in_thousands() {
        assert_eq!((count("10k"), count("7"), count("2M")), (Ok(10_000), Ok(7), Ok(2_000_000)));
        assert!(["", "k", "-1", "1.5k", "9999999k"].iter().all(|text| count(text).is_err()));
    }

    #[test]
    fn source_addresses_may_be_a_range() {
        assert_eq!(addresses("127.0.0.2-127.0.0.4").unwrap().len(), 3);
        assert_eq!(addresses("::1").unwrap().len(), 1);
        assert!(
            ["127.0.0.4-127.0.0.2", "0.0.0.0-9.0.0.0", "x", "::1-::2"]
                .iter()
                .all(|text| addresses(text).is_err())
        );
    }

    #[test]
    fn a_whole_command_line_is_understood() {
        let run =
            parse("ws://h/ws --preset broadcast -c 10k --window 8 -d 5 --warmup 0.5s --source-ip 127.0.0.2");
        assert_eq!((run.connections, run.window, run.rooms()), (10_000, 8, 1));
        assert_eq!((run.duration, run.warmup), (Duration::from_secs(5), Duration::from_millis(500)));
        assert_eq!(run.check(), Ok(()));
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        assert!(parse("u --preset idle -c 10 --baseline 10").check().is_err());
        assert!(parse("u -c 10 --rooms 11").check().is_err());
        assert!(parse("u --rooms 0").check().is_err());
        assert!(parse("u --window 0").check().is_err());
        assert!(parse("u -c 0 --rooms 0 --preset idle --baseline 0").check().is_err());
    }
}
