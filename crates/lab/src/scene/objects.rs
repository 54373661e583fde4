//! The objects of a scene's networks and endpoints, shaped like those of a bridge driver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tombolo_netstate::object::address::{AddressKey, AddressSpec};
use tombolo_netstate::object::detour::DetourKey;
use tombolo_netstate::object::fdb::{FdbKey, FdbSpec};
use tombolo_netstate::object::link::{LinkKey, LinkKind, LinkSpec, Port};
use tombolo_netstate::object::listener::{ListenerKey, ListenerSpec};
use tombolo_netstate::object::neighbour::{NeighbourKey, NeighbourSpec};
use tombolo_netstate::object::netns::{NetnsKey, NetnsSpec};
use tombolo_netstate::object::nft::{BaseSpec, ElementKey, ElementSpec, Field, SetName};
use tombolo_netstate::object::route::{RouteKey, RouteSpec};
use tombolo_netstate::{IfName, Key, Mac, Netns, Objects, Spec};

use super::{Bridge, Endpoint, sandbox};

/// Where names are answered inside a sandbox.
const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

impl Bridge {
    pub(super) fn objects(&self, slot: u8) -> Objects {
        let mut objects = Objects::new();
        let main = name(&format!("br{slot}"));
        put_link(&mut objects, &host(main), self.link(slot, 0));
        for leaf in 1..=self.leaves {
            self.put_leaf(&mut objects, slot, leaf);
        }
        for ip in self.addresses(slot, 1) {
            let spec = AddressSpec {
                prefix_len: self.prefix(ip),
                prefix_route: true,
                announce: None,
            };
            put_address(&mut objects, &host(main), ip, spec);
            if self.snooping {
                put_listener(&mut objects, &Netns::Host, ip);
            }
        }
        let name = Field::Name(main);
        put_element(&mut objects, SetName::Bridges, vec![name], vec![]);
        put_element(&mut objects, SetName::Intra, vec![name, name], vec![]);
        if self.internal {
            put_element(&mut objects, SetName::Internal, vec![name], vec![]);
            return objects;
        }
        let subnet = Field::Net(self.subnet(slot));
        match self.snat {
            None => put_element(&mut objects, SetName::Masquerade4, vec![subnet], vec![]),
            Some(last) => {
                let to = Field::Address(Ipv4Addr::new(192, 0, 2, last).into());
                put_element(&mut objects, SetName::Snat4, vec![subnet], vec![to]);
            }
        }
        objects
    }

    fn link(&self, slot: u8, leaf: u8) -> LinkSpec {
        LinkSpec {
            kind: LinkKind::Bridge {
                snooping: self.snooping,
                localnet: self.ipv6,
            },
            mac: mac(1, slot, leaf),
            mtu: self.mtu,
            port: None,
            ipv6: self.ipv6 && leaf == 0,
            link_local: false,
            alias: format!("network {slot}").into(),
        }
    }

    fn put_leaf(&self, objects: &mut Objects, slot: u8, leaf: u8) {
        let (up, down) = (
            host(uplink(slot, leaf)),
            host(name(&format!("d{slot}x{leaf}"))),
        );
        put_link(
            objects,
            &host(bridge_name(slot, leaf)),
            self.link(slot, leaf),
        );
        let name = Field::Name(bridge_name(slot, leaf));
        put_element(objects, SetName::Leaves, vec![name], vec![]);
        let end = |kind, side, bridge| LinkSpec {
            kind,
            mac: mac(side, slot, leaf),
            port: Some(Port {
                bridge,
                isolated: false,
                flood: true,
                hairpin: true,
                direct: None,
            }),
            ipv6: false,
            ..self.link(slot, leaf)
        };
        let pair = LinkKind::Veth {
            peer: down.clone(),
            peer_mac: mac(3, slot, leaf),
        };
        put_link(objects, &up, end(pair, 2, bridge_name(slot, 0)));
        let peer = LinkKind::Peer { pair: up };
        put_link(objects, &down, end(peer, 3, bridge_name(slot, leaf)));
    }

    fn addresses(&self, slot: u8, last: u8) -> Vec<IpAddr> {
        let mut all = vec![IpAddr::V4(Ipv4Addr::new(10, slot, 0, last))];
        if self.ipv6 {
            let last = u16::from(last);
            all.push(Ipv6Addr::new(0xfd00, u16::from(slot), 0, 0, 0, 0, 0, last).into());
        }
        all
    }

    fn prefix(&self, ip: IpAddr) -> u8 {
        if ip.is_ipv4() { self.prefix_len } else { 64 }
    }

    fn subnet(&self, slot: u8) -> IpNet {
        Ipv4Net::new_assert(Ipv4Addr::new(10, slot, 0, 0), self.prefix_len).into()
    }
}

impl Endpoint {
    pub(super) fn objects(&self, slot: u8, bridge: &Bridge) -> Objects {
        let mut objects = Objects::new();
        let netns = sandbox(slot / 2);
        if let Netns::Owned(name) = &netns {
            let name = name.clone();
            objects.insert(Key::Netns(NetnsKey { name }), Spec::Netns(NetnsSpec));
        }
        let inner = LinkKey {
            netns,
            name: name(if self.swapped == (slot.is_multiple_of(2)) {
                "eth1"
            } else {
                "eth0"
            }),
        };
        if self.sourced {
            put_listener(&mut objects, &inner.netns, RESOLVER);
            self.put_detour(&mut objects, &inner.netns);
        }
        if self.is_lent(&inner.netns) {
            self.put_lent(&mut objects, slot, bridge);
            return objects;
        }
        self.put_veth(&mut objects, slot, bridge, &inner);
        let main = bridge_name(self.bridge, 0);
        let gateways = bridge.addresses(self.bridge, 1);
        let last = 10 + slot + 16 * self.host;
        for (ip, gateway) in bridge
            .addresses(self.bridge, last)
            .into_iter()
            .zip(gateways)
        {
            let spec = AddressSpec {
                prefix_len: bridge.prefix(ip),
                prefix_route: false,
                announce: self.announced.then(|| self.mac(slot)),
            };
            put_address(&mut objects, &inner, ip, spec);
            put_neighbour(&mut objects, &inner, gateway, mac(1, self.bridge, 0));
            put_neighbour(&mut objects, &host(main), ip, self.mac(slot));
            self.put_routes(&mut objects, slot, &inner, ip, gateway);
        }
        objects
    }

    fn mac(&self, slot: u8) -> Mac {
        mac(4, slot, self.mac)
    }

    /// Some of those in namespaces of others are lent to whoever made them.
    fn is_lent(&self, netns: &Netns) -> bool {
        matches!(netns, Netns::Adopted { .. }) && self.announced
    }

    fn put_detour(&self, objects: &mut Objects, netns: &Netns) {
        if let Netns::Adopted { .. } = netns {
            let netns = netns.clone();
            let table = BaseSpec {
                digest: 1 + u64::from(self.swapped),
                ruleset: Arc::default(),
            };
            objects.insert(Key::Detour(DetourKey { netns }), Spec::Detour(table));
        }
    }

    /// The host's end and what the host knows; the rest is the engine's.
    fn put_lent(&self, objects: &mut Objects, slot: u8, bridge: &Bridge) {
        let kind = LinkKind::Lent {
            name: name(&format!("lent{slot}")),
        };
        self.put_outer(objects, slot, bridge, kind);
        let main = bridge_name(self.bridge, 0);
        for ip in bridge.addresses(self.bridge, 10 + slot + 16 * self.host) {
            put_neighbour(objects, &host(main), ip, self.mac(slot));
        }
    }

    fn put_veth(&self, objects: &mut Objects, slot: u8, bridge: &Bridge, inner: &LinkKey) {
        let kind = LinkKind::Veth {
            peer: inner.clone(),
            peer_mac: self.mac(slot),
        };
        let (outer, link) = self.put_outer(objects, slot, bridge, kind);
        let peer = LinkSpec {
            kind: LinkKind::Peer { pair: outer },
            mac: self.mac(slot),
            port: None,
            ipv6: true,
            ..link
        };
        put_link(objects, inner, peer);
    }

    fn put_outer(
        &self,
        objects: &mut Objects,
        slot: u8,
        bridge: &Bridge,
        kind: LinkKind,
    ) -> (LinkKey, LinkSpec) {
        let leaf = self.leaf % (bridge.leaves + 1);
        let (main, on) = (bridge_name(self.bridge, 0), bridge_name(self.bridge, leaf));
        let outer = host(name(&format!("t{slot}")));
        let port = Port {
            bridge: on,
            isolated: true,
            flood: false,
            hairpin: self.hairpin,
            direct: self.hairpin.then_some(main),
        };
        let link = LinkSpec {
            kind,
            mac: mac(5, slot, 0),
            mtu: bridge.mtu,
            port: Some(port),
            ipv6: false,
            link_local: false,
            alias: format!("endpoint {slot}").into(),
        };
        put_link(objects, &outer, link.clone());
        put_fdb(objects, on, self.mac(slot), outer.name);
        if leaf > 0 {
            put_fdb(objects, main, self.mac(slot), uplink(self.bridge, leaf));
        }
        (outer, link)
    }

    fn put_routes(&self, all: &mut Objects, slot: u8, at: &LinkKey, ip: IpAddr, gateway: IpAddr) {
        let mut put = |destination, metric| {
            let key = RouteKey {
                netns: at.netns.clone(),
                destination,
                metric,
            };
            let spec = RouteSpec {
                link: at.name,
                via: Some(gateway),
                source: self.sourced.then_some(ip),
            };
            all.insert(Key::Route(key), Spec::Route(spec));
        };
        let metric = 100 + u32::from(slot % 2);
        let v6 = |seg| Ipv6Net::new_assert(Ipv6Addr::new(seg, 0, 0, 0, 0, 0, 0, 0), 16).into();
        if ip.is_ipv4() {
            put(Ipv4Net::default().into(), metric);
        } else {
            put(Ipv6Net::default().into(), metric);
        }
        let Some(extra) = self.routed else { return };
        if ip.is_ipv4() {
            put(
                Ipv4Net::new_assert(Ipv4Addr::new(172, 16 + extra, 0, 0), 16).into(),
                metric,
            );
        } else {
            put(v6(0xfc10 + u16::from(extra)), metric);
        }
    }
}

fn name(text: &str) -> IfName {
    IfName::new(text).expect("generated names are short ASCII")
}

fn host(name: IfName) -> LinkKey {
    LinkKey {
        netns: Netns::Host,
        name,
    }
}

fn bridge_name(slot: u8, leaf: u8) -> IfName {
    if leaf == 0 {
        name(&format!("br{slot}"))
    } else {
        name(&format!("br{slot}x{leaf}"))
    }
}

fn uplink(slot: u8, leaf: u8) -> IfName {
    name(&format!("u{slot}x{leaf}"))
}

fn mac(kind: u8, slot: u8, variant: u8) -> Mac {
    Mac([2, kind, 0, 0, slot, variant])
}

fn put_link(objects: &mut Objects, at: &LinkKey, spec: LinkSpec) {
    objects.insert(Key::Link(at.clone()), Spec::Link(Box::new(spec)));
}

fn put_address(objects: &mut Objects, at: &LinkKey, ip: IpAddr, spec: AddressSpec) {
    let key = AddressKey {
        netns: at.netns.clone(),
        link: at.name,
        ip,
    };
    objects.insert(Key::Address(key), Spec::Address(spec));
}

fn put_neighbour(objects: &mut Objects, at: &LinkKey, ip: IpAddr, mac: Mac) {
    let key = NeighbourKey {
        netns: at.netns.clone(),
        link: at.name,
        ip,
    };
    objects.insert(Key::Neighbour(key), Spec::Neighbour(NeighbourSpec { mac }));
}

fn put_listener(objects: &mut Objects, netns: &Netns, address: IpAddr) {
    let key = ListenerKey {
        netns: netns.clone(),
        address,
        port: 53,
    };
    objects.insert(Key::Listener(key), Spec::Listener(ListenerSpec));
}

fn put_fdb(objects: &mut Objects, bridge: IfName, mac: Mac, port: IfName) {
    objects.insert(
        Key::Fdb(FdbKey { bridge, mac }),
        Spec::Fdb(FdbSpec { port }),
    );
}

fn put_element(objects: &mut Objects, set: SetName, fields: Vec<Field>, data: Vec<Field>) {
    objects.insert(
        Key::Element(ElementKey::new(set, fields)),
        Spec::Element(ElementSpec::new(data)),
    );
}
