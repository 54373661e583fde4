//! What the network flags of one command mean together, and which of them exclude each other.

use std::collections::BTreeSet;

use tombolo_api::NetworkAttachment;

use super::attachment::NetworkFlag;
use crate::args::flags::{NameFlags, NetworkFlags, PortFlags};

/// The network that is joined when none is named.
const DEFAULT_NETWORK: &str = "bridge";
/// The network of those who want none.
const NONE: &str = "none";
/// The host's own network.
const HOST: &str = "host";

/// Where a new process finds its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkMode {
    /// In a namespace of its own, tied to these networks.
    Own(Vec<NetworkAttachment>),
    /// In the host's namespace.
    Host(NetworkAttachment),
    /// In the namespace of another process.
    Shared(String),
}

/// What else was asked, as far as it may contradict the network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Companions<'a> {
    /// Whether a host name was given.
    pub(crate) hostname: bool,
    /// How names are resolved.
    pub(crate) names: &'a NameFlags,
    /// Which ports are published, exposed and linked to.
    pub(crate) ports: &'a PortFlags,
    /// Whether a sysctl was given.
    pub(crate) sysctl: bool,
}

/// Why network flags contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ModeError {
    /// `container:` stands alone.
    #[error(
        "--network container:{0} cannot be combined with other networks: the namespace belongs to {0}"
    )]
    SharedAndOthers(String),
    /// What belongs to the owner of a shared namespace cannot be set by who shares it.
    #[error("{flag} cannot be combined with --network container:{owner}: set it on {owner}")]
    Shared {
        /// The flag.
        flag: &'static str,
        /// Whose network is shared.
        owner: String,
    },
    /// `none` and `host` stand alone.
    #[error("--network {0} cannot be combined with other networks")]
    Alone(&'static str),
    /// There is no interface to set this on.
    #[error(
        "{flag} cannot be combined with --network {mode}: there is no interface of its own to set it on"
    )]
    NoInterface {
        /// The flag.
        flag: &'static str,
        /// `none` or `host`.
        mode: &'static str,
    },
    /// The host's settings are not for a process to change.
    #[error("--sysctl cannot be combined with --network host: it would change the host")]
    HostSysctl,
    /// A process has one endpoint on a network.
    #[error("network {0} is given twice")]
    Twice(String),
    /// A flag and its key in `--network` say the same thing.
    #[error("{flag} is given both as a flag and in --network {network}")]
    Both {
        /// The flag.
        flag: &'static str,
        /// The network.
        network: String,
    },
}

/// What the flags mean, or which two of them contradict each other.
pub(crate) fn network_mode(
    flags: &NetworkFlags,
    companions: Companions<'_>,
) -> Result<NetworkMode, ModeError> {
    let shared = flags.networks.iter().find_map(|flag| match flag {
        NetworkFlag::Container(owner) => Some(owner),
        NetworkFlag::Attach(_) => None,
    });
    if let Some(owner) = shared {
        check_shared(flags, companions, owner)?;
        return Ok(NetworkMode::Shared(owner.clone()));
    }
    let mut attachments = attachments(&flags.networks);
    let mut seen = BTreeSet::new();
    if let Some(twice) = attachments.iter().find(|one| !seen.insert(&one.network)) {
        return Err(ModeError::Twice(twice.network.clone()));
    }
    for mode in [NONE, HOST] {
        if let Some(found) = attachments.iter().find(|one| one.network == mode) {
            if attachments.len() > 1 {
                return Err(ModeError::Alone(mode));
            }
            check_interfaceless(flags, found, mode)?;
        }
    }
    if attachments[0].network == HOST {
        return match companions.sysctl {
            true => Err(ModeError::HostSysctl),
            false => Ok(NetworkMode::Host(attachments.remove(0))),
        };
    }
    apply_to_first(flags, &mut attachments[0])?;
    Ok(NetworkMode::Own(attachments))
}

fn attachments(flags: &[NetworkFlag]) -> Vec<NetworkAttachment> {
    let mut found: Vec<NetworkAttachment> = flags
        .iter()
        .filter_map(|flag| match flag {
            NetworkFlag::Attach(attachment) => Some((**attachment).clone()),
            NetworkFlag::Container(_) => None,
        })
        .collect();
    for attachment in &mut found {
        // Docker's other word for the network that is joined by default.
        if attachment.network == "default" {
            attachment.network = DEFAULT_NETWORK.to_owned();
        }
    }
    if found.is_empty() {
        let network = DEFAULT_NETWORK.to_owned();
        found.push(NetworkAttachment {
            network,
            ..NetworkAttachment::default()
        });
    }
    found
}

fn check_shared(
    flags: &NetworkFlags,
    companions: Companions<'_>,
    owner: &str,
) -> Result<(), ModeError> {
    if flags.networks.len() > 1 {
        return Err(ModeError::SharedAndOthers(owner.to_owned()));
    }
    let (names, ports) = (companions.names, companions.ports);
    let given = [
        ("--hostname", companions.hostname),
        ("--dns", !names.servers.is_empty()),
        ("--dns-search", !names.searches.is_empty()),
        ("--dns-option", !names.options.is_empty()),
        ("--add-host", !names.hosts.is_empty()),
        ("--sysctl", companions.sysctl),
        ("--publish", !ports.publish.is_empty()),
        ("--publish-all", ports.publish_all),
        ("--expose", !ports.expose.is_empty()),
        ("--link", !ports.links.is_empty()),
    ];
    match given
        .into_iter()
        .chain(interface_flags(flags))
        .find(|(_, given)| *given)
    {
        Some((flag, _)) => Err(ModeError::Shared {
            flag,
            owner: owner.to_owned(),
        }),
        None => Ok(()),
    }
}

fn check_interfaceless(
    flags: &NetworkFlags,
    attachment: &NetworkAttachment,
    mode: &'static str,
) -> Result<(), ModeError> {
    let keys = [
        ("ip", attachment.ipv4_address.is_some()),
        ("ip6", attachment.ipv6_address.is_some()),
        ("mac", attachment.mac_address.is_some()),
        ("alias", !attachment.aliases.is_empty()),
        ("ifname", attachment.interface_name.is_some()),
        ("gw-priority", attachment.gateway_priority.is_some()),
    ];
    match interface_flags(flags)
        .into_iter()
        .chain(keys)
        .find(|(_, given)| *given)
    {
        Some((flag, _)) => Err(ModeError::NoInterface { flag, mode }),
        None => Ok(()),
    }
}

fn interface_flags(flags: &NetworkFlags) -> [(&'static str, bool); 4] {
    [
        ("--ip", flags.ip.is_some()),
        ("--ip6", flags.ip6.is_some()),
        ("--mac-address", flags.mac_address.is_some()),
        ("--network-alias", !flags.aliases.is_empty()),
    ]
}

fn apply_to_first(flags: &NetworkFlags, first: &mut NetworkAttachment) -> Result<(), ModeError> {
    let ip = flags.ip.map(|address| address.to_string());
    let ip6 = flags.ip6.map(|address| address.to_string());
    let values = [
        ("--ip", ip, &mut first.ipv4_address),
        ("--ip6", ip6, &mut first.ipv6_address),
        (
            "--mac-address",
            flags.mac_address.clone(),
            &mut first.mac_address,
        ),
    ];
    for (flag, given, slot) in values {
        if given.is_some() && slot.is_some() {
            return Err(ModeError::Both {
                flag,
                network: first.network.clone(),
            });
        }
        *slot = given.or(slot.take());
    }
    first.aliases.extend(flags.aliases.iter().cloned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(networks: &[&str]) -> NetworkFlags {
        let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
        NetworkFlags {
            networks,
            ..NetworkFlags::default()
        }
    }

    fn mode(flags: &NetworkFlags) -> Result<NetworkMode, ModeError> {
        let (names, ports) = (NameFlags::default(), PortFlags::default());
        network_mode(
            flags,
            Companions {
                hostname: false,
                names: &names,
                ports: &ports,
                sysctl: false,
            },
        )
    }

    fn on(network: &str) -> NetworkAttachment {
        NetworkAttachment {
            network: network.into(),
            ..NetworkAttachment::default()
        }
    }

    #[test]
    fn forms_mean_what_they_mean_in_docker() {
        assert_eq!(mode(&flags(&[])), Ok(NetworkMode::Own(vec![on("bridge")])));
        assert_eq!(
            mode(&flags(&["default"])),
            Ok(NetworkMode::Own(vec![on("bridge")]))
        );
        assert_eq!(
            mode(&flags(&["none"])),
            Ok(NetworkMode::Own(vec![on("none")]))
        );
        assert_eq!(mode(&flags(&["host"])), Ok(NetworkMode::Host(on("host"))));
        assert_eq!(
            mode(&flags(&["container:db"])),
            Ok(NetworkMode::Shared("db".into()))
        );
        assert_eq!(
            mode(&flags(&["b", "a"])),
            Ok(NetworkMode::Own(vec![on("b"), on("a")]))
        );
    }

    #[test]
    fn address_flags_belong_to_the_first_network() {
        let given = NetworkFlags {
            ip: Some([10, 0, 0, 9].into()),
            ip6: Some("2001:db8::9".parse().unwrap()),
            mac_address: Some("02:00:00:00:00:01".into()),
            aliases: vec!["x".into()],
            ..flags(&["name=a,alias=y", "b"])
        };
        let first = NetworkAttachment {
            ipv4_address: Some("10.0.0.9".into()),
            ipv6_address: Some("2001:db8::9".into()),
            mac_address: Some("02:00:00:00:00:01".into()),
            aliases: vec!["y".into(), "x".into()],
            ..on("a")
        };
        assert_eq!(mode(&given), Ok(NetworkMode::Own(vec![first, on("b")])));
    }

    #[test]
    fn contradictions_between_networks_are_refused() {
        let with_ip = |networks: &[&str]| NetworkFlags {
            ip: Some([10, 0, 0, 9].into()),
            ..flags(networks)
        };
        let alias = NetworkFlags {
            aliases: vec!["x".into()],
            ..flags(&["none"])
        };
        let cases = [
            (
                flags(&["container:db", "a"]),
                "--network container:db cannot be combined",
            ),
            (
                flags(&["a", "container:db"]),
                "--network container:db cannot be combined",
            ),
            (flags(&["none", "a"]), "--network none cannot be combined"),
            (flags(&["a", "host"]), "--network host cannot be combined"),
            (flags(&["a", "b", "a"]), "network a is given twice"),
            (
                with_ip(&["host"]),
                "--ip cannot be combined with --network host",
            ),
            (
                with_ip(&["none"]),
                "--ip cannot be combined with --network none",
            ),
            (
                with_ip(&["container:db"]),
                "--ip cannot be combined with --network container:db",
            ),
            (
                with_ip(&["name=a,ip=10.0.0.8"]),
                "--ip is given both as a flag and in --network a",
            ),
            (
                flags(&["name=host,ip=10.0.0.8"]),
                "ip cannot be combined with --network host",
            ),
            (
                alias,
                "--network-alias cannot be combined with --network none",
            ),
        ];
        for (given, expected) in cases {
            let message = mode(&given).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn who_shares_a_network_cannot_set_what_belongs_to_its_owner() {
        let dns = NameFlags {
            servers: vec!["9.9.9.9".parse().unwrap()],
            ..NameFlags::default()
        };
        let hosts = NameFlags {
            hosts: vec!["a:10.0.0.1".into()],
            ..NameFlags::default()
        };
        let (plain, no_ports) = (NameFlags::default(), PortFlags::default());
        let none = Companions {
            hostname: false,
            names: &plain,
            ports: &no_ports,
            sysctl: false,
        };
        let cases = [
            (
                Companions {
                    hostname: true,
                    ..none
                },
                "--hostname",
            ),
            (
                Companions {
                    names: &dns,
                    ..none
                },
                "--dns",
            ),
            (
                Companions {
                    names: &hosts,
                    ..none
                },
                "--add-host",
            ),
            (
                Companions {
                    sysctl: true,
                    ..none
                },
                "--sysctl",
            ),
        ];
        for (companions, expected) in cases {
            assert_eq!(shared_error(companions), expected);
        }
        let host = Companions {
            hostname: true,
            names: &dns,
            ports: &no_ports,
            sysctl: true,
        };
        assert_eq!(
            network_mode(&flags(&["host"]), host),
            Err(ModeError::HostSysctl)
        );
        let host = Companions {
            sysctl: false,
            ..host
        };
        assert!(matches!(
            network_mode(&flags(&["host"]), host),
            Ok(NetworkMode::Host(_))
        ));
    }

    #[test]
    fn each_flag_about_names_belongs_to_the_owner() {
        let ports = PortFlags::default();
        let (word, none) = (|| vec!["x".to_owned()], NameFlags::default);
        let cases = [
            (
                "--dns-search",
                NameFlags {
                    searches: word(),
                    ..none()
                },
            ),
            (
                "--dns-option",
                NameFlags {
                    options: word(),
                    ..none()
                },
            ),
        ];
        for (expected, names) in &cases {
            let companions = Companions {
                hostname: false,
                names,
                ports: &ports,
                sysctl: false,
            };
            assert_eq!(shared_error(companions), *expected);
            // A process without a network of its own may still have its own files.
            for mode in ["host", "none"] {
                assert!(network_mode(&flags(&[mode]), companions).is_ok(), "{mode}");
            }
        }
    }

    #[test]
    fn who_shares_a_network_has_no_ports_of_its_own() {
        use crate::translate::publish::{link, publication};
        let names = NameFlags::default();
        let cases = [
            (
                PortFlags {
                    publish: vec![publication("80").unwrap()],
                    ..PortFlags::default()
                },
                "--publish",
            ),
            (
                PortFlags {
                    publish_all: true,
                    ..PortFlags::default()
                },
                "--publish-all",
            ),
            (
                PortFlags {
                    expose: vec!["80/tcp".into()],
                    ..PortFlags::default()
                },
                "--expose",
            ),
            (
                PortFlags {
                    links: vec![link("db").unwrap()],
                    ..PortFlags::default()
                },
                "--link",
            ),
        ];
        for (ports, expected) in &cases {
            let companions = Companions {
                hostname: false,
                names: &names,
                ports,
                sysctl: false,
            };
            assert_eq!(shared_error(companions), *expected);
            // Whether a network takes ports is for the daemon to say.
            assert!(network_mode(&flags(&["none"]), companions).is_ok());
        }
    }

    /// The flag that cannot be combined with another's network.
    fn shared_error(companions: Companions<'_>) -> &'static str {
        match network_mode(&flags(&["container:db"]), companions) {
            Err(ModeError::Shared { flag, owner }) => {
                assert_eq!(owner, "db");
                flag
            }
            other => panic!("{other:?}"),
        }
    }
}
