use super::*;

#[test]
fn a_watch_goes_on_exactly_where_a_list_ends() {
    let (_directory, store) = open();
    let commit = |writes| store.commit(writes, Durability::Process).unwrap();
    commit(set("n/a", b"1"));
    let (_, from) = everything(&store);
    commit([set("n/a", b"2"), set("m/a", b"x"), set("n/b", b"3")].concat());
    let watch = store.watch(&Prefix::new("n/").unwrap(), from).unwrap();
    commit(delete("n/a"));
    let change = |name: &str, value: Option<&[u8]>, revision| Change {
        key: key(name),
        value: value.map(Into::into),
        revision: Revision(revision),
    };
    assert_eq!(watch.next(), Ok(change("n/a", Some(b"2"), 2)));
    assert_eq!(watch.next(), Ok(change("n/b", Some(b"3"), 2)));
    assert_eq!(watch.next(), Ok(change("n/a", None, 3)));
    assert_eq!(watch.next_within(Duration::ZERO), Ok(None));
    drop(store);
    assert_eq!(watch.next(), Err(WatchEnd::Closed));
}

#[test]
fn a_watcher_that_is_one_change_too_slow_has_lagged() {
    let (_directory, store) = open();
    let watch = store.watch(&Prefix::all(), Revision(0)).unwrap();
    for _ in 0..WATCH_QUEUE {
        store.commit(set("a", b""), Durability::Process).unwrap();
    }
    let exact = store.watch(&Prefix::all(), Revision(0)).unwrap();
    store.commit(set("a", b""), Durability::Process).unwrap();
    for watch in [watch, exact] {
        for revision in 1..=WATCH_QUEUE as u64 {
            assert_eq!(watch.next().unwrap().revision, Revision(revision));
        }
        assert_eq!(watch.next(), Err(WatchEnd::Lagged));
        assert_eq!(watch.next(), Err(WatchEnd::Closed));
    }
}

#[test]
fn a_watch_from_before_the_history_or_after_the_present_has_lagged() {
    let (directory, store) = open();
    for _ in 0..=HISTORY_CHANGES {
        store.commit(set("a", b""), Durability::Process).unwrap();
    }
    let end = |store: &Embedded, from| {
        let watch = store
            .watch(&Prefix::new("none/").unwrap(), Revision(from))
            .unwrap();
        watch.next_within(Duration::ZERO)
    };
    let present = HISTORY_CHANGES as u64 + 1;
    assert_eq!(end(&store, 0), Err(WatchEnd::Lagged));
    assert_eq!(end(&store, 1), Ok(None));
    assert_eq!(end(&store, present), Ok(None));
    assert_eq!(end(&store, present + 1), Err(WatchEnd::Lagged));
    let snapshot = store.snapshot().unwrap();
    store.hold_log().unwrap().rewrite(&snapshot).unwrap();
    drop(store);
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(end(&store, present - 1), Err(WatchEnd::Lagged));
    assert_eq!(end(&store, present), Ok(None));
}

#[test]
fn history_is_bounded_in_bytes_too() {
    let (_directory, store) = open();
    let large = vec![0; VALUE_BYTES - 1];
    for _ in 0..5 {
        store.commit(set("a", &large), Durability::Process).unwrap();
    }
    let watch = |from| store.watch(&Prefix::all(), Revision(from)).unwrap();
    assert_eq!(watch(0).next(), Err(WatchEnd::Lagged));
    assert_eq!(watch(1).next().unwrap().revision, Revision(2));
}

#[test]
fn a_dropped_watch_makes_room_for_another() {
    let (_directory, store) = open();
    let watch = || store.watch(&Prefix::all(), Revision(0));
    let mut watches: Vec<_> = (0..WATCHES).map(|_| watch().unwrap()).collect();
    assert!(matches!(watch(), Err(WatchError::TooMany)));
    watches.pop();
    assert!(watch().is_ok());
}
