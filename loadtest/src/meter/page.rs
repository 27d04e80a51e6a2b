//! A metrics page: the Prometheus text format, version 0.0.4.
//!
//! Strict, since figures are judged by it: a line that is not understood is an error and never left out.

use std::iter::Peekable;
use std::str::Chars;

use anyhow::{Context as _, Result, bail, ensure};

use super::buckets::{Bucket, Buckets};

/// All samples of one page, in its order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Page {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Page {
    /// Reads a whole page. Comments are passed over, types and help among them; timestamps are checked and dropped.
    ///
    /// # Errors
    ///
    /// Names the first line that is not of the format. A last line without its line feed is one: the page was cut, and
    /// with it perhaps a number.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut samples = Vec::new();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let sample = line.strip_suffix('\n').context("it has no end").and_then(parse_line);
            samples.extend(sample.with_context(|| format!("line {} of the metrics page", index + 1))?);
        }
        Ok(Self { samples })
    }

    /// The value of the series with these labels and no others, in any order.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has_no_others = |sample: &&Sample| sample.labels.len() == labels.len();
        self.having(name, labels).find(has_no_others).map(|sample| sample.value)
    }

    /// The sum over all series with these labels, whatever else they have; `None` when there is no such series.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.having(name, labels).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }

    /// The values of one label, over all series of that name, each with its series' value.
    pub(crate) fn by_label<'a>(
        &'a self,
        name: &'a str,
        label: &'a str,
    ) -> impl Iterator<Item = (&'a str, f64)> {
        self.having(name, &[]).filter_map(move |sample| Some((sample.label(label)?, sample.value)))
    }

    /// Whether any name begins so.
    pub(crate) fn has_prefix(&self, prefix: &str) -> bool {
        self.samples.iter().any(|sample| sample.name.starts_with(prefix))
    }

    /// The histogram of this name, all its series together; `None` when there is none.
    pub(crate) fn buckets(&self, family: &str) -> Option<Buckets> {
        let name = format!("{family}_bucket");
        let buckets = self.having(&name, &[]).filter_map(|sample| {
            let upper = sample.label("le")?.parse::<f64>().ok().filter(|upper| !upper.is_nan())?;
            Some(Bucket { upper, count: sample.value })
        });
        Buckets::new(buckets)
    }

    fn having<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        let is_wanted = move |sample: &&Sample| {
            sample.name == name && labels.iter().all(|(label, value)| sample.label(label) == Some(value))
        };
        self.samples.iter().filter(is_wanted)
    }
}

impl Sample {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

fn parse_line(line: &str) -> Result<Option<Sample>> {
    let line = line.trim_matches(BLANKS);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut rest = line.chars().peekable();
    let name = take_name(&mut rest, ":").context("a metric's name is missing")?;
    skip_blanks(&mut rest);
    let labels = if rest.next_if_eq(&'{').is_some() { take_labels(&mut rest)? } else { Vec::new() };
    let rest: String = rest.collect();
    let mut fields = rest.split(BLANKS).filter(|field| !field.is_empty());
    let value = fields.next().context("there is no value")?;
    let value = value.parse().with_context(|| format!("`{value}` is no number"))?;
    if let Some(timestamp) = fields.next() {
        timestamp.parse::<i64>().with_context(|| format!("`{timestamp}` is no timestamp"))?;
    }
    if let Some(more) = fields.next() {
        bail!("`{more}` has no meaning behind the timestamp");
    }
    Ok(Some(Sample { name, labels, value }))
}

/// The labels behind an opening brace, with the closing one.
fn take_labels(rest: &mut Peekable<Chars<'_>>) -> Result<Vec<(String, String)>> {
    let mut labels: Vec<(String, String)> = Vec::new();
    loop {
        skip_blanks(rest);
        if rest.next_if_eq(&'}').is_some() {
            return Ok(labels);
        }
        let name = take_name(rest, "").context("a label's name is missing")?;
        ensure!(!labels.iter().any(|(known, _)| *known == name), "the label `{name}` is there twice");
        for sign in ['=', '"'] {
            skip_blanks(rest);
            ensure!(rest.next_if_eq(&sign).is_some(), "`{sign}` is missing behind the label `{name}`");
        }
        let value = take_quoted(rest)?;
        labels.push((name, value));
        skip_blanks(rest);
        // A comma may also stand behind the last label.
        if rest.next_if_eq(&',').is_none() {
            ensure!(rest.peek() == Some(&'}'), "the labels do not end");
        }
    }
}

/// A label's value behind its opening quote, with the closing one.
fn take_quoted(rest: &mut Peekable<Chars<'_>>) -> Result<String> {
    let mut value = String::new();
    loop {
        match rest.next().context("a label's value does not end")? {
            '"' => return Ok(value),
            '\\' => value.push(match rest.next() {
                Some('n') => '\n',
                Some(plain @ ('\\' | '"')) => plain,
                _ => bail!("an escape that is none of \\\\, \\\" and \\n"),
            }),
            plain => value.push(plain),
        }
    }
}

/// A name of letters, digits, `_` and what else is allowed; it does not begin with a digit.
fn take_name(rest: &mut Peekable<Chars<'_>>, also: &str) -> Option<String> {
    let begins = |letter: &char| letter.is_ascii_alphabetic() || *letter == '_' || also.contains(*letter);
    let mut name = String::from(rest.next_if(begins)?);
    while let Some(letter) = rest.next_if(|letter| begins(letter) || letter.is_ascii_digit()) {
        name.push(letter);
    }
    Some(name)
}

fn skip_blanks(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|letter| BLANKS.contains(letter)).is_some() {}
}

const BLANKS: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP http_requests_total All \\\\ requests.\n\
        # TYPE http_requests_total counter\n\
        http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n\
        http_requests_total{ method = \"post\" , code=\"400\", }\t3 -1\n\
        \n\
        # a comment { with \"anything\n\
        msdos_file{path=\"C:\\\\DIR\\\\FILE.TXT\",error=\"Cannot find file:\\n\\\"ÄÖ, }=\\\"\"} 1.458255915e9\n\
        \t plain:name 12.47\n\
        empty_braces{} 5\n\
        weird{a=\"\"} +Inf\n\
        weird{a=\"1\"} -Inf\n\
        weird{a=\"2\"} NaN -3982045\n\
        wait_seconds_bucket{le=\"0.5\",source=\"a\"} 2\n\
        wait_seconds_bucket{source=\"a\",le=\"+Inf\"} 9\n\
        wait_seconds_bucket{le=\"0.1\",source=\"a\"} 1\n\
        wait_seconds_bucket{le=\"0.1\",source=\"b\"} 10\n\
        wait_seconds_bucket{le=\"0.5\",source=\"b\"} 20\n\
        wait_seconds_bucket{le=\"+Inf\",source=\"b\"} 30\n\
        wait_seconds_sum 1.5\n";

    #[test]
    fn finds_a_series_by_all_of_its_labels_in_any_order() {
        let page = Page::parse(PAGE).unwrap();
        let post = |code| page.value("http_requests_total", &[("code", code), ("method", "post")]);

        assert_eq!((post("200"), post("400"), post("500")), (Some(1027.0), Some(3.0), None));
        assert_eq!(page.value("http_requests_total", &[("code", "200")]), None, "a label is missing");
        assert_eq!(page.value("plain:name", &[]), Some(12.47));
        assert_eq!(page.value("empty_braces", &[]), Some(5.0));
        assert_eq!(page.value("plain", &[]), None);
    }

    #[test]
    fn sums_over_the_labels_that_are_not_named() {
        let page = Page::parse(PAGE).unwrap();

        assert_eq!(page.sum("http_requests_total", &[("method", "post")]), Some(1030.0));
        assert_eq!(page.sum("http_requests_total", &[("code", "400")]), Some(3.0));
        assert_eq!(page.sum("http_requests_total", &[("method", "get")]), None);
    }

    #[test]
    fn tells_the_values_of_one_label() {
        let page = Page::parse(PAGE).unwrap();

        let codes: Vec<_> = page.by_label("http_requests_total", "code").collect();

        assert_eq!(codes, [("200", 1027.0), ("400", 3.0)]);
    }

    #[test]
    fn reads_escapes_in_labels() {
        let page = Page::parse(PAGE).unwrap();
        let labels = [("path", "C:\\DIR\\FILE.TXT"), ("error", "Cannot find file:\n\"ÄÖ, }=\"")];

        assert_eq!(page.value("msdos_file", &labels), Some(1_458_255_915.0));
    }

    #[test]
    fn reads_what_is_no_common_number() {
        let page = Page::parse(PAGE).unwrap();
        let weird = |a| page.value("weird", &[("a", a)]).unwrap();

        assert_eq!((weird(""), weird("1")), (f64::INFINITY, f64::NEG_INFINITY));
        assert!(weird("2").is_nan());
    }

    #[test]
    fn adds_up_the_series_of_a_histogram_and_sorts_its_buckets() {
        let page = Page::parse(PAGE).unwrap();

        let buckets = page.buckets("wait_seconds").unwrap();

        let expected = [(0.1, 11.0), (0.5, 22.0), (f64::INFINITY, 39.0)];
        assert_eq!(buckets, Buckets::new(expected.map(|(upper, count)| Bucket { upper, count })).unwrap());
        assert_eq!(page.buckets("wait"), None);
    }

    #[test]
    fn knows_whose_page_it_is() {
        let page = Page::parse(PAGE).unwrap();

        assert!(page.has_prefix("http_"));
        assert!(!page.has_prefix("fanfare_"));
    }

    #[test]
    fn names_the_line_that_it_does_not_understand() {
        for bad in [
            "1name 2",
            "{a=\"b\"} 2",
            "name",
            "name two",
            "name 1 soon",
            "name 1 2 3",
            "name{a=\"b\" 1",
            "name{a=\"b\"c=\"d\"} 1",
            "name{a=b} 1",
            "name{a} 1",
            "name{1a=\"b\"} 1",
            "name{a:b=\"c\"} 1",
            "name{a=\"\\t\"} 1",
            "name{a=\"b} 1",
            "name{a=\"b\",a=\"c\"} 1",
            "name{,} 1",
            "name 1\r",
        ] {
            let error = Page::parse(&format!("good 1\n\n{bad}\ngood 2\n")).unwrap_err();

            assert_eq!(error.to_string(), "line 3 of the metrics page", "{bad}");
        }
    }

    #[test]
    fn a_page_cut_anywhere_is_an_error_or_the_lines_before_the_cut() {
        let whole = Page::parse(PAGE).unwrap();
        for cut in 0..PAGE.len() {
            let Ok(text) = std::str::from_utf8(&PAGE.as_bytes()[..cut]) else { continue };
            let Ok(page) = Page::parse(text) else { continue };

            assert!(text.is_empty() || text.ends_with('\n'), "cut at {cut}");
            assert_eq!(format!("{:?}", page.samples), format!("{:?}", &whole.samples[..page.samples.len()]));
        }
    }

    #[test]
    fn random_bytes_do_no_harm() {
        let letters: Vec<char> = "ab:_{}=\",\\n \t\n#0.e+-Ä".chars().collect();
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        for _ in 0..20_000 {
            let text: String = (0..24)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    letters[usize::from(state.to_le_bytes()[3]) % letters.len()]
                })
                .collect();
            let _ = Page::parse(&text);
        }
    }
}
