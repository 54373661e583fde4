//! Containers: their addresses, names and networks while they run.

use std::net::IpAddr;

use tombolo_lab::node::wait_until;
use tombolo_tests::stage::PATIENCE;

use crate::scene::Scene;

#[test]
fn addresses_and_names_that_are_asked_for() {
    let Some(scene) = Scene::start() else { return };
    scene.network("web", "--ipv6 --subnet 10.241.0.0/24 --subnet fd41::/64");
    let named = scene.container(
        "named",
        "web",
        "--ip 10.241.0.50 --ip6 fd41::50 --mac-address 02:42:00:00:00:50 --network-alias store \
         --network-alias shop --hostname till",
    );
    let expected: [IpAddr; 2] = ["10.241.0.50".parse().unwrap(), "fd41::50".parse().unwrap()];
    assert_eq!(named.addresses, expected);
    let link = scene.inside("named", "ip link show eth0");
    assert!(link.contains("02:42:00:00:00:50"), "{link}");
    let www = scene.sandbox("www", "--network web");
    for name in ["named", "store", "shop", "till", "named.web"] {
        scene.assert_found(&www, name, "10.241.0.50");
    }
    www.assert_reaches(&named);
    let twice =
        scene.docker_tries("run --name twice --network web --ip 10.241.0.50 box /bin/busybox true");
    assert!(twice.stderr.contains("10.241.0.50"), "{twice:?}");
    scene.docker("rm --force twice");
    scene.docker("rename named renamed");
    scene.assert_found(&www, "renamed", "10.241.0.50");
    let shared =
        scene.docker_tries("run --rm --network container:renamed box /bin/busybox ip -o addr");
    assert!(shared.stdout.contains("10.241.0.50"), "{shared:?}");
    scene.assert_refused("sandbox rm renamed", 3, &["docker"]);
    scene.docker("rm --force renamed");
    let again = scene.container("again", "web", "--ip 10.241.0.50");
    www.assert_reaches(&tombolo_tests::Place {
        addresses: vec!["10.241.0.50".parse().unwrap()],
        ..again
    });
    scene.stop();
}

#[test]
fn networks_come_and_go_while_a_container_runs() {
    let Some(scene) = Scene::start() else { return };
    scene.network("front", "");
    scene.network("back", "");
    scene.container("app", "front", "");
    let db = scene.sandbox("db", "--network back");
    scene.docker("network connect --alias backend back app");
    let inside = scene.place("app", "back");
    inside.assert_reaches(&db);
    db.assert_reaches(&inside);
    scene.assert_resolves("app", "db", &db.v4().to_string());
    scene.assert_found(&db, "backend", &inside.v4().to_string());
    scene.docker("network disconnect back app");
    let gone = wait_until(PATIENCE, || {
        scene.stage.network("back").endpoints.len() == 1
    });
    assert!(gone, "{:?}", scene.stage.network("back"));
    scene.place("app", "front").assert_reaches(&scene.far_v4());
    // Docker's own network beside ours.
    scene.docker("network connect bridge app");
    scene.place("app", "front").assert_reaches(&scene.far_v4());
    scene.docker("stop --time 1 app");
    scene.docker("start app");
    scene.place("app", "front").assert_reaches(&scene.far_v4());
    scene.docker("restart --time 1 app");
    let place = scene.place("app", "front");
    place.assert_reaches(&scene.far_v4());
    scene.docker("rm --force app");
    scene.assert_in_place();
    scene.stop();
}

#[test]
fn links_open_what_a_network_keeps_apart() {
    let Some(scene) = Scene::start() else { return };
    scene.network("apart", "--opt com.docker.network.bridge.enable_icc=false");
    let db = scene.container("db", "apart", "--expose 5432");
    let stranger = scene.container("stranger", "apart", "");
    stranger.assert_cut_off(&db);
    scene.docker(
        "run --detach --name app --network apart --link db:store box /bin/busybox sleep 100000",
    );
    scene.docker("exec --detach db /bin/busybox nc -ll -p 5432 -e /bin/busybox echo hello");
    let talks = |from: &str| {
        let line = format!("exec {from} /bin/busybox nc -w 2 {} 5432", db.v4());
        scene.docker_tries(&line).stdout.contains("hello")
    };
    assert!(wait_until(PATIENCE, || talks("app")));
    assert!(!talks("stranger"));
    scene.assert_resolves("app", "store", &db.v4().to_string());
    scene.stop();
}
