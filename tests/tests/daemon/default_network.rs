//! The network `bridge`, which the daemon makes by itself, and the settings that shape it.

use tombolo_tests::Stage;

#[test]
fn the_usual_settings_make_tombolo0() {
    let Some(stage) = Stage::start() else { return };
    let network = stage.network("bridge");
    assert_eq!(network.device.as_deref(), Some("tombolo0"));
    assert!(network.ipv4 && !network.ipv6);
    stage.shell("ip link show dev tombolo0 type bridge up");
    let a = stage.sandbox("a", "--network bridge");
    assert!(a.pings(stage.far().v4()), "no way out");
    assert_eq!(stage.shell("cat /proc/sys/net/ipv4/ip_forward"), "1");
    let refused = stage.tries("network rm bridge");
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
fn address_range_router_and_mtu_are_chosen() {
    let flags = [
        "--bip",
        "10.9.0.1/24",
        "--fixed-cidr",
        "10.9.0.128/25",
        "--default-gateway",
        "10.9.0.254",
        "--mtu",
        "1400",
        "--bip6",
        "fd09::1/64",
    ];
    let Some(stage) = Stage::start_with(&flags) else {
        return;
    };
    stage.shell("ip address show dev tombolo0 | grep -q 'inet 10.9.0.1/24'");
    stage.shell("ip address show dev tombolo0 | grep -q 'inet6 fd09::1/64'");
    assert_eq!(stage.shell("cat /sys/class/net/tombolo0/mtu"), "1400");
    let a = stage.sandbox("a", "--network bridge");
    assert_eq!(a.v4().to_string(), "10.9.0.128");
    assert_eq!(a.v6().to_string(), "fd09::2");
    assert!(
        a.ok("ip route show default").contains("via 10.9.0.254"),
        "another router"
    );
    assert!(a.ok("ip link show dev eth0").contains("mtu 1400"));
    let b = stage.sandbox("b", "--network bridge");
    assert_eq!(b.v4().to_string(), "10.9.0.129");
    a.assert_reaches(&b);
    let taken = stage.tries("sandbox create --name c --network bridge --ip 10.9.0.254");
    assert_eq!(
        taken.code,
        Some(3),
        "the router's address is given away: {taken:?}"
    );
}

#[test]
fn an_existing_bridge_is_used_and_stays() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    stage.shell(
        "ip link add br9 type bridge && ip address add 10.8.0.1/24 dev br9 && ip link set br9 up",
    );
    let look = "ip -o address show dev br9 scope global; cat /sys/class/net/br9/mtu";
    let before = stage.shell(look);
    stage.start_with(&["-b", "br9"], &[]).unwrap();
    let (a, b) = (
        stage.sandbox("a", "--network bridge"),
        stage.sandbox("b", "--network bridge"),
    );
    assert!(a.v4().to_string().starts_with("10.8.0."), "{a:?}");
    let veth = stage.inspect("a").endpoints[0]
        .host_interface
        .clone()
        .unwrap();
    stage.shell(&format!("ip link show dev {veth} master br9"));
    assert!(a.pings(b.v4()) && a.pings(stage.far().v4()));
    assert!(!stage.path("/sys/class/net/tombolo0").exists());
    stage.ok("sandbox rm a b");
    stage.stop().unwrap();
    stage.start_with(&["-b", "none"], &[]).unwrap();
    assert_eq!(stage.shell(look), before, "somebody else's bridge");
}

#[test]
fn none_means_no_default_network() {
    let Some(stage) = Stage::start_with(&["-b", "none"]) else {
        return;
    };
    assert!(!stage.path("/sys/class/net/tombolo0").exists());
    let missing = stage.tries("network inspect bridge");
    assert_eq!(missing.code, Some(5), "{missing:?}");
    for name in ["none", "host"] {
        stage.network(name);
    }
}

#[test]
fn forwarding_stays_off_where_it_is_not_to_be_touched() {
    let Some(stage) = Stage::start_with(&["--ip-forward", "false"]) else {
        return;
    };
    let a = stage.sandbox("a", "--network bridge");
    assert_eq!(stage.shell("cat /proc/sys/net/ipv4/ip_forward"), "0");
    assert!(stage.here().pings(a.v4()));
    assert!(a.pings_in_vain(stage.far().v4()), "forwarded all the same");
    stage.shell("echo 1 >/proc/sys/net/ipv4/ip_forward");
    assert!(a.pings(stage.far().v4()));
    stage.assert_in_place();
    assert_eq!(stage.shell("cat /proc/sys/net/ipv4/ip_forward"), "1");
}

#[test]
fn without_masquerading_the_outside_sees_the_sandbox() {
    let Some(stage) = Stage::start_with(&["--ip-masq", "false"]) else {
        return;
    };
    let (a, far) = (stage.sandbox("a", "--network bridge"), stage.far());
    let via = tombolo_lab::node::NODE_V4;
    stage.shell_outside(&format!("ip route add {} via {via}", a.v4()));
    assert_eq!(a.tcp(&far, far.v4()), Some(a.v4()));
    assert_eq!(
        stage.shell("nft list set inet tombolo masquerade4 | grep -c elements || true"),
        "0"
    );
}

#[test]
fn another_configuration_takes_effect_once_the_network_is_unused() {
    let Some(mut stage) = Stage::start_with(&["--bip", "10.9.0.1/24"]) else {
        return;
    };
    let subnet = |stage: &Stage| stage.network("bridge").subnets[0].subnet.clone();
    assert_eq!(subnet(&stage), "10.9.0.0/24");
    let a = stage.sandbox("a", "--network bridge");
    stage.stop().unwrap();
    stage.start_with(&["--bip", "10.44.0.1/24"], &[]).unwrap();
    assert_eq!(subnet(&stage), "10.9.0.0/24", "it has endpoints");
    assert!(stage.place("a").pings("10.9.0.1".parse().unwrap()));
    assert_eq!(stage.place("a").addresses, a.addresses);
    stage.ok("sandbox rm a");
    stage.stop().unwrap();
    stage.start_with(&["--bip", "10.44.0.1/24"], &[]).unwrap();
    assert_eq!(subnet(&stage), "10.44.0.0/24");
    let addresses = stage.shell("ip -4 address show dev tombolo0 | grep -c 'inet '");
    assert_eq!(addresses, "1", "the old address is gone");
    assert_eq!(
        stage.sandbox("b", "--network bridge").v4().to_string(),
        "10.44.0.2"
    );
    stage.assert_in_place();
}
