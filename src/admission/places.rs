//! A number of places, each of which one connection may take for as long as it is here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many connections may at once be here only to be told why they are not let in: those over the limit of connections, and
/// as many whom a proxy has named. Others are closed without a word, lest those who are refused take what the admitted need.
pub const PLACES_TO_REFUSE: usize = 16;

/// Counts connections against a limit; cheap to clone.
#[derive(Clone, Debug)]
pub struct Places {
    limit: usize,
    taken: Arc<AtomicUsize>,
}

/// One of the places, free again when this is dropped.
#[derive(Debug)]
pub struct Taken(Arc<AtomicUsize>);

impl Places {
    /// So many, all free.
    pub fn new(limit: usize) -> Self {
        Self { limit, taken: Arc::default() }
    }

    /// Takes a place, if one is free.
    pub fn take(&self) -> Option<Taken> {
        let more = |taken| (taken < self.limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Taken(Arc::clone(&self.taken)))
    }

    /// How many there are.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
