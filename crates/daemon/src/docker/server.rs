//! The plugin's socket: from HTTP to methods and back.

use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method as HttpMethod, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tombolo_core::reject::Kind;
use tombolo_core::{Code, Reject};

use super::Calls;
use crate::crash;
use crate::http::limits::BODY_TIMEOUT;
use crate::limits::{PLUGIN_ANSWER_TIMEOUT, PLUGIN_REQUEST_BYTES_MAX};
use crate::plugin::wire::method::Method;
use crate::plugin::wire::network::{self as words, Capabilities};
use crate::plugin::wire::{self, Activated, Done, Failure, ipam};

/// The form of answers, as the engine's own plugins name it.
const FORM: HeaderValue = HeaderValue::from_static("application/vnd.docker.plugins.v1.2+json");

/// Why a call is not answered.
#[derive(Debug)]
pub(super) enum CallError {
    /// No such method.
    Unknown(String),
    /// The words are none of the protocol's.
    Malformed(String),
    /// It was refused.
    Refused(Reject),
}

impl From<Reject> for CallError {
    fn from(reject: Reject) -> Self {
        Self::Refused(reject)
    }
}

/// Every path of the protocol.
pub(super) fn router(calls: Calls) -> Router {
    Router::new().fallback(move |request: Request<Body>| {
        let calls = calls.clone();
        async move { answer(&calls, request).await }
    })
}

async fn answer(calls: &Calls, request: Request<Body>) -> Response<Body> {
    let begun = Instant::now();
    let path = request.uri().path().to_owned();
    let outcome = carry_out(calls, &path, request).await;
    crash::answering(&path);
    let micros = begun.elapsed().as_micros();
    match outcome {
        Ok(body) => {
            tracing::debug!(method = path, micros, "engine answered");
            response(StatusCode::OK, body)
        }
        Err(error) => {
            let (status, reason) = told(&error);
            tracing::warn!(method = path, micros, reason, "engine refused");
            response(status, encode(&Failure::new(reason)))
        }
    }
}

fn response(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, FORM);
    response
}

/// Engines show the text to people, and look at nothing but whether the status is 200.
fn told(error: &CallError) -> (StatusCode, String) {
    match error {
        CallError::Unknown(path) => (StatusCode::NOT_FOUND, format!("no method is at {path}")),
        CallError::Malformed(reason) => (StatusCode::BAD_REQUEST, reason.clone()),
        CallError::Refused(reject) => {
            let status = match reject.code.kind() {
                Kind::Invalid => StatusCode::BAD_REQUEST,
                Kind::Conflict => StatusCode::CONFLICT,
                Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, reject.to_string())
        }
    }
}

async fn carry_out(
    calls: &Calls,
    path: &str,
    request: Request<Body>,
) -> Result<Vec<u8>, CallError> {
    let unknown = || CallError::Unknown(path.to_owned());
    let method = Method::from_path(path).ok_or_else(unknown)?;
    if request.method() != HttpMethod::POST {
        let reason = format!("{method} is called with POST, not {}", request.method());
        return Err(CallError::Malformed(reason));
    }
    let body = read_body(request.into_body()).await?;
    let answered = timeout(PLUGIN_ANSWER_TIMEOUT, dispatch(calls, method, &body)).await;
    answered.unwrap_or_else(|_| {
        let message = "the request takes too long";
        let reject = Reject::new(Code::Busy, method, message).hint("try again in a moment");
        Err(reject.into())
    })
}

async fn read_body(body: Body) -> Result<Bytes, CallError> {
    let whole = timeout(
        BODY_TIMEOUT,
        Limited::new(body, PLUGIN_REQUEST_BYTES_MAX).collect(),
    );
    match whole.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(CallError::Malformed(format!(
            "the body cannot be read: {error}"
        ))),
        Err(_) => Err(CallError::Malformed("the body does not arrive".to_owned())),
    }
}

async fn dispatch(calls: &Calls, method: Method, body: &Bytes) -> Result<Vec<u8>, CallError> {
    let done = |()| encode(&Done {});
    match method {
        Method::Activate => Ok(encode(&Activated {
            implements: vec!["NetworkDriver".to_owned(), "IpamDriver".to_owned()],
        })),
        Method::GetCapabilities => Ok(encode(&Capabilities {
            scope: words::SCOPE_LOCAL.to_owned(),
            connectivity_scope: words::SCOPE_LOCAL.to_owned(),
            gw_alloc_checker: true,
        })),
        Method::GwAllocCheck => super::network::check_gateways(&read(body)?).map(|a| encode(&a)),
        Method::AllocateNetwork => super::network::allocate(&read(body)?).map(|a| encode(&a)),
        Method::FreeNetwork => read::<words::NetworkRequest>(body).map(|_| encode(&Done {})),
        Method::CreateNetwork => calls.create_network(read(body)?).await.map(done),
        Method::DeleteNetwork => calls.delete_network(&read(body)?).await.map(done),
        Method::CreateEndpoint => calls.create_endpoint(read(body)?).await.map(|a| encode(&a)),
        Method::EndpointOperInfo => calls.endpoint_info(&read(body)?).map(|a| encode(&a)),
        Method::DeleteEndpoint => calls.delete_endpoint(&read(body)?).await.map(done),
        Method::Join => calls.join(read(body)?).await.map(|a| encode(&a)),
        Method::Leave => calls.leave(&read(body)?).await.map(done),
        Method::ProgramExternalConnectivity => calls.publish(read(body)?).await.map(done),
        Method::RevokeExternalConnectivity => calls.unpublish(&read(body)?).await.map(done),
        // Nodes of a cluster, of which a driver for one host has nothing to learn.
        Method::DiscoverNew | Method::DiscoverDelete => {
            read::<words::DiscoveryNotification>(body).map(|_| encode(&Done {}))
        }
        Method::GetIpamCapabilities => Ok(encode(&ipam::IpamCapabilities::default())),
        Method::GetDefaultAddressSpaces => Ok(encode(&super::ipam::spaces())),
        Method::RequestPool => calls.request_pool(read(body)?).await.map(|a| encode(&a)),
        Method::ReleasePool => calls.release_pool(&read(body)?).await.map(done),
        Method::RequestAddress => calls.request_address(read(body)?).await.map(|a| encode(&a)),
        Method::ReleaseAddress => calls.release_address(&read(body)?).await.map(done),
    }
}

pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, CallError> {
    let malformed = |error: serde_json::Error| {
        CallError::Malformed(format!("the body is not what the protocol says: {error}"))
    };
    // An engine that asks again may have nothing left to send: what it wants is not known then.
    if body.is_empty() {
        let reason = "the body is empty, and the request should be in it";
        return Err(CallError::Malformed(reason.to_owned()));
    }
    wire::read(body).map_err(malformed)
}

fn encode(answer: &impl Serialize) -> Vec<u8> {
    // Answers are made of strings, numbers and lists, which JSON can always hold.
    serde_json::to_vec(answer).unwrap_or_default()
}
