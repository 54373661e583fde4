use std::collections::VecDeque;

use tombolo_api::Request;
use tombolo_api::types::{EndpointSettings, NetworkCreate, SandboxCreate};
use tombolo_core::ipam::DefaultPools;
use tombolo_core::{Effect, Event, Facts, RequestId, Settings};
use tombolo_netstate::Report;

use super::super::{NetnsLookup, command, network_spec, settings};
use super::*;

/// No namespace exists.
struct Nowhere;

impl NetnsLookup for Nowhere {
    fn inode(&self, _: &std::path::Path) -> Result<u64, String> {
        Err("there is no such file".to_owned())
    }
}

fn text(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn network(change: impl FnOnce(&mut NetworkCreate)) -> Result<NetworkSpec, Reject> {
    let mut create = NetworkCreate::new("web");
    change(&mut create);
    network_spec(create)
}

/// Carries a request out on a kernel where everything works.
fn perform(controller: &mut Controller, number: u64, request: Request) {
    let event = Event::Command {
        request: RequestId(number),
        command: command(request, &Nowhere).unwrap().unwrap(),
        seed: u128::from(number) << 64,
    };
    let mut queue = VecDeque::from([event]);
    while let Some(event) = queue.pop_front() {
        let decision = controller.handle(1, event);
        for (_, reply) in decision.replies {
            reply.unwrap();
        }
        for effect in decision.effects {
            if let Effect::Apply { job, plan } = effect {
                let report = Report::done(&plan);
                queue.push_back(Event::Applied { job, report });
            }
        }
    }
}

fn controller(requests: impl IntoIterator<Item = Request>) -> Controller {
    let facts = Facts {
        ipv6: true,
        ..Facts::default()
    };
    let mut controller = Controller::new(Settings::default(), DefaultPools::default(), facts);
    for (number, request) in (1..).zip(requests) {
        perform(&mut controller, number, request);
    }
    controller
}

fn sandbox(name: &str, networks: &[(&str, &[&str])]) -> Request {
    let attachments = networks.iter().map(|(network, aliases)| {
        let aliases = text(aliases);
        types::NetworkAttachment {
            network: (*network).to_owned(),
            aliases,
            ..types::NetworkAttachment::default()
        }
    });
    Request::SandboxCreate(SandboxCreate {
        name: Some(name.to_owned()),
        networks: attachments.collect(),
        ..SandboxCreate::default()
    })
}

#[test]
fn a_network_that_says_nothing_has_the_defaults() {
    let spec = network(|_| {}).unwrap();
    assert_eq!(spec.dns, NetworkDns::default());
    let view = network_view(&spec);
    assert_eq!(view.resolver.as_deref(), Some("sandbox"));
    assert_eq!(view.forward.as_deref(), Some("auto"));
    let null = network(|create| create.driver = "null".into()).unwrap();
    assert_eq!(network_view(&null), types::NetworkDns::default());
}

#[test]
fn what_a_network_says_is_shown_as_it_was_said() {
    let config = NetworkDnsConfig {
        servers: text(&["192.0.2.53", "2001:db8::53"]),
        searches: text(&["example.org"]),
        options: text(&["ndots:1"]),
        resolver: Some("gateway".into()),
        forward: Some("never".into()),
        mdns: true,
    };
    let spec = network(|create| create.dns = config.clone()).unwrap();
    let view = network_view(&spec);
    assert_eq!(view.servers, config.servers);
    assert_eq!(view.searches, config.searches);
    assert_eq!(view.options, config.options);
    assert_eq!(
        (view.resolver, view.forward),
        (config.resolver, config.forward)
    );
    assert!(view.mdns);
}

#[test]
fn options_of_the_driver_mean_the_same() {
    let spec = network(|create| {
        for (key, value) in [
            ("dns", "192.0.2.53,2001:db8::53"),
            ("dns_search", "."),
            ("dns_option", "ndots:1, rotate"),
            ("dns_forward", "always"),
            ("resolver", "off"),
            ("mdns", "1"),
        ] {
            create.options.insert(key.into(), value.into());
        }
    })
    .unwrap();
    let expected = NetworkDns {
        servers: vec![
            "192.0.2.53".parse().unwrap(),
            "2001:db8::53".parse().unwrap(),
        ],
        searches: text(&["."]),
        options: text(&["ndots:1", "rotate"]),
        resolver: ResolverAt::Off,
        forward: Forward::Always,
        mdns: true,
    };
    assert_eq!(spec.dns, expected);
}

#[test]
fn words_that_mean_nothing_are_refused_with_the_reason() {
    let with = |change: fn(&mut NetworkDnsConfig)| {
        let reject = network(|create| change(&mut create.dns)).unwrap_err();
        assert!(!reject.hint.is_empty(), "{reject}");
        (reject.code, reject.to_string())
    };
    for ((code, message), expected, word) in [
        (
            with(|dns| dns.servers = text(&["dns.example"])),
            Code::InvalidAddress,
            "dns.example",
        ),
        (
            with(|dns| dns.searches = text(&["a b"])),
            Code::InvalidCombination,
            "a b",
        ),
        (
            with(|dns| dns.options = text(&["ndots 1"])),
            Code::InvalidCombination,
            "ndots 1",
        ),
        (
            with(|dns| dns.servers = vec!["192.0.2.53".to_owned(); 33]),
            Code::InvalidCombination,
            "limit of 32",
        ),
        (
            with(|dns| dns.resolver = Some("here".into())),
            Code::UnknownOption,
            "here",
        ),
        (
            with(|dns| dns.forward = Some("often".into())),
            Code::UnknownOption,
            "often",
        ),
    ] {
        assert_eq!(code, expected, "{message}");
        assert!(message.contains(word), "{message}");
    }
    // A sandbox is told no less.
    let mut create = SandboxCreate::default();
    create.dns.searches = text(&["-", "x y"]);
    let reject = command(Request::SandboxCreate(create), &Nowhere).unwrap_err();
    assert!(reject.message.contains("x y"), "{reject}");
}

#[test]
fn aliases_are_host_names() {
    let with = |alias: &str| {
        let aliases = vec![alias.to_owned()];
        settings(EndpointSettings {
            aliases,
            ..EndpointSettings::default()
        })
    };
    for (alias, kept) in [("db", "db"), ("_a.b-c", "_a.b-c"), ("db.", "db")] {
        assert_eq!(with(alias).unwrap().aliases, [kept]);
    }
    let long = "a".repeat(64);
    for alias in ["", "a b", "-a", "a..b", "10.0.0.1", long.as_str()] {
        let reject = with(alias).unwrap_err();
        assert_eq!(reject.code, Code::InvalidName, "{alias:?}");
        assert!(!reject.hint.is_empty(), "{reject}");
    }
}

#[test]
fn questions_are_about_names_and_types_that_there_are() {
    let controller = controller([]);
    let ask = |name: &str, kind: Option<&str>| {
        let question = types::DnsQuestion {
            name: name.into(),
            kind: kind.map(Into::into),
            sandbox: None,
        };
        let call = call(&controller, &question)?;
        Ok::<_, Reject>((call.name.to_string(), call.kind))
    };
    let is = |name: &str, kind| (name.to_owned(), kind);
    assert_eq!(ask("web", None).unwrap(), is("web.", RecordType::A));
    assert_eq!(
        ask("_http._tcp.web", Some("srv")).unwrap(),
        is("_http._tcp.web.", RecordType::SRV)
    );
    assert_eq!(
        ask("192.0.2.1", None).unwrap(),
        is("1.2.0.192.in-addr.arpa.", RecordType::PTR)
    );
    for (name, kind) in [
        ("web", Some("")),
        ("web", Some("A B")),
        ("web", Some("\u{e4}")),
        ("a..b", None),
        (&"x".repeat(64), None),
        (&vec!["x".repeat(60); 5].join("."), None),
    ] {
        let code = ask(name, kind).unwrap_err().code;
        assert_eq!(code, Code::UnknownOption, "{name} {kind:?}");
    }
}

#[test]
fn the_names_of_running_sandboxes_are_known_by_network() {
    let create = |name: &str| Request::NetworkCreate(NetworkCreate::new(name));
    let stop = Request::SandboxStop {
        reference: "off".into(),
    };
    let controller = controller([
        create("blue"),
        create("green"),
        sandbox("web", &[("blue", &["www", "WEB"]), ("green", &["www"])]),
        // Two may have the same alias.
        sandbox("api", &[("blue", &["www"])]),
        sandbox("off", &[("blue", &["gone"])]),
        stop,
    ]);
    let all = known_names(&controller, None);
    let rows: Vec<_> = all
        .iter()
        .map(|name| {
            (
                name.network.as_str(),
                name.name.as_str(),
                name.aliases.as_slice(),
            )
        })
        .collect();
    let short = |name: &types::DnsName| name.sandbox.id[..12].to_owned();
    let of = |name: &types::DnsName| vec!["www".to_owned(), short(name)];
    let (api, web) = (of(&all[0]), of(&all[1]));
    assert_eq!(
        rows,
        [
            ("blue", "api", &api[..]),
            ("blue", "web", &web[..]),
            ("green", "web", &web[..]),
        ]
    );
    assert_eq!(all[0].addresses.len(), 1);
    assert!(all[0].addresses[0].parse::<IpAddr>().is_ok());
    let green = controller
        .networks()
        .find(|n| n.spec.name.as_str() == "green");
    assert_eq!(known_names(&controller, green), all[2..]);
}

#[test]
fn only_a_running_sandbox_asks() {
    let stop = Request::SandboxStop {
        reference: "off".into(),
    };
    let controller = controller([sandbox("on", &[]), sandbox("off", &[]), stop]);
    let ask = |sandbox: Option<&str>| {
        let question = types::DnsQuestion {
            name: "web".into(),
            kind: Some("ptr".into()),
            sandbox: sandbox.map(Into::into),
        };
        call(&controller, &question)
    };
    assert_eq!(ask(None).unwrap().asker, None);
    let on = controller.find_sandbox(&Reference("on".into())).unwrap().id;
    assert_eq!(ask(Some("on")).unwrap().asker, Some(on));
    assert_eq!(ask(Some("off")).unwrap_err().code, Code::NotRunning);
    assert_eq!(ask(Some("x")).unwrap_err().code, Code::UnknownSandbox);
}
