use tombolo_store::limits::COMMIT_WRITES;

use super::*;

/// More than one commit takes, by count and by size, with values as large as the store allows.
#[test]
fn writes_beyond_the_limits_of_a_commit_are_stored_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    let large = tombolo_store::limits::VALUE_BYTES;
    let sizes = std::iter::repeat_n(10, 2 * COMMIT_WRITES + 1)
        .chain([large; 3])
        .chain([1]);
    let writes: Vec<_> = sizes
        .enumerate()
        .map(|(n, size)| store_write(&format!("k/{n}"), Some(vec![7; size])).unwrap())
        .collect();
    let count = writes.len();
    commit_in_parts(&store, writes, Durability::Process).unwrap();
    let (stored, _) = store.list(&tombolo_store::Prefix::all()).unwrap();
    assert_eq!(stored.len(), count);
}

#[test]
fn a_write_that_no_commit_takes_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    let value = vec![7; tombolo_store::limits::VALUE_BYTES + 1];
    let write = store_write("k/0", Some(value)).unwrap();
    assert!(commit_in_parts(&store, vec![write], Durability::Process).is_err());
    assert!(store_write("Not A Key", None).is_err());
}

#[test]
fn the_clock_never_steps_back() {
    let first = now_ms();
    assert!(first > 1_600_000_000_000);
    assert!((0..1_000).map(|_| now_ms()).is_sorted());
    assert!(now_ms() >= first);
}
