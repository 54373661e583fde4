//! Our own plugin for Docker's engine, hosted by the very daemon that it is of.

use tombolo_tests::Stage;

/// Where engines look for a plugin of this name.
const SOCKET: &str = "/run/docker/plugins/tombolo.sock";

/// Where files say where plugins are, in a directory that only the node sees.
const FILES: &str = "/run/plugin-files";

/// A daemon has one address space, in which no two networks overlap: also not the one that it would host and the one that
/// it would make for that.
#[test]
fn a_daemon_that_is_to_host_itself_refuses_and_keeps_nothing() {
    let Some(stage) = Stage::start_with(&["--docker-plugin", SOCKET, "--plugin-files", FILES])
    else {
        return;
    };
    stage.shell(&format!(
        "mkdir -p {FILES} && echo unix://{SOCKET} >{FILES}/alias.spec"
    ));
    let create = "network create --subnet 10.9.0.0/24";
    for drivers in [
        "--driver tombolo",
        "--driver alias",
        "--ipam-driver tombolo",
    ] {
        let line = format!("{create} {drivers} far");
        stage.assert_refused(&line, 2, &["is the daemon itself"]);
    }
    assert!(!stage.ok("network ls").contains("far"));
    stage.ok(&format!("{create} near"));
    stage.sandbox("a", "--network near");
    stage.assert_in_place();
}
