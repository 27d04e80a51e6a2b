//! Fetches the metrics page of a server over HTTP. It blocks: for a thread that may wait, or when all is quiet.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ureq::Agent;
use ureq::http::Uri;

use super::page::Page;

/// Where a server shows its metrics; clones share the open connection.
#[derive(Debug, Clone)]
pub(crate) struct Scraper {
    url: String,
    agent: Agent,
}

impl Scraper {
    /// Takes the address of a page; without a path it is `/metrics`. Nothing is fetched yet.
    ///
    /// # Errors
    ///
    /// When the address is none of plain HTTP.
    pub(crate) fn new(url: &str) -> Result<Self> {
        Self::with_timeout(url, TIMEOUT)
    }

    fn with_timeout(url: &str, timeout: Duration) -> Result<Self> {
        let wanted = "a metrics page is named http://HOST:PORT/metrics";
        let uri: Uri = url.parse().context(wanted)?;
        ensure!(uri.scheme_str() == Some("http") && uri.host().is_some(), wanted);
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = if uri.path() == "/" { "/metrics" } else { uri.path() };
        let authority = uri.authority().context(wanted)?;
        let config = Agent::config_builder()
            // A proxy would be between us and a server that is meant to be near.
            .proxy(None)
            .timeout_global(Some(timeout))
            .accept("text/plain; version=0.0.4")
            .build();
        Ok(Self { url: format!("http://{authority}{path}{query}"), agent: Agent::new_with_config(config) })
    }

    /// Fetches the page, as it is at some moment between call and return.
    ///
    /// # Errors
    ///
    /// When there is no answer within the time, or it is not a metrics page.
    pub(crate) fn scrape(&self) -> Result<Page> {
        let url = &self.url;
        let mut response = self.agent.get(url).call().with_context(|| format!("{url} does not answer"))?;
        let body = response.body_mut().with_config().limit(PAGE_BYTES_MAX).read_to_vec();
        let body = body.with_context(|| format!("{url} stopped in the middle"))?;
        let text = String::from_utf8(body).with_context(|| format!("{url} is not text"))?;
        Page::parse(&text).with_context(|| format!("{url} is not a metrics page"))
    }
}

/// For everything from resolving the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(2);

/// More than the page of any server that a test is run against.
const PAGE_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn fetches_a_page_however_its_end_is_told() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na 1\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na 1\r\n1\r\n\n\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\na 1\n",
        ] {
            let page = Scraper::new(&serve(answer)).unwrap().scrape().unwrap();

            assert_eq!(page.value("a", &[]), Some(1.0), "{answer}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_an_answer() {
        for (answer, said) in [
            ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "does not answer"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na 1\n", "stopped in the middle"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\u{e4}", "is not a metrics page"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "is not a metrics page"),
            ("nonsense", "does not answer"),
        ] {
            let error = Scraper::new(&serve(answer)).unwrap().scrape().unwrap_err();

            assert!(error.to_string().ends_with(said), "{answer}: {error:#}");
        }
    }

    #[test]
    fn does_not_wait_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());

        let error = Scraper::with_timeout(&url, Duration::from_millis(20)).unwrap().scrape().unwrap_err();

        assert!(format!("{error:#}").contains("timeout"), "{error:#}");
    }

    #[test]
    fn takes_only_addresses_of_plain_http_and_completes_them() {
        for url in ["", "127.0.0.1:9090", "https://127.0.0.1/metrics", "ftp://host/", "http://", "/metrics"] {
            assert!(Scraper::new(url).is_err(), "{url}");
        }
        for (url, whole) in [
            ("http://host:9090", "http://host:9090/metrics"),
            ("http://host:9090/", "http://host:9090/metrics"),
            ("http://host/other?a=b", "http://host/other?a=b"),
        ] {
            assert_eq!(Scraper::new(url).unwrap().url, whole);
        }
    }

    /// A server that gives every request, one connection each, this answer; it lives as long as the tests.
    pub(in super::super) fn serve(answer: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = answer.to_owned();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    request.push(byte[0]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        url
    }
}
