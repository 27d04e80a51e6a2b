//! Word of the end: one [`Signal`] says it, any number of [`Watch`]es hear it; and what operators ask about it.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

/// How far the gateway is on its way out. Only from draining it can go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Serving.
    Running,
    /// No new client is taken; those that are here are sent away by and by.
    Draining,
    /// Everything ends now.
    Stopped,
}

/// Makes a signal and the watch to clone from.
pub fn pair() -> (Signal, Watch) {
    let (sender, receiver) = watch::channel(Stage::Running);
    (Signal(sender), Watch(receiver))
}

/// Says how far it is. When it is dropped, all watches see [`Stage::Stopped`]: nobody waits for an
/// owner that is gone.
#[derive(Debug)]
pub struct Signal(watch::Sender<Stage>);

impl Signal {
    /// Begins to drain.
    pub fn drain(&self) {
        self.advance(Stage::Draining);
    }

    /// Ends everything.
    pub fn stop(&self) {
        self.advance(Stage::Stopped);
    }

    /// Takes new clients again, if it was draining.
    pub fn resume(&self) {
        self.0.send_if_modified(|stage| {
            let was_draining = *stage == Stage::Draining;
            if was_draining {
                *stage = Stage::Running;
            }
            was_draining
        });
    }

    fn advance(&self, to: Stage) {
        self.0.send_if_modified(|stage| {
            let forward = *stage < to;
            if forward {
                *stage = to;
            }
            forward
        });
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Hears how far it is; cheap to clone.
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<Stage>);

impl Watch {
    /// How far it is at this moment.
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Whether new clients are to be sent away.
    pub fn is_draining(&self) -> bool {
        self.stage() >= Stage::Draining
    }

    /// Waits until draining has begun. Safe to cancel.
    pub async fn draining(&mut self) {
        self.reached(Stage::Draining).await;
    }

    /// Waits until everything ends. Safe to cancel.
    pub async fn stopped(&mut self) {
        self.reached(Stage::Stopped).await;
    }

    async fn reached(&mut self, wanted: Stage) {
        // It fails only when the signal is gone, which has said `Stopped` before.
        let _ = self.0.wait_for(|stage| *stage >= wanted).await;
    }
}

/// What operators ask of whoever drains the gateway, which answers at once.
#[derive(Debug)]
pub enum Order {
    /// Send all clients away over this time, or over the configured one, and take no new ones.
    Begin {
        /// How long the closing may take.
        window: Option<Duration>,
        /// Where the answer goes.
        answer: oneshot::Sender<Progress>,
    },
    /// Take clients again, and keep those that are left.
    Abort {
        /// Where the answer goes; none when the process is going to end.
        answer: oneshot::Sender<Option<Progress>>,
    },
    /// How far is it?
    Look {
        /// Where the answer goes.
        answer: oneshot::Sender<Progress>,
    },
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Whether clients are sent away, and new ones refused.
    pub is_draining: bool,
    /// Whether the process ends after that.
    pub is_ending: bool,
    /// Connections that are open.
    pub connections: usize,
    /// Connections that were open when it began; as many as are open when nothing was begun.
    pub of: usize,
    /// How long the closing may take.
    pub window: Duration,
}

impl Progress {
    /// The part of the connections that has ended, from 0 to 1; 0 when nothing was begun.
    pub fn ratio(&self) -> f64 {
        if self.is_draining { ratio(self.connections, self.of) } else { 0.0 }
    }
}

/// The part of so many connections that has ended when others are left, from 0 to 1.
pub fn ratio(left: usize, of: usize) -> f64 {
    let share = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    1.0 - share(left.min(of)) / share(of).max(1.0)
}

/// The way to whoever drains the gateway; cheap to clone.
#[derive(Clone, Debug)]
pub struct Controls(mpsc::Sender<Order>);

/// Makes the controls and what hears them.
pub fn controls() -> (Controls, mpsc::Receiver<Order>) {
    let (sender, receiver) = mpsc::channel(ORDERS_WAITING_MAX);
    (Controls(sender), receiver)
}

impl Controls {
    /// Begins to drain, or begins anew with another window. `None` when nobody answers any more.
    pub async fn begin(&self, window: Option<Duration>) -> Option<Progress> {
        self.ask(|answer| Order::Begin { window, answer }).await
    }

    /// Ends a drain and keeps who is left; `Some(None)` when that is refused, as the process is going to end. `None` when
    /// nobody answers any more.
    pub async fn abort(&self) -> Option<Option<Progress>> {
        self.ask(|answer| Order::Abort { answer }).await
    }

    /// How far it is; `None` when nobody answers any more.
    pub async fn look(&self) -> Option<Progress> {
        self.ask(|answer| Order::Look { answer }).await
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.0.send(order(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// Orders that wait until earlier ones were answered; who sends more waits.
const ORDERS_WAITING_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tells_every_watch_how_far_it_is() {
        let (signal, mut watch) = pair();
        let mut other = watch.clone();
        assert_eq!(watch.stage(), Stage::Running);
        assert!(!watch.is_draining());

        signal.drain();
        watch.draining().await;
        assert!(other.is_draining());

        signal.stop();
        watch.stopped().await;
        other.draining().await;
        assert_eq!(other.stage(), Stage::Stopped);
    }

    #[test]
    fn goes_back_from_draining_but_not_from_the_end() {
        let (signal, watch) = pair();
        signal.drain();
        signal.resume();
        assert_eq!(watch.stage(), Stage::Running);
        signal.stop();

        signal.drain();
        signal.resume();

        assert_eq!(watch.stage(), Stage::Stopped);
    }

    #[tokio::test]
    async fn is_stopped_when_the_signal_is_gone() {
        let (signal, mut watch) = pair();

        drop(signal);

        watch.stopped().await;
        assert_eq!(watch.stage(), Stage::Stopped);
    }
}
