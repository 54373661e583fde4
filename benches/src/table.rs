//! The table of results.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The result: a median where there are several samples.
    pub(crate) value: Amount,
    /// What 95 of 100 samples do not exceed.
    pub(crate) p95: Option<Amount>,
    /// What it is compared with, in words, and how that did.
    pub(crate) beside: Option<(String, Amount)>,
    /// What was aimed at.
    pub(crate) target: Option<Target>,
}

/// A number with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Amount {
    Micros(f64),
    Mebibytes(f64),
    Count(f64),
    /// Of whatever is counted, in each second.
    Rate(f64),
    /// Of data, in each second.
    Gigabits(f64),
    Bytes(f64),
}

/// What was aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// At most this many times what it is compared with.
    Ratio(f64),
    /// At most this, in the unit of the value.
    Most(f64),
    /// At least this, in the unit of the value.
    Least(f64),
    /// At least this many times what it is compared with.
    RatioLeast(f64),
}

impl Amount {
    fn number(self) -> f64 {
        match self {
            Self::Micros(number)
            | Self::Mebibytes(number)
            | Self::Count(number)
            | Self::Rate(number)
            | Self::Gigabits(number)
            | Self::Bytes(number) => number,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Micros(micros) if micros >= 1e6 => format!("{:.2} s", micros / 1e6),
            Self::Micros(micros) if micros >= 1e4 => format!("{:.0} ms", micros / 1e3),
            Self::Micros(micros) if micros >= 100.0 => format!("{:.2} ms", micros / 1e3),
            Self::Micros(micros) => format!("{micros:.1} µs"),
            Self::Mebibytes(mebibytes) => format!("{mebibytes:.1} MiB"),
            Self::Count(count) => format!("{count:.0}"),
            Self::Rate(rate) => format!("{rate:.0} /s"),
            Self::Gigabits(gigabits) => format!("{gigabits:.1} Gbit/s"),
            Self::Bytes(bytes) => format!("{bytes:.1} B"),
        }
    }

    fn with(self, number: f64) -> Self {
        match self {
            Self::Micros(_) => Self::Micros(number),
            Self::Mebibytes(_) => Self::Mebibytes(number),
            Self::Count(_) => Self::Count(number),
            Self::Rate(_) => Self::Rate(number),
            Self::Gigabits(_) => Self::Gigabits(number),
            Self::Bytes(_) => Self::Bytes(number),
        }
    }
}

impl Row {
    /// A result alone.
    pub(crate) fn new(what: impl Into<String>, value: Amount) -> Self {
        Self {
            what: what.into(),
            value,
            p95: None,
            beside: None,
            target: None,
        }
    }

    /// The median and p95 of samples.
    pub(crate) fn of(what: impl Into<String>, samples: &crate::samples::Samples) -> Self {
        let mut row = Self::new(what, Amount::Micros(samples.median()));
        row.p95 = Some(Amount::Micros(samples.p95()));
        row
    }

    /// Compared with something.
    pub(crate) fn beside(mut self, what: impl Into<String>, amount: Amount) -> Self {
        self.beside = Some((what.into(), amount));
        self
    }

    /// With what was aimed at.
    pub(crate) fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// How many times what it is compared with.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (_, amount) = self.beside.as_ref()?;
        (amount.number() > 0.0).then(|| self.value.number() / amount.number())
    }

    /// Whether what was aimed at is reached.
    pub(crate) fn is_hit(&self) -> Option<bool> {
        Some(match self.target? {
            Target::Ratio(most) => self.ratio()? <= most,
            Target::Most(most) => self.value.number() <= most,
            Target::Least(least) => self.value.number() >= least,
            Target::RatioLeast(least) => self.ratio()? >= least,
        })
    }

    /// Whether less was reached than must be: then something does not work, however fast.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.target, Some(Target::Least(_))) && self.is_hit() == Some(false)
    }

    fn line(&self) -> String {
        let dash = || "-".to_owned();
        let beside = self.beside.as_ref();
        let target = self.target.map(|target| match target {
            Target::Ratio(most) => format!("≤ {most}x"),
            Target::RatioLeast(least) => format!("≥ {least}x"),
            Target::Most(most) => format!("≤ {}", self.value.with(most).text()),
            Target::Least(least) => format!("≥ {}", self.value.with(least).text()),
        });
        format!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            self.what,
            self.value.text(),
            self.p95.map_or_else(dash, Amount::text),
            beside.map_or_else(dash, |(what, amount)| format!("{what}: {}", amount.text())),
            self.ratio().map_or_else(dash, |ratio| match ratio {
                ..0.1 => format!("{ratio:.3}x"),
                _ => format!("{ratio:.2}x"),
            }),
            target.unwrap_or_else(dash),
            self.is_hit()
                .map_or_else(dash, |hit| if hit { "hit" } else { "**miss**" }.to_owned()),
        )
    }
}

/// The table as Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| measured | median | p95 | beside | ratio | target | |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{}", row.line());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_knows_its_ratio_and_whether_it_hits() {
        let row = Row::new("attach", Amount::Micros(1_200.0))
            .beside("floor", Amount::Micros(1_000.0))
            .target(Target::Ratio(1.3));
        assert_eq!(row.is_hit(), Some(true));
        assert_eq!(
            row.line(),
            "| attach | 1.20 ms | - | floor: 1.00 ms | 1.20x | ≤ 1.3x | hit |"
        );
        assert_eq!(row.clone().target(Target::Ratio(1.1)).is_hit(), Some(false));
        let far_ahead = row.clone().beside("other", Amount::Micros(600_000.0));
        assert!(far_ahead.line().contains("| 0.002x |"));
        let slower = row.clone().target(Target::RatioLeast(1.25));
        assert!(slower.line().ends_with("| ≥ 1.25x | **miss** |"));
        assert!(!slower.is_broken(), "slow is not broken");
        assert_eq!(Row::new("x", Amount::Count(1.0)).is_hit(), None);
        let memory = Row::new("rss", Amount::Mebibytes(41.0)).target(Target::Most(40.0));
        assert!(memory.line().ends_with("| ≤ 40.0 MiB | **miss** |"));
        let pairs = Row::new("pairs", Amount::Count(19.0)).target(Target::Least(20.0));
        assert_eq!(pairs.is_hit(), Some(false));
        assert!(pairs.is_broken());
        assert!(!memory.is_broken(), "slow or large is not broken");
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        let row = Row::new("x", Amount::Count(1.0)).beside("none", Amount::Count(0.0));
        assert_eq!(row.ratio(), None);
        assert_eq!(row.target(Target::Ratio(1.0)).is_hit(), None);
    }
}
