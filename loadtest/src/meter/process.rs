//! What a process costs, from `/proc`.

use std::fs;

use anyhow::{Context as _, Result};

/// The CPU time this process has used, in seconds.
pub(crate) fn own_cpu() -> Result<f64> {
    cpu("self")
}

/// User and system time of all threads, in seconds. `id` is a number or `self`.
pub(super) fn cpu(id: &str) -> Result<f64> {
    let path = format!("/proc/{id}/stat");
    let stat =
        fs::read_to_string(&path).with_context(|| format!("{path} cannot be read: is the server gone?"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("{path} has an unknown form"))?;
    #[expect(clippy::cast_precision_loss, reason = "far from 2^52")]
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Resident memory in bytes.
///
/// `status` is only approximate, as the kernel counts pages per CPU; `smaps_rollup` is exact, but not everybody may
/// read that of another user's process.
pub(super) fn resident(id: &str) -> Result<f64> {
    let exact = fs::read_to_string(format!("/proc/{id}/smaps_rollup"));
    let text = exact.or_else(|_| fs::read_to_string(format!("/proc/{id}/status")))?;
    resident_bytes(&text).with_context(|| format!("the resident memory is not in /proc/{id}"))
}

/// Fields 14 and 15. The name before them is in brackets and may itself hold brackets and blanks.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_bytes(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:").or(line.strip_prefix("VmRSS:")))?;
    let (kilobytes, unit) = line.trim().split_once(' ')?;
    let kilobytes: f64 = kilobytes.parse().ok().filter(|_| unit == "kB")?;
    Some(kilobytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 750 0 0 20 0";
        assert_eq!(cpu_ticks(stat), Some(1000));
        assert_eq!(cpu_ticks("42 (cut"), None);
        assert_eq!(cpu_ticks("42 (cut) S 1 2"), None);
    }

    #[test]
    fn memory_is_found_in_either_file() {
        assert_eq!(resident_bytes("Name:\tx\nVmHWM:\t 9 kB\nVmRSS:\t     12 kB\n"), Some(12_288.0));
        assert_eq!(resident_bytes("00400000-7fff [rollup]\nRss:                 3 kB\n"), Some(3072.0));
        assert_eq!(resident_bytes("VmRSS:\t 12 MB\n"), None);
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_has_a_cost() {
        assert!(resident("self").unwrap() > 0.0);
        assert!(own_cpu().unwrap() >= 0.0);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error_that_says_so() {
        // Above the greatest number that Linux gives.
        let error = cpu("4194305").unwrap_err();
        assert!(error.to_string().contains("is the server gone?"), "{error}");
    }
}
