//! The plugin's share of a start, as our daemon's own log tells it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::samples::Samples;

/// What the engine called in a number of starts.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Of each method, how long its calls took.
    methods: BTreeMap<String, (Samples, usize)>,
    /// All calls of a start together.
    pub(super) whole: Samples,
    starts: usize,
}

/// A method, how often it is called in a start, and how long that takes.
pub(super) struct Method<'a> {
    pub(super) name: &'a str,
    pub(super) calls: f64,
    pub(super) took: &'a Samples,
}

impl Calls {
    /// Takes in what was logged at level debug within one start.
    pub(super) fn add(&mut self, log: &str) {
        let mut sum = Duration::ZERO;
        for (name, took) in log.lines().filter_map(call) {
            let (samples, count) = self.methods.entry(name.to_owned()).or_default();
            samples.push(took);
            *count += 1;
            sum += took;
        }
        self.whole.push(sum);
        self.starts += 1;
    }

    /// The methods that were called.
    pub(super) fn methods(&self) -> impl Iterator<Item = Method<'_>> {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let mean = |count: usize| count as f64 / self.starts.max(1) as f64;
        self.methods
            .iter()
            .map(move |(name, (took, count))| Method {
                name,
                calls: mean(*count),
                took,
            })
    }
}

/// The method and time of a line about a call.
fn call(line: &str) -> Option<(&str, Duration)> {
    let (_, rest) = line.split_once("engine answered method=\"/")?;
    let (name, rest) = rest.split_once('"')?;
    let (_, rest) = rest.split_once("micros=")?;
    let micros = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, Duration::from_micros(micros)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_summed_by_start() {
        let line = |name: &str, micros: u32| {
            format!("DEBUG x: engine answered method=\"/{name}\" micros={micros}\n")
        };
        let mut calls = Calls::default();
        let join = "NetworkDriver.Join";
        calls.add(&(line(join, 100) + "DEBUG x: else\n" + &line("IpamDriver.RequestAddress", 7)));
        calls.add(&(line(join, 300) + &line(join, 200)));
        let methods: Vec<_> = calls.methods().collect();
        assert_eq!(methods[0].name, "IpamDriver.RequestAddress");
        assert!((methods[0].calls - 0.5).abs() < 1e-6);
        assert!((methods[1].calls - 1.5).abs() < 1e-6);
        assert!((methods[1].took.median() - 200.0).abs() < 1e-6);
        assert!((calls.whole.median() - 500.0).abs() < 1e-6);
    }
}
