use proptest::prelude::*;

use super::*;

fn name(text: &str) -> HostName {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The lines that are no comments.
fn entries(file: &str) -> Vec<&str> {
    let lines = file.lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

fn texts(names: &[HostName]) -> Vec<&str> {
    names.iter().map(HostName::as_str).collect()
}

#[test]
fn a_sandboxs_file_is_complete_and_in_order() {
    let extra =
        ["db:192.0.2.5", "six=[2001:db8::5]", "me:host-gateway"].map(|t| t.parse().unwrap());
    let names = own_names(
        &name("web"),
        Some(&name("lan.example")),
        Some(&name("shop_web_1")),
    );
    let spec = HostsSpec {
        ipv6: true,
        addresses: &[ip("172.18.0.2"), ip("fd00::2")],
        names: &names,
        extra: &extra,
        gateways: &[ip("172.18.0.1"), ip("fd00::1")],
        links: &[],
    };
    assert_eq!(
        Hosts::for_sandbox(&spec).unwrap().render(),
        "# Made by tombolo. Once edited, this file is left alone.\n\
         \n\
         # Loopback.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n\
         \n\
         # This sandbox.\n\
         172.18.0.2\tweb.lan.example web shop_web_1\n\
         fd00::2\tweb.lan.example web shop_web_1\n\
         \n\
         # Asked for this sandbox.\n\
         192.0.2.5\tdb\n\
         2001:db8::5\tsix\n\
         172.18.0.1\tme\n\
         fd00::1\tme\n"
    );
    let v4 = Hosts::for_sandbox(&HostsSpec {
        ipv6: false,
        extra: &[],
        ..spec.clone()
    })
    .unwrap();
    assert_eq!(
        entries(&v4.render()),
        [
            "127.0.0.1\tlocalhost",
            "172.18.0.2\tweb.lan.example web shop_web_1"
        ]
    );
    let refused = Hosts::for_sandbox(&HostsSpec {
        gateways: &[],
        links: &[],
        ..spec
    });
    assert_eq!(
        refused.unwrap_err(),
        HostsReject::NoGateway { name: name("me") }
    );
}

#[test]
fn own_names_begin_with_the_full_one_and_do_not_repeat() {
    let web = name("web");
    assert_eq!(texts(&own_names(&web, None, None)), ["web"]);
    assert_eq!(texts(&own_names(&web, None, Some(&web))), ["web"]);
    assert_eq!(
        texts(&own_names(&name("web.a.example"), None, None)),
        ["web.a.example", "web"]
    );
    let domain = name("b.example");
    let full = own_names(&name("web.a"), Some(&domain), None);
    assert_eq!(texts(&full), ["web.a.b.example", "web.a"]);
    let long = name(&vec!["a".repeat(60); 4].join("."));
    assert_eq!(texts(&own_names(&web, Some(&long), None)).len(), 2);
    let too_long = name(&format!("{long}.{}", "b".repeat(9)));
    assert_eq!(texts(&own_names(&web, Some(&too_long), None)), ["web"]);
}

#[test]
fn extra_hosts_are_read_in_all_their_spellings() {
    let parse = |text: &str| {
        text.parse::<ExtraHost>()
            .map(|e| (e.name.to_string(), e.target))
    };
    let is = |name: &str, address: &str| Ok((name.to_owned(), Target::Address(ip(address))));
    assert_eq!(parse("a:192.0.2.1"), is("a", "192.0.2.1"));
    assert_eq!(parse("a=192.0.2.1"), is("a", "192.0.2.1"));
    assert_eq!(parse("a:::1"), is("a", "::1"));
    assert_eq!(parse("a=2001:db8::1"), is("a", "2001:db8::1"));
    assert_eq!(parse("a:[2001:db8::1]"), is("a", "2001:db8::1"));
    assert_eq!(
        parse("h:host-gateway"),
        Ok(("h".to_owned(), Target::HostGateway))
    );
    for text in [
        "a:",
        "a:b",
        "a:192.0.2.1 x",
        "a:[192.0.2.1]",
        "a:192.0.2.1\nb",
        "a:[::1",
    ] {
        assert!(
            matches!(parse(text), Err(ExtraHostReject::Target { .. })),
            "{text:?}"
        );
    }
    for text in [
        ":192.0.2.1",
        "a b:192.0.2.1",
        "x\n192.0.2.9 bank:192.0.2.1",
        "#:192.0.2.1",
    ] {
        assert!(
            matches!(parse(text), Err(ExtraHostReject::Name { .. })),
            "{text:?}"
        );
    }
    assert!(matches!(parse("a"), Err(ExtraHostReject::Syntax { .. })));
}

#[test]
fn a_file_of_the_host_is_read_with_its_flaws() {
    let file = b"127.0.0.1 localhost # comment\n\n# 192.0.2.1 no\nnonsense a\n192.0.2.2\n\
        192.0.2.3\ta  b_c a -bad\r\n\xff\xff\n  ::1 six\n";
    let hosts = Hosts::parse(file);
    let lines: Vec<_> = hosts
        .entries()
        .iter()
        .map(|e| (e.address().to_string(), texts(e.names())))
        .collect();
    assert_eq!(
        lines,
        [
            ("127.0.0.1".to_owned(), vec!["localhost"]),
            ("192.0.2.3".to_owned(), vec!["a", "b_c"]),
            ("::1".to_owned(), vec!["six"]),
        ]
    );
}

#[test]
fn files_stop_at_their_limits() {
    let spare = limits::HOSTS_ENTRIES_MAX - 1;
    let one: ExtraHost = "a:192.0.2.1".parse().unwrap();
    let made = |count: usize| {
        let extra = vec![one.clone(); count];
        Hosts::for_sandbox(&HostsSpec {
            ipv6: false,
            addresses: &[],
            names: &[],
            extra: &extra,
            gateways: &[],
            links: &[],
        })
    };
    assert_eq!(
        made(spare).unwrap().entries().len(),
        limits::HOSTS_ENTRIES_MAX
    );
    let count = limits::HOSTS_ENTRIES_MAX + 1;
    assert_eq!(made(spare + 1).unwrap_err(), HostsReject::TooMany { count });

    let lines = "::1 a\n".repeat(limits::HOSTS_ENTRIES_MAX + 9);
    assert_eq!(
        Hosts::parse(lines.as_bytes()).entries().len(),
        limits::HOSTS_ENTRIES_MAX
    );
    let names = (0..limits::HOSTS_NAMES_MAX + 9).map(|n| name(&format!("n{n}")));
    let entry = HostsEntry::new(ip("::1"), names).unwrap();
    assert_eq!(entry.names().len(), limits::HOSTS_NAMES_MAX);
    assert_eq!(HostsEntry::new(ip("::1"), []), None);
}

#[test]
fn a_hostname_file_holds_what_the_kernel_takes() {
    assert_eq!(hostname_file(&name("web-1")), Ok("web-1\n".to_owned()));
    let label = "a".repeat(62);
    assert!(hostname_file(&name(&format!("{label}.b"))).is_ok());
    let long = name(&format!("{label}.bc"));
    assert_eq!(hostname_file(&long), Err(HostnameReject { name: long }));
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let hosts = Hosts::parse(&bytes);
        let again = Hosts::parse(hosts.render().as_bytes());
        prop_assert_eq!(again.entries(), hosts.entries());
    }

    #[test]
    fn what_is_written_is_what_is_meant(
        file in "((192\\.0\\.2\\.[0-9]{1,2}|::[0-9a-f]{1,4}|[a-z]{1,3})([ \\t]{1,2}[a-z0-9._#\\-]{0,6}){0,4}\\r?\\n){0,8}",
    ) {
        let hosts = Hosts::parse(file.as_bytes());
        let again = Hosts::parse(hosts.render().as_bytes());
        prop_assert_eq!(again.entries(), hosts.entries());
    }

    #[test]
    fn an_extra_host_adds_exactly_one_line(text in "\\PC{0,20}|[a-z0-9.:=\\n \\-]{0,6}[:=](192\\.0\\.2\\.[0-9]|::1|[\\n a-z0-9.]{0,8})") {
        if let Ok(extra) = text.parse::<ExtraHost>() {
            let spec = HostsSpec {
                ipv6: false,
                addresses: &[],
                names: &[],
                extra: std::slice::from_ref(&extra),
                gateways: &[IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254))],
                links: &[],
            };
            let text = Hosts::for_sandbox(&spec).unwrap().render();
            prop_assert_eq!(entries(&text).len(), 2);
            let end = format!("\t{}", extra.name);
            prop_assert!(text.lines().last().unwrap().ends_with(&end));
        }
    }
}

#[test]
fn linked_sandboxes_come_last_under_their_alias() {
    let links = [(
        vec![ip("172.18.0.3"), ip("fd00::3")],
        vec![name("store"), name("db")],
    )];
    let hosts = |ipv6| {
        let hosts = Hosts::for_sandbox(&HostsSpec {
            ipv6,
            addresses: &[ip("172.18.0.2")],
            names: &[name("web")],
            extra: &[],
            gateways: &[],
            links: &links,
        });
        hosts.unwrap().render()
    };
    let end = "# Linked sandboxes.\n172.18.0.3\tstore db\n";
    assert!(hosts(true).ends_with(&format!("{end}fd00::3\tstore db\n")));
    assert!(hosts(false).ends_with(&format!("172.18.0.2\tweb\n\n{end}")));
}
