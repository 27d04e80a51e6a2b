//! The outcome as one HTML page that needs nothing else: no script, no request.
//!
//! All text passes through `maud`, which escapes it; the plots come from `plotters` as SVG within the page.

mod axis;
mod draw;
mod ink;
mod plots;
mod series;
mod tables;

use std::time::{Duration, UNIX_EPOCH};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Figures, Outcome, Tone, figure};
use draw::Size;
use plots::Picture;

/// The whole page.
pub(crate) fn html(outcome: &Outcome) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // Without it a browser asks for one.
                link rel="icon" href="data:,";
                title { (outcome.name) " \u{2013} " (outcome.headlines()[0].1) }
                style { (PreEscaped(STYLE)) (PreEscaped(ink::style())) }
            }
            body {
                (head(outcome))
                main {
                    (notices(outcome))
                    section.tiles { @for tile in tiles(outcome) { (tile) } }
                    section.plots { @for picture in plots::pictures(outcome) { (card(&picture)) } }
                    (tables::tables(outcome))
                }
                footer { "Made by fanfare-loadtest " (outcome.environment.version) }
            }
        }
    };
    page.into_string()
}

fn head(outcome: &Outcome) -> Markup {
    let started = UNIX_EPOCH.checked_add(Duration::from_secs(outcome.started));
    let started =
        started.map(|time| humantime::format_rfc3339_seconds(time).to_string().replace(['T', 'Z'], " "));
    let seconds = outcome.phases.iter().map(|phase| phase.end).fold(0.0, f64::max);
    html! {
        header {
            div.title {
                h1 { (outcome.name) }
                @for (tone, said) in outcome.headlines() { span class={ "badge " (class(tone)) } { (said) } }
            }
            p.about {
                @for target in &outcome.targets { code { (target) } }
                @if let Some(started) = started { span { (started.trim()) " UTC" } }
                @if seconds > 0.0 { span { (figure::show("seconds", seconds.round())) } }
                span { "seed " (outcome.seed) }
            }
        }
    }
}

/// What changes the meaning of the figures below.
fn notices(outcome: &Outcome) -> Markup {
    html! {
        @if let Some(why) = &outcome.stopped {
            p.notice.bad { strong { "The run stopped before its end. " } (why) }
        }
        @if outcome.client_was_bottleneck {
            p.notice.warning {
                strong { "The client was the bottleneck. " }
                "It used up its core or was late with its own schedule: the server can do more than these figures say."
            }
        }
        @for note in &outcome.notes {
            p.notice { (note) }
        }
        @if outcome.environment.same_machine {
            p.notice { "Client and server shared the machine: each took processor time from the other." }
        }
    }
}

/// The key figures, those that there are.
fn tiles(outcome: &Outcome) -> Vec<Markup> {
    let figures = &outcome.figures;
    let of = |title, name, details: &[(&str, &str)]| {
        shown(figures, name).map(|value| tile(title, &value, &details_of(figures, details), None))
    };
    let known = [
        of(
            "delivery p99",
            "delivery_p99_us",
            &[("p50 {}", "delivery_p50_us"), ("max {}", "delivery_max_us")],
        ),
        of("last receiver p99", "last_p99_us", &[("first p99 {}", "first_p99_us")]),
        of("deliveries", "deliveries_per_second", &[("{} published", "published_per_second")]),
        of(
            "connections",
            "connections",
            &[("{} opened", "connects_per_second"), ("p99 {}", "connect_p99_us")],
        ),
        of("all back after", "back_seconds", &[]),
        of("kept by slow readers", "kept_percent", &[]),
        of(
            "server CPU per delivery",
            "server_cpu_us_per_delivery",
            &[("{} of a core", "server_cpu_percent")],
        ),
        of(
            "memory per connection",
            "server_bytes_per_connection",
            &[("{} resident", "server_resident_bytes")],
        ),
        of("client CPU", "client_cpu_percent", &[("lag p99 {}", "lag_p99_us")]),
    ];
    let mut tiles: Vec<_> = known.into_iter().flatten().collect();
    let count = outcome.faults.counts().iter().map(|(_, count)| *count).fold(0, u64::saturating_add);
    let tone = if count == 0 { Tone::Good } else { Tone::Bad };
    let audit = outcome.audit.as_ref().map(|audit| {
        let wrong = audit.checks.iter().filter(|check| !check.ok).count();
        if audit.ok && wrong == 0 { "audit agrees".to_owned() } else { format!("audit: {wrong} disagree") }
    });
    tiles.push(tile("faults", &figure::grouped(&count.to_string()), audit.as_slice(), Some(tone)));
    tiles
}

fn tile(title: &str, value: &str, details: &[String], tone: Option<Tone>) -> Markup {
    html! {
        div class={ "tile " (tone.map_or("", class)) } {
            div.name { (title) }
            div.value { (value) }
            @if !details.is_empty() { div.details { @for detail in details { span { (detail) } } } }
        }
    }
}

fn details_of(figures: &Figures, details: &[(&str, &str)]) -> Vec<String> {
    details.iter().filter_map(|(text, name)| Some(text.replace("{}", &shown(figures, name)?))).collect()
}

fn shown(figures: &Figures, name: &str) -> Option<String> {
    figures.get(name).filter(|value| value.is_finite()).map(|value| figure::show(name, *value))
}

/// A plot at two sizes, of which the style sheet shows the one that fits.
fn card(picture: &Picture) -> Markup {
    let desk = if picture.wide { WIDE } else { HALF };
    html! {
        figure class={ "card " (if picture.wide { "wide" } else { "" }) } {
            figcaption {
                h2 { (picture.title) }
                p { (picture.about) }
                @if picture.plot.lines.len() > 1 {
                    ul.legend {
                        @for line in picture.plot.lines.iter().filter(|line| !line.is_empty()) {
                            li { i style={ "background:var(" (line.ink.variable()) ")" } {} (line.name) }
                        }
                    }
                }
            }
            @for (class, size) in [("plot desk", desk), ("plot phone", PHONE)] {
                div class=(class) role="img" aria-label=(picture.title) {
                    @match picture.plot.draw(size) {
                        Ok(svg) => (svg),
                        Err(error) => p { "This plot cannot be drawn: " (error) },
                    }
                }
            }
        }
    }
}

fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Warning => "warning",
        Tone::Bad => "bad",
    }
}

const STYLE: &str = include_str!("style.css");
const WIDE: Size = Size { width: 1_100, height: 320, pointed: true };
const HALF: Size = Size { width: 530, height: 260, pointed: true };
const PHONE: Size = Size { width: 340, height: 240, pointed: false };

#[cfg(test)]
mod tests {
    use super::super::{Sample, SpectrumPoint, sample};
    use super::*;

    #[test]
    fn the_page_asks_for_nothing_from_outside_and_runs_no_script() {
        let page = html(&sample::sample());
        let page = page.replace("http://www.w3.org/2000/svg", "");
        for word in ["<script", "http://", "https://", "@import", "url(", "src="] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn the_page_shows_what_there_is() {
        let page = html(&sample::sample());
        for part in [
            "passed",
            "Delivery latency",
            "Server memory",
            "Percentile spectrum",
            "steady",
            "recovered",
            "4.10 ms",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(page.len() < 1_000_000, "{} bytes", page.len());
    }

    #[test]
    fn all_text_is_escaped() {
        let evil = "<script>alert('&\"')</script>";
        let mut outcome = sample::sample();
        outcome.ok = false;
        evil.clone_into(&mut outcome.name);
        outcome.targets = vec![evil.to_owned()];
        outcome.stopped = Some(evil.to_owned());
        outcome.environment.command.push(evil.to_owned());
        outcome.environment.cpu = evil.to_owned();
        outcome.faults.lost = 1;
        outcome.faults.remarks = vec![evil.to_owned()];
        outcome.figures.insert(evil.to_owned(), 1.0);
        outcome.phases[1].name = evil.to_owned();
        outcome.phases[1].end = 2_000.0;
        outcome.spectra.insert(evil.to_owned(), vec![SpectrumPoint { quantile: 0.5, us: 1.0 }]);
        outcome.thresholds[0].text = evil.to_owned();
        outcome.thresholds[0].message = evil.to_owned();
        let audit = outcome.audit.as_mut().unwrap();
        audit.checks[0].what = evil.to_owned();
        audit.checks[0].rule = evil.to_owned();
        let page = html(&outcome);
        assert!(!page.contains("<script") && page.matches("&lt;script&gt;").count() > 12);
    }

    #[test]
    fn few_many_and_odd_samples_make_a_page_without_panic() {
        for count in [0, 1, 2, 3, 4 * 3_600] {
            let mut outcome = sample::sample();
            outcome.samples = sample::samples(count);
            let page = html(&outcome);
            assert!(page.len() < 1_200_000, "{count} samples make {} bytes", page.len());
            outcome.phases.clear();
            html(&outcome);
        }
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e300] {
            html(&oddly(odd));
        }
        html(&Outcome::default());
    }

    fn oddly(odd: f64) -> Outcome {
        let mut outcome = sample::sample();
        outcome.figures.values_mut().for_each(|figure| *figure = odd);
        outcome.phases[1].begin = odd;
        outcome.phases[2].end = odd;
        outcome.samples[7].at = odd;
        for sample in &mut outcome.samples {
            *sample = Sample {
                published_per_second: odd,
                deliveries_per_second: odd,
                p50_us: Some(odd),
                p99_us: Some(odd),
                max_us: Some(odd),
                client_cpu_percent: odd,
                server_cpu_percent: Some(odd),
                server_resident_bytes: Some(odd),
                ..*sample
            };
        }
        outcome.spectra.insert("delivery".into(), vec![SpectrumPoint { quantile: odd, us: odd }]);
        outcome
    }
}
