//! The names on one network, to be found by name and by address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{OwnerId, Registration, Service, ZoneId};
use crate::limits;
use crate::name::HostName;

/// One registration as it is kept: one small block, shared by the indexes that lead to it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) owner: OwnerId,
    pub(crate) zone: ZoneId,
    pub(crate) addresses: Box<[IpAddr]>,
    pub(crate) services: Box<[Service]>,
    /// In lower case, the canonical one first, each once.
    names: Box<[Arc<str>]>,
}

/// The names on one network.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    /// The network's name in lower case; `None` while only registrations speak of it.
    name: Option<Box<str>>,
    subnets: Box<[IpNet]>,
    names: BTreeMap<Arc<str>, Vec<Arc<Held>>>,
    addresses: BTreeMap<IpAddr, Vec<Arc<Held>>>,
}

impl Held {
    pub(super) fn new(owner: OwnerId, registration: Registration) -> Self {
        let Registration {
            zone,
            canonical,
            names,
            mut addresses,
            mut services,
        } = registration;
        let others = names.iter().take(limits::REGISTRATION_NAMES_MAX);
        let mut lower: Vec<Arc<str>> = Vec::with_capacity(others.len() + 1);
        for name in std::iter::once(&canonical).chain(others) {
            let name = name.as_str().to_ascii_lowercase();
            if !lower.iter().any(|known| **known == *name) {
                lower.push(name.into());
            }
        }
        addresses.truncate(limits::REGISTRATION_ADDRESSES_MAX);
        addresses.sort_unstable();
        addresses.dedup();
        services.truncate(limits::REGISTRATION_SERVICES_MAX);
        Self {
            owner,
            zone,
            addresses: addresses.into(),
            services: services.into(),
            names: lower.into(),
        }
    }

    /// The name that its addresses and services are said to belong to.
    pub(crate) fn canonical(&self) -> &str {
        self.names.first().map_or("", |name| name)
    }
}

impl Table {
    pub(super) fn open(&mut self, name: &HostName, subnets: &[IpNet]) {
        self.name = Some(name.as_str().to_ascii_lowercase().into());
        self.subnets = subnets.into();
    }

    pub(super) fn close(&mut self) {
        self.name = None;
        self.subnets = Box::default();
    }

    pub(super) const fn is_open(&self) -> bool {
        self.name.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn insert(&mut self, held: &Arc<Held>) {
        for name in &held.names {
            match self.names.get_mut(name) {
                Some(holders) => insert(holders, held),
                None => drop(self.names.insert(name.clone(), vec![held.clone()])),
            }
        }
        for &address in &held.addresses {
            match self.addresses.get_mut(&address) {
                Some(holders) => insert(holders, held),
                None => drop(self.addresses.insert(address, vec![held.clone()])),
            }
        }
    }

    pub(super) fn remove(&mut self, held: &Arc<Held>) {
        for name in &held.names {
            if self.names.get_mut(name).is_some_and(|h| remove(h, held)) {
                self.names.remove(name);
            }
        }
        for address in &held.addresses {
            if (self.addresses.get_mut(address)).is_some_and(|h| remove(h, held)) {
                self.addresses.remove(address);
            }
        }
    }

    /// The network's name in lower case.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// Who has a name, given in lower case; nobody if the name is not known.
    pub(crate) fn named(&self, name: &str) -> &[Arc<Held>] {
        self.names.get(name).map_or(&[], |holders| holders)
    }

    /// Who has an address.
    pub(crate) fn at(&self, address: IpAddr) -> &[Arc<Held>] {
        self.addresses.get(&address).map_or(&[], |holders| holders)
    }

    /// Whether an address belongs to the network.
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(&address))
    }
}

/// Adds one by its owner, so that the order does not depend on what happened before.
fn insert(holders: &mut Vec<Arc<Held>>, held: &Arc<Held>) {
    let at = holders.partition_point(|other| other.owner <= held.owner);
    holders.insert(at, held.clone());
}

/// Takes one out; says whether nobody is left.
fn remove(holders: &mut Vec<Arc<Held>>, held: &Arc<Held>) -> bool {
    if let Some(at) = holders.iter().position(|other| Arc::ptr_eq(other, held)) {
        holders.remove(at);
    }
    holders.is_empty()
}
