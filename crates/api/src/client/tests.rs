use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, channel};
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

/// A daemon that serves connections one after another.
struct Server {
    _dir: tempfile::TempDir,
    address: Address,
    /// Tells of each connection that is closed.
    closed: Receiver<()>,
}

impl Server {
    /// Answers a request for each of a connection's answers, then closes it.
    fn start(connections: Vec<Vec<&'static str>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (closing, closed) = channel();
        thread::spawn(move || {
            for answers in connections {
                let (stream, _) = listener.accept().unwrap();
                for answer in answers {
                    let mut lines = BufReader::new(&stream).lines();
                    while lines
                        .next()
                        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
                    {
                    }
                    (&stream).write_all(answer.as_bytes()).unwrap();
                }
                drop(stream);
                closing.send(()).unwrap();
            }
        });
        Self {
            _dir: dir,
            address: Address::Unix(path),
            closed,
        }
    }

    fn client(&self) -> Client {
        Client::connect(self.address.clone()).unwrap()
    }

    fn await_close(&self) {
        self.closed.recv().unwrap();
    }
}

const PRUNED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

#[test]
fn opens_a_new_connection_when_the_daemon_has_closed_the_old_one() {
    let server = Server::start(vec![vec![PRUNED], vec![PRUNED], vec![PRUNED]]);
    let mut client = server.client();
    for _ in 0..3 {
        client.prune().unwrap();
        server.await_close();
    }
    // The listener goes with the last connection, a moment later.
    while let Ok(()) = server.closed.recv() {}
    assert!(matches!(
        client.prune().unwrap_err(),
        ClientError::NoDaemon { .. }
    ));
}

#[test]
fn only_what_reads_is_asked_again_when_the_daemon_closes_as_it_is_asked() {
    let version = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]";
    let server = Server::start(vec![vec![PRUNED, ""], vec![version]]);
    let mut client = server.client();
    client.prune().unwrap();
    let error = client.version().unwrap_err();
    assert!(
        matches!(error, ClientError::Answer { status: 200, .. }),
        "{error:?}"
    );
    let server = Server::start(vec![vec![PRUNED, ""], vec![PRUNED]]);
    let mut client = server.client();
    client.prune().unwrap();
    let error = client.prune().unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
}

#[test]
fn a_broken_answer_is_not_asked_for_twice() {
    let broken = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}";
    let server = Server::start(vec![vec![broken], vec![PRUNED]]);
    let mut client = server.client();
    let error = client.prune().unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
    client.prune().unwrap();
}

#[test]
fn answers_of_strangers_are_told_apart() {
    let server = Server::start(vec![
        vec!["HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"],
        vec!["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]"],
        vec![
            "HTTP/1.1 409 Conflict\r\ncontent-length: 50\r\n\r\n{\"kind\":\"conflict\",\"code\":\"busy\",\"message\":\"wait\"}",
        ],
    ]);
    let mut client = server.client();
    assert!(matches!(
        client.version().unwrap_err(),
        ClientError::Status { status: 502 }
    ));
    server.await_close();
    assert!(matches!(
        client.version().unwrap_err(),
        ClientError::Answer { status: 200, .. }
    ));
    server.await_close();
    let error = client.version().unwrap_err();
    assert_eq!(error.api().map(|e| e.code), Some(ErrorCode::Busy));
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::Conflict, "wait".to_owned())
    );
}
