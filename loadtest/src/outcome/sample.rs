//! A run as it could have been, for the tests: two minutes with a ramp, a steady phase and a reconnect storm.

use super::{
    Audit, Check, Environment, Faults, Figures, Outcome, Phase, SCHEMA, Sample, SpectrumPoint, Verdict,
};

/// 120 seconds, one sample a second.
pub(crate) fn sample() -> Outcome {
    let spectra = [("delivery", 800.0), ("first", 420.0), ("last", 1_900.0), ("connect", 2_600.0)];
    Outcome {
        notes: Vec::new(),
        schema: SCHEMA.to_owned(),
        name: "broadcast".to_owned(),
        targets: vec!["ws://127.0.0.1:8080/ws".to_owned()],
        seed: 42,
        started: 1_790_000_000,
        environment: environment(),
        ok: true,
        stopped: None,
        client_was_bottleneck: false,
        figures: figures(1.0),
        spectra: spectra.map(|(kind, p50)| (kind.to_owned(), spectrum(p50))).into(),
        faults: Faults::default(),
        phases: vec![
            phase("ramp", false, 0.0, 20.0, 0.8),
            phase("steady", true, 20.0, 80.0, 1.0),
            phase("storm", true, 80.0, 95.0, 2.4),
            phase("recovered", true, 95.0, 120.0, 1.1),
        ],
        samples: samples(120),
        audit: Some(Audit {
            ok: true,
            checks: vec![
                check("messages sent: message", 119_400_000.0, "equal"),
                check("messages received: publish", 119_400.0, "equal"),
                check("connections opened", 20_000.0, "at least: a health check may have connected too"),
            ],
        }),
        thresholds: vec![verdict("delivery_p99<50ms", "delivery_p99_us is 4.10 ms", 4_100.0)],
    }
}

/// As many samples, one a second, as a run of [`sample`]'s shape would give.
pub(crate) fn samples(seconds: usize) -> Vec<Sample> {
    let mut noise = Noise(9);
    #[expect(clippy::cast_precision_loss, reason = "seconds are few")]
    (1..=seconds)
        .map(|second| at(second as f64, 120.0 * second as f64 / seconds as f64, &mut noise))
        .collect()
}

fn at(at: f64, moment: f64, noise: &mut Noise) -> Sample {
    let phase = [20.0, 80.0, 95.0].iter().filter(|begin| **begin < moment).count();
    let storm = if phase == 2 { ((moment - 80.0) / 15.0 * std::f64::consts::PI).sin() } else { 0.0 };
    let filled = (moment / 20.0).min(1.0) * (1.0 - 0.7 * storm);
    let sent = 1_000.0 * (1.0 - 0.3 * storm) + 20.0 * noise.next();
    let wave = 1.0 + 0.1 * (moment / 7.0).sin();
    let measure = |us: f64| (phase > 0 || moment > 5.0).then_some(short(us));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 10,000")]
    let connections = (10_000.0 * filled) as u64;
    Sample {
        at,
        phase,
        connections,
        published_per_second: short(sent),
        deliveries_per_second: short(sent * 1_000.0 * filled),
        p50_us: measure(800.0 * wave * (1.0 + 4.0 * storm) + 40.0 * noise.next()),
        p99_us: measure(4_100.0 * wave * (1.0 + 18.0 * storm) + 900.0 * noise.next().abs()),
        max_us: measure(9_000.0 * (1.0 + 30.0 * storm) + 9_000.0 * noise.next().abs()),
        client_cpu_percent: short(46.0 * filled + 3.0 * noise.next() + 2.0),
        server_cpu_percent: Some(short(62.0 * filled + 30.0 * storm + 4.0 * noise.next() + 3.0)),
        server_resident_bytes: Some((9e6 + 98e6 * filled.max(if phase > 1 { 0.96 } else { 0.0 })).round()),
    }
}

/// About a log-normal distribution, with the points that `HdrHistogram` gives.
fn spectrum(p50: f64) -> Vec<SpectrumPoint> {
    let mut points = vec![SpectrumPoint { quantile: 0.0, us: short(p50 / 6.0) }];
    let mut rest = 1.0_f64;
    while rest > 2e-7 {
        rest *= 0.84;
        let nines = -rest.log10();
        let pause = 1.0 + 9.0 / (1.0 + (-6.0 * (nines - 3.6)).exp());
        let us = p50 * (1.0 + 0.9 * (nines - 0.3)).max(0.4) * pause;
        points.push(SpectrumPoint { quantile: (1e9 - 1e9 * rest).round() / 1e9, us: short(us) });
    }
    points.push(SpectrumPoint { quantile: 1.0, us: points[points.len() - 1].us });
    points
}

fn figures(slower: f64) -> Figures {
    let mut figures: Figures = [
        ("connections", 10_000.0),
        ("connects_per_second", 2_412.0),
        ("seconds", 100.0),
        ("published", 99_400.0),
        ("published_per_second", 994.0),
        ("asked_per_second", 1_000.0),
        ("deliveries", 99_400_000.0),
        ("deliveries_per_second", 994_000.0 / slower),
        ("sent_bytes_per_second", 214_000.0),
        ("received_bytes_per_second", 201_000_000.0),
        ("gaps", 3.0),
        ("gap_messages", 117.0),
        ("server_cpu_percent", 62.4),
        ("server_cpu_us_per_delivery", 0.628 * slower),
        ("server_resident_bytes", 107_000_000.0),
        ("server_bytes_per_connection", 9_840.0),
        ("client_cpu_percent", 48.1),
        ("back_seconds", 3.2 * slower),
        ("closed_1012", 10_000.0),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let kinds =
        [("delivery", 800.0), ("first", 420.0), ("last", 1_900.0), ("connect", 2_600.0), ("lag", 20.0)];
    for (kind, p50) in kinds {
        let values =
            [("mean", 1.2), ("p50", 1.0), ("p90", 2.1), ("p99", 5.125), ("p999", 12.0), ("max", 140.0)];
        figures.extend(values.map(|(name, times)| (format!("{kind}_{name}_us"), p50 * times * slower)));
        figures.insert(format!("{kind}_count"), 99_400.0);
    }
    for figure in figures.values_mut() {
        *figure = short(*figure);
    }
    figures
}

fn phase(name: &str, measured: bool, begin: f64, end: f64, slower: f64) -> Phase {
    let mut figures = figures(slower);
    figures.insert("seconds".to_owned(), end - begin);
    Phase { name: name.to_owned(), measured, begin, end, figures }
}

fn check(what: &str, count: f64, rule: &str) -> Check {
    Check { what: what.to_owned(), server: count, clients: count, ok: true, rule: rule.to_owned() }
}

fn verdict(text: &str, message: &str, figure: f64) -> Verdict {
    Verdict { text: text.to_owned(), figure: Some(figure), ok: true, message: message.to_owned() }
}

fn environment() -> Environment {
    let command =
        "fanfare-loadtest run ws://127.0.0.1:8080/ws --preset broadcast -c 10k --threshold delivery_p99<50ms";
    Environment {
        version: "0.1.0".to_owned(),
        command: command.split(' ').map(str::to_owned).collect(),
        kernel: "Linux 6.12.48".to_owned(),
        cpu: "AMD EPYC 9554P".to_owned(),
        cores: 16,
        descriptors: 1_048_576,
        same_machine: true,
    }
}

/// With few enough digits that JSON keeps them.
fn short(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Between -1 and 1, the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 32).unwrap_or(0)) / f64::from(u32::MAX) * 2.0 - 1.0
    }
}
