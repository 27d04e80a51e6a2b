//! Any text as a file, and any variables: a configuration, or mistakes of one line each; never a panic. What is in force is
//! printed so that it can be read again, and means the same.
//!
//! `0xFF`, which is in no text, divides the file from the variables, and these from each other.

#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::{env, fs, process};

use fanfare::config::{Config, Loaded, Mistakes, Sources};
use libfuzzer_sys::fuzz_target;

const SEPARATOR: u8 = 0xFF;

/// In a folder of its own, as keys may name other files, of which there are none.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = env::temp_dir().join(format!("fanfare-fuzz-config-{}", process::id()));
    fs::create_dir_all(&folder).expect("a folder for the file");
    env::set_current_dir(&folder).expect("it is there");
    folder.join("fanfare.toml")
});

fuzz_target!(|data: &[u8]| {
    // Files that are elsewhere, or that never end, are the system's.
    if data.windows(2).any(|pair| pair == b"./" || pair == b"/d" || pair == b"/p") {
        return;
    }
    let mut parts = data.split(|&byte| byte == SEPARATOR);
    let file = parts.next().unwrap_or_default();
    let variables = parts.filter_map(|part| {
        let at = part.iter().position(|&byte| byte == b'=')?;
        let name = [b"FANFARE_", &part[..at]].concat();
        Some((OsStr::from_bytes(&name).to_owned(), OsStr::from_bytes(&part[at + 1..]).to_owned()))
    });
    let environment = variables.filter(|(name, _)| name != "FANFARE_CONFIG").collect();
    match load(file, environment) {
        Ok(loaded) => check_that_it_reads_again(&loaded),
        Err(Mistakes(mistakes)) => {
            assert!(!mistakes.is_empty());
            for line in mistakes.iter().map(ToString::to_string) {
                assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
            }
        }
    }
});

fn load(file: &[u8], environment: Vec<(std::ffi::OsString, std::ffi::OsString)>) -> Result<Loaded, Mistakes> {
    fs::write(&*FILE, file).expect("the file can be written");
    Config::load(&Sources { file: Some(FILE.clone()), environment, flags: Vec::new() })
}

fn check_that_it_reads_again(loaded: &Loaded) {
    // Secrets are not printed.
    if loaded.config.auth.secret.is_some() {
        return;
    }
    let printed = loaded.to_toml();
    match load(printed.as_bytes(), Vec::new()) {
        Ok(again) => assert_eq!(values(&again.to_toml()), values(&printed)),
        Err(mistakes) => panic!("{mistakes}\nin\n{printed}"),
    }
}

/// The lines without where each came from.
fn values(printed: &str) -> Vec<&str> {
    printed.lines().map(|line| line.rsplit_once("  # ").map_or(line, |(value, _)| value)).collect()
}
