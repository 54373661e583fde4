//! Networks that the engine makes, and ours that it uses.

use std::time::Duration;

use tombolo_lab::node::wait_until;
use tombolo_tests::peers::CLIENT;
use tombolo_tests::stage::PATIENCE;

use crate::scene::Scene;

/// Asserts that `docker` refuses a line, and that the message has these words.
#[track_caller]
fn assert_refused(scene: &Scene, line: &str, words: &[&str]) {
    let outcome = scene.docker_tries(line);
    assert!(!outcome.success(), "`{line}` is taken");
    for word in words {
        assert!(outcome.stderr.contains(word), "no {word}: {outcome:?}");
    }
}

#[test]
fn options_mean_what_they_mean_to_docker() {
    let Some(scene) = Scene::start() else { return };
    let net = "network create --driver tombolo --ipam-driver tombolo";
    scene.network(
        "shop",
        "--opt com.docker.network.driver.mtu=1400 --opt com.docker.network.container_iface_prefix=net \
         --opt com.docker.network.bridge.name=br-a --subnet 10.240.0.0/24 --gateway 10.240.0.254 \
         --ip-range 10.240.0.128/25 --aux-address printer=10.240.0.129",
    );
    let place = scene.container("one", "shop", "");
    assert_eq!(place.v4().to_string(), "10.240.0.128", "the range's first");
    let two = scene.container("two", "shop", "");
    assert_eq!(
        two.v4().to_string(),
        "10.240.0.130",
        "the printer's is kept"
    );
    let links = scene.inside("one", "ip link show net0");
    assert!(links.contains("mtu 1400"), "{links}");
    let routes = scene.inside("one", "ip route");
    assert!(
        routes.contains("default via 10.240.0.254 dev net0"),
        "{routes}"
    );
    scene.shell("ip link show br-a");
    let network = scene.stage.network("shop");
    assert_eq!(network.mtu, 1400);
    assert_refused(&scene, &format!("{net} --opt colour=red b"), &["colour"]);
    assert_refused(
        &scene,
        &format!("{net} --opt driver=overlay b"),
        &["overlay"],
    );
    assert_refused(
        &scene,
        &format!("{net} --ipam-opt colour=red b"),
        &["colour"],
    );
    assert_refused(
        &scene,
        &format!("{net} --subnet 10.240.0.0/25 b"),
        &["10.240.0.0"],
    );
    scene.docker("rm --force one two");
    scene.assert_refused("network rm shop", 3, &["docker network rm"]);
    scene.docker("network rm shop");
    let gone = scene.tries("network inspect shop");
    assert!(!gone.success(), "{gone:?}");
    scene.stop();
}

#[test]
fn an_internal_network_and_one_with_both_families() {
    let Some(scene) = Scene::start() else { return };
    scene.network("inner", "--internal");
    let (a, b) = (
        scene.container("aa", "inner", ""),
        scene.container("bb", "inner", ""),
    );
    a.assert_reaches(&b);
    a.assert_cut_off(&scene.far_v4());
    let routes = scene.inside("aa", "ip route");
    assert!(!routes.contains("default"), "{routes}");
    let links = scene.inside("aa", "ip -o link");
    assert!(
        !links.contains("eth1"),
        "no other way out is added: {links}"
    );
    scene.network("both", "--ipv6 --subnet fd52::/64");
    let (c, d) = (
        scene.container("cc", "both", "--ip6 fd52::77"),
        scene.sandbox("dd", "--network both"),
    );
    assert_eq!(c.addresses.len(), 2, "{:?}", c.addresses);
    assert_eq!(c.v6().to_string(), "fd52::77");
    c.assert_reaches(&d);
    d.assert_reaches(&c);
    c.assert_reaches(&scene.far());
    scene.assert_resolves("cc", "dd", &d.v6().to_string());
    scene.assert_found(&d, "cc AAAA", &c.v6().to_string());
    scene.docker("rm --force aa bb cc");
    scene.ok("sandbox rm dd");
    scene.docker("network rm inner both");
    scene.assert_in_place();
    scene.stop();
}

#[test]
fn docker_allocates_addresses_itself_unless_told() {
    let Some(scene) = Scene::start() else { return };
    scene.docker("network create --driver tombolo plain");
    scene.await_network("plain");
    let container = scene.container("db", "plain", "");
    let sandbox = scene.sandbox("www", "--network plain");
    container.assert_reaches(&sandbox);
    sandbox.assert_reaches(&container);
    let other = scene.container("other", "plain", "");
    other.assert_reaches(&container);
    // Neither takes what the other has.
    let taken = sandbox.v4();
    let refused = scene.docker_tries(&format!(
        "run --name x --network plain --ip {taken} box /bin/busybox true"
    ));
    assert!(!refused.success(), "{refused:?}");
    scene.docker("rm --force x");
    let wrong = scene.docker_tries("network create --driver tombolo --opt network=plain more");
    assert!(wrong.stderr.contains("--ipam-driver tombolo"), "{wrong:?}");
    let hub = scene.docker_tries("network create --driver tombolo --opt multicast=false more");
    assert!(hub.stderr.contains("--ipam-driver tombolo"), "{hub:?}");
    scene.docker("rm --force db other");
    // The engine goes on whatever we say; the network stays for as long as somebody of ours is on it.
    scene.docker("network rm plain");
    sandbox.assert_reaches(&scene.far_v4());
    scene.ok("sandbox rm www");
    let gone = wait_until(Duration::from_secs(90), || {
        !scene.tries("network inspect plain").success()
    });
    assert!(gone, "{:?}", scene.tries("network ls"));
    scene.assert_in_place();
    scene.stop();
}

#[test]
fn a_network_of_ours_is_used_by_several_of_the_engine() {
    let Some(scene) = Scene::start() else { return };
    scene.ok("network create --ipv6 --subnet 10.250.0.0/24 --subnet fd50::/64 ours");
    let sandbox = scene.sandbox("www", "--network ours");
    for (name, more) in [
        ("one", "--opt network=ours"),
        ("two", "--subnet 10.250.0.0/24"),
    ] {
        scene.docker(&format!(
            "network create --driver tombolo --ipam-driver tombolo --ipam-opt network=ours --ipv6 {more} {name}"
        ));
    }
    let a = scene.container("aa", "one", "");
    let b = scene.container("bb", "two", "--ip 10.250.0.77");
    assert_eq!(b.v4().to_string(), "10.250.0.77");
    a.assert_reaches(&b);
    a.assert_reaches(&sandbox);
    sandbox.assert_reaches(&b);
    scene.assert_resolves("aa", "www", &sandbox.v4().to_string());
    scene.assert_resolves("aa", "bb", &b.v4().to_string());
    scene.assert_found(&sandbox, "bb", &b.v4().to_string());
    assert_refused(
        &scene,
        "network create --driver tombolo --ipam-driver tombolo --ipam-opt network=none x",
        &["none"],
    );
    assert_refused(
        &scene,
        "network create --driver tombolo --ipam-driver tombolo --ipam-opt network=nosuch x",
        &["nosuch"],
    );
    scene.docker("rm --force aa bb");
    scene.docker("network rm one");
    scene.docker("network rm two");
    assert_eq!(scene.stage.network("ours").name, "ours", "it stays");
    let calm = wait_until(PATIENCE, || {
        scene.stage.network("ours").endpoints.len() == 1
    });
    assert!(calm, "{:?}", scene.stage.network("ours"));
    scene.assert_in_place();
    scene.stop();
}

#[test]
fn addresses_of_ours_serve_dockers_own_bridge() {
    let Some(scene) = Scene::start() else { return };
    scene.docker("network create --ipam-driver tombolo theirs");
    let (one, two) = (
        scene.container("one", "theirs", ""),
        scene.container("two", "theirs", ""),
    );
    one.assert_reaches(&two);
    let words = [
        "timeout",
        "30",
        CLIENT,
        "network",
        "inspect",
        "--format",
        "{{(index .IPAM.Config 0).Subnet}}",
        "theirs",
    ];
    let pool = scene.run(&words).unwrap().stdout.trim().to_owned();
    assert!(pool.starts_with("172.18."), "of our default pools: {pool}");
    let ours = scene.ok("network create other");
    assert!(!scene.ok(&format!("network inspect {ours}")).contains(&pool));
    scene.docker("rm --force one two");
    scene.docker("network rm theirs");
    let doctor = scene.ok("doctor");
    assert!(!doctor.contains("other engines hold"), "{doctor}");
    scene.stop();
}
