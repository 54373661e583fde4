//! Why a call failed, seen from the client.

use std::io;

use tokio_rustls::rustls::pki_types::InvalidDnsNameError;

use crate::address::Address;
use crate::error::{ApiError, ErrorKind};
use crate::limits;
use crate::tls::TlsError;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The daemon says no.
    #[error(transparent)]
    Api(Box<ApiError>),
    /// No daemon listens at the address.
    #[error("no daemon answers at {address}")]
    NoDaemon {
        /// The address.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// The caller may not use the socket.
    #[error("not allowed to use {address}")]
    NotAllowed {
        /// The address.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address has nobody who answers in time.
    #[error("connecting to {address} took longer than {} s", limits::CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout {
        /// The address.
        address: Address,
    },
    /// Calls would travel in the clear over a network.
    #[error("will not talk to {address} without TLS")]
    PlainTcp {
        /// The address.
        address: Address,
    },
    /// The TLS files cannot be used.
    #[error("cannot set up TLS")]
    TlsFiles {
        /// Which file, and why.
        source: Box<TlsError>,
    },
    /// The host of the address can be in no certificate.
    #[error("{host:?} can be in no certificate")]
    ServerName {
        /// The host.
        host: String,
        /// What the library said.
        source: InvalidDnsNameError,
    },
    /// The other end is not trusted, or does not trust us.
    #[error("cannot agree on TLS with {address}")]
    Handshake {
        /// The address.
        address: Address,
        /// What the library said.
        source: io::Error,
    },
    /// The connection broke during the call, of which the outcome is not known.
    #[error("lost the connection to {address} during the call")]
    Lost {
        /// The address.
        address: Address,
        /// What the library said.
        source: hyper::Error,
    },
    /// The answer is larger than the client reads.
    #[error(
        "the answer of {address} has more than {} bytes",
        limits::RESPONSE_BYTES_MAX
    )]
    AnswerTooLarge {
        /// The address.
        address: Address,
    },
    /// The answer is not of the shape that it should be.
    #[error("cannot read the answer with status {status}")]
    Answer {
        /// Its HTTP status.
        status: u16,
        /// What the reader said.
        source: serde_json::Error,
    },
    /// The call was refused by something that is no daemon of ours.
    #[error("the call was refused with status {status} and no reason")]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// The request cannot be written.
    #[error("cannot write the request")]
    Request {
        /// What the library said.
        source: hyper::http::Error,
    },
    /// The runtime behind blocking calls cannot start.
    #[error("cannot start the runtime of the client")]
    Runtime {
        /// What the kernel said.
        source: io::Error,
    },
}

impl ClientError {
    /// What the daemon said, if it was the daemon that refused.
    #[must_use]
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            _ => None,
        }
    }

    /// Who can do something about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Api(error) => error.kind,
            Self::NoDaemon { .. }
            | Self::NotAllowed { .. }
            | Self::ConnectTimeout { .. }
            | Self::Handshake { .. }
            | Self::Lost { .. } => ErrorKind::Unavailable,
            Self::PlainTcp { .. } | Self::TlsFiles { .. } | Self::ServerName { .. } => {
                ErrorKind::Invalid
            }
            Self::AnswerTooLarge { .. }
            | Self::Answer { .. }
            | Self::Status { .. }
            | Self::Request { .. }
            | Self::Runtime { .. } => ErrorKind::Internal,
        }
    }

    /// What to do about it, where something can be done.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Api(error) => error.hint.clone(),
            Self::NoDaemon {
                address: Address::Unix(_),
                ..
            } => Some("start it with `systemctl start tombolo` or `tombolo daemon`".to_owned()),
            Self::NoDaemon { .. } | Self::ConnectTimeout { .. } => {
                Some("check the address, and that the daemon listens on it".to_owned())
            }
            Self::NotAllowed { .. } => {
                Some("run this as root or as a member of the socket's group".to_owned())
            }
            Self::PlainTcp { .. } => Some(
                "give the files for mutual TLS, or use the Unix socket or a loopback address"
                    .to_owned(),
            ),
            Self::Handshake { .. } => Some(
                "check that both certificates are signed by the authority that the other end has"
                    .to_owned(),
            ),
            Self::Lost { .. } => {
                Some("look at what became of the object before trying again".to_owned())
            }
            _ => None,
        }
    }

    /// The exit code of a command that ends with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Api(error) => error.exit_code(),
            _ => self.kind().exit_code(),
        }
    }
}
