//! Published ports, exposed ports and links, as they are stored with their sandbox.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tombolo_netstate::object::port::{HostAddress, PortRange, Protocol};

use crate::id::Name;

/// Ports of a sandbox that are reached through the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The protocol.
    #[serde(with = "text")]
    pub protocol: Protocol,
    /// Addresses of the host; `None` follows the network.
    #[serde(with = "optional", default)]
    pub address: Option<HostAddress>,
    /// Ports of the host, one for each port of the sandbox; `None` only until they are chosen.
    #[serde(with = "optional", default)]
    pub ports: Option<PortRange>,
    /// The host's ports were not named but chosen.
    pub automatic: bool,
    /// Where they are chosen from, if that was named.
    #[serde(with = "optional", default)]
    pub within: Option<PortRange>,
    /// Ports of the sandbox.
    #[serde(with = "text")]
    pub container: PortRange,
    /// Who may reach them; empty is everybody.
    #[serde(default)]
    pub from: Vec<IpNet>,
    /// A Unix socket of the host that leads to the port, instead of addresses and ports.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Whether the host's own firewall decides about them; `None` follows the network.
    #[serde(default)]
    pub obey_host_firewall: Option<bool>,
    /// An engine asked for it, which takes it back.
    #[serde(default)]
    pub by_engine: bool,
}

/// Ports that a sandbox says it serves, published or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Exposed {
    /// The protocol.
    #[serde(with = "text")]
    pub protocol: Protocol,
    /// The ports.
    #[serde(with = "text")]
    pub ports: PortRange,
}

/// A sandbox that another one may reach and knows by a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The other sandbox, by name: whichever has it at the time.
    pub sandbox: Name,
    /// The name by which it is known.
    pub alias: String,
}

impl Publication {
    /// How many ports of the host it takes.
    pub fn count(&self) -> u32 {
        self.container.count()
    }

    /// Whether two publications are the same apart from who may use them.
    pub fn is_same_place(&self, other: &Self) -> bool {
        let place = |p: &Self| {
            (
                p.protocol,
                p.address,
                if p.automatic { None } else { p.ports },
                p.within,
                p.container,
                p.socket.clone(),
            )
        };
        place(self) == place(other)
    }
}

mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer, T: Display>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(super) fn deserialize<'de, D, T>(d: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: Display>,
    {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Optional values as text.
pub(crate) mod optional {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer, T: Display>(
        value: &Option<T>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => s.collect_str(value),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: Display>,
    {
        Option::<String>::deserialize(d)?
            .map(|text| text.parse().map_err(serde::de::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let publication = Publication {
            protocol: Protocol::Udp,
            address: Some(HostAddress::One("2001:db8::1".parse().unwrap())),
            ports: Some(PortRange::new(8000, 8010).unwrap()),
            automatic: false,
            within: None,
            container: PortRange::new(80, 90).unwrap(),
            from: vec!["10.0.0.0/8".parse().unwrap()],
            socket: None,
            obey_host_firewall: Some(true),
            by_engine: false,
        };
        let text = serde_json::to_string(&publication).unwrap();
        assert_eq!(
            serde_json::from_str::<Publication>(&text).unwrap(),
            publication
        );
    }
}
