//! Servers that the resolver asks: one that does what a test says, byte by byte, and real ones.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tombolo_lab::node::{skip, wait_until};
use tombolo_tests::stage::PATIENCE;
use tombolo_tests::{Place, Stage};

use crate::wire::{A, Message, Query, Reply, address, framed, read_framed};

/// The servers' port.
const PORT: u16 = 53;
/// How often a server looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// A query as a server has seen it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) bytes: Vec<u8>,
    /// The name as it was written.
    pub(crate) name: String,
    pub(crate) id: u16,
    pub(crate) from: SocketAddr,
    pub(crate) over_tcp: bool,
}

/// One thing that a server does about a query.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    /// Sends a message; over a connection, with its length before it.
    Send(Vec<u8>),
    /// Sends bytes as they are.
    Raw(Vec<u8>),
    /// Sends a message from another address and port.
    SendFrom(SocketAddr, Vec<u8>),
    Wait(Duration),
    /// Ends the connection.
    Close,
}

type Script = dyn Fn(&Seen) -> Vec<Deed> + Send + Sync;

/// A server at port 53 of an address, over UDP and TCP, until it is dropped.
pub(crate) struct Upstream {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads of a server know.
#[derive(Clone)]
struct Face {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    script: Arc<Script>,
}

impl Seen {
    /// What was asked, in lower case.
    pub(crate) fn asked(&self) -> String {
        self.name.to_ascii_lowercase()
    }

    /// An answer to it.
    pub(crate) fn reply(&self) -> Reply {
        Reply::to(&self.bytes)
    }
}

/// Answers every question with this address.
pub(crate) fn always(ip: &'static str, ttl: u32) -> impl Fn(&Seen) -> Vec<Deed> + Send + Sync {
    move |seen| vec![says(seen, ip, ttl)]
}

/// An answer with one address.
pub(crate) fn says(seen: &Seen, ip: &str, ttl: u32) -> Deed {
    Deed::Send(seen.reply().answer("@", A, ttl, &address(ip)).bytes())
}

/// Says nothing.
pub(crate) fn silence(_: &Seen) -> Vec<Deed> {
    vec![]
}

impl Upstream {
    /// A server at an address of a place.
    pub(crate) fn at(
        place: &Place,
        address: IpAddr,
        script: impl Fn(&Seen) -> Vec<Deed> + Send + Sync + 'static,
    ) -> Self {
        let to = SocketAddr::new(address, PORT);
        let bind = || io::Result::Ok((UdpSocket::bind(to)?, TcpListener::bind(to)?));
        let (udp, tcp) = place
            .inside(bind)
            .unwrap_or_else(|error| panic!("{to}: {error}"));
        udp.set_read_timeout(Some(LOOK)).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let face = Face {
            seen: Arc::default(),
            stop: Arc::default(),
            script: Arc::new(script),
        };
        let (one, other) = (face.clone(), face.clone());
        let (here, there) = (place.clone(), place.clone());
        // Inside, because some deeds make sockets.
        let threads = vec![
            std::thread::spawn(move || here.inside(|| one.answer_datagrams(&udp))),
            std::thread::spawn(move || there.inside(|| other.accept(&tcp))),
        ];
        Self {
            seen: face.seen,
            stop: face.stop,
            threads,
        }
    }

    /// A server in the world outside, at `198.51.100.LAST`.
    pub(crate) fn outside(
        stage: &Stage,
        last: u8,
        script: impl Fn(&Seen) -> Vec<Deed> + Send + Sync + 'static,
    ) -> Self {
        let address = outside_address(stage, last);
        Self::at(&stage.far(), address, script)
    }

    /// Everything that it was asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How often it was asked for a name.
    pub(crate) fn count(&self, name: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.asked() == name).count()
    }

    /// How often it was asked.
    pub(crate) fn total(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// An address in the world outside.
pub(crate) fn outside_address(stage: &Stage, last: u8) -> IpAddr {
    let text = format!("198.51.100.{last}");
    if last != 1 {
        stage.shell_outside(&format!("ip address replace {text}/32 dev lo"));
    }
    text.parse().unwrap()
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Face {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Remembers a query; what is to be done about it.
    fn take(&self, bytes: &[u8], from: SocketAddr, over_tcp: bool) -> Vec<Deed> {
        let Some(message) = Message::read(bytes) else {
            return vec![];
        };
        let seen = Seen {
            bytes: bytes.to_vec(),
            name: message.name,
            id: message.id,
            from,
            over_tcp,
        };
        self.seen.lock().unwrap().push(seen.clone());
        (self.script)(&seen)
    }

    fn answer_datagrams(&self, socket: &UdpSocket) {
        let mut bytes = [0; 4_096];
        std::thread::scope(|scope| {
            while self.goes_on() {
                let Ok((length, from)) = socket.recv_from(&mut bytes) else {
                    continue;
                };
                let deeds = self.take(&bytes[..length], from, false);
                if deeds.iter().any(|deed| matches!(deed, Deed::Wait(_))) {
                    scope.spawn(move || self.send(socket, from, deeds));
                } else {
                    self.send(socket, from, deeds);
                }
            }
        });
    }

    fn send(&self, socket: &UdpSocket, to: SocketAddr, deeds: Vec<Deed>) {
        for deed in deeds {
            // Whoever asked may be gone.
            match deed {
                Deed::Send(bytes) | Deed::Raw(bytes) => drop(socket.send_to(&bytes, to)),
                Deed::SendFrom(from, bytes) => {
                    let other = UdpSocket::bind(from).unwrap();
                    drop(other.send_to(&bytes, to));
                }
                Deed::Wait(time) => self.wait(time),
                Deed::Close => return,
            }
        }
    }

    /// Waits, unless the server is to end.
    fn wait(&self, time: Duration) {
        wait_until(time, || !self.goes_on());
    }

    fn accept(&self, listener: &TcpListener) {
        std::thread::scope(|scope| {
            while self.goes_on() {
                match listener.accept() {
                    Ok((stream, from)) => drop(scope.spawn(move || self.converse(stream, from))),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
    }

    fn converse(&self, mut stream: TcpStream, from: SocketAddr) {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LOOK)).unwrap();
        while self.goes_on() {
            let query = match read_framed(&mut stream) {
                Ok(query) => query,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return,
            };
            for deed in self.take(&query, from, true) {
                let written = match deed {
                    Deed::Send(bytes) => stream.write_all(&framed(&bytes)),
                    Deed::Raw(bytes) => stream.write_all(&bytes),
                    Deed::Wait(time) => {
                        self.wait(time);
                        Ok(())
                    }
                    Deed::SendFrom(..) => Ok(()),
                    Deed::Close => return,
                };
                if written.is_err() {
                    return;
                }
            }
        }
    }
}

/// A real server, killed when dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    /// Its files.
    _directory: tempfile::TempDir,
}

/// The zone that real servers have, as unbound and others read it.
pub(crate) const ZONE: &str = "\
$ORIGIN corp.example.
@ 3600 IN SOA ns root 1 3600 600 86400 120
@ 3600 IN NS ns
@ 300 IN MX 10 mail
ns 3600 IN A 10.9.9.1
mail 300 IN A 10.9.9.2
www 300 IN A 10.9.9.3
www 300 IN AAAA 2001:db8:9::3
alias 300 IN CNAME other
other 300 IN CNAME www
short 1 IN A 10.9.9.4
";

impl Program {
    /// unbound(8) at an address of a place, with [`ZONE`] and a TXT record `big` of 3,000 bytes; none, after the
    /// test was declared skipped, where it is not installed.
    pub(crate) fn unbound(place: &Place, address: IpAddr) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let strings = format!("\"{}\" ", "y".repeat(250)).repeat(12);
        let zone = format!("{ZONE}big 300 IN TXT ( {strings})\n");
        std::fs::write(directory.path().join("zone"), zone).unwrap();
        let settings = format!(
            "server:\n interface: {address}\n username: \"\"\n chroot: \"\"\n directory: \"{path}\"\n pidfile: \"\"\n \
             use-syslog: no\n do-daemonize: no\n access-control: 0.0.0.0/0 allow\n \
             access-control: ::/0 allow\n module-config: \"iterator\"\n num-threads: 1\n \
             outgoing-range: 64\n so-rcvbuf: 0\nremote-control:\n control-enable: no\n\
             auth-zone:\n name: \"corp.example.\"\n zonefile: \"{path}/zone\"\n for-downstream: no\n \
             for-upstream: yes\n fallback-enabled: no\n"
        );
        let file = directory.path().join("unbound.conf");
        std::fs::write(&file, settings).unwrap();
        let words = ["unbound", "-d", "-c", file.to_str().unwrap()];
        Self::start(place, "unbound", &words, address, directory)
    }

    /// dnsmasq(8) at an address of a place, with these words; none, after the test was declared skipped, where it
    /// is not installed.
    pub(crate) fn dnsmasq(place: &Place, address: IpAddr, words: &[&str]) -> Option<Self> {
        let listen = format!("--listen-address={address}");
        let fixed = [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--except-interface=nothing",
            "--pid-file=",
            "--user=root",
            "--log-facility=-",
            "--local=/corp.example/",
            listen.as_str(),
        ];
        let words: Vec<&str> = fixed.into_iter().chain(words.iter().copied()).collect();
        let directory = tempfile::tempdir().unwrap();
        Self::start(place, "dnsmasq-base", &words, address, directory)
    }

    fn start(
        place: &Place,
        package: &str,
        words: &[&str],
        address: IpAddr,
        directory: tempfile::TempDir,
    ) -> Option<Self> {
        let known = Command::new("sh")
            .args(["-c", &format!("command -v {}", words[0])])
            .stdout(Stdio::null())
            .status();
        if !known.is_ok_and(|status| status.success()) {
            skip(&format!("no {}: install Debian's {package}", words[0]));
            return None;
        }
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut net = std::ffi::OsString::from("--net=");
        net.push(&place.netns);
        let child = Command::new("nsenter")
            .arg(net)
            .arg("--")
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let program = Self {
            child: child.unwrap(),
            _directory: directory,
        };
        let to = SocketAddr::new(address, PORT);
        let answers = wait_until(PATIENCE, || place.inside(|| answers(to)));
        assert!(answers, "{words:?} does not answer at {to}");
        Some(program)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

/// Whether a server says anything.
fn answers(to: SocketAddr) -> bool {
    let ask = || {
        let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }
            .parse()
            .unwrap();
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(LOOK * 4))?;
        socket.send(&Query::new("ready.corp.example", A).bytes())?;
        socket.recv(&mut [0; 512])
    };
    io::Result::is_ok(&ask())
}
