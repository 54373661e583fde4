//! dnsperf, which asks as fast as it is answered.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::NAME;
use super::server::Spot;
use crate::peer::run;

/// Seconds of one measurement.
const SECONDS: &str = "2";
/// Sockets from which it asks: a server with several threads can make use of that.
const SOCKETS: &str = "10";
/// Questions that are open at once, of all sockets together.
const OPEN: &str = "100";
/// Lines of its list of questions; it starts again at the end.
const LINES: usize = 1_000;

/// What it has found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    /// Answers in each second.
    pub(super) rate: f64,
    /// Answers.
    pub(super) answers: f64,
    /// Questions without an answer.
    pub(super) lost: f64,
    /// Bytes of an answer.
    pub(super) bytes: f64,
}

/// Makes sure that it is there.
pub(super) fn find() -> anyhow::Result<()> {
    let found = Command::new("dnsperf").arg("-h").output();
    found.context("no dnsperf(1): install Debian's dnsperf")?;
    Ok(())
}

/// Asks for a while by a protocol that is called `udp` or `tcp`.
pub(super) fn measure(place: &Path, spot: &Spot, protocol: &str) -> anyhow::Result<Measured> {
    let questions = place.join("questions");
    if !questions.exists() {
        fs::write(&questions, format!("{NAME} A\n").repeat(LINES))?;
    }
    let mut command = Command::new("dnsperf");
    command
        .args(["-m", protocol, "-l", SECONDS])
        .args(["-T", "1", "-c", SOCKETS, "-q", OPEN])
        .args(["-s", &spot.server.ip().to_string()])
        .args(["-p", &spot.server.port().to_string(), "-d"])
        .arg(&questions);
    let output = spot.netns.inside(|| run(&mut command, ""))?;
    let text = String::from_utf8_lossy(&output.stdout);
    read(&text).with_context(|| format!("dnsperf says: {text}"))
}

/// Reads its summary; an error where an answer was not a good one.
fn read(text: &str) -> anyhow::Result<Measured> {
    let words = |label: &str| {
        let found = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(label));
        found.with_context(|| format!("it does not say: {label}"))
    };
    let first = |label: &str| -> anyhow::Result<f64> {
        let word = words(label)?.split_whitespace().next();
        Ok(word.context("no number")?.parse()?)
    };
    let codes = words("Response codes:")?.trim();
    if !codes.starts_with("NOERROR") || codes.contains(',') {
        bail!("not every answer was a good one: {codes}");
    }
    let sizes = words("Average packet size:")?;
    let bytes = sizes.split("response").nth(1).unwrap_or_default().trim();
    Ok(Measured {
        rate: first("Queries per second:")?,
        answers: first("Queries completed:")?,
        lost: first("Queries lost:")?,
        bytes: bytes.parse().context("no size")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "Statistics:\n\n  Queries sent:         300\n  Queries completed:    298 (99.33%)\n\
        \x20 Queries lost:         2 (0.67%)\n\n  Response codes:       NOERROR 298 (100.00%)\n\
        \x20 Average packet size:  request 21, response 37\n  Queries per second:   150123.500000\n";

    #[test]
    fn a_summary_is_read() {
        let expected = Measured {
            rate: 150_123.5,
            answers: 298.0,
            lost: 2.0,
            bytes: 37.0,
        };
        assert_eq!(read(SUMMARY).unwrap(), expected);
    }

    #[test]
    fn answers_that_are_not_good_are_an_error() {
        let codes = [
            "NXDOMAIN 298 (100.00%)",
            "NOERROR 297 (99.66%), SERVFAIL 1 (0.34%)",
        ];
        for code in codes {
            let text = SUMMARY.replace("NOERROR 298 (100.00%)", code);
            assert!(read(&text).is_err(), "{code}");
        }
    }
}
