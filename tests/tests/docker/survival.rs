//! Engine and daemon that end, are killed and start again, in any order.

use std::time::{Duration, Instant};

use tombolo_lab::node::wait_until;
use tombolo_tests::stage::PATIENCE;

use crate::scene::{FLAGS, Scene};

#[test]
fn containers_do_not_notice_the_end_of_our_daemon() {
    let Some(mut scene) = Scene::start() else {
        return;
    };
    scene.network("web", "");
    let db = scene.container("db", "web", "-p 8080:80");
    let www = scene.sandbox("www", "--network web");
    for kill in [false, true] {
        if kill {
            scene.stage.kill().unwrap();
        } else {
            scene.stage.stop().unwrap();
        }
        db.assert_reaches(&www);
        scene.stage.start_with(FLAGS, &[]).unwrap();
        db.assert_reaches(&www);
        scene.assert_resolves("db", "www", &www.v4().to_string());
        scene.assert_found(&www, "db", &db.v4().to_string());
        scene.assert_in_place();
        assert!(scene.ok("port db").contains("8080"));
    }
    // What ends while we are away is cleared away afterwards.
    scene.stage.kill().unwrap();
    scene.docker_tries("rm --force db");
    scene.stage.start_with(FLAGS, &[]).unwrap();
    let removed = wait_until(Duration::from_secs(60), || {
        scene.docker("ps --all --quiet").is_empty()
    });
    assert!(removed);
    let gone = wait_until(Duration::from_secs(60), || {
        scene.stage.network("web").endpoints.len() == 1
    });
    assert!(gone, "{:?}", scene.stage.network("web"));
    scene.assert_in_place();
    scene.stop();
}

#[test]
fn an_engine_that_starts_again_finds_its_networks() {
    let Some(scene) = Scene::start() else { return };
    scene.network("web", "");
    scene.container("db", "web", "--restart always -p 8080:80");
    let www = scene.sandbox("www", "--network web");
    scene.docker.restart(&scene.stage);
    let runs = wait_until(Duration::from_secs(60), || {
        let told = scene.docker_tries("inspect --format {{.State.Running}} db");
        told.stdout.trim() == "true"
    });
    assert!(runs);
    let db = scene.place("db", "web");
    db.assert_reaches(&www);
    scene.assert_found(&www, "db", &db.v4().to_string());
    let one = wait_until(PATIENCE, || scene.stage.network("web").endpoints.len() == 2);
    assert!(one, "{:?}", scene.stage.network("web"));
    assert!(scene.docker.kill(&scene.stage));
    www.assert_reaches(&scene.far_v4());
    scene.docker.again(&scene.stage);
    let runs = wait_until(Duration::from_secs(60), || {
        let told = scene.docker_tries("inspect --format {{.State.Running}} db");
        told.stdout.trim() == "true"
    });
    assert!(runs);
    let db = scene.place("db", "web");
    db.assert_reaches(&www);
    let one = wait_until(Duration::from_secs(90), || {
        scene.stage.network("web").endpoints.len() == 2
    });
    assert!(one, "{:?}", scene.stage.network("web"));
    scene.docker("rm --force db");
    scene.docker("network rm web");
    scene.stop();
}

#[test]
fn an_engine_starts_while_we_are_away() {
    let Some(mut scene) = Scene::start() else {
        return;
    };
    scene.network("web", "");
    scene.container("db", "web", "");
    scene.docker.pause(&scene.stage);
    scene.stage.stop().unwrap();
    let begun = Instant::now();
    scene.docker.again(&scene.stage);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(35), "{took:?}");
    scene.stage.start_with(FLAGS, &[]).unwrap();
    scene.docker("start db");
    scene.place("db", "web").assert_reaches(&scene.far_v4());
    scene.docker("rm --force db");
    let none = wait_until(Duration::from_secs(90), || {
        scene.stage.network("web").endpoints.is_empty()
    });
    assert!(none, "{:?}", scene.stage.network("web"));
    scene.docker("network rm web");
    scene.assert_in_place();
    scene.stop();
}

#[test]
fn fifty_containers_start_together() {
    let Some(scene) = Scene::start() else { return };
    scene.network("web", "");
    scene.shell(
        "for n in $(seq 50); do /usr/bin/docker --host unix:///var/run/docker.sock run --detach --name c$n --network web \
         -p $((10000+n)):80 box /bin/busybox sleep 100000 >/dev/null 2>>/run/errors & done; wait; ! [ -s /run/errors ] \
         || { cat /run/errors; false; }",
    );
    let network = scene.stage.network("web");
    assert_eq!(network.endpoints.len(), 50);
    let (first, last) = (scene.place("c1", "web"), scene.place("c50", "web"));
    first.assert_reaches(&last);
    scene.assert_in_place();
    scene.shell(
        "/usr/bin/docker --host unix:///var/run/docker.sock rm --force $(seq -f c%g 50) >/dev/null",
    );
    assert!(scene.stage.network("web").endpoints.is_empty());
    scene.docker("network rm web");
    scene.assert_in_place();
    scene.stop();
}

#[test]
fn an_engine_that_lets_containers_live_finds_them_again() {
    let Some(mut scene) = Scene::start() else {
        return;
    };
    scene.shell("echo '{\"live-restore\": true}' >/run/docker.json");
    scene.docker.restart(&scene.stage);
    scene.network("web", "");
    let db = scene.container("db", "web", "-p 8080:80");
    let www = scene.sandbox("www", "--network web");
    // It lives on while others come and go, and both of us are killed.
    for number in 0..3 {
        assert!(scene.docker.kill(&scene.stage));
        db.assert_reaches(&www);
        scene.assert_found(&www, "db", &db.v4().to_string());
        scene.docker.again(&scene.stage);
        let name = format!("other{number}");
        let other = scene.container(&name, "web", "");
        other.assert_reaches(&db);
        scene.stage.kill().unwrap();
        db.assert_reaches(&www);
        scene.stage.start_with(FLAGS, &[]).unwrap();
        scene.docker(&format!("rm --force {name}"));
        db.assert_reaches(&www);
    }
    assert_eq!(
        scene.docker("inspect --format {{.State.Running}} db"),
        "true"
    );
    let again = scene.place("db", "web");
    assert_eq!(again.addresses, db.addresses);
    again.assert_reaches(&www);
    scene.assert_resolves("db", "www", &www.v4().to_string());
    scene.docker("rm --force db");
    let gone = wait_until(Duration::from_secs(90), || {
        scene.stage.network("web").endpoints.len() == 1
    });
    assert!(gone, "{:?}", scene.stage.network("web"));
    scene.assert_in_place();
    scene.stop();
}
