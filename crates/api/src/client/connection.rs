//! One HTTP/1.1 connection that is kept open.

use std::io;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::error::ClientError;
use crate::address::Address;
use crate::limits;

/// An open connection.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    served: bool,
}

/// Why an exchange on an open connection failed.
#[derive(Debug)]
pub(super) enum ExchangeError {
    /// The connection broke; `unsent` when nothing of the request went out.
    Broken { unsent: bool, source: hyper::Error },
    /// The answer is larger than we read.
    TooLarge,
}

impl ExchangeError {
    /// Whether the request can be sent again without being carried out twice.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(self, Self::Broken { unsent: true, .. })
    }

    /// Whether the connection ended before the whole answer was there.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Broken { .. })
    }

    /// The same, as the caller of the client sees it.
    pub(super) fn into_client(self, address: &Address) -> ClientError {
        let address = address.clone();
        match self {
            Self::Broken { source, .. } => ClientError::Lost { address, source },
            Self::TooLarge => ClientError::AnswerTooLarge { address },
        }
    }
}

impl Connection {
    /// Opens a connection.
    pub(super) async fn open(
        address: &Address,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self, ClientError> {
        timeout(limits::CONNECT_TIMEOUT, Self::establish(address, tls))
            .await
            .map_err(|_| ClientError::ConnectTimeout {
                address: address.clone(),
            })?
    }

    async fn establish(
        address: &Address,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self, ClientError> {
        let refused = |source| connect_error(address, source);
        match address {
            Address::Unix(path) => {
                Self::speak(address, UnixStream::connect(path).await.map_err(refused)?).await
            }
            Address::Tcp { host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(refused)?;
                stream.set_nodelay(true).map_err(refused)?;
                let Some(config) = tls else {
                    return Self::speak(address, stream).await;
                };
                let name = ServerName::try_from(host.clone()).map_err(|source| {
                    ClientError::ServerName {
                        host: host.clone(),
                        source,
                    }
                })?;
                let stream = TlsConnector::from(config)
                    .connect(name, stream)
                    .await
                    .map_err(|source| ClientError::Handshake {
                        address: address.clone(),
                        source,
                    })?;
                Self::speak(address, stream).await
            }
        }
    }

    async fn speak<S>(address: &Address, stream: S) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|source| ClientError::Lost {
                    address: address.clone(),
                    source,
                })?;
        // What goes wrong on the connection is told to the sender as well.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self {
            sender,
            served: false,
        })
    }

    /// Whether the other end still holds the connection, as far as the kernel has told.
    pub(super) async fn is_open(&self) -> bool {
        // The first yield lets the runtime poll the socket, the second lets the connection see the result.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        self.sender.is_ready()
    }

    /// Whether a request was answered on it.
    pub(super) fn has_served(&self) -> bool {
        self.served
    }

    /// Sends a request and reads the whole answer: status and body.
    pub(super) async fn send(
        &mut self,
        request: hyper::Request<Bytes>,
    ) -> Result<(u16, Bytes), ExchangeError> {
        let response = match self.sender.try_send_request(request.map(Full::new)).await {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message().is_some();
                return Err(ExchangeError::Broken {
                    unsent,
                    source: error.into_error(),
                });
            }
        };
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), limits::RESPONSE_BYTES_MAX)
            .collect()
            .await;
        match body {
            Ok(body) => {
                self.served = true;
                Ok((status, body.to_bytes()))
            }
            Err(error) => Err(match error.downcast::<hyper::Error>() {
                Ok(source) => ExchangeError::Broken {
                    unsent: false,
                    source: *source,
                },
                Err(other) => {
                    debug_assert!(other.is::<LengthLimitError>());
                    ExchangeError::TooLarge
                }
            }),
        }
    }
}

fn connect_error(address: &Address, source: io::Error) -> ClientError {
    let address = address.clone();
    match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::NotAllowed { address, source },
        _ => ClientError::NoDaemon { address, source },
    }
}
