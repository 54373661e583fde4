use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    let config = Config::merge(&[("test.toml".into(), text.to_owned())])?;
    config.check()?;
    Ok(config)
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn the_resolved_form_reads_back_as_itself() {
    let mut config = Config {
        mtu: Some(1400),
        ..Config::default()
    };
    config.docker.plugin_socket = Some("/run/docker/plugins/tombolo.sock".into());
    config.dns.listen = vec!["127.0.0.1".parse().unwrap()];
    config.bridge.bip = Some("172.30.0.1/24".parse().unwrap());
    config.tcp = Some(Tcp {
        listen: "127.0.0.1:1".into(),
        ca: None,
        cert: None,
        key: None,
    });
    let text = toml::to_string(&config).unwrap();
    assert_eq!(parse(&text).unwrap(), config);
}

#[test]
fn unknown_keys_are_refused_by_name_at_every_level() {
    for text in [
        "colour = 1",
        "[bridge]\ncolour = 1",
        "[dns]\ncolour = 1",
        "[docker]\ncolour = 1",
        "[plugins]\ncolour = 1",
        "[tcp]\nlisten = 'x'\ncolour = 1",
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains("colour"), "{text}: {error}");
    }
}

#[test]
fn values_that_cannot_be_are_refused_with_their_setting() {
    for (text, setting) in [
        ("run-dir = 'relative'", "run-dir"),
        ("log-level = 'loud'", "log-level"),
        ("prepared-namespaces = 1000", "prepared-namespaces"),
        ("[bridge]\nbip = 'fd00::1/64'", "bridge.bip"),
        ("[dns]\nttl-seconds = 86401", "dns.ttl-seconds"),
        ("[dns]\nsearches = ['a b']", "dns.searches"),
        ("[dns]\nlisten = ['0.0.0.0']", "listen"),
        ("[docker]\nengines = ['docker.sock']", "docker.engines"),
        (
            "socket = '/a'\n[docker]\nplugin-socket = '/a'",
            "docker.plugin-socket",
        ),
        (
            "[bridge]\nfixed-cidr-v6 = '10.0.0.0/8'",
            "bridge.fixed-cidr-v6",
        ),
        (
            "default-address-pools = [{ base = '10.0.0.1/8', size = 24 }]",
            "default-address-pools",
        ),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(setting), "{text}: {error}");
    }
}

#[test]
fn flags_stand_over_the_file() {
    let words = [
        "tombolo daemon",
        "--mtu=1300",
        "-b",
        "br0",
        "--ip-forward=false",
        "--bip=10.1.0.1/24",
        "--default-address-pool=base=10.9.0.0/16,size=26",
        "--prepared-namespaces=7",
        "--address-cooldown-seconds=0",
    ];
    let flags = Flags::try_parse_from(words).unwrap();
    let mut config = parse("mtu = 1400\nip-forward = true").unwrap();
    config.override_with(&flags);
    assert_eq!(config.mtu, Some(1300));
    assert_eq!(config.bridge.device, "br0");
    assert!(!config.ip_forward);
    assert_eq!(config.bridge.bip, Some("10.1.0.1/24".parse().unwrap()));
    assert_eq!(config.default_address_pools.len(), 1);
    assert_eq!(config.prepared_namespaces, 7);
    assert_eq!(config.address_cooldown_seconds, 0);
}

#[test]
fn every_setting_for_names_is_also_a_flag() {
    let words = "tombolo-daemon --dns 192.0.2.1 --dns 2001:db8::1 --dns-search a --dns-opt ndots:2 --dns-domain x.example \
                 --dns-ttl 9 --dns-forward-single-labels true --dns-cache-bytes 0 --dns-listen 127.0.0.1 \
                 --dns-listen [::1]:5353";
    let flags = Flags::try_parse_from(words.split_whitespace()).unwrap();
    let file = "[dns]\nservers = ['192.0.2.9']\nsearches = ['b']\noptions = ['rotate']\ndomain = 'y'\n\
                ttl-seconds = 1\nlisten = ['127.0.0.9']";
    let mut config = parse(file).unwrap();
    config.override_with(&flags);
    config.check().unwrap();
    let written = "[dns]\nservers = ['192.0.2.1', '2001:db8::1']\nsearches = ['a']\noptions = ['ndots:2']\n\
                   domain = 'x.example'\nttl-seconds = 9\nforward-single-labels = true\ncache-bytes = 0\n\
                   listen = ['127.0.0.1:53', '[::1]:5353']";
    assert_eq!(config.dns, parse(written).unwrap().dns);
    // What is not said by a flag stays as the file has it.
    let none = Flags::try_parse_from(["tombolo-daemon"]).unwrap();
    let mut kept = parse(file).unwrap();
    kept.override_with(&none);
    assert_eq!(kept, parse(file).unwrap());
    assert!(Flags::try_parse_from(["tombolo-daemon", "--dns-listen", "0.0.0.0"]).is_err());
}

#[test]
fn every_setting_for_docker_is_also_a_flag() {
    let file = "[docker]\nplugin-socket = '/p'\nengines = ['/e', '/f']";
    for (words, written) in [
        ("", file),
        (
            "--docker-plugin /x",
            "[docker]\nplugin-socket = '/x'\nengines = ['/e', '/f']",
        ),
        ("--docker-plugin none", "[docker]\nengines = ['/e', '/f']"),
        (
            "--docker-engine /y --docker-engine /z",
            "[docker]\nplugin-socket = '/p'\nengines = ['/y', '/z']",
        ),
        (
            "--docker-engine none",
            "[docker]\nplugin-socket = '/p'\nengines = []",
        ),
    ] {
        let words = ["tombolo-daemon"]
            .into_iter()
            .chain(words.split_whitespace());
        let flags = Flags::try_parse_from(words).unwrap();
        let mut config = parse(file).unwrap();
        config.override_with(&flags);
        assert_eq!(config.docker, parse(written).unwrap().docker);
    }
    let unset = Config::default().docker;
    assert_eq!(unset.plugin_socket, None);
    assert_eq!(unset.engines, [PathBuf::from("/run/docker.sock")]);
}

#[test]
fn the_bridge_named_none_switches_the_default_network_off() {
    let flags = Flags::try_parse_from(["tombolo daemon", "-b", "none"]).unwrap();
    let mut config = Config::default();
    config.override_with(&flags);
    assert!(!config.bridge.enabled);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        drop(parse(&text));
    }
}
