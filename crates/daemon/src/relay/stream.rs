//! Streams: a client's connection and the one to the sandbox, made into one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{Shutdown, shutdown, sockopt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use super::flow::Service;
use crate::limits::RELAY_KEEPALIVE;

/// One end of what is relayed.
#[derive(Debug)]
pub(super) enum End {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl End {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(data),
            Self::Unix(stream) => stream.try_write(data),
        }
    }

    /// Makes a close from here on a reset, or the ordinary end of a stream. Unix sockets have no resets.
    pub(super) fn reset_when_closed(&self, reset: bool) -> io::Result<()> {
        if let Self::Tcp(stream) = self {
            sockopt::set_socket_linger(stream, reset.then_some(Duration::ZERO))?;
        }
        Ok(())
    }

    /// Small pieces are not held back, and a peer that vanished is noticed.
    fn prepare(&self) -> io::Result<()> {
        if let Self::Tcp(stream) = self {
            stream.set_nodelay(true)?;
            sockopt::set_socket_keepalive(stream, true)?;
            sockopt::set_tcp_keepidle(stream, RELAY_KEEPALIVE)?;
        }
        Ok(())
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Connects a client to its target and carries both directions to their ends. Whatever ends it early, be it a
/// change of routes, resets both.
pub(super) async fn relay(service: Rc<Service>, client: End, target: SocketAddr) {
    if let Err(error) = carry(&service, client, target).await {
        tracing::debug!(%target, %error, "a relayed connection broke off");
    }
}

async fn carry(service: &Service, client: End, target: SocketAddr) -> io::Result<()> {
    client.reset_when_closed(true)?;
    client.prepare()?;
    let connected = timeout(service.bounds.connect, TcpStream::connect(target)).await;
    let server = End::Tcp(connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??);
    server.reset_when_closed(true)?;
    server.prepare()?;
    tokio::try_join!(
        forward(service, &client, &server),
        forward(service, &server, &client)
    )?;
    client.reset_when_closed(false)?;
    server.reset_when_closed(false)?;
    Ok(())
}

/// Carries one direction until its end, which is passed on. The buffer is everybody's; only what the receiver
/// does not take at once is kept apart, and nothing more is read until it has.
async fn forward(service: &Service, from: &End, to: &End) -> io::Result<()> {
    loop {
        consume_budget().await;
        from.readable().await?;
        let rest = {
            let mut buffer = service.buffer.borrow_mut();
            let length = match from.try_read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                length => length?,
            };
            if length == 0 {
                break;
            }
            let sent = write_some(to, &buffer[..length])?;
            buffer[sent..length].to_vec()
        };
        let mut sent = 0;
        while sent < rest.len() {
            to.writable().await?;
            sent += write_some(to, &rest[sent..])?;
        }
    }
    shutdown(to, Shutdown::Write)?;
    Ok(())
}

/// How much was taken at once, perhaps nothing.
fn write_some(to: &End, data: &[u8]) -> io::Result<usize> {
    match to.try_write(data) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        length => length,
    }
}
