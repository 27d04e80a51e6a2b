//! How log lines are written: each event is one line, and a fault that comes ten thousand times a second does not fill a
//! disk.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::Subscriber;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// Writes lines for people. A line that nobody takes is lost, as with [`json`]: to say so on the same stream would panic.
///
/// Whatever stands in a field, its control characters are escaped: nobody who chooses a name can end a line, forge the
/// next one, or speak to a terminal.
pub fn text<W>(filter: &str, colours: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(writer);
    let lines = lines.log_internal_errors(false);
    lines.with_ansi(colours).fmt_fields(debug_fn(write_field).delimited(" ")).finish()
}

/// Writes one flat JSON object per line.
pub fn json<W>(filter: &str, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(writer);
    let lines = lines.log_internal_errors(false);
    lines.with_ansi(false).json().flatten_event(true).finish()
}

/// Has panics written as lines, instead of as they are on standard error.
pub fn write_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(thread = std::thread::current().name(), backtrace, "{panic}");
    }));
}

/// A time as the logs have it: in seconds, to the millisecond.
pub fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    write!(Escaped(writer), "{value:?}")
}

/// Escapes control characters.
struct Escaped<'a, W>(&'a mut W);

impl<W: fmt::Write> fmt::Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| {
            if character.is_control() {
                write!(self.0, "{}", character.escape_default())
            } else {
                self.0.write_char(character)
            }
        })
    }
}

/// The pause between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(10);

/// Lets the first line of its kind through, and then one in ten seconds, with how many were left out.
///
/// One for each place that may have to say the same thing again and again.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the last line was let through, in nanoseconds of the gateway's clock.
    said_at: Option<u64>,
    left_out: u64,
}

impl Repeats {
    /// Whether the line may be written at `now` nanoseconds; if so, how many were left out before it.
    pub fn admit(&self, now: u64) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = PAUSE.as_nanos();
        if state.said_at.is_some_and(|said_at| u128::from(now.saturating_sub(said_at)) < pause) {
            state.left_out += 1;
            return None;
        }
        state.said_at = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use serde_json::{Value, json};
    use tracing::subscriber::with_default;

    use super::*;

    const FORGER: &str = "a\nb\r\x1b[31m\u{9b}31m";

    #[test]
    fn an_event_is_one_line_whatever_stands_in_it() {
        for colours in [false, true] {
            let sink = Sink::default();
            with_default(text("info", colours, sink.writer()), || {
                tracing::info!(user = FORGER, shown = %FORGER, debugged = ?FORGER, "{FORGER} came");
            });

            let line = sink.only_line().replace("\x1b[0m", "");
            assert!(line.contains(r"a\nb\r\u{1b}[31m\u{9b}31m came user="), "{line}");
            assert_eq!(line.matches(r"a\nb\r\u{1b}[31m\u{9b}31m").count(), 4, "{line}");
            assert!(colours || !line.contains(char::is_control), "{line}");
        }
        let sink = Sink::default();
        with_default(json("info", sink.writer()), || tracing::info!(user = FORGER, shown = %FORGER, "came"));

        let line: Value = serde_json::from_str(&sink.only_line()).unwrap();
        assert_eq!([&line["user"], &line["shown"], &line["message"]], [FORGER, FORGER, "came"]);
    }

    #[test]
    fn fields_of_json_lines_are_numbers_and_what_is_not_there_is_left_out() {
        let sink = Sink::default();
        let peer: Option<std::net::SocketAddr> = None;
        let time = seconds(Duration::from_micros(1_050_499));
        with_default(json("info", sink.writer()), || {
            tracing::info!(seconds = time, peer = peer.map(tracing::field::display), "slept");
        });

        let line: Value = serde_json::from_str(&sink.only_line()).unwrap();
        assert_eq!((&line["seconds"], line.get("peer")), (&json!(1.05), None));
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn writer(&self) -> impl for<'a> MakeWriter<'a> + Send + Sync + 'static {
            let sink = self.clone();
            move || sink.clone()
        }

        fn only_line(&self) -> String {
            let written = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let line = written.strip_suffix('\n').unwrap();
            assert!(!line.contains('\n'), "{line}");
            line.to_owned()
        }
    }

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lets_one_line_in_ten_seconds_through_and_counts_the_others() {
        let repeats = Repeats::default();
        let second = 1_000_000_000;

        let admitted: Vec<_> = (0..=25).map(|at| repeats.admit(at * second)).collect();

        assert_eq!(admitted[0], Some(0));
        assert_eq!(admitted[10], Some(9));
        assert_eq!(admitted[20], Some(9));
        assert_eq!(admitted.iter().flatten().count(), 3);
    }
}
