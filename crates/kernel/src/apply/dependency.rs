//! What an object cannot be without.

use std::collections::BTreeSet;

use tombolo_netstate::object::link::{LinkKey, LinkKind};
use tombolo_netstate::object::netns::NetnsKey;
use tombolo_netstate::object::nft::{ElementKey, Field, SetName};
use tombolo_netstate::object::port::{HostAddress, PortKey, PortRange};
use tombolo_netstate::{IfName, Key, Netns, Spec};

/// The first of `absent` that `key` needs, the key itself included: one that could not be removed cannot be
/// made anew.
pub(super) fn missing(absent: &BTreeSet<&Key>, key: &Key, spec: &Spec) -> Option<Key> {
    if absent.is_empty() {
        return None;
    }
    if absent.contains(key) {
        return Some(key.clone());
    }
    needs(key, spec)
        .into_iter()
        .find(|needed| absent.contains(needed))
        .or_else(|| reservation(absent, key))
}

/// The reservation among `absent` without which an element would publish a port that is somebody else's.
fn reservation(absent: &BTreeSet<&Key>, key: &Key) -> Option<Key> {
    let Key::Element(element) = key else {
        return None;
    };
    let wanted = published(element)?;
    let refused = |key: &&&Key| match key {
        Key::Port(port) => {
            port.protocol == wanted.protocol
                && port.address.overlaps(wanted.address)
                && port.ports.overlaps(wanted.ports)
        }
        _ => false,
    };
    absent.iter().find(refused).map(|key| (*key).clone())
}

/// The ports of the host that an element publishes, if it is one that does.
fn published(element: &ElementKey) -> Option<PortKey> {
    let every = match element.set {
        SetName::PublishAny4 | SetName::PublishAt4 | SetName::PublishRange4 => HostAddress::AnyV4,
        SetName::PublishAny6
        | SetName::PublishAt6
        | SetName::PublishRange6
        | SetName::RelayAny6
        | SetName::RelayRange6 => HostAddress::AnyV6,
        _ => return None,
    };
    let (protocol, address, ports) = match *element.fields.as_ref() {
        [Field::Protocol(protocol), Field::Port(port)] => {
            (protocol, every, PortRange::one(port).ok()?)
        }
        [
            Field::Protocol(protocol),
            Field::Address(ip),
            Field::Port(port),
        ] => (protocol, HostAddress::One(ip), PortRange::one(port).ok()?),
        [
            _,
            Field::Protocol(protocol),
            Field::Net(to),
            Field::Ports(ports),
        ] => {
            let one = to.prefix_len() == to.max_prefix_len();
            let address = if one {
                HostAddress::One(to.addr())
            } else {
                every
            };
            (protocol, address, ports)
        }
        _ => return None,
    };
    Some(PortKey {
        protocol,
        address,
        ports,
    })
}

fn needs(key: &Key, spec: &Spec) -> Vec<Key> {
    let mut needs: Vec<Key> = namespace(&key.netns()).into_iter().collect();
    needs.retain(|needed| needed != key);
    let link = |netns: &Netns, name: IfName| {
        Key::Link(LinkKey {
            netns: netns.clone(),
            name,
        })
    };
    match (key, spec) {
        (Key::Link(at), Spec::Link(spec)) => {
            needs.extend(spec.port.as_ref().map(|port| link(&at.netns, port.bridge)));
            match &spec.kind {
                LinkKind::Veth { peer, .. } => needs.extend(namespace(&peer.netns)),
                LinkKind::Peer { pair } => needs.push(Key::Link(pair.clone())),
                LinkKind::Bridge { .. } | LinkKind::Lent { .. } | LinkKind::Taken { .. } => {}
            }
        }
        (Key::Address(at), _) => needs.push(link(&at.netns, at.link)),
        (Key::Neighbour(at), _) => needs.push(link(&at.netns, at.link)),
        (Key::Route(at), Spec::Route(spec)) => needs.push(link(&at.netns, spec.link)),
        (Key::Fdb(at), Spec::Fdb(spec)) => {
            needs.push(link(&Netns::Host, at.bridge));
            needs.push(link(&Netns::Host, spec.port));
        }
        (Key::Accept(at), _) => needs.push(link(&Netns::Host, at.bridge)),
        (Key::Element(_), _) => needs.push(Key::NftBase),
        _ => {}
    }
    needs
}

fn namespace(netns: &Netns) -> Option<Key> {
    match netns {
        Netns::Owned(name) => Some(Key::Netns(NetnsKey { name: name.clone() })),
        Netns::Host | Netns::Adopted { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use tombolo_netstate::object::nft::ElementSpec;

    use super::*;

    #[test]
    fn an_element_needs_the_reservations_of_its_ports_and_no_others() {
        let port = |text: &str, address: HostAddress| {
            Key::Port(PortKey {
                protocol: text.split_once(' ').unwrap().0.parse().unwrap(),
                address,
                ports: text.split_once(' ').unwrap().1.parse().unwrap(),
            })
        };
        let net = |text: &str| Field::Net(text.parse().unwrap());
        let range = Key::Element(ElementKey {
            set: SetName::PublishRange4,
            fields: [
                net("198.51.100.0/24"),
                Field::Protocol("tcp".parse().unwrap()),
                net("192.0.2.1/32"),
                Field::Ports("8000-8009".parse().unwrap()),
            ]
            .into(),
        });
        let spec = Spec::Element(ElementSpec::default());
        let one = |text: &str| HostAddress::One(text.parse().unwrap());
        for (refused, skipped) in [
            (port("tcp 8005", HostAddress::Any), true),
            (port("tcp 8000-8009", one("192.0.2.1")), true),
            (port("udp 8005", HostAddress::Any), false),
            (port("tcp 8010", HostAddress::Any), false),
            (port("tcp 8005", HostAddress::AnyV6), false),
            (port("tcp 8005", one("192.0.2.2")), false),
        ] {
            let found = missing(&BTreeSet::from([&refused]), &range, &spec);
            assert_eq!(found.is_some(), skipped, "{refused}");
        }
    }
}
