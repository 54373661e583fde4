//! Somebody takes away what the kernel was given, while the daemon runs and while it does not.

use tombolo_api::{NetnsChoice, NetworkAttachment, SandboxCreate};
use tombolo_lab::node::wait_until;
use tombolo_tests::Stage;

use crate::scene::{PATIENCE, addresses, assert_in_touch, runs, scene, start};

/// Whether the daemon runs when the fault happens.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Daemon {
    Up,
    Down,
}

/// Lets a fault happen, and waits until everything is as before.
fn mended_after(fault: impl Fn(&Stage) -> String) {
    let Some(mut stage) = scene() else { return };
    let known = addresses(&stage);
    for daemon in [Daemon::Up, Daemon::Down] {
        let before = stage.traces().unwrap();
        let script = fault(&stage);
        if daemon == Daemon::Down {
            stage.kill().unwrap();
        }
        stage.shell(&script);
        if daemon == Daemon::Down {
            assert!(
                stage.traces().unwrap() != before,
                "`{script}` changed nothing"
            );
            start(&mut stage, &[]);
        }
        let same = wait_until(PATIENCE, || stage.traces().unwrap() == before);
        let now = stage.traces().unwrap();
        let more: Vec<_> = now.difference(&before).collect();
        let less: Vec<_> = before.difference(&now).collect();
        assert!(
            same,
            "{daemon:?}, after `{script}`: also {more:#?}, no {less:#?}"
        );
        stage.assert_in_place();
        assert_eq!(addresses(&stage), known);
        assert_in_touch(&stage, "p", "q");
        assert!(
            stage.place("p").pings(stage.far().v4()),
            "{daemon:?}: the outside is out of reach"
        );
    }
}

fn host_interface(stage: &Stage, sandbox: &str) -> String {
    stage.inspect(sandbox).endpoints[0]
        .host_interface
        .clone()
        .expect("a veth")
}

fn device(stage: &Stage, network: &str) -> String {
    stage.network(network).device.expect("a bridge")
}

#[test]
fn a_flushed_ruleset() {
    mended_after(|_| "nft flush ruleset".to_owned());
}

#[test]
fn a_deleted_veth() {
    mended_after(|stage| format!("ip link del dev {}", host_interface(stage, "p")));
}

#[test]
fn a_deleted_bridge() {
    mended_after(|stage| format!("ip link del dev {}", device(stage, "one")));
}

#[test]
fn a_vanished_namespace() {
    mended_after(|stage| {
        let path = stage.inspect("q").netns.expect("it runs");
        format!("umount {path} && rm {path}")
    });
}

#[test]
fn everything_at_once() {
    mended_after(|stage| {
        let path = stage.inspect("p").netns.expect("it runs");
        let (one, two) = (device(stage, "one"), device(stage, "two"));
        format!(
            "nft flush ruleset; ip link del dev {one}; umount {path}; rm {path}; ip link set dev {two} down"
        )
    });
}

#[test]
fn a_deleted_uplink_of_a_leaf_bridge() {
    let Some(mut stage) = scene() else { return };
    let mut client = stage.client();
    for n in 0..34 {
        crate::scene::make_sandbox(&mut client, &format!("s{n}"), &["one"]).unwrap();
    }
    let device = device(&stage, "one");
    // The only ports of the network's own bridge that are not endpoints' lead to its leaves.
    let leaf = host_interface(&stage, "s33");
    let script = format!(
        "leaf=$(basename $(readlink /sys/class/net/{leaf}/master)); [ $leaf != {device} ] || exit 1
         for port in $(ls /sys/class/net/$leaf/brif); do
             peer=$(cat /sys/class/net/$port/iflink)
             for up in $(ls /sys/class/net/{device}/brif); do
                 if [ $(cat /sys/class/net/$up/ifindex) = $peer ]; then ip link del dev $up; exit 0; fi
             done
         done; exit 1"
    );
    for daemon in [Daemon::Up, Daemon::Down] {
        let before = stage.traces().unwrap();
        if daemon == Daemon::Down {
            stage.kill().unwrap();
        }
        stage.shell(&script);
        if daemon == Daemon::Down {
            start(&mut stage, &[]);
        }
        let same = wait_until(PATIENCE, || stage.traces().unwrap() == before);
        assert!(
            same,
            "{daemon:?}: the leaf's uplink is not mended: {:#?}",
            stage.drift()
        );
        stage.assert_in_place();
        assert_in_touch(&stage, "p", "s33");
        assert_in_touch(&stage, "s32", "s33");
        let far = stage.far();
        let seen = stage.place("s33").tcp(&far, far.v4());
        assert_eq!(
            seen,
            Some(stage.here().v4()),
            "a leaf's endpoint and the outside"
        );
    }
}

#[test]
fn the_process_of_an_adopted_namespace_ends() {
    for daemon in [Daemon::Up, Daemon::Down] {
        let Some(mut stage) = scene() else { return };
        let before = stage.traces().unwrap();
        let pid = stage.shell("unshare --net sleep 1000 >/dev/null 2>&1 & echo $!");
        let pid: u32 = pid.parse().unwrap();
        let own = stage.shell("readlink /proc/self/ns/net");
        let there = || stage.shell(&format!("readlink /proc/{pid}/ns/net || true"));
        assert!(wait_until(
            PATIENCE,
            || !matches!(there().as_str(), text if text.is_empty() || text == own)
        ));
        let create = SandboxCreate {
            name: Some("guest".to_owned()),
            netns: NetnsChoice::Pid { pid },
            networks: vec![NetworkAttachment {
                network: "one".to_owned(),
                ..Default::default()
            }],
            ..SandboxCreate::default()
        };
        stage.client().sandbox_create(create).unwrap();
        assert_in_touch(&stage, "p", "guest");
        let known = addresses(&stage);
        if daemon == Daemon::Down {
            stage.kill().unwrap();
        }
        stage.shell(&format!("kill -9 {pid}"));
        if daemon == Daemon::Down {
            start(&mut stage, &[]);
        }
        let stopped = wait_until(PATIENCE, || !runs(&stage, "guest"));
        assert!(stopped, "{daemon:?}: a sandbox without a namespace runs");
        assert_eq!(
            addresses(&stage),
            known,
            "a stopped sandbox keeps its addresses"
        );
        stage.assert_in_place();
        assert_in_touch(&stage, "p", "q");
        stage.client().sandbox_delete("guest", false).unwrap();
        stage.assert_traces(&before);
    }
}
