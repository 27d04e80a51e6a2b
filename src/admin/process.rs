//! What the kernel knows about this process, read from `/proc` at each scrape.
//!
//! Written as text here rather than by the recorder, whose counters are whole numbers: CPU time is not.

use std::fmt::Write as _;
use std::fs;

use crate::metrics::{METRICS, write_head};

/// The unit of CPU and start times in `/proc`: `USER_HZ`, part of the kernel's interface and 100
/// on every architecture that Rust's standard library supports on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Appends the process metrics; those that the system does not offer are left out.
pub(super) fn render(out: &mut String) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let system = fs::read_to_string("/proc/stat").unwrap_or_default();
    append(out, "process_resident_memory_bytes", status_bytes(&status, "VmRSS:"));
    append(out, "process_virtual_memory_bytes", status_bytes(&status, "VmSize:"));
    append(out, "process_cpu_seconds_total", cpu_seconds(&stat));
    append(out, "process_open_fds", open_fds());
    append(out, "process_max_fds", max_fds(&limits));
    append(out, "process_threads", stat_field(&stat, 20));
    append(out, "process_start_time_seconds", start_time(&stat, &system));
}

/// What of the process is in memory, where the system tells.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

fn append(out: &mut String, name: &str, value: Option<f64>) {
    let metric = METRICS.iter().find(|metric| metric.name == name);
    debug_assert!(metric.is_some(), "{name} is not in the table");
    let (Some(value), Some(metric)) = (value, metric) else { return };
    write_head(out, metric);
    // Writing to a `String` cannot fail.
    let _ = write!(out, "{name} {value}\n\n");
}

fn status_bytes(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_time(stat: &str, system: &str) -> Option<f64> {
    let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + stat_field(stat, 22)? / TICKS_PER_SECOND)
}

/// A field of `/proc/self/stat` by its number in proc(5).
///
/// The second field is the program's name in parentheses and may hold anything, so counting starts
/// behind its last parenthesis.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn open_fds() -> Option<f64> {
    // Since Linux 6.2 the size of the directory is the count; before, it is 0. Listing tens of
    // thousands of entries takes milliseconds.
    let counted = fs::metadata("/proc/self/fd").ok()?.len();
    let count = if counted > 0 { counted } else { fs::read_dir("/proc/self/fd").ok()?.count() as u64 };
    u32::try_from(count).ok().map(f64::from)
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(f64::INFINITY) } else { soft.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_behind_a_program_name_with_spaces_and_parentheses() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 3 0 4200 99 9";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(start_time(stat, "cpu 1 2\nbtime 1000\n"), Some(1042.0));
    }

    #[test]
    fn says_nothing_about_what_it_cannot_read() {
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(status_bytes("VmRSS: many kB", "VmRSS:"), None);
        assert_eq!(max_fds("Max cpu time unlimited unlimited seconds"), None);
        assert_eq!(start_time("1 (x) S", "btime soon"), None);
    }

    #[test]
    fn reads_memory_in_bytes_and_the_soft_limit() {
        assert_eq!(status_bytes("VmHWM:\t 9 kB\nVmRSS:\t  2 kB\n", "VmRSS:"), Some(2048.0));
        assert_eq!(
            max_fds("Max open files            1024                 4096                 files"),
            Some(1024.0)
        );
        assert_eq!(
            max_fds("Max open files            unlimited            unlimited            files"),
            Some(f64::INFINITY)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn finds_all_seven_of_the_running_process() {
        let mut out = String::new();
        render(&mut out);
        assert_eq!(out.lines().filter(|line| line.starts_with("process_")).count(), 7, "{out}");
    }
}
