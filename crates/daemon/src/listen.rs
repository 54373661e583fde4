//! Where the daemon listens: Unix sockets with a mode and a group, sockets that systemd holds, and TCP
//! with mutual TLS.

mod inherited;
pub mod notify;
mod unix;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tombolo_api::Address;
use tombolo_api::tls::{TlsError, TlsFiles};

pub use inherited::inherited;
pub use unix::unix;

use self::unix::SocketFile;

/// Something that connections are taken from.
pub struct Listener(Kind);

enum Kind {
    Unix {
        listener: UnixListener,
        file: Option<SocketFile>,
    },
    Tcp {
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
    },
}

/// A connection that was taken.
pub enum Stream {
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TCP in the clear, from this host.
    Tcp(TcpStream),
    /// Over TCP, of which the TLS handshake is still to be done.
    Tls {
        /// The connection.
        stream: TcpStream,
        /// What does the handshake.
        acceptor: TlsAcceptor,
    },
}

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another daemon answers on the socket.
    #[error("another daemon listens on {}", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket is in the way.
    #[error("{} exists and is no socket", path.display())]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// No group has this name.
    #[error("there is no group {name:?} to give {} to", path.display())]
    UnknownGroup {
        /// The name.
        name: String,
        /// The socket.
        path: PathBuf,
    },
    /// A step of making the Unix socket failed.
    #[error("cannot {step} {}", path.display())]
    Socket {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Calls would travel in the clear over a network.
    #[error("will not listen on tcp://{address} without TLS")]
    PlainTcp {
        /// The address.
        address: SocketAddr,
    },
    /// A host name may stand for several addresses, and for others tomorrow.
    #[error("cannot listen on {host:?}: give an IP address of this host")]
    HostName {
        /// The name.
        host: String,
    },
    /// The TCP port cannot be had.
    #[error("cannot listen on tcp://{address}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The TLS files cannot be used.
    #[error("cannot set up TLS")]
    Tls {
        /// Which file, and why.
        source: TlsError,
    },
    /// A file descriptor handed over by the service manager is no listening socket.
    #[error("file descriptor {descriptor} from the service manager is no stream socket")]
    Inherited {
        /// The file descriptor.
        descriptor: usize,
        /// What was found.
        source: io::Error,
    },
}

/// Listens on an address; a Unix socket is given to a group. Must be called inside a runtime.
pub async fn listen(address: &Address, group: Option<&str>) -> Result<Listener, ListenError> {
    match address {
        Address::Unix(path) => unix(path, group),
        Address::Tcp { host, port, tls } => {
            let ip: IpAddr = host
                .parse()
                .map_err(|_| ListenError::HostName { host: host.clone() })?;
            tcp(SocketAddr::new(ip, *port), tls.as_ref()).await
        }
    }
}

/// Listens on a TCP port with mutual TLS; a loopback address does without. Must be called inside a runtime.
pub async fn tcp(address: SocketAddr, tls: Option<&TlsFiles>) -> Result<Listener, ListenError> {
    let tls = acceptor(address, tls)?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ListenError::Tcp { address, source })?;
    Ok(Listener(Kind::Tcp { listener, tls }))
}

/// What does TLS on an address. Refuses to do without, except on loopback.
fn acceptor(
    address: SocketAddr,
    tls: Option<&TlsFiles>,
) -> Result<Option<TlsAcceptor>, ListenError> {
    match tls {
        Some(files) => {
            let config = files
                .server_config()
                .map_err(|source| ListenError::Tls { source })?;
            Ok(Some(TlsAcceptor::from(config)))
        }
        None if address.ip().is_loopback() => Ok(None),
        None => Err(ListenError::PlainTcp { address }),
    }
}

impl Listener {
    /// Takes the next connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        match &self.0 {
            Kind::Unix { listener, .. } => Ok(Stream::Unix(listener.accept().await?.0)),
            Kind::Tcp { listener, tls } => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(match tls {
                    Some(acceptor) => Stream::Tls {
                        stream,
                        acceptor: acceptor.clone(),
                    },
                    None => Stream::Tcp(stream),
                })
            }
        }
    }

    /// The TCP address that it has, with the port that the kernel chose.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Unix { .. } => None,
            Kind::Tcp { listener, .. } => listener.local_addr().ok(),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Unix {
                file: Some(file), ..
            } => write!(f, "unix://{}", file.path().display()),
            Kind::Unix { file: None, .. } => f.write_str("unix socket from the service manager"),
            Kind::Tcp { listener, .. } => match listener.local_addr() {
                Ok(address) => write!(f, "tcp://{address}"),
                Err(_) => f.write_str("tcp socket"),
            },
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({self})")
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unix(_) => "Stream::Unix",
            Self::Tcp(_) => "Stream::Tcp",
            Self::Tls { .. } => "Stream::Tls",
        })
    }
}

#[cfg(test)]
mod tests;
