//! Calls to a server that answers with bytes chosen by the test.

mod tls;

use std::path::PathBuf;

use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::error::ConnectError;
use super::*;
use crate::limits::PLUGIN_REASON_BYTES_MAX;
use crate::plugin::wire::network::{
    Capabilities, CreateEndpointRequest, CreateEndpointResponse, NetworkRequest,
};

const SHORT: Duration = Duration::from_millis(100);
/// More than any test takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// A socket in a directory of its own.
struct Socket {
    _directory: TempDir,
    path: PathBuf,
}

impl Socket {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plugin.sock");
        Self {
            _directory: directory,
            path,
        }
    }

    fn client(&self) -> Client {
        Client::new(Address::Unix(self.path.clone()))
    }

    /// Takes one connection, reads a request, sends `answer`, and closes; what was read.
    fn answer(&self, answer: impl Into<Vec<u8>>) -> JoinHandle<String> {
        let listener = UnixListener::bind(&self.path).unwrap();
        let answer = answer.into();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read_request(&mut stream).await;
            stream.write_all(&answer).await.unwrap();
            request
        })
    }
}

/// What a client sends, up to the end of its body.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "{text}");
    }
}

/// An answer with a status and a body.
fn http(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} Some\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// The outcome of a call that is answered with `answer`.
async fn outcome(answer: impl Into<Vec<u8>>) -> Result<Map<String, Value>, CallError> {
    let socket = Socket::new();
    let served = socket.answer(answer);
    let called = socket
        .client()
        .call(Method::DeleteNetwork, Some(&NetworkRequest::default()))
        .await;
    served.await.unwrap();
    called
}

async fn failure(answer: impl Into<Vec<u8>>) -> CallError {
    outcome(answer).await.unwrap_err()
}

#[tokio::test]
async fn a_call_is_the_one_of_engines() {
    let socket = Socket::new();
    let answer =
        r#"{"Interface":{"Address":"","AddressIPv6":"","MacAddress":"02:42:ac:12:00:02"}}"#;
    let served = socket.answer(http(200, answer));
    let request = CreateEndpointRequest {
        network_id: "n".to_owned(),
        ..CreateEndpointRequest::default()
    };
    let client = socket.client();
    assert_eq!(client.address(), &Address::Unix(socket.path.clone()));
    let answer: CreateEndpointResponse = client
        .call(Method::CreateEndpoint, Some(&request))
        .await
        .unwrap();
    assert_eq!(answer.interface.unwrap().mac_address, "02:42:ac:12:00:02");
    let sent = served.await.unwrap();
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<String> = head.lines().map(str::to_lowercase).collect();
    assert_eq!(
        lines.remove(0),
        "post /networkdriver.createendpoint http/1.1"
    );
    lines.sort();
    let expected = [
        "accept: application/vnd.docker.plugins.v1.2+json",
        &format!("content-length: {}", body.len()),
        "host: plugin.moby.localhost",
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        wire::read::<CreateEndpointRequest>(body.as_bytes()).unwrap(),
        request
    );
}

#[tokio::test]
async fn a_call_without_request_has_no_body() {
    let socket = Socket::new();
    let served = socket.answer(http(200, r#"{"Scope":"local"}"#));
    let answer = socket
        .client()
        .call(Method::GetCapabilities, None::<&Done>)
        .await;
    let answer: Capabilities = answer.unwrap();
    assert_eq!(answer.scope, "local");
    let sent = served.await.unwrap().to_lowercase();
    assert!(sent.contains("\r\ncontent-length: 0\r\n"), "{sent}");
    assert!(sent.ends_with("\r\n\r\n"), "{sent}");
}

#[tokio::test]
async fn calls_go_over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        stream.write_all(http(200, "{}").as_bytes()).await.unwrap();
        request
    });
    let host = "127.0.0.1".to_owned();
    let client = Client::new(Address::Tcp { host, port });
    let answer: Result<Done, _> = client
        .call(Method::DeleteNetwork, Some(&NetworkRequest::default()))
        .await;
    assert_eq!(answer.unwrap(), Done {});
    let sent = served.await.unwrap();
    assert!(
        sent.contains(&format!("host: 127.0.0.1:{port}\r\n")),
        "{sent}"
    );
}

#[tokio::test]
async fn an_activated_plugin_names_its_subsystems() {
    let activate = async |body: &str| {
        let socket = Socket::new();
        let _served = socket.answer(http(200, body));
        socket.client().activate().await
    };
    let names = activate(r#"{"Implements":["NetworkDriver","IpamDriver"]}"#)
        .await
        .unwrap();
    assert_eq!(names, ["NetworkDriver", "IpamDriver"]);
    for body in ["{}", r#"{"Implements":null}"#, r#"{"Implements":[]}"#] {
        let error = activate(body).await.unwrap_err();
        assert!(
            matches!(error, CallError::NoSubsystem { .. }),
            "{body}: {error:?}"
        );
    }
    let error = activate(r#"{"Implements":[1]}"#).await.unwrap_err();
    assert!(matches!(error, CallError::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn every_form_of_body_is_read() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    assert!(outcome(chunked).await.unwrap().is_empty());
    let until_closed = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{\"Err\":\"\"}\n";
    assert_eq!(outcome(until_closed).await.unwrap().len(), 1);
    let socket = Socket::new();
    let _served = socket.answer(http(200, "null"));
    let called: Result<Done, _> = socket.client().call(Method::Leave, None::<&Done>).await;
    called.unwrap();
}

#[tokio::test]
async fn a_failure_with_status_200_is_one() {
    for key in ["Err", "Error"] {
        let error = failure(http(200, &format!(r#"{{"{key}":"no such network"}}"#))).await;
        let CallError::Failed { method, reason } = error else {
            panic!("{error:?}");
        };
        assert_eq!(
            (method, reason.as_str()),
            (Method::DeleteNetwork, "no such network")
        );
    }
}

#[tokio::test]
async fn a_refusal_says_why() {
    let cases = [
        (r#"{"Err":"driver"}"#, "driver"),
        (r#"{"Error":"allocator"}"#, "allocator"),
        (r#"{"Err":""}"#, r#"{"Err":""}"#),
        ("plain\ntext\n", "plain text"),
        (" ", "no reason given"),
        (r#"{"Err":5}"#, r#"{"Err":5}"#),
    ];
    for (body, expected) in cases {
        let error = failure(http(500, body)).await;
        let CallError::Refused { status, reason, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!((status, reason.as_str()), (500, expected));
    }
    let mut bytes = http(500, "12").into_bytes();
    let end = bytes.len() - 2;
    bytes[end..].copy_from_slice(b"\xff!");
    let error = failure(bytes).await.to_string();
    assert_eq!(
        error,
        "the plugin refused NetworkDriver.DeleteNetwork with status 500: \u{fffd}!"
    );
    // Engines take nothing but 200.
    let error = failure("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(
        matches!(error, CallError::Refused { status: 204, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn reasons_are_kept_up_to_their_limit() {
    let long = "é".repeat(PLUGIN_REASON_BYTES_MAX / 2);
    let reason = |body: String| async move {
        match failure(http(500, &body)).await {
            CallError::Refused { reason, .. } => reason,
            error => panic!("{error:?}"),
        }
    };
    assert_eq!(reason(long.clone()).await, long);
    assert_eq!(reason(format!("{long}.")).await, format!("{long}…"));
    let odd = reason(format!(".{long}")).await;
    assert_eq!(odd.len(), PLUGIN_REASON_BYTES_MAX - 1 + '…'.len_utf8());
}

#[tokio::test]
async fn an_unknown_method_is_told_apart() {
    let error = failure(http(404, "404 page not found\n")).await;
    let CallError::UnknownMethod { reason, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(reason, "404 page not found");
}

#[tokio::test]
async fn a_malformed_answer_is_an_error() {
    for body in ["", "{", "[]", "done", r#"{"Err":[]}"#] {
        let error = failure(http(200, body)).await;
        assert!(
            matches!(error, CallError::Malformed { .. }),
            "{body}: {error:?}"
        );
    }
}

#[tokio::test]
async fn answers_are_read_up_to_their_limit() {
    let bounds = Bounds {
        answer_bytes: 100,
        ..Bounds::default()
    };
    for chunked in [false, true] {
        let call = async |length: usize| {
            let body = format!("{{{}}}", " ".repeat(length - 2));
            let answer = if chunked {
                format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
                )
            } else {
                http(200, &body)
            };
            let socket = Socket::new();
            let served = socket.answer(answer);
            let client = socket.client().with_bounds(bounds);
            let called: Result<Done, _> = client.call(Method::Leave, None::<&Done>).await;
            served.await.unwrap();
            called
        };
        call(100).await.unwrap();
        let error = call(101).await.unwrap_err();
        assert!(
            matches!(error, CallError::TooLong { bytes_max: 100, .. }),
            "{error:?}"
        );
    }
    assert_eq!(Bounds::default().answer_bytes, PLUGIN_ANSWER_BYTES_MAX);
    assert_eq!(Bounds::default().call, PLUGIN_CALL_TIMEOUT);
    assert_eq!(Bounds::default().patience, PLUGIN_PATIENCE);
}

#[tokio::test]
async fn a_slow_answer_is_given_up() {
    let slow = [
        String::new(),
        "HTTP/1.1 200 OK\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{".to_owned(),
    ];
    for begun in slow {
        let socket = Socket::new();
        let listener = UnixListener::bind(&socket.path).unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(begun.as_bytes()).await.unwrap();
            // The client closes the connection when it gives up.
            stream.read_to_end(&mut Vec::new()).await
        });
        let bounds = Bounds {
            call: SHORT,
            ..Bounds::default()
        };
        let client = socket.client().with_bounds(bounds);
        let called: Result<Done, _> = client.call(Method::Join, None::<&Done>).await;
        let error = called.unwrap_err();
        assert!(matches!(error, CallError::Timeout { .. }), "{error:?}");
        let text = "the plugin did not answer NetworkDriver.Join within 100 ms";
        assert_eq!(error.to_string(), text);
        drop(
            timeout(LONG, served)
                .await
                .expect("the connection stays open"),
        );
    }
}

#[tokio::test]
async fn a_plugin_that_closes_early_is_noticed() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ] {
        let error = failure(answer).await;
        assert!(
            matches!(error, CallError::Closed { .. }),
            "{answer:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn what_is_not_http_is_noticed() {
    for answer in [
        "SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    ] {
        let error = failure(answer).await;
        assert!(
            matches!(error, CallError::NotHttp { .. }),
            "{answer:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn nothing_is_sent_twice() {
    let socket = Socket::new();
    let listener = UnixListener::bind(&socket.path).unwrap();
    let client = socket.client();
    let called = tokio::spawn(async move {
        let called: Result<Done, _> = client.call(Method::Join, None::<&Done>).await;
        called.unwrap_err()
    });
    let (stream, _) = listener.accept().await.unwrap();
    drop(stream);
    let error = called.await.unwrap();
    assert!(matches!(error, CallError::Closed { .. }), "{error:?}");
    assert!(timeout(SHORT, listener.accept()).await.is_err());
}

#[tokio::test]
async fn a_plugin_that_does_not_listen_yet_is_awaited() {
    let socket = Socket::new();
    let bounds = Bounds {
        patience: LONG,
        ..Bounds::default()
    };
    let client = socket.client().with_bounds(bounds);
    let called = tokio::spawn(async move {
        let called: Result<Done, _> = client.call(Method::Leave, None::<&Done>).await;
        called
    });
    sleep(SHORT).await;
    // A socket at which nobody listens.
    drop(UnixListener::bind(&socket.path).unwrap());
    sleep(SHORT).await;
    assert!(!called.is_finished());
    std::fs::remove_file(&socket.path).unwrap();
    let served = socket.answer(http(200, "{}"));
    called.await.unwrap().unwrap();
    served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn patience_ends() {
    let socket = Socket::new();
    let call = async |patience: Duration| {
        let bounds = Bounds {
            patience,
            ..Bounds::default()
        };
        let begin = Instant::now();
        let client = socket.client().with_bounds(bounds);
        let called: Result<Done, _> = client.call(Method::Leave, None::<&Done>).await;
        let error = called.unwrap_err();
        let source = match &error {
            CallError::Connect { source, .. } => source,
            error => panic!("{error:?}"),
        };
        assert!(matches!(source, ConnectError::Refused(_)), "{error:?}");
        assert!(error.to_string().contains("plugin.sock"), "{error}");
        begin.elapsed()
    };
    for patience in [Duration::ZERO, SHORT, LONG] {
        assert_eq!(call(patience).await, patience);
    }
}

#[tokio::test]
async fn a_connection_that_cannot_come_about_is_not_awaited() {
    let host = "bad\nhost".to_owned();
    let client = Client::new(Address::Tcp { host, port: 1 });
    let error = client.activate().await.unwrap_err();
    assert!(matches!(error, CallError::Host { .. }), "{error:?}");
}

#[tokio::test]
async fn calls_do_not_wait_for_each_other() {
    let socket = Socket::new();
    let listener = UnixListener::bind(&socket.path).unwrap();
    let client = socket.client();
    let call = || {
        let client = client.clone();
        tokio::spawn(async move {
            let called: Result<Done, _> = client.call(Method::Leave, None::<&Done>).await;
            called
        })
    };
    let (first, second) = (call(), call());
    let mut streams = [
        listener.accept().await.unwrap().0,
        listener.accept().await.unwrap().0,
    ];
    for stream in &mut streams {
        read_request(stream).await;
    }
    for stream in &mut streams {
        stream.write_all(http(200, "{}").as_bytes()).await.unwrap();
    }
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}
