//! The description of the API in OpenAPI, made from the table of operations and the wire types.

use utoipa::OpenApi;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, Paths,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Content, Ref, RefOr, Required, Response, ResponseBuilder, Schema};

use crate::call::{Operation, Reply, Route};
use crate::error::{ApiError, ErrorKind};
use crate::types;

/// The schemas; those that they refer to come along.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Tombolo",
        description = "Container networks of a host. A reference is a name, an id or an unambiguous \
                       start of an id."
    ),
    components(schemas(
        ApiError,
        ErrorKind,
        types::DnsAnswer,
        types::DnsName,
        types::Endpoint,
        types::EndpointCreate,
        types::EndpointJoin,
        types::Explanation,
        types::FindingReport,
        types::Info,
        types::Network,
        types::NetworkConnect,
        types::NetworkCreate,
        types::NetworkDisconnect,
        types::Operations,
        types::PlanRequest,
        types::Pruned,
        types::Publication,
        types::PublicationsAdd,
        types::PublicationsRemove,
        types::RepairReport,
        types::Sandbox,
        types::SandboxCreate,
        types::Version,
    ))
)]
struct Schemas;

/// The description as a value.
#[must_use]
pub fn description() -> utoipa::openapi::OpenApi {
    let mut api = Schemas::openapi();
    let mut paths = Paths::new();
    for &operation in Operation::ALL {
        let route = operation.route();
        let method = http_method(&route);
        let item = PathItem::new(method, described(operation, &route));
        match paths.paths.get_mut(route.path) {
            Some(existing) => existing.merge_operations(item),
            None => {
                paths.paths.insert(route.path.to_owned(), item);
            }
        }
    }
    api.paths = paths;
    api
}

fn http_method(route: &Route) -> HttpMethod {
    match route.method.as_str() {
        "POST" => HttpMethod::Post,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

fn described(operation: Operation, route: &Route) -> OperationBuilder {
    let mut builder = OperationBuilder::new()
        .operation_id(Some(operation.name()))
        .summary(Some(route.summary.trim_end_matches('.')))
        .tag(tag(route.path))
        .response(route.reply.http_status().to_string(), reply(route.reply))
        .response("default", failure());
    if route.path.contains("{reference}") {
        builder = builder.parameter(
            ParameterBuilder::new()
                .name("reference")
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some("Name, id or unambiguous start of an id"))
                .schema(Some(plain(Type::String))),
        );
    }
    for &word in route.query {
        let needed = (operation, word) == (Operation::DnsResolve, "name");
        builder = builder.parameter(query_parameter(word, needed));
    }
    if let Some(body) = route.body {
        let body = RequestBodyBuilder::new()
            .content("application/json", json(named(body)))
            .required(Some(Required::True))
            .build();
        builder = builder.request_body(Some(body));
    }
    builder
}

/// The second part of the path, which groups the operations.
fn tag(path: &str) -> &str {
    match path.split('/').nth(2) {
        Some(group @ ("networks" | "endpoints" | "sandboxes" | "publications" | "dns")) => group,
        Some("version" | "info" | "prune") | None => "system",
        Some(_) => "seeing",
    }
}

fn query_parameter(word: &str, needed: bool) -> ParameterBuilder {
    let schema = match word {
        "keep_endpoints" => plain(Type::Boolean),
        "label" => ArrayBuilder::new()
            .items(plain(Type::String))
            .build()
            .into(),
        _ => plain(Type::String),
    };
    ParameterBuilder::new()
        .name(word)
        .parameter_in(ParameterIn::Query)
        .required(if needed {
            Required::True
        } else {
            Required::False
        })
        .schema(Some(schema))
}

fn reply(reply: Reply) -> Response {
    let builder = ResponseBuilder::new();
    match reply {
        Reply::Value(name) => builder
            .description("As it is")
            .content("application/json", json(named(name))),
        Reply::Created(name) => builder
            .description("Made")
            .content("application/json", json(named(name))),
        Reply::List(name) => builder.description("All that match").content(
            "application/json",
            json(ArrayBuilder::new().items(named(name)).build().into()),
        ),
        Reply::Done => builder.description("Done"),
    }
    .build()
}

fn failure() -> Response {
    ResponseBuilder::new()
        .description("Failed; the kind of the error decides the status")
        .content("application/json", json(named("ApiError")))
        .build()
}

fn json(schema: RefOr<Schema>) -> Content {
    Content::new(Some(schema))
}

fn named(schema: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(schema))
}

fn plain(kind: Type) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(kind))
        .build()
        .into()
}

#[cfg(test)]
mod tests;
