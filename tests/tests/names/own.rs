//! Every form of a name of our own, and whose it is to whom.

use std::collections::BTreeSet;

use tombolo_tests::Stage;

use crate::scene::{
    ask, assert_missing, assert_named, assert_soon, found, ip, recorded, with_resolv_conf,
};

#[test]
fn a_sandbox_is_found_by_every_form_of_its_names() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one --ipv6");
    let web = stage.sandbox(
        "web",
        "--hostname front --network one --network-alias www --network-alias api.example.com",
    );
    stage.ok("endpoint create one --name spare");
    stage.ok("sandbox create --name second");
    stage.ok("endpoint join spare second");
    let asker = stage.sandbox("asker", "--network one");
    let inspected = stage.inspect("web");
    let (id, endpoint) = (&inspected.id[..12], &inspected.endpoints[0].name);
    for name in [
        "web",
        "web.",
        "WEB",
        "front",
        "www",
        "WwW",
        id,
        &id.to_uppercase(),
        endpoint,
        "web.one",
        "Web.ONE.",
        "front.one",
        "www.one",
        &format!("{id}.one"),
        "web.tombolo.internal",
        "web.one.tombolo.internal",
        "WEB.One.Tombolo.Internal.",
        "front.one.tombolo.internal",
        "api.example.com",
        "api.example.com.one",
        "api.example.com.one.tombolo.internal",
    ] {
        assert_named(&asker, name, &web.addresses);
        assert_named(&web, name, &web.addresses);
    }
    let second = stage.place("second").addresses;
    assert_named(&asker, "spare", &second);
    assert_named(&asker, "spare.one", &second);
    for name in [
        "we",
        "webs",
        &id[..11],
        "nobody.one",
        "nobody.tombolo.internal",
        "web.two.tombolo.internal",
    ] {
        assert_missing(&asker, name);
    }
    stage.assert_in_place();
}

#[test]
fn the_domain_of_the_configuration_is_in_the_place_of_ours() {
    let flags = ["--dns-domain=corp.example", "--dns-ttl-seconds=77"];
    let Some((stage, recorder)) = recorded("", &flags) else {
        return;
    };
    stage.ok("network create one --ipv6");
    let web = stage.sandbox("web", "--network one");
    for name in ["web", "web.corp.example", "web.one.CORP.example"] {
        assert_named(&web, name, &web.addresses);
    }
    let host = ["host.corp.example", "HOST.corp.EXAMPLE"];
    for name in host {
        let gateways = [stage.gateway("one", false), stage.gateway("one", true)];
        assert_named(&web, name, &gateways);
    }
    let reply = ask(&web, "web A");
    assert!(reply.text.contains("\t77\tIN"), "{}", reply.text);
    assert_missing(&web, "www.corp.example");
    assert_eq!(recorder.asked(), [""; 0]);
    // What was ours without the setting is the world's with it.
    assert_eq!(
        found(&web, "web.tombolo.internal", "A"),
        [crate::scene::RECORDED.to_string()]
    );
    assert_eq!(recorder.asked(), ["web.tombolo.internal"]);
}

#[test]
fn an_alias_of_several_is_all_of_them_and_each_comes_first_in_turn() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one --ipv6");
    let names = ["a", "b", "c"];
    let pool = names.map(|name| stage.sandbox(name, "--network one --network-alias pool"));
    let all: Vec<_> = pool.iter().flat_map(|p| p.addresses.clone()).collect();
    let asker = stage.sandbox("asker", "--network one");
    assert_named(&asker, "pool", &all);
    assert_named(&asker, "pool.one.tombolo.internal", &all);
    for kind in ["A", "AAAA"] {
        let mut firsts = BTreeSet::new();
        let mut orders = BTreeSet::new();
        for _ in 0..12 {
            let data = ask(&asker, &format!("pool {kind}")).data();
            assert_eq!(data.len(), 3, "{data:?}");
            firsts.insert(data[0].clone());
            orders.insert(data);
        }
        assert_eq!(firsts.len(), 3, "{orders:?}");
    }
    // One that leaves is no longer among them.
    stage.ok("network disconnect one b");
    let left = [pool[0].addresses.clone(), pool[2].addresses.clone()].concat();
    assert_named(&asker, "pool", &left);
}

#[test]
fn the_first_network_of_the_asker_that_knows_a_name_decides() {
    let Some((stage, recorder)) = recorded("", &[]) else {
        return;
    };
    for network in ["one", "two", "three"] {
        stage.ok(&format!("network create {network} --ipv6"));
    }
    let first = stage.sandbox("first", "--network one --network-alias db");
    let second = stage.sandbox("second", "--network two --network-alias db");
    stage.sandbox("secret", "--network three --network-alias hidden");
    let both = stage.sandbox("both", "--network one --network two");
    let other = stage.sandbox("other", "--network two --network one");
    assert_named(&both, "db", &first.addresses);
    assert_named(&other, "db", &second.addresses);
    for asker in [&both, &other] {
        assert_named(asker, "db.one", &first.addresses);
        assert_named(asker, "db.two", &second.addresses);
        assert_named(asker, "db.two.tombolo.internal", &second.addresses);
        for name in [
            "secret",
            "hidden",
            "secret.tombolo.internal",
            "hidden.three.tombolo.internal",
            // Who is known elsewhere is not known here.
            "first.two",
            "second.one",
        ] {
            assert_missing(asker, name);
        }
    }
    // One who is on both has an address on each, and is asked for at the asker's first.
    let named = found(&both, "other", "A");
    let subnet = stage.network("one").subnets[0].subnet.clone();
    let subnet: ipnet::IpNet = subnet.parse().unwrap();
    assert!(
        named.len() == 1 && subnet.contains(&ip(&named[0])),
        "{named:?} in {subnet}"
    );
    assert_missing(&first, "second");
    assert_eq!(recorder.asked(), [""; 0]);
}

#[test]
fn the_alias_of_a_link_is_known_to_the_linking_sandbox_alone_and_follows_its_target() {
    let Some(stage) = Stage::start_with(&["--address-cooldown-seconds=0"]) else {
        return;
    };
    stage.ok("network create one --ipv6 --icc=false");
    let target = stage.sandbox("target", "--network one --expose 80");
    let web = stage.sandbox("web", "--network one --link target:db");
    let other = stage.sandbox("other", "--network one");
    for name in ["db", "DB", "db.tombolo.internal"] {
        assert_named(&web, name, &target.addresses);
        assert_missing(&other, name);
    }
    assert_named(&other, "target", &target.addresses);
    stage.ok("sandbox stop target");
    assert_soon("no address", || ask(&web, "target A").is_missing());
    // Not the name of something else while its target is away.
    stage.sandbox("another", "--network one --network-alias db");
    let away = ask(&web, "db A");
    assert!(away.is_no_data(), "{}", away.text);
    stage.ok("sandbox start target");
    assert_named(&web, "db", &stage.place("target").addresses);
    stage.ok("sandbox stop target");
    stage.ok("sandbox rm target");
    assert!(ask(&web, "db A").is_no_data());
    stage.ok("endpoint create one --name keeps-its-first-address");
    let target = stage.sandbox("target", "--network one --expose 80");
    assert_named(&web, "db", &target.addresses);
    assert_soon("the file follows", || {
        crate::scene::file(&stage, "web", "hosts").contains(&target.v4().to_string())
    });
}

#[test]
fn the_host_and_the_sandbox_itself_have_names() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one --ipv6");
    stage.ok("network create four");
    stage.ok("network create closed --internal --gateway-mode isolated");
    let one = stage.sandbox("a", "--network one");
    let gateways = [stage.gateway("one", false), stage.gateway("one", true)];
    assert_named(&one, "host.tombolo.internal", &gateways);
    let four = stage.sandbox("b", "--network four");
    assert_named(
        &four,
        "host.tombolo.internal",
        &[stage.gateway("four", false)],
    );
    let closed = stage.sandbox("c", "--network closed");
    let nowhere = ask(&closed, "host.tombolo.internal A");
    assert!(nowhere.is_no_data(), "{}", nowhere.text);
    for place in [&one, &four, &closed] {
        let own = [ip("127.0.0.1"), ip("::1")];
        assert_named(place, "localhost", &own);
        assert_named(place, "any.thing.LOCALHOST", &own);
        assert_missing(place, "x.invalid");
    }
}

#[test]
fn a_known_name_without_such_records_says_so_and_for_how_long() {
    let Some((stage, recorder)) = recorded("", &[]) else {
        return;
    };
    stage.ok("network create four");
    stage.ok("network create six --ipv4=false --ipv6");
    let four = stage.sandbox("four", "--network four");
    let six = stage.sandbox("six", "--network six");
    assert_named(&four, "four", &four.addresses);
    assert_named(&six, "six", &six.addresses);
    for (place, words) in [
        (&four, "four AAAA"),
        (&four, "four MX"),
        (&four, "four TXT"),
        (&four, "four.tombolo.internal HTTPS"),
        (&six, "six A"),
        (&six, "six.six SRV"),
        (&six, "six NS"),
        (&four, "tombolo.internal A"),
        (&four, "four.tombolo.internal SOA"),
    ] {
        let reply = ask(place, words);
        assert!(reply.is_no_data(), "{words}: {}", reply.text);
        assert!(reply.authority[0].ends_with(" 5"), "{}", reply.text);
    }
    for name in ["four", "four.four.tombolo.internal", "four."] {
        let any = ask(&four, &format!("{name} ANY +notcp"));
        assert_eq!(any.data(), ["\"RFC8482\" \"\""], "{}", any.text);
        assert!(any.answers[0].contains(" HINFO "), "{}", any.text);
    }
    assert_eq!(recorder.asked(), [""; 0]);
}

#[test]
fn names_are_found_on_every_kind_of_network() {
    let Some(stage) = with_resolv_conf("nameserver 198.51.100.1\n", &[]) else {
        return;
    };
    stage.shell("ip link add br0 type bridge && ip link set br0 up");
    for (network, words) in [
        ("inner", "--ipv6 --internal"),
        ("alone", "--ipv6 --internal --gateway-mode isolated"),
        ("segment", "--ipv6 --multicast"),
        ("quiet", "--ipv6 --icc=false"),
        ("silent", "--ipv6 --icc=false --multicast"),
        ("six", "--ipv4=false --ipv6"),
        ("routed", "--ipv6 --gateway-mode routed"),
        ("lan", "--device br0 --subnet 10.80.0.0/24"),
        ("bridge", ""),
    ] {
        if network != "bridge" {
            stage.ok(&format!("network create {network} {words}"));
        }
        let [a, b] = ["a", "b"].map(|name| {
            let name = format!("{network}-{name}");
            stage.sandbox(&name, &format!("--network {network} --network-alias both"))
        });
        let all = [a.addresses.clone(), b.addresses.clone()].concat();
        assert_named(&a, &format!("{network}-b"), &b.addresses);
        assert_named(&b, &format!("{network}-a.{network}"), &a.addresses);
        assert_named(&a, "both", &all);
    }
    // Nobody is asked about the world for those who do not reach it.
    for network in ["inner", "alone"] {
        let reply = ask(&stage.place(&format!("{network}-a")), "www.example.com A");
        assert_eq!(reply.status, "REFUSED", "{}", reply.text);
    }
    stage.assert_in_place();
}

#[test]
fn an_answer_that_is_too_long_for_a_datagram_is_had_over_tcp() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one --ipv6");
    let mut all = Vec::new();
    for number in 0..24 {
        let name = format!("my_app.v1-{number}");
        let place = stage.sandbox(&name, "--network one --network-alias crowd");
        all.extend(place.addresses);
    }
    let asker = stage.place("my_app.v1-0");
    let last = stage.place("my_app.v1-23").addresses;
    assert_named(&asker, "my_app.v1-23", &last);
    assert_named(&asker, "MY_APP.V1-23.one", &last);
    assert_named(&asker, "crowd", &all);
    for (kind, count) in [("A", 24), ("AAAA", 24)] {
        let short = ask(&asker, &format!("crowd {kind} +noedns +ignore"));
        let is_cut = short.flags.contains(" tc ");
        assert_eq!(is_cut, short.answers.len() < count, "{}", short.text);
        // dig(1) asks again over TCP.
        let whole = ask(&asker, &format!("crowd {kind} +noedns"));
        assert_eq!(whole.answers.len(), count, "{}", whole.text);
    }
    let cut = ask(&asker, "crowd AAAA +noedns +ignore");
    assert!(cut.flags.contains(" tc "), "{}", cut.text);
}

#[test]
fn several_may_have_a_name_of_different_kinds() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one --ipv6");
    let by_name = stage.sandbox("web", "--network one");
    let by_alias = stage.sandbox("second", "--network one --network-alias WEB");
    let by_hostname = stage.sandbox("third", "--network one --hostname web");
    let all = [&by_name, &by_alias, &by_hostname].map(|place| place.addresses.clone());
    assert_named(&by_name, "web", &all.concat());
    // Each has but one canonical name.
    for (place, name) in [(&by_name, "web.one."), (&by_hostname, "third.one.")] {
        let reply = ask(&by_alias, &format!("-x {}", place.v4()));
        assert_eq!(reply.data(), [name], "{}", reply.text);
    }
    stage.ok("sandbox rm web");
    assert_named(&by_alias, "web", &all[1..].concat());
}

#[test]
fn networks_are_domains_whatever_they_are_called() {
    let Some((stage, recorder)) = recorded("", &[]) else {
        return;
    };
    for network in ["Back_End", "corp.example", "dev"] {
        stage.ok(&format!("network create {network} --ipv6"));
    }
    let web = stage.sandbox("web", "--network Back_End");
    assert_named(&web, "web.Back_End", &web.addresses);
    assert_named(&web, "web.back_end.tombolo.internal", &web.addresses);
    assert_missing(&web, "nobody.back_end");
    let shop = stage.sandbox("shop", "--network corp.example --network dev");
    let on_first: Vec<_> = {
        let endpoints = stage.inspect("shop").endpoints.into_iter();
        let mut on = endpoints.filter(|endpoint| endpoint.network.name == "corp.example");
        let texts = on.next().unwrap().addresses.into_iter();
        texts
            .map(|text| text.parse::<ipnet::IpNet>().unwrap().addr())
            .collect()
    };
    assert_named(&shop, "shop.corp.example", &on_first);
    assert_named(&shop, "shop.corp.example.tombolo.internal", &on_first);
    assert_eq!(found(&shop, "shop.dev", "A").len(), 1);
    assert_eq!(recorder.asked(), [""; 0]);
    // What the world calls so is still the world's.
    for name in ["www.corp.example", "crates.dev"] {
        let recorded = [crate::scene::RECORDED.to_string()];
        assert_eq!(found(&shop, name, "A"), recorded, "{name}");
    }
}
