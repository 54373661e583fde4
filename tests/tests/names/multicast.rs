//! Names below `local`, asked for by multicast.

use std::io::Write;
use std::time::Duration;

use tombolo_lab::node::wait_until;
use tombolo_tests::{Place, Stage};

const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the group for a name's record as a host with multicast DNS does: from its port, as a member. Prints who
/// answered, and what.
const CLIENT: &str = r#"
import socket, struct, sys
name, kind, family, interface = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
index = socket.if_nametoindex(interface)
if family == "4":
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    group = ("224.0.0.251", 5353)
    join = (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
            socket.inet_aton(group[0]) + struct.pack("@ii", 0, index))
else:
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    group = ("ff02::fb", 5353, 0, index)
    join = (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP,
            socket.inet_pton(socket.AF_INET6, group[0]) + struct.pack("@I", index))
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind(("", 5353))
s.setsockopt(*join)
s.settimeout(0.4)
labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0"
s.sendto(struct.pack(">6H", 0, 0, 1, 0, 0, 0) + labels + struct.pack(">HH", kind, 1), group)
while True:
    data, source = s.recvfrom(2000)
    flags, questions, answers = struct.unpack(">HHH", data[2:8])
    if flags & 0x8000 and answers:
        size = 4 if kind == 1 else 16
        address = socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, data[-size:])
        print(source[0].split("%")[0], address)
        break
"#;

/// Who answered in a place, and what; none if nobody did.
fn ask(place: &Place, name: &str, kind: u16, family: u8) -> Option<(String, String)> {
    let mut script = tempfile::NamedTempFile::new().expect("a file can be made");
    script
        .write_all(CLIENT.as_bytes())
        .expect("a file can be written");
    let script = script.path().display();
    let said = place.run(&format!("python3 {script} {name} {kind} {family} eth0"));
    let (source, address) = said.stdout.trim().split_once(' ')?;
    Some((source.to_owned(), address.to_owned()))
}

/// The same, once the responder had time to begin.
#[track_caller]
fn answered(place: &Place, name: &str, kind: u16, family: u8) -> (String, String) {
    let mut found = None;
    wait_until(PATIENCE, || {
        found = ask(place, name, kind, family);
        found.is_some()
    });
    found.unwrap_or_else(|| panic!("nobody says who {name} is"))
}

#[test]
fn a_network_without_multicast_answers_names_below_local() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create --ipv6 --mdns one");
    let (a, b) = (
        stage.sandbox("a", "--network one"),
        stage.sandbox("b", "--network name=one,alias=store"),
    );
    let (own, v4, v6) = (a.v4().to_string(), b.v4().to_string(), b.v6().to_string());
    assert_eq!(answered(&a, "b.local", 1, 4), (own.clone(), v4.clone()));
    assert_eq!(answered(&a, "Store.local", 1, 4), (own, v4.clone()));
    assert_eq!(answered(&a, "b.local", 28, 6).1, v6);
    assert_eq!(ask(&a, "nobody.local", 1, 4), None);
    stage.ok("sandbox stop b");
    let gone = wait_until(PATIENCE, || ask(&a, "b.local", 1, 4).is_none());
    assert!(gone, "b left and is still told of");
    stage.assert_in_place();
}

#[test]
fn only_networks_that_ask_for_it_answer_by_multicast() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create one");
    stage.ok("network create --mdns --multicast lan");
    let (a, _b) = (
        stage.sandbox("a", "--network one"),
        stage.sandbox("b", "--network one"),
    );
    let (c, d) = (
        stage.sandbox("c", "--network lan"),
        stage.sandbox("d", "--network lan"),
    );
    assert_eq!(answered(&c, "d.local", 1, 4).1, d.v4().to_string());
    assert_eq!(ask(&a, "b.local", 1, 4), None);
    assert_eq!(ask(&c, "b.local", 1, 4), None);
    // Its responder goes with a sandbox, and its namespace goes in spite of it.
    stage.ok("sandbox rm d");
    let gone = wait_until(PATIENCE, || ask(&c, "d.local", 1, 4).is_none());
    assert!(gone, "d is gone and still told of");
    stage.assert_in_place();
}

#[test]
fn a_network_is_told_of_no_address_on_another() {
    let Some(stage) = Stage::start() else { return };
    stage.ok("network create --mdns --multicast lan");
    stage.ok("network create --mdns secret");
    let c = stage.sandbox("c", "--network lan");
    let d = stage.sandbox("d", "--network secret --network lan");
    let on_lan = stage.inspect("d").endpoints.into_iter();
    let on_lan = on_lan.filter(|endpoint| endpoint.network.name == "lan");
    let on_lan: Vec<String> = on_lan.flat_map(|endpoint| endpoint.addresses).collect();
    assert!(d.addresses.len() > on_lan.len());
    for _ in 0..5 {
        let (_, address) = answered(&c, "d.local", 1, 4);
        assert!(
            on_lan.iter().any(|own| own.starts_with(&address)),
            "{address} is not one of {on_lan:?}"
        );
    }
}
