use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener as StdListener, UnixStream as StdStream};
use std::path::Path;
use std::process::{Command, Stdio};

use super::notify::{Progress, notify_at};
use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(directory: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_socket_has_its_mode_and_group_and_goes_with_the_daemon() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("run/deep");
    let path = directory.join("t.sock");
    let listener = unix(&path, Some("daemon")).unwrap();
    assert_eq!(mode(&path), 0o660);
    assert_eq!(mode(&directory), 0o755);
    let gid = nix::unistd::Group::from_name("daemon")
        .unwrap()
        .unwrap()
        .gid
        .as_raw();
    assert_ne!(gid, 0);
    assert_eq!(fs::metadata(&path).unwrap().gid(), gid);
    assert_eq!(listener.to_string(), format!("unix://{}", path.display()));
    assert_eq!(names(&directory), ["t.sock", "t.sock.lock"]);
    drop(listener);
    assert_eq!(names(&directory), ["t.sock.lock"]);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.sock");

    drop(StdListener::bind(&path).unwrap());
    assert!(StdStream::connect(&path).is_err());
    let listener = unix(&path, None).unwrap();
    StdStream::connect(&path).unwrap();
    let second = unix(&path, None);
    assert!(
        matches!(second, Err(ListenError::Taken { .. })),
        "{second:?}"
    );
    StdStream::connect(&path).unwrap();
    drop(listener);

    // One that does not know of our lock.
    let stranger = StdListener::bind(&path).unwrap();
    let second = unix(&path, None);
    assert!(
        matches!(second, Err(ListenError::Taken { .. })),
        "{second:?}"
    );
    drop(stranger);
    drop(unix(&path, None).unwrap());
}

#[tokio::test]
async fn what_is_no_socket_stays() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.sock");
    fs::write(&path, "precious").unwrap();
    let outcome = unix(&path, None);
    assert!(
        matches!(outcome, Err(ListenError::NotASocket { .. })),
        "{outcome:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    let path = root.path().join("u.sock");
    let outcome = unix(&path, Some("no-such-group"));
    assert!(
        matches!(outcome, Err(ListenError::UnknownGroup { .. })),
        "{outcome:?}"
    );
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_another_put_there_is_not_removed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.sock");
    let listener = unix(&path, None).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = StdListener::bind(&path).unwrap();
    drop(listener);
    StdStream::connect(&path).unwrap();
}

#[tokio::test]
async fn plain_tcp_is_refused_off_loopback() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let address: SocketAddr = address.parse().unwrap();
        let outcome = tcp(address, None).await;
        assert!(
            matches!(outcome, Err(ListenError::PlainTcp { .. })),
            "{outcome:?}"
        );
    }
    let listener = tcp("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    assert_ne!(listener.tcp_address().unwrap().port(), 0);
}

#[test]
fn tells_the_service_manager() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut buffer = [0; 64];
    for (progress, words) in [
        (Progress::Ready, "READY=1"),
        (Progress::Stopping, "STOPPING=1"),
    ] {
        notify_at(path.as_os_str(), progress).unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], words.as_bytes());
    }
    drop(socket);
    assert!(notify_at(path.as_os_str(), Progress::Ready).is_err());
}

#[test]
fn tells_the_service_manager_at_an_abstract_name() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("tombolo-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    notify_at(&OsString::from(format!("@{name}")), Progress::Ready).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(socket.recv(&mut buffer).unwrap(), 7);
}

#[tokio::test]
async fn addresses_decide_how_to_listen() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.sock");
    let listener = listen(&Address::Unix(path.clone()), None).await.unwrap();
    StdStream::connect(&path).unwrap();
    drop(listener);
    let listener = listen(&"tcp://[::1]:0".parse().unwrap(), None)
        .await
        .unwrap();
    assert!(listener.tcp_address().unwrap().ip().is_loopback());
    let outcome = listen(&"tcp://0.0.0.0:0".parse().unwrap(), None).await;
    assert!(
        matches!(outcome, Err(ListenError::PlainTcp { .. })),
        "{outcome:?}"
    );
    let outcome = listen(&"tcp://localhost:0".parse().unwrap(), None).await;
    assert!(
        matches!(outcome, Err(ListenError::HostName { .. })),
        "{outcome:?}"
    );
}

/// Runs [`inherited_child`] in a process that is handed a file as descriptor 3.
fn with_inherited(file: OwnedFd, extra: &str) -> std::process::Child {
    let script = format!(
        r#"exec 3<&0 </dev/null; {extra} LISTEN_FDS=1 TOMBOLO_TEST_CHILD=1 exec "$0" \
        --exact listen::tests::nothing_is_taken_that_was_not_handed_over --nocapture"#
    );
    Command::new("/bin/sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .stdin(file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What the child says it found.
fn found(child: std::process::Child) -> String {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .find_map(|line| Some(line.split_once("found: ")?.1.to_owned()))
        .expect(&text)
}

/// Also the child of the other tests of inherited sockets, which says what it was handed.
#[tokio::test]
async fn nothing_is_taken_that_was_not_handed_over() {
    let outcome = inherited(None);
    assert_eq!(std::env::var_os("LISTEN_FDS"), None);
    if std::env::var_os("TOMBOLO_TEST_CHILD").is_none() {
        assert!(outcome.unwrap().is_empty());
        return;
    }
    match outcome {
        Ok(listeners) => {
            println!("found: {listeners:?}");
            for listener in listeners {
                listener.accept().await.unwrap();
            }
        }
        Err(error) => println!("found: {error}"),
    }
}

#[test]
fn sockets_of_the_service_manager_are_taken() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("t.sock");
    let child = with_inherited(StdListener::bind(&path).unwrap().into(), "LISTEN_PID=$$");
    StdStream::connect(&path).unwrap();
    assert_eq!(
        found(child),
        "[Listener(unix socket from the service manager)]"
    );

    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let child = with_inherited(tcp.into(), "LISTEN_PID=$$");
    std::net::TcpStream::connect(address).unwrap();
    assert_eq!(found(child), format!("[Listener(tcp://{address})]"));
}

#[test]
fn sockets_for_another_process_and_other_files_are_not_taken() {
    let socket = || StdListener::bind(tempfile::tempdir().unwrap().path().join("t.sock")).unwrap();
    assert_eq!(found(with_inherited(socket().into(), "LISTEN_PID=1")), "[]");
    let file = tempfile::tempfile().unwrap();
    assert_eq!(
        found(with_inherited(file.into(), "LISTEN_PID=$$")),
        "file descriptor 3 from the service manager is no stream socket"
    );
    let tcp = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let address = tcp.local_addr().unwrap();
    assert_eq!(
        found(with_inherited(tcp.into(), "LISTEN_PID=$$")),
        format!("will not listen on tcp://{address} without TLS")
    );
}
