//! Bytes that pass unharmed by every way to a published port, whatever their number and the sizes of links.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use tombolo_lab::node::{NODE_V4, NODE_V6};
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

/// Bytes of a stream.
const STREAM: usize = 2_000_000;
/// Bytes of a datagram: more than any link carries in one piece.
const DATAGRAM: usize = 6_000;

fn bytes(count: usize) -> Vec<u8> {
    (0..count)
        .map(|place| u8::try_from(place * 31 % 251).unwrap())
        .collect()
}

/// Sends back what comes, over TCP and UDP, for as long as the test runs.
fn echo(place: &Place, port: u16) {
    let any = SocketAddr::new("::".parse().unwrap(), port);
    let sockets = place.inside(|| io::Result::Ok((TcpListener::bind(any)?, UdpSocket::bind(any)?)));
    let (tcp, udp) = sockets.unwrap();
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                // Whoever sent it looks at what came back.
                drop(io::copy(&mut &stream, &mut writer));
                drop(stream.shutdown(Shutdown::Write));
            });
        }
    });
    std::thread::spawn(move || {
        let mut bytes = vec![0; 65_536];
        while let Ok((length, peer)) = udp.recv_from(&mut bytes) {
            drop(udp.send_to(&bytes[..length], peer));
        }
    });
}

fn stream(from: &Place, to: SocketAddr) -> io::Result<bool> {
    let stream = from.inside(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let sent = bytes(STREAM);
    let mut back = Vec::with_capacity(STREAM);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            (&stream).write_all(&sent)?;
            stream.shutdown(Shutdown::Write)
        });
        let read = (&stream).read_to_end(&mut back);
        writer.join().unwrap().and(read)
    })?;
    Ok(back == sent)
}

fn datagram(from: &Place, to: SocketAddr) -> io::Result<bool> {
    let any: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
    let socket = from.inside(|| UdpSocket::bind(SocketAddr::new(any, 0)))?;
    socket.set_read_timeout(Some(Duration::from_millis(700)))?;
    socket.connect(to)?;
    let sent = bytes(DATAGRAM);
    let mut back = vec![0; 65_536];
    let mut last = Ok(0);
    // Until the size of the path is known, pieces may be lost.
    for _ in 0..8 {
        last = socket.send(&sent).and_then(|_| socket.recv(&mut back));
        if last.as_ref().is_ok_and(|length| back[..*length] == sent) {
            return Ok(true);
        }
    }
    last.map(|_| false)
}

/// Asserts that streams and large datagrams come back unharmed from each of these.
#[track_caller]
fn assert_echoes(ways: &[(&str, &Place, &str, u16)]) {
    for (what, from, address, port) in ways {
        let to = SocketAddr::new(address.parse().unwrap(), *port);
        let over_tcp = stream(from, to);
        assert!(
            matches!(over_tcp, Ok(true)),
            "{what} -> {to}/tcp: {over_tcp:?}"
        );
        let over_udp = datagram(from, to);
        assert!(
            matches!(over_udp, Ok(true)),
            "{what} -> {to}/udp: {over_udp:?}"
        );
    }
}

fn assert_unharmed(options: &str, four: &str) {
    let Some(stage) = Stage::start() else { return };
    stage.ok(&format!("network create n --ipv6 {options}"));
    stage.ok(&format!("network create four {four}"));
    let publish = |port: u16| {
        let obey = format!("{}:80,obey-host-firewall=true", port + 1);
        format!(
            "-p {port}:80 -p {port}:80/udp -p {obey} -p {0}:80/udp,obey-host-firewall=true",
            port + 1
        )
    };
    let s = stage.sandbox("s", &format!("--network n {}", publish(8080)));
    let f = stage.sandbox("f", &format!("--network four {}", publish(8480)));
    let beside = stage.sandbox("beside", "--network n");
    for place in [&s, &f] {
        echo(place, 80);
    }
    let (here, far) = (stage.here(), stage.far());
    assert_echoes(&[
        ("outside", &far, NODE_V4, 8080),
        ("outside", &far, NODE_V6, 8080),
        ("outside, relayed", &far, NODE_V4, 8081),
        ("outside, relayed", &far, NODE_V6, 8081),
        ("outside to an IPv4 sandbox", &far, NODE_V6, 8480),
        ("outside to an IPv4 sandbox, relayed", &far, NODE_V6, 8481),
        ("same network", &beside, NODE_V4, 8080),
        ("same network", &beside, NODE_V6, 8080),
        ("same network, relayed", &beside, NODE_V6, 8081),
        ("other network", &f, NODE_V4, 8080),
        ("itself", &s, NODE_V4, 8080),
        ("itself", &s, NODE_V6, 8080),
        ("host", &here, "127.0.0.1", 8080),
        ("host", &here, "::1", 8080),
        ("host", &here, NODE_V6, 8080),
        ("host to an IPv4 sandbox", &here, "::1", 8480),
    ]);
}

#[test]
fn streams_and_large_datagrams_pass() {
    assert_unharmed("", "");
}

#[test]
fn streams_and_large_datagrams_pass_where_the_network_carries_less_than_the_uplink() {
    assert_unharmed("--mtu 1300", "--mtu 1280");
}

#[test]
fn streams_and_large_datagrams_pass_on_a_plain_link_layer() {
    assert_unharmed("--multicast", "--multicast --mtu 1400");
}
