//! Reading back everything of ours, as the specs that would have made it. Applying the difference between
//! that and what is desired repairs whatever somebody has changed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tombolo_netstate::object::address::AddressKey;
use tombolo_netstate::object::detour::{self, DetourKey};
use tombolo_netstate::object::foreign::AcceptSpec;
use tombolo_netstate::object::link::LinkKey;
use tombolo_netstate::object::listener::ListenerSpec;
use tombolo_netstate::object::netns::{NetnsKey, NetnsSpec};
use tombolo_netstate::object::nft::{SetName, TABLE};
use tombolo_netstate::object::sysctl::{SysctlKey, SysctlSpec};
use tombolo_netstate::{Key, Mac, Netns, Objects, Spec};

use crate::facts::read_sysctl;
use crate::kernel::Kernel;
use crate::netlink::{ReadBuffer, Socket};
use crate::nft;

mod projection;
mod view;

use projection::Projection;
use view::View;

/// What is to be read, and what the kernel itself does not remember.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The host: links, addresses, neighbours, forwarding entries, routes, rules, the names of namespaces that we
    /// made, and listeners wherever they are.
    pub host: bool,
    /// Namespaces whose links, addresses, neighbours, routes and listeners are read.
    pub sandboxes: Vec<Netns>,
    /// Settings whose values are read; `restore` is copied from here.
    pub sysctls: Vec<(SysctlKey, SysctlSpec)>,
    /// [`AddressSpec::announce`](tombolo_netstate::object::address::AddressSpec::announce) of addresses that
    /// were announced, copied from here.
    pub announced: BTreeMap<AddressKey, Mac>,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Everything of ours. A link that is down, or floods some kinds of frames and not others, is shown with
    /// an MTU of 0: that is how the difference comes to set it up anew.
    pub objects: Objects,
    /// What looks odd, in words.
    pub notes: Vec<String>,
}

/// Why the kernel cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// No socket in the host's namespace.
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    /// A dump failed.
    #[error("cannot read the {what} of {place}")]
    Dump {
        /// The kind of object.
        what: &'static str,
        /// The namespace.
        place: Netns,
        /// What the kernel said.
        source: io::Error,
    },
    /// A namespace is there and cannot be entered.
    #[error("cannot read network namespace {place}: {reason}")]
    Namespace {
        /// The namespace.
        place: Netns,
        /// What the kernel said.
        reason: String,
    },
    /// Our table or its elements cannot be read.
    #[error("cannot read the {what} of table inet tombolo")]
    Rules {
        /// Rules, or the name of a set.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The chains of other firewalls cannot be read.
    #[error("cannot read our rules in the chains of others")]
    Foreign(#[source] io::Error),
    /// The folder of our namespaces cannot be read.
    #[error("cannot list our network namespaces")]
    Names(#[source] io::Error),
}

/// See [`Kernel::observe`].
pub(crate) fn observe(kernel: &Kernel, scope: &Scope) -> Result<Observed, ObserveError> {
    kernel
        .with_host(|host, buffer| observe_with(kernel, scope, host, buffer))
        .map_err(ObserveError::Socket)?
}

fn observe_with(
    kernel: &Kernel,
    scope: &Scope,
    host: &Socket,
    buffer: &mut ReadBuffer,
) -> Result<Observed, ObserveError> {
    // First, because a namespace that lost its name goes once its listeners are closed.
    let listeners = kernel.listeners.held(&kernel.namespaces, kernel.ports());
    let mut views = Vec::with_capacity(scope.sandboxes.len() + 1);
    if scope.host {
        views.push(View::read(&Netns::Host, host, buffer)?);
    }
    let mut seen = Observed::default();
    for netns in &scope.sandboxes {
        if let Some(socket) = sandbox_socket(kernel, netns)? {
            views.push(View::read(netns, &socket, buffer)?);
        }
        if let Netns::Adopted { .. } = netns {
            read_detour(kernel, netns, &mut seen)?;
        }
    }
    Projection::new(kernel, scope, &views).write(host, buffer, &mut seen);
    if scope.host {
        for name in kernel.namespaces.names().map_err(ObserveError::Names)? {
            seen.objects
                .insert(Key::Netns(NetnsKey { name }), Spec::Netns(NetnsSpec));
        }
        read_rules(kernel, &mut seen)?;
        read_others(kernel, &mut seen)?;
    }
    let listeners = listeners
        .into_iter()
        .filter(|key| scope.host || scope.sandboxes.contains(&key.netns));
    seen.objects
        .extend(listeners.map(|key| (Key::Listener(key), Spec::Listener(ListenerSpec))));
    for (key, spec) in &scope.sysctls {
        if let Ok(value) = read_sysctl(&key.path) {
            let spec = SysctlSpec {
                value: Arc::from(value),
                restore: spec.restore.clone(),
            };
            seen.objects
                .insert(Key::Sysctl(key.clone()), Spec::Sysctl(spec));
        }
    }
    Ok(seen)
}

/// A socket in a sandbox; none when the namespace is gone.
fn sandbox_socket(kernel: &Kernel, netns: &Netns) -> Result<Option<Socket>, ObserveError> {
    match kernel.namespaces.socket(netns) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(ObserveError::Namespace {
            place: netns.clone(),
            reason: error.to_string(),
        }),
    }
}

/// Our table in a namespace that others have made.
fn read_detour(kernel: &Kernel, netns: &Netns, seen: &mut Observed) -> Result<(), ObserveError> {
    let nft = match kernel.nft_in(netns) {
        Ok(nft) => nft,
        Err(error) if error.is_gone() => return Ok(()),
        Err(error) => {
            return Err(ObserveError::Namespace {
                place: netns.clone(),
                reason: error.to_string(),
            });
        }
    };
    let failed = |source| ObserveError::Rules {
        what: "detour",
        source,
    };
    if let Some(table) = nft::read_table(&nft, detour::TABLE).map_err(failed)? {
        let netns = netns.clone();
        seen.objects
            .insert(Key::Detour(DetourKey { netns }), Spec::Detour(table));
    }
    Ok(())
}

/// Our table, and the elements of its sets.
fn read_rules(kernel: &Kernel, seen: &mut Observed) -> Result<(), ObserveError> {
    let failed = |what| move |source| ObserveError::Rules { what, source };
    let Some(base) = nft::read_table(&kernel.nft, TABLE).map_err(failed("rules"))? else {
        return Ok(());
    };
    seen.objects.insert(Key::NftBase, Spec::NftBase(base));
    for set in SetName::ALL {
        match nft::dump_elements(&kernel.nft, set) {
            Ok((elements, strange)) => {
                seen.objects.extend(
                    elements
                        .into_iter()
                        .map(|(key, spec)| (Key::Element(key), Spec::Element(spec))),
                );
                if strange > 0 {
                    seen.notes.push(format!(
                        "{strange} elements of {} are not ours",
                        set.as_str()
                    ));
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                seen.notes
                    .push(format!("table inet tombolo has no set {}", set.as_str()));
            }
            Err(error) => return Err(failed(set.as_str())(error)),
        }
    }
    Ok(())
}

/// Our permissions in chains of others, and the ports that we hold.
fn read_others(kernel: &Kernel, seen: &mut Observed) -> Result<(), ObserveError> {
    let accepts = nft::foreign::observe(&kernel.nft).map_err(ObserveError::Foreign)?;
    seen.objects.extend(
        accepts
            .into_iter()
            .map(|key| (Key::Accept(key), Spec::Accept(AcceptSpec))),
    );
    let held = kernel.ports().held();
    seen.objects.extend(
        held.into_iter()
            .map(|(key, spec)| (Key::Port(key), Spec::Port(spec))),
    );
    Ok(())
}

/// A stand-in for the other end of a veth that is in a namespace which nobody asked about and which we have
/// not made it in: it differs from whatever is desired.
fn unknown_twin() -> Option<LinkKey> {
    Some(LinkKey {
        netns: Netns::Owned(Arc::from("unknown")),
        name: tombolo_netstate::IfName::new("unknown").ok()?,
    })
}
