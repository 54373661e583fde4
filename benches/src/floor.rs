//! The floor: the kernel work of an attach and nothing else. One socket in each namespace, one message to it
//! for all requests that can go together, one acknowledgement, no bookkeeping.

pub(crate) mod requests;
pub(crate) mod socket;
pub(crate) mod wire;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use self::requests::{Address, End};
use self::socket::{IPV6_ADDRESS_NEWS, Socket};
use self::wire::Batch;

/// Number of the bridge.
const BRIDGE: u32 = 10;
/// The first port's number; its other end has the next.
const FIRST_PORT: u32 = 0x1_0000;
const BRIDGE_MAC: [u8; 6] = [0x02, 0xf1, 0, 0, 0, 1];
/// Where names are asked for in a sandbox.
const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
/// A thread's own namespace.
const OWN_NETNS: &str = "/proc/thread-self/ns/net";

/// How the endpoints of a network are tied together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// As the daemon does: nothing flooded, permanent neighbours, routed through the bridge.
    Hub,
    /// A bridge as the kernel makes it when nothing is said: the usual peer.
    Plain,
}

/// Where an endpoint's namespace comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Made within the measured time.
    Fresh,
    /// Made before by [`Floor::prepare`].
    Prepared,
}

/// A host of its own with one bridge.
#[derive(Debug)]
pub(crate) struct Floor {
    style: Style,
    home: File,
    socket: Socket,
    directory: PathBuf,
    prepared: VecDeque<File>,
    named: Vec<PathBuf>,
    listening: Vec<(UdpSocket, TcpListener)>,
    count: u32,
}

/// What one attach needs to know.
#[derive(Debug)]
struct Wanted {
    outer: String,
    outer_index: u32,
    inner_index: u32,
    mac: [u8; 6],
    addresses: [Address; 2],
    alias: String,
    path: PathBuf,
}

impl Floor {
    /// Moves the calling thread into a new host, from where all else is to be called. Namespaces are named in
    /// `directory`.
    pub(crate) fn open(directory: &Path, style: Style) -> anyhow::Result<Self> {
        enter_new_host()?;
        fs::create_dir_all(directory)?;
        let mut socket = Socket::open(0)?;
        let mut batch = Batch::default();
        let end = End {
            index: BRIDGE,
            name: "floor0",
            mac: BRIDGE_MAC,
        };
        requests::bridge(&mut batch, end, style == Style::Hub);
        for mut address in addresses(0) {
            address.ip = address.gateway;
            requests::address(&mut batch, BRIDGE, &address, true);
        }
        socket
            .run(batch, &mut |_| {})
            .context("the floor's bridge")?;
        Ok(Self {
            style,
            home: File::open(OWN_NETNS)?,
            socket,
            directory: directory.to_owned(),
            prepared: VecDeque::new(),
            named: Vec::new(),
            listening: Vec::new(),
            count: 0,
        })
    }

    /// Makes namespaces ahead.
    pub(crate) fn prepare(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            enter_new_host()?;
            self.prepared.push_back(File::open(OWN_NETNS)?);
        }
        self.go_home()
    }

    /// Attaches one more endpoint; how long it took.
    pub(crate) fn attach(&mut self, source: Source) -> anyhow::Result<Duration> {
        let wanted = self.wanted();
        let began = Instant::now();
        let (netns, mut inside) = self.namespace(source, &wanted.path)?;
        let mut batch = Batch::default();
        let (outer, inner) = (
            End {
                index: wanted.outer_index,
                name: &wanted.outer,
                mac: port_mac(wanted.outer_index),
            },
            End {
                index: wanted.inner_index,
                name: "eth0",
                mac: wanted.mac,
            },
        );
        requests::veth(&mut batch, outer, inner, BRIDGE, netns.as_raw_fd());
        self.socket
            .run(batch, &mut |_| {})
            .with_context(|| format!("veth {}", self.count))?;
        match self.style {
            Style::Hub => self.finish_hub(&wanted, &mut inside, source)?,
            Style::Plain => self.finish_plain(&wanted, &mut inside, source)?,
        }
        drop(inside);
        if self.style == Style::Hub {
            self.listen(&netns)?;
        }
        let took = began.elapsed();
        self.named.push(wanted.path);
        Ok(took)
    }

    /// Opens the sockets at which names are asked for in a sandbox.
    fn listen(&mut self, netns: &File) -> anyhow::Result<()> {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        let udp = UdpSocket::bind(RESOLVER);
        let tcp = TcpListener::bind(RESOLVER);
        self.go_home()?;
        self.listening.push((udp?, tcp?));
        Ok(())
    }

    /// Where endpoint `n` is named, counted from 0, and its addresses, IPv6 last.
    pub(crate) fn endpoint(&self, n: u32) -> (PathBuf, [IpAddr; 2]) {
        (
            self.directory.join(format!("{n:08x}")),
            addresses(n).map(|address| address.ip),
        )
    }

    /// The bridge's addresses, IPv6 last.
    pub(crate) fn gateways(&self) -> [IpAddr; 2] {
        addresses(0).map(|address| address.gateway)
    }

    /// Removes all endpoints and waits until their links are gone.
    pub(crate) fn clear(&mut self) -> anyhow::Result<()> {
        self.listening.clear();
        let mut batch = Batch::default();
        requests::remove_group(&mut batch);
        if !self.named.is_empty() {
            self.socket.run(batch, &mut |_| {})?;
        }
        for path in self.named.drain(..) {
            umount2(&path, MntFlags::MNT_DETACH)?;
            fs::remove_file(&path)?;
        }
        Ok(())
    }

    fn wanted(&mut self) -> Wanted {
        let n = self.count;
        self.count += 1;
        let outer_index = FIRST_PORT + 2 * n;
        let [_, b, c, d] = n.to_be_bytes();
        Wanted {
            outer: format!("fl{n:08x}"),
            outer_index,
            inner_index: outer_index + 1,
            mac: [0x02, 0xf2, 0, b, c, d],
            addresses: addresses(n),
            alias: format!("floor:00000000:endpoint/{n:032x}"),
            path: self.endpoint(n).0,
        }
    }

    /// A namespace under its name, and a socket in it.
    fn namespace(&mut self, source: Source, path: &Path) -> anyhow::Result<(File, Socket)> {
        OpenOptions::new().write(true).create_new(true).open(path)?;
        let netns = match source {
            Source::Fresh => {
                unshare(CloneFlags::CLONE_NEWNET)?;
                File::open(OWN_NETNS)?
            }
            Source::Prepared => {
                let netns = self.prepared.pop_front().context("none was prepared")?;
                setns(&netns, CloneFlags::CLONE_NEWNET)?;
                netns
            }
        };
        let none = None::<&str>;
        mount(Some(OWN_NETNS), path, none, MsFlags::MS_BIND, none)?;
        let socket = Socket::open(IPV6_ADDRESS_NEWS)?;
        self.go_home()?;
        Ok((netns, socket))
    }

    fn finish_hub(
        &mut self,
        wanted: &Wanted,
        inside: &mut Socket,
        source: Source,
    ) -> anyhow::Result<()> {
        switch_ipv6_off(&wanted.outer)?;
        let mut host = Batch::default();
        requests::port(&mut host, wanted.outer_index, &wanted.alias);
        for address in &wanted.addresses {
            requests::neighbour(&mut host, BRIDGE, address.ip, wanted.mac);
        }
        requests::forward(&mut host, wanted.outer_index, wanted.mac);
        self.socket.run(host, &mut |_| {}).context("the port")?;
        let index = wanted.inner_index;
        let mut batch = Batch::default();
        if source == Source::Fresh {
            requests::up(&mut batch, 1);
        }
        requests::no_link_local(&mut batch, index, Some(&wanted.alias));
        requests::up(&mut batch, index);
        for address in &wanted.addresses {
            requests::address(&mut batch, index, address, false);
        }
        for address in &wanted.addresses {
            requests::neighbour(&mut batch, index, address.gateway, BRIDGE_MAC);
            requests::route(&mut batch, index, address, false);
            requests::route(&mut batch, index, address, true);
        }
        run_inside(inside, batch, wanted)
    }

    fn finish_plain(
        &mut self,
        wanted: &Wanted,
        inside: &mut Socket,
        source: Source,
    ) -> anyhow::Result<()> {
        let mut host = Batch::default();
        requests::up(&mut host, wanted.outer_index);
        self.socket.run(host, &mut |_| {}).context("the port")?;
        let index = wanted.inner_index;
        let mut batch = Batch::default();
        if source == Source::Fresh {
            requests::up(&mut batch, 1);
        }
        requests::up(&mut batch, index);
        for address in &wanted.addresses {
            requests::address(&mut batch, index, address, true);
        }
        for address in &wanted.addresses {
            requests::route(&mut batch, index, address, true);
        }
        run_inside(inside, batch, wanted)
    }

    fn go_home(&self) -> anyhow::Result<()> {
        setns(&self.home, CloneFlags::CLONE_NEWNET).context("cannot return from a namespace")
    }
}

/// Moves the calling thread, and what it starts from now on, to a new host whose loopback is up.
pub(crate) fn enter_new_host() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace: are you root?")?;
    let mut batch = Batch::default();
    requests::up(&mut batch, 1);
    Socket::open(0)?
        .run(batch, &mut |_| {})
        .context("loopback")?;
    Ok(())
}

fn run_inside(inside: &mut Socket, batch: Batch, wanted: &Wanted) -> anyhow::Result<()> {
    let (index, ip) = (wanted.inner_index, wanted.addresses[1].ip);
    let mut usable = false;
    inside
        .run(batch, &mut |message| {
            usable |= socket::is_usable(message, index, ip);
        })
        .context("inside")?;
    if !usable {
        inside.await_usable(index, ip)?;
    }
    Ok(())
}

fn switch_ipv6_off(link: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    OpenOptions::new().write(true).open(path)?.write_all(b"1")
}

fn port_mac(index: u32) -> [u8; 6] {
    let [a, b, c, d] = index.to_be_bytes();
    [0x02, 0xf3, a, b, c, d]
}

/// The two addresses of endpoint `n`, IPv6 last.
fn addresses(n: u32) -> [Address; 2] {
    let host = n + 2;
    let base = u32::from(Ipv4Addr::new(10, 88, 0, 0));
    let v6 = |last: u32| {
        let [a, b, c, d] = last.to_be_bytes();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        IpAddr::V6(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, high, low))
    };
    [
        Address {
            ip: Ipv4Addr::from(base + host).into(),
            prefix: 16,
            network: Ipv4Addr::from(base).into(),
            gateway: Ipv4Addr::from(base + 1).into(),
        },
        Address {
            ip: v6(host),
            prefix: 64,
            network: v6(0),
            gateway: v6(1),
        },
    ]
}
