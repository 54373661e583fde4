//! A node with words for tests: commands that must work, sandboxes, and packets between them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tombolo_api::{Address, Client, Network, Sandbox};
use tombolo_lab::node::{self, Node, Outcome, inside, wait_until};

/// Longest time for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How long a packet that must not arrive is waited for.
const SILENCE: Duration = Duration::from_millis(400);

/// A scratch machine whose daemon runs. Its methods panic when what must work does not.
#[derive(Debug)]
pub struct Stage {
    node: Node,
}

/// Somewhere packets start from or end: a network namespace and its addresses.
#[derive(Debug, Clone)]
pub struct Place {
    /// Path of the namespace, as the test sees it.
    pub netns: PathBuf,
    /// Its IPv4 addresses and then its IPv6 addresses, in the order of its endpoints.
    pub addresses: Vec<IpAddr>,
}

impl Place {
    /// Its first IPv4 address.
    pub fn v4(&self) -> IpAddr {
        *self
            .addresses
            .iter()
            .find(|ip| ip.is_ipv4())
            .expect("an IPv4 address")
    }

    /// Its first IPv6 address.
    pub fn v6(&self) -> IpAddr {
        *self
            .addresses
            .iter()
            .find(|ip| ip.is_ipv6())
            .expect("an IPv6 address")
    }

    /// A command inside it, to its end.
    pub fn run(&self, line: &str) -> Outcome {
        let mut net = std::ffi::OsString::from("--net=");
        net.push(&self.netns);
        let output = Command::new("nsenter")
            .arg(net)
            .arg("--")
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .output()
            .expect("nsenter(1) starts");
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What a command inside it prints, which must succeed.
    pub fn ok(&self, line: &str) -> String {
        let outcome = self.run(line);
        assert!(outcome.success(), "`{line}`: {outcome:?}");
        outcome.stdout
    }

    /// Whether an echo comes back from an address, given a few tries.
    pub fn pings(&self, to: IpAddr) -> bool {
        self.run(&format!("ping -n -q -c 1 -i 0.2 -W 1 {to}"))
            .success()
            || self
                .run(&format!("ping -n -q -c 3 -i 0.2 -W 2 {to}"))
                .success()
    }

    /// Whether no echo comes back from an address.
    pub fn pings_in_vain(&self, to: IpAddr) -> bool {
        !self
            .run(&format!("ping -n -q -c 2 -i 0.2 -W 0.4 {to}"))
            .success()
    }

    /// The address from which a TCP server at `to` sees a connection from here; none if there is no
    /// connection. Bytes go both ways before it counts.
    pub fn tcp(&self, to: &Self, address: IpAddr) -> Option<IpAddr> {
        let listener = to.inside(move || TcpListener::bind(SocketAddr::new(address, 0)));
        let listener = listener.expect("the server's address is its own");
        let server = listener
            .local_addr()
            .expect("a bound socket has an address");
        let echo = std::thread::spawn(move || {
            let (mut stream, peer) = listener.accept().ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            let mut word = [0; 4];
            stream.read_exact(&mut word).ok()?;
            stream.write_all(&word).ok()?;
            Some(peer.ip())
        });
        let heard = self.inside(move || {
            let mut stream = TcpStream::connect_timeout(&server, SILENCE * 3).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            stream.write_all(b"ping").ok()?;
            let mut word = [0; 4];
            stream.read_exact(&mut word).ok()?;
            (word == *b"ping").then_some(())
        });
        if heard.is_none() {
            // Ends the server's wait.
            drop(to.inside(move || TcpStream::connect_timeout(&server, PATIENCE)));
            return None;
        }
        echo.join().expect("the server does not panic")
    }

    /// The address from which a UDP server at `to` sees a datagram from here, if its answer arrives.
    pub fn udp(&self, to: &Self, address: IpAddr) -> Option<IpAddr> {
        let server = to.inside(move || UdpSocket::bind(SocketAddr::new(address, 0)));
        let server = server.expect("the server's address is its own");
        let target = server.local_addr().expect("a bound socket has an address");
        let any: SocketAddr = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        }
        .parse()
        .expect("an address");
        let client = self
            .inside(move || UdpSocket::bind(any))
            .expect("any address is there");
        for socket in [&server, &client] {
            socket
                .set_read_timeout(Some(SILENCE))
                .expect("a timeout that is not 0");
        }
        let mut word = [0; 4];
        for _ in 0..3 {
            // Without a route the datagram is refused at once.
            if client.send_to(b"ping", target).is_err() {
                return None;
            }
            let Ok((_, peer)) = server.recv_from(&mut word) else {
                continue;
            };
            if server.send_to(&word, peer).is_ok() && client.recv_from(&mut word).is_ok() {
                return Some(peer.ip());
            }
        }
        None
    }

    /// The address from which a server at `to` sees what comes from here, over TCP and over UDP alike; none
    /// if the two differ or nothing arrives.
    pub fn seen_by(&self, to: &Self, address: IpAddr) -> Option<IpAddr> {
        let mut seen = None;
        wait_until(PATIENCE, || {
            seen = self.tcp(to, address);
            seen.is_some()
        });
        let mut over_udp = None;
        wait_until(PATIENCE, || {
            over_udp = self.udp(to, address);
            over_udp.is_some()
        });
        seen.filter(|_| seen == over_udp)
    }

    /// Asserts that ping, TCP and UDP reach `to` at each of its addresses.
    #[track_caller]
    pub fn assert_reaches(&self, to: &Self) {
        // On a machine at its limits a packet may be late, but not for ever.
        let missing = self.tries(to, |address, what| {
            !wait_until(PATIENCE, || match what {
                "echo" => self.pings(address),
                "TCP" => self.tcp(to, address).is_some(),
                _ => self.udp(to, address).is_some(),
            })
        });
        assert!(missing.is_empty(), "should arrive: {missing:?}");
    }

    /// Asserts that neither ping nor TCP nor UDP reaches `to` at any of its addresses.
    #[track_caller]
    pub fn assert_cut_off(&self, to: &Self) {
        let arrived = self.tries(to, |address, what| match what {
            "echo" => !self.pings_in_vain(address),
            "TCP" => self.tcp(to, address).is_some(),
            _ => self.udp(to, address).is_some(),
        });
        assert!(arrived.is_empty(), "should not arrive: {arrived:?}");
    }

    /// The addresses and protocols for which `is_wrong` holds. All are tried at the same time.
    fn tries(
        &self,
        to: &Self,
        is_wrong: impl Fn(IpAddr, &str) -> bool + Sync,
    ) -> Vec<(IpAddr, &'static str)> {
        assert!(!to.addresses.is_empty(), "nothing to reach");
        let is_wrong = &is_wrong;
        std::thread::scope(|scope| {
            let mut tries = Vec::new();
            for address in to.addresses.iter().copied() {
                for what in ["echo", "TCP", "UDP"] {
                    let worker = scope.spawn(move || is_wrong(address, what));
                    tries.push((address, what, worker));
                }
            }
            let found = tries.into_iter().filter_map(|(address, what, worker)| {
                worker
                    .join()
                    .expect("a try does not panic")
                    .then_some((address, what))
            });
            found.collect()
        })
    }

    /// Does something on a thread inside the namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.netns, work).expect("the namespace can be entered")
    }
}

impl Stage {
    /// A machine with its daemon as shipped; none when this machine cannot have one, which is then told.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// A machine with a daemon that has these flags.
    pub fn start_with(flags: &[&str]) -> Option<Self> {
        let mut stage = Self::bare()?;
        stage
            .node
            .start_with(flags, &[])
            .unwrap_or_else(|error| panic!("{error}"));
        Some(stage)
    }

    /// A machine without a daemon yet.
    pub fn bare() -> Option<Self> {
        if let Some(why) = node::obstacle() {
            node::skip(&why);
            return None;
        }
        let node = Node::new().unwrap_or_else(|error| panic!("{error}: {:?}", error));
        Some(Self { node })
    }

    /// Starts the daemon anew, after it was killed or stopped.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.node.start().unwrap_or_else(|error| panic!("{error}"));
    }

    /// What `tombolo` prints when given these words, which must succeed.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.ok_words(&words)
    }

    /// The same with words that hold blanks.
    #[track_caller]
    pub fn ok_words(&self, words: &[&str]) -> String {
        let outcome = self.node.tombolo(words).expect("nsenter(1) starts");
        assert!(outcome.success(), "tombolo {words:?}: {outcome:?}");
        outcome.stdout.trim_end().to_owned()
    }

    /// How `tombolo` ends when given these words, whatever that is.
    pub fn tries(&self, line: &str) -> Outcome {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.node.tombolo(&words).expect("nsenter(1) starts")
    }

    /// Asserts that a command line is refused with this exit code, and that the message has these words.
    #[track_caller]
    pub fn assert_refused(&self, line: &str, code: i32, words: &[&str]) {
        let outcome = self.tries(line);
        assert_eq!(outcome.code, Some(code), "`{line}`: {outcome:?}");
        for word in words {
            assert!(
                outcome.stderr.contains(word),
                "`{line}` has no {word}: {outcome:?}"
            );
        }
    }

    /// How `tombolo` ends when given these words, which may hold blanks.
    pub fn node_tombolo(&self, words: &[&str]) -> Outcome {
        self.node.tombolo(words).expect("nsenter(1) starts")
    }

    /// What a shell on the node prints when given this script, which must succeed.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        let outcome = self
            .node
            .run(&["sh", "-c", script])
            .expect("nsenter(1) starts");
        assert!(outcome.success(), "`{script}`: {outcome:?}");
        outcome.stdout.trim_end().to_owned()
    }

    /// What a shell in the outside prints when given this script, which must succeed.
    #[track_caller]
    pub fn shell_outside(&self, script: &str) -> String {
        let outside = self.node.outside().run(["sh", "-c", script]);
        outside.unwrap_or_else(|error| panic!("`{script}`: {error}"))
    }

    /// A new connection to the daemon.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(Address::Unix(self.node.socket())).expect("the daemon listens")
    }

    /// A sandbox made by `tombolo sandbox create --name NAME` and these words.
    #[track_caller]
    pub fn sandbox(&self, name: &str, words: &str) -> Place {
        self.ok(&format!("sandbox create --name {name} {words}"));
        self.place(name)
    }

    /// A sandbox as it is now.
    #[track_caller]
    pub fn place(&self, name: &str) -> Place {
        self.place_of(&self.inspect(name))
    }

    /// Where a sandbox is and what its addresses are.
    #[track_caller]
    pub fn place_of(&self, sandbox: &Sandbox) -> Place {
        let netns = sandbox.netns.as_deref().expect("the sandbox runs");
        let addresses = sandbox
            .endpoints
            .iter()
            .flat_map(|endpoint| &endpoint.addresses);
        let mut addresses: Vec<IpAddr> = addresses
            .map(|text| {
                text.parse::<ipnet::IpNet>()
                    .expect("an address with its length")
                    .addr()
            })
            .collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        Place {
            netns: self.node.path(netns),
            addresses,
        }
    }

    /// A sandbox as the daemon tells it.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> Sandbox {
        self.client()
            .sandbox_inspect(name)
            .unwrap_or_else(|error| panic!("sandbox {name}: {error}"))
    }

    /// A network as the daemon tells it.
    #[track_caller]
    pub fn network(&self, name: &str) -> Network {
        self.client()
            .network_inspect(name)
            .unwrap_or_else(|error| panic!("network {name}: {error}"))
    }

    /// The node itself, as the start or end of packets.
    pub fn here(&self) -> Place {
        let addresses =
            [node::NODE_V4, node::NODE_V6].map(|text| text.parse().expect("an address"));
        Place {
            netns: self.node.netns(),
            addresses: addresses.to_vec(),
        }
    }

    /// The outside beyond the router, as the start or end of packets.
    pub fn far(&self) -> Place {
        let addresses = [node::FAR_V4, node::FAR_V6].map(|text| text.parse().expect("an address"));
        Place {
            netns: self.node.outside().path(),
            addresses: addresses.to_vec(),
        }
    }

    /// Every address of the node, those of its networks too.
    #[track_caller]
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        let listed = self.shell("ip -o address show | awk '{print $4}'");
        let nets = listed.lines().map(|line| line.parse::<ipnet::IpNet>());
        nets.map(|net| net.expect("an address with its length").addr())
            .collect()
    }

    /// The gateway of a network in a family.
    #[track_caller]
    pub fn gateway(&self, network: &str, ipv6: bool) -> IpAddr {
        let subnets = self.network(network).subnets.into_iter();
        let gateways = subnets.filter_map(|subnet| subnet.gateway?.parse().ok());
        let found = gateways
            .into_iter()
            .find(|ip: &IpAddr| ip.is_ipv6() == ipv6);
        found.unwrap_or_else(|| panic!("network {network} has no such gateway"))
    }

    /// Lines of `drift`, of which there should be none.
    #[track_caller]
    pub fn drift(&self) -> Vec<String> {
        let drift = self
            .client()
            .drift()
            .expect("the daemon looks at the kernel");
        drift
            .operations
            .into_iter()
            .map(|operation| operation.text)
            .collect()
    }

    /// Asserts that the kernel holds what it should, after what is still on its way has arrived.
    #[track_caller]
    pub fn assert_in_place(&self) {
        let calm = wait_until(PATIENCE, || self.drift().is_empty());
        assert!(calm, "drift: {:#?}", self.drift());
    }

    /// Asserts that the node holds exactly the traces of an earlier look, once what is leaving has left.
    #[track_caller]
    pub fn assert_traces(&self, before: &std::collections::BTreeSet<String>) {
        let traces = || self.node.traces().expect("nsenter(1) starts");
        wait_until(PATIENCE, || traces() == *before);
        let now = traces();
        let more: Vec<_> = now.difference(before).collect();
        let less: Vec<_> = before.difference(&now).collect();
        assert!(
            more.is_empty() && less.is_empty(),
            "left behind: {more:#?}\nlost: {less:#?}"
        );
    }
}

impl Deref for Stage {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Node {
        &mut self.node
    }
}
