//! netavark, run as Podman runs it: one document on standard input for each container.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::{Value, json};

use super::{Program, Wanted, installed, run};

/// Environment variable with the path of the program.
const VARIABLE: &str = "TOMBOLO_NETAVARK";
/// The version that is compared with.
const VERSION: &str = "2.1.0";
/// The id of the network.
const NETWORK: &str = "6e657461766172006e657461766172006e657461766172006e65746176617200";

/// netavark with its nftables driver.
pub(crate) struct Netavark {
    program: PathBuf,
    state: PathBuf,
}

impl Netavark {
    /// Finds the program; its state will be in `directory`.
    pub(crate) fn find(directory: &Path) -> anyhow::Result<Self> {
        let program = match std::env::var_os(VARIABLE) {
            Some(path) => PathBuf::from(path),
            None => installed("netavark").with_context(|| {
                format!(
                    "no netavark: install it with `cargo install netavark --version {VERSION} --locked` \
                     (which needs Debian's protobuf-compiler), or name one in {VARIABLE}"
                )
            })?,
        };
        let output = run(Command::new(&program).arg("--version"), "")?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !said.trim().ends_with(VERSION) {
            anyhow::bail!("{} is {}, not {VERSION}", program.display(), said.trim());
        }
        Ok(Self {
            program,
            state: directory.join("netavark"),
        })
    }

    fn command(&self, verb: &str, netns: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--firewall-driver", "nftables", "--config"])
            .arg(&self.state)
            .arg(verb)
            .arg(netns);
        // What is not a matter of this host: neither its firewalld nor settings of the person who measures.
        command
            .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
            .env_remove("NETAVARK_FW")
            .env_remove("RUST_LOG");
        command
    }
}

impl Program for Netavark {
    fn name(&self) -> &'static str {
        "netavark 2.1.0"
    }

    fn attach(&mut self, wanted: &Wanted<'_>) -> anyhow::Result<Vec<IpAddr>> {
        let input = request(wanted).to_string();
        run(&mut self.command("setup", wanted.netns), &input)?;
        Ok(addresses(wanted.number).to_vec())
    }

    fn detach(&mut self, wanted: &Wanted<'_>) -> anyhow::Result<()> {
        let input = request(wanted).to_string();
        run(&mut self.command("teardown", wanted.netns), &input)?;
        Ok(())
    }
}

fn addresses(number: u32) -> [IpAddr; 2] {
    let host = number + 2;
    let v6 = u128::from(Ipv6Addr::new(0xfd89, 0, 0, 0, 0, 0, 0, 0)) + u128::from(host);
    [
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 89, 0, 0)) + host).into(),
        Ipv6Addr::from(v6).into(),
    ]
}

fn request(wanted: &Wanted<'_>) -> Value {
    let ports = wanted.ports.iter().map(|(host, inside)| {
        json!({
            "host_ip": "", "host_port": host, "container_port": inside,
            "protocol": "tcp", "range": 1,
        })
    });
    let name = format!("c{}", wanted.number);
    json!({
        "container_id": format!("{:064x}", wanted.number + 1),
        "container_name": name,
        "port_mappings": ports.collect::<Vec<Value>>(),
        "networks": [{
            "name": "bench",
            "interface_name": "eth0",
            "static_ips": addresses(wanted.number),
        }],
        "network_info": { "bench": {
            "name": "bench",
            "id": NETWORK,
            "driver": "bridge",
            "network_interface": "netavark0",
            "subnets": [
                { "subnet": "10.89.0.0/16", "gateway": "10.89.0.1" },
                { "subnet": "fd89::/64", "gateway": "fd89::1" },
            ],
            "ipv6_enabled": true,
            "internal": false,
            "dns_enabled": false,
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_every_port_and_both_addresses() {
        let wanted = Wanted {
            number: 254,
            netns: Path::new("/x"),
            ports: &[(8_080, 80), (8_443, 443)],
        };
        let request = request(&wanted);
        assert_eq!(
            request["networks"][0]["static_ips"],
            json!(["10.89.1.0", "fd89::100"])
        );
        assert_eq!(request["port_mappings"].as_array().unwrap().len(), 2);
        assert_eq!(request["port_mappings"][1]["container_port"], 443);
    }
}
