//! Who reaches a sandbox in each gateway mode, over each family and protocol, and as whom.

use std::net::{IpAddr, SocketAddr};

use tombolo_api::Protocol;
use tombolo_lab::node::{FAR_V4, FAR_V6, NODE_V4, NODE_V6, ROUTER_V4, ROUTER_V6, wait_until};
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::talk::{Sees, Server, Way, ask, assert_ways};

/// The port that is published, on the host.
const HOST: u16 = 8080;
/// The port that is published, in the sandbox.
const SERVED: u16 = 80;
/// A port of the sandbox that is not.
const PRIVATE: u16 = 81;

/// A gateway mode that lets sandboxes have publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nat,
    Unprotected,
    Routed,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Unprotected => "nat-unprotected",
            Self::Routed => "routed",
        }
    }
}

/// Networks `a` and `b`; `a1` serves and publishes on `a`, `a2` is beside it, `b1` is on `b`.
struct Scene {
    stage: Stage,
    a1: Place,
    a2: Place,
    b1: Place,
    here: Place,
    far: Place,
    host: Vec<IpAddr>,
    _server: Server,
}

impl Scene {
    /// Network `a` has these options; what else there is to be before `a1` is made is the caller's.
    fn new(options: &str, prepare: impl FnOnce(&Stage)) -> Option<Self> {
        let stage = Stage::start()?;
        stage.ok(&format!("network create a --ipv6 {options}"));
        stage.ok("network create b --ipv6");
        prepare(&stage);
        let a2 = stage.sandbox("a2", "--network a");
        let b1 = stage.sandbox("b1", "--network b");
        let publish = format!("-p {HOST}:{SERVED} -p {HOST}:{SERVED}/udp");
        let a1 = stage.sandbox("a1", &format!("--network a {publish}"));
        for (address, via) in [(a1.v4(), NODE_V4), (a1.v6(), NODE_V6)] {
            stage.shell_outside(&format!("ip route add {address} via {via}"));
        }
        let server = Server::at(&a1, "a1", SERVED..=PRIVATE);
        let scene = Self {
            here: stage.here(),
            far: stage.far(),
            host: stage.own_addresses(),
            _server: server,
            stage,
            a1,
            a2,
            b1,
        };
        Some(scene)
    }

    fn way<'a>(
        &self,
        what: &'static str,
        from: &'a Place,
        to: (IpAddr, u16),
        sees: Sees,
    ) -> Way<'a> {
        Way {
            what,
            from,
            source: None,
            to: SocketAddr::from(to),
            sees,
        }
    }

    /// Ways by the host's addresses to what is published.
    fn by_the_host(&self, ipv6: bool, mode: Mode, beside: Sees) -> Vec<Way<'_>> {
        let node = ip(ipv6, [NODE_V4, NODE_V6]);
        let gateway = |network| self.stage.gateway(network, ipv6);
        let published = |sees| match mode {
            Mode::Routed => Sees::Nobody,
            _ => sees,
        };
        let to = |address: IpAddr| (address, HOST);
        let (client, host) = (published(Sees::Client), published(Sees::Host));
        let (own, other) = (gateway("a"), gateway("b"));
        let loopback = ip(ipv6, ["127.0.0.1", "::1"]);
        let mut ways = vec![
            self.way("outside", &self.far, to(node), client),
            self.way("host", &self.here, to(node), client),
            self.way("host", &self.here, to(loopback), host),
            self.way("host by a's gateway", &self.here, to(own), client),
            self.way("host by b's gateway", &self.here, to(other), client),
            self.way("same network", &self.a2, to(node), published(beside)),
            self.way(
                "same network by its gateway",
                &self.a2,
                to(own),
                published(beside),
            ),
            self.way("other network", &self.b1, to(node), client),
            self.way("other network by its gateway", &self.b1, to(other), client),
            self.way("itself", &self.a1, to(node), host),
            self.way("itself by its gateway", &self.a1, to(own), host),
            self.way(
                "outside, unpublished",
                &self.far,
                (node, PRIVATE),
                Sees::Nobody,
            ),
            self.way(
                "host, unpublished",
                &self.here,
                (node, PRIVATE),
                Sees::Nobody,
            ),
        ];
        for source in [ip(ipv6, [FAR_V4, FAR_V6]), ip(ipv6, [ROUTER_V4, ROUTER_V6])] {
            let way = self.way("outside from", &self.far, to(node), client);
            ways.push(Way {
                source: Some(source),
                ..way
            });
        }
        ways
    }

    /// Ways to the sandbox's own address.
    fn straight(&self, ipv6: bool, mode: Mode) -> Vec<Way<'_>> {
        let a1 = if ipv6 { self.a1.v6() } else { self.a1.v4() };
        let (served, private) = ((a1, SERVED), (a1, PRIVATE));
        let when = |holds| if holds { Sees::Client } else { Sees::Nobody };
        let (if_served, if_private) = (when(mode != Mode::Nat), when(mode == Mode::Unprotected));
        vec![
            self.way("outside straight", &self.far, served, if_served),
            self.way(
                "outside straight, unpublished",
                &self.far,
                private,
                if_private,
            ),
            self.way("other network straight", &self.b1, served, if_served),
            self.way(
                "other network straight, unpublished",
                &self.b1,
                private,
                if_private,
            ),
            self.way("host straight", &self.here, served, Sees::Client),
            self.way(
                "host straight, unpublished",
                &self.here,
                private,
                Sees::Client,
            ),
            self.way("same network straight", &self.a2, served, Sees::Client),
            self.way(
                "same network straight, unpublished",
                &self.a2,
                private,
                Sees::Client,
            ),
            self.way("itself straight", &self.a1, private, Sees::Client),
        ]
    }

    /// Asserts every cell of a family, where a neighbour by way of the host is seen as `beside`.
    #[track_caller]
    fn assert_family(&self, ipv6: bool, mode: Mode, beside: Sees) {
        let mut ways = self.by_the_host(ipv6, mode, beside);
        ways.extend(self.straight(ipv6, mode));
        assert_ways(&ways, "a1", &self.host);
        let a1 = if ipv6 { self.a1.v6() } else { self.a1.v4() };
        assert!(self.here.pings(a1) && self.a2.pings(a1), "{a1} from inside");
        for (from, what) in [(&self.far, "outside"), (&self.b1, "other network")] {
            match mode {
                Mode::Nat => assert!(from.pings_in_vain(a1), "{what} pings {a1}"),
                _ => assert!(from.pings(a1), "{what} does not ping {a1}"),
            }
        }
        let leaves_as = match mode {
            Mode::Routed => a1,
            _ => ip(ipv6, [NODE_V4, NODE_V6]),
        };
        let far = ip(ipv6, [FAR_V4, FAR_V6]);
        assert_eq!(self.a1.seen_by(&self.far, far), Some(leaves_as));
    }

    #[track_caller]
    fn assert_all(&self, mode: Mode, beside: Sees) {
        for ipv6 in [false, true] {
            self.assert_family(ipv6, mode, beside);
        }
        self.stage.assert_in_place();
    }
}

fn ip(ipv6: bool, addresses: [&str; 2]) -> IpAddr {
    addresses[usize::from(ipv6)].parse().unwrap()
}

fn assert_mode(mode: Mode) {
    let options = format!("--gateway-mode {}", mode.word());
    let Some(scene) = Scene::new(&options, |_| ()) else {
        return;
    };
    scene.assert_all(mode, Sees::Client);
}

#[test]
fn nat_opens_published_ports_by_the_hosts_addresses_alone() {
    assert_mode(Mode::Nat);
}

#[test]
fn nat_unprotected_opens_every_port_and_echo_at_the_sandboxs_address_too() {
    assert_mode(Mode::Unprotected);
}

#[test]
fn routed_opens_published_ports_and_echo_at_the_sandboxs_address_alone() {
    assert_mode(Mode::Routed);
}

#[test]
fn each_family_has_its_own_mode() {
    let options = "--gateway-mode-ipv4 nat --gateway-mode-ipv6 routed";
    let Some(scene) = Scene::new(options, |_| ()) else {
        return;
    };
    scene.assert_family(false, Mode::Nat, Sees::Client);
    scene.assert_family(true, Mode::Routed, Sees::Client);
    scene.stage.assert_in_place();
}

/// Whether frames that cross bridges pass the hooks of IP too, where the kernel can do that.
fn filter_bridges(stage: &Stage, on: bool) {
    let value = u8::from(on);
    stage.shell(&format!(
        "for key in iptables ip6tables; do file=/proc/sys/net/bridge/bridge-nf-call-$key; \
         if [ -e $file ]; then echo {value} >$file; fi; done"
    ));
}

#[test]
fn without_bridge_netfilter_nothing_changes() {
    let Some(scene) = Scene::new("", |stage| filter_bridges(stage, false)) else {
        return;
    };
    scene.assert_all(Mode::Nat, Sees::Client);
}

#[test]
fn on_a_plain_link_layer_a_neighbour_is_seen_as_the_host() {
    let Some(scene) = Scene::new("--multicast", |stage| filter_bridges(stage, false)) else {
        return;
    };
    scene.assert_all(Mode::Nat, Sees::Host);
}

#[test]
fn on_a_plain_link_layer_bridge_netfilter_changes_nothing() {
    let Some(scene) = Scene::new("--multicast", |stage| filter_bridges(stage, true)) else {
        return;
    };
    scene.assert_all(Mode::Nat, Sees::Host);
}

#[test]
fn endpoints_of_leaf_bridges_publish_like_others() {
    let fill = |stage: &Stage| {
        let mut client = stage.client();
        for number in 0..34 {
            let attachment = tombolo_api::NetworkAttachment {
                network: "a".to_owned(),
                ..Default::default()
            };
            let sandbox = tombolo_api::SandboxCreate {
                name: Some(format!("filler{number}")),
                networks: vec![attachment],
                ..Default::default()
            };
            client.sandbox_create(sandbox).unwrap();
        }
    };
    let Some(scene) = Scene::new("", fill) else {
        return;
    };
    let leaves = scene
        .stage
        .shell("ip -o link show type bridge | grep -c ': tl'");
    assert!(leaves.parse::<u32>().unwrap() >= 1, "{leaves} leaf bridges");
    filter_bridges(&scene.stage, true);
    scene.assert_all(Mode::Nat, Sees::Client);
    filter_bridges(&scene.stage, false);
    scene.assert_all(Mode::Nat, Sees::Client);
}

#[test]
fn without_icc_neighbours_reach_only_what_is_published() {
    let Some(scene) = Scene::new("--icc=false", |_| ()) else {
        return;
    };
    for ipv6 in [false, true] {
        let mut ways = scene.by_the_host(ipv6, Mode::Nat, Sees::Client);
        let a1 = if ipv6 { scene.a1.v6() } else { scene.a1.v4() };
        for port in [SERVED, PRIVATE, HOST] {
            ways.push(scene.way("same network straight", &scene.a2, (a1, port), Sees::Nobody));
        }
        ways.push(scene.way("host straight", &scene.here, (a1, PRIVATE), Sees::Client));
        assert_ways(&ways, "a1", &scene.host);
        assert!(scene.a2.pings_in_vain(a1));
    }
    scene.stage.assert_in_place();
}

#[test]
fn routed_ranges_and_filters_open_what_they_say() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create r --ipv6 --gateway-mode routed");
    let (four, six) = ("from=198.51.100.0/24", "from=2001:db8:ffff::/48");
    let publish = ["9000:80", "9100-9101:82-83"]
        .map(|ports| format!("-p {ports},{four},{six} -p {ports}/udp,{four},{six}"))
        .join(" ");
    let r = stage.sandbox(
        "r",
        &format!("--network r {publish} -p 9005-9006:85-86 -p 9005-9006:85-86/udp"),
    );
    for (address, via) in [(r.v4(), NODE_V4), (r.v6(), NODE_V6)] {
        stage.shell_outside(&format!("ip route add {address} via {via}"));
    }
    let _server = Server::at(&r, "r", 80..=87);
    let far = stage.far();
    let check = |filtered: Sees| {
        let mut ways = Vec::new();
        for (to, named, other) in [(r.v4(), FAR_V4, ROUTER_V4), (r.v6(), FAR_V6, ROUTER_V6)] {
            for port in 80..=87 {
                let (in_filter, in_open) = ([80, 82, 83].contains(&port), [85, 86].contains(&port));
                for (source, is_named) in [(named, true), (other, false)] {
                    let sees = match (in_filter, in_open) {
                        (true, _) if is_named => Sees::Client,
                        (true, _) => filtered,
                        (_, true) => Sees::Client,
                        _ => Sees::Nobody,
                    };
                    ways.push(Way {
                        what: "outside",
                        from: &far,
                        source: Some(source.parse().unwrap()),
                        to: SocketAddr::new(to, port),
                        sees,
                    });
                }
            }
        }
        assert_ways(&ways, "r", &[]);
    };
    check(Sees::Nobody);
    stage.ok("publish add r 9000:80 9000:80/udp 9100-9101:82-83 9100-9101:82-83/udp");
    check(Sees::Client);
    stage.assert_in_place();
}

#[test]
fn the_first_packet_finds_a_sandbox_that_has_not_spoken_yet() {
    let Some(stage) = Stage::start() else { return };
    for (number, options) in ["", "--multicast"].into_iter().enumerate() {
        stage.ok(&format!("network create n{number} --ipv6 {options}"));
        for (port, address) in [(8080, NODE_V4), (8081, NODE_V6)] {
            let port = port + 10 * u16::try_from(number).unwrap();
            let name = format!("s{port}");
            let s = stage.sandbox(&name, &format!("--network n{number} -p {port}:80"));
            let _server = Server::at(&s, &name, 80..=80);
            let to = SocketAddr::new(address.parse().unwrap(), port);
            // Neither the host nor the sandbox has had a reason to ask who has which address.
            let found = wait_until(PATIENCE, || {
                ask(&stage.far(), None, Protocol::Tcp, to).is_some()
            });
            assert!(found, "network create {options}: {to}");
        }
    }
}
