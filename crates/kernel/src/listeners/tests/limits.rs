//! Many listeners, and too many.

use std::time::Instant;

use super::*;
use crate::limits::LISTENER_FILES_SPARE;

fn numbered(number: usize) -> ListenerKey {
    let [_, a, b, c] = u32::try_from(number + 256).unwrap().to_be_bytes();
    key(&Netns::Host, &format!("127.{a}.{b}.{c}"))
}

/// How long `work` took.
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let done = work();
    println!("{what}: {:?}", begin.elapsed());
    done
}

#[test]
fn a_thousand_sandboxes_are_found_again_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let mut wanted = Objects::new();
        let keys: Vec<_> = (0..1000)
            .map(|number| key(&owned(&format!("sb{number}")), RESOLVER))
            .collect();
        keys.iter().for_each(|key| put(&mut wanted, key));
        let mut namespaces = wanted.clone();
        namespaces.retain(|key, _| matches!(key, Key::Netns(_)));
        timed("1000 namespaces made", || {
            must_apply(&kernel, &namespaces, &Objects::new());
        });
        let mut one = namespaces.clone();
        put(&mut one, &keys[0]);
        let plan = plan(&one, &namespaces);
        timed("one listener opened", || {
            assert!(kernel.apply(&plan).is_done())
        });
        timed("999 more", || must_apply(&kernel, &wanted, &one));
        drop(kernel);
        let kernel = timed("kernel opened with 1000", || open(fixture));
        let seen = timed("all observed", || observe(&kernel));
        assert!(seen == wanted, "{} objects", seen.len());
        timed("told of all", || {
            assert_eq!(changes(&kernel).try_iter().count(), 1000)
        });
        let rest = without(&wanted, &keys[0]);
        let first = self::plan(&rest, &wanted);
        timed("one closed", || assert!(kernel.apply(&first).is_done()));
        let others = self::plan(&namespaces, &rest);
        timed("999 more", || assert!(kernel.apply(&others).is_done()));
        must_apply(&kernel, &Objects::new(), &namespaces);
    });
}

fn without(all: &Objects, key: &ListenerKey) -> Objects {
    let mut rest = all.clone();
    rest.remove(&Key::Listener(key.clone()));
    rest
}

#[test]
fn one_more_than_the_most_is_refused_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let changes = changes(&kernel);
        let first = numbered(0);
        let mut wanted = Objects::new();
        put(&mut wanted, &first);
        must_apply(&kernel, &wanted, &Objects::new());
        let sockets = next_opened(&changes, &first);
        // As if there were so many, without as many sockets.
        let pretended = (1..LISTENERS_MAX - 1).map(|number| {
            let held = Held {
                sockets: sockets.clone(),
                netns_inode: None,
            };
            (numbered(number), held)
        });
        lock(&kernel.listeners.table).held.extend(pretended);
        let held = observe(&kernel);
        assert_eq!(held.len(), LISTENERS_MAX - 1);
        let (last, refused) = (numbered(LISTENERS_MAX), numbered(LISTENERS_MAX + 1));
        let mut more = held.clone();
        put(&mut more, &last);
        put(&mut more, &refused);
        assert_eq!(
            failure(&kernel, &more, &held),
            format!("cannot open listener {refused}: there are no more than 16384 listeners")
        );
        assert_answers(&kernel, &last, &next_opened(&changes, &last));
    });
}

#[test]
fn without_files_to_open_only_that_one_is_refused_netns() {
    on_host(|fixture| {
        let kernel = open(fixture);
        let before = (0..10).map(numbered).collect::<Vec<_>>();
        let mut wanted = Objects::new();
        before.iter().for_each(|key| put(&mut wanted, key));
        must_apply(&kernel, &wanted, &Objects::new());
        // As if so many files were open: all numbers from this one on are spoken for.
        let next = std::fs::File::open("/").unwrap();
        let highest = u64::from(std::os::fd::AsRawFd::as_raw_fd(&next).unsigned_abs());
        let limit = highest + LISTENER_FILES_SPARE + 2;
        drop(next);
        let restore = sys::ports::lower_open_files(limit).unwrap();
        let mut more = wanted.clone();
        let (fits, refused) = (numbered(10), numbered(11));
        put(&mut more, &fits);
        put(&mut more, &refused);
        let text = failure(&kernel, &more, &wanted);
        assert_eq!(
            text,
            format!(
                "cannot open listener {refused}: no more than {limit} files can be open; raise the limit \
                 (LimitNOFILE=)"
            )
        );
        more.remove(&Key::Listener(refused));
        assert_eq!(observe(&kernel), more);
        sys::ports::lower_open_files(highest).unwrap();
        let text = failure(&kernel, &wanted_with(&more, 12), &more);
        assert!(text.contains("no more than"), "{text}");
        sys::ports::lower_open_files(restore).unwrap();
        must_apply(&kernel, &wanted_with(&more, 12), &more);
    });
}

fn wanted_with(others: &Objects, number: usize) -> Objects {
    let mut all = others.clone();
    put(&mut all, &numbered(number));
    all
}
