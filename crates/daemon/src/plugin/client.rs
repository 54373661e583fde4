//! Calls to a plugin, each on a connection of its own: what becomes of a call is never in doubt because an idle
//! connection was closed just then.

mod connection;
pub(crate) mod error;
mod lookup;
#[cfg(test)]
mod tests;
mod tls;

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_LENGTH, HOST};
use hyper::{Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use self::connection::Connection;
use self::error::CallError;
use super::discovery::Address;
use super::wire::method::Method;
use super::wire::{self, Activated, Done, Failure};
use crate::limits::{
    PLUGIN_ANSWER_BYTES_MAX, PLUGIN_CALL_TIMEOUT, PLUGIN_PATIENCE, PLUGIN_PROBE_TIMEOUT,
};

/// The version of the protocol, as engines tell it.
const ACCEPTED: &str = "application/vnd.docker.plugins.v1.2+json";

/// What engines call every plugin at a Unix socket: HTTP wants a host.
const SOCKET_HOST: &str = "plugin.moby.localhost";

/// Calls a plugin. May be shared; calls do not wait for each other.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: Address,
    bounds: Bounds,
}

/// What a plugin is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Longest time from a request to the end of its answer; also for one connection to come about.
    pub(crate) call: Duration,
    /// Longest time that a plugin which does not listen is tried again.
    pub(crate) patience: Duration,
    /// Largest answer, in bytes.
    pub(crate) answer_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            call: PLUGIN_CALL_TIMEOUT,
            patience: PLUGIN_PATIENCE,
            answer_bytes: PLUGIN_ANSWER_BYTES_MAX,
        }
    }
}

impl Bounds {
    /// What a plugin is granted that is only looked for, or was silent a moment ago.
    pub(crate) fn hurried(self) -> Self {
        Self {
            call: PLUGIN_PROBE_TIMEOUT.min(self.call),
            patience: Duration::ZERO,
            ..self
        }
    }
}

impl Client {
    /// A client of the plugin at an address; nothing is sent yet.
    pub(crate) fn new(address: Address) -> Self {
        let bounds = Bounds::default();
        Self { address, bounds }
    }

    /// The same with other bounds.
    pub(crate) fn with_bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Where the plugin is.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Asks the plugin which subsystems it has: the first call to a plugin. At least one is named.
    pub(crate) async fn activate(&self) -> Result<Vec<String>, CallError> {
        let answer: Activated = self.call(Method::Activate, None::<&Done>).await?;
        if answer.implements.is_empty() {
            return Err(CallError::NoSubsystem {
                address: self.address.clone(),
            });
        }
        Ok(answer.implements)
    }

    /// Calls a method; the handshake methods have no request. The plugin is tried again while it does not listen, but
    /// nothing is sent twice.
    pub(crate) async fn call<Q, A>(
        &self,
        method: Method,
        request: Option<&Q>,
    ) -> Result<A, CallError>
    where
        Q: Serialize,
        A: DeserializeOwned,
    {
        let body = match request {
            Some(request) => serde_json::to_vec(request)
                .map_err(|source| CallError::Request { method, source })?,
            None => Vec::new(),
        };
        let (status, answer) = self.exchange(method, body.into()).await?;
        if status != StatusCode::OK {
            return Err(refusal(method, status, &answer));
        }
        let malformed = |source| CallError::Malformed { method, source };
        let failure: Failure = wire::read(&answer).map_err(malformed)?;
        match failure.reason() {
            Some(reason) => Err(CallError::Failed {
                method,
                reason: error::shortened(reason),
            }),
            None => wire::read(&answer).map_err(malformed),
        }
    }

    /// Sends a request and reads the whole answer.
    async fn exchange(
        &self,
        method: Method,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let request = Request::post(method.path())
            .header(HOST, self.host())
            .header(ACCEPT, ACCEPTED)
            // Of no body as well: there are servers that would wait for one.
            .header(CONTENT_LENGTH, body.len())
            .body(Full::new(body))
            .map_err(|source| CallError::Host {
                address: self.address.clone(),
                source,
            })?;
        let mut connection = Connection::open(&self.address, &self.bounds)
            .await
            .map_err(|source| CallError::Connect {
                address: self.address.clone(),
                source,
            })?;
        let answered = async {
            let response = connection.sender.send_request(request).await;
            let response = response.map_err(|error| error::broken(method, error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), self.bounds.answer_bytes);
            match body.collect().await {
                Ok(body) => Ok((status, body.to_bytes())),
                Err(error) => Err(match error.downcast::<hyper::Error>() {
                    Ok(error) => error::broken(method, *error),
                    Err(_) => CallError::TooLong {
                        method,
                        bytes_max: self.bounds.answer_bytes,
                    },
                }),
            }
        };
        let after = self.bounds.call;
        timeout(after, answered)
            .await
            .unwrap_or(Err(CallError::Timeout { method, after }))
    }

    /// What HTTP calls the plugin.
    fn host(&self) -> String {
        match &self.address {
            Address::Unix(_) => SOCKET_HOST.to_owned(),
            Address::Tcp { host, port } | Address::Tls { host, port, .. } => {
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            }
        }
    }
}

/// What an answer says that is no success. Anything may come here: plugins are programs of others, and what answers in
/// their place may be no plugin at all.
fn refusal(method: Method, status: StatusCode, answer: &[u8]) -> CallError {
    let failure: Option<Failure> = wire::read(answer).ok();
    let reason = match failure.as_ref().and_then(Failure::reason) {
        Some(reason) => error::shortened(reason),
        None => error::shortened(&String::from_utf8_lossy(answer)),
    };
    if status == StatusCode::NOT_FOUND {
        return CallError::UnknownMethod { method, reason };
    }
    let status = status.as_u16();
    CallError::Refused {
        method,
        status,
        reason,
    }
}
