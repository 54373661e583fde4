//! What lets traffic in: reservations of the host's ports, listeners, permissions in chains of others, and elements
//! of our sets, each kind all at once.

use tombolo_netstate::object::foreign::AcceptKey;
use tombolo_netstate::object::listener::ListenerKey;
use tombolo_netstate::object::nft::ElementKey;
use tombolo_netstate::object::port::{PortKey, PortSpec};
use tombolo_netstate::{Key, Plan, Spec};

use super::failure::Failure;
use super::{Run, Wish};
use crate::nft::{self, ElementChange};

impl<'a> Run<'a> {
    /// Reserves ports of the host, or changes how they are held.
    pub(super) fn make_ports(&mut self, wishes: &[Wish<'a>]) {
        let mut places = Vec::with_capacity(wishes.len());
        let mut wanted: Vec<(&PortKey, PortSpec)> = Vec::with_capacity(wishes.len());
        for wish in wishes {
            if let (Key::Port(key), Spec::Port(spec), false) =
                (wish.key, wish.spec, self.is_blocked(wish))
            {
                places.push((wish.place, wish.key));
                wanted.push((key, *spec));
            }
        }
        if wanted.is_empty() {
            return;
        }
        let results = self.kernel.ports().reserve_all(&wanted);
        for ((place, key), result) in places.into_iter().zip(results) {
            // A port that somebody else holds is not there for us.
            self.settle(
                place,
                result.map_err(|error| Failure::error("reserve", key, &error)),
            );
        }
    }

    /// Gives ports back.
    pub(super) fn release_ports(&mut self, ports: &[(usize, &'a PortKey)]) {
        let keys: Vec<&PortKey> = ports.iter().map(|(_, key)| *key).collect();
        self.kernel.ports().release(&keys);
        for (place, _) in ports {
            self.settle(*place, Ok(()));
        }
    }

    /// Opens listeners.
    pub(super) fn make_listeners(&mut self, wishes: &[Wish<'a>]) {
        let mut places = Vec::with_capacity(wishes.len());
        let mut wanted: Vec<&ListenerKey> = Vec::with_capacity(wishes.len());
        for wish in wishes {
            if let (Key::Listener(key), false) = (wish.key, self.is_blocked(wish)) {
                places.push((wish.place, wish.key));
                wanted.push(key);
            }
        }
        if wanted.is_empty() {
            return;
        }
        let kernel = self.kernel;
        let results = kernel
            .listeners
            .open(&kernel.namespaces, kernel.ports(), &wanted);
        for ((place, key), result) in places.into_iter().zip(results) {
            self.settle(
                place,
                result.map_err(|error| Failure::error("open", key, &error)),
            );
        }
    }

    /// Closes listeners.
    pub(super) fn close_listeners(&mut self, listeners: &[(usize, &'a ListenerKey)]) {
        let keys: Vec<&ListenerKey> = listeners.iter().map(|(_, key)| *key).collect();
        let kernel = self.kernel;
        kernel.listeners.close(kernel.ports(), &keys);
        for (place, _) in listeners {
            self.settle(*place, Ok(()));
        }
    }

    /// Puts permissions into chains of others.
    pub(super) fn make_accepts(&mut self, wishes: &[Wish<'a>]) {
        let mut ready: Vec<(usize, &'a AcceptKey)> = Vec::new();
        for wish in wishes {
            if let (Key::Accept(key), false) = (wish.key, self.is_blocked(wish)) {
                ready.push((wish.place, key));
            }
        }
        self.change_accepts(&ready, false);
    }

    pub(super) fn change_accepts(&mut self, accepts: &[(usize, &'a AcceptKey)], remove: bool) {
        if accepts.is_empty() {
            return;
        }
        let keys: Vec<&AcceptKey> = accepts.iter().map(|(_, key)| *key).collect();
        let (verb, results) = if remove {
            ("remove", nft::foreign::remove(&self.kernel.nft, &keys))
        } else {
            ("add", nft::foreign::add(&self.kernel.nft, &keys))
        };
        let plan: &'a Plan = self.plan;
        for ((place, _), result) in accepts.iter().zip(results) {
            let key = &plan.ops[*place].key;
            self.settle(
                *place,
                result.map_err(|refusal| Failure::refusal(verb, key, &refusal).exists(remove)),
            );
        }
    }

    pub(super) fn make_elements(&mut self, wishes: &[Wish<'a>]) {
        let mut ready: Vec<(usize, &'a ElementKey, &'a Spec)> = Vec::new();
        for wish in wishes {
            if let (Key::Element(key), false) = (wish.key, self.is_blocked(wish)) {
                ready.push((wish.place, key, wish.spec));
            }
        }
        self.change_elements(&ready, false);
    }

    pub(super) fn change_elements(
        &mut self,
        elements: &[(usize, &'a ElementKey, &'a Spec)],
        remove: bool,
    ) {
        let (places, changes): (Vec<usize>, Vec<ElementChange<'_>>) = elements
            .iter()
            .filter_map(|(place, key, spec)| match spec {
                Spec::Element(spec) => Some((*place, ElementChange { key, spec, remove })),
                _ => None,
            })
            .unzip();
        let results = nft::change_elements(&self.kernel.nft, &changes);
        let plan: &'a Plan = self.plan;
        for (place, result) in places.into_iter().zip(results) {
            let key = &plan.ops[place].key;
            let result = match result {
                Err(refusal) if remove && refusal.is(libc::ENOENT) => Ok(()),
                Err(refusal) => {
                    let verb = if remove { "remove" } else { "add" };
                    Err(Failure::refusal(verb, key, &refusal).exists(remove))
                }
                Ok(()) => Ok(()),
            };
            self.settle(place, result);
        }
    }
}
