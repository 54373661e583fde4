//! What is asked, from where, and whether it is what it is believed to be.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use super::NAME;
use super::message::{self, Answer};
use crate::netns::Netns;

/// Longest wait for a single answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// The port of DNS.
pub(super) const PORT: u16 = 53;

/// A program that answers.
pub(super) trait Server {
    /// What it is called in the table.
    fn name(&self) -> &'static str;

    /// Its process.
    fn pid(&self) -> u32;

    /// From where it is asked.
    fn spots(&self) -> &[Spot];

    /// Where it listens; none where it does so in the namespace of each who asks.
    fn home(&self) -> Option<&Netns>;

    /// What it has to say.
    fn address(&self) -> Ipv4Addr;
}

/// Bytes that may wait in a socket that asks.
const ROOM_BYTES: usize = 8 << 20;

/// A place from where a server is asked.
#[derive(Debug)]
pub(super) struct Spot {
    /// Whence.
    pub(super) netns: Netns,
    /// Whither.
    pub(super) server: SocketAddrV4,
}

impl Spot {
    /// A socket that is connected to the server. It has room for what arrives while its owner waits for a processor:
    /// what it would lose is not the server's loss.
    pub(super) fn udp(&self) -> anyhow::Result<UdpSocket> {
        self.netns.inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(self.server)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            setsockopt(&socket, RcvBufForce, &ROOM_BYTES)?;
            Ok(socket)
        })
    }

    /// A connection to the server.
    pub(super) fn tcp(&self) -> anyhow::Result<TcpStream> {
        self.netns.inside(|| {
            let stream = TcpStream::connect_timeout(&self.server.into(), PATIENCE);
            let stream = stream.with_context(|| format!("no connection to {}", self.server))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }
}

/// Asks for a name on a connected socket, once.
pub(super) fn ask(socket: &UdpSocket, name: &str) -> anyhow::Result<Answer> {
    let mut bytes = [0; message::LONGEST];
    socket.send(&message::question(1, name))?;
    let length = socket.recv(&mut bytes).context("no answer")?;
    message::read(&bytes[..length]).context("no answer but other bytes")
}

/// Asks until the answer is as it should be; every other one is given to nobody.
pub(super) fn ask_until(
    socket: &UdpSocket,
    name: &str,
    is_it: impl Fn(Answer) -> bool,
) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE * 10;
    while Instant::now() < end {
        if is_it(ask(socket, name)?) {
            return Ok(());
        }
    }
    bail!("{name}: the answer did not become right")
}

/// Makes sure that all ask this very process and hear what is right, by both protocols. Measurements have been
/// thrown away because the port was another program's that had been left over.
pub(super) fn check(server: &dyn Server) -> anyhow::Result<()> {
    let owned = sockets(server.pid())?;
    for (n, spot) in server.spots().iter().enumerate() {
        check_spot(server, &owned, spot)
            .with_context(|| format!("{}, asked from {n}", server.name()))?;
    }
    Ok(())
}

fn check_spot(server: &dyn Server, owned: &BTreeSet<u64>, spot: &Spot) -> anyhow::Result<()> {
    for table in ["udp", "tcp"] {
        let listening = server.home().unwrap_or(&spot.netns).inside(|| {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
            Ok(bound(&text, spot.server))
        })?;
        if listening.is_empty() || !listening.is_subset(owned) {
            bail!(
                "{} port of {} is not its own: {listening:?}",
                table,
                spot.server
            );
        }
    }
    let right = |answer: Answer| answer.code == 0 && answer.address == Some(server.address());
    let said = ask(&spot.udp()?, NAME)?;
    if !right(said) {
        bail!("by UDP it says {said:?}, not {}", server.address());
    }
    let said = ask_by_tcp(&mut spot.tcp()?)?;
    if !right(said) {
        bail!("by TCP it says {said:?}, not {}", server.address());
    }
    Ok(())
}

fn ask_by_tcp(stream: &mut TcpStream) -> anyhow::Result<Answer> {
    stream.write_all(&framed(&message::question(2, NAME)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).context("no answer")?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    message::read(&bytes).context("no answer but other bytes")
}

/// A message with its length before it.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    // Questions of benches are short.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), message].concat()
}

/// Numbers of all sockets that a process has open.
fn sockets(pid: u32) -> anyhow::Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    let directory = format!("/proc/{pid}/fd");
    for entry in fs::read_dir(&directory).with_context(|| format!("no {directory}"))? {
        // One that has been closed meanwhile listens no more.
        if let Ok(file) = fs::metadata(entry?.path()) {
            numbers.insert(file.ino());
        }
    }
    Ok(numbers)
}

/// Numbers of the sockets of a table in /proc/net that are bound to an address and to no other end.
fn bound(table: &str, address: SocketAddrV4) -> BTreeSet<u64> {
    let at = |ip: Ipv4Addr, port| format!("{:08X}:{port:04X}", u32::from_ne_bytes(ip.octets()));
    let places = [
        at(*address.ip(), address.port()),
        at(Ipv4Addr::UNSPECIFIED, address.port()),
    ];
    let nobody = at(Ipv4Addr::UNSPECIFIED, 0);
    table
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_it = places
                .iter()
                .any(|place| place == words.get(1).unwrap_or(&""));
            (is_it && words.get(2) == Some(&nobody.as_str()))
                .then(|| words.get(9)?.parse().ok())
                .flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            1: 0B00007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1\n\
            2: 0B00007F:0035 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 78 1\n\
            3: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 79 1\n\
            4: 00000000:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 80 1\n";
        let address = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), PORT);
        assert_eq!(bound(table, address), BTreeSet::from([77, 80]));
    }

    #[test]
    fn a_message_of_a_stream_has_its_length_before_it() {
        assert_eq!(framed(b"abc"), [0, 3, b'a', b'b', b'c']);
    }
}
