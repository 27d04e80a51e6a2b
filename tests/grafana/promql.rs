//! As much of `PromQL` as is needed to see which metrics a query selects, and how.

use std::ops::Range;

/// What a query says about metrics and labels.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) selectors: Vec<Selector>,
    pub(crate) groupings: Vec<Grouping>,
}

/// A metric in a query: `rate(name{label="value"}[range])`.
#[derive(Debug)]
pub(crate) struct Selector {
    pub(crate) name: String,
    pub(crate) matchers: Vec<Matcher>,
    /// What stands in brackets behind it.
    pub(crate) range: Option<String>,
    /// The function whose argument it is.
    pub(crate) function: Option<String>,
    position: usize,
}

/// One condition of a selector, such as `reason!="client"`.
#[derive(Debug)]
pub(crate) struct Matcher {
    pub(crate) label: String,
    pub(crate) operator: String,
    pub(crate) value: String,
}

/// Labels by which series are put together: `sum by (...) (...)`, `a / on (...) b`.
#[derive(Debug)]
pub(crate) struct Grouping {
    pub(crate) labels: Vec<String>,
    /// What is aggregated; the whole query for an operator.
    argument: Range<usize>,
}

impl Query {
    /// Reads a query as this repository writes them: with the labels of an aggregation before its argument.
    pub(crate) fn parse(text: &str) -> Self {
        let tokens = tokens(text);
        let mut parser = Parser { tokens: &tokens, at: 0, query: Self::default(), calls: Vec::new() };
        while parser.at < tokens.len() {
            parser.step();
        }
        assert!(parser.calls.is_empty(), "a parenthesis is not closed: {text}");
        parser.query
    }

    /// The selectors whose labels a grouping can be about.
    pub(crate) fn grouped(&self, grouping: &Grouping) -> impl Iterator<Item = &Selector> {
        self.selectors.iter().filter(|selector| grouping.argument.contains(&selector.position))
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A name, keyword or function.
    Word(String),
    Text(String),
    /// The content of brackets.
    Range(String),
    Number,
    Sign(String),
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    query: Query,
    /// For each open parenthesis the function before it.
    calls: Vec<Option<String>>,
}

impl Parser<'_> {
    fn step(&mut self) {
        let position = self.at;
        self.at += 1;
        match &self.tokens[position] {
            Token::Word(word) => self.word(word, position),
            Token::Sign(sign) if sign == "(" => self.calls.push(None),
            Token::Sign(sign) if sign == ")" => {
                self.calls.pop().expect("every parenthesis was opened");
            }
            Token::Text(_) | Token::Range(_) | Token::Number | Token::Sign(_) => {}
        }
    }

    fn word(&mut self, word: &str, position: usize) {
        match word {
            "by" | "without" => self.grouping(true),
            "on" | "ignoring" | "group_left" | "group_right" => self.grouping(false),
            "and" | "or" | "unless" | "bool" | "offset" => {}
            _ if self.next_is("(") => {
                self.at += 1;
                self.calls.push(Some(word.to_owned()));
            }
            _ if matches!(self.tokens.get(self.at), Some(Token::Word(next)) if next == "by") => {}
            _ => self.selector(word, position),
        }
    }

    fn grouping(&mut self, aggregates: bool) {
        let labels = self.until(")").into_iter().filter_map(|token| match token {
            Token::Word(label) => Some(label),
            _ => None,
        });
        let labels = labels.collect();
        let argument = if aggregates { self.at..self.closing() } else { 0..self.tokens.len() };
        self.query.groupings.push(Grouping { labels, argument });
    }

    fn selector(&mut self, name: &str, position: usize) {
        let inside = if self.next_is("{") { self.until("}") } else { Vec::new() };
        let parts = inside.split(|token| *token == Token::Sign(",".to_owned()));
        let matchers = parts.filter_map(matcher).collect();
        let range = match self.tokens.get(self.at) {
            Some(Token::Range(range)) => Some(range.clone()),
            _ => None,
        };
        let function = self.calls.last().cloned().flatten();
        self.query.selectors.push(Selector { name: name.to_owned(), matchers, range, function, position });
    }

    fn next_is(&self, sign: &str) -> bool {
        self.tokens.get(self.at) == Some(&Token::Sign(sign.to_owned()))
    }

    /// What stands between the bracket here and the next closing one, which is skipped as well.
    fn until(&mut self, closing: &str) -> Vec<Token> {
        let inside = &self.tokens[self.at + 1..];
        let length = inside.iter().position(|token| *token == Token::Sign(closing.to_owned()));
        let length = length.expect("brackets are closed");
        self.at += length + 2;
        inside[..length].to_vec()
    }

    /// Where the parenthesis closes that opens here.
    fn closing(&self) -> usize {
        assert!(self.next_is("("), "labels stand before what is aggregated");
        let mut depth = 0;
        for (index, token) in self.tokens.iter().enumerate().skip(self.at) {
            match token {
                Token::Sign(sign) if sign == "(" => depth += 1,
                Token::Sign(sign) if sign == ")" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return index;
            }
        }
        panic!("every parenthesis is closed");
    }
}

fn matcher(tokens: &[Token]) -> Option<Matcher> {
    match tokens {
        [Token::Word(label), Token::Sign(operator), Token::Text(value)] => {
            Some(Matcher { label: label.clone(), operator: operator.clone(), value: value.clone() })
        }
        [] => None,
        other => panic!("no matcher: {other:?}"),
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '"' => {
                let end = rest[1..].find('"').expect("texts are closed");
                (Token::Text(rest[1..=end].to_owned()), end + 2)
            }
            '[' => {
                let end = rest.find(']').expect("ranges are closed");
                (Token::Range(rest[1..end].to_owned()), end + 1)
            }
            '0'..='9' => {
                (Token::Number, length(rest, |letter| letter.is_ascii_alphanumeric() || letter == '.'))
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let length = length(rest, |letter| letter.is_ascii_alphanumeric() || "_:".contains(letter));
                (Token::Word(rest[..length].to_owned()), length)
            }
            _ => {
                let long = ["=~", "!~", "!=", "==", ">=", "<="].iter().any(|sign| rest.starts_with(sign));
                let length = if long { 2 } else { first.len_utf8() };
                (Token::Sign(rest[..length].to_owned()), length)
            }
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    tokens
}

fn length(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|letter| !belongs(letter)).unwrap_or(text.len())
}

#[test]
fn reads_names_matchers_ranges_functions_and_groupings() {
    let query = Query::parse(
        r#"max by (a, b) (rate(x_total{l=~"u|v", m!="w"}[5m])) / on (a) group_left () (y > bool 1e-3) unless z offset 6h"#,
    );

    let names: Vec<_> = query.selectors.iter().map(|selector| selector.name.as_str()).collect();
    assert_eq!(names, ["x_total", "y", "z"]);
    let first = &query.selectors[0];
    assert_eq!((first.range.as_deref(), first.function.as_deref()), (Some("5m"), Some("rate")));
    let matchers = first.matchers.iter().map(|one| format!("{}{}{}", one.label, one.operator, one.value));
    assert_eq!(matchers.collect::<Vec<_>>(), ["l=~u|v", "m!=w"]);
    let grouped =
        query.groupings.iter().map(|grouping| (grouping.labels.len(), query.grouped(grouping).count()));
    assert_eq!(grouped.collect::<Vec<_>>(), [(2, 1), (1, 3), (0, 3)]);
}
