//! Removing: what is gone already counts as removed, and what is not ours is left alone.

use tombolo_netstate::object::detour::{self, DetourKey};
use tombolo_netstate::object::foreign::AcceptKey;
use tombolo_netstate::object::link::{LinkKey, LinkSpec};
use tombolo_netstate::object::listener::ListenerKey;
use tombolo_netstate::object::nft::{ElementKey, TABLE};
use tombolo_netstate::object::port::PortKey;
use tombolo_netstate::{Action, IfName, Key, Netns, Outcome, Spec};

use super::failure::Failure;
use super::links::direct_of;
use super::{Run, write_sysctl};
use crate::netlink::batch::{Refusal, pardon};
use crate::netlink::{Batch, Socket, address, fdb, link, neighbour, route, tc};
use crate::nft;
use crate::reaper::Burial;

/// Operations that may share a message.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Together {
    Close,
    Elements,
    Accepts,
    Ports,
    Listeners,
    Links(Netns),
    Taken(Netns),
    Inside(Netns),
    Alone,
}

/// What is to be removed, or closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removal<'a> {
    pub(super) place: usize,
    pub(super) key: &'a Key,
    pub(super) spec: &'a Spec,
}

impl<'a> Run<'a> {
    /// Carries out removals, in their order.
    pub(super) fn remove(&mut self, places: &[usize]) {
        let plan = self.plan;
        let removals: Vec<(Together, Removal<'a>)> = places
            .iter()
            .filter_map(|place| {
                let op = plan.ops.get(*place)?;
                let (closes, spec) = match &op.action {
                    Action::Close(spec) => (true, spec),
                    Action::Delete(spec) => (false, spec),
                    Action::Create(_) | Action::Update { .. } => return None,
                };
                Some((
                    together(&op.key, spec, closes),
                    Removal {
                        place: *place,
                        key: &op.key,
                        spec,
                    },
                ))
            })
            .collect();
        for group in removals.chunk_by(|(a, _), (b, _)| a == b) {
            let removals: Vec<Removal<'a>> = group.iter().map(|(_, removal)| *removal).collect();
            match &group[0].0 {
                Together::Close => self.close_ports(&removals),
                Together::Elements => self.remove_elements(&removals),
                Together::Accepts => self.remove_accepts(&removals),
                Together::Ports => self.remove_ports(&removals),
                Together::Listeners => self.remove_listeners(&removals),
                Together::Links(netns) => self.remove_links(netns, &removals),
                Together::Taken(netns) => self.give_back_links(netns, &removals),
                Together::Inside(netns) => self.remove_inside(netns, &removals),
                Together::Alone => self.remove_each(&removals),
            }
        }
    }

    fn remove_elements(&mut self, removals: &[Removal<'a>]) {
        let elements: Vec<(usize, &'a ElementKey, &'a Spec)> = removals
            .iter()
            .filter_map(|removal| match removal.key {
                Key::Element(key) => Some((removal.place, key, removal.spec)),
                _ => None,
            })
            .collect();
        self.change_elements(&elements, true);
    }

    fn remove_accepts(&mut self, removals: &[Removal<'a>]) {
        let accepts: Vec<(usize, &'a AcceptKey)> = removals
            .iter()
            .filter_map(|removal| match removal.key {
                Key::Accept(key) => Some((removal.place, key)),
                _ => None,
            })
            .collect();
        self.change_accepts(&accepts, true);
    }

    fn remove_ports(&mut self, removals: &[Removal<'a>]) {
        let ports: Vec<(usize, &'a PortKey)> = removals
            .iter()
            .filter_map(|removal| match removal.key {
                Key::Port(key) => Some((removal.place, key)),
                _ => None,
            })
            .collect();
        self.release_ports(&ports);
    }

    fn remove_listeners(&mut self, removals: &[Removal<'a>]) {
        let listeners: Vec<(usize, &'a ListenerKey)> = removals
            .iter()
            .filter_map(|removal| match removal.key {
                Key::Listener(key) => Some((removal.place, key)),
                _ => None,
            })
            .collect();
        self.close_listeners(&listeners);
    }

    /// Shuts bridge ports, and what leads past bridging.
    fn close_ports(&mut self, removals: &[Removal<'a>]) {
        let (mut batch, mut pardons) = (Batch::default(), Vec::new());
        let mut sent = Vec::new();
        for removal in removals {
            let Some(index) = self.own_index(self.host, removal) else {
                self.settle(removal.place, Ok(()));
                continue;
            };
            let start = batch.len();
            pardons.push(link::close(&mut batch, index));
            if matches!(removal.spec, Spec::Link(spec) if direct_of(spec).is_some()) {
                pardons.push(tc::stop(&mut batch, index));
            }
            sent.push((*removal, start..batch.len()));
        }
        let mut results = batch.run(self.host, &mut self.buffer);
        pardon(&mut results, pardons);
        for (removal, places) in sent {
            let outcome = match first_refusal(&results[places]) {
                Some(refusal) if !refusal.is(libc::ENODEV) => {
                    Failure::refusal("close", removal.key, refusal)
                        .exists(true)
                        .outcome()
                }
                _ => Outcome::Done,
            };
            self.outcomes[removal.place] = Some(outcome);
        }
    }

    /// The number of the link to be removed; none when it is gone, or its name has become somebody else's.
    pub(super) fn own_index(&mut self, socket: &Socket, removal: &Removal<'a>) -> Option<u32> {
        let (Key::Link(key), Spec::Link(_)) = (removal.key, removal.spec) else {
            return None;
        };
        let record = self.look_up(socket, key)?;
        let known = self.indexes.get(key) == Some(&record.index);
        (known || self.kernel.owns(&record)).then_some(record.index)
    }

    /// A socket in the namespace; without one, what was in it is gone with it.
    pub(super) fn removal_socket(
        &mut self,
        netns: &Netns,
        removals: &[Removal<'a>],
    ) -> Option<super::Place<'a>> {
        match self.socket_in(netns) {
            Ok(socket) => Some(socket),
            Err(error) => {
                let gone = error.is_gone();
                for removal in removals {
                    let failure = Failure::netns("remove", removal.key, &error).exists(true);
                    self.settle(removal.place, if gone { Ok(()) } else { Err(failure) });
                }
                None
            }
        }
    }

    fn remove_links(&mut self, netns: &Netns, removals: &[Removal<'a>]) {
        let Some(socket) = self.removal_socket(netns, removals) else {
            return;
        };
        let (mut batch, mut pardons) = (Batch::default(), Vec::new());
        let mut sent = Vec::new();
        for removal in removals {
            let start = batch.len();
            let Some(index) = self.own_index(&socket, removal) else {
                self.settle(removal.place, Ok(()));
                continue;
            };
            // A key that is made anew in this plan must be free before that.
            let deferred = *netns == Netns::Host
                && is_port(removal.spec)
                && !self.created.contains(removal.key);
            if deferred {
                // It would open again if it were only buried.
                pardons.push(link::close(&mut batch, index));
            } else {
                link::delete(&mut batch, index);
            }
            sent.push((*removal, index, deferred, start..batch.len()));
        }
        let mut results = batch.run(&socket, &mut self.buffer);
        pardon(&mut results, pardons);
        for (removal, index, deferred, places) in sent {
            if let Key::Link(key) = removal.key {
                self.indexes.remove(key);
            }
            if *netns == Netns::Host {
                self.kernel.forget_twin(index);
            }
            match first_refusal(&results[places]) {
                None if deferred => {
                    self.kernel.bury(Burial::Link(index, removal.key.clone()));
                    self.outcomes[removal.place] = Some(Outcome::Deferred);
                }
                Some(refusal) if !refusal.is(libc::ENODEV) => {
                    let failure = Failure::refusal("remove", removal.key, refusal).exists(true);
                    self.settle(removal.place, Err(failure));
                }
                _ => self.settle(removal.place, Ok(())),
            }
        }
    }

    /// Addresses, neighbours, forwarding entries and routes.
    fn remove_inside(&mut self, netns: &Netns, removals: &[Removal<'a>]) {
        let Some(socket) = self.removal_socket(netns, removals) else {
            return;
        };
        let mut batch = Batch::default();
        let mut sent = Vec::new();
        for removal in removals {
            if self.encode_removal(&socket, removal, &mut batch) {
                sent.push(*removal);
            } else {
                self.settle(removal.place, Ok(()));
            }
        }
        let results = batch.run(&socket, &mut self.buffer);
        for (removal, result) in sent.into_iter().zip(results) {
            let result = match result {
                Err(refusal) if !is_gone(&refusal) => {
                    Err(Failure::refusal("remove", removal.key, &refusal).exists(true))
                }
                _ => Ok(()),
            };
            self.settle(removal.place, result);
        }
    }

    /// Appends the request; false when its link is gone, and the object with it.
    fn encode_removal(
        &mut self,
        socket: &Socket,
        removal: &Removal<'a>,
        batch: &mut Batch,
    ) -> bool {
        let mut find = |netns: &Netns, name: IfName| {
            self.index_of(
                socket,
                &LinkKey {
                    netns: netns.clone(),
                    name,
                },
            )
        };
        match (removal.key, removal.spec) {
            (Key::Address(key), Spec::Address(spec)) => find(&key.netns, key.link)
                .map(|index| address::delete(batch, index, key.ip, spec.prefix_len)),
            (Key::Neighbour(key), Spec::Neighbour(_)) => {
                find(&key.netns, key.link).map(|index| neighbour::delete(batch, index, key.ip))
            }
            (Key::Fdb(key), Spec::Fdb(spec)) => {
                find(&Netns::Host, spec.port).map(|port| fdb::delete(batch, port, key.mac))
            }
            (Key::Route(key), Spec::Route(spec)) => {
                find(&key.netns, spec.link).map(|index| route::delete(batch, key, Some(index)))
            }
            _ => None,
        }
        .is_some()
    }

    /// Namespaces, settings and the table of rules.
    fn remove_each(&mut self, removals: &[Removal<'a>]) {
        for removal in removals {
            let failed =
                |error: &std::io::Error| Failure::io("remove", removal.key, error).exists(true);
            let result = match (removal.key, removal.spec) {
                (Key::Netns(key), _) => self
                    .kernel
                    .namespaces
                    .delete(&key.name)
                    .map_err(|error| failed(&error)),
                (Key::Sysctl(key), Spec::Sysctl(spec)) => {
                    match write_sysctl(&key.path, &spec.restore) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            Err(failed(&error))
                        }
                        _ => Ok(()),
                    }
                }
                (Key::NftBase, _) => {
                    nft::delete_table(&self.kernel.nft, TABLE).map_err(|refusal| {
                        Failure::refusal("remove", removal.key, &refusal).exists(true)
                    })
                }
                (Key::Detour(key), _) => self.remove_detour(key),
                _ => Ok(()),
            };
            self.settle(removal.place, result);
        }
    }

    fn remove_detour(&self, key: &DetourKey) -> Result<(), Failure> {
        let whole = Key::Detour(key.clone());
        let nft = match self.kernel.nft_in(&key.netns) {
            Ok(nft) => nft,
            Err(error) if error.is_gone() => return Ok(()),
            Err(error) => return Err(Failure::netns("remove", &whole, &error).exists(true)),
        };
        nft::delete_table(&nft, detour::TABLE)
            .map_err(|refusal| Failure::refusal("remove", &whole, &refusal).exists(true))
    }
}

fn together(key: &Key, spec: &Spec, closes: bool) -> Together {
    let taken = matches!(spec, Spec::Link(link) if link.is_taken());
    match key {
        Key::Link(_) if closes => Together::Close,
        Key::Link(key) if taken => Together::Taken(key.netns.clone()),
        Key::Link(key) => Together::Links(key.netns.clone()),
        Key::Element(_) => Together::Elements,
        Key::Accept(_) => Together::Accepts,
        Key::Port(_) => Together::Ports,
        Key::Listener(_) => Together::Listeners,
        Key::Address(_) | Key::Neighbour(_) | Key::Fdb(_) | Key::Route(_) => {
            Together::Inside(key.netns())
        }
        Key::Netns(_) | Key::Sysctl(_) | Key::NftBase | Key::Detour(_) => Together::Alone,
    }
}

fn first_refusal(results: &[Result<(), Refusal>]) -> Option<&Refusal> {
    results.iter().find_map(|result| result.as_ref().err())
}

fn is_port(spec: &Spec) -> bool {
    matches!(spec, Spec::Link(link) if matches!(**link, LinkSpec { port: Some(_), .. }))
}

/// The kernel's ways of saying that there is no such object.
fn is_gone(refusal: &Refusal) -> bool {
    [
        libc::ENODEV,
        libc::ENOENT,
        libc::ESRCH,
        libc::EADDRNOTAVAIL,
        libc::ENXIO,
    ]
    .into_iter()
    .any(|errno| refusal.is(errno))
}
