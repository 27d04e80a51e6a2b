//! Where a run takes place, and what the machine allows.

use std::fmt::Write as _;
use std::fs;
use std::net::ToSocketAddrs as _;

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::outcome::Environment;

/// Descriptors that are not connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// Raises the limit of descriptors as far as the connections need, also beyond the hard limit where that is allowed.
///
/// # Errors
///
/// When it cannot be raised so far: one process cannot open so many connections here.
pub(crate) fn raise_descriptor_limit(connections: u32) -> Result<()> {
    let needed = u64::from(connections) + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return Ok(());
    }
    let most = limit.maximum.unwrap_or(0).saturating_sub(OTHER_DESCRIPTORS);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_ok()
        && limit.maximum.is_none_or(|maximum| maximum >= needed)
    {
        return Ok(());
    }
    bail!(
        "the limit of open files allows {most} connections, not {connections}: raise it (`ulimit -Hn {needed}` as root, \
         or LimitNOFILE= of the service), or run several processes"
    )
}

pub(super) fn environment(targets: &[String]) -> Environment {
    Environment {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: without_secrets(std::env::args()),
        kernel: kernel(),
        cpu: cpu(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        descriptors: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        same_machine: targets.iter().any(|target| is_loopback(target)),
    }
}

/// Reports are passed on: what opens the server's door does not go with them.
fn without_secrets(words: impl Iterator<Item = String>) -> Vec<String> {
    const SECRET: [&str; 4] = ["--token", "--jwt-secret", "--header", "-H"];
    let mut follows = false;
    words
        .map(|word| {
            if std::mem::take(&mut follows) {
                return "***".to_owned();
            }
            follows = SECRET.contains(&&*word);
            match SECRET.iter().find(|flag| word.len() > flag.len() && word.starts_with(**flag)) {
                Some(flag) if flag.len() == 2 || word[flag.len()..].starts_with('=') => format!("{flag}***"),
                _ => without_token(&word),
            }
        })
        .collect()
}

/// The URL without the token that it may hold in its query.
pub(super) fn without_token(url: &str) -> String {
    let Some((path, query)) = url.split_once('?') else { return url.to_owned() };
    let shown = query.split('&').map(|pair| if pair.starts_with("token=") { "token=***" } else { pair });
    format!("{path}?{}", shown.collect::<Vec<_>>().join("&"))
}

fn kernel() -> String {
    let name = rustix::system::uname();
    format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy())
}

fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.map_or_else(|| "unknown".to_owned(), |line| line.trim_start_matches(['\t', ' ', ':']).to_owned())
}

fn is_loopback(target: &str) -> bool {
    let authority = target
        .trim_start_matches("wss://")
        .trim_start_matches("ws://")
        .split(['/', '?'])
        .next()
        .unwrap_or_default();
    let with_port = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    with_port.to_socket_addrs().is_ok_and(|mut addresses| addresses.any(|address| address.ip().is_loopback()))
}

/// What this machine allows a load test to do, in lines for people.
pub(crate) fn env_check() -> String {
    let limit = getrlimit(Resource::Nofile);
    let number = |path: &str| {
        fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    };
    let ports = number("/proc/sys/net/ipv4/ip_local_port_range");
    let bounds: Vec<u32> = ports.split_whitespace().filter_map(|bound| bound.parse().ok()).collect();
    let count = bounds.last().zip(bounds.first()).map_or(0, |(last, first)| last.saturating_sub(*first) + 1);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let most = hard.saturating_sub(OTHER_DESCRIPTORS);
    let mut out = String::new();
    let mut line = |name: &str, value: &str| _ = writeln!(out, "{name:<22}{value}");
    line("kernel", &kernel());
    line(
        "processor",
        &format!("{} ({} cores)", cpu(), std::thread::available_parallelism().map_or(1, usize::from)),
    );
    line(
        "open files",
        &format!("{hard} at most: {most} connections from one process, if root does not raise it"),
    );
    line("ports", &format!("{ports}: {count} connections from one source address to one target"));
    line("more connections", "--source-ip 127.0.0.2-127.0.0.20 gives each address ports of its own");
    line("listen backlog", &format!("net.core.somaxconn {}", number("/proc/sys/net/core/somaxconn")));
    line("socket memory", &format!("net.ipv4.tcp_mem {} pages", number("/proc/sys/net/ipv4/tcp_mem")));
    line("load", &number("/proc/loadavg"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_known() {
        let here = environment(&["ws://127.0.0.1:9/ws".to_owned()]);
        assert!(here.same_machine && here.cores > 0 && here.kernel.starts_with("Linux"));
        assert!(!environment(&["ws://192.0.2.1/".to_owned()]).same_machine);
        assert!(env_check().contains("open files"));
    }

    #[test]
    fn secrets_do_not_get_into_reports() {
        let words = "run --token abc --jwt-secret=def -H Authorization:ghi -Hx:jkl --header mno ws://h?a=b&token=c --seed 1";
        let shown = without_secrets(words.split(' ').map(str::to_owned)).join(" ");
        let wanted =
            "run --token *** --jwt-secret*** -H *** -H*** --header *** ws://h?a=b&token=*** --seed 1";
        assert_eq!(shown, wanted);
    }

    #[test]
    fn more_connections_than_descriptors_are_refused_with_what_to_do() {
        raise_descriptor_limit(10).unwrap();
        if let Err(error) = raise_descriptor_limit(u32::MAX) {
            assert!(error.to_string().contains("ulimit"), "{error}");
        }
    }
}
