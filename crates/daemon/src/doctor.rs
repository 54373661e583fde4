//! The doctor: looks for what keeps networks on this host from working.

use std::collections::BTreeMap;

use tombolo_api::types::{Finding, FindingLevel};
use tombolo_core::Controller;
use tombolo_core::model::{Driver, Loan};
use tombolo_kernel::{Diagnosis, HostFacts, Kernel, Scope};

use crate::engine::with_sources;
use crate::outside::Outside;
use crate::relay::Counts;
use crate::remote::plugins::Plugins;

mod beside;

use beside::Beside;

/// Everything that was looked at, the good with the bad.
pub(crate) fn findings(
    controller: &Controller,
    kernel: &Kernel,
    outside: &Outside,
    plugins: &Plugins,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    match (kernel.host_facts(), kernel.diagnose()) {
        (Ok(host), Ok(diagnosis)) => {
            features(&host, &mut findings);
            forwarding(controller, kernel, &mut findings);
            let beside = Beside {
                controller,
                host: &host,
                diagnosis: &diagnosis,
                zoning: &outside.zoning(),
            };
            findings.extend(beside.findings());
            relay(outside.relayed(), &mut findings);
            neighbours(controller, &diagnosis, &mut findings);
            mtu(controller, &host, &mut findings);
        }
        (Err(error), _) | (_, Err(error)) => {
            findings.push(bad(
                "kernel",
                with_sources(&error),
                "run the daemon with CAP_NET_ADMIN",
            ));
        }
    }
    engines(controller, &mut findings);
    overlaps(controller, &mut findings);
    silent_plugins(controller, plugins, &mut findings);
    leftovers(controller, kernel, &mut findings);
    findings
}

/// What other engines hold: addresses that nothing uses are those of routers, or of containers that are starting.
fn engines(controller: &Controller, findings: &mut Vec<Finding>) {
    let (mut pools, mut addresses, mut networks) = (0, 0, 0);
    for loan in controller.loans() {
        match loan {
            Loan::Pool { .. } => pools += 1,
            Loan::Address { .. } => addresses += 1,
            Loan::Network { .. } => networks += 1,
        }
    }
    let endpoints = controller.endpoints().filter(|e| e.spec.engine).count();
    if pools + addresses + networks + endpoints == 0 {
        return;
    }
    let text = format!(
        "other engines hold {pools} pools, {addresses} addresses and {endpoints} endpoints, and use {networks} networks of ours"
    );
    findings.push(good("engines", text));
}

fn features(host: &HostFacts, findings: &mut Vec<Finding>) {
    let features = [
        ("veth", host.features.veth, "CONFIG_VETH"),
        ("bridge", host.features.bridge, "CONFIG_BRIDGE"),
        (
            "nftables inet",
            host.features.nft_inet,
            "CONFIG_NF_TABLES_INET",
        ),
        (
            "nftables nat",
            host.features.nft_nat,
            "CONFIG_NFT_NAT and CONFIG_NFT_MASQ",
        ),
    ];
    for (name, there, config) in features {
        if there {
            findings.push(good("kernel", format!("{name} is there")));
        } else {
            let hint = format!("load or build in {config}");
            findings.push(bad(
                "kernel",
                format!("{name} is not there, or not loaded yet"),
                &hint,
            ));
        }
    }
    if host.ipv6 {
        findings.push(good("ipv6", "the kernel has IPv6".to_owned()));
    } else {
        let text = "IPv6 is off: networks with IPv6 are refused".to_owned();
        findings.push(warn(
            "ipv6",
            text,
            "boot without ipv6.disable=1 and set disable_ipv6 to 0",
        ));
    }
}

fn forwarding(controller: &Controller, kernel: &Kernel, findings: &mut Vec<Finding>) {
    let outward = |ipv6: bool| {
        controller.networks().any(|n| {
            n.spec.driver == Driver::Bridge
                && !n.spec.internal
                && if ipv6 { n.spec.ipv6 } else { n.spec.ipv4 }
        })
    };
    for (path, ipv6) in [
        ("net/ipv4/ip_forward", false),
        ("net/ipv6/conf/all/forwarding", true),
    ] {
        match kernel.read_sysctl(path) {
            Ok(value) if value == "1" => {
                findings.push(good("forwarding", format!("{path} is 1")));
            }
            Ok(value) if outward(ipv6) => {
                let text = format!("{path} is {value}: nothing is routed to and from sandboxes");
                findings.push(bad(
                    "forwarding",
                    text,
                    "set ip-forward = true in the configuration",
                ));
            }
            Ok(_) | Err(_) => {}
        }
    }
}

/// What passes through the daemon itself, where no translation leads.
fn relay(counts: Counts, findings: &mut Vec<Finding>) {
    if counts.total == 0 && counts.refused == 0 {
        return;
    }
    let text = format!(
        "{} connections and {} UDP sessions now, {} since the start; {} refused",
        counts.connections, counts.sessions, counts.total, counts.refused
    );
    findings.push(good("relay", text));
}

fn neighbours(controller: &Controller, diagnosis: &Diagnosis, findings: &mut Vec<Finding>) {
    let flooded = controller
        .networks()
        .filter(|n| n.spec.multicast)
        .map(|n| controller.endpoints_of_network(n.id).count())
        .sum::<usize>();
    for (path, limit) in &diagnosis.neighbour_limits {
        let room = usize::try_from(*limit).unwrap_or(usize::MAX) / 2;
        if path.ends_with("gc_thresh3") && flooded > room {
            let text = format!(
                "{path} is {limit}, and {flooded} endpoints sit on networks with multicast: neighbours may not be found"
            );
            findings.push(warn(
                "neighbours",
                text,
                &format!("raise {path} to {}", flooded * 4),
            ));
        }
    }
}

fn mtu(controller: &Controller, host: &HostFacts, findings: &mut Vec<Finding>) {
    let Some(uplink) = host.uplinks.iter().min_by_key(|uplink| uplink.mtu) else {
        let text =
            "no interface has a default route: sandboxes reach this host, but nothing beyond";
        findings.push(warn("uplink", text.to_owned(), "add a default route"));
        return;
    };
    for network in controller
        .networks()
        .filter(|n| n.spec.driver == Driver::Bridge)
    {
        let mtu = controller.mtu(network);
        if mtu > uplink.mtu && !network.spec.internal {
            let text = format!(
                "network {} has MTU {mtu}, its uplink {} has {}: large packets may vanish",
                network.spec.name, uplink.name, uplink.mtu
            );
            findings.push(warn(
                "mtu",
                text,
                "make the network without an MTU, so that it follows the uplink",
            ));
        }
    }
    findings.push(good(
        "uplink",
        format!("{} with MTU {}", uplink.name, uplink.mtu),
    ));
}

fn overlaps(controller: &Controller, findings: &mut Vec<Finding>) {
    for (network, route) in controller.overlaps() {
        let text = format!(
            "network {} overlaps the host's route to {route}",
            network.spec.name
        );
        let hint = "one of the two is not reachable from here: move the network to another subnet";
        findings.push(bad("addresses", text, hint));
    }
    for network in controller
        .networks()
        .filter(|n| !controller.is_intact(n.id))
    {
        let text = format!("network {} is not as it should be", network.spec.name);
        findings.push(bad(
            "drift",
            text,
            "see `tombolo drift`, then run `tombolo repair`",
        ));
    }
}

/// Plugins without which networks of ours cannot change; they were just asked.
fn silent_plugins(controller: &Controller, plugins: &Plugins, findings: &mut Vec<Finding>) {
    let mut needed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for network in controller.networks() {
        let spec = &network.spec;
        for name in spec.plugins() {
            needed.entry(name).or_default().push(spec.name.as_str());
        }
    }
    for (name, mut networks) in needed {
        networks.dedup();
        let status = plugins.status(name);
        if status.answers == Some(true) {
            findings.push(good("plugins", format!("plugin {name} answers")));
            continue;
        }
        let why = status.last_error.unwrap_or_default();
        let text = format!(
            "plugin {name} of network {} does not answer: {why}",
            networks.join(", ")
        );
        findings.push(bad("plugins", text, "start it, or remove its networks"));
    }
}

fn leftovers(controller: &Controller, kernel: &Kernel, findings: &mut Vec<Finding>) {
    let scope = Scope {
        host: true,
        ..Scope::default()
    };
    let found = match kernel.observe(&scope) {
        Ok(observed) => observed.objects,
        Err(error) => {
            let hint = "run the daemon with CAP_NET_ADMIN and CAP_SYS_ADMIN";
            findings.push(bad("leftovers", with_sources(&error), hint));
            return;
        }
    };
    let left: Vec<String> = found
        .keys()
        .filter(|key| !controller.is_expected(key))
        .map(ToString::to_string)
        .collect();
    if left.is_empty() {
        findings.push(good(
            "leftovers",
            "the host holds nothing of ours that nobody wants".to_owned(),
        ));
        return;
    }
    let first = left.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    let text = format!("{} objects of ours that nobody wants: {first}", left.len());
    findings.push(warn("leftovers", text, "run `tombolo repair`"));
}

fn finding(level: FindingLevel, topic: &str, text: String, hint: Option<&str>) -> Finding {
    Finding {
        level,
        topic: topic.to_owned(),
        text,
        hint: hint.map(str::to_owned),
    }
}

fn good(topic: &str, text: String) -> Finding {
    finding(FindingLevel::Ok, topic, text, None)
}

fn warn(topic: &str, text: String, hint: &str) -> Finding {
    finding(FindingLevel::Warning, topic, text, Some(hint))
}

fn bad(topic: &str, text: String, hint: &str) -> Finding {
    finding(FindingLevel::Error, topic, text, Some(hint))
}
