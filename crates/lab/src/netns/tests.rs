use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Names of all links of the namespace in which the tests run.
fn own_links() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_host_is_another_namespace_and_leaves_nothing() {
    let before = own_links();
    let host = Host::new().unwrap();
    assert_ne!(
        fs::read_link("/proc/self/ns/net").unwrap(),
        fs::read_link(host.path()).unwrap()
    );
    host.run(["ip", "link", "add", "br9", "type", "bridge"])
        .unwrap();
    assert!(host.run(["ip", "-br", "link"]).unwrap().contains("br9"));
    assert_eq!(own_links(), before);
    let path = host.path();
    drop(host);
    assert!(!path.exists());
}

#[test]
fn a_failing_command_says_why() {
    let host = Host::new().unwrap();
    let error = host
        .run(["ip", "link", "show", "nowhere0"])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("ip link show nowhere0") && error.contains("does not exist"),
        "{error}"
    );
    assert!(!host.try_run(["false"]).unwrap().success);
}

#[test]
fn packets_flow_between_a_host_and_the_outside() {
    let host = Host::new().unwrap();
    let addresses = [
        (net("198.51.100.2/24"), net("198.51.100.1/24")),
        (net("2001:db8::2/64"), net("2001:db8::1/64")),
    ];
    let outside = host.outside("uplink0", &addresses).unwrap();
    for (here, there) in addresses {
        for (from, to) in [(&host, there), (&outside, here)] {
            let to = to.addr().to_string();
            from.run(["ping", "-c", "1", "-W", "2", to.as_str()])
                .unwrap();
        }
    }
    let route = host.run(["ip", "route", "get", "203.0.113.1"]).unwrap();
    assert!(route.contains("via 198.51.100.1 dev uplink0"), "{route}");
}

#[test]
fn what_was_started_in_a_host_ends_with_it() {
    let mut host = Host::new().unwrap();
    let mut command = host.command("sleep");
    command.arg("1000");
    let id = host.spawn(command).unwrap();
    let mut command = host.command("sleep");
    command.arg("1000");
    let other = host.spawn(command).unwrap();
    assert!(host.kill(other));
    assert!(!host.kill(other));
    assert!(Path::new(&format!("/proc/{id}")).exists());
    drop(host);
    assert!(!Path::new(&format!("/proc/{id}")).exists());
    assert!(!Path::new(&format!("/proc/{other}")).exists());
}
