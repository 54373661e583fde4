//! The resolver at a network's gateway, and who has the port of resolvers.

use std::net::{IpAddr, UdpSocket};

use tombolo_lab::node::FAR_V4;
use tombolo_tests::{Place, Stage};

use crate::scene::{
    RECORDED, ask_at, assert_missing, assert_named, assert_soon, file, idle, inside, ip, recorded,
};

/// What is found at an address under a name, over UDP and over TCP alike; none where nobody answers.
#[track_caller]
fn seen(place: &Place, server: IpAddr, name: &str) -> Option<Vec<String>> {
    let [udp, tcp] = ["+notcp", "+tcp"].map(|carrier| {
        let reply = ask_at(place, server, &format!("{carrier} +time=2 {name} A"));
        let answered = ["NOERROR", "NXDOMAIN"].contains(&reply.status.as_str());
        answered.then(|| reply.data())
    });
    assert_eq!(udp, tcp, "{name} at {server}");
    udp
}

#[test]
fn a_resolver_at_the_gateway_knows_its_askers_by_their_addresses() {
    let Some((stage, recorder)) = recorded("", &[]) else {
        return;
    };
    stage.ok("network create g --ipv6 --resolver gateway");
    stage.ok("network create n --ipv6");
    let db = idle(&stage, "db", "--network g --expose 80");
    let web = idle(&stage, "web", "--network g --link db:store");
    let plain = stage.sandbox("plain", "--network g --network-alias www");
    let stranger = stage.sandbox("stranger", "--network n");
    let gateways = [stage.gateway("g", false), stage.gateway("g", true)];
    for gateway in gateways {
        assert_eq!(seen(&web, gateway, "db"), Some(vec![db.v4().to_string()]));
        assert_eq!(
            seen(&plain, gateway, "web.g"),
            Some(vec![web.v4().to_string()])
        );
        // Who asks is told by the source.
        let store = Some(vec![db.v4().to_string()]);
        assert_eq!(seen(&web, gateway, "store"), store);
        assert_eq!(seen(&plain, gateway, "store"), Some(vec![]));
        assert_eq!(seen(&web, gateway, "stranger"), Some(vec![]));
        assert_eq!(
            seen(&plain, gateway, "www.example.com"),
            Some(vec![RECORDED.to_string()])
        );
        // Those whom it does not know hear nothing, and sandboxes of other networks nothing of this one.
        assert_eq!(seen(&stage.here(), gateway, "db"), None, "at {gateway}");
        let heard = seen(&stranger, gateway, "db");
        assert_eq!(heard.unwrap_or_default(), [""; 0], "at {gateway}");
    }
    let conf = file(&stage, "web", "resolv.conf");
    for gateway in gateways {
        assert!(conf.contains(&format!("nameserver {gateway}\n")), "{conf}");
    }
    assert!(!conf.contains("127.0.0.11"), "{conf}");
    let said = inside(&stage, "web", "getent ahosts www");
    assert!(said.contains(&plain.v4().to_string()), "{said}");
    assert_eq!(web.ok("ss -Hlntu src 127.0.0.11"), "");
    assert_eq!(recorder.asked(), ["www.example.com"]);
    // The sockets are those of all, and go with the last.
    stage.ok("rm -f web db");
    assert_eq!(
        seen(&plain, gateways[0], "plain"),
        Some(vec![plain.v4().to_string()])
    );
    stage.ok("sandbox rm plain");
    let bound = || stage.shell("ss -Hlntu sport = :53");
    assert_soon("the sockets are closed", || bound().is_empty());
    stage.assert_in_place();
}

#[test]
fn what_leaves_a_network_with_its_resolver_at_the_gateway_is_not_known_there() {
    let Some(stage) = Stage::start_with(&["--address-cooldown-seconds=0"]) else {
        return;
    };
    stage.ok("network create g --resolver gateway --subnet 10.83.0.0/24");
    let gateway = ip("10.83.0.1");
    stage.sandbox("keeps", "--network g");
    stage.sandbox("db", "--network g --expose 80");
    let web = stage.sandbox("web", "--network g --ip 10.83.0.9 --link db:store");
    assert!(seen(&web, gateway, "store").is_some_and(|data| data.len() == 1));
    stage.ok("sandbox rm web");
    // Its address is another's now, and so is what is asked from it.
    let create = "sandbox create --name next --network g --ip 10.83.0.9";
    assert_soon("the address is free", || stage.tries(create).success());
    let next = stage.place("next");
    assert_eq!(seen(&next, gateway, "store"), Some(vec![]));
    assert_eq!(seen(&next, gateway, "web"), Some(vec![]));
    stage.ok("sandbox stop next");
    stage.ok("sandbox start next");
    assert!(seen(&stage.place("next"), gateway, "keeps").is_some_and(|data| data.len() == 1));
    stage.assert_in_place();
}

#[test]
fn a_published_port_53_and_a_resolver_at_a_gateway_are_in_each_others_way() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    stage.ok("network create g --ipv6 --resolver gateway");
    stage.ok("sandbox create --name server --network n -p 53:53/udp -p 53:53");
    let traces = stage.traces().unwrap();
    let refused = stage.tries("sandbox create --name late --network g");
    assert_eq!(refused.code, Some(3), "{refused:?}");
    for word in [
        "53",
        "taken by another published port",
        "--resolver sandbox",
    ] {
        assert!(refused.stderr.contains(word), "{refused:?}");
    }
    stage.assert_traces(&traces);
    assert_eq!(stage.tries("sandbox inspect late").code, Some(5));
    stage.assert_in_place();
    // The other way around.
    stage.ok("publish rm server 53:53/udp 53:53");
    let late = stage.sandbox("late", "--network g");
    let traces = stage.traces().unwrap();
    for port in ["53:53/udp", "53:53", "50-60:50-60", "192.0.2.10:53:53"] {
        let line = format!("publish add server {port}");
        let outcome = stage.tries(&line);
        if port.contains("192.0.2.10") {
            // Somewhere else there is room for both.
            assert!(outcome.success(), "{outcome:?}");
            continue;
        }
        assert_eq!(outcome.code, Some(3), "{outcome:?}");
        for word in [
            "53",
            "taken by the resolver of a network",
            "--resolver gateway",
        ] {
            assert!(outcome.stderr.contains(word), "{outcome:?}");
        }
        stage.assert_traces(&traces);
    }
    assert!(seen(&late, stage.gateway("g", false), "late").is_some_and(|d| d.len() == 1));
    stage.assert_in_place();
}

/// A namespace of somebody else in which a program has the port of resolvers at an address.
fn foreign(stage: &Stage, address: &str, tcp: bool) {
    stage.shell("ip netns add foreign && ip -n foreign link set lo up");
    let (protocol, socket) = if tcp {
        ("tcp", "SOCK_STREAM")
    } else {
        ("udp", "SOCK_DGRAM")
    };
    let program = format!(
        "use Socket; socket(my $s, PF_INET, {socket}, 0); \
         bind($s, sockaddr_in(53, inet_aton(\"{address}\"))) or die; {} sleep 600",
        if tcp { "listen($s, 5);" } else { "" }
    );
    stage.shell(&format!(
        "ip netns exec foreign perl -e '{program}' >/dev/null 2>&1 & echo $! >/run/scratch/taker"
    ));
    assert_soon("the port is taken", || {
        let list = format!("ip netns exec foreign ss -Hln --{protocol} sport = :53");
        !stage.shell(&list).is_empty()
    });
}

#[test]
fn a_program_that_has_the_port_already_keeps_its_namespace_out() {
    let Some(stage) = Stage::start() else { return };
    for (network, words) in [
        ("n", "--ipv6"),
        ("g", "--ipv6 --resolver gateway"),
        ("o", "--resolver off"),
    ] {
        stage.ok(&format!("network create {network} {words}"));
    }
    let asker = stage.sandbox("asker", "--network n --network g");
    let create = "sandbox create --name guest --netns /run/netns/foreign";
    // The first namespace with a name leaves a mount behind.
    stage.shell("ip netns add first && ip netns del first");
    let settled = stage.traces().unwrap();
    for (address, tcp) in [
        ("127.0.0.11", false),
        ("127.0.0.11", true),
        ("0.0.0.0", false),
        ("0.0.0.0", true),
    ] {
        foreign(&stage, address, tcp);
        let traces = stage.traces().unwrap();
        let refused = stage.tries(&format!("{create} --network n"));
        assert_eq!(refused.code, Some(3), "{refused:?}");
        let protocol = if tcp { "tcp" } else { "udp" };
        for word in [protocol, "port 53", "taken", "--resolver gateway", "off"] {
            assert!(refused.stderr.contains(word), "no {word}: {refused:?}");
        }
        stage.assert_traces(&traces);
        assert_eq!(stage.tries("sandbox inspect guest").code, Some(5));
        assert_missing(&asker, "guest");
        stage.assert_in_place();
        // What the hint says helps.
        for words in ["--network g", "--network o"] {
            let guest = stage.sandbox(
                "guest",
                words
                    .replace("--network", "--netns /run/netns/foreign --network")
                    .as_str(),
            );
            assert!(!guest.addresses.is_empty());
            stage.ok("sandbox rm guest");
        }
        // The kernel takes links away in its own time.
        stage.assert_traces(&traces);
        // Nor does one that is there already get onto such a network.
        stage.ok(create);
        let traces = stage.traces().unwrap();
        let refused = stage.tries("network connect n guest");
        assert_eq!(refused.code, Some(3), "{refused:?}");
        assert!(refused.stderr.contains("taken"), "{refused:?}");
        assert_eq!(stage.inspect("guest").endpoints.len(), 0);
        stage.assert_traces(&traces);
        // Until the program ends.
        stage.shell("kill $(cat /run/scratch/taker)");
        assert_soon("the port is free", || {
            stage.shell("ip netns exec foreign ss -Hlntu").is_empty()
        });
        stage.ok("network connect n guest");
        let guest = stage.place("guest");
        assert_named(&asker, "guest", &guest.addresses);
        assert_named(&guest, "guest", &guest.addresses);
        stage.ok("sandbox rm guest");
        assert_soon("the sockets are closed", || {
            stage.shell("ip netns exec foreign ss -Hlntu").is_empty()
        });
        stage.shell("ip netns del foreign");
        stage.assert_traces(&settled);
    }
    stage.assert_in_place();
}

#[test]
fn a_sandbox_that_serves_names_itself_has_the_port() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --ipv6");
    stage.ok("network create g --resolver gateway");
    for ports in [
        "--expose 53",
        "--expose 53/udp",
        "--expose 50-60/udp",
        "-p 5300:53/udp",
    ] {
        let own = stage.sandbox("own", &format!("--network n {ports}"));
        assert_eq!(own.ok("ss -Hlntu"), "", "{ports}");
        let taken = own.inside(|| {
            let udp = UdpSocket::bind("0.0.0.0:53")?;
            Ok::<_, std::io::Error>((udp, std::net::TcpListener::bind("0.0.0.0:53")?))
        });
        assert!(taken.is_ok(), "{ports}: {taken:?}");
        drop(taken);
        let conf = file(&stage, "own", "resolv.conf");
        assert!(!conf.contains("127.0.0.11"), "{conf}");
        // Others find it, though.
        let asker = stage.sandbox("asker", "--network n");
        assert_named(&asker, "own", &own.addresses);
        stage.ok("sandbox rm own asker");
    }
    // With a resolver at a gateway it is answered there.
    let own = stage.sandbox("own", "--network n --network g --expose 53/udp");
    let gateway = stage.gateway("g", false);
    let v4 = |network: &str| {
        let endpoints = stage.inspect("own").endpoints.into_iter();
        let mut on = endpoints.filter(|endpoint| endpoint.network.name == network);
        let address = on.next().unwrap().addresses[0].clone();
        address.split('/').next().unwrap().to_owned()
    };
    assert_eq!(seen(&own, gateway, "own.n"), Some(vec![v4("n")]));
    assert_eq!(seen(&own, gateway, "own.g"), Some(vec![v4("g")]));
    let conf = file(&stage, "own", "resolv.conf");
    assert!(conf.contains(&format!("nameserver {gateway}\n")), "{conf}");
    assert!(!conf.contains(&format!("nameserver {FAR_V4}")), "{conf}");
    stage.assert_in_place();
}

#[test]
fn a_gateway_answers_on_every_kind_of_network_that_has_one() {
    let Some(stage) = Stage::start() else { return };
    stage.shell("ip link add br0 type bridge && ip link set br0 up");
    stage.shell("ip address add 10.85.0.1/24 dev br0 && ip address add fd85::1/64 dev br0 nodad");
    for (network, words) in [
        ("inner", "--ipv6 --internal"),
        ("segment", "--ipv6 --multicast"),
        ("quiet", "--ipv6 --icc=false"),
        ("six", "--ipv4=false --ipv6"),
        ("routed", "--ipv6 --gateway-mode routed"),
        ("two", "--subnet 10.86.0.0/24 --subnet 10.87.0.0/24"),
        ("lan", "--device br0 --ipv6"),
    ] {
        stage.ok(&format!(
            "network create {network} --resolver gateway {words}"
        ));
        let [a, b] = ["a", "b"].map(|name| {
            stage.sandbox(
                &format!("{network}-{name}"),
                &format!("--network {network}"),
            )
        });
        let subnets = stage.network(network).subnets.into_iter();
        let gateways: Vec<IpAddr> = subnets.map(|s| ip(&s.gateway.unwrap())).collect();
        let conf = file(&stage, &format!("{network}-a"), "resolv.conf");
        for gateway in &gateways {
            let other = format!("{network}-b");
            let v6 = ask_at(&a, *gateway, &format!("{other} AAAA")).data();
            let v4 = ask_at(&a, *gateway, &format!("{other} A +tcp")).data();
            let found: Vec<IpAddr> = v4.iter().chain(&v6).map(|data| ip(data)).collect();
            assert_eq!(found, b.addresses, "{network} at {gateway}");
            assert!(conf.contains(&format!("nameserver {gateway}\n")), "{conf}");
        }
    }
    stage.assert_in_place();
}

#[test]
fn where_the_resolver_answers_follows_the_first_network_that_has_one() {
    let Some(stage) = Stage::start() else { return };
    for (network, words) in [
        ("g", "--resolver gateway"),
        ("n", ""),
        ("o", "--resolver off --dns 192.0.2.53"),
    ] {
        stage.ok(&format!("network create {network} {words}"));
    }
    idle(&stage, "web", "--network g");
    let gateway = stage.gateway("g", false).to_string();
    // What the program is told to ask, and whether it finds itself there.
    let assert_at = |server: &str| {
        let conf = inside(&stage, "web", "cat /etc/resolv.conf");
        let servers = conf.lines().filter_map(|l| l.strip_prefix("nameserver "));
        assert_eq!(servers.collect::<Vec<_>>(), [server], "{conf}");
        let place = stage.place("web");
        if server != "192.0.2.53" {
            assert_eq!(ask_at(&place, ip(server), "web A").data().len(), 1);
        }
        let inner = place.ok("ss -Hlntu src 127.0.0.11").lines().count();
        assert_eq!(
            inner,
            if server == "127.0.0.11" { 2 } else { 0 },
            "{server}"
        );
    };
    assert_at(&gateway);
    stage.ok("network connect n web");
    assert_at(&gateway);
    stage.ok("network disconnect g web");
    assert_at("127.0.0.11");
    stage.ok("network connect g web");
    assert_at("127.0.0.11");
    stage.ok("network disconnect n web");
    assert_at(&gateway);
    stage.ok("network connect o web");
    stage.ok("network disconnect g web");
    assert_at("192.0.2.53");
    stage.ok("network connect n web");
    assert_at("127.0.0.11");
    let bound = || stage.shell("ss -Hlntu sport = :53");
    assert_soon("the sockets at the gateway are closed", || {
        bound().is_empty()
    });
    stage.assert_in_place();
}
