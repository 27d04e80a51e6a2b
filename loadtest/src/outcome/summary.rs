//! The outcome as text for people, at most as wide as a terminal of 100 columns unless a name is longer.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table, presets};

use super::{Audit, Figures, Outcome, Tone, Verdict, figure};

/// The whole text, ending with a line break; with ANSI colours if `colour`.
pub(crate) fn summary(outcome: &Outcome, colour: bool) -> String {
    let paint = Paint { colour };
    let mut text = header(outcome, paint);
    let measured: Vec<_> = outcome.phases.iter().filter(|phase| phase.measured).collect();
    for phase in &measured {
        let title = format!("{} ({})", phase.name, figure::show("seconds", phase.end - phase.begin));
        text += &section(&title, &phase.figures, paint);
    }
    if measured.len() != 1 && !outcome.figures.is_empty() {
        text += &section(
            if measured.is_empty() { "run" } else { "all measured phases" },
            &outcome.figures,
            paint,
        );
    }
    text.push('\n');
    text += &faults(outcome, paint);
    if let Some(audit) = &outcome.audit {
        text += &audited(audit, paint);
    }
    text += &thresholds(&outcome.thresholds, paint);
    for note in &outcome.notes {
        text += &line("note", note);
    }
    if outcome.client_was_bottleneck {
        let warning = "the client was the bottleneck: the server can do more than these figures say";
        text += &line("WARNING", &paint.tone(Tone::Warning, warning));
    }
    text
}

fn header(outcome: &Outcome, paint: Paint) -> String {
    let mut parts = vec![paint.bold(&outcome.name)];
    parts.extend(outcome.targets.first().cloned());
    if outcome.targets.len() > 1 {
        parts.push(format!("and {} more", outcome.targets.len() - 1));
    }
    if let Some(connections) = outcome.figures.get("connections") {
        parts.push(format!("{} connections", figure::show("connections", *connections)));
    }
    let seconds = outcome.phases.iter().map(|phase| phase.end).fold(0.0, f64::max);
    if seconds > 0.0 {
        parts.push(figure::show("seconds", seconds));
    }
    let headlines: Vec<_> = outcome.headlines().iter().map(|(tone, said)| paint.tone(*tone, said)).collect();
    parts.push(headlines.join(", "));
    let mut text = parts.join("  ") + "\n";
    if let Some(why) = &outcome.stopped {
        text += &line("stopped", &paint.tone(Tone::Bad, why));
    }
    text + &wrapped(&outcome.environment.line(), 0) + "\n"
}

/// One phase: its rates, latencies, what it cost, and every other figure that it has.
fn section(title: &str, figures: &Figures, paint: Paint) -> String {
    let mut left = Unsaid { figures, said: BTreeSet::new() };
    let mut text = format!("\n{}\n", paint.bold(title));
    text += &rates(&mut left);
    text += &latencies(&mut left);
    let server = [
        ("server_cpu_percent", " of a core"),
        ("server_cpu_us_per_delivery", " CPU per delivery"),
        ("server_cpu_us_per_connect", " CPU per connect"),
        ("server_resident_bytes", " resident"),
        ("server_bytes_per_connection", " per connection"),
    ];
    text += &listed("server", server.map(|(name, about)| left.take(name).map(|value| value + about)));
    let client = [
        ("client_cpu_percent", "", " of a core"),
        ("lag_p99_us", "schedule lag p99 ", ""),
        ("lag_max_us", "max ", ""),
    ];
    text += &listed(
        "client",
        client.map(|(name, before, about)| left.take(name).map(|value| format!("{before}{value}{about}"))),
    );
    let rest = left.rest();
    if rest.is_empty() { text } else { text + &line("also", &rest.join(", ")) }
}

/// Rates and counts, two beside each other.
fn rates(figures: &mut Unsaid<'_>) -> String {
    let known = [
        ("connections", "connections"),
        ("connects_per_second", "connects"),
        ("published_per_second", "published"),
        ("deliveries_per_second", "deliveries"),
        ("sent_bytes_per_second", "sent"),
        ("received_bytes_per_second", "received"),
        ("kept_percent", "kept by readers"),
        ("back_seconds", "all back after"),
    ];
    let cells: Vec<_> =
        known.iter().filter_map(|(name, label)| Some([(*label).to_owned(), figures.take(name)?])).collect();
    let rows = cells.chunks(2).map(<[_]>::concat).collect::<Vec<_>>();
    table(None, rows, &[1, 3])
}

/// One row for each kind of latency.
fn latencies(figures: &mut Unsaid<'_>) -> String {
    let columns = ["p50", "p90", "p99", "p999", "max", "count"];
    let mut rows = Vec::new();
    for kind in Outcome::kinds(figures.figures) {
        figures.said.insert(format!("{kind}_mean_us"));
        if kind == "lag" {
            for column in columns {
                figures.said.insert(format!("lag_{column}_us"));
            }
            figures.said.insert("lag_count".to_owned());
            continue;
        }
        let mut row = vec![kind.to_owned()];
        for column in columns {
            let unit = if column == "count" { "" } else { "_us" };
            row.push(figures.take(&format!("{kind}_{column}{unit}")).unwrap_or_else(|| "-".to_owned()));
        }
        rows.push(row);
    }
    let header = ["latency", "p50", "p90", "p99", "p99.9", "max", "count"];
    table(Some(&header), rows, &[1, 2, 3, 4, 5, 6])
}

fn faults(outcome: &Outcome, paint: Paint) -> String {
    if outcome.faults.none() {
        return line("faults", &paint.tone(Tone::Good, "none"));
    }
    let counts: Vec<_> = outcome.faults.counts().into_iter().filter(|(_, count)| *count > 0).collect();
    let counts: Vec<_> = counts
        .iter()
        .map(|(name, count)| format!("{} {}", figure::grouped(&count.to_string()), name.replace('_', " ")))
        .collect();
    let mut text = line("FAULTS", &paint.tone(Tone::Bad, &counts.join(", ")));
    for remark in &outcome.faults.remarks {
        text += &line("", remark);
    }
    text
}

fn audited(audit: &Audit, paint: Paint) -> String {
    let wrong: Vec<_> = audit.checks.iter().filter(|check| !check.ok).collect();
    if audit.ok && wrong.is_empty() {
        let agrees = format!("agrees: {} counters of the server", audit.checks.len());
        return line("audit", &paint.tone(Tone::Good, &agrees));
    }
    let said = format!("{} of {} counters of the server disagree", wrong.len(), audit.checks.len());
    let mut text = line("AUDIT", &paint.tone(Tone::Bad, &said));
    for check in wrong {
        let [server, clients] = [check.server, check.clients].map(|count| figure::show("", count));
        text += &line("", &format!("{}: server {server}, clients {clients} ({})", check.what, check.rule));
    }
    text
}

fn thresholds(verdicts: &[Verdict], paint: Paint) -> String {
    let mut text = String::new();
    for (index, Verdict { text: threshold, ok, message, .. }) in verdicts.iter().enumerate() {
        let (tone, word) = if *ok { (Tone::Good, "ok    ") } else { (Tone::Bad, "MISSED") };
        let label = if index == 0 { "thresholds" } else { "" };
        text += &line(label, &format!("{} {threshold}: {message}", paint.tone(tone, word)));
    }
    text
}

/// The parts that there are, in one line; nothing if there are none.
fn listed<const N: usize>(label: &str, parts: [Option<String>; N]) -> String {
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { line(label, &parts.join(", ")) }
}

fn line(label: &str, text: &str) -> String {
    format!("  {label:<10}  {}\n", wrapped(text, 14))
}

/// The text in lines of at most [`WIDTH`] letters, if its words allow it, all but the first of them indented.
fn wrapped(text: &str, indent: usize) -> String {
    let mut wrapped = String::new();
    let mut width = indent;
    for word in text.split(' ') {
        let letters = visible(word);
        if width > indent && width + 1 + letters > WIDTH {
            write!(wrapped, "\n{:indent$}", "").expect(ENDLESS);
            width = indent;
        } else if width > indent {
            wrapped.push(' ');
            width += 1;
        }
        wrapped += word;
        width += letters;
    }
    wrapped
}

/// How many letters a terminal shows of this, which may have colours.
fn visible(word: &str) -> usize {
    let mut hidden = false;
    let seen = word.chars().filter(|letter| {
        let was_hidden = hidden;
        hidden = if hidden { *letter != 'm' } else { *letter == '\u{1b}' };
        !hidden && !was_hidden
    });
    seen.count()
}

/// Rows below each other without lines, the columns of numbers to the right.
pub(super) fn table(header: Option<&[&str]>, rows: Vec<Vec<String>>, numbers: &[usize]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(header) = header {
        table.set_header(header.iter().copied());
    }
    table.add_rows(rows);
    for index in numbers {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for row in table.lines() {
        writeln!(text, " {}", row.trim_end()).expect(ENDLESS);
    }
    text
}

/// Figures, and which of them have been told.
struct Unsaid<'a> {
    figures: &'a Figures,
    said: BTreeSet<String>,
}

impl Unsaid<'_> {
    fn take(&mut self, name: &str) -> Option<String> {
        let value = self.figures.get(name)?;
        self.said.insert(name.to_owned());
        Some(figure::show(name, *value))
    }

    /// All that no line above has told, except the totals of what was told as a rate.
    fn rest(&self) -> Vec<String> {
        let told = |name: &str| {
            self.said.contains(name) || self.said.contains(&format!("{name}_per_second")) || name == "seconds"
        };
        let rest = self.figures.iter().filter(|(name, _)| !told(name));
        rest.map(|(name, value)| format!("{name} {}", figure::show(name, *value))).collect()
    }
}

#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn bold(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    fn tone(self, tone: Tone, text: &str) -> String {
        let colour = match tone {
            Tone::Good => AnsiColor::Green,
            Tone::Warning => AnsiColor::Yellow,
            Tone::Bad => AnsiColor::Red,
        };
        self.with(colour.on_default().bold(), text)
    }

    fn with(self, style: Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

const WIDTH: usize = 100;
const ENDLESS: &str = "a text takes all that is written to it";

#[cfg(test)]
mod tests {
    use super::super::{Check, sample};
    use super::*;

    #[test]
    fn a_good_run_is_told_with_its_phases_and_fits_a_terminal() {
        let text = summary(&sample::sample(), false);
        assert!(text.starts_with("broadcast  ws://127.0.0.1:8080/ws  10,000 connections  120 s  passed\n"));
        assert!(text.contains("share the machine\n"));
        assert!(text.contains("\nsteady (60 s)\n") && !text.contains("\nramp"));
        assert!(text.contains("all measured phases") && text.contains("agrees: 3 counters"));
        assert!(text.contains("ok     delivery_p99<50ms: delivery_p99_us is 4.10 ms"));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH && line.trim_end() == line), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn every_figure_is_told() {
        let mut outcome = sample::sample();
        outcome.phases.clear();
        outcome.figures.insert("new_and_unheard_of_us".into(), 1500.0);
        let text = summary(&outcome, false);
        assert!(text.contains("new_and_unheard_of_us 1.50 ms") && text.contains("closed_1012 10,000"));
        assert!(text.contains("schedule lag p99 102 us") && text.contains("per connection"));
    }

    #[test]
    fn what_went_wrong_is_said_aloud() {
        let mut outcome = sample::sample();
        outcome.ok = false;
        outcome.client_was_bottleneck = true;
        outcome.stopped = Some("interrupted".into());
        outcome.notes.push("the server has no such thing".into());
        outcome.faults.lost = 1_234;
        outcome.faults.false_gaps = 1;
        outcome.faults.remarks.push("room 7 lost 3 to 9".into());
        let audit = outcome.audit.as_mut().unwrap();
        audit.ok = false;
        audit.checks.push(Check {
            what: "dropped".into(),
            server: 1.0,
            clients: 2.5,
            ok: false,
            rule: "equal".into(),
        });
        outcome.thresholds.push(Verdict {
            text: "lost==0".into(),
            message: "lost is 1,234".into(),
            ..Verdict::default()
        });
        let text = summary(&outcome, false);
        for part in [
            "stopped early, faults, audit disagrees, threshold missed, client was the bottleneck",
            "interrupted",
            "1,234 lost, 1 false gaps",
            "room 7 lost 3 to 9",
            "the server has no such thing",
            "1 of 4 counters",
            "dropped: server 1, clients 2.50 (equal)",
            "MISSED lost==0: lost is 1,234",
            "the client was the bottleneck: the server can do more",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn an_empty_outcome_has_a_summary_too() {
        let text = summary(&Outcome::default(), false);
        assert!(text.contains("failed") && text.contains("faults"));
    }

    #[test]
    fn long_lines_are_broken_between_words_whatever_their_colour() {
        let text = line("remark", &["word"; 40].join(" "));
        assert!(text.lines().count() > 2 && text.lines().all(|line| line.len() <= WIDTH));
        assert!(text.lines().skip(1).all(|line| line.starts_with("              word")));
        let coloured = Paint { colour: true }.tone(Tone::Bad, &["word"; 17].join(" "));
        assert_eq!(line("remark", &coloured).lines().count(), 1);
        assert_eq!(line("", &"x".repeat(300)).lines().count(), 1);
    }

    #[test]
    fn colours_come_only_when_asked_for() {
        assert!(summary(&sample::sample(), true).contains("\u{1b}[1m\u{1b}[32mpassed\u{1b}[0m"));
    }
}
