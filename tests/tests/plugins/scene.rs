//! A machine with our daemon and a plugin of other people.

use std::ops::{Deref, DerefMut};
use std::process::{Child, Stdio};

use tombolo_lab::node::wait_until;
use tombolo_tests::Stage;
use tombolo_tests::peers::Plugin;
use tombolo_tests::stage::PATIENCE;

/// Flags of our daemon: no call takes long, so that a plugin that hangs does not make a test slow.
pub(crate) const FLAGS: &[&str] = &["--plugin-call-timeout-seconds", "2"];

/// What is asked when an endpoint comes to a sandbox.
pub(crate) const ATTACH: &[&str] = &[
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.Join",
    "NetworkDriver.ProgramExternalConnectivity",
    "NetworkDriver.EndpointOperInfo",
];

/// What is asked when it goes.
pub(crate) const DETACH: &[&str] = &[
    "NetworkDriver.RevokeExternalConnectivity",
    "NetworkDriver.Leave",
    "NetworkDriver.DeleteEndpoint",
];

/// A machine with both.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) plugin: Plugin,
}

impl Scene {
    /// None where this machine cannot have it, which is then told.
    #[track_caller]
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(FLAGS)
    }

    /// The same with these flags of our daemon.
    #[track_caller]
    pub(crate) fn start_with(flags: &[&str]) -> Option<Self> {
        let stage = Stage::start_with(flags)?;
        let plugin = Plugin::start(&stage, "peer")?;
        Some(Self { stage, plugin })
    }

    /// Starts the daemon again, after it was killed.
    #[track_caller]
    pub(crate) fn start_anew(&mut self) {
        let started = self.stage.start_with(FLAGS, &[]);
        started.unwrap_or_else(|error| panic!("{error}"));
    }

    /// A network of the plugin's.
    #[track_caller]
    pub(crate) fn network(&self, name: &str, flags: &str) {
        self.ok(&format!("network create --driver peer {flags} {name}"));
    }

    /// The methods that the plugin was asked since the last time.
    #[track_caller]
    pub(crate) fn asked(&self) -> Vec<String> {
        let methods = self.plugin.methods(&self.stage);
        self.plugin.forget_calls(&self.stage);
        methods
    }

    /// Asserts that the plugin was asked these methods since the last time, and no others.
    #[track_caller]
    pub(crate) fn assert_asked(&self, methods: &[&str]) {
        assert_eq!(self.asked(), methods);
    }

    /// Whether the plugin was asked a method since the last time.
    #[track_caller]
    pub(crate) fn was_asked(&self, method: &str) -> bool {
        let methods = self.plugin.methods(&self.stage);
        methods.iter().any(|asked| asked.ends_with(method))
    }

    /// Runs `tombolo` with these words until the plugin is asked a method, which it does not answer for half a minute.
    #[track_caller]
    pub(crate) fn hangs_in(&self, method: &str, line: &str) -> Child {
        self.misbehave(&format!("{method} hang 30"));
        let mut asking = self.stage.tombolo_command();
        asking.args(line.split_whitespace());
        let asking = asking.stdout(Stdio::null()).stderr(Stdio::null());
        let asking = asking.spawn().expect("the program starts");
        let asked = wait_until(PATIENCE, || self.was_asked(method));
        assert!(asked, "{:?}", self.plugin.methods(&self.stage));
        asking
    }

    /// Makes the plugin misbehave.
    #[track_caller]
    pub(crate) fn misbehave(&self, lines: &str) {
        self.plugin.misbehave(&self.stage, lines);
    }

    /// The names of the host's links.
    #[track_caller]
    pub(crate) fn links(&self) -> String {
        self.shell("ls /sys/class/net | tr '\\n' ' '")
    }

    /// Asserts that neither endpoints, sandboxes nor these links of the plugin's are left, and no drift.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self, links: &str) {
        assert_eq!(self.ok("endpoint ls -q"), "");
        assert_eq!(self.ok("sandbox ls -q"), "");
        assert_eq!(self.links(), links);
        assert_eq!(self.shell("ls /run/tombolo/netns"), "");
        self.assert_in_place();
    }
}

impl Deref for Scene {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }
}
