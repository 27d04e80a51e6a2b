//! The flags as typed: names, help, defaults; no meaning.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::outcome::Threshold;
use crate::scenario::{Preset, Shape, Sizes};
use crate::traffic::load::Share;
use crate::traffic::schedule::Arrivals;

/// Load-test harness for WebSocket gateways
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 passed; 1 faults, or the run failed; 2 bad usage; 99 a threshold was missed; \
                          130 stopped by Ctrl-C";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a preset or a scenario file against a server
    Run(Box<Run>),
    /// Makes the summary, or an HTML report, of a result again
    Report {
        /// result.json of a run
        result: PathBuf,
        /// Write the report here instead of printing the summary
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Compares two results, figure by figure
    Compare {
        /// result.json of the run to compare with
        base: PathBuf,
        /// result.json of the run in question
        new: PathBuf,
        /// Exit with 99 when a figure is worse by more than this
        #[arg(long, value_name = "PERCENT", value_parser = percent)]
        fail_over: Option<f64>,
    },
    /// Lists the presets, or prints the scenario file that a preset stands for
    Presets {
        /// Print this one, with the flags below, as a scenario file
        #[arg(value_enum)]
        preset: Option<Preset>,
        #[command(flatten)]
        shape: ShapeFlags,
    },
    /// Says what this machine allows a load test to do
    EnvCheck,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// Where to connect, such as <ws://127.0.0.1:8080/ws>; several share the clients. Or a scenario file, which ends in
    /// .toml and may name the targets itself
    #[arg(required = true, value_name = "URL|SCENARIO")]
    pub(crate) places: Vec<String>,
    /// What to do, if no scenario file says so [default: broadcast]
    #[arg(long, value_enum)]
    pub(crate) preset: Option<Preset>,
    /// How the server is spoken to: fanfare, plain, or a file [default: as preset and scenario say]
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) dialect: Option<String>,
    /// Repeats the same choices [default: 1, or as the scenario says]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) shape: ShapeFlags,
    #[command(flatten)]
    pub(crate) client: ClientFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlags,
}

/// The shape of a preset's scenario.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Load (presets only)")]
pub(crate) struct ShapeFlags {
    /// Connections; 10k means 10,000 [default: 1k]
    #[arg(short, long, value_parser = count)]
    pub(crate) connections: Option<u32>,
    /// New connections a second at most [default: as fast as they are accepted]
    #[arg(long, value_name = "N", value_parser = number)]
    pub(crate) connect_rate: Option<f64>,
    /// Spread the connections over this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) ramp: Option<Duration>,
    /// Rooms [default: as the preset needs]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) rooms: Option<u32>,
    /// Sizes of the rooms [default: zipf for rooms, else uniform]
    #[arg(long, value_enum)]
    pub(crate) sizes: Option<Sizes>,
    /// Rooms that each client is in [default: 1]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) rooms_per_connection: Option<u32>,
    /// Open loop: operations a second over all, whatever the server does; latency counts from the planned moment
    #[arg(short, long, value_name = "N", value_parser = number, conflicts_with = "window")]
    pub(crate) rate: Option<f64>,
    /// How the moments of an open loop are spread
    #[arg(long, value_enum, default_value = "constant")]
    pub(crate) arrivals: Arrivals,
    /// Closed loop: messages that each room (user, client) has under way; the next is sent when all have one
    /// [default: 1 where no rate is given or usual]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) window: Option<u32>,
    /// How long each measured phase lasts
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) duration: Duration,
    /// How long messages go before anything is measured
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub(crate) warmup: Duration,
    /// Length of a message as delivered, in bytes
    #[arg(long, value_name = "BYTES", default_value = "128", value_parser = count)]
    pub(crate) payload: u32,
    /// Members of a room that publish: a number, or a share such as 1%
    #[arg(long, value_name = "N|SHARE", default_value = "1")]
    pub(crate) publishers: Share,
    /// idle: memory is measured from this many connections on
    #[arg(long, value_name = "N", default_value = "1k", value_parser = count)]
    pub(crate) baseline: u32,
    /// slow-reader: clients that stop reading
    #[arg(long, value_name = "N|SHARE", default_value = "10%")]
    pub(crate) slow_readers: Share,
    /// reconnect-storm: clients that are cut off
    #[arg(long, value_name = "N|SHARE", default_value = "50%")]
    pub(crate) cut: Share,
    /// churn: clients that leave and come back, a second
    #[arg(long, value_name = "N", default_value = "100", value_parser = number)]
    pub(crate) churn: f64,
    /// Clients come back when the server has ended their connection
    #[arg(long)]
    pub(crate) reconnect: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Client")]
pub(crate) struct ClientFlags {
    /// Address, range (127.0.0.2-127.0.0.9) or network (127.0.1.0/28) to connect from; may be given several times
    #[arg(long, value_name = "ADDRESS", value_parser = addresses)]
    pub(crate) source_ip: Vec<Vec<IpAddr>>,
    /// Take any certificate of a wss:// server; without it, only ws:// is spoken
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Token that all clients present
    #[arg(long, conflicts_with = "jwt_secret")]
    pub(crate) token: Option<String>,
    /// Sign a token (HS256) for each client's own user with this secret
    #[arg(long, value_name = "SECRET", env = "LOADTEST_JWT_SECRET", hide_env_values = true)]
    pub(crate) jwt_secret: Option<String>,
    /// Header of the upgrade request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// What the names of rooms and users begin with: give each its own when several load tests run beside each other
    #[arg(long, value_name = "NAME", default_value = "load")]
    pub(crate) prefix: String,
    /// Subprotocol to ask for
    #[arg(long, value_name = "NAME")]
    pub(crate) subprotocol: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Outcome")]
pub(crate) struct OutputFlags {
    /// The server's metrics page: its CPU time and memory, and its own counters, which must agree with what the clients
    /// saw
    #[arg(long, value_name = "URL")]
    pub(crate) metrics: Option<String>,
    /// The server's process, to read its CPU time and memory from /proc
    #[arg(long, value_name = "PID", conflicts_with = "metrics")]
    pub(crate) server_pid: Option<u32>,
    /// Exit with 99 unless this holds, such as `delivery_p99<50ms`, `lost==0`, `storm.back_seconds<10s`; may be given
    /// several times
    #[arg(long, value_name = "EXPR")]
    pub(crate) threshold: Vec<Threshold>,
    /// Write result.json, report.html and latency.hlog here
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Print the whole result as JSON instead of a summary
    #[arg(long)]
    pub(crate) json: bool,
    /// Say nothing while the run goes on
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl ShapeFlags {
    /// Whether no flag was given.
    pub(crate) fn is_untouched(&self) -> bool {
        #[derive(Parser)]
        struct Alone {
            #[command(flatten)]
            shape: ShapeFlags,
        }
        Alone::parse_from(["fanfare-loadtest"]).shape == *self
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape {
            connections: self.connections,
            connect_rate: self.connect_rate,
            ramp: self.ramp,
            rooms: self.rooms,
            sizes: self.sizes,
            per_connection: self.rooms_per_connection,
            rate: self.rate,
            arrivals: self.arrivals,
            window: self.window,
            duration: self.duration,
            warmup: self.warmup,
            payload: self.payload,
            publishers: self.publishers,
            baseline: self.baseline,
            slow_readers: self.slow_readers,
            cut: self.cut,
            churn: self.churn,
            reconnect: self.reconnect,
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

fn number(text: &str) -> Result<f64, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1e3),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    let number: Option<f64> = digits.parse().ok();
    let number = number.map(|number| number * unit).filter(|number| *number > 0.0 && *number <= 1e7);
    number.ok_or_else(|| "a number above 0, such as 500 or 10k, at most 10m".into())
}

fn percent(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.trim_end_matches('%').parse().ok();
    number.filter(|number| *number >= 0.0).ok_or_else(|| "a percentage such as 10%".into())
}

/// A number alone is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let duration = seconds.or_else(|| humantime::parse_duration(text).ok());
    duration
        .filter(|time| time.as_secs() < 86_400)
        .ok_or_else(|| "a time such as 10s, 1m or 0.5, below a day".into())
}

fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let wrong = || format!("an address, or a range or network of at most 65536 IPv4 addresses: {text}");
    let bits = |text: &str| text.parse::<Ipv4Addr>().map(Ipv4Addr::to_bits).map_err(|_| wrong());
    let range = if let Some((first, last)) = text.split_once('-') {
        bits(first)?..=bits(last)?
    } else if let Some((network, length)) = text.split_once('/') {
        let length: u32 =
            length.parse().ok().filter(|length| (16..=32).contains(length)).ok_or_else(wrong)?;
        let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
        bits(network)? & !hosts..=bits(network)? | hosts
    } else {
        return text.parse().map(|address| vec![address]).map_err(|_| wrong());
    };
    if range.is_empty() || range.end() - range.start() > 0xFFFF {
        return Err(wrong());
    }
    Ok(range.map(|bits| Ipv4Addr::from_bits(bits).into()).collect())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Run, clap::Error> {
        let words = ["fanfare-loadtest", "run"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words)?.command {
            Command::Run(run) => Ok(*run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn counts_may_be_written_in_thousands() {
        assert_eq!((count("10k"), count("7"), count("2M")), (Ok(10_000), Ok(7), Ok(2_000_000)));
        assert!(["", "k", "-1", "1.5k", "9999999k"].iter().all(|text| count(text).is_err()));
        assert_eq!((number("1.5k"), number("2M")), (Ok(1500.0), Ok(2e6)));
        assert!(["", "0", "-1", "20m", "NaN"].iter().all(|text| number(text).is_err()));
    }

    #[test]
    fn times_have_units_or_are_seconds() {
        let seconds = Duration::from_secs_f64;
        assert_eq!((time("10"), time("0.5")), (Ok(seconds(10.0)), Ok(seconds(0.5))));
        assert_eq!((time("250ms"), time("2m")), (Ok(seconds(0.25)), Ok(seconds(120.0))));
        assert!(["", "x", "-1", "2d"].iter().all(|text| time(text).is_err()));
    }

    #[test]
    fn source_addresses_may_be_a_range() {
        assert_eq!(addresses("127.0.0.2-127.0.0.4").unwrap().len(), 3);
        let network = addresses("127.0.1.5/30").unwrap();
        assert_eq!((network.len(), network[0].to_string()), (4, "127.0.1.4".to_owned()));
        assert_eq!(addresses("127.0.1.5/32").unwrap().len(), 1);
        assert_eq!(addresses("::1").unwrap().len(), 1);
        assert!(
            ["127.0.0.4-127.0.0.2", "0.0.0.0-9.0.0.0", "x", "::1-::2", "127.0.0.0/8", "127.0.0.1/x"]
                .iter()
                .all(|text| addresses(text).is_err())
        );
    }

    #[test]
    fn a_whole_command_line_is_understood() {
        let line = "ws://h/ws --preset rooms -c 10k --window 8 -d 5 --warmup 0.5s --publishers 1% --threshold lost==0";
        let run = parse(line).unwrap();
        let shape = run.shape.shape();
        assert_eq!((shape.connections, shape.window, shape.rate), (Some(10_000), Some(8), None));
        assert_eq!((shape.duration, shape.warmup), (Duration::from_secs(5), Duration::from_millis(500)));
        assert_eq!((run.preset, run.output.threshold.len()), (Some(Preset::Rooms), 1));
        assert!(!run.shape.is_untouched() && parse("mine.toml --seed 7").unwrap().shape.is_untouched());
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        for line in [
            "u --rate 5 --window 5",
            "u --token a --jwt-secret b",
            "u --metrics m --server-pid 1",
            "u --threshold x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
