//! What an object cannot be without.

use std::collections::BTreeSet;

use tombolo_netstate::object::link::{LinkKey, LinkKind};
use tombolo_netstate::object::netns::NetnsKey;
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
                LinkKind::Bridge { .. } => {}
            }
        }
        (Key::Address(at), _) => needs.push(link(&at.netns, at.link)),
        (Key::Neighbour(at), _) => needs.push(link(&at.netns, at.link)),
        (Key::Route(at), Spec::Route(spec)) => needs.push(link(&at.netns, spec.link)),
        (Key::Fdb(at), Spec::Fdb(spec)) => {
            needs.push(link(&Netns::Host, at.bridge));
            needs.push(link(&Netns::Host, spec.port));
        }
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
