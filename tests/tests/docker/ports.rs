//! Published ports of containers.

use std::net::SocketAddr;

use tombolo_lab::node::{NODE_V4, wait_until};
use tombolo_tests::Place;
use tombolo_tests::stage::PATIENCE;

use crate::scene::Scene;

/// A container whose port 80 says hello.
#[track_caller]
fn web(scene: &Scene, name: &str, flags: &str) {
    scene.container(name, "web", flags);
    scene.docker(&format!(
        "exec --detach {name} /bin/busybox nc -ll -p 80 -e /bin/busybox echo hello"
    ));
}

/// Whether somebody says hello at a port of the node.
fn answers(from: &Place, port: u16) -> bool {
    let address: SocketAddr = format!("{NODE_V4}:{port}").parse().unwrap();
    from.inside(move || {
        use std::io::Read;
        let Ok(mut stream) =
            std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(1))
        else {
            return false;
        };
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(2)))
            .unwrap();
        let mut word = String::new();
        drop(stream.read_to_string(&mut word));
        word.contains("hello")
    })
}

#[track_caller]
fn assert_answers(from: &Place, port: u16) {
    assert!(wait_until(PATIENCE, || answers(from, port)), "port {port}");
}

#[test]
fn ports_are_published_in_every_form() {
    let Some(scene) = Scene::start() else { return };
    scene.network("web", "");
    let far = scene.far();
    web(
        &scene,
        "one",
        "-p 8080:80 -p 127.0.0.1:8081:80 -p 9000-9002:80-82",
    );
    assert_answers(&far, 8080);
    assert_answers(&scene.here(), 8080);
    assert_answers(&far, 9000);
    assert!(!answers(&far, 8081), "it is the loopback's alone");
    let told = scene.ok("port one");
    assert!(
        told.contains("8080") && told.contains("9000-9002"),
        "{told}"
    );
    // The same port again is refused, and leaves nothing.
    let taken = scene.docker_tries(
        "run --detach --name two --network web -p 8080:80 box /bin/busybox sleep 1000",
    );
    assert!(taken.stderr.contains("8080"), "{taken:?}");
    scene.docker("rm --force two");
    scene.assert_in_place();
    assert_eq!(scene.stage.network("web").endpoints.len(), 1);
    // A free one out of a range, and any.
    web(&scene, "three", "-p 8080-8090:80");
    web(&scene, "four", "--expose 80 -P");
    for name in ["three", "four"] {
        let told = scene.ok(&format!("port {name}"));
        let port = told.split_whitespace().find_map(|word| {
            let (_, port) = word.rsplit_once(':')?;
            port.parse::<u16>().ok()
        });
        let port = port.unwrap_or_else(|| panic!("{told}"));
        assert_answers(&far, port);
    }
    scene.docker("rm --force one");
    let closed = wait_until(PATIENCE, || !answers(&far, 8080));
    assert!(closed, "the port goes with its container");
    web(&scene, "again", "-p 8080:80");
    assert_answers(&far, 8080);
    scene.stop();
}

#[test]
fn ports_move_with_the_way_out() {
    let Some(scene) = Scene::start() else { return };
    scene.network("web", "");
    scene.network("aaa", "");
    web(&scene, "app", "-p 8080:80");
    let far = scene.far();
    assert_answers(&far, 8080);
    scene.docker("network connect aaa app");
    assert_answers(&far, 8080);
    scene.docker("network disconnect web app");
    assert_answers(&far, 8080);
    scene.docker("network connect web app");
    scene.docker("network disconnect aaa app");
    assert_answers(&far, 8080);
    scene.assert_in_place();
    scene.stop();
}
