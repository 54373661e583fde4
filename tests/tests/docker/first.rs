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
