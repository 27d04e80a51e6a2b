//! Who is in a room, and of whom the others have been told.
//!
//! Pure. What is told of a user follows what is true with a delay: at once when somebody comes or goes, and a while after
//! the last connection of a user broke off, since most of those come back. Whoever does the telling asks when something is due
//! ([`Presence::look`]) and finds what has to be told by then, or nothing when it has become untrue meanwhile. So each `join`
//! has its `leave`, and neither is told twice.

use std::collections::BTreeMap;
use std::ops::Bound;

use smallvec::SmallVec;

use crate::id::{ShardIndex, UserId};

/// The users of one room.
#[derive(Debug)]
pub struct Presence {
    /// Whether anybody is told.
    has_listeners: bool,
    users: BTreeMap<UserId, Present>,
    /// Users with connections.
    here: usize,
    connections: usize,
    /// Users that the others have been told of and not that they left.
    told: usize,
}

#[derive(Debug, Default)]
struct Present {
    /// Connections in the room by shard; never 0. One shard needs no memory of its own.
    connections: SmallVec<[(ShardIndex, u32); 1]>,
    is_told: bool,
    /// From when on the user may be told to have left, in nanoseconds.
    leaves_at: u64,
    /// When somebody is going to look, at the latest; `u64::MAX` when nobody is.
    looked_at: u64,
}

impl Present {
    fn is_here(&self) -> bool {
        !self.connections.is_empty()
    }

    /// Asks for a look at `at`, unless one comes earlier anyway.
    fn call(&mut self, at: u64) -> Option<u64> {
        (at < self.looked_at).then(|| {
            self.looked_at = at;
            at
        })
    }
}

/// What a look at a user finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The others are to be told that the user is here.
    Joined,
    /// They are to be told that the user has left.
    Left,
    /// To be looked at again at this time, in nanoseconds.
    Later(u64),
    /// Nothing has to be told.
    Settled,
}

/// Some of those who are in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// All users with connections in the room.
    pub users: usize,
    /// All their connections.
    pub connections: usize,
    /// Users in the order of their names, with their connections.
    pub members: Vec<(UserId, u32)>,
    /// Whether there are more behind the last of them.
    pub has_more: bool,
}

impl Presence {
    /// Nobody is there; without listeners nobody is ever told of.
    pub fn new(has_listeners: bool) -> Self {
        Self { has_listeners, users: BTreeMap::new(), here: 0, connections: 0, told: 0 }
    }

    /// A connection of the user has come in at `now`. When something is to be told of it, the time to look at the user.
    pub fn arrive(&mut self, user: &UserId, shard: ShardIndex, now: u64) -> Option<u64> {
        if !self.users.contains_key(user) {
            self.users.insert(user.clone(), Present { looked_at: u64::MAX, ..Present::default() });
        }
        let present = self.users.get_mut(user)?;
        self.here += usize::from(!present.is_here());
        self.connections += 1;
        match present.connections.iter_mut().find(|(index, _)| *index == shard) {
            Some((_, count)) => *count += 1,
            None => present.connections.push((shard, 1)),
        }
        if present.is_told || !self.has_listeners { None } else { present.call(now) }
    }

    /// A connection of the user has gone. `leaves_at` is when the others may be told, if it was the last: at once when the
    /// user asked to leave. The time to look at the user, when that is to be done.
    pub fn depart(&mut self, user: &UserId, shard: ShardIndex, leaves_at: u64) -> Option<u64> {
        let present = self.users.get_mut(user)?;
        let index = present.connections.iter().position(|(index, _)| *index == shard)?;
        self.connections -= 1;
        present.connections[index].1 -= 1;
        if present.connections[index].1 == 0 {
            present.connections.swap_remove(index);
        }
        self.leave(user, leaves_at)
    }

    /// All connections of a shard have gone. The users to look at, and when.
    pub fn forget(&mut self, shard: ShardIndex, leaves_at: u64) -> Vec<(UserId, u64)> {
        let mut gone = Vec::new();
        for (user, present) in &mut self.users {
            if let Some(index) = present.connections.iter().position(|(index, _)| *index == shard) {
                self.connections -= present.connections.swap_remove(index).1 as usize;
                gone.push(user.clone());
            }
        }
        gone.into_iter()
            .filter_map(|user| {
                let at = self.leave(&user, leaves_at)?;
                Some((user, at))
            })
            .collect()
    }

    fn leave(&mut self, user: &UserId, leaves_at: u64) -> Option<u64> {
        let present = self.users.get_mut(user).filter(|present| !present.is_here())?;
        self.here -= 1;
        present.leaves_at = leaves_at;
        if !present.is_told {
            // Whoever was not told of the user need not be told that it is gone; a look that is to come finds nobody.
            self.users.remove(user);
            return None;
        }
        present.call(leaves_at)
    }

    /// What is to be told of a user at `now`; it counts as told. Where `told_max` are known to the others, nobody is told of
    /// more.
    pub fn look(&mut self, user: &UserId, now: u64, told_max: usize) -> Look {
        let Some(present) = self.users.get_mut(user) else { return Look::Settled };
        present.looked_at = u64::MAX;
        match (present.is_here(), present.is_told) {
            (true, false) if self.told < told_max => {
                present.is_told = true;
                self.told += 1;
                Look::Joined
            }
            (false, true) if present.leaves_at > now => {
                present.looked_at = present.leaves_at;
                Look::Later(present.leaves_at)
            }
            (false, true) => {
                self.told -= 1;
                self.users.remove(user);
                Look::Left
            }
            _ => Look::Settled,
        }
    }

    /// What was found could not be told: it is to be told later, if it is still true then.
    pub fn take_back(&mut self, user: &UserId, look: Look, again_at: u64) {
        match look {
            Look::Joined => {
                let Some(present) = self.users.get_mut(user) else { return };
                self.told -= 1;
                if present.is_here() {
                    (present.is_told, present.looked_at) = (false, again_at);
                } else {
                    // It has gone meanwhile, and nobody was told of it.
                    self.users.remove(user);
                }
            }
            Look::Left => {
                let present = self.users.entry(user.clone()).or_default();
                (present.is_told, present.looked_at) = (true, again_at);
                self.told += 1;
            }
            Look::Later(_) | Look::Settled => {}
        }
    }

    /// Whether nobody is here, and nobody is still to be told to have left.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// At most `limit` of those who are here, from behind `after` in the order of their names.
    pub fn page(&self, after: Option<&UserId>, limit: usize) -> Page {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut here = self.users.range((from, Bound::Unbounded)).filter(|(_, present)| present.is_here());
        let count = |present: &Present| present.connections.iter().map(|(_, count)| count).sum();
        let members =
            here.by_ref().take(limit).map(|(user, present)| (user.clone(), count(present))).collect();
        Page { users: self.here, connections: self.connections, members, has_more: here.next().is_some() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: usize = usize::MAX;
    const ONE: ShardIndex = ShardIndex(0);
    const TWO: ShardIndex = ShardIndex(1);

    #[test]
    fn tells_once_of_a_user_with_many_connections() {
        let mut room = Presence::new(true);
        assert_eq!(room.arrive(&ann(), ONE, 5), Some(5));
        assert_eq!(room.arrive(&ann(), TWO, 6), None, "somebody looks already");
        assert_eq!(room.look(&ann(), 7, ALL), Look::Joined);
        assert_eq!(room.look(&ann(), 7, ALL), Look::Settled);
        assert_eq!(room.arrive(&ann(), ONE, 8), None);

        assert_eq!(room.depart(&ann(), ONE, 9), None);
        assert_eq!(room.depart(&ann(), ONE, 9), None);
        assert_eq!(room.depart(&ann(), TWO, 10), Some(10));
        assert_eq!(room.look(&ann(), 10, ALL), Look::Left);
        assert!(room.is_empty());
    }

    #[test]
    fn says_nothing_of_a_user_who_comes_back_in_time() {
        let mut room = told_of_ann();
        assert_eq!(room.depart(&ann(), ONE, 100), Some(100));
        assert_eq!(room.arrive(&ann(), TWO, 50), None);
        assert_eq!(room.look(&ann(), 100, ALL), Look::Settled);
        assert_eq!(room.page(None, 9).members, [(ann(), 1)]);
    }

    #[test]
    fn a_user_who_breaks_off_again_is_given_its_time_again() {
        let mut room = told_of_ann();
        assert_eq!(room.depart(&ann(), ONE, 100), Some(100));
        room.arrive(&ann(), ONE, 50);
        assert_eq!(room.depart(&ann(), ONE, 150), None, "somebody looks at 100");
        assert_eq!(room.look(&ann(), 100, ALL), Look::Later(150));
        assert_eq!(room.look(&ann(), 150, ALL), Look::Left);
    }

    #[test]
    fn who_asks_to_leave_after_breaking_off_has_left_at_once() {
        let mut room = told_of_ann();
        room.depart(&ann(), ONE, 100);
        room.arrive(&ann(), ONE, 50);
        assert_eq!(room.depart(&ann(), ONE, 51), Some(51), "earlier than the look that is to come");
        assert_eq!(room.look(&ann(), 51, ALL), Look::Left);
        assert_eq!(room.look(&ann(), 100, ALL), Look::Settled);
    }

    #[test]
    fn nobody_hears_of_who_left_before_the_others_were_told() {
        let mut room = Presence::new(true);
        room.arrive(&ann(), ONE, 5);
        assert_eq!(room.depart(&ann(), ONE, 100), None);
        assert_eq!(room.look(&ann(), 5, ALL), Look::Settled);
        assert!(room.is_empty());
    }

    #[test]
    fn in_a_large_room_nobody_is_told_of_more_and_each_join_has_its_leave() {
        let mut room = told_of_ann();
        assert!(room.arrive(&ben(), ONE, 5).is_some());
        assert_eq!(room.look(&ben(), 5, 1), Look::Settled);
        assert_eq!(room.depart(&ben(), ONE, 6), None);
        assert_eq!(room.depart(&ann(), ONE, 6), Some(6));
        assert_eq!(room.look(&ann(), 6, 1), Look::Left);
        assert!(room.is_empty());
    }

    #[test]
    fn what_could_not_be_told_is_told_later_if_it_is_still_true() {
        let mut room = Presence::new(true);
        room.arrive(&ann(), ONE, 5);
        let look = room.look(&ann(), 5, ALL);
        room.take_back(&ann(), look, 10);
        assert_eq!(room.look(&ann(), 10, ALL), Look::Joined);
        room.depart(&ann(), ONE, 20);
        let look = room.look(&ann(), 20, ALL);
        room.take_back(&ann(), look, 30);
        assert_eq!(room.look(&ann(), 30, ALL), Look::Left);
        assert!(room.is_empty());
    }

    #[test]
    fn who_left_while_it_could_not_be_told_of_leaves_nothing_behind() {
        let mut room = Presence::new(true);
        room.arrive(&ann(), ONE, 5);
        let look = room.look(&ann(), 5, ALL);
        room.depart(&ann(), ONE, 20);
        room.take_back(&ann(), look, 10);
        assert!(room.is_empty());
        room.arrive(&ann(), ONE, 30);
        assert_eq!(room.look(&ann(), 30, 1), Look::Joined, "it does not count among those told of");
    }

    #[test]
    fn without_listeners_nobody_need_look_and_nobody_stays_behind() {
        let mut room = Presence::new(false);
        assert_eq!(room.arrive(&ann(), ONE, 5), None);
        assert_eq!(room.page(None, 9).members, [(ann(), 1)]);
        assert_eq!(room.depart(&ann(), ONE, 100), None);
        assert!(room.is_empty());
    }

    #[test]
    fn a_shard_that_failed_takes_its_connections_with_it() {
        let mut room = told_of_ann();
        room.arrive(&ben(), ONE, 5);
        room.look(&ben(), 5, ALL);
        room.arrive(&ben(), TWO, 5);
        assert_eq!(room.forget(ONE, 100), [(ann(), 100)]);
        let page = room.page(None, 9);
        assert_eq!((page.users, page.connections), (1, 1));
        assert_eq!(page.members, [(ben(), 1)]);
    }

    #[test]
    fn lists_by_pages_in_the_order_of_names() {
        let mut room = Presence::new(true);
        for number in [3, 1, 2, 2] {
            room.arrive(&UserId::from_u64(number), ONE, 0);
        }
        let user = UserId::from_u64;
        let first = room.page(None, 2);
        assert_eq!((first.users, first.connections, first.has_more), (3, 4, true));
        assert_eq!(first.members, [(user(1), 1), (user(2), 2)]);
        let second = room.page(Some(&user(2)), 2);
        assert_eq!((second.members, second.has_more), (vec![(user(3), 1)], false));
    }

    fn told_of_ann() -> Presence {
        let mut room = Presence::new(true);
        room.arrive(&ann(), ONE, 0);
        room.look(&ann(), 0, ALL);
        room
    }

    fn ann() -> UserId {
        UserId::parse("ann").unwrap()
    }

    fn ben() -> UserId {
        UserId::parse("ben").unwrap()
    }
}
