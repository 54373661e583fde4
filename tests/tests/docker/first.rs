//! What the guide promises.

use crate::scene::Scene;

#[test]
fn a_container_and_a_sandbox_talk_by_name() {
    let Some(scene) = Scene::start() else { return };
    scene.network("web", "");
    let container = scene.container("db", "web", "");
    let sandbox = scene.sandbox("www", "--network web");
    container.assert_reaches(&sandbox);
    sandbox.assert_reaches(&container);
    scene.assert_resolves("db", "www", &sandbox.v4().to_string());
    scene.assert_resolves("db", "www.web", &sandbox.v4().to_string());
    scene.assert_found(&sandbox, "db", &container.v4().to_string());
    let short = &scene.docker("inspect --format {{.Id}} db")[..12];
    scene.assert_found(&sandbox, short, &container.v4().to_string());
    scene.assert_in_place();
    scene.docker("rm --force db");
    scene.ok("sandbox rm www");
    scene.docker("network rm web");
    scene.assert_in_place();
    scene.stop();
}

#[test]
fn without_the_engines_api_nothing_is_worse_than_slow_to_be_named() {
    let flags = [
        "--docker-plugin",
        "/run/docker/plugins/tombolo.sock",
        "--docker-engine",
        "none",
    ];
    let Some(scene) = Scene::start_with(&flags) else {
        return;
    };
    let id = scene.docker("network create --driver tombolo --ipam-driver tombolo web");
    let (db, app) = (
        scene.container("db", "web", ""),
        scene.container("app", "web", "--network-alias till"),
    );
    app.assert_reaches(&db);
    // By the engine's own resolver, behind ours.
    scene.assert_resolves("app", "db", &db.v4().to_string());
    scene.assert_resolves("db", "till", &app.v4().to_string());
    let www = scene.sandbox("www", &format!("--network {}", &id[..12]));
    scene.assert_resolves("db", "www", &www.v4().to_string());
    www.assert_reaches(&db);
    let shown = scene.ok("network ls");
    assert!(shown.contains(&format!("docker-{}", &id[..12])), "{shown}");
    scene.docker("rm --force db app");
    scene.ok("sandbox rm www");
    scene.docker("network rm web");
    scene.assert_in_place();
    scene.stop();
}
