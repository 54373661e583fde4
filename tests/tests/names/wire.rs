//! Messages of DNS, written and read here byte by byte so that a test can also write wrong ones, and clients that ask
//! from a place.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use tombolo_tests::Place;

pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const SOA: u16 = 6;
pub(crate) const PTR: u16 = 12;
pub(crate) const MX: u16 = 15;
pub(crate) const TXT: u16 = 16;
pub(crate) const AAAA: u16 = 28;
pub(crate) const RRSIG: u16 = 46;
const OPT: u16 = 41;

pub(crate) const SERVFAIL: u8 = 2;
pub(crate) const NXDOMAIN: u8 = 3;
pub(crate) const REFUSED: u8 = 5;
pub(crate) const FORMERR: u8 = 1;

/// Bits of the flags.
pub(crate) const RESPONSE: u16 = 0x8000;
pub(crate) const TRUNCATED: u16 = 0x0200;
pub(crate) const RECURSION_DESIRED: u16 = 0x0100;
pub(crate) const RECURSION_AVAILABLE: u16 = 0x0080;
pub(crate) const AUTHENTIC_DATA: u16 = 0x0020;
pub(crate) const CHECKING_DISABLED: u16 = 0x0010;

/// Where the resolver answers in every sandbox.
pub(crate) const RESOLVER: &str = "127.0.0.11:53";
/// Longest time for an answer: longer than resolvers in sandboxes wait.
const PATIENCE: Duration = Duration::from_secs(6);
/// A pointer to the name of the question.
const POINTER: [u8; 2] = [0xc0, 12];

/// A query to be asked.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) id: u16,
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    /// The size of an OPT record and whether it has DO set; none without one.
    pub(crate) edns: Option<(u16, bool)>,
}

/// A message that was read.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// The name of the question as it is written, without its final dot.
    pub(crate) name: String,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
    pub(crate) length: usize,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    /// Addresses and names as text, strings with nothing between them.
    pub(crate) text: String,
}

/// An answer to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    head: Vec<u8>,
    flags: u16,
    counts: [u16; 3],
    records: Vec<u8>,
}

/// A name as it is in a message.
pub(crate) fn encode(name: &str) -> Vec<u8> {
    if name == "@" {
        return POINTER.to_vec();
    }
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// Data of a record of type A or AAAA.
pub(crate) fn address(text: &str) -> Vec<u8> {
    match text.parse().unwrap() {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Data of a SOA record that lets nothing be remembered for so many seconds.
pub(crate) fn soa(minimum: u32) -> Vec<u8> {
    let mut data = [encode("ns.invalid"), encode("root.invalid")].concat();
    for number in [1, 3_600, 600, 86_400, minimum] {
        data.extend_from_slice(&u32::to_be_bytes(number));
    }
    data
}

/// Data of a TXT record of so many bytes.
pub(crate) fn text(bytes: usize) -> Vec<u8> {
    let string = |length: usize| [vec![u8::try_from(length).unwrap()], vec![b'x'; length]].concat();
    let mut data = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let length = left.min(255);
        data.extend(string(length));
        left -= length;
    }
    data
}

impl Query {
    /// As a plain client asks.
    pub(crate) fn new(name: &str, kind: u16) -> Self {
        Self {
            id: 0x4242,
            name: name.to_owned(),
            kind,
            flags: RECURSION_DESIRED,
            edns: None,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [self.id, self.flags, 1, 0, 0, u16::from(self.edns.is_some())] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend(encode(&self.name));
        bytes.extend_from_slice(&self.kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        if let Some((size, dnssec_ok)) = self.edns {
            bytes.extend_from_slice(&[0, 0, 41]);
            bytes.extend_from_slice(&size.to_be_bytes());
            bytes.extend_from_slice(&[0, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
        }
        bytes
    }
}

impl Reply {
    /// An answer with the id and the question of a query, and nothing else yet.
    pub(crate) fn to(query: &[u8]) -> Self {
        let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let mut head = query[..end].to_vec();
        head[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        let asked = u16::from_be_bytes([query[2], query[3]]);
        let kept = asked & (RECURSION_DESIRED | CHECKING_DISABLED);
        Self {
            head,
            flags: RESPONSE | RECURSION_AVAILABLE | kept,
            counts: [0; 3],
            records: vec![],
        }
    }

    pub(crate) const fn code(mut self, code: u8) -> Self {
        self.flags |= code as u16;
        self
    }

    pub(crate) const fn with(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    /// Writes the question in this way.
    pub(crate) fn cased(mut self, change: impl Fn(u8) -> u8) -> Self {
        let end = self.head.len() - 4;
        for byte in &mut self.head[12..end] {
            *byte = change(*byte);
        }
        self
    }

    /// A record of the answer; `@` is the name that was asked for.
    pub(crate) fn answer(self, name: &str, kind: u16, ttl: u32, data: &[u8]) -> Self {
        self.record(0, name, kind, ttl, data)
    }

    pub(crate) fn authority(self, name: &str, kind: u16, ttl: u32, data: &[u8]) -> Self {
        self.record(1, name, kind, ttl, data)
    }

    pub(crate) fn additional(self, name: &str, kind: u16, ttl: u32, data: &[u8]) -> Self {
        self.record(2, name, kind, ttl, data)
    }

    /// Sections have to be filled in their order.
    fn record(mut self, section: usize, name: &str, kind: u16, ttl: u32, data: &[u8]) -> Self {
        self.counts[section] += 1;
        self.records.extend(encode(name));
        self.records.extend_from_slice(&kind.to_be_bytes());
        self.records.extend_from_slice(&[0, 1]);
        self.records.extend_from_slice(&ttl.to_be_bytes());
        let length = u16::try_from(data.len()).unwrap();
        self.records.extend_from_slice(&length.to_be_bytes());
        self.records.extend_from_slice(data);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        bytes[2..4].copy_from_slice(&self.flags.to_be_bytes());
        for (section, count) in self.counts.iter().enumerate() {
            let at = 6 + 2 * section;
            bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        bytes.extend_from_slice(&self.records);
        bytes
    }
}

impl Message {
    /// Reads a message; none for one that is broken.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let (mut name, mut at) = (String::new(), 12);
        if number(4)? > 0 {
            (name, at) = read_name(bytes, at)?;
            at += 4;
        }
        let mut sections = [vec![], vec![], vec![]];
        for (section, records) in sections.iter_mut().enumerate() {
            for _ in 0..number(6 + 2 * section)? {
                let (record, end) = Record::read(bytes, at)?;
                records.push(record);
                at = end;
            }
        }
        let [answers, authorities, mut additionals] = sections;
        additionals.retain(|record| record.kind != OPT);
        Some(Self {
            id: number(0)?,
            flags: number(2)?,
            name,
            answers,
            authorities,
            additionals,
            length: bytes.len(),
        })
    }

    pub(crate) const fn code(&self) -> u8 {
        (self.flags & 0xf) as u8
    }

    pub(crate) const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// What the answers of a type say.
    pub(crate) fn texts(&self, kind: u16) -> Vec<&str> {
        let wanted = self.answers.iter().filter(|record| record.kind == kind);
        wanted.map(|record| record.text.as_str()).collect()
    }
}

impl Record {
    fn read(bytes: &[u8], at: usize) -> Option<(Self, usize)> {
        let (name, at) = read_name(bytes, at)?;
        let fixed: &[u8; 10] = bytes.get(at..)?.first_chunk()?;
        let [k, l, c, d, t, u, v, w, x, y] = *fixed;
        let (data, kind) = (at + 10, u16::from_be_bytes([k, l]));
        let end = data + usize::from(u16::from_be_bytes([x, y]));
        let record = Self {
            name,
            kind,
            class: u16::from_be_bytes([c, d]),
            ttl: u32::from_be_bytes([t, u, v, w]),
            text: read_data(bytes, kind, data, end)?,
        };
        Some((record, end))
    }
}

fn read_data(bytes: &[u8], kind: u16, at: usize, end: usize) -> Option<String> {
    let data = bytes.get(at..end)?;
    Some(match kind {
        A => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).to_string(),
        AAAA => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_string(),
        CNAME | PTR => read_name(bytes, at)?.0,
        MX => read_name(bytes, at + 2)?.0,
        TXT => {
            let mut text = String::new();
            let mut rest = data;
            while let Some((length, more)) = rest.split_first() {
                let (string, more) = more.split_at_checked(usize::from(*length))?;
                text.push_str(&String::from_utf8_lossy(string));
                rest = more;
            }
            text
        }
        _ => format!("{data:02x?}"),
    })
}

/// A name in a message, and where it ends there.
fn read_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut at, mut end) = (start, None);
    let mut labels: Vec<String> = vec![];
    while labels.len() < 128 {
        let length = usize::from(*bytes.get(at)?);
        if length >= 0xc0 {
            end = end.or(Some(at + 2));
            at = (length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
            labels.push(String::new());
            continue;
        }
        if length == 0 {
            labels.retain(|label| !label.is_empty());
            return Some((labels.join("."), end.unwrap_or(at + 1)));
        }
        let label = bytes.get(at + 1..at + 1 + length)?;
        labels.push(String::from_utf8_lossy(label).into_owned());
        at += 1 + length;
    }
    None
}

/// A socket in a place that asks its resolver.
#[derive(Debug)]
pub(crate) struct Client(UdpSocket);

impl Client {
    pub(crate) fn at(place: &Place) -> Self {
        let open = || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(RESOLVER)?;
            io::Result::Ok(socket)
        };
        Self(place.inside(open).unwrap())
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        self.tries_to_send(bytes).unwrap();
    }

    /// Sends where perhaps nobody listens any more.
    pub(crate) fn tries_to_send(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.send(bytes).map(drop)
    }

    /// The next message within that time.
    pub(crate) fn receive(&self, patience: Duration) -> Option<Message> {
        let mut bytes = [0; 65_536];
        self.0.set_read_timeout(Some(patience)).unwrap();
        let length = self.0.recv(&mut bytes).ok()?;
        Message::read(&bytes[..length])
    }

    /// Asks once; what comes back, and how long it took.
    pub(crate) fn ask(&self, query: &Query) -> (Message, Duration) {
        let begun = Instant::now();
        self.send(&query.bytes());
        let end = begun + PATIENCE;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match self.receive(left) {
                Some(message) if message.id == query.id => return (message, begun.elapsed()),
                Some(_) => {}
                None => break,
            }
        }
        panic!("no answer to {query:?} after {:?}", begun.elapsed());
    }
}

/// What a sandbox is told about a name.
pub(crate) fn ask(place: &Place, name: &str, kind: u16) -> Message {
    timed(place, name, kind).0
}

/// The same, and how long it took.
pub(crate) fn timed(place: &Place, name: &str, kind: u16) -> (Message, Duration) {
    Client::at(place).ask(&Query::new(name, kind))
}

/// A connection from a place to its resolver.
pub(crate) fn connect(place: &Place) -> TcpStream {
    let stream = place.inside(|| TcpStream::connect(RESOLVER)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A message with its length before it.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes()[..], message].concat()
}

/// The next message of a connection.
pub(crate) fn read_framed(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// Asks over a new connection.
pub(crate) fn ask_over_tcp(place: &Place, query: &Query) -> Message {
    let mut stream = connect(place);
    stream.write_all(&framed(&query.bytes())).unwrap();
    let answer = read_framed(&mut stream).unwrap_or_else(|error| panic!("{query:?}: {error}"));
    Message::read(&answer).unwrap()
}

/// Counters of a place's datagrams: `InDatagrams` and so on.
pub(crate) fn datagrams(place: &Place) -> BTreeMap<String, u64> {
    let text = place.ok("cat /proc/net/snmp");
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let pairs = names.split_whitespace().zip(numbers.split_whitespace());
    pairs
        .skip(1)
        .map(|(name, number)| (name.to_owned(), number.parse().unwrap()))
        .collect()
}
