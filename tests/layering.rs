//! Modules use only those below them, and the pure ones know no socket, runtime, clock or log.
//!
//! The sources are read as text: comments, literals and test code are left out, and every path is followed,
//! also through `use crate::{a, b}` and through `super`. A change to a table here is a decision about the
//! design, and comes with its reasons.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::slice;

/// Each module, lowest layer first, with those that it may use.
const TABLE: &[(&str, &str)] = &[
    ("id", ""),
    ("metrics", ""),
    ("drain", ""),
    // Drivers of several layers stamp what they hand on, so that the times can be compared.
    ("clock", ""),
    ("log", ""),
    // What the gateway asks of others goes by one kind of client, with one idea of whom to trust.
    ("egress", ""),
    // What refuses a connection says what it is counted as.
    ("admission", "metrics"),
    ("memory", ""),
    // The queries of clients and of operators are encoded alike.
    ("percent", ""),
    ("readiness", ""),
    ("ws", ""),
    // What the shards answer to an operator's question names connections and the labels of metrics.
    ("inspect", "id metrics"),
    ("protocol", "id"),
    ("auth", "id"),
    ("history", "id"),
    ("presence", "id"),
    ("session", "id protocol ws"),
    ("transport", "metrics"),
    ("inbox", "id ws transport inspect metrics memory admission"),
    ("http", "id auth ws transport metrics drain clock percent admission"),
    ("engine", "id history metrics"),
    // Below the hub, that whoever learns there what happens in rooms can pass it on; the secret is one as those of tokens are.
    ("webhooks", "id auth egress metrics clock log"),
    ("hub", "id ws history presence engine inbox inspect metrics clock"),
    (
        "shard",
        "id metrics drain clock log memory admission inspect ws protocol auth history presence session transport inbox http hub",
    ),
    ("admin", "id auth protocol hub inbox drain metrics clock readiness inspect percent transport ws"),
    // The keys of tokens are fetched beside the data plane, and handed to what checks tokens as a whole.
    ("jwks", "auth egress metrics readiness clock log"),
    ("watchdog", "clock log readiness inspect inbox metrics"),
    // The id that a connection gets at accept is what chooses its shard; its socket is watched as others are.
    ("listener", "id inbox transport drain metrics clock log admission"),
    (
        "config",
        "id metrics drain memory admission egress ws protocol auth history presence session transport inbox http engine \
         hub shard admin jwks watchdog listener webhooks",
    ),
    (
        "server",
        "id metrics drain memory admission egress ws protocol auth history presence session transport inbox http engine hub \
         shard admin jwks listener watchdog webhooks config clock log readiness inspect",
    ),
    ("cli", "config"),
    // How lines are written is tested where the parts write theirs; only the process has one place to write them to.
    ("main", "cli config server log"),
];

/// The modules that compute and leave all doing to drivers.
const PURE: &[&str] = &[
    "admission",
    "id",
    "ws",
    "protocol",
    "auth",
    "history",
    "presence",
    "session",
    "shard::state",
    "shard::client",
    "shard::conversation",
    "shard::counts",
    "shard::deadline",
    "shard::draining",
    "shard::farewell",
    "shard::footprint",
    "shard::inspection",
    "shard::lookups",
    "shard::membership",
    "shard::queue",
    "shard::rate",
    "shard::renewal",
    "shard::restart",
    "shard::resume",
    "shard::taps",
    "shard::unsubscribing",
    "shard::outbound",
    "shard::parked",
    "shard::room",
    "shard::batch",
    "shard::backlog",
    "shard::wheel",
    "jwks::schedule",
    "webhooks::answer",
    "webhooks::outbox",
    "webhooks::payload",
    "webhooks::signature",
    "hub::heat",
    "hub::room",
    "hub::rules",
];

/// What a pure module does not name: any path that begins like this.
const DRIVEN: &[&str] =
    &["tokio", "hyper", "hyper_util", "mio", "socket2", "tracing", "std::net", "std::thread"];

/// What a pure module does not call: any path that ends like this.
const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now"];

/// Words that may stand before a path that begins with `::`, and are no part of it.
const BEFORE_PATHS: &[&str] = &[
    "use", "in", "as", "dyn", "impl", "for", "mut", "const", "return", "break", "if", "while", "match",
    "else",
];

#[test]
fn modules_use_only_what_the_table_allows() {
    assert_none(sources().iter().flat_map(Source::forbidden_uses));
}

#[test]
fn pure_modules_name_no_runtime_socket_clock_or_log() {
    assert_none(sources().iter().flat_map(Source::impurities));
}

#[test]
fn the_table_has_no_cycle() {
    for (index, (module, used)) in TABLE.iter().enumerate() {
        for used in used.split_whitespace() {
            assert!(TABLE[..index].iter().any(|(lower, _)| *lower == used), "{module} -> {used} goes up");
        }
    }
}

#[test]
fn the_pure_parts_of_folders_are_where_the_list_says() {
    let sources = sources();
    for pure in PURE.iter().filter(|pure| pure.contains("::")) {
        assert!(sources.iter().any(|source| source.module.join("::") == **pure), "there is no {pure}");
    }
}

#[test]
fn finds_an_arrow_that_the_table_lacks() {
    for planted in [
        "use crate::hub::Hub;",
        "use crate::{id, hub::{self, Hub}};",
        "fn f() { let x: Vec<crate::hub::Hub> = g(|y| y); }",
        "use super::super::hub::Hub;",
        "mod inner { fn f() { super::super::super::hub::g() } }",
        "fn f() { x as crate::hub::Number }",
        "pub use\n    crate :: // all of it\n    hub :: *;",
        "use ::fanfare::hub;",
        "macro_rules! m { () => { $crate::hub::f() } }",
    ] {
        let found: Vec<_> = Source::new("session/talk.rs", planted).forbidden_uses().collect();

        assert_eq!(found, ["session/talk.rs: session may not use hub"], "{planted}");
    }
}

#[test]
fn finds_modules_without_a_row_and_names_for_the_whole_crate() {
    let found = |path, text| Source::new(path, text).forbidden_uses().collect::<Vec<_>>();

    assert_eq!(found("helpers.rs", ""), ["helpers.rs: helpers is not in the table"]);
    assert_eq!(found("session.rs", "use crate::helpers::f;"), ["session.rs: session may not use helpers"]);
    assert_eq!(found("session.rs", "use crate as all;"), ["session.rs: session may not use the whole crate"]);
    assert_eq!(found("session.rs", "use crate::*;"), ["session.rs: session may not use *"]);
}

#[test]
fn allows_the_table_and_paths_inside_a_module() {
    for allowed in [
        "use crate::id::{ClientId, UserId}; use crate::ws::CloseCode;",
        "use crate::session::talk; use super::other; use self::inner::f;",
        "use crate::{id as hub, ws as http};",
        "mod inner { pub(in super::super) fn f() { super::super::g() } }",
        "// use crate::hub;\n/* crate::hub /* crate::hub */ crate::hub */ //! [`crate::hub`]",
        r##"const A: &str = "crate::hub \" crate::hub"; const B: &str = r#"crate::hub " "#;"##,
        r"fn f<'a>(x: &'a str) -> char { if x == y { '\'' } else { '{' } } fn g<'b>() {}",
        "pub(crate) fn f() {}",
        "#[cfg(test)]\n#[expect(x, reason = \"y\")]\nmod tests { use crate::hub; fn f() { \"}\"; } }",
        "#[cfg(test)]\nuse crate::hub::{Hub, Room};",
        "#[cfg(test)]\nfn f(x: [u8; 4]) { crate::hub::f() }",
    ] {
        let found: Vec<_> = Source::new("session/talk.rs", allowed).forbidden_uses().collect();

        assert!(found.is_empty(), "{allowed}: {found:?}");
    }
}

#[test]
fn finds_what_follows_left_out_code() {
    for planted in [
        "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::hub;",
        "#[cfg(test)]\nmod tests;\nuse crate::hub;",
        "const A: char = '\"'; use crate::hub; const B: char = '\"';",
        "#[cfg(not(test))]\nuse crate::hub;",
        "/* */ use crate::hub; // crate::id",
    ] {
        assert_eq!(Source::new("session.rs", planted).forbidden_uses().count(), 1, "{planted}");
    }
}

#[test]
fn finds_what_makes_a_pure_module_impure() {
    for (planted, name) in [
        ("use tokio::sync::Notify;", "tokio::sync::Notify"),
        ("use ::{hyper, bytes};", "hyper"),
        ("fn f(x: mio::Token) {}", "mio::Token"),
        ("use std::{fmt, net::{self, TcpStream}};", "std::net::self"),
        ("fn f() { std::time::Instant::now(); }", "std::time::Instant::now"),
        ("fn f() { let x = SystemTime :: now(); }", "SystemTime::now"),
        ("fn f() { g()\n    .await; }", ".await"),
        ("fn f() { tracing::warn!(\"x\") }", "tracing::warn"),
    ] {
        let found: Vec<_> = Source::new("shard/state.rs", planted).impurities().collect();

        let expected = format!("shard/state.rs: {name} in a pure module");
        assert_eq!(found.first(), Some(&expected), "{planted}");
        assert_eq!(
            Source::new("shard/driver.rs", planted).impurities().count(),
            0,
            "a driver may: {planted}"
        );
    }
}

#[test]
fn leaves_pure_modules_what_only_looks_impure() {
    let text =
        "use std::time::Instant; use crate::auth::hyper; fn tokio_like(now: Instant) -> bool { x.mio() }
        #[cfg(test)] mod tests { use std::net::TcpStream; }";

    assert_eq!(Source::new("ws/mod.rs", text).impurities().count(), 0);
}

/// One file of the crate, with what it names.
struct Source {
    path: String,
    /// Where it stands below the crate.
    module: Vec<String>,
    /// Every path in it, `crate::` and `super::` resolved to the place below the crate.
    paths: Vec<Named>,
    awaits: bool,
    /// The files below it that are only compiled for tests.
    test_modules: Vec<String>,
}

enum Named {
    /// Inside this crate.
    Own(Vec<String>),
    /// In other crates, or relative to what is in scope.
    Other(String),
}

impl Source {
    /// Reads a file's text; `path` is relative to `src`.
    fn new(path: &str, text: &str) -> Self {
        let module: Vec<_> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        let module = match module.split_last() {
            Some((last, folder)) if last == "mod" || last == "lib" => folder.to_vec(),
            _ => module,
        };
        let mut tokens = tokens(text);
        let test_modules = take_out_tests(&mut tokens);
        let awaits = tokens.windows(2).any(|pair| pair == [".", "await"]);
        let paths = paths(&tokens, &module);
        Self { path: path.to_owned(), module, paths, awaits, test_modules }
    }

    fn forbidden_uses(&self) -> impl Iterator<Item = String> {
        let Some(module) = self.module.first() else {
            return BTreeSet::new().into_iter();
        };
        let mut found = BTreeSet::new();
        let allowed = TABLE.iter().find(|(name, _)| name == module).map(|(_, used)| used);
        if allowed.is_none() {
            found.insert(format!("{}: {module} is not in the table", self.path));
        }
        for named in &self.paths {
            let Named::Own(path) = named else { continue };
            let used = path.first().map_or("the whole crate", String::as_str);
            let is_allowed =
                allowed.is_some_and(|allowed| allowed.split_whitespace().any(|name| name == used));
            if used != module && !is_allowed {
                found.insert(format!("{}: {module} may not use {used}", self.path));
            }
        }
        found.into_iter()
    }

    fn impurities(&self) -> impl Iterator<Item = String> {
        let module = self.module.join("::");
        let is_pure = PURE.iter().any(|pure| begins_with(&module, pure));
        let driven = self.paths.iter().filter_map(|named| match named {
            Named::Other(path) if is_impure(path) => Some(path.as_str()),
            _ => None,
        });
        let found = driven.chain(self.awaits.then_some(".await"));
        found.filter(move |_| is_pure).map(|name| format!("{}: {name} in a pure module", self.path))
    }
}

fn is_impure(path: &str) -> bool {
    let is_clock =
        |clock| path.strip_suffix(clock).is_some_and(|rest| rest.is_empty() || rest.ends_with("::"));
    DRIVEN.iter().any(|driven| begins_with(path, driven)) || CLOCKS.iter().any(is_clock)
}

/// Whether the path is this one or one below it.
fn begins_with(path: &str, first: &str) -> bool {
    path.strip_prefix(first).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every file of the crate that is not only compiled for tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the sources") {
            let path = entry.expect("an entry of it").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source is text");
                let name = path.strip_prefix(&root).expect("it was found there");
                sources.push(Source::new(name.to_str().expect("names are ASCII"), &text));
            }
        }
    }
    let tests: BTreeSet<Vec<String>> = sources
        .iter()
        .flat_map(|source| {
            source.test_modules.iter().map(|name| [&source.module[..], slice::from_ref(name)].concat())
        })
        .collect();
    sources.retain(|source| !(1..=source.module.len()).any(|end| tests.contains(&source.module[..end])));
    assert!(!sources.is_empty());
    sources
}

/// The names and signs of a text, without comments, literals and lifetimes. `::` is one sign.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (len, is_token) = if let Some(len) = left_out(rest) {
            (len, false)
        } else if is_word(first) {
            (rest.find(|next| !is_word(next)).unwrap_or(rest.len()), true)
        } else if rest.starts_with("::") {
            (2, true)
        } else {
            (first.len_utf8(), !first.is_whitespace())
        };
        let (token, after) = rest.split_at(len);
        if is_token {
            tokens.push(token);
        }
        rest = after;
    }
    tokens
}

fn is_word(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

/// The length of the comment, literal or lifetime that the text begins with.
fn left_out(text: &str) -> Option<usize> {
    let to_end_of =
        |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    if text.starts_with("//") {
        return Some(to_end_of("\n", 0));
    }
    if text.starts_with("/*") {
        return Some(block_comment(text));
    }
    if let Some(hashes) = raw_string_hashes(text) {
        let opening = text.find('"')? + 1;
        return Some(to_end_of(&format!("\"{}", "#".repeat(hashes)), opening));
    }
    if text.starts_with('"') {
        return Some(quoted(text, '"'));
    }
    let after = text.strip_prefix('\'')?;
    let mut letters = after.chars();
    let is_letter = letters.next() == Some('\\') || letters.next() == Some('\'');
    Some(if is_letter {
        quoted(text, '\'')
    } else {
        1 + after.find(|next| !is_word(next)).unwrap_or(after.len())
    })
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let (step, deeper) = match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        at += step;
        depth += deeper;
        if depth == 0 {
            break;
        }
    }
    at
}

/// How many `#` a raw string's quotes have, if the text begins with one.
fn raw_string_hashes(text: &str) -> Option<usize> {
    let after = ["r", "br", "cr"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let hashes = after.find(|next| next != '#')?;
    after[hashes..].starts_with('"').then_some(hashes)
}

/// The length of a literal in these quotes, with escapes.
fn quoted(text: &str, quote: char) -> usize {
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' {
            letters.next();
        } else if letter == quote {
            return at + 1;
        }
    }
    text.len()
}

/// Removes every item that stands under `#[cfg(test)]`, and returns the names of those that are files.
fn take_out_tests(tokens: &mut Vec<&str>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut files = Vec::new();
    while let Some(start) = tokens.windows(MARK.len()).position(|window| window == MARK) {
        let item = start + MARK.len();
        let end = item + item_len(&tokens[item..]);
        if let [.., "mod", name, ";"] = &tokens[item..end] {
            files.push((*name).to_owned());
        }
        tokens.drain(start..end);
    }
    files
}

/// Up to the `;` outside all brackets, or the brace that closes the first one opened there.
fn item_len(tokens: &[&str]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => (),
        }
        if depth < 0 {
            return at;
        }
        if depth == 0 && matches!(*token, ";" | "}") {
            return at + 1;
        }
    }
    tokens.len()
}

/// Every path among the tokens of a file that is this module.
fn paths(tokens: &[&str], module: &[String]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut here = module.to_vec();
    // For each open brace, whether it belongs to a module inside the file.
    let mut braces = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at..] {
            ["mod", name, "{", ..] => {
                here.push(name.to_owned());
                braces.push(true);
                at += 3;
            }
            ["{", ..] => {
                braces.push(false);
                at += 1;
            }
            ["}", ..] => {
                if braces.pop() == Some(true) {
                    here.pop();
                }
                at += 1;
            }
            // Only a visibility, or a method's or field's name.
            ["(", "crate" | "super" | "self", ")", ..] | [".", _, ..] => at += 2,
            [word, "::", ..] if BEFORE_PATHS.contains(&word) => at += 1,
            _ => {
                let mut written = Vec::new();
                at += path(&tokens[at..], &[], &mut written).max(1);
                found.extend(written.iter().filter_map(|path| resolve(path, &here)));
            }
        }
    }
    found
}

/// Reads one path, or the tree of a `use`, into whole paths; returns how many tokens that was.
fn path<'a>(tokens: &[&'a str], before: &[&'a str], found: &mut Vec<Vec<&'a str>>) -> usize {
    let mut whole = before.to_vec();
    let mut at = 0;
    if tokens.first() == Some(&"::") {
        at += 1;
    }
    loop {
        match tokens.get(at) {
            Some(&"{") if at > 0 => {
                at += 1;
                while at < tokens.len() && tokens[at] != "}" {
                    at += path(&tokens[at..], &whole, found).max(1);
                }
                return at + 1;
            }
            Some(&word) if word == "*" && !whole.is_empty() || word.starts_with(is_word) => {
                whole.push(word);
                at += 1;
            }
            _ => break,
        }
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    // What it is called here is no path; what a value is cast to may be one.
    if tokens.get(at) == Some(&"as") && tokens.get(at + 2) != Some(&"::") {
        at += 2;
    }
    if whole.len() > before.len() {
        found.push(whole);
    }
    at
}

/// Where a path leads, seen from a module. `None` for what stays inside a module by `self`.
fn resolve(path: &[&str], here: &[String]) -> Option<Named> {
    let ups = path.iter().take_while(|part| **part == "super").count();
    let (mut place, rest) = match path {
        ["crate" | "fanfare", rest @ ..] => (Vec::new(), rest),
        ["super", ..] => (here[..here.len().saturating_sub(ups)].to_vec(), &path[ups..]),
        ["self" | "Self", ..] => return None,
        _ => return Some(Named::Other(path.join("::"))),
    };
    place.extend(rest.iter().map(|part| (*part).to_owned()));
    Some(Named::Own(place))
}

fn assert_none(found: impl Iterator<Item = String>) {
    let found: Vec<_> = found.collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
