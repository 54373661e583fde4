//! Compose files.

use tombolo_lab::node::skip;

use crate::scene::Scene;

const FILE: &str = r#"
version: "3.5"
services:
  db:
    image: box
    command: /bin/busybox sleep 100000
    container_name: db
    networks: { default: { aliases: [store] } }
  app:
    image: box
    command: /bin/busybox sleep 100000
    container_name: app
    ports: ["8080:80"]
    networks: [default, shared]
networks:
  default:
    driver: tombolo
    ipam: { driver: tombolo, config: [{ subnet: 10.245.0.0/24 }] }
  shared:
    driver: tombolo
    ipam: { driver: tombolo, options: { network: ours } }
"#;

#[test]
fn a_compose_file_names_the_driver_and_no_more() {
    let Some(scene) = Scene::start() else { return };
    let found = scene.run(&["sh", "-c", "command -v docker-compose"]);
    if !found.unwrap().success() {
        skip("no docker-compose: install Debian's docker-compose");
        return;
    }
    scene.ok("network create --subnet 10.246.0.0/24 ours");
    let www = scene.sandbox("www", "--network ours");
    scene.shell(&format!(
        "mkdir -p /run/shop && cat >/run/shop/docker-compose.yml <<'EOF'\n{FILE}\nEOF"
    ));
    let compose = "cd /run/shop && timeout 100 docker-compose --host unix:///var/run/docker.sock";
    scene.shell(&format!("{compose} up --detach 2>&1"));
    let (db, app) = (
        scene.place("db", "shop_default"),
        scene.place("app", "shop_default"),
    );
    app.assert_reaches(&db);
    scene.assert_resolves("app", "store", &db.v4().to_string());
    let shared = scene.place("app", "shop_shared");
    shared.assert_reaches(&www);
    scene.assert_found(&www, "app", &shared.v4().to_string());
    assert!(scene.ok("port app").contains("8080"));
    scene.assert_in_place();
    scene.shell(&format!("{compose} down 2>&1"));
    assert_eq!(scene.stage.network("ours").endpoints.len(), 1);
    let left = scene.ok("network ls");
    assert!(!left.contains("shop"), "{left}");
    scene.assert_in_place();
    scene.stop();
}
