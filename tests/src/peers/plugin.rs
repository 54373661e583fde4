//! A plugin of Docker's engine that is not ours: a network driver and address manager of other people.

use std::fs;
use std::os::unix::net::UnixStream;

use serde_json::Value;
use tombolo_lab::node::wait_until;

use super::{Log, is_missing};
use crate::stage::{PATIENCE, Stage};

/// The plugin itself. Its head says what it does, and how it can be made to misbehave.
const SCRIPT: &str = include_str!("plugin.py");

/// A running plugin, at the place where engines look for one of its name. It ends with the node.
#[derive(Debug)]
pub struct Plugin {
    name: String,
    /// Host and port; none for a socket.
    tcp: Option<String>,
    log: Log,
}

/// A call that the plugin was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Subsystem and method, such as `NetworkDriver.Join`.
    pub method: String,
    /// What was asked; null when the call had no body.
    pub request: Value,
    /// What was answered: text where it was no JSON, null where there was no answer.
    pub answer: Value,
}

impl Plugin {
    /// A plugin with this name that answers; none, after the test was declared skipped, where there cannot be one.
    #[track_caller]
    pub fn start(stage: &Stage, name: &str) -> Option<Self> {
        Self::start_at(stage, name, None)
    }

    /// The same at a host and port, where nobody looks for it who was not told.
    #[track_caller]
    pub fn start_at(stage: &Stage, name: &str, tcp: Option<&str>) -> Option<Self> {
        if is_missing(stage, &[("python3", "python3"), ("ip", "iproute2")]) {
            return None;
        }
        let plugin = Self {
            name: name.to_owned(),
            tcp: tcp.map(str::to_owned),
            log: Log(stage.path(format!("/run/peer-{name}/output"))),
        };
        stage.shell(&format!(
            "mkdir -p /run/docker/plugins {}",
            plugin.directory()
        ));
        plugin.write(stage, "plugin.py", SCRIPT);
        plugin.launch(stage);
        Some(plugin)
    }

    /// Its socket, as the node sees it.
    pub fn socket(&self) -> String {
        format!("/run/docker/plugins/{}.sock", self.name)
    }

    /// Every call so far, in the order in which they were decided.
    #[track_caller]
    pub fn calls(&self, stage: &Stage) -> Vec<Call> {
        let text = fs::read_to_string(self.file(stage, "calls")).unwrap_or_default();
        let call = |line: &str| {
            let mut call: Value = serde_json::from_str(line).expect("a line of JSON");
            Call {
                method: call["method"].as_str().expect("a method").to_owned(),
                request: call["request"].take(),
                answer: call["answer"].take(),
            }
        };
        // A line without an end is still being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(call).collect()
    }

    /// The methods of [`Self::calls`].
    #[track_caller]
    pub fn methods(&self, stage: &Stage) -> Vec<String> {
        let calls = self.calls(stage).into_iter();
        calls.map(|call| call.method).collect()
    }

    /// Forgets the calls so far.
    #[track_caller]
    pub fn forget_calls(&self, stage: &Stage) {
        self.write(stage, "calls", "");
    }

    /// Makes it misbehave as these lines say, and no longer as lines before; without any it behaves.
    #[track_caller]
    pub fn misbehave(&self, stage: &Stage, lines: &str) {
        // A call never sees half of it.
        self.write(stage, "control.new", lines);
        let [from, to] = ["control.new", "control"].map(|name| self.file(stage, name));
        fs::rename(from, to).expect("the node's files are ours");
    }

    /// Ends it, without a word to anybody. Its links stay, and so does its socket, at which nobody answers.
    #[track_caller]
    pub fn stop(&self, stage: &Stage) {
        let pid = format!("\"$(cat {}/pid)\"", self.directory());
        stage.shell(&format!("kill -9 {pid}"));
        let gone = format!("! kill -0 {pid} 2>/dev/null");
        let ended = wait_until(PATIENCE, || {
            stage
                .run(&["sh", "-c", &gone])
                .is_ok_and(|outcome| outcome.success())
        });
        assert!(ended, "plugin {} does not end", self.name);
    }

    /// Starts it after it was stopped. It remembers nothing.
    #[track_caller]
    pub fn launch(&self, stage: &Stage) {
        stage.shell(&format!(
            "cd {directory}
             setsid python3 plugin.py {socket} calls control >>output 2>&1 </dev/null &
             echo $! >pid",
            directory = self.directory(),
            socket = self.tcp.clone().unwrap_or_else(|| self.socket()),
        ));
        let socket = stage.path(self.socket());
        let answers = wait_until(PATIENCE, || match &self.tcp {
            Some(tcp) => {
                let (host, port) = tcp.rsplit_once(':').expect("host and port");
                let connect = format!("exec 3<>/dev/tcp/{host}/{port}");
                let outcome = stage.run(&["bash", "-c", &connect]);
                outcome.is_ok_and(|outcome| outcome.success())
            }
            None => UnixStream::connect(&socket).is_ok(),
        });
        let name = &self.name;
        assert!(
            answers,
            "plugin {name} does not answer:\n{}",
            self.log.tail()
        );
    }

    fn directory(&self) -> String {
        format!("/run/peer-{}", self.name)
    }

    fn file(&self, stage: &Stage, name: &str) -> std::path::PathBuf {
        stage.path(self.directory()).join(name)
    }

    #[track_caller]
    fn write(&self, stage: &Stage, name: &str, text: &str) {
        fs::write(self.file(stage, name), text).expect("the node's files are ours");
    }
}
