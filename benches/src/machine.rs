//! The machine: what it is, and whether it is quiet.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

/// Share of all processors' time that counts as quiet.
const QUIET: f64 = 0.10;
/// How long the machine is looked at.
const LOOK: Duration = Duration::from_millis(400);

/// Cores, kernel and load in one line.
pub(crate) fn describe() -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    format!(
        "{cores} cores, Linux {}, load {}",
        kernel.trim(),
        load.join(" ")
    )
}

/// Waits until the machine has little to do, but no longer than `most`; the share of time in use at last.
pub(crate) fn await_quiet(most: Duration) -> anyhow::Result<f64> {
    let end = Instant::now() + most;
    loop {
        let (busy, all) = processor_time()?;
        thread::sleep(LOOK);
        let (busy_then, all_then) = processor_time()?;
        let share = (busy_then - busy) / (all_then - all).max(1.0);
        if share <= QUIET || Instant::now() > end {
            return Ok(share);
        }
    }
}

/// Clock ticks in use and in all, of all processors (proc_stat(5)).
fn processor_time() -> anyhow::Result<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let ticks: Vec<f64> = text
        .lines()
        .next()
        .context("/proc/stat is empty")?
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let all: f64 = ticks.iter().take(8).sum();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

/// A line such as `VmRSS` of a process's status, in MiB.
pub(crate) fn memory(pid: u32, field: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes: f64 = line
        .and_then(|rest| rest.split_whitespace().nth(1))
        .with_context(|| format!("process {pid} has no {field}"))?
        .parse()?;
    Ok(kibibytes / 1024.0)
}

/// Processor time that a process has used so far (proc_pid_stat(5)), to a hundredth of a second.
pub(crate) fn processor_time_of(pid: u32) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let used = used_ticks(&text).with_context(|| format!("process {pid} has no times"))?;
    Ok(Duration::from_millis(used * 10))
}

/// Ticks in user and kernel mode; there are a hundred in a second (`USER_HZ`).
fn used_ticks(stat: &str) -> Option<u64> {
    // The name of the program, in parentheses, may have any characters.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace().skip(11);
    let user: u64 = words.next()?.parse().ok()?;
    let kernel: u64 = words.next()?.parse().ok()?;
    Some(user + kernel)
}

/// Memory of all processes in a network namespace that run the program of process `pid`, in MiB.
pub(crate) fn memory_of_program(pid: u32, netns: u64, field: &str) -> anyhow::Result<f64> {
    let program = fs::read_link(format!("/proc/{pid}/exe"))?;
    let mut sum = 0.0;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let runs_it = fs::read_link(path.join("exe")).is_ok_and(|exe| exe == program);
        let is_here = fs::metadata(path.join("ns/net")).is_ok_and(|file| file.ino() == netns);
        if let (Some(number), true, true) = (number, runs_it, is_here) {
            sum += memory(number, field)?;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_that_of_the_user_and_of_the_kernel() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 0";
        assert_eq!(used_ticks(stat), Some(300));
        assert_eq!(used_ticks("7 (a"), None);
    }
}
