use std::path::Path;

use tombolo_api::types::{EndpointSettings, NetworkCreate, SandboxCreate, SubnetConfig};
use tombolo_api::{ErrorKind, Request};
use tombolo_core::{Code, Command, Kind};

use super::*;

/// One namespace exists.
struct OnePath;

impl NetnsLookup for OnePath {
    fn inode(&self, path: &Path) -> Result<u64, String> {
        match path.to_str() {
            Some("/run/netns/there" | "/proc/7/ns/net") => Ok(42),
            _ => Err("there is no such file".to_owned()),
        }
    }
}

fn network(
    change: impl FnOnce(&mut NetworkCreate),
) -> Result<tombolo_core::model::NetworkSpec, Reject> {
    let mut create = NetworkCreate::new("web");
    change(&mut create);
    network_spec(create)
}

#[test]
fn every_reason_of_the_core_has_the_same_word_and_kind_in_the_api() {
    for code in Code::ALL {
        let found = error_code(code.as_str());
        let found = found.unwrap_or_else(|| panic!("the API does not know {}", code.as_str()));
        let kind = match code.kind() {
            Kind::Invalid => ErrorKind::Invalid,
            Kind::Conflict => ErrorKind::Conflict,
            Kind::Unavailable => ErrorKind::Unavailable,
            Kind::Internal => ErrorKind::Internal,
        };
        assert_eq!(found.kind(), kind, "{}", code.as_str());
    }
}

#[test]
fn dockers_option_names_mean_our_fields() {
    let spec = network(|create| {
        for (key, value) in [
            ("com.docker.network.bridge.name", "br7"),
            ("com.docker.network.bridge.enable_icc", "false"),
            ("com.docker.network.bridge.enable_ip_masquerade", "0"),
            ("com.docker.network.driver.mtu", "1400"),
            ("com.docker.network.container_iface_prefix", "net"),
            ("com.docker.network.host_ipv4", "192.0.2.9"),
        ] {
            create.options.insert(key.into(), value.into());
        }
    })
    .unwrap();
    assert_eq!(spec.device.as_deref(), Some("br7"));
    assert!(!spec.icc && !spec.masquerade);
    assert_eq!(spec.mtu, Some(1400));
    assert_eq!(spec.interface_prefix, "net");
    assert_eq!(spec.snat, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
}

#[test]
fn unknown_options_and_values_are_refused_by_name() {
    for (key, value) in [
        ("speed", "9"),
        ("com.docker.network.driver.mtu", "big"),
        ("icc", "maybe"),
    ] {
        let reject = network(|c| drop(c.options.insert(key.into(), value.into()))).unwrap_err();
        assert_eq!(
            (reject.code, reject.object.as_str()),
            (Code::UnknownOption, key)
        );
    }
}

#[test]
fn a_subnet_of_a_family_switches_that_family_on() {
    let with = |subnet: &str| {
        network(|c| {
            c.subnets.push(SubnetConfig {
                subnet: Some(subnet.into()),
                ..SubnetConfig::default()
            })
        })
    };
    assert!(with("fd00:1::/64").unwrap().ipv6);
    assert!(!with("10.0.0.0/24").unwrap().ipv6);
    assert_eq!(with("10.0.0/24").unwrap_err().code, Code::InvalidAddress);
}

#[test]
fn addresses_must_be_of_the_family_of_their_field() {
    let settings_with = |v4: &str| {
        settings(EndpointSettings {
            ipv4_address: Some(v4.into()),
            ..EndpointSettings::default()
        })
    };
    assert!(settings_with("10.0.0.2").is_ok());
    assert_eq!(
        settings_with("fd00::2").unwrap_err().code,
        Code::InvalidAddress
    );
    assert_eq!(
        settings_with("10.0.0.256").unwrap_err().code,
        Code::InvalidAddress
    );
}

#[test]
fn a_namespace_is_known_by_its_inode_or_refused() {
    let create = |netns: &str| {
        let create: SandboxCreate =
            serde_json::from_str(&format!("{{\"netns\":{netns}}}")).unwrap();
        command(Request::SandboxCreate(create), &OnePath)
    };
    for good in [
        r#"{"kind":"path","path":"/run/netns/there"}"#,
        r#"{"kind":"pid","pid":7}"#,
    ] {
        let Ok(Some(Command::CreateSandbox { spec, .. })) = create(good) else {
            panic!("{good}")
        };
        assert!(matches!(
            spec.netns,
            tombolo_core::model::SandboxNetns::Adopted { inode: 42, .. }
        ));
    }
    for bad in [
        r#"{"kind":"path","path":"/gone"}"#,
        r#"{"kind":"path","path":"rel"}"#,
    ] {
        assert_eq!(create(bad).unwrap_err().code, Code::MissingNamespace);
    }
}

#[test]
fn host_lines_cannot_carry_other_lines() {
    let with = |line: &str| {
        let create = SandboxCreate {
            extra_hosts: vec![line.to_owned()],
            ..SandboxCreate::default()
        };
        command(Request::SandboxCreate(create), &OnePath)
    };
    assert!(with("db:10.0.0.9").is_ok());
    assert!(with("up:host-gateway").is_ok());
    for bad in [
        "db",
        "db:10.0.0.9\n1.2.3.4 evil",
        "a b:10.0.0.1",
        ":10.0.0.1",
        "db:nowhere",
    ] {
        assert!(with(bad).is_err(), "{bad:?} was taken");
    }
}
