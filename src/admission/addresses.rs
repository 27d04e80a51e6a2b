//! How many connections each address has, and how fast it begins new ones.

use core::net::IpAddr;
use std::collections::HashMap;
use std::fmt;

use super::{Desk, Refuse};

/// Addresses without connections that are remembered for their rate, at most.
const RECENT_MAX: usize = 65_536;

/// Between two looks for addresses that can be forgotten, in nanoseconds.
const FORGET_EVERY: u64 = 100_000_000;

/// Whom a limit is for: an IPv4 address, or the 64 bits of an IPv6 address that one site has all others of
/// (RFC 6177).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Prefix {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// So many in a second, and as many at once (the generic cell rate algorithm of ITU-T I.371).
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Between two, in nanoseconds.
    interval: u64,
    /// How far ahead of its time the last of a burst may be.
    ahead: u64,
}

impl Rate {
    /// `count` is at least 1.
    pub(super) fn per_second(count: usize) -> Self {
        let interval = 1_000_000_000 / (count.max(1) as u64);
        Self { interval, ahead: 1_000_000_000 }
    }

    /// When the next is due after one more at `now`; `None` when that is too early.
    fn after(self, due_at: u64, now: u64) -> Option<u64> {
        let next = due_at.max(now) + self.interval;
        (next - now <= self.ahead.max(self.interval)).then_some(next)
    }
}

/// All addresses that have connections, or had lately.
#[derive(Debug)]
pub(super) struct Addresses {
    entries: HashMap<Prefix, Entry>,
    most_each: Option<usize>,
    rate: Option<Rate>,
    rate_each: Option<Rate>,
    /// When the next handshake of any address is due.
    due_at: u64,
    entries_max: usize,
    forgotten_at: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    open: usize,
    due_at: u64,
}

impl Addresses {
    /// Limits for a gateway with at most so many connections.
    pub(super) fn new(
        most_each: Option<usize>,
        rate: Option<Rate>,
        rate_each: Option<Rate>,
        connections: usize,
    ) -> Self {
        let entries_max = connections.saturating_add(RECENT_MAX);
        Self { entries: HashMap::new(), most_each, rate, rate_each, due_at: 0, entries_max, forgotten_at: 0 }
    }

    /// Counts one more connection of an address at `now` nanoseconds. Who is refused by its own limits does not count
    /// against those of all.
    pub(super) fn enter(&mut self, address: IpAddr, now: u64) -> Result<Prefix, Refuse> {
        let prefix = Prefix::from(address);
        let mut entry = match self.entries.get(&prefix) {
            Some(entry) => *entry,
            None => self.newcomer(now)?,
        };
        if self.most_each.is_some_and(|most| entry.open >= most) {
            return Err(Refuse::AddressLimit);
        }
        if let Some(rate) = self.rate_each {
            entry.due_at = rate.after(entry.due_at, now).ok_or(Refuse::AddressRate)?;
        }
        if let Some(rate) = self.rate {
            self.due_at = rate.after(self.due_at, now).ok_or(Refuse::Rate)?;
        }
        entry.open += 1;
        self.entries.insert(prefix, entry);
        Ok(prefix)
    }

    /// One connection less.
    fn leave(&mut self, prefix: Prefix) {
        let Some(entry) = self.entries.get_mut(&prefix) else { return };
        entry.open -= 1;
        if entry.open == 0 && self.rate_each.is_none() {
            self.entries.remove(&prefix);
        }
    }

    /// Room for an address that is not known. With so many that their rates fill the table all others have to wait, or
    /// forgetting some would let those begin anew.
    fn newcomer(&mut self, now: u64) -> Result<Entry, Refuse> {
        if self.entries.len() >= self.entries_max
            || now.saturating_sub(self.forgotten_at) > 100 * FORGET_EVERY
        {
            if now.saturating_sub(self.forgotten_at) > FORGET_EVERY {
                self.forgotten_at = now;
                self.entries.retain(|_, entry| entry.open > 0 || entry.due_at > now);
                // A flood must not keep its memory for ever.
                self.entries.shrink_to(self.entries.len() * 2);
            }
            if self.entries.len() >= self.entries_max {
                return Err(Refuse::Rate);
            }
        }
        Ok(Entry::default())
    }
}

/// The place of one connection among those of its address, free again when this is dropped.
pub struct Place(Box<(Desk, Prefix)>);

impl Place {
    pub(super) fn new(desk: Desk, prefix: Prefix) -> Self {
        Self(Box::new((desk, prefix)))
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.0.1).finish()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.addresses().leave(self.0.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Options;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_address_has_at_most_so_many_connections_and_others_their_own() {
        let desk = Desk::new(Options { connections_per_address: Some(2), ..Options::default() }, 100);
        let enter = |address: &str| desk.enter(address.parse().unwrap(), 0).map(Option::unwrap);
        let first = enter("192.0.2.1").unwrap();
        let _second = enter("::ffff:192.0.2.1").unwrap();
        assert_eq!(enter("192.0.2.1").unwrap_err(), Refuse::AddressLimit);
        let _other = enter("192.0.2.2").unwrap();

        drop(first);

        let _third = enter("192.0.2.1").unwrap();
        assert_eq!(enter("192.0.2.1").unwrap_err(), Refuse::AddressLimit);
    }

    #[test]
    fn of_ipv6_all_addresses_of_a_site_are_one() {
        let desk = Desk::new(Options { connections_per_address: Some(1), ..Options::default() }, 100);
        let enter = |address: &str| desk.enter(address.parse().unwrap(), 0).map(Option::unwrap);
        let _place = enter("2001:db8:0:1::1").unwrap();

        assert_eq!(enter("2001:db8:0:1:ffff::2").unwrap_err(), Refuse::AddressLimit);
        assert!(enter("2001:db8:0:2::1").is_ok());
    }

    #[test]
    fn nothing_is_remembered_of_who_has_left() {
        let options = Options {
            connections_per_address: Some(10),
            handshakes_per_second_per_address: Some(10),
            ..Options::default()
        };
        let desk = Desk::new(options, 100);
        let places: Vec<_> = (0..1000_u32)
            .map(|number| desk.enter(core::net::Ipv4Addr::from_bits(number).into(), 0).unwrap())
            .collect();
        drop(places);

        let _one = desk.enter("192.0.2.1".parse().unwrap(), 60 * SECOND).unwrap();

        assert_eq!(desk.addresses().entries.len(), 1);
    }

    #[test]
    fn a_rate_allows_a_second_s_worth_at_once_and_then_one_after_the_other() {
        let mut addresses = addresses(None, Some(4));
        let enter = |addresses: &mut Addresses, now| addresses.enter("192.0.2.1".parse().unwrap(), now);
        assert!((0..4).all(|_| enter(&mut addresses, SECOND).is_ok()));
        assert_eq!(enter(&mut addresses, SECOND).unwrap_err(), Refuse::AddressRate);
        assert_eq!(enter(&mut addresses, SECOND + SECOND / 8).unwrap_err(), Refuse::AddressRate);
        assert!(enter(&mut addresses, SECOND + SECOND / 4).is_ok());
        assert_eq!(enter(&mut addresses, SECOND + SECOND / 4).unwrap_err(), Refuse::AddressRate);

        assert!((0..4).all(|_| enter(&mut addresses, 9 * SECOND).is_ok()), "it was quiet");
    }

    #[test]
    fn who_is_refused_takes_nothing_from_the_others() {
        let mut addresses = addresses(Some(10), Some(1));
        let refused = (0..100).filter(|_| addresses.enter("192.0.2.1".parse().unwrap(), 0).is_err()).count();
        assert_eq!(refused, 99);

        let others = (2..20_u8).filter(|last| addresses.enter([192, 0, 2, *last].into(), 0).is_ok()).count();

        assert_eq!(others, 9, "ten in all");
    }

    #[test]
    fn a_table_full_of_recent_addresses_has_strangers_wait() {
        let mut addresses = addresses(None, Some(1));
        let stranger = |number: u64| IpAddr::from(core::net::Ipv6Addr::from_bits(u128::from(number) << 64));
        let most = addresses.entries_max as u64;
        for number in 0..most {
            let prefix = addresses.enter(stranger(number), SECOND).unwrap();
            addresses.leave(prefix);
        }

        assert_eq!(addresses.enter(stranger(most), SECOND + 1).unwrap_err(), Refuse::Rate);
        assert!(addresses.enter(stranger(most), 3 * SECOND).is_ok());
        assert_eq!(addresses.entries.len(), 1);
    }

    fn addresses(all: Option<usize>, each: Option<usize>) -> Addresses {
        Addresses::new(None, all.map(Rate::per_second), each.map(Rate::per_second), 10)
    }
}
