//! Seeing before, while and after; and mending what others broke.

#![expect(clippy::unwrap_used, reason = "what fails in a test fails the test")]

use std::time::{Duration, Instant};

use tombolo_api::{Action, Command, FindingLevel, ObjectState, PlanRequest, SandboxCreate};
use tombolo_lab::node::wait_until;
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

/// A dual-stack network with two sandboxes.
fn pair(stage: &Stage) -> (Place, Place) {
    stage.ok("network create n --ipv6 --subnet 10.80.0.0/24 --subnet fd80::/64");
    (
        stage.sandbox("s1", "--network n"),
        stage.sandbox("s2", "--network n"),
    )
}

#[test]
fn a_plan_changes_nothing_and_says_what_is_then_done() {
    let Some(stage) = Stage::start() else { return };
    pair(&stage);
    let before = stage.traces().unwrap();
    let attachment = tombolo_api::NetworkAttachment {
        network: "n".to_owned(),
        ..Default::default()
    };
    let create = SandboxCreate {
        name: Some("s3".to_owned()),
        networks: vec![attachment],
        ..SandboxCreate::default()
    };
    let command = Command::SandboxCreate(create.clone());
    let plan = stage
        .client()
        .plan(PlanRequest { command })
        .unwrap()
        .operations;
    assert!(
        plan.len() > 5
            && plan
                .iter()
                .all(|operation| operation.action == Action::Create)
    );
    stage.assert_traces(&before);
    assert_eq!(stage.tries("sandbox inspect s3").code, Some(5));
    stage.client().sandbox_create(create).unwrap();
    // Names come from ids, which differ; kinds, places and addresses do not.
    let shape = |kind: &str, object: &str, text: &str| {
        let addresses = ["10.80.0.4", "fd80::4", "10.80.0.1", "fd80::1"];
        let named = addresses
            .iter()
            .filter(|a| object.contains(**a) || text.contains(**a));
        format!("{kind} {}", named.copied().collect::<Vec<_>>().join(" "))
    };
    let mut planned: Vec<String> = plan
        .iter()
        .map(|o| shape(&o.kind, &o.object, &o.text))
        .collect();
    let id = stage.inspect("s3").endpoints[0].id.clone();
    let shared = stage
        .client()
        .explain(&stage.inspect("s1").endpoints[0].id)
        .unwrap()
        .objects;
    let made = stage.client().explain(&id).unwrap().objects;
    let mut made: Vec<String> = made
        .iter()
        .filter(|object| !shared.iter().any(|other| other.object == object.object))
        .map(|o| shape(&o.kind, &o.object, &o.spec))
        .collect();
    planned.sort();
    made.sort();
    assert_eq!(planned, made);
    stage.assert_in_place();
}

#[test]
fn removals_and_refusals_are_planned_too() {
    let Some(stage) = Stage::start() else { return };
    pair(&stage);
    let command = Command::SandboxDelete {
        reference: "s2".to_owned(),
        keep_endpoints: false,
    };
    let plan = stage
        .client()
        .plan(PlanRequest { command })
        .unwrap()
        .operations;
    assert!(
        plan.iter()
            .any(|o| o.action == Action::Delete && o.kind == "netns"),
        "{plan:?}"
    );
    let text = stage.ok("plan network create x --subnet 10.81.0.0/24");
    assert!(
        text.contains("10.81.0.1") && text.lines().all(|line| line.starts_with("+ ")),
        "{text}"
    );
    let refused = stage.tries("plan network create x --subnet 10.80.0.0/24");
    assert_eq!(refused.code, Some(3), "{refused:?}");
}

#[test]
fn explain_shows_every_object_in_place_and_what_it_is_for() {
    let Some(stage) = Stage::start() else { return };
    let (place, _) = pair(&stage);
    let endpoint = stage.inspect("s1").endpoints[0].clone();
    let objects = stage.client().explain(&endpoint.id).unwrap().objects;
    for kind in [
        "link",
        "address",
        "route",
        "neighbour",
        "fdb",
        "element",
        "netns",
        "sysctl",
    ] {
        assert!(
            objects.iter().any(|object| object.kind == kind),
            "no {kind} in {objects:#?}"
        );
    }
    for object in &objects {
        assert_eq!(object.state, ObjectState::InPlace, "{object:?}");
        assert!(!object.owners.is_empty(), "{object:?}");
    }
    for address in &place.addresses {
        let text = format!(" {address}");
        assert!(
            objects.iter().any(|object| object.object.ends_with(&text)),
            "no {address}"
        );
    }
    let table = stage.ok("explain s1");
    assert!(
        table.contains("in place") && !table.contains("missing"),
        "{table}"
    );
    assert_eq!(stage.tries("explain nobody").code, Some(5));
    let topology = stage.ok("topology");
    for word in ["n (bridge)", "s1", "s2", "10.80.0.2/24", "fd80::2/64"] {
        assert!(topology.contains(word), "no {word} in {topology}");
    }
}

/// What somebody may do to the node.
fn damages(stage: &Stage) -> Vec<String> {
    let device = stage.network("n").device.unwrap();
    let port = stage.inspect("s1").endpoints[0]
        .host_interface
        .clone()
        .unwrap();
    vec![
        format!("ip link del {port}"),
        format!("ip link del {device}"),
        format!("ip address del 10.80.0.1/24 dev {device}"),
        format!("ip address del fd80::1/64 dev {device}"),
        format!("ip link set {port} nomaster"),
        format!("ip link set {port} down"),
        format!("ip link set {device} down"),
        format!("ip link set {device} mtu 1400"),
        format!("ip neigh del 10.80.0.2 dev {device}"),
        "sysctl -qw net.ipv4.ip_forward=0".to_owned(),
        "sysctl -qw net.ipv6.conf.all.forwarding=0".to_owned(),
        "nft flush ruleset".to_owned(),
        format!("nft delete element inet tombolo bridges {{ {device} }}"),
        "nft delete element inet tombolo masquerade4 { 10.80.0.0/24 }".to_owned(),
        "nft flush chain inet tombolo forward".to_owned(),
        "nft add rule inet tombolo forward accept".to_owned(),
    ]
}

#[test]
fn repair_mends_what_was_damaged_while_nobody_looked() {
    let Some(stage) = Stage::start() else { return };
    let (s1, s2) = pair(&stage);
    let before = stage.traces().unwrap();
    for damage in damages(&stage) {
        // A daemon that stands still cannot mend unasked.
        stage.shell("kill -STOP $(cat /run/daemon.pid)");
        stage.shell(&damage);
        stage.shell("kill -CONT $(cat /run/daemon.pid)");
        let report = stage.client().repair().unwrap();
        assert!(
            report.failures.is_empty(),
            "{damage}: {:?}",
            report.failures
        );
        stage.assert_in_place();
        assert!(s1.pings(s2.v4()) && s2.pings(s1.v6()), "{damage}");
        assert!(s1.pings(stage.far().v4()), "{damage}");
    }
    stage.assert_traces(&before);
}

#[test]
fn drift_is_repaired_unasked() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    let (s1, s2) = pair(&stage);
    let before = stage.traces().unwrap();
    for damage in damages(&stage) {
        stage.shell(&damage);
        let begun = Instant::now();
        let mended = wait_until(PATIENCE, || stage.traces().unwrap() == before);
        let took = begun.elapsed();
        assert!(mended, "{damage}: {:?}", stage.drift());
        // It takes some 50 ms; a machine at its limits may take longer, the slow timer takes minutes.
        assert!(took < Duration::from_secs(8), "{damage}: {took:?}");
        assert!(s1.pings(s2.v4()) && s2.pings(s1.v6()), "{damage}");
        // What is damaged again and again is mended more and more slowly, and all of this is but one test.
        stage.stop().unwrap();
        stage.start_again();
        stage.assert_in_place();
    }
    s1.assert_reaches(&s2);
    s1.assert_reaches(&stage.far());
}

#[test]
fn damage_inside_a_sandbox_is_told_and_mended() {
    let Some(stage) = Stage::start() else { return };
    let (s1, s2) = pair(&stage);
    for (damage, kind) in [
        ("ip address del 10.80.0.2/24 dev eth0", "address"),
        ("ip route del default", "route"),
        ("ip -6 route flush default", "route"),
        ("ip link set eth0 down", "link"),
        ("ip neigh flush all nud permanent", "neighbour"),
        ("ip link del eth0", "link"),
    ] {
        s1.ok(damage);
        let drift = stage.client().drift().unwrap().operations;
        assert!(drift.iter().any(|o| o.kind == kind), "{damage}: {drift:?}");
        stage.ok("repair");
        stage.assert_in_place();
        s1.assert_reaches(&s2);
        assert!(
            s1.pings(stage.far().v4()) && s1.pings(stage.far().v6()),
            "{damage}"
        );
    }
}

#[test]
fn what_is_not_ours_is_never_touched() {
    let Some(stage) = Stage::start() else { return };
    pair(&stage);
    stage.shell(
        "nft add table inet theirs && nft add chain inet theirs c && ip link add foreign0 type bridge \
         && ip address add 10.200.0.1/24 dev foreign0 && ip link add tb-0000000001 type bridge \
         && ip route add 203.0.113.0/24 via 192.0.2.1 && ip netns add foreign",
    );
    let before = stage.traces().unwrap();
    assert!(stage.drift().is_empty());
    stage.ok("repair");
    stage.ok("sandbox rm s1 s2");
    stage.ok("network rm n");
    stage.ok("system prune --force");
    for line in before
        .iter()
        .filter(|line| line.contains("foreign") || line.contains("theirs"))
    {
        assert!(stage.traces().unwrap().contains(line), "{line}");
    }
    stage.shell("ip link show tb-0000000001 && ip route show 203.0.113.0/24 | grep -q via");
}

#[test]
fn the_doctor_names_a_foreign_chain_that_drops() {
    let Some(stage) = Stage::start() else { return };
    let (s1, _) = pair(&stage);
    let finds = |level: FindingLevel, word: &str| {
        let findings = stage.client().doctor().unwrap().findings;
        findings
            .iter()
            .any(|finding| finding.level == level && finding.text.contains(word))
    };
    assert!(!finds(FindingLevel::Warning, "theirs"));
    stage.shell("nft 'add table ip theirs; add chain ip theirs gate { type filter hook forward priority 5; policy drop; }'");
    assert!(s1.pings_in_vain(stage.far().v4()));
    assert!(finds(FindingLevel::Warning, "theirs") && finds(FindingLevel::Warning, "gate"));
    stage.shell("nft delete table ip theirs");
    assert!(!finds(FindingLevel::Warning, "theirs"));
    assert!(s1.pings(stage.far().v4()));
    stage.shell("ip route del default; ip -6 route del default");
    assert!(wait_until(PATIENCE, || finds(
        FindingLevel::Warning,
        "default route"
    )));
}
