//! Somebody else removes one object, with the tools of an administrator.

use tombolo_kernel::Kernel;
use tombolo_netstate::object::nft::{ElementKey, ElementSpec, Field};
use tombolo_netstate::{Key, Netns, Objects, Spec};

use crate::host::run;

/// Removes an object of the kernel; `false` for one that cannot be removed, only changed.
pub(crate) fn remove(kernel: &Kernel, objects: &Objects, key: &Key) -> bool {
    let line = match (key, objects.get(key)) {
        // What is held for us cannot be taken, only be let go by who holds it.
        (Key::Sysctl(_) | Key::Port(_) | Key::Listener(_), _) | (_, None) => return false,
        (Key::Netns(key), _) => {
            let path = kernel.netns_path(&key.name);
            run(&["umount", &path.to_string_lossy()]);
            std::fs::remove_file(path).unwrap();
            return true;
        }
        (Key::NftBase, _) => "nft delete table inet tombolo".to_owned(),
        (Key::Link(at), _) => format!("ip link del dev {}", at.name),
        (Key::Address(at), Some(Spec::Address(spec))) => {
            format!(
                "ip address del {}/{} dev {}",
                at.ip, spec.prefix_len, at.link
            )
        }
        (Key::Neighbour(at), _) => format!("ip neighbour del {} dev {}", at.ip, at.link),
        (Key::Fdb(at), Some(Spec::Fdb(spec))) => {
            format!("bridge fdb del {} dev {} master static", at.mac, spec.port)
        }
        (Key::Route(at), Some(Spec::Route(_))) => {
            let family = if at.destination.addr().is_ipv6() {
                "-6"
            } else {
                "-4"
            };
            let metric = at.metric;
            format!("ip {family} route del {} metric {metric}", at.destination)
        }
        (Key::Element(at), Some(Spec::Element(spec))) => {
            let (set, element) = (at.set.as_str(), element(at, spec));
            run(&[
                "nft", "delete", "element", "inet", "tombolo", set, "{", &element, "}",
            ]);
            return true;
        }
        (key, Some(spec)) => panic!("{key} with the spec {spec}"),
    };
    let words: Vec<&str> = line.split(' ').collect();
    match inside(kernel, &key.netns()) {
        Some(option) => run(&[&["nsenter", &option, "--"], words.as_slice()].concat()),
        None => run(&words),
    }
    true
}

fn inside(kernel: &Kernel, netns: &Netns) -> Option<String> {
    let path = match netns {
        Netns::Host => return None,
        Netns::Owned(name) => kernel.netns_path(name),
        Netns::Adopted { path, .. } => path.to_path_buf(),
    };
    Some(format!("--net={}", path.display()))
}

fn element(key: &ElementKey, spec: &ElementSpec) -> String {
    let text = |field: &Field| match field {
        Field::Name(name) => format!("\"{name}\""),
        Field::Address(ip) => ip.to_string(),
        Field::Net(net) => net.to_string(),
        Field::Protocol(_) | Field::Port(_) | Field::Ports(_) => field.to_string(),
    };
    let join = |fields: &[Field]| fields.iter().map(text).collect::<Vec<_>>().join(" . ");
    match spec.data.as_ref() {
        [] => join(&key.fields),
        data => format!("{} : {}", join(&key.fields), join(data)),
    }
}
