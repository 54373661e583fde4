//! Bridges and veths: born in one message each, then given their mark and settings, then brought up.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;

use tombolo_netstate::object::link::{LinkKey, LinkKind, LinkSpec};
use tombolo_netstate::{IfName, Key, Mac, Netns, Spec};

use super::failure::Failure;
use super::{Run, Wish, master_of, twin_of};
use crate::alias;
use crate::kernel::is_passing;
use crate::netlink::batch::{Refusal, pardon};
use crate::netlink::link::{self, LinkRecord, Setup, Twin};
use crate::netlink::{Batch, Socket};

mod direct;

use direct::Settings;
pub(super) use direct::direct_of;

/// Links born together: each holds the file of its other end's namespace open meanwhile.
const BORN_TOGETHER: usize = 64;
/// How often a birth is tried with other numbers, or after clearing a remnant away.
const BIRTHS_MAX: usize = 8;

/// A link about to be made.
#[derive(Debug)]
struct Birth<'a> {
    place: usize,
    key: &'a LinkKey,
    spec: &'a LinkSpec,
    master: Option<u32>,
    index: u32,
    twin: Option<BirthTwin>,
}

#[derive(Debug)]
struct BirthTwin {
    key: LinkKey,
    mac: Option<Mac>,
    index: u32,
    /// Its namespace, where that is another than its pair's.
    file: Option<File>,
}

/// A link that is there and waits for its settings.
#[derive(Debug)]
struct Standing<'a> {
    place: usize,
    key: &'a LinkKey,
    spec: &'a LinkSpec,
    index: u32,
    /// As it was before an update.
    before: Option<Before>,
}

#[derive(Debug)]
struct Before {
    record: LinkRecord,
    /// The bridge to which its port led.
    direct: Option<IfName>,
}

impl<'a> Run<'a> {
    /// Makes or changes bridges and veths.
    pub(super) fn make_links(&mut self, wishes: &[Wish<'a>]) {
        let mut by_place: BTreeMap<&Netns, Vec<Wish<'a>>> = BTreeMap::new();
        for wish in wishes {
            if let (Key::Link(key), false) = (wish.key, self.is_blocked(wish)) {
                by_place.entry(&key.netns).or_default().push(*wish);
            }
        }
        for (netns, wishes) in by_place {
            let socket = match self.socket_in(netns) {
                Ok(socket) => socket,
                Err(error) => {
                    for wish in wishes {
                        self.settle(wish.place, Err(Failure::netns("make", wish.key, &error)));
                    }
                    continue;
                }
            };
            for wishes in wishes.chunks(BORN_TOGETHER) {
                let standing = self.stand_up(&socket, wishes);
                self.set_up(&socket, standing);
            }
        }
    }

    /// Creates what is to be created and finds what is to be changed.
    fn stand_up(&mut self, socket: &Socket, wishes: &[Wish<'a>]) -> Vec<Standing<'a>> {
        let (mut standing, mut births) = (Vec::new(), Vec::new());
        for wish in wishes {
            let (Key::Link(key), Spec::Link(spec)) = (wish.key, wish.spec) else {
                continue;
            };
            let found = if let Some(from) = wish.from {
                self.find_own(socket, key).map(|record| {
                    let (place, index) = (wish.place, record.index);
                    let direct = match from {
                        Spec::Link(from) => direct_of(from),
                        _ => None,
                    };
                    standing.push(Standing {
                        place,
                        key,
                        spec,
                        index,
                        before: Some(Before { record, direct }),
                    });
                })
            } else {
                self.conceive(socket, wish.place, key, spec)
                    .map(|birth| births.push(birth))
            };
            if let Err(failure) = found {
                self.settle(wish.place, Err(failure));
            }
        }
        let mut batch = Batch::default();
        for birth in &births {
            push_birth(&mut batch, birth);
        }
        let results = batch.run(socket, &mut self.buffer);
        for (birth, result) in births.into_iter().zip(results) {
            let place = birth.place;
            match self.deliver(socket, birth, result) {
                Ok(born) => standing.push(born),
                Err(failure) => self.settle(place, Err(failure)),
            }
        }
        standing
    }

    /// Looks up what a birth needs.
    fn conceive(
        &mut self,
        socket: &Socket,
        place: usize,
        key: &'a LinkKey,
        spec: &'a LinkSpec,
    ) -> Result<Birth<'a>, Failure> {
        let whole = Key::Link(key.clone());
        let master = match master_of(key, spec) {
            None => None,
            Some(bridge) => Some(self.index_of(socket, &bridge).ok_or_else(|| {
                Failure::because("create", &whole, format!("there is no bridge {bridge}"))
            })?),
        };
        let (index, twin_index) = self.kernel.new_indexes();
        let twin = match twin_of(key, &spec.kind) {
            None => None,
            Some((twin, mac)) => {
                let file = if twin.netns == key.netns {
                    None
                } else {
                    Some(self.twin_place(&whole, &twin)?)
                };
                Some(BirthTwin {
                    key: twin,
                    mac,
                    index: twin_index,
                    file,
                })
            }
        };
        Ok(Birth {
            place,
            key,
            spec,
            master,
            index,
            twin,
        })
    }

    fn twin_place(&self, whole: &Key, twin: &LinkKey) -> Result<File, Failure> {
        let file = self.kernel.namespaces.file(&twin.netns);
        match file.map_err(|error| Failure::netns("create", whole, &error))? {
            Some(file) => Ok(file),
            None => {
                crate::sys::current_netns().map_err(|error| Failure::io("create", whole, &error))
            }
        }
    }

    /// Takes what was born; where the kernel refused, tries again if the reason can be helped.
    fn deliver(
        &mut self,
        socket: &Socket,
        mut birth: Birth<'a>,
        mut result: Result<(), Refusal>,
    ) -> Result<Standing<'a>, Failure> {
        for _ in 0..BIRTHS_MAX {
            match &result {
                Ok(()) => break,
                // Our number is taken by somebody else, in this namespace or the other end's.
                Err(refusal) if refusal.is(libc::EBUSY) => self.renumber(&mut birth),
                Err(refusal) if refusal.is(libc::EEXIST) => {
                    let holder = link::get_by_index(socket, birth.index, &mut self.buffer);
                    if holder.is_some() {
                        self.renumber(&mut birth);
                    } else {
                        self.clear_remnant(socket, &birth)?;
                    }
                }
                Err(_) => break,
            }
            let mut batch = Batch::default();
            push_birth(&mut batch, &birth);
            result = batch.run(socket, &mut self.buffer).pop().unwrap_or(Ok(()));
        }
        if let Err(refusal) = result {
            return Err(Failure::refusal(
                "create",
                &Key::Link(birth.key.clone()),
                &refusal,
            ));
        }
        self.indexes.insert(birth.key.clone(), birth.index);
        if let Some(twin) = &birth.twin {
            self.indexes.insert(twin.key.clone(), twin.index);
            if let Some(mac) = twin.mac {
                self.kernel
                    .remember_twin(birth.index, twin.key.clone(), mac);
            }
        }
        let Birth {
            place,
            key,
            spec,
            index,
            ..
        } = birth;
        Ok(Standing {
            place,
            key,
            spec,
            index,
            before: None,
        })
    }

    fn renumber(&self, birth: &mut Birth<'a>) {
        let (index, twin_index) = self.kernel.new_indexes();
        birth.index = index;
        if let Some(twin) = &mut birth.twin {
            twin.index = twin_index;
        }
    }

    /// Removes a link that stands in the way and was left half made or half removed by an earlier process.
    fn clear_remnant(&mut self, socket: &Socket, birth: &Birth<'a>) -> Result<(), Failure> {
        let whole = Key::Link(birth.key.clone());
        let say = |reason: String| Failure::because("create", &whole, reason);
        let Some(there) = self.look_up(socket, birth.key) else {
            let other = birth.twin.as_ref().map_or(birth.key, |twin| &twin.key);
            return Err(say(format!(
                "EEXIST: a link {other} exists and is not ours"
            )));
        };
        if !is_passing(&there) {
            let ours = there.owned_alias(&self.kernel.mark).is_some();
            let whose = if ours {
                "is ours already"
            } else {
                "is not ours"
            };
            return Err(
                say(format!("EEXIST: a link of that name exists and {whose}")).exists(ours),
            );
        }
        let mut batch = Batch::default();
        link::delete(&mut batch, there.index);
        match batch.run(socket, &mut self.buffer).pop() {
            Some(Err(refusal)) if !refusal.is(libc::ENODEV) => Err(say(format!(
                "a remnant of that name cannot be removed: {refusal}"
            ))),
            _ => Ok(()),
        }
    }

    /// The link of that name, if it is ours.
    fn find_own(&mut self, socket: &Socket, key: &LinkKey) -> Result<LinkRecord, Failure> {
        let whole = Key::Link(key.clone());
        match self.look_up(socket, key) {
            None => Err(Failure::because("change", &whole, "it is not there")),
            Some(record) if !self.kernel.owns(&record) => Err(Failure::because(
                "change",
                &whole,
                "a link of that name is not ours",
            )),
            Some(record) => {
                self.indexes.insert(key.clone(), record.index);
                Ok(record)
            }
        }
    }

    /// Gives links their settings and brings them up; one that fails here is there all the same.
    fn set_up(&mut self, socket: &Socket, standing: Vec<Standing<'a>>) {
        let mut settings = Settings::default();
        let mut sent = Vec::with_capacity(standing.len());
        for link in standing {
            let start = settings.batch.len();
            match self.prepare(socket, &link, &mut settings) {
                Ok(direct) => sent.push((link, direct, start..settings.batch.len())),
                Err(failure) => self.settle(link.place, Err(failure.exists(true))),
            }
        }
        let mut results = settings.batch.run(socket, &mut self.buffer);
        pardon(&mut results, settings.pardons);
        drop(settings.programs);
        for (link, direct, all) in sent {
            let refused = all
                .filter_map(|place| Some((place, results[place].as_ref().err()?)))
                .next();
            let result = match refused {
                None => Ok(()),
                Some((place, refusal)) if direct.contains(&place) => {
                    Err(direct::failed(link.key, refusal).exists(true))
                }
                Some((_, refusal)) => {
                    let whole = Key::Link(link.key.clone());
                    Err(Failure::refusal("set up", &whole, refusal).exists(true))
                }
            };
            self.settle(link.place, result);
        }
    }

    /// Writes down the settings of a link; the places of the messages that lead it past bridging.
    fn prepare(
        &mut self,
        socket: &Socket,
        link: &Standing<'a>,
        settings: &mut Settings,
    ) -> Result<Range<usize>, Failure> {
        self.allow_ipv6(link.key, link.spec)?;
        let direct = self.push_direct(socket, link, settings)?;
        let batch = &mut settings.batch;
        if let Some(before) = &link.before {
            self.push_changes(socket, link, &before.record, batch)?;
        }
        let alias = alias::of(&self.kernel.mark, link.spec);
        if let LinkKind::Lent { name } = link.spec.kind {
            let netns = link.key.netns.clone();
            if let Some(index) = self.indexes.get(&LinkKey { netns, name }) {
                let alias = alias::of_lent_end(&self.kernel.mark, link.spec);
                link::lend(batch, *index, &alias);
            }
        }
        let setup = Setup {
            index: link.index,
            spec: link.spec,
            alias: &alias,
            ipv6: self.kernel.ipv6,
        };
        link::set_up(batch, &setup);
        Ok(direct)
    }

    /// What an update changes of that which a link is born with.
    fn push_changes(
        &mut self,
        socket: &Socket,
        link: &Standing<'a>,
        before: &LinkRecord,
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        if before.mac != Some(link.spec.mac) {
            link::set_mac(batch, link.index, link.spec.mac);
        }
        let master = match master_of(link.key, link.spec) {
            None => None,
            Some(bridge) => Some(self.index_of(socket, &bridge).ok_or_else(|| {
                let reason = format!("there is no bridge {bridge}");
                Failure::because("change", &Key::Link(link.key.clone()), reason)
            })?),
        };
        if before.master != master {
            link::set_master(batch, link.index, master.unwrap_or(0));
        }
        Ok(())
    }
}

fn push_birth(batch: &mut Batch, birth: &Birth<'_>) {
    let (name, spec) = (birth.key.name, birth.spec);
    match (&spec.kind, &birth.twin) {
        (LinkKind::Bridge { snooping, .. }, _) => {
            link::create_bridge(batch, birth.index, name, spec, *snooping);
        }
        (_, Some(twin)) => {
            let twin = Twin {
                index: twin.index,
                name: twin.key.name,
                mac: twin.mac,
                netns: twin.file.as_ref().map(AsRawFd::as_raw_fd),
            };
            link::create_veth(batch, birth.index, name, spec, birth.master, &twin);
        }
        (
            LinkKind::Veth { .. }
            | LinkKind::Lent { .. }
            | LinkKind::Peer { .. }
            | LinkKind::Taken { .. },
            None,
        ) => {}
    }
}
