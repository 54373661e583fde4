//! A call as the server reads it.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::query::Query;
use super::{Operation, Request};
use crate::error::{ApiError, ErrorCode};
use crate::limits;
use crate::types::{DnsNameFilter, DnsQuestion, EndpointFilter, NetworkFilter, SandboxFilter};

/// The body of a call that takes none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Request {
    /// Reads a call: the reference in its path (already percent-decoded), its query and its body. Fails with
    /// `invalid_reference`, `unknown_parameter`, `invalid_parameter` or `malformed_json`.
    pub fn decode(
        operation: Operation,
        reference: Option<&str>,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<Self, ApiError> {
        let route = operation.route();
        let reference = reference.unwrap_or_default();
        if route.path.contains("{reference}") {
            check_reference(reference)?;
        }
        let query = Query::parse(query.unwrap_or_default(), route.query)?;
        if route.body.is_some() {
            return Self::decode_body(operation, reference.to_owned(), body);
        }
        if !body.is_empty() {
            json::<Nothing>(body)?;
        }
        Self::decode_bodyless(operation, reference.to_owned(), query)
    }

    /// Calls that take a body.
    fn decode_body(op: Operation, reference: String, body: &[u8]) -> Result<Self, ApiError> {
        Ok(match op {
            Operation::NetworkCreate => Self::NetworkCreate(json(body)?),
            Operation::NetworkConnect => Self::NetworkConnect {
                reference,
                connect: json(body)?,
            },
            Operation::NetworkDisconnect => Self::NetworkDisconnect {
                reference,
                disconnect: json(body)?,
            },
            Operation::EndpointCreate => Self::EndpointCreate(json(body)?),
            Operation::EndpointJoin => Self::EndpointJoin {
                reference,
                join: json(body)?,
            },
            Operation::SandboxCreate => Self::SandboxCreate(json(body)?),
            Operation::PublicationsAdd => Self::PublicationsAdd {
                reference,
                add: json(body)?,
            },
            Operation::PublicationsRemove => Self::PublicationsRemove {
                reference,
                remove: json(body)?,
            },
            Operation::Plan => Self::Plan(json(body)?),
            _ => {
                let message = format!("{} is not read as a call with a body", op.name());
                return Err(ApiError::new(ErrorCode::Internal, message));
            }
        })
    }

    /// Calls that take no body.
    fn decode_bodyless(
        op: Operation,
        reference: String,
        mut query: Query,
    ) -> Result<Self, ApiError> {
        Ok(match op {
            Operation::Version => Self::Version,
            Operation::Info => Self::Info,
            Operation::NetworkList => Self::NetworkList(NetworkFilter {
                name: query.one("name")?,
                driver: query.one("driver")?,
                labels: query.all("label"),
            }),
            Operation::NetworkPrune => Self::NetworkPrune,
            Operation::NetworkInspect => Self::NetworkInspect { reference },
            Operation::NetworkDelete => Self::NetworkDelete { reference },
            Operation::EndpointList => Self::EndpointList(EndpointFilter {
                network: query.one("network")?,
                sandbox: query.one("sandbox")?,
            }),
            Operation::EndpointInspect => Self::EndpointInspect { reference },
            Operation::EndpointDelete => Self::EndpointDelete { reference },
            Operation::EndpointLeave => Self::EndpointLeave { reference },
            Operation::SandboxList => Self::SandboxList(SandboxFilter {
                name: query.one("name")?,
                labels: query.all("label"),
            }),
            Operation::SandboxInspect => Self::SandboxInspect { reference },
            Operation::SandboxDelete => Self::SandboxDelete {
                reference,
                keep_endpoints: query.flag("keep_endpoints")?,
            },
            Operation::SandboxStop => Self::SandboxStop { reference },
            Operation::SandboxStart => Self::SandboxStart { reference },
            Operation::SandboxPublications => Self::SandboxPublications { reference },
            Operation::PublicationList => Self::PublicationList,
            Operation::DnsNames => Self::DnsNames(DnsNameFilter {
                network: query.one("network")?,
            }),
            Operation::DnsResolve => Self::DnsResolve(DnsQuestion {
                name: query.needed("name")?,
                kind: query.one("type")?,
                sandbox: query.one("sandbox")?,
            }),
            Operation::Explain => Self::Explain { reference },
            Operation::Drift => Self::Drift,
            Operation::Repair => Self::Repair,
            Operation::Doctor => Self::Doctor,
            Operation::Prune => Self::Prune,
            Operation::NetworkCreate
            | Operation::NetworkConnect
            | Operation::NetworkDisconnect
            | Operation::EndpointCreate
            | Operation::EndpointJoin
            | Operation::SandboxCreate
            | Operation::PublicationsAdd
            | Operation::PublicationsRemove
            | Operation::Plan => return Self::decode_body(op, reference, b""),
        })
    }
}

/// Refuses what can be neither a name nor an id.
pub(super) fn check_reference(reference: &str) -> Result<(), ApiError> {
    let problem = if reference.is_empty() {
        "is empty"
    } else if reference.len() > limits::REFERENCE_BYTES_MAX {
        "is too long"
    } else if reference.chars().any(char::is_control) {
        "holds control characters"
    } else {
        return Ok(());
    };
    Err(ApiError::new(
        ErrorCode::InvalidReference,
        format!("the name or id {problem}"),
    )
    .hint("give a name, an id or the start of an id"))
}

/// Reads JSON. The error says where it went wrong, as line and column.
fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() {
            "the body does not fit the call"
        } else {
            "the body is not JSON"
        };
        ApiError::new(ErrorCode::MalformedJson, format!("{what}: {error}"))
    })
}
