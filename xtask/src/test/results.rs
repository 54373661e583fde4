//! Reading what the test runner and the tests wrote down.

use std::collections::{BTreeMap, BTreeSet};

/// How many tests and checks ended which way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Ran and held.
    pub(crate) passed: usize,
    /// Ran and did not hold, or could not be built.
    pub(crate) failed: usize,
    /// Could not run here, and said why.
    pub(crate) skipped: usize,
}

impl Tally {
    /// Counts one check.
    pub(crate) fn count(&mut self, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Adds all of `other`.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The tests of a JUnit report as written by cargo-nextest: `<binary id> <test name>` and whether
/// it passed.
pub(crate) fn junit_cases(report: &str) -> BTreeMap<String, bool> {
    let mut cases = BTreeMap::new();
    let mut current: Option<String> = None;
    for tag in report.split('<').skip(1) {
        let tag = tag.split_once('>').map_or(tag, |(inside, _)| inside);
        let word = tag
            .split([' ', '/', '\n'])
            .find(|word| !word.is_empty())
            .unwrap_or_default();
        match word {
            "testcase" if !tag.starts_with('/') => {
                let binary = attribute(tag, "classname").unwrap_or_default();
                let name = attribute(tag, "name").unwrap_or_default();
                let key = format!("{binary} {name}");
                cases.insert(key.clone(), true);
                current = (!tag.ends_with('/')).then_some(key);
            }
            "testcase" => current = None,
            "failure" | "error" => {
                if let Some(key) = &current {
                    cases.insert(key.clone(), false);
                }
            }
            _ => {}
        }
    }
    cases
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    let value = &tag[start..];
    let raw = &value[..value.find('"')?];
    let plain = raw
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"");
    Some(plain.replace("&apos;", "'").replace("&amp;", "&"))
}

/// The skips that tests appended to the file named by `TOMBOLO_SKIP_LOG`: test and reason, one
/// per line, a tab between; a test that says so twice counts once.
pub(crate) fn skips(log: &str) -> BTreeMap<String, String> {
    let lines = log.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let (test, reason) = line.split_once('\t').unwrap_or((line, "no reason given"));
            (test.trim().to_owned(), reason.trim().to_owned())
        })
        .collect()
}

/// Counts `cases`, taking those that logged a skip out of the passed ones.
///
/// A test is matched by `<binary id> <test name>`, or by its name alone when it knew no more. A
/// failed test stays failed. A skip by a name that ran nowhere is counted too: nothing is hidden.
pub(crate) fn tally(cases: &BTreeMap<String, bool>, skips: &BTreeMap<String, String>) -> Tally {
    let failed: BTreeSet<&str> = names(cases, false);
    let passed: BTreeSet<&str> = names(cases, true);
    let mut tally = Tally {
        passed: passed.len(),
        failed: failed.len(),
        ..Tally::default()
    };
    for test in skips.keys() {
        let is_it = |case: &&&str| **case == test || case.ends_with(&format!(" {test}"));
        if passed.iter().any(|case| is_it(&case)) {
            tally.passed = tally.passed.saturating_sub(1);
        } else if failed.iter().any(|case| is_it(&case)) {
            continue;
        }
        tally.skipped += 1;
    }
    tally
}

fn names(cases: &BTreeMap<String, bool>, passed: bool) -> BTreeSet<&str> {
    cases
        .iter()
        .filter(|(_, held)| **held == passed)
        .map(|(name, _)| name.as_str())
        .collect()
}

/// Sums the `test result:` lines of `cargo test`.
pub(crate) fn libtest_tally(output: &str) -> Tally {
    let mut tally = Tally::default();
    let lines = output
        .lines()
        .filter_map(|line| line.trim().strip_prefix("test result:"));
    for part in lines.flat_map(|line| line.split([';', '.'])) {
        let mut words = part.split_whitespace();
        let number = words.next().and_then(|word| word.parse::<usize>().ok());
        match (number, words.next()) {
            (Some(number), Some("passed")) => tally.passed += number,
            (Some(number), Some("failed")) => tally.failed += number,
            (Some(number), Some("ignored")) => tally.skipped += number,
            _ => {}
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="4" failures="1" errors="1" uuid="x" time="0.1">
    <testsuite name="tombolo-core" tests="3" disabled="0" errors="0" failures="1">
        <testcase name="ipam::gives_lowest" classname="tombolo-core" time="0.005">
        </testcase>
        <testcase name="ipam::full" classname="tombolo-core" time="0.005">
            <failure message="thread &apos;x&apos; panicked" type="test failure">a &lt;failure&gt;</failure>
            <system-out>running 1 test</system-out>
        </testcase>
        <testcase name="short" classname="tombolo-core" time="0.005"/>
    </testsuite>
    <testsuite name="tombolo-tests::netns" tests="2" disabled="0" errors="1" failures="0">
        <testcase name="overlay" classname="tombolo-tests::netns" time="0.005">
            <error type="execution failure"/>
        </testcase>
        <testcase name="ovs&lt;2&gt;" classname="tombolo-tests::netns" time="0.005">
        </testcase>
    </testsuite>
</testsuites>"#;

    #[test]
    fn each_case_of_a_report_is_read_once() {
        let cases = junit_cases(REPORT);
        let expected = [
            ("tombolo-core ipam::full", false),
            ("tombolo-core ipam::gives_lowest", true),
            ("tombolo-core short", true),
            ("tombolo-tests::netns overlay", false),
            ("tombolo-tests::netns ovs<2>", true),
        ];
        let expected = expected.map(|(name, passed)| (name.to_owned(), passed));
        assert_eq!(cases, BTreeMap::from(expected));
    }

    #[test]
    fn a_skip_is_neither_a_pass_nor_a_pardon() {
        let cases = junit_cases(REPORT);
        let log = "tombolo-tests::netns ovs<2>\tno Open vSwitch here\n\
                   tombolo-tests::netns ovs<2>\tno Open vSwitch here\n\
                   ipam::full\tno\n";
        let tally = tally(&cases, &skips(log));
        assert_eq!(
            tally,
            Tally {
                passed: 2,
                failed: 2,
                skipped: 1
            }
        );
    }

    #[test]
    fn a_skip_by_bare_name_counts_and_an_unknown_one_is_not_hidden() {
        let cases = junit_cases(REPORT);
        let tally = tally(&cases, &skips("short\twhy\nelsewhere\n"));
        assert_eq!(
            tally,
            Tally {
                passed: 2,
                failed: 2,
                skipped: 2
            }
        );
    }

    #[test]
    fn results_of_cargo_test_are_summed() {
        let output = "\
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.52s
   Doc-tests tombolo_dns
test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!(
            libtest_tally(output),
            Tally {
                passed: 3,
                failed: 2,
                skipped: 1
            }
        );
    }
}
