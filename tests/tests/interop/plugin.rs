//! The plugin of other people that stands in for theirs does what the protocol says, and misbehaves when told.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tombolo_tests::Stage;
use tombolo_tests::peers::{Dockerd, Plugin};

/// Status and text of the answer to a call; none when there is no answer.
fn call(stage: &Stage, plugin: &Plugin, method: &str, request: &Value) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(stage.path(plugin.socket())).unwrap();
    let body = request.to_string();
    let length = body.len();
    let head = format!(
        "POST /{method} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream
        .write_all(&[head, body].concat().into_bytes())
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Some((status, body.to_owned()))
}

/// The answer to a call that is answered in JSON.
#[track_caller]
fn ok(stage: &Stage, plugin: &Plugin, method: &str, request: Value) -> Value {
    let (status, text) = call(stage, plugin, method, &request).unwrap();
    assert_eq!(status, 200, "{method}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn network(gateway: &str) -> Value {
    let options = json!({"prefix": "lan", "routes": "10.50.0.0/16@10.99.0.9,10.51.0.0/16"});
    json!({
        "NetworkID": "0123456789abcdef",
        "Options": {"com.docker.network.generic": options},
        "IPv4Data": [{"AddressSpace": "peer-local", "Pool": "10.99.0.0/24", "Gateway": gateway}],
        "IPv6Data": [{"Pool": "fd99::/64", "Gateway": "fd99::1/64"}],
    })
}

#[test]
fn the_peer_hands_out_addresses_once() {
    let Some(stage) = Stage::bare() else {
        return;
    };
    let Some(plugin) = Plugin::start(&stage, "peer") else {
        return;
    };
    let ask = |method: &str, request: Value| ok(&stage, &plugin, method, request);
    let implements = ask("Plugin.Activate", Value::Null);
    assert_eq!(
        implements["Implements"],
        json!(["NetworkDriver", "IpamDriver"])
    );
    let pool = ask(
        "IpamDriver.RequestPool",
        json!({"AddressSpace": "peer-local", "Pool": "", "V6": false}),
    );
    assert_eq!(pool["Pool"], "10.99.0.0/24");
    let id = &pool["PoolID"];
    let type_of = json!({"RequestAddressType": "com.docker.network.gateway"});
    let gateway = ask(
        "IpamDriver.RequestAddress",
        json!({"PoolID": id, "Address": "", "Options": type_of}),
    );
    assert_eq!(gateway["Address"], "10.99.0.1/24");
    let taken = ask(
        "IpamDriver.RequestAddress",
        json!({"PoolID": id, "Address": "10.99.0.1"}),
    );
    assert_eq!(taken, json!({"Error": "10.99.0.1 is taken"}));
    let next = json!({"PoolID": id, "Address": ""});
    let first = ask("IpamDriver.RequestAddress", next.clone());
    assert_eq!(first["Address"], "10.99.0.2/24");
    let release = json!({"PoolID": id, "Address": "10.99.0.2"});
    assert_eq!(ask("IpamDriver.ReleaseAddress", release), json!({}));
    assert_eq!(ask("IpamDriver.RequestAddress", next), first);
    let asked = json!({"AddressSpace": "peer-local", "Pool": "10.99.0.0/16", "V6": false});
    let overlap = ask("IpamDriver.RequestPool", asked);
    assert_eq!(
        overlap,
        json!({"Error": "pool 10.99.0.0/16 overlaps another"})
    );
    let other = json!({"AddressSpace": "peer-local", "Pool": "", "V6": true});
    assert_eq!(ask("IpamDriver.RequestPool", other)["Pool"], "fd99::/64");
    let pool = json!({"PoolID": id});
    assert_eq!(ask("IpamDriver.ReleasePool", pool), json!({}));
}

#[test]
fn the_peer_makes_a_network_and_takes_it_away() {
    let Some(stage) = Stage::bare() else {
        return;
    };
    let Some(plugin) = Plugin::start(&stage, "peer") else {
        return;
    };
    let before = stage.shell("ls /sys/class/net");
    let ask = |method: &str, request: Value| ok(&stage, &plugin, method, request);
    assert_eq!(
        ask("NetworkDriver.CreateNetwork", network("10.99.0.1/24")),
        json!({})
    );
    let addresses = stage.shell("ip -o address show dev pb-0123456789a");
    assert!(
        addresses.contains("10.99.0.1/24") && addresses.contains("fd99::1/64"),
        "{addresses}"
    );
    let place = json!({"NetworkID": "0123456789abcdef", "EndpointID": "fedcba9876543210"});
    let mut create = place.clone();
    create["Interface"] = json!({"Address": "10.99.0.2/24", "AddressIPv6": "", "MacAddress": ""});
    let made = ask("NetworkDriver.CreateEndpoint", create);
    let mac = made["Interface"]["MacAddress"].as_str().unwrap();
    let link = stage.shell("ip -o link show vp-fedcba98765; bridge link show");
    assert!(
        link.contains(mac) && link.contains("master pb-0123456789a"),
        "{link}"
    );
    let joined = ask("NetworkDriver.Join", place.clone());
    assert_eq!(
        joined["InterfaceName"],
        json!({"SrcName": "vp-fedcba98765", "DstPrefix": "lan"})
    );
    assert_eq!(
        (&joined["Gateway"], &joined["GatewayIPv6"]),
        (&json!("10.99.0.1"), &json!("fd99::1"))
    );
    let hop = json!({"Destination": "10.50.0.0/16", "RouteType": 0, "NextHop": "10.99.0.9"});
    let direct = json!({"Destination": "10.51.0.0/16", "RouteType": 1});
    assert_eq!(joined["StaticRoutes"], json!([hop, direct]));

    for method in ["Leave", "DeleteEndpoint", "DeleteNetwork"] {
        assert_eq!(
            ask(&format!("NetworkDriver.{method}"), place.clone()),
            json!({})
        );
    }
    assert_eq!(stage.shell("ls /sys/class/net"), before);
    let calls = plugin.calls(&stage);
    assert_eq!(calls.len(), 6);
    assert_eq!(calls[1].method, "NetworkDriver.CreateEndpoint");
    assert_eq!(calls[1].request["Interface"]["Address"], "10.99.0.2/24");
    assert_eq!(calls[1].answer, made);
}

#[test]
fn the_peer_misbehaves_as_it_is_told_and_no_longer() {
    let Some(stage) = Stage::bare() else {
        return;
    };
    let Some(plugin) = Plugin::start(&stage, "peer") else {
        return;
    };
    let ask = |method: &str| call(&stage, &plugin, method, &json!({}));
    plugin.misbehave(
        &stage,
        "CreateEndpoint error no room\nDiscoverNew hang 0.5\nJoin garbage\nCreateNetwork close\n\
         RequestAddress 500\nProgramExternalConnectivity 404\nReleaseAddress error no\n\
         NetworkDriver.GetCapabilities answer {\"Scope\": \"global\"}",
    );
    let answer = |text: &str| Some((200, text.to_owned()));
    assert_eq!(
        ask("NetworkDriver.CreateEndpoint"),
        answer("{\"Err\": \"no room\"}")
    );
    assert_eq!(
        ask("IpamDriver.ReleaseAddress"),
        answer("{\"Error\": \"no\"}")
    );
    assert_eq!(
        ask("NetworkDriver.GetCapabilities"),
        answer("{\"Scope\": \"global\"}")
    );
    let other = ask("IpamDriver.GetCapabilities").unwrap();
    assert!(other.1.contains("RequiresMACAddress"), "{other:?}");
    let (_, garbage) = ask("NetworkDriver.Join").unwrap();
    serde_json::from_str::<Value>(&garbage).unwrap_err();
    assert_eq!(ask("NetworkDriver.CreateNetwork"), None);
    assert_eq!(ask("IpamDriver.RequestAddress").unwrap().0, 500);
    assert_eq!(
        ask("NetworkDriver.ProgramExternalConnectivity").unwrap().0,
        404
    );
    assert_eq!(ask("NetworkDriver.Nonsense").unwrap().0, 404);
    let start = Instant::now();
    assert_eq!(ask("NetworkDriver.DiscoverNew"), answer("{}"));
    assert!(start.elapsed() >= Duration::from_millis(500));
    let methods = plugin.methods(&stage);
    assert_eq!(methods.len(), 10);
    assert_eq!(methods[9], "NetworkDriver.DiscoverNew");

    plugin.misbehave(&stage, "");
    plugin.forget_calls(&stage);
    plugin.stop(&stage);
    plugin.launch(&stage);
    let (_, text) = ask("NetworkDriver.CreateEndpoint").unwrap();
    assert!(text.contains("Err") && !text.contains("no room"), "{text}");
    assert_eq!(plugin.methods(&stage), ["NetworkDriver.CreateEndpoint"]);
}

#[test]
fn the_peer_serves_the_real_dockerd() {
    let Some(stage) = Stage::bare() else {
        return;
    };
    let Some(docker) = Dockerd::start(&stage) else {
        return;
    };
    let Some(plugin) = Plugin::start(&stage, "peer") else {
        return;
    };
    let made = "network create --driver peer --ipam-driver peer --opt prefix=lan front";
    docker.ok(&stage, made);
    let run = "run --detach --name web --network front box /bin/busybox sleep 100000";
    docker.ok(&stage, run);
    let inside = docker.ok(&stage, "exec web /bin/busybox ip -4 -o address");
    assert!(
        inside.contains("lan0") && inside.contains("10.99.0.2/24"),
        "{inside}"
    );
    docker.ok(&stage, "exec web /bin/busybox ping -c 1 -W 5 10.99.0.1");
    docker.ok(&stage, "rm --force web");
    docker.ok(&stage, "network rm front");
    assert!(!stage.shell("ls /sys/class/net").contains("pb-"));
    let methods = plugin.methods(&stage);
    let ends = ["Leave", "DeleteEndpoint", "DeleteNetwork"];
    for method in ends.map(|end| format!("NetworkDriver.{end}")) {
        assert!(methods.contains(&method), "{methods:?}");
    }
    for call in plugin.calls(&stage) {
        assert!(
            call.answer
                .get("Err")
                .or(call.answer.get("Error"))
                .is_none(),
            "{call:?}"
        );
    }
    docker.stop(&stage);
}
