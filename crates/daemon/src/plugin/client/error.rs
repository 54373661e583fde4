//! Why a call failed.

use std::error::Error;
use std::io;
use std::time::Duration;

use tokio_rustls::rustls::{self, pki_types::InvalidDnsNameError};

use crate::limits::PLUGIN_REASON_BYTES_MAX;
use crate::plugin::discovery::Address;
use crate::plugin::wire::method::Method;
use tombolo_api::tls::TlsError;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The request cannot be written.
    #[error("cannot write the request of {method}")]
    Request {
        /// The method.
        method: Method,
        /// What the writer said.
        source: serde_json::Error,
    },
    /// The host of the address cannot be in a request.
    #[error("cannot ask {address} by HTTP")]
    Host {
        /// The address.
        address: Address,
        /// What the library said.
        source: hyper::http::Error,
    },
    /// Nothing was sent, as there is no connection.
    #[error("cannot reach the plugin at {address}")]
    Connect {
        /// The address.
        address: Address,
        /// Why.
        source: ConnectError,
    },
    /// The whole answer was not there in time; what became of the call is not known.
    #[error("the plugin did not answer {method} within {} ms", after.as_millis())]
    Timeout {
        /// The method.
        method: Method,
        /// How long it was waited for.
        after: Duration,
    },
    /// The plugin closed the connection before the whole answer was there; what became of the call is not known.
    #[error("the plugin closed the connection before its answer to {method} was whole")]
    Closed {
        /// The method.
        method: Method,
        /// What the library said.
        source: hyper::Error,
    },
    /// What came back is not HTTP.
    #[error("the answer to {method} is not HTTP")]
    NotHttp {
        /// The method.
        method: Method,
        /// What the library said.
        source: hyper::Error,
    },
    /// The answer is larger than we read.
    #[error("the answer to {method} has more than {bytes_max} bytes")]
    TooLong {
        /// The method.
        method: Method,
        /// What is read.
        bytes_max: usize,
    },
    /// The plugin does not know the method, which some may do without: status 404.
    #[error("the plugin does not know {method}: {reason}")]
    UnknownMethod {
        /// The method.
        method: Method,
        /// What it said.
        reason: String,
    },
    /// The plugin says no with a status of HTTP.
    #[error("the plugin refused {method} with status {status}: {reason}")]
    Refused {
        /// The method.
        method: Method,
        /// The status.
        status: u16,
        /// What it said.
        reason: String,
    },
    /// The plugin says no in an answer with status 200.
    #[error("the plugin failed in {method}: {reason}")]
    Failed {
        /// The method.
        method: Method,
        /// What it said.
        reason: String,
    },
    /// The answer is not of the shape that it should be.
    #[error("cannot understand the answer to {method}")]
    Malformed {
        /// The method.
        method: Method,
        /// What the reader said.
        source: serde_json::Error,
    },
    /// The plugin has nothing to offer.
    #[error("the plugin at {address} names no subsystem that it has")]
    NoSubsystem {
        /// The address.
        address: Address,
    },
}

/// Why there is no connection to a plugin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Nobody listens, or we may not connect.
    #[error("no connection")]
    Refused(#[source] io::Error),
    /// Nobody answers in time.
    #[error("no connection within {} ms", after.as_millis())]
    Timeout {
        /// How long it was waited for.
        after: Duration,
    },
    /// The files for TLS cannot be used.
    #[error("cannot set up TLS")]
    Tls(#[source] TlsError),
    /// The thread that reads the files for TLS did not end well.
    #[error("cannot read the files for TLS")]
    TlsRead(#[source] tokio::task::JoinError),
    /// The host of the address can be in no certificate.
    #[error("{host:?} can be in no certificate")]
    ServerName {
        /// The host.
        host: String,
        /// What the library said.
        source: InvalidDnsNameError,
    },
    /// The plugin is not trusted, or does not trust us.
    #[error("cannot agree on TLS")]
    Handshake(#[source] io::Error),
    /// HTTP cannot begin.
    #[error("cannot begin to speak HTTP")]
    Http(#[source] hyper::Error),
}

impl ConnectError {
    /// Whether the plugin may only not have begun to listen, or has too many who wait.
    pub(super) fn may_pass(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, NotFound, WouldBlock};
        matches!(self, Self::Refused(error)
            if matches!(error.kind(), ConnectionRefused | NotFound | WouldBlock))
    }
}

/// Why a call failed of which the connection broke.
pub(super) fn broken(method: Method, source: hyper::Error) -> CallError {
    if source.is_parse() || is_malformed_body(&source) {
        CallError::NotHttp { method, source }
    } else {
        CallError::Closed { method, source }
    }
}

/// Whether the pieces of a body are not as HTTP has them. An alert of TLS is of the same kind, but is how a plugin closes
/// the connection to those whom it does not trust.
fn is_malformed_body(error: &hyper::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput};
    let inner = error
        .source()
        .and_then(|inner| inner.downcast_ref::<io::Error>());
    inner.is_some_and(|inner| {
        let of_tls = inner
            .get_ref()
            .is_some_and(|inner| inner.is::<rustls::Error>());
        matches!(inner.kind(), InvalidData | InvalidInput) && !of_tls
    })
}

/// A reason as it can be shown: one line, not too long, and never empty.
pub(super) fn shortened(reason: &str) -> String {
    let reason = reason.trim();
    if reason.is_empty() {
        return "no reason given".to_owned();
    }
    let mut end = reason.len().min(PLUGIN_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let kept = &reason[..end];
    let mut line: String = kept
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if kept.len() < reason.len() {
        line.push('…');
    }
    line
}
