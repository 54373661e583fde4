//! Dying on purpose, for tests: a debug build with `TOMBOLO_CRASH_AFTER=N` in its environment carries out N
//! operations of its plans and then kills itself, as `kill -9` would; with `TOMBOLO_CRASH_ANSWERING=METHOD` it does so
//! when it has done what an engine asked by that method, and before it says so. A release build never does.

use tombolo_netstate::{Plan, Report};

/// Carries out `plan`, or as much of it as there is to live for.
pub(crate) fn apply(plan: &Plan, carry_out: impl Fn(&Plan) -> Report) -> Report {
    #[cfg(debug_assertions)]
    if let Some(left) = armed::operations_left(plan.ops.len()) {
        let part = Plan {
            ops: plan.ops.iter().take(left).cloned().collect(),
            edges: vec![],
        };
        drop(carry_out(&part));
        armed::die();
    }
    carry_out(plan)
}

/// Lives on, unless this is the method whose answer is never to come.
pub(crate) fn answering(path: &str) {
    #[cfg(debug_assertions)]
    if std::env::var("TOMBOLO_CRASH_ANSWERING").is_ok_and(|method| path.ends_with(&method)) {
        armed::die();
    }
    #[cfg(not(debug_assertions))]
    let _ = path;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static LEFT: OnceLock<Option<AtomicUsize>> = OnceLock::new();

    /// How many of `wanted` operations may still be carried out, if that is fewer than all.
    pub(super) fn operations_left(wanted: usize) -> Option<usize> {
        let left = LEFT.get_or_init(|| {
            let text = std::env::var("TOMBOLO_CRASH_AFTER").ok()?;
            text.parse().ok().map(AtomicUsize::new)
        });
        let left = left.as_ref()?;
        let before = left.load(Ordering::Relaxed);
        if before < wanted || (before == 0 && wanted == 0) {
            return Some(before);
        }
        left.store(before - wanted, Ordering::Relaxed);
        None
    }

    pub(super) fn die() -> ! {
        let me = rustix::process::getpid();
        match rustix::process::kill_process(me, rustix::process::Signal::KILL) {
            // Only one of the two comes first.
            Ok(()) | Err(_) => std::process::abort(),
        }
    }
}
