//! Packets that must arrive, and packets that must not.

#![expect(clippy::unwrap_used, reason = "what fails in a test fails the test")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use tombolo_api::{NetworkAttachment, SandboxCreate};
use tombolo_lab::node::{NODE_V4, NODE_V6, wait_until};
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

#[test]
fn two_networks_reach_their_own_the_host_and_the_outside_but_not_each_other() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    stage.ok("network create a --ipv6");
    stage.ok("network create b --ipv6");
    let (a1, a2) = (
        stage.sandbox("a1", "--network a"),
        stage.sandbox("a2", "--network a"),
    );
    let b = stage.sandbox("b1", "--network b");
    let (here, far) = (stage.here(), stage.far());
    a1.assert_reaches(&a2);
    a2.assert_reaches(&a1);
    here.assert_reaches(&a1);
    a1.assert_reaches(&here);
    a1.assert_reaches(&far);
    for family in 0..2 {
        let masqueraded = Some(here.addresses[family]);
        assert_eq!(b.seen_by(&far, far.addresses[family]), masqueraded);
    }
    a1.assert_cut_off(&b);
    b.assert_cut_off(&a2);
    stage.assert_in_place();
    stage.ok("sandbox rm a1 a2 b1");
    stage.ok("network rm a b");
    stage.assert_traces(&before);
}

/// Gives the outside routes to the addresses of a place behind the node.
fn route_from_outside(stage: &Stage, place: &Place) {
    for (address, via) in [(place.v4(), NODE_V4), (place.v6(), NODE_V6)] {
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        stage.shell_outside(&format!("ip {family} route add {address} via {via}"));
    }
}

#[test]
fn what_has_no_published_port_is_not_reachable_from_outside() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    stage.ok("network create a --ipv6");
    let a = stage.sandbox("a1", "--network a");
    let far = stage.far();
    route_from_outside(&stage, &a);
    a.assert_reaches(&far);
    far.assert_cut_off(&a);
    // Without our rules the same packets arrive, so it is the rules that keep them away.
    stage.kill().unwrap();
    stage.shell("nft flush ruleset");
    far.assert_reaches(&a);
    stage.start_again();
    far.assert_cut_off(&a);
    a.assert_reaches(&stage.far());
}

#[test]
fn an_internal_network_ends_at_the_host() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create i --internal --ipv6");
    let (i1, i2) = (
        stage.sandbox("i1", "--network i"),
        stage.sandbox("i2", "--network i"),
    );
    let (here, far) = (stage.here(), stage.far());
    i1.assert_reaches(&i2);
    here.assert_reaches(&i1);
    assert_eq!(i1.ok("ip route show default"), "");
    assert_eq!(i1.ok("ip -6 route show default"), "");
    // Even a route of its own making leads nowhere.
    let gateways = stage.inspect("i1").endpoints[0].gateways.clone();
    let gateways = if gateways.is_empty() {
        gateways_of(&stage, "i")
    } else {
        gateways
    };
    for (gateway, family) in gateways.iter().zip(["-4", "-6"]) {
        i1.ok(&format!(
            "ip {family} route add default via {gateway} dev eth0 onlink"
        ));
    }
    i1.assert_cut_off(&far);
    route_from_outside(&stage, &i1);
    far.assert_cut_off(&i1);
    let gateway: IpAddr = gateways[0].parse().unwrap();
    let host = Place {
        addresses: vec![gateway],
        ..here
    };
    i1.assert_reaches(&host);
    stage.assert_in_place();
}

fn gateways_of(stage: &Stage, network: &str) -> Vec<String> {
    let subnets = stage.network(network).subnets;
    subnets
        .into_iter()
        .filter_map(|subnet| subnet.gateway)
        .collect()
}

#[test]
fn without_icc_endpoints_reach_only_the_host_and_the_outside() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create q --ipv6 --icc=false");
    let (q1, q2) = (
        stage.sandbox("q1", "--network q"),
        stage.sandbox("q2", "--network q"),
    );
    q1.assert_cut_off(&q2);
    q1.assert_reaches(&stage.far());
    stage.here().assert_reaches(&q2);
    q2.assert_reaches(&stage.here());
}

/// Whether a datagram sent from `from` to `group` arrives at a socket of `to` that has joined it.
fn hears(from: &Place, to: &Place, group: IpAddr) -> bool {
    let any: IpAddr = if group.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let receiver = to.inside(|| {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).unwrap();
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        match group {
            IpAddr::V4(group) if group.is_multicast() => {
                let IpAddr::V4(own) = to.v4() else {
                    unreachable!()
                };
                socket.join_multicast_v4(&group, &own).unwrap();
            }
            IpAddr::V6(group) => socket.join_multicast_v6(&group, index).unwrap(),
            IpAddr::V4(_) => {}
        }
        socket
    });
    receiver
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let port = receiver.local_addr().unwrap().port();
    from.inside(|| {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).unwrap();
        if group.is_ipv4() {
            socket.set_broadcast(true).unwrap();
        }
        let scope = nix::net::if_::if_nametoindex("eth0").unwrap();
        let target = match group {
            IpAddr::V4(_) => SocketAddr::new(group, port),
            IpAddr::V6(group) => std::net::SocketAddrV6::new(group, port, 0, scope).into(),
        };
        let mut word = [0; 4];
        (0..4).any(|_| {
            // The link-local source of a new interface may not be usable yet.
            let sent = socket.send_to(b"all?", target);
            let heard = receiver.recv(&mut word).is_ok();
            sent.is_ok() && heard
        })
    })
}

#[test]
fn a_multicast_network_delivers_to_all_and_resolves_by_itself() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create m --multicast --subnet 10.40.0.0/24 --subnet fd40::/64");
    stage.ok("network create a --subnet 10.41.0.0/24 --subnet fd41::/64");
    let (m1, m2) = (
        stage.sandbox("m1", "--network m"),
        stage.sandbox("m2", "--network m"),
    );
    let (a1, a2) = (
        stage.sandbox("a1", "--network a"),
        stage.sandbox("a2", "--network a"),
    );
    m1.assert_reaches(&m2);
    m1.assert_reaches(&stage.far());
    for group in ["255.255.255.255", "10.40.0.255", "239.9.8.7", "ff12::987"] {
        assert!(hears(&m1, &m2, group.parse().unwrap()), "{group} over m");
    }
    for group in ["255.255.255.255", "10.41.0.255", "239.9.8.7", "ff12::987"] {
        assert!(!hears(&a1, &a2, group.parse().unwrap()), "{group} over a");
    }
    // The neighbour was asked for, and a newcomer with its address is learnt without asking.
    let mac = |text: &str| text.contains(stage.inspect("m2").endpoints[0].mac.as_deref().unwrap());
    for address in &m2.addresses {
        let neighbour = m1.ok(&format!("ip neigh show {address}"));
        assert!(
            mac(&neighbour) && !neighbour.contains("PERMANENT"),
            "{neighbour}"
        );
    }
    // A newcomer is told of once, and on a machine at its limits that may be before its port is open.
    let mut last = "m2".to_owned();
    let told = (0..5).any(|number| {
        stage.ok(&format!("sandbox rm {last}"));
        last = format!("m3{number}");
        let mac = format!("02:00:00:00:00:{number:02x}");
        let how = format!("name=m,ip={},ip6={},mac={mac}", m2.v4(), m2.v6());
        let create = format!("sandbox create --name {last} --network {how}");
        // The kernel takes its time to let the addresses go.
        assert!(
            wait_until(PATIENCE, || stage.tries(&create).success()),
            "{create}"
        );
        let knows = |address| m1.ok(&format!("ip neigh show {address}")).contains(&mac);
        wait_until(Duration::from_secs(2), || m2.addresses.iter().all(knows))
    });
    assert!(told, "{}", m1.ok("ip neigh"));
    stage.assert_in_place();
}

#[test]
fn forty_endpoints_lie_on_leaf_bridges_and_reach_each_other() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    stage.ok("network create n --ipv6");
    let mut client = stage.client();
    for number in 1..=40 {
        let attachment = NetworkAttachment {
            network: "n".to_owned(),
            ..NetworkAttachment::default()
        };
        let sandbox = client.sandbox_create(SandboxCreate {
            name: Some(format!("s{number}")),
            networks: vec![attachment],
            ..SandboxCreate::default()
        });
        sandbox.unwrap_or_else(|error| panic!("sandbox {number}: {error}"));
    }
    let leaves = stage.shell("ip -o link show type bridge | grep -c ': tl'");
    assert!(leaves.parse::<u32>().unwrap() >= 1, "{leaves} leaf bridges");
    let (first, last) = (stage.place("s1"), stage.place("s40"));
    first.assert_reaches(&last);
    last.assert_reaches(&first);
    last.assert_reaches(&stage.far());
    stage.here().assert_reaches(&last);
    stage.assert_in_place();
    for number in 1..=40 {
        client.sandbox_delete(&format!("s{number}"), false).unwrap();
    }
    stage.ok("network rm n");
    stage.assert_traces(&before);
}

#[test]
fn leaving_traffic_takes_the_address_that_was_given_or_keeps_its_own() {
    let Some(stage) = Stage::start() else { return };
    stage.shell("ip address add 192.0.2.77/24 dev eth0");
    stage.shell("ip address add 2001:db8::77/64 dev eth0 nodad");
    stage.ok("network create s --ipv6 --snat-ipv4 192.0.2.77 --snat-ipv6 2001:db8::77");
    stage.ok("network create r --ipv6 --masquerade=false");
    let (s, r) = (
        stage.sandbox("s1", "--network s"),
        stage.sandbox("r1", "--network r"),
    );
    let far = stage.far();
    route_from_outside(&stage, &r);
    for (address, given) in far.addresses.iter().zip(["192.0.2.77", "2001:db8::77"]) {
        assert_eq!(s.seen_by(&far, *address), given.parse().ok());
    }
    for (own, address) in r.addresses.iter().zip(&far.addresses) {
        assert_eq!(r.seen_by(&far, *address), Some(*own));
    }
}

#[test]
fn an_ipv6_only_network_has_a_unique_local_subnet_and_no_ipv4() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create six --ipv4=false --ipv6");
    let network = stage.network("six");
    assert!(!network.ipv4 && network.ipv6);
    assert_eq!(network.subnets.len(), 1);
    assert!(
        network.subnets[0].subnet.starts_with("fd"),
        "{:?}",
        network.subnets
    );
    let (s1, s2) = (
        stage.sandbox("s1", "--network six"),
        stage.sandbox("s2", "--network six"),
    );
    assert_eq!(s2.addresses.len(), 1);
    s1.assert_reaches(&s2);
    let far = stage.far();
    assert_eq!(s1.seen_by(&far, far.v6()), NODE_V6.parse().ok());
    assert_eq!(s1.ok("ip -4 address show dev eth0"), "");
    assert_eq!(s1.ok("ip -4 route"), "");
}
