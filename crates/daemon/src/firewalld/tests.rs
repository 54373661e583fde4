//! Against the real firewalld, in a network namespace of its own, on a bus of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::watch;

use super::{Firewalld, Zoning, bus_at};

const BUS_CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC
 "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>
</busconfig>"#;

/// A program that ends with the test.
struct Program(Child);

impl Program {
    fn start(program: &str, arguments: &[&str], bus: &str, log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Host {
    directory: TempDir,
    address: String,
    _bus: Program,
}

impl Host {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let socket = at("bus");
        let text = BUS_CONFIG.replace("SOCKET", socket.to_str().unwrap());
        std::fs::write(at("bus.conf"), text).unwrap();
        let config = format!("--config-file={}", at("bus.conf").display());
        let address = format!("unix:path={}", socket.display());
        let arguments = [&config, "--nofork", "--nopidfile"];
        let bus = Program::start("dbus-daemon", &arguments, &address, &at("bus.log"));
        let begin = Instant::now();
        while !socket.exists() {
            assert!(begin.elapsed() < Duration::from_secs(10), "no bus");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self {
            directory,
            address,
            _bus: bus,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn firewalld(&self) -> Program {
        let config = self.path("etc");
        std::fs::create_dir_all(&config).unwrap();
        let arguments = [
            "--net",
            "firewalld",
            "--nofork",
            "--nopid",
            "--log-target",
            "console",
            "--system-config",
            config.to_str().unwrap(),
        ];
        let log = self.path("firewalld.log");
        Program::start("unshare", &arguments, &self.address, &log)
    }

    /// Runs `firewall-cmd`; whether it succeeded.
    async fn command(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new("firewall-cmd");
        command.args(arguments);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.address);
        let output = tokio::task::spawn_blocking(move || command.output());
        output.await.unwrap().unwrap().status.success()
    }

    async fn is_trusted(&self, bridge: &str) -> bool {
        let interface = format!("--query-interface={bridge}");
        self.command(&["--zone=trusted", &interface]).await
    }
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn trusted(zoning: &Zoning) -> BTreeSet<String> {
    match zoning {
        Zoning::Present { trusted, .. } => trusted.clone(),
        Zoning::Absent => BTreeSet::new(),
    }
}

async fn until(limit: Duration, what: &str, done: impl AsyncFn() -> bool) {
    let begin = Instant::now();
    while !done().await {
        assert!(begin.elapsed() < limit, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn bridges_are_trusted_whenever_firewalld_runs_and_as_long_as_they_are_ours() {
    const START: Duration = Duration::from_secs(20);
    // A second, and as much again for a busy machine.
    const REPAIR: Duration = Duration::from_secs(2);
    let host = Host::start();
    let (bridges, seen) = watch::channel(set(["tb0"]));
    let ours = Firewalld::spawn_at(bus_at(host.address.clone()), seen);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(ours.zoning(), Zoning::Absent, "it does not run yet");

    let firewalld = host.firewalld();
    let all_trusted = async || trusted(&ours.zoning()) == set(["tb0"]);
    until(START, "trusted once it runs", all_trusted).await;
    assert!(host.is_trusted("tb0").await);

    assert!(host.command(&["--reload"]).await);
    until(REPAIR, "trusted after a reload", async || {
        host.is_trusted("tb0").await
    })
    .await;

    assert!(host.command(&["--zone=work", "--add-interface=tb1"]).await);
    bridges.send_replace(set(["tb0", "tb1", "tb2"]));
    until(REPAIR, "another one", async || host.is_trusted("tb2").await).await;
    let Zoning::Present { refused, .. } = ours.zoning() else {
        panic!("it runs");
    };
    assert_eq!(
        refused.keys().collect::<Vec<_>>(),
        ["tb1"],
        "the administrator's choice"
    );
    assert!(!host.is_trusted("tb1").await);

    bridges.send_replace(set(["tb2"]));
    until(REPAIR, "taken out", async || !host.is_trusted("tb0").await).await;
    assert!(host.is_trusted("tb2").await);

    drop(firewalld);
    until(REPAIR, "gone", async || ours.zoning() == Zoning::Absent).await;
    let _again = host.firewalld();
    let again = async || trusted(&ours.zoning()) == set(["tb2"]);
    until(START, "trusted by the next one", again).await;
    assert!(host.is_trusted("tb2").await);
}

#[tokio::test]
async fn a_host_without_a_bus_is_none_the_worse() {
    let (bridges, seen) = watch::channel(set(["tb0"]));
    let ours = Firewalld::spawn_at(bus_at("unix:path=/nonexistent/bus".to_owned()), seen);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ours.zoning(), Zoning::Absent);
    assert!(!bridges.is_closed(), "it still watches");
    drop(bridges);
    let end = async {
        while ours.zoning.has_changed().is_ok() {
            tokio::task::yield_now().await
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(1), end).await;
    assert!(ended.is_ok(), "it ends with its sender");
}

#[test]
fn the_socket_of_an_address_is_found() {
    let socket = |address: &str| bus_at(address.to_owned()).socket;
    let path = |text: &str| Some(PathBuf::from(text));
    assert_eq!(socket("unix:path=/run/bus"), path("/run/bus"));
    assert_eq!(socket("unix:path=/run/bus,guid=1"), path("/run/bus"));
    assert_eq!(socket("unix:path=/a;unix:path=/b"), path("/a"));
    assert_eq!(socket("unix:abstract=x"), None);
}
