//! Sockets of the host and of sandboxes: reservations of ports, and listeners.

use tombolo_netstate::Netns;
use tombolo_netstate::object::listener::ListenerKey;
use tombolo_netstate::object::port::{HostAddress, PortKey, PortRange, PortSpec, Protocol};

use super::{Machine, Refusal};

impl Machine {
    pub(super) fn write_port(&mut self, at: &PortKey, spec: PortSpec) -> Result<(), Refusal> {
        let clashes = |other: &PortKey| clash(at, other);
        let mut ours = self.ports.keys().filter(|other| *other != at);
        let mut listening = self.listeners.iter().flat_map(host_ports);
        if ours.any(clashes)
            || self.foreign_ports.iter().any(clashes)
            || listening.any(|port| clashes(&port))
        {
            return Err(Refusal::Taken(at.clone()));
        }
        self.ports.insert(at.clone(), spec);
        Ok(())
    }

    /// Any address will do: it is bound to before it is there.
    pub(super) fn write_listener(&mut self, at: &ListenerKey) -> Result<(), Refusal> {
        if !self.namespaces.contains(&at.netns) {
            return Err(Refusal::NoNetns(at.netns.clone()));
        }
        for wanted in host_ports(at) {
            let mut held = self.ports.keys().chain(&self.foreign_ports);
            if held.any(|other| clash(&wanted, other)) {
                return Err(Refusal::Taken(wanted));
            }
        }
        self.listeners.insert(at.clone());
        Ok(())
    }
}

fn clash(one: &PortKey, other: &PortKey) -> bool {
    one.protocol == other.protocol
        && one.address.overlaps(other.address)
        && one.ports.overlaps(other.ports)
}

/// The ports of the host that a listener takes.
fn host_ports(at: &ListenerKey) -> Vec<PortKey> {
    if at.netns != Netns::Host {
        return vec![];
    }
    let ports = PortRange::one(at.port).ok();
    let taken = |protocol| {
        ports.map(|ports| PortKey {
            protocol,
            address: HostAddress::One(at.address),
            ports,
        })
    };
    [Protocol::Udp, Protocol::Tcp]
        .into_iter()
        .filter_map(taken)
        .collect()
}
