//! The gate that bounds connections.

use crate::admission::{PLACES_TO_REFUSE, Place, Places, Taken};
use crate::memory::Ledger;

/// Counts connections against their limit.
///
/// Over the limit there are [`PLACES_TO_REFUSE`] more, for connections that are only told so.
#[derive(Debug, Clone)]
pub struct Gate {
    memory: Option<Ledger>,
    open: Places,
    refused: Places,
}

/// What becomes of a connection that was just accepted.
#[derive(Debug)]
#[must_use]
pub enum Admission {
    /// It is served.
    Admitted(Permit),
    /// It is only told why, and closed.
    Told(Permit),
    /// It is closed at once: even the places to refuse are taken.
    Refused,
}

impl Gate {
    /// Makes a gate for at most `limit` connections.
    pub fn new(limit: usize) -> Self {
        Self { memory: None, open: Places::new(limit), refused: Places::new(PLACES_TO_REFUSE) }
    }

    /// The same gate, which also lets nobody in while memory is short.
    #[must_use]
    pub fn with_memory(self, memory: Ledger) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Asks for a place.
    pub fn admit(&self) -> Admission {
        let place = if self.is_short_of_memory() { None } else { self.open.take() };
        place.map_or_else(|| self.refuse(), |place| Admission::Admitted(Permit::new(place)))
    }

    /// Asks for a place to be told why it is not let in.
    pub fn refuse(&self) -> Admission {
        self.refused.take().map_or(Admission::Refused, |place| Admission::Told(Permit::new(place)))
    }

    /// Whether nobody is let in because connections take too much memory.
    pub fn is_short_of_memory(&self) -> bool {
        self.memory.as_ref().is_some_and(Ledger::is_short)
    }

    /// How many connections may be open at once.
    pub fn limit(&self) -> usize {
        self.open.limit()
    }

    /// The connections admitted and still open.
    pub fn open(&self) -> usize {
        self.open.taken()
    }
}

/// The place of one connection, free again when this is dropped.
#[derive(Debug)]
pub struct Permit {
    _place: Taken,
    /// Its place among those of its address.
    of_address: Option<Place>,
}

impl Permit {
    fn new(place: Taken) -> Self {
        Self { _place: place, of_address: None }
    }

    /// Adds a place among those of its address, which is free again when this one is.
    pub fn add(&mut self, of_address: Option<Place>) {
        self.of_address = of_address.or_else(|| self.of_address.take());
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::memory::Limits;

    #[test]
    fn the_gate_admits_up_to_its_limit_then_refuses_politely_then_at_once() {
        let gate = Gate::new(2);
        let first = admitted(&gate);
        let _second = admitted(&gate);

        let full: Vec<_> = (0..PLACES_TO_REFUSE).map(|_| gate.admit()).collect();

        assert!(full.iter().all(|admission| matches!(admission, Admission::Told(_))));
        assert!(matches!(gate.admit(), Admission::Refused));
        assert_eq!(gate.open(), 2);
        drop(first);
        let _third = admitted(&gate);
        assert!(matches!(gate.admit(), Admission::Refused));
        drop(full);
        assert!(matches!(gate.admit(), Admission::Told(_)));
    }

    #[test]
    fn the_gate_admits_nobody_while_memory_is_short() {
        let ledger = Ledger::new(1, Limits { soft: 100, hard: 200 });
        let gate = Gate::new(10).with_memory(ledger.clone());
        let _first = admitted(&gate);

        ledger.account(0).set(101);
        assert!(matches!(gate.admit(), Admission::Told(_)));
        ledger.account(0).set(100);

        admitted(&gate);
    }

    #[test]
    fn the_gate_is_empty_after_many_threads_went_through() {
        let gate = Gate::new(3);

        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let admission = gate.admit();
                        assert!(gate.open() <= 3);
                        drop(admission);
                    }
                });
            }
        });

        assert_eq!(gate.open(), 0);
        assert_eq!(gate.refused.taken(), 0);
    }

    fn admitted(gate: &Gate) -> Permit {
        match gate.admit() {
            Admission::Admitted(permit) => permit,
            other => panic!("not admitted: {other:?}"),
        }
    }
}
