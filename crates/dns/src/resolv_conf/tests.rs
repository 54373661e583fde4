use proptest::prelude::*;

use super::*;

const FACTS: SandboxFacts = SandboxFacts {
    ipv6: true,
    own_netns: true,
    fallback: Vec::new(),
};

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn overrides(servers: &str, searches: &str, options: &str) -> Overrides {
    Overrides::parse(&words(servers), &words(searches), &words(options)).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn host(text: &str) -> ResolvConf {
    ResolvConf::parse(text.as_bytes())
}

#[test]
fn the_parts_of_a_file_are_read_as_resolvers_read_them() {
    let conf = host(
        "# comment\n; comment\ndomain first.example\nnameserver 192.0.2.1 trailing\r\n\
         search one.example two.example. # not a domain\n\tnameserver\t2001:db8::53\n\
         nameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver nonsense\nnameserver\n\
         options ndots:2 edns0\noptions rotate edns0\nsortlist 10.0.0.0\nsearch\n",
    );
    assert_eq!(
        conf.render(),
        "nameserver 192.0.2.1\nnameserver 2001:db8::53\nnameserver fe80::1%eth0\n\
         search one.example two.example\noptions ndots:2 edns0 rotate\n"
    );
}

#[test]
fn the_last_search_or_domain_line_wins() {
    assert_eq!(
        host("search a.example\ndomain b.example c.example\n").render(),
        "search b.example\n"
    );
    assert_eq!(
        host("domain b.example\nsearch a.example x.example\n")
            .searches
            .len(),
        2
    );
    assert_eq!(host("search a.example\nsearch .\n").searches, []);
    assert_eq!(
        host("search a.example\nsearch # nothing\n").searches.len(),
        1
    );
}

#[test]
fn garbage_does_not_hide_the_rest() {
    let mut file =
        b"\xff\xfe nameserver 192.0.2.9\nnameserver \xff\nnameserver 192.0.2.1\n".to_vec();
    file.extend(vec![b'x'; limits::LINE_BYTES_MAX + 1]);
    file.extend(b"\nnameserver 192.0.2.2\nnameserver 192.0.2.3%eth0\nnameserver fe80::1%\n");
    assert_eq!(
        ResolvConf::parse(&file).render(),
        "nameserver 192.0.2.1\nnameserver 192.0.2.2\n"
    );
}

#[test]
fn reading_stops_at_the_limits() {
    let file: String = (0..100)
        .map(|n| format!("nameserver 192.0.2.{n}\noptions o{n}\n"))
        .chain(["search".to_owned()])
        .chain((0..100).map(|n| format!(" d{n}.example")))
        .collect();
    let conf = host(&file);
    assert_eq!(conf.servers.len(), limits::SERVERS_MAX);
    assert_eq!(conf.searches.len(), limits::SEARCH_MAX);
    assert_eq!(conf.options.len(), limits::OPTIONS_MAX);
    assert_eq!(ResolvConf::parse(conf.render().as_bytes()), conf);

    let filler = "#\n".repeat(limits::FILE_BYTES_MAX / 2 - 11);
    let line = "nameserver 192.0.2.1\n";
    assert_eq!(host(&format!("{filler}{line}")).servers.len(), 1);
    assert_eq!(
        host(&format!("{filler}##############\n{line}"))
            .servers
            .len(),
        0
    );

    let longest = format!("a:{}", "1".repeat(limits::OPTION_BYTES_MAX - 2));
    assert!(longest.parse::<ResolverOption>().is_ok());
    assert!(format!("{longest}1").parse::<ResolverOption>().is_err());
    let zone = "z".repeat(limits::ZONE_BYTES_MAX);
    assert_eq!(
        format!("fe80::1%{zone}")
            .parse::<Nameserver>()
            .unwrap()
            .zone(),
        Some(&*zone)
    );
    assert!(format!("fe80::1%{zone}z").parse::<Nameserver>().is_err());
}

#[test]
fn stubs_are_noticed() {
    let stub = |text: &str| host(text).stub();
    assert_eq!(stub("nameserver 127.0.0.53\n"), Some(Stub::SystemdResolved));
    assert_eq!(
        stub("nameserver 127.0.0.54\nnameserver ::1\n"),
        Some(Stub::SystemdResolved)
    );
    assert_eq!(stub("nameserver 127.0.1.1\n"), Some(Stub::Local));
    assert_eq!(stub("nameserver ::1\n"), Some(Stub::Local));
    assert_eq!(stub("nameserver 127.0.0.53\nnameserver 192.0.2.1\n"), None);
    assert_eq!(stub("search a.example\n"), None);
    assert!(host("nameserver 127.0.0.53\n").is_stub());
    assert_eq!(
        Stub::SystemdResolved.real_file(),
        "/run/systemd/resolve/resolv.conf"
    );
}

#[test]
fn a_sandbox_gets_what_it_can_reach() {
    let host = host(
        "nameserver 127.0.0.1\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n\
         nameserver fe80::1%eth0\nnameserver ::1\nsearch lan.example\noptions timeout:1\n",
    );
    let facts = SandboxFacts {
        ipv6: false,
        ..FACTS
    };
    assert_eq!(
        host.for_sandbox(&[], &facts).render(),
        "# Made by tombolo. Once edited, this file is left alone.\n\
         \n\
         # Name servers: from the host.\n\
         # Left out: 127.0.0.1, on the host's loopback.\n\
         # Left out: 2001:db8::1, there is no IPv6 here.\n\
         # Left out: fe80::1%eth0, behind an interface of the host.\n\
         # Left out: ::1, on the host's loopback.\n\
         nameserver 192.0.2.1\n\
         \n\
         # Search domains: from the host.\n\
         search lan.example\n\
         \n\
         # Options: from the host.\n\
         options timeout:1\n"
    );
    let v6 = host.for_sandbox(&[], &FACTS);
    assert_eq!(
        v6.conf().servers,
        ["192.0.2.1", "2001:db8::1"].map(|s| s.parse().unwrap())
    );
    let facts = SandboxFacts {
        own_netns: false,
        ..FACTS
    };
    let shared = host.for_sandbox(&[], &facts);
    assert_eq!(shared.conf(), &host);
    assert_eq!(shared.dropped(), []);
}

#[test]
fn without_a_reachable_server_there_is_the_fallback_or_none() {
    let host = host("nameserver 127.0.0.53\n");
    let fallback = vec![ip("192.0.2.8"), ip("2001:db8::8")];
    let facts = SandboxFacts { fallback, ..FACTS };
    let made = host.for_sandbox(&[], &facts);
    assert_eq!(made.servers_from(), &Origin::Fallback);
    assert_eq!(made.conf().servers.len(), 2);
    let facts = SandboxFacts {
        ipv6: false,
        ..facts
    };
    let made = host.for_sandbox(&[], &facts);
    assert_eq!(made.conf().servers, [ip("192.0.2.8").into()]);
    let made = host.for_sandbox(&[], &FACTS);
    assert!(
        made.render()
            .contains("# There is none that this sandbox can reach.\n")
    );
    assert_eq!(made.conf().servers, []);
}

#[test]
fn what_a_user_asks_for_replaces_the_hosts_part() {
    let host = host("nameserver 192.0.2.1\nsearch lan.example\noptions timeout:1 rotate\n");
    let facts = SandboxFacts {
        ipv6: false,
        ..FACTS
    };
    let asked = overrides("127.0.0.1 2001:db8::9", "a.example b.example", "ndots:5");
    let made = host.for_sandbox(&[(Origin::Sandbox, &asked)], &facts);
    assert_eq!(
        made.conf().render(),
        "nameserver 127.0.0.1\nnameserver 2001:db8::9\nsearch a.example b.example\noptions ndots:5\n"
    );
    assert_eq!(made.servers_from(), &Origin::Sandbox);
    let none = overrides("", ".", "");
    let none = host.for_sandbox(&[(Origin::Daemon, &none)], &facts);
    assert_eq!(
        none.conf().render(),
        "nameserver 192.0.2.1\noptions timeout:1 rotate\n"
    );
    assert!(
        none.render()
            .contains("# Search domains: none, from the daemon's configuration.\n")
    );
}

#[test]
fn a_networks_resolver_stands_before_the_servers() {
    let host = host("nameserver 127.0.0.53\nnameserver fe80::1%eth0\nsearch lan.example\n");
    let made = host.for_resolver(&[], &[ip("127.0.0.11")], &[]);
    assert_eq!(
        made.conf().render(),
        "nameserver 127.0.0.11\nsearch lan.example\noptions ndots:0\n"
    );
    let vias: Vec<_> = made
        .upstreams()
        .iter()
        .map(|u| (u.server.to_string(), u.via))
        .collect();
    assert_eq!(
        vias,
        [
            ("127.0.0.53".to_owned(), Via::Host),
            ("fe80::1%eth0".to_owned(), Via::Host)
        ]
    );
    assert!(
        made.render()
            .contains("# Forwards to: 127.0.0.53, from the host's network.\n")
    );

    let asked = overrides("192.0.2.7", "", "ndots:2");
    let made = host.for_resolver(&[(Origin::Sandbox, &asked)], &[ip("127.0.0.11")], &[]);
    let server = ip("192.0.2.7").into();
    assert_eq!(
        made.upstreams(),
        [Upstream {
            server,
            via: Via::Sandbox
        }]
    );
    assert!(made.conf().render().ends_with("options ndots:2\n"));

    let empty = ResolvConf::default();
    let made = empty.for_resolver(&[], &[ip("127.0.0.11")], &[ip("192.0.2.8")]);
    assert_eq!(made.upstreams()[0].server, ip("192.0.2.8").into());
}

#[test]
fn the_first_who_says_something_decides_about_each_part() {
    let host = host("nameserver 192.0.2.1\nsearch lan.example\noptions timeout:1\n");
    let (sandbox, network, daemon) = (
        overrides("", "", "rotate"),
        overrides("192.0.2.2", "", "edns0"),
        overrides("192.0.2.3", "d.example", ""),
    );
    let layers = [
        (Origin::Sandbox, &sandbox),
        (Origin::Network("blue".to_owned()), &network),
        (Origin::Daemon, &daemon),
    ];
    let made = host.for_resolver(&layers, &[ip("127.0.0.11")], &[]);
    assert_eq!(
        made.render(),
        "# Made by tombolo. Once edited, this file is left alone.\n\
         \n\
         # Name servers: the resolver for the names of its networks.\n\
         # Forwards to: 192.0.2.2, from this network.\n\
         nameserver 127.0.0.11\n\
         \n\
         # Search domains: from the daemon's configuration.\n\
         search d.example\n\
         \n\
         # Options: asked for this sandbox.\n\
         options rotate ndots:0\n\
         # ndots:0 is added: a name of one word is a name of these networks first.\n"
    );
    let made = host.for_sandbox(&layers[1..2], &FACTS);
    assert!(
        made.render()
            .contains("# Name servers: asked for network blue.\n")
    );
    let made = host.for_resolver(&layers[2..], &[ip("127.0.0.11")], &[]);
    assert_eq!(made.upstreams()[0].via, Via::Host);
}

#[test]
fn malformed_wishes_are_refused() {
    let parse = |servers: &[&str], searches: &[&str], options: &[&str]| {
        let own = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
        Overrides::parse(&own(servers), &own(searches), &own(options)).unwrap_err()
    };
    for text in [
        "",
        "dns.example",
        "192.0.2.1:53",
        "192.0.2.1%eth0",
        "192.0.2.1\n",
        "fe80::1%a b",
    ] {
        assert!(
            matches!(parse(&[text], &[], &[]), OverrideReject::Server(_)),
            "{text:?}"
        );
    }
    for text in ["", "a b", "a\nnameserver 192.0.2.1", ".."] {
        assert!(
            matches!(parse(&[], &[text], &[]), OverrideReject::Search(_)),
            "{text:?}"
        );
    }
    for text in ["", "a b", "ndots:1\nnameserver 192.0.2.1", "#x", ";x", "é"] {
        assert!(
            matches!(parse(&[], &[], &[text]), OverrideReject::Option(_)),
            "{text:?}"
        );
    }
    let many = vec!["192.0.2.1"; limits::SERVERS_MAX + 1];
    let refused = parse(&many, &[], &[]).to_string();
    assert_eq!(
        refused,
        "33 name servers are more than the limit of 32: use fewer"
    );
}

fn line() -> impl Strategy<Value = String> {
    let word = "[a-z0-9.:%#;_\\-]{0,12}";
    let server = prop_oneof![
        any::<[u8; 4]>().prop_map(|a| IpAddr::from(a).to_string()),
        any::<[u16; 8]>().prop_map(|a| IpAddr::from(a).to_string()),
        "fe80::[0-9a-f]{1,4}%[a-z0-9.]{0,16}",
        word,
    ];
    prop_oneof![
        server.prop_map(|s| format!("nameserver {s}")),
        prop::collection::vec(word, 0..5).prop_map(|w| format!("search {}", w.join(" "))),
        prop::collection::vec(word, 0..5).prop_map(|w| format!("options\t{}", w.join("\t"))),
        prop::collection::vec(word, 0..3).prop_map(|w| w.join(" ")),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let conf = ResolvConf::parse(&bytes);
        prop_assert_eq!(ResolvConf::parse(conf.render().as_bytes()), conf);
    }

    #[test]
    fn what_is_written_is_what_is_meant(
        file in prop::collection::vec(line(), 0..12),
        (ipv6, own_netns, resolver) in any::<(bool, bool, bool)>(),
        network in "\\PC{0,8}|[a-z\n ]{0,8}",
        asked in (0..2_usize, 0..2_usize, 0..2_usize),
    ) {
        let host = ResolvConf::parse(file.join("\n").as_bytes());
        prop_assert_eq!(&ResolvConf::parse(host.render().as_bytes()), &host);
        let facts = SandboxFacts { ipv6, own_netns, fallback: vec![ip("192.0.2.8")] };
        let asked = overrides(
            ["", "127.0.0.1"][asked.0], ["", "a.example"][asked.1], ["", "ndots:3"][asked.2],
        );
        let layers = [(Origin::Network(network), &asked)];
        let made = if resolver {
            host.for_resolver(&layers, &[ip("127.0.0.11")], &facts.fallback)
        } else {
            host.for_sandbox(&layers, &facts)
        };
        prop_assert_eq!(&ResolvConf::parse(made.render().as_bytes()), made.conf());
        if *made.servers_from() == Origin::Host && own_netns {
            prop_assert!(made.conf().servers.iter().all(|s| !s.address().is_loopback()));
        }
    }
}
