//! Names of addresses, and where services are.

use tombolo_tests::Stage;

use crate::scene::{ask, ip, recorded};

#[test]
fn addresses_of_sandboxes_have_names_and_others_of_our_subnets_have_none() {
    let Some((stage, recorder)) = recorded("", &[]) else {
        return;
    };
    stage.ok("network create one --ipv6 --subnet 10.81.0.0/24 --subnet fd81::/64");
    stage.ok("network create two --subnet 10.82.0.0/24");
    let web = stage.sandbox("web", "--hostname front --network one --network-alias www");
    let far = stage.sandbox("far", "--network two");
    for address in &web.addresses {
        for carrier in ["+notcp", "+tcp"] {
            let reply = ask(&web, &format!("{carrier} -x {address}"));
            assert_eq!(reply.data(), ["web.one."], "{}", reply.text);
            assert_eq!(reply.flags, "qr aa rd ra", "{}", reply.text);
        }
        assert!(
            ask(&web, &format!("-x {address} -t TXT"))
                .answers
                .is_empty()
        );
    }
    for nobody in [
        "10.81.0.77",
        "10.81.0.255",
        "fd81::77",
        "fd81::ffff:ffff:ffff:ffff",
        "169.254.1.1",
        "fe80::1",
        "0.0.0.0",
    ] {
        let reply = ask(&web, &format!("-x {nobody}"));
        assert!(reply.is_missing(), "{nobody}: {}", reply.text);
    }
    for loopback in ["127.0.0.1", "127.0.0.11", "::1"] {
        let reply = ask(&web, &format!("-x {loopback}"));
        assert_eq!(reply.data(), ["localhost."], "{}", reply.text);
    }
    assert_eq!(recorder.asked(), [""; 0]);
    // Another's network is a part of the world like any other.
    let reply = ask(&web, &format!("-x {}", far.v4()));
    assert!(reply.answers.is_empty(), "{}", reply.text);
    stage.ok("network connect two web");
    let reply = ask(&web, &format!("-x {}", far.v4()));
    assert_eq!(reply.data(), ["far.two."], "{}", reply.text);
    // Who is on two networks has the name of each address's own.
    for place in [&web, &far] {
        let reply = ask(place, &format!("-x {}", stage.place("web").addresses[1]));
        assert_eq!(reply.data(), ["web.two."], "{}", reply.text);
    }
    stage.ok("sandbox stop web");
    let reply = ask(&far, "-x 10.82.0.3");
    assert!(reply.is_missing(), "{}", reply.text);
}

#[test]
fn services_are_found_by_name_and_by_port_with_the_addresses_of_their_targets() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one --ipv6");
    let ports = "--expose 80 --expose 53/udp --expose 5432 --expose 9000-9009 -p 8443:443";
    let pool: Vec<_> = ["a", "b"]
        .iter()
        .map(|name| {
            let publish = if *name == "a" { ports } else { "--expose 80" };
            let words = format!("--network one --network-alias pool {publish}");
            stage.sandbox(name, &words)
        })
        .collect();
    let asker = stage.sandbox("asker", "--network one");
    for (name, port) in [
        ("_http._tcp.a", 80),
        ("_HTTP._TCP.A", 80),
        ("_80._tcp.a", 80),
        ("_http._tcp.a.one.tombolo.internal", 80),
        ("_postgresql._tcp.a.one", 5432),
        ("_5432._tcp.a", 5432),
        ("_domain._udp.a", 53),
        ("_9009._tcp.a", 9009),
        // What is published is served.
        ("_https._tcp.a", 443),
    ] {
        for carrier in ["+notcp", "+tcp"] {
            let reply = ask(&asker, &format!("{carrier} {name} SRV"));
            let wanted = format!("0 0 {port} a.one.");
            assert_eq!(reply.data(), [wanted], "{name}: {}", reply.text);
            let mut additional = reply.additional.clone();
            additional.sort();
            let both = [
                format!("a.one. A {}", pool[0].v4()),
                format!("a.one. AAAA {}", pool[0].v6()),
            ];
            assert_eq!(additional, both, "{name}: {}", reply.text);
        }
    }
    let reply = ask(&asker, "_http._tcp.pool SRV");
    let mut data = reply.data();
    data.sort();
    assert_eq!(data, ["0 0 80 a.one.", "0 0 80 b.one."], "{}", reply.text);
    assert_eq!(reply.additional.len(), 4, "{}", reply.text);
    for name in [
        "_http._udp.a",
        "_9010._tcp.a",
        "_5432._tcp.b",
        "_no-such._tcp.a",
        "_tcp.a",
    ] {
        let reply = ask(&asker, &format!("{name} SRV"));
        assert!(reply.is_no_data(), "{name}: {}", reply.text);
    }
    let reply = ask(&asker, "_http._tcp.nobody.one SRV");
    assert!(reply.answers.is_empty(), "{}", reply.text);
    // The target of an answer is a name, too.
    assert_eq!(ask(&asker, "a.one. A").data(), [pool[0].v4().to_string()]);
    assert_eq!(ip(&ask(&asker, "a.one. AAAA").data()[0]), pool[0].v6());
}
