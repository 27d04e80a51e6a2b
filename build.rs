//! Tells the program which compiler and commit it was built from, for `fanfare_build_info`.

use std::env;
use std::process::Command;

fn main() {
    // `cargo run` hands these names on to the program, which takes all that begin with `FANFARE_` for its configuration.
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BUILD_REVISION");
    // A commit moves the branch that HEAD names, and logs it.
    if let Some(log) = first_line("git", &["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let compiler = env::var("RUSTC").ok().and_then(|rustc| first_line(&rustc, &["--version"]));
    let compiler = compiler.as_deref().and_then(|line| line.split(' ').nth(1)).unwrap_or("unknown");
    println!("cargo::rustc-env=BUILD_RUSTC={compiler}");
    // A build from an archive has no repository: whoever packs it can say which commit it is.
    let revision = env::var("BUILD_REVISION").ok();
    let revision = revision.or_else(|| first_line("git", &["rev-parse", "--short=12", "HEAD"]));
    println!("cargo::rustc-env=BUILD_REVISION={}", revision.as_deref().unwrap_or("unknown"));
}

/// The first line that a command prints, if it succeeds.
fn first_line(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    text.lines().next().map(str::to_owned)
}
