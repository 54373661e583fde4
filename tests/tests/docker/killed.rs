//! Our daemon dies in a call, when it has done what was asked and before it says so.

use std::time::Duration;

use tombolo_lab::node::wait_until;

use crate::audit::{ACCOUNT, held, tidied};
use crate::scene::{FLAGS, Scene};

/// A network and a container on it come and go. The call in which the daemon dies fails once, since engines do not send
/// the words of a call again, and what it has left behind may be in the way until it is missed.
const LIFE: &str = r#"
set -e
docker="timeout 100 /usr/bin/docker --host unix:///var/run/docker.sock"
again() {
    n=0
    until $docker "$@"; do n=$((n + 1)); [ $n -lt 50 ]; sleep 2; done
}
rm -f /run/lived
again network create --driver tombolo --ipam-driver tombolo --subnet 10.252.0.0/24 ncx
$docker create --name cx --network ncx --ip 10.252.0.9 -p 8080:80 box /bin/busybox sleep 1000
again start cx
$docker exec cx /bin/busybox ip -o address >/run/inside
$docker network inspect ncx >/run/network
while $docker container inspect cx >/dev/null; do $docker rm --force cx || sleep 1; done
while $docker network inspect ncx >/dev/null; do $docker network rm ncx || sleep 1; done
: >/run/lived
"#;

/// Lets the daemon die in each of these methods, and everything be tried again.
fn die_in(methods: &[&str]) {
    let Some(mut scene) = Scene::start() else {
        return;
    };
    let www = {
        scene.ok("network create mine");
        scene.sandbox("www", "--network mine")
    };
    let before = held(&scene);
    for method in methods {
        scene.stage.stop().unwrap();
        let environment = [("TOMBOLO_CRASH_ANSWERING", *method)];
        scene.stage.start_with(FLAGS, &environment).unwrap();
        scene.shell(&format!("cat >/run/life <<'EOF'\n{LIFE}\nEOF"));
        scene.shell("rm -f /run/lived; setsid sh /run/life >/run/life.log 2>&1 </dev/null &");
        let died = scene.stage.await_end(Duration::from_secs(60)).unwrap();
        assert!(
            died,
            "{method} is never asked: {}",
            scene.shell("cat /run/life.log")
        );
        scene.stage.start_with(FLAGS, &[]).unwrap();
        let lived = wait_until(ACCOUNT, || scene.shell("ls /run").contains("lived"));
        assert!(lived, "{method}: {}", scene.shell("cat /run/life.log"));
        let inside = scene.shell("cat /run/inside");
        assert!(inside.contains("10.252.0.9/32"), "{method}: {inside}");
        let network = scene.shell("cat /run/network");
        assert!(network.contains("\"10.252.0.0/24\""), "{method}: {network}");
        tidied(&scene);
        www.assert_reaches(&scene.far_v4());
        // The same ids do not come again, and what was half done is in nobody's way.
        scene.network("ncx", "--subnet 10.252.0.0/24");
        let place = scene.container("cx", "ncx", "--ip 10.252.0.9 -p 8080:80");
        assert_eq!(place.v4().to_string(), "10.252.0.9");
        place.assert_reaches(&scene.far_v4());
        scene.docker("rm --force cx");
        scene.docker("network rm ncx");
    }
    let accounted = wait_until(ACCOUNT, || held(&scene) == before);
    assert!(accounted, "before: {before}\nnow: {}", held(&scene));
    scene.assert_in_place();
    scene.stop();
}

#[test]
fn five_minutes_at_most_of_dying_while_things_are_made() {
    die_in(&[
        "RequestPool",
        "RequestAddress",
        "CreateNetwork",
        "CreateEndpoint",
        "Join",
        "ProgramExternalConnectivity",
    ]);
}

#[test]
fn five_minutes_at_most_of_dying_while_things_are_removed() {
    die_in(&[
        "RevokeExternalConnectivity",
        "Leave",
        "DeleteEndpoint",
        "ReleaseAddress",
        "ReleasePool",
        "DeleteNetwork",
    ]);
}
