//! Whether packets flow between endpoints.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};
use tombolo_api::Sandbox;

use crate::netns::Netns;

/// Longest way of a packet.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked for a connection.
const POLL: Duration = Duration::from_millis(1);

/// Sends a packet there and back between pairs from all over the list, by each family; how many pairs
/// answered with every first packet.
pub(crate) fn pairs(sandboxes: &[Sandbox], count: usize) -> anyhow::Result<usize> {
    if sandboxes.len() < 2 {
        bail!("there are no two sandboxes");
    }
    let step = (sandboxes.len() / count).max(1);
    let mut reached = 0;
    for n in 0..count {
        let near = &sandboxes[n * step % sandboxes.len()];
        let far = &sandboxes[(n * step + sandboxes.len() / 2) % sandboxes.len()];
        let mut whole = true;
        for ipv6 in [false, true] {
            whole &= is_reached(near, far, ipv6)
                .with_context(|| format!("from {} to {}", near.name, far.name))?;
        }
        reached += usize::from(whole);
    }
    Ok(reached)
}

fn is_reached(near: &Sandbox, far: &Sandbox, ipv6: bool) -> anyhow::Result<bool> {
    let (here, there) = (open(near, ipv6)?, open(far, ipv6)?);
    here.send_to(b"there", there.local_addr()?)?;
    let mut bytes = [0; 16];
    let Some((length, from)) = heard(there.recv_from(&mut bytes))? else {
        return Ok(false);
    };
    if &bytes[..length] != b"there" || from != here.local_addr()? {
        return Ok(false);
    }
    there.send_to(b"back", from)?;
    Ok(heard(here.recv_from(&mut bytes))?.is_some_and(|(length, _)| &bytes[..length] == b"back"))
}

/// None when nothing came in time.
fn heard<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// A socket at the sandbox's address, opened within.
fn open(sandbox: &Sandbox, ipv6: bool) -> anyhow::Result<UdpSocket> {
    let path = sandbox.netns.as_ref().context("it has no namespace")?;
    let addresses = sandbox
        .endpoints
        .iter()
        .flat_map(|endpoint| &endpoint.addresses);
    let ip = addresses
        .filter_map(|text| text.split('/').next()?.parse::<IpAddr>().ok())
        .find(|ip| ip.is_ipv6() == ipv6)
        .context("it has no address of that family")?;
    let home = File::open("/proc/thread-self/ns/net")?;
    setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
    let socket = UdpSocket::bind((ip, 0));
    setns(home, CloneFlags::CLONE_NEWNET).context("cannot return from a sandbox")?;
    let socket = socket.with_context(|| format!("cannot use {ip}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Makes sure that a port of a host leads to a port within a namespace: a connection of the host itself to
/// 127.0.0.1 arrives there.
pub(crate) fn published(
    home: &Netns,
    port: u16,
    (place, addresses, inside): (&Netns, &[IpAddr], u16),
) -> anyhow::Result<()> {
    let ip = addresses.iter().find(|ip| ip.is_ipv4());
    let ip = *ip.context("it has no IPv4 address")?;
    let listener = place.inside(move || Ok(TcpListener::bind((ip, inside))?))?;
    listener.set_nonblocking(true)?;
    let target = (Ipv4Addr::LOCALHOST, port).into();
    let near = home.inside(move || Ok(TcpStream::connect_timeout(&target, PATIENCE)?));
    let near = near.with_context(|| format!("port {port} leads nowhere"))?;
    let far = accepted(&listener)?;
    let far = far.with_context(|| format!("port {port} leads somewhere else than to {ip}"))?;
    drop((near, far));
    Ok(())
}

/// A proxy has taken a connection before it makes its own, for which there is time.
fn accepted(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    let end = Instant::now() + PATIENCE;
    loop {
        match heard(listener.accept())? {
            Some((stream, _)) => return Ok(Some(stream)),
            None if Instant::now() > end => return Ok(None),
            None => thread::sleep(POLL),
        }
    }
}
