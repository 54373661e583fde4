use proptest::prelude::*;

use super::*;

const T0: Duration = Duration::from_secs(1_000);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The plan as pairs of server and milliseconds.
fn plan(memory: &Memory<u8>, servers: &[u8], now: Duration, turn: u32) -> Vec<(u8, u128)> {
    memory
        .plan(servers, now, turn)
        .into_iter()
        .map(|step| (step.server, step.after.as_millis()))
        .collect()
}

/// The servers in the order that they are first asked.
fn order(memory: &Memory<u8>, servers: &[u8], now: Duration) -> Vec<u8> {
    let mut seen = BTreeSet::new();
    let mut order = Vec::new();
    for step in memory.plan(servers, now, 1) {
        if seen.insert(step.server) {
            order.push(step.server);
        }
    }
    order
}

fn kill(memory: &mut Memory<u8>, server: u8, now: Duration) {
    memory.failed(&server, Failure::Silent, now);
    memory.failed(&server, Failure::Silent, now);
}

#[test]
fn unknown_servers_are_asked_in_order_and_once_more() {
    let memory = Memory::new();
    assert_eq!(plan(&memory, &[], T0, 0), []);
    assert_eq!(plan(&memory, &[7], T0, 0), [(7, 0), (7, 1_000)]);
    assert_eq!(
        plan(&memory, &[9, 3, 9, 5], T0, 0),
        [
            (9, 0),
            (3, 200),
            (5, 400),
            (9, 1_000),
            (3, 1_200),
            (5, 1_400)
        ]
    );
}

#[test]
fn the_next_server_waits_for_twice_the_usual_time_within_bounds() {
    for (took, hedge) in [
        (1, 50),
        (25, 50),
        (26, 52),
        (199, 398),
        (200, 400),
        (4_000, 400),
    ] {
        let mut memory = Memory::new();
        memory.answered(&1, ms(took), T0);
        assert_eq!(plan(&memory, &[1, 2], T0, 0)[1], (2, hedge), "{took} ms");
    }
    let mut memory = Memory::new();
    memory.answered(&1, ms(80), T0);
    memory.answered(&1, ms(160), T0);
    assert_eq!(memory.usual_time(&1), Some(ms(90)));
    assert_eq!(memory.usual_time(&2), None);
}

#[test]
fn order_is_kept_unless_another_is_much_faster() {
    let mut memory = Memory::new();
    memory.answered(&1, ms(100), T0);
    memory.answered(&2, ms(1), T0);
    assert_eq!(order(&memory, &[1, 2], T0), [1, 2], "not by much");
    memory.answered(&3, ms(201), T0);
    assert_eq!(order(&memory, &[3, 4, 2], T0), [4, 2, 3]);
    assert_eq!(order(&memory, &[3, 4], T0), [3, 4], "nobody is faster");
    assert_eq!(
        order(&memory, &[3, 4, 2], T0 + MEASURED),
        [3, 4, 2],
        "old news"
    );
}

#[test]
fn a_dead_server_goes_last_and_comes_back_when_it_answers() {
    let mut memory = Memory::new();
    memory.failed(&1, Failure::Silent, T0);
    assert!(!memory.is_dead(&1), "one packet may be lost");
    assert_eq!(order(&memory, &[1, 2], T0), [1, 2]);
    memory.failed(&1, Failure::Silent, T0);
    assert!(memory.is_dead(&1));
    assert_eq!(order(&memory, &[1, 2], T0), [2, 1]);
    assert_eq!(
        order(&memory, &[1, 2], T0 + secs(3_600)),
        [2, 1],
        "time alone revives nothing"
    );
    memory.answered(&1, ms(10), T0);
    assert_eq!(order(&memory, &[1, 2], T0), [1, 2]);
    memory.failed(&1, Failure::Unreachable, T0);
    assert!(memory.is_dead(&1), "the network knows");
}

#[test]
fn a_dead_server_is_probed_beside_the_best_one_from_time_to_time() {
    let mut memory = Memory::new();
    kill(&mut memory, 1, T0);
    let due = T0 + limits::DEAD_MIN;
    assert_eq!(plan(&memory, &[1, 2], due - ms(1), 0)[0], (2, 0));
    assert_eq!(plan(&memory, &[1, 2], due - ms(1), 0)[1], (1, 200));
    assert_eq!(plan(&memory, &[1, 2], due, 0)[..2], [(2, 0), (1, 0)]);
    assert_eq!(plan(&memory, &[1, 2], due, PROBE_EVERY)[1], (1, 0));
    assert_eq!(plan(&memory, &[1, 2], due, PROBE_EVERY + 1)[1], (1, 200));
}

#[test]
fn a_server_is_left_alone_twice_as_long_each_time() {
    let mut memory = Memory::new();
    let mut now = T0;
    let is_due = |memory: &Memory<u8>, now| plan(memory, &[1, 2], now, 0)[1] == (1, 0);
    for wait in [1, 2, 4, 8, 16, 30, 30] {
        for _ in 0..50 {
            // Many queries in flight fail together: one outage.
            memory.failed(&1, Failure::Silent, now);
            memory.failed(&1, Failure::Silent, now);
        }
        assert!(!is_due(&memory, now + secs(wait) - ms(1)), "{wait}");
        now += secs(wait);
        assert!(is_due(&memory, now), "{wait}");
    }
    memory.answered(&1, ms(1), now);
    kill(&mut memory, 1, now);
    assert!(is_due(&memory, now + limits::DEAD_MIN));
}

#[test]
fn all_dead_servers_are_asked_within_a_second_two_at_once() {
    let mut memory = Memory::new();
    for server in 1..=4 {
        kill(&mut memory, server, T0);
    }
    let steps = plan(&memory, &[1, 2, 3, 4], T0, 1);
    assert_eq!(steps[..4], [(1, 0), (2, 0), (3, 250), (4, 500)]);
    assert_eq!(steps.len(), 8);
    assert_eq!(plan(&memory, &[3], T0, 1), [(3, 0), (3, 1_000)]);
}

#[test]
fn refusals_put_a_server_behind_others_but_it_is_alive() {
    let mut memory = Memory::new();
    kill(&mut memory, 3, T0);
    for _ in 0..REFUSALS - 1 {
        memory.failed(&1, Failure::Unwilling, T0);
    }
    assert_eq!(order(&memory, &[1, 2], T0), [1, 2]);
    memory.failed(&1, Failure::Unwilling, T0);
    assert_eq!(order(&memory, &[3, 1, 2], T0), [2, 1, 3]);
    assert!(!memory.is_dead(&1));
    assert_eq!(order(&memory, &[1, 2], T0 + REFUSED), [1, 2]);
    memory.answered(&1, ms(1), T0);
    assert_eq!(order(&memory, &[1, 2], T0), [1, 2]);
    memory.failed(&3, Failure::Unwilling, T0);
    assert!(!memory.is_dead(&3), "whoever refuses is alive");
}

#[test]
fn quirks_are_spared_for_a_while() {
    let mut memory = Memory::new();
    let form = |edns, mixed_case| Form { mixed_case, edns };
    memory.found(&1, Quirk::Edns, T0);
    memory.found(&2, Quirk::MixedCase, T0);
    memory.answered(&1, ms(1), T0);
    let last = T0 + limits::QUIRK_MAX - ms(1);
    for (server, spared) in [
        (1, form(false, true)),
        (2, form(true, false)),
        (3, Form::default()),
    ] {
        assert_eq!(memory.form(&server, last), spared);
        assert_eq!(memory.form(&server, last + ms(1)), Form::default());
    }
}

#[test]
fn only_so_many_servers_are_asked() {
    let servers: Vec<u8> = (0..20).collect();
    let asked = order(&Memory::new(), &servers, T0);
    assert_eq!(asked, servers[..limits::QUESTION_SERVERS_MAX]);
}

#[test]
fn only_so_many_servers_are_remembered() {
    let mut memory = Memory::new();
    for server in 0..limits::UPSTREAMS_MAX {
        memory.answered(&server, ms(1), T0);
    }
    assert_eq!(memory.len(), limits::UPSTREAMS_MAX);
    memory.answered(&0, ms(1), T0);
    memory.failed(&limits::UPSTREAMS_MAX, Failure::Silent, T0);
    assert_eq!(memory.len(), limits::UPSTREAMS_MAX);
    assert!(memory.usual_time(&0).is_some(), "heard of since");
    assert!(memory.usual_time(&1).is_none(), "forgotten");
}

#[test]
fn the_limits_leave_time_for_the_last_answer() {
    assert!(limits::QUESTION_PATIENCE < secs(5), "what glibc waits");
    assert!(limits::QUESTION_LAST_STEP + limits::QUESTION_RETRY <= limits::QUESTION_PATIENCE);
}

fn reports() -> impl Strategy<Value = Vec<(u8, u8, u64, u64)>> {
    prop::collection::vec((0_u8..6, 0_u8..4, 0_u64..3_000, 0_u64..20_000), 0..40)
}

proptest! {
    #[test]
    fn a_plan_is_sorted_bounded_and_asks_everyone_it_may(
        reports in reports(),
        servers in prop::collection::vec(0_u8..12, 0..14),
        turn: u32,
    ) {
        let mut memory = Memory::new();
        let mut now = T0;
        for (server, report, took, later) in reports {
            now += ms(later);
            match report {
                0 => memory.answered(&server, ms(took), now),
                1 => memory.failed(&server, Failure::Silent, now),
                2 => memory.failed(&server, Failure::Unreachable, now),
                _ => memory.failed(&server, Failure::Unwilling, now),
            }
        }
        let steps = memory.plan(&servers, now, turn);
        let distinct: BTreeSet<&u8> = servers.iter().collect();
        prop_assert!(steps.is_sorted_by_key(|step| step.after));
        prop_assert!(steps.iter().all(|step| step.after <= limits::QUESTION_LAST_STEP));
        prop_assert_eq!(steps.first().map(|step| step.after), (!servers.is_empty()).then_some(Duration::ZERO));
        let asked: BTreeSet<&u8> = steps.iter().map(|step| &step.server).collect();
        prop_assert_eq!(asked.len(), distinct.len().min(limits::QUESTION_SERVERS_MAX));
        prop_assert!(asked.is_subset(&distinct));
        for server in asked {
            let times: Vec<Duration> =
                steps.iter().filter(|step| step.server == *server).map(|step| step.after).collect();
            prop_assert!(times.len() <= 2);
            if let [first, second] = times[..] {
                prop_assert!(second - first >= limits::QUESTION_RETRY);
            }
        }
        if servers.iter().all(|server| memory.is_dead(server)) {
            let first_round = &steps[..distinct.len().min(limits::QUESTION_SERVERS_MAX)];
            prop_assert!(first_round.iter().all(|step| step.after < secs(1)));
        }
        if let Some(best) = steps.first().filter(|_| distinct.iter().any(|s| !memory.is_dead(s))) {
            prop_assert!(!memory.is_dead(&best.server));
        }
    }
}
