//! The resolver of names beside others: how fast it answers, what a name costs, and what a restart loses.

mod aardvark;
mod crowd;
mod dnsperf;
mod growth;
mod hickory;
mod load;
mod message;
mod ours;
mod pace;
mod restart;
mod server;

use std::path::Path;

use crate::table::Row;

pub(crate) use hickory::answer;

/// The name that everybody is asked for.
const NAME: &str = "web";
/// Sandboxes that ask at once.
const ASKERS: u32 = 100;

/// Measures all of it.
pub(crate) fn run(place: &Path, rounds: usize) -> anyhow::Result<Vec<Row>> {
    dnsperf::find()?;
    let mut rows = load::run(place, rounds)?;
    rows.extend(restart::run(place)?);
    rows.extend(growth::run(place, rounds)?);
    Ok(rows)
}

/// The middle one; 0 of none.
fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_median_is_the_middle_one() {
        assert!((super::median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!(super::median(&[]).abs() < 1e-9);
    }
}
