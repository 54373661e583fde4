mod damage;
mod disk;
mod watch;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use tempfile::TempDir;

use super::record::{FRAME_BYTES, HEADER_BYTES, MARKER};
use super::*;
use crate::limits::{COMPACT_BYTES, HISTORY_CHANGES, SCAN_CANDIDATES, WATCH_QUEUE, WATCHES};
use crate::{Expect, WatchEnd};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn put(text: &str, value: &[u8], expect: Expect) -> Write {
    Write::Put {
        key: key(text),
        value: value.to_vec(),
        expect,
    }
}

fn set(text: &str, value: &[u8]) -> Vec<Write> {
    vec![put(text, value, Expect::Any)]
}

fn delete(text: &str) -> Vec<Write> {
    vec![Write::Delete {
        key: key(text),
        expect: Expect::Any,
    }]
}

fn open() -> (TempDir, Embedded) {
    let directory = TempDir::new().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    (directory, store)
}

fn everything(store: &Embedded) -> (Vec<(Key, Versioned)>, Revision) {
    store.list(&Prefix::all()).unwrap()
}

fn replay_error(directory: &Path) -> ReplayError {
    match Embedded::open(directory) {
        Err(OpenError::Replay { source, .. }) => source,
        other => panic!("opened as {other:?}"),
    }
}

fn device(path: &str) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

/// Three commits of several keys each; returns the state after each and the length of the log.
fn three_commits(store: &Embedded, durability: Durability) -> Vec<(u64, Vec<(Key, Versioned)>)> {
    let mut states = vec![(HEADER_BYTES as u64, Vec::new())];
    for writes in [
        vec![
            put("a", b"one", Expect::Any),
            put("b/c", b"two", Expect::Any),
        ],
        vec![
            put("a", b"uno", Expect::Any),
            delete("b/c").remove(0),
            put("d", b"", Expect::Any),
        ],
        vec![
            put("e", &[7; 40], Expect::Any),
            put("a", b"eins", Expect::Any),
        ],
    ] {
        store.commit(writes, durability).unwrap();
        states.push((store.hold_log().unwrap().len(), everything(store).0));
    }
    states
}

#[test]
fn expectations_hold_for_all_keys_or_nothing_happens() {
    let (_directory, store) = open();
    let first = store
        .commit(vec![put("a", b"1", Expect::Absent)], Durability::Process)
        .unwrap();
    assert_eq!(first, Revision(1));
    let writes = vec![
        put("b", b"2", Expect::Absent),
        put("a", b"2", Expect::Absent),
    ];
    let error = store.commit(writes, Durability::Process).unwrap_err();
    assert_eq!(
        error.to_string(),
        "key a was expected absent, but is at revision 1"
    );
    assert_eq!(store.get(&key("b")).unwrap(), None);

    let writes = vec![
        put("b", b"2", Expect::Absent),
        put("a", b"2", Expect::At(first)),
    ];
    let second = store.commit(writes, Durability::Process).unwrap();
    assert_eq!(&*store.get(&key("a")).unwrap().unwrap().value, b"2");
    let gone = Write::Delete {
        key: key("a"),
        expect: Expect::At(first),
    };
    let error = store.commit(vec![gone], Durability::Process).unwrap_err();
    assert!(matches!(error, CommitError::Conflict { found: Some(found), .. } if found == second));
    let gone = Write::Delete {
        key: key("a"),
        expect: Expect::At(second),
    };
    assert_eq!(
        store.commit(vec![gone], Durability::Process).unwrap(),
        Revision(3)
    );
    let error = store.commit(vec![put("a", b"", Expect::At(second))], Durability::Power);
    assert!(matches!(
        error,
        Err(CommitError::Conflict { found: None, .. })
    ));
}

#[test]
fn a_commit_that_changes_nothing_has_no_revision_of_its_own() {
    let (_directory, store) = open();
    assert_eq!(
        store.commit(delete("a"), Durability::Process).unwrap(),
        Revision(0)
    );
    store.commit(set("a", b"1"), Durability::Process).unwrap();
    assert!(store.needs_flush());
    assert_eq!(
        store.commit(vec![], Durability::Power).unwrap(),
        Revision(1)
    );
    assert!(!store.needs_flush());
}

#[test]
fn a_list_is_the_keys_below_the_prefix() {
    let (_directory, store) = open();
    for name in ["net", "net/b", "net/a/x", "net-1/a", "network/a", "a"] {
        store
            .commit(set(name, name.as_bytes()), Durability::Process)
            .unwrap();
    }
    let (found, revision) = store.list(&Prefix::new("net/").unwrap()).unwrap();
    let names: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!((names, revision), (vec!["net/a/x", "net/b"], Revision(6)));
    assert_eq!(everything(&store).0.len(), 6);
}

#[test]
fn everything_is_there_again_after_reopening() {
    let (directory, store) = open();
    three_commits(&store, Durability::Process);
    let before = everything(&store);
    drop(store);
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(everything(&store), before);
    assert_eq!(
        store.recovery(),
        Recovery {
            commits: 3,
            torn: None
        }
    );
    assert!(!store.needs_flush());
    assert_eq!(
        store.commit(set("f", b""), Durability::Power).unwrap(),
        Revision(4)
    );
}

#[test]
fn a_second_opener_is_told_who_has_it() {
    let (directory, store) = open();
    let error = Embedded::open(directory.path()).unwrap_err();
    let expected = format!("is in use by process {}", std::process::id());
    assert!(error.to_string().ends_with(&expected), "{error}");
    drop(store);
    assert!(Embedded::open(directory.path()).is_ok());
}

#[test]
fn a_commit_is_refused_beyond_each_limit() {
    let (_directory, store) = open();
    let commit = |writes| store.commit(writes, Durability::Process);
    commit(set("a", &vec![1; VALUE_BYTES])).unwrap();
    let error = commit(set("a", &vec![1; VALUE_BYTES + 1])).unwrap_err();
    assert!(matches!(error, CommitError::ValueTooLarge { bytes, .. } if bytes == VALUE_BYTES + 1));

    let many = |count| {
        (0..count)
            .map(|n| put(&format!("n/{n}"), b"", Expect::Any))
            .collect()
    };
    commit(many(COMMIT_WRITES)).unwrap();
    let error = commit(many(COMMIT_WRITES + 1)).unwrap_err();
    assert!(matches!(error, CommitError::TooManyWrites { count } if count == COMMIT_WRITES + 1));

    let rest = COMMIT_BYTES - VALUE_BYTES - 2;
    let sized = |rest| {
        vec![
            put("a", &vec![1; VALUE_BYTES], Expect::Any),
            put("b", &vec![1; rest], Expect::Any),
        ]
    };
    commit(sized(rest)).unwrap();
    let error = commit(sized(rest + 1)).unwrap_err();
    assert!(matches!(error, CommitError::TooLarge { bytes } if bytes == COMMIT_BYTES + 1));

    let error = commit([set("a", b""), set("a", b"")].concat()).unwrap_err();
    assert!(matches!(error, CommitError::DuplicateKey { .. }));
}

#[test]
fn the_store_may_be_filled_to_its_limit_and_emptied_again() {
    let (_directory, mut store) = open();
    store.live_limit = 1000;
    let entry = |bytes: usize| bytes - record::ENTRY_BYTES - 1;
    store
        .commit(set("a", &vec![0; entry(600)]), Durability::Process)
        .unwrap();
    let error = store
        .commit(set("b", &vec![0; entry(401)]), Durability::Process)
        .unwrap_err();
    assert!(
        matches!(
            error,
            CommitError::StoreLimit {
                bytes: 1001,
                limit: 1000
            }
        ),
        "{error:?}"
    );
    store
        .commit(set("b", &vec![0; entry(400)]), Durability::Process)
        .unwrap();
    store.live_limit = 500;
    store
        .commit(set("a", &vec![0; entry(599)]), Durability::Process)
        .unwrap();
    store.commit(delete("a"), Durability::Process).unwrap();
    assert_eq!(store.read_state().unwrap().live_bytes(), 400);
}

#[test]
fn commits_from_many_threads_are_counted_once_each() {
    let (_directory, store) = open();
    let count = || loop {
        let found = store.get(&key("n")).unwrap();
        let (n, expect) = found.map_or((0, Expect::Absent), |versioned| {
            (versioned.value[0], Expect::At(versioned.revision))
        });
        let durability = if n % 2 == 0 {
            Durability::Process
        } else {
            Durability::Power
        };
        match store.commit(vec![put("n", &[n + 1], expect)], durability) {
            Ok(_) => return store.flush().unwrap(),
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| count()));
        }
    });
    assert_eq!(&*store.get(&key("n")).unwrap().unwrap().value, [200]);
}
