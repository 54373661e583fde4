use super::*;

#[test]
fn a_log_cut_anywhere_opens_as_whole_commits() {
    let (directory, store) = open();
    let states = three_commits(&store, Durability::Power);
    drop(store);
    let log = fs::read(log_path(directory.path())).unwrap();
    assert_eq!(log.len() as u64, states[3].0);
    for cut in 0..=log.len() {
        let directory = TempDir::new().unwrap();
        fs::write(log_path(directory.path()), &log[..cut]).unwrap();
        if cut < HEADER_BYTES {
            assert!(
                matches!(replay_error(directory.path()), ReplayError::Header),
                "cut at {cut}"
            );
            continue;
        }
        let store = Embedded::open(directory.path()).unwrap();
        let whole = states
            .iter()
            .rposition(|(len, _)| *len <= cut as u64)
            .unwrap();
        let (len, expected) = &states[whole];
        assert_eq!(&everything(&store).0, expected, "cut at {cut}");
        let bytes = cut as u64 - len;
        let torn = (bytes > 0).then_some(Torn {
            offset: *len,
            bytes,
        });
        assert_eq!(
            store.recovery(),
            Recovery {
                commits: whole as u64,
                torn
            },
            "cut at {cut}"
        );
        store
            .commit(set("after", b"cut"), Durability::Process)
            .unwrap();
        drop(store);
        let store = Embedded::open(directory.path()).unwrap();
        assert_eq!(store.recovery().torn, None);
        assert!(store.get(&key("after")).unwrap().is_some());
    }
}

#[test]
fn a_snapshot_cut_anywhere_is_refused() {
    let (directory, store) = open();
    three_commits(&store, Durability::Process);
    let snapshot = store.snapshot().unwrap();
    store.hold_log().unwrap().rewrite(&snapshot).unwrap();
    drop(store);
    let log = fs::read(log_path(directory.path())).unwrap();
    for cut in 0..log.len() {
        fs::write(log_path(directory.path()), &log[..cut]).unwrap();
        let error = replay_error(directory.path());
        assert!(
            matches!(error, ReplayError::Header | ReplayError::Snapshot { .. }),
            "cut at {cut}: {error}"
        );
    }
    fs::write(log_path(directory.path()), &log).unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(everything(&store).1, Revision(3));
}

#[test]
fn a_changed_byte_before_a_sync_is_damage_at_that_record() {
    let (directory, store) = open();
    let states = three_commits(&store, Durability::Power);
    drop(store);
    let path = log_path(directory.path());
    let log = fs::read(&path).unwrap();
    for place in HEADER_BYTES..log.len() {
        let mut bent = log.clone();
        bent[place] ^= 0x10;
        fs::write(&path, &bent).unwrap();
        let record = states
            .iter()
            .rposition(|(len, _)| *len <= place as u64)
            .unwrap();
        if record == 2 {
            let store = Embedded::open(directory.path()).unwrap();
            assert_eq!(everything(&store).0, states[2].1, "byte {place}");
            continue;
        }
        let error = replay_error(directory.path());
        let text = error.to_string();
        let ReplayError::Damaged { offset, .. } = error else {
            panic!("byte {place}: {text}")
        };
        assert_eq!(offset, states[record].0, "byte {place}");
        assert!(
            text.contains(&format!("cut it to {offset} bytes")),
            "{text}"
        );
        assert_eq!(
            fs::read(&path).unwrap(),
            bent,
            "a damaged log is left as it is"
        );
    }
}

#[test]
fn a_hole_after_the_last_sync_is_an_incomplete_end() {
    let (directory, store) = open();
    let states = three_commits(&store, Durability::Process);
    drop(store);
    let path = log_path(directory.path());
    let log = device(path.to_str().unwrap());
    log.write_all_at(&[0; FRAME_BYTES], states[1].0).unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(everything(&store).0, states[1].1);
    let bytes = states[3].0 - states[1].0;
    assert_eq!(
        store.recovery().torn,
        Some(Torn {
            offset: states[1].0,
            bytes
        })
    );
}

#[test]
fn a_value_that_looks_like_a_record_is_never_taken_for_one() {
    let (directory, store) = open();
    let states = three_commits(&store, Durability::Power);
    let path = log_path(directory.path());
    let log = fs::read(&path).unwrap();
    store
        .commit(set("copy", &log), Durability::Process)
        .unwrap();
    drop(store);
    let full = fs::metadata(&path).unwrap().len();
    device(path.to_str().unwrap()).set_len(full - 1).unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(everything(&store).0, states[3].1);
}

#[test]
fn a_torn_end_with_too_many_false_records_is_left_to_a_person() {
    for (extra, refused) in [(0, false), (1, true)] {
        let (directory, store) = open();
        // The marker of the record itself is not a candidate: the search starts behind it.
        let count = SCAN_CANDIDATES - 1 + extra;
        let value: Vec<u8> = MARKER.iter().copied().cycle().take(count * 4).collect();
        store
            .commit(
                set("a", &[value.as_slice(), &[0; 64]].concat()),
                Durability::Process,
            )
            .unwrap();
        drop(store);
        let path = log_path(directory.path());
        let full = fs::metadata(&path).unwrap().len();
        device(path.to_str().unwrap()).set_len(full - 1).unwrap();
        match Embedded::open(directory.path()) {
            Ok(store) => assert!(!refused && everything(&store).0.is_empty()),
            Err(error) => assert!(refused, "{error:?}"),
        }
    }
}

#[test]
fn a_gap_in_the_revisions_is_damage() {
    for revision in [3, 5] {
        let (directory, store) = open();
        let states = three_commits(&store, Durability::Process);
        drop(store);
        let path = log_path(directory.path());
        let end = states[3].0;
        let mut record = Vec::new();
        record::push_commit(&mut record, end, end, Revision(revision), &[]);
        device(path.to_str().unwrap())
            .write_all_at(&record, end)
            .unwrap();
        let error = replay_error(directory.path());
        let fault = RecordFault::Content;
        assert!(
            matches!(error, ReplayError::Damaged { offset, fault: found } if offset == end && found == fault),
            "{error}"
        );
    }
}

#[test]
fn a_whole_record_without_a_meaning_is_damage_even_at_the_end() {
    let (directory, store) = open();
    let end = three_commits(&store, Durability::Process)[3].0;
    drop(store);
    let mut record = Vec::new();
    record::push_record(&mut record, end, |payload| payload.push(9));
    let path = log_path(directory.path());
    device(path.to_str().unwrap())
        .write_all_at(&record, end)
        .unwrap();
    let error = replay_error(directory.path());
    assert!(
        matches!(error, ReplayError::Damaged { offset, .. } if offset == end),
        "{error}"
    );
}

#[test]
fn a_foreign_file_and_a_newer_format_are_refused() {
    let (directory, store) = open();
    drop(store);
    let path = log_path(directory.path());
    let mut log = fs::read(&path).unwrap();
    log[8] = 2;
    fs::write(&path, &log).unwrap();
    assert!(matches!(
        replay_error(directory.path()),
        ReplayError::Version { found: 2 }
    ));
    log[0] = b'X';
    fs::write(&path, &log).unwrap();
    assert!(matches!(
        replay_error(directory.path()),
        ReplayError::Foreign
    ));
    assert_eq!(fs::read(&path).unwrap(), log);
}

#[test]
fn the_log_is_compacted_when_most_of_it_is_past() {
    let (directory, store) = open();
    let value = [5; 4096];
    let mut longest = 0;
    for n in 0..1000 {
        store
            .commit(set(&format!("k/{}", n % 10), &value), Durability::Process)
            .unwrap();
        longest = longest.max(store.hold_log().unwrap().len());
    }
    assert!(
        longest > COMPACT_BYTES - 5000 && longest <= COMPACT_BYTES,
        "{longest}"
    );
    let before = everything(&store);
    assert_eq!((before.0.len(), before.1), (10, Revision(1000)));
    drop(store);
    assert!(!draft_path(directory.path()).exists());
    assert_eq!(
        everything(&Embedded::open(directory.path()).unwrap()),
        before
    );
}

#[test]
fn a_large_live_set_is_not_compacted_and_survives_a_rewrite_of_many_records() {
    let (directory, store) = open();
    for n in 0..40 {
        store
            .commit(set(&format!("k/{n}"), &[n; 100_000]), Durability::Process)
            .unwrap();
    }
    assert!(store.hold_log().unwrap().len() > 4_000_000);
    let before = everything(&store);
    let snapshot = store.snapshot().unwrap();
    store.hold_log().unwrap().rewrite(&snapshot).unwrap();
    store
        .commit(set("after", b""), Durability::Process)
        .unwrap();
    drop(store);
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(
        store.recovery(),
        Recovery {
            commits: 1,
            torn: None
        }
    );
    store.commit(delete("after"), Durability::Process).unwrap();
    assert_eq!(everything(&store).0, before.0);
}

#[test]
fn a_compaction_that_fails_costs_only_space() {
    let (directory, store) = open();
    // A directory in the place of the draft stands for a disk that refuses it.
    fs::create_dir(draft_path(directory.path())).unwrap();
    for _ in 0..300 {
        store
            .commit(set("a", &[5; 4096]), Durability::Process)
            .unwrap();
    }
    let long = store.hold_log().unwrap().len();
    assert!(long > COMPACT_BYTES);
    fs::remove_dir(draft_path(directory.path())).unwrap();
    for _ in 0..300 {
        store
            .commit(set("a", &[6; 4096]), Durability::Process)
            .unwrap();
    }
    assert!(store.hold_log().unwrap().len() < long);
}

#[test]
fn a_crash_at_any_step_of_a_compaction_loses_nothing() {
    let (directory, store) = open();
    three_commits(&store, Durability::Process);
    let before = everything(&store);
    let snapshot = store.snapshot().unwrap();
    let old = fs::read(log_path(directory.path())).unwrap();
    store.hold_log().unwrap().rewrite(&snapshot).unwrap();
    drop(store);
    let new = fs::read(log_path(directory.path())).unwrap();
    assert_ne!(old, new);
    // Before the rename: any part of the draft beside the old log. After it: the new log alone.
    let parts = (0..=new.len()).map(|len| (&old, Some(&new[..len])));
    for (log, draft) in parts.chain([(&new, None)]) {
        let directory = TempDir::new().unwrap();
        fs::write(log_path(directory.path()), log).unwrap();
        if let Some(draft) = draft {
            fs::write(draft_path(directory.path()), draft).unwrap();
        }
        let store = Embedded::open(directory.path()).unwrap();
        assert_eq!(everything(&store), before);
        assert!(!draft_path(directory.path()).exists());
    }
}

#[test]
fn a_crash_while_the_store_is_made_leaves_an_empty_one() {
    let directory = TempDir::new().unwrap();
    fs::write(draft_path(directory.path()), b"tombo").unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(everything(&store), (Vec::new(), Revision(0)));
}
