//! Word of the end: one [`Signal`] says it, any number of [`Watch`]es hear it.

use tokio::sync::watch;

/// How far the gateway is on its way out. It only goes forward.
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
    fn never_goes_back() {
        let (signal, watch) = pair();
        signal.stop();

        signal.drain();

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
