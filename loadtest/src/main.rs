//! Load-test harness for WebSocket gateways: many connections on one thread, and what the server
//! spends on each delivery. It speaks WebSocket by another library than the gateway.

mod cli;
mod clock;
mod fleet;
mod frames;
mod preset;
mod process;
mod receiver;
mod report;
mod rooms;
mod stamp;
mod target;
mod window;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Error, Result};
use clap::Parser as _;

use crate::cli::{Cli, Command, Run};

const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let Command::Run(run) = Cli::parse().command;
    let target = match prepare(&run) {
        Ok(target) => target,
        Err(error) => return complain(&error, USAGE),
    };
    match preset::run(&run, target).and_then(|report| print(&run, &report).map(|()| report.ok())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => complain(&error, FAILED),
    }
}

fn prepare(run: &Run) -> Result<target::Target> {
    run.check().map_err(Error::msg)?;
    preset::raise_descriptor_limit(run.connections)?;
    target::Target::new(&run.url, run.token.as_deref())
}

fn print(run: &Run, report: &report::Report) -> Result<()> {
    let text = if run.json { serde_json::to_string(report)? } else { report.to_string() };
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Nothing is left to be done when standard error is gone as well: the exit code tells.
fn complain(error: &Error, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error:#}");
    ExitCode::from(code)
}
