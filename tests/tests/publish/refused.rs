//! What cannot be published or linked: exit code, words, and that nothing is left.

use tombolo_api::{Sandbox, SandboxFilter};
use tombolo_lab::node::wait_until;
use tombolo_tests::Stage;
use tombolo_tests::stage::PATIENCE;

/// Commands, their exit codes, and words that the message has.
const REFUSED: &[(&str, i32, &[&str])] = &[
    ("-p 70000:80", 2, &["70000", "65535"]),
    ("-p 8080:70000", 2, &["70000"]),
    ("-p 8080:0", 2, &["port 0"]),
    ("-p 8000-8010:80-89", 2, &["8000-8010", "80-89", "11", "10"]),
    ("-p 65530-65540:80-90", 2, &["65530-65540", "65535"]),
    ("-p 8010-8000:80-90", 2, &["8010-8000", "backwards"]),
    ("-p 0-10:80-90", 2, &["0-10"]),
    ("-p 8080:80/icmp", 2, &["icmp"]),
    ("-p 192.0.2.300:8080:80", 2, &["192.0.2.300"]),
    ("-p fe80::1%eth0:8080:80", 2, &["fe80::1%eth0"]),
    (
        "-p 203.0.113.9:8080:80",
        2,
        &["203.0.113.9", "not an address of this host"],
    ),
    (
        "-p [2001:db8::bad]:8080:80",
        2,
        &["2001:db8::bad", "not an address of this host"],
    ),
    (
        "-p 203.0.113.9:20000-29999:20000-29999",
        2,
        &["203.0.113.9", "not an address of this host"],
    ),
    ("-p 7000:80", 3, &["7000", "is already published", "holder"]),
    (
        "-p 192.0.2.10:7000:80",
        3,
        &["7000", "is already published", "holder"],
    ),
    (
        "-p 6990-7010:6990-7010",
        3,
        &["7000", "is already published", "holder"],
    ),
    (
        "-p 7000-7999:7000-7999",
        3,
        &["7000", "is already published", "holder"],
    ),
    (
        "-p 7150:80/udp",
        3,
        &["7100-7199", "is already published", "holder"],
    ),
    ("-p 9000:80", 3, &["9000", "taken", "perl (pid "]),
    (
        "-p 192.0.2.10:9000:80/udp",
        3,
        &["9000", "taken", "perl (pid "],
    ),
    ("-p 8990-9009:80-99", 3, &["9000", "taken", "perl (pid "]),
    (
        "-p 8500-9500:8500-9500",
        3,
        &["9000", "taken", "perl (pid "],
    ),
    ("-p 8080:80 -p 8080:81", 3, &["8080", "twice"]),
    (
        "-p 8080:80 -p 192.0.2.10:8079-8081:79-81",
        3,
        &["8080", "twice"],
    ),
    (
        "-p 192.0.2.10:8080:80,from=2001:db8::/32",
        2,
        &["2001:db8::/32", "family"],
    ),
    (
        "-p [::]:8080:80,from=10.0.0.0/8",
        2,
        &["10.0.0.0/8", "family"],
    ),
    ("-p 8080:80,from=10.0.0.300", 2, &["10.0.0.300"]),
    ("-p unix:web.sock:80", 2, &["web.sock", "absolute"]),
    ("-p unix:/run/x.sock:80-81", 2, &["single TCP port"]),
    (
        "-p unix:/no/such/directory/x.sock:80",
        2,
        &["/no/such/directory"],
    ),
    ("--link nobody", 5, &["nobody"]),
    ("--link stopped", 3, &["stopped", "not running"]),
    ("--link elsewhere", 5, &["elsewhere", "share no network"]),
    ("--link refused", 2, &["refused", "itself"]),
    ("--link holder:bad/alias", 2, &["bad/alias"]),
];

/// Networks and sandboxes that stand in the way.
fn scene(stage: &Stage) {
    stage.ok("network create n --ipv6");
    stage.ok("network create other");
    stage.ok("network create inner --internal");
    stage.ok("network create four");
    stage.ok("sandbox create --name holder --network n -p 7000:70 -p 7100-7199:7100-7199/udp");
    stage.ok("sandbox create --name elsewhere --network other");
    stage.ok("sandbox create --name stopped --network n");
    stage.ok("sandbox stop stopped");
    // Its link leaves a little later; what is looked at from here on must not hold it.
    let links = || stage.shell("ip -o link | grep -c \"master tb-\" || true");
    assert!(
        wait_until(PATIENCE, || links() == "2"),
        "{}",
        stage.shell("ip -o link")
    );
}

/// Has a program of the node take port 9000 for as long as the node exists.
fn occupy_9000(stage: &Stage) {
    let program = "use Socket; my $at = sockaddr_in(9000, INADDR_ANY); \
        socket(my $t, PF_INET, SOCK_STREAM, 0); bind($t, $at) or die; listen($t, 5); \
        socket(my $u, PF_INET, SOCK_DGRAM, 0); bind($u, $at) or die; sleep 600";
    stage.shell(&format!("perl -e '{program}' >/dev/null 2>&1 &"));
    let taken = || stage.shell("ss -Hlntu sport = :9000 | wc -l") == "2";
    assert!(wait_until(PATIENCE, taken));
}

/// All sandboxes as they are, without their ages as words.
fn sandboxes(stage: &Stage) -> Vec<Sandbox> {
    let client = &mut stage.client();
    let all = client.sandbox_list(SandboxFilter::default());
    all.expect("the daemon lists sandboxes")
}

/// Everything bound on the node, whoever did it.
fn bound(stage: &Stage) -> String {
    stage.shell("ss -HlntuaB 2>/dev/null | awk '{print $1, $2, $5}' | sort; ss -Hlntu | awk '{print $1, $5}' | sort")
}

#[test]
fn bad_publications_and_links_are_refused_and_leave_nothing() {
    let Some(stage) = Stage::start() else { return };
    scene(&stage);
    occupy_9000(&stage);
    let (traces, sockets, listed) = (stage.traces().unwrap(), bound(&stage), sandboxes(&stage));
    for (words, code, told) in REFUSED {
        stage.assert_refused(
            &format!("sandbox create --name refused --network n {words}"),
            *code,
            told,
        );
    }
    stage.assert_traces(&traces);
    assert_eq!(bound(&stage), sockets);
    assert_eq!(sandboxes(&stage), listed);
    // The same of a sandbox that runs.
    stage.ok("sandbox create --name refused --network n");
    let traces = stage.traces().unwrap();
    for (words, code, told) in REFUSED.iter().filter(|(words, ..)| words.starts_with("-p")) {
        let line = format!("publish add refused {}", words.replace("-p ", ""));
        stage.assert_refused(&line, *code, told);
    }
    stage.assert_traces(&traces);
    assert_eq!(bound(&stage), sockets);
    assert_eq!(stage.ok("port refused"), "");
    stage.ok("publish add refused 8080:80 8081-8090:81-90");
    stage.assert_in_place();
}

#[test]
fn all_publications_of_a_request_are_made_or_none() {
    let Some(stage) = Stage::start() else { return };
    scene(&stage);
    stage.ok("sandbox create --name s --network n -p 8000:80");
    let (traces, sockets) = (stage.traces().unwrap(), bound(&stage));
    let many: Vec<String> = (8001..8060).map(|port| format!("{port}:{port}")).collect();
    let many = many.join(" ");
    stage.assert_refused(&format!("publish add s {many} 7000:80"), 3, &["holder"]);
    stage.assert_refused(
        &format!("publish add s {many} 203.0.113.9:8100:80"),
        2,
        &["203.0.113.9"],
    );
    stage.assert_traces(&traces);
    assert_eq!(bound(&stage), sockets);
    stage.assert_refused("publish rm s 8000:80 9999:99", 5, &["9999:99"]);
    assert_eq!(stage.inspect("s").publications.len(), 1);
    stage.ok(&format!("publish add s {many}"));
    assert_eq!(stage.inspect("s").publications.len(), 60);
    stage.assert_in_place();
}

#[test]
fn what_is_on_no_published_network_publishes_nothing() {
    let Some(stage) = Stage::start() else { return };
    scene(&stage);
    let traces = stage.traces().unwrap();
    for how in ["--host", "--network none", "--network inner"] {
        let line = format!("sandbox create --name s {how} -p 8080:80");
        stage.assert_refused(&line, 2, &["s"]);
    }
    for network in ["host", "none", "inner"] {
        let line = format!("run --rm --network {network} -p 8080:80 true");
        stage.assert_refused(&line, 125, &["network"]);
    }
    stage.assert_traces(&traces);
    stage.ok("sandbox create --name s --network inner");
    stage.assert_refused("publish add s 8080:80", 2, &["internal"]);
    stage.assert_refused("publish add nobody 8080:80", 5, &["nobody"]);
    assert_eq!(stage.ok("ps --all --quiet"), "");
}

#[test]
fn a_plain_link_layer_without_icc_has_no_links() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create m --multicast --icc=false");
    stage.ok("sandbox create --name db --network m --expose 80");
    let traces = stage.traces().unwrap();
    let line = "sandbox create --name web --network m --link db";
    stage.assert_refused(line, 2, &["network m", "no link can open"]);
    stage.assert_traces(&traces);
}

#[test]
fn links_that_lead_in_a_ring_are_refused() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create n --icc=false");
    stage.ok("sandbox create --name a --network n");
    stage.ok("sandbox create --name b --network n --link a");
    stage.ok("sandbox create --name c --network n --link b");
    stage.ok("sandbox stop a");
    stage.ok("sandbox rm a");
    let traces = stage.traces().unwrap();
    stage.assert_refused(
        "sandbox create --name a --network n --link c",
        2,
        &["lead back"],
    );
    stage.assert_traces(&traces);
    stage.ok("sandbox create --name a --network n");
    assert_eq!(stage.inspect("a").linked_by, ["b"]);
    stage.assert_in_place();
}
