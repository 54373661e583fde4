//! The real firewalld, with a system bus of its own.

use std::time::Duration;

use tombolo_lab::node::wait_until;

use super::{Log, is_missing};
use crate::stage::Stage;

/// Longest time for firewalld to answer or to end.
const LONG: Duration = Duration::from_secs(40);
/// A bus on which everybody may do everything; nobody but root reaches the node.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/var/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true"/>
    <allow receive_type="method_call"/>
    <allow receive_type="signal"/>
    <allow receive_requested_reply="true"/>
  </policy>
</busconfig>
"#;

/// A running firewalld with a copy of the machine's configuration, on the bus where the node's programs look
/// for it. It ends with the node.
#[derive(Debug)]
pub struct Firewalld {
    log: Log,
}

impl Firewalld {
    /// A firewalld that answers; none, after the test was declared skipped, where there cannot be one.
    #[track_caller]
    pub fn start(stage: &Stage) -> Option<Self> {
        let programs = [
            ("firewalld", "firewalld"),
            ("firewall-cmd", "firewalld"),
            ("dbus-daemon", "dbus-daemon"),
            ("nft", "nftables"),
        ];
        if is_missing(stage, &programs) {
            return None;
        }
        std::fs::write(stage.path("/run/bus.conf"), BUS).expect("the node's files are ours");
        stage.shell(
            "mkdir -p /run/dbus /run/firewalld-etc && cp -a /etc/firewalld/. /run/firewalld-etc \
             && mount --bind /run/firewalld-etc /etc/firewalld
             setsid dbus-daemon --config-file=/run/bus.conf --nofork --nopidfile \
                 >>/run/firewalld.log 2>&1 </dev/null &
             echo $! >/run/bus.pid",
        );
        let bus = stage.path("/run/dbus/system_bus_socket");
        assert!(wait_until(LONG, || bus.exists()), "no system bus");
        let firewalld = Self {
            log: Log(stage.path("/run/firewalld.log")),
        };
        firewalld.launch(stage);
        Some(firewalld)
    }

    /// What `firewall-cmd` prints when given these words, which must succeed.
    #[track_caller]
    pub fn ok(&self, stage: &Stage, line: &str) -> String {
        let words = ["timeout", "30", "firewall-cmd"]
            .into_iter()
            .chain(line.split_whitespace());
        let words: Vec<&str> = words.collect();
        let outcome = stage.run(&words).expect("nsenter(1) starts");
        assert!(outcome.success(), "firewall-cmd {line}: {outcome:?}");
        outcome.stdout.trim_end().to_owned()
    }

    /// Ends firewalld, which takes its rules along; the bus stays.
    #[track_caller]
    pub fn stop(&self, stage: &Stage) {
        stage.shell("kill \"$(cat /run/firewalld.pid)\"");
        let gone = "! kill -0 \"$(cat /run/firewalld.pid)\" 2>/dev/null";
        let ended = wait_until(LONG, || {
            stage
                .run(&["sh", "-c", gone])
                .is_ok_and(|outcome| outcome.success())
        });
        assert!(ended, "firewalld does not end:\n{}", self.log.tail());
    }

    /// Starts firewalld, after it was stopped.
    #[track_caller]
    pub fn launch(&self, stage: &Stage) {
        stage.shell(
            "setsid firewalld --nofork --nopid --log-file /run/firewalld.log \
                 >>/run/firewalld.log 2>&1 </dev/null &
             echo $! >/run/firewalld.pid",
        );
        let answers = wait_until(LONG, || {
            stage
                .run(&["timeout", "10", "firewall-cmd", "--state"])
                .is_ok_and(|outcome| outcome.success())
        });
        assert!(answers, "firewalld does not answer:\n{}", self.log.tail());
    }
}
