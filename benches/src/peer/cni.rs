//! The CNI reference plugins, run as a CNI runtime runs a chain: one process after the other, each given the
//! result of the one before.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{Program, Wanted, run};

/// Environment variable with the directory of the plugins.
const VARIABLE: &str = "TOMBOLO_CNI";
/// Where Debian has them.
const DIRECTORY: &str = "/usr/lib/cni";
/// The chain, in the order of ADD, and the plugin that the first one starts.
const PLUGINS: [&str; 4] = ["bridge", "portmap", "firewall", "host-local"];

/// The chain bridge, portmap, firewall with addresses by host-local.
pub(crate) struct Cni {
    directory: PathBuf,
    chain: [Value; 3],
}

impl Cni {
    /// Finds the plugins; addresses in use will be noted in `directory`.
    pub(crate) fn find(directory: &Path) -> anyhow::Result<Self> {
        let plugins = std::env::var_os(VARIABLE).map_or_else(|| DIRECTORY.into(), PathBuf::from);
        if let Some(missing) = PLUGINS.iter().find(|name| !plugins.join(name).is_file()) {
            bail!(
                "no CNI plugin {missing} in {}: install Debian's containernetworking-plugins and iptables, \
                 or name a directory in {VARIABLE}",
                plugins.display()
            );
        }
        Ok(Self {
            directory: plugins,
            chain: chain(&directory.join("cni")),
        })
    }

    fn call(&self, verb: &str, plugin: &Value, wanted: &Wanted<'_>) -> anyhow::Result<Vec<u8>> {
        let name = plugin["type"].as_str().context("a plugin has a type")?;
        let mut command = Command::new(self.directory.join(name));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", format!("bench{}", wanted.number))
            .env("CNI_NETNS", wanted.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.directory);
        let output = run(&mut command, &plugin.to_string())?;
        Ok(output.stdout)
    }
}

impl Program for Cni {
    fn name(&self) -> &'static str {
        "CNI bridge, portmap, firewall"
    }

    fn attach(&mut self, wanted: &Wanted<'_>) -> anyhow::Result<Vec<IpAddr>> {
        let mut result = Value::Null;
        for plugin in &self.chain {
            let plugin = with_runtime(plugin, wanted, &result);
            result = serde_json::from_slice(&self.call("ADD", &plugin, wanted)?)?;
        }
        addresses(&result)
    }

    fn detach(&mut self, wanted: &Wanted<'_>) -> anyhow::Result<()> {
        for plugin in self.chain.iter().rev() {
            let plugin = with_runtime(plugin, wanted, &Value::Null);
            self.call("DEL", &plugin, wanted)?;
        }
        Ok(())
    }
}

fn chain(addresses: &Path) -> [Value; 3] {
    let range = |subnet: &str| json!([{ "subnet": subnet }]);
    let common = |kind: &str| json!({ "cniVersion": "1.0.0", "name": "bench", "type": kind });
    let mut bridge = common("bridge");
    bridge["bridge"] = "cni0".into();
    for on in ["isGateway", "ipMasq", "hairpinMode"] {
        bridge[on] = true.into();
    }
    bridge["ipam"] = json!({
        "type": "host-local",
        "dataDir": addresses,
        "ranges": [range("10.90.0.0/16"), range("fd90::/64")],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
    });
    let mut firewall = common("firewall");
    firewall["backend"] = "iptables".into();
    [bridge, common("portmap"), firewall]
}

/// A plugin's configuration as a runtime completes it.
fn with_runtime(plugin: &Value, wanted: &Wanted<'_>, result: &Value) -> Value {
    let mut plugin = plugin.clone();
    if plugin["type"] == "portmap" {
        let ports = wanted.ports.iter().map(
            |(host, inside)| json!({ "hostPort": host, "containerPort": inside, "protocol": "tcp" }),
        );
        plugin["runtimeConfig"] = json!({ "portMappings": ports.collect::<Vec<Value>>() });
    }
    if !result.is_null() {
        plugin["prevResult"] = result.clone();
    }
    plugin
}

fn addresses(result: &Value) -> anyhow::Result<Vec<IpAddr>> {
    let ips = result["ips"].as_array().context("the result has no ips")?;
    ips.iter()
        .map(|ip| {
            let text = ip["address"].as_str().unwrap_or_default();
            let address = text.split('/').next().unwrap_or_default();
            address
                .parse()
                .with_context(|| format!("`{text}` is no address"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_to_portmap_and_results_to_who_comes_next() {
        let wanted = Wanted {
            number: 3,
            netns: Path::new("/x"),
            ports: &[(8_080, 80)],
        };
        let [bridge, portmap, firewall] = chain(Path::new("/y"));
        let result = json!({ "ips": [{ "address": "10.90.0.2/16" }, { "address": "fd90::2/64" }] });
        assert!(with_runtime(&bridge, &wanted, &Value::Null)["prevResult"].is_null());
        let portmap = with_runtime(&portmap, &wanted, &result);
        assert_eq!(
            portmap["runtimeConfig"]["portMappings"][0]["hostPort"],
            8_080
        );
        assert_eq!(portmap["prevResult"], result);
        assert!(with_runtime(&firewall, &wanted, &result)["runtimeConfig"].is_null());
        let found = addresses(&result).unwrap();
        assert_eq!(found[1], "fd90::2".parse::<IpAddr>().unwrap());
        assert!(addresses(&json!({ "ips": [{}] })).is_err());
    }
}
