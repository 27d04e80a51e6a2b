//! The tables below the plots.

use maud::{Markup, html};

use super::super::{Audit, Environment, Faults, Outcome, Verdict, figure};
use super::{class, shown};
use crate::outcome::Tone;

/// All tables that have something to show.
pub(super) fn tables(outcome: &Outcome) -> Markup {
    html! {
        div.columns {
            (faults(&outcome.faults))
            (thresholds(&outcome.thresholds))
        }
        @if !outcome.phases.is_empty() { (phases(outcome)) }
        @if let Some(audit) = &outcome.audit { (audited(audit)) }
        (environment(&outcome.environment))
        @if !outcome.figures.is_empty() { (all_figures(outcome)) }
    }
}

fn faults(faults: &Faults) -> Markup {
    let content = html! {
        ul.counts {
            @for (name, count) in faults.counts() {
                li class=(if count == 0 { "" } else { "bad" }) {
                    (name.replace('_', " ")) " " strong { (figure::grouped(&count.to_string())) }
                }
            }
        }
        @if !faults.remarks.is_empty() { ul.remarks { @for remark in &faults.remarks { li { (remark) } } } }
    };
    let badge = if faults.none() { (Tone::Good, "none") } else { (Tone::Bad, "there are") };
    card("Faults", Some(badge), &content)
}

fn thresholds(verdicts: &[Verdict]) -> Markup {
    if verdicts.is_empty() {
        return html! {};
    }
    let missed = verdicts.iter().any(|verdict| !verdict.ok);
    let badge = if missed { (Tone::Bad, "missed") } else { (Tone::Good, "all held") };
    let content = html! {
        table {
            thead { tr { th { "Threshold" } th { "Outcome" } th { "Verdict" } } }
            @for Verdict { text, ok, message, .. } in verdicts {
                tr class=(if *ok { "" } else { "bad" }) {
                    td { code { (text) } }
                    td { (message) }
                    td { (if *ok { "held" } else { "missed" }) }
                }
            }
        }
    };
    card("Thresholds", Some(badge), &content)
}

fn phases(outcome: &Outcome) -> Markup {
    let columns = [
        ("Connections", "connections"),
        ("Published", "published_per_second"),
        ("Deliveries", "deliveries_per_second"),
        ("p50", "delivery_p50_us"),
        ("p99", "delivery_p99_us"),
        ("p99.9", "delivery_p999_us"),
        ("max", "delivery_max_us"),
    ];
    let content = html! {
        table {
            thead {
                tr {
                    th { "Phase" }
                    th.number { "From" }
                    th.number { "To" }
                    @for (title, _) in columns { th.number { (title) } }
                }
            }
            @for phase in &outcome.phases {
                tr {
                    th scope="row" { (phase.name) @if !phase.measured { " " small { "not measured" } } }
                    @for moment in [phase.begin, phase.end] { td.number { (figure::show("seconds", moment)) } }
                    @for (_, name) in columns {
                        td.number { (shown(&phase.figures, name).unwrap_or_else(|| "\u{2013}".to_owned())) }
                    }
                }
            }
        }
    };
    card("Phases", None, &content)
}

fn audited(audit: &Audit) -> Markup {
    let badge = if audit.ok { (Tone::Good, "agrees") } else { (Tone::Bad, "disagrees") };
    let content = html! {
        p { "The server's own counters beside what the clients saw." }
        table {
            thead { tr { th { "Counter" } th.number { "Server" } th.number { "Clients" } th { "Demanded" } th { "Verdict" } } }
            @for check in &audit.checks {
                tr class=(if check.ok { "" } else { "bad" }) {
                    td { (check.what) }
                    @for count in [check.server, check.clients] { td.number { (figure::show("", count)) } }
                    td { (check.rule) }
                    td { (if check.ok { "agrees" } else { "disagrees" }) }
                }
            }
        }
    };
    card("Audit", Some(badge), &content)
}

fn environment(environment: &Environment) -> Markup {
    let Environment { version, command, kernel, cpu, cores, descriptors, same_machine } = environment;
    let place = if *same_machine { "the client's machine" } else { "another machine" };
    let rows = [
        ("Load test", format!("fanfare-loadtest {version}")),
        ("Kernel", kernel.clone()),
        ("Processor", format!("{cpu}, {cores} cores")),
        ("Open files at most", figure::grouped(&descriptors.to_string())),
        ("Server on", place.to_owned()),
    ];
    let content = html! {
        table.plain { @for (name, value) in rows { tr { th scope="row" { (name) } td { (value) } } } }
        @if !command.is_empty() { pre { code { (command_line(command)) } } }
    };
    card("Environment", None, &content)
}

fn all_figures(outcome: &Outcome) -> Markup {
    html! {
        details.card {
            summary { h2 { "All figures" } }
            div.scroll {
                table {
                    thead { tr { th { "Name, as thresholds know it" } th.number { "Value" } th.number { "" } } }
                    @for (name, value) in outcome.all_figures() {
                        tr {
                            td { code { (name) } }
                            td.number { (value) }
                            td.number { (figure::show(&name, value)) }
                        }
                    }
                }
            }
        }
    }
}

fn card(title: &str, badge: Option<(Tone, &str)>, content: &Markup) -> Markup {
    html! {
        section.card {
            h2 {
                (title)
                @if let Some((tone, said)) = badge { span class={ "badge " (class(tone)) } { (said) } }
            }
            div.scroll { (content) }
        }
    }
}

/// The command so that a shell understands it.
fn command_line(command: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    let words = command.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_given_to_a_shell_again() {
        let command = ["run", "-c", "10k", "--threshold", "p99<50ms", "it's", ""].map(str::to_owned);
        assert_eq!(command_line(&command), r"run -c 10k --threshold 'p99<50ms' 'it'\''s' ''");
    }
}
