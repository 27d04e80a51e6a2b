//! What a server costs and counts: CPU time, memory, and its own counters beside what the clients saw.
//!
//! [`Meter`] reads it, [`Sampler`] does so once a second on a thread of its own, [`audit`] compares. The cost of
//! another server is read the same way, from `/proc` or from what Prometheus's client libraries expose.

mod audit;
mod buckets;
mod page;
mod process;
mod sampler;
mod scrape;

use anyhow::{Context as _, Result};

pub(crate) use audit::{Seen, audit, settle};
pub(crate) use page::Page;
pub(crate) use process::own_cpu;
pub(crate) use sampler::{Measured, Sampler};
use scrape::Scraper;

/// Where the server's cost is read.
#[derive(Debug, Clone)]
pub(crate) enum Meter {
    /// A process of this machine, by its number.
    Process(u32),
    /// The server's metrics page.
    Metrics(Scraper),
}

/// What the server has used so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reading {
    /// User and system time of all threads, in seconds.
    pub(crate) cpu: f64,
    /// Resident memory in bytes.
    pub(crate) resident: f64,
    /// All that the server counts, where it has a metrics page.
    pub(crate) page: Option<Page>,
}

impl Meter {
    /// The meter of the metrics page at this address.
    ///
    /// # Errors
    ///
    /// When the address is none of plain HTTP.
    pub(crate) fn metrics(url: &str) -> Result<Self> {
        Scraper::new(url).map(Self::Metrics)
    }

    /// Reads; of a metrics page it may block for as long as the scraper's time-out.
    ///
    /// # Errors
    ///
    /// When the server is gone, or does not tell its cost.
    pub(crate) fn read(&self) -> Result<Reading> {
        match self {
            Self::Process(id) => {
                let id = id.to_string();
                Ok(Reading { cpu: process::cpu(&id)?, resident: process::resident(&id)?, page: None })
            }
            Self::Metrics(scraper) => {
                let page = scraper.scrape()?;
                let told =
                    |name| page.value(name, &[]).with_context(|| format!("the metrics page lacks {name}"));
                let cpu = told("process_cpu_seconds_total")?;
                let resident = told("process_resident_memory_bytes")?;
                Ok(Reading { cpu, resident, page: Some(page) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_cost_of_a_process_by_its_number() {
        let reading = Meter::Process(std::process::id()).read().unwrap();

        assert!(reading.resident > 0.0);
        assert_eq!(reading.page, None);
    }

    #[test]
    fn reads_the_cost_from_a_metrics_page_and_keeps_the_page() {
        let url = scrape::tests::serve(
            "HTTP/1.0 200 OK\r\n\r\nprocess_cpu_seconds_total 2.5\nprocess_resident_memory_bytes 4096\nx 1\n",
        );

        let reading = Meter::metrics(&url).unwrap().read().unwrap();

        assert_eq!((reading.cpu, reading.resident), (2.5, 4096.0));
        assert_eq!(reading.page.unwrap().value("x", &[]), Some(1.0));
    }

    #[test]
    fn names_what_a_metrics_page_lacks() {
        let url = scrape::tests::serve("HTTP/1.0 200 OK\r\n\r\nprocess_cpu_seconds_total 2.5\n");

        let error = Meter::metrics(&url).unwrap().read().unwrap_err();

        assert_eq!(error.to_string(), "the metrics page lacks process_resident_memory_bytes");
    }
}
