//! A kernel of its own for a test: the thread's new network and mount namespaces.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tombolo_lab::node;

/// Runs `test` on a thread whose network namespace is new and whose mounts nobody else sees; it is given an
/// empty directory. Everything goes when it returns. Skips the test
/// where there can be none.
pub(crate) fn on_host(test: impl FnOnce(&Path) + Send) {
    if let Some(why) = node::obstacle() {
        node::skip(&why);
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("run as root");
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            run(&["ip", "link", "set", "lo", "up"]);
            test(path);
        });
        if let Err(panic) = inside.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Somebody else's network namespace, named by a file, with its inode.
pub(crate) fn foreign_netns(path: PathBuf) -> (PathBuf, u64) {
    std::fs::write(&path, "").unwrap();
    let option = format!("--net={}", path.display());
    run(&["unshare", &option, "ip", "link", "set", "lo", "up"]);
    let inode = tombolo_kernel::netns_inode(&path).unwrap();
    (path, inode)
}

/// Runs a program in the namespace of the calling thread; panics with its complaint when it fails.
pub(crate) fn run(line: &[&str]) {
    let output = Command::new(line[0]).args(&line[1..]).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line:?}: {complaint}");
}
