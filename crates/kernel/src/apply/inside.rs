//! What is set within one namespace: other ends of veths, addresses, neighbours, forwarding entries and
//! routes, all in one batch.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use tombolo_netstate::object::link::{LinkKey, LinkKind, LinkSpec};
use tombolo_netstate::{IfName, Key, Netns, Outcome, Spec};

use super::failure::Failure;
use super::{Run, Wish};
use crate::limits::ADDRESS_WAIT;
use crate::netlink::address::AddressRecord;
use crate::netlink::attribute::Message;
use crate::netlink::batch::Refusal;
use crate::netlink::link::{LinkRecord, Setup};
use crate::netlink::{Batch, ReadBuffer, Socket, address, fdb, link, neighbour, route};
use crate::sys;

/// `RTNLGRP_IPV6_IFADDR`.
const GROUP_IPV6_ADDRESS: u32 = 9;

/// IPv6 addresses that are not usable yet, by link.
type Awaited = BTreeSet<(u32, IpAddr)>;

impl<'a> Run<'a> {
    /// Carries out the wishes of one namespace, in their order.
    pub(super) fn make_inside(&mut self, netns: &Netns, wishes: &[Wish<'a>]) {
        let socket = match self.socket_in(netns) {
            Ok(socket) => socket,
            Err(error) => {
                for wish in wishes {
                    if !self.is_blocked(wish) {
                        self.settle(wish.place, Err(Failure::netns("make", wish.key, &error)));
                    }
                }
                return;
            }
        };
        let mut batch = Batch::default();
        let mut sent = Vec::with_capacity(wishes.len());
        let mut awaited = Awaited::new();
        for wish in wishes {
            if self.is_blocked(wish) {
                continue;
            }
            match self.encode(&socket, wish, &mut batch) {
                Ok(waits) => {
                    // A bridge without a running port has no carrier: its addresses may stay unusable for long.
                    awaited.extend(waits.filter(|_| *netns != Netns::Host));
                    sent.push((*wish, batch.len()));
                }
                Err(failure) => self.settle(wish.place, Err(failure)),
            }
        }
        let listens = !awaited.is_empty() && socket.join(GROUP_IPV6_ADDRESS).is_ok();
        let results = batch.run_seeing(&socket, &mut self.buffer, &mut |message| {
            note_usable(&mut awaited, &message);
        });
        self.settle_all(&sent, results);
        if listens {
            self.forget_refused(&sent, &mut awaited);
            wait_usable(&socket, awaited, &mut self.buffer);
        }
    }

    fn settle_all(&mut self, sent: &[(Wish<'a>, usize)], results: Vec<Result<(), Refusal>>) {
        let mut results = results.into_iter();
        let mut taken = 0;
        for (wish, end) in sent {
            let own = results.by_ref().take(end - taken).fold(Ok(()), Result::and);
            taken = *end;
            let Err(refusal) = own else {
                self.settle(wish.place, Ok(()));
                continue;
            };
            if self.is_blocked(wish) {
                continue;
            }
            let half_made = matches!(wish.key, Key::Link(_)) || wish.from.is_some();
            let failure = Failure::refusal("set", wish.key, &refusal).exists(half_made);
            self.settle(wish.place, Err(failure));
        }
    }

    fn forget_refused(&self, sent: &[(Wish<'a>, usize)], awaited: &mut Awaited) {
        for (wish, _) in sent {
            if let (Key::Address(at), Some(Outcome::Failed { .. } | Outcome::Skipped { .. })) =
                (wish.key, &self.outcomes[wish.place])
            {
                awaited.retain(|(_, ip)| *ip != at.ip);
            }
        }
    }

    /// Appends the requests for one wish; returns the address that must be waited for, if it is one.
    fn encode(
        &mut self,
        socket: &Socket,
        wish: &Wish<'a>,
        batch: &mut Batch,
    ) -> Result<std::option::IntoIter<(u32, IpAddr)>, Failure> {
        let mut waits = None;
        let replace = wish.from.is_some();
        match (wish.key, wish.spec) {
            (Key::Link(key), Spec::Link(spec)) => self.encode_peer(socket, key, spec, batch)?,
            (Key::Address(key), Spec::Address(spec)) => {
                let index = self.need(socket, wish.key, &key.netns, key.link)?;
                address::set(batch, index, key.ip, spec, replace);
                waits = key.ip.is_ipv6().then_some((index, key.ip));
            }
            (Key::Neighbour(key), Spec::Neighbour(spec)) => {
                let index = self.need(socket, wish.key, &key.netns, key.link)?;
                neighbour::set(batch, index, key.ip, spec.mac);
            }
            (Key::Fdb(key), Spec::Fdb(spec)) => {
                let port = self.need(socket, wish.key, &Netns::Host, spec.port)?;
                fdb::set(batch, port, key.mac);
            }
            (Key::Route(key), Spec::Route(spec)) => {
                let index = self.need(socket, wish.key, &key.netns, spec.link)?;
                route::set(batch, key, spec, index, replace);
            }
            _ => {}
        }
        Ok(waits.into_iter())
    }

    /// The number of a link that must be there.
    fn need(
        &mut self,
        socket: &Socket,
        whose: &Key,
        netns: &Netns,
        name: IfName,
    ) -> Result<u32, Failure> {
        let key = LinkKey {
            netns: netns.clone(),
            name,
        };
        self.index_of(socket, &key)
            .ok_or_else(|| Failure::because("set", whose, format!("there is no link {key}")))
    }

    /// The other end of a veth is known by its pair, not by its name: a link of that name may be anybody's.
    fn encode_peer(
        &mut self,
        socket: &Socket,
        key: &LinkKey,
        spec: &LinkSpec,
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        let index = match self.indexes.get(key) {
            Some(index) => *index,
            None => {
                let record = self.find_peer(socket, key, spec)?;
                if record.mac != Some(spec.mac) {
                    link::set_mac(batch, record.index, spec.mac);
                }
                record.index
            }
        };
        self.allow_ipv6(key, spec)?;
        if let Some(port) = &spec.port {
            let bridge = self.need(socket, &Key::Link(key.clone()), &key.netns, port.bridge)?;
            link::set_master(batch, index, bridge);
        }
        let alias = format!("{}{}", self.kernel.mark, spec.alias);
        link::set_up(
            batch,
            &Setup {
                index,
                spec,
                alias: &alias,
                ipv6: self.kernel.ipv6,
            },
        );
        Ok(())
    }

    fn find_peer(
        &mut self,
        socket: &Socket,
        key: &LinkKey,
        spec: &LinkSpec,
    ) -> Result<LinkRecord, Failure> {
        let whole = Key::Link(key.clone());
        let LinkKind::Peer { pair } = &spec.kind else {
            return Err(Failure::because(
                "set up",
                &whole,
                "it is not the other end of a veth",
            ));
        };
        let Some(record) = self.look_up(socket, key) else {
            return Err(Failure::because("set up", &whole, "it is not there"));
        };
        let place = self
            .socket_in(&pair.netns)
            .map_err(|error| Failure::netns("set up", &whole, &error))?;
        let pair_index = self.index_of(&place, pair);
        if record.link.is_none() || record.link != pair_index {
            let reason = format!("a link of that name is not the other end of {pair}");
            return Err(Failure::because("set up", &whole, reason));
        }
        self.indexes.insert(key.clone(), record.index);
        Ok(record)
    }
}

/// Strikes an address off the list when the kernel tells that it is usable.
fn note_usable(awaited: &mut Awaited, message: &Message<'_>) {
    if message.kind != address::NEW || awaited.is_empty() {
        return;
    }
    if let Some(record) = AddressRecord::read(message.body).filter(AddressRecord::is_usable) {
        awaited.remove(&(record.index, record.ip));
    }
}

/// Waits for the kernel's worker, without which the first packets would be lost, but not for ever.
fn wait_usable(socket: &Socket, mut awaited: Awaited, buffer: &mut ReadBuffer) {
    let until = Instant::now() + ADDRESS_WAIT;
    while !awaited.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up, so that the last fraction of a millisecond is not spent spinning.
        let timeout_ms = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(0);
        let ready = timeout_ms > 0 && sys::poll(&[socket.as_fd()], timeout_ms).is_ok_and(|r| r[0]);
        if !ready {
            tracing::debug!(?awaited, "IPv6 addresses are not usable yet");
            return;
        }
        if socket
            .drain(buffer, |message| note_usable(&mut awaited, &message))
            .is_err()
        {
            return;
        }
    }
}
