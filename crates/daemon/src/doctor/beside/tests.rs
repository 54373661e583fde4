use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tombolo_api::types::FindingLevel;
use tombolo_core::ipam::DefaultPools;
use tombolo_core::{Controller, Facts, Settings};
use tombolo_kernel::{Features, UserRules};
use tombolo_netstate::IfName;
use tombolo_netstate::object::foreign::AcceptKey;

use super::*;

fn host() -> HostFacts {
    HostFacts {
        uplinks: Vec::new(),
        routes: Vec::new(),
        addresses: Vec::new(),
        links: Vec::new(),
        ipv6: true,
        boot_id: String::new(),
        features: Features {
            veth: true,
            bridge: true,
            nft_inet: true,
            nft_nat: true,
            address_protocol: true,
        },
        forward_chains: Vec::new(),
        input_filtered: false,
        bridge_nf: false,
    }
}

fn diagnosis() -> Diagnosis {
    Diagnosis {
        base_chains: Vec::new(),
        legacy_iptables: Vec::new(),
        bridge_netfilter: Some(false),
        accepted: Vec::new(),
        user_rules: Ok(Some(UserRules::default())),
        neighbour_limits: Vec::new(),
    }
}

fn told(host: &HostFacts, diagnosis: &Diagnosis, zoning: &Zoning) -> Vec<Finding> {
    let pools = DefaultPools::new(Vec::new()).unwrap();
    let controller = Controller::new(Settings::default(), pools, Facts::default());
    let beside = Beside {
        controller: &controller,
        host,
        diagnosis,
        zoning,
    };
    beside.findings()
}

fn warnings(findings: &[Finding]) -> Vec<&str> {
    let bad = findings.iter().filter(|f| f.level != FindingLevel::Ok);
    bad.map(|f| f.text.as_str()).collect()
}

fn dropping(family: &'static str, table: &str, chain: &str) -> BaseChain {
    BaseChain {
        family,
        table: table.to_owned(),
        chain: chain.to_owned(),
        hook: "forward",
        priority: 0,
        drops: true,
    }
}

#[test]
fn a_host_without_other_firewalls_is_well_and_has_a_place_for_the_users_rules() {
    let findings = told(&host(), &diagnosis(), &Zoning::Absent);
    assert_eq!(warnings(&findings), [""; 0]);
    let texts: Vec<&str> = findings.iter().map(|f| f.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "no other table drops forwarded packets by policy",
            "nobody filters packets for the host itself",
            "chain tombolo-user of table inet tombolo is empty: the place for rules of your own",
        ]
    );
}

#[test]
fn a_chain_that_drops_is_told_unless_a_permission_stands_there() {
    let mut diagnosis = diagnosis();
    diagnosis.base_chains = vec![
        dropping("ip", "filter", "FORWARD"),
        dropping("inet", "mine", "fwd"),
        dropping("inet", TABLE, "forward"),
        BaseChain {
            hook: "input",
            ..dropping("ip", "filter", "INPUT")
        },
    ];
    let mut host = host();
    host.forward_chains = vec![ForeignChain {
        family: Family::V4,
        table: "filter".to_owned(),
        chain: "DOCKER-USER".to_owned(),
    }];
    diagnosis.accepted = vec![AcceptKey {
        family: Family::V4,
        table: Arc::from("filter"),
        chain: Arc::from("DOCKER-USER"),
        bridge: IfName::new("tb0").unwrap(),
    }];
    let findings = told(&host, &diagnosis, &Zoning::Absent);
    assert_eq!(
        warnings(&findings),
        ["chain fwd of table inet mine drops what it does not accept of what passes through"]
    );
    let added =
        "chain DOCKER-USER of table ip filter accepts tb0: the rules `tombolo network` are ours";
    assert!(findings.iter().any(|f| f.text == added), "{findings:?}");
}

#[test]
fn what_cannot_be_looked_into_or_kept_and_what_firewalld_refuses_is_told() {
    let mut diagnosis = diagnosis();
    diagnosis.legacy_iptables = vec!["iptables filter".to_owned()];
    diagnosis.bridge_netfilter = Some(true);
    diagnosis.user_rules = Err("too many".to_owned());
    let zoning = Zoning::Present {
        trusted: BTreeSet::from(["tb0".to_owned()]),
        refused: BTreeMap::from([("tb1".to_owned(), "it is in another zone".to_owned())]),
    };
    let findings = told(&host(), &diagnosis, &zoning);
    let expected = [
        "firewalld may refuse what comes from tb1: it is in another zone",
        "legacy iptables tables are loaded (iptables filter): nobody can look into them from here, and they may drop",
        "bridged packets pass the IP firewall (br_netfilter): slower, and rules of others apply",
        "your own rules are not kept: too many",
    ];
    assert_eq!(warnings(&findings), expected);
    assert!(
        findings
            .iter()
            .all(|f| f.level == FindingLevel::Ok || f.hint.is_some())
    );
}
