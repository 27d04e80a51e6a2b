//! Load-test harness for WebSocket servers: very many clients on one thread, which check what they get, and what the
//! server spends on it. It speaks WebSocket by another library than the gateway.

mod cli;
mod clock;
mod dialect;
mod fleet;
mod frames;
mod meter;
mod outcome;
mod run;
mod scenario;
mod tally;
mod target;
mod traffic;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use clap::{Parser as _, ValueEnum as _};
use signal_hook::consts::SIGINT;

use crate::cli::{Cli, Command, OutputFlags, Run};
use crate::meter::Meter;
use crate::outcome::{HdrLog, Outcome, compare, html, summary};
use crate::run::{Mode, Options, env_check, raise_descriptor_limit};
use crate::scenario::{Preset, Scenario};
use crate::target::Credentials;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const THRESHOLD_MISSED: u8 = 99;
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(run) => execute(&run),
        Command::Report { result, html } => report(&result, html.as_deref()),
        Command::Compare { base, new, fail_over } => compare_files(&base, &new, fail_over),
        Command::Presets { preset: None, .. } => list_presets(),
        Command::Presets { preset: Some(preset), shape } => {
            toml::to_string(&preset.scenario(&shape.shape())).map_err(Into::into).and_then(|text| say(&text))
        }
        Command::EnvCheck => say(&env_check()),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // When standard error is gone as well, the exit code is all that is left to say.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(USAGE)
        }
    }
}

fn execute(run: &Run) -> Result<u8> {
    let scenario = scenario(run)?;
    raise_descriptor_limit(scenario.clients())?;
    let interrupted = Arc::new(AtomicBool::new(false));
    // The second Ctrl-C ends the process at once; the first only says that the run should end.
    signal_hook::flag::register_conditional_shutdown(SIGINT, INTERRUPTED.into(), Arc::clone(&interrupted))?;
    signal_hook::flag::register(SIGINT, Arc::clone(&interrupted))?;
    let options = options(run, Arc::clone(&interrupted))?;
    if let Some(directory) = &run.output.output {
        Outcome::prepare(directory)?;
    }
    let (mut outcome, log) = run::run(&scenario, &options)?;
    outcome.thresholds = run.output.threshold.iter().map(|threshold| threshold.judge(&outcome)).collect();
    let written = run.output.output.as_deref().map_or(Ok(()), |directory| {
        outcome.write_to(directory, &log.map(HdrLog::into_bytes).unwrap_or_default())
    });
    tell(&run.output, &outcome)?;
    written?;
    Ok(if interrupted.load(Ordering::Relaxed) {
        INTERRUPTED
    } else if !outcome.ok {
        FAILED
    } else if outcome.thresholds.iter().any(|verdict| !verdict.ok) {
        THRESHOLD_MISSED
    } else {
        0
    })
}

/// The scenario of the file or preset, with what the flags say on top.
fn scenario(run: &Run) -> Result<Scenario> {
    let (files, targets): (Vec<&String>, Vec<&String>) = run.places.iter().partition(|place| {
        !place.contains("://") && Path::new(place).extension().is_some_and(|extension| extension == "toml")
    });
    let mut scenario = match (files.as_slice(), run.preset) {
        ([], preset) => preset.unwrap_or(Preset::Broadcast).scenario(&run.shape.shape()),
        ([_], None) if !run.shape.is_untouched() => {
            bail!("the flags under \"Load\" shape a preset: a scenario file says all that itself")
        }
        ([file], None) => Scenario::read(file)?,
        _ => bail!("one scenario file, or one --preset"),
    };
    if !targets.is_empty() {
        scenario.targets = targets.into_iter().cloned().collect();
    }
    if scenario.targets.is_empty() {
        bail!("no target: name a URL such as ws://127.0.0.1:8080/ws, or `targets` in the scenario");
    }
    if let Some(dialect) = &run.dialect {
        scenario.dialect.clone_from(dialect);
    }
    scenario.seed = run.seed.unwrap_or(scenario.seed);
    scenario.check()?;
    Ok(scenario)
}

fn options(run: &Run, interrupted: Arc<AtomicBool>) -> Result<Options> {
    let output = &run.output;
    let meter = match (output.server_pid, &output.metrics) {
        (Some(id), _) => Some(Meter::Process(id)),
        (None, Some(url)) => Some(Meter::metrics(url)?),
        (None, None) => None,
    };
    let client = &run.client;
    Ok(Options {
        credentials: Credentials {
            token: client.token.clone(),
            jwt_secret: client.jwt_secret.clone(),
            headers: client.headers.clone(),
            subprotocol: client.subprotocol.clone(),
            prefix: client.prefix.clone(),
            insecure: client.insecure,
        },
        sources: client.source_ip.concat(),
        meter,
        progress: match () {
            () if output.quiet => Mode::Silent,
            () if io::stderr().is_terminal() => Mode::Live,
            () => Mode::Plain,
        },
        interrupted,
        log: output.output.is_some(),
    })
}

fn tell(output: &OutputFlags, outcome: &Outcome) -> Result<u8> {
    if output.json {
        return say(&outcome.to_json()?);
    }
    say(&summary(outcome, has_colour()))
}

/// See no-color.org.
fn has_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn report(result: &Path, page: Option<&Path>) -> Result<u8> {
    let outcome = read(result)?;
    let Some(page) = page else { return say(&summary(&outcome, has_colour())) };
    std::fs::write(page, html(&outcome)).with_context(|| format!("{} cannot be written", page.display()))?;
    Ok(0)
}

fn compare_files(base: &Path, new: &Path, fail_over: Option<f64>) -> Result<u8> {
    let comparison = compare(&read(base)?, &read(new)?, fail_over);
    say(&comparison.to_string())?;
    Ok(if comparison.ok() { 0 } else { THRESHOLD_MISSED })
}

fn read(path: &Path) -> Result<Outcome> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Outcome::from_json(&text).with_context(|| path.display().to_string())
}

fn list_presets() -> Result<u8> {
    let lines =
        Preset::value_variants().iter().map(|preset| format!("{:<16}{}\n", preset.name(), preset.help()));
    say(&lines.collect::<String>())
}

fn say(text: &str) -> Result<u8> {
    let mut out = io::stdout();
    let line_break: &[u8] = if text.ends_with('\n') { b"" } else { b"\n" };
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(line_break)) {
        // Who reads only the head of it has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        written => Ok(written.map(|()| 0)?),
    }
}
