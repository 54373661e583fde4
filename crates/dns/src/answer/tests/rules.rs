use super::*;

use RecordType as T;

#[test]
fn names_are_found_with_and_without_network_and_domain() {
    for name in [
        "db.",
        "DB.",
        "db.back.",
        "Db.Back.",
        "db.tombolo.internal.",
        "db.back.tombolo.internal.",
        "db.BACK.Tombolo.Internal.",
        "0123456789AB.back.",
    ] {
        let message = ask(name, T::A);
        assert_eq!(answers(&message), ["10.2.0.20"], "{name}");
        let metadata = &message.metadata;
        assert!(metadata.authoritative && metadata.recursion_available && !metadata.truncation);
        assert!(metadata.recursion_desired && !metadata.authentic_data);
        assert_eq!((metadata.id, message.answers[0].ttl), (0x1234, 10));
        // As the client wrote it.
        assert_eq!(message.queries[0].name().to_ascii(), name);
        assert_eq!(message.answers[0].name.to_ascii(), name);
    }
    assert_eq!(answers(&ask("api.example.com.", T::A)).len(), 3);
    assert_eq!(answers(&ask("tool.dev.", T::A)), ["10.3.0.30"]);
}

#[test]
fn the_first_network_that_knows_a_name_wins() {
    assert_eq!(
        answers(&ask("web.", T::A)),
        ["10.1.0.11", "10.1.0.12", "10.1.0.13"]
    );
    assert_eq!(answers(&ask("web.back.", T::A)), ["10.2.0.21"]);
    let mut other = view();
    other.zones.reverse();
    let message = answer_of(decide_as(&other, &query("web.", T::A), 0));
    assert_eq!(answers(&message), ["10.2.0.21"]);
}

#[test]
fn each_turn_begins_with_another_address() {
    let first = |name: &str, turn| {
        let message = answer_of(decide_as(&view(), &query(name, T::AAAA), turn));
        assert_eq!(message.answers.len(), 3);
        answers(&message).remove(0)
    };
    let turns = |name| [0, 1, 2, 3, u32::MAX].map(|turn| first(name, turn));
    assert_eq!(
        turns("web."),
        ["fd01::11", "fd01::12", "fd01::13", "fd01::11", "fd01::11"]
    );

    let mut names = names();
    let addresses = ["10.1.0.5", "10.1.0.6", "10.1.0.5"];
    names.set(OwnerId(5), vec![on(FRONT, &["two"], &addresses)]);
    let bytes = query("two.", T::A).to_vec().unwrap();
    for (turn, expected) in [(0, ["10.1.0.5", "10.1.0.6"]), (1, ["10.1.0.6", "10.1.0.5"])] {
        let settings = Settings::default();
        let decision = decide(&names, &view(), &settings, &bytes, Carrier::Datagram, turn);
        assert_eq!(answers(&answer_of(decision)), expected);
    }
}

#[test]
fn a_known_name_is_never_asked_for_elsewhere() {
    assert_eq!(no_data(&ask("db.", T::AAAA)), "db.");
    assert_eq!(no_data(&ask("db.back.", T::AAAA)), "back.");
    assert_eq!(
        no_data(&ask("db.back.tombolo.internal.", T::HTTPS)),
        "tombolo.internal."
    );
    for record_type in [T::MX, T::TXT, T::CNAME, T::SOA, T::NS, T::PTR, T::SRV] {
        assert_eq!(
            no_data(&ask("api.example.com.", record_type)),
            "api.example.com."
        );
    }
    assert_eq!(no_data(&ask("stopped.", T::A)), "stopped.");
}

#[test]
fn link_aliases_are_the_askers_own_and_win() {
    assert_eq!(answers(&ask("database.", T::A)), ["10.2.0.20"]);
    assert_eq!(
        answers(&ask("DATABASE.tombolo.internal.", T::A)),
        ["10.2.0.20"]
    );
    assert_eq!(answers(&ask("both.", T::A)), ["10.2.0.20", "10.2.0.21"]);
    // Linked to a sandbox on no common network, and to one that is not there.
    assert_eq!(no_data(&ask("quiet.", T::A)), "quiet.");
    assert_eq!(no_data(&ask("gone.", T::A)), "gone.");
    assert_eq!(answers(&ask("quiet.back.", T::A)), ["10.2.0.21"]);
    let mut other = view();
    other.links.clear();
    let message = answer_of(decide_as(&other, &query("database.", T::A), 0));
    assert_eq!(missing(&message), "database.");
    let message = answer_of(decide_as(&other, &query("quiet.", T::A), 0));
    assert_eq!(answers(&message), ["10.2.0.21"]);
}

#[test]
fn the_host_has_a_name_below_the_domain() {
    let name = "host.tombolo.internal.";
    assert_eq!(answers(&ask(name, T::A)), ["10.1.0.1"]);
    assert_eq!(answers(&ask(name, T::AAAA)), ["fd01::1"]);
    assert_eq!(no_data(&ask(name, T::TXT)), "tombolo.internal.");
    let v4 = View {
        ipv6: false,
        ..view()
    };
    let message = answer_of(decide_as(&v4, &query(name, T::AAAA), 0));
    assert_eq!(no_data(&message), "tombolo.internal.");
    let message = answer_of(decide_as(&v4, &query("web.", T::AAAA), 0));
    assert_eq!(answers(&message).len(), 3);
}

#[test]
fn nobody_else_is_below_the_domain() {
    for name in [
        "nobody.tombolo.internal.",
        "a.b.tombolo.internal.",
        "nobody.back.tombolo.internal.",
        "www.example.com.tombolo.internal.",
        "secret.tombolo.internal.",
        "secret.hidden.tombolo.internal.",
        "_x._y.nobody.tombolo.internal.",
    ] {
        for record_type in [T::A, T::TXT, T::ANY, T::DS] {
            assert_eq!(
                missing(&ask(name, record_type)),
                "tombolo.internal.",
                "{name}"
            );
        }
    }
    assert_eq!(
        no_data(&ask("tombolo.internal.", T::A)),
        "tombolo.internal."
    );
    assert_eq!(
        answers(&ask("tombolo.internal.", T::SOA)),
        ["SOA tombolo.internal. nobody.invalid. 1 3600 1200 604800 10"]
    );
    assert_eq!(
        no_data(&ask("back.tombolo.internal.", T::A)),
        "tombolo.internal."
    );
    assert!(is_forwarded("internal.", T::NS));
    assert!(is_forwarded("xtombolo.internal.", T::A));
}

#[test]
fn a_network_speaks_for_names_of_one_label_below_its_own() {
    assert_eq!(missing(&ask("nobody.back.", T::A)), "back.");
    assert_eq!(missing(&ask("nobody.FRONT.", T::MX)), "FRONT.");
    assert_eq!(no_data(&ask("back.", T::A)), "back.");
    assert_eq!(no_data(&ask("back.", T::NS)), "back.");
    assert_eq!(answers(&ask("back.", T::SOA)).len(), 1);
    assert!(is_forwarded("a.nobody.back.", T::A));
    // Not the asker's network.
    assert!(is_forwarded("secret.hidden.", T::A));
}

#[test]
fn a_network_called_like_a_domain_of_the_world_does_not_hide_it() {
    assert!(is_forwarded("go.dev.", T::A));
    assert!(is_forwarded("dev.", T::NS));
    for name in ["example.com", "de", "app"] {
        let mut names = names();
        let (name, subnets) = (host(name), Vec::new());
        names.set_zone(
            FRONT,
            Zone {
                name: name.clone(),
                subnets,
            },
        );
        let decided = |short: &str| {
            let bytes = query(&format!("{short}.{name}."), T::A).to_vec().unwrap();
            let settings = Settings::default();
            decide(&names, &view(), &settings, &bytes, Carrier::Datagram, 0)
        };
        assert_eq!(answers(&answer_of(decided("web"))).len(), 3);
        assert!(matches!(decided("www"), Decision::Forward(_)));
    }
}

#[test]
fn some_names_are_the_same_everywhere() {
    for name in ["localhost.", "LocalHost.", "a.b.localhost."] {
        assert_eq!(answers(&ask(name, T::A)), ["127.0.0.1"]);
        assert_eq!(answers(&ask(name, T::AAAA)), ["::1"]);
        assert_eq!(no_data(&ask(name, T::MX)).to_lowercase(), "localhost.");
    }
    assert_eq!(missing(&ask("invalid.", T::NS)), "invalid.");
    assert_eq!(missing(&ask("a.b.invalid.", T::A)), "invalid.");
    assert!(is_forwarded("notlocalhost.example.", T::A));
}

#[test]
fn addresses_have_names() {
    let reverse = |address: &str| Name::from(ip(address)).to_ascii();
    let ptr = |address: &str| ask(&reverse(address), T::PTR);
    assert_eq!(answers(&ptr("10.1.0.11")), ["PTR web-1.front."]);
    assert_eq!(answers(&ptr("fd01::12")), ["PTR web-2.front."]);
    assert_eq!(answers(&ptr("10.2.0.20")), ["PTR db.back."]);
    for local in ["127.0.0.1", "127.255.0.3", "::1"] {
        assert_eq!(answers(&ptr(local)), ["PTR localhost."]);
    }
    assert_eq!(no_data(&ask(&reverse("10.1.0.11"), T::A)), "in-addr.arpa.");
    assert_eq!(no_data(&ask(&reverse("::1"), T::TXT)), "ip6.arpa.");
    for (address, apex) in [
        ("10.1.0.99", "in-addr.arpa."),
        ("fd02::99", "ip6.arpa."),
        ("0.0.0.0", "in-addr.arpa."),
        ("255.255.255.255", "in-addr.arpa."),
        ("169.254.7.7", "in-addr.arpa."),
        ("fe80::1", "ip6.arpa."),
    ] {
        assert_eq!(missing(&ptr(address)), apex, "{address}");
    }
    // Of nobody here, or of a network that the asker is not on.
    for address in ["192.0.2.1", "10.4.0.40", "2001:db8::1", "10.1.1.1"] {
        assert!(is_forwarded(&reverse(address), T::PTR), "{address}");
    }
    assert!(is_forwarded("0.1.10.in-addr.arpa.", T::NS));
    assert!(is_forwarded("1.2.3.4.5.in-addr.arpa.", T::PTR));
}

#[test]
fn services_are_found_by_port_and_by_name() {
    let message = ask("_http._tcp.web.front.", T::SRV);
    assert_eq!(
        answers(&message),
        [
            "SRV 0 0 80 web-1.front.",
            "SRV 0 0 80 web-2.front.",
            "SRV 0 0 80 web-3.front."
        ]
    );
    let more = |record: &Record| format!("{} {}", record.name, shown(record));
    assert_eq!(
        message.additionals[..2]
            .iter()
            .map(more)
            .collect::<Vec<_>>(),
        ["web-1.front. 10.1.0.11", "web-1.front. fd01::11"]
    );
    assert_eq!(message.additionals.len(), 6);
    let first = answer_of(decide_as(&view(), &query("_http._tcp.web.", T::SRV), 1));
    assert_eq!(answers(&first)[0], "SRV 0 0 80 web-2.front.");
    for (name, port) in [
        ("_8042._tcp.db.", 8042),
        ("_8100._TCP.db.back.", 8100),
        ("_domain._udp.db.tombolo.internal.", 53),
        ("_53._udp.database.", 53),
    ] {
        let expected = format!("SRV 0 0 {port} db.back.");
        assert_eq!(answers(&ask(name, T::SRV)), [expected], "{name}");
    }
    assert_eq!(no_data(&ask("_8101._tcp.db.", T::SRV)), "db.");
    assert_eq!(no_data(&ask("_domain._tcp.db.back.", T::SRV)), "back.");
    assert_eq!(no_data(&ask("_unheard-of._tcp.db.back.", T::SRV)), "back.");
    assert_eq!(no_data(&ask("_http._tcp.db.back.", T::A)), "back.");
    assert_eq!(no_data(&ask("_tcp.db.back.", T::A)), "back.");
    assert_eq!(
        no_data(&ask("_x._tcp.db.tombolo.internal.", T::SRV)),
        "tombolo.internal."
    );
    assert!(is_forwarded("_http._tcp.example.org.", T::SRV));
    assert!(is_forwarded("_http._tls.db.", T::SRV));
    assert!(is_forwarded("_http.tcp.db.", T::SRV));
}

#[test]
fn names_of_one_label_do_not_leave() {
    for record_type in [T::A, T::AAAA, T::HTTPS, T::SVCB] {
        assert_eq!(missing(&ask("nobody.", record_type)), "nobody.");
    }
    for record_type in [T::NS, T::SOA, T::DS, T::DNSKEY] {
        assert!(is_forwarded("org.", record_type));
        assert!(is_forwarded(".", record_type));
    }
    assert!(is_forwarded(".", T::A));
    let settings = Settings {
        single_labels: true,
        ..Settings::default()
    };
    let bytes = query("nobody.", T::A).to_vec().unwrap();
    let decision = decide(&names(), &view(), &settings, &bytes, Carrier::Datagram, 0);
    assert!(matches!(decision, Decision::Forward(_)));
}

#[test]
fn any_is_answered_with_little_and_never_forwarded() {
    for name in [
        "db.",
        "example.org.",
        "localhost.",
        "11.0.1.10.in-addr.arpa.",
        "tombolo.internal.",
        "_http._tcp.db.",
        "stopped.",
        "org.",
        ".",
    ] {
        assert_eq!(answers(&ask(name, T::ANY)), ["HINFO RFC8482 "], "{name}");
    }
    assert!(!ask("example.org.", T::ANY).metadata.authoritative);
    assert_eq!(missing(&ask("nobody.back.", T::ANY)), "back.");
}

#[test]
fn a_dot_inside_a_label_is_no_border() {
    let dotted = |labels: &[&[u8]]| {
        let name = Name::from_labels(labels.iter().copied()).unwrap();
        let mut message = query(".", T::A);
        message.queries[0].set_name(name);
        decide_as(&view(), &message, 0)
    };
    assert!(matches!(dotted(&[b"db", b"back"]), Decision::Answer(_)));
    assert_eq!(missing(&answer_of(dotted(&[b"db.back"]))), "db\\.back.");
    assert!(matches!(dotted(&[b"x.db", b"org"]), Decision::Forward(_)));
    assert_eq!(missing(&answer_of(dotted(&[b"d\0b", b"back"]))), "back.");
}
