//! `fanfare`: reads the command line and the configuration, does what is asked, says how it went.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use fanfare::cli::{self, Cli, Command, Token};
use fanfare::config::{self, Config, Grant, Loaded, LogFormat};
use fanfare::{log, server};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The configuration or the command line is wrong.
const USAGE: u8 = 2;
/// Something went wrong later.
const RUN_TIME: u8 = 1;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(text) => {
            // A reader that has seen enough closes the pipe.
            let _ = io::stdout().write_all(&text);
            ExitCode::SUCCESS
        }
        Err((code, error)) => {
            complain(&error.to_string());
            ExitCode::from(code)
        }
    }
}

/// Does it; what comes back is for standard output.
fn run(cli: Cli) -> Result<Vec<u8>, (u8, anyhow::Error)> {
    match &cli.command {
        Some(Command::Completions { shell }) => return Ok(cli::completions(*shell)),
        Some(Command::Config { default: true }) => return Ok(config::default_file().into_bytes()),
        _ => {}
    }
    let sources = cli.settings.into_sources(std::env::vars_os());
    let loaded = Config::load(&sources).map_err(|mistakes| (USAGE, mistakes.into()))?;
    if matches!(cli.command, None | Some(Command::Serve)) {
        log(&loaded.config);
        loaded.warnings.iter().for_each(|warning| tracing::warn!(key = warning.key(), "{warning}"));
    } else {
        loaded.warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    }
    match cli.command {
        Some(Command::Check) => Ok(b"the configuration is sound\n".to_vec()),
        Some(Command::Config { .. }) => Ok(loaded.to_toml().into_bytes()),
        Some(Command::Token(token)) => issue(token, &loaded).map_err(|error| (USAGE, error)),
        _ => {
            server::run(loaded.config, sources).map(|()| Vec::new()).map_err(|error| (RUN_TIME, error.into()))
        }
    }
}

fn issue(token: Token, loaded: &Loaded) -> Result<Vec<u8>, anyhow::Error> {
    #[expect(clippy::disallowed_methods, reason = "the one clock of this command")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let Token { user, ttl, rooms, publish, broadcast } = token;
    let grant = |user| Grant { user, ttl, rooms, publish, broadcast };
    let signed = loaded.config.issue_token(&user, grant, now)?;
    Ok(format!("{signed}\n").into_bytes())
}

fn log(config: &Config) {
    let filter = &config.log.level;
    // Colours are for people: a file or a journal gets plain text.
    match config.log.format {
        LogFormat::Text => log::text(filter, io::stderr().is_terminal(), io::stderr).init(),
        LogFormat::Json => log::json(filter, io::stderr).init(),
    }
    log::write_panics();
}

/// One line each on standard error.
fn complain(text: &str) {
    for line in text.lines() {
        let _ = writeln!(io::stderr(), "fanfare: {line}");
    }
}
