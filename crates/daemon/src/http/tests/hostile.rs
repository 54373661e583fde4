//! Requests that no well-behaved client sends.

use std::sync::OnceLock;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tombolo_api::ErrorCode;
use tombolo_api::limits::REQUEST_BYTES_MAX;

use super::*;

/// Sends bytes as they are and reads until the server closes or has answered one request.
async fn send_raw(running: &Running, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(running.path()).await.unwrap();
    // The server may answer and close before it has read everything.
    drop(stream.write_all(bytes).await);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
        }
    }
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn error(answer: &str) -> ApiError {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn refusals_are_api_errors_with_the_status_of_the_table() {
    let running = Running::start();
    let long = format!("/v1/networks/{}", "x".repeat(256));
    for (request, expected, code) in [
        (get("/"), 404, ErrorCode::UnknownPath),
        (get("/v2/version"), 404, ErrorCode::UnknownPath),
        (get("/v1/networks/"), 404, ErrorCode::UnknownPath),
        (get("/v1/networks/a/b/c"), 404, ErrorCode::UnknownPath),
        (get("/v1/prune"), 405, ErrorCode::MethodNotAllowed),
        (
            post("/v1/version", "", ""),
            405,
            ErrorCode::MethodNotAllowed,
        ),
        (
            post("/v1/networks/web", "", ""),
            405,
            ErrorCode::MethodNotAllowed,
        ),
        (get("/v1/networks?nmae=a"), 400, ErrorCode::UnknownParameter),
        (get("/v1/networks/%ff"), 400, ErrorCode::InvalidReference),
        (get("/v1/networks/a%00b"), 400, ErrorCode::InvalidReference),
        (get(&long), 400, ErrorCode::InvalidReference),
        (get("/v1/networks/gone"), 404, ErrorCode::UnknownNetwork),
        (post("/v1/networks", "", "{"), 400, ErrorCode::MalformedJson),
        (post("/v1/networks", "", ""), 400, ErrorCode::MalformedJson),
        (
            post("/v1/repair", "", "{\"now\":1}"),
            400,
            ErrorCode::MalformedJson,
        ),
        (
            post("/v1/repair", "Origin: http://evil.example\r\n", ""),
            400,
            ErrorCode::ForeignOrigin,
        ),
    ] {
        let answer = send_raw(&running, &request).await;
        let words = String::from_utf8_lossy(&request).into_owned();
        assert_eq!(status(&answer), expected, "{words}\n{answer}");
        assert_eq!(error(&answer).code, code, "{words}\n{answer}");
        assert!(
            answer.contains("content-type: application/json"),
            "{answer}"
        );
    }
    running.end().await;
}

#[tokio::test]
async fn answers_have_the_status_of_the_table() {
    let running = Running::start();
    for (request, expected) in [
        (get("/v1/version"), 200),
        (get("/v1/networks"), 200),
        (post("/v1/networks", "", r#"{"name":"web"}"#), 201),
        (post("/v1/sandboxes/s/stop", "", ""), 200),
        (
            post("/v1/networks/web/disconnect", "", r#"{"sandbox":"s"}"#),
            204,
        ),
    ] {
        let answer = send_raw(&running, &request).await;
        assert_eq!(status(&answer), expected, "{answer}");
    }
    running.end().await;
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let running = Running::start();
    let name = "x".repeat(REQUEST_BYTES_MAX - r#"{"name":""}"#.len());
    let largest = format!(r#"{{"name":"{name}"}}"#);
    assert_eq!(largest.len(), REQUEST_BYTES_MAX);
    let answer = send_raw(&running, &post("/v1/networks", "", &largest)).await;
    assert_eq!(status(&answer), 201, "{answer}");

    // Told ahead: refused unread.
    let length = REQUEST_BYTES_MAX + 1;
    let told = format!("POST /v1/networks HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n");
    let answer = send_raw(&running, told.as_bytes()).await;
    assert_eq!(
        (status(&answer), error(&answer).code),
        (413, ErrorCode::BodyTooLarge)
    );

    // Not told: refused once it is too much.
    let mut request =
        b"POST /v1/networks HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    request.extend_from_slice(format!("{length:x}\r\n").as_bytes());
    request.extend(std::iter::repeat_n(b' ', length));
    let answer = send_raw(&running, &request).await;
    assert_eq!(
        (status(&answer), error(&answer).code),
        (413, ErrorCode::BodyTooLarge)
    );
    assert_eq!(running.asked().len(), 1);
    running.end().await;
}

#[tokio::test]
async fn heads_have_a_limit() {
    let running = Running::start();
    let request = |count: usize| {
        // Host and Connection are two more.
        let headers: String = (2..count).map(|n| format!("X-{n}: 1\r\n")).collect();
        format!("GET /v1/version HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{headers}\r\n")
    };
    let answer = send_raw(&running, request(limits::HEADERS_MAX).as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let answer = send_raw(&running, request(limits::HEADERS_MAX + 1).as_bytes()).await;
    assert_eq!(status(&answer), 431, "{answer}");
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: t\r\n\r\n",
        "x".repeat(limits::HEAD_BYTES_MAX)
    );
    let answer = send_raw(&running, long.as_bytes()).await;
    assert!((400..500).contains(&status(&answer)), "{answer}");
    running.end().await;
}

/// One server for all cases, on a runtime of its own.
fn shared() -> &'static (tokio::runtime::Runtime, Running) {
    static SHARED: OnceLock<(tokio::runtime::Runtime, Running)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let running = runtime.block_on(async { Running::start() });
        (runtime, running)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_body_is_refused_politely_or_read(
        index in 0..Operation::ALL.len(),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            "\\{(\"[a-z_]{1,9}\":([0-9]{1,4}|\"[a-z]{0,5}\"|null|\\[\\]|\\{\\}),?){0,4}\\}"
                .prop_map(String::into_bytes),
        ],
    ) {
        let (runtime, running) = shared();
        let route = Operation::ALL[index].route();
        let path = route.path.replace("{reference}", "web");
        let mut request = format!(
            "{} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            route.method,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(&body);
        let answer = runtime.block_on(send_raw(running, &request));
        prop_assert!((200..500).contains(&status(&answer)), "{}", answer);
        if status(&answer) >= 400 {
            prop_assert_eq!(error(&answer).http_status(), status(&answer));
        }
    }

    #[test]
    fn any_bytes_leave_the_server_alive(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        let (runtime, running) = shared();
        let answer = runtime.block_on(async {
            let mut stream = UnixStream::connect(running.path()).await.unwrap();
            drop(stream.write_all(&bytes).await);
            drop(stream.shutdown().await);
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer).await);
            if let Some(status) = answer.get(9..12) {
                assert_ne!(status[0], b'5', "{}", String::from_utf8_lossy(&answer));
            }
            send_raw(running, &get("/v1/version")).await
        });
        prop_assert_eq!(status(&answer), 200);
    }
}
