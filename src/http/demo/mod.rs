//! The demo page: what it is made of, out of the program itself.
//!
//! The page loads nothing from elsewhere, and what it may do is said in its policy: scripts and styles are files of
//! their own, so that none within the page is ever run, and text becomes markup nowhere.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};

/// A part of the page, as it is served.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

impl Part {
    /// The part that a path names.
    pub(super) fn at(path: &str) -> Option<&'static Self> {
        PARTS.iter().find(|part| part.path == path)
    }

    /// The whole answer.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.text));
        let headers = response.headers_mut();
        for (name, value) in [
            (CONTENT_TYPE, self.media_type),
            // Another build of the gateway has another page at the same address.
            (CACHE_CONTROL, "no-store"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // The address of the page may hold a token.
            (REFERRER_POLICY, "no-referrer"),
            (CONNECTION, "close"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

const PARTS: &[Part] = &[
    Part { path: "/", media_type: "text/html; charset=utf-8", text: include_str!("index.html") },
    Part { path: "/demo.css", media_type: "text/css; charset=utf-8", text: include_str!("demo.css") },
    script("/demo.js", include_str!("demo.js")),
    script("/demo/line.js", include_str!("line.js")),
    script("/demo/pane.js", include_str!("pane.js")),
    script("/demo/parts.js", include_str!("parts.js")),
    script("/demo/view.js", include_str!("view.js")),
    script("/fanfare.js", include_str!("../../../clients/typescript/dist/fanfare.min.js")),
];

const fn script(path: &'static str, text: &'static str) -> Part {
    Part { path, media_type: "text/javascript; charset=utf-8", text }
}

/// Everything from the gateway itself, nothing from elsewhere; the page's icon is part of it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_every_part_that_another_loads() {
        let mut loaded = vec!["/"];
        for part in PARTS {
            // Its sources are apart from the client library, which loads nothing.
            for before in ["href=\"/", "src=\"/", "from \"/"] {
                for (at, _) in part.text.match_indices(before) {
                    let path = &part.text[at + before.len() - 1..];
                    loaded.push(path.split('"').next().unwrap());
                }
            }
        }

        for path in &loaded {
            assert!(Part::at(path).is_some(), "{path}");
        }
        for part in PARTS {
            assert!(loaded.contains(&part.path), "{}", part.path);
        }
    }

    #[test]
    fn has_nothing_that_its_policy_forbids() {
        let page = Part::at("/").unwrap().text;
        for forbidden in ["<style", " style=", "<script>", " onclick=", "http://", "https://"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        for part in PARTS.iter().filter(|part| part.path.starts_with("/demo")) {
            for forbidden in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write", "url("]
            {
                assert!(!part.text.contains(forbidden), "{forbidden} in {}", part.path);
            }
        }
    }

    #[test]
    fn knows_no_other_paths() {
        for path in ["", "/index.html", "/demo", "/demo/", "/demo.js/", "//demo.js", "/DEMO.JS", "/mod.rs"] {
            assert_eq!(Part::at(path), None, "{path}");
        }
    }
}
