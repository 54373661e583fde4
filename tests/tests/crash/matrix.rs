//! The daemon dies after every single operation of every command, one after the other.

use std::time::Duration;

use tombolo_api::{
    Client, EndpointCreate, EndpointSettings, NetworkConnect, NetworkDisconnect, SandboxState,
};
use tombolo_lab::node::wait_until;
use tombolo_tests::Stage;

use crate::ports::{assert_published, assert_taken, taken};
use crate::scene::{
    Answer, PATIENCE, addresses, assert_in_touch, make_network, make_sandbox, records, restart,
    scene, start,
};

/// Most operations of a command here.
const OPERATIONS_MAX: usize = 160;
/// How long an answered command's daemon is watched for a later death.
const AFTERMATH: Duration = Duration::from_millis(150);

/// A command that is interrupted.
pub(crate) struct Case {
    /// Makes what the command needs.
    pub(crate) setup: fn(&mut Client) -> Answer,
    /// The command.
    pub(crate) command: fn(&mut Client) -> Answer,
    /// Takes back what the command did.
    pub(crate) undo: fn(&mut Client) -> Answer,
    /// An unanswered command goes on after the restart, as those do that make nothing new; others are withdrawn.
    pub(crate) goes_on: bool,
    /// Fewest operations of the command.
    pub(crate) least: usize,
}

/// Interrupts a case after 0, 1, 2 ... operations, until it survives.
pub(crate) fn interrupt(case: &Case) {
    let Some(mut stage) = scene() else { return };
    (case.setup)(&mut stage.client()).unwrap();
    let (end, expected) = rehearse(case, &mut stage);
    let mut before = Look::at(&stage);
    for limit in 0..OPERATIONS_MAX {
        let known = records(&stage);
        stage.kill().unwrap();
        start(&mut stage, &[("TOMBOLO_CRASH_AFTER", &limit.to_string())]);
        let answer = (case.command)(&mut stage.client());
        let died = stage
            .await_end(if answer.is_ok() { AFTERMATH } else { PATIENCE })
            .unwrap();
        assert!(
            died || answer.is_ok(),
            "refused after {limit} operations: {answer:?}"
        );
        if died {
            start(&mut stage, &[]);
        }
        let done = answer.is_ok() || case.goes_on;
        if case.goes_on {
            end.assert_again(&stage, limit);
        } else if !done {
            before.assert_again(&stage, limit);
            assert_eq!(records(&stage), known, "records after {limit} operations");
            (case.command)(&mut stage.client()).unwrap_or_else(|e| panic!("again, {limit}: {e}"));
        }
        assert_eq!(
            addresses(&stage),
            expected,
            "addresses after {limit} operations"
        );
        stage.assert_in_place();
        assert_in_touch(&stage, "p", "q");
        assert_probe_in_touch(&stage);
        if !died {
            assert!(
                limit >= case.least,
                "the command has only {limit} operations"
            );
            return;
        }
        (case.undo)(&mut stage.client()).unwrap_or_else(|e| panic!("undo, {limit}: {e}"));
        assert_probe_in_touch(&stage);
        if !case.goes_on {
            before.assert_again(&stage, limit);
        }
        before = Look::at(&stage);
    }
    panic!("the command has more than {OPERATIONS_MAX} operations");
}

/// The sandbox `s` of most cases is within reach whenever it runs.
fn assert_probe_in_touch(stage: &Stage) {
    let found = stage.client().sandbox_inspect("s");
    if found.is_ok_and(|sandbox| sandbox.state == SandboxState::Running) {
        assert_in_touch(stage, "p", "s");
        assert_published(stage, "s");
    }
}

type Traces = std::collections::BTreeSet<String>;

/// What there is on the node, and which ports nobody else can have.
struct Look {
    traces: Traces,
    taken: Traces,
}

impl Look {
    fn at(stage: &Stage) -> Self {
        Self {
            traces: stage.traces().unwrap(),
            taken: taken(stage),
        }
    }

    #[track_caller]
    fn assert_again(&self, stage: &Stage, limit: usize) {
        assert_traces(stage, &self.traces, limit);
        assert_taken(stage, &self.taken, &format!("after {limit} operations"));
    }
}

/// Carries the case out without a crash, and takes it back; what there was in between, on the node and as
/// addresses.
fn rehearse(
    case: &Case,
    stage: &mut Stage,
) -> (Look, std::collections::BTreeMap<String, Vec<String>>) {
    restart(stage);
    (case.command)(&mut stage.client()).unwrap();
    stage.assert_in_place();
    settle(stage);
    let seen = (Look::at(stage), addresses(stage));
    (case.undo)(&mut stage.client()).unwrap();
    stage.assert_in_place();
    settle(stage);
    seen
}

/// Waits until the kernel removes nothing any more.
fn settle(stage: &Stage) {
    let mut last = Traces::new();
    wait_until(PATIENCE, || {
        let now = stage.traces().unwrap();
        std::mem::replace(&mut last, now.clone()) == now
    });
}

#[track_caller]
fn assert_traces(stage: &Stage, expected: &Traces, limit: usize) {
    let expected = without_counts(expected);
    let look = || without_counts(&stage.traces().unwrap());
    let same = wait_until(PATIENCE, || look() == expected);
    let now = look();
    let more: Vec<_> = now.difference(&expected).collect();
    let less: Vec<_> = expected.difference(&now).collect();
    assert!(
        same,
        "after {limit} operations there is also {more:#?}, and there is no {less:#?}"
    );
}

/// Traces in which the names that count attempts, those of veths and namespaces, and the relay's port are alike. How many there are
/// of each still counts.
fn without_counts(traces: &Traces) -> Traces {
    let alike = |word: &str| {
        let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match word
            .strip_prefix("tv")
            .filter(|rest| rest.len() == 12 && hex(rest))
        {
            Some(_) => "tv".to_owned(),
            None if word.contains("/netns/") => word
                .trim_end_matches(|c: char| c.is_ascii_digit())
                .to_owned(),
            None => word.to_owned(),
        }
    };
    let mut seen = std::collections::BTreeMap::new();
    let lines = traces
        .iter()
        .map(|line| line.split(' ').map(alike).collect::<Vec<_>>().join(" "));
    lines
        .map(without_relay)
        .map(|line| {
            let times = seen.entry(line.clone()).or_insert(0);
            *times += 1;
            format!("{line} #{times}")
        })
        .collect()
}

/// The relay's own port is another one after each start at which nothing is published.
fn without_relay(line: String) -> String {
    match line.rsplit_once(" : ") {
        Some((key, data)) => match data.split_once(" . ") {
            Some((port, same)) if port == same && port.parse::<u16>().is_ok() => {
                format!("{key} : relay")
            }
            _ => line,
        },
        None => line,
    }
}

pub(crate) fn nothing(_: &mut Client) -> Answer {
    Ok(())
}

fn make_s(client: &mut Client) -> Answer {
    make_sandbox(client, "s", &["one", "two"])
}

pub(crate) fn remove_s(client: &mut Client) -> Answer {
    client.sandbox_delete("s", false)
}

/// A sandbox on `one`, and an endpoint `e` on `two`.
fn make_s_and_e(client: &mut Client) -> Answer {
    make_sandbox(client, "s", &["one"])?;
    let create = EndpointCreate {
        network: "two".to_owned(),
        name: Some("e".to_owned()),
        ..EndpointCreate::default()
    };
    client.endpoint_create(create).map(drop)
}

fn join(client: &mut Client) -> Answer {
    client.endpoint_join("e", "s").map(drop)
}

fn leave(client: &mut Client) -> Answer {
    client.endpoint_leave("e").map(drop)
}

fn connect(client: &mut Client) -> Answer {
    let attachment = EndpointSettings {
        name: Some("s".to_owned()),
        ..EndpointSettings::default()
    };
    let connect = NetworkConnect {
        sandbox: "s".to_owned(),
        attachment,
    };
    client.network_connect("two", connect).map(drop)
}

fn disconnect(client: &mut Client) -> Answer {
    client.network_disconnect(
        "two",
        NetworkDisconnect {
            sandbox: "s".to_owned(),
            force: false,
        },
    )
}

#[test]
fn creating_a_network() {
    interrupt(&Case {
        setup: nothing,
        command: |client| make_network(client, "three"),
        undo: |client| client.network_delete("three"),
        goes_on: false,
        least: 6,
    });
}

#[test]
fn deleting_a_network() {
    interrupt(&Case {
        setup: |client| make_network(client, "three"),
        command: |client| client.network_delete("three"),
        undo: |client| make_network(client, "three"),
        goes_on: true,
        least: 3,
    });
}

#[test]
fn creating_a_sandbox_on_two_networks() {
    interrupt(&Case {
        setup: nothing,
        command: make_s,
        undo: remove_s,
        goes_on: false,
        least: 20,
    });
}

#[test]
fn deleting_a_sandbox() {
    interrupt(&Case {
        setup: make_s,
        command: remove_s,
        undo: make_s,
        goes_on: true,
        least: 3,
    });
}

#[test]
fn stopping_a_sandbox() {
    interrupt(&Case {
        setup: make_s,
        command: |client| client.sandbox_stop("s").map(drop),
        undo: |client| client.sandbox_start("s").map(drop),
        goes_on: true,
        least: 3,
    });
}

#[test]
fn starting_a_sandbox() {
    interrupt(&Case {
        setup: |client| {
            make_s(client)?;
            client.sandbox_stop("s").map(drop)
        },
        command: |client| client.sandbox_start("s").map(drop),
        undo: |client| client.sandbox_stop("s").map(drop),
        goes_on: true,
        least: 20,
    });
}

#[test]
fn joining_an_endpoint() {
    interrupt(&Case {
        setup: make_s_and_e,
        command: join,
        undo: leave,
        goes_on: false,
        least: 8,
    });
}

#[test]
fn taking_an_endpoint_out() {
    interrupt(&Case {
        setup: |client| {
            make_s_and_e(client)?;
            join(client)
        },
        command: leave,
        undo: join,
        goes_on: true,
        least: 2,
    });
}

#[test]
fn connecting_a_sandbox() {
    interrupt(&Case {
        setup: |client| make_sandbox(client, "s", &["one"]),
        command: connect,
        undo: disconnect,
        goes_on: false,
        least: 8,
    });
}

#[test]
fn disconnecting_a_sandbox() {
    interrupt(&Case {
        setup: |client| {
            make_sandbox(client, "s", &["one"])?;
            connect(client)
        },
        command: disconnect,
        undo: connect,
        goes_on: true,
        least: 2,
    });
}
