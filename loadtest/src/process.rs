//! What a process costs: CPU time and resident memory, from `/proc` or from its metrics page.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Where the server's cost is read.
#[derive(Debug, Clone)]
pub(crate) enum Meter {
    Process(u32),
    Metrics(String),
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cost {
    /// User and system time of all threads, in seconds.
    pub(crate) cpu: f64,
    /// Resident memory in bytes.
    pub(crate) resident: f64,
}

impl Meter {
    pub(crate) fn read(&self) -> Result<Cost> {
        match self {
            Self::Process(id) => read_process(&id.to_string()),
            Self::Metrics(url) => read_metrics(url),
        }
    }
}

/// The CPU time this process has used, in seconds.
pub(crate) fn own_cpu() -> Result<f64> {
    read_process("self").map(|cost| cost.cpu)
}

fn read_process(id: &str) -> Result<Cost> {
    let path = format!("/proc/{id}/stat");
    let stat =
        fs::read_to_string(&path).with_context(|| format!("{path} cannot be read: is the server gone?"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("{path} has an unknown form"))?;
    #[expect(clippy::cast_precision_loss, reason = "far from 2^52")]
    let cpu = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Ok(Cost { cpu, resident: resident(id)? })
}

/// `statm` is only approximate, as the kernel counts pages per CPU; `smaps_rollup` is exact.
fn resident(id: &str) -> Result<f64> {
    let exact = fs::read_to_string(format!("/proc/{id}/smaps_rollup"));
    let text = exact.or_else(|_| fs::read_to_string(format!("/proc/{id}/status")))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:").or(line.strip_prefix("VmRSS:")));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok());
    Ok(kilobytes.context("the resident memory is not in /proc")? * 1024.0)
}

/// Fields 14 and 15. The name before them is in brackets and may itself hold brackets and blanks.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn read_metrics(url: &str) -> Result<Cost> {
    let rest = url.strip_prefix("http://").context("a metrics page is named http://HOST:PORT/metrics")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, "metrics"));
    let mut stream = TcpStream::connect(host).with_context(|| format!("{url} does not answer"))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page).with_context(|| format!("{url} stopped in the middle"))?;
    if !page.starts_with("HTTP/1.1 200") {
        bail!("{url} answered {}", page.lines().next().unwrap_or("nothing"));
    }
    let cpu = metric(&page, "process_cpu_seconds_total");
    let resident = metric(&page, "process_resident_memory_bytes");
    match (cpu, resident) {
        (Some(cpu), Some(resident)) => Ok(Cost { cpu, resident }),
        _ => bail!("{url} lacks process_cpu_seconds_total or process_resident_memory_bytes"),
    }
}

fn metric(page: &str, name: &str) -> Option<f64> {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.split_whitespace().next()?.parse().ok()
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
    fn metrics_are_found_by_their_whole_name() {
        let page = "# HELP x y\nprocess_cpu_seconds_total_more 1\nprocess_cpu_seconds_total 2.5\n";
        assert_eq!(metric(page, "process_cpu_seconds_total"), Some(2.5));
        assert_eq!(metric(page, "absent"), None);
    }

    #[test]
    fn this_process_has_a_cost() {
        let cost = read_process("self").unwrap();
        assert!(cost.resident > 0.0);
    }
}
