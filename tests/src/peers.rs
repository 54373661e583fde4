//! Programs that also rule a machine's network, as Debian ships them, run on a [`Stage`].

mod dockerd;
mod firewalld;
mod plugin;

pub use dockerd::{CLIENT, Dockerd};
pub use firewalld::Firewalld;
pub use plugin::{Call, Plugin};

use tombolo_lab::node::skip;

use crate::Stage;

/// Lines of a log that a failed test shows.
const LOG_TAIL: usize = 40;

/// Says that the running test is skipped when one of these programs is not on this machine; whether it is.
fn is_missing(stage: &Stage, programs: &[(&str, &str)]) -> bool {
    let missing = programs.iter().find(|(program, _)| {
        let found = stage.run(&["sh", "-c", &format!("command -v {program}")]);
        !found.is_ok_and(|outcome| outcome.success())
    });
    if let Some((program, package)) = missing {
        skip(&format!("no {program}: install Debian's {package}"));
    }
    missing.is_some()
}

/// The log of a program, shown when the test that it belongs to fails.
#[derive(Debug)]
struct Log(std::path::PathBuf);

impl Log {
    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }
}

impl Drop for Log {
    #[expect(
        clippy::print_stderr,
        reason = "a failed test shows what the other program had to say"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of {}\n{}\n---", self.0.display(), self.tail());
        }
    }
}
