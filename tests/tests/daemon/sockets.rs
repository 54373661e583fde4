//! The Unix socket, who may use it, and what the service manager is told.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Stdio;
use std::time::Duration;

use tombolo_api::{Address, Client};
use tombolo_lab::node::wait_until;
use tombolo_tests::Stage;
use tombolo_tests::stage::PATIENCE;

#[test]
fn the_socket_is_for_root_and_its_group() {
    let Some(stage) = Stage::start_with(&["--group", "daemon"]) else {
        return;
    };
    let facts = std::fs::metadata(stage.socket()).unwrap();
    let group: u32 = stage
        .shell("getent group daemon | cut -d: -f3")
        .parse()
        .unwrap();
    assert_eq!(facts.permissions().mode() & 0o7777, 0o660);
    assert_eq!((facts.uid(), facts.gid()), (0, group));
    let ask = |who: &str| {
        let line = format!("exec setpriv --reuid 65534 {who} \"$0\" --no-autostart network ls");
        let mut command = stage.command("sh");
        // The program may lie where only root reads.
        command.arg("-c").arg(format!(
            "cp $0 /run/program && chmod 755 /run/program && set -- && {line}"
        ));
        let program = std::env::var_os("TOMBOLO_BINARY").unwrap_or_else(|| {
            let me = std::env::current_exe().unwrap();
            me.ancestors().nth(2).unwrap().join("tombolo").into()
        });
        command.arg(program).output().unwrap()
    };
    assert!(
        !ask("--regid 65534 --clear-groups").status.success(),
        "nobody is let in"
    );
    let member = ask("--regid daemon --clear-groups");
    assert!(
        member.status.success(),
        "{}",
        String::from_utf8_lossy(&member.stderr)
    );
}

#[test]
fn an_unknown_group_is_refused() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    let error = stage
        .start_with(&["--group", "no-such-group"], &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("no-such-group"), "{error}");
    assert!(!stage.socket().exists());
}

#[test]
fn a_socket_of_the_service_manager_is_used() {
    let Some(stage) = Stage::bare() else { return };
    let place = stage.path("/run/manager.sock");
    let listener = UnixListener::bind(&place).unwrap();
    // As sd_listen_fds(3) describes it; standard input brings the socket to its place.
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" daemon 3<&0 </dev/null";
    let mut command = stage.command("sh");
    let program = stage
        .tombolo_command()
        .get_args()
        .last()
        .unwrap()
        .to_owned();
    command
        .args(["-c", script])
        .arg(program)
        .stdin(Stdio::from(OwnedFd::from(listener)));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = command.spawn().unwrap();
    // A connection waits in the socket until the daemon takes it.
    let mut client = Client::connect(Address::Unix(place)).unwrap();
    assert_eq!(client.network_inspect("bridge").unwrap().name, "bridge");
    assert!(!stage.socket().exists(), "no other socket is made");
    drop(client);
    drop(stage);
    daemon.wait().unwrap();
}

#[test]
fn the_service_manager_is_told_of_readiness_and_of_the_end() {
    let Some(mut stage) = Stage::bare() else {
        return;
    };
    let manager = UnixDatagram::bind(stage.path("/run/notify.sock")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    stage
        .spawn_daemon(&[], &[("NOTIFY_SOCKET", "/run/notify.sock")])
        .unwrap();
    let hear = || {
        let mut news = [0; 256];
        let length = manager.recv(&mut news).unwrap();
        String::from_utf8_lossy(&news[..length]).into_owned()
    };
    assert_eq!(hear(), "READY=1");
    // Ready means that it answers at once.
    stage.client().version().unwrap();
    stage.stop().unwrap();
    assert_eq!(hear(), "STOPPING=1");
    manager
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert!(
        manager.recv(&mut [0; 8]).is_err(),
        "there is nothing more to tell"
    );
}

#[test]
fn a_stale_socket_is_replaced_and_a_file_is_not() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    stage.kill().unwrap();
    assert!(stage.socket().exists(), "a killed daemon leaves its socket");
    stage.start().unwrap();
    stage.stop().unwrap();
    assert!(
        wait_until(PATIENCE, || !stage.socket().exists()),
        "a stopped daemon takes its socket along"
    );
    std::fs::write(stage.socket(), "precious").unwrap();
    let error = stage.start_with(&[], &[]).unwrap_err().to_string();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(stage.socket()).unwrap(), "precious");
}
