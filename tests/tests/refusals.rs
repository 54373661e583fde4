//! What is refused: by which code and kind, with which exit code, about which object and with which advice;
//! and that nothing is lost or half made.

use proptest::prelude::*;
use serde_json::{Value, json};
use tombolo_api::{ErrorCode, ErrorKind};
use tombolo_tests::Stage;

/// Sends a request with a JSON body and reads status and body of the answer.
fn call(stage: &Stage, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    answer(&stage.request(&bytes).expect("the daemon answers"))
}

fn answer(bytes: &[u8]) -> (u16, Value) {
    let text = String::from_utf8_lossy(bytes);
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (
        status.unwrap_or(0),
        serde_json::from_str(body).unwrap_or(Value::Null),
    )
}

/// Two networks, one full, with a sandbox on both.
fn scene(stage: &Stage) {
    stage.ok("network create web --subnet 10.9.0.0/24 --subnet fd09::/64");
    stage.ok("network create full --subnet 10.8.0.0/30");
    stage.ok("sandbox create --name c1 --network name=web,ip=10.9.0.7 --network full");
}

/// Command line, code, object that the message names, a word of the advice.
const REFUSALS: &[(&str, ErrorCode, &str, &str)] = &[
    (
        "network create x --subnet 10.9.0.0/25",
        ErrorCode::OverlappingSubnet,
        "web",
        "choose",
    ),
    (
        "network create x --subnet 192.0.2.128/25",
        ErrorCode::OverlappingSubnet,
        "192.0.2.0/24",
        "choose",
    ),
    (
        "network create x --subnet 10.7.0.0/24 --gateway 10.6.0.1",
        ErrorCode::GatewayOutsideSubnet,
        "10.6.0.1",
        "",
    ),
    (
        "network create x --subnet 10.7.0.1/24",
        ErrorCode::HostBitsSet,
        "10.7.0.1/24",
        "10.7.0.0/24",
    ),
    (
        "network create web",
        ErrorCode::NameTaken,
        "web",
        "another name",
    ),
    (
        "sandbox create --name c1",
        ErrorCode::NameTaken,
        "c1",
        "another name",
    ),
    (
        "network create x --mtu 60",
        ErrorCode::MtuRange,
        "60",
        "uplink",
    ),
    (
        "network create x --mtu 70000",
        ErrorCode::MtuRange,
        "70000",
        "uplink",
    ),
    (
        "network create x --ipv6 --mtu 1000",
        ErrorCode::MtuRange,
        "1000",
        "",
    ),
    (
        "network create x --device sixteen-bytes-xx",
        ErrorCode::InterfaceName,
        "sixteen-bytes-xx",
        "15",
    ),
    (
        "network create x --device eth0",
        ErrorCode::InterfaceNameTaken,
        "eth0",
        "free",
    ),
    (
        "network create x -o no.such.option=1",
        ErrorCode::UnknownOption,
        "no.such.option",
        "help",
    ),
    (
        "network rm web",
        ErrorCode::NetworkInUse,
        "web",
        "disconnect",
    ),
    (
        "network rm bridge",
        ErrorCode::PredefinedNetwork,
        "bridge",
        "",
    ),
    (
        "network rm nowhere",
        ErrorCode::UnknownNetwork,
        "nowhere",
        "network ls",
    ),
    (
        "network inspect nowhere",
        ErrorCode::UnknownNetwork,
        "nowhere",
        "network ls",
    ),
    (
        "sandbox create --name c2 --network nowhere",
        ErrorCode::UnknownNetwork,
        "nowhere",
        "network ls",
    ),
    (
        "sandbox create --name c2 --network full",
        ErrorCode::PoolExhausted,
        "full",
        "",
    ),
    (
        "sandbox create --name c2 --network web --ip 10.9.0.7",
        ErrorCode::AddressInUse,
        "10.9.0.7",
        "",
    ),
    (
        "sandbox create --name c2 --network web --ip 10.9.0.1",
        ErrorCode::AddressInUse,
        "10.9.0.1",
        "",
    ),
    (
        "sandbox create --name c2 --netns /no/such/file",
        ErrorCode::MissingNamespace,
        "/no/such/file",
        "",
    ),
    (
        "sandbox create --name c2 --netns /etc/passwd",
        ErrorCode::MissingNamespace,
        "/etc/passwd",
        "",
    ),
    (
        "network connect web c1",
        ErrorCode::AlreadyJoined,
        "c1",
        "disconnect",
    ),
    (
        "endpoint join web/c1 c1",
        ErrorCode::AlreadyJoined,
        "c1",
        "",
    ),
    (
        "network disconnect bridge c1",
        ErrorCode::NotJoined,
        "c1",
        "",
    ),
    (
        "network connect bridge c1 --ifname eth0",
        ErrorCode::InterfaceNameTaken,
        "eth0",
        "",
    ),
    (
        "network connect bridge c1 --ifname sixteen-bytes-xx",
        ErrorCode::InterfaceName,
        "sixteen-bytes-xx",
        "",
    ),
    (
        "network connect bridge nobody",
        ErrorCode::UnknownSandbox,
        "nobody",
        "sandbox ls",
    ),
    (
        "sandbox rm nobody",
        ErrorCode::UnknownSandbox,
        "nobody",
        "sandbox ls",
    ),
    (
        "endpoint rm nothing",
        ErrorCode::UnknownEndpoint,
        "nothing",
        "endpoint ls",
    ),
];

#[test]
fn every_refusal_names_object_reason_and_advice_and_makes_nothing() {
    let Some(stage) = Stage::start() else { return };
    scene(&stage);
    let before = stage.traces().unwrap();
    let known = |stage: &Stage| {
        let mut client = stage.client();
        let networks = client.network_list(Default::default()).unwrap();
        (networks, client.sandbox_list(Default::default()).unwrap())
    };
    let records = known(&stage);
    let mut wrong = Vec::new();
    for (line, code, object, advice) in REFUSALS {
        let outcome = stage.tries(line);
        let exit = match code {
            ErrorCode::UnknownNetwork | ErrorCode::UnknownEndpoint | ErrorCode::UnknownSandbox => 5,
            code => i32::from(code.kind().exit_code()),
        };
        let message = outcome.stderr.lines().next().unwrap_or_default();
        // The command line's own refusals end with the advice; the daemon's have a line for it.
        let hint = outcome.stderr.contains("  hint: ") || message.contains("; ");
        let hint = hint && outcome.stderr.contains(advice);
        let named = message.starts_with("tombolo: ") && message.contains(object);
        if outcome.code != Some(exit) || !named || !hint {
            wrong.push(format!("{line}: wanted {code} ({exit}): {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(known(&stage), records);
    stage.assert_in_place();
    stage.assert_traces(&before);
}

/// Code, method, path and body.
const CALLS: &str = r#"
overlapping_subnet POST /v1/networks {"name": "x", "subnets": [{"subnet": "10.9.0.0/16"}]}
host_bits_set POST /v1/networks {"name": "x", "subnets": [{"subnet": "10.7.0.9/24"}]}
gateway_outside_subnet POST /v1/networks {"name": "x", "subnets": [{"subnet": "10.7.0.0/24", "gateway": "10.6.0.1"}]}
name_taken POST /v1/networks {"name": "web"}
invalid_name POST /v1/networks {"name": "x y"}
invalid_name POST /v1/networks {"name": ""}
malformed_json POST /v1/networks {"name": "x", "colour": "red"}
malformed_json POST /v1/networks {"name": 7}
malformed_json POST /v1/networks []
unknown_option POST /v1/networks {"name": "x", "options": {"a.b": "c"}}
mtu_range POST /v1/networks {"name": "x", "mtu": 1}
network_in_use DELETE /v1/networks/web
unknown_network DELETE /v1/networks/y
unknown_path GET /v1/nothing
method_not_allowed PATCH /v1/networks
unknown_parameter GET /v1/networks?colour=red
address_in_use POST /v1/sandboxes {"networks": [{"network": "web", "ipv4_address": "10.9.0.7"}]}
missing_namespace POST /v1/sandboxes {"netns": {"kind": "pid", "pid": 4000000}}
missing_namespace POST /v1/sandboxes {"netns": {"kind": "path", "path": "/nowhere"}}
"#;

#[test]
fn the_api_refuses_with_status_kind_code_object_and_message() {
    let Some(stage) = Stage::start() else { return };
    scene(&stage);
    let before = stage.traces().unwrap();
    let mut wrong = Vec::new();
    for line in CALLS.lines().filter(|line| !line.is_empty()) {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (code, method, path, body) = (word(), word(), word(), word());
        let code: ErrorCode = serde_json::from_value(json!(code)).unwrap();
        let (status, error) = call(&stage, method, path, body.as_bytes());
        let wanted = tombolo_api::ApiError::new(code, "");
        let is = error["code"] == code.as_str() && error["kind"] == wanted.kind.as_str();
        let told = error["message"]
            .as_str()
            .is_some_and(|message| message.len() > 8);
        if status != wanted.http_status() || !is || !told {
            wrong.push(format!("{line}: {status} {error}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    stage.assert_traces(&before);
}

#[test]
fn malformed_and_oversized_requests_are_refused_and_the_daemon_lives() {
    let Some(stage) = Stage::start() else { return };
    let before = stage.traces().unwrap();
    for body in [
        "",
        "{",
        "{\"name\": \"x\"} trailing",
        "\u{0}",
        "[[[[[[",
        "{\"name\":\"x\",\"name\":\"y\"}",
    ] {
        let (status, error) = call(&stage, "POST", "/v1/networks", body.as_bytes());
        assert_eq!(
            (status, &error["code"]),
            (400, &json!("malformed_json")),
            "{body:?}: {error}"
        );
    }
    let deep = "[".repeat(100_000);
    assert_eq!(call(&stage, "POST", "/v1/networks", deep.as_bytes()).0, 400);
    let invalid = [&b"{\"name\": \"\xff\xfe\"}"[..]];
    for body in invalid {
        assert_eq!(
            call(&stage, "POST", "/v1/networks", body).1["code"],
            "malformed_json"
        );
    }
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(1 << 20));
    let (status, error) = call(&stage, "POST", "/v1/networks", large.as_bytes());
    assert_eq!(
        (status, &error["code"]),
        (413, &json!("body_too_large")),
        "{error}"
    );
    let chunked = b"POST /v1/networks HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    let bytes = [&chunked[..], &chunk.repeat(17), b"0\r\n\r\n"].concat();
    assert_eq!(answer(&stage.request(&bytes).unwrap()).0, 413);
    assert_eq!(
        stage
            .client()
            .network_list(Default::default())
            .unwrap()
            .len(),
        3
    );
    stage.assert_traces(&before);
}

#[test]
fn ipv6_that_is_off_in_the_kernel_is_said_so() {
    let Some(stage) = Stage::bare() else { return };
    stage.shell("for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$f; done");
    let mut stage = stage;
    stage.start_again();
    let refused = stage.tries("network create x --ipv6");
    let kind = ErrorCode::Ipv6Disabled.kind();
    assert_eq!(
        refused.code,
        Some(i32::from(kind.exit_code())),
        "{refused:?}"
    );
    assert!(
        refused.stderr.contains("IPv6") && refused.stderr.contains("disable"),
        "{refused:?}"
    );
    assert!(matches!(kind, ErrorKind::Conflict | ErrorKind::Unavailable));
    stage.ok("network create y");
    stage
        .sandbox("s", "--network y")
        .ok("ip -4 address show dev eth0");
    stage.assert_in_place();
}

#[test]
fn a_command_without_a_daemon_says_so() {
    let Some(stage) = Stage::bare() else { return };
    let refused = stage.tries("network ls");
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(
        refused.stderr.contains("/run/tombolo/tombolo.sock"),
        "{refused:?}"
    );
}

#[test]
fn a_daemon_without_its_capability_says_which() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    let started = stage
        .run(&[
            "sh",
            "-c",
            "setpriv --bounding-set -net_admin --inh-caps -net_admin \"$0\" daemon 2>&1",
            &program(),
        ])
        .unwrap();
    assert!(
        !started.success() && started.stdout.contains("CAP_NET_ADMIN"),
        "{started:?}"
    );
    stage.start_again();
    stage.ok("network create x");
}

fn program() -> String {
    std::env::var("TOMBOLO_BINARY").unwrap_or_else(|_| {
        let me = std::env::current_exe().expect("a test has a path");
        me.parent()
            .expect("a test lies in a directory")
            .with_file_name("tombolo")
            .display()
            .to_string()
    })
}

fn hostile_request() -> impl Strategy<Value = Vec<u8>> {
    let path = prop_oneof![
        Just("/v1/networks".to_owned()),
        Just("/v1/sandboxes".to_owned()),
        Just("/v1/endpoints".to_owned()),
        Just("/v1/plan".to_owned()),
        "/v1/[a-z]{1,9}/[ -~&&[^ ]]{1,20}",
        "/[%a-f0-9./?&=]{0,40}",
    ];
    let method = prop_oneof![Just("POST"), Just("DELETE"), Just("GET"), Just("PUT")];
    let json = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        "\\{\"(name|network|netns|subnets|kind)\": ?(\"[ -~]{0,30}\"|-?[0-9]{1,25}|null|\\[\\]|\\{\\})\\}"
            .prop_map(String::into_bytes),
    ];
    let proper = (method, path, json).prop_map(|(method, path, body)| {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    });
    let raw = proptest::collection::vec(any::<u8>(), 1..300).prop_map(|mut bytes| {
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes
    });
    prop_oneof![3 => proper, 1 => raw]
}

#[test]
fn arbitrary_bytes_never_end_the_daemon_nor_fail_inside_it() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    let pid = stage.daemon_pid();
    let config = ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let shared = &stage;
    runner
        .run(&hostile_request(), |bytes| {
            let got = hostile_answer(shared, &bytes);
            let (status, error) = answer(&got);
            prop_assert!(status < 500, "{status} {error}");
            Ok(())
        })
        .unwrap();
    assert!(stage.daemon_ended().unwrap().is_none());
    assert_eq!(stage.daemon_pid(), pid);
    assert!(!stage.log().contains("panicked"), "{}", stage.log());
    stage.ok("network create still-works");
    stage.assert_in_place();
}

/// What the daemon says to these bytes; nothing if it waits for more, which is fine.
fn hostile_answer(stage: &Stage, bytes: &[u8]) -> Vec<u8> {
    use std::io::{Read, Write};
    let mut stream =
        std::os::unix::net::UnixStream::connect(stage.socket()).expect("the daemon listens");
    let mut got = Vec::new();
    // The daemon may have hung up before the last byte; what it said until then counts.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut got);
    got
}
