//! What a shard counts, as plain integers.

use std::marker::PhantomData;
use std::mem;

use crate::metrics::{CloseReason, DropReason, LabelValue, ReceivedType, SentType};

use super::room::Completed;

/// Plain counts that the driver publishes.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) opened: u64,
    pub(super) closed: Tally<CloseReason>,
    pub(super) received: Tally<ReceivedType>,
    pub(super) sent: Tally<SentType>,
    pub(super) dropped: Tally<DropReason>,
    pub(super) payload_received: u64,
    pub(super) wire_received: u64,
    pub(super) ping_timeouts: u64,
    /// Messages published to a room or to everyone.
    pub(super) broadcasts: u64,
    pub(super) held: u64,
    /// The batches that were given to all.
    pub(super) batches: Vec<Completed>,
    pub(super) memberships: usize,
    pub(super) slow: usize,
    pub(super) queue_bytes: usize,
}

/// A count for each value of a label.
pub(super) struct Tally<L> {
    values: [u64; TALLY_VALUES],
    label: PhantomData<L>,
}

impl<L> Default for Tally<L> {
    fn default() -> Self {
        Self { values: [0; TALLY_VALUES], label: PhantomData }
    }
}

impl<L: LabelValue> Tally<L> {
    const FITS: () = assert!(L::ALL.len() <= TALLY_VALUES, "a label with more values than a tally holds");

    pub(super) fn add(&mut self, label: L, count: u64) {
        let () = Self::FITS;
        self.values[label.index()] += count;
    }

    /// Takes all counts that are not 0.
    pub(super) fn take(&mut self, mut each: impl FnMut(L, u64)) {
        for label in L::ALL {
            let count = mem::take(&mut self.values[label.index()]);
            if count > 0 {
                each(*label, count);
            }
        }
    }
}

/// No label has more values.
const TALLY_VALUES: usize = 16;
