//! The embedded store against a map, through any number of restarts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tombolo_store::{
    CommitError, Durability, Embedded, Expect, Key, Prefix, Revision, Store, Versioned, Write,
};

/// A value: this many times this byte.
type Content = (u8, usize);

type Model = BTreeMap<String, (Vec<u8>, u64)>;

#[derive(Debug, Clone)]
enum Step {
    Commit {
        writes: Vec<(u8, Option<Content>, Expectation)>,
        power: bool,
    },
    Flush,
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Expectation {
    Any,
    Absent,
    Present,
    Stale,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let expectation = prop_oneof![
        4 => Just(Expectation::Any),
        1 => Just(Expectation::Absent),
        3 => Just(Expectation::Present),
        1 => Just(Expectation::Stale),
    ];
    let value = prop::option::weighted(0.7, (any::<u8>(), 0usize..30_000));
    let writes = prop::collection::vec((0u8..6, value, expectation), 0..4);
    let step = prop_oneof![
        20 => (writes, prop::bool::weighted(0.1))
            .prop_map(|(writes, power)| Step::Commit { writes, power }),
        1 => Just(Step::Flush),
        2 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..120)
}

/// The commit as it is asked for, and what the model becomes by it, or `None` if it is refused.
fn plan(
    model: &Model,
    revision: u64,
    asked: &[(u8, Option<Content>, Expectation)],
) -> (Vec<Write>, Option<(Model, u64)>) {
    let (mut writes, mut next, mut allowed) = (Vec::new(), model.clone(), true);
    let mut seen = Vec::new();
    for (n, value, expectation) in asked {
        let name = format!("k/{n}");
        let present = model.get(&name).map(|(_, at)| *at);
        let expect = match (expectation, present) {
            (Expectation::Any, _) | (Expectation::Present, None) => Expect::Any,
            (Expectation::Absent, _) => Expect::Absent,
            (Expectation::Present, Some(at)) => Expect::At(Revision(at)),
            (Expectation::Stale, _) => Expect::At(Revision(revision + 1)),
        };
        allowed &= match expect {
            Expect::Any => true,
            Expect::Absent => present.is_none(),
            Expect::At(at) => present == Some(at.0),
        };
        allowed &= !seen.contains(n);
        seen.push(*n);
        let key = Key::new(&name).unwrap();
        match value.map(|(byte, count)| vec![byte; count]) {
            Some(value) => {
                next.insert(name, (value.clone(), revision + 1));
                writes.push(Write::Put { key, value, expect });
            }
            None => {
                next.remove(&name);
                writes.push(Write::Delete { key, expect });
            }
        }
    }
    let changed = *model != next;
    (
        writes,
        allowed.then_some((next, revision + u64::from(changed))),
    )
}

fn listed(store: &Embedded) -> (Model, u64) {
    let (entries, revision) = store.list(&Prefix::all()).unwrap();
    let entry = |(key, Versioned { value, revision }): (Key, Versioned)| {
        (key.as_str().to_owned(), (value.to_vec(), revision.0))
    };
    (entries.into_iter().map(entry).collect(), revision.0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map_that_survives(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Embedded::open(directory.path()).unwrap();
        let (mut model, mut revision) = (Model::new(), 0);
        let (mut seen, mut watch) = (Model::new(), store.watch(&Prefix::all(), Revision(0)).unwrap());
        for step in steps {
            match step {
                Step::Commit { writes, power } => {
                    let durability = if power { Durability::Power } else { Durability::Process };
                    let (writes, planned) = plan(&model, revision, &writes);
                    match (store.commit(writes, durability), planned) {
                        (Ok(got), Some((next, expected))) => {
                            prop_assert_eq!(got.0, expected);
                            (model, revision) = (next, expected);
                            prop_assert!(!power || !store.needs_flush());
                        }
                        (Err(CommitError::Conflict { .. } | CommitError::DuplicateKey { .. }), None) => {}
                        (got, planned) => prop_assert!(false, "{got:?} for {planned:?}"),
                    }
                }
                Step::Flush => {
                    store.flush().unwrap();
                    prop_assert!(!store.needs_flush());
                }
                Step::Reopen => {
                    drop(store);
                    store = Embedded::open(directory.path()).unwrap();
                    watch = store.watch(&Prefix::all(), Revision(revision)).unwrap();
                    seen = model.clone();
                    prop_assert_eq!(store.recovery().torn, None);
                }
            }
            prop_assert_eq!(listed(&store), (model.clone(), revision));
            while let Some(change) = watch.next_within(Duration::ZERO).unwrap() {
                let name = change.key.as_str().to_owned();
                match change.value {
                    Some(value) => seen.insert(name, (value.to_vec(), change.revision.0)),
                    None => seen.remove(&name),
                };
            }
            prop_assert_eq!(&seen, &model);
        }
    }
}
