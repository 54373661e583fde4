//! Links of others: taken from the host into a sandbox, and given back.
//!
//! A link bears our mark, which holds its name on the host, from before it leaves the host until after it is back there.
//! So whoever dies half-way leaves it where the next one knows it again.

use std::os::fd::AsRawFd;

use tombolo_netstate::object::link::{KEPT_MAC, LinkKey, LinkKind, LinkSpec};
use tombolo_netstate::{IfName, Key, Mac, Netns, Spec};

use super::failure::Failure;
use super::removal::Removal;
use super::{Run, Wish};
use crate::alias;
use crate::netlink::batch::Refusal;
use crate::netlink::link::{self, IPV6_MTU_MIN, LinkRecord, Move};
use crate::netlink::{Batch, Socket};
use crate::sys;

impl<'a> Run<'a> {
    /// Takes links, or sets taken ones right.
    pub(super) fn take_links(&mut self, wishes: &[Wish<'a>]) {
        for wish in wishes {
            if self.is_blocked(wish) {
                continue;
            }
            let (Key::Link(key), Spec::Link(spec)) = (wish.key, wish.spec) else {
                continue;
            };
            let result = match wish.from {
                Some(_) => self.set_right(key, spec),
                None => self.take(key, spec),
            };
            self.settle(wish.place, result);
        }
    }

    fn take(&mut self, key: &LinkKey, spec: &LinkSpec) -> Result<(), Failure> {
        let whole = Key::Link(key.clone());
        let say = |reason: String| Failure::because("take", &whole, reason);
        let LinkKind::Taken { from } = spec.kind else {
            return Err(say("it is no link of others".to_owned()));
        };
        let inside = self
            .socket_in(&key.netns)
            .map_err(|error| Failure::netns("take", &whole, &error))?;
        if self.look_up(&inside, key).is_some() {
            let reason = format!("EEXIST: a link {key} exists already");
            return Err(say(reason));
        }
        let record = self.find_foreign(from).map_err(say)?;
        if let Err(failure) = self.send_in(key, spec, &record) {
            self.bring_back(&inside, from, from);
            return Err(failure);
        }
        let moved = self.look_up(&inside, key);
        let Some(moved) = moved.filter(|moved| self.kernel.owns(moved)) else {
            self.bring_back(&inside, from, from);
            return Err(say("it did not arrive under its name".to_owned()));
        };
        self.indexes.insert(key.clone(), moved.index);
        let ready = self.bring_up(&inside, key, spec, &moved);
        if ready.is_err() {
            self.bring_back(&inside, key.name, from);
        }
        ready
    }

    /// A link of the host that may be taken: a plugin may name any, also one by which the host lives.
    fn find_foreign(&mut self, from: IfName) -> Result<LinkRecord, String> {
        let at = LinkKey {
            netns: Netns::Host,
            name: from,
        };
        let host = self.host;
        let Some(record) = self.look_up(host, &at) else {
            return Err(format!("the host has no link {from}"));
        };
        let ours = |alias: &str| !alias::is_lent_end(alias) && !is_said_taken(alias);
        if record.owned_alias(&self.kernel.mark).is_some_and(ours) {
            return Err(format!("link {from} is ours and no plugin's"));
        }
        match record.loopback {
            true => Err(format!("{from} is the host's own loopback")),
            false => Ok(record),
        }
    }

    /// Marks a link and moves it into its sandbox, under its name there.
    fn send_in(
        &mut self,
        key: &LinkKey,
        spec: &LinkSpec,
        record: &LinkRecord,
    ) -> Result<(), Failure> {
        let whole = Key::Link(key.clone());
        let file = self.kernel.namespaces.file(&key.netns);
        let file = file.map_err(|error| Failure::netns("take", &whole, &error))?;
        let Some(file) = file else {
            return Err(Failure::because(
                "take",
                &whole,
                "it is to stay on the host",
            ));
        };
        let mut batch = Batch::default();
        link::mark_down(
            &mut batch,
            record.index,
            &alias::of(&self.kernel.mark, spec),
        );
        self.send("take", &whole, batch)?;
        let mut batch = Batch::default();
        let to = Move {
            netns: file.as_raw_fd(),
            name: key.name,
            mac: Some(spec.mac).filter(|mac| *mac != KEPT_MAC),
            alias: None,
        };
        link::relocate(&mut batch, record.index, &to);
        let moved = self.send("take", &whole, batch);
        if moved.is_err() {
            let mut batch = Batch::default();
            link::unmark(&mut batch, record.index);
            drop(batch.run(self.host, &mut self.buffer));
        }
        moved
    }

    fn send(&mut self, verb: &str, whole: &Key, batch: Batch) -> Result<(), Failure> {
        let results = batch.run(self.host, &mut self.buffer);
        let refused = results.into_iter().find_map(Result::err);
        refused.map_or(Ok(()), |refusal| {
            Err(Failure::refusal(verb, whole, &refusal))
        })
    }

    /// Gives a taken link what it lost, such as being up.
    fn set_right(&mut self, key: &LinkKey, spec: &LinkSpec) -> Result<(), Failure> {
        let whole = Key::Link(key.clone());
        let inside = self
            .socket_in(&key.netns)
            .map_err(|error| Failure::netns("change", &whole, &error))?;
        let found = self.look_up(&inside, key);
        let Some(record) = found.filter(|record| self.kernel.owns(record)) else {
            return Err(Failure::because(
                "change",
                &whole,
                "it is not there, or not ours",
            ));
        };
        self.indexes.insert(key.clone(), record.index);
        self.bring_up(&inside, key, spec, &record)
    }

    fn bring_up(
        &mut self,
        inside: &Socket,
        key: &LinkKey,
        spec: &LinkSpec,
        record: &LinkRecord,
    ) -> Result<(), Failure> {
        let mut batch = Batch::default();
        if spec.mac != KEPT_MAC && record.mac != Some(spec.mac) {
            link::set_mac(&mut batch, record.index, spec.mac);
        }
        let alias = alias::of(&self.kernel.mark, spec);
        let has_ipv6 = self.kernel.ipv6 && record.mtu >= IPV6_MTU_MIN;
        let ipv6 = has_ipv6.then_some(spec.link_local);
        link::set_up_taken(&mut batch, record.index, &alias, ipv6);
        let results = batch.run(inside, &mut self.buffer);
        let refused = results.into_iter().find_map(Result::err);
        refused.map_or(Ok(()), |refusal| {
            Err(Failure::refusal(
                "set up",
                &Key::Link(key.clone()),
                &refusal,
            ))
        })
    }

    /// Gives links back to the host.
    pub(super) fn give_back_links(&mut self, netns: &Netns, removals: &[Removal<'a>]) {
        let Some(inside) = self.removal_socket(netns, removals) else {
            return;
        };
        for removal in removals {
            let (Key::Link(key), Spec::Link(spec)) = (removal.key, removal.spec) else {
                continue;
            };
            let LinkKind::Taken { from } = spec.kind else {
                continue;
            };
            self.indexes.remove(key);
            let result = match self.own_index(&inside, removal) {
                // Its maker removed it, or it went with the other end of it.
                None => Ok(()),
                Some(index) => self.send_back(&inside, index, from).map_err(|refusal| {
                    Failure::refusal("give back", removal.key, &refusal).exists(true)
                }),
            };
            self.settle(removal.place, result);
        }
    }

    /// The same for one that could not be taken whole. What cannot be helped is told by the first failure.
    fn bring_back(&mut self, inside: &Socket, name: IfName, from: IfName) {
        let record = link::get_by_name(inside, name, &mut self.buffer);
        if let Some(record) = record.filter(|record| self.kernel.owns(record)) {
            drop(self.send_back(inside, record.index, from));
        }
    }

    /// Moves a link of a sandbox to the host. It gets its old name first, so that the host never sees the other one.
    fn send_back(&mut self, inside: &Socket, index: u32, from: IfName) -> Result<(), Refusal> {
        let host = sys::current_netns().map_err(|error| Refusal::from_io(&error))?;
        let mut batch = Batch::default();
        link::down(&mut batch, index);
        link::rename(&mut batch, index, from);
        // Another link in the sandbox may have that name: then the move gives it.
        drop(batch.run(inside, &mut self.buffer));
        let mut batch = Batch::default();
        let to = Move {
            netns: host.as_raw_fd(),
            name: from,
            mac: None::<Mac>,
            alias: Some(""),
        };
        link::relocate(&mut batch, index, &to);
        let results = batch.run(inside, &mut self.buffer);
        let refused = results.into_iter().find_map(Result::err);
        match refused {
            Some(refusal) if !refusal.is(libc::ENODEV) => Err(refusal),
            _ => Ok(()),
        }
    }
}

fn is_said_taken(alias: &str) -> bool {
    let kind = alias::read(alias).kind;
    matches!(kind, Some(alias::SaidKind::Taken { .. }))
}
