//! How much memory the connections take, and how much they may.
//!
//! Each shard keeps its own account: what its clients' entries, unfinished input and queues take. The [`Ledger`] adds the
//! accounts up and compares them with two limits. Above the soft one no newcomers are let in; above the hard one the shards
//! close those who hold most. Memory of the kernel (socket buffers) and what the allocator keeps in reserve are not in it,
//! which is why the limits are well below what the process may have.

mod available;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

pub use available::available;

/// The limits, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Above it no newcomers are let in.
    pub soft: usize,
    /// Above it those who hold most are closed.
    pub hard: usize,
}

impl Limits {
    /// Two fifths and a half of what the process may have.
    pub fn of(available: usize) -> Self {
        Self { soft: rounded(available / 5 * 2), hard: rounded(available / 2) }
    }
}

/// So many bytes as whole mebibytes, which people can read; less than one is left as it is.
pub fn rounded(bytes: usize) -> usize {
    const MEBIBYTE: usize = 1 << 20;
    if bytes < MEBIBYTE { bytes } else { bytes / MEBIBYTE * MEBIBYTE }
}

/// The accounts of all shards; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Accounts>);

#[derive(Debug)]
struct Accounts {
    shards: Box<[AtomicUsize]>,
    limits: Limits,
}

impl Ledger {
    /// A ledger for so many shards.
    pub fn new(shards: usize, limits: Limits) -> Self {
        let shards = (0..shards).map(|_| AtomicUsize::default()).collect();
        Self(Arc::new(Accounts { shards, limits }))
    }

    /// The account of one shard.
    ///
    /// # Panics
    ///
    /// When there are fewer shards.
    pub fn account(&self, shard: usize) -> Account {
        assert!(shard < self.0.shards.len(), "there is no shard {shard}");
        Account { ledger: self.clone(), shard }
    }

    /// What is on all accounts, as each shard last said.
    pub fn total(&self) -> usize {
        self.0.shards.iter().map(|account| account.load(Ordering::Relaxed)).sum()
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Whether newcomers have to wait.
    pub fn is_short(&self) -> bool {
        self.total() > self.0.limits.soft
    }
}

/// One shard's account.
#[derive(Debug)]
pub struct Account {
    ledger: Ledger,
    shard: usize,
}

impl Account {
    /// Says what the shard takes.
    pub fn set(&self, bytes: usize) {
        self.ledger.0.shards[self.shard].store(bytes, Ordering::Relaxed);
    }

    /// What the shard is to let go of: its part of what is above the hard limit, and of a little more, so that it does not
    /// begin anew at once; 0 while the limit is kept.
    pub fn excess(&self) -> usize {
        let total = self.ledger.total();
        let hard = self.ledger.0.limits.hard;
        if total <= hard {
            return 0;
        }
        let own = self.ledger.0.shards[self.shard].load(Ordering::Relaxed);
        let wanted = (total - hard).saturating_add(hard / 20) as u128;
        usize::try_from(wanted * own as u128 / total as u128).unwrap_or(own).min(own)
    }
}

/// Counts the bytes of buffers that are alive, each once, however many hold a part of it; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<AtomicUsize>);

impl Meter {
    /// The same bytes, counted until the last part of them is dropped.
    pub fn charge(&self, bytes: Bytes) -> Bytes {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(Charged { bytes, meter: self.clone() })
    }

    /// What is counted now.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

struct Charged {
    bytes: Bytes,
    meter: Meter,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.meter.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_counts_once_until_its_last_part_is_dropped() {
        let meter = Meter::default();
        let whole = meter.charge(Bytes::from(vec![7; 1000]));
        let (first, second) = (whole.slice(..10), whole.slice(990..));
        assert_eq!((meter.bytes(), first.len()), (1000, 10));

        drop(whole);
        drop(first);
        assert_eq!(meter.bytes(), 1000);
        drop(second);

        assert_eq!(meter.bytes(), 0);
    }

    #[test]
    fn newcomers_wait_above_the_soft_limit_of_all_shards_together() {
        let ledger = Ledger::new(2, Limits { soft: 100, hard: 200 });
        ledger.account(0).set(60);
        ledger.account(1).set(40);
        assert!(!ledger.is_short());

        ledger.account(1).set(41);

        assert!(ledger.is_short());
        assert_eq!(ledger.total(), 101);
    }

    #[test]
    fn each_shard_lets_go_of_its_part_above_the_hard_limit() {
        let ledger = Ledger::new(3, Limits { soft: 1000, hard: 2000 });
        let accounts = [0, 1, 2].map(|shard| ledger.account(shard));
        for (account, bytes) in accounts.iter().zip([1500, 500, 0]) {
            account.set(bytes);
        }
        assert_eq!(accounts.each_ref().map(Account::excess), [0, 0, 0]);

        accounts[0].set(3500);

        // 2,000 are too much, and a twentieth of the limit more is let go of.
        assert_eq!(accounts.each_ref().map(Account::excess), [1837, 262, 0]);
    }
}
