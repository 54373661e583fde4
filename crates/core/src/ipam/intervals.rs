//! A set of numbers as ordered runs, with the lowest gap found in one look.

use std::collections::BTreeMap;

/// Numbers kept as disjoint runs that never touch: adjacent runs are one run.
///
/// So the number after a run is free, and finding the lowest free one takes one descent of the
/// tree however many numbers are in the set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Intervals {
    runs: BTreeMap<u128, u128>,
}

impl Intervals {
    /// The empty set.
    pub(super) const fn new() -> Self {
        Self {
            runs: BTreeMap::new(),
        }
    }

    /// Adds `first..=last`.
    pub(super) fn insert(&mut self, first: u128, last: u128) {
        debug_assert!(first <= last, "interval is upside down");
        let (mut low, mut high) = (first, last);
        while let Some((start, end)) = self.run_at_or_before(last.saturating_add(1)) {
            if end.saturating_add(1) < first {
                break;
            }
            self.runs.remove(&start);
            low = low.min(start);
            high = high.max(end);
        }
        self.runs.insert(low, high);
    }

    /// Takes `first..=last` out.
    pub(super) fn remove(&mut self, first: u128, last: u128) {
        debug_assert!(first <= last, "interval is upside down");
        while let Some((start, end)) = self.overlapping(first, last) {
            self.runs.remove(&start);
            if start < first {
                self.runs.insert(start, first - 1);
            }
            if end > last {
                self.runs.insert(last + 1, end);
            }
        }
    }

    /// The highest run that shares a number with `first..=last`.
    pub(super) fn overlapping(&self, first: u128, last: u128) -> Option<(u128, u128)> {
        self.run_at_or_before(last).filter(|&(_, end)| end >= first)
    }

    /// The lowest number of `first..=last` that is not in the set.
    pub(super) fn first_gap(&self, first: u128, last: u128) -> Option<u128> {
        let gap = match self.run_at_or_before(first) {
            Some((_, end)) if end >= first => end.checked_add(1)?,
            _ => first,
        };
        (gap <= last).then_some(gap)
    }

    fn run_at_or_before(&self, number: u128) -> Option<(u128, u128)> {
        #[cfg(test)]
        tests::LOOKS.with(|looks| looks.set(looks.get() + 1));
        self.runs
            .range(..=number)
            .next_back()
            .map(|(&start, &end)| (start, end))
    }

    /// How many runs the set is made of: what it costs in memory.
    #[cfg(test)]
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    thread_local! {
        /// Tree descents made by this thread: the cost measure of the bound tests.
        pub(crate) static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn neighbours_become_one_run() {
        let mut set = Intervals::default();
        set.insert(1, 1);
        set.insert(3, 3);
        assert_eq!(set.runs(), 2);
        set.insert(2, 2);
        assert_eq!(set.runs(), 1);
        assert_eq!(set.first_gap(1, 9), Some(4));
        set.remove(2, 2);
        assert_eq!(set.first_gap(1, 9), Some(2));
    }

    #[test]
    fn the_end_of_the_numbers_does_not_overflow() {
        let mut set = Intervals::default();
        set.insert(u128::MAX, u128::MAX);
        set.insert(u128::MAX - 1, u128::MAX - 1);
        assert_eq!(set.runs(), 1);
        assert_eq!(set.first_gap(u128::MAX - 1, u128::MAX), None);
        set.remove(u128::MAX, u128::MAX);
        assert_eq!(set.first_gap(u128::MAX - 1, u128::MAX), Some(u128::MAX));
        set.insert(0, u128::MAX);
        assert_eq!(set.runs(), 1);
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_set(
            steps in prop::collection::vec((any::<bool>(), 0_u128..64, 0_u128..8), 1..80),
        ) {
            let mut set = Intervals::default();
            let mut plain = BTreeSet::new();
            for (add, first, width) in steps {
                let last = first + width;
                if add {
                    set.insert(first, last);
                    plain.extend(first..=last);
                } else {
                    set.remove(first, last);
                    plain.retain(|n| !(first..=last).contains(n));
                }
                for from in 0..72_u128 {
                    let gap = (from..72).find(|n| !plain.contains(n));
                    prop_assert_eq!(set.first_gap(from, 71), gap);
                    prop_assert_eq!(set.overlapping(from, from).is_some(), plain.contains(&from));
                }
                let runs = plain.iter().filter(|&&n| n == 0 || !plain.contains(&(n - 1))).count();
                prop_assert_eq!(set.runs(), runs);
            }
        }
    }
}
