//! Carrying out a plan: operations of one place go together in as few messages as their dependencies allow.
//!
//! A request never names a link by text: numbers are ours or looked up just before, so that a request that
//! follows a failed one cannot hit somebody else's link of the same name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::thread;
use std::time::Instant;

use tombolo_netstate::object::Phase;
use tombolo_netstate::object::detour::{self, DetourKey};
use tombolo_netstate::object::link::{LinkKey, LinkKind, LinkSpec};
use tombolo_netstate::object::nft::BaseSpec;
use tombolo_netstate::{Action, Key, Mac, Netns, Outcome, Plan, Report, Spec};

use crate::kernel::Kernel;
use crate::limits::{PORT_LOOK_AGAIN, PORT_WAIT};
use crate::netlink::link::{IPV6_MTU_MIN, LinkRecord};
use crate::netlink::{ReadBuffer, Socket, link};
use crate::netns::NetnsError;
use crate::nft;

mod dependency;
mod doors;
mod edges;
mod failure;
mod inside;
mod links;
mod removal;
mod taken;

use dependency::missing;
use failure::Failure;

/// See [`Kernel::apply`].
pub(crate) fn apply(kernel: &Kernel, plan: &Plan) -> Report {
    let socket = match kernel.checkout() {
        Ok(socket) => socket,
        Err(error) => return nothing_done(plan, &error),
    };
    let (host, buffer) = socket;
    let mut run = Run {
        kernel,
        plan,
        host: &host,
        buffer,
        outcomes: vec![None; plan.ops.len()],
        absent: BTreeSet::new(),
        created: plan
            .ops
            .iter()
            .filter(|op| matches!(op.action, Action::Create(_)))
            .map(|op| &op.key)
            .collect(),
        indexes: BTreeMap::new(),
    };
    let mut first = 0;
    while first < plan.ops.len() {
        let makes = is_make(&plan.ops[first].action);
        let rest = &plan.ops[first..];
        let count = rest
            .iter()
            .take_while(|op| is_make(&op.action) == makes)
            .count();
        let places: Vec<usize> = (first..first + count).collect();
        if makes {
            run.make(&places);
        } else {
            run.remove(&places);
        }
        first += count;
    }
    run.follow();
    let Run {
        outcomes, buffer, ..
    } = run;
    kernel.checkin(host, buffer);
    Report {
        outcomes: outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Outcome::Done))
            .collect(),
    }
}

fn is_make(action: &Action) -> bool {
    matches!(action, Action::Create(_) | Action::Update { .. })
}

fn nothing_done(plan: &Plan, error: &io::Error) -> Report {
    let outcome = Outcome::Failed {
        error: format!("cannot open a netlink socket: {error}"),
        exists: false,
    };
    Report {
        outcomes: vec![outcome; plan.ops.len()],
    }
}

/// One application of a plan.
#[derive(Debug)]
struct Run<'a> {
    kernel: &'a Kernel,
    plan: &'a Plan,
    host: &'a Socket,
    buffer: ReadBuffer,
    outcomes: Vec<Option<Outcome>>,
    /// What failed to come into being, or to go, in this plan.
    absent: BTreeSet<&'a Key>,
    /// What the plan makes, after removing it where it is replaced.
    created: BTreeSet<&'a Key>,
    /// Numbers of links that were made or looked up.
    indexes: BTreeMap<LinkKey, u32>,
}

/// Where requests go.
#[derive(Debug)]
enum Place<'a> {
    Host(&'a Socket),
    Sandbox(Socket),
}

impl std::ops::Deref for Place<'_> {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        match self {
            Self::Host(socket) => socket,
            Self::Sandbox(socket) => socket,
        }
    }
}

/// What an operation wants of its object.
#[derive(Debug, Clone, Copy)]
struct Wish<'a> {
    place: usize,
    key: &'a Key,
    spec: &'a Spec,
    /// What is there already.
    from: Option<&'a Spec>,
}

impl Wish<'_> {
    fn is_taken(&self) -> bool {
        matches!(self.spec, Spec::Link(link) if link.is_taken())
    }
}

impl<'a> Run<'a> {
    fn make(&mut self, places: &[usize]) {
        let wishes: Vec<Wish<'a>> = places
            .iter()
            .filter_map(|place| self.wish(*place))
            .collect();
        let of = |phase: Phase| -> Vec<Wish<'a>> {
            wishes
                .iter()
                .filter(|wish| wish.spec.phase() == phase)
                .copied()
                .collect()
        };
        self.make_each(&of(Phase::Netns));
        self.make_each(&of(Phase::Sysctl));
        self.make_each(&of(Phase::NftBase));
        self.make_ports(&of(Phase::Port));
        self.make_links(&of(Phase::Master));
        let (taken, born): (Vec<Wish<'a>>, Vec<Wish<'a>>) =
            of(Phase::Link).into_iter().partition(Wish::is_taken);
        self.make_links(&born);
        self.take_links(&taken);
        let mut by_place: BTreeMap<Netns, Vec<Wish<'a>>> = BTreeMap::new();
        for wish in &wishes {
            if (Phase::Peer..=Phase::Route).contains(&wish.spec.phase()) {
                by_place.entry(wish.key.netns()).or_default().push(*wish);
            }
        }
        let host = by_place.remove(&Netns::Host);
        for (netns, wishes) in by_place {
            self.make_inside(&netns, &wishes);
        }
        if let Some(wishes) = host {
            self.make_inside(&Netns::Host, &wishes);
        }
        self.make_listeners(&of(Phase::Listener));
        self.make_each(&of(Phase::Detour));
        self.await_ports(&of(Phase::Link));
        self.make_accepts(&of(Phase::Accept));
        self.make_elements(&of(Phase::Element));
    }

    /// Waits until new ports let frames pass: the bridge learns of their carrier from a worker of the kernel,
    /// and the first packets would be lost.
    fn await_ports(&mut self, wishes: &[Wish<'a>]) {
        let until = Instant::now() + PORT_WAIT;
        for wish in wishes {
            let (Key::Link(key), Spec::Link(spec), None) = (wish.key, wish.spec, wish.from) else {
                continue;
            };
            let Some(index) = self.indexes.get(key).copied() else {
                continue;
            };
            // An end that is lent comes up when the engine has taken the other one.
            let lent = matches!(spec.kind, LinkKind::Lent { .. });
            let portless = key.netns != Netns::Host || spec.port.is_none();
            if lent || portless || self.absent.contains(wish.key) {
                continue;
            }
            loop {
                let record = link::get_by_index(self.host, index, &mut self.buffer);
                let passes =
                    record.is_none_or(|link| link.port.is_some_and(|port| port.forwarding));
                if passes || Instant::now() >= until {
                    break;
                }
                thread::sleep(PORT_LOOK_AGAIN);
            }
        }
    }

    fn wish(&self, place: usize) -> Option<Wish<'a>> {
        let op = self.plan.ops.get(place)?;
        match &op.action {
            Action::Create(spec) => Some(Wish {
                place,
                key: &op.key,
                spec,
                from: None,
            }),
            Action::Update { from, to } => Some(Wish {
                place,
                key: &op.key,
                spec: to,
                from: Some(from),
            }),
            Action::Close(_) | Action::Delete(_) => None,
        }
    }

    /// Whether something that the wish builds on is missing; then it is skipped.
    fn is_blocked(&mut self, wish: &Wish<'a>) -> bool {
        let Some(because) = missing(&self.absent, wish.key, wish.spec) else {
            return false;
        };
        self.outcomes[wish.place] = Some(Outcome::Skipped {
            because: Box::new(because),
        });
        self.absent.insert(wish.key);
        true
    }

    fn settle(&mut self, place: usize, result: Result<(), Failure>) {
        self.outcomes[place] = Some(match result {
            Ok(()) => Outcome::Done,
            Err(failure) => {
                let plan: &'a Plan = self.plan;
                self.absent.insert(&plan.ops[place].key);
                failure.outcome()
            }
        });
    }

    /// Namespaces, settings and the table of rules, which share no message.
    fn make_each(&mut self, wishes: &[Wish<'a>]) {
        for wish in wishes {
            if self.is_blocked(wish) {
                continue;
            }
            let result = match (wish.key, wish.spec) {
                (Key::Netns(key), Spec::Netns(_)) if wish.from.is_none() => {
                    self.kernel.namespaces.create(&key.name).map_err(|error| {
                        let exists = error.raw_os_error() == Some(libc::EEXIST);
                        Failure::io("create", wish.key, &error).exists(exists)
                    })
                }
                (Key::Sysctl(key), Spec::Sysctl(spec)) => write_sysctl(&key.path, &spec.value)
                    .map_err(|error| Failure::io("write", wish.key, &error)),
                (Key::NftBase, Spec::NftBase(spec)) => self.make_base(spec),
                (Key::Detour(key), Spec::Detour(spec)) => self.make_detour(key, spec),
                _ => Ok(()),
            };
            self.settle(wish.place, result);
        }
    }

    fn make_base(&self, spec: &BaseSpec) -> Result<(), Failure> {
        nft::replace_table(&self.kernel.nft, spec, &self.kernel.user_rules())
            .map_err(|refusal| Failure::refusal("write", &Key::NftBase, &refusal))
    }

    fn make_detour(&self, key: &DetourKey, spec: &BaseSpec) -> Result<(), Failure> {
        let whole = Key::Detour(key.clone());
        let nft = (self.kernel.nft_in(&key.netns))
            .map_err(|error| Failure::netns("write", &whole, &error))?;
        nft::put_table(&nft, detour::TABLE, spec)
            .map_err(|refusal| Failure::refusal("write", &whole, &refusal))
    }

    /// The link of that key in the namespace that `socket` is in, as it is now.
    fn look_up(&mut self, socket: &Socket, key: &LinkKey) -> Option<LinkRecord> {
        link::get_by_name(socket, key.name, &mut self.buffer)
    }

    /// Its number, from memory where it was made or met in this plan.
    fn index_of(&mut self, socket: &Socket, key: &LinkKey) -> Option<u32> {
        if let Some(index) = self.indexes.get(key) {
            return Some(*index);
        }
        let index = self.look_up(socket, key)?.index;
        self.indexes.insert(key.clone(), index);
        Some(index)
    }

    /// Says whether the host's IPv6 may use a link of the host. Only by this setting does a port stay out of
    /// the lists that grow with every port.
    fn allow_ipv6(&self, key: &LinkKey, spec: &LinkSpec) -> Result<(), Failure> {
        if key.netns != Netns::Host || !self.kernel.ipv6 || spec.mtu < IPV6_MTU_MIN {
            return Ok(());
        }
        let path = format!("net/ipv6/conf/{}/disable_ipv6", key.name);
        write_sysctl(&path, if spec.ipv6 { "0" } else { "1" })
            .map_err(|error| Failure::io("set up", &Key::Link(key.clone()), &error))
    }

    /// A socket in that namespace, the host's own where it is the host.
    fn socket_in(&self, netns: &Netns) -> Result<Place<'a>, NetnsError> {
        match netns {
            Netns::Host => Ok(Place::Host(self.host)),
            Netns::Owned(_) | Netns::Adopted { .. } => {
                self.kernel.namespaces.socket(netns).map(Place::Sandbox)
            }
        }
    }
}

/// Writes a kernel setting of the calling thread's network namespace.
fn write_sysctl(path: &str, value: &str) -> io::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .open(std::path::Path::new("/proc/sys").join(path))
        // With its line end: an empty list is written by that alone.
        .and_then(|mut file| io::Write::write_all(&mut file, format!("{value}\n").as_bytes()))
}

/// The bridge that a link with this spec attaches to, in the same namespace.
fn master_of(key: &LinkKey, spec: &LinkSpec) -> Option<LinkKey> {
    let port = spec.port.as_ref()?;
    Some(LinkKey {
        netns: key.netns.clone(),
        name: port.bridge,
    })
}

/// The other end that is made together with a link of this kind, with its hardware address where that matters.
fn twin_of(key: &LinkKey, kind: &LinkKind) -> Option<(LinkKey, Option<Mac>)> {
    match kind {
        LinkKind::Veth { peer, peer_mac } => Some((peer.clone(), Some(*peer_mac))),
        LinkKind::Lent { name } => {
            let netns = key.netns.clone();
            Some((LinkKey { netns, name: *name }, None))
        }
        LinkKind::Bridge { .. } | LinkKind::Peer { .. } | LinkKind::Taken { .. } => None,
    }
}
