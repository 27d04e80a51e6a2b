//! Finds the end of a request's head (RFC 9112 section 2) as it arrives, inside bounds.
//!
//! Only the head is given to the HTTP parser: what comes behind it is another protocol's, and must not be
//! read as a second request.

use super::Options;
use super::refusal::Refusal;

/// Where the search stands. Every byte is looked at once, however the head is cut.
#[derive(Debug, Default)]
pub(super) struct HeadFinder {
    /// Where the request line begins, behind the empty lines that may precede it.
    start: usize,
    /// Everything before has been looked at.
    scanned: usize,
    /// Line ends seen, that of the request line included.
    lines: usize,
}

impl HeadFinder {
    /// The length of the head, or `None` while it is incomplete. `bytes` is all that has come so far.
    ///
    /// # Errors
    ///
    /// [`Refusal`] as soon as a bound is passed, or it is clear that this is not HTTP.
    pub(super) fn find(&mut self, bytes: &[u8], options: &Options) -> Result<Option<usize>, Refusal> {
        self.skip_empty_lines(bytes);
        if bytes.get(self.start).is_some_and(|byte| !byte.is_ascii_graphic()) {
            return Err(Refusal::malformed("this is not an HTTP request"));
        }
        let end = self.scan(bytes, options)?;
        if end.unwrap_or(bytes.len()) > options.header_bytes {
            return Err(Refusal::head_too_large(options.header_bytes));
        }
        Ok(end)
    }

    fn skip_empty_lines(&mut self, bytes: &[u8]) {
        if self.lines > 0 {
            return;
        }
        while matches!(bytes.get(self.start), Some(b'\r' | b'\n')) {
            self.start += 1;
        }
        self.scanned = self.scanned.max(self.start);
    }

    fn scan(&mut self, bytes: &[u8], options: &Options) -> Result<Option<usize>, Refusal> {
        while let Some(ahead) = bytes[self.scanned..].iter().position(|&byte| byte == b'\n') {
            let at = self.scanned + ahead;
            if self.lines == 0 {
                check_request_line(&bytes[self.start..at], options)?;
            }
            let end = match bytes[at + 1..] {
                [b'\n', ..] => Some(at + 2),
                [b'\r', b'\n', ..] => Some(at + 3),
                [] | [b'\r'] => {
                    self.scanned = at;
                    return Ok(None);
                }
                _ => None,
            };
            self.lines += 1;
            self.scanned = at + 1;
            if self.lines - 1 > options.headers {
                return Err(Refusal::too_many_headers(options.headers));
            }
            if end.is_some() {
                return Ok(end);
            }
        }
        self.scanned = bytes.len();
        if self.lines == 0 {
            check_request_line(&bytes[self.start..], options)?;
        }
        Ok(None)
    }
}

fn check_request_line(line: &[u8], options: &Options) -> Result<(), Refusal> {
    if line.len() <= options.target_bytes {
        return Ok(());
    }
    let method_ends = line[..options.target_bytes].contains(&b' ');
    Err(if method_ends {
        Refusal::target_too_long(options.target_bytes)
    } else {
        Refusal::malformed("the request line has no target")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &[u8] = b"\r\nGET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";

    #[test]
    fn finds_the_same_end_wherever_the_head_is_cut() {
        let options = Options::default();
        let pipelined = [HELLO, b"\x81\x80\n\n\n\nGET / HTTP/1.1\r\n\r\n"].concat();
        for cut in 0..=HELLO.len() {
            let mut finder = HeadFinder::default();
            let early = finder.find(&pipelined[..cut], &options).unwrap();
            let end = match early {
                Some(end) => Some(end),
                None => finder.find(&pipelined, &options).unwrap(),
            };
            assert_eq!(early.is_some(), cut == HELLO.len(), "cut at {cut}");
            assert_eq!(end, Some(HELLO.len()), "cut at {cut}");
        }
    }

    #[test]
    fn finds_the_end_byte_by_byte() {
        let mut finder = HeadFinder::default();
        for end in 0..HELLO.len() {
            assert_eq!(finder.find(&HELLO[..end], &Options::default()).unwrap(), None);
        }
        assert_eq!(finder.find(HELLO, &Options::default()).unwrap(), Some(HELLO.len()));
    }

    #[test]
    fn accepts_bare_line_feeds() {
        let head = b"GET / HTTP/1.1\nHost: a\n\nrest";

        assert_eq!(found(head), Ok(Some(24)));
    }

    #[test]
    fn refuses_what_cannot_be_http_at_the_first_byte() {
        assert_eq!(found(b"\x16\x03\x01"), Err(400));
        assert_eq!(found(b"\0"), Err(400));
    }

    #[test]
    fn refuses_a_head_over_the_limit_before_its_end() {
        let limit = Options::default().header_bytes;
        let mut head = b"GET / HTTP/1.1\r\nx: ".to_vec();
        head.resize(limit, b'a');
        assert_eq!(found(&head), Ok(None));
        head.push(b'a');
        assert_eq!(found(&head), Err(431));
    }

    #[test]
    fn counts_headers_exactly() {
        let head = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));

        assert!(matches!(found(head(64).as_bytes()), Ok(Some(_))));
        assert_eq!(found(head(65).as_bytes()), Err(431));
    }

    #[test]
    fn refuses_a_long_request_line_as_such_even_when_all_else_is_too_long() {
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(20_000));
        assert_eq!(found(long.as_bytes()), Err(414));
        assert_eq!(found(&long.as_bytes()[..9_000]), Err(414));
        assert_eq!(found("G".repeat(9_000).as_bytes()), Err(400));
    }

    #[test]
    fn is_bounded_on_empty_lines() {
        assert_eq!(found(&b"\r\n".repeat(9_000)), Err(431));
    }

    fn found(bytes: &[u8]) -> Result<Option<usize>, u16> {
        HeadFinder::default().find(bytes, &Options::default()).map_err(|refusal| refusal.status().as_u16())
    }
}
