use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::thread;

use super::*;
use crate::error::ErrorKind;
use crate::tls::TlsFiles;

#[test]
fn says_what_to_do_when_no_daemon_listens() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.sock");
    let stale = dir.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    assert!(fs::metadata(&stale).unwrap().file_type().is_socket());
    for path in [missing, stale] {
        let error = Client::connect(Address::Unix(path.clone())).unwrap_err();
        assert!(matches!(error, ClientError::NoDaemon { .. }), "{error:?}");
        assert_eq!(
            (error.kind(), error.exit_code()),
            (ErrorKind::Unavailable, 4)
        );
        assert_eq!(
            error.to_string(),
            format!("no daemon answers at unix://{}", path.display())
        );
        assert!(error.hint().unwrap().contains("tombolo daemon"));
    }
}

#[test]
fn refuses_to_talk_in_the_clear_over_a_network() {
    let error = Client::connect("tcp://192.0.2.1:2377".parse().unwrap()).unwrap_err();
    assert!(matches!(error, ClientError::PlainTcp { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn names_the_tls_file_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("ca.pem"), "no certificate here").unwrap();
    let files = TlsFiles {
        authority: file("ca.pem"),
        certificate: file("c.pem"),
        key: file("k.pem"),
    };
    let address = "tcp://127.0.0.1:1"
        .parse::<Address>()
        .unwrap()
        .with_tls(files);
    let ClientError::TlsFiles { source } = Client::connect(address).unwrap_err() else {
        panic!("connected without certificates");
    };
    assert!(
        source.to_string().ends_with("ca.pem holds no certificate"),
        "{source}"
    );
}

/// Answers one request on each of as many connections as there are answers, then closes the connection.
fn server(answers: Vec<&'static str>) -> (tempfile::TempDir, Address, thread::JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let thread = thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
    });
    (dir, Address::Unix(path), thread)
}

const PRUNED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

#[test]
fn opens_a_new_connection_when_the_daemon_has_closed_the_old_one() {
    let (_dir, address, thread) = server(vec![PRUNED, PRUNED, PRUNED]);
    let mut client = Client::connect(address).unwrap();
    for _ in 0..3 {
        client.prune().unwrap();
    }
    thread.join().unwrap();
    assert!(matches!(
        client.prune().unwrap_err(),
        ClientError::NoDaemon { .. }
    ));
}

#[test]
fn a_broken_answer_is_not_asked_for_twice() {
    let (_dir, address, thread) = server(vec![
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}",
        PRUNED,
    ]);
    let mut client = Client::connect(address).unwrap();
    let error = client.prune().unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
    client.prune().unwrap();
    thread.join().unwrap();
}

#[test]
fn answers_of_strangers_are_told_apart() {
    let (_dir, address, thread) = server(vec![
        "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
        "HTTP/1.1 409 Conflict\r\ncontent-length: 50\r\n\r\n{\"kind\":\"conflict\",\"code\":\"busy\",\"message\":\"wait\"}",
    ]);
    let mut client = Client::connect(address).unwrap();
    assert!(matches!(
        client.version().unwrap_err(),
        ClientError::Status { status: 502 }
    ));
    assert!(matches!(
        client.version().unwrap_err(),
        ClientError::Answer { status: 200, .. }
    ));
    let error = client.version().unwrap_err();
    assert_eq!(error.api().map(|e| e.code), Some(ErrorCode::Busy));
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::Conflict, "wait".to_owned())
    );
    thread.join().unwrap();
}
