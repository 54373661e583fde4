//! Addresses of the host: all, one family, one, loopback; and what may not come in by them.

use std::net::{IpAddr, SocketAddr};

use tombolo_lab::node::{FAR_V4, FAR_V6, NODE_V4, NODE_V6, wait_until};
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::talk::{Sees, Server, Way, assert_ways};

use Sees::{Client, Host, Nobody};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn way<'a>(what: &'static str, from: &'a Place, to: (&str, u16), sees: Sees) -> Way<'a> {
    Way {
        what,
        from,
        source: None,
        to: SocketAddr::new(ip(to.0), to.1),
        sees,
    }
}

/// `-p` for each of these, over TCP and over UDP.
pub(crate) fn both(forms: &[&str]) -> String {
    let words = forms.iter().map(|form| format!("-p {form} -p {form}/udp"));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn an_ipv4_sandbox_answers_ipv6_clients_through_the_host() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create four");
    stage.ok("network create six --ipv6");
    let publish = both(&["8080:80", "8100-8109:80-89"]);
    let s = stage.sandbox("s", &format!("--network four {publish}"));
    let beside = stage.sandbox("beside", "--network four");
    let other = stage.sandbox("other", "--network six");
    let _server = Server::at(&s, "s", 80..=82);
    let (here, far) = (stage.here(), stage.far());
    let gateway = stage.gateway("six", true).to_string();
    let mut ways = Vec::new();
    for port in [8080, 8101] {
        ways.extend([
            way("outside", &far, (NODE_V4, port), Client),
            way("outside", &far, (NODE_V6, port), Host),
            way("host", &here, (NODE_V4, port), Client),
            way("host", &here, ("127.0.0.1", port), Host),
            way("host", &here, (NODE_V6, port), Host),
            way("host", &here, ("::1", port), Host),
            way("host by a gateway", &here, (&gateway, port), Host),
            way("same network", &beside, (NODE_V4, port), Client),
            way("other network", &other, (NODE_V4, port), Client),
            way("other network", &other, (NODE_V6, port), Host),
            way(
                "other network by its gateway",
                &other,
                (&gateway, port),
                Host,
            ),
            way("itself", &s, (NODE_V4, port), Host),
        ]);
    }
    ways.push(way("outside, unpublished", &far, (NODE_V6, 82), Nobody));
    assert_ways(&ways, "s", &stage.own_addresses());
    stage.assert_in_place();
}

#[test]
fn an_ipv6_sandbox_is_published_to_ipv6_clients_alone() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create six --ipv4=false --ipv6");
    let s = stage.sandbox("s", &format!("--network six {}", both(&["8080:80"])));
    let _server = Server::at(&s, "s", 80..=80);
    let (here, far) = (stage.here(), stage.far());
    let ways = [
        way("outside", &far, (NODE_V6, 8080), Client),
        way("outside", &far, (NODE_V4, 8080), Nobody),
        way("host", &here, (NODE_V6, 8080), Client),
        way("host", &here, ("::1", 8080), Host),
        way("host", &here, ("127.0.0.1", 8080), Nobody),
        way("itself", &s, (NODE_V6, 8080), Host),
    ];
    assert_ways(&ways, "s", &stage.own_addresses());
    stage.assert_in_place();
}

#[test]
fn a_publication_answers_at_the_addresses_it_names_and_no_others() {
    let Some(stage) = Stage::start() else { return };
    stage.shell("ip address add 192.0.2.77/24 dev eth0");
    stage.shell("ip address add 2001:db8::77/64 dev eth0 nodad");
    stage.ok("network create n --ipv6");
    let publish = both(&[
        "0.0.0.0:8001:80",
        "[::]:8002:80",
        "192.0.2.10:8003:80",
        "[2001:db8::10]:8004:80",
        "127.0.0.1:8005:80",
        "[::1]:8006:80",
        "192.0.2.10:8100-8102:80-82",
    ]);
    let s = stage.sandbox("s", &format!("--network n {publish}"));
    let beside = stage.sandbox("beside", "--network n");
    let _server = Server::at(&s, "s", 80..=82);
    let (here, far) = (stage.here(), stage.far());
    let addresses = [
        "127.0.0.1",
        "::1",
        NODE_V4,
        NODE_V6,
        "192.0.2.77",
        "2001:db8::77",
    ];
    // What each port shows at each of those addresses to the host.
    let table: [(u16, [Sees; 6]); 7] = [
        (8001, [Host, Nobody, Client, Nobody, Client, Nobody]),
        (8002, [Nobody, Host, Nobody, Client, Nobody, Client]),
        (8003, [Nobody, Nobody, Client, Nobody, Nobody, Nobody]),
        (8004, [Nobody, Nobody, Nobody, Client, Nobody, Nobody]),
        (8005, [Host, Nobody, Nobody, Nobody, Nobody, Nobody]),
        (8006, [Nobody, Host, Nobody, Nobody, Nobody, Nobody]),
        (8102, [Nobody, Nobody, Client, Nobody, Nobody, Nobody]),
    ];
    let mut ways = Vec::new();
    for (port, row) in table {
        for (address, sees) in addresses.iter().zip(row) {
            ways.push(way("host", &here, (address, port), sees));
            // Loopback addresses of others are their own.
            if !ip(address).is_loopback() {
                ways.push(way("outside", &far, (address, port), sees));
                ways.push(way("same network", &beside, (address, port), sees));
            }
        }
    }
    for some in ways.chunks(40) {
        assert_ways(some, "s", &stage.own_addresses());
    }
    stage.assert_in_place();
}

/// Makes a place send what is for 127.0.0.1 to a router.
fn send_loopback_by(place: &Place, router: &str) {
    for line in [
        "ip address del 127.0.0.1/8 dev lo",
        &format!("ip route add 127.0.0.1/32 via {router} dev eth0 onlink"),
        "sysctl -q -w net.ipv4.conf.all.route_localnet=1",
        "sysctl -q -w net.ipv4.conf.all.rp_filter=0",
        "sysctl -q -w net.ipv4.conf.eth0.rp_filter=0",
    ] {
        place.ok(line);
    }
}

#[test]
fn what_is_published_at_a_loopback_address_is_not_reached_from_the_neighbours_link() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    let publish = both(&["127.0.0.1:8080:80", "127.0.0.1:8100-8109:80-89", "8081:80"]);
    let s = stage.sandbox("s", &format!("--network n {publish}"));
    let _server = Server::at(&s, "s", 80..=81);
    let (here, far) = (stage.here(), stage.far());
    let _own = Server::bound(&here, "own", &[SocketAddr::new(ip("127.0.0.1"), 9000)]);
    let addresses = stage.own_addresses();
    let inside = [
        way("host", &here, ("127.0.0.1", 8080), Host),
        way("host", &here, ("127.0.0.1", 8101), Host),
        way("host", &here, ("127.0.0.1", 8081), Host),
    ];
    assert_ways(&inside, "s", &addresses);
    send_loopback_by(&far, NODE_V4);
    let frames = |port| way("neighbour", &far, ("127.0.0.1", port), Nobody);
    let outside = [8080, 8101, 8081, 9000].map(frames);
    assert_ways(&outside, "s", &addresses);
    // Even a host whose uplink routes loopback addresses, as some let theirs, opens only what is its own.
    stage.shell("sysctl -q -w net.ipv4.conf.eth0.route_localnet=1");
    let proof = way("neighbour, own service", &far, ("127.0.0.1", 9000), Client);
    assert_ways(&[proof], "own", &addresses);
    assert_ways(&outside[..3], "s", &addresses);
    assert_ways(&inside, "s", &addresses);
}

#[test]
fn a_sandbox_does_not_reach_what_listens_at_the_hosts_loopback_address() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    stage.ok("network create n");
    let s = stage.sandbox("s", &format!("--network n {}", both(&["8080:80"])));
    let _own = Server::bound(
        &stage.here(),
        "own",
        &[SocketAddr::new(ip("127.0.0.1"), 9000)],
    );
    send_loopback_by(&s, &stage.gateway("n", false).to_string());
    let to_own = |sees| [way("sandbox", &s, ("127.0.0.1", 9000), sees)];
    let addresses = stage.own_addresses();
    assert_ways(&to_own(Nobody), "own", &addresses);
    // It is the rules that keep them away: the host routes loopback addresses on this bridge.
    stage.kill().unwrap();
    stage.shell("nft flush ruleset");
    assert_ways(&to_own(Client), "own", &addresses);
    stage.start_again();
    let mended = wait_until(PATIENCE, || {
        stage.shell("nft list ruleset").contains("127.0.0.0/8")
    });
    assert!(mended);
    assert_ways(&to_own(Nobody), "own", &addresses);
}

#[test]
fn an_isolated_network_has_no_host_in_it_and_publishes_nothing() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create i --internal --ipv6 --gateway-mode isolated");
    let device = stage.network("i").device.unwrap();
    assert_eq!(
        stage.shell(&format!("ip -o address show dev {device} scope global")),
        ""
    );
    let (i1, i2) = (
        stage.sandbox("i1", "--network i"),
        stage.sandbox("i2", "--network i"),
    );
    i1.assert_reaches(&i2);
    let (here, far) = (stage.here(), stage.far());
    for (address, via) in [(i1.v4(), NODE_V4), (i1.v6(), NODE_V6)] {
        stage.shell_outside(&format!("ip route add {address} via {via}"));
    }
    for line in [
        "ip route add default dev eth0",
        "ip -6 route add default dev eth0",
    ] {
        i1.ok(line);
    }
    far.assert_cut_off(&i1);
    for place in [&here, &far] {
        i1.assert_cut_off(place);
    }
    let refused = stage.tries("publish add i1 8080:80");
    assert!(refused.stderr.contains("internal"), "{refused:?}");
    assert_eq!(stage.ok("port i1"), "");
}

#[test]
fn publications_take_the_address_that_their_network_says() {
    let Some(stage) = Stage::start() else { return };
    stage.shell("ip address add 192.0.2.77/24 dev eth0");
    stage.ok("network create n --ipv6 --host-binding 192.0.2.77");
    let publish = both(&["8080:80", "192.0.2.10:8081:80"]);
    let s = stage.sandbox("s", &format!("--network n {publish}"));
    let _server = Server::at(&s, "s", 80..=80);
    let far = Place {
        addresses: vec![ip(FAR_V4), ip(FAR_V6)],
        ..stage.far()
    };
    let ways = [
        way("outside", &far, ("192.0.2.77", 8080), Client),
        way("outside", &far, (NODE_V4, 8080), Nobody),
        way("outside", &far, (NODE_V6, 8080), Nobody),
        way("outside", &far, ("192.0.2.77", 8081), Nobody),
        way("outside", &far, (NODE_V4, 8081), Client),
    ];
    assert_ways(&ways, "s", &stage.own_addresses());
    assert!(stage.ok("port s 80/udp").contains("192.0.2.77:8080"));
}
