//! Measured times and what is said of them.

use std::time::Duration;

/// Durations of the same thing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// The middle one, in microseconds; 0 of none.
    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// What 95 of 100 do not exceed, in microseconds; 0 of none.
    pub(crate) fn p95(&self) -> f64 {
        self.percentile(95)
    }

    /// What so many of 100 do not exceed, in microseconds; 0 of none.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let place = (sorted.len() * percent / 100).min(last);
        sorted.get(place).map_or(0.0, |took| micros(*took))
    }
}

/// A duration in microseconds.
pub(crate) fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_p95_are_those_of_the_sorted_samples() {
        let mut samples = Samples::default();
        assert!(samples.median().abs() < f64::EPSILON);
        for n in (1..=100).rev() {
            samples.push(Duration::from_micros(n));
        }
        assert!((samples.median() - 51.0).abs() < 1e-6);
        assert!((samples.p95() - 96.0).abs() < 1e-6);
    }
}
