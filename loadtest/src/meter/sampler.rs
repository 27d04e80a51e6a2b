//! Reads a meter once a second, on a thread of its own: the thread that serves the connections never waits for it.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Meter;
use crate::clock::Clock;

/// What a server had used at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    /// Since the start of the run.
    pub(crate) at: Duration,
    /// User and system time of all threads, in seconds.
    pub(crate) cpu: f64,
    /// Resident memory in bytes.
    pub(crate) resident: f64,
}

/// The thread that reads. Dropping it ends the thread, and waits for a reading that is under way.
///
/// It holds one measurement: a newer one takes the place of one that nobody has asked for.
#[derive(Debug)]
pub(crate) struct Sampler {
    latest: Arc<Mutex<Option<Measured>>>,
    /// The thread ends when this is dropped.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Starts reading; the first measurement comes at once.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub(crate) fn start(meter: Meter, clock: Clock) -> Result<Self> {
        Self::every(INTERVAL, meter, clock)
    }

    fn every(interval: Duration, meter: Meter, clock: Clock) -> Result<Self> {
        let latest = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&latest);
        let (running, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || sample(interval, &meter, clock, &slot, &stopped))
            .context("no thread for reading the server's cost")?;
        Ok(Self { latest, running: Some(running), thread: Some(thread) })
    }

    /// The last measurement, once: `None` until there is another one. Readings that fail leave none.
    pub(crate) fn try_latest(&mut self) -> Option<Measured> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been told by the panic hook, and costs only measurements.
            let _ = thread.join();
        }
    }
}

fn sample(
    interval: Duration,
    meter: &Meter,
    clock: Clock,
    latest: &Mutex<Option<Measured>>,
    stopped: &Receiver<()>,
) {
    let mut due = clock.elapsed();
    loop {
        if let Ok(reading) = meter.read() {
            let measured = Measured { at: clock.elapsed(), cpu: reading.cpu, resident: reading.resident };
            *latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(measured);
        }
        // What was missed while a reading took long is not made up for.
        due = (due + interval).max(clock.elapsed());
        match stopped.recv_timeout(due.saturating_sub(clock.elapsed())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_again_and_again_and_tells_each_once() {
        let clock = Clock::start();
        let meter = Meter::Process(std::process::id());
        let mut sampler = Sampler::every(Duration::from_millis(1), meter, clock).unwrap();

        let mut measured = Vec::new();
        while measured.len() < 3 {
            measured.extend(sampler.try_latest());
            thread::yield_now();
        }

        assert!(measured.is_sorted_by(|one, next| one.at < next.at), "{measured:?}");
        assert!(measured.iter().all(|measured| measured.resident > 0.0));
    }

    #[test]
    fn ends_at_once_when_it_is_dropped() {
        let clock = Clock::start();
        let meter = Meter::Process(std::process::id());
        let sampler = Sampler::every(Duration::from_secs(3600), meter, clock).unwrap();

        drop(sampler);

        assert!(clock.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn says_nothing_about_a_server_that_is_gone() {
        let clock = Clock::start();
        // Above the greatest number that Linux gives.
        let mut sampler = Sampler::every(Duration::from_millis(1), Meter::Process(4_194_305), clock).unwrap();

        let until = clock.elapsed() + Duration::from_millis(5);
        while clock.elapsed() < until {
            assert_eq!(sampler.try_latest(), None);
        }
    }
}
