//! One `--network` flag: `NAME`, `name=NET,ip=..`, `none`, `host` or `container:NAME`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use tombolo_api::NetworkAttachment;

/// Docker's name for the option by which an endpoint names its interface.
const IFNAME_OPTION: &str = "com.docker.network.endpoint.ifname";

/// What one `--network` flag asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkFlag {
    /// An endpoint on a network.
    Attach(Box<NetworkAttachment>),
    /// The network of another process.
    Container(String),
}

/// Why a `--network` flag cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkFlagError {
    /// There is nothing between `--network` and the next word.
    #[error("the network has no name")]
    NoName,
    /// `container:` names nobody.
    #[error("`container:` needs the name of the process whose network is shared")]
    NoContainer,
    /// A part is not `KEY=VALUE`.
    #[error("`{0}` is not KEY=VALUE")]
    NotPair(String),
    /// A key that does not exist.
    #[error(
        "unknown key `{0}`; known are name, ip, ip6, mac, alias, ifname, gw-priority, driver-opt"
    )]
    UnknownKey(String),
    /// A key that may be given once is given twice.
    #[error("`{0}` is given twice")]
    Twice(String),
    /// A value of the wrong form.
    #[error("`{value}` is not a valid {key}")]
    Value {
        /// The key.
        key: String,
        /// What was given.
        value: String,
    },
}

impl FromStr for NetworkFlag {
    type Err = NetworkFlagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(name) = text.strip_prefix("container:") {
            return if name.is_empty() {
                Err(NetworkFlagError::NoContainer)
            } else {
                Ok(Self::Container(name.to_owned()))
            };
        }
        let mut attachment = NetworkAttachment::default();
        if text.contains('=') {
            for part in text.split(',') {
                let pair = part.split_once('=');
                let Some((key, value)) = pair.filter(|(_, value)| !value.is_empty()) else {
                    return Err(NetworkFlagError::NotPair(part.to_owned()));
                };
                set(&mut attachment, &key.trim().to_lowercase(), value.trim())?;
            }
        } else {
            attachment.network = text.trim().to_owned();
        }
        if attachment.network.is_empty() {
            return Err(NetworkFlagError::NoName);
        }
        Ok(Self::Attach(Box::new(attachment)))
    }
}

fn set(attachment: &mut NetworkAttachment, key: &str, value: &str) -> Result<(), NetworkFlagError> {
    let text = value.to_owned();
    match key {
        "name" if attachment.network.is_empty() => attachment.network = text,
        "name" => return Err(NetworkFlagError::Twice(key.to_owned())),
        "ip" => put(
            &mut attachment.ipv4_address,
            key,
            parsed::<Ipv4Addr>(key, value)?,
        )?,
        "ip6" => put(
            &mut attachment.ipv6_address,
            key,
            parsed::<Ipv6Addr>(key, value)?,
        )?,
        "mac" | "mac-address" => put(&mut attachment.mac_address, key, text)?,
        "alias" => attachment.aliases.push(text),
        "ifname" => put(&mut attachment.interface_name, key, text)?,
        "gw-priority" => {
            let priority = value.parse().map_err(|_| wrong(key, value))?;
            put(&mut attachment.gateway_priority, key, priority)?;
        }
        "driver-opt" => match value.split_once('=') {
            Some((IFNAME_OPTION, name)) if !name.is_empty() => {
                put(&mut attachment.interface_name, key, name.to_owned())?;
            }
            _ => return Err(wrong(key, value)),
        },
        _ => return Err(NetworkFlagError::UnknownKey(key.to_owned())),
    }
    Ok(())
}

fn put<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), NetworkFlagError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(NetworkFlagError::Twice(key.to_owned())),
    }
}

fn parsed<T: FromStr + ToString>(key: &str, value: &str) -> Result<String, NetworkFlagError> {
    value
        .parse::<T>()
        .map(|address| address.to_string())
        .map_err(|_| wrong(key, value))
}

fn wrong(key: &str, value: &str) -> NetworkFlagError {
    NetworkFlagError::Value {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attach(text: &str) -> NetworkAttachment {
        match text.parse().unwrap() {
            NetworkFlag::Attach(attachment) => *attachment,
            NetworkFlag::Container(name) => panic!("{text} shares {name}"),
        }
    }

    #[test]
    fn short_forms_are_names() {
        for name in ["bridge", "none", "host", "my-net.1"] {
            let expected = NetworkAttachment {
                network: name.into(),
                ..NetworkAttachment::default()
            };
            assert_eq!(attach(name), expected);
        }
        assert_eq!(
            "container:web".parse(),
            Ok(NetworkFlag::Container("web".into()))
        );
    }

    #[test]
    fn the_long_form_sets_everything() {
        let found = attach(
            "name=blue,ip=10.0.0.9,ip6=2001:DB8::9,mac=02:00:00:00:00:09,alias=a,alias=b,\
             ifname=lan0,gw-priority=-3",
        );
        assert_eq!(
            found,
            NetworkAttachment {
                network: "blue".into(),
                ipv4_address: Some("10.0.0.9".into()),
                ipv6_address: Some("2001:db8::9".into()),
                mac_address: Some("02:00:00:00:00:09".into()),
                aliases: vec!["a".into(), "b".into()],
                interface_name: Some("lan0".into()),
                gateway_priority: Some(-3),
                ..NetworkAttachment::default()
            }
        );
        let docker = attach(
            "alias=x,name=blue,mac-address=02:00:00:00:00:01,\
             driver-opt=com.docker.network.endpoint.ifname=lan1",
        );
        assert_eq!(docker.interface_name.as_deref(), Some("lan1"));
        assert_eq!(docker.mac_address.as_deref(), Some("02:00:00:00:00:01"));
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("", "the network has no name"),
            ("container:", "`container:` needs the name"),
            ("ip=10.0.0.1", "the network has no name"),
            ("name=a,ip", "`ip` is not KEY=VALUE"),
            ("name=a,ip=", "`ip=` is not KEY=VALUE"),
            ("name=a,colour=red", "unknown key `colour`"),
            ("name=a,name=b", "`name` is given twice"),
            ("name=a,ip=10.0.0.1,ip=10.0.0.2", "`ip` is given twice"),
            ("name=a,ip=2001:db8::1", "`2001:db8::1` is not a valid ip"),
            ("name=a,ip6=10.0.0.1", "`10.0.0.1` is not a valid ip6"),
            (
                "name=a,gw-priority=high",
                "`high` is not a valid gw-priority",
            ),
            ("name=a,driver-opt=x=y", "`x=y` is not a valid driver-opt"),
        ];
        for (text, expected) in cases {
            let message = text.parse::<NetworkFlag>().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{text:?}: {message}");
        }
    }
}
