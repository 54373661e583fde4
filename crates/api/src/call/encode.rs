//! A call as the client sends it, and an answer as the server sends it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::{Operation, Request, Response, query};
use crate::error::{ApiError, ErrorCode};
use crate::types::{DnsNameFilter, DnsQuestion, EndpointFilter, NetworkFilter, SandboxFilter};

/// What may stand as it is in a segment of a path (RFC 3986, section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A request ready for the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRequest {
    /// The operation, which has the method.
    pub operation: Operation,
    /// Path and query.
    pub target: String,
    /// The body in JSON, if the operation takes one.
    pub body: Option<Vec<u8>>,
}

impl Request {
    /// Writes it for the wire. Fails with `invalid_reference` when its reference cannot be one.
    pub fn encode(&self) -> Result<EncodedRequest, ApiError> {
        let operation = self.operation();
        let template = operation.route().path;
        let mut target = match self.reference() {
            Some(reference) => {
                super::decode::check_reference(reference)?;
                let segment = utf8_percent_encode(reference, UNRESERVED).to_string();
                template.replace("{reference}", &segment)
            }
            None => template.to_owned(),
        };
        let query = self.query();
        if !query.is_empty() {
            target.push('?');
            target.push_str(&query);
        }
        Ok(EncodedRequest {
            operation,
            target,
            body: self.body()?,
        })
    }

    /// The reference in its path.
    fn reference(&self) -> Option<&str> {
        match self {
            Self::NetworkInspect { reference }
            | Self::NetworkDelete { reference }
            | Self::NetworkConnect { reference, .. }
            | Self::NetworkDisconnect { reference, .. }
            | Self::EndpointInspect { reference }
            | Self::EndpointDelete { reference }
            | Self::EndpointJoin { reference, .. }
            | Self::EndpointLeave { reference }
            | Self::SandboxInspect { reference }
            | Self::SandboxDelete { reference, .. }
            | Self::SandboxStop { reference }
            | Self::SandboxStart { reference }
            | Self::SandboxPublications { reference }
            | Self::PublicationsAdd { reference, .. }
            | Self::PublicationsRemove { reference, .. }
            | Self::Explain { reference } => Some(reference),
            Self::Version
            | Self::Info
            | Self::NetworkCreate(_)
            | Self::NetworkList(_)
            | Self::NetworkPrune
            | Self::EndpointCreate(_)
            | Self::EndpointList(_)
            | Self::SandboxCreate(_)
            | Self::SandboxList(_)
            | Self::PublicationList
            | Self::DnsNames(_)
            | Self::DnsResolve(_)
            | Self::Plan(_)
            | Self::Drift
            | Self::Repair
            | Self::Doctor
            | Self::Prune => None,
        }
    }

    fn query(&self) -> String {
        match self {
            Self::NetworkList(NetworkFilter {
                name,
                driver,
                labels,
            }) => query::write(
                option("name", name)
                    .chain(option("driver", driver))
                    .chain(list("label", labels)),
            ),
            Self::EndpointList(EndpointFilter { network, sandbox }) => {
                query::write(option("network", network).chain(option("sandbox", sandbox)))
            }
            Self::SandboxList(SandboxFilter { name, labels }) => {
                query::write(option("name", name).chain(list("label", labels)))
            }
            Self::DnsNames(DnsNameFilter { network }) => query::write(option("network", network)),
            Self::DnsResolve(DnsQuestion {
                name,
                kind,
                sandbox,
            }) => query::write(
                [("name", name.as_str())]
                    .into_iter()
                    .chain(option("type", kind))
                    .chain(option("sandbox", sandbox)),
            ),
            Self::SandboxDelete {
                keep_endpoints: true,
                ..
            } => query::write([("keep_endpoints", "true")]),
            _ => String::new(),
        }
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ApiError> {
        match self {
            Self::NetworkCreate(body) => json(body).map(Some),
            Self::NetworkConnect { connect, .. } => json(connect).map(Some),
            Self::NetworkDisconnect { disconnect, .. } => json(disconnect).map(Some),
            Self::EndpointCreate(body) => json(body).map(Some),
            Self::EndpointJoin { join, .. } => json(join).map(Some),
            Self::SandboxCreate(body) => json(body).map(Some),
            Self::PublicationsAdd { add, .. } => json(add).map(Some),
            Self::PublicationsRemove { remove, .. } => json(remove).map(Some),
            Self::Plan(body) => json(body).map(Some),
            _ => Ok(None),
        }
    }
}

impl Response {
    /// Its body in JSON; empty when there is nothing to tell.
    pub fn encode(&self) -> Result<Vec<u8>, ApiError> {
        if *self == Self::Done {
            Ok(Vec::new())
        } else {
            json(self)
        }
    }
}

fn option<'a>(
    word: &'a str,
    value: &'a Option<String>,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    value.iter().map(move |value| (word, value.as_str()))
}

fn list<'a>(word: &'a str, values: &'a [String]) -> impl Iterator<Item = (&'a str, &'a str)> {
    values.iter().map(move |value| (word, value.as_str()))
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|error| {
        ApiError::new(
            ErrorCode::Internal,
            format!("cannot write the body: {error}"),
        )
    })
}
