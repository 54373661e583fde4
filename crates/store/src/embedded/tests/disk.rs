use super::*;

#[test]
fn a_full_disk_refuses_the_commit_and_nothing_else() {
    let (directory, store) = open();
    store.commit(set("a", b"1"), Durability::Process).unwrap();
    let before = everything(&store);
    let watch = store.watch(&Prefix::all(), before.1).unwrap();
    store.hold_log().unwrap().replace_file(device("/dev/full"));
    let error = store
        .commit(set("a", b"2"), Durability::Process)
        .unwrap_err();
    assert!(matches!(error, CommitError::Full { .. }), "{error:?}");
    assert_eq!(everything(&store), before);
    assert_eq!(watch.next_within(Duration::ZERO), Ok(None));
    // The device cannot be truncated either, so the log is written anew, which works again.
    assert_eq!(
        store.commit(set("a", b"3"), Durability::Power).unwrap(),
        Revision(2)
    );
    drop(store);
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(&*store.get(&key("a")).unwrap().unwrap().value, b"3");
}

#[test]
fn after_a_failed_sync_the_log_is_written_anew() {
    for by_commit in [true, false] {
        let (directory, store) = open();
        store.commit(set("a", b"1"), Durability::Process).unwrap();
        let before = everything(&store);
        // Takes every write, keeps none, and has no sync.
        store.hold_log().unwrap().replace_file(device("/dev/null"));
        if by_commit {
            let error = store.commit(set("a", b"2"), Durability::Power).unwrap_err();
            assert!(matches!(error, CommitError::Write { .. }), "{error:?}");
        } else {
            let FlushError::Write { source } = store.flush().unwrap_err() else {
                panic!("poison")
            };
            assert_eq!(source.step, "sync");
        }
        assert_eq!(everything(&store), before);
        assert!(store.needs_flush());
        store.flush().unwrap();
        assert!(!store.needs_flush());
        store.commit(set("b", b"3"), Durability::Process).unwrap();
        drop(store);
        let store = Embedded::open(directory.path()).unwrap();
        assert_eq!(&*store.get(&key("a")).unwrap().unwrap().value, b"1");
        assert_eq!(&*store.get(&key("b")).unwrap().unwrap().value, b"3");
    }
}

#[test]
fn a_sync_of_a_replaced_log_says_nothing_about_the_new_one() {
    let (_directory, store) = open();
    store
        .commit(set("a", &[1; 5000]), Durability::Process)
        .unwrap();
    let pending = store.hold_log().unwrap().pending_sync().unwrap();
    store.commit(delete("a"), Durability::Process).unwrap();
    let snapshot = store.snapshot().unwrap();
    store.hold_log().unwrap().rewrite(&snapshot).unwrap();
    store.commit(set("b", b""), Durability::Process).unwrap();
    store.hold_log().unwrap().settle(&pending, Ok(())).unwrap();
    assert!(store.needs_flush());
    let late = Err(io::Error::other("late"));
    store.hold_log().unwrap().settle(&pending, late).unwrap();
    assert!(!store.hold_log().unwrap().is_distrusted());
}

#[test]
fn another_failure_of_the_disk_is_not_called_full() {
    let (directory, store) = open();
    let file = File::open(log_path(directory.path())).unwrap();
    store.hold_log().unwrap().replace_file(file);
    let error = store
        .commit(set("a", b"2"), Durability::Process)
        .unwrap_err();
    assert!(matches!(error, CommitError::Write { .. }), "{error:?}");
    assert_eq!(everything(&store), (Vec::new(), Revision(0)));
}
