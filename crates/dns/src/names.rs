//! What the sandboxes on each network are called.

mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::limits;
use crate::name::HostName;
pub(crate) use table::{Held, Table};

/// Which network a name is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneId(pub u128);

/// Whose name it is: a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u128);

/// What a network adds to the names on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The network's own name: `web` on it is also `web.NAME`.
    pub name: HostName,
    /// Its addresses: those that nobody has are known to have no name. The first
    /// [`limits::ZONE_SUBNETS_MAX`] count.
    pub subnets: Vec<IpNet>,
}

/// What one owner is called on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The network.
    pub zone: ZoneId,
    /// The name that its addresses and services are said to belong to.
    pub canonical: HostName,
    /// All its other names, which others may have too. The first
    /// [`limits::REGISTRATION_NAMES_MAX`] count.
    pub names: Vec<HostName>,
    /// Its addresses there. The first [`limits::REGISTRATION_ADDRESSES_MAX`] count.
    pub addresses: Vec<IpAddr>,
    /// What it serves there. The first [`limits::REGISTRATION_SERVICES_MAX`] count.
    pub services: Vec<Service>,
}

/// A range of ports that an owner serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// Their protocol.
    pub protocol: Transport,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

/// A protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// The names of all sandboxes, by network. Case does not count.
///
/// A change costs as much as the owner's own names, however many others there are; ten thousand
/// names of a third as many sandboxes take less than three megabytes.
#[derive(Debug, Clone, Default)]
pub struct Names {
    tables: BTreeMap<ZoneId, Table>,
    owners: BTreeMap<OwnerId, Box<[Arc<Held>]>>,
}

impl Service {
    pub(crate) const fn serves(&self, protocol: Transport, port: u16) -> bool {
        self.protocol as u8 == protocol as u8 && self.first <= port && port <= self.last
    }
}

impl Names {
    /// Names and subnets of a network, in place of what was known of it. Names on a network that
    /// is not set are kept, but not found.
    pub fn set_zone(&mut self, id: ZoneId, zone: Zone) {
        let Zone { name, mut subnets } = zone;
        subnets.truncate(limits::ZONE_SUBNETS_MAX);
        self.tables.entry(id).or_default().open(&name, &subnets);
    }

    /// Forgets a network; the names on it are no longer found.
    pub fn remove_zone(&mut self, id: ZoneId) {
        self.change(id, Table::close);
    }

    /// Names of an owner on all its networks, in place of all that it had. The first
    /// [`limits::OWNER_REGISTRATIONS_MAX`] count.
    pub fn set(&mut self, owner: OwnerId, registrations: Vec<Registration>) {
        self.remove(owner);
        let held: Box<[_]> = registrations
            .into_iter()
            .take(limits::OWNER_REGISTRATIONS_MAX)
            .map(|registration| Arc::new(Held::new(owner, registration)))
            .collect();
        for one in &held {
            self.tables.entry(one.zone).or_default().insert(one);
        }
        if !held.is_empty() {
            self.owners.insert(owner, held);
        }
    }

    /// Forgets all names of an owner.
    pub fn remove(&mut self, owner: OwnerId) {
        for one in self.owners.remove(&owner).unwrap_or_default() {
            self.change(one.zone, |table| table.remove(&one));
        }
    }

    /// How many names there are; one that several owners share on one network counts once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.values().map(Table::len).sum()
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.values().all(|table| table.len() == 0)
    }

    /// The names on a network that is set.
    pub(crate) fn table(&self, id: ZoneId) -> Option<&Table> {
        self.tables.get(&id).filter(|table| table.is_open())
    }

    /// What an owner is called, on all its networks.
    pub(crate) fn held_by(&self, owner: OwnerId) -> &[Arc<Held>] {
        self.owners.get(&owner).map_or(&[], |held| held)
    }

    /// Changes a table and drops it when nothing is left.
    fn change(&mut self, id: ZoneId, change: impl FnOnce(&mut Table)) {
        if let Some(table) = self.tables.get_mut(&id) {
            change(table);
            if !table.is_open() && table.len() == 0 {
                self.tables.remove(&id);
            }
        }
    }
}
