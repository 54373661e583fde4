//! From raw records to keys and specs: only what we set, and only what is ours.

use std::collections::BTreeMap;

use ipnet::IpNet;
use tombolo_netstate::object::address::{AddressKey, AddressSpec};
use tombolo_netstate::object::fdb::{FdbKey, FdbSpec};
use tombolo_netstate::object::link::{KEPT_MAC, KEPT_MTU, LinkKey, LinkKind, LinkSpec, Port};
use tombolo_netstate::object::neighbour::{NeighbourKey, NeighbourSpec};
use tombolo_netstate::object::route::{PROTOCOL, RouteKey, RouteSpec};
use tombolo_netstate::{Key, Mac, Netns, Spec};

use super::view::View;
use super::{Observed, Scope, unknown_twin};
use crate::alias::{self, Said, SaidKind};
use crate::kernel::{Kernel, is_passing};
use crate::limits::GROUP_GRAVEYARD;
use crate::netlink::link::{Kind, LinkRecord};
use crate::netlink::{ReadBuffer, Socket, link};
use crate::reaper::Burial;

/// Turns views into objects.
#[derive(Debug)]
pub(super) struct Projection<'a> {
    kernel: &'a Kernel,
    scope: &'a Scope,
    views: &'a [View],
    /// Our other ends in sandboxes, by the number of their pair in the host.
    twins: BTreeMap<u32, Vec<(&'a View, &'a LinkRecord)>>,
}

impl<'a> Projection<'a> {
    pub(super) fn new(kernel: &'a Kernel, scope: &'a Scope, views: &'a [View]) -> Self {
        let mut twins: BTreeMap<u32, Vec<(&View, &LinkRecord)>> = BTreeMap::new();
        for view in views.iter().filter(|view| view.netns != Netns::Host) {
            for record in view
                .links
                .values()
                .filter(|record| record.kind == Kind::Veth)
            {
                if let Some(pair) = record.link {
                    twins.entry(pair).or_default().push((view, record));
                }
            }
        }
        Self {
            kernel,
            scope,
            views,
            twins,
        }
    }

    /// Writes all objects of all views. `host` answers about single links of a host that was not asked for.
    pub(super) fn write(&self, host: &Socket, buffer: &mut ReadBuffer, seen: &mut Observed) {
        let host_view = self.views.iter().find(|view| view.netns == Netns::Host);
        for view in self.views {
            let mut left_out = Vec::new();
            for record in view.links.values() {
                let Some(alias) = record.owned_alias(&self.kernel.mark) else {
                    continue;
                };
                if alias::is_lent_end(alias) {
                    left_out.push(record.index);
                    continue;
                }
                let said = alias::read(alias);
                let kind = match said.kind {
                    _ if is_passing(record) => None,
                    Some(SaidKind::Lent(name)) => Some(LinkKind::Lent { name }),
                    // One that is not taken yet, or is given back already, is its maker's.
                    Some(SaidKind::Taken { .. }) if view.netns == Netns::Host => None,
                    Some(SaidKind::Taken { from, .. }) => Some(LinkKind::Taken { from }),
                    None => self.kind(view, record, |index| match host_view {
                        Some(host) => host.links.get(&index).cloned(),
                        None => link::get_by_index(host, index, buffer),
                    }),
                };
                let Some(kind) = kind else {
                    left_out.push(record.index);
                    continue;
                };
                let key = LinkKey {
                    netns: view.netns.clone(),
                    name: record.name,
                };
                let spec = link_spec(view, record, kind, said);
                seen.objects
                    .insert(Key::Link(key), Spec::Link(Box::new(spec)));
            }
            self.write_inside(view, &left_out, seen);
            let buried = |link: &LinkRecord| link.group == GROUP_GRAVEYARD;
            if view.netns == Netns::Host && view.links.values().any(buried) {
                self.kernel.bury(Burial::Leftover);
            }
        }
    }

    /// What a link of ours is; none when its pair is being removed, and the link with it.
    fn kind(
        &self,
        view: &View,
        record: &LinkRecord,
        mut host_link: impl FnMut(u32) -> Option<LinkRecord>,
    ) -> Option<LinkKind> {
        match record.kind {
            Kind::Bridge { snooping } => Some(LinkKind::Bridge {
                snooping,
                localnet: record.localnet,
            }),
            Kind::Tun | Kind::Other => None,
            Kind::Veth if !record.link_elsewhere => {
                let other = view.links.get(&record.link?)?;
                let other_key = LinkKey {
                    netns: view.netns.clone(),
                    name: other.name,
                };
                // The end from which a pair is made has the lower number of the two.
                Some(if record.index < other.index {
                    LinkKind::Veth {
                        peer: other_key,
                        peer_mac: other.mac?,
                    }
                } else {
                    LinkKind::Peer { pair: other_key }
                })
            }
            Kind::Veth if view.netns == Netns::Host => {
                let (peer, peer_mac) = self.twin(record)?;
                Some(LinkKind::Veth { peer, peer_mac })
            }
            Kind::Veth => {
                let pair = host_link(record.link?)?;
                let is_pair = pair.link == Some(record.index) && !is_passing(&pair);
                let pair_key = LinkKey {
                    netns: Netns::Host,
                    name: pair.name,
                };
                is_pair.then_some(LinkKind::Peer { pair: pair_key })
            }
        }
    }

    /// The other end of a veth of the host: as seen, as remembered, or unknown.
    fn twin(&self, record: &LinkRecord) -> Option<(LinkKey, Mac)> {
        let seen = self.twins.get(&record.index).into_iter().flatten();
        let found = seen
            .filter(|(_, twin)| Some(twin.index) == record.link)
            .find_map(|(view, twin)| {
                let key = LinkKey {
                    netns: view.netns.clone(),
                    name: twin.name,
                };
                Some((key, twin.mac?))
            });
        if let Some((key, mac)) = found {
            self.kernel.remember_twin(record.index, key.clone(), mac);
            return Some((key, mac));
        }
        // A namespace that was asked about and did not show the other end does not have it.
        let remembered = self.kernel.twin_of(record.index);
        remembered
            .filter(|(key, _)| !self.scope.sandboxes.contains(&key.netns))
            .or_else(|| Some((unknown_twin()?, Mac([0; 6]))))
    }

    /// Addresses, neighbours, forwarding entries and routes; not those of links that are left out.
    fn write_inside(&self, view: &View, left_out: &[u32], seen: &mut Observed) {
        let stays = |index: u32| {
            view.links
                .get(&index)
                .filter(|link| !left_out.contains(&index) && !is_passing(link))
        };
        self.write_addresses(view, &stays, seen);
        for entry in &view.neighbours {
            let Some(link) = stays(entry.index) else {
                continue;
            };
            let key = NeighbourKey {
                netns: view.netns.clone(),
                link: link.name,
                ip: entry.ip,
            };
            let spec = NeighbourSpec { mac: entry.mac };
            seen.objects
                .insert(Key::Neighbour(key), Spec::Neighbour(spec));
        }
        for entry in &view.fdb {
            let Some((port, bridge)) = stays(entry.port).zip(view.links.get(&entry.bridge)) else {
                continue;
            };
            if port.owned_alias(&self.kernel.mark).is_none() {
                continue;
            }
            let key = FdbKey {
                bridge: bridge.name,
                mac: entry.mac,
            };
            seen.objects
                .insert(Key::Fdb(key), Spec::Fdb(FdbSpec { port: port.name }));
        }
        for route in &view.routes {
            let Some(link) = route.link.and_then(stays) else {
                continue;
            };
            let key = RouteKey {
                netns: view.netns.clone(),
                destination: route.destination,
                metric: route.metric,
            };
            let spec = RouteSpec {
                link: link.name,
                via: route.via,
                source: route.source,
            };
            seen.objects.insert(Key::Route(key), Spec::Route(spec));
        }
    }

    fn write_addresses<'v>(
        &self,
        view: &'v View,
        stays: &dyn Fn(u32) -> Option<&'v LinkRecord>,
        seen: &mut Observed,
    ) {
        for address in &view.addresses {
            let Some(link) = stays(address.index) else {
                continue;
            };
            let own_link = link.owned_alias(&self.kernel.mark).is_some();
            let ours = if self.kernel.address_protocol {
                address.protocol == Some(PROTOCOL)
            } else {
                own_link && address.is_assigned()
            };
            if ours {
                let key = AddressKey {
                    netns: view.netns.clone(),
                    link: link.name,
                    ip: address.ip,
                };
                let spec = AddressSpec {
                    prefix_len: address.prefix_len,
                    prefix_route: address.has_prefix_route(),
                    announce: self.scope.announced.get(&key).copied(),
                };
                seen.objects.insert(Key::Address(key), Spec::Address(spec));
            } else if own_link && !address.link_scope {
                let net = IpNet::new(address.ip, address.prefix_len);
                let net = net.map_or_else(|_| address.ip.to_string(), |net| net.to_string());
                seen.notes
                    .push(format!("{net} on {}:{} is not ours", view.netns, link.name));
            }
        }
    }
}

fn link_spec(view: &View, record: &LinkRecord, kind: LinkKind, said: Said<'_>) -> LinkSpec {
    let port = record.port.zip(record.master).and_then(|(port, master)| {
        Some(Port {
            bridge: view.links.get(&master)?.name,
            isolated: port.isolated,
            flood: port.unicast && port.multicast && port.broadcast,
            hairpin: port.hairpin,
            direct: view
                .direct
                .get(&record.index)
                .and_then(|device| Some(view.links.get(device)?.name)),
        })
    });
    let even = record
        .port
        .is_none_or(|port| port.unicast == port.multicast && port.multicast == port.broadcast);
    let (mac, mtu) = match said.kind {
        Some(SaidKind::Taken { addressed, .. }) => (
            record.mac.filter(|_| addressed).unwrap_or(KEPT_MAC),
            KEPT_MTU,
        ),
        _ => (record.mac.unwrap_or(Mac([0; 6])), record.mtu),
    };
    LinkSpec {
        kind,
        mac,
        mtu: if record.up && even { mtu } else { 0 },
        port,
        ipv6: view.netns != Netns::Host || record.ipv6.is_some_and(|ipv6| !ipv6.disabled),
        link_local: record.ipv6.is_some_and(|ipv6| ipv6.link_local),
        alias: said.whose.into(),
    }
}
