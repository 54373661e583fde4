use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    let config = Config::parse(Path::new("test.toml"), text)?;
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
    ];
    let flags = Flags::try_parse_from(words).unwrap();
    let mut config = parse("mtu = 1400\nip-forward = true").unwrap();
    config.override_with(&flags);
    assert_eq!(config.mtu, Some(1300));
    assert_eq!(config.bridge.device, "br0");
    assert!(!config.ip_forward);
    assert_eq!(config.bridge.bip, Some("10.1.0.1/24".parse().unwrap()));
    assert_eq!(config.default_address_pools.len(), 1);
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
