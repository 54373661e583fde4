//! Questions that are being worked on.

use std::collections::BTreeMap;

use crate::limits;

/// Questions in flight, so that the same one is put once however many ask it.
///
/// Bounded in all and for each asker: one may take half of the places, so that another always
/// finds one.
#[derive(Debug)]
pub struct Flights<K, W> {
    flights: BTreeMap<K, Flight<W>>,
    waiters: usize,
    shares: BTreeMap<u64, Share>,
}

/// What became of a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Joined<W> {
    /// Nobody asks this yet: put the question, then call [`Flights::finish`].
    First,
    /// The question has been put; the waiter comes out of [`Flights::finish`] with the others.
    Waits,
    /// There is no place: the waiter is handed back, to be refused.
    Full(W),
}

#[derive(Debug)]
struct Flight<W> {
    /// Who counts as having put the question.
    first: u64,
    waiters: Vec<(u64, W)>,
}

/// What one asker takes of the limits.
#[derive(Debug, Default)]
struct Share {
    flights: usize,
    waiters: usize,
}

impl<K, W> Default for Flights<K, W> {
    fn default() -> Self {
        Self {
            flights: BTreeMap::new(),
            waiters: 0,
            shares: BTreeMap::new(),
        }
    }
}

impl<K: Ord, W> Flights<K, W> {
    /// Nothing is in flight.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a waiter of `asker` to the question `key`; the first is a waiter as well.
    pub fn join(&mut self, key: K, asker: u64, waiter: W) -> Joined<W> {
        let share = self.shares.get(&asker);
        let (flights, waiters) = share.map_or((0, 0), |share| (share.flights, share.waiters));
        if self.waiters >= limits::FLIGHT_WAITERS_MAX || waiters >= limits::FLIGHT_WAITERS_MAX / 2 {
            return Joined::Full(waiter);
        }
        let joined = if let Some(flight) = self.flights.get_mut(&key) {
            flight.waiters.push((asker, waiter));
            Joined::Waits
        } else if self.flights.len() >= limits::FLIGHTS_MAX || flights >= limits::FLIGHTS_MAX / 2 {
            return Joined::Full(waiter);
        } else {
            let flight = Flight {
                first: asker,
                waiters: vec![(asker, waiter)],
            };
            self.flights.insert(key, flight);
            Joined::First
        };
        let share = self.shares.entry(asker).or_default();
        share.flights += usize::from(matches!(joined, Joined::First));
        share.waiters += 1;
        self.waiters += 1;
        joined
    }

    /// Ends the flight of a question; whoever waits for it, in the order they came.
    pub fn finish(&mut self, key: &K) -> Vec<W> {
        let Some(flight) = self.flights.remove(key) else {
            return Vec::new();
        };
        self.waiters -= flight.waiters.len();
        self.give_back(flight.first, 1, 0);
        for (asker, _) in &flight.waiters {
            self.give_back(*asker, 0, 1);
        }
        flight
            .waiters
            .into_iter()
            .map(|(_, waiter)| waiter)
            .collect()
    }

    /// How many questions are in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// How many wait, in all.
    #[must_use]
    pub const fn waiters(&self) -> usize {
        self.waiters
    }

    fn give_back(&mut self, asker: u64, flights: usize, waiters: usize) {
        if let Some(share) = self.shares.get_mut(&asker) {
            share.flights -= flights;
            share.waiters -= waiters;
            if share.flights == 0 && share.waiters == 0 {
                self.shares.remove(&asker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_same_question_flies_once() {
        let mut flights = Flights::new();
        assert_eq!(flights.join("a", 1, 10), Joined::First);
        assert_eq!(flights.join("a", 2, 20), Joined::Waits);
        assert_eq!(flights.join("b", 1, 30), Joined::First);
        assert_eq!((flights.len(), flights.waiters()), (2, 3));
        assert_eq!(flights.finish(&"a"), [10, 20]);
        assert_eq!(flights.finish(&"a"), []);
        assert_eq!(flights.join("a", 1, 40), Joined::First);
        assert_eq!(flights.finish(&"b"), [30]);
        assert_eq!(flights.finish(&"a"), [40]);
        assert!(flights.is_empty() && flights.shares.is_empty());
        assert_eq!(flights.waiters(), 0);
    }

    #[test]
    fn questions_in_flight_are_limited_in_all_and_for_each_asker() {
        let half = limits::FLIGHTS_MAX / 2;
        let mut flights = Flights::new();
        for key in 0..half {
            assert_eq!(flights.join(key, 1, ()), Joined::First);
        }
        assert_eq!(flights.join(half, 1, ()), Joined::Full(()));
        assert_eq!(flights.join(0, 1, ()), Joined::Waits, "it flies already");
        for key in half..limits::FLIGHTS_MAX {
            assert_eq!(flights.join(key, 2, ()), Joined::First);
        }
        assert_eq!(flights.len(), limits::FLIGHTS_MAX);
        assert_eq!(flights.join(usize::MAX, 3, ()), Joined::Full(()));
        assert_eq!(flights.finish(&0).len(), 2);
        assert_eq!(flights.join(usize::MAX, 1, ()), Joined::First);
    }

    #[test]
    fn waiters_are_limited_in_all_and_for_each_asker() {
        let half = limits::FLIGHT_WAITERS_MAX / 2;
        let mut flights = Flights::new();
        for waiter in 0..half {
            assert!(!matches!(flights.join("a", 1, waiter), Joined::Full(_)));
        }
        assert_eq!(flights.join("a", 1, half), Joined::Full(half));
        assert_eq!(flights.join("b", 1, half), Joined::Full(half));
        for waiter in half..2 * half {
            assert!(!matches!(flights.join("b", 2, waiter), Joined::Full(_)));
        }
        assert_eq!(flights.waiters(), limits::FLIGHT_WAITERS_MAX);
        assert_eq!(flights.join("a", 3, 0), Joined::Full(0));
        assert_eq!(flights.finish(&"a").len(), half);
        assert_eq!(flights.join("b", 1, 0), Joined::Waits);
    }

    proptest! {
        #[test]
        fn flights_hand_out_every_waiter_once(
            moves in prop::collection::vec((0_u8..5, 0_u64..4, prop::bool::weighted(0.7)), 0..200),
        ) {
            let mut flights = Flights::new();
            let mut model: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
            for (waiter, (key, asker, joins)) in moves.into_iter().enumerate() {
                if joins {
                    let joined = flights.join(key, asker, waiter);
                    let is_first = !model.contains_key(&key);
                    prop_assert_eq!(joined, if is_first { Joined::First } else { Joined::Waits });
                    model.entry(key).or_default().push(waiter);
                } else {
                    prop_assert_eq!(flights.finish(&key), model.remove(&key).unwrap_or_default());
                }
                prop_assert_eq!(flights.len(), model.len());
                prop_assert_eq!(flights.waiters(), model.values().map(Vec::len).sum::<usize>());
            }
            for key in model.into_keys() {
                flights.finish(&key);
            }
            prop_assert!(flights.shares.is_empty());
        }
    }
}
