//! Scenarios: text scripts with what follows from each line, indented, below it. `TOMBOLO_UPDATE=1` writes
//! what follows now into the files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tombolo_lab::Fault;
use tombolo_netstate::object::nft::ruleset::Family;
use tombolo_netstate::object::port::{HostAddress, PortKey, Protocol};
use tombolo_netstate::{IfName, Key, Netns};

use super::script;
use super::world::{Sight, World};
use crate::command::Reference;
use crate::driver::{self, names};
use crate::event::{Event, Notice, Reply};
use crate::facts::{ForwardChain, Settings};
use crate::model::{Endpoint, SandboxNetns};
use crate::subject::Subject;

#[test]
fn scenarios_go_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "txt"));
    files.sort();
    assert!(
        files.len() >= 15,
        "{} scenarios in {}",
        files.len(),
        folder.display()
    );
    let update = std::env::var_os("TOMBOLO_UPDATE").is_some();
    let mut differing = vec![];
    for path in files {
        let written = std::fs::read_to_string(&path).unwrap();
        let found = Scenario::play(&written);
        if found.contains("\n    WRONG ") {
            differing.push(format!("{} is wrong:\n{found}", path.display()));
        }
        if update {
            std::fs::write(&path, found).unwrap();
        } else if written != found {
            differing.push(format!(
                "{}:\n{}",
                path.display(),
                first_difference(&written, &found)
            ));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn first_difference(written: &str, found: &str) -> String {
    let same = written
        .lines()
        .zip(found.lines())
        .take_while(|(a, b)| a == b)
        .count();
    let part = |text: &str| {
        text.lines()
            .skip(same)
            .take(12)
            .collect::<Vec<_>>()
            .join("\n")
    };
    format!(
        "from line {}\n--- written\n{}\n--- found\n{}\n",
        same + 1,
        part(written),
        part(found)
    )
}

/// A script under way.
struct Scenario {
    world: World,
    /// Readable names for what is made of hashes.
    words: BTreeMap<String, String>,
    out: String,
}

impl Scenario {
    /// The script with what follows from each of its lines.
    fn play(text: &str) -> String {
        let mut scenario = Self {
            world: World::new(),
            words: BTreeMap::new(),
            out: String::new(),
        };
        scenario.world.sights.clear();
        for line in text.lines().filter(|line| !line.starts_with("    ")) {
            scenario.out.push_str(line);
            scenario.out.push('\n');
            if !line.is_empty() && !line.starts_with('#') {
                scenario.line(line);
                scenario.tell();
            }
        }
        scenario.out
    }

    fn line(&mut self, line: &str) {
        if let Some(command) = script::command(line) {
            self.world.send(command);
            self.learn();
            self.world.rest();
            return;
        }
        if let Some(line) = line.strip_prefix("try ") {
            return self.dry_run(line);
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["crash", "after", n] => self.world.inject(Fault::CrashAfter(n.parse().unwrap())),
            ["fail", n] => self.world.inject(Fault::Fail(n.parse().unwrap())),
            ["half", n] => self.world.inject(Fault::Half(n.parse().unwrap())),
            ["store:", state] => self.world.store_full = *state == "full",
            ["facts:", what @ ..] => self.facts(what),
            ["settings:", what @ ..] => self.settings(what),
            ["drift:", "delete", pattern @ ..] => self.vanish(&pattern.join(" ")),
            ["drift:", "flush", "nft"] => {
                self.world.kernel.vanish(&Key::NftBase);
                self.world.handle(Event::KernelChanged(Notice::NftChanged));
            }
            ["told:", "route"] => self
                .world
                .handle(Event::KernelChanged(Notice::ObjectChanged)),
            ["wait", ms] => self.world.wait(ms.parse().unwrap()),
            ["removals:", state] => self.world.kernel.defer_removals(*state == "deferred"),
            ["settle"] => self.world.settle(),
            ["hold"] => self.world.held = true,
            ["go"] => {
                self.world.held = false;
                while self.world.step() {
                    self.learn();
                }
            }
            ["restart"] => self.world.restart(false),
            ["reboot"] => self.world.restart(true),
            ["exists", netns] => self.exists(netns),
            ["vanish", sandbox] => self.vanish_netns(sandbox),
            ["foreign", "bridge", name, address] => {
                self.world
                    .put_foreign_bridge(name, address.parse().unwrap());
            }
            ["foreign", "port", port] => {
                let ports = PortKey {
                    protocol: Protocol::Tcp,
                    address: HostAddress::Any,
                    ports: port.parse().unwrap(),
                };
                self.world.kernel.take_ports(ports);
            }
            ["crowd", n, network] => {
                self.crowd(n.parse().unwrap(), |n| format!("run x{n} {network}"))
            }
            ["thin", n] => self.crowd(n.parse().unwrap(), |n| format!("rm x{n}")),
            ["show"] => self.show(),
            ["kernel", pattern @ ..] => self.kernel(&pattern.join(" ")),
            ["check"] => {
                let faults = self.world.faults();
                if faults.is_empty() {
                    self.say("all is as it should be");
                }
                faults
                    .iter()
                    .for_each(|fault| self.say(&format!("WRONG {fault}")));
            }
            _ => panic!("unknown line {line:?}"),
        }
        self.world.rest();
    }

    fn dry_run(&mut self, line: &str) {
        let command = script::command(line).unwrap();
        match self.world.controller.dry_run(self.world.now_ms, command) {
            Ok(run) => {
                for (op, owners) in run.ops {
                    let owners: Vec<&str> = owners
                        .iter()
                        .map(|o| o.split('/').next().unwrap_or_default())
                        .collect();
                    let kind = op.to_string();
                    let words: Vec<&str> = kind.split_whitespace().take(2).collect();
                    self.say(&format!(
                        "would {} for {}",
                        words.join(" "),
                        owners.join(", ")
                    ));
                }
            }
            Err(reject) => self.say(&format!("would be refused: {}", reject.code.as_str())),
        }
    }

    fn facts(&mut self, words: &[&str]) {
        let facts = &mut self.world.facts;
        match words {
            ["uplink", "mtu", mtu] => facts.uplinks[0].mtu = mtu.parse().unwrap(),
            ["route", net] => facts.routes.push(net.parse().unwrap()),
            ["no", "ipv6"] => facts.ipv6 = false,
            ["sysctl", path, value] => {
                drop(
                    facts
                        .sysctls
                        .insert((*path).to_owned(), (*value).to_owned()),
                );
            }
            ["relay", port] => facts.relay_port = port.parse().ok(),
            ["bridge-nf"] => facts.bridge_nf = true,
            ["input", "filtered"] => facts.input_filtered = true,
            ["input", "open"] => facts.input_filtered = false,
            ["forward-chain", chain] => facts.forward_chains.push(ForwardChain {
                family: Family::V4,
                table: "filter".to_owned(),
                chain: (*chain).to_owned(),
            }),
            ["link", name] => drop(facts.links.insert((*name).to_owned(), Default::default())),
            _ => panic!("unknown fact {words:?}"),
        }
        self.world.tell_facts();
    }

    /// Other settings, with a fresh host.
    fn settings(&mut self, words: &[&str]) {
        let mut settings = Settings::default();
        match words {
            ["no", "forwarding"] => settings.ip_forward = false,
            ["mtu", mtu] => settings.mtu = mtu.parse().ok(),
            ["cooldown", ms] => settings.cooldown_ms = ms.parse().unwrap(),
            _ => panic!("unknown setting {words:?}"),
        }
        self.world = World::with(settings);
        self.world.sights.clear();
    }

    /// Somebody else removes every object whose text contains `pattern`.
    fn vanish(&mut self, pattern: &str) {
        self.learn();
        let keys: Vec<Key> = self.world.held_objects().into_keys().collect();
        let mut found = 0;
        for key in keys {
            if self.readable(&key.to_string()).contains(pattern) {
                self.world.kernel.vanish(&key);
                let notice = match &key {
                    Key::Link(at) if at.netns == Netns::Host => Some(Notice::LinkGone(at.name)),
                    Key::Address(at) if at.netns == Netns::Host => {
                        Some(Notice::AddressGone(at.link, at.ip))
                    }
                    _ => None,
                };
                if let Some(notice) = notice {
                    self.world.handle(Event::KernelChanged(notice));
                }
                found += 1;
            }
        }
        self.say(&format!("{found} gone"));
    }

    /// Many requests of one kind, of which nothing is told but that they succeeded.
    fn crowd(&mut self, count: usize, line: impl Fn(usize) -> String) {
        for n in 0..count {
            self.world
                .ask(script::command(&line(n)).unwrap())
                .unwrap()
                .unwrap();
            self.learn();
        }
        self.world.sights.clear();
        self.say(&format!("{count} times ok"));
    }

    fn exists(&mut self, inode: &str) {
        let path = PathBuf::from(format!("/proc/{inode}/ns/net"));
        let inode = inode.parse().unwrap();
        self.world.kernel.adopt(Netns::Adopted {
            path: path.into(),
            inode,
        });
    }

    /// The last process leaves a namespace of somebody else.
    fn vanish_netns(&mut self, sandbox: &str) {
        let netns = self.world.netns(sandbox).unwrap();
        let inside = |key: &Key| key.netns() == netns;
        let keys: Vec<Key> = self
            .world
            .held_objects()
            .into_keys()
            .filter(inside)
            .collect();
        for key in keys {
            self.world.kernel.vanish(&key);
        }
        self.world.missing.insert(netns);
    }

    fn show(&mut self) {
        let mut lines = vec![];
        let control = &self.world.controller;
        for network in control.networks() {
            let subnets: Vec<String> = network.pools.iter().map(|p| p.subnet.to_string()).collect();
            let mtu = control.mtu(network);
            let state = format!("{:?}", network.state).to_lowercase();
            lines.push(format!(
                "network {} {state} {} mtu {mtu}",
                network.spec.name,
                subnets.join(" ")
            ));
        }
        for sandbox in control.sandboxes() {
            let state = format!("{:?}", sandbox.state).to_lowercase();
            lines.push(format!("sandbox {} {state}", sandbox.name));
        }
        for endpoint in control.endpoints() {
            let addresses: Vec<String> =
                endpoint.addresses.iter().map(ToString::to_string).collect();
            let at = endpoint
                .attachment
                .as_ref()
                .map_or("detached".to_owned(), |a| {
                    if a.leaf == 0 {
                        a.interface.clone()
                    } else {
                        format!("{} leaf {}", a.interface, a.leaf)
                    }
                });
            lines.push(format!(
                "endpoint {} {} {at}",
                self.label(endpoint),
                addresses.join(" ")
            ));
        }
        lines.sort();
        lines.iter().for_each(|line| self.say(line));
    }

    fn kernel(&mut self, pattern: &str) {
        self.learn();
        let objects = self.world.held_objects();
        let lines = objects
            .iter()
            .map(|(key, spec)| self.readable(&format!("{key} {spec}")));
        let mut lines: Vec<String> = lines.filter(|line| line.contains(pattern)).collect();
        lines.sort();
        if lines.is_empty() {
            lines.push("nothing".to_owned());
        }
        lines.iter().for_each(|line| self.say(line));
    }

    /// Writes what was seen since the last line.
    fn tell(&mut self) {
        self.learn();
        for sight in std::mem::take(&mut self.world.sights) {
            match sight {
                Sight::Plan(plan) => {
                    for line in plan.to_string().lines() {
                        self.say(line);
                    }
                }
                Sight::Answer(answer) => self.tell_answer(&answer),
                Sight::Files(id, there) => {
                    let word = if there { "written" } else { "removed" };
                    self.say(&format!("= files of {id} {word}"));
                }
                Sight::Died => self.say("= the program dies"),
                Sight::Restored(notes) => {
                    self.say("= the program starts");
                    notes.iter().for_each(|note| self.say(&format!("= {note}")));
                }
            }
        }
    }

    fn tell_answer(&mut self, answer: &super::world::Answer) {
        match answer {
            Ok(Reply::Done) => self.say("ok"),
            Ok(Reply::Network(id)) => self.say(&format!("ok network {id}")),
            Ok(Reply::Pruned {
                networks,
                endpoints,
                sandboxes,
            }) => {
                let all = [networks, endpoints, sandboxes].map(|names| names.join(" "));
                self.say(&format!("ok pruned {}", all.join(", ")));
            }
            Ok(Reply::Endpoint(id)) => self.say(&format!("ok endpoint {id}")),
            Ok(Reply::Sandbox(id)) => self.say(&format!("ok sandbox {id}")),
            Ok(Reply::Pool(subnet, gateway)) => {
                let gateway = gateway.map_or_else(String::new, |ip| format!(" by {ip}"));
                self.say(&format!("ok pool {subnet}{gateway}"));
            }
            Ok(Reply::Address(net)) => self.say(&format!("ok address {net}")),
            Ok(Reply::Operations { ops, failures }) => {
                self.say(&format!(
                    "ok {} operations, {} failures",
                    ops.len(),
                    failures.len()
                ));
                ops.iter().for_each(|op| self.say(&format!("  {op}")));
                failures
                    .iter()
                    .for_each(|(key, error)| self.say(&format!("  {key}: {error}")));
            }
            Err(reject) => {
                let (code, kind) = (reject.code.as_str(), reject.code.kind());
                self.say(&format!("refused {code} ({kind:?}) {reject}"));
            }
        }
    }

    fn say(&mut self, line: &str) {
        let line = self.readable(line);
        let _ = writeln!(self.out, "    {}", line.trim_end());
    }

    fn readable(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (hashed, word) in &self.words {
            if text.contains(hashed.as_str()) {
                text = text.replace(hashed.as_str(), word);
            }
        }
        text
    }

    fn label(&self, endpoint: &Endpoint) -> String {
        let network = self.world.controller.network(endpoint.network);
        let network = network.map_or("?".to_owned(), |n| n.spec.name.to_string());
        format!("{network}/{}", endpoint.name)
    }

    /// Learns the names of everything there is.
    fn learn(&mut self) {
        let control = &self.world.controller;
        let mut words = vec![];
        for network in control.networks() {
            let name = &network.spec.name;
            words.push((network.device.clone(), format!("br({name})")));
            words.push((network.id.to_string(), format!("{name}")));
            words.push((
                names::bridge_mac(network.id).to_string(),
                format!("mac(br({name}))"),
            ));
            for leaf in 1..4 {
                let link = |name: Result<IfName, _>| name.map(|name| name.to_string()).unwrap();
                words.push((
                    link(names::leaf(network.id, leaf)),
                    format!("leaf({name}/{leaf})"),
                ));
                words.push((
                    link(names::leaf_port(network.id, leaf)),
                    format!("up({name}/{leaf})"),
                ));
                words.push((
                    link(names::leaf_uplink(network.id, leaf)),
                    format!("down({name}/{leaf})"),
                ));
            }
        }
        for sandbox in control.sandboxes() {
            words.push((sandbox.id.to_string(), sandbox.name.to_string()));
            let netns = driver::netns_of(sandbox).to_string();
            if sandbox.spec.netns == SandboxNetns::Host {
                continue;
            }
            words.push((
                netns,
                format!(
                    "ns({}){}",
                    sandbox.name,
                    "'".repeat(sandbox.epoch as usize - 1)
                ),
            ));
        }
        for endpoint in control.endpoints() {
            let label = self.label(endpoint);
            words.push((endpoint.id.to_string(), label.clone()));
            words.push((
                tombolo_netstate::Mac(endpoint.mac).to_string(),
                format!("mac({label})"),
            ));
            let port = names::mac(&[b"port", &endpoint.id.0.to_be_bytes()]);
            words.push((port.to_string(), format!("port-mac({label})")));
            let marks = "'".repeat((endpoint.epoch as usize).saturating_sub(1));
            let host = names::host_end(endpoint.id, endpoint.epoch)
                .unwrap()
                .to_string();
            words.push((host, format!("veth({label}){marks}")));
        }
        self.words.extend(words);
    }
}

/// The objects behind an endpoint name those for whose sake they exist.
#[test]
fn objects_name_their_owners() {
    let mut world = World::new();
    for line in ["network web ipv6", "run c web"] {
        world.ask(script::command(line).unwrap()).unwrap().unwrap();
    }
    let reference = |text: &str| Reference(text.to_owned());
    let network = world.controller.find_network(&reference("web")).unwrap();
    let endpoint = world.controller.find_endpoint(&reference("web/c")).unwrap();
    assert!(world.controller.is_intact(network.id));
    let objects = world.controller.explain(endpoint.id);
    let owners = |name: &str| {
        let name = IfName::new(name).unwrap();
        let of_link = objects.iter().find(|object| {
            matches!(&object.key, Key::Link(at) if at.netns == Netns::Host && at.name == name)
        });
        of_link.unwrap().owners.clone()
    };
    let port = names::host_end(endpoint.id, endpoint.epoch).unwrap();
    let network_owner = Subject::Network(network.id).owner().to_string();
    let endpoint_owner = Subject::Endpoint(endpoint.id).owner().to_string();
    assert_eq!(owners(&network.device), vec![network_owner]);
    assert_eq!(owners(port.as_str()), vec![endpoint_owner]);
}
