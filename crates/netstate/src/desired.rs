//! The objects that should exist, each with its owners; an object goes when its last owner goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use crate::object::port::{HostAddress, PortKey, PortRange};
use crate::object::{Key, Objects, Spec};

/// Who wants an object: an opaque name such as `network/…` or `endpoint/…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub Arc<str>);

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Two owners want different things of one object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is wanted as `{theirs}` by {owner} and as `{ours}` at once")]
pub struct Clash {
    /// The object.
    pub key: Box<Key>,
    /// One that has it already.
    pub owner: Owner,
    /// What that owner wants.
    pub theirs: Box<Spec>,
    /// What was asked now.
    pub ours: Box<Spec>,
}

#[derive(Debug, Clone)]
struct Held {
    spec: Spec,
    owners: Vec<Owner>,
}

/// All desired objects of a host.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    objects: BTreeMap<Key, Held>,
    by_owner: BTreeMap<Owner, Box<[Key]>>,
}

impl Desired {
    /// Replaces what `owner` wants. Returns the keys whose desired state may have changed; on a clash nothing
    /// has changed.
    pub fn set(&mut self, owner: &Owner, objects: Objects) -> Result<BTreeSet<Key>, Clash> {
        for (key, spec) in &objects {
            self.check(owner, key, spec)?;
        }
        let mut touched = BTreeSet::new();
        let keys: Box<[Key]> = objects.keys().cloned().collect();
        let before = self.by_owner.remove(owner).unwrap_or_default();
        for key in before.iter().filter(|key| !objects.contains_key(key)) {
            self.disown(owner, key);
            touched.insert(key.clone());
        }
        for (key, spec) in objects {
            touched.insert(key.clone());
            let held = self.objects.entry(key).or_insert_with(|| Held {
                spec: spec.clone(),
                owners: vec![],
            });
            held.spec = spec;
            if !held.owners.contains(owner) {
                held.owners.push(owner.clone());
            }
        }
        if !keys.is_empty() {
            self.by_owner.insert(owner.clone(), keys);
        }
        Ok(touched)
    }

    /// Drops all that `owner` wants and returns the keys concerned.
    pub fn remove(&mut self, owner: &Owner) -> BTreeSet<Key> {
        let before = self.by_owner.remove(owner).unwrap_or_default();
        for key in &before {
            self.disown(owner, key);
        }
        before.into_iter().collect()
    }

    /// What `key` should be; `None` when it should not exist.
    pub fn get(&self, key: &Key) -> Option<&Spec> {
        self.objects.get(key).map(|held| &held.spec)
    }

    /// Who wants `key`.
    pub fn owners(&self, key: &Key) -> &[Owner] {
        self.objects.get(key).map_or(&[], |held| &held.owners)
    }

    /// What `owner` wants.
    pub fn keys_of(&self, owner: &Owner) -> &[Key] {
        self.by_owner.get(owner).map_or(&[], |keys| keys)
    }

    /// All keys that should exist.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    /// Somebody else than `but` who wants a port that `wanted` holds, and the reservation that says so.
    pub fn port_holder(&self, wanted: &PortKey, but: Option<&Owner>) -> Option<(&PortKey, &Owner)> {
        let least = PortRange::LEAST;
        let mut from = Bound::Included(PortKey {
            protocol: wanted.protocol,
            address: HostAddress::Any,
            ports: least,
        });
        // One step for each address at which ports of the protocol are held.
        loop {
            let start = from.map(Key::Port);
            let (key, _) = self.objects.range((start, Bound::Unbounded)).next()?;
            let Key::Port(first) = key else { return None };
            if first.protocol != wanted.protocol {
                return None;
            }
            if first.address.overlaps(wanted.address)
                && let Some(found) = self.port_holder_at(first.address, wanted, but)
            {
                return Some(found);
            }
            from = Bound::Excluded(PortKey {
                ports: PortRange::GREATEST,
                ..first.clone()
            });
        }
    }

    fn port_holder_at(
        &self,
        address: HostAddress,
        wanted: &PortKey,
        but: Option<&Owner>,
    ) -> Option<(&PortKey, &Owner)> {
        let until = Key::Port(PortKey {
            protocol: wanted.protocol,
            address,
            ports: PortRange::from_to_end(wanted.ports.last()),
        });
        // Ranges at one address do not overlap, so that the first one that ends too early ends the search.
        let below = self.objects.range(..=until).rev();
        let held = below.map_while(|(key, held)| match key {
            Key::Port(port) if port.protocol == wanted.protocol && port.address == address => {
                port.ports.overlaps(wanted.ports).then_some((port, held))
            }
            _ => None,
        });
        held.filter_map(|(port, held)| Some((port, held.owners.iter().find(|o| Some(*o) != but)?)))
            .next()
    }

    /// Everything desired, without owners.
    pub fn objects(&self) -> Objects {
        self.objects
            .iter()
            .map(|(key, held)| (key.clone(), held.spec.clone()))
            .collect()
    }

    fn check(&self, owner: &Owner, key: &Key, spec: &Spec) -> Result<(), Clash> {
        let Some(held) = self.objects.get(key).filter(|held| held.spec != *spec) else {
            return Ok(());
        };
        match held.owners.iter().find(|other| *other != owner) {
            None => Ok(()),
            Some(other) => Err(Clash {
                key: Box::new(key.clone()),
                owner: other.clone(),
                theirs: Box::new(held.spec.clone()),
                ours: Box::new(spec.clone()),
            }),
        }
    }

    fn disown(&mut self, owner: &Owner, key: &Key) {
        if let Some(held) = self.objects.get_mut(key) {
            held.owners.retain(|other| other != owner);
            if held.owners.is_empty() {
                self.objects.remove(key);
            }
        }
    }
}
