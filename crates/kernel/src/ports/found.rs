//! What a daemon with no memory makes of what the keeper has.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_netstate::object::port::{PortKey, PortSpec};

use super::name::{self, NO_PORT};
use super::wire::Item;

/// Reservations as a keeper has them.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Those with a socket for every port.
    pub(super) whole: BTreeMap<PortKey, PortSpec>,
    /// Those of them that are mere names.
    pub(super) bare: BTreeSet<PortKey>,
    /// What belongs to no whole reservation: a daemon was killed while it was made or changed.
    pub(super) names: Vec<Vec<u8>>,
}

impl Found {
    pub(super) fn of(items: Vec<Item>) -> Self {
        let mut reservations: BTreeMap<PortKey, Vec<(u16, Item)>> = BTreeMap::new();
        for item in items {
            if let Some((key, port)) = name::reservation(&item.name) {
                reservations.entry(key).or_default().push((port, item));
            }
        }
        let mut found = Self::default();
        for (key, items) in reservations {
            let spec = items.first().and_then(|(_, item)| name::spec(item.tag));
            let is_bare = items.len() == 1 && items.iter().all(|(port, _)| *port == NO_PORT);
            let is_full = items.len() == key.ports.count() as usize
                && items
                    .iter()
                    .all(|(port, item)| *port != NO_PORT && item.has_socket);
            let is_alike = items.iter().all(|(_, item)| name::spec(item.tag) == spec);
            match spec {
                Some(spec) if is_alike && (is_bare || is_full) => {
                    if is_bare {
                        found.bare.insert(key.clone());
                    }
                    found.whole.insert(key, spec);
                }
                _ => found
                    .names
                    .extend(items.into_iter().map(|(_, item)| item.name)),
            }
        }
        found
    }
}
