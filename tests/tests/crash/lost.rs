//! Somebody takes away what published ports need: rules, elements, settings. Connections that exist go on, and
//! what the user added of his own comes back with the rest.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tombolo_api::SandboxCreate;
use tombolo_lab::node::{self, wait_until};
use tombolo_tests::Stage;

use crate::away::{connection, publishing};
use crate::ports::{
    assert_published, assert_taken, converse, every_form, taken, tcp, tcp_seen, udp,
};
use crate::scene::{PATIENCE, on, restart, scene, start};

/// Longest time in which rules are put back unasked.
const SOON: Duration = Duration::from_secs(1);
/// Times by which a machine at its limits may be slower.
const SLACK: u32 = 3;

/// Asserts that published ports answer from outside and by the host's own 127.0.0.1.
#[track_caller]
fn assert_all_is_well(stage: &Stage) {
    assert_published(stage, "s");
    let (here, inside) = (stage.here(), stage.place("s"));
    let own = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8080);
    let answered = wait_until(PATIENCE, || tcp_seen(&here, own, &inside, 80).is_some());
    assert!(answered, "no answer at 127.0.0.1");
    stage.assert_in_place();
}

/// Lets somebody take something away, and asserts that it comes back unasked, that an open connection goes on,
/// and that nothing else is different afterwards.
fn comes_back_after(fault: &str) {
    let Some(stage) = publishing(every_form()) else {
        return;
    };
    assert_all_is_well(&stage);
    let (before, kept) = (stage.traces().unwrap(), taken(&stage));
    let to = SocketAddr::new(stage.here().v4(), 8080);
    let (mut client, mut served) = connection(&stage, to, 80);
    let rules = || stage.shell("nft list ruleset 2>/dev/null | grep -c 'dport\\|:' || true");
    let whole = rules();
    stage.shell(fault);
    let since = Instant::now();
    let back = wait_until(PATIENCE, || rules() == whole);
    let took = since.elapsed();
    assert!(back, "`{fault}` is not mended");
    assert!(took < SOON * SLACK, "`{fault}` was mended after {took:?}");
    stage.assert_traces(&before);
    assert!(converse(&mut client, &mut served), "the connection is dead");
    assert_taken(&stage, &kept, fault);
    assert_all_is_well(&stage);
}

#[test]
fn flushed_rules_come_back_within_a_second() {
    comes_back_after("nft flush ruleset");
}

#[test]
fn a_deleted_table_comes_back_within_a_second() {
    comes_back_after("nft delete table inet tombolo");
}

#[test]
fn deleted_elements_come_back_within_a_second() {
    comes_back_after(
        "nft delete element inet tombolo publish_any4 { tcp . 8080 }
         nft delete element inet tombolo relay_any6 { tcp . 8080 }
         nft flush map inet tombolo publish_range4",
    );
}

/// Lets somebody change the host by a script, and asserts that the difference is seen: when asked, or by a
/// comparison that something else began meanwhile, which mends it at once.
#[track_caller]
fn is_seen(stage: &Stage, script: &str) {
    let told = stage.log().len();
    stage.shell(script);
    let seen = !stage.drift().is_empty() || stage.log()[told..].contains("repairing drift");
    assert!(seen, "`{script}` is not seen as a difference");
}

/// Lets somebody undo a setting of the host, and asserts that it is noticed, and mended when asked and by a
/// restart.
fn is_mended_after(fault: fn(&Stage) -> String) {
    let Some(mut stage) = publishing(every_form()) else {
        return;
    };
    assert_all_is_well(&stage);
    let (before, kept) = (stage.traces().unwrap(), taken(&stage));
    for restarts in [false, true] {
        let script = fault(&stage);
        is_seen(&stage, &script);
        if restarts {
            restart(&mut stage);
            wait_until(PATIENCE, || stage.drift().is_empty());
        } else {
            stage.ok("repair");
        }
        assert_eq!(stage.drift(), Vec::<String>::new(), "after `{script}`");
        assert_taken(&stage, &kept, &script);
        stage.assert_traces(&before);
        assert_all_is_well(&stage);
    }
}

fn device(stage: &Stage) -> String {
    stage.network("one").device.expect("a bridge")
}

#[test]
fn loopback_routing_that_was_switched_off_is_switched_on() {
    is_mended_after(|stage| {
        let device = device(stage);
        format!("echo 0 >/proc/sys/net/ipv4/conf/{device}/route_localnet")
    });
}

#[test]
fn ports_that_the_kernel_might_give_away_are_kept_from_it_again() {
    is_mended_after(|_| "echo 40000-40010 >/proc/sys/net/ipv4/ip_local_reserved_ports".to_owned());
}

#[test]
fn a_hub_whose_ports_lose_their_programs_is_mended() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create hub --multicast");
    let (a, b) = (
        stage.sandbox("a", "--network hub -p 8080:80"),
        stage.sandbox("b", "--network hub"),
    );
    let device = stage.inspect("a").endpoints[0].host_interface.clone();
    let device = device.expect("a veth");
    if !stage
        .shell(&format!("tc qdisc show dev {device}"))
        .contains("clsact")
    {
        node::skip("packets that cross a bridge pass no rules here: hubs have no programs");
        return;
    }
    is_seen(&stage, &format!("tc qdisc del dev {device} clsact"));
    stage.ok("repair");
    assert_eq!(stage.drift(), Vec::<String>::new());
    assert!(a.pings(b.v4()) && b.pings(a.v4()));
    let to = SocketAddr::new(stage.here().v4(), 8080);
    assert!(tcp_seen(&stage.far(), to, &a, 80).is_some());
}

/// Publishes large ranges beside a list of reserved ports, and asserts that the list is as before when they go.
fn comes_back(before: &str, meanwhile: &str) {
    let Some(mut stage) = scene() else { return };
    let reserved = |stage: &Stage| stage.shell("cat /proc/sys/net/ipv4/ip_local_reserved_ports");
    stage.stop().unwrap();
    stage.shell(&format!(
        "echo {before} >/proc/sys/net/ipv4/ip_local_reserved_ports"
    ));
    start(&mut stage, &[]);
    let create = SandboxCreate {
        name: Some("s".to_owned()),
        networks: on(&["one"]),
        publish: vec![
            tcp("40005-41004", "30000-30999"),
            udp("41000-41064", "41000-41064"),
        ],
        ..SandboxCreate::default()
    };
    stage.client().sandbox_create(create).unwrap();
    assert_eq!(reserved(&stage), meanwhile);
    restart(&mut stage);
    assert_eq!(reserved(&stage), meanwhile);
    stage.client().sandbox_delete("s", false).unwrap();
    let back = wait_until(PATIENCE, || reserved(&stage) == before);
    assert!(back, "it was `{before}` and is `{}`", reserved(&stage));
    stage.assert_in_place();
}

#[test]
fn an_empty_list_of_reserved_ports_comes_back() {
    comes_back("", "40005-41064");
}

#[test]
fn somebody_elses_reserved_ports_are_kept_and_come_back() {
    comes_back("22,40000-40010", "22,40000-41064");
}

#[test]
fn a_long_list_of_somebody_elses_reserved_ports_comes_back() {
    let others = "50000-50010,50100-50110,50200-50210,50300-50310";
    comes_back(
        &format!("22,40000-40010,{others}"),
        &format!("22,40000-41064,{others}"),
    );
}

#[test]
fn four_hundred_large_ranges_are_reserved() {
    const RANGES: u32 = 400;
    let Some(mut stage) = scene() else { return };
    let reserved = |stage: &Stage| stage.shell("cat /proc/sys/net/ipv4/ip_local_reserved_ports");
    let range = |n: u32| format!("{}-{}", 1_100 + n * 70, 1_164 + n * 70);
    let ranges: Vec<String> = (0..RANGES).map(range).collect();
    let create = SandboxCreate {
        name: Some("s".to_owned()),
        networks: on(&["one"]),
        publish: ranges.iter().map(|range| tcp(range, range)).collect(),
        ..SandboxCreate::default()
    };
    stage.client().sandbox_create(create).unwrap();
    let expected = format!("22,{}", ranges.join(","));
    assert_eq!(reserved(&stage), expected);
    stage.assert_in_place();
    restart(&mut stage);
    stage.assert_in_place();
    assert_eq!(reserved(&stage), expected);
    stage.client().sandbox_delete("s", false).unwrap();
    let back = wait_until(PATIENCE, || reserved(&stage) == "22");
    assert!(back, "it is {}", reserved(&stage));
}

/// Adds a rule of the user's own, and waits until it is remembered.
fn add_user_rule(stage: &Stage, rule: &str) {
    let told = stage.log().len();
    stage.shell(&format!("nft 'add rule inet tombolo tombolo-user {rule}'"));
    let remembered = wait_until(PATIENCE, || {
        stage.log()[told..].contains("own rules are remembered")
    });
    assert!(remembered, "`{rule}` is not noticed");
}

/// The addresses of the node at which the published port answers the outside.
fn answering(stage: &Stage) -> Vec<bool> {
    let (far, here, inside) = (stage.far(), stage.here(), stage.place("s"));
    let answers = |ip| tcp_seen(&far, SocketAddr::new(ip, 8080), &inside, 80).is_some();
    vec![answers(here.v4()), answers(here.v6())]
}

#[test]
fn the_users_own_rules_survive_everything() {
    let Some(mut stage) = publishing(vec![tcp("8080", "80")]) else {
        return;
    };
    let own =
        |stage: &Stage| stage.shell("nft list chain inet tombolo tombolo-user 2>/dev/null || true");
    let flush = |stage: &Stage, whole: &str| {
        stage.shell("nft flush ruleset");
        let back = wait_until(PATIENCE, || own(stage) == whole);
        assert!(back, "the user's own rules are now {}", own(stage));
    };
    assert_eq!(answering(&stage), [true, true]);
    add_user_rule(&stage, "ip saddr 192.0.2.1 drop");
    assert_eq!(answering(&stage), [false, true]);
    flush(&stage, &own(&stage));
    assert_eq!(answering(&stage), [false, true]);
    add_user_rule(
        &stage,
        "ip6 saddr { 2001:db8::1, 2001:db8:7::/48 } counter drop",
    );
    let whole = own(&stage);
    restart(&mut stage);
    assert_eq!(answering(&stage), [false, false]);
    stage.kill().unwrap();
    stage.shell("nft flush ruleset");
    start(&mut stage, &[]);
    let without_counts = |text: &str| {
        let words = text
            .split_whitespace()
            .filter(|word| word.parse::<u64>().is_err());
        words.collect::<Vec<_>>().join(" ")
    };
    let back = wait_until(PATIENCE, || {
        without_counts(&own(&stage)) == without_counts(&whole)
    });
    assert!(back, "the user's own rules are now {}", own(&stage));
    assert_eq!(answering(&stage), [false, false]);
    // What is changed while nobody looks is learnt at the next start.
    stage.kill().unwrap();
    stage.shell("nft flush chain inet tombolo tombolo-user");
    start(&mut stage, &[]);
    let open = wait_until(PATIENCE, || answering(&stage) == [true, true]);
    assert!(open, "rules that the user removed are back");
    flush(&stage, &own(&stage));
    assert_eq!(answering(&stage), [true, true]);
    stage.assert_in_place();
}
