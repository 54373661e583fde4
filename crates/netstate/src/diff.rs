//! The difference between what should be and what is, as a plan.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::desired::Desired;
use crate::name::{IfName, Netns};
use crate::object::address::AddressKey;
use crate::object::detour::DetourKey;
use crate::object::link::{LinkKey, LinkKind, LinkSpec};
use crate::object::listener::ListenerKey;
use crate::object::neighbour::NeighbourKey;
use crate::object::nft::ElementSpec;
use crate::object::nft::flows::forgotten;
use crate::object::route::RouteKey;
use crate::object::{Change, Key, Objects, Spec};
use crate::plan::{Action, Edge, Op, Plan};

/// The plan that brings `keys` from `actual` to `desired`. Keys that are in neither are passed over, and
/// keys not named are touched only where the replacement of a link takes them with it.
pub fn diff<'a>(
    keys: impl IntoIterator<Item = &'a Key>,
    desired: &Desired,
    actual: &Objects,
) -> Plan {
    let mut keys: BTreeSet<Key> = keys.into_iter().cloned().collect();
    let mut replaced = BTreeSet::new();
    let mut lost = BTreeSet::new();
    for key in keys.clone() {
        let Some(have) = actual.get(&key) else {
            continue;
        };
        let Some(want) = desired.get(&key) else {
            if holds_name(&key, have, desired) || holds_ports(&key, actual, desired) {
                lost.extend(vanishing(actual, &key));
                replaced.insert(key);
            }
            continue;
        };
        if have == want {
            continue;
        }
        match have.change(want) {
            Change::Replace => {
                lost.extend(vanishing(actual, &key));
                replaced.insert(key);
            }
            Change::Update | Change::Reset => lost.extend(shaken(actual, &key, want)),
        }
    }
    replaced.extend(leaning(actual, &replaced));
    keys.extend(lost.iter().chain(&replaced).cloned());
    let mut plan = Plan::default();
    for key in &keys {
        let freed = replaced.contains(key);
        // Of two links that are one veth, each is lost with the other: one must be removed all the same.
        // Elements leave before the rules are rewritten, so that doors close first.
        let named = match key {
            Key::Link(_) => freed,
            Key::Element(_) => desired.get(key).is_none(),
            _ => false,
        };
        let have = actual.get(key).filter(|_| named || !lost.contains(key));
        plan_key(&mut plan, key, (desired.get(key), have), freed);
    }
    prune(&mut plan, actual, &replaced);
    plan.sort(&|key| replaced.contains(key));
    plan
}

fn plan_key(plan: &mut Plan, key: &Key, (want, have): (Option<&Spec>, Option<&Spec>), freed: bool) {
    if let Key::Element(element) = key {
        let flows = forgotten(element, element_of(have), element_of(want));
        plan.edges.extend(flows.map(Edge::Forget));
    }
    match (want, have) {
        (None, None) => {}
        (Some(want), None) => plan.ops.push(op(key, Action::Create(want.clone()))),
        (None, Some(have)) => {
            if attached(key, have) {
                plan.ops.push(op(key, Action::Close(have.clone())));
            }
            plan.ops.push(op(key, Action::Delete(have.clone())));
        }
        (Some(want), Some(have)) if freed => {
            plan.ops.push(op(key, Action::Delete(have.clone())));
            plan.ops.push(op(key, Action::Create(want.clone())));
        }
        (Some(want), Some(have)) if want == have => return,
        (Some(want), Some(have)) => {
            plan.ops.push(op(
                key,
                Action::Update {
                    from: have.clone(),
                    to: want.clone(),
                },
            ));
        }
    }
    if let (Key::Address(at), Some(Spec::Address(spec))) = (key, want)
        && let Some(mac) = spec.announce
    {
        plan.edges.push(Edge::Announce {
            netns: at.netns.clone(),
            link: at.link,
            ip: at.ip,
            mac,
        });
    }
}

fn element_of(spec: Option<&Spec>) -> Option<&ElementSpec> {
    match spec {
        Some(Spec::Element(spec)) => Some(spec),
        _ => None,
    }
}

fn op(key: &Key, action: Action) -> Op {
    Op {
        key: key.clone(),
        action,
    }
}

fn attached(key: &Key, spec: &Spec) -> bool {
    match (key, spec) {
        (Key::Link(at), Spec::Link(link)) => at.netns == Netns::Host && link.port.is_some(),
        _ => false,
    }
}

/// Drops removals that the removal of a namespace or a link brings about by itself. Links of the host and
/// entries of bridges stay in the plan: they must go at once, while a namespace takes its time. So do
/// elements: doors close before anything else goes. And listeners: their namespace goes only once they are closed.
/// And links of others: they would go with the namespace, and are to be given back.
fn prune(plan: &mut Plan, actual: &Objects, replaced: &BTreeSet<Key>) {
    let mut implied = BTreeSet::new();
    for op in &plan.ops {
        if matches!(op.action, Action::Delete(_)) && !replaced.contains(&op.key) {
            implied.extend(vanishing(actual, &op.key));
        }
    }
    let closing: BTreeSet<Netns> = plan
        .ops
        .iter()
        .filter(|op| matches!((&op.key, &op.action), (Key::Netns(_), Action::Delete(_))))
        .map(|op| op.key.netns())
        .collect();
    plan.ops.retain(|op| {
        // A link may take its time, too: until then its routes would stand in the way of others.
        let explicit = matches!(op.key, Key::Fdb(_) | Key::Element(_) | Key::Listener(_))
            || matches!(&op.key, Key::Route(at) if !closing.contains(&at.netns))
            || matches!(&op.key, Key::Link(at) if at.netns == Netns::Host && !is_peer(actual, &op.key))
            || link_of(actual, &op.key).is_some_and(LinkSpec::is_taken);
        let removal = matches!(op.action, Action::Delete(_) | Action::Close(_));
        !removal || explicit || !implied.contains(&op.key)
    });
}

fn is_peer(actual: &Objects, key: &Key) -> bool {
    matches!(
        link_of(actual, key),
        Some(LinkSpec {
            kind: LinkKind::Peer { .. },
            ..
        })
    )
}

fn link_of<'a>(objects: &'a Objects, key: &Key) -> Option<&'a LinkSpec> {
    match objects.get(key) {
        Some(Spec::Link(link)) => Some(link),
        _ => None,
    }
}

/// The keys among `objects` that the kernel forgets when `key` becomes `to` in place: the constant rules are
/// rewritten with empty sets, a new hardware address flushes the neighbours of a link (`neigh_changeaddr`,
/// net/core/neighbour.c), a new master the forwarding entries of a port.
pub fn shaken(objects: &Objects, key: &Key, to: &Spec) -> BTreeSet<Key> {
    match (key, objects.get(key), to) {
        (Key::NftBase, Some(_), _) => vanishing(objects, key),
        (Key::Link(at), Some(Spec::Link(from)), Spec::Link(to)) => {
            let mut gone = BTreeSet::new();
            if from.mac != to.mac {
                let neighbour = |key: &Key| matches!(key, Key::Neighbour(_));
                gone.extend(on_link(objects, at).filter(neighbour));
            }
            let bridge = from.port.as_ref().map(|port| port.bridge);
            if bridge != to.port.as_ref().map(|port| port.bridge) {
                gone.extend(
                    bridge
                        .into_iter()
                        .flat_map(|bridge| fdb_at(objects, bridge, at.name)),
                );
            }
            gone
        }
        _ => BTreeSet::new(),
    }
}

/// Whether the other end of this veth has a name that is wanted for another. It has it from birth, whether
/// or not it was configured and so is known to be there.
fn holds_name(key: &Key, have: &Spec, desired: &Desired) -> bool {
    let (Key::Link(at), Spec::Link(have)) = (key, have) else {
        return false;
    };
    let LinkKind::Veth { peer, .. } = &have.kind else {
        return false;
    };
    match desired.get(&Key::Link(peer.clone())) {
        Some(Spec::Link(want)) => !matches!(&want.kind, LinkKind::Peer { pair } if pair == at),
        _ => false,
    }
}

/// Whether a reservation that goes holds ports that another one is to hold, which is not there yet.
fn holds_ports(key: &Key, actual: &Objects, desired: &Desired) -> bool {
    let Key::Port(held) = key else { return false };
    let wanted = desired.port_holder(held, None);
    wanted.is_some_and(|(wanted, _)| !actual.contains_key(&Key::Port(wanted.clone())))
}

/// The objects that the kernel drops or changes when addresses are removed to be made anew: routes with
/// such an address as source, and all of IPv4 on a link whose last IPv4 address goes
/// (`fib_inetaddr_event`, `inetdev_destroy`).
pub(crate) fn leaning(actual: &Objects, replaced: &BTreeSet<Key>) -> BTreeSet<Key> {
    let mut gone = BTreeSet::new();
    for key in replaced {
        let Key::Address(at) = key else { continue };
        let link = LinkKey {
            netns: at.netns.clone(),
            name: at.link,
        };
        let left =
            |key: &Key| matches!(key, Key::Address(a) if a.ip.is_ipv4()) && !replaced.contains(key);
        let last = at.ip.is_ipv4() && !on_link(actual, &link).any(|key| left(&key));
        let leans = |(key, spec): &(&Key, &Spec)| match (key, spec) {
            (Key::Route(to), Spec::Route(route)) => {
                route.source == Some(at.ip)
                    || last && route.link == at.link && to.destination.addr().is_ipv4()
            }
            _ => false,
        };
        gone.extend(
            routes_in(actual, &at.netns)
                .filter(leans)
                .map(|(key, _)| key.clone()),
        );
        let behind = |key: &Key| matches!(key, Key::Neighbour(to) if last && to.ip.is_ipv4());
        gone.extend(on_link(actual, &link).filter(behind));
    }
    gone
}

/// The keys among `objects` that the kernel removes together with `key`, without `key` itself.
pub fn vanishing(objects: &Objects, key: &Key) -> BTreeSet<Key> {
    let mut gone = BTreeSet::new();
    match key {
        Key::Netns(at) => {
            let netns = Netns::Owned(at.name.clone());
            for link in links_in(objects, &netns) {
                with_link(objects, &link, &mut gone);
            }
            gone.extend(routes_in(objects, &netns).map(|(key, _)| key.clone()));
            gone.extend(listeners_in(objects, &netns));
            let detour = Key::Detour(DetourKey { netns });
            gone.extend(objects.contains_key(&detour).then_some(detour));
        }
        Key::Link(at) => {
            with_link(objects, at, &mut gone);
            gone.remove(key);
        }
        Key::NftBase => {
            let elements = objects.keys().filter(|key| matches!(key, Key::Element(_)));
            gone.extend(elements.cloned());
        }
        _ => {}
    }
    gone
}

fn with_link(objects: &Objects, at: &LinkKey, gone: &mut BTreeSet<Key>) {
    let key = Key::Link(at.clone());
    let Some(spec) = link_of(objects, &key) else {
        return;
    };
    if !gone.insert(key) {
        return;
    }
    gone.extend(on_link(objects, at));
    let by_link = |spec: &Spec| matches!(spec, Spec::Route(route) if route.link == at.name);
    gone.extend(
        routes_in(objects, &at.netns)
            .filter(|(_, spec)| by_link(spec))
            .map(|(key, _)| key.clone()),
    );
    if let Some(port) = &spec.port {
        gone.extend(fdb_at(objects, port.bridge, at.name));
    }
    match &spec.kind {
        LinkKind::Bridge { .. } => {
            gone.extend(fdb_of(objects, at.name).map(|(key, _)| key.clone()))
        }
        LinkKind::Veth { peer: other, .. } | LinkKind::Peer { pair: other } => {
            with_link(objects, other, gone);
        }
        LinkKind::Lent { .. } | LinkKind::Taken { .. } => {}
    }
}

fn links_in<'a>(objects: &'a Objects, netns: &'a Netns) -> impl Iterator<Item = LinkKey> + 'a {
    let from = Key::Link(LinkKey {
        netns: netns.clone(),
        name: IfName::LEAST,
    });
    objects.range(from..).map_while(move |(key, _)| match key {
        Key::Link(at) if at.netns == *netns => Some(at.clone()),
        _ => None,
    })
}

fn on_link<'a>(objects: &'a Objects, at: &'a LinkKey) -> impl Iterator<Item = Key> + 'a {
    let least = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let addresses = Key::Address(AddressKey {
        netns: at.netns.clone(),
        link: at.name,
        ip: least,
    });
    let neighbours = Key::Neighbour(NeighbourKey {
        netns: at.netns.clone(),
        link: at.name,
        ip: least,
    });
    let here = |key: &Key| match key {
        Key::Address(key) => key.netns == at.netns && key.link == at.name,
        Key::Neighbour(key) => key.netns == at.netns && key.link == at.name,
        _ => false,
    };
    let addresses = objects
        .range(addresses..)
        .map(|(key, _)| key)
        .take_while(move |key| matches!(key, Key::Address(_)) && here(key));
    let neighbours = objects
        .range(neighbours..)
        .map(|(key, _)| key)
        .take_while(move |key| matches!(key, Key::Neighbour(_)) && here(key));
    addresses.chain(neighbours).cloned()
}

fn routes_in<'a>(
    objects: &'a Objects,
    netns: &'a Netns,
) -> impl Iterator<Item = (&'a Key, &'a Spec)> {
    let least = IpNet::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let least = IpNet::new(least.addr(), 0).unwrap_or(least);
    let from = Key::Route(RouteKey {
        netns: netns.clone(),
        destination: least,
        metric: 0,
    });
    objects
        .range(from..)
        .take_while(move |(key, _)| matches!(key, Key::Route(route) if route.netns == *netns))
}

fn listeners_in<'a>(objects: &'a Objects, netns: &'a Netns) -> impl Iterator<Item = Key> + 'a {
    let from = Key::Listener(ListenerKey {
        netns: netns.clone(),
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        port: 0,
    });
    objects
        .range(from..)
        .map(|(key, _)| key)
        .take_while(move |key| matches!(key, Key::Listener(at) if at.netns == *netns))
        .cloned()
}

fn fdb_of(objects: &Objects, bridge: IfName) -> impl Iterator<Item = (&Key, &Spec)> {
    let from = Key::Fdb(crate::object::fdb::FdbKey {
        bridge,
        mac: crate::name::Mac([0; 6]),
    });
    objects
        .range(from..)
        .take_while(move |(key, _)| matches!(key, Key::Fdb(entry) if entry.bridge == bridge))
}

fn fdb_at(objects: &Objects, bridge: IfName, port: IfName) -> impl Iterator<Item = Key> {
    fdb_of(objects, bridge).filter_map(move |(key, spec)| match spec {
        Spec::Fdb(entry) if entry.port == port => Some(key.clone()),
        _ => None,
    })
}
