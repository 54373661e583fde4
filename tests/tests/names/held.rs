//! What the daemon and its keeper hold: descriptors, sockets and memory.

use tombolo_lab::node::wait_until;
use tombolo_tests::Stage;
use tombolo_tests::stage::PATIENCE;

/// Kilobytes by which the daemon may have grown: what the allocator keeps, and caches that fill.
const GROWTH_KB: usize = 64 * 1024;

/// What is held at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) daemon: usize,
    keeper: usize,
    pub(crate) memory_kb: usize,
}

impl Held {
    pub(crate) fn now(stage: &Stage) -> Self {
        let daemon = stage.daemon_pid().unwrap().to_string();
        let number = |script: String| stage.shell(&script).parse().unwrap();
        let count = |pid: &str| number(format!("ls /proc/{pid}/fd | wc -l"));
        Self {
            daemon: count(&daemon),
            keeper: count(&keeper(stage)),
            memory_kb: number(format!("awk '/VmRSS/ {{print $2}}' /proc/{daemon}/status")),
        }
    }

    /// Asserts that no more is held than before, once what is under way has ended.
    #[track_caller]
    pub(crate) fn assert_same(self, stage: &Stage) {
        let mut now = self;
        // An idle connection to the daemon may come or go.
        let same = wait_until(PATIENCE, || {
            now = Self::now(stage);
            now.daemon <= self.daemon + 2
                && now.keeper <= self.keeper
                && now.memory_kb <= self.memory_kb + GROWTH_KB
        });
        println!("before {self:?}, after {now:?}");
        assert!(same, "before {self:?}, after {now:?}");
    }
}

/// The keeper's process, as the node sees it.
pub(crate) fn keeper(stage: &Stage) -> String {
    let listed = stage.shell("ps -eo pid,comm,args | grep tombolo-keeper | grep -v grep || true");
    let first = listed.lines().next().unwrap_or_default();
    let pid = first.split_whitespace().next();
    pid.unwrap_or_else(|| panic!("no keeper: {listed}"))
        .to_owned()
}

/// How many veths end on the node: each goes with its namespace.
pub(crate) fn veths(stage: &Stage) -> usize {
    let listed = stage.shell("ip -o link show type veth | wc -l");
    listed.parse().unwrap()
}
