//! Which pages may connect (RFC 6454, RFC 6455 section 10.2).
//!
//! Browsers send cookies and reach loopback addresses for any page; only the `Origin` header tells whose page it
//! is. Other clients send none, and are not what this protects against.

use hyper::HeaderMap;
use hyper::header::ORIGIN;

use super::guard;

/// The pages that may connect.
#[derive(Clone, Debug)]
pub(super) struct Origins {
    patterns: Vec<String>,
    loopback: bool,
}

impl Origins {
    /// With no patterns, only pages of the host that the request is for. `loopback` adds those of this machine.
    pub(super) fn new(patterns: &[String], loopback: bool) -> Self {
        let normal = |pattern: &String| pattern.trim().trim_end_matches('/').to_ascii_lowercase();
        Self { patterns: patterns.iter().map(normal).collect(), loopback }
    }

    /// Whether the page that a request comes from may connect.
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return true };
        if origins.next().is_some() {
            return false;
        }
        let Ok(origin) = origin.to_str() else { return false };
        let origin = origin.trim().to_ascii_lowercase();
        self.is_listed(&origin, headers) || (self.loopback && is_loopback(&origin))
    }

    fn is_listed(&self, origin: &str, headers: &HeaderMap) -> bool {
        if self.patterns.is_empty() {
            return guard::host(headers).is_some_and(|host| is_same_host(origin, host));
        }
        self.patterns.iter().any(|pattern| pattern == "*" || matches(pattern.as_bytes(), origin.as_bytes()))
    }
}

/// Whether the text fits; a `*` stands for any part of a host or port, so never for what separates these from
/// the rest.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let Some(star) = pattern.iter().position(|&byte| byte == b'*') else { return pattern == text };
    let (before, after) = (&pattern[..star], &pattern[star + 1..]);
    let Some(rest) = text.strip_prefix(before) else { return false };
    let wild = rest.iter().take_while(|byte| !matches!(byte, b'/' | b'@' | b'?' | b'#' | b'\\')).count();
    (0..=wild).any(|taken| matches(after, &rest[taken..]))
}

fn is_same_host(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = if scheme == "https" { "443" } else { "80" };
    let (name, port) = split_port(authority);
    let (host_name, host_port) = split_port(host);
    matches!(scheme, "http" | "https")
        && name.eq_ignore_ascii_case(host_name)
        && port.unwrap_or(default_port) == host_port.unwrap_or(default_port)
}

fn is_loopback(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let (name, port) = split_port(authority);
    matches!(scheme, "http" | "https")
        && port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
        && (name == "localhost"
            || name.ends_with(".localhost")
            || name == "[::1]"
            || name.parse().is_ok_and(|address: std::net::Ipv4Addr| address.is_loopback()))
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_clients_that_are_no_browsers() {
        assert!(Origins::new(&["https://a".to_owned()], false).allow(&headers("a", &[])));
    }

    #[test]
    fn allows_the_same_host_when_there_is_no_list() {
        let allowed = |origin, host| Origins::new(&[], false).allow(&headers(host, &[origin]));

        assert!(allowed("http://example.org", "example.org"));
        assert!(allowed("http://example.org", "EXAMPLE.org:80"));
        assert!(allowed("https://example.org", "example.org:443"));
        assert!(allowed("https://example.org", "example.org"));
        assert!(allowed("http://[::1]:8080", "[::1]:8080"));
        assert!(!allowed("http://example.org:8080", "example.org"));
        assert!(!allowed("http://example.org", "example.org:8080"));
        assert!(!allowed("http://evil.example", "example.org"));
        assert!(!allowed("null", "example.org"));
        assert!(!allowed("file://example.org", "example.org"));
        assert!(!allowed("http://localhost:3000", "example.org"));
    }

    #[test]
    fn allows_only_what_is_listed_when_there_is_a_list() {
        let list =
            ["https://*.Example.org".to_owned(), "http://dev.test:*".to_owned(), "app://x/".to_owned()];
        let allowed = |origin| Origins::new(&list, false).allow(&headers("host", &[origin]));

        for origin in ["https://a.example.org", "https://A.B.example.org", "http://dev.test:3000", "app://x"]
        {
            assert!(allowed(origin), "{origin}");
        }
        for origin in [
            "https://example.org",
            "http://a.example.org",
            "https://a.example.org.evil",
            "https://evil/.example.org",
            "https://u@a.example.org:1",
            "https://evil@x.example.org",
            "http://dev.test",
            "http://host",
            "null",
            "",
        ] {
            assert!(!allowed(origin), "{origin}");
        }
    }

    #[test]
    fn allows_every_origin_for_a_single_star() {
        let origins = Origins::new(&["*".to_owned()], false);

        assert!(origins.allow(&headers("host", &["https://a.b/c"])));
        assert!(origins.allow(&headers("host", &["null"])));
    }

    #[test]
    fn allows_pages_of_this_machine_when_told_to() {
        let allowed = |origin, loopback| Origins::new(&[], loopback).allow(&headers("host", &[origin]));

        for origin in ["http://localhost:5173", "https://127.0.0.1", "http://[::1]:1", "http://app.localhost"]
        {
            assert!(allowed(origin, true), "{origin}");
            assert!(!allowed(origin, false), "{origin}");
        }
        for origin in ["http://localhost.evil", "http://127.0.0.1.evil", "http://localhost:x", "http://[::2]"]
        {
            assert!(!allowed(origin, true), "{origin}");
        }
    }

    #[test]
    fn refuses_two_origins() {
        assert!(!Origins::new(&["*".to_owned()], true).allow(&headers("a", &["http://a", "http://a"])));
    }

    fn headers(host: &str, origins: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("host", host.parse().unwrap());
        for origin in origins {
            headers.append(ORIGIN, origin.parse().unwrap());
        }
        headers
    }
}
