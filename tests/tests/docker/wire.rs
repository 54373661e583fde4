//! Calls that no good engine makes: each gets the protocol's error and leaves nothing.

use tombolo_tests::Stage;

use crate::scene::FLAGS;

/// Method, body (with ids in place of `NNN` and `EEE`), and a word of the refusal.
const MALFORMED: &[(&str, &str, &str)] = &[
    ("NetworkDriver.Nonsense", "{}", "Nonsense"),
    ("NetworkDriver.CreateNetwork", "{", "protocol"),
    ("NetworkDriver.CreateNetwork", "[]", "protocol"),
    ("NetworkDriver.CreateNetwork", "{}", "id"),
    (
        "NetworkDriver.CreateNetwork",
        r#"{"NetworkID":7,"x":"NNN"}"#,
        "protocol",
    ),
    (
        "NetworkDriver.CreateNetwork",
        r#"{"NetworkID":"NNN","IPv4Data":[{"Pool":"10.9.0.0/99"}]}"#,
        "10.9.0.0/99",
    ),
    (
        "NetworkDriver.CreateNetwork",
        r#"{"NetworkID":"NNN","Options":{"com.docker.network.generic":{"colour":"red"}},"IPv4Data":[]}"#,
        "colour",
    ),
    (
        "NetworkDriver.CreateEndpoint",
        r#"{"NetworkID":"NNN","EndpointID":"EEE","Interface":{}}"#,
        "network",
    ),
    (
        "NetworkDriver.Join",
        r#"{"NetworkID":"NNN","EndpointID":"EEE","SandboxKey":"/x"}"#,
        "endpoint",
    ),
    (
        "NetworkDriver.ProgramExternalConnectivity",
        r#"{"NetworkID":"NNN","EndpointID":"EEE","Options":{}}"#,
        "endpoint",
    ),
    (
        "IpamDriver.RequestPool",
        r#"{"AddressSpace":"tombolo-local","Pool":"10.9.0.0/24","V6":true}"#,
        "IPv6",
    ),
    (
        "IpamDriver.RequestPool",
        r#"{"AddressSpace":"tombolo-local","Options":{"colour":"red"}}"#,
        "colour",
    ),
    ("IpamDriver.RequestPool", "", "empty"),
    ("IpamDriver.RequestPool", "{}", "address space"),
    ("IpamDriver.RequestPool", "null", "address space"),
    (
        "IpamDriver.RequestPool",
        r#"{"AddressSpace":"x","Pool":"10.9.0.0/24"}"#,
        "address space",
    ),
    ("NetworkDriver.Join", "", "empty"),
    (
        "IpamDriver.RequestAddress",
        r#"{"PoolID":"nowhere"}"#,
        "nowhere",
    ),
    (
        "IpamDriver.RequestAddress",
        r#"{"PoolID":"10.9.0.0/24"}"#,
        "10.9.0.0/24",
    ),
];

/// The answer to a call: its status and body.
#[track_caller]
fn call(stage: &Stage, method: &str, body: &str) -> (u16, String) {
    stage.shell(&format!("cat >/run/body <<'EOF'\n{body}\nEOF"));
    if body.is_empty() {
        stage.shell(": >/run/body");
    }
    let told = stage.shell(&format!(
        "curl --silent --max-time 25 --write-out '\\n%{{http_code}}' --data-binary @/run/body \
         --unix-socket /run/docker/plugins/tombolo.sock http://x/{method}"
    ));
    let (body, status) = told.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

#[track_caller]
fn ok(stage: &Stage, method: &str, body: &str) -> String {
    let (status, answer) = call(stage, method, body);
    assert_eq!(status, 200, "{method} {body}: {answer}");
    answer
}

#[track_caller]
fn refused(stage: &Stage, method: &str, body: &str, word: &str) {
    let (status, answer) = call(stage, method, body);
    assert!((400..600).contains(&status), "{method} {body}: {answer}");
    for key in ["\"Err\":", "\"Error\":"] {
        assert!(answer.contains(key), "{method} {body}: {answer}");
    }
    assert!(
        answer.contains(word),
        "{method} {body}: no {word} in {answer}"
    );
}

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

#[test]
fn what_is_malformed_or_out_of_order_leaves_nothing() {
    let Some(stage) = Stage::start_with(FLAGS) else {
        return;
    };
    let before = stage.traces().unwrap();
    let activated = ok(&stage, "Plugin.Activate", "");
    assert!(activated.contains("NetworkDriver") && activated.contains("IpamDriver"));
    ok(&stage, "NetworkDriver.GetCapabilities", "");
    ok(&stage, "IpamDriver.GetDefaultAddressSpaces", "null");
    let (n, e) = (id('a'), id('b'));
    for (method, body, word) in MALFORMED {
        let body = body.replace("NNN", &n).replace("EEE", &e);
        refused(&stage, method, &body, word);
    }
    // A body of four megabytes is read, and one byte more is not.
    for (bytes, word) in [(4 << 20, "id"), ((4 << 20) + 1, "body")] {
        let told = stage.shell(&format!(
            "{{ printf '{{}}'; head -c {} /dev/zero | tr '\\0' ' '; }} >/run/body; curl --silent --max-time 25 \
             --data-binary @/run/body --unix-socket /run/docker/plugins/tombolo.sock \
             http://x/NetworkDriver.CreateNetwork",
            bytes - 2
        ));
        assert!(told.contains("\"Err\":") && told.contains(word), "{told}");
    }
    // What is not there is removed.
    for method in [
        "NetworkDriver.DeleteNetwork",
        "NetworkDriver.DeleteEndpoint",
        "NetworkDriver.Leave",
        "NetworkDriver.RevokeExternalConnectivity",
    ] {
        ok(
            &stage,
            method,
            &format!(r#"{{"NetworkID":"{n}","EndpointID":"{e}"}}"#),
        );
    }
    ok(
        &stage,
        "IpamDriver.ReleasePool",
        r#"{"PoolID":"10.9.0.0/24"}"#,
    );
    ok(
        &stage,
        "IpamDriver.ReleaseAddress",
        r#"{"PoolID":"10.9.0.0/24","Address":"10.9.0.7"}"#,
    );
    stage.assert_traces(&before);
}

/// A network with a lent pool and router, each step asked for twice.
fn make_network(stage: &Stage, n: &str) -> String {
    assert_eq!(
        ok(stage, "IpamDriver.RequestPool", POOL),
        ok(stage, "IpamDriver.RequestPool", POOL)
    );
    let gateway = r#"{"PoolID":"10.9.0.0/24","Address":"10.9.0.1","Options":{"RequestAddressType":"com.docker.network.gateway"}}"#;
    assert_eq!(
        ok(stage, "IpamDriver.RequestAddress", gateway),
        ok(stage, "IpamDriver.RequestAddress", gateway)
    );
    let network = format!(
        r#"{{"NetworkID":"{n}","IPv4Data":[{{"Pool":"10.9.0.0/24","Gateway":"10.9.0.1/24","AddressSpace":"tombolo-local"}}],"IPv6Data":null,"Options":null}}"#
    );
    for _ in 0..2 {
        ok(stage, "NetworkDriver.CreateNetwork", &network);
    }
    refused(stage, "IpamDriver.RequestPool", POOL, "10.9.0.0/24");
    network
}

const POOL: &str = r#"{"AddressSpace":"tombolo-local","Pool":"10.9.0.0/24"}"#;

/// An endpoint with a lent address that is joined and publishes a port, each step asked for twice, with refusals
/// of what contradicts it.
fn make_endpoint(stage: &Stage, n: &str, e: &str) {
    let other = id('c');
    let address = ok(
        stage,
        "IpamDriver.RequestAddress",
        r#"{"PoolID":"10.9.0.0/24","Address":"10.9.0.9"}"#,
    );
    assert!(address.contains("10.9.0.9/32"), "{address}");
    let endpoint = format!(
        r#"{{"NetworkID":"{n}","EndpointID":"{e}","Interface":{{"Address":"10.9.0.9/32"}}}}"#
    );
    let made = ok(stage, "NetworkDriver.CreateEndpoint", &endpoint);
    assert_eq!(made, ok(stage, "NetworkDriver.CreateEndpoint", &endpoint));
    let another = endpoint.replace("10.9.0.9", "10.9.0.10");
    refused(stage, "NetworkDriver.CreateEndpoint", &another, "another");
    let thief = endpoint.replace(e, &other);
    refused(stage, "NetworkDriver.CreateEndpoint", &thief, "10.9.0.9");
    let join = format!(
        r#"{{"NetworkID":"{n}","EndpointID":"{e}","SandboxKey":"/run/docker/netns/none","Options":{{"com.docker.network.portmap":[{{"Proto":6,"Port":80,"HostPort":8080,"HostPortEnd":8080}}]}}}}"#
    );
    let joined = ok(stage, "NetworkDriver.Join", &join);
    assert_eq!(joined, ok(stage, "NetworkDriver.Join", &join));
    assert!(joined.contains("\"SrcName\":\"tp"), "{joined}");
    let elsewhere = join.replace("netns/none", "netns/other");
    refused(stage, "NetworkDriver.Join", &elsewhere, "joined");
    let wrong = join.replace("\"Proto\":6", "\"Proto\":7");
    refused(
        stage,
        "NetworkDriver.ProgramExternalConnectivity",
        &wrong,
        "7",
    );
    for _ in 0..2 {
        ok(stage, "NetworkDriver.ProgramExternalConnectivity", &join);
    }
    refused(
        stage,
        "NetworkDriver.DeleteNetwork",
        &format!(r#"{{"NetworkID":"{n}"}}"#),
        "endpoint",
    );
}

#[test]
fn everything_may_be_asked_twice() {
    let Some(stage) = Stage::start_with(FLAGS) else {
        return;
    };
    let before = stage.traces().unwrap();
    let (n, e) = (id('a'), id('b'));
    let network = make_network(&stage, &n);
    make_endpoint(&stage, &n, &e);
    let both = format!(r#"{{"NetworkID":"{n}","EndpointID":"{e}"}}"#);
    for method in ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"] {
        for _ in 0..2 {
            ok(&stage, &format!("NetworkDriver.{method}"), &both);
        }
    }
    for _ in 0..2 {
        ok(
            &stage,
            "IpamDriver.ReleaseAddress",
            r#"{"PoolID":"10.9.0.0/24","Address":"10.9.0.9"}"#,
        );
        ok(
            &stage,
            "IpamDriver.ReleaseAddress",
            r#"{"PoolID":"10.9.0.0/24","Address":"10.9.0.1"}"#,
        );
        ok(
            &stage,
            "IpamDriver.ReleasePool",
            r#"{"PoolID":"10.9.0.0/24"}"#,
        );
        ok(
            &stage,
            "NetworkDriver.DeleteNetwork",
            &format!(r#"{{"NetworkID":"{n}"}}"#),
        );
    }
    stage.assert_traces(&before);
    // An id that was used before means something new.
    ok(&stage, "IpamDriver.RequestPool", POOL);
    ok(&stage, "NetworkDriver.CreateNetwork", &network);
    ok(
        &stage,
        "NetworkDriver.DeleteNetwork",
        &format!(r#"{{"NetworkID":"{n}"}}"#),
    );
    ok(
        &stage,
        "IpamDriver.ReleasePool",
        r#"{"PoolID":"10.9.0.0/24"}"#,
    );
}

#[test]
fn a_pool_is_compared_with_the_routes_of_now() {
    let Some(stage) = Stage::start_with(FLAGS) else {
        return;
    };
    let asked = |subnet: &str| POOL.replace("10.9.0.0/24", subnet);
    for number in 0..10 {
        let subnet = format!("10.77.{number}.0/24");
        stage.shell("ip link show way >/dev/null 2>&1 || ip link add way up type bridge");
        stage.shell(&format!("ip route add {subnet} dev way"));
        refused(&stage, "IpamDriver.RequestPool", &asked(&subnet), &subnet);
        stage.shell(&format!("ip route del {subnet}"));
        ok(&stage, "IpamDriver.RequestPool", &asked(&subnet));
    }
}

/// What an engine of 28 and later does between its calls: the namespace is there before the first of them.
const ENGINE: &str = "ip netns add box && mkdir -p /run/docker/netns && touch /run/docker/netns/box \
                      && mount --bind /run/netns/box /run/docker/netns/box";

/// A text of an answer.
#[track_caller]
fn value_of(answer: &str, key: &str) -> String {
    let begin = format!("\"{key}\":\"");
    let rest = answer.split_once(&begin).map(|(_, rest)| rest);
    let value = rest.and_then(|rest| Some(rest.split_once('"')?.0));
    value
        .unwrap_or_else(|| panic!("no {key}: {answer}"))
        .to_owned()
}

/// An endpoint as these engines join it, and its interface in its namespace.
fn join_as_28(stage: &Stage, n: &str, e: &str) {
    let both = format!(r#"{{"NetworkID":"{n}","EndpointID":"{e}"}}"#);
    refused(stage, "NetworkDriver.EndpointOperInfo", &both, "endpoint");
    let named = r#"{"PoolID":"10.9.0.0/24","Options":{"com.docker.network.endpoint.name":"db"}}"#;
    let address = ok(stage, "IpamDriver.RequestAddress", named);
    assert!(address.contains("10.9.0.2/32"), "{address}");
    let endpoint = format!(
        r#"{{"NetworkID":"{n}","EndpointID":"{e}","Interface":{{"Address":"10.9.0.2/32","AddressIPv6":"","MacAddress":""}},"Options":{{"com.docker.network.endpoint.exposedports":[{{"Proto":6,"Port":80}}]}}}}"#
    );
    let made = ok(stage, "NetworkDriver.CreateEndpoint", &endpoint);
    let mac = value_of(&made, "MacAddress");
    let told = ok(stage, "NetworkDriver.EndpointOperInfo", &both);
    assert!(told.contains(&mac), "{told}");
    let join = format!(
        r#"{{"NetworkID":"{n}","EndpointID":"{e}","SandboxKey":"/run/docker/netns/box","Options":{{}}}}"#
    );
    let joined = ok(stage, "NetworkDriver.Join", &join);
    assert_eq!(joined, ok(stage, "NetworkDriver.Join", &join));
    let link = value_of(&joined, "SrcName");
    let inside = "ip -netns box";
    stage.shell(&format!(
        "ip link set {link} netns box && {inside} link set {link} name eth0 address {mac} up \
         && {inside} address add 10.9.0.2/32 dev eth0 && {inside} route add 10.9.0.1 dev eth0 \
         && {inside} route add default via 10.9.0.1"
    ));
    // Again, now that nothing of it is left on the host.
    assert_eq!(joined, ok(stage, "NetworkDriver.Join", &join));
    ok(stage, "NetworkDriver.ProgramExternalConnectivity", &join);
    stage.shell("ip netns exec box ping -c 1 -W 5 10.9.0.1");
    ok(stage, "NetworkDriver.EndpointOperInfo", &both);
    for method in ["RevokeExternalConnectivity", "Leave"] {
        ok(stage, &format!("NetworkDriver.{method}"), &both);
    }
    stage.shell(&format!(
        "{inside} link set eth0 down && {inside} link set eth0 name {link} && {inside} link set {link} netns $$"
    ));
    ok(stage, "NetworkDriver.DeleteEndpoint", &both);
}

#[test]
fn the_calls_of_engines_from_28_on_come_in_another_order() {
    let Some(stage) = Stage::start_with(FLAGS) else {
        return;
    };
    stage.shell(ENGINE);
    let before = stage.traces().unwrap();
    let (n, e) = (id('a'), id('b'));
    let generic = |options: &str| {
        format!(
            r#"{{"Options":{{"com.docker.network.generic":{{{options}}},"com.docker.network.enable_ipv4":true,"com.docker.network.enable_ipv6":false}}}}"#
        )
    };
    let with = ok(&stage, "NetworkDriver.GwAllocCheck", &generic(""));
    assert!(with.contains("\"SkipIPv4\":false"), "{with}");
    let isolated = generic(r#""com.docker.network.bridge.gateway_mode_ipv4":"isolated""#);
    let without = ok(&stage, "NetworkDriver.GwAllocCheck", &isolated);
    assert!(without.contains("\"SkipIPv4\":true"), "{without}");
    ok(&stage, "IpamDriver.GetDefaultAddressSpaces", "");
    make_network(&stage, &n);
    join_as_28(&stage, &n, &e);
    for address in ["10.9.0.2", "10.9.0.1"] {
        let body = format!(r#"{{"PoolID":"10.9.0.0/24","Address":"{address}"}}"#);
        ok(&stage, "IpamDriver.ReleaseAddress", &body);
    }
    ok(
        &stage,
        "IpamDriver.ReleasePool",
        r#"{"PoolID":"10.9.0.0/24"}"#,
    );
    let network = format!(r#"{{"NetworkID":"{n}"}}"#);
    ok(&stage, "NetworkDriver.DeleteNetwork", &network);
    // What only a cluster has.
    let allocate = format!(r#"{{"NetworkID":"{n}","Options":null,"IPv4Data":[],"IPv6Data":[]}}"#);
    ok(&stage, "NetworkDriver.AllocateNetwork", &allocate);
    ok(&stage, "NetworkDriver.FreeNetwork", &network);
    let node = r#"{"DiscoveryType":1,"DiscoveryData":{"Address":"192.0.2.1","BindAddress":"192.0.2.1","self":true}}"#;
    for method in ["DiscoverNew", "DiscoverDelete"] {
        ok(&stage, &format!("NetworkDriver.{method}"), node);
    }
    stage.assert_traces(&before);
}

#[test]
fn an_isolated_network_can_be_had_with_the_router_that_older_engines_ask_for() {
    let Some(stage) = Stage::start_with(FLAGS) else {
        return;
    };
    ok(&stage, "IpamDriver.RequestPool", POOL);
    let gateway =
        r#"{"PoolID":"10.9.0.0/24","Options":{"RequestAddressType":"com.docker.network.gateway"}}"#;
    ok(&stage, "IpamDriver.RequestAddress", gateway);
    let n = id('a');
    let network = format!(
        r#"{{"NetworkID":"{n}","IPv4Data":[{{"Pool":"10.9.0.0/24","Gateway":"10.9.0.1/24","AddressSpace":"tombolo-local"}}],"Options":{{"com.docker.network.internal":true,"com.docker.network.generic":{{"com.docker.network.bridge.gateway_mode_ipv4":"isolated"}}}}}}"#
    );
    ok(&stage, "NetworkDriver.CreateNetwork", &network);
    let addresses = stage.shell("ip -4 -o address");
    assert!(!addresses.contains("10.9.0.1"), "{addresses}");
}
