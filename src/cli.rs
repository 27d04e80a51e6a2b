//! The command line as typed: names, help, defaults. What it means is the configuration's affair.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{Flag, Sources};

/// A sharded WebSocket gateway: rooms, direct messages and broadcasts for very many connections.
#[derive(Debug, Parser)]
#[command(name = "fanfare", version, max_term_width = 100)]
pub struct Cli {
    /// Settings, before or after the command.
    #[command(flatten)]
    pub settings: Settings,
    /// What to do; nothing said: serve.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway (the default)
    Serve,
    /// Print a token signed with the configured secret
    Token(Token),
    /// Read the configuration as `serve` would and print every mistake
    Check,
    /// Print the configuration in force, secrets masked, and where each value came from
    Config {
        /// Print a commented file with all defaults instead
        #[arg(long)]
        default: bool,
    },
    /// Print completions for a shell
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// What the token shall say.
#[derive(Debug, Args)]
pub struct Token {
    /// The user: a number or a name
    #[arg(long)]
    pub user: String,
    /// How long it is valid
    #[arg(long, default_value = "1h", value_parser = ttl)]
    pub ttl: Duration,
    /// The rooms it may enter, separated by commas, `*` for any text [default: all]
    #[arg(long, value_delimiter = ',', value_parser = room)]
    pub rooms: Option<Vec<String>>,
    /// The rooms in which it may say something [default: all that it may enter]
    #[arg(long, value_delimiter = ',', value_parser = room)]
    pub publish: Option<Vec<String>>,
    /// Let it send to everyone
    #[arg(long)]
    pub broadcast: bool,
}

/// Flags that stand for configuration keys.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// Read this TOML file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect [default: 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "ADDR")]
    listen: Option<String>,
    /// Where operators and back ends connect: metrics, health, /debug and /api/v1 [default: 127.0.0.1:9090]
    #[arg(long, global = true, value_name = "ADDR")]
    admin_listen: Option<String>,
    /// Threads that serve connections [default: one per core]
    #[arg(long, global = true, value_name = "N")]
    shards: Option<String>,
    /// Whether clients need a token [default: none]
    #[arg(long, global = true, value_name = "MODE", value_parser = PossibleValuesParser::new(["none", "jwt"]))]
    auth: Option<String>,
    /// Allow `--auth none` on an address that is not loopback
    #[arg(long, global = true)]
    insecure: bool,
    /// Serve /echo, which returns each message
    #[arg(long, global = true)]
    echo: bool,
    /// How log lines look [default: text]
    #[arg(long, global = true, value_name = "FORMAT", value_parser = PossibleValuesParser::new(["text", "json"]))]
    log_format: Option<String>,
    /// What is logged, such as `debug` or `info,fanfare::shard=debug` [default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Settings {
    /// Puts the flags beside the environment.
    pub fn into_sources(self, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Sources {
        let yes = |given: bool| given.then(|| "true".to_owned());
        let flags = [
            ("--listen", "listen", self.listen),
            ("--admin-listen", "admin_listen", self.admin_listen),
            ("--shards", "shards", self.shards),
            ("--auth", "auth.mode", self.auth),
            ("--insecure", "insecure", yes(self.insecure)),
            ("--echo", "echo", yes(self.echo)),
            ("--log-format", "log.format", self.log_format),
            ("--log-level", "log.level", self.log_level),
        ];
        let given =
            flags.into_iter().filter_map(|(name, key, value)| Some(Flag { name, key, value: value? }));
        Sources { file: self.config, environment: environment.into_iter().collect(), flags: given.collect() }
    }
}

/// The completions of a shell.
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "fanfare", &mut script);
    script
}

/// A token counts in whole seconds; with none it would have expired before it is printed.
fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if ttl.as_secs() == 0 { Err("must be at least 1s".to_owned()) } else { Ok(ttl) }
}

/// No room has an empty name: such a token would be of no use.
fn room(name: &str) -> Result<String, &'static str> {
    if name.is_empty() { Err("a room's name must not be empty") } else { Ok(name.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_sets_its_key_before_and_after_the_command() {
        let flags = "--listen 127.0.0.1:1 --admin-listen 127.0.0.1:2 --shards 3 --auth none --insecure --echo \
                     --log-format json --log-level debug";
        for line in
            [format!("fanfare {flags}"), format!("fanfare check {flags}"), format!("fanfare {flags} serve")]
        {
            let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
            let config = Config::load(&cli.settings.into_sources([])).unwrap().config;
            assert_eq!(
                (config.listen.port(), config.admin_listen.port(), config.shards),
                (1, 2, 3),
                "{line}"
            );
            assert!(config.insecure && config.http.echo && config.log.level == "debug", "{line}");
        }
    }

    #[test]
    fn a_token_has_rooms_by_commas_and_an_hour() {
        let cli = Cli::try_parse_from(["fanfare", "token", "--user", "7", "--rooms", "5,lobby"]).unwrap();
        let Some(Command::Token(token)) = cli.command else { panic!("not a token") };

        assert_eq!(token.rooms, Some(vec!["5".to_owned(), "lobby".to_owned()]));
        assert_eq!(token.ttl, Duration::from_secs(3600));
    }

    #[test]
    fn refuses_a_token_that_would_be_of_no_use() {
        for (flag, value, reason) in [
            ("--ttl", "0s", "must be at least 1s"),
            ("--ttl", "999ms", "must be at least 1s"),
            ("--ttl", "soon", "expected number"),
            ("--rooms", "", "a room's name must not be empty"),
            ("--rooms", "5,,lobby", "a room's name must not be empty"),
        ] {
            let error = Cli::try_parse_from(["fanfare", "token", "--user", "7", flag, value]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{flag} {value}");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn completions_know_the_flags() {
        let script = String::from_utf8(completions(clap_complete::Shell::Bash)).unwrap();

        assert!(script.contains("--admin-listen"));
    }
}
