//! Multicast DNS: a responder for each sandbox on a network that asks for it, in the sandbox's own namespace. What a
//! program there sends to the group comes back to the responder by itself, so it works where the network carries no
//! multicast at all.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::BindToDevice;
use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt;
use tokio::task::{JoinHandle, spawn_local};
use tombolo_dns::mdns::{PORT, Responder, Sender};
use tombolo_kernel::SocketKind;
use tombolo_netstate::Netns;

use super::service::Service;
use crate::limits::NAMES_QUERY_BYTES_MAX;
use crate::pause::Pause;

/// The groups of RFC 6762, section 3.
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// The hop limit of what is sent (RFC 6762, section 11).
const HOPS: u32 = 255;

/// An interface at which a sandbox wants a responder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Post {
    /// Its name in the sandbox.
    pub(crate) interface: String,
    /// Its IPv4 address.
    pub(crate) v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub(crate) v6: Option<Ipv6Addr>,
    /// What stands there.
    pub(crate) responder: Responder,
}

/// The responders of all sandboxes.
#[derive(Debug, Default)]
pub(super) struct Responders(BTreeMap<Netns, Stand>);

/// Those of one namespace.
#[derive(Debug)]
struct Stand {
    posts: Vec<Post>,
    _tasks: Vec<Task>,
    /// Whether nothing is missing.
    is_whole: bool,
}

/// A task that ends with this.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Responders {
    /// Has responders at these posts of a namespace, and no others.
    pub(super) fn set(&mut self, service: &Rc<Service>, netns: Netns, posts: Vec<Post>) {
        let stands = |now: &Stand| now.is_whole && now.posts == posts;
        if self.0.get(&netns).is_some_and(stands) {
            return;
        }
        // The old ones are to leave the port first.
        self.0.remove(&netns);
        let mut tasks = Vec::new();
        let mut is_whole = true;
        for post in &posts {
            let families = [post.v4.map(|_| false), post.v6.map(|_| true)];
            for ipv6 in families.into_iter().flatten() {
                match open(service, &netns, post, ipv6) {
                    Ok((socket, group)) => {
                        let work = serve(Rc::clone(service), (socket, group), post.clone());
                        tasks.push(Task(spawn_local(work)));
                    }
                    Err(error) => {
                        let interface = &post.interface;
                        tracing::warn!(%netns, interface, %error, "no multicast DNS here");
                        is_whole = false;
                    }
                }
            }
        }
        if !posts.is_empty() {
            let stand = Stand {
                posts,
                _tasks: tasks,
                is_whole,
            };
            self.0.insert(netns, stand);
        }
    }

    /// Has the responders of a namespace in whatever has its name now.
    pub(super) fn open_again(&mut self, service: &Rc<Service>, netns: &Netns) {
        if let Some(stand) = self.0.remove(netns) {
            self.set(service, netns.clone(), stand.posts);
        }
    }
}

/// A socket at the group of one interface, and the group; others of the sandbox may share the port.
fn open(
    service: &Service,
    netns: &Netns,
    post: &Post,
    ipv6: bool,
) -> io::Result<(UdpSocket, SocketAddr)> {
    let socket: OwnedFd = service.socket(netns, SocketKind::Datagram, ipv6)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    // Questions on the sandbox's other networks are for the responders there.
    setsockopt(&socket, BindToDevice, &OsString::from(&post.interface))?;
    let group = if ipv6 {
        let index = name_to_index(socket.as_fd(), &post.interface)?;
        sockopt::set_ipv6_v6only(&socket, true)?;
        sockopt::set_ipv6_add_membership(&socket, &GROUP_V6, index)?;
        sockopt::set_ipv6_multicast_hops(&socket, HOPS)?;
        SocketAddr::V6(SocketAddrV6::new(GROUP_V6, PORT, 0, index))
    } else {
        let own = post.v4.unwrap_or(Ipv4Addr::UNSPECIFIED);
        sockopt::set_ip_add_membership(&socket, &GROUP_V4, &own)?;
        sockopt::set_ip_multicast_if(&socket, &own)?;
        sockopt::set_ip_multicast_ttl(&socket, HOPS)?;
        SocketAddr::new(GROUP_V4.into(), PORT)
    };
    rustix::net::bind(&socket, &group)?;
    Ok((UdpSocket::from(socket), group))
}

async fn serve(service: Rc<Service>, (socket, group): (UdpSocket, SocketAddr), post: Post) {
    let socket = match tokio::net::UdpSocket::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, "multicast DNS cannot be served");
            return;
        }
    };
    let mut buffer = vec![0; NAMES_QUERY_BYTES_MAX];
    let mut pause = Pause::default();
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                pause.after(&error).await;
                continue;
            }
        };
        pause.reset();
        let sender = Sender {
            is_own: post.is_own(from),
            port: from.port(),
        };
        let response = {
            let book = service.shared.read();
            let query = &buffer[..length];
            let ours = (&book.names, book.settings.ttl_seconds);
            post.responder.respond(ours, query, sender)
        };
        if let Some(response) = response {
            let to = if response.unicast { from } else { group };
            // Multicast may be lost; who asks asks again.
            drop(socket.send_to(&response.bytes, to).await);
        }
    }
}

impl Post {
    fn is_own(&self, from: SocketAddr) -> bool {
        match from {
            SocketAddr::V4(from) => self.v4 == Some(*from.ip()),
            SocketAddr::V6(from) => self.v6 == Some(*from.ip()),
        }
    }
}
