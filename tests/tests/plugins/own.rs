//! Our own plugin for Docker's engine, hosted by a daemon of ours: by another one, and not by the very one that it is of.

use std::path::Path;

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

/// A daemon that serves its plugin in a directory, and another machine's that looks for plugins there.
fn two(directory: &Path) -> Option<(Stage, Stage)> {
    let socket = directory.join("far.sock").display().to_string();
    let serving = Stage::start_with(&["--docker-plugin", &socket, "--docker-engine", "none"])?;
    let sockets = directory.display().to_string();
    let hosting = Stage::start_with(&["--plugin-sockets", &sockets])?;
    Some((serving, hosting))
}

/// What the daemon says that others hold of it.
fn held(serving: &Stage) -> String {
    let doctor = serving.ok("doctor");
    let line = doctor.lines().find(|line| line.contains("other engines"));
    line.unwrap_or_default().to_owned()
}

#[test]
fn a_network_has_the_addresses_of_another_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let Some((serving, hosting)) = two(directory.path()) else {
        return;
    };
    hosting.ok("network create --ipv6 --ipam-driver far web");
    let (one, two) = (
        hosting.sandbox("one", "--network web"),
        hosting.sandbox("two", "--network web"),
    );
    one.assert_reaches(&two);
    assert!(
        held(&serving).contains("2 pools, 6 addresses"),
        "{}",
        held(&serving)
    );
    hosting.ok("sandbox rm one two");
    hosting.ok("network rm web");
    assert_eq!(held(&serving), "");
    hosting.assert_in_place();
    serving.assert_in_place();
}

#[test]
fn an_interface_on_another_machine_cannot_be_taken_and_everything_is_undone() {
    let directory = tempfile::tempdir().unwrap();
    let Some((serving, hosting)) = two(directory.path()) else {
        return;
    };
    let before = serving.traces().unwrap();
    hosting.ok("network create --driver far --subnet 10.9.0.0/24 web");
    assert!(serving.ok("network ls").contains("10.9.0.0/24"));
    let refused = hosting.tries("sandbox create --name one --network web");
    assert!(!refused.success(), "{refused:?}");
    assert_eq!(
        serving.ok("endpoint ls --quiet"),
        "",
        "it was deleted there, too"
    );
    assert_eq!(hosting.ok("endpoint ls --quiet"), "");
    assert_eq!(hosting.ok("sandbox ls --quiet"), "");
    hosting.ok("network rm web");
    assert!(!serving.ok("network ls").contains("10.9.0.0/24"));
    serving.assert_traces(&before);
    hosting.assert_in_place();
}
