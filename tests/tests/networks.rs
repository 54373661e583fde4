//! What a network can be told: addresses, routes, names, devices, MTU.

use std::net::IpAddr;

use tombolo_lab::node::wait_until;
use tombolo_tests::Stage;
use tombolo_tests::stage::PATIENCE;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn addresses_come_from_the_range_and_never_from_what_others_use() {
    let Some(stage) = Stage::start() else { return };
    stage.ok(
        "network create n --subnet 10.60.0.0/24 --ip-range 10.60.0.128/29 --gateway 10.60.0.254 \
         --aux-address router=10.60.0.129 --subnet fd60::/64 --gateway fd60::99",
    );
    let gateway = stage.shell("ip -o address show to 10.60.0.254/32");
    assert!(gateway.contains("10.60.0.254/24"), "{gateway}");
    let s1 = stage.sandbox("s1", "--network n");
    let s2 = stage.sandbox("s2", "--network n --ip 10.60.0.7 --ip6 fd60::77");
    let s3 = stage.sandbox("s3", "--network n");
    assert_eq!(s2.addresses, [ip("10.60.0.7"), ip("fd60::77")]);
    for place in [&s1, &s3] {
        let IpAddr::V4(v4) = place.v4() else {
            unreachable!()
        };
        assert!(
            (128..136).contains(&v4.octets()[3]) && v4.octets()[3] != 129,
            "{v4}"
        );
    }
    assert_ne!(s1.v4(), s3.v4());
    assert!(s1.ok("ip route show default").contains("via 10.60.0.254"));
    assert!(s1.ok("ip -6 route show default").contains("via fd60::99"));
    s1.assert_reaches(&s2);
    s2.assert_reaches(&stage.far());
}

#[test]
fn a_second_subnet_serves_when_the_first_is_full_and_both_reach_each_other() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --subnet 10.61.0.0/30 --subnet 10.62.0.0/24 --subnet fd61::/126 --subnet fd62::/64");
    let places = ["s1", "s2", "s3", "s4"].map(|name| stage.sandbox(name, "--network n"));
    assert_eq!(places[0].addresses, [ip("10.61.0.2"), ip("fd61::2")]);
    assert_eq!(places[3].v4().to_string()[..8], *"10.62.0.");
    assert!(
        places[3].v6().to_string().starts_with("fd62::"),
        "{:?}",
        places[3]
    );
    places[0].assert_reaches(&places[3]);
    places[3].assert_reaches(&places[0]);
    places[3].assert_reaches(&stage.far());
    stage.here().assert_reaches(&places[3]);
}

#[test]
fn point_to_point_subnets_are_used_whole() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --subnet 10.63.0.0/31 --subnet fd63::/127");
    let place = stage.sandbox("s1", "--network n");
    place.assert_reaches(&stage.far());
    let full = stage.tries("sandbox create --name s2 --network n");
    assert_eq!(full.code, Some(3), "{full:?}");
}

#[test]
fn static_routes_interface_names_and_devices_are_as_told() {
    let Some(stage) = Stage::start() else { return };
    stage.ok(
        "network create n --subnet 10.64.0.0/24 --subnet fd64::/64 --device mine0 \
         --interface-prefix net --route 198.18.0.0/15 --route 2001:db8:77::/48",
    );
    stage.ok(
        "network create o --subnet 10.65.0.0/24 -o com.docker.network.bridge.name=theirs0 \
         -o com.docker.network.container_iface_prefix=doc -o com.docker.network.driver.mtu=1300",
    );
    let place = stage.sandbox(
        "s1",
        "--network n --network o --network name=bridge,ifname=own",
    );
    for (network, device) in [("n", "mine0"), ("o", "theirs0"), ("bridge", "tombolo0")] {
        assert_eq!(stage.network(network).device.as_deref(), Some(device));
        stage.shell(&format!("ip link show dev {device}"));
    }
    let links = place.ok("ip -br link");
    for name in ["net0@", "doc0@", "own@"] {
        assert!(links.contains(name), "no {name} in {links}");
    }
    assert!(place.ok("ip link show dev doc0").contains("mtu 1300"));
    assert!(place.ok("ip route get 198.18.9.9").contains("dev net0"));
    assert!(
        place
            .ok("ip -6 route get 2001:db8:77::9")
            .contains("dev net0")
    );
    stage.assert_in_place();
}

#[test]
fn the_mtu_follows_the_uplink_unless_it_was_told() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create follows --ipv6");
    stage.ok("network create told --mtu 1300");
    let place = stage.sandbox("s1", "--network follows --network told");
    assert!(place.ok("ip link show dev eth0").contains("mtu 1500"));
    assert!(place.ok("ip link show dev eth1").contains("mtu 1300"));
    for mtu in [1420, 1480] {
        stage.shell(&format!("ip link set dev eth0 mtu {mtu}"));
        let text = format!("mtu {mtu} ");
        let followed = wait_until(PATIENCE, || {
            let device = stage.network("follows").device.unwrap();
            place.ok("ip link show dev eth0").contains(&text)
                && stage
                    .shell(&format!("ip link show dev {device}"))
                    .contains(&text)
                && stage.network("follows").mtu == mtu
        });
        assert!(followed, "{mtu}: {}", place.ok("ip link"));
        assert!(place.ok("ip link show dev eth1").contains("mtu 1300"));
        stage.assert_in_place();
    }
    place.assert_reaches(&stage.far());
    // A packet of exactly this size passes unbroken, and one byte more does not.
    let far = stage.far();
    let sized = |bytes: u32| format!("ping -n -c 1 -W 2 -M do -s {bytes} {}", far.v4());
    assert!(place.run(&sized(1480 - 28)).success());
    assert!(!place.run(&sized(1481 - 28)).success());
}

#[test]
fn an_existing_bridge_is_used_and_stays_its_owners() {
    let Some(stage) = Stage::start() else { return };
    stage.shell(
        "ip link add br0 type bridge && ip link set br0 up && ip address add 10.66.0.1/24 dev br0 \
         && ip address add fd66::1/64 dev br0 nodad && ip link add port0 type veth peer name port1 \
         && ip link set port0 master br0 up",
    );
    let look = || {
        stage.shell("ip -d -o link show br0 | sed 's/<[^>]*>\\|state [A-Z]*\\|qdisc [a-z]*\\|\\(gc\\|hello\\|tcn\\|topology_change\\)_timer *[0-9.]*//g'; ip -o address show br0 scope global; bridge link show dev port0")
    };
    // A bridge takes the lowest address of its ports unless it was given one, so that is given.
    stage.shell("ip link set br0 address 02:00:00:00:00:01");
    let (before, traces) = (look(), stage.traces().unwrap());
    stage.ok("network create n --device br0 --subnet 10.66.0.0/24 --subnet fd66::/64");
    let (s1, s2) = (
        stage.sandbox("s1", "--network n"),
        stage.sandbox("s2", "--network n"),
    );
    s1.assert_reaches(&s2);
    s1.assert_reaches(&stage.far());
    assert!(s1.pings(ip("10.66.0.1")) && s1.pings(ip("fd66::1")));
    assert_eq!(look(), before);
    stage.assert_in_place();
    stage.ok("sandbox rm s1 s2");
    stage.ok("network rm n");
    assert_eq!(look(), before);
    stage.assert_traces(&traces);
}

#[test]
fn names_ids_and_starts_of_ids_find_networks_and_lists_tell_them() {
    let Some(stage) = Stage::start() else { return };
    let id = stage.ok("network create web --label tier=front");
    for word in ["web", id.as_str(), &id[..8]] {
        assert_eq!(stage.network(word).id, id, "{word}");
    }
    let listed = stage.ok("network ls");
    for name in ["web", "bridge", "none", "host"] {
        assert!(listed.lines().any(|line| line.contains(name)), "{listed}");
    }
    assert_eq!(stage.network("web").labels["tier"], "front");
    stage.ok("sandbox create --name s --network web");
    let busy = stage.tries("network rm web");
    assert_eq!(busy.code, Some(3), "{busy:?}");
    assert!(
        busy.stderr.contains('s') && busy.stderr.contains("disconnect"),
        "{busy:?}"
    );
    stage.ok("sandbox rm s");
    let pruned = stage.ok("network prune --force");
    assert!(pruned.contains("web"), "{pruned}");
    assert_eq!(stage.tries("network inspect web").code, Some(5));
    stage.network("bridge");
}

#[test]
fn forwarding_is_given_back_with_the_last_network_that_needs_it() {
    let Some(stage) = Stage::start_with(&["-b", "none"]) else {
        return;
    };
    let forwarding =
        || stage.shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding");
    assert_eq!(forwarding(), "0\n0");
    let before = stage.traces().unwrap();
    stage.ok("network create a");
    assert_eq!(forwarding(), "1\n0");
    stage.ok("network create b --ipv6");
    assert_eq!(forwarding(), "1\n1");
    stage.ok("network rm a");
    assert_eq!(forwarding(), "1\n1");
    stage.ok("network rm b");
    let restored = wait_until(PATIENCE, || forwarding() == "0\n0");
    assert!(restored, "{}", forwarding());
    stage.assert_traces(&before);
}
