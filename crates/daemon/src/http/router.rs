//! From HTTP requests to calls and back.

use std::convert::Infallible;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{MethodFilter, MethodRouter, on};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;
use tombolo_api::limits::REQUEST_BYTES_MAX;
use tombolo_api::{ApiError, ErrorCode, ErrorKind, Operation, Request};

use super::{Service, limits};

type HttpRequest = axum::http::Request<Body>;
type HttpResponse = axum::http::Response<Body>;

/// The last segment of a path that holds a reference.
const REFERENCE: &str = "{reference}";

/// Every path of the API in front of a service.
pub fn router<S: Service>(service: S) -> Router {
    let mut router = Router::new().fallback(unknown_path);
    for &operation in Operation::ALL {
        let path = operation.route().path;
        router = router.route(path, method_router(&service, operation, None));
        // A word that has a path of its own, such as `prune`, can be a name as well.
        let Some(parent) = path.strip_suffix(REFERENCE) else {
            continue;
        };
        for word in fixed_words(parent) {
            let path = format!("{parent}{word}");
            router = router.route(&path, method_router(&service, operation, Some(word)));
        }
    }
    router.method_not_allowed_fallback(method_not_allowed)
}

/// The words that stand as whole paths beside `parent` + reference.
fn fixed_words(parent: &str) -> impl Iterator<Item = &'static str> {
    Operation::ALL.iter().filter_map(move |operation| {
        let word = operation.route().path.strip_prefix(parent)?;
        (!word.is_empty() && word != REFERENCE && !word.contains('/')).then_some(word)
    })
}

fn method_router<S: Service>(
    service: &S,
    operation: Operation,
    reference: Option<&'static str>,
) -> MethodRouter<(), Infallible> {
    let service = service.clone();
    let filter = match operation.route().method {
        Method::POST => MethodFilter::POST,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    };
    on(filter, move |request: HttpRequest| {
        let service = service.clone();
        async move { answer(&service, operation, reference, request).await }
    })
}

async fn answer<S: Service>(
    service: &S,
    operation: Operation,
    reference: Option<&'static str>,
    request: HttpRequest,
) -> HttpResponse {
    let begun = Instant::now();
    let result = carry_out(service, operation, reference, request).await;
    let response = result.unwrap_or_else(|error| {
        if error.kind == ErrorKind::Internal {
            tracing::error!(operation = operation.name(), code = %error.code, %error, "call failed");
        }
        error_response(&error)
    });
    tracing::debug!(
        operation = operation.name(),
        status = response.status().as_u16(),
        microseconds = begun.elapsed().as_micros(),
        "call answered"
    );
    response
}

async fn carry_out<S: Service>(
    service: &S,
    operation: Operation,
    reference: Option<&'static str>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let (mut parts, body) = request.into_parts();
    refuse_web_pages(&parts.headers)?;
    let in_path = reference_in_path(&mut parts).await?;
    let body = read_body(&parts.headers, body).await?;
    let reference = reference.or(in_path.as_deref());
    let request = Request::decode(operation, reference, parts.uri.query(), &body)?;
    let response = service.call(request).await?;
    debug_assert!(
        response.answers(operation),
        "{operation:?} was answered by {response:?}"
    );
    Ok(json_response(
        operation.route().reply.http_status(),
        response.encode()?,
    ))
}

/// Browsers send web pages' requests to loopback addresses too, and name the page's origin on all those
/// that change something.
fn refuse_web_pages(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(ORIGIN) {
        let message = "this API does not answer web pages";
        return Err(ApiError::new(ErrorCode::ForeignOrigin, message));
    }
    Ok(())
}

async fn reference_in_path(parts: &mut Parts) -> Result<Option<String>, ApiError> {
    let params = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|rejection| {
            let message = format!("cannot read the path: {rejection}");
            ApiError::new(ErrorCode::InvalidReference, message)
        })?;
    let reference = params.iter().next().map(|(_, value)| value.to_owned());
    Ok(reference)
}

async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    // Refused unread when the length is told ahead, so that nobody sends it in vain.
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > REQUEST_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let whole = timeout(
        limits::BODY_TIMEOUT,
        Limited::new(body, REQUEST_BYTES_MAX).collect(),
    );
    match whole.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            let message = format!("the body did not arrive whole: {error}");
            Err(ApiError::new(ErrorCode::IncompleteBody, message))
        }
        Err(_) => {
            let seconds = limits::BODY_TIMEOUT.as_secs();
            let message = format!("the body did not arrive within {seconds} s");
            Err(ApiError::new(ErrorCode::IncompleteBody, message))
        }
    }
}

fn too_large() -> ApiError {
    let message = format!("the body has more than {REQUEST_BYTES_MAX} bytes");
    ApiError::new(ErrorCode::BodyTooLarge, message)
}

async fn unknown_path(uri: Uri) -> HttpResponse {
    let message = format!("no call has the path {}", uri.path());
    let error = ApiError::new(ErrorCode::UnknownPath, message)
        .hint("every path begins with /v1; the OpenAPI description lists them");
    error_response(&error)
}

async fn method_not_allowed(method: Method, uri: Uri) -> HttpResponse {
    let message = format!("{} cannot be called with {method}", uri.path());
    error_response(&ApiError::new(ErrorCode::MethodNotAllowed, message))
}

fn error_response(error: &ApiError) -> HttpResponse {
    // An error is made of words alone, which JSON can always hold.
    let body = serde_json::to_vec(error).unwrap_or_default();
    json_response(error.http_status(), body)
}

fn json_response(status: u16, body: Vec<u8>) -> HttpResponse {
    let empty = body.is_empty();
    let mut response = HttpResponse::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !empty {
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
    }
    response
}
