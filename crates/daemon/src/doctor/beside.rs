//! What the doctor says of the firewalls of others: which of them drops what ours accepts, what was done about
//! it, and where the user's own rules are.

use std::collections::BTreeSet;

use tombolo_api::types::Finding;
use tombolo_core::Controller;
use tombolo_core::driver::firewall::USER_CHAIN;
use tombolo_core::model::{Driver, GatewayMode, Network};
use tombolo_kernel::{BaseChain, Diagnosis, ForeignChain, HostFacts};
use tombolo_netstate::object::nft::TABLE;
use tombolo_netstate::object::nft::ruleset::Family;

use super::{bad, good, warn};
use crate::firewalld::{ZONE, Zoning};

/// The topic of all of these.
const TOPIC: &str = "firewall";
/// How firewalld is told to let the outside reach trusted interfaces.
const FIREWALLD_POLICY: &str = "firewall-cmd --permanent --new-policy tombolo, then --policy tombolo \
     with --add-ingress-zone ANY, --add-egress-zone trusted and --set-target ACCEPT, then --reload";

/// What is looked at.
#[derive(Debug)]
pub(super) struct Beside<'a> {
    pub(super) controller: &'a Controller,
    pub(super) host: &'a HostFacts,
    pub(super) diagnosis: &'a Diagnosis,
    pub(super) zoning: &'a Zoning,
}

impl Beside<'_> {
    /// Everything about firewalls, the good with the bad.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.permissions(&mut findings);
        self.neighbours(&mut findings);
        self.policies(&mut findings);
        self.firewalld(&mut findings);
        self.legacy(&mut findings);
        self.bridged(&mut findings);
        if findings.is_empty() {
            let text = "no other table drops forwarded packets by policy".to_owned();
            findings.push(good(TOPIC, text));
        }
        self.input(&mut findings);
        self.user(&mut findings);
        findings
    }

    fn bridges(&self) -> impl Iterator<Item = &Network> {
        let networks = self.controller.networks();
        networks.filter(|network| network.spec.driver == Driver::Bridge)
    }

    /// Chains of iptables in which our bridges need a permission.
    fn permissions(&self, findings: &mut Vec<Finding>) {
        for chain in &self.host.forward_chains {
            let accepted: BTreeSet<&str> = self
                .diagnosis
                .accepted
                .iter()
                .filter(|key| is_in(key.family, &key.table, &key.chain, chain))
                .map(|key| key.bridge.as_str())
                .collect();
            let missing: Vec<&str> = self
                .bridges()
                .filter(|network| match chain.family {
                    Family::V4 => network.spec.ipv4,
                    Family::V6 => network.spec.ipv6,
                })
                .map(|network| network.device.as_str())
                .filter(|device| !accepted.contains(device))
                .collect();
            let place = place(chain);
            if !missing.is_empty() {
                let text = format!(
                    "{place} has no rule that accepts {}: what ours lets through may be dropped there",
                    missing.join(", ")
                );
                findings.push(bad(TOPIC, text, "run `tombolo repair`"));
            }
            if !accepted.is_empty() {
                let names = accepted.into_iter().collect::<Vec<_>>().join(", ");
                let text = format!("{place} accepts {names}: the rules `tombolo network` are ours");
                findings.push(good(TOPIC, text));
            }
        }
    }

    /// Bridges of others that are kept apart from ours.
    fn neighbours(&self, findings: &mut Vec<Finding>) {
        let names: Vec<&str> = self.controller.facts().other_bridges().collect();
        if !names.is_empty() {
            let text = format!(
                "sandboxes reach what is behind {} only at published ports",
                names.join(", ")
            );
            findings.push(good(TOPIC, text));
        }
    }

    /// Chains that drop what they do not know, and that nothing was done about.
    fn policies(&self, findings: &mut Vec<Finding>) {
        let cared_for = |chain: &BaseChain| {
            self.host.forward_chains.iter().any(|known| {
                family(known.family) == chain.family
                    && known.table == chain.table
                    // Docker's own place for permissions is asked by this chain.
                    && (known.chain == chain.chain || chain.chain == "FORWARD")
            })
        };
        let dropping = self.diagnosis.base_chains.iter().filter(|chain| {
            chain.drops
                && chain.hook == "forward"
                && chain.family != "bridge"
                && !(chain.family == "inet" && chain.table == TABLE)
        });
        for chain in dropping.filter(|chain| !cared_for(chain)) {
            let text = format!(
                "chain {} of table {} {} drops what it does not accept of what passes through",
                chain.chain, chain.family, chain.table
            );
            let hint = "accept the networks' bridges there: what ours accepts, another table can still drop";
            findings.push(warn(TOPIC, text, hint));
        }
    }

    fn firewalld(&self, findings: &mut Vec<Finding>) {
        let Zoning::Present { trusted, refused } = self.zoning else {
            return;
        };
        if !trusted.is_empty() {
            let names = trusted.iter().cloned().collect::<Vec<_>>().join(", ");
            let text = format!("firewalld runs; put into its zone {ZONE} were {names}");
            findings.push(good(TOPIC, text));
        }
        for (bridge, reason) in refused {
            let text = format!("firewalld may refuse what comes from {bridge}: {reason}");
            let hint = format!("firewall-cmd --zone={ZONE} --change-interface={bridge}");
            findings.push(warn(TOPIC, text, &hint));
        }
        let open = |network: &&Network| {
            let spec = &network.spec;
            let direct = |mode| matches!(mode, GatewayMode::Routed | GatewayMode::NatUnprotected);
            spec.ipv4 && direct(spec.gateway_mode4) || spec.ipv6 && direct(spec.gateway_mode6)
        };
        for network in self.bridges().filter(open) {
            let text = format!(
                "firewalld refuses what comes from outside for addresses of network {}: it lets published \
                 ports through, and nothing else",
                network.spec.name
            );
            findings.push(warn(TOPIC, text, FIREWALLD_POLICY));
        }
    }

    fn legacy(&self, findings: &mut Vec<Finding>) {
        if self.diagnosis.legacy_iptables.is_empty() {
            return;
        }
        let text = format!(
            "legacy iptables tables are loaded ({}): nobody can look into them from here, and they may drop",
            self.diagnosis.legacy_iptables.join(", ")
        );
        let hint = "look at `iptables-legacy -S FORWARD`; where it drops, accept the bridges with -i and -o, \
                    or move its rules to iptables-nft";
        findings.push(warn(TOPIC, text, hint));
    }

    fn bridged(&self, findings: &mut Vec<Finding>) {
        if self.diagnosis.bridge_netfilter != Some(true) {
            return;
        }
        let text = "bridged packets pass the IP firewall (br_netfilter): slower, and rules of others apply";
        let hint = "set net.bridge.bridge-nf-call-iptables and bridge-nf-call-ip6tables to 0 if nothing \
                    else needs them";
        findings.push(warn(TOPIC, text.to_owned(), hint));
    }

    /// Whether somebody decides about packets for the host, and whether published ports obey.
    fn input(&self, findings: &mut Vec<Finding>) {
        if !self.host.input_filtered {
            let text = "nobody filters packets for the host itself".to_owned();
            return findings.push(good("input", text));
        }
        let (obeying, free): (Vec<&Network>, Vec<&Network>) = self
            .bridges()
            .filter(|network| !network.spec.internal)
            .partition(|network| self.controller.obeys_host_firewall(network));
        let names = |networks: &[&Network]| {
            let names = networks.iter().map(|n| n.spec.name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        if !obeying.is_empty() {
            let text = format!(
                "the host filters its own packets, and ports published on {} obey it",
                names(&obeying)
            );
            findings.push(good("input", text));
        }
        if !free.is_empty() {
            let text = format!(
                "the host filters its own packets, and ports published on {} are open beside that",
                names(&free)
            );
            let hint =
                "set obey-host-firewall=true on the network, or name who may use a port with from=";
            findings.push(warn("input", text, hint));
        }
    }

    fn user(&self, findings: &mut Vec<Finding>) {
        let chain = format!("chain {USER_CHAIN} of table inet {TABLE}");
        match &self.diagnosis.user_rules {
            Ok(Some(rules)) if rules.is_empty() => {
                let text = format!("{chain} is empty: the place for rules of your own");
                findings.push(good("user rules", text));
            }
            Ok(Some(rules)) => {
                let text = format!(
                    "{chain} holds rules of yours ({}), which are kept",
                    rules.count()
                );
                findings.push(good("user rules", text));
            }
            Ok(None) => {}
            Err(reason) => {
                let text = format!("your own rules are not kept: {reason}");
                findings.push(warn(
                    "user rules",
                    text,
                    "make them fewer, or shrink their sets",
                ));
            }
        }
    }
}

fn is_in(key_family: Family, table: &str, name: &str, chain: &ForeignChain) -> bool {
    key_family == chain.family && table == chain.table && name == chain.chain
}

fn place(chain: &ForeignChain) -> String {
    format!(
        "chain {} of table {} {}",
        chain.chain,
        family(chain.family),
        chain.table
    )
}

fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

#[cfg(test)]
mod tests;
