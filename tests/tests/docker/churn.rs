//! Containers that come and go while engine and daemon are killed, and an audit afterwards.

use std::time::{Duration, Instant};

use tombolo_lab::node::wait_until;

use crate::audit::{ACCOUNT, held, tidied};
use crate::scene::{FLAGS, Scene};

/// How long it goes on.
const LENGTH: Duration = Duration::from_secs(300);

/// Four of these run at once, until the file is there.
const CHURN: &str = r#"
docker="timeout 60 /usr/bin/docker --host unix:///var/run/docker.sock"
n=0
while ! [ -e /run/enough ]; do
    n=$((n + 1)); name=c$1-$n
    case $((n % 4)) in
    0) $docker run --detach --name $name --network web -p $((20000 + $1)):80 box /bin/busybox sleep 1000 ;;
    1) $docker run --detach --name $name --network plain box /bin/busybox sleep 1000; $docker network connect web $name ;;
    2) $docker run --rm --name $name --network web box /bin/busybox true ;;
    3) $docker network create --driver tombolo --ipam-driver tombolo nc$name
       $docker run --detach --name $name --network nc$name box /bin/busybox sleep 1000
       $docker network connect ours $name; $docker network disconnect ours $name
       $docker rm --force $name; $docker network rm nc$name ;;
    esac
    $docker rm --force $name
    sleep 0.1
done >/dev/null 2>&1
"#;

/// A number that looks random and is the same each time.
fn draw(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn five_minutes_of_churn_leave_nothing() {
    let Some(mut scene) = Scene::start() else {
        return;
    };
    scene.ok("network create --subnet 10.251.0.0/24 mine");
    let www = scene.sandbox("www", "--network mine");
    scene.network("web", "");
    scene.docker("network create --driver tombolo plain");
    scene.docker(
        "network create --driver tombolo --ipam-driver tombolo --ipam-opt network=mine ours",
    );
    scene.await_network("plain");
    let before = held(&scene);
    scene.shell(&format!("cat >/run/churn <<'EOF'\n{CHURN}\nEOF"));
    for n in 1..=4 {
        scene.shell(&format!(
            "setsid sh /run/churn {n} >/dev/null 2>&1 </dev/null &"
        ));
    }
    let (begun, mut state, mut kills) = (Instant::now(), 7, [0, 0]);
    while begun.elapsed() < LENGTH {
        std::thread::sleep(Duration::from_millis(3_000 + draw(&mut state) % 9_000));
        if draw(&mut state).is_multiple_of(2) {
            scene.stage.kill().unwrap();
            std::thread::sleep(Duration::from_millis(draw(&mut state) % 1_500));
            scene.stage.start_with(FLAGS, &[]).unwrap();
            kills[0] += 1;
        } else {
            assert!(scene.docker.kill(&scene.stage));
            std::thread::sleep(Duration::from_millis(draw(&mut state) % 1_500));
            scene.docker.again(&scene.stage);
            kills[1] += 1;
        }
        www.assert_reaches(&scene.far_v4());
    }
    assert!(kills[0] > 3 && kills[1] > 3, "{kills:?}");
    scene.shell(": >/run/enough");
    let ended = wait_until(ACCOUNT, || {
        scene.shell("pgrep -f '[/]run/churn' || true").is_empty()
    });
    assert!(ended, "the churn does not end");
    tidied(&scene);
    let accounted = wait_until(ACCOUNT, || held(&scene) == before);
    assert!(accounted, "before: {before}\nnow: {}", held(&scene));
    scene.assert_in_place();
    // It all still works.
    let place = scene.container("after", "web", "-p 20001:80");
    place.assert_reaches(&scene.far_v4());
    scene.stop();
}
