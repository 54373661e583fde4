//! What the tests share: a state directory, a network namespace of their own, and short ways to run things.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tombolo_cli::run::{ExecSpec, LogQuery, ProcessSpec, StateDir, Status};

/// A state directory and a network namespace, both gone with this value.
pub(crate) struct World {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) states: StateDir,
    holder: Child,
}

impl World {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let states = StateDir::new(temp.path().join("state")).with_program(runtime());
        // The namespace lives in a process, so that nothing is mounted for it.
        let mut holder = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up; echo ready; exec cat",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        Self {
            temp,
            states,
            holder,
        }
    }

    pub(crate) fn netns(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    /// A spec that runs a shell script in the world's network namespace.
    pub(crate) fn shell(&self, id: &str, script: &str) -> ProcessSpec {
        let argv = ["sh", "-c", script].map(String::from).to_vec();
        ProcessSpec {
            netns: Some(self.netns()),
            ..ProcessSpec::new(id, argv)
        }
    }

    pub(crate) fn start(&self, spec: &ProcessSpec) {
        self.states.create(spec).unwrap();
        self.states.start(&spec.id).unwrap();
    }

    /// Runs a spec to its end; its exit code and output.
    pub(crate) fn finish(&self, spec: &ProcessSpec) -> (Option<i32>, String) {
        self.start(spec);
        let code = self
            .states
            .wait(&spec.id, Some(Duration::from_secs(20)))
            .unwrap();
        (code.expect("it ends in time"), self.log(&spec.id))
    }

    pub(crate) fn log(&self, id: &str) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        self.states
            .logs(id, LogQuery::default(), &mut out, &mut err)
            .unwrap();
        out.extend(err);
        String::from_utf8(out).unwrap()
    }

    /// Waits until the log holds a text.
    pub(crate) fn await_log(&self, id: &str, text: &str) {
        await_true(
            || self.log(id).contains(text),
            || format!("{text:?} in {:?}", self.log(id)),
        );
    }

    pub(crate) fn status(&self, id: &str) -> Status {
        self.states.entry(id).unwrap().state.status
    }

    /// The runtime as a program, with words after the state directory.
    pub(crate) fn runtime(&self, words: &[&str]) -> Command {
        let mut command = Command::new(runtime());
        command.arg(self.states.root()).args(words);
        command
    }

    pub(crate) fn foreground(&self, spec: &ProcessSpec) -> Output {
        self.runtime(&["run", &json(spec)])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub(crate) fn exec(&self, id: &str, script: &str) -> Output {
        let argv = ["sh", "-c", script].map(String::from).to_vec();
        self.exec_spec(
            id,
            &ExecSpec {
                argv,
                ..ExecSpec::default()
            },
        )
    }

    pub(crate) fn exec_spec(&self, id: &str, spec: &ExecSpec) -> Output {
        self.runtime(&["exec", id, &json(spec)])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for entry in self.states.list().unwrap_or_default() {
            let _ = self.states.remove(&entry.spec.id, true);
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn await_true(mut holds: impl FnMut() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never came: {}", what());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The example that stands in for the program.
pub(crate) fn runtime() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples/runtime");
    assert!(path.exists(), "{} is built with the tests", path.display());
    path
}

/// A root directory with a static busybox and nothing else.
pub(crate) fn busybox_root(at: &Path) -> PathBuf {
    let root = at.join("root");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::copy("/usr/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "cat", "ls", "id", "sleep", "mount", "hostname", "stat", "mknod", "echo",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    root
}
