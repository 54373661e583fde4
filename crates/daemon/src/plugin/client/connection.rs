//! One connection to a plugin.

use std::io;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::Bounds;
use super::error::ConnectError;
use super::lookup;
use super::tls::client_config;
use crate::limits::{PLUGIN_PAUSE_MAX, PLUGIN_PAUSE_MIN};
use crate::plugin::discovery::{Address, Tls};

/// An open connection; it is closed with this.
pub(super) struct Connection {
    /// Sends requests.
    pub(super) sender: SendRequest<Full<Bytes>>,
    /// What moves the bytes; ends with this even in the middle of an answer.
    _mover: JoinSet<()>,
}

impl Connection {
    /// Opens a connection, if need be at a later try within the patience that there is.
    pub(super) async fn open(address: &Address, bounds: &Bounds) -> Result<Self, ConnectError> {
        let begin = Instant::now();
        let mut pause = PLUGIN_PAUSE_MIN;
        loop {
            let attempt = timeout(bounds.call, Self::establish(address)).await;
            let error = match attempt {
                Ok(Err(error)) if error.may_pass() => error,
                Ok(outcome) => return outcome,
                Err(_) => return Err(ConnectError::Timeout { after: bounds.call }),
            };
            let left = bounds.patience.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Err(error);
            }
            tracing::debug!(%address, "the plugin does not listen; trying again");
            sleep(pause.min(left)).await;
            pause = PLUGIN_PAUSE_MAX.min(pause * 2);
        }
    }

    async fn establish(address: &Address) -> Result<Self, ConnectError> {
        match address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                Self::speak(stream.map_err(ConnectError::Refused)?).await
            }
            Address::Tcp { host, port } => {
                let stream = connect(host, *port).await;
                Self::speak(stream.map_err(ConnectError::Refused)?).await
            }
            Address::Tls { host, port, tls } => {
                let name = ServerName::try_from(host.clone()).map_err(|source| {
                    let host = host.clone();
                    ConnectError::ServerName { host, source }
                })?;
                let config = read_config(tls.clone()).await?;
                let stream = connect(host, *port).await;
                let stream = stream.map_err(ConnectError::Refused)?;
                let secured = TlsConnector::from(config).connect(name, stream).await;
                Self::speak(secured.map_err(ConnectError::Handshake)?).await
            }
        }
    }

    async fn speak<S>(stream: S) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Http)?;
        let mut mover = JoinSet::new();
        // What goes wrong on the connection is told to the sender as well.
        mover.spawn(async move { drop(connection.await) });
        Ok(Self {
            sender,
            _mover: mover,
        })
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = lookup::addresses(host, port).await?;
    let stream = TcpStream::connect(addresses.as_slice()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The files are read for each connection, so that renewed certificates count at once.
async fn read_config(tls: Tls) -> Result<Arc<ClientConfig>, ConnectError> {
    let read = spawn_blocking(move || client_config(&tls)).await;
    let config = read.map_err(ConnectError::TlsRead)?;
    config.map_err(ConnectError::Tls)
}
