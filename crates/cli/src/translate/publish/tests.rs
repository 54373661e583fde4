use proptest::prelude::*;

use super::*;

fn spec(container: &str, host: Option<&str>, address: Option<&str>) -> PublicationSpec {
    PublicationSpec {
        host: host.map(ToOwned::to_owned),
        address: address.map(ToOwned::to_owned),
        ..PublicationSpec::new(container)
    }
}

#[test]
fn short_forms_mean_what_they_mean_in_docker() {
    let cases = [
        ("80", spec("80", None, None)),
        (":80", spec("80", None, None)),
        ("0:80", spec("80", None, None)),
        ("8080:80", spec("80", Some("8080"), None)),
        ("08080:0080", spec("80", Some("8080"), None)),
        (
            "127.0.0.1:8080:80",
            spec("80", Some("8080"), Some("127.0.0.1")),
        ),
        ("127.0.0.1::80", spec("80", None, Some("127.0.0.1"))),
        ("127.0.0.1:0:80", spec("80", None, Some("127.0.0.1"))),
        ("0.0.0.0:80:80", spec("80", Some("80"), Some("0.0.0.0"))),
        ("[::]:8080:80", spec("80", Some("8080"), Some("::"))),
        (
            "[2001:DB8:0::1]:8080:80",
            spec("80", Some("8080"), Some("2001:db8::1")),
        ),
        ("[::1]::80", spec("80", None, Some("::1"))),
        ("80-90", spec("80-90", None, None)),
        ("8080-8090:80-90", spec("80-90", Some("8080-8090"), None)),
        ("8000-8010:80", spec("80", Some("8000-8010"), None)),
        ("7-7:80-80", spec("80", Some("7"), None)),
        ("1-65535:1-65535", spec("1-65535", Some("1-65535"), None)),
        ("65535:65535", spec("65535", Some("65535"), None)),
        (
            "192.0.2.1:8000-8001:80-81",
            spec("80-81", Some("8000-8001"), Some("192.0.2.1")),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(publication(text), Ok(expected), "{text}");
    }
}

#[test]
fn protocols_are_named_after_a_slash() {
    for (text, protocol) in [
        ("53:53/udp", Protocol::Udp),
        ("53/UDP", Protocol::Udp),
        ("[::1]:53:53/sctp", Protocol::Sctp),
        ("53/tcp", Protocol::Tcp),
    ] {
        assert_eq!(publication(text).unwrap().protocol, protocol, "{text}");
    }
}

#[test]
fn sources_and_the_hosts_firewall_follow_a_comma() {
    let found = publication(
        "8080:80/udp,from=10.0.0.0/8,from=192.0.2.7,from=2001:DB8::/32,obey-host-firewall=false",
    );
    let expected = PublicationSpec {
        protocol: Protocol::Udp,
        from: ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]
            .map(ToOwned::to_owned)
            .to_vec(),
        obey_host_firewall: Some(false),
        ..spec("80", Some("8080"), None)
    };
    assert_eq!(found, Ok(expected));
    let obeying = publication("80,obey_host_firewall=true").unwrap();
    assert_eq!(obeying.obey_host_firewall, Some(true));
}

#[test]
fn sockets_of_the_host_lead_to_a_port() {
    let expected = PublicationSpec {
        socket: Some("/run/web.sock".to_owned()),
        ..PublicationSpec::new("80")
    };
    for text in [
        "unix:/run/web.sock:80",
        "unix:/run/web.sock:80/tcp",
        "target=80,socket=/run/web.sock",
    ] {
        assert_eq!(publication(text), Ok(expected.clone()), "{text}");
    }
    let odd = publication("unix:/run/a:b=c/web.sock:80").unwrap();
    assert_eq!(odd.socket.as_deref(), Some("/run/a:b=c/web.sock"));
    let longest = format!("/{}", "a".repeat(limits::SOCKET_PATH_BYTES - 1));
    assert!(publication(&format!("unix:{longest}:80")).is_ok());
    for text in [
        format!("unix:{longest}a:80"),
        "unix:web.sock:80".to_owned(),
        "unix::80".to_owned(),
        "unix:/run/:80".to_owned(),
        "unix:/run/web.sock".to_owned(),
        "unix:/run/\u{1b}[2J:80".to_owned(),
    ] {
        let error = publication(&text).unwrap_err();
        assert!(matches!(error, PublishError::Socket(_)), "{text}: {error}");
    }
    for (text, expected) in [
        (
            "unix:/run/a:53/udp",
            "a Unix socket leads to a single TCP port, not to 53/udp",
        ),
        (
            "unix:/run/a:80-81",
            "a Unix socket leads to a single TCP port, not to 80-81/tcp",
        ),
        (
            "unix:/run/a:80,from=10.0.0.1",
            "`from` cannot be combined with a Unix socket",
        ),
        (
            "socket=/run/a,target=80,published=80",
            "`published` cannot be combined with a Unix socket",
        ),
        ("unix:/run/a:", "it names no port of the container"),
    ] {
        let message = publication(text).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{text}: {message}");
    }
}

#[test]
fn the_long_form_sets_everything() {
    let found = publication(
        "target=80-81,published=8080-8081,protocol=UDP,host_ip=::1,from=2001:db8::1,\
         obey-host-firewall=true",
    );
    let expected = PublicationSpec {
        protocol: Protocol::Udp,
        from: vec!["2001:db8::1".to_owned()],
        obey_host_firewall: Some(true),
        ..spec("80-81", Some("8080-8081"), Some("::1"))
    };
    assert_eq!(found, Ok(expected));
    assert_eq!(
        publication("published=0,target=80,host-ip=[::1]"),
        Ok(spec("80", None, Some("::1")))
    );
    assert_eq!(
        publication("target=53/udp").unwrap().protocol,
        Protocol::Udp
    );
}

fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let message = publication(text).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{text:?}: {message}");
    }
}

#[test]
fn ports_that_cannot_be_are_refused() {
    check(&[
        ("", "it names no port of the container"),
        ("8080:", "it names no port of the container"),
        ("/tcp", "it names no port of the container"),
        (",from=10.0.0.1", "it names no port of the container"),
        ("0", "nothing can listen at port 0 of a container"),
        ("8080:0", "nothing can listen at port 0 of a container"),
        ("0-5", "range 0-5 holds port 0"),
        ("0-5:80-85", "range 0-5 holds port 0"),
        ("65536", "port 65536 is out of range"),
        ("65536:80", "port 65536 is out of range"),
        (
            "99999999999999999999999",
            "port 99999999999999999999999 is out of range",
        ),
        ("70000-70001", "port 70000 is out of range"),
        (
            "65530-65540",
            "range 65530-65540 crosses 65535, which is the last port",
        ),
        ("65530-65540:1-11", "range 65530-65540 crosses 65535"),
        ("90-80", "range 90-80 runs backwards; write 80-90"),
        ("http", "`http` is not a port"),
        ("+80", "`+80` is not a port"),
        ("80 ", "`80 ` is not a port"),
        ("-80", "`-80` is not a port"),
        ("80-", "`80-` is not a port"),
        ("80-90-100", "`80-90-100` is not a port"),
        ("8080/tcp:80", "`8080/tcp` is not a port"),
        ("٨٠", "`٨٠` is not a port"),
    ]);
}

#[test]
fn sides_of_unequal_length_are_refused_with_both_lengths() {
    check(&[
        (
            "8080-8085:80-90",
            "host side 8080-8085 has 6 ports and container side 80-90 has 11 ports",
        ),
        (
            "8080:80-90",
            "host side 8080 has 1 port and container side 80-90 has 11 ports",
        ),
        (
            "target=80-81,published=8080-8082",
            "host side 8080-8082 has 3 ports and container side 80-81 has 2 ports",
        ),
    ]);
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    check(&[
        (
            "localhost:8080:80",
            "`localhost` is not an IP address; write one of the host's",
        ),
        ("10.0.0.256:8080:80", "`10.0.0.256` is not an IP address"),
        ("10.0.0.0/8:8080:80", "`10.0.0.0/8` is not an IP address"),
        ("::80", "`` is not an IP address"),
        (
            "::1:8080:80",
            "`::1:8080:80` has too many parts; write an IPv6 address in brackets",
        ),
        ("[::1]:1:2:3", "`[::1]:1:2:3` has too many parts"),
        ("[::1", "`[::1` does not go on with a port"),
        ("[::1]80:80", "`[::1]80:80` does not go on with a port"),
        ("[::1]:80", "`[::1]:80` does not go on with a port"),
        ("[127.0.0.1]:80:80", "`[127.0.0.1]:80:80` does not go on"),
        ("[]:80:80", "`` is not an IP address"),
        (
            "[fe80::1%eth0]:8080:80",
            "`fe80::1%eth0` has a zone, which a published address cannot have",
        ),
        ("[fe80::1%]:8080:80", "`fe80::1%` has a zone"),
        ("[x%eth0]:8080:80", "`x%eth0` is not an IP address"),
    ]);
}

#[test]
fn what_follows_must_be_known() {
    check(&[
        ("80/", "unknown protocol ``; known are tcp, udp and sctp"),
        ("80/icmp", "unknown protocol `icmp`"),
        ("80/tcp/udp", "unknown protocol `tcp/udp`"),
        ("80/tcp ", "unknown protocol `tcp `"),
        ("80,", "`` is not KEY=VALUE"),
        ("80,from", "`from` is not KEY=VALUE"),
        ("80,from=", "`from=` is not KEY=VALUE"),
        ("80,from=everywhere", "`everywhere` is not a source"),
        ("80,from=10.0.0.0/33", "`10.0.0.0/33` is not a source"),
        (
            "80,protocol=udp",
            "unknown key `protocol`; known are from, obey-host-firewall",
        ),
        (
            "80,obey-host-firewall=maybe",
            "`maybe` is no value for obey-host-firewall; write true or false",
        ),
        (
            "80,obey-host-firewall=true,obey-host-firewall=true",
            "`obey-host-firewall` is given twice",
        ),
        (
            "target=80,mode=host",
            "unknown key `mode`; known are target, published",
        ),
        ("target=80,target=81", "`target` is given twice"),
        ("published=80", "it names no port of the container"),
        ("target=80/udp,protocol=udp", "`80/udp` is not a port"),
    ]);
}

#[test]
fn what_nobody_writes_is_refused_without_repeating_it() {
    for text in ["8".repeat(100_000), "é".repeat(50_000)] {
        let error = publication(&text).unwrap_err();
        assert_eq!(error, PublishError::TooLong(100_000));
        assert!(error.to_string().len() < 100);
        assert_eq!(exposed(&text), Err(PublishError::TooLong(100_000)));
        assert_eq!(link(&text), Err(PublishError::TooLong(100_000)));
    }
    let longest = "8".repeat(limits::PUBLICATION_BYTES);
    assert!(matches!(
        publication(&longest),
        Err(PublishError::OutOfRange(_))
    ));
}

#[test]
fn exposed_ports_are_written_with_their_protocol() {
    for (text, expected) in [
        ("80", "80/tcp"),
        ("53/UDP", "53/udp"),
        ("8000-8010/sctp", "8000-8010/sctp"),
    ] {
        assert_eq!(exposed(text).unwrap(), expected);
    }
    for text in ["", "0", "8080:80", "80/x", "90-80", "65536"] {
        assert!(exposed(text).is_err(), "{text}");
    }
}

#[test]
fn links_have_a_name_and_may_have_an_alias() {
    let to = |sandbox: &str, alias: Option<&str>| LinkSpec {
        sandbox: sandbox.to_owned(),
        alias: alias.map(ToOwned::to_owned),
    };
    assert_eq!(link("db"), Ok(to("db", None)));
    assert_eq!(link("db:store"), Ok(to("db", Some("store"))));
    assert_eq!(link("/db:store"), Ok(to("db", Some("store"))));
    for text in ["", ":", "db:", ":store", "a:b:c", "/", "a:/b"] {
        assert_eq!(link(text), Err(PublishError::Link(text.to_owned())));
    }
}

proptest! {
    #[test]
    fn any_pair_of_ports_is_read_as_it_is_written(host in 1..=u16::MAX, container in 1..=u16::MAX) {
        let text = format!("{host}:{container}");
        let host = host.to_string();
        prop_assert_eq!(publication(&text), Ok(spec(&container.to_string(), Some(&host), None)));
    }

    #[test]
    fn nothing_makes_it_panic(text in "[0-9a-f\\[\\]:./,=%\\-unixfromtcp]{0,40}") {
        let _ = (publication(&text), exposed(&text), link(&text));
    }
}
