//! The host's own firewall, and whose word counts about published ports.

use tombolo_lab::node::{NODE_V4, NODE_V6, wait_until};
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::edges::{both, way};
use crate::talk::{PROTOCOLS, Sees, Server, Talk, Way, assert_ways};

use Sees::{Client, Host, Nobody};

/// Gives the host a firewall that lets in only what answers.
fn close_the_host(stage: &Stage) {
    stage.shell(
        "nft -f - <<'END'
        table inet hostfw {
            chain input {
                type filter hook input priority 0; policy drop;
                iifname lo accept
                ct state established,related accept
                meta l4proto ipv6-icmp accept
            }
        }
END",
    );
}

#[test]
fn the_hosts_own_firewall_decides_where_it_is_to_be_obeyed() {
    let Some(stage) = Stage::start_with(&["--obey-host-firewall", "never"]) else {
        return;
    };
    stage.shell("ip address add 192.0.2.77/24 dev eth0");
    stage.shell("ip address add 2001:db8::77/64 dev eth0 nodad");
    stage.ok("network create n --ipv6");
    let obey = "obey-host-firewall=true";
    let publish = format!(
        "{} -p 8081:80,{obey} -p 8081:80/udp,{obey} -p 8100-8103:80-83,{obey} -p 8100-8103:80-83/udp,{obey}",
        both(&["8080:80"])
    );
    let s = stage.sandbox("s", &format!("--network n {publish}"));
    let other = stage.sandbox("other", "--network bridge");
    let _server = Server::at(&s, "s", 80..=82);
    let (here, far) = (stage.here(), stage.far());
    let addresses = stage.own_addresses();
    let ways = |obeyed: Sees| {
        let mut ways = Vec::new();
        for address in [NODE_V4, NODE_V6] {
            ways.push(way("outside", &far, (address, 8080), Client));
            ways.push(way("outside, obeying", &far, (address, 8081), obeyed));
            ways.push(way("outside, obeying range", &far, (address, 8101), obeyed));
            ways.push(way("host, obeying", &here, (address, 8081), Host));
        }
        // Answers come from the address that was asked.
        ways.push(way(
            "outside, other address",
            &far,
            ("192.0.2.77", 8081),
            obeyed,
        ));
        ways.push(way(
            "outside, other address",
            &far,
            ("2001:db8::77", 8081),
            obeyed,
        ));
        ways.push(way("sandbox, obeying", &other, (NODE_V4, 8081), obeyed));
        ways.push(way("host, obeying", &here, ("127.0.0.1", 8102), Host));
        ways.push(way("host, obeying", &here, ("::1", 8102), Host));
        ways
    };
    assert_ways(&ways(Host), "s", &addresses);
    close_the_host(&stage);
    assert_ways(&ways(Nobody), "s", &addresses);
    stage.shell(
        "nft add rule inet hostfw input meta l4proto '{ tcp, udp }' th dport 8081-8103 accept",
    );
    assert_ways(&ways(Host), "s", &addresses);
    stage.assert_in_place();
}

/// Ways from the outside to a published port over both families.
fn from_outside(far: &Place, sees: Sees) -> [Way<'_>; 2] {
    [NODE_V4, NODE_V6].map(|address| way("outside", far, (address, 8080), sees))
}

#[test]
fn as_shipped_a_host_that_closes_itself_closes_its_published_ports_and_opens_them_again() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    let publish = both(&["8080:80", "8100-8109:80-89"]);
    let s = stage.sandbox("s", &format!("--network n {publish}"));
    let _server = Server::at(&s, "s", 80..=80);
    let far = stage.far();
    let addresses = stage.own_addresses();
    let path = || format!("{:?}", stage.inspect("s").publications[0].ipv4);
    assert_ways(&from_outside(&far, Client), "s", &addresses);
    assert!(path().contains("Kernel"), "{}", path());
    close_the_host(&stage);
    assert!(
        wait_until(PATIENCE, || path().contains("Relay")),
        "{}",
        path()
    );
    assert_ways(&from_outside(&far, Nobody), "s", &addresses);
    stage.assert_in_place();
    stage.shell("nft add rule inet hostfw input meta l4proto '{ tcp, udp }' th dport 8080 accept");
    assert_ways(&from_outside(&far, Host), "s", &addresses);
    stage.shell("nft delete table inet hostfw");
    assert!(
        // Nobody waits for this one: nothing is open that should not be.
        wait_until(PATIENCE * 2, || path().contains("Kernel")),
        "{}",
        path()
    );
    assert_ways(&from_outside(&far, Client), "s", &addresses);
    stage.assert_in_place();
}

#[test]
fn what_is_relayed_waits_for_a_daemon_that_is_away() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    stage.ok("network create four");
    let obey = "-p 8081:80,obey-host-firewall=true -p 8081:80/udp,obey-host-firewall=true";
    let s = stage.sandbox(
        "s",
        &format!("--network four {} {obey}", both(&["8080:80"])),
    );
    let _server = Server::at(&s, "s", 80..=80);
    let far = stage.far();
    let addresses = stage.own_addresses();
    let places = [(NODE_V6, 8080), (NODE_V4, 8081), (NODE_V6, 8081)];
    let check = |sees| {
        let ways = places.map(|place| way("outside", &far, place, sees));
        assert_ways(&ways, "s", &addresses);
    };
    check(Host);
    stage.kill().unwrap();
    let waiting = places.map(|(address, port)| {
        let to = std::net::SocketAddr::new(address.parse().unwrap(), port);
        PROTOCOLS.map(|protocol| Talk::open(&far, None, protocol, to).unwrap())
    });
    stage.start_again();
    for mut talk in waiting.into_iter().flatten() {
        assert!(wait_until(PATIENCE, || talk.ask().is_some()), "{talk:?}");
    }
    check(Host);
    stage.assert_in_place();
}

#[test]
fn a_source_filter_knows_the_hosts_own_addresses() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    stage.ok("network create four");
    let own = "from=127.0.0.0/8,from=::1/128";
    let publish = format!("-p 8080:80,{own} -p 8080:80/udp,{own}");
    let s = stage.sandbox("s", &format!("--network n {publish}"));
    let f = stage.sandbox(
        "f",
        &format!("--network four {}", publish.replace("8080", "8480")),
    );
    let _servers = [Server::at(&s, "s", 80..=80), Server::at(&f, "s", 80..=80)];
    let (here, far) = (stage.here(), stage.far());
    let mut ways = Vec::new();
    for port in [8080, 8480] {
        ways.extend([
            way("host", &here, ("127.0.0.1", port), Host),
            way("host", &here, ("::1", port), Host),
            way("host", &here, (NODE_V4, port), Nobody),
            way("host", &here, (NODE_V6, port), Nobody),
            way("outside", &far, (NODE_V4, port), Nobody),
            way("outside", &far, (NODE_V6, port), Nobody),
        ]);
    }
    assert_ways(&ways, "s", &stage.own_addresses());
    stage.assert_in_place();
}
