//! Names of the world outside: real servers behind the resolver, what is passed on and what is not, and whom it asks.

use std::collections::BTreeSet;
use std::time::Duration;

use tombolo_lab::node::{FAR_V6, wait_until};
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::upstream::{Deed, Program, Upstream, always, outside_address, says};
use crate::wire::{
    A, AAAA, AUTHENTIC_DATA, CHECKING_DISABLED, CNAME, Client, FORMERR, MX, NXDOMAIN, PTR, Query,
    RECURSION_AVAILABLE, REFUSED, RRSIG, TRUNCATED, TXT, address, ask, ask_over_tcp, timed,
};

/// A daemon that asks the server at `198.51.100.1`, a network `one`, and the sandbox `a` on it.
fn scene() -> Option<(Stage, Place)> {
    let stage = Stage::start_with(&["--dns", "198.51.100.1"])?;
    stage.ok("network create --ipv6 one");
    let a = stage.sandbox("a", "--network one");
    Some((stage, a))
}

/// Asks for everything in a zone of a real server.
fn asks_for_everything(a: &Place) {
    let www = ask(a, "www.corp.example", A);
    assert_eq!(www.texts(A), ["10.9.9.3"], "{www:?}");
    assert!(www.has(RECURSION_AVAILABLE), "{www:?}");
    let six = ask(a, "www.corp.example", AAAA);
    assert_eq!(six.texts(AAAA), ["2001:db8:9::3"], "{six:?}");
    let chain = ask(a, "alias.corp.example", A);
    assert_eq!(chain.texts(A), ["10.9.9.3"], "{chain:?}");
    assert_eq!(
        chain.texts(CNAME),
        ["other.corp.example", "www.corp.example"],
        "{chain:?}"
    );
    let mx = ask(a, "corp.example", MX);
    assert_eq!(mx.texts(MX), ["mail.corp.example"], "{mx:?}");
    let none = ask(a, "nobody.corp.example", A);
    assert_eq!((none.code(), none.answers.len()), (NXDOMAIN, 0), "{none:?}");
    let nothing = ask(a, "mail.corp.example", AAAA);
    assert_eq!(
        (nothing.code(), nothing.answers.len()),
        (0, 0),
        "{nothing:?}"
    );
}

/// Asks for an answer that is longer than a datagram.
fn asks_for_much(a: &Place, bytes: usize) {
    let mut query = Query::new("big.corp.example", TXT);
    for (edns, limit) in [
        (None, 512),
        (Some((512, false)), 512),
        (Some((1_400, false)), 1_232),
        (Some((65_535, true)), 1_232),
    ] {
        query.edns = edns;
        let (cut, _) = Client::at(a).ask(&query);
        assert!(
            cut.has(TRUNCATED) && cut.length <= limit,
            "{edns:?}: {cut:?}"
        );
        assert_eq!(cut.texts(TXT), Vec::<&str>::new(), "a record is not cut");
        let whole = ask_over_tcp(a, &query);
        assert!(!whole.has(TRUNCATED), "{edns:?}");
        assert_eq!(whole.texts(TXT).concat().len(), bytes, "{edns:?}");
    }
}

#[test]
fn unbound_is_asked() {
    let Some((stage, a)) = scene() else { return };
    let at = outside_address(&stage, 1);
    let Some(_unbound) = Program::unbound(&stage.far(), at) else {
        return;
    };
    asks_for_everything(&a);
    asks_for_much(&a, 3_000);
}

#[test]
fn dnsmasq_is_asked() {
    let Some((stage, a)) = scene() else { return };
    let at = outside_address(&stage, 1);
    let big = vec!["z".repeat(200); 10].join(",");
    let words = [
        "--local-ttl=300",
        "--host-record=www.corp.example,10.9.9.3,2001:db8:9::3",
        "--host-record=mail.corp.example,10.9.9.2",
        "--cname=other.corp.example,www.corp.example",
        "--cname=alias.corp.example,other.corp.example",
        "--mx-host=corp.example,mail.corp.example,10",
        &format!("--txt-record=big.corp.example,{big}"),
    ];
    let Some(_dnsmasq) = Program::dnsmasq(&stage.far(), at, &words) else {
        return;
    };
    asks_for_everything(&a);
    asks_for_much(&a, 2_000);
}

#[test]
fn a_server_is_asked_over_ipv6() {
    let Some(stage) = Stage::start_with(&["--dns", FAR_V6]) else {
        return;
    };
    stage.ok("network create one");
    let a = stage.sandbox("a", "--network one");
    let server = Upstream::at(
        &stage.far(),
        FAR_V6.parse().unwrap(),
        always("10.1.1.1", 60),
    );
    assert_eq!(ask(&a, "x.example", A).texts(A), ["10.1.1.1"]);
    assert_eq!(server.count("x.example"), 1);
}

#[test]
fn bits_of_dnssec_are_passed_on() {
    let Some((stage, a)) = scene() else { return };
    let server = Upstream::outside(&stage, 1, |seen| {
        let wants = Query::new("", 0).flags;
        assert_ne!(wants, 0);
        let flags = u16::from_be_bytes([seen.bytes[2], seen.bytes[3]]);
        let is_signed = seen.bytes[seen.bytes.len() - 4] & 0x80 != 0;
        let mut reply = seen.reply().answer("@", A, 60, &address("10.1.1.1"));
        if is_signed {
            reply = reply.answer("@", RRSIG, 60, &signature());
        }
        if flags & CHECKING_DISABLED == 0 {
            reply = reply.with(AUTHENTIC_DATA);
        }
        vec![Deed::Send(reply.bytes())]
    });
    let ask = |name: &str, flags: u16, dnssec_ok: Option<bool>| {
        let mut query = Query::new(name, A);
        query.flags |= flags;
        query.edns = dnssec_ok.map(|wanted| (1_232, wanted));
        let (answer, _) = Client::at(&a).ask(&query);
        assert_eq!(answer.texts(A), ["10.1.1.1"], "{answer:?}");
        let signed = !answer.texts(RRSIG).is_empty();
        (
            signed,
            answer.has(AUTHENTIC_DATA),
            answer.has(CHECKING_DISABLED),
        )
    };
    assert_eq!(ask("s.example", 0, None), (false, false, false));
    assert_eq!(ask("s.example", AUTHENTIC_DATA, None), (false, true, false));
    assert_eq!(server.count("s.example"), 1, "the same answer serves both");
    assert_eq!(ask("s.example", 0, Some(true)), (true, true, false));
    assert_eq!(
        server.count("s.example"),
        2,
        "signatures come when asked for"
    );
    let unchecked = ask("s.example", CHECKING_DISABLED, Some(true));
    assert_eq!(unchecked, (true, false, true));
    assert_eq!(server.count("s.example"), 3);
    assert_eq!(ask("s.example", 0, Some(false)), (false, false, false));
    assert_eq!(server.count("s.example"), 3, "from memory");
}

/// Data of a signature that nobody checks.
fn signature() -> Vec<u8> {
    let mut data = vec![0, 1, 13, 2];
    for number in [60_u32, 2_000_000_000, 1_700_000_000] {
        data.extend_from_slice(&number.to_be_bytes());
    }
    data.extend_from_slice(&[0x12, 0x34]);
    data.extend(crate::wire::encode("example"));
    data.extend_from_slice(&[7; 64]);
    data
}

#[test]
fn a_query_is_hard_to_guess_and_the_client_does_not_see_it() {
    let Some((stage, a)) = scene() else { return };
    let server = Upstream::outside(&stage, 1, always("10.1.1.1", 0));
    const NAME: &str = "A-Name.With.Many-Letters.Example";
    for _ in 0..60 {
        let answer = ask(&a, NAME, A);
        assert_eq!(answer.name, NAME);
        assert_eq!(answer.answers[0].name, NAME);
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 60);
    let different = |count: usize, what: &str| assert!(count >= 58, "{what}: {count} of 60");
    let ids: BTreeSet<u16> = seen.iter().map(|one| one.id).collect();
    different(ids.len(), "ids");
    let ports: BTreeSet<u16> = seen.iter().map(|one| one.from.port()).collect();
    different(ports.len(), "ports");
    let names: BTreeSet<&String> = seen.iter().map(|one| &one.name).collect();
    different(names.len(), "names");
    assert!(seen.iter().all(|one| one.asked() == NAME.to_lowercase()));
}

#[test]
fn a_server_that_changes_case_is_believed_over_tcp_and_then_spared() {
    let Some((stage, a)) = scene() else { return };
    let server = Upstream::outside(&stage, 1, |seen| {
        let reply = seen.reply().cased(|byte| byte.to_ascii_lowercase());
        vec![Deed::Send(
            reply.answer("@", A, 60, &address("10.1.1.1")).bytes(),
        )]
    });
    for nth in 0..3 {
        let name = format!("Name-{nth}.lower.example");
        let answer = ask(&a, &name, A);
        assert_eq!(answer.texts(A), ["10.1.1.1"]);
        assert_eq!(answer.name, name);
    }
    let over_tcp = server.seen().iter().filter(|seen| seen.over_tcp).count();
    assert_eq!(over_tcp, 1, "then it is asked in a case that it keeps");
}

#[test]
fn a_server_without_edns_is_asked_without() {
    let Some((stage, a)) = scene() else { return };
    let server = Upstream::outside(&stage, 1, |seen| {
        let has_edns = seen.bytes[11] > 0;
        let no = || Deed::Send(seen.reply().code(FORMERR).bytes());
        vec![if has_edns {
            no()
        } else {
            says(seen, "10.1.1.1", 60)
        }]
    });
    for nth in 0..3 {
        let answer = ask(&a, &format!("n{nth}.plain.example"), A);
        assert_eq!(answer.texts(A), ["10.1.1.1"]);
    }
    assert_eq!(server.total(), 4, "it is tried with EDNS once");
}

#[test]
fn servers_of_a_sandbox_are_asked_from_its_network() {
    let Some((stage, a)) = scene() else { return };
    let outside = Upstream::outside(&stage, 1, always("10.1.1.1", 60));
    stage.ok("network create --subnet 10.77.0.0/24 --internal inner");
    let server = stage.sandbox("server", "--network name=inner,ip=10.77.0.53");
    let inner = Upstream::at(
        &server,
        "10.77.0.53".parse().unwrap(),
        always("10.2.2.2", 60),
    );
    let user = stage.sandbox(
        "user",
        "--network one --network name=inner,ip=10.77.0.9 --dns 10.77.0.53",
    );
    assert_eq!(ask(&user, "x.example", A).texts(A), ["10.2.2.2"]);
    assert_eq!(inner.seen()[0].from.ip().to_string(), "10.77.0.9");
    assert_eq!(outside.total(), 0);
    assert_eq!(ask(&a, "x.example", A).texts(A), ["10.1.1.1"]);
    // The user's own names are not asked for there, and its own servers can say "no" without others being asked.
    assert_eq!(ask(&user, "server", A).texts(A), ["10.77.0.53"]);
    assert_eq!(inner.total(), 1);
}

#[test]
fn servers_of_networks_of_the_daemon_and_of_the_host_are_asked_in_that_order() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    let ips = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    let [host, _daemon, network] =
        [0, 1, 2].map(|n| Upstream::outside(&stage, 11 + n, always(ips[usize::from(n)], 60)));
    stage.shell(
        "echo nameserver 198.51.100.11 >/run/resolv.conf && mount --bind /run/resolv.conf /etc/resolv.conf",
    );
    stage.start_again();
    stage.ok("network create plain");
    stage.ok("network create --dns 198.51.100.13 own");
    let plain = stage.sandbox("plain", "--network plain");
    let own = stage.sandbox("own", "--network own");
    let says = |place: &Place, name: &str| ask(place, name, A).texts(A).concat();
    assert_eq!(says(&plain, "x.example"), ips[0]);
    assert_eq!(says(&own, "x.example"), ips[2]);
    assert_eq!(
        network.seen()[0].from.ip(),
        stage.here().v4(),
        "masqueraded"
    );
    // Another server of the host's is noticed.
    stage.shell("echo nameserver 198.51.100.12 >/run/resolv.conf");
    let noticed = wait_until(PATIENCE, || says(&plain, "y.example") == ips[1]);
    assert!(noticed, "the host's new server is not asked");
    stage.stop().unwrap();
    stage.start_with(&["--dns", "198.51.100.11"], &[]).unwrap();
    assert_eq!(says(&plain, "z.example"), ips[0]);
    assert_eq!(says(&own, "z.example"), ips[2]);
    assert!(host.count("z.example") == 1);
}

#[test]
fn internal_networks_and_those_that_say_so_ask_nobody() {
    let Some((stage, _)) = scene() else { return };
    let server = Upstream::outside(&stage, 1, always("10.1.1.1", 60));
    stage.ok("network create --internal inner");
    stage.ok("network create --internal --dns-forward always open");
    stage.ok("network create --dns-forward never shut");
    let [inner, open, shut] =
        ["inner", "open", "shut"].map(|name| stage.sandbox(name, &format!("--network {name}")));
    for place in [&inner, &shut] {
        let (answer, took) = timed(place, "x.example", A);
        assert_eq!(answer.code(), REFUSED, "{answer:?}");
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
    assert_eq!(server.total(), 0);
    assert_eq!(ask(&open, "x.example", A).texts(A), ["10.1.1.1"]);
    // What others were told is not told to those who may not ask.
    assert_eq!(ask(&inner, "x.example", A).code(), REFUSED);
    let both = stage.sandbox("both", "--network inner --network one");
    assert_eq!(ask(&both, "x.example", A).texts(A), ["10.1.1.1"]);
}

#[test]
fn single_labels_and_our_own_addresses_stay_here() {
    let Some((stage, a)) = scene() else { return };
    let server = Upstream::outside(&stage, 1, always("10.1.1.1", 60));
    let ours = a.v4().to_string();
    let mut bytes: Vec<u8> = ours.split('.').map(|byte| byte.parse().unwrap()).collect();
    bytes[3] = 250;
    let reverse = |bytes: &[u8]| {
        let parts: Vec<String> = bytes.iter().rev().map(ToString::to_string).collect();
        format!("{}.in-addr.arpa", parts.join("."))
    };
    for (name, kind) in [
        ("mistyped", A),
        ("mistyped", AAAA),
        ("nobody.one", A),
        ("localhost", A),
        ("x.invalid", A),
    ] {
        let answer = ask(&a, name, kind);
        assert!(
            answer.code() == NXDOMAIN || name == "localhost",
            "{answer:?}"
        );
    }
    let nobody = ask(&a, &reverse(&bytes), PTR);
    assert_eq!(nobody.code(), NXDOMAIN, "{nobody:?}");
    assert_eq!(server.total(), 0, "{:?}", server.seen());
    ask(&a, &reverse(&[8, 8, 8, 8]), PTR);
    assert_eq!(server.total(), 1, "others' addresses are asked for");
}
