//! Two engines on one host, of which neither knows the other.

use std::time::Duration;

use tombolo_lab::node::wait_until;
use tombolo_tests::peers::Dockerd;
use tombolo_tests::stage::PATIENCE;

use crate::scene::{FLAGS, Scene};

/// What no engine has is removed once it was looked for a few times.
const SWEPT: Duration = Duration::from_secs(75);

#[test]
fn two_engines_share_a_network_and_neither_loses_what_only_it_has() {
    let flags = [FLAGS, &["--docker-engine", "/run/second.sock"]].concat();
    let Some(scene) = Scene::start_with(&flags) else {
        return;
    };
    let Some(second) = Dockerd::start_second(&scene.stage) else {
        return;
    };
    let on_second = |line: &str| second.ok(&scene.stage, line);
    let links = || scene.shell("ls /sys/class/net");
    let before = links();
    scene.network("web", "");
    let options = "--ipam-driver tombolo --ipam-opt network=web --opt network=web";
    on_second(&format!("network create --driver tombolo {options} theirs"));
    let db = scene.container("db", "web", "");
    on_second("run --detach --name app --network theirs box /bin/busybox sleep 100000");
    let www = scene.sandbox("www", "--network web");
    assert!(
        wait_until(PATIENCE, || scene.tries("sandbox inspect app").success()),
        "the second engine tells of its container"
    );
    let app = scene.stage.place("app");
    assert_ne!(app.v4(), db.v4());
    app.assert_reaches(&db);
    db.assert_reaches(&app);
    app.assert_reaches(&www);
    scene.assert_resolves("db", "app", &app.v4().to_string());
    // Both have networks of their own, with the same name.
    on_second("network create --driver tombolo --ipam-driver tombolo own");
    scene.docker("network create --driver tombolo --ipam-driver tombolo own");
    scene.docker("network rm own");
    // The first gives the network up; the other has a container on it still.
    scene.docker("rm --force db");
    scene.docker("network rm web");
    let line = "exec app /bin/busybox ping -c 1 -W 5 www";
    assert!(second.tries(&scene.stage, line).success());
    scene.ok("sandbox rm www");
    on_second("rm --force app");
    on_second("network rm theirs own");
    let gone = || !scene.ok("network ls").contains("web");
    assert!(wait_until(SWEPT, gone), "{}", scene.ok("network ls"));
    scene.assert_in_place();
    assert_eq!(links(), before);
    second.stop(&scene.stage);
    scene.stop();
}
