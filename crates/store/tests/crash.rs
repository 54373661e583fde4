//! What a writer that is killed, and a disk that is really full, leave behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tombolo_store::{
    CommitError, Durability, Embedded, Expect, Key, OpenError, Prefix, Revision, Store, Write,
};

const CHILD: &str = "TOMBOLO_STORE_TEST_DIRECTORY";

fn put(name: &str, value: &[u8]) -> Write {
    Write::Put {
        key: Key::new(name).unwrap(),
        value: value.to_vec(),
        expect: Expect::Any,
    }
}

fn value(store: &Embedded, name: &str) -> Option<Vec<u8>> {
    let found = store.get(&Key::new(name).unwrap()).unwrap();
    found.map(|versioned| versioned.value.to_vec())
}

/// Commits pairs forever and says on standard output which ones are acknowledged.
fn write_until_killed(directory: &Path) {
    let store = Embedded::open(directory).unwrap();
    let mut output = std::io::stdout();
    let start = store.list(&Prefix::all()).unwrap().1.0;
    for n in start + 1.. {
        let mut pair = n.to_le_bytes().to_vec();
        pair.resize(2000, 0);
        let writes = vec![
            put("left", &pair),
            put(&format!("side/{}", n % 7), &pair),
            put("right", &pair),
        ];
        let durability = if n % 50 == 0 {
            Durability::Power
        } else {
            Durability::Process
        };
        assert_eq!(store.commit(writes, durability).unwrap(), Revision(n));
        writeln!(output, "done {n}").unwrap();
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return write_until_killed(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_killed_writer_loses_nothing_that_it_acknowledged",
                "--nocapture",
            ])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines
            .find(|line| line.as_ref().unwrap().contains("done"))
            .unwrap();
        if round == 0 {
            let Err(OpenError::InUse { pid, .. }) = Embedded::open(directory.path()) else {
                panic!("two openers")
            };
            assert_eq!(pid, Some(child.id()));
        }
        let reader = std::thread::spawn(move || {
            let mut newest = first.unwrap();
            for line in lines
                .map_while(Result::ok)
                .filter(|line| line.starts_with("done "))
            {
                newest = line;
            }
            newest
        });
        std::thread::sleep(Duration::from_millis(7 * round + 3));
        child.kill().unwrap();
        child.wait().unwrap();
        let newest = reader.join().unwrap();
        let acknowledged: u64 = newest.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(acknowledged > last);

        let store = Embedded::open(directory.path()).unwrap();
        last = store.list(&Prefix::all()).unwrap().1.0;
        assert!(
            last >= acknowledged,
            "{acknowledged} was acknowledged, {last} is there"
        );
        let left = value(&store, "left").unwrap();
        assert_eq!(left[..8], last.to_le_bytes());
        assert_eq!(Some(&left), value(&store, "right").as_ref());
        assert_eq!(
            Some(&left),
            value(&store, &format!("side/{}", last % 7)).as_ref()
        );
    }
}

/// Runs in a mount namespace of its own, with a file system of 1 MiB at `directory`.
fn fill(directory: &Path) {
    let store = Embedded::open(directory.join("store")).unwrap();
    let ballast = directory.join("ballast");
    fs::write(&ballast, [1; 400_000]).unwrap();
    let mut kept = 0;
    let error = loop {
        match store.commit(
            vec![put(&format!("k/{kept}"), &[3; 5000])],
            Durability::Process,
        ) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CommitError::Full { .. }), "{error:?}");
    assert!(kept > 10);
    let before = store.list(&Prefix::all()).unwrap();
    assert_eq!((before.0.len(), before.1.0), (kept, kept as u64));
    let again = store
        .commit(vec![put("again", &[3; 5000])], Durability::Power)
        .unwrap_err();
    assert!(matches!(again, CommitError::Full { .. }), "{again:?}");
    store.flush().unwrap();

    drop(store);
    let store = Embedded::open(directory.join("store")).unwrap();
    assert_eq!(store.recovery().torn, None);
    assert_eq!(store.list(&Prefix::all()).unwrap(), before);
    fs::remove_file(ballast).unwrap();
    store
        .commit(vec![put("again", &[3; 5000])], Durability::Power)
        .unwrap();
    drop(store);
    let store = Embedded::open(directory.join("store")).unwrap();
    assert_eq!(store.list(&Prefix::all()).unwrap().0.len(), kept + 1);
}

#[test]
fn a_really_full_disk_refuses_commits_until_there_is_room() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return fill(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=1m,nosuid,nodev tmpfs "$1" || exit 77
        exec "$0" --exact a_really_full_disk_refuses_commits_until_there_is_room --nocapture"#;
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(directory.path())
        .env(CHILD, directory.path())
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: unshare(1) is missing");
        return;
    };
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.code() == Some(77) || text.contains("unshare failed") {
        eprintln!("skipped: no mount namespace may be made here: {text}");
        return;
    }
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        0,
        "the mount was private"
    );
}
