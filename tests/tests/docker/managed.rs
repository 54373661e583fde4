//! Our daemon as a plugin that the engine itself runs.

use tombolo_lab::node::wait_until;
use tombolo_tests::Stage;
use tombolo_tests::peers::Dockerd;
use tombolo_tests::stage::PATIENCE;

#[test]
fn the_engine_runs_us_as_a_managed_plugin() {
    let Some(stage) = Stage::bare() else { return };
    let Some(docker) = Dockerd::start(&stage) else {
        return;
    };
    stage.ok("docker plugin /run/plugin");
    // What this machine does not let anybody have, a plugin cannot have either.
    let bounding = stage.shell("grep CapBnd /proc/self/status | cut -f 2");
    let bounding = u64::from_str_radix(&bounding, 16).unwrap();
    if bounding & (1 << 24) == 0 {
        stage.shell("sed -i '/CAP_SYS_RESOURCE/d' /run/plugin/config.json");
    }
    stage.shell("mkdir -p /var/lib/tombolo /run/tombolo /var/run/docker");
    docker.ok(&stage, "plugin create tombolo /run/plugin");
    docker.ok(&stage, "plugin enable tombolo");
    docker.ok(
        &stage,
        "network create --driver tombolo:latest --ipam-driver tombolo:latest web",
    );
    let place = |name: &str| {
        docker.ok(
            &stage,
            &format!("run --detach --name {name} --network web box /bin/busybox sleep 100000"),
        );
        let mut place = docker.place(&stage, name);
        place.addresses = vec![
            docker
                .ok(
                    &stage,
                    &format!(
                        "inspect --format {{{{.NetworkSettings.Networks.web.IPAddress}}}} {name}"
                    ),
                )
                .parse()
                .unwrap(),
        ];
        place
    };
    let (one, two) = (place("one"), place("two"));
    one.assert_reaches(&two);
    let shown = stage.ok("sandbox ls");
    assert!(
        wait_until(PATIENCE, || stage.ok("sandbox ls").contains("one")),
        "{shown}"
    );
    docker.ok(&stage, "rm --force one two");
    docker.ok(&stage, "network rm web");
    docker.ok(&stage, "plugin disable tombolo");
    docker.ok(&stage, "plugin rm tombolo");
    docker.stop(&stage);
}
